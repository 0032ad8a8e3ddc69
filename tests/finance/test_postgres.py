"""The meter and the books on a real database: nothing lost, nothing twice, no tenant sees another's."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from baseai.finance.cost import By
from baseai.finance.postgres import Meter, PostgresBooks, costs_in, load_transfers
from baseai.finance.rate import HourlyCostRate, HourlyPrice
from baseai.finance.transfer import Transfer
from baseai.finance.trial_balance import balances_of
from baseai.truth.session import Scope, Truth, TruthUnavailable, fetch_all
from tests.finance.leased import FlatRates
from tests.finance.site import lease, over, seeded

pytestmark = pytest.mark.anyio

RATES = FlatRates()
EVER = datetime(9999, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Turn:
    """Rates answered by the first of a list, which the test may change."""

    def __init__(self, rates: list[FlatRates]) -> None:
        self.rates = rates

    def price(self, model: str, at: datetime) -> HourlyPrice | None:
        return self.rates[0].price(model, at)

    def hourly_cost(self, model: str, site_id: str, at: datetime) -> HourlyCostRate | None:
        return self.rates[0].hourly_cost(model, site_id, at)


async def usage(truth: Truth) -> list[tuple[str, int, float]]:
    """Who used which accelerator for how many hours, line by line."""
    async with truth.transaction() as session:
        rows = await fetch_all(session, "SELECT * FROM usage_lines ORDER BY run_id, from_at, accelerator_no")
    return [(row["run_id"], row["accelerator_no"], row["micro_seconds"] / 3.6e9) for row in rows]


async def sums(truth: Truth) -> dict[str, int]:
    """The balance of every account that has one, in micro-units."""
    trial = await PostgresBooks(truth).trial_balance(EVER)
    assert trial.is_balanced()
    return {row.account: row.balance_micros() for row in trial.balances if row.balance_micros()}


async def test_hours_that_are_over_are_metered_and_posted_while_the_lease_goes_on(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start + HOUR / 2, start + 2.5 * HOUR), accelerator_nos=(1, 2))
    meter = Meter(truth, RATES)
    done = await meter.meter()
    assert (done.lines, done.leases) == (4, 1)
    assert await usage(truth) == [("run_1", 1, 0.5), ("run_1", 2, 0.5), ("run_1", 1, 1.0), ("run_1", 2, 1.0)]
    assert (await meter.meter()).leases == 0
    assert (await meter.post()).transfers == 16
    assert (await meter.post()).transfers == 0
    assert await sums(truth) == {
        "asset:accumulated_depreciation": -1_800_000,
        "cost:colocation": 150_000,
        "cost:depreciation": 1_800_000,
        "cost:energy": 450_000,
        "payable:colocation": -150_000,
        "payable:energy": -450_000,
        "revenue:on_demand": -6_000_000,
        "tenant:ten_1:receivable": 6_000_000,
    }


async def test_a_run_that_ends_is_posted_at_once(truth: Truth) -> None:
    start = await seeded(truth)
    lease_id = await lease(truth, "run_1", (start + 5.2 * HOUR, start + 5.4 * HOUR))
    meter = Meter(truth, RATES)
    assert (await meter.meter()).lines == 0
    await over(truth, lease_id, start + 5.5 * HOUR, "finished", run_state="succeeded")
    assert (await meter.meter()).lines == 1
    assert (await meter.post()).transfers == 4
    assert (await sums(truth))["revenue:on_demand"] == -600_000


async def test_attempts_of_one_hour_share_its_transfers(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR / 4), ended="process_lost")
    meter = Meter(truth, RATES)
    second = await lease(truth, "run_1", (start + HOUR / 2, start + 0.6 * HOUR), attempt_no=2)
    await meter.meter()
    assert (await meter.post()).waiting == 1  # the second lease may still add to this hour
    await over(truth, second, start + 0.75 * HOUR, "finished", run_state="succeeded")
    await meter.meter()
    assert (await meter.post()).transfers == 4
    revenue = [
        t for t in await load_transfers(truth, run_id="run_1") if t.credit_account == "revenue:on_demand"
    ]
    assert [(t.amount_micros, t.micro_seconds) for t in revenue] == [(1_000_000, 1_800_000_000)]


async def test_a_lost_node_is_not_billed_and_earlier_hours_are_credited(truth: Truth) -> None:
    start = await seeded(truth)
    lease_id = await lease(truth, "run_1", (start, start + 1.5 * HOUR))
    meter = Meter(truth, RATES)
    await meter.meter()
    await meter.post()
    assert (await sums(truth))["tenant:ten_1:receivable"] == 2_000_000
    await over(truth, lease_id, start + 1.75 * HOUR, "node_lost", run_state="failed")
    await meter.meter()
    await meter.post()
    held = await sums(truth)
    assert "tenant:ten_1:receivable" not in held
    assert "revenue:on_demand" not in held
    assert held["cost:energy"] == 262_500  # what it cost us is booked all the same
    (credit,) = [t for t in await load_transfers(truth) if t.debit_account == "revenue:on_demand"]
    assert credit.note is not None
    assert credit.note.endswith("attempt 1: node_lost")


async def books_after(truth: Truth, meter: Meter, start: datetime, *, looks: bool) -> dict[str, int]:
    """Two runs' history, with the meter looking on the way or only at the end."""

    async def look() -> None:
        if looks:
            await meter.meter()
            await meter.post()

    one = await lease(truth, "run_1", (start, start + 1.2 * HOUR), accelerator_nos=(1, 2))
    await look()
    await over(truth, one, start + 1.3 * HOUR, "node_lost")
    await look()
    two = await lease(
        truth, "run_1", (start + 1.4 * HOUR, start + 2.1 * HOUR), attempt_no=2, accelerator_nos=(2, 3)
    )
    await look()
    await over(truth, two, start + 2.7 * HOUR, "finished", run_state="succeeded")
    await look()
    await meter.meter()
    await meter.post()
    return await sums(truth)


