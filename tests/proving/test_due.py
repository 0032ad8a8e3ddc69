"""Which test is due, and where a node moves by its verdicts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baseai.fleet.node import NodeEvent, NodeState, moved
from baseai.ground.identity import NodeId
from baseai.proving.due import BurnInSeen, NodeSeen, Occasion, Verdict, due, move_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAY = 7


def node(state: str, *burn_ins: BurnInSeen, idle: bool = True, **models: int) -> NodeSeen:
    found = {name.replace("_", "-"): count for name, count in models.items()} or {"H100-SXM": 8}
    return NodeSeen(
        node_id=NodeId("a"), state=NodeState(state), stay=STAY, models=found, burn_ins=burn_ins, idle=idle
    )


def burnt(verdict: str | None, *, model: str = "H100-SXM", stay: int = STAY, **other: Any) -> BurnInSeen:
    usual: dict[str, Any] = {"asked_at": NOON - timedelta(hours=1)}
    return BurnInSeen(
        model=model, stay=stay, verdict=None if verdict is None else Verdict(verdict), **(usual | other)
    )


def asked(seen: NodeSeen) -> list[tuple[str, str, str]]:
    return [(one.model, one.occasion.value, one.profile) for one in due(seen, NOON)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(node("burn_in"), [("H100-SXM", "joining", "standard")], id="a new node"),
        pytest.param(node("verifying"), [("H100-SXM", "re_entry", "standard")], id="a repaired one"),
        pytest.param(
            node("burn_in", H100_SXM=8, L40S=2, cpu_slot=16),
            [("H100-SXM", "joining", "standard"), ("L40S", "joining", "standard")],
            id="each model, and no slots beside them",
        ),
        pytest.param(
            node("verifying", cpu_slot=2),
            [("cpu-slot", "re_entry", "quick")],
            id="slots where there is nothing else",
        ),
        pytest.param(node("burn_in", burnt(None)), [], id="it is under way"),
        pytest.param(node("burn_in", burnt("void")), [], id="it was stopped: an operator decides"),
        pytest.param(
            node("verifying", burnt("passed", stay=STAY - 1)),
            [("H100-SXM", "re_entry", "standard")],
            id="an earlier pass opens no new door",
        ),
        pytest.param(node("ready"), [("H100-SXM", "periodic", "quick")], id="a ready one that never was"),
        pytest.param(node("ready", idle=False), [], id="not while it is in use"),
        pytest.param(
            node("ready", burnt("void")),
            [("H100-SXM", "periodic", "quick")],
            id="what was stopped told nothing",
        ),
        pytest.param(node("ready", burnt("passed", stay=1)), [], id="a ready one that was this week"),
        pytest.param(
            node("ready", burnt("passed", asked_at=NOON - timedelta(days=8))),
            [("H100-SXM", "periodic", "quick")],
            id="a ready one that was last week",
        ),
        pytest.param(node("ready", cpu_slot=2), [], id="nobody's laptop by itself"),
        pytest.param(node("repairing"), [], id="not while it is repaired"),
        pytest.param(node("cordoned"), [], id="not while it is cordoned"),
    ],
)
def test_what_is_due(seen: NodeSeen, expected: list[tuple[str, str, str]]) -> None:
    assert asked(seen) == expected


@pytest.mark.parametrize(
    ("seen", "event"),
    [
        pytest.param(node("burn_in", burnt("passed")), NodeEvent.ADMIT, id="passed"),
        pytest.param(node("verifying", burnt("passed")), NodeEvent.ADMIT, id="passed again after a repair"),
        pytest.param(node("burn_in", burnt("failed")), NodeEvent.REPAIR, id="failed"),
        pytest.param(
            node("burn_in", burnt("failed"), burnt("passed")), NodeEvent.ADMIT, id="the newest counts"
        ),
        pytest.param(
            node("burn_in", burnt("passed"), H100_SXM=8, L40S=2), None, id="one model is still to come"
        ),
        pytest.param(
            node("burn_in", burnt("passed"), burnt("failed", model="L40S"), H100_SXM=8, L40S=2),
            NodeEvent.REPAIR,
            id="one model failed",
        ),
        pytest.param(node("burn_in", burnt(None)), None, id="under way"),
        pytest.param(node("burn_in", burnt("void")), None, id="stopped"),
        pytest.param(node("verifying", burnt("passed", stay=STAY - 1)), None, id="passed in an earlier stay"),
        pytest.param(node("ready", burnt("failed")), NodeEvent.CORDON, id="a ready node that errs"),
        pytest.param(node("ready", burnt("failed", stay=STAY - 1)), None, id="uncordoned since"),
        pytest.param(node("ready", burnt("passed")), None, id="a ready node that does not"),
    ],
)
def test_where_a_node_moves(seen: NodeSeen, event: NodeEvent | None) -> None:
    move = move_of(seen)
    assert (None if move is None else move.event) == event
    if event is not None:
        assert moved(seen.state, event) is not None, "the move must be in the table"


def test_the_figure_that_failed_goes_into_the_record() -> None:
    move = move_of(node("burn_in", burnt("failed", sentence="gemm fp32: 3 rows came out wrong")))
    assert move is not None
    assert move.sentence == "gemm fp32: 3 rows came out wrong"


def test_every_occasion_has_a_profile() -> None:
    from baseai.proving.due import PROFILE_OF
    from baseai.workloads.burn_in.profile import PROFILES

    assert set(PROFILE_OF) == set(Occasion)
    assert set(PROFILE_OF.values()) <= set(PROFILES)
