"""Seats: a commitment's accelerators, and what a node's fault takes of them."""

from datetime import datetime

import pytest

from baseai.finance.period import Period
from baseai.finance.seat import NodeMove, Standing, seat_events
from baseai.finance.sla import availability
from baseai.fleet.node import NodeState
from tests.finance.agreed import HOUR_US, NOVEMBER, at


def standing(node: str, accelerators: int = 8, *, since: datetime = NOVEMBER) -> Standing:
    return Standing(node_id=node, accelerators=accelerators, installed_at=since, state=NodeState.READY)


def fault(node: str, day: int, hours: int) -> list[NodeMove]:
    """Out of service from midnight on for so many hours, by way of a repair."""
    way = [NodeState.READY, NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VERIFYING, NodeState.READY]
    times = [at(day, 0), at(day, 1), at(day, 2), at(day, hours)]
    return [
        NodeMove(at=when, node_id=node, from_state=before, to_state=after)
        for when, before, after in zip(times, way[:-1], way[1:], strict=True)
    ]


@pytest.mark.parametrize(
    ("count", "nodes", "moves", "lost_hours"),
    [
        pytest.param(8, [standing("a")], [], 0, id="all is well"),
        pytest.param(8, [standing("a")], fault("a", 3, 5), 8 * 5, id="the only node is away for five hours"),
        pytest.param(8, [standing("a"), standing("b")], fault("a", 3, 5), 0, id="another one stands in"),
        pytest.param(
            12, [standing("a"), standing("b")], fault("a", 3, 5), 4 * 5, id="it stands in for a part"
        ),
        pytest.param(
            8,
            [standing("a"), standing("b")],
            fault("a", 3, 5) + fault("b", 3, 4),
            8 * 4,
            id="both are away at once",
        ),
        pytest.param(9, [standing("a")], [], 720, id="what never stood is missing"),
        pytest.param(8, [standing("a", since=at(2, 0))], [], 8 * 24, id="a day without anything is lost"),
    ],
)
def test_lost_time_of_seats(
    count: int, nodes: list[Standing], moves: list[NodeMove], lost_hours: int
) -> None:
    events = seat_events("alfa", count, nodes, moves[::-1])
    subjects = [f"alfa/{seat}" for seat in range(1, count + 1)]
    assert availability(events, subjects=subjects, period=Period(2026, 11)).lost_us == lost_hours * HOUR_US


def test_a_node_that_is_cordoned_or_drained_still_serves() -> None:
    moves = [
        NodeMove(at=at(3, 0), node_id="a", from_state=NodeState.READY, to_state=NodeState.DRAINING),
        NodeMove(at=at(4, 0), node_id="a", from_state=NodeState.DRAINING, to_state=NodeState.READY),
    ]
    events = seat_events("alfa", 8, [standing("a")], moves)
    subjects = [f"alfa/{seat}" for seat in range(1, 9)]
    assert availability(events, subjects=subjects, period=Period(2026, 11)).lost_us == 0
