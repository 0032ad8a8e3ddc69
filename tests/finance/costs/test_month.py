"""What a month adds to its hours: its own length, the highest demand, what collecting took, what the meter said."""

from decimal import Decimal

import pytest

from baseai.finance.costs.margin import CostNature
from baseai.finance.costs.month import (
    BookedLine,
    CountedEnergy,
    Demand,
    MonthLine,
    Stay,
    Whose,
    highest_quarter,
    lines_of,
    month_postings,
)
from baseai.finance.costs.terms import Terms
from baseai.finance.period import Calendar, Period
from tests.finance.costs.assume import NOON, terms

HOUR_US = 3_600_000_000
NOVEMBER = Period(2026, 11)
MONTH_US = 720 * HOUR_US
ONE = Whose(accelerator_no=1, node_id="nod_1", site_id="SP4", model="H100-SXM", round_id="R1")


def usual() -> Terms:
    found = terms().find("H100-SXM", "SP4", NOON)
    assert found is not None
    return found


def stay(micro_seconds: int = MONTH_US) -> Stay:
    return Stay(whose=ONE, micro_seconds=micro_seconds, terms=usual(), standard=usual())


def by_nature(
    stays: tuple[Stay, ...] = (),
    counted: tuple[CountedEnergy, ...] = (),
    demands: tuple[Demand, ...] = (),
    collected: dict[tuple[str, str], int] | None = None,
) -> dict[CostNature, int]:
    lines = lines_of(stays, counted, demands, collected or {}, fee_ratio=Decimal("0.025"), month_us=MONTH_US)
    return {line.nature: line.amount_micros for line in lines}


def test_colocation_is_a_rate_a_month_however_long_the_month_is() -> None:
    """November has 720 hours and hours are booked at a 730th: the line brings the whole rate."""
    hours = usual().colocation_per_hour() * 720
    line = by_nature((stay(),))[CostNature.COLOCATION]
    whole = usual().kilowatts * usual().colocation_per_kw_month
    assert line == round((whole - hours) * 1_000_000)
    assert line > 0


def test_half_a_month_installed_is_half_of_a_month() -> None:
    whole, half = by_nature((stay(),)), by_nature((stay(MONTH_US // 2),))
    for nature in (CostNature.NETWORK, CostNature.SUPPORT, CostNature.MAINTENANCE):
        assert half[nature] == pytest.approx(whole[nature] / 2, abs=1)


def energy(kwh: str, hours: int = 10, tenant_id: str | None = "ten_1") -> CountedEnergy:
    whose = Whose(
        accelerator_no=1, node_id="nod_1", site_id="SP4", model="H100-SXM", round_id="R1", tenant_id=tenant_id
    )
    return CountedEnergy(
        whose=whose,
        kwh=Decimal(kwh),
        micro_seconds=hours * HOUR_US,
        price_per_kwh=usual().price_per_counted_kwh(NOON),
        standard_per_hour=usual().energy_per_hour(NOON),
    )


def test_opencost_3900_energy_that_was_measured_is_what_is_paid() -> None:
    """Two tenants held an accelerator for as long, and one drew twice as much: held time alone must not decide."""
    much, little = (by_nature(counted=(energy(kwh),))[CostNature.ENERGY] for kwh in ("10", "5"))
    price = usual().price_per_counted_kwh(NOON)
    assert much - little == pytest.approx(float(5 * price * 1_000_000), abs=2)
    booked = usual().energy_per_hour(NOON) * 10
    assert much == pytest.approx(float((10 * price - booked) * 1_000_000), abs=1)


def test_what_the_meter_saw_of_nobody_is_nobodys() -> None:
    lines = lines_of(
        (), (energy("1"), energy("1", tenant_id=None)), (), {}, fee_ratio=Decimal(0), month_us=MONTH_US
    )
    assert {line.whose.tenant_id for line in lines} == {"ten_1", None}


def test_demand_is_charged_once_a_site_by_the_highest_quarter() -> None:
    quarters = {0: Decimal(40), 1: Decimal("55.5"), 2: Decimal(50)}
    highest = highest_quarter(quarters)
    assert highest == Decimal("55.5")
    assert highest_quarter({}) is None
    demand = Demand(site_id="SP4", kilowatts=highest, measured=True, rate_per_kw_month=Decimal("4.10"))
    (line,) = lines_of((), (), (demand,), {}, fee_ratio=Decimal(0), month_us=MONTH_US)
    assert line.amount_micros == 227_550_000
    assert line.basis == "55.5 kW: highest quarter of an hour, measured"


def test_collecting_takes_its_share_in_the_currency_of_the_revenue_and_nothing_of_credits() -> None:
    collected = {("ten_1", "BRL"): 1_000_000_000, ("ten_2", "USD"): -5_000_000}
    lines = lines_of((), (), (), collected, fee_ratio=Decimal("0.025"), month_us=MONTH_US)
    assert [(one.whose.tenant_id, one.currency, one.amount_micros) for one in lines] == [
        ("ten_1", "BRL", 25_000_000)
    ]


def line(amount: int) -> MonthLine:
    return MonthLine(
        nature=CostNature.ENERGY, whose=ONE, amount_micros=amount, currency="USD", basis="measured"
    )


@pytest.mark.parametrize(
    ("amount", "booked", "debit", "moved"),
    [
        pytest.param(100, None, "cost:energy", 100, id="booked for the first time"),
        pytest.param(-40, None, "payable:energy", 40, id="the hours were too dear"),
        pytest.param(70, 100, "payable:energy", 30, id="learnt later that it was less"),
        pytest.param(100, 100, None, 0, id="again changes nothing"),
    ],
)
def test_a_line_is_booked_as_the_difference(
    amount: int, booked: int | None, debit: str | None, moved: int
) -> None:
    held = {} if booked is None else {line(0).key: BookedLine(amount_micros=booked, transfers=1)}
    found = month_postings([line(amount)], held, NOVEMBER, {}, calendar=Calendar())
    assert [(one.debit_account, one.amount_micros) for one in found] == (
        [] if debit is None else [(debit, moved)]
    )
    assert all(str(one.booked_in) == "2026-11" for one in found)


def test_a_closed_month_gets_its_late_line_in_the_open_one_and_keeps_its_date() -> None:
    (found,) = month_postings([line(5)], {}, NOVEMBER, {}, calendar=Calendar(closed_through=NOVEMBER))
    assert str(found.booked_in) == "2026-12"
    assert found.effective_at < NOVEMBER.ends_at()
