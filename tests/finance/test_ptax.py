"""PTAX: which day's rate holds, and that none is made up."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from baseai.finance.exchange import exchanged
from baseai.finance.ptax import Bulletin, RateUnknown, exchange

FETCHED = datetime(2026, 12, 1, tzinfo=UTC)


def bulletin(day: int, sell: str | None) -> Bulletin:
    """Of November 2026; the 20th is a holiday, the 21st a Saturday."""
    return Bulletin(
        day=date(2026, 11, day),
        sell=None if sell is None else Decimal(sell),
        bulletin_at=None if sell is None else datetime(2026, 11, day, 16, 9, tzinfo=UTC),
        fetched_at=FETCHED,
        digest="d",
    )


KNOWN = [bulletin(18, "5.30"), bulletin(19, "5.40"), bulletin(20, None), bulletin(23, "5.50")]


@pytest.mark.parametrize(
    ("day", "sell", "of"),
    [
        pytest.param(19, "5.30", "Wednesday 2026-11-18", id="the day before"),
        pytest.param(21, "5.40", "Thursday 2026-11-19", id="after a holiday, the day before it"),
        pytest.param(22, "5.40", "Thursday 2026-11-19", id="a Sunday has the last business day's"),
        pytest.param(23, "5.40", "Thursday 2026-11-19", id="a Monday too"),
        pytest.param(24, "5.50", "Monday 2026-11-23", id="and Tuesday has Monday's"),
    ],
)
def test_a_day_has_the_closing_rate_of_the_last_business_day(day: int, sell: str, of: str) -> None:
    found = exchange(KNOWN, date(2026, 11, day))
    assert found.sell == Decimal(sell)
    assert f"of {of}, bulletin of 16:09" in found.note


def test_between_two_known_days_nothing_is_made_up() -> None:
    with pytest.raises(RateUnknown, match="no PTAX for 2026-11-26: the bulletin of 2026-11-25 is not known"):
        exchange([*KNOWN, bulletin(26, "5.70")], date(2026, 11, 26))


def test_a_bank_that_is_silent_for_weeks_is_no_holiday() -> None:
    silent = [bulletin(day, None) for day in range(5, 27)]
    with pytest.raises(RateUnknown):
        exchange(silent, date(2026, 11, 27))


def test_the_books_take_the_rate_with_its_source_and_its_day() -> None:
    rate = exchange(KNOWN, date(2026, 11, 22)).rate
    assert (rate.source, rate.on) == ("ptax", date(2026, 11, 19))
    assert exchanged(1_000_001, "USD", rate) == (5_400_005, "BRL")
    assert exchanged(5_400_000, "BRL", rate) == (1_000_000, "USD")


def test_a_rate_comes_with_the_time_of_its_bulletin() -> None:
    with pytest.raises(ValueError, match="come together"):
        Bulletin(
            day=date(2026, 11, 18),
            sell=Decimal(5),
            bulletin_at=None,
            fetched_at=FETCHED + timedelta(0),
            digest="d",
        )
