"""Submit → first optimiser step on a warm platform, against bare torchrun's own start with the same model.

    PYTHONPATH=src:. python bench/platform/submit_to_step.py [--rounds 5]

Ours begins when `baseai apply` is started, the peer when `torchrun` is; both end with the first step's mark. Ours
prepares its text on the way, as a run does; the peer finds its text prepared and reads no spec, asks for no lease.
"""

import argparse
import time
from statistics import median
from typing import Any

from bench.platform.watched import TINY, USUAL, Watched
from bench.report import Figure, show
from bench.training.contest import Running
from tests.scenarios.platform import Platform, platform

LONGER_AT_MOST_S = 2.0


def ours_s(home: Platform, config: dict[str, Any]) -> float:
    run = Watched(home, config, checkpoint_every="auto")
    run.wait_for()
    took_s = time.monotonic() - run.began_s
    run.end()
    return took_s


def peer_s(config: dict[str, Any]) -> float:
    run = Running("bare", config, checkpoint_every="never")
    try:
        run.wait_for()
        return time.monotonic() - run.began_s
    finally:
        run.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    asked = parser.parse_args()
    with platform("--cpu-slots", "2") as home:
        ours_s(home, TINY | {"steps": 1})  # warm: every file that a run reads has been read once
        for name, model in (("tiny model", TINY), ("usual model", USUAL)):
            config = model | {"steps": 100_000}
            ours: list[float] = []
            peer: list[float] = []
            for _ in range(asked.rounds):
                peer.append(peer_s(config))
                ours += [ours_s(home, config), ours_s(home, config)]
                peer.append(peer_s(config))
            figure = Figure(
                name=f"submit → first step, {name}",
                unit="s",
                ours=tuple(ours),
                peer=tuple(peer),
                peer_name="torchrun's start",
                target="≤ torchrun + 2 s",
            )
            longer_s = median(figure.differences)
            show(judged(figure, longer_s))


def judged(figure: Figure, longer_s: float) -> Figure:
    from dataclasses import replace

    note = f"paired difference {longer_s:+.2f} s, longest {max(figure.differences):+.2f} s"
    return replace(figure, reached=longer_s <= LONGER_AT_MOST_S, note=note)


if __name__ == "__main__":
    main()
