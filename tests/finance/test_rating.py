"""Rating: from use to amounts, by contract, price, tier and hour."""

import itertools
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.finance.contract import Contract
from baseai.finance.counted import counted_of
from baseai.finance.period import Calendar, Period
from baseai.finance.price_list import Price, PriceBook, Term
from baseai.finance.rated import Category, RatedLine
from baseai.finance.rating import NotRated, Rating, rate
from baseai.finance.use import MeteredUse
from tests.finance.agreed import (
    HOUR,
    HOUR_US,
    MICROSECOND,
    NOVEMBER,
    OFFICE,
    RESERVED,
    amounts,
    at,
    contract,
    hours,
    price,
    rated,
    use,
)

TIERED = price("p_tiers", tiers=[("0", "3"), ("2", "2"), ("5", "1")])
SPOT = price("p_spot", "0.5", term=Term.SPOT)
RESEARCH = price("p_research", "0.25", term=Term.RESEARCH)


@pytest.mark.parametrize(
    ("uses", "prices", "contracts", "expected"),
    [
        pytest.param([use()], [price()], [], [("on_demand", "2")], id="an hour at the list price"),
        pytest.param(
            [use(site="rj2"), use("2")],
            [price(), price("p_sp4", "3", site="sp4")],
            [],
            [("on_demand", "2"), ("on_demand", "3")],
            id="a price for the site beats the one for any",
        ),
        pytest.param(
            hours(3),
            [TIERED],
            [],
            [("on_demand", "3"), ("on_demand", "3"), ("on_demand", "2")],
            id="volume counts from the first of the month",
        ),
        pytest.param(
            [*hours(1), use("x", from_at=NOVEMBER + HOUR, us=HOUR_US), use("y", from_at=at(1, 2, 30), us=HOUR_US // 2),
             use("z", from_at=at(1, 3), us=HOUR_US)],
            [price("p_half", tiers=[("0", "3"), ("1.5", "2")])],
            [],
            [("on_demand", "3"), ("on_demand", "1.5"), ("on_demand", "1"), ("on_demand", "1"), ("on_demand", "2")],
            id="a line is cut where the next tier begins",
        ),
        pytest.param(
            [use("a", from_at=at(2, 8)), use("b", from_at=at(2, 9)), use("c", from_at=at(1, 9))],
            [price(peaks=(OFFICE,))],
            [],
            [("on_demand", "2"), ("on_demand", "3"), ("on_demand", "2")],
            id="the peak is weekdays from nine",
        ),
        pytest.param(
            hours(2) + hours(2, accelerator_no=2),
            [price(), RESERVED],
            [contract(count=1)],
            [("reserved", "1"), ("reserved", "1"), ("on_demand", "2"), ("on_demand", "2")],
            id="over the commitment it is on demand",
        ),
        pytest.param(
            [use(site="rj2")], [price(), RESERVED], [contract(site="sp4")], [("on_demand", "2")],
            id="a commitment is at its site",
        ),
        pytest.param(
            [use(spot=True)], [price(), RESERVED, SPOT], [contract()], [("spot", "0.5")],
            id="spot stays spot, whatever is reserved",
        ),
        pytest.param(
            [use(), use("2", project="prj_2")],
            [price(), RESEARCH],
            [contract(term=Term.RESEARCH, project="prj_1")],
            [("research", "0.25"), ("on_demand", "2")],
            id="the research tariff is for its project",
        ),
        pytest.param(
            [use()], [price()], [contract(term=Term.ON_DEMAND, discount="0.125")], [("on_demand", "1.75")],
            id="a discount is off the list price",
        ),
        pytest.param(
            [use()],
            [price(), price("p_own", "9", list_id="own", currency="BRL")],
            [contract(term=Term.ON_DEMAND, list_id="own", currency="BRL")],
            [("on_demand", "9")],
            id="a list of its own beats the default",
        ),
        pytest.param(
            [use(), use("2", from_at=NOVEMBER + HOUR), use("3", run="run_2")],
            [price("p_job", "40", unit="job")],
            [],
            [("job", "40"), ("job", "0"), ("job", "40")],
            id="a price per job is charged once a run",
        ),
        pytest.param(
            [use(), use("2", billable=False)], [price()], [], [("on_demand", "2"), ("unbilled", "0")],
            id="what is not billable is a line without an amount",
        ),
        pytest.param(
            [use(meter="tokens_in", us=2_500_000, model="llama", accelerator_no=None)],
            [price("p_tokens", "0.3", meter="tokens_in", unit="million_tokens", model="llama")],
            [],
            [("on_demand", "0.75")],
            id="tokens have a price per million",
        ),
    ],
)  # fmt: skip
def test_rate(
    uses: list[MeteredUse], prices: list[Price], contracts: list[Contract], expected: list[tuple[str, str]]
) -> None:
    found = amounts(rated(uses, *prices, contracts=contracts))
    assert [(category.value, amount) for category, amount in found] == expected


def test_a_price_that_changes_within_a_use_cuts_it_there() -> None:
    noon = at(3, 12, 20)
    prices = [
        price("p_old", "3", valid=(NOVEMBER, noon)),
        price("p_new", "6", valid=(noon, None)),
    ]
    first, second = rated([use(from_at=at(3, 12))], *prices)
    assert (first.price_id, first.effective_until, first.amount_micros) == ("p_old", noon, 1_000_000)
    assert (second.price_id, second.effective_from, second.amount_micros) == ("p_new", noon, 4_000_000)


def test_two_currencies_are_never_added() -> None:
    prices = [price(), price("p_real", "10", currency="BRL", model="l40s")]
    found = rate([use(), use("2", model="l40s")], (), PriceBook(prices), calendar=Calendar())
    assert isinstance(found, Rating)
    assert found.sums() == {"USD": 2_000_000, "BRL": 10_000_000}


def test_a_batch_goes_on_where_the_last_one_ended() -> None:
    contracts = [contract(count=1)]
    prices = (TIERED, RESERVED)
    uses = hours(9) + hours(9, accelerator_no=2)
    at_once = rated(uses, *prices, contracts=contracts)
    lines: list[RatedLine] = []
    for n in range(9):
        batch = [one for one in uses if one.from_at == NOVEMBER + HOUR * n]
        lines += rated(batch, *prices, contracts=contracts, counted=counted_of(lines))
    assert sorted(amounts(lines)) == sorted(amounts(at_once))


# ---- what bad input gets --------------------------------------------------------------------------------------


def refused(uses: list[MeteredUse], *prices: Price, contracts: list[Contract] | None = None) -> NotRated:
    found = rate(uses, contracts or [], PriceBook(prices), calendar=Calendar())
    assert isinstance(found, NotRated)
    return found


def test_a_missing_price_names_the_use_and_where_it_was_looked_for() -> None:
    (error,) = refused([use(), use("2", model="b200")], price()).errors
    assert (error.rule, error.usage_ids) == ("no_price", ("use_2",))
    assert "no on_demand price of b200 at sp4" in error.sentence
    assert "list or catalogue for tenant ten_1" in error.sentence


def test_a_batch_is_refused_whole_or_rated_without_what_is_wrong_as_the_call_says() -> None:
    uses = [use(), use("2", model="b200"), use("3")]
    assert isinstance(rate(uses, (), PriceBook([price()]), calendar=Calendar()), NotRated)
    found = rate(uses, (), PriceBook([price()]), calendar=Calendar(), whole=False)
    assert isinstance(found, Rating)
    assert [line.usage_id for line in found.lines(recorded_at=NOVEMBER)] == ["use_1", "use_3"]
    assert [error.usage_ids for error in found.errors] == [("use_2",)]


def test_a_contract_in_another_currency_than_its_price_is_refused_by_both_names() -> None:
    (error,) = refused([use()], price(), contracts=[contract(term=Term.ON_DEMAND, currency="BRL")]).errors
    assert error.rule == "one_currency"
    assert "contract alfa is in BRL and price p_list" in error.sentence


def test_overlapping_contracts_are_refused_by_name() -> None:
    (error,) = refused([use()], price(), RESERVED, contracts=[contract("alfa"), contract("beta")]).errors
    assert error.rule == "one_contract"
    assert "alfa and beta overlap" in error.sentence


def test_a_price_is_not_needed_for_time_that_is_all_committed() -> None:
    assert amounts(rated([use()], RESERVED, contracts=[contract()])) == [(Category.RESERVED, "1")]


def test_a_late_use_keeps_its_date_and_is_booked_in_an_open_month() -> None:
    calendar = Calendar(closed_through=Period(2026, 11))
    (line,) = rated([use()], price(), calendar=calendar)
    assert (line.period, line.effective_from) == ("2026-12", NOVEMBER)


# ---- properties -----------------------------------------------------------------------------------------------

RATES = st.decimals(min_value="0.000001", max_value="40", places=6)


@st.composite
def cut_days(draw: st.DrawFn) -> tuple[list[MeteredUse], list[MeteredUse]]:
    """A few hours of a few accelerators whole, and the same cut and shuffled."""
    whole, cut = [], []
    for accelerator_no in range(1, draw(st.integers(1, 3)) + 1):
        first = draw(st.integers(0, 700))
        for one in hours(
            draw(st.integers(1, 5)), from_at=NOVEMBER + HOUR * first, accelerator_no=accelerator_no
        ):
            whole.append(one)
            marks = draw(st.lists(st.integers(1, HOUR_US - 1), max_size=3, unique=True))
            bounds = [0, *sorted(marks), HOUR_US]
            for begin, end in itertools.pairwise(bounds):
                name = f"{one.usage_id}-{begin}"
                cut.append(
                    use(
                        name,
                        from_at=one.from_at + begin * MICROSECOND,
                        us=end - begin,
                        accelerator_no=accelerator_no,
                    )
                )
    return whole, draw(st.permutations(cut))


@settings(max_examples=60, deadline=None)
@given(cut_days(), RATES, RATES, st.decimals(min_value="0.5", max_value="6", places=3), st.integers(0, 2))
def test_however_time_is_cut_the_sums_are_the_same(
    days: tuple[list[MeteredUse], list[MeteredUse]],
    rate: Decimal,
    cheaper: Decimal,
    from_volume: Decimal,
    count: int,
) -> None:
    whole, cut = days
    prices = (
        price(tiers=[("0", str(rate)), (str(from_volume), str(cheaper))], peaks=(OFFICE,)),
        RESERVED,
    )
    contracts = [contract(count=count)] if count else []
    by_part: list[dict[tuple[object, ...], int]] = []
    for uses in (whole, cut):
        sums: dict[tuple[object, ...], int] = {}
        for line in rated(uses, *prices, contracts=contracts):
            key = (line.category, line.tier, line.band)
            sums[key] = sums.get(key, 0) + line.amount_micros
        by_part.append({key: micros for key, micros in sums.items() if micros})
    assert by_part[0] == by_part[1]


@settings(max_examples=60, deadline=None)
@given(cut_days(), RATES)
def test_the_sum_is_the_exact_total_rounded_once(
    days: tuple[list[MeteredUse], list[MeteredUse]], rate_an_hour: Decimal
) -> None:
    lines = rated(days[1], price("p", str(rate_an_hour)))
    exact = sum((Fraction(line.quantity, HOUR_US) * Fraction(rate_an_hour) for line in lines), Fraction(0))
    assert sum(line.amount_micros for line in lines) == round(exact * 1_000_000)
    assert all(
        abs(line.amount_micros - Fraction(line.quantity, HOUR_US) * Fraction(rate_an_hour) * 1_000_000) <= 1
        for line in lines
    )


@settings(max_examples=40, deadline=None)
@given(cut_days(), RATES, st.data())
def test_however_a_month_is_batched_the_sum_is_the_same(
    days: tuple[list[MeteredUse], list[MeteredUse]], rate_an_hour: Decimal, data: st.DataObject
) -> None:
    prices = (price(tiers=[("0", str(rate_an_hour)), ("2", "0.000001")]), RESERVED)
    contracts = [contract(count=1)]
    uses = days[1]
    at_once = rated(uses, *prices, contracts=contracts)
    lines: list[RatedLine] = []
    rest = list(uses)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batch, rest = rest[:size], rest[size:]
        lines += rated(batch, *prices, contracts=contracts, counted=counted_of(lines))
    assert sum(line.amount_micros for line in lines) == sum(line.amount_micros for line in at_once)
    assert sum(line.quantity for line in lines) == sum(one.quantity for one in uses)


def test_a_rate_too_fine_for_64_bits_is_reckoned_as_exactly() -> None:
    fine = Decimal("2.9999999999999999")
    lines = rated(hours(200), price("p", str(fine)))
    assert sum(line.amount_micros for line in lines) == round(Fraction(fine) * 200 * 1_000_000)


def test_a_peak_ends_on_the_wall_clock_when_clocks_are_put_back() -> None:
    """In New York at the end of October: two o'clock comes twice, and the peak with it."""
    night = replace(OFFICE, zone="America/New_York", weekdays=frozenset({7}), from_minute=30, until_minute=90)
    start = NOVEMBER + timedelta(hours=1)  # midnight in New York on the day itself
    found = rated(hours(4, from_at=start), price(peaks=(night,)))
    peak_us = sum(line.quantity for line in found if line.band)
    assert peak_us == 1.5 * HOUR_US  # from 00:30 to 01:30, and the second 01:00 to 01:30