@pytest.mark.parametrize("looks", [True, False], ids=["on the way", "late"])
async def test_the_books_do_not_depend_on_when_the_meter_looked(truth: Truth, looks: bool) -> None:
    start = await seeded(truth)
    held = await books_after(truth, Meter(truth, RATES), start, looks=looks)
    lines = await usage(truth)
    assert lines == [
        ("run_1", 1, 1.0), ("run_1", 2, 1.0), ("run_1", 1, 0.3), ("run_1", 2, 0.3),
        ("run_1", 2, 0.6), ("run_1", 3, 0.6), ("run_1", 2, 0.7), ("run_1", 3, 0.7),
    ]  # fmt: skip
    assert held["tenant:ten_1:receivable"] == 2 * 1_300_000 * 2
    assert held["cost:energy"] == 150_000 * 26 * 2 // 10


async def test_copies_beside_each_other_meter_and_post_once(truth: Truth) -> None:
    start = await seeded(truth)
    for number in range(1, 5):
        await lease(
            truth, f"run_{number}", (start, start + 3 * HOUR), accelerator_nos=(number,), ended="finished",
            run_state="succeeded",
        )  # fmt: skip
    meters = [Meter(truth, RATES) for _ in range(3)]
    done = await asyncio.gather(*(meter.meter() for meter in meters))
    assert sum(one.lines for one in done) == 12
    await asyncio.gather(*(meter.post() for meter in meters))
    for meter in meters:
        await meter.post()
    assert len(await load_transfers(truth, limit=1000)) == 48
    assert (await sums(truth))["revenue:on_demand"] == -24_000_000


