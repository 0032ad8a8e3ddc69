"""Seats of a contract's commitments, from the moves of nodes that the truth has written down."""

from datetime import UTC, datetime

from baseai.finance.contract import Contract
from baseai.finance.period import Period
from baseai.finance.seat import NodeMove, Standing, seat_events
from baseai.finance.sla import Availability, HealthEvent, availability
from baseai.fleet.node import NodeState
from baseai.truth.session import Session, fetch_all

FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)
NODES = """
SELECT n.node_id, n.state, count(*) AS accelerators, min(a.installed_at) AS installed_at
FROM nodes n JOIN accelerators a USING (node_id)
WHERE a.model = %(model)s AND (%(site_id)s::text IS NULL OR n.site_id = %(site_id)s) GROUP BY n.node_id, n.state
"""
MOVES = """
SELECT at, subject_id AS node_id, from_state, to_state FROM events
WHERE subject_kind = 'node' AND subject_id = ANY(%s) AND from_state IS NOT NULL AND to_state IS NOT NULL
"""


async def load_seat_events(session: Session, contract: Contract) -> tuple[HealthEvent, ...]:
    """Every turn of every seat of a contract, as its customer may have them."""
    events: list[HealthEvent] = []
    for one in contract.commitments:
        rows = await fetch_all(session, NODES, {"model": one.model, "site_id": one.site_id})
        nodes = [Standing(**{**row, "state": NodeState(row["state"])}) for row in rows]
        moved = await fetch_all(session, MOVES, ([node.node_id for node in nodes],))
        moves = [
            NodeMove(
                at=row["at"],
                node_id=row["node_id"],
                from_state=NodeState(row["from_state"]),
                to_state=NodeState(row["to_state"]),
            )
            for row in moved
        ]
        events += seat_events(_name(contract, one.model, one.site_id), one.count, nodes, moves)
    return tuple(events)


async def kept_of(session: Session, contract: Contract, period: Period) -> Availability:
    """What a contract's seats kept of a month: the customer's own reckoning over the same events."""
    span = (contract.from_at, contract.ends_at or FOR_EVER)
    subjects = {
        f"{_name(contract, one.model, one.site_id)}/{seat}": span
        for one in contract.commitments
        for seat in range(1, one.count + 1)
    }
    return availability(await load_seat_events(session, contract), subjects=subjects, period=period)


def _name(contract: Contract, model: str, site_id: str | None) -> str:
    return f"{contract.name}:{model}@{site_id or 'any'}"
