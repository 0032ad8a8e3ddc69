"""A window drains its nodes in time, takes them down once empty, and has them tested before they serve again."""

import pytest

from baseai.fleet.node import NodeEvent, NodeState
from baseai.scheduling.maintenance import (
    MaintenanceEvent,
    MaintenanceState,
    NodeInWindow,
    due,
    node_moves,
)
from tests.scheduling.bookings import HOUR, window

N, M = NodeState, MaintenanceState


def node(
    state: NodeState,
    *,
    leases: int = 0,
    drain_h: float = 9.9,
    was: NodeState | None = None,
    returned: bool = False,
) -> NodeInWindow:
    return NodeInWindow(
        node_id="a", state=state, leases=leases, drain_at_s=drain_h * HOUR, was=was, returned=returned
    )


@pytest.mark.parametrize(
    ("state", "seen", "at_h", "event"),
    [
        pytest.param(M.SCHEDULED, node(N.READY, leases=2), 9.8, None, id="nobody is asked too early"),
        pytest.param(M.SCHEDULED, node(N.READY, leases=2), 9.9, NodeEvent.DRAIN, id="it drains in time"),
        pytest.param(M.SCHEDULED, node(N.CORDONED, leases=2), 9.9, NodeEvent.DRAIN, id="a cordoned one too"),
        pytest.param(M.SCHEDULED, node(N.DRAINING, was=N.READY), 9.95, None, id="empty before its time, it waits"),
        pytest.param(M.IN_PROGRESS, node(N.DRAINING, leases=1, was=N.READY), 10.1, None, id="not with somebody on it"),
        pytest.param(M.IN_PROGRESS, node(N.DRAINING, was=N.READY), 10.1, NodeEvent.REPAIR, id="down, once empty"),
        pytest.param(M.IN_PROGRESS, node(N.REPAIRING, was=N.READY), 11.9, None, id="down, until the work is over"),
        pytest.param(M.VERIFYING, node(N.REPAIRING, was=N.READY), 12.0, NodeEvent.VERIFY, id="then it is tested"),
        pytest.param(
            M.VERIFYING, node(N.REPAIRING, was=N.READY, returned=True), 13, None,
            id="one that failed its tests is not tested again for it",
        ),
        pytest.param(M.IN_PROGRESS, node(N.REPAIRING), 10.1, None, id="a node that others repair is left alone"),
        pytest.param(M.IN_PROGRESS, node(N.READY), 10.1, NodeEvent.DRAIN, id="one that comes back meanwhile is taken"),
        pytest.param(M.IN_PROGRESS, node(N.READY, was=N.READY), 10.1, None, id="but not twice: an operator's word"),
        pytest.param(M.CANCELLED, node(N.DRAINING, was=N.READY), 9.95, NodeEvent.CORDON, id="called off: on its way"),
        pytest.param(M.CANCELLED, node(N.CORDONED, was=N.READY), 9.95, NodeEvent.UNCORDON, id="called off: back"),
        pytest.param(M.CANCELLED, node(N.CORDONED, was=N.CORDONED), 9.95, None, id="called off: as it was"),
        pytest.param(
            M.CANCELLED, node(N.CORDONED, was=N.READY, returned=True), 20, None, id="cordoned later by others"
        ),
    ],
)  # fmt: skip
def test_what_a_node_of_a_window_does(
    state: MaintenanceState, seen: NodeInWindow, at_h: float, event: NodeEvent | None
) -> None:
    moves = node_moves(window("w", "a", 10, 12, state=state), [seen], at_h * HOUR)
    assert [move.event for move in moves] == ([] if event is None else [event])


@pytest.mark.parametrize(
    ("state", "seen", "at_h", "event"),
    [
        pytest.param(M.SCHEDULED, node(N.DRAINING, was=N.READY), 9.95, None, id="drained, and not begun"),
        pytest.param(M.SCHEDULED, node(N.DRAINING, was=N.READY), 10, MaintenanceEvent.BEGIN, id="on time"),
        pytest.param(M.IN_PROGRESS, node(N.REPAIRING, was=N.READY), 11.9, None, id="the work goes on"),
        pytest.param(M.IN_PROGRESS, node(N.REPAIRING, was=N.READY), 12, MaintenanceEvent.VERIFY, id="its end"),
        pytest.param(M.VERIFYING, node(N.VERIFYING, was=N.READY, returned=True), 12.1, None, id="tests run"),
        pytest.param(M.VERIFYING, node(N.DRAINING, leases=1, was=N.READY), 12.1, None, id="one never got empty"),
        pytest.param(
            M.VERIFYING, node(N.READY, was=N.READY, returned=True), 12.2, MaintenanceEvent.COMPLETE, id="all are back"
        ),
        pytest.param(
            M.VERIFYING, node(N.REPAIRING, was=N.READY, returned=True), 12.2, MaintenanceEvent.COMPLETE,
            id="one failed its tests: that is a repair now",
        ),
        pytest.param(M.VERIFYING, node(N.RETIRED), 12, MaintenanceEvent.COMPLETE, id="one was never taken"),
    ],
)  # fmt: skip
def test_how_a_window_goes_on(
    state: MaintenanceState, seen: NodeInWindow, at_h: float, event: MaintenanceEvent | None
) -> None:
    assert due(window("w", "a", 10, 12, state=state), [seen], at_h * HOUR) is event
