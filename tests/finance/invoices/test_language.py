"""Amounts, quantities and dates as readers in Brazil and abroad write them."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from baseai.finance.invoices.language import EN, LANGUAGES, PT_BR, Language, language_named
from baseai.ground.fault import Refused


@pytest.mark.parametrize(
    ("cents", "currency", "brazilian", "english"),
    [
        pytest.param(123456, "BRL", "R$\u00a01.234,56", "R$1,234.56", id="thousands and a no-break space"),
        pytest.param(-1000, "BRL", "-R$\u00a010,00", "-R$10.00", id="the sign stands first"),
        pytest.param(123456789, "USD", "US$\u00a01.234.567,89", "US$1,234,567.89", id="millions of dollars"),
        pytest.param(0, "BRL", "R$\u00a00,00", "R$0.00", id="nothing"),
        pytest.param(-5, "USD", "-US$\u00a00,05", "-US$0.05", id="cents alone"),
        pytest.param(100, "EUR", "EUR\u00a01,00", "EUR1.00", id="a currency without a symbol of its own"),
    ],
)
def test_money(cents: int, currency: str, brazilian: str, english: str) -> None:
    assert PT_BR.money(cents, currency) == brazilian
    assert EN.money(cents, currency) == english


@pytest.mark.parametrize(
    ("value", "places", "brazilian"),
    [
        pytest.param("1234567.89", None, "1.234.567,89", id="as many digits as it needs"),
        pytest.param("1234567.8900", None, "1.234.567,89", id="and no more"),
        pytest.param("7", None, "7", id="a whole number has no mark"),
        pytest.param("0.5", 2, "0,50", id="padded"),
        pytest.param("0.125", 2, "0,12", id="half to even"),
        pytest.param("-1234.5", None, "-1.234,5", id="negative"),
    ],
)
def test_number(value: str, places: int | None, brazilian: str) -> None:
    assert PT_BR.number(Decimal(value), places=places) == brazilian


def test_a_price_has_two_digits_at_least_and_all_that_it_needs() -> None:
    assert PT_BR.amount(Decimal("2.5"), "USD") == "US$\u00a02,50"
    assert PT_BR.amount(Decimal("0.0000125"), "USD") == "US$\u00a00,0000125"


def test_percent_day_and_instant() -> None:
    assert PT_BR.percent(Decimal("0.125")) == "12,5%"
    assert EN.percent(Decimal("0.125")) == "12.5%"
    assert (PT_BR.day(date(2026, 12, 1)), EN.day(date(2026, 12, 1))) == ("01/12/2026", "2026-12-01")
    midnight = datetime(2026, 12, 1, 2, 30, tzinfo=UTC)
    assert PT_BR.instant(midnight) == "30/11/2026 23:30"
    assert (PT_BR.month("2026-11"), EN.month("2026-11")) == ("11/2026", "2026-11")


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_every_language_has_every_word(language: Language) -> None:
    for name in ("words", "kinds", "categories", "units"):
        assert getattr(language, name).keys() == getattr(PT_BR, name).keys()


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused, match="pt-BR, en"):
        language_named("tlh")
