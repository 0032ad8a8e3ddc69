"""Price lists: which price holds, and what contradicts itself."""

from datetime import timedelta

import pytest

from baseai.finance.price_list import Price, PriceBook, Term, price_faults
from tests.finance.agreed import NOVEMBER, OFFICE, at, price

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("prices", "faults"),
    [
        pytest.param(
            [price("a", valid=(at(1, 0), at(5, 0))), price("b", valid=(at(5, 0), None))], [], id="in turn"
        ),
        pytest.param(
            [price("a", valid=(at(1, 0), at(5, 0))), price("b", valid=(at(6, 0), None))],
            ["a gap between a and b: no price from 2026-11-05T03:00:00+00:00 to 2026-11-06T03:00:00+00:00"],
            id="a gap names both and when",
        ),
        pytest.param(
            [price("a", valid=(at(1, 0), at(7, 0))), price("b", valid=(at(6, 0), None))],
            ["a and b overlap from 2026-11-06T03:00:00+00:00 on"],
            id="an overlap names both and since when",
        ),
        pytest.param(
            [price("a"), price("b", valid=(at(6, 0), None))],
            ["a and b overlap from 2026-11-06T03:00:00+00:00 on"],
            id="what is open overlaps whatever follows",
        ),
        pytest.param(
            [price("a"), price("b", site="sp4"), price("c", model="b200"), price("d", term=Term.SPOT)],
            [],
            id="another site, model or term is another line",
        ),
        pytest.param(
            [price("a", term=Term.RESERVED, months=12), price("b", term=Term.RESERVED, months=36)],
            [],
            id="another length is another line",
        ),
    ],
)
def test_prices_of_one_line_follow_each_other(prices: list[Price], faults: list[str]) -> None:
    assert list(price_faults(prices)) == faults
    if faults:
        with pytest.raises(ValueError, match=faults[0].partition(":")[0]):
            PriceBook(prices)


def test_a_longer_reservation_has_the_price_of_the_longest_length_it_reaches() -> None:
    lengths = [price(f"p{m}", term=Term.RESERVED, months=m) for m in (6, 12, 36)]
    book = PriceBook([*lengths, price("p_any", term=Term.RESERVED)])

    def found(months: int | None) -> str:
        held = book.price(
            ["list"], meter="accelerator_time", model="h100", site_id="sp4", term=Term.RESERVED,
            at=NOVEMBER, months=months,
        )  # fmt: skip
        assert held is not None
        return held.price_id

    assert [found(months) for months in (None, 6, 24, 36)] == ["p_any", "p6", "p12", "p36"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param({"unit": "accelerator_minute"}, "not per 'accelerator_minute'", id="another unit"),
        pytest.param({"meter": "tokens_in"}, "tokens_in is priced per million_tokens", id="another meter's"),
        pytest.param({"meter": "steps"}, "no meter 'steps'", id="no meter"),
        pytest.param({"currency": "usd"}, "not an ISO 4217 code", id="no currency"),
        pytest.param({"tiers": [("1", "2")]}, "starts at volume 0", id="tiers from the middle"),
        pytest.param({"tiers": [("0", "2"), ("9", "1"), ("5", "1")]}, "do not rise", id="tiers that fall"),
        pytest.param({"unit": "month", "peaks": (OFFICE,)}, "neither tiers nor peaks", id="a month's peak"),
        pytest.param({"term": Term.RESERVED, "peaks": (OFFICE,)}, "day and night", id="reserved by day"),
        pytest.param({"valid": (at(2, 0), at(1, 0))}, "ends before it begins", id="backwards"),
        pytest.param({"months": 12}, "only a reserved price", id="months of what is not reserved"),
    ],
)
def test_killbill_2013_a_price_in_a_wrong_unit_or_shape_is_refused(said: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        price("p_1", **said)  # type: ignore[arg-type]


def test_a_peak_is_told_by_the_wall_clock_of_its_zone() -> None:
    friday, saturday = at(6, 9), at(7, 9)
    assert [OFFICE.holds(one) for one in (friday - timedelta(minutes=1), friday, saturday)] == [
        False,
        True,
        False,
    ]
    bounds = OFFICE.bounds(at(6, 0), at(7, 0))
    assert {at(6, 9), at(6, 18)} <= set(bounds) <= {at(6, 9), at(6, 18)}
