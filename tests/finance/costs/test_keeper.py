"""Costs of all time on a real database: what runs used, what stood and what the month adds are the whole, to the cent.

The defects that keepers of shared clusters were blamed for have a test each, named after where they were reported.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from baseai.catalog.bounds import Case
from baseai.finance.contracts.postgres import Bulletins
from baseai.finance.costs.margin import CostNature, EconomicsBy, Part
from baseai.finance.costs.postgres import CostKeeper, load_walked
from baseai.finance.costs.standing import StandingHour, standing_postings
from baseai.finance.hours.postgres import TimeLedger
from baseai.finance.period import Closed, period_of
from baseai.finance.postgres import Meter, PostgresBooks
from baseai.finance.postgres.closing import Closing
from baseai.finance.ptax import Bulletin
from baseai.ground.fault import Conflict
from baseai.ground.money import MICRO, charge
from baseai.truth.session import PLATFORM, Truth, fetch_all
from baseai.wiring.rooms import beside_costs
from tests.finance.costs.assume import first, keeper, version
from tests.finance.journal import EVER
from tests.finance.leased import FlatRates, transfer
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


async def booked_by_hours(truth: Truth) -> dict[str, int]:
    """What hours cost, used and stood; the lines that a month adds once it is over are for no hour."""
    async with truth.transaction() as session:
        rows = await fetch_all(
            session,
            "SELECT debit_account, sum(amount_micros)::bigint AS micros FROM transfers"
            " WHERE hour IS NOT NULL AND debit_account LIKE 'cost:%' GROUP BY 1",
        )
    return {row["debit_account"]: row["micros"] for row in rows}


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


async def stood_us(truth: Truth) -> int:
    """All installed time of hours that are closed: an hour is, some minutes after it is over."""
    return int(
        await one(truth, "SELECT sum(micro_seconds)::bigint FROM time_buckets WHERE replaced_at IS NULL")
    )


async def test_opencost_3039_owned_hardware_that_stood_idle_is_written_off(truth: Truth) -> None:
    """Also opencost 2901: idle was always zero. Four slots stood for six hours, and nobody used them."""
    start = await site(truth)
    costs = await keeper(truth)
    await posted(truth, costs)
    assert await booked_by_hours(truth) == {
        name: await stood_us(truth) // HOUR_US * amount
        for name, amount in whole(costs, start, HOUR_US).items()
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
    installed = await stood_us(truth)
    assert cents(await booked_by_hours(truth)) == cents(whole(costs, start, installed))
    idle = await one(truth, "SELECT sum(micro_seconds)::bigint FROM transfers WHERE run_id IS NULL") / 3
    assert idle == installed - 3 * HOUR_US
    assert await one(truth, "SELECT min(micro_seconds) FROM transfers WHERE run_id IS NULL") > 0
    assert await costs.post(everything=True) == 0  # again changes nothing


async def test_what_one_statement_writes_is_what_the_pure_rule_says(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    since = start + 0.25 * HOUR
    await lease(truth, "run_1", (since, start + 2.1 * HOUR), ended="finished", run_state="succeeded")
    await posted(truth, costs)
    async with truth.transaction() as session:
        rows = await fetch_all(
            session,
            "SELECT t.accelerator_no, a.node_id, n.site_id, a.model, a.round_id, t.hour,"
            " sum(t.micro_seconds)::bigint / 3 AS stood, array_agg(t.transfer_id) AS ids,"
            " array_agg(t.amount_micros) AS amounts, min(t.effective_at) AS at"
            " FROM transfers t JOIN accelerators a USING (accelerator_no) JOIN nodes n ON n.node_id = a.node_id"
            " WHERE t.run_id IS NULL AND t.hour IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6",
        )
    closed = await stood_us(truth) // HOUR_US
    assert closed >= 5 * 4  # five hours of four slots at whatever minute this runs, and mostly six
    assert len(rows) == closed - 1  # one hour of one slot was used whole: of all others something stood
    for row in rows:
        at, ids, amounts, stood = row.pop("at"), row.pop("ids"), row.pop("amounts"), row.pop("stood")
        hour = StandingHour(**row, installed_us=HOUR_US, used_us=HOUR_US - stood)
        found = standing_postings(hour, costs.terms.hourly_cost("cpu-slot", "local", row["hour"]))
        assert isinstance(found, tuple)
        assert {one.transfer_id: one.amount_micros for one in found} == dict(zip(ids, amounts, strict=True))
        assert {one.effective_at for one in found} == {at}


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
    names = whole(costs, start, HOUR_US)
    assert cents({name: before[name] for name in names}) == cents({name: after[name] for name in names})
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


# ---- a month that is over


async def last_month(truth: Truth, hours: int = 6) -> datetime:
    """The last hours of the newest month that has been over for an hour, and so can be closed; the same four slots."""
    await site(truth)
    an_hour_ago = await one(truth, "SELECT now() - interval '1 hour'")
    start = period_of(an_hour_ago).starts_at() - hours * HOUR
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET installed_at = %s, round_id = 'R1'", (start,))
        await session.execute("DELETE FROM late_facts")
        await session.execute(
            "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor)"
            " VALUES (%s, 'node', 'nod_1', 'admit', 'onboarding', 'ready', 'platform')",
            (start,),
        )
    return start


async def measured(
    truth: Truth,
    accelerator_no: int,
    hour: datetime,
    joules: int,
    tenant: int | None,
    *,
    origin: str = "measured",
) -> None:
    """An hour of the accelerator's own counter, while a tenant, or nobody, held it."""
    async with truth.transaction() as session:
        held = None
        if tenant is not None:
            held = f"lea_m{accelerator_no}{hour:%d%H}"
            await session.execute(
                "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model,"
                " state, granted_at, ends_at) SELECT %s, tenant_id, project_id, run_id, attempt_no, node_id, 99, model,"
                " state, granted_at, ends_at FROM leases WHERE tenant_id = %s LIMIT 1 ON CONFLICT DO NOTHING",
                (held, f"ten_{tenant}"),
            )
        await session.execute(
            "INSERT INTO use_hours (accelerator_no, hour, revision, final, closed_at) VALUES (%s, %s, 1, true, now())",
            (accelerator_no, hour),
        )
        await session.execute(
            "INSERT INTO uses (use_id, accelerator_no, node_id, hour, revision, lease_id, run_id, tenant_id,"
            " project_id, from_at, to_at, seen_ms, util_pct, energy_mj, energy_origin, method)"
            " VALUES (%s, %s, 'nod_1', %s, 1, %s, %s, %s, %s, %s, %s, 3600000, 80, %s, %s, 'whole device')",
            (
                f"use_{accelerator_no}_{hour:%d%H}", accelerator_no, hour, held, None if tenant is None else "run_1",
                None if tenant is None else f"ten_{tenant}", None if tenant is None else f"prj_{tenant}", hour,
                hour + HOUR, joules * 1000, origin,
            ),
        )  # fmt: skip


