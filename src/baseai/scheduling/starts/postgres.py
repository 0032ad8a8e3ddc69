"""Estimates of starts beside PostgreSQL, which keeps the first of each wait, what came of it, and lifetimes.

Invariant: what is learned can be learned again from the record, so a controller that takes over goes on where the
last one was. Writing the same twice is the same as once, and a fate once written stays.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from baseai.ground.identity import RunId
from baseai.scheduling.estimate import Estimate
from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.plan import Plan, StartEstimate
from baseai.scheduling.snapshot import Snapshot
from baseai.scheduling.standing import Standing
from baseai.scheduling.starts.asked import line_of, pools_of, running_of, told
from baseai.scheduling.starts.said import OUTCOMES_KEPT, Fate, Pool, Said, Starts
from baseai.truth.session import Scope, Session, Truth, fetch_all
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.reason import VERDICTS, Reason

SCHEDULER = Scope(tenant_id=None, actor="scheduler")
LIFETIMES_LOADED = 600  # the latest
OUTCOMES_LOADED = 4 * OUTCOMES_KEPT
PARTS_MANY, RUNNING_KEPT_S = 4096, 10.0  # who runs is looked at anew so often, where it is that many
SEEN_AGAIN_S = 120.0  # an attempt whose end is written by a slow transaction is looked for that long
# Whose end says how long runs last; what was ended for others, or by us, says it not.
BY_ITSELF = tuple(
    reason.value
    for reason, verdict in VERDICTS.items()
    if verdict.fault != "platform" and reason is not Reason.PREEMPTED
)
Row = Mapping[str, Any]


class PostgresStarts:
    """All that the tick needs to say when runs will start: one call a cycle."""

    def __init__(self, truth: Truth, rng: np.random.Generator) -> None:
        self._truth = truth
        self._rng = rng
        self._starts: Starts | None = None
        self._looked_at: datetime | None = None
        self._running: Mapping[str, Collection[tuple[Shape, float]]] = {}
        self._running_s = -math.inf  # when that was looked at
        self._ended: dict[tuple[str, int], datetime] = {}  # attempts whose lifetime is learned, of late

    async def tell(self, plan: Plan, standing: Standing, snapshot: Snapshot, now: datetime) -> Plan:
        """The plan of a cycle with the estimates that its waiting runs are told. Raises TruthUnavailable.

        Call it in every cycle, also where nobody waits: that is how outcomes and lifetimes come to be known.
        """
        now_s = now.timestamp()
        if len(standing.parts) < PARTS_MANY or now_s - self._running_s > RUNNING_KEPT_S:
            self._running = running_of(standing.parts.values(), plan.grants, now_s)
            self._running_s = now_s
        waiting = line_of(plan, standing.waiting)
        return told(plan, await self.cycle(now, pools_of(snapshot.nodes), self._running, waiting))

    async def cycle(
        self,
        now: datetime,
        pools: Mapping[str, Pool],
        running: Mapping[str, Collection[tuple[Shape, float]]],
        waiting: Sequence[Gang],
    ) -> Mapping[str, StartEstimate]:
        """When those that wait will start. See `Starts.cycle`; instants are seconds since 1970.

        Raises TruthUnavailable; then all is read from the record again at the next call.
        """
        starts, self._starts = self._starts, None
        async with self._truth.transaction(SCHEDULER) as session:
            if starts is None or self._looked_at is None:
                starts = await self._load(session)
            else:
                await self._learn_ended(session, starts, self._looked_at - timedelta(seconds=SEEN_AGAIN_S))
            await _learn_left(session, starts, waiting, now)
            found = starts.cycle(now.timestamp(), pools, running, waiting)
            await _write(session, starts.unwritten())
        self._starts, self._looked_at = starts, now
        return found

    async def _load(self, session: Session) -> Starts:
        starts = Starts(self._rng)
        self._ended = {}
        latest = await _ended(session, datetime(1970, 1, 1, tzinfo=UTC), LIFETIMES_LOADED)
        for row in latest:
            self._learn_lifetime(starts, row)
        settled = await fetch_all(
            session,
            "SELECT * FROM (SELECT * FROM start_estimates WHERE fate IN ('held', 'early', 'late')"
            " ORDER BY settled_at DESC LIMIT %s) latest ORDER BY settled_at, run_id",
            (OUTCOMES_LOADED,),
        )
        unsettled = await fetch_all(
            session, "SELECT * FROM start_estimates WHERE fate IS NULL ORDER BY asked_at, run_id"
        )
        for row in (*settled, *unsettled):
            starts.remember(_said(row))
        return starts

    async def _learn_ended(self, session: Session, starts: Starts, since: datetime) -> None:
        self._ended = {attempt: at for attempt, at in self._ended.items() if at > since}
        for row in await _ended(session, since, LIFETIMES_LOADED):
            if (row["run_id"], row["attempt_no"]) not in self._ended:
                self._learn_lifetime(starts, row)

    def _learn_lifetime(self, starts: Starts, row: Row) -> None:
        self._ended[row["run_id"], row["attempt_no"]] = row["ended_at"]
        each = max(1, row["accelerators"] // row["nodes"])
        starts.ended(Shape(pods=row["nodes"], milli=each * WHOLE), row["held_s"])


async def _ended(session: Session, since: datetime, most: int) -> list[Any]:
    """The latest attempts that came to their end by themselves, in the order of their ends."""
    return await fetch_all(
        session,
        "SELECT * FROM (SELECT a.run_id, a.attempt_no, a.nodes, a.ended_at,"
        " extract(epoch FROM a.ended_at - a.granted_at)::float8 AS held_s,"
        " (SELECT count(*) FROM leases l JOIN lease_accelerators USING (lease_id) WHERE l.run_id = a.run_id"
        " AND l.attempt_no = a.attempt_no) AS accelerators"
        " FROM attempts a JOIN runs r USING (run_id) WHERE a.state = 'ended' AND a.ended_at > %s"
        " AND a.reason = ANY(%s) AND r.kind <> %s ORDER BY a.ended_at DESC LIMIT %s) latest"
        " WHERE accelerators > 0 ORDER BY ended_at, run_id",
        (since, list(BY_ITSELF), BURN_IN, most),
    )


async def _learn_left(session: Session, starts: Starts, waiting: Sequence[Gang], now: datetime) -> None:
    """What became of those that have left the queue: it started at its first grant after it was told."""
    missing = starts.missing(waiting)
    if not missing:
        return
    rows = await fetch_all(
        session,
        "SELECT e.run_id, r.state, r.ended_at, (SELECT min(a.granted_at) FROM attempts a WHERE a.run_id = e.run_id"
        " AND a.granted_at > e.asked_at) AS started_at FROM unnest(%s::text[], %s::timestamptz[])"
        " AS e (run_id, asked_at) JOIN runs r USING (run_id)",
        ([said.run_id for said in missing], [_instant(said.estimate.asked_s) for said in missing]),
    )
    for row in rows:
        if row["started_at"] is not None:
            starts.started(row["run_id"], row["started_at"].timestamp())
        elif row["state"] != "queued":  # one that still waits may be held back from this cycle only
            starts.gone(row["run_id"], (row["ended_at"] or now).timestamp())


async def _write(session: Session, news: Sequence[Said]) -> None:
    if not news:
        return
    async with session.cursor() as cursor:
        await cursor.executemany(_KEEP, [_row(said) for said in news])


_KEEP = """
INSERT INTO start_estimates (run_id, tenant_id, project_id, models, simulated, asked_at, earliest_at, likely_at,
  latest_at, fate, settled_at, started_at)
