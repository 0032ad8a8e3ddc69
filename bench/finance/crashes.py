"""From use to invoice through duplicates, reorderings and deaths between any two statements, on a real PostgreSQL.

    PYTHONPATH=src:. python bench/finance/crashes.py [--steps 10000] [--seed 1]

The machine is that of tests/finance/usage_world.py: a gateway and nodes that tell late, twice and in any order; loops
that meter, rate, post and issue, and die at the n-th statement, before their commit or after it. After each step what
is owed must be what was rated; each world ends with an invoice that must be the one of the same facts told once. It
stops at the first difference. `journal.py` does the same to the books alone, in memory, for 200,000 steps.
"""

import argparse
import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from baseai.finance.postgres import Auditor
from baseai.truth.session import Truth
from bench.finance.ledger import postgres
from tests.finance.journal import Fuse, FusedTruth
from tests.finance.usage_world import UsageWorld, leftovers

STEPS_A_WORLD = 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    # What dies here are processes of ours, not the server: what it has committed need not reach the disk at once.
    with postgres("-csynchronous_commit=off") as dsn, asyncio.Runner() as runner:
        fuse = Fuse()
        truth, fused = Truth(dsn, connections_max=3), FusedTruth(dsn, fuse)
        runner.run(truth.open())
        runner.run(fused.open())

        class World(UsageWorld):
            def run(self, work: Coroutine[Any, Any, Any]) -> Any:
                return runner.run(work)

        World.truth, World.fused, World.fuse = truth, fused, fuse
        began, number = time.perf_counter(), asked.seed
        while World.steps < asked.steps:
            some = settings(
                max_examples=max(1, min(50, (asked.steps - World.steps) // STEPS_A_WORLD)),
                stateful_step_count=STEPS_A_WORLD,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            seed(number)(World)
            run_state_machine_as_test(World, settings=some)
            number += 1
        wall_s = time.perf_counter() - began
        left, audit = runner.run(leftovers(truth)), runner.run(Auditor(truth).audit())
        print(
            f"{World.steps:,} steps in {World.worlds:,} worlds with {World.deaths:,} deaths, {wall_s:.1f} s,"
            f" imbalances {World.imbalances}, invoices equal in every world (seeds {asked.seed}–{number - 1})"
        )
        print(f"{audit.transfers:,} transfers, findings {len(audit.findings)}, left over {len(left)}")
        runner.run(fused.close())
        runner.run(truth.close())
    raise SystemExit(1 if World.imbalances or left or audit.findings else 0)


if __name__ == "__main__":
    main()