async def test_a_meter_that_starts_anew_posts_what_its_predecessor_left(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    await Meter(truth, RATES).meter()
    heir = Meter(truth, RATES)
    assert (await heir.meter()).lines == 0
    assert (await heir.post()).transfers == 4


async def test_time_reported_after_the_end_is_metered_and_posted_too(truth: Truth) -> None:
    start = await seeded(truth)
    lease_id = await lease(truth, "run_1", (start, start + HOUR / 2))
    meter = Meter(truth, RATES)
    await over(truth, lease_id, start + HOUR / 2, "process_lost", run_state="failed")
    await meter.meter()
    await meter.post()
    async with truth.transaction() as session:
        await session.execute(
            "UPDATE leases SET observed_until = %(at)s, released_at = %(at)s", {"at": start + 0.75 * HOUR}
        )
    await meter.meter()
    await meter.post()
    assert await usage(truth) == [("run_1", 1, 0.5), ("run_1", 1, 0.25)]
    assert (await sums(truth))["revenue:on_demand"] == -1_500_000


async def test_a_fault_while_posting_leaves_the_run_due(truth: Truth) -> None:
    class Unreachable(FlatRates):
        def price(self, model: str, at: datetime) -> HourlyPrice | None:
            raise TruthUnavailable("gone")

    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    rates = [Unreachable(), RATES]
    meter = Meter(truth, Turn(rates))
    await meter.meter()
    with pytest.raises(TruthUnavailable):
        await meter.post()
    rates.pop(0)
    assert (await meter.post()).transfers == 4


async def test_usage_without_a_price_waits_and_holds_up_nobody(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(
        truth, "run_1", (start, start + HOUR), model="unknown", ended="finished", run_state="succeeded"
    )
    await lease(
        truth, "run_2", (start, start + HOUR), accelerator_nos=(2,), ended="finished", run_state="succeeded"
    )
    meter = Meter(truth, RATES)
    await meter.meter()
    done = await meter.post()
    assert (done.transfers, done.waiting, done.unpriced[0].model) == (4, 1, "unknown")


async def test_usage_that_contradicts_what_is_metered_is_refused_alone(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    meter = Meter(truth, RATES)
    await meter.meter()
    bad = await lease(
        truth, "run_2", (start + 2 * HOUR, start + 3 * HOUR), accelerator_nos=(2,), ended="finished",
    )  # fmt: skip
    await lease(truth, "run_3", (start, start + HOUR), accelerator_nos=(3,), ended="finished")
    async with truth.transaction() as session:  # what can only be if somebody forges it
        await session.execute(
            "UPDATE leases SET granted_at = %s, observed_from = %s WHERE lease_id = %s", (start, start, bad)
        )
        await session.execute("UPDATE lease_accelerators SET accelerator_no = 1 WHERE lease_id = %s", (bad,))
    done = await meter.meter()
    assert (done.refused, done.lines) == ((bad,), 1)


@pytest.mark.parametrize("table", ["usage_lines", "transfers"])
@pytest.mark.parametrize("deed", ["UPDATE {} SET run_id = 'run_2'", "DELETE FROM {}"])
async def test_what_is_written_stays(truth: Truth, table: str, deed: str) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    meter = Meter(truth, RATES)
    await meter.meter()
    await meter.post()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with truth.transaction() as session:
            await session.execute(deed.format(table))  # type: ignore[arg-type]


async def test_a_tenant_sees_its_own_money_only(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    await lease(
        truth, "run_2", (start, start + 2 * HOUR), tenant=2, accelerator_nos=(2,), ended="finished",
        run_state="succeeded",
    )  # fmt: skip
    meter = Meter(truth, RATES)
    await meter.meter()
    await meter.post()
    own = Scope(tenant_id="ten_1", actor="key")
    assert {t.run_id for t in await load_transfers(truth, own)} == {"run_1"}
    assert [row.subject for row in await costs_in(truth, RATES, own, by=By.RUN)] == ["run_1"]
    assert await costs_in(truth, RATES, own, by=By.RUN, subject="run_2") == ()
    trial = await PostgresBooks(truth, own).trial_balance(EVER)
    assert trial.is_balanced()
    assert "tenant:ten_2:receivable" not in {row.account for row in trial.balances}


async def test_costs_are_estimated_until_posted_and_then_stay_as_they_were(truth: Truth) -> None:
    start = await seeded(truth)
    lease_id = await lease(truth, "run_1", (start, start + 1.5 * HOUR), accelerator_nos=(1, 2))
    meter = Meter(truth, RATES)
    (row,) = await costs_in(truth, RATES, by=By.RUN, subject="run_1")
    assert (row.accelerator_us / 3.6e9, row.accruing) == (3.0, True)
    assert (row.revenue.amount(), row.cost.amount()) == (Decimal(6), Decimal("2.4"))
    await meter.meter()
    await meter.post()
    assert await costs_in(truth, RATES, by=By.RUN, subject="run_1") == (row,)  # one hour posted, the rest not
    await over(truth, lease_id, start + 1.5 * HOUR, "finished", run_state="succeeded")
    await meter.meter()
    assert await costs_in(truth, RATES, by=By.RUN, subject="run_1") == (row,)
    await meter.post()
    (done,) = await costs_in(truth, RATES, by=By.RUN, subject="run_1")
    assert (done.revenue, done.cost, done.accruing) == (row.revenue, row.cost, False)
    assert done.contribution().amount() == Decimal("3.6")


@pytest.mark.parametrize(
    ("by", "subjects"),
    [
        (By.RUN, ["run_1", "run_2"]),
        (By.NODE, ["nod_1"]),
        (By.ACCELERATOR, ["acc_1", "acc_2"]),
        (By.TENANT, ["ten_1"]),
    ],
)
async def test_each_way_to_cut_the_costs_sums_to_the_same(truth: Truth, by: By, subjects: list[str]) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    await lease(truth, "run_2", (start, start + HOUR / 2), accelerator_nos=(2,))
    meter = Meter(truth, RATES)
    await meter.meter()
    await meter.post()
    rows = await costs_in(truth, RATES, by=by)
    assert [row.subject for row in rows] == subjects
    assert sum(row.accelerator_us for row in rows) == 5_400_000_000
    assert sum(row.revenue.micros for row in rows) == 3_000_000
    for subject in subjects:
        assert await costs_in(truth, RATES, by=by, subject=subject) == tuple(
            r for r in rows if r.subject == subject
        )


async def test_transfers_come_newest_first_in_pages(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + 3 * HOUR), ended="finished", run_state="succeeded")
    meter = Meter(truth, RATES)
    await meter.meter()
    await meter.post()
    pages: list[Transfer] = []
    after = None
    while page := await load_transfers(truth, after=after, limit=5):
        pages += page
        after = page[-1].transfer_id
    assert pages == list(await load_transfers(truth))
    assert len(pages) == 12
    assert [t.effective_at for t in pages] == sorted((t.effective_at for t in pages), reverse=True)


async def test_recomputing_from_the_first_row_gives_what_is_stored(truth: Truth) -> None:
    start = await seeded(truth)
    meter = Meter(truth, RATES)
    held = await books_after(truth, meter, start, looks=True)
    transfers = await load_transfers(truth, limit=1000)
    folded = {
        row.account: row.balance_micros() for row in balances_of(transfers, at=EVER) if row.balance_micros()
    }
    assert folded == held
    assert (await meter.recompute()).missing == ()

    everything = "SELECT * FROM usage_lines ORDER BY line_id"
    async with truth.transaction() as session:
        stored = await fetch_all(session, everything)
        await session.execute("UPDATE leases SET metered_until = NULL")
    await Meter(truth, RATES).meter()  # every line again, under the id it has: none is new
    async with truth.transaction() as session:
        assert await fetch_all(session, everything) == stored
    assert (await Meter(truth, RATES).recompute()).missing == ()


async def test_recomputing_finds_what_is_missing(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    meter = Meter(truth, RATES)
    await meter.meter()
    assert len((await meter.recompute()).missing) == 4
