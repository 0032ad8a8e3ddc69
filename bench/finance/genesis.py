"""How fast the books are recomputed from their first row, and that the hash is the same whoever adds up.

    PYTHONPATH=src:. python bench/finance/genesis.py [--postings 100000]

Peers: PostgreSQL's own GROUP BY over the same rows; and, if `bean-check` is on the path, beancount in a process of its
own over the same books as text (it is GPL and no dependency). Without it that peer is skipped by name.
"""

import argparse
import asyncio
import random
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from baseai.finance.memory import MemoryBooks
from baseai.finance.period import Period
from baseai.finance.postgres import Auditor, Closing, PostgresBooks
from baseai.finance.postgres.audit import SUMS
from baseai.finance.transfer import Kind, Transfer
from baseai.finance.trial_balance import digest_of
from baseai.truth.session import PLATFORM, Truth, fetch_all
from bench.finance.ledger import postgres

START = datetime(2025, 10, 1, 12, tzinfo=UTC)
PAIRS = [
    ("tenant:ten_{0}:receivable", "revenue:on_demand"),
    ("cost:depreciation", "asset:accumulated_depreciation"),
    ("cost:energy", "payable:energy"),
    ("cost:colocation", "payable:colocation"),
]


def postings(count: int, seed: int) -> list[Transfer]:
    """Three months of ordinary transfers in two currencies, one of a hundred a reservation, half of those resolved."""
    chance = random.Random(seed)
    made: list[Transfer] = []
    while len(made) < count:
        debit, credit = chance.choice(PAIRS)
        pending = chance.random() < 0.01
        one = Transfer(
            transfer_id=f"tr_{len(made)}",
            entry_id=f"entry_{len(made)}",
            debit_account=debit.format(chance.randrange(50)),
            credit_account=credit,
            amount_micros=chance.randrange(1, 10**9),
            currency=chance.choice(("USD", "BRL")),
            effective_at=START + timedelta(seconds=chance.randrange(90 * 86_400)),
            kind=Kind.PENDING if pending else Kind.POSTED,
            tenant_id="ten_1",
            run_id="run_1",
            accelerator_no=chance.randrange(1, 200),
            site_id="local",
        )
        made.append(one)
        if pending and chance.random() < 0.5:
            made.append(
                Transfer(
                    transfer_id=f"tr_{len(made)}",
                    entry_id=one.entry_id,
                    debit_account=one.debit_account,
                    credit_account=one.credit_account,
                    amount_micros=one.amount_micros,
                    currency=one.currency,
                    effective_at=one.effective_at + timedelta(seconds=1),
                    kind=Kind.POST,
                    pending_id=one.transfer_id,
                    tenant_id="ten_1",
                    run_id="run_1",
                    accelerator_no=one.accelerator_no,
                    site_id="local",
                )
            )
    return made[:count]


async def measure(dsn: str, count: int, seed: int) -> bool:
    truth = Truth(dsn)
    await truth.open()
    rows = postings(count, seed)
    began = time.perf_counter()
    for first in range(0, count, 10_000):
        await PostgresBooks(truth).post(rows[first : first + 10_000])
    print(
        f"posted {count:,} transfers one by one checked in {time.perf_counter() - began:.1f} s (seed {seed})"
    )
    for month in (10, 11):
        await Closing(truth).close(Period(2025, month), PLATFORM)
    auditor = Auditor(truth)
    first_audit, second = await auditor.audit(), await auditor.audit()
    memory = MemoryBooks()
    await memory.post(rows)
    elsewhere = digest_of((await memory.trial_balance(datetime(9999, 1, 1, tzinfo=UTC))).balances)
    same = len({first_audit.digest, second.digest, elsewhere}) == 1
    print(
        f"recomputed from the first row in {first_audit.took_s:.2f} s and {second.took_s:.2f} s (two closed months)"
    )
    print(f"sha256 {first_audit.digest}, in memory the same: {same}, findings {len(second.findings)}")
    for name in ("peer: GROUP BY in PostgreSQL", "peer against itself"):
        began = time.perf_counter()
        async with truth.transaction() as session:
            await fetch_all(session, SUMS)
        print(f"{name}: {time.perf_counter() - began:.2f} s")
    await truth.close()
    beancount(rows)
    return same and not second.findings


def beancount(rows: list[Transfer]) -> None:
    """The posted rows as a journal, read by beancount in a process of its own."""
    program = shutil.which("bean-check")
    if program is None:
        print("peer beancount: skipped, bean-check is not on the path")
        return
    names = {name for one in rows for name in (one.debit_account, one.credit_account)}

    def account(name: str) -> str:
        return "Assets:" + ":".join(part.title().replace("_", "-") for part in name.split(":"))

    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "books.beancount"
        with journal.open("w") as text:
            text.writelines(f"2020-01-01 open {account(name)}\n" for name in sorted(names))
            for one in rows:
                if one.counts():
                    amount = f"{one.amount_micros / 1e6:.6f} {one.currency}"
                    text.write(f'{one.effective_at:%Y-%m-%d} * "{one.transfer_id}"\n')
                    text.write(f"  {account(one.debit_account)}  {amount}\n")
                    text.write(f"  {account(one.credit_account)}  -{amount}\n")
        began = time.perf_counter()
        done = subprocess.run(
            [program, "--no-cache", str(journal)], capture_output=True, text=True, check=False
        )
        print(f"peer beancount: {time.perf_counter() - began:.2f} s, status {done.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--postings", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with postgres() as dsn:
        sound = asyncio.run(measure(dsn, asked.postings, asked.seed))
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
