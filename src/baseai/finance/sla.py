"""A promise is the availability agreed with a customer, and the credit due for a month below it.

Invariant: availability is 1 less the lost time of the promised subjects ÷ their promised time, exactly, from events
that the customer holds too; the same events give the same credit whoever computes it. Time that is excluded
(maintenance that was announced, the customer's own doing) is neither lost nor promised.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum

from baseai.finance.period import Period

MICROSECOND = timedelta(microseconds=1)


class Turn(StrEnum):
    """What happened to a subject."""

    DOWN = "down"
    UP = "up"
    EXCLUDED = "excluded"  # down, and not counted: from here until it is up


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HealthEvent:
    """One turn of one subject (an accelerator, by serial, or whatever was promised)."""

    at: datetime
    subject: str
    turn: Turn
    event_id: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"{self.event_id}: {self.at} names no zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Below this availability, that share of the month's charge comes back."""

    below_ratio: Decimal
    credit_ratio: Decimal

    def __post_init__(self) -> None:
        if not (0 < self.below_ratio <= 1 and 0 < self.credit_ratio <= 1):
            raise ValueError(
                f"a credit of {self.credit_ratio} below {self.below_ratio}: both are over 0, to 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Steps of credit, the mildest first."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        for mild, harsh in itertools.pairwise(self.steps):
            if mild.below_ratio <= harsh.below_ratio or mild.credit_ratio >= harsh.credit_ratio:
                raise ValueError("steps of credit go down in availability and up in credit")
        if not self.steps:
            raise ValueError("a promise has one step of credit at least")


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What became of the promised time of a month."""

    promised_us: int  # over all subjects, excluded time taken off
    lost_us: int
    excluded_us: int
    event_ids: tuple[str, ...]  # the events that lost time rests on

    @property
    def ratio(self) -> Decimal:
        """0 to 1; 1 when nothing was promised. Nine digits, rounded down, so that it never flatters."""
        if self.promised_us == 0:
            return Decimal(1)
        kept = (self.promised_us - self.lost_us) * 10**9 // self.promised_us
        return Decimal(kept).scaleb(-9)


def availability(
    events: Iterable[HealthEvent],
    *,
    subjects: Mapping[str, tuple[datetime, datetime]] | Sequence[str],
    period: Period,
) -> Availability:
    """What the subjects kept of a month.

    events: in any order, repeated ones count once; those before the month say how it began, and what is down at
    the end stays so. Events about others are passed over. Down within excluded time, or excluded within down time,
    is what the latest event says.
    subjects: with the span each was promised, or their names alone for the whole month.
    """
    spans = (
        dict(subjects)
        if isinstance(subjects, Mapping)
        else dict.fromkeys(subjects, (period.starts_at(), period.ends_at()))
    )
    turns: dict[str, dict[str, HealthEvent]] = defaultdict(dict)
    for event in events:
        if event.subject in spans:
            turns[event.subject][event.event_id] = event
    promised_us = lost_us = excluded_us = 0
    blamed: list[str] = []
    for subject, (from_at, until_at) in sorted(spans.items()):
        start, end = max(from_at, period.starts_at()), min(until_at, period.ends_at())
        if end <= start:
            continue
        promised_us += (end - start) // MICROSECOND
        state, since, cause = Turn.UP, start, ""
        said: list[HealthEvent | None] = [*sorted(turns[subject].values())]
        for turn in [*said, None]:
            at = end if turn is None else min(max(turn.at, start), end)
            span_us = (at - since) // MICROSECOND
            if state is Turn.DOWN and span_us:
                lost_us += span_us
                blamed.append(cause)
            elif state is Turn.EXCLUDED:
                excluded_us += span_us
            if turn is not None:
                state, since, cause = turn.turn, at, turn.event_id
    return Availability(
        promised_us=promised_us - excluded_us,
        lost_us=lost_us,
        excluded_us=excluded_us,
        event_ids=tuple(dict.fromkeys(blamed)),
    )


def credit_ratio(kept: Availability, promise: Promise) -> Decimal:
    """The share of the month's charge that comes back: of the harshest step that was missed."""
    return max(
        (step.credit_ratio for step in promise.steps if kept.ratio < step.below_ratio), default=Decimal(0)
    )


def credit_micros(kept: Availability, promise: Promise, *, charged_micros: int) -> int:
    """What comes back of a month's charge, in micro-units, half to even."""
    share = charged_micros * credit_ratio(kept, promise)
    return int(share.to_integral_value(rounding=ROUND_HALF_EVEN))
