"""Promises: availability from events, and the credit for a month below it."""

from decimal import Decimal

import pytest

from baseai.finance.period import Period
from baseai.finance.sla import HealthEvent, Promise, Step, Turn, availability, credit_micros, credit_ratio
from tests.finance.agreed import HOUR_US, at

MONTH = Period(2026, 11)
PROMISE = Promise(
    steps=(
        Step(below_ratio=Decimal("0.999"), credit_ratio=Decimal("0.05")),
        Step(below_ratio=Decimal("0.99"), credit_ratio=Decimal("0.25")),
    )
)


def event(
    turn: Turn, day: int, hour: int, *, subject: str = "s1", event_id: str | None = None
) -> HealthEvent:
    return HealthEvent(
        at=at(day, hour), subject=subject, turn=turn, event_id=event_id or f"{subject}-{day}-{hour}"
    )


def down(day: int, hour: int, **said: str) -> HealthEvent:
    return event(Turn.DOWN, day, hour, **said)


def up(day: int, hour: int, **said: str) -> HealthEvent:
    return event(Turn.UP, day, hour, **said)


@pytest.mark.parametrize(
    ("events", "lost_hours"),
    [
        pytest.param([], 0, id="nothing happened"),
        pytest.param([down(3, 0), up(3, 2)], 2, id="down for two hours"),
        pytest.param([up(3, 2), down(3, 0)], 2, id="in any order"),
        pytest.param([down(3, 0), down(3, 0), up(3, 2)], 2, id="told twice counts once"),
        pytest.param([down(3, 0), down(3, 1), up(3, 2)], 2, id="down while down"),
        pytest.param([down(30, 20)], 4, id="still down when the month ends"),
        pytest.param([down(-3, 0), up(1, 1)], 1, id="down since the month before"),
        pytest.param(
            [down(3, 0), event(Turn.EXCLUDED, 3, 1), up(3, 5)], 1, id="from announced maintenance on"
        ),
        pytest.param([down(3, 0, subject="s9"), up(3, 2, subject="s9")], 0, id="somebody else's"),
    ],
)
def test_lost_time_is_what_the_events_say(events: list[HealthEvent], lost_hours: int) -> None:
    assert availability(events, subjects=["s1"], period=MONTH).lost_us == lost_hours * HOUR_US


def test_excluded_time_is_not_promised_either() -> None:
    kept = availability(
        [event(Turn.EXCLUDED, 1, 0), up(16, 0), down(17, 0), up(17, 36)], subjects=["s1"], period=MONTH
    )
    assert (kept.promised_us, kept.lost_us) == (360 * HOUR_US, 36 * HOUR_US)
    assert kept.ratio == Decimal("0.9")


def test_each_subject_is_promised_its_own_span() -> None:
    spans = {"s1": (at(1, 0), at(11, 0)), "s2": (at(-30, 0), at(99, 0))}
    kept = availability([down(20, 0), up(20, 5)], subjects=spans, period=MONTH)
    assert (kept.promised_us, kept.lost_us) == ((240 + 720) * HOUR_US, 0)


@pytest.mark.parametrize(
    ("lost_hours", "credit"),
    [
        pytest.param(0, "0", id="kept"),
        pytest.param(1, "0.05", id="one hour of 720"),
        pytest.param(7, "0.05", id="seven"),
        pytest.param(8, "0.25", id="eight are more than one in a hundred"),
    ],
)
def test_the_harshest_step_that_was_missed_counts(lost_hours: int, credit: str) -> None:
    kept = availability([down(3, 0), up(3, lost_hours)], subjects=["s1"], period=MONTH)
    assert credit_ratio(kept, PROMISE) == Decimal(credit)
    assert credit_micros(kept, PROMISE, charged_micros=1_000_010) == round(Decimal(credit) * 1_000_010)


def test_availability_never_flatters() -> None:
    kept = availability([down(3, 0), up(3, 1)], subjects=["s1", "s2", "s3"], period=MONTH)
    assert kept.ratio <= 1 - Decimal(1) / 2160
    assert kept.event_ids == ("s1-3-0",)


def test_a_promise_goes_down_and_up() -> None:
    with pytest.raises(ValueError, match="go down in availability and up in credit"):
        Promise(steps=PROMISE.steps[::-1])
