"""How fast usage is metered, rated and posted: leases in, balanced books out, on a PostgreSQL that keeps its promises.

    PYTHONPATH=src:. python bench/finance/ledger.py [--lines 200000] [--by-list]

The peer is PostgreSQL itself: the very rows that posting wrote, ready made, inserted into an empty table with the
same constraints and indexes. What posting takes beyond it is reading usage, rating and naming transfers.
"""

import argparse
import asyncio
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from baseai.finance.contracts.postgres import Rater
from baseai.finance.cost import By
from baseai.finance.postgres import Meter, PostgresBooks, costs_in
from baseai.finance.postgres.books import load_calendar
from baseai.finance.price_list import Price, Term, Tier
from baseai.finance.rate import HourlyCostRate, HourlyPrice
from baseai.truth.embedded import as_postgres, prepare, wait_ready
from baseai.truth.migrate import migrate
from baseai.truth.session import Truth, fetch_one

ACCELERATORS = 8  # of a run
HOURS = 25  # of each, all of them whole but the last

SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_1', 'one');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_1', 'ten_1', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  SELECT 'nod_' || n, 'n' || n, 'local', '127.0.0.1', 'ready', 'none', 4, 1024, 1024, 'b', 1
  FROM generate_series(1, {runs}) n;
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  SELECT 'acc_' || n || '_' || i, 'nod_' || n, 'h100-sxm', 's' || n || '_' || i, i, 'in_service'
  FROM generate_series(1, {runs}) n, generate_series(1, {accelerators}) i;
INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)
  SELECT 'run_' || n, 'ten_1', 'prj_1', 'r' || n, 'train', '{{}}', 50, 'succeeded', 'bench'
  FROM generate_series(1, {runs}) n;
INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state, reason)
  SELECT 'run_' || n, 1, 'ten_1', 'prj_1', 1, 1, 'ended', 'finished' FROM generate_series(1, {runs}) n;
INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,
    granted_at, ends_at, released_at, observed_from, observed_until)
  SELECT 'lea_' || n, 'ten_1', 'prj_1', 'run_' || n, 1, 'nod_' || n, 0, 'h100-sxm', 'released', t, e, e, t, e
  FROM (SELECT n, h - interval '30 hours' AS t, h - interval '30 hours' + interval '1 hour' * ({hours} - 0.25) AS e
    FROM generate_series(1, {runs}) n, date_trunc('hour', now(), 'UTC') h) x;
INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)
  SELECT l.lease_id, a.accelerator_no, 'ten_1', 'prj_1', tstzrange(l.granted_at, l.ends_at)
  FROM leases l JOIN accelerators a USING (node_id);
ANALYZE;
"""


LISTED = Price(
    price_id="bench",
    list_id="list",
    term=Term.ON_DEMAND,
    currency="USD",
    tiers=(Tier(from_volume=Decimal(0), rate=Decimal("2.99")),),
    valid_from=datetime(2020, 1, 1, tzinfo=UTC),
    model="h100-sxm",
)


class Rates:
    """One model's price and cost."""

    def price(self, model: str, at: datetime) -> HourlyPrice | None:
        return HourlyPrice(per_hour=Decimal("2.99"), currency="USD", source="bench")

    def hourly_cost(self, model: str, site_id: str, at: datetime) -> HourlyCostRate | None:
        return HourlyCostRate(
            depreciation=Decimal("0.7134703196347031963470319635"),
            energy=Decimal("0.1352"),
            colocation=Decimal("0.2671232876712328767123287671"),
            currency="USD",
            basis="bench",
        )


@contextmanager
def postgres(*options: str) -> Iterator[str]:
    """The DSN of a durable embedded server with the tables in it; `options` are more arguments of its command."""
    with running(*options) as (dsn, _):
        yield dsn


