"""kill -9 of a whole agent with its node → the next step, against bare torchrun after kill -9 of one worker.

    PYTHONPATH=src:. python bench/platform/node_loss.py [--rounds 3]

The node goes down (agent, shim, launcher, workers, their writer: none gets to say a word) and comes back, as a
machine does that lost its power for an instant; the run goes on in a new attempt, on a new lease, from its newest
checkpoint. The peer loses one worker only and keeps its launcher. Ours is timed to its first step that was not done
before, the peer to its first step at all. Repeated steps are counted from the page of memory that the workers
share, so to the very last.
"""

import argparse
import os
import random
import signal
import time
from statistics import median

from bench.platform.watched import LOOK_EVERY_S, USUAL, Watched
from bench.report import Figure, show
from bench.training import contest
from bench.training.contest import Running
from tests.scenarios.platform import Platform, platform

LONGER_AT_MOST_S = 10.0
# Torch 2.13 lets all starts of a group share one store by default, and a restarted worker then dials the address that
# its dead neighbour left there. The peer runs in the form in which it recovers.
contest.ENVIRONMENT["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"


def ours(home: Platform, every: int, wait_s: float) -> tuple[float, float, int]:
    """Seconds to the first step of the new attempt, to the first step never done before, and steps repeated."""
    run = Watched(home, USUAL | {"steps": 100_000}, checkpoint_every={"steps": every})
    run.wait_for(step=2 * every + 5)
    before = run.board(1)
    time.sleep(wait_s)
    lost = [home.pid("agent"), *run.processes()]
    killed_s = time.monotonic()
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    run.wait_for(attempt=2)
    first_s = time.monotonic() - killed_s
    done, after = before.executed, run.board(2)
    [resumed] = [line["step"] for line in run.told(2) if line["kind"] == "started"]
    while resumed + after.executed <= done:
        time.sleep(LOOK_EVERY_S)
    new_s = time.monotonic() - killed_s
    run.end()
    home.check_books()
    return first_s, new_s, done - resumed


def peer(every: int, wait_s: float) -> float:
    """Seconds from the kill of one of torchrun's workers to the first step after it."""
    run = Running("bare", USUAL | {"steps": 100_000}, checkpoint_every={"steps": every}, mark=2 * every + 5)
    try:
        run.wait_for(step=2 * every + 5)
        time.sleep(wait_s)
        killed_s = time.monotonic()
        os.kill(run.workers()[-1], signal.SIGKILL)
        run.wait_for(restart=1)
        return time.monotonic() - killed_s
    finally:
        run.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="each of two pairs, A-B-B-A")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    found: list[tuple[float, float, int]] = []
    peers: list[float] = []
    with platform("--cpu-slots", "2") as home:
        for _ in range(asked.rounds):
            waits = [chance.uniform(0, 1) for _ in range(4)]
            peers.append(peer(asked.every, waits[0]))
            found += [ours(home, asked.every, waits[1]), ours(home, asked.every, waits[2])]
            peers.append(peer(asked.every, waits[3]))
    longer_s = [new_s - peer_s for (_, new_s, _), peer_s in zip(found, peers, strict=True)]
    show(
        Figure(
            name="kill -9 of a node → next new step",
            unit="s",
            ours=tuple(new_s for _, new_s, _ in found),
            peer=tuple(peers),
            peer_name="torchrun after a worker's kill",
            target=f"≤ torchrun + {LONGER_AT_MOST_S:g} s",
            reached=median(longer_s) <= LONGER_AT_MOST_S,
            note=f"longer by {median(longer_s):+.2f} s, at most {max(longer_s):+.2f} s; first step of any kind after"
            f" {median(first_s for first_s, _, _ in found):.2f} s; seed {asked.seed}",
        )
    )
    repeated = tuple(float(steps) for _, _, steps in found)
    show(
        Figure(
            name="steps repeated after a node's loss",
            unit="steps",
            ours=repeated,
            target=f"≤ one interval ({asked.every})",
            reached=max(repeated) <= asked.every,
            note=f"all of them: {', '.join(f'{steps:.0f}' for steps in repeated)}",
        )
    )


if __name__ == "__main__":
    main()
