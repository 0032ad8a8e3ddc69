"""Kills of the checkpoint writer at random instants: after each, the newest committed checkpoint must load.

Prints the stall of a save and how many orders the kills cost. The seed replays the instants.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file

from baseai.workloads.training.checkpoint import claim, newest
from baseai.workloads.training.staging import Committed, Staging


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--mb", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    torch.set_num_threads(1)
    state = {"model.weight": torch.zeros(int(asked.mb * 250_000))}
    step, hits, committed, wrong, unknown = 0, 0, 0, 0, 0
    stalls_ms: list[float] = []
    with tempfile.TemporaryDirectory(prefix="baseai-kills-") as name:
        folder = Path(name)
        claim(folder, 1)
        staging = Staging(folder, run_id="run_bench", attempt_no=1, restart=0, keep=3)
        staging.allocate(state)
        life_s = 0.05
        for _ in range(asked.kills):
            pid = staging.writer_pid
            assert pid is not None
            killer = threading.Timer(chance.uniform(0, 1.5 * life_s), os.kill, (pid, signal.SIGKILL))
            killer.start()
            while staging.writer_pid == pid:
                step += 1
                state["model.weight"].fill_(step)
                began_s = time.monotonic()
                stalls_ms.append(staging.stage(state, step=step, facts={}) * 1e3)
                for answer in staging.finish(60):
                    if isinstance(answer, Committed):
                        committed = answer.step
                        life_s = 0.9 * life_s + 0.1 * (time.monotonic() - began_s)
                    else:
                        hits += 1
            killer.join()
            found = newest(folder)
            if found is None:
                unknown += 1
                wrong += committed > 0
                continue
            weight = load_file(found.state)["model.weight"]
            wrong += found.step < committed or not bool((weight == float(found.step)).all())
        staging.close()
    print(
        f"writer kills {asked.kills}, orders lost {hits}, wrong or lost committed checkpoints {wrong}, "
        f"before the first commit {unknown}, stall {median(stalls_ms):.2f} ms for {asked.mb:g} MB, seed {asked.seed}"
    )
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
