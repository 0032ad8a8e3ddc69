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

MODELS = {"tiny": TINY, "usual": USUAL}
LONGER_AT_MOST_S = 2.0


def ours_s(home: Platform, config: dict[str, Any]) -> tuple[float, float]:
    """Seconds until the first step, and until the attempt's folder was made: apply, decide, desired state."""
    run = Watched(home, config, checkpoint_every="auto")
    run.wait_for()
    took_s = time.monotonic() - run.began_s
    run.end()
    return took_s, run.placed_s - run.began_s


def peer_s(config: dict[str, Any]) -> float:
    run = Running("bare", config, checkpoint_every="never")
    try:
        run.wait_for()
        return time.monotonic() - run.began_s
    finally:
        run.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    asked = parser.parse_args()
    with platform("--cpu-slots", "2") as home:
        ours_s(home, TINY | {"steps": 1})  # warm: every file that a run reads has been read once
        for name in asked.models:
            config = MODELS[name] | {"steps": 100_000}
            ours: list[tuple[float, float]] = []
            peer: list[float] = []
            for _ in range(asked.rounds):
                peer.append(peer_s(config))
                ours += [ours_s(home, config), ours_s(home, config)]
                peer.append(peer_s(config))
            show(judged(name, ours, peer))


def judged(name: str, ours: list[tuple[float, float]], peer: list[float]) -> Figure:
    longer_s = [took_s - peer_s for (took_s, _), peer_s in zip(ours, peer, strict=True)]
    return Figure(
        name=f"submit → first step, {name} model",
        unit="s",
        ours=tuple(took_s for took_s, _ in ours),
        peer=tuple(peer),
        peer_name="torchrun's start",
        target=f"≤ torchrun + {LONGER_AT_MOST_S:g} s",
        reached=median(longer_s) <= LONGER_AT_MOST_S,
        note=f"longer by {median(longer_s):+.2f} s, at most {max(longer_s):+.2f} s;"
        f" {median(placed_s for _, placed_s in ours):.2f} s of ours until the node began to start it",
    )


if __name__ == "__main__":
    main()
