"""Sums of the time ledger from PostgreSQL: of closed hours as they stand, of open ones reckoned when asked for."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from baseai.finance.bucket import Bucket
from baseai.finance.hours.facts import reckoned
from baseai.finance.hours.postgres.check import NAME
from baseai.finance.hours.postgres.observed import load_facts
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport, TimeSum, Withheld, merged
from baseai.finance.period import ZONE
from baseai.ground.clock import hour_of
from baseai.ground.fault import Refused
from baseai.truth.session import Session, Truth, fetch_all, fetch_one

OPEN_ACCELERATORS_MAX = 4_096  # beyond that a report ends with the last closed hour

SUBJECT = {
    TimeBy.BUCKET: "NULL::text",
    TimeBy.SITE: "n.site_id",
    TimeBy.MODEL: "a.model",
    TimeBy.NODE: "a.node_id",
    TimeBy.ACCELERATOR: "a.serial",
}
WHOSE = """
SELECT a.accelerator_no, {subject} AS subject, n.site_id FROM accelerators a JOIN nodes n USING (node_id)
WHERE n.simulated = %(simulated)s AND (%(model)s::text IS NULL OR a.model = %(model)s)
  AND (%(site)s::text IS NULL OR n.site_id = %(site)s) AND (%(serial)s::text IS NULL OR a.serial = %(serial)s)
"""
# First by accelerator, which needs no other table, and only then by what accelerators are told by.
WHOLE = """
WITH whose AS ({whose}), t AS (
  SELECT accelerator_no, bucket, sum(micro_seconds)::bigint AS us FROM time_buckets
  WHERE replaced_at IS NULL AND hour >= %(since)s AND hour < %(until)s GROUP BY accelerator_no, bucket
)
SELECT w.subject, NULL::timestamptz AS hour, t.bucket, sum(t.us)::bigint AS us
FROM t JOIN whose w USING (accelerator_no) GROUP BY w.subject, t.bucket
"""
HOURLY = """
WITH whose AS MATERIALIZED ({whose})
SELECT w.subject, t.hour, t.bucket, sum(t.micro_seconds)::bigint AS us
FROM time_buckets t JOIN whose w USING (accelerator_no)
WHERE t.replaced_at IS NULL AND t.hour >= %(since)s AND t.hour < %(until)s {passing}
GROUP BY w.subject, t.hour, t.bucket
"""
PASSING = """AND NOT EXISTS (SELECT FROM checks c WHERE c.name = %(name)s AND c.passed_at IS NULL
  AND c.hour = t.hour AND c.site_id = w.site_id)"""
FAILING = """
SELECT hour, site_id, sentence FROM checks WHERE name = %(name)s AND passed_at IS NULL
  AND hour >= %(since)s AND hour < %(until)s AND (%(site)s::text IS NULL OR site_id = %(site)s) ORDER BY hour, site_id
"""
STATE = """
SELECT now() AS now, (SELECT closed_until FROM time_mark) AS closed_until,
  (SELECT ran_at FROM check_rounds WHERE name = %(name)s) AS checked_at,
  (SELECT count(*) FROM (SELECT DISTINCT b.hour, b.accelerator_no FROM time_buckets b
    WHERE b.replaced_at IS NOT NULL AND b.hour >= %(since)s AND b.hour < %(until)s) r) AS revised,
  (SELECT count(*) FROM accelerators) AS accelerators
"""


async def load_time(
    truth: Truth,
    from_at: datetime,
    until_at: datetime,
    *,
    by: TimeBy = TimeBy.BUCKET,
    pace: Pace | None = None,
    simulated: bool = False,
    model: str | None = None,
    site: str | None = None,
    serial: str | None = None,
) -> TimeReport:
    """What all accelerators, or those of a model, at a site or of a serial, were from a whole UTC hour to another.

    Up to now, if that is earlier.

    Raises Refused for a span that ends before it begins or that cuts an hour.
    """
    for name, at in (("from", from_at), ("to", until_at)):
        if at != hour_of(at):
            raise Refused(
                f"{name} {at.isoformat()} is not the start of an hour: the time ledger tells whole hours"
            )
    if until_at <= from_at:
        raise Refused(f"to {until_at.isoformat()} is not after from {from_at.isoformat()}")
    spanned: dict[str, Any] = {
        "since": from_at,
        "until": until_at,
        "name": NAME,
        "simulated": simulated,
        "model": model,
        "site": site,
        "serial": serial,
    }
    async with truth.transaction() as session:
        state = await fetch_one(session, STATE, spanned)
        assert state is not None
        failing = await fetch_all(session, FAILING, spanned)
        whose = WHOSE.format(subject=SUBJECT[by])
        if pace is None and not failing:
            query = WHOLE.format(whose=whose)
        else:
            query = HOURLY.format(whose=whose, passing=PASSING if failing else "")
        sums = [
            TimeSum(
                subject=row["subject"],
                start_at=None if row["hour"] is None else _start(row["hour"], pace),
                bucket=Bucket(row["bucket"]),
                micro_seconds=row["us"],
            )
            for row in await fetch_all(session, query, spanned)
        ]
        labels = {}
        if by is TimeBy.NODE:
            rows = await fetch_all(session, "SELECT node_id, name FROM nodes")
            labels = {row["node_id"]: row["name"] for row in rows}
        closed_until = state["closed_until"]
        left_out = False
        open_since = max(from_at, closed_until) if closed_until is not None else from_at
        open_until = min(until_at, state["now"])
        if open_since < open_until:
            left_out = state["accelerators"] > OPEN_ACCELERATORS_MAX
            if not left_out:
                sums += await _open(session, (open_since, open_until), by, pace, spanned)
    return TimeReport(
        from_at=from_at,
        until_at=until_at,
        closed_until=closed_until,
        checked_at=state["checked_at"],
        sums=merged(sums),
        labels=labels,
        withheld=tuple(Withheld(**row) for row in failing),
        revised=state["revised"],
        open_left_out=left_out,
    )


async def _open(
    session: Session,
    window: tuple[datetime, datetime],
    by: TimeBy,
    pace: Pace | None,
    spanned: Mapping[str, Any],
) -> list[TimeSum]:
    query = WHOSE.format(subject=SUBJECT[by])
    whose = {row["accelerator_no"]: row["subject"] for row in await fetch_all(session, query, spanned)}
    return [
        TimeSum(subject=whose[accelerator_no], start_at=_start(hour, pace), bucket=bucket, micro_seconds=us)
        for (accelerator_no, hour), of_hour in reckoned(await load_facts(session, window)).items()
        if accelerator_no in whose
        for bucket, us in of_hour.items()
    ]


def _start(hour: datetime, pace: Pace | None) -> datetime | None:
    if pace is Pace.DAY:
        return hour.astimezone(ZoneInfo(ZONE)).replace(hour=0)
    return None if pace is None else hour
