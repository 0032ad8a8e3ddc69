"""Hours are closed when they are over, and counted anew when facts come late. A shell: `reckoned` decides.

Invariant: an hour is closed with all its accelerators in one transaction, and counted anew in one as well, so a crash
at any place leaves each hour as it was or as it shall be; an hour that comes out the same gets no row. Time is the
database's.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from baseai.finance.bucket import HOUR, Bucket, BucketSpan
from baseai.finance.hours.facts import Facts, Hours, reckoned, stretches
from baseai.finance.hours.postgres.check import NAME as CHECK
from baseai.finance.hours.postgres.check import Checked, check_hours
from baseai.finance.hours.postgres.observed import load_facts
from baseai.finance.hours.postgres.sums import load_time
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport
from baseai.finance.period import ZONE, Finding, Period
from baseai.ground.clock import hour_of
from baseai.truth.session import Session, Truth, fetch_all, fetch_one

GRACE = timedelta(minutes=2)  # for reports that are on their way when an hour ends
ACCELERATOR_HOURS_A_TRANSACTION = 20_000
LATE_A_TRANSACTION = 1_000
RECOUNTED = timedelta(days=35)  # by the nightly round: the open month and the one before it, or most of it
NIGHTLY = "the nightly round came to something else"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What one round of closing did."""

    closed: int  # hours
    revised: int  # hours of one accelerator that came out otherwise
    closed_until: datetime | None
    failing: tuple[str, ...] = ()  # what does not add up of these hours


STANDING = """
SELECT hour, accelerator_no, bucket, micro_seconds, revision, replaced_at IS NULL AS stands FROM time_buckets
WHERE accelerator_no = ANY(%(numbers)s) AND hour >= %(since)s AND hour < %(until)s
"""
REPLACE = """
UPDATE time_buckets b SET replaced_at = now() FROM unnest(%s::bigint[], %s::timestamptz[]) AS old (accelerator_no, hour)
WHERE b.accelerator_no = old.accelerator_no AND b.hour = old.hour AND b.replaced_at IS NULL
"""
WRITE = """
INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision, reason)
SELECT * FROM unnest(%s::timestamptz[], %s::bigint[], %s::text[], %s::bigint[], %s::integer[], %s::text[])
"""
FIRST = "SELECT min(installed_at) AS at, count(*) AS accelerators FROM accelerators"
NIGHT = """
SELECT date_trunc('day', now(), %(zone)s) > COALESCE((SELECT ran_at FROM check_rounds WHERE name = %(name)s),
  '-infinity') AND (SELECT closed_until IS NOT NULL FROM time_mark) AS due
"""
FAILING = """
SELECT sentence FROM checks WHERE name = %(name)s AND passed_at IS NULL AND hour >= %(starts_at)s AND hour < %(ends_at)s
ORDER BY hour, site_id LIMIT 6
"""
STILL_OPEN = """
SELECT closed_until FROM time_mark WHERE (closed_until IS NULL OR closed_until < %(ends_at)s)
  AND EXISTS (SELECT FROM accelerators WHERE installed_at < %(ends_at)s)
"""
LATE = "SELECT * FROM late_facts ORDER BY late_no LIMIT %s"


