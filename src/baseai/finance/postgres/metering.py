"""Metering in PostgreSQL: the pure meter says which time of a lease is final, one statement writes its lines.

Invariant: the lines of a lease and how far it is metered change in one transaction, so a crash loses nothing and
repeats nothing. Time is the database's `now()`, never this process's.
"""

from dataclasses import dataclass, fields
from datetime import datetime

from psycopg.rows import DictRow

from baseai.finance.meter import ObservedLease, UsageLine, final_spans
from baseai.finance.postgres.observed import LEASE_ENDED, RUN_ENDED, SEEN, UNBILLED_KINDS
from baseai.truth.session import Session, fetch_all
from baseai.workloads.reason import VERDICTS, Reason

DUE = f"""
SELECT l.lease_id, l.run_id, l.attempt_no, l.tenant_id, l.project_id, l.node_id, n.site_id, l.model,
  l.granted_at, l.ends_at, l.released_at, l.observed_from, l.observed_until, l.metered_until,
  CASE WHEN a.state = 'ended' THEN a.reason END AS reason, r.kind,
  {LEASE_ENDED} AS ended, now() AS now
FROM leases l JOIN attempts a USING (run_id, attempt_no) JOIN runs r USING (run_id) JOIN nodes n USING (node_id)
WHERE l.observed_until IS NOT NULL AND (l.metered_until IS NULL OR l.metered_until < {SEEN})
  AND ({LEASE_ENDED} OR l.observed_from IS NOT NULL
    AND date_trunc('hour', LEAST({SEEN} - interval '1 microsecond', now()), 'UTC')
      > GREATEST(l.observed_from, l.granted_at, l.metered_until))
  AND (%(lease_id)s::text IS NULL OR l.lease_id = %(lease_id)s)
ORDER BY l.lease_id LIMIT %(limit)s FOR NO KEY UPDATE OF l SKIP LOCKED
"""  # noqa: S608 - pieces are constants of this file

LINE_COLUMNS = ", ".join(field.name for field in fields(UsageLine))
# One row of what is given is a span of a lease; each accelerator of the lease gets a line of it.
INSERT = f"""
INSERT INTO usage_lines ({LINE_COLUMNS})
SELECT replace(l.lease_id, 'lea_', 'use_') || '-' || d.accelerator_no || '-' || s.stamp,
  l.lease_id, l.run_id, l.attempt_no, l.tenant_id, l.project_id, d.accelerator_no, l.node_id, n.site_id, l.model,
  s.hour, s.from_at, s.to_at, s.micro_seconds, s.billable, s.reason
FROM unnest(%(lease_id)s::text[], %(stamp)s::text[], %(hour)s::timestamptz[], %(from_at)s::timestamptz[],
    %(to_at)s::timestamptz[], %(micro_seconds)s::bigint[], %(billable)s::boolean[], %(reason)s::text[])
  AS s (lease_id, stamp, hour, from_at, to_at, micro_seconds, billable, reason)
JOIN leases l USING (lease_id) JOIN nodes n USING (node_id) JOIN lease_accelerators d USING (lease_id)
ORDER BY l.lease_id, d.accelerator_no, s.hour
ON CONFLICT (line_id) DO NOTHING
"""  # noqa: S608 - pieces are constants of this file
MARK = """
UPDATE leases l SET metered_until = m.until FROM unnest(%s::text[], %s::timestamptz[]) AS m (lease_id, until)
WHERE l.lease_id = m.lease_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """What one round of metering did."""

    lines: int
    leases: int
    refused: tuple[str, ...] = ()  # leases whose time overlaps what is metered already: somebody must look


class Due(dict[str, datetime | None]):
    """Which runs may have something to post: run → the first hour to look at, None for all of them."""

    def earlier(self, run_id: str, since: datetime | None) -> None:
        known = self.get(run_id, since)
        self[run_id] = None if since is None or known is None else min(since, known)

    def merge(self, other: "Due") -> None:
        for run_id, since in other.items():
            self.earlier(run_id, since)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredSome:
    """What one transaction of metering did."""

    leases: int
    lines: int
    due: Due


async def meter_some(session: Session, *, limit: int | None, lease_id: str | None = None) -> MeteredSome:
    """Write the lines that became final of at most `limit` leases that no other copy is metering."""
    rows = await fetch_all(session, DUE, {"limit": limit, "run_ended": RUN_ENDED, "lease_id": lease_id})
    given: dict[str, list[object]] = {name: [] for name in SPAN_COLUMNS}
    marks: list[tuple[str, datetime]] = []
    due = Due()
    for row in rows:
        lease = _lease(row)
        final = final_spans(lease, now=row["now"])
        for span in final.spans:
            given["lease_id"].append(lease.lease_id)
            for name in SPAN_COLUMNS[1:]:
                given[name].append(getattr(span, name))
        if final.metered_until is not None:
            marks.append((lease.lease_id, final.metered_until))
        if final.spans:
            due.earlier(lease.run_id, None if lease.billable is False else final.spans[0].hour)
    lines = 0
    if given["lease_id"]:
        lines = (await session.execute(INSERT, given)).rowcount
    if marks:
        await session.execute(MARK, ([lease for lease, _ in marks], [until for _, until in marks]))
    return MeteredSome(leases=len(rows), lines=lines, due=due)


async def leases_due(session: Session) -> list[str]:
    """The leases with time to meter, but those that another copy is metering."""
    rows = await fetch_all(session, DUE, {"limit": None, "run_ended": RUN_ENDED, "lease_id": None})
    return [row["lease_id"] for row in rows]


SPAN_COLUMNS = ("lease_id", "stamp", "hour", "from_at", "to_at", "micro_seconds", "billable", "reason")


def _lease(row: DictRow) -> ObservedLease:
    reason = row["reason"]
    return ObservedLease(
        lease_id=row["lease_id"],
        run_id=row["run_id"],
        attempt_no=row["attempt_no"],
        tenant_id=row["tenant_id"],
        project_id=row["project_id"],
        node_id=row["node_id"],
        site_id=row["site_id"],
        model=row["model"],
        accelerator_nos=(),  # the insert takes them from the lease
        granted_at=row["granted_at"],
        ends_at=row["ends_at"],
        released_at=row["released_at"],
        observed_from=row["observed_from"],
        observed_until=row["observed_until"],
        ended=row["ended"],
        billable=VERDICTS[Reason(reason)].billable if reason in VERDICTS else None,
        unbilled_for=row["kind"] if row["kind"] in UNBILLED_KINDS else None,
        reason=reason,
        metered_until=row["metered_until"],
    )
