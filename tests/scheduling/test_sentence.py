"""The sentences of a terminal, as an operator reads them."""

from baseai.scheduling.decide import decide
from baseai.scheduling.sentence import sentence
from tests.scheduling.fleet import NOON, gang, lease, node, snapshot


def test_sentences() -> None:
    queue = [
        gang(2, 8, run="head", hours=9),
        gang(1, 4, run="long", hours=9),
        gang(1, 16, run="giant"),
    ]
    nodes = [node("a"), node("b"), node("c", state="draining")]
    plan = decide(snapshot(nodes, [lease("a", 4, hours=2), lease("b", 2, hours=1)], queue), NOON)
    head, long, giant = (sentence(wait) for wait in plan.waits)
    assert head == (
        "Waiting, first in the queue. 0 nodes fit now, 2 are needed: 1 not ready, 2 with too few free accelerators. "
        "It would start now with 4 accelerators on each node instead of 8. "
        "It starts by 2026-03-01 14:00 UTC at the latest if no node is lost."
    )
    assert long == (
        "Waiting, number 2 in the queue. It fits now, but would put off head, which was promised its "
        "start. It would start now with a max_duration of 2 h 00 min instead of 9 h 00 min. "
        "By the ends of the leases that stand, not before 2026-03-01 14:00 UTC."
    )
    assert giant == (
        "Waiting, number 3 in the queue. The nodes that are ready could not take it even when empty. "
        "0 nodes fit now, 1 is needed: 1 not ready, 2 with too few free accelerators. "
        "It would start now with 6 accelerators on each node instead of 16."
    )
