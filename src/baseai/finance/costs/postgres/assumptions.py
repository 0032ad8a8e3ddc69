"""Versions of assumptions in the truth: recorded once, read as a whole, never changed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from baseai.catalog.bounds import Bounds
from baseai.finance.costs.assumed import EVER, Assumed
from baseai.finance.period import Calendar, period_of
from baseai.ground.fault import Conflict
from baseai.truth.history import record
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all

COLUMNS = (
    "assumption_id, subject, name, low, usual, high, unit, currency, source, source_on, mark, valid_from,"
    " recorded_by"
)
INSERT = f"""
INSERT INTO assumptions ({COLUMNS}) VALUES (%(assumption_id)s, %(subject)s, %(name)s, %(low)s, %(usual)s, %(high)s,
  %(unit)s, %(currency)s, %(source)s, %(source_on)s, %(mark)s, %(valid_from)s, %(recorded_by)s)
"""  # noqa: S608 - pieces are constants of this file


class AssumptionRows:
    """Every version of every assumption."""

    def __init__(self, truth: Truth, load_calendar: Callable[[Session], Awaitable[Calendar]]) -> None:
        self._truth = truth
        self._load_calendar = load_calendar

    async def all(self) -> tuple[Assumed, ...]:
        async with self._truth.transaction() as session:
            return await load_assumptions(session)

    async def seed(self, first: Sequence[Assumed], *, now: datetime) -> int:
        """Write what the catalogue assumes; how many were new.

        A catalogue that says something else later is a version from `now` on, save where somebody has recorded one.
        """
        written = 0
        async with self._truth.transaction() as session:
            await session.execute("SELECT pg_advisory_xact_lock(hashtextextended('assumptions', 0))")
            known = await load_assumptions(session)
            ids = {one.assumption_id for one in known}
            newest = {(one.subject, one.name): one for one in known}
            for one in first:
                before = newest.get((one.subject, one.name))
                if one.assumption_id in ids or (before is not None and before.recorded_by != one.recorded_by):
                    continue
                version = one if before is None else replace(one, valid_from=max(now, EVER))
                await session.execute(INSERT, _row(version))
                written += 1
        return written

    async def record(self, version: Assumed, scope: Scope = PLATFORM) -> Assumed:
        """Add a version. Raises Conflict when one begins at the same instant, or in a month that is closed."""
        async with self._truth.transaction(scope) as session:
            calendar = await self._load_calendar(session)
            month = period_of(version.valid_from)
            if calendar.closed_through is not None and month <= calendar.closed_through:
                raise Conflict(
                    f"{version.name} of {version.subject}: {month} is closed and keeps what was assumed then;"
                    f" let it hold from {calendar.closed_through.ends_at():%Y-%m-%d} on"
                )
            try:
                await session.execute(INSERT, _row(version))
            except UniqueViolation as wrong:
                raise Conflict(
                    f"{version.name} of {version.subject} has a version from {version.valid_from.isoformat()} on"
                    " already; versions are not edited: record one that begins later"
                ) from wrong
            await record(
                session, "assumption", version.assumption_id, "record", actor=scope.actor,
                sentence=f"{version.name} of {version.subject}: {version.bounds.default} {version.unit}",
            )  # fmt: skip
        return version


async def load_assumptions(session: Session) -> tuple[Assumed, ...]:
    query = f"SELECT {COLUMNS} FROM assumptions ORDER BY valid_from, recorded_at, assumption_id"  # noqa: S608 - constants
    return tuple(_assumed(row) for row in await fetch_all(session, query))


def _assumed(row: DictRow) -> Assumed:
    low, usual, high = row.pop("low"), row.pop("usual"), row.pop("high")
    return Assumed(**row, bounds=Bounds(low=low, default=usual, high=high))


def _row(one: Assumed) -> dict[str, object]:
    return {
        "assumption_id": one.assumption_id,
        "subject": one.subject,
        "name": one.name,
        "low": one.bounds.low,
        "usual": one.bounds.default,
        "high": one.bounds.high,
        "unit": one.unit,
        "currency": one.currency,
        "source": one.source,
        "source_on": one.source_on,
        "mark": one.mark,
        "valid_from": one.valid_from,
        "recorded_by": one.recorded_by,
    }
