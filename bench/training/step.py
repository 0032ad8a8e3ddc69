"""What a step costs under the platform against bare torchrun: CPU-ms of the workers and the median wall time.

Each round runs the peer, ours, ours with checkpoints, and the same again in reverse order. CPU is read from /proc
between the mark and the last step, on both sides alike; with checkpoints the writer's CPU counts too.
"""

import argparse
from statistics import median
from typing import Any

from contest import Running, line


def measured(
    side: str, config: dict[str, Any], checkpoint_every: Any, mark: int
) -> tuple[float, float, float]:
    """(CPU-ms per step, median wall ms per step, mean wall ms per step) after the mark."""
    import time

    run = Running(side, config, checkpoint_every=checkpoint_every, mark=mark)
    try:
        first = run.wait_for(step=mark)
        cpu_s, at_s = run.cpu_s(), time.monotonic()
        last_seen, cpu_end_s, end_s = first, cpu_s, at_s
        # Our lines come about once a second; the peer marks only its last step. Sample on every new mark.
        while last_seen.step < config["steps"]:
            last_seen = run.wait_for(step=last_seen.step + 1)
            cpu_end_s, end_s = run.cpu_s(), time.monotonic()
        steps = last_seen.step - first.step
        walls = [each.step_ms for each in run.marks() if each.step > mark]
        return (cpu_end_s - cpu_s) / steps * 1e3, median(walls), (end_s - at_s) / steps * 1e3
    finally:
        run.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--mark", type=int, default=20)
    asked = parser.parse_args()
    config = {"steps": asked.steps, "batch": asked.batch, "text_mb": 1.0, "held_out_tokens": 256}
    sides: dict[str, list[tuple[float, float, float]]] = {"bare": [], "ours": [], "saving": []}
    order = ["bare", "ours", "saving", "saving", "ours", "bare"]
    for _ in range(asked.rounds):
        for name in order:
            every = "auto" if name == "saving" else "never"
            sides[name].append(measured("bare" if name == "bare" else "ours", config, every, asked.mark))
            cpu_ms, median_ms, mean_ms = sides[name][-1]
            print(
                f"  {name}: {cpu_ms:.1f} CPU-ms/step, median {median_ms:.1f} ms, mean {mean_ms:.1f} ms",
                flush=True,
            )
    for name, title in (("ours", "step"), ("saving", "step with checkpoints")):
        for number, unit in enumerate(("CPU-ms/step", "ms/step median", "ms/step mean")):
            ours, peer = [each[number] for each in sides[name]], [each[number] for each in sides["bare"]]
            line(f"{title}, {unit}", unit, ours, peer, asked.rounds)
    for number, unit in ((0, "CPU-ms/step"), (2, "ms/step mean")):
        without, saving = median(e[number] for e in sides["ours"]), median(e[number] for e in sides["saving"])
        print(f"checkpoints cost, {unit}: {saving / without - 1:+.2%} over ours without them")


if __name__ == "__main__":
    main()
