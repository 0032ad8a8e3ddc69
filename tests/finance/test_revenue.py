"""What is rated is what is charged: each rated line becomes one transfer, once, whatever happens on the way."""

import asyncio
from datetime import timedelta

import pytest

from baseai.finance.contracts.postgres import Rater
from baseai.finance.contracts.postgres.rated_rows import load_rated
from baseai.finance.period import NotClosed, period_of
from baseai.finance.postgres import Meter, PostgresBooks, load_transfers
from baseai.finance.postgres.books import load_calendar
from baseai.finance.postgres.closing import Closing
from baseai.finance.postgres.revenue import WRITE, lines_astray, waiting_lines
from baseai.truth.session import PLATFORM, Truth, fetch_all
from tests.finance.agreed import price
from tests.finance.journal import EVER, Died, Fuse, FusedTruth
from tests.finance.leased import FlatRates
from tests.finance.site import lease, over, seeded

pytestmark = pytest.mark.anyio

RATES = FlatRates()
HOUR = timedelta(hours=1)
LIST = price("p_list", "3", model="cpu-slot")


def rater(truth: Truth) -> Rater:
    return Rater(truth, load_calendar, lambda: (LIST,))


def meter(truth: Truth) -> Meter:
    return Meter(truth, RATES, bills=False)


async def held(truth: Truth) -> dict[str, int]:
    trial = await PostgresBooks(truth).trial_balance(EVER)
    assert trial.is_balanced()
    return {row.account: row.balance_micros() for row in trial.balances if row.balance_micros()}


async def test_use_is_charged_as_it_is_rated_and_costs_as_it_is_used(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + 1.5 * HOUR), ended="finished", run_state="succeeded")
    loop = meter(truth)
    await loop.meter()
    await rater(truth).rate()
    assert (await loop.post()).transfers == 2 + 6
    sums = await held(truth)
    assert (sums["revenue:on_demand"], sums["cost:energy"]) == (-4_500_000, 225_000)
    (first, _) = [one for one in await load_transfers(truth) if one.credit_account == "revenue:on_demand"]
    assert first.price_id == "p_list"
    assert first.entry_id.startswith("use_run_1_1-1-")  # the usage line, and through it lease and serial
    assert (await loop.post()).transfers == 0
    assert (await loop.recompute()).missing == ()
    async with truth.transaction() as session:
        assert await lines_astray(session) == []


async def test_what_is_taken_back_is_credited_by_name(truth: Truth) -> None:
    start = await seeded(truth)
    lease_id = await lease(truth, "run_1", (start, start + 1.5 * HOUR))
    loop, rates = meter(truth), rater(truth)
    await loop.meter()
    await rates.rate()
    await loop.post()
    assert (await held(truth))["tenant:ten_1:receivable"] == 3_000_000
    await over(truth, lease_id, start + 1.75 * HOUR, "node_lost", run_state="failed")
    await loop.meter()
    await rates.rate()
    await loop.post()
    assert "tenant:ten_1:receivable" not in await held(truth)
    (credit,) = [one for one in await load_transfers(truth) if one.debit_account == "revenue:on_demand"]
    assert credit.note


async def test_hours_that_were_charged_by_the_list_are_not_charged_again(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    before = Meter(truth, RATES)
    await before.meter()
    await before.post()
    await rater(truth).rate()
    loop = meter(truth)
    await loop.post()
    assert (await held(truth))["revenue:on_demand"] == -2_000_000
    assert (await loop.recompute()).missing == ()
    async with truth.transaction() as session:
        assert await lines_astray(session) == []


async def test_copies_and_deaths_post_each_line_once(truth: Truth, dsn: str) -> None:
    start = await seeded(truth)
    for number in (1, 2, 3):
        await lease(
            truth, f"run_{number}", (start, start + 2 * HOUR), accelerator_nos=(number,), ended="finished",
            run_state="succeeded",
        )  # fmt: skip
    await meter(truth).meter()
    await rater(truth).rate()
    fuse = Fuse()
    fused = FusedTruth(dsn, fuse)
    await fused.open()
    for lives in range(30):
        fuse.left = lives
        try:
            await meter(fused).post()
            break
        except Died:
            continue
        finally:
            fuse.left = None
    await fused.close()
    await asyncio.gather(*(meter(truth).post() for _ in range(3)))
    assert (await held(truth))["revenue:on_demand"] == -18_000_000
    assert len(await load_rated(truth, limit=1000)) == 6


async def test_a_backlog_is_claimed_without_a_join_though_its_table_was_empty_when_last_looked_at(
    truth: Truth,
) -> None:
    async with truth.transaction() as session:
        await session.execute("RESET ROLE; ANALYZE unposted; SET ROLE baseai_service")
        plan = await fetch_all(session, "EXPLAIN " + WRITE, {"limit": 20_000, "closed": "", "open": None})
    steps = [row["QUERY PLAN"].strip() for row in plan]
    claim = steps[steps.index("CTE claimed") : steps.index("CTE lines")]
    assert any("on unposted" in step for step in claim)
    assert not [step for step in claim if "Join" in step or "Loop" in step]


async def test_a_month_with_rated_lines_that_are_not_posted_is_not_closed(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    await meter(truth).meter()
    await rater(truth).rate()
    month = period_of(start)
    async with truth.transaction() as session:
        assert len(await waiting_lines(session, month)) == 1
    refused = await Closing(truth).close(month, PLATFORM)
    assert isinstance(refused, NotClosed)


async def test_a_line_that_was_posted_otherwise_is_found(truth: Truth) -> None:
    start = await seeded(truth)
    await lease(truth, "run_1", (start, start + HOUR), ended="finished", run_state="succeeded")
    loop = meter(truth)
    await loop.meter()
    await rater(truth).rate()
    await loop.post()
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute("ALTER TABLE transfers DISABLE TRIGGER USER")
        await session.execute(
            "UPDATE transfers SET amount_micros = 1 WHERE credit_account = 'revenue:on_demand'"
        )
        await session.execute("ALTER TABLE transfers ENABLE TRIGGER USER; SET ROLE baseai_service")
    async with truth.transaction() as session:
        assert [finding.check for finding in await lines_astray(session)] == ["rated"]
