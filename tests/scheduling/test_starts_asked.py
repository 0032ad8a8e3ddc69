"""What one cycle of the real decision asks of the estimates, and what its plan says then."""

import numpy as np

from baseai.scheduling.decide import decide_on
from baseai.scheduling.plan import WaitKind
from baseai.scheduling.snapshot import Snapshot, seconds
from baseai.scheduling.standing import Standing
from baseai.scheduling.starts.asked import line_of, pools_of, running_of, told
from baseai.scheduling.starts.said import Pool, Starts
from tests.scheduling.fleet import H100, NOON, at, gang, lease, node, snapshot

NOON_S = seconds(NOON)


def standing_of(found: Snapshot) -> Standing:
    standing = Standing("best_fit")
    standing.take_in(found, NOON_S)
    return standing


def test_pools_are_what_takes_runs_and_simulated_where_nothing_is_real() -> None:
    nodes = [
        node("a"), node("b", simulated=True), node("c", state="draining"),
        node("d", accelerators=(("L40S", 2),), simulated=True),
    ]  # fmt: skip
    assert pools_of(nodes) == {H100: Pool(milli=16_000), "L40S": Pool(milli=2000, simulated=True)}


def test_the_plan_says_when_those_who_wait_for_room_will_start() -> None:
    queue = [gang(1, 8, run="first", hours=9), gang(1, 4, run="second", hours=9), gang(1, 16, run="giant")]
    leases = [lease("a", 8, hours=2, run="busy", granted_at=at(-1)), lease("b", 4, hours=2, run="half")]
    found = snapshot([node("a"), node("b")], leases, queue)
    standing = standing_of(found)
    plan = decide_on(standing, NOON)
    line = line_of(plan, standing.waiting)
    assert [wait.kind for wait in plan.waits if wait.run_id == "giant"] == [WaitKind.NEVER]
    assert [one.run_id for one in line] == [
        "first"
    ]  # the second is granted, and no instant is right for a giant
    running = running_of(standing.parts.values(), plan.grants, NOON_S)
    assert sorted((shape.milli, start_s - NOON_S) for shape, start_s in running[H100]) == [
        (4000, 0.0),  # granted now
        (4000, 2 * 3600.0),  # a lease of which the start is not said
        (8000, -3600.0),
    ]
    starts = Starts(np.random.default_rng(1))
    for _ in range(20):
        starts.ended(standing.parts["busy"].running.gang.shape, 2 * 3600.0)
        starts.ended(standing.parts["half"].running.gang.shape, 9 * 3600.0)
    after = told(plan, starts.cycle(NOON_S, pools_of(found.nodes), running, line))
    estimates = {wait.run_id: wait.estimate for wait in after.waits}
    assert estimates["giant"] is None
    assert estimates["first"] is not None
    assert estimates["first"].likely_at == at(
        1
    )  # two hours after its start, what fills a node will have ended
    assert after.grants == plan.grants
