"""What a step costs under the whole platform, against bare torchrun: CPU-ms of the workers, and wall time.

    PYTHONPATH=src:. python bench/platform/training_under_platform.py [--rounds 3]

Supervisor, PostgreSQL, server, controller and agent are alive all the time, also beside the peer: they belong to the
machine. Ours reports its progress and saves checkpoints as a run does; the peer does neither. CPU is read from
/proc between the mark and the last step on both sides; what the platform's own processes used meanwhile stands
beside it and is not in the figure.
"""

import argparse
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bench.platform.watched import USUAL, Watched, platform_cpu_s
from bench.report import Figure, show
from bench.training.contest import Running
from tests.scenarios.platform import Platform, platform

CPU_RATIO_MAX = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one step, after the mark."""

    workers_cpu_ms: float
    platform_cpu_ms: float
    wall_ms_median: float
    wall_ms_mean: float


def measured(home: Platform, side: str, config: dict[str, Any], mark: int) -> Cost:
    run: Watched | Running
    if side == "ours":
        run = Watched(home, config, checkpoint_every="auto")
        cpu_s = run.workers_cpu_s
    else:
        run = Running("bare", config, checkpoint_every="never", mark=mark)
        cpu_s = run.cpu_s
    try:
        first = run.wait_for(step=mark)
        began = (time.monotonic(), cpu_s(), platform_cpu_s(home))
        last, ended = first, began
        while last.step < config["steps"]:  # ours marks about once a second, the peer only its last step
            last = run.wait_for(step=last.step + 1)
            ended = (time.monotonic(), cpu_s(), platform_cpu_s(home))
        steps = last.step - first.step
        wall_s, workers_s, platform_s = (late - early for late, early in zip(ended, began, strict=True))
        return Cost(
            workers_cpu_ms=workers_s / steps * 1e3,
            platform_cpu_ms=platform_s / steps * 1e3,
            wall_ms_median=median(each.step_ms for each in run.marks() if each.step > mark),
            wall_ms_mean=wall_s / steps * 1e3,
        )
    finally:
        run.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--mark", type=int, default=20)
    asked = parser.parse_args()
    config = USUAL | {"steps": asked.steps}
    found: dict[str, list[Cost]] = {"ours": [], "peer": []}
    with platform("--cpu-slots", "2") as home:
        for _ in range(asked.rounds):
            for side in ("peer", "ours", "ours", "peer"):
                found[side].append(measured(home, side, config, asked.mark))
    cpu = figure("CPU of a step under the platform", "workers_cpu_ms", found)
    ratio = median(cpu.ratios)
    beside = [median(each.platform_cpu_ms for each in found[side]) for side in ("ours", "peer")]
    show(
        judged(
            cpu,
            f"≤ {CPU_RATIO_MAX:g} ×",
            ratio <= CPU_RATIO_MAX,
            f"the platform's own processes beside it {beside[0]:.2f} CPU-ms a step, beside the peer {beside[1]:.2f}",
        )
    )
    wall = figure("wall of a step under the platform, median", "wall_ms_median", found)
    low, high = min(wall.own_ratios), max(wall.own_ratios)
    low, high = min(low, 1 / high), max(high, 1 / low)
    show(
        judged(
            wall, "inside A/A", low <= median(wall.ratios) <= high, f"A/A either way {low:.3f} to {high:.3f}"
        )
    )
    show(figure("wall of a step under the platform, mean", "wall_ms_mean", found))


def figure(name: str, field: str, found: dict[str, list[Cost]]) -> Figure:
    ours, peer = ([getattr(each, field) for each in found[side]] for side in ("ours", "peer"))
    return Figure(name=name, unit="ms", ours=tuple(ours), peer=tuple(peer), peer_name="bare torchrun")


def judged(measured: Figure, target: str, reached: bool, note: str) -> Figure:
    return replace(measured, target=target, reached=reached, note=note)


if __name__ == "__main__":
    main()
