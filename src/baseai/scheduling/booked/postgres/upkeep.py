"""The upkeep of the calendar: reservations and windows move on with time, and who has to make way is asked in time.

Every step may be killed between any two statements and be beside another copy of itself: each move is made from the
state it was decided in, in a transaction of its own, and deciding again after it says what is left. A node is marked as
taken by a window in the transaction that drains it.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from baseai.fleet.node import NodeEvent, NodeState
from baseai.fleet.node import moved as node_moved
from baseai.ground.identity import RunId
from baseai.scheduling.booked.postgres.reservations import move_reservation
from baseai.scheduling.booked.postgres.rows import CALENDAR, Booked, load_booked, window_of
from baseai.scheduling.booked.postgres.windows import move_window
from baseai.scheduling.booked.sentence import instant_text
from baseai.scheduling.calendar import Holding
from baseai.scheduling.leaving import HORIZON_S, Leave, make_way
from baseai.scheduling.lot import Lot
from baseai.scheduling.maintenance import (
    AHEAD,
    MaintenanceState,
    NodeInWindow,
    NodeMove,
    Window,
    node_moves,
)
from baseai.scheduling.maintenance import due as window_due
from baseai.scheduling.preemption.postgres import ask_to_make_room
from baseai.scheduling.reservation import due as reservation_due
from baseai.scheduling.reservation import stands
from baseai.truth.history import record
from baseai.truth.session import Session, Truth, fetch_all, fetch_one

log = logging.getLogger(__name__)

ACTOR = "calendar"
Row = Mapping[str, Any]

# Whether there is anything to do at all: what stands is not counted for what is far away.
NEAR = """
SELECT 1 AS near FROM reservations WHERE ended_at IS NULL AND from_at < now() + %(within)s
UNION ALL SELECT 1 FROM maintenances m WHERE m.ended_at IS NULL AND m.from_at < now() + %(within)s
  OR m.state = 'cancelled' AND EXISTS (SELECT FROM maintenance_nodes w
    WHERE w.maintenance_id = m.maintenance_id AND w.taken_at IS NOT NULL AND w.returned_at IS NULL) LIMIT 1
"""
# A window that was called off is looked at until all that it took is given back.
WINDOWS = """
SELECT m.*, '{}'::text[] AS node_ids FROM maintenances m WHERE m.ended_at IS NULL OR m.state = 'cancelled'
  AND EXISTS (SELECT FROM maintenance_nodes w WHERE w.maintenance_id = m.maintenance_id
    AND w.taken_at IS NOT NULL AND w.returned_at IS NULL) ORDER BY m.from_at, m.maintenance_id
"""
NODES = """
SELECT n.node_id, n.state, w.was, w.returned_at,
  (SELECT count(*) FROM leases l WHERE l.node_id = n.node_id AND l.state <> 'released')::int AS leases
FROM nodes n LEFT JOIN maintenance_nodes w ON w.node_id = n.node_id AND w.maintenance_id = %(id)s
WHERE n.state <> 'retired' AND (w.node_id IS NOT NULL OR n.site_id = %(site)s) ORDER BY n.node_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one step did."""

    moves: int = 0  # of reservations, windows and their nodes
    asked: int = 0  # runs to save and stop


class Upkeep:
    """What the controller does for the calendar, again and again."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def step(self) -> Kept:
        """Everything that is due now."""
        async with self._truth.transaction(CALENDAR) as session:
            if await fetch_one(session, NEAR, {"within": timedelta(seconds=HORIZON_S)}) is None:
                return Kept()
            booked = await load_booked(session)
            windows = [dict(row) for row in await fetch_all(session, WINDOWS)]
        moves = await self._keep_reservations(booked)
        await self._tell_of_shortage(booked)
        asked = await self._ask_to_leave(booked)
        for row in windows:
            moves += await self._keep_window(row, booked)
        return Kept(moves=moves, asked=asked)

    # ---- reservations

    async def _keep_reservations(self, booked: Booked) -> int:
        async with self._truth.transaction(CALENDAR) as session:
            used = await session.execute(
                "UPDATE reservations SET used_at = now() WHERE reservation_id = ANY(%s) AND used_at IS NULL",
                (sorted(booked.used),),
            )
        moves = used.rowcount
        for one in booked.calendar.reservations:
            if one.reservation_id in booked.used and not one.used:
                continue  # looked at again with what was just written down
            event = reservation_due(one, booked.now_s)
            if event is None:
                continue
            async with self._truth.transaction(CALENDAR) as session:
                row = await fetch_one(
                    session,
                    "SELECT * FROM reservations WHERE reservation_id = %s AND state = %s FOR UPDATE",
                    (one.reservation_id, one.state.value),
                )
                if row is not None and await move_reservation(session, row, event, actor=ACTOR):
                    log.info("reservation %s: %s", one.name, event.value)
                    moves += 1
        return moves

    async def _tell_of_shortage(self, booked: Booked) -> None:
        """Say once of each promise that it cannot be kept whole, where nodes have failed since it was made."""
        for one in booked.calendar.reservations:
            at_s = max(one.from_s, booked.now_s)
            if at_s > booked.now_s + HORIZON_S or not stands(one, booked.now_s):
                continue
            lot = await asyncio.to_thread(Lot, booked.calendar, one.site, one.model)
            short = lot.short(at_s)
            if not short:
                continue
            sentence = (
                f"{short} {one.model} of what is promised at {one.site} are not there: nodes have failed"
            )
            async with self._truth.transaction(CALENDAR) as session:
                told = await fetch_one(
                    session,
                    "SELECT 1 AS told FROM events WHERE subject_id = %s AND event = 'short' LIMIT 1",
                    (one.reservation_id,),
                )
                if told is None:
                    log.warning("reservation %s: %s", one.name, sentence)
                    await record(
                        session, "reservation", one.reservation_id, "short", actor=ACTOR, tenant_id=one.tenant_id,
                        sentence=sentence,
                    )  # fmt: skip

    # ---- who makes way

    async def _ask_to_leave(self, booked: Booked) -> int:
        # In a thread: for a large fleet it takes longer than the loops beside should wait.
        leaves = await asyncio.to_thread(
            make_way,
            booked.claims,
            booked.calendar.holdings,
            booked.calendar.bays,
            booked.wanted,
            booked.now_s,
        )
        asked = 0
        for leave in leaves:
            # For maintenance the node is drained, which asks everybody on it.
            if leave.kind == "reservation" and leave.ask_at_s <= booked.now_s:
                async with self._truth.transaction(CALENDAR) as session:
                    asked += await _ask(session, leave)
        return asked

    # ---- windows

    async def _keep_window(self, row: Row, booked: Booked) -> int:
        async with self._truth.transaction(CALENDAR) as session:
            if row["state"] == MaintenanceState.CANCELLED:
                await session.execute(
                    "UPDATE maintenance_nodes w SET returned_at = now() FROM nodes n WHERE n.node_id = w.node_id"
                    " AND w.maintenance_id = %s AND w.taken_at IS NOT NULL AND w.returned_at IS NULL"
                    " AND n.state NOT IN ('draining', 'cordoned')",  # somebody else has moved it on
                    (row["maintenance_id"],),
                )
            nodes = await fetch_all(session, NODES, {"id": row["maintenance_id"], "site": row["site_id"]})
        window = window_of({**row, "node_ids": [node["node_id"] for node in nodes]})
        seen = [_seen(node, window, booked.calendar.holdings) for node in nodes]
        moves = 0
        for move in node_moves(window, seen, booked.now_s):
            async with self._truth.transaction(CALENDAR) as session:
                was = next(node for node in seen if node.node_id == move.node_id)
                moves += await _move_node(session, window, was, move)
        event = window_due(window, seen, booked.now_s)
        if event is not None:
            async with self._truth.transaction(CALENDAR) as session:
                moved = await move_window(session, row, event, actor=ACTOR)
                moves += moved
                if moved:
                    log.info("maintenance %s (%s): %s", window.maintenance_id, window.why, event.value)
        return moves


