"""Costs of all time on a real database: what runs used, what stood and what the month adds are the whole, to the cent.

The defects that keepers of shared clusters were blamed for have a test each, named after where they were reported.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import pytest

from baseai.catalog.bounds import Case
from baseai.finance.costs.margin import CostNature, EconomicsBy, Part
from baseai.finance.costs.postgres import CostKeeper, load_walked
from baseai.finance.hours.postgres import TimeLedger
from baseai.finance.period import period_of
from baseai.finance.postgres import Meter, PostgresBooks
from baseai.ground.money import MICRO, charge
from baseai.truth.session import Truth
from tests.finance.costs.assume import keeper
from tests.finance.journal import EVER
from tests.finance.leased import FlatRates
from tests.finance.site import lease, over
from tests.finance.stood import HOUR, HOUR_US, one, site

pytestmark = pytest.mark.anyio

HOURLY = (CostNature.DEPRECIATION, CostNature.ENERGY, CostNature.COLOCATION)


class Assumed(FlatRates):
    """The list's price, at the costs of a keeper's assumptions."""

    def __init__(self, costs: CostKeeper) -> None:
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "price_per_hour", Decimal("2.00"))

    def hourly_cost(self, model: str, site_id: str, at: datetime):  # type: ignore[no-untyped-def]
        return self.costs.terms.hourly_cost(model, site_id, at)  # type: ignore[attr-defined]


async def booked(truth: Truth) -> dict[str, int]:
    trial = await PostgresBooks(truth).trial_balance(EVER)
    assert trial.is_balanced()
    return {row.account: row.balance_micros() for row in trial.balances if row.balance_micros()}


async def posted(truth: Truth, costs: CostKeeper) -> Meter:
    """Everything that is over is metered, its hours closed, its costs posted."""
    loop = Meter(truth, Assumed(costs))
    await loop.meter()
    await loop.post()
    await TimeLedger(truth).close()
    await costs.post()
    return loop


def whole(costs: CostKeeper, at: datetime, micro_seconds: int) -> dict[str, int]:
    rate = costs.terms.hourly_cost("cpu-slot", "local", at)
    assert rate is not None
    return {
        f"cost:{name}": charge(per_hour, micro_seconds=micro_seconds, currency="USD").micros
        for name, per_hour in (
            ("depreciation", rate.depreciation),
            ("energy", rate.energy),
            ("colocation", rate.colocation),
        )
    }


def cents(micros: Mapping[str, int]) -> dict[str, int]:
    return {name: round(amount / 10_000) for name, amount in micros.items()}


async def test_opencost_3039_owned_hardware_that_stood_idle_is_written_off(truth: Truth) -> None:
    """Also opencost 2901: idle was always zero. Four slots stood for six hours, and nobody used them."""
    start = await site(truth)
    costs = await keeper(truth)
    await posted(truth, costs)
    assert {name: amount for name, amount in (await booked(truth)).items() if name.startswith("cost:")} == {
        name: 24 * amount for name, amount in whole(costs, start, HOUR_US).items()
    }


async def test_kubecost_1978_idle_is_never_negative_and_all_of_it_is_the_installed_time(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await lease(truth, "run_1", (start, start + 2.5 * HOUR), ended="finished", run_state="succeeded")
    await lease(
        truth,
        "run_2",
        (start + HOUR, start + 1.25 * HOUR),
        accelerator_nos=(2, 3),
        ended="finished",
        run_state="succeeded",
    )
    await posted(truth, costs)
    held = await booked(truth)
    expected = whole(costs, start, 24 * HOUR_US)
    assert cents({name: held[name] for name in expected}) == cents(expected)
    idle = await one(truth, "SELECT sum(micro_seconds)::bigint FROM transfers WHERE run_id IS NULL") / 3
    assert idle == (24 - 3) * HOUR_US
    assert await one(truth, "SELECT min(micro_seconds) FROM transfers WHERE run_id IS NULL") > 0
    assert await costs.post(everything=True) == 0  # again changes nothing


async def test_what_comes_late_moves_cost_from_idle_to_its_run(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    lease_id = await lease(truth, "run_1", (start, start + HOUR))
    await posted(truth, costs)
    before = await booked(truth)
    used = await one(
        truth, "SELECT count(*) FROM usage_lines"
    )  # an hour of an open lease may not be final yet
    await over(truth, lease_id, start + 3 * HOUR, "finished", run_state="succeeded")
    await posted(truth, costs)
    after = await booked(truth)
    expected = whole(costs, start, 24 * HOUR_US)
    assert cents({name: before[name] for name in expected}) == cents({name: after[name] for name in expected})
    told = await costs.economics(period_of(start), by=EconomicsBy.CUSTOMER)
    by_part = {(row.part, row.subject): row for row in told.rows}
    assert by_part[Part.SUBJECT, "ten_1"].time.occupied_us == 3 * HOUR_US
    late = "SELECT count(DISTINCT hour) FROM transfers WHERE note LIKE 'less stood than%'"
    assert await one(truth, late) == 3 - used


@pytest.mark.parametrize("by", EconomicsBy)
async def test_tenants_and_idle_and_overhead_are_the_total(truth: Truth, by: EconomicsBy) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await lease(truth, "run_1", (start, start + 2.5 * HOUR), ended="finished", run_state="succeeded")
    await lease(
        truth, "run_2", (start, start + HOUR), tenant=2, accelerator_nos=(2,), ended="finished",
        run_state="succeeded",
    )  # fmt: skip
    await posted(truth, costs)
    told = await costs.economics(period_of(start), by=by)
    for name in ("revenue", "cost", "capital_recovery", "accruing", "cost_low", "cost_high"):
        parts = sum(getattr(row, name).micros for row in told.rows)
        assert abs(parts - getattr(told.total, name).micros) <= len(told.rows), name
    assert told.total.revenue.amount() == 7
    hourly = sum(told.total.costs[nature].micros for nature in (CostNature.DEPRECIATION, CostNature.ENERGY))
    assert hourly > 0
    assert told.total.cost_low.micros < told.total.cost.micros < told.total.cost_high.micros
    assert told.total.contribution == told.total.revenue - told.total.variable_cost
    assert told.total.depreciation.micros > 0
    assert told.total.capital_recovery.micros > told.total.depreciation.micros


async def test_economics_of_time_that_is_not_posted_are_those_of_posted_time(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await TimeLedger(truth).close()
    before = await costs.economics(period_of(start))
    assert before.total.accruing.micros > 0
    assert before.total.transfers == 0
    await costs.post()
    after = await costs.economics(period_of(start))
    assert after.total.accruing.micros < before.total.accruing.micros
    for nature in HOURLY:
        # The running hour goes on between the two.
        assert after.total.costs[nature].micros == pytest.approx(before.total.costs[nature].micros, rel=1e-3)


async def test_a_figure_is_walked_down_to_transfers_serials_and_leases(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await lease(truth, "run_1", (start, start + 2 * HOUR), ended="finished", run_state="succeeded")
    await posted(truth, costs)
    period = period_of(start)
    told = await costs.economics(period, by=EconomicsBy.CUSTOMER)
    (row,) = [row for row in told.rows if row.part is Part.SUBJECT]
    rows, more = await load_walked(
        truth, period, "revenue", by=EconomicsBy.CUSTOMER, subject="ten_1", limit=1
    )
    rest, end = await load_walked(
        truth, period, "revenue", by=EconomicsBy.CUSTOMER, subject="ten_1", after=more or ""
    )
    assert end is None
    found = [*rows, *rest]
    assert sum(one.amount or 0 for one in found) * MICRO == row.revenue.micros
    assert {(one.serial, one.lease_id) for one in found} == {("s1", "lea_run_1_1")}
    hours, _ = await load_walked(truth, period, "occupied")
    assert sum(one.micro_seconds or 0 for one in hours) == 2 * HOUR_US
    assert {(one.serial, one.lease_id) for one in hours} == {("s1", "lea_run_1_1")}


async def test_the_case_changes_what_time_costs_and_not_the_time(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await posted(truth, costs)
    told = {case: await costs.economics(period_of(start), case=case) for case in Case}
    assert told[Case.LOW].total.cost.micros == pytest.approx(
        told[Case.DEFAULT].total.cost_low.micros, rel=1e-3
    )
    assert told[Case.HIGH].total.cost.micros == pytest.approx(
        told[Case.DEFAULT].total.cost_high.micros, rel=1e-3
    )