SELECT run_id, tenant_id, project_id, %(models)s, %(simulated)s, %(asked_at)s, %(earliest_at)s, %(likely_at)s,
  %(latest_at)s, %(fate)s, %(settled_at)s, %(started_at)s FROM runs WHERE run_id = %(run_id)s
ON CONFLICT (run_id, asked_at) DO UPDATE SET
  fate = coalesce(start_estimates.fate, excluded.fate),
  settled_at = coalesce(start_estimates.settled_at, excluded.settled_at),
  started_at = coalesce(start_estimates.started_at, excluded.started_at)
"""


def _row(said: Said) -> Row:
    estimate = said.estimate
    return {
        "run_id": said.run_id,
        "models": list(said.models),
        "simulated": said.simulated,
        "asked_at": _instant(estimate.asked_s),
        "earliest_at": _instant(estimate.asked_s + estimate.earliest_s),
        "likely_at": _instant(estimate.asked_s + estimate.likely_s),
        "latest_at": _instant(estimate.asked_s + estimate.latest_s),
        "fate": said.fate,
        "settled_at": None if said.settled_s is None else _instant(said.settled_s),
        "started_at": None if said.started_s is None else _instant(said.started_s),
    }


def _said(row: Row) -> Said:
    asked_at = row["asked_at"]
    return Said(
        run_id=RunId(row["run_id"]),
        models=tuple(row["models"]),
        simulated=row["simulated"],
        estimate=Estimate(
            asked_at.timestamp(),
            *((row[name] - asked_at).total_seconds() for name in ("earliest_at", "likely_at", "latest_at")),
        ),
        fate=None if row["fate"] is None else Fate(row["fate"]),
        settled_s=None if row["settled_at"] is None else row["settled_at"].timestamp(),
        started_s=None if row["started_at"] is None else row["started_at"].timestamp(),
    )


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
