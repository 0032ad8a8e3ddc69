"""Reservations in PostgreSQL: asking for one, calling it off, looking, and whether a spec may name it.

Two who ask at once take turns, and each is weighed against all that is promised: together they never get more than
there will be. A tenant sees its own alone.
"""

import asyncio
import difflib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import ProjectId, TenantId, mint
from baseai.scheduling.booked.postgres.rows import instant_of, load_booked, reservation_of, take_turns
from baseai.scheduling.booked.sentence import instant_text, oversold_sentence
from baseai.scheduling.oversold import Oversold, admit
from baseai.scheduling.reservation import (
    Reservation,
    ReservationEvent,
    ReservationKind,
    ReservationState,
    moved,
)
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.demand import Demand, ModelsMatching
from baseai.workloads.spec import NODES_MOST, accelerator_ask

LONGEST = timedelta(days=366)
AHEAD_MOST = timedelta(days=2 * 366)
LATE_MOST = timedelta(minutes=5)  # a beginning that passed so lately is taken to mean now
FORFEIT_AFTER_S = 1800  # of a hold, where nothing is said
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Row = Mapping[str, Any]

SHOWN = """
SELECT v.*, v.site_id AS site, t.name AS tenant, p.name AS project,
  CASE WHEN v.used_at IS NULL AND v.ended_at IS NULL THEN v.from_at + make_interval(secs => v.forfeit_after_s) END
    AS forfeit_at,
  coalesce((SELECT count(*) FROM runs r JOIN leases l USING (run_id) JOIN nodes n USING (node_id)
    JOIN lease_accelerators la USING (lease_id) WHERE v.state = 'active' AND r.tenant_id = v.tenant_id
    AND r.spec->>'reservation' = v.name AND l.state <> 'released' AND l.model = v.model
    AND n.site_id = v.site_id), 0)::int AS in_use
FROM reservations v JOIN tenants t USING (tenant_id) JOIN projects p USING (project_id)
"""
STANDING_ONES = """
WHERE v.ended_at IS NULL AND (%(after)s::text IS NULL OR (v.from_at, v.reservation_id) >
  (SELECT from_at, reservation_id FROM reservations WHERE reservation_id = %(after)s))
ORDER BY v.from_at, v.reservation_id LIMIT %(limit)s
"""
ALL = """
WHERE %(after)s::text IS NULL OR v.reservation_id < %(after)s ORDER BY v.reservation_id DESC LIMIT %(limit)s
"""