class TimeLedger:
    """What every accelerator was, hour by hour, for the platform's own loop."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def close(self) -> Closing:
        """Close every hour that is over, and count anew what late facts touch. Harmless twice and beside a copy."""
        closed = revised = 0
        failing: list[str] = []
        while True:
            hours, until, wrong = await self._close_some()
            closed += hours
            failing += wrong
            if not hours:
                break
        while True:
            facts, changed, wrong = await self._revise_some()
            revised += changed
            failing += wrong
            if facts < LATE_A_TRANSACTION:
                return Closing(closed=closed, revised=revised, closed_until=until, failing=tuple(failing))

    async def told(
        self, from_at: datetime, until_at: datetime, *, by: TimeBy, pace: Pace | None, simulated: bool = False,
        model: str | None = None, site: str | None = None, serial: str | None = None,
    ) -> TimeReport:  # fmt: skip
        """Sums over whole hours; see `load_time`."""
        return await load_time(
            self._truth, from_at, until_at, by=by, pace=pace, simulated=simulated, model=model, site=site,
            serial=serial,
        )  # fmt: skip

    async def stretches(
        self, accelerator_no: int, from_at: datetime, until_at: datetime
    ) -> tuple[BucketSpan, ...]:
        """What one accelerator was from when to when, by the facts as they are known now, up to now at the latest."""
        async with self._truth.transaction() as session:
            row = await fetch_one(session, "SELECT now() AS now")
            assert row is not None
            window = (from_at, min(until_at, row["now"]))
            if window[0] >= window[1]:
                return ()
            facts = await load_facts(session, window, [accelerator_no])
        return tuple(stretches(facts).get(accelerator_no, ()))

    async def against(self, period: Period) -> tuple[Finding, ...]:
        """What of a month's time stands against closing its books: hours that do not add up, or are open yet."""
        span = {"name": CHECK, "starts_at": period.starts_at(), "ends_at": period.ends_at()}
        async with self._truth.transaction() as session:
            failing = await fetch_all(session, FAILING, span)
            still = await fetch_one(session, STILL_OPEN, span)
        found = [Finding(check=CHECK, sentence=row["sentence"]) for row in failing]
        if still is not None:
            until = still["closed_until"]
            sentence = (
                f"hours of accelerators are closed up to {until.isoformat() if until else 'none'}, not to the end of"
                f" {period}: the controller closes each {GRACE.seconds // 60} minutes after its end"
            )
            found.append(Finding(check=CHECK, sentence=sentence))
        return tuple(found)

    async def nightly_is_due(self) -> bool:
        """Whether the round over everything has not run since the last night began, in the zone of the books."""
        async with self._truth.transaction() as session:
            row = await fetch_one(session, NIGHT, {"zone": ZONE, "name": CHECK})
        return row is not None and bool(row["due"])

    async def nightly(self) -> Checked:
        """Count the last weeks anew, where a fact came late unnoticed, and check every hour there is."""
        async with self._truth.transaction() as session:
            mark = await _mark(session)
        until = mark["closed_until"]
        if until is None:
            return Checked(hours=0, failing=())
        async with self._truth.transaction() as session:
            first = await fetch_one(session, FIRST)
        assert first is not None
        since = hour_of(first["at"])
        end = until
        while end > max(since, until - RECOUNTED):
            start = max(end - _hours_at_once(first["accelerators"]) * HOUR, since)
            async with self._truth.transaction() as session:
                await _mark(session)
                facts = await load_facts(session, (start, end))
                await _write(session, reckoned(facts), facts, keys=None, reason=NIGHTLY)
            end = start
        async with self._truth.transaction() as session:
            return await check_hours(session, since, until, nightly=True)

    async def _close_some(self) -> tuple[int, datetime | None, tuple[str, ...]]:
        async with self._truth.transaction() as session:
            mark = await _mark(session)
            first = await fetch_one(session, FIRST)
            if first is None or first["at"] is None:
                return 0, None, ()
            since = mark["closed_until"] or hour_of(first["at"])
            over = hour_of(mark["now"] - GRACE)
            if since >= over:
                return 0, mark["closed_until"], ()
            hours = min(_hours_at_once(first["accelerators"]), (over - since) // HOUR)
            until = since + hours * HOUR
            facts = await load_facts(session, (since, until))
            await _write(session, reckoned(facts), facts, keys=None, reason=None)
            await session.execute("UPDATE time_mark SET closed_until = %s", (until,))
            checked = await check_hours(session, since, until)
            return hours, until, checked.failing

    async def _revise_some(self) -> tuple[int, int, tuple[str, ...]]:
        """How many late facts were looked at, how many hours of accelerators came out otherwise, what is wrong."""
        async with self._truth.transaction() as session:
            mark = await _mark(session)
            late = await fetch_all(session, LATE, (LATE_A_TRANSACTION,))
            if not late:
                return 0, 0, ()
            reasons: dict[tuple[int, datetime], str] = {}
            for row in late:
                hour = hour_of(row["from_at"])
                while mark["closed_until"] is not None and hour < min(row["until_at"], mark["closed_until"]):
                    reasons.setdefault((row["accelerator_no"], hour), row["reason"])
                    hour += HOUR
            changed = await _recount(session, reasons)
            await session.execute(
                "DELETE FROM late_facts WHERE late_no = ANY(%s)", ([row["late_no"] for row in late],)
            )
            failing: tuple[str, ...] = ()
            if changed:
                touched = [hour for _, hour in reasons]
                failing = (await check_hours(session, min(touched), max(touched) + HOUR)).failing
            return len(late), changed, failing


def _hours_at_once(accelerators: int) -> int:
    return max(1, ACCELERATOR_HOURS_A_TRANSACTION // accelerators)


async def _mark(session: Session) -> Mapping[str, Any]:
    """How far the hours are closed, held against every other closer until the transaction ends."""
    mark = await fetch_one(session, "SELECT closed_until, now() AS now FROM time_mark FOR UPDATE")
    assert mark is not None
    return mark


async def _recount(session: Session, reasons: Mapping[tuple[int, datetime], str]) -> int:
    """Count these hours of accelerators anew, day by day; how many came out otherwise."""
    days: dict[datetime, dict[tuple[int, datetime], str]] = defaultdict(dict)
    for (accelerator_no, hour), reason in reasons.items():
        days[hour.replace(hour=0)][accelerator_no, hour] = reason
    changed = 0
    for keys in days.values():
        window = (min(hour for _, hour in keys), max(hour for _, hour in keys) + HOUR)
        facts = await load_facts(session, window, sorted({number for number, _ in keys}))
        held = {hold.model for hold in facts.holds}
        for one in facts.accelerators:  # where something is held, what one was may decide what others were
            if one.model in held:
                for (_, hour), reason in list(keys.items()):
                    keys.setdefault((one.accelerator_no, hour), reason)
        changed += await _write(session, reckoned(facts), facts, keys=keys, reason=None)
    return changed


async def _write(
    session: Session,
    hours: Hours,
    facts: Facts,
    *,
    keys: Mapping[tuple[int, datetime], str] | None,
    reason: str | None,
) -> int:
    """Write what differs from what stands as the next revision; of `keys` alone, each with its reason, if given."""
    numbers = sorted({one.accelerator_no for one in facts.accelerators} | {no for no, _ in keys or ()})
    since, until = facts.window
    stored = await fetch_all(session, STANDING, {"numbers": numbers, "since": since, "until": until})
    stands: dict[tuple[int, datetime], dict[str, int]] = defaultdict(dict)
    revisions: dict[tuple[int, datetime], int] = {}
    for row in stored:
        key = row["accelerator_no"], row["hour"]
        revisions[key] = max(revisions.get(key, 0), row["revision"])
        if row["stands"]:
            stands[key][row["bucket"]] = row["micro_seconds"]
    nothing: Mapping[Bucket, int] = {}
    fresh = {
        key: hours.get(key, nothing)
        for key in (keys if keys is not None else hours)
        if dict(hours.get(key, nothing)) != stands.get(key, {})
    }
    old = [key for key in fresh if key in stands]
    if old:
        await session.execute(REPLACE, ([no for no, _ in old], [hour for _, hour in old]))
    rows = [
        (hour, no, bucket.value, us, revisions.get((no, hour), 0) + 1, (keys or {}).get((no, hour), reason))
        for (no, hour), sums in sorted(fresh.items())
        for bucket, us in sums.items()
    ]
    if rows:
        await session.execute(WRITE, [list(column) for column in zip(*rows, strict=True)])
    return len(fresh)
