"""A maintenance window is a time in which nodes are out of service on purpose: some of them, or a whole site.

Invariant: it moves only along TRANSITIONS. From its notice on, no run starts on its nodes that could outlive its start;
what runs there all the same is asked to save and leave in time; and a node comes back only through its re-entry tests.
A node that somebody else has taken meanwhile is left alone. Operators make and cancel windows; the platform's calendar
moves them on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from baseai.fleet.node import NodeEvent, NodeState


class MaintenanceState(StrEnum):
    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    VERIFYING = "verifying"  # the work is over, its nodes are tested
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class MaintenanceEvent(StrEnum):
    BEGIN = "begin"
    VERIFY = "verify"
    COMPLETE = "complete"
    CANCEL = "cancel"


_S, _E = MaintenanceState, MaintenanceEvent
TRANSITIONS: Mapping[tuple[MaintenanceState, MaintenanceEvent], MaintenanceState] = MappingProxyType(
    {
        (_S.SCHEDULED, _E.BEGIN): _S.IN_PROGRESS,
        (_S.SCHEDULED, _E.CANCEL): _S.CANCELLED,
        (_S.IN_PROGRESS, _E.VERIFY): _S.VERIFYING,
        (_S.VERIFYING, _E.COMPLETE): _S.COMPLETED,
    }
)
AHEAD = frozenset(
    {MaintenanceState.SCHEDULED, MaintenanceState.IN_PROGRESS}
)  # its nodes are, or will be, away
OPEN = AHEAD | {MaintenanceState.VERIFYING}
TAKEN = frozenset({NodeState.DRAINING, NodeState.REPAIRING, NodeState.VERIFYING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Nodes that are away over [from_s, until_s)."""

    maintenance_id: str
    node_ids: tuple[str, ...]  # those of the site, where it is a whole site's
    site: str | None  # None where single nodes are meant
    from_s: float
    until_s: float
    notice_s: float  # so long before its start its nodes take no run that could outlive it
    why: str
    state: MaintenanceState = MaintenanceState.SCHEDULED

    def __post_init__(self) -> None:
        if self.until_s <= self.from_s:
            raise ValueError(f"{self.maintenance_id} ends before it begins")
        if self.notice_s < 0:
            raise ValueError(f"{self.maintenance_id} gives notice after its start")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInWindow:
    """One node of a window, as far as it has come."""

    node_id: str
    state: NodeState
    leases: int
    drain_at_s: float  # so late that what runs there can still save and leave by the start
    was: NodeState | None = None  # in which it was drained for this window; None: it was not
    returned: bool = False  # sent to its tests after it, or given back as it was

    @property
    def taken(self) -> bool:
        return self.was is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMove:
    """What becomes of one node now."""

    node_id: str
    event: NodeEvent


def moved(state: MaintenanceState, event: MaintenanceEvent) -> MaintenanceState | None:
    """Where `event` leads from `state`; None when it comes too late to matter."""
    return TRANSITIONS.get((state, event))


def due(window: Window, nodes: Sequence[NodeInWindow], now_s: float) -> MaintenanceEvent | None:
    """The move of the window that is due; asked again after it was made, the next one."""
    match window.state:
        case MaintenanceState.SCHEDULED if now_s >= window.from_s:
            return MaintenanceEvent.BEGIN
        case MaintenanceState.IN_PROGRESS if now_s >= window.until_s:
            return MaintenanceEvent.VERIFY
        case MaintenanceState.VERIFYING if not any(_ours(node) for node in nodes):
            return MaintenanceEvent.COMPLETE
        case _:
            return None


def node_moves(window: Window, nodes: Sequence[NodeInWindow], now_s: float) -> tuple[NodeMove, ...]:
    """What its nodes do now: drain in time, go down once they are empty, be tested once the work is over.

    A window that was cancelled gives back what it took. A node is drained once and tested once for a window: what an
    operator, health or the tests make of it afterwards stands.
    """
    moves = [(node.node_id, _next(window, node, now_s)) for node in nodes]
    return tuple(NodeMove(node_id=node_id, event=event) for node_id, event in moves if event is not None)


def _next(window: Window, node: NodeInWindow, now_s: float) -> NodeEvent | None:
    if not node.taken:
        wanted = window.state in AHEAD and node.drain_at_s <= now_s < window.until_s
        serves = node.state in (NodeState.READY, NodeState.CORDONED)
        return NodeEvent.DRAIN if wanted and serves else None
    if window.state is MaintenanceState.CANCELLED:
        if node.state is NodeState.DRAINING:
            return NodeEvent.CORDON
        mine = node.was is NodeState.READY and not node.returned
        return NodeEvent.UNCORDON if node.state is NodeState.CORDONED and mine else None
    if (
        node.state is NodeState.DRAINING
        and node.leases == 0
        and window.state is not MaintenanceState.SCHEDULED
    ):
        return NodeEvent.REPAIR
    if node.state is NodeState.REPAIRING and window.state is MaintenanceState.VERIFYING and not node.returned:
        return NodeEvent.VERIFY
    return None


def _ours(node: NodeInWindow) -> bool:
    """Whether the window still has to bring this node back."""
    if not node.taken:
        return False
    return node.state in TAKEN if not node.returned else node.state is NodeState.VERIFYING
