"""How fast the hours of a fleet are closed, counted anew, checked and summed: a month of 200 accelerators.

    PYTHONPATH=src:. python bench/finance/time_ledger.py [--days 30] [--rounds 15]

The peer of a sum is PostgreSQL's own: the same rows by bucket in one plain statement, with nothing withheld, joined or
turned into values.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from baseai.finance.hours.postgres import TimeLedger, load_time
from baseai.finance.hours.sum import Pace, TimeBy
from baseai.truth.session import Truth, fetch_all, fetch_one
from bench.finance.ledger import database_cpu_s, running

NODES, ACCELERATORS = 25, 8  # of a node

# Leases of 1 to 15 hours one after the other with gaps, a tenth of them lost with their node, a tenth spot.
SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_1', 'one');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_1', 'ten_1', 'main');
INSERT INTO sites (site_id) VALUES ('SP4'), ('RJ2'), ('MI1');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  SELECT 'nod_' || n, 'n' || n, (ARRAY['SP4', 'RJ2', 'MI1'])[n % 3 + 1], '127.0.0.1', 'ready', 'none', 4, 1024, 1024,
    'b', 1 FROM generate_series(1, {nodes}) n;
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state, installed_at)
  SELECT 'acc_' || n || '_' || i, 'nod_' || n, (ARRAY['H100-SXM', 'A100-80G'])[n % 2 + 1], 's' || n || '_' || i, i,
    'in_service', date_trunc('hour', now(), 'UTC') - interval '{days} days'
  FROM generate_series(1, {nodes}) n, generate_series(1, {accelerators}) i;
INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor)
  SELECT date_trunc('hour', now(), 'UTC') - interval '{days} days' + interval '1 minute', 'node', 'nod_' || n, 'admit',
    'burn_in', 'ready', 'platform' FROM generate_series(1, {nodes}) n;
CREATE TEMP TABLE drawn AS
  SELECT n, k, 'run_' || n || '_' || k AS run_id, (n * 31 + k * 17) % 10 AS lot,
    date_trunc('hour', now(), 'UTC') - interval '{days} days' + (k * 16 + (n * 7 + k) % 5) * interval '1 hour'
      + interval '7 minutes 3.14 seconds' AS since,
    (1 + (n * 13 + k * 29) % 11) * interval '1 hour' + interval '11 minutes' AS lasts
  FROM generate_series(1, {nodes}) n, generate_series(0, {days} * 24 / 16 - 1) k;
INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)
  SELECT run_id, 'ten_1', 'prj_1', run_id, 'train', jsonb_build_object('spot', lot = 1), 50, 'succeeded', 'bench'
  FROM drawn;
INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state, reason)
  SELECT run_id, 1, 'ten_1', 'prj_1', 1, 1, 'ended', CASE lot WHEN 0 THEN 'node_lost' ELSE 'finished' END FROM drawn;
INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,
    granted_at, ends_at, released_at, observed_from, observed_until)
  SELECT 'lea_' || run_id, 'ten_1', 'prj_1', run_id, 1, 'nod_' || n, 0, 'any', 'released', since, since + lasts,
    since + lasts, since + interval '2.5 seconds', since + lasts - interval '0.7 seconds' FROM drawn;
INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)
  SELECT l.lease_id, a.accelerator_no, 'ten_1', 'prj_1', tstzrange(l.granted_at, l.ends_at)
  FROM leases l JOIN accelerators a USING (node_id);
DELETE FROM late_facts;
ANALYZE;
"""
PLAIN = """
SELECT bucket, sum(micro_seconds) FROM time_buckets
WHERE replaced_at IS NULL AND hour >= %s AND hour < %s GROUP BY bucket
"""


async def once(what: str, work: Callable[[], Awaitable[object]]) -> object:
    """Do it once and say how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = await work()
    print(
        f"{what:<52}{1e3 * (time.perf_counter() - wall):9.0f} ms wall {1e3 * (time.process_time() - cpu):8.0f} ms CPU"
        " of Python",
        flush=True,
    )
    return found


async def often(what: str, rounds: int, postmaster: int, work: Callable[[], Awaitable[object]]) -> float:
    """Do it again and again; the median."""
    taken: list[float] = []
    cpu, database = time.process_time(), database_cpu_s(postmaster)
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        taken.append(1e3 * (time.perf_counter() - began))
    cpu_ms = 1e3 * (time.process_time() - cpu) / rounds
    database_ms = 1e3 * (database_cpu_s(postmaster) - database) / rounds
    print(
        f"{what:<52}{statistics.median(taken):9.1f} ms, slowest {max(taken):7.1f} ms, {cpu_ms:6.1f} ms CPU of Python,"
        f" {database_ms:6.1f} ms of PostgreSQL",
        flush=True,
    )
    return statistics.median(taken)


async def measure(dsn: str, postmaster: int, days: int, rounds: int) -> None:
    truth = Truth(dsn)
    await truth.open()
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute(SEED.format(nodes=NODES, accelerators=ACCELERATORS, days=days))
    ledger = TimeLedger(truth)
    await once(f"close {days} days of {NODES * ACCELERATORS} accelerators", ledger.close)
    async with truth.transaction() as session:
        row = await fetch_one(
            session, "SELECT count(*) AS rows, min(hour) AS since, max(hour) AS until FROM time_buckets"
        )
        await session.execute("RESET ROLE")
        await session.execute("ANALYZE time_buckets")
    assert row is not None
    since: datetime = row["since"]
    until: datetime = row["until"] + timedelta(hours=1)
    print(f"{row['rows']:,} rows")
    async with truth.transaction() as session:
        await session.execute("UPDATE attempts SET reason = 'finished' WHERE run_id = 'run_3_1'")
    await once("count anew what one late verdict touches", ledger.close)
    await once("the nightly round: counted anew and checked", ledger.nightly)

    async def plain() -> None:
        async with truth.transaction() as session:
            await fetch_all(session, PLAIN, (since, until))

    ways: dict[str, tuple[TimeBy, Pace | None]] = {
        "by bucket": (TimeBy.BUCKET, None),
        "by site": (TimeBy.SITE, None),
        "by node": (TimeBy.NODE, None),
        "by bucket, a step a day": (TimeBy.BUCKET, Pace.DAY),
        "by model, a step an hour": (TimeBy.MODEL, Pace.HOUR),
    }
    slowest_ms = 0.0
    for name, (by, pace) in ways.items():
        taken_ms = await often(
            f"sums {name}",
            rounds,
            postmaster,
            lambda by=by, pace=pace: load_time(truth, since, until, by=by, pace=pace),  # type: ignore[misc]
        )
        slowest_ms = max(slowest_ms, taken_ms)
    peer_ms = await often("peer: plain sums by bucket", rounds, postmaster, plain)
    again_ms = await often("peer against itself", rounds, postmaster, plain)
    print(
        f"slowest sums {slowest_ms:.0f} ms, ÷ peer {slowest_ms / peer_ms:.2f}, peer ÷ peer {again_ms / peer_ms:.2f}"
    )
    await truth.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    with running() as (dsn, postmaster):
        asyncio.run(measure(dsn, postmaster, asked.days, asked.rounds))


if __name__ == "__main__":
    main()
