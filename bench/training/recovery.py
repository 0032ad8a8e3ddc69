"""Launcher start to first optimiser step, and kill -9 of one worker to the next one, against bare torchrun.

The peer saves with torch.save at the same interval. Both find their data prepared. Repeated steps are the killed
life's last known step minus the step resumed from.
"""

import argparse
import os
import random
import signal
import time

from contest import Running, line

HUNG_S = 40.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    asked = parser.parse_args()
    chance = random.Random(1)
    print("seed 1")
    config = {"steps": 100_000, "batch": 8, "text_mb": 1.0}
    starts: dict[str, list[float]] = {"bare": [], "ours": []}
    recoveries: dict[str, list[float]] = {"bare": [], "ours": []}
    repeated: list[int] = []
    hung = {"bare": 0, "ours": 0}
    for _ in range(asked.rounds):
        for side in ("bare", "ours", "ours", "bare"):
            run = Running(side, config, checkpoint_every={"steps": asked.every}, mark=2 * asked.every + 5)
            try:
                run.wait_for()
                starts[side].append((time.monotonic() - run.began_s) * 1e3)
                run.wait_for(step=2 * asked.every + 5)
                time.sleep(chance.uniform(0, 1))
                last = run.marks()[-1].step
                killed_s = time.monotonic()
                os.kill(run.workers()[-1], signal.SIGKILL)
                try:
                    first = run.wait_for(restart=1, timeout_s=HUNG_S)
                except TimeoutError:
                    hung[side] += 1  # counts as HUNG_S below, which flatters it
                    recoveries[side].append(HUNG_S * 1e3)
                    continue
                recoveries[side].append((time.monotonic() - killed_s) * 1e3)
                if side == "ours":
                    repeated.append(max(0, last - (first.step - 1)))
            finally:
                run.end()
    line("start to first step", "ms", starts["ours"], starts["bare"], asked.rounds)
    line("kill -9 of a worker to next step", "ms", recoveries["ours"], recoveries["bare"], asked.rounds)
    print(f"no step within {HUNG_S:g} s of the kill: {hung}")
    print(f"steps known to be repeated by ours: {repeated}, interval {asked.every}")


if __name__ == "__main__":
    main()
