"""All figures of scheduling in one table: placement and queueing on the traces, estimates of starts, speed of a cycle.

What each bench prints on its way comes first; the table ends the run. A bench whose trace is not in the folder stands
in the table as skipped, by name. Exit code 1 where the judge found a decision that cannot be.

    python bench/scheduling/table.py --traces FOLDER [--quick] [--workers 2]
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from bench.scheduling import decide, estimates, policies, verdict

ROUNDS, QUICK_ROUNDS = 100, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    asked = parser.parse_args()
    began_s, loads = time.monotonic(), [os.getloadavg()[0]]
    asked.only, asked.policies = None, None
    tasks = list(policies.tasks_of(asked, policies.judge_beside(asked.traces)))
    verdicts = policies.skipped(asked.traces, None) + policies.measured(tasks, asked.workers)
    loads.append(os.getloadavg()[0])
    print("\nspeed of a cycle", flush=True)
    verdicts += decide.measured(
        nodes_wanted=10_000,
        runs_wanted=10_000,
        rounds=QUICK_ROUNDS if asked.quick else ROUNDS,
        seed=1,
        quick=asked.quick,
    )
    loads.append(os.getloadavg()[0])
    print("\nestimates of starts", flush=True)
    verdicts += estimates.skipped(asked.traces) or estimates.measured(
        asked.traces, quick=asked.quick, seeds=estimates.SEEDS
    )
    loads.append(os.getloadavg()[0])
    print("\nall figures", flush=True)
    verdict.show(verdicts)
    print(
        f"{(time.monotonic() - began_s) / 60:.1f} min, {asked.workers} workers on {os.cpu_count()} cores, load"
        f" {min(loads):.1f} to {max(loads):.1f}, Python {sys.version.split()[0]}, NumPy {np.__version__}"
    )
    raise SystemExit(any(each.figure == "judged feasible" and not each.reached for each in verdicts))


if __name__ == "__main__":
    main()