@contextmanager
def running(*options: str) -> Iterator[tuple[str, int]]:
    """The same with the number of its first process."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-bench-", dir="/tmp"))
    folder.chmod(0o755)
    embedded = prepare(folder / "postgres", folder / "s", durable=True)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([*embedded.command(), *options], stdout=log, stderr=log, **as_postgres())  # type: ignore[call-overload]
    try:
        wait_ready(embedded, lambda: child.poll() is None)
        migrate(embedded.dsn)
        yield embedded.dsn, child.pid
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def database_cpu_s(postmaster: int) -> float:
    """CPU that the server and all its processes have used, in seconds; Linux alone says it, elsewhere it is nought."""
    proc = Path("/proc")
    if not (proc / str(postmaster) / "stat").is_file():
        return 0.0
    ticks = 0
    for stat in proc.glob("[0-9]*/stat"):
        try:
            facts = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile, and its parent has taken its time over
            continue
        if int(facts[1]) == postmaster:
            ticks += int(facts[11]) + int(facts[12])
        elif stat.parent.name == str(postmaster):
            ticks += sum(map(int, facts[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def measured(what: str, lines: int, work: Callable[[], Awaitable[object]], postmaster: int) -> float:
    """Do it once and say how long it took, by the wall and by the CPU of this process and of the database."""
    cpu_before, before, database_before = (
        resource.getrusage(resource.RUSAGE_SELF),
        time.perf_counter(),
        database_cpu_s(postmaster),
    )
    await work()
    wall_s = time.perf_counter() - before
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = cpu.ru_utime + cpu.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime
    print(
        f"{what:<36}{wall_s:7.2f} s wall {cpu_s:6.2f} s CPU of Python"
        f"{database_cpu_s(postmaster) - database_before:7.2f} s of PostgreSQL"
        f"{lines / wall_s:>11,.0f} lines/s   1 M in {1e6 * wall_s / lines:6.1f} s",
        flush=True,
    )
    return wall_s


async def measure(dsn: str, lines: int, postmaster: int, *, by_list: bool) -> None:
    async def timed(what: str, lines: int, work: Callable[[], Awaitable[object]]) -> float:
        return await measured(what, lines, work, postmaster)

    truth = Truth(dsn)
    await truth.open()
    runs = max(1, lines // (ACCELERATORS * HOURS))
    lines = runs * ACCELERATORS * HOURS
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute(SEED.format(runs=runs, accelerators=ACCELERATORS, hours=HOURS))
    print(f"{lines:,} usage lines of {runs:,} runs, {4 * lines:,} transfers")
    meter = Meter(truth, Rates(), bills=by_list)
    metering_s = await timed("meter: leases → usage lines", lines, meter.meter)
    # A burst this size would be analysed by autovacuum within its minute; here it is done at once and not timed.
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute("ANALYZE usage_lines; ANALYZE unrated; SET ROLE baseai_service")
    rater = Rater(truth, load_calendar, lambda: (LISTED,))

    async def rate() -> None:
        await rater.rate()

    async def post() -> None:
        await meter.post(None if by_list else rate)

    posting_s = await timed(f"{'' if by_list else 'rate and '}post: use → transfers", lines, post)
    print(f"metered, rated and posted: {1e6 * (metering_s + posting_s) / lines:.1f} s for 1 M lines")

    async def ready_made(name: str) -> None:
        async with truth.transaction() as session:
            await session.execute("RESET ROLE")
            await session.execute(f"CREATE TABLE {name} (LIKE transfers INCLUDING ALL)")
            await session.execute(f"INSERT INTO {name} SELECT * FROM transfers")

    peer_s = await timed("peer: the same rows, ready made", lines, lambda: ready_made("peer_a"))
    again_s = await timed("peer against itself", lines, lambda: ready_made("peer_b"))
    print(f"post ÷ peer {posting_s / peer_s:.2f}, peer ÷ peer {again_s / peer_s:.2f}")

    async def recompute() -> None:
        found = await meter.recompute()
        assert (found.runs, found.missing) == (runs, ()), "the books differ from the usage lines"

    await timed("recompute from the first line", lines, recompute)
    trial = await PostgresBooks(truth).trial_balance(datetime(9999, 1, 1, tzinfo=UTC))
    async with truth.transaction() as session:
        row = await fetch_one(session, "SELECT count(*) AS count FROM transfers")
    assert row is not None
    await timed("meter and post with nothing due", lines, lambda: idle(meter))
    await timed("costs of one run", lines, lambda: costs_in(truth, Rates(), by=By.RUN, subject="run_1"))
    await timed("costs of all nodes", lines, lambda: costs_in(truth, Rates(), by=By.NODE))
    print(f"{row['count']:,} transfers, trial balance differs by {trial.difference_micros()}")
    await truth.close()


async def idle(meter: Meter) -> None:
    await meter.meter()
    await meter.post()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument(
        "--set", action="append", default=[], help="a setting of PostgreSQL: shared_buffers=1GB"
    )
    parser.add_argument(
        "--by-list", action="store_true", help="charge by the list price while posting, without contracts"
    )
    asked = parser.parse_args()
    lines, more = asked.lines, asked.set
    with running(*(f"-c{each}" for each in more)) as (dsn, postmaster):
        asyncio.run(measure(dsn, lines, postmaster, by_list=asked.by_list))


if __name__ == "__main__":
    main()
