"""Maintenance windows in PostgreSQL: planning one, calling it off, ending it early, looking.

A window is weighed against what is reserved, in turn with whoever reserves: it never takes what was promised.
"""

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import mint
from baseai.scheduling.booked.postgres.rows import instant_of, load_booked, take_turns
from baseai.scheduling.booked.sentence import instant_text, window_sentence
from baseai.scheduling.calendar import LEAVING_S
from baseai.scheduling.maintenance import MaintenanceEvent, MaintenanceState, Window, moved
from baseai.scheduling.oversold import Behind, admit_window
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

NOTICE_S = 24 * 3600  # where nothing is said: as long as runs last that say nothing either
LATE_MOST = timedelta(minutes=5)
WHY_MOST = 200
Row = Mapping[str, Any]

SHOWN = """
SELECT m.*, m.site_id AS site, coalesce((SELECT jsonb_agg(jsonb_build_object('node', n.name, 'state', n.state,
    'taken_at', w.taken_at, 'returned_at', w.returned_at) ORDER BY n.name) FROM nodes n LEFT JOIN maintenance_nodes w
    ON w.node_id = n.node_id AND w.maintenance_id = m.maintenance_id
    WHERE w.maintenance_id IS NOT NULL OR n.site_id = m.site_id AND m.ended_at IS NULL AND n.state <> 'retired'), '[]')
  AS nodes
FROM maintenances m
"""
OPEN_ONES = """
WHERE m.ended_at IS NULL AND (%(after)s::text IS NULL OR (m.from_at, m.maintenance_id) >
  (SELECT from_at, maintenance_id FROM maintenances WHERE maintenance_id = %(after)s))
ORDER BY m.from_at, m.maintenance_id LIMIT %(limit)s
"""
ALL = """
WHERE %(after)s::text IS NULL OR m.maintenance_id < %(after)s ORDER BY m.maintenance_id DESC LIMIT %(limit)s
"""


