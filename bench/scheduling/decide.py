"""How long one decision takes on a fleet of 10,000 nodes and 80,000 accelerators with 10,000 runs waiting.

Prints, for a cycle in which little is free (the usual one) and one in which much has just become free: building the
snapshot, the cycle (median and p99 of the rounds, without explanations), decisions per second, what one
explanation costs, and how long a run that can never fit waits to hear so.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.admit import NeverFits, fits_ever
from baseai.scheduling.decide import decide, explain
from baseai.scheduling.plan import Wait
from baseai.scheduling.snapshot import LeaseRow, NodeRow, Snapshot, WaitingRun, snapshot_of
from baseai.workloads.demand import Ask, Demand

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODELS = ("H100-SXM", "A100-80GB", "MI300X", "L40S")
SITES = ("SP4", "SP5", "RJ2", "MI1")


def fleet(nodes: int) -> list[NodeRow]:
    return [
        NodeRow(
            node_id=NodeId(f"node-{number:05}"),
            site=SITES[number % len(SITES)],
            country="BR",
            state="ready" if number % 50 else "cordoned",
            isolation="user",
            has_container_runtime=number % 2 == 0,
            memory_mib=2048 << 10,
            disk_mib=30_000 << 10,
            cpu_milli=96_000,
            accelerators=((MODELS[number // 10 % len(MODELS)], 8), ("cpu-slot", 32)),
        )
        for number in range(nodes)
    ]


def leases_on(nodes: list[NodeRow], busy_ratio: float, chance: random.Random) -> list[LeaseRow]:
    """Leases of 1 to 8 accelerators until `busy_ratio` of the nodes are full."""
    rows = []
    for node in nodes:
        left = 8 if chance.random() < busy_ratio else chance.randrange(0, 8)
        while left:
            count = min(left, chance.choice((1, 1, 2, 4, 8)))
            left -= count
            rows.append(
                LeaseRow(
                    run_id=RunId(f"old-{len(rows):06}"),
                    tenant_id=TenantId(f"tenant-{chance.randrange(50)}"),
                    node_id=node.node_id,
                    model=node.accelerators[0][0],
                    count=count,
                    memory_mib=count * (64 << 10),
                    disk_mib=0,
                    cpu_milli=0,
                    ends_at=NOON + timedelta(seconds=chance.randrange(60, 86_400)),
                )
            )
    return rows


def queue(runs: int, chance: random.Random) -> list[WaitingRun]:
    """Runs of the sizes the public traces show: most of one to eight accelerators, a few large gangs."""
    return [
        WaitingRun(
            demand=Demand(
                run_id=RunId(f"run-{number:06}"),
                tenant_id=TenantId(f"tenant-{chance.randrange(50)}"),
                node_count=chance.choices((1, 2, 4, 16, 64), (80, 10, 6, 3, 1))[0],
                asks=(Ask(models=(chance.choice(MODELS),), count=chance.choice((1, 2, 4, 8, 8))),),
                memory_mib=chance.choice((0, 64 << 10, 256 << 10)),
                disk_mib=0,
                cpu_milli=0,
                sites=() if chance.random() < 0.9 else (chance.choice(SITES),),
                residency=(),
                max_duration_s=chance.choice((1, 4, 24, 72)) * 3600,
                priority=chance.choice((10, 50, 50, 90)),
                needs_container=chance.random() < 0.2,
            ),
            enqueued_at=NOON - timedelta(seconds=chance.randrange(86_400)),
        )
        for number in range(runs)
    ]


def timed_ms(rounds: int, work: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append((time.perf_counter() - start) * 1000)
    return sorted(found)


def report(name: str, columns: Snapshot, rounds: int) -> None:
    plan = decide(columns, NOON, explained_most=0)
    began = time.process_time()
    cycle = timed_ms(rounds, lambda: decide(columns, NOON, explained_most=0))
    cpu_ms = (time.process_time() - began) * 1000 / rounds
    median, p99 = statistics.median(cycle), cycle[min(len(cycle) - 1, int(len(cycle) * 0.99))]
    decisions = len(columns.waiting) / median * 1000
    print(
        f"{name}: {len(plan.grants)} granted, {len(plan.waits)} wait; cycle median {median:.1f} ms, p99 {p99:.1f} ms"
        f", {cpu_ms:.1f} CPU-ms ({rounds} rounds); {decisions:,.0f} decisions/s"
        f", {len(plan.grants) / median * 1000:,.0f} grants/s"
    )
    if plan.waits:
        some: list[Wait] = [plan.waits[number * len(plan.waits) // 5] for number in range(5)]
        every = [timed_ms(1, partial(explain, columns, NOON, wait.run_id))[0] for wait in some]
        print(f"{name}: a whole cycle and one explanation {statistics.median(every):.1f} ms")
        with_all = timed_ms(1, lambda: decide(columns, NOON))[0]
        print(f"{name}: cycle with the first 100 different explanations {with_all:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    nodes = fleet(asked.nodes)
    for name, busy_ratio in (("full fleet", 1.0), ("99 % of nodes busy", 0.99), ("70 % of nodes busy", 0.7)):
        rows, runs = leases_on(nodes, busy_ratio, chance), queue(asked.runs, chance)
        built = timed_ms(1, partial(snapshot_of, nodes, rows, runs))[0]
        columns = snapshot_of(nodes, rows, runs)
        print(
            f"{name}: {len(nodes)} nodes, {len(rows)} leases, {len(runs)} waiting; snapshot built in {built:.0f} ms"
        )
        report(name, columns, asked.rounds)
    giant = Demand(
        **{
            name: getattr(runs[0].demand, name)
            for name in Demand.__slots__
            if name not in ("node_count", "asks")
        },
        node_count=asked.nodes + 1,
        asks=(Ask(models=MODELS, count=8),),
    )
    never = timed_ms(asked.rounds, lambda: fits_ever(giant, columns))
    assert isinstance(fits_ever(giant, columns), NeverFits)
    print(f"a run that can never fit hears so in {statistics.median(never):.1f} ms")


if __name__ == "__main__":
    main()
