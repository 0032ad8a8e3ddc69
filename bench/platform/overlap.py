"""10,000 racing inserts of leases that overlap, on a real PostgreSQL with the platform's own tables: none may overlap.

    PYTHONPATH=src:. python bench/platform/overlap.py [--inserts 10000]

Eight connections insert leases of random accelerators, length and beginning, seeded, so that most collide. Ours is
the exclusion constraint of the migration. The peers: the same inserts with the constraint taken away, which shows
that the race is real (overlaps must appear, or the bench proves nothing), and the way of a system without the
constraint: lock the accelerator's row, look, insert.
"""

import argparse
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import errors

from bench.finance.ledger import postgres
from bench.report import Figure, show

CONNECTIONS = 8
ACCELERATORS = 16
RETRIES_MAX = 50
FIRST = datetime(2026, 3, 1, tzinfo=UTC)

SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_1', 'one');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_1', 'ten_1', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_1', 'n1', 'local', '127.0.0.1', 'ready', 'none', 4, 1024, 1024, 'b', 1);
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  SELECT 'acc_' || i, 'nod_1', 'h100-sxm', 's' || i, i, 'in_service' FROM generate_series(1, {accelerators}) i;
INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)
  VALUES ('run_1', 'ten_1', 'prj_1', 'r1', 'train', '{{}}', 50, 'running', 'bench');
INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)
  SELECT 'run_1', n, 'ten_1', 'prj_1', 1, 1, 'ended' FROM generate_series(1, {inserts}) n;
INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state, ends_at)
  SELECT 'lea_' || n, 'ten_1', 'prj_1', 'run_1', n, 'nod_1', 0, 'h100-sxm', 'released', now() + interval '1 day'
  FROM generate_series(1, {inserts}) n;
ANALYZE;
"""
INSERT = (
    "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
    " SELECT %(lease)s, accelerator_no, 'ten_1', 'prj_1', tstzrange(%(from)s, %(to)s)"
    " FROM accelerators WHERE accelerator_no = ANY(%(numbers)s) ORDER BY accelerator_no"
)
LOCK = "SELECT FROM accelerators WHERE accelerator_no = ANY(%(numbers)s) ORDER BY accelerator_no FOR UPDATE"
LOOK = (
    "SELECT count(*) FROM lease_accelerators WHERE accelerator_no = ANY(%(numbers)s)"
    " AND during && tstzrange(%(from)s, %(to)s)"
)
OVERLAPS = (
    "SELECT count(*) FROM lease_accelerators a JOIN lease_accelerators b ON a.accelerator_no = b.accelerator_no"
    " AND a.lease_id < b.lease_id AND a.during && b.during"
)
TAKE_AWAY = "ALTER TABLE lease_accelerators DROP CONSTRAINT one_lease_at_a_time"
GIVE_BACK = (
    "ALTER TABLE lease_accelerators ADD CONSTRAINT one_lease_at_a_time EXCLUDE USING gist"
    " (int8range(accelerator_no, accelerator_no, '[]') WITH &&, during WITH &&)"
)


@dataclass(slots=True)
class Race:
    """What one race came to."""

    stood: int = 0
    refused: int = 0
    deadlocks: int = 0
    gave_up: int = 0
    wall_s: float = 0.0
    overlaps: int = 0

    @property
    def rate(self) -> float:
        return (self.stood + self.refused) / self.wall_s


def wishes(inserts: int, seed: int) -> list[dict[str, object]]:
    """Leases of one to four accelerators and of up to four hours, within a day: most of them collide."""
    chance = random.Random(seed)
    found: list[dict[str, object]] = []
    for number in range(1, inserts + 1):
        begin = FIRST + timedelta(seconds=chance.randrange(86_400))
        found.append(
            {
                "lease": f"lea_{number}",
                "numbers": chance.sample(range(1, ACCELERATORS + 1), chance.choice((1, 1, 2, 4))),
                "from": begin,
                "to": begin + timedelta(seconds=chance.randrange(60, 14_400)),
            }
        )
    return found


def race(dsn: str, wanted: list[dict[str, object]], *, guard: str) -> Race:
    """Every wish once, over all connections at once; an insert that ended in a deadlock is tried again."""
    found, gate, lock = Race(), threading.Barrier(CONNECTIONS + 1), threading.Lock()

    def insert(mine: list[dict[str, object]]) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            gate.wait()
            for wish in mine:
                for _ in range(RETRIES_MAX):
                    try:
                        with connection.transaction():
                            if guard == "row lock":
                                connection.execute(LOCK, wish)
                                row = connection.execute(LOOK, wish).fetchone()
                                assert row is not None
                                if row[0]:
                                    raise errors.ExclusionViolation("looked and found one")
                            connection.execute(INSERT, wish)
                    except errors.DeadlockDetected:
                        with lock:
                            found.deadlocks += 1
                        continue
                    except errors.ExclusionViolation:
                        with lock:
                            found.refused += 1
                    else:
                        with lock:
                            found.stood += 1
                    break
                else:
                    with lock:
                        found.gave_up += 1

    threads = [
        threading.Thread(target=insert, args=(wanted[number::CONNECTIONS],)) for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    began_s = time.perf_counter()
    for thread in threads:
        thread.join()
    found.wall_s = time.perf_counter() - began_s
    with psycopg.connect(dsn, autocommit=True) as connection:
        [(found.overlaps,)] = connection.execute(OVERLAPS).fetchall()
        connection.execute("TRUNCATE lease_accelerators")
    assert found.stood + found.refused + found.gave_up == len(wanted), "an insert was lost"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inserts", type=int, default=10_000, help="of each race")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    wanted = wishes(asked.inserts, asked.seed)
    ours: list[Race] = []
    peers: list[Race] = []
    with postgres() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SEED.format(accelerators=ACCELERATORS, inserts=asked.inserts))
        connection.execute(TAKE_AWAY)
        unguarded = race(dsn, wanted, guard="none")
        for side in ("peer", "ours", "ours", "peer"):
            if side == "ours":
                connection.execute(GIVE_BACK)
                ours.append(race(dsn, wanted, guard="constraint"))
                connection.execute(TAKE_AWAY)
            else:
                peers.append(race(dsn, wanted, guard="row lock"))
    overlaps = sum(each.overlaps for each in ours)
    show(
        Figure(
            name=f"overlaps of {asked.inserts:,} racing leases",
            unit="overlaps",
            ours=tuple(float(each.overlaps) for each in ours),
            peer=(float(unguarded.overlaps),),
            peer_name="no constraint",
            target="0",
            reached=overlaps == 0 and unguarded.overlaps > 0 and not any(each.gave_up for each in ours),
            note=f"stood {ours[0].stood}, refused {ours[0].refused}, deadlocks {sum(e.deadlocks for e in ours)} in"
            f" {2 * asked.inserts:,}, given up {sum(e.gave_up for e in ours)};"
            f" {CONNECTIONS} connections, seed {asked.seed}",
        )
    )
    if overlaps:
        raise SystemExit(1)
    show(
        Figure(
            name="racing leases, rate",
            unit="inserts/s",
            ours=tuple(each.rate for each in ours),
            peer=tuple(each.rate for each in peers),
            peer_name="lock, look, insert",
            note=f"overlaps that the peer let through: {sum(e.overlaps for e in peers)};"
            f" its deadlocks: {sum(e.deadlocks for e in peers)}",
        )
    )


if __name__ == "__main__":
    main()