class Windows:
    """When which nodes are out of service on purpose."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def plan(
        self,
        *,
        nodes: Sequence[str],
        site: str | None,
        from_at: datetime,
        until_at: datetime,
        why: str,
        notice_s: int | None = None,
        actor: str,
    ) -> Row:
        """Plan a window for nodes by name or id, or for a whole site. Raises Refused with what is in its way."""
        if bool(nodes) == (site is not None):
            raise Refused("a window is for nodes or for a whole site: name one or the other")
        if not 1 <= len(why) <= WHY_MOST or not why.isprintable():
            raise Refused(f"say why, in 1 to {WHY_MOST} printable characters: tenants read it")
        notice_s = NOTICE_S if notice_s is None else notice_s
        if notice_s < LEAVING_S:
            raise Refused(
                f"runs need up to {LEAVING_S / 60:g} min to save and leave: give at least that as notice"
            )
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await take_turns(session)
            booked = await load_booked(session)
            now = instant_of(booked.now_s)
            if from_at < now - LATE_MOST:
                raise Refused(
                    f"it would have begun at {instant_text(from_at.timestamp())}: choose a later start"
                )
            from_at = max(from_at, now)
            if until_at <= from_at:
                raise Refused("it ends before it begins: write --until after --from")
            node_ids = await self._node_ids(session, nodes, site)
            asked = Window(
                maintenance_id=mint("mnt"),
                node_ids=tuple(sorted(node_ids)),
                site=site,
                from_s=from_at.timestamp(),
                until_s=until_at.timestamp(),
                notice_s=float(notice_s),
                why=why,
            )
            found = admit_window(asked, booked.calendar)
            if isinstance(found, Behind):
                raise Refused(window_sentence(found))
            await session.execute(
                "INSERT INTO maintenances (maintenance_id, site_id, from_at, until_at, notice_s, why, state, made_by)"
                " VALUES (%s, %s, %s, %s, %s, %s, 'scheduled', %s)",
                (asked.maintenance_id, site, from_at, until_at, notice_s, why, actor),
            )
            if site is None:
                await session.execute(
                    "INSERT INTO maintenance_nodes (maintenance_id, node_id) SELECT %s, unnest(%s::text[])",
                    (asked.maintenance_id, list(asked.node_ids)),
                )
            span = f"from {instant_text(asked.from_s)} to {instant_text(asked.until_s)}"
            await record(
                session, "maintenance", asked.maintenance_id, "plan", actor=actor,
                to_state=MaintenanceState.SCHEDULED.value, sentence=f"{why}; {len(node_ids)} nodes {span}",
            )  # fmt: skip
        return await self.find(asked.maintenance_id)

    async def cancel(self, maintenance_id: str, *, actor: str) -> Row:
        """Call off a window that has not begun; what was drained for it is given back. Raises NotFound, Conflict."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            row = await self._row(session, maintenance_id)
            if row["state"] == MaintenanceState.IN_PROGRESS:
                raise Conflict(
                    f"{maintenance_id} has begun, and its nodes must be tested: `baseai maintenance end` ends it early"
                )
            if not await move_window(session, row, MaintenanceEvent.CANCEL, actor=actor):
                raise Conflict(f"{maintenance_id} is {row['state']}: there is nothing to call off")
        return await self.find(maintenance_id)

    async def end(self, maintenance_id: str, *, actor: str) -> Row:
        """The work is done before its time: the nodes go to their tests now. Raises NotFound, Conflict."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            row = await self._row(session, maintenance_id)
            ended = await session.execute(
                "UPDATE maintenances SET until_at = greatest(least(until_at, now()), from_at + interval '1 second')"
                " WHERE maintenance_id = %s AND state = 'in_progress'",
                (maintenance_id,),
            )
            if ended.rowcount == 0:
                raise Conflict(
                    f"{maintenance_id} is {row['state']}: only one that is in progress can be ended"
                )
            await record(
                session, "maintenance", maintenance_id, "end", actor=actor, sentence="the work is done"
            )
        return await self.find(maintenance_id)

    async def find(self, maintenance_id: str) -> Row:
        """Raises NotFound."""
        async with self._truth.transaction() as session:
            return await self._row(session, maintenance_id)

    async def all(
        self, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """A page of those that are not over, in the order of their beginning; with `everything` all, the newest first.

        The second is the cursor of the next page, None on the last.
        """
        async with self._truth.transaction() as session:
            rows = await fetch_all(
                session, SHOWN + (ALL if everything else OPEN_ONES), {"after": cursor, "limit": limit + 1}
            )
        return [*rows[:limit]], (rows[limit - 1]["maintenance_id"] if len(rows) > limit else None)

    async def _row(self, session: Session, maintenance_id: str) -> Row:
        row = await fetch_one(session, SHOWN + " WHERE m.maintenance_id = %s", (maintenance_id,))
        if row is None:
            raise NotFound("maintenance", maintenance_id)
        return dict(row)

    async def _node_ids(self, session: Session, names: Sequence[str], site: str | None) -> set[str]:
        rows = await fetch_all(session, "SELECT node_id, name, site_id FROM nodes WHERE state <> 'retired'")
        if site is not None:
            here = {row["node_id"] for row in rows if row["site_id"] == site}
            if not here:
                sites = ", ".join(sorted({row["site_id"] for row in rows})) or "no site yet"
                raise Refused(f"there are no nodes at {site}; there are some at {sites}")
            return here
        by_name = {row["name"]: row["node_id"] for row in rows} | {
            row["node_id"]: row["node_id"] for row in rows
        }
        unknown = [name for name in names if name not in by_name]
        if unknown:
            close = difflib.get_close_matches(unknown[0], by_name, n=1)
            raise Refused(f"there is no node {unknown[0]}" + (f": did you mean {close[0]}?" if close else ""))
        return {by_name[name] for name in names}


async def move_window(session: Session, row: Row, event: MaintenanceEvent, *, actor: str) -> bool:
    """Move it and write the event; False where there is no such move, or somebody was first."""
    before = MaintenanceState(row["state"])
    after = moved(before, event)
    if after is None:
        return False
    done = await session.execute(
        "UPDATE maintenances SET state = %(to)s, ended_at = CASE WHEN %(over)s THEN now() END"
        " WHERE maintenance_id = %(id)s AND state = %(from)s",
        {
            "to": after.value,
            "over": after in (MaintenanceState.COMPLETED, MaintenanceState.CANCELLED),
            "id": row["maintenance_id"],
            "from": before.value,
        },
    )
    if done.rowcount == 0:
        return False
    await record(
        session, "maintenance", row["maintenance_id"], event.value, actor=actor, from_state=before.value,
        to_state=after.value, sentence=row["why"],
    )  # fmt: skip
    return True
