"""What a contract owes beside its use when a month is over."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from baseai.finance.clause import Clauses
from baseai.finance.contract import Contract
from baseai.finance.counted import counted_of
from baseai.finance.month_end import credit_line, month_lines, so_far
from baseai.finance.period import Calendar, Period
from baseai.finance.price_list import Price, PriceBook, Term
from baseai.finance.rated import Category, RatedLine, taken_back
from baseai.finance.rating import NotRated
from baseai.finance.sla import Availability, Promise, Step
from tests.finance.agreed import (
    HOUR_US,
    NOVEMBER,
    RESERVED,
    amounts,
    at,
    contract,
    hours,
    price,
    rated,
    use,
)

MONTH = Period(2026, 11)
HOURS = 720  # of November
CLOSED = Calendar(closed_through=MONTH)


def month_end(
    one: Contract, lines: list[RatedLine], *prices: Price, calendar: Calendar | None = None
) -> list[RatedLine]:
    calendar = calendar or Calendar()
    clauses = Clauses([one], PriceBook(prices), calendar)
    found = month_lines(
        one, MONTH, clauses, so_far(lines, one, MONTH), calendar=calendar, recorded_at=NOVEMBER
    )
    assert not isinstance(found, NotRated), found
    return list(found)


def test_reserved_time_is_paid_whether_used_or_not() -> None:
    one = contract(count=2)
    lines = rated(hours(100), RESERVED, contracts=[one])
    (unused,) = month_end(one, lines, RESERVED)
    assert amounts([unused]) == [(Category.COMMITMENT, str(2 * HOURS - 100))]
    assert unused.quantity == (2 * HOURS - 100) * HOUR_US
    assert month_end(one, [*lines, unused], RESERVED) == []


def test_used_and_unused_come_to_the_commitment_exactly() -> None:
    one = contract(discount="0.071")
    thirds = price("p_reserved", "0.333333", term=Term.RESERVED)
    uses = [use(str(n), from_at=at(2, n % 24, n % 50), us=7_777_777 + n) for n in range(200)]
    lines = rated(uses, thirds, contracts=[one])
    lines += month_end(one, lines, thirds)
    full = Decimal("0.333333") * (1 - Decimal("0.071")) * HOURS * 1_000_000
    assert sum(line.amount_micros for line in lines) == round(full)


def test_a_contract_of_a_part_of_the_month_owes_that_part() -> None:
    one = contract(
        from_at=at(16, 0), until_at=datetime(2027, 5, 16, 3, tzinfo=UTC), minimum_micros=1_000_000_000
    )
    lines = month_end(one, [], RESERVED)
    assert amounts(lines) == [(Category.COMMITMENT, "360"), (Category.MINIMUM, "140")]


def test_a_price_that_changes_in_the_month_is_paid_for_its_own_days() -> None:
    one = contract()
    noon = at(11, 0)
    old = price("p_old", "1", term=Term.RESERVED, valid=(at(1, 0), noon))
    new = price("p_new", "2", term=Term.RESERVED, valid=(noon, None))
    assert amounts(month_end(one, [], old, new)) == [
        (Category.COMMITMENT, "240"),
        (Category.COMMITMENT, "960"),
    ]


def test_a_price_per_month_is_owed_for_each_committed_accelerator() -> None:
    one = contract(count=3)
    monthly = price("p_month", "500", term=Term.RESERVED, unit="month")
    lines = rated(hours(5), monthly, contracts=[one])
    assert {line.amount_micros for line in lines} == {0}
    assert amounts(month_end(one, lines, monthly)) == [(Category.PERIOD, "1500")]


def test_lago_api_1783_a_least_spend_is_trued_up_once() -> None:
    one = contract(term=Term.ON_DEMAND, minimum_micros=100_000_000)
    lines = rated(hours(30), price(), contracts=[one])
    (true_up,) = month_end(one, lines, price())
    assert amounts([true_up]) == [(Category.MINIMUM, "40")]
    assert month_end(one, [*lines, true_up], price()) == []


def test_late_use_of_a_closed_month_gives_the_true_up_back_in_the_open_one() -> None:
    one = contract(term=Term.ON_DEMAND, minimum_micros=100_000_000)
    lines = rated(hours(30), price(), contracts=[one])
    lines += month_end(one, lines, price())
    late = rated(
        hours(5, accelerator_no=2), price(), contracts=[one], counted=counted_of(lines), calendar=CLOSED
    )
    (back,) = month_end(one, [*lines, *late], price(), calendar=CLOSED)
    assert (back.period, back.effective_from) == ("2026-12", MONTH.starts_at())
    assert amounts([*late, back])[-1] == (Category.MINIMUM, "-10")
    assert sum(line.amount_micros for line in [*lines, *late, back]) == 100_000_000


def test_lago_api_4436_what_was_given_back_counts_once() -> None:
    """A line taken back, a true-up and a credit beside each other come to the least spend less the credit, no less."""
    one = replace(
        contract(term=Term.ON_DEMAND, minimum_micros=100_000_000),
        promise=Promise(steps=(Step(below_ratio=Decimal("0.999"), credit_ratio=Decimal("0.1")),)),
    )
    lines = rated(hours(60), price(), contracts=[one])
    lines.append(taken_back(lines[0], period="2026-11", recorded_at=NOVEMBER, note="not billable after all"))
    lines += month_end(one, lines, price())
    assert sum(line.amount_micros for line in lines) == 118_000_000
    kept = Availability(promised_us=1000, lost_us=10, excluded_us=0, event_ids=("evd_1",))
    for _ in range(2):  # the second time there is nothing left to give
        credit = credit_line(
            one, MONTH, kept, so_far(lines, one, MONTH), calendar=Calendar(), recorded_at=NOVEMBER
        )
        lines += [credit] if credit else []
    lines += month_end(one, lines, price())
    assert sum(line.amount_micros for line in lines) == 118_000_000 - 11_800_000
    assert "0.990000000" in (lines[-1].note or "")


def test_openmeter_2837_no_line_is_longer_than_what_it_is_for() -> None:
    """Neither than the contract's own time, nor than the month."""
    one = contract(from_at=at(10, 0), until_at=datetime(2027, 5, 10, 3, tzinfo=UTC), ended_at=at(20, 0))
    lines = rated([use(from_at=at(12, 0))], RESERVED, contracts=[one])
    lines += month_end(one, lines, RESERVED)
    assert all(at(10, 0) <= line.effective_from <= line.effective_until <= at(20, 0) for line in lines)
    assert sum(line.quantity for line in lines) == 240 * HOUR_US


def test_a_month_end_without_a_price_names_what_is_missing() -> None:
    one = contract()
    clauses = Clauses([one], PriceBook([price()]), Calendar())
    found = month_lines(
        one, MONTH, clauses, so_far([], one, MONTH), calendar=Calendar(), recorded_at=NOVEMBER
    )
    assert isinstance(found, NotRated)
    assert "no reserved price of h100" in found.errors[0].sentence
    assert "contract alfa" in found.errors[0].sentence