def _seen(row: Row, window: Window, holdings: Sequence[Holding]) -> NodeInWindow:
    """A node with the instant at which it has to drain: what stands there at the start must have saved by then."""
    graces = [one.grace_s for one in holdings if one.node_id == row["node_id"] and one.ends_s > window.from_s]
    return NodeInWindow(
        node_id=row["node_id"],
        state=NodeState(row["state"]),
        leases=row["leases"],
        drain_at_s=window.from_s - max(graces, default=0.0),
        was=None if row["was"] is None else NodeState(row["was"]),
        returned=row["returned_at"] is not None,
    )


async def _move_node(session: Session, window: Window, node: NodeInWindow, move: NodeMove) -> int:
    """One move of one node, and what the window has to remember of it; 0 where somebody was first."""
    target = node_moved(node.state, move.event)
    if target is None:
        return 0
    still = await fetch_one(
        session,
        "SELECT (SELECT count(*) FROM leases l WHERE l.node_id = n.node_id AND l.state <> 'released')::int AS leases"
        " FROM nodes n WHERE node_id = %s AND state = %s FOR UPDATE OF n",
        (node.node_id, node.state.value),
    )
    if still is None or (move.event is NodeEvent.REPAIR and still["leases"]):
        return 0
    if move.event is NodeEvent.DRAIN:
        await session.execute(
            "INSERT INTO maintenance_nodes (maintenance_id, node_id, was, taken_at) VALUES (%s, %s, %s, now())"
            " ON CONFLICT (maintenance_id, node_id) DO UPDATE SET was = excluded.was, taken_at = now()",
            (window.maintenance_id, node.node_id, node.state.value),
        )
    given_back = (NodeEvent.VERIFY, NodeEvent.UNCORDON)
    if move.event in given_back or (move.event is NodeEvent.CORDON and node.was is NodeState.CORDONED):
        await session.execute(
            "UPDATE maintenance_nodes SET returned_at = now() WHERE maintenance_id = %s AND node_id = %s",
            (window.maintenance_id, node.node_id),
        )
    await session.execute(
        "UPDATE nodes SET state = %s, desired_version = desired_version + 1 WHERE node_id = %s AND state = %s",
        (target.value, node.node_id, node.state.value),
    )
    await record(
        session, "node", node.node_id, move.event.value, actor=ACTOR, from_state=node.state.value,
        to_state=target.value, sentence=_node_sentence(window, move.event),
    )  # fmt: skip
    return 1


def _node_sentence(window: Window, event: NodeEvent) -> str:
    name = f"maintenance {window.maintenance_id} ({window.why})"
    if window.state not in AHEAD and event is not NodeEvent.VERIFY:
        return f"{name} is over" if window.state is MaintenanceState.VERIFYING else f"{name} was called off"
    return {
        NodeEvent.DRAIN: f"{name} begins at {instant_text(window.from_s)}",
        NodeEvent.REPAIR: f"{name} has begun",
        NodeEvent.VERIFY: f"{name} is over: tests decide",
    }.get(event, name)


async def _ask(session: Session, leave: Leave) -> int:
    """Have a run save and stop, once; it then waits again. 0 where it is stopping already."""
    sentence = (
        f"it makes way for the reservation {leave.claim}, which needs its place at {instant_text(leave.by_s)}"
    )
    asked = await ask_to_make_room(
        session, RunId(leave.run_id), for_run=None, lost_accelerator_s=None, actor=ACTOR, sentence=sentence
    )
    return int(asked)