class Reservations:
    """What tenants have been promised."""

    def __init__(self, truth: Truth, models_matching: ModelsMatching) -> None:
        self._truth = truth
        self._models_matching = models_matching

    async def reserve(
        self,
        scope: Scope,
        project: tuple[TenantId, ProjectId],
        *,
        name: str,
        gpu: str,
        nodes: int,
        site: str,
        from_at: datetime,
        until_at: datetime,
        take_or_pay: bool,
        forfeit_after_s: int | None = None,
    ) -> Row:
        """Promise capacity to a project, or say what is short and what would do.

        gpu: model and accelerators on each node, as in a spec. Raises Refused, Conflict where the name is taken.
        """
        kind = ReservationKind.TAKE_OR_PAY if take_or_pay else ReservationKind.HOLD
        if not _NAME.fullmatch(name):
            raise Refused(f"{name[:80]!r} is not a name: use 1 to 63 of a-z, 0-9 and -")
        if not 1 <= nodes <= NODES_MOST:
            raise Refused(f"{nodes} nodes cannot be reserved: from 1 to {NODES_MOST}")
        if take_or_pay and forfeit_after_s is not None:
            raise Refused(
                "what is paid for whether it is used or not is never forfeited: leave forfeit-after out"
            )
        if forfeit_after_s is not None and forfeit_after_s < 1:
            raise Refused("a hold is forfeited some time after its start: write it like 30m")
        forfeit_s = None if take_or_pay else (forfeit_after_s or FORFEIT_AFTER_S)
        # In the platform's scope: what others were promised counts, and is not told.
        async with self._truth.transaction(Scope(tenant_id=None, actor=scope.actor)) as session:
            await take_turns(session)
            booked = await load_booked(session)
            from_at = _beginning(from_at, until_at, instant_of(booked.now_s))
            model, accelerators = await self._model(session, gpu, site)
            asked = Reservation(
                reservation_id=mint("rsv"),
                name=name,
                tenant_id=project[0],
                nodes=nodes,
                accelerators=accelerators,
                model=model,
                site=site,
                from_s=from_at.timestamp(),
                until_s=until_at.timestamp(),
                kind=kind,
                forfeit_after_s=None if forfeit_s is None else float(forfeit_s),
            )
            found = await asyncio.to_thread(admit, asked, booked.calendar, booked.now_s)
            if isinstance(found, Oversold):
                raise Refused(oversold_sentence(asked, found))
            made = await fetch_one(
                session,
                "INSERT INTO reservations (reservation_id, tenant_id, project_id, name, nodes, accelerators, model,"
                " site_id, from_at, until_at, kind, forfeit_after_s, state, made_by)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'held', %s)"
                " ON CONFLICT DO NOTHING RETURNING reservation_id",
                (asked.reservation_id, *project, name, nodes, accelerators, model, site, from_at, until_at, kind.value,
                 forfeit_s, scope.actor),
            )  # fmt: skip
            if made is None:
                raise Conflict(
                    f"there is a reservation {name} already: choose another name, or cancel it first"
                )
            await record(
                session, "reservation", asked.reservation_id, "reserve", actor=scope.actor, tenant_id=project[0],
                project_id=project[1], to_state=ReservationState.HELD.value,
                sentence=f"{nodes} x {accelerators} {model} at {site} from {instant_text(asked.from_s)}"
                f" to {instant_text(asked.until_s)}",
            )  # fmt: skip
        return await self.find(scope, asked.reservation_id)

    async def cancel(self, scope: Scope, name: str) -> Row:
        """Give back what is held. What runs on it runs on as any other. Raises NotFound, Conflict."""
        async with self._truth.transaction(scope) as session:
            row = await self._row(session, name)
            reservation = reservation_of(row)
            if moved(reservation.state, ReservationEvent.CANCEL) is None:
                raise Conflict(f"the reservation {reservation.name} is {reservation.state.value} already")
            await move_reservation(session, row, ReservationEvent.CANCEL, actor=scope.actor)
        return await self.find(scope, reservation.reservation_id)

    async def find(self, scope: Scope, name: str) -> Row:
        """The reservation of that id, or of that name: the one that stands, else the newest. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            return await self._row(session, name)

    async def all(
        self, scope: Scope, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """A page of those that stand, in the order of their beginning; with `everything` of all, the newest first.

        The second is the cursor of the next page, None on the last.
        """
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session, SHOWN + (ALL if everything else STANDING_ONES), {"after": cursor, "limit": limit + 1}
            )
        return [*rows[:limit]], (rows[limit - 1]["reservation_id"] if len(rows) > limit else None)

    async def check(self, tenant_id: str, name: str, demand: Demand) -> None:
        """Whether a run of this tenant may name this reservation. Raises Refused with what to write instead."""
        async with self._truth.transaction(Scope(tenant_id=tenant_id, actor="admission")) as session:
            rows = await fetch_all(
                session, "SELECT * FROM reservations WHERE ended_at IS NULL ORDER BY from_at, reservation_id"
            )
        known = {row["name"]: reservation_of(row) for row in rows}
        found = known.get(name)
        if found is None:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "`baseai reservation list` shows what there is"
            raise Refused(f"there is no reservation {name}: {hint}")
        counts = [ask.count for ask in demand.asks if found.model in ask.models]
        if not counts:
            raise Refused(
                f"the reservation {name} is of {found.model}, and the run asks for {demand.models[0]}"
            )
        if demand.node_count > found.nodes or min(counts) > found.accelerators:
            raise Refused(
                f"the reservation {name} is {found.nodes} x {found.accelerators} {found.model},"
                f" and the run asks for {demand.node_count} x {min(counts)}: ask for less, or reserve more"
            )
        if demand.sites and found.site not in demand.sites:
            raise Refused(
                f"the reservation {name} is at {found.site}: leave `site` out, or write `{found.site}`"
            )

    async def _row(self, session: Session, name: str) -> Row:
        row = await fetch_one(
            session,
            SHOWN + " WHERE v.reservation_id = %(name)s OR v.name = %(name)s"
            " ORDER BY v.reservation_id = %(name)s DESC, (v.ended_at IS NULL) DESC, v.made_at DESC LIMIT 1",
            {"name": name},
        )
        if row is None:
            raise NotFound("reservation", name)
        return dict(row)

    async def _model(self, session: Session, gpu: str, site: str) -> tuple[str, int]:
        """The one model at the site that `gpu` names, and how many on each node. Raises Refused."""
        try:
            ask = accelerator_ask(gpu)
        except ValueError as wrong:
            raise Refused(f"gpu: {wrong}") from wrong
        if ask.count_least != ask.count_most:
            raise Refused(f"gpu: `{gpu}` is a range, and a promise is a number; write it like H100:8")
        memory = None
        if ask.memory_gib_least is not None or ask.memory_gib_most is not None:
            memory = range(ask.memory_gib_least or 0, (ask.memory_gib_most or 1 << 20) + 1)
        matching = (ask.name,) if ask.name == "cpu-slot" else self._models_matching(ask.name, memory)
        rows = await fetch_all(
            session,
            "SELECT DISTINCT n.site_id, a.model FROM accelerators a JOIN nodes n USING (node_id)"
            " WHERE a.state = 'in_service' AND n.state <> 'retired' ORDER BY 1, 2",
        )
        there = sorted({row["model"] for row in rows if row["site_id"] == site})
        sites = sorted({row["site_id"] for row in rows})
        if not there:
            raise Refused(
                f"nothing is installed at {site}; there are nodes at {', '.join(sites) or 'no site yet'}"
            )
        fitting = [model for model in there if model in matching]
        if not fitting:
            raise Refused(f"no {gpu} is installed at {site}, which has {', '.join(there)}")
        if len(fitting) > 1:
            raise Refused(f"`{gpu}` may be any of {', '.join(fitting)} at {site}: write which")
        return fitting[0], ask.count_least


async def move_reservation(session: Session, row: Row, event: ReservationEvent, *, actor: str) -> bool:
    """Move it and write the event; False where somebody was first."""
    before = ReservationState(row["state"])
    after = moved(before, event)
    if after is None:
        return False
    done = await session.execute(
        "UPDATE reservations SET state = %(to)s, ended_at = CASE WHEN %(over)s THEN now() END"
        " WHERE reservation_id = %(id)s AND state = %(from)s",
        {
            "to": after.value,
            "over": after is not ReservationState.ACTIVE,
            "id": row["reservation_id"],
            "from": before.value,
        },
    )
    if done.rowcount == 0:
        return False
    await record(
        session, "reservation", row["reservation_id"], event.value, actor=actor, tenant_id=row["tenant_id"],
        project_id=row["project_id"], from_state=before.value, to_state=after.value,
        sentence="nobody has used it" if event is ReservationEvent.FORFEIT else None,
    )  # fmt: skip
    return True


def _beginning(from_at: datetime, until_at: datetime, now: datetime) -> datetime:
    """When it begins, moved to now where that has just passed. Raises Refused."""
    if from_at < now - LATE_MOST:
        raise Refused(
            f"it would have begun at {instant_text(from_at.timestamp())}, which is over: choose a later start"
        )
    from_at = max(from_at, now)
    if until_at <= from_at:
        raise Refused("it ends before it begins: write --until after --from")
    if until_at - from_at > LONGEST:
        raise Refused("it is longer than a year: reserve a year at most at a time")
    if from_at - now > AHEAD_MOST:
        raise Refused("it begins more than two years ahead: ask nearer to its time")
    return from_at
