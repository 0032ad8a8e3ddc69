"""Months of the books: their edges in the books' zone, what each state takes, in which order they close."""

from datetime import UTC, datetime

import pytest

from baseai.finance.period import (
    Calendar,
    Period,
    PeriodClosed,
    PeriodState,
    may_begin,
    period_named,
    period_of,
)
from baseai.ground.fault import Refused

OCTOBER, NOVEMBER, DECEMBER = Period(2026, 10), Period(2026, 11), Period(2026, 12)
CLOSED_OCTOBER = Calendar(closed_through=OCTOBER, closing=NOVEMBER)


def at(day: int, month: int = 11, hour: int = 12) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def test_a_month_begins_at_midnight_in_sao_paulo() -> None:
    assert NOVEMBER.starts_at() == datetime(2026, 11, 1, 3, tzinfo=UTC)
    assert NOVEMBER.ends_at() == DECEMBER.starts_at()
    assert period_of(datetime(2026, 11, 1, 2, 59, 59, tzinfo=UTC)) == OCTOBER
    assert period_of(datetime(2026, 11, 1, 3, tzinfo=UTC)) == NOVEMBER


def test_a_month_of_a_summer_with_its_own_time_began_an_hour_earlier() -> None:
    assert Period(2018, 12).starts_at() == datetime(2018, 12, 1, 2, tzinfo=UTC)


def test_the_year_turns() -> None:
    assert str(DECEMBER.next()) == "2027-01"
    assert period_named("2027-01") > DECEMBER


@pytest.mark.parametrize("text", ["2026-13", "2026-1", "26-01", "2026/01", "november", "", "2026-01-01"])
def test_what_is_no_month_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Refused, match="written like 2026-11"):
        period_named(text)


@pytest.mark.parametrize(
    ("when", "month"),
    [
        pytest.param(at(5, 12), DECEMBER, id="a fact of an open month stands in it"),
        pytest.param(at(5), NOVEMBER, id="a month that is closing still takes its own"),
        pytest.param(at(5, 10), DECEMBER, id="a fact of a closed month goes to the first open one"),
        pytest.param(at(5, 3), DECEMBER, id="however old it is"),
    ],
)
def test_where_a_fact_is_booked(when: datetime, month: Period) -> None:
    assert CLOSED_OCTOBER.booking_of(when) == month


@pytest.mark.parametrize(
    ("month", "when", "says"),
    [
        pytest.param(OCTOBER, at(5, 10), "tr_1: period 2026-10 is closed", id="closed"),
        pytest.param(
            NOVEMBER, at(5, 10), "tr_1: period 2026-11 is closing", id="a late fact into a closing one"
        ),
    ],
)
def test_a_month_that_takes_no_more_is_named(month: Period, when: datetime, says: str) -> None:
    with pytest.raises(PeriodClosed, match=says):
        CLOSED_OCTOBER.check("tr_1", booked_in=month, effective_at=when)


def test_states_follow_from_how_far_the_books_are_closed() -> None:
    states = [CLOSED_OCTOBER.state(month) for month in (Period(2020, 1), OCTOBER, NOVEMBER, DECEMBER)]
    assert states == [PeriodState.CLOSED, PeriodState.CLOSED, PeriodState.CLOSING, PeriodState.OPEN]


def test_a_month_is_closed_when_it_is_over_and_after_those_before_it() -> None:
    (running,) = may_begin(NOVEMBER, Calendar(), now=at(29), oldest=NOVEMBER)
    assert "2026-11 is not over" in running.sentence
    (skipped,) = may_begin(NOVEMBER, Calendar(), now=at(5, 12), oldest=OCTOBER)
    assert "2026-10 has postings and is not closed" in skipped.sentence
    assert may_begin(NOVEMBER, Calendar(), now=at(5, 12), oldest=NOVEMBER) == ()
