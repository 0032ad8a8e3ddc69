"""Price sheets: read whole, or refused with the place of every mistake."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from baseai.finance.price_list import Price, Term
from baseai.finance.price_sheet import BadPriceSheet, peak_text, prices_in

HEAD = "model,site,term,months,currency,rate,tiers,peaks,valid_from,valid_until\n"
ROW = "H100-SXM,sp4,on_demand,,USD,,0:3.85 5000:3.20,America/Sao_Paulo 1-5 09:00-18:00 x1.25,2026-12-01,\n"


def read(text: str) -> tuple[Price, ...]:
    return prices_in(text, list_id="list", file="december.csv", source="test")


def test_a_row_is_a_price_from_the_first_moment_of_its_day_in_sao_paulo() -> None:
    (price,) = read("\ufeff" + HEAD + ROW + "\n")
    assert (price.term, price.valid_from, price.valid_until) == (
        Term.ON_DEMAND,
        datetime(2026, 12, 1, 3, tzinfo=UTC),
        None,
    )
    assert [(tier.from_volume, tier.rate) for tier in price.tiers] == [
        (Decimal(0), Decimal("3.85")),
        (Decimal(5000), Decimal("3.20")),
    ]
    assert peak_text(price.peaks[0]) == "America/Sao_Paulo 1-5 09:00-18:00 x1.25"


def test_the_same_text_has_the_same_ids() -> None:
    assert read(HEAD + ROW) == read(HEAD + ROW)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("", "december.csv:1:1: term: is missing", id="nothing at all"),
        pytest.param("colour," + HEAD + "x," + ROW, "december.csv:1:1: colour: is no column", id="a column"),
        pytest.param(HEAD + ROW.replace("on_demand", "ever"), ":2:3: term: 'ever' is no term", id="a term"),
        pytest.param(HEAD + ROW.replace("0:3.85", "0:x"), ":2:7: tiers: '0:x' is no price", id="a tier"),
        pytest.param(
            HEAD + ROW.replace("USD,", "USD,3,"),
            ":2:1: the row has 11 cells and the head 10",
            id="one cell too many",
        ),
        pytest.param(HEAD + ROW.replace("x1.25", "1.25"), ":2:8: peaks: ", id="a peak"),
        pytest.param(HEAD + ROW.replace("Sao_Paulo", "Atlantis"), ":2:8: peaks: ", id="a zone"),
        pytest.param(HEAD + ROW.replace("2026-12-01", "01/12/2026"), ":2:9: valid_from: ", id="a date"),
        pytest.param(
            HEAD + ROW.replace("USD", "usd"), ":2:1: 'usd' is not an ISO 4217 code", id="a currency"
        ),
        pytest.param(HEAD + ROW + ROW.replace("3.85", "3.80"), "overlap from 2026-12-01", id="an overlap"),
    ],
)
def test_a_mistake_is_told_by_its_place(text: str, wrong: str) -> None:
    with pytest.raises(BadPriceSheet) as bad:
        read(text)
    assert wrong in str(bad.value)
