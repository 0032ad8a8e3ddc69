"""200,000 steps of a sender and its books through duplicates, reorderings and deaths, checked after every step.

    PYTHONPATH=src:. python bench/finance/journal.py [--steps 200000] [--seed 1]

The machine is that of tests/finance/journal.py, in memory. Its steps are the facts, the deliveries and the forgeries;
the books are added up after each. What it prints must end with no imbalance; it stops at the first difference.
"""

import argparse
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.finance.journal import Journal

STEPS_A_RUN = 100


class Counted(Journal):
    """One run of the machine among many."""

    runs = 0

    def teardown(self) -> None:
        super().teardown()
        type(self).runs += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.perf_counter()
    number = asked.seed
    while Counted.steps < asked.steps:
        some = settings(
            max_examples=max(1, min(200, (asked.steps - Counted.steps) // STEPS_A_RUN)),
            stateful_step_count=STEPS_A_RUN,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(number)(Counted)
        run_state_machine_as_test(Counted, settings=some)
        number += 1
    print(
        f"{Counted.steps:,} steps in {Counted.runs:,} runs, {time.perf_counter() - began:.1f} s,"
        f" imbalances {Counted.imbalances}, balances equal in every run (seeds {asked.seed}–{number - 1})"
    )


if __name__ == "__main__":
    main()
