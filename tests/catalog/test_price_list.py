"""On-demand prices: the latest that has taken effect holds."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from baseai.catalog import load_catalog
from baseai.catalog.price_list import price_list_in
from baseai.catalog.sheet import BrokenSheet, parse_sheet
from baseai.ground.fault import NotFound

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TWO_LISTS = """
[sources]
book = { title = "A book", read_on = 2026-11-22, mark = "B" }
[prices.second]
effective_from = 2026-07-01T00:00:00Z
currency = "USD"
per_hour = { L40S = [0.90, "book"] }
[prices.first]
effective_from = 2026-01-01T00:00:00-03:00
currency = "USD"
per_hour = { L40S = [0.87, "book"] }
"""


@pytest.mark.parametrize(
    ("at", "per_hour"),
    [
        pytest.param(datetime(2026, 1, 1, 3, tzinfo=UTC), "0.87", id="the first instant counts"),
        pytest.param(datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), "0.87", id="until the next"),
        pytest.param(datetime(2026, 7, 1, tzinfo=UTC), "0.90", id="from its own instant on"),
        pytest.param(
            datetime(2026, 6, 30, 21, tzinfo=timezone(timedelta(hours=-3))), "0.90", id="in any zone"
        ),
    ],
)
def test_the_latest_price_that_has_taken_effect_holds(at: datetime, per_hour: str) -> None:
    prices = price_list_in(parse_sheet(TWO_LISTS, file="x.toml"), models=frozenset({"L40S"}))
    assert prices.price("L40S", at).per_hour == Decimal(per_hour)


def test_before_the_first_list_there_is_no_price() -> None:
    prices = price_list_in(parse_sheet(TWO_LISTS, file="x.toml"), models=frozenset({"L40S"}))
    with pytest.raises(NotFound):
        prices.price("L40S", datetime(2026, 1, 1, 2, 59, tzinfo=UTC))


def test_two_prices_from_one_instant_are_refused() -> None:
    twice = TWO_LISTS.replace("2026-07-01T00:00:00Z", "2026-01-01T03:00:00Z")
    with pytest.raises(BrokenSheet, match="second price"):
        price_list_in(parse_sheet(twice, file="x.toml"), models=frozenset({"L40S"}))


def test_an_instant_without_zone_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no zone"):
        load_catalog().price("L40S", datetime(2026, 11, 22))  # noqa: DTZ001 - the naive instant is the point


def test_every_model_has_a_price_in_dollars() -> None:
    catalog = load_catalog()
    for accelerator in catalog.accelerators:
        price = catalog.price(accelerator.model, NOW)
        assert price.per_hour > 0
        assert price.currency == "USD"


def test_no_price_is_below_the_cost_of_an_installed_hour() -> None:
    catalog = load_catalog()
    for ownership in catalog.assumptions.owned:
        cost = catalog.hourly_cost(ownership.model, "SP4")
        assert catalog.price(ownership.model, NOW).per_hour > cost.total, ownership.model
