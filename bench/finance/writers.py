"""Whether a prepayment holds under many writers: 64 connections, 10,000 tries to spend from one account.

    PYTHONPATH=src:. python bench/finance/writers.py [--writers 64] [--tries 10000]

Two tries of three would overdraw what is left in the end; one of five is sent twice, at the same time, as after a lost
reply. Printed are three counts that must be nought: by how much the account is overdrawn, how many accepted spends are
not in the books, how many stand there twice or were refused and are there all the same. The peer is the same number of
transactions that update one row under its lock and write nothing else.
"""

import argparse
import asyncio
import random
import time
from datetime import UTC, datetime

from baseai.finance.chart import Overdrawn
from baseai.finance.postgres import PostgresBooks
from baseai.finance.transfer import Transfer
from baseai.truth.session import Truth, fetch_all, fetch_one
from bench.finance.ledger import postgres

PREPAID = "tenant:ten_1:prepaid"
AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
EVER = datetime(9999, 1, 1, tzinfo=UTC)


def moved(transfer_id: str, debit: str, credit: str, micros: int) -> Transfer:
    return Transfer(
        transfer_id=transfer_id,
        entry_id=transfer_id,
        debit_account=debit,
        credit_account=credit,
        amount_micros=micros,
        currency="USD",
        effective_at=AT,
        tenant_id="ten_1",
        project_id="prj_1",
        run_id="run_1",
        accelerator_no=1,
        site_id="local",
    )


async def measure(dsn: str, writers: int, tries: int, seed: int) -> bool:
    chance = random.Random(seed)
    truth = Truth(dsn, connections_max=writers)
    await truth.open()
    books = PostgresBooks(truth)
    spends = [
        moved(f"tr_{number}", PREPAID, "revenue:on_demand", chance.randint(1, 1000))
        for number in range(tries)
    ]
    await books.post([moved("tr_paid", "asset:cash", PREPAID, sum(one.amount_micros for one in spends) // 3)])
    waiting = iter([spend for spend in spends for _ in range(2 if chance.random() < 0.2 else 1)])
    accepted: set[str] = set()
    refused: set[str] = set()

    async def writer() -> None:
        for spend in waiting:
            try:
                await books.post([spend])
                accepted.add(spend.transfer_id)
            except Overdrawn:
                refused.add(spend.transfer_id)

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(writers)))
    wall_s = time.perf_counter() - began
    (held,) = await books.balance(PREPAID, EVER)
    async with truth.transaction() as session:
        rows = await fetch_all(session, "SELECT transfer_id, count(*) AS times FROM transfers GROUP BY 1")
        kept = await fetch_one(session, "SELECT debits, credits FROM limited_sums")
    assert kept is not None
    standing = {row["transfer_id"]: row["times"] for row in rows}
    overdraft = max(0, held.debits_micros - held.credits_micros)
    lost = sum(1 for name in accepted if name not in standing)
    doubled = sum(times - 1 for times in standing.values()) + len((refused - accepted) & standing.keys())
    astray = (kept["debits"], kept["credits"]) != (held.debits_micros, held.credits_micros)
    trial = await books.trial_balance(EVER)
    print(
        f"{writers} writers, {tries:,} spends: {len(accepted):,} accepted, {len(refused - accepted):,} refused in"
        f" {wall_s:.1f} s, {tries / wall_s:,.0f}/s (seed {seed})"
    )
    print(
        f"overdraft {overdraft}, lost {lost}, doubled {doubled}, imbalance {sum(trial.difference_micros().values())}"
    )
    print(
        f"left of the prepayment: {held.credits_micros - held.debits_micros} micro-USD; running sum astray: {astray}"
    )
    await peer(truth, writers, tries)
    await truth.close()
    return not (overdraft or lost or doubled or astray) and trial.is_balanced()


async def peer(truth: Truth, writers: int, tries: int) -> None:
    """One row under its lock, by the same connections: what any limit kept in a database costs at least."""
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute("CREATE TABLE peer (held bigint); INSERT INTO peer VALUES (0)")
        await session.execute("GRANT ALL ON peer TO baseai_service; SET ROLE baseai_service")
    left = iter(range(tries))

    async def writer() -> None:
        for _ in left:
            async with truth.transaction() as session:
                await session.execute("UPDATE peer SET held = held + 1")

    for name in ("peer: one row under its lock", "peer against itself"):
        left = iter(range(tries))
        began = time.perf_counter()
        await asyncio.gather(*(writer() for _ in range(writers)))
        print(f"{name}: {tries / (time.perf_counter() - began):,.0f}/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with postgres(f"-cmax_connections={asked.writers + 20}") as dsn:
        sound = asyncio.run(measure(dsn, asked.writers, asked.tries, asked.seed))
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
