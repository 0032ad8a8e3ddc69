"""Duplicates, reorderings and deaths between any two statements leave the same balances and no imbalance."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from baseai.finance.books import Books
from baseai.finance.memory import MemoryBooks
from baseai.finance.postgres import Meter, PostgresBooks
from baseai.finance.transfer import Transfer
from baseai.truth.session import Truth, fetch_all
from tests.finance.journal import EVER, Died, Fuse, FusedTruth, Journal
from tests.finance.leased import FlatRates
from tests.finance.site import lease, over, seeded

HOUR = timedelta(hours=1)


def test_memory_survives_whatever_happens_to_the_messages() -> None:
    run_state_machine_as_test(
        Journal, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


class ClaimsFirst(MemoryBooks):
    """A keeper that notes an id before it writes the row, and says of a noted one that all is well."""

    def __init__(self) -> None:
        super().__init__()
        self.claimed: set[str] = set()

    async def post(self, transfers: Sequence[Transfer]) -> int:
        fresh = [one for one in list(transfers[:]) if one.transfer_id not in self.claimed]
        self.claimed |= {one.transfer_id for one in fresh}
        for _ in transfers:  # here it may die
            pass
        return await MemoryBooks.post(self, fresh)


class Trusting(MemoryBooks):
    """A keeper that takes whatever comes under a known id for the same."""

    async def post(self, transfers: Sequence[Transfer]) -> int:
        known = {transfer.transfer_id for transfer in self}
        return await MemoryBooks.post(self, [one for one in transfers if one.transfer_id not in known])


@pytest.mark.parametrize("keeper", [ClaimsFirst, Trusting])
def test_a_keeper_that_breaks_a_promise_is_found(keeper: type[MemoryBooks]) -> None:
    class Broken(Journal):
        def opened(self) -> Books:
            return keeper()

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Broken,
            settings=settings(
                max_examples=300, stateful_step_count=40, deadline=None, derandomize=True, database=None,
                phases=[Phase.generate], report_multiple_bugs=False,
            ),
        )  # fmt: skip


def test_postgres_survives_deaths_between_any_two_statements(dsn: str) -> None:
    with asyncio.Runner() as runner:

        class PostgresJournal(Journal):
            def opened(self) -> Books:
                self.truth = FusedTruth(dsn, self.fuse)
                runner.run(self.emptied())
                return PostgresBooks(self.truth)

            async def emptied(self) -> None:
                await self.truth.open()
                async with self.truth.transaction() as session:
                    await session.execute("RESET ROLE")
                    await session.execute(
                        "ALTER TABLE transfers DISABLE TRIGGER USER; TRUNCATE transfers, limited_sums;"
                        " ALTER TABLE transfers ENABLE TRIGGER USER; SET ROLE baseai_service"
                    )

            def run(self, work: Coroutine[Any, Any, Any]) -> Any:
                return runner.run(work)

            def on_its_way(self, transfers: Sequence[Transfer]) -> Sequence[Transfer]:
                return transfers

            def teardown(self) -> None:
                try:
                    super().teardown()
                finally:
                    runner.run(self.truth.close())

        run_state_machine_as_test(
            PostgresJournal,
            settings=settings(
                max_examples=8,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


@pytest.mark.anyio
async def test_openmeter_5118_metering_and_posting_that_die_at_every_statement_count_each_second_once(
    truth: Truth, dsn: str
) -> None:
    """There the claim was kept though the write failed, and the retry metered nothing and said that all was well."""
    start = await seeded(truth)
    for number in (1, 2, 3):
        await lease(
            truth, f"run_{number}", (start, start + 2.4 * HOUR), accelerator_nos=(number,), ended="finished",
            run_state="succeeded",
        )  # fmt: skip
    late = await lease(truth, "run_4", (start, start + 3.5 * HOUR), accelerator_nos=(4,))
    fuse = Fuse()
    fused = FusedTruth(dsn, fuse)
    await fused.open()

    async def until_done(work: str) -> int:
        """A new process each time, which lives one statement longer than the one before it."""
        for lives in range(1000):
            meter = Meter(fused, FlatRates())
            fuse.left = lives
            try:
                await getattr(meter, work)()
            except Died:
                continue
            finally:
                fuse.left = None
            return lives
        raise AssertionError("it never ends")

    assert await until_done("meter") > 3
    assert await until_done("post") > 5
    await over(
        truth, late, start + 3.75 * HOUR, "node_lost", run_state="failed"
    )  # its posted hours are credited
    await until_done("meter")
    await until_done("post")
    await fused.close()
    async with truth.transaction() as session:
        rows = await fetch_all(
            session, "SELECT run_id, sum(micro_seconds)::bigint AS us FROM usage_lines GROUP BY 1 ORDER BY 1"
        )
    assert [row["us"] / 3.6e9 for row in rows] == [2.4, 2.4, 2.4, 3.75]
    trial = await PostgresBooks(truth).trial_balance(EVER)
    assert trial.is_balanced()
    held = {row.account: row.balance_micros() for row in trial.balances}
    assert held["revenue:on_demand"] == -3 * 4_800_000
    assert held["cost:energy"] == (3 * 24 + 37.5) * 15_000
    assert (await Meter(truth, FlatRates()).recompute()).missing == ()
