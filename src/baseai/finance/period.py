"""A period is one month of the books, in their zone: what is booked in it, and whether anything more may be.

Invariant: a period moves open → closing → closed and never back; what is closed keeps its balances for ever. A
transfer is booked in the month in which it took effect, or, when that is no longer open, in a later one: a late
fact keeps its date. Only whoever closes the books moves a period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from baseai.ground.fault import Conflict, Refused

ZONE = "America/Sao_Paulo"
_ZONE = ZoneInfo(ZONE)


class PeriodState(StrEnum):
    OPEN = "open"  # takes its own facts and late ones
    CLOSING = "closing"  # takes its own facts only; it is over and being checked
    CLOSED = "closed"  # takes nothing


class PeriodEvent(StrEnum):
    BEGIN = "begin"
    CLOSE = "close"


TRANSITIONS: Mapping[tuple[PeriodState, PeriodEvent], PeriodState] = {
    (PeriodState.OPEN, PeriodEvent.BEGIN): PeriodState.CLOSING,
    (PeriodState.CLOSING, PeriodEvent.BEGIN): PeriodState.CLOSING,
    (PeriodState.CLOSING, PeriodEvent.CLOSE): PeriodState.CLOSED,
}


class PeriodClosed(Conflict):
    """A posting into a month that takes no more of its kind."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A month, written `2026-11`."""

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (1900 <= self.year <= 9998 and 1 <= self.month <= 12):
            raise ValueError(f"{self.year}-{self.month} is no month")

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    def next(self) -> "Period":
        return Period(self.year + self.month // 12, self.month % 12 + 1)

    def before(self) -> "Period":
        return Period(self.year - (self.month == 1), (self.month - 2) % 12 + 1)

    def starts_at(self) -> datetime:
        """Its first instant, in UTC."""
        return datetime(self.year, self.month, 1, tzinfo=_ZONE).astimezone(UTC)

    def ends_at(self) -> datetime:
        """The first instant that is no longer in it, in UTC."""
        return self.next().starts_at()


def period_of(at: datetime) -> Period:
    """The month of the books that contains `at`."""
    local = at.astimezone(_ZONE)
    return Period(local.year, local.month)


def period_named(text: str) -> Period:
    """`2026-11` as a period. Raises Refused for anything else."""
    year, dash, month = text.partition("-")
    if dash and len(year) == 4 and len(month) == 2 and (year + month).isdecimal():
        try:
            return Period(int(year), int(month))
        except ValueError:
            pass
    raise Refused(f"{text!r} is no period; a period is a month, written like 2026-11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """How far the books are closed. Months are closed in their order, so two facts say it all."""

    closed_through: Period | None = None  # the newest closed month; all before it are closed too
    closing: Period | None = None  # the one that is being checked, if any

    def state(self, period: Period) -> PeriodState:
        if self.closed_through is not None and period <= self.closed_through:
            return PeriodState.CLOSED
        return PeriodState.CLOSING if period == self.closing else PeriodState.OPEN

    def booking_of(self, at: datetime) -> Period:
        """Where a fact that took effect at `at` is booked now: in its own month, or in the first that is open."""
        own = period_of(at)
        if self.state(own) is not PeriodState.CLOSED:
            return own
        assert self.closed_through is not None
        first = self.closed_through.next()
        return first.next() if first == self.closing else first

    def check(self, transfer_id: str, *, booked_in: Period, effective_at: datetime) -> None:
        """Raises PeriodClosed when the month takes no such transfer."""
        state = self.state(booked_in)
        if state is PeriodState.CLOSED:
            raise PeriodClosed(
                f"{transfer_id}: period {booked_in} is closed; a late fact is booked in {self.booking_of(effective_at)}"
                " and keeps its date"
            )
        if state is PeriodState.CLOSING and period_of(effective_at) != booked_in:
            raise PeriodClosed(
                f"{transfer_id}: period {booked_in} is closing and takes its own facts only; a late one is booked in"
                f" {booked_in.next()}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that stands against closing a month, or against publishing what the books say."""

    check: str  # which check found it
    sentence: str  # what, where, and what to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The month is closed: what its books came to, for ever."""

    period: Period
    digest: str  # SHA-256 of the trial balance in its canonical form
    transfers: int  # from the first row of the books on
    closed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NotClosed:
    """The month stays as it is, because of these."""

    period: Period
    state: PeriodState
    findings: Sequence[Finding]


def may_begin(
    period: Period, calendar: Calendar, *, now: datetime, oldest: Period | None
) -> tuple[Finding, ...]:
    """What stands against closing `period` before anything is added up.

    oldest: the first month with a transfer that is not closed yet, None when there is no such month.
    """
    found = []
    if now < period.ends_at():
        found.append(f"{period} is not over: it ends at {period.ends_at():%Y-%m-%d %H:%M} UTC")
    if oldest is not None and oldest < period:
        found.append(f"{oldest} has postings and is not closed; months are closed in their order")
    return tuple(Finding(check="order", sentence=sentence) for sentence in found)
