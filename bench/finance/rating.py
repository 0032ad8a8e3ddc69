"""How fast use is rated: usage lines in PostgreSQL into rated lines there, under contracts, tiers and peaks.

    PYTHONPATH=src:. python bench/finance/rating.py [--lines 200000]

The peer is the same arithmetic done use by use with the platform's own `charge`, in this process, without contracts,
tiers, peaks or a database: what rating in columns takes beyond it, or less, is said beside it. Then rating in columns
alone, and the whole way through the truth: claim, rate, write.
"""

import argparse
import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from baseai.finance.contract import Commitment, Contract
from baseai.finance.contracts.postgres import Agreements, Rater
from baseai.finance.customer import Customer
from baseai.finance.period import Calendar
from baseai.finance.postgres import Meter
from baseai.finance.postgres.books import load_calendar
from baseai.finance.price_list import Peak, Price, PriceBook, Term, Tier
from baseai.finance.rating import Rating, rate
from baseai.finance.use import MeteredUse
from baseai.ground.money import charge
from baseai.truth.session import Truth, fetch_one
from bench.finance.ledger import ACCELERATORS, HOURS, SEED, Rates, measured, running

LONG_AGO = datetime(2020, 1, 1, 3, tzinfo=UTC)
OFFICE = Peak(
    zone="America/Sao_Paulo",
    weekdays=frozenset(range(1, 6)),
    from_minute=9 * 60,
    until_minute=18 * 60,
    factor=Decimal("1.25"),
)


def price(term: Term, *rates: str) -> Price:
    return Price(
        price_id=f"pri_{term.value}",
        list_id="list",
        term=term,
        currency="USD",
        tiers=tuple(
            Tier(from_volume=Decimal(10_000 * no), rate=Decimal(one)) for no, one in enumerate(rates)
        ),
        peaks=(OFFICE,) if term is Term.ON_DEMAND else (),
        valid_from=LONG_AGO,
        model="h100-sxm",
    )


PRICES = (price(Term.ON_DEMAND, "3.85", "3.49", "2.99"), price(Term.RESERVED, "2.24"))
CONTRACT = Contract(
    contract_id="con_1",
    name="alfa",
    customer_id="cus_1",
    tenant_id="ten_1",
    term=Term.RESERVED,
    currency="USD",
    from_at=datetime(2026, 1, 1, 3, tzinfo=UTC),
    until_at=datetime(2028, 12, 1, 3, tzinfo=UTC),
    commitments=(Commitment(model="h100-sxm", count=512),),
)


async def timed(what: str, count: int, work: Callable[[], Awaitable[object]]) -> None:
    """Do it once, in this process alone, and say how long it took."""
    cpu, before = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()
    await work()
    wall_s = time.perf_counter() - before
    cpu_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu
    print(
        f"{what:<44}{wall_s:8.2f} s wall {cpu_s:8.2f} s CPU   1 M in {1e6 * cpu_s / count:6.1f} s of CPU",
        flush=True,
    )


def uses(count: int) -> list[MeteredUse]:
    """So many hours of some thousand accelerators."""
    start = datetime(2026, 11, 1, 3, tzinfo=UTC)
    hour = timedelta(hours=1)
    return [
        MeteredUse(
            usage_id=f"use_{n}",
            tenant_id="ten_1",
            project_id="prj_1",
            from_at=start + hour * (n % 700),
            until_at=start + hour * (n % 700 + 1),
            quantity=3_600_000_000,
            run_id=f"run_{n // 200}",
            accelerator_no=n // 700,
            model="h100-sxm",
            site_id="local",
        )
        for n in range(count)
    ]


async def in_memory(count: int) -> None:
    made = uses(count)

    async def by_use() -> None:
        for one in made:
            charge(Decimal("3.85"), micro_seconds=one.quantity, currency="USD")

    await timed("peer: one charge a use, no contract", count, by_use)
    await timed("peer against itself", count, by_use)
    found: list[Rating] = []

    async def in_columns() -> None:
        rating = rate(made, (CONTRACT,), PriceBook(PRICES), calendar=Calendar())
        assert isinstance(rating, Rating)
        found.append(rating)

    await timed("rate: contract, tiers, peaks, in columns", count, in_columns)
    print(f"{len(found[0]):,} pieces, {found[0].sums()}")


async def in_truth(dsn: str, lines: int, postmaster: int) -> None:
    truth = Truth(dsn)
    await truth.open()
    runs = max(1, lines // (ACCELERATORS * HOURS))
    lines = runs * ACCELERATORS * HOURS
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute(SEED.format(runs=runs, accelerators=ACCELERATORS, hours=HOURS))
    await measured("meter: leases → usage lines", lines, Meter(truth, Rates()).meter, postmaster)
    desk = Agreements(truth)
    await desk.add_customer(
        Customer(
            customer_id="cus_1", tenant_id="ten_1", legal_name="Alfa", country="BR", tax_id="12ABC34501DE35",
            currency="USD",
        ),
        actor="bench",
    )  # fmt: skip
    await desk.add_contract(CONTRACT, actor="bench")
    rater = Rater(truth, load_calendar, lambda: PRICES)
    await measured("rate in the truth: claim, rate, write", lines, rater.rate, postmaster)
    async with truth.transaction() as session:
        row = await fetch_one(
            session, "SELECT count(*) AS count, sum(quantity) / 3600000000 AS hours FROM rated_lines"
        )
    assert row is not None
    print(f"{row['count']:,} rated lines, {row['hours']:,.1f} accelerator-hours")
    before = time.perf_counter()
    await rater.rate()
    print(f"with nothing due {1e3 * (time.perf_counter() - before):.1f} ms")
    await truth.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=200_000)
    lines = parser.parse_args().lines
    asyncio.run(in_memory(lines))
    with running() as (dsn, postmaster):
        asyncio.run(in_truth(dsn, lines, postmaster))


if __name__ == "__main__":
    main()
