"""How long a recorded month of 200 accelerators takes from what agents saw to a closed month, invoices and FOCUS files.

    PYTHONPATH=src:. python bench/finance/month.py [--nodes 25]

The month is that of tests/scenarios/month.py: simulated, the same for everybody. What it comes to is reckoned again the
plain way and compared; nothing may be apart by more than what lines that were taken back rounded.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from baseai.truth.session import PLATFORM, Truth, fetch_one
from baseai.wiring.household import Household
from baseai.wiring.rooms import Rooms
from bench.finance.ledger import database_cpu_s, running
from tests.scenarios.month import MONTH, recorded
from tests.scenarios.reckoning import reckoned
from tests.scenarios.recorded import CUSTOMERS, agreed, first_half, second_half, tell_tokens

Answer = TypeVar("Answer")
SUM = """
SELECT sum(amount_micros)::bigint AS micros, count(*) AS lines, count(*) FILTER (WHERE corrects IS NOT NULL) AS back
FROM rated_lines
"""


async def measure(dsn: str, postmaster: int, nodes: int, folder: Path) -> bool:
    truth = Truth(dsn)
    await truth.open()
    household = Household(data=folder / "home")
    household.make()
    rooms, month = Rooms(truth, household), recorded(nodes=nodes)
    await first_half(truth, month)
    await agreed(truth, rooms.agreements, month)
    await second_half(truth, month)
    for second in (False, True):
        await tell_tokens(truth, month, second=second)
    print(
        f"{len(month.nodes)} nodes of 8, {len(month.runs):,} runs, {len(month.events):,} events of a gateway"
    )
    total_s = 0.0

    async def timed(what: str, work: Awaitable[Answer]) -> Answer:
        nonlocal total_s
        cpu, database, began = time.process_time(), database_cpu_s(postmaster), time.perf_counter()
        answer = await work
        wall_s = time.perf_counter() - began
        total_s += wall_s
        print(
            f"{what:<32}{wall_s:7.2f} s wall {time.process_time() - cpu:6.2f} s CPU of Python"
            f"{database_cpu_s(postmaster) - database:7.2f} s of PostgreSQL",
            flush=True,
        )
        return answer

    await timed("meter", rooms.meter.meter())
    await timed("rate", rooms.agreements.rater.rate())
    await timed("post", rooms.meter.post())
    await timed("close the hours", rooms.time.close())
    await timed("close the month before", rooms.ledger.close(str(MONTH.before()), PLATFORM))
    closed = await timed("close the month", rooms.ledger.close(str(MONTH), PLATFORM))
    for tenant in CUSTOMERS:
        await timed(f"invoice {tenant}", rooms.documents.issue(tenant, str(MONTH), actor="bench"))
    await timed("FOCUS files", rooms.documents.export_focus(PLATFORM, str(MONTH), folder))
    checked = await timed("audit from the first transfer", rooms.ledger.check())
    async with truth.transaction() as session:
        row = await fetch_one(session, SUM)
    assert row is not None
    apart = row["micros"] - sum(reckoned(month).values())
    print(
        f"all in {total_s:.1f} s: {closed['state']}, {checked['transfers']:,} transfers, {row['lines']:,} rated lines,"
        f" findings {len(closed['findings']) + len(checked['findings'])}, apart from the plain reckoning {apart}"
        f" micro-units ({row['back']} lines taken back)"
    )
    await truth.close()
    return closed["state"] == "closed" and not checked["findings"] and abs(apart) <= row["back"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=25)
    nodes = parser.parse_args().nodes
    with running() as (dsn, postmaster), tempfile.TemporaryDirectory() as folder:
        sound = asyncio.run(measure(dsn, postmaster, nodes, Path(folder)))
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