async def test_opencost_3900_a_month_pays_the_energy_that_was_measured(truth: Truth) -> None:
    start = await last_month(truth)
    costs = await keeper(truth)
    period = period_of(start)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    await posted(truth, costs)
    before = (await costs.economics(period, by=EconomicsBy.CUSTOMER)).rows
    await measured(truth, 1, start, 36_000, 1)  # 10 Wh by its counter, against 6 W × 1 h by rating
    await costs.post()
    after = (await costs.economics(period, by=EconomicsBy.CUSTOMER)).rows
    spent = [
        next(row.costs[CostNature.ENERGY].micros for row in rows if row.subject == "ten_1")
        for rows in (before, after)
    ]
    terms = costs.terms.find("cpu-slot", "local", start)
    assert terms is not None
    assert spent[0] == charge(terms.energy_per_hour(start), micro_seconds=HOUR_US, currency="USD").micros
    assert spent[1] == pytest.approx(
        float(Decimal("0.01") * terms.price_per_counted_kwh(start) * MICRO), abs=2
    )
    told = await costs.economics(period)
    assert [(part.origin, part.kwh) for part in told.energy] == [("measured", Decimal("0.01"))]


async def test_what_is_estimated_or_simulated_is_told_apart_and_booked_nowhere(truth: Truth) -> None:
    start = await last_month(truth)
    costs = await keeper(truth)
    await posted(truth, costs)
    before = await booked(truth)
    await measured(truth, 1, start, 36_000, None, origin="estimated")
    await measured(truth, 2, start, 72_000, None, origin="simulated")
    await costs.post()
    assert await booked(truth) == before
    told = await costs.economics(period_of(start))
    assert [(part.origin, part.kwh) for part in told.energy] == [
        ("estimated", Decimal("0.01")),
        ("simulated", Decimal("0.02")),
    ]


async def test_a_month_is_closed_with_all_of_its_costs_and_takes_no_more(truth: Truth) -> None:
    start = await last_month(truth)
    costs = await keeper(truth)
    period = period_of(start)
    await lease(truth, "run_1", (start, start + 2 * HOUR), ended="finished", run_state="succeeded")
    loop = Meter(truth, Assumed(costs))
    await loop.meter()
    await loop.post()
    await TimeLedger(truth).close()
    done = await Closing(truth, (costs.against,)).close(period, PLATFORM)
    assert isinstance(done, Closed), done
    await costs.post(everything=True)  # what this month has so far
    closed = await costs.economics(period)
    assert closed.total.accruing.micros == 0
    for nature in (CostNature.MAINTENANCE, CostNature.SUPPORT, CostNature.NETWORK, CostNature.PAYMENT_FEES):
        assert closed.total.costs[nature].micros > 0, nature
    assert closed.total.costs[CostNature.PAYMENT_FEES].micros == 2 * 2_000_000 * 25 // 1000
    # Late: a counter is read after the books were closed. It is booked in the month that is open, with its own date.
    await measured(truth, 3, start, 36_000, None)
    assert await costs.post(everything=True) == 0  # a closed month is left alone
    assert (await costs.economics(period)).total.cost == closed.total.cost


