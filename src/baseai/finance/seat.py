"""A seat is one of the accelerators that a commitment holds ready: the k-th is there while at least k of its kind are.

Invariant: seats follow from moves of nodes alone, whoever uses what, so that a fault of capacity that nobody wanted is
lost time too. Where more stands than is committed, a fault that leaves enough loses nothing. Nobody changes a seat.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from baseai.finance.sla import HealthEvent, Turn
from baseai.fleet.node import NodeState

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
# A node in one of these runs what it was given. Out of them it does not, whoever took it out.
SERVING = frozenset({NodeState.READY, NodeState.CORDONED, NodeState.DRAINING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A node with accelerators of the kind in question."""

    node_id: str
    accelerators: int
    installed_at: datetime
    state: NodeState  # now


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NodeMove:
    """A node went from one state to another."""

    at: datetime
    node_id: str
    from_state: NodeState
    to_state: NodeState


def seat_events(
    commitment: str, count: int, nodes: Sequence[Standing], moves: Iterable[NodeMove]
) -> tuple[HealthEvent, ...]:
    """Every turn of every seat `commitment/1` … `commitment/count`, as `sla.availability` takes them.

    moves: of these nodes, in any order, all there ever were. A seat is down until enough was installed for it.
    """
    standing = {node.node_id: node for node in nodes}
    known = sorted(move for move in moves if move.node_id in standing)
    first: dict[str, NodeState] = {}
    for move in known:
        first.setdefault(move.node_id, move.from_state)
    changes = [
        (node.installed_at, node.accelerators)
        for node in nodes
        if first.get(node.node_id, node.state) in SERVING
    ]
    for move in known:
        by = (move.to_state in SERVING) - (move.from_state in SERVING)
        if by:
            changes.append((move.at, by * standing[move.node_id].accelerators))
    by_instant: dict[datetime, int] = {}
    for at, by in changes:
        by_instant[at] = by_instant.get(at, 0) + by
    events = [_turn(commitment, seat, Turn.DOWN, LONG_AGO) for seat in range(1, count + 1)]
    ready = 0
    for at, by in sorted(by_instant.items()):
        before, ready = ready, ready + by
        low, high = sorted((max(0, before), max(0, ready)))
        turn = Turn.UP if ready > before else Turn.DOWN
        events += [_turn(commitment, seat, turn, at) for seat in range(low + 1, min(high, count) + 1)]
    return tuple(events)


def _turn(commitment: str, seat: int, turn: Turn, at: datetime) -> HealthEvent:
    return HealthEvent(
        at=at,
        subject=f"{commitment}/{seat}",
        turn=turn,
        event_id=f"{commitment}/{seat} {turn.value} {at.isoformat()}",
    )