async def test_a_round_that_paid_more_is_written_off_at_what_it_paid(truth: Truth) -> None:
    start = await last_month(truth)
    usual = await keeper(truth)
    standard = usual.terms.find("cpu-slot", "local", start)
    assert standard is not None
    price = standard.ownership.price * 192 * 2
    costs = CostKeeper(truth, beside_costs(truth), first(), lambda held: None)
    await costs.record(version("server_price", str(price), subject="round:R1"))
    await posted(truth, costs)
    await costs.post(everything=True)
    held = await booked(truth)
    paid = costs.terms.find("cpu-slot", "local", start, round_id="R1")
    assert paid is not None
    hours = (await stood_us(truth)) / HOUR_US
    over_until = period_of(await one(truth, "SELECT closed_until FROM time_mark")).starts_at()
    # The rest is of a month whose line is booked when it is over.
    in_months = 4 * ((over_until - start) // HOUR)
    assert in_months >= 24
    standard_rate = standard.ownership.depreciation_per_hour()
    wanted = Decimal(in_months) * standard_rate * 2 + (Decimal(hours) - in_months) * standard_rate
    assert held["cost:depreciation"] == pytest.approx(
        float(wanted * MICRO), abs=10_000
    )  # a cent: hours are rounded
    assert paid.ownership.depreciation_per_hour() == pytest.approx(2 * standard_rate)


@pytest.mark.parametrize("name", ["opencost_3828", "hami_3073"])
async def test_opencost_3828_hami_3073_a_part_of_an_accelerator_costs_a_part(truth: Truth, name: str) -> None:
    """Four runs that have a slot for a quarter of an hour each cost one slot-hour, and not four."""
    start = await site(truth)
    costs = await keeper(truth)
    for quarter in range(4):
        since = start + quarter * HOUR / 4
        await lease(
            truth, f"run_{name}_{quarter}", (since, since + HOUR / 4), ended="finished", run_state="succeeded"
        )
    await posted(truth, costs)
    used = await one(
        truth,
        "SELECT sum(amount_micros)::bigint FROM transfers WHERE run_id IS NOT NULL AND debit_account = 'cost:energy'",
    )
    assert used == pytest.approx(whole(costs, start, HOUR_US)["cost:energy"], abs=4)
    told = await costs.economics(period_of(start), by=EconomicsBy.CUSTOMER)
    assert next(row.time.occupied_us for row in told.rows if row.subject == "ten_1") == HOUR_US


# ---- assumptions in the truth


async def test_versions_are_kept_and_what_was_reckoned_stays(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    assert await costs.seed() == 0  # the first versions are written once
    await posted(truth, costs)
    before = await booked(truth)
    await costs.record(version("pue_ratio", "1.1", subject="site:local", valid_from=start))
    assert await costs.post(everything=True) == 0  # the first transfer fixed the hour's rate
    assert await booked(truth) == before
    with pytest.raises(Conflict, match="versions are not edited"):
        await costs.record(version("pue_ratio", "1.2", subject="site:local", valid_from=start))
    async with truth.transaction() as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await session.execute("UPDATE assumptions SET usual = 2")


async def test_a_figure_that_rests_on_a_stale_assumption_says_so(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await TimeLedger(truth).close()
    assert (await costs.economics(period_of(start))).stale == []
    await costs.record(
        version("pue_ratio", "1.3", subject="site:local", source_on=date(2026, 1, 2), valid_from=start - HOUR)
    )
    (sentence,) = (await costs.economics(period_of(start))).stale
    assert sentence.startswith("pue_ratio of site:local is ")


async def test_reais_are_told_in_dollars_at_ptax_or_stay_apart(truth: Truth) -> None:
    start = await site(truth)
    costs = await keeper(truth)
    await PostgresBooks(truth).post(
        [
            transfer(
                "tr_brl", 53_349_000, debit="tenant:ten_1:receivable", credit="revenue:on_demand", currency="BRL",
                effective_at=start,
            )
        ]
    )  # fmt: skip
    period = period_of(start)
    told = await costs.economics(period)
    assert told.total.revenue.micros == 0
    assert [(money.currency, money.micros) for money in told.apart] == [("BRL", 53_349_000)]
    assert "no PTAX" in told.exchange[0]
    day = start.date() - timedelta(days=10)
    bulletins = [
        Bulletin(
            day=day + timedelta(days=n),
            sell=Decimal("5.3349"),
            bulletin_at=start - timedelta(days=1),
            fetched_at=start,
            digest="d" * 64,
        )
        for n in range(14)
    ]
    await Bulletins(truth).keep(bulletins)
    told = await costs.economics(period)
    assert told.apart == ()
    assert told.total.revenue.amount() == 10
    assert told.exchange[0].startswith("PTAX 5.3349")
