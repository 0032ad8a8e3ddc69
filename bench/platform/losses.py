"""kill -9 of one worker, and then of a whole agent with its node → the next step, against bare torchrun.

    PYTHONPATH=src:. python bench/platform/losses.py [--rounds 3]

The worker is killed under the whole platform; its launcher starts the group again. The node then goes down (agent,
shim, launcher, workers, their writer: none gets to say a word) and comes back, as a machine does that lost its power
for an instant; the run goes on in a new attempt, on a new lease, from its newest checkpoint. The peer loses one
worker and keeps its launcher, both times. Ours is timed to its first step that was not done before, the peer to its
first step at all. Repeated steps are counted from the page of memory that the workers share, so to the very last.
"""

import argparse
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.platform.watched import LOOK_EVERY_S, USUAL, Watched
from bench.report import Figure, show
from bench.training.contest import Running
from tests.scenarios.platform import Platform, platform

NODE_LONGER_AT_MOST_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Seconds from the kill to the first step at all, to the first never done before, and the steps done twice."""

    first_s: float
    new_s: float
    repeated: int


def ours(home: Platform, every: int, wait_s: float) -> tuple[Loss, Loss]:
    """The loss of a worker, and then of the node."""
    run = Watched(home, USUAL | {"steps": 100_000}, checkpoint_every={"steps": every})
    run.wait_for(step=2 * every + 5)
    board = run.board(1)
    time.sleep(wait_s)

    killed_s = time.monotonic()
    os.kill(home.workers(run.run_id)[-1], signal.SIGKILL)
    counted = done = board.executed
    while not (
        resumed := [line["step"] for line in run.told() if line["kind"] == "started" and line["restart"]]
    ):
        counted = done = board.executed
        time.sleep(LOOK_EVERY_S)
    while board.executed == counted:
        time.sleep(LOOK_EVERY_S)
    first_s = time.monotonic() - killed_s
    while resumed[0] + board.executed - counted <= done:
        time.sleep(LOOK_EVERY_S)
    worker = Loss(first_s=first_s, new_s=time.monotonic() - killed_s, repeated=done - resumed[0])

    run.wait_for(step=done + every + 5)
    time.sleep(wait_s)
    lost = [home.pid("agent"), *run.processes()]
    killed_s = time.monotonic()
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    run.wait_for(attempt=2)
    first_s = time.monotonic() - killed_s
    done, after = resumed[0] + board.executed - counted, run.board(2)
    [again] = [line["step"] for line in run.told(2) if line["kind"] == "started"]
    while again + after.executed <= done:
        time.sleep(LOOK_EVERY_S)
    node = Loss(first_s=first_s, new_s=time.monotonic() - killed_s, repeated=done - again)
    run.end()
    home.check_books()
    return worker, node


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
    found: list[tuple[Loss, Loss]] = []
    peers: list[float] = []
    with platform("--cpu-slots", "2") as home:
        for _ in range(asked.rounds):
            waits = [chance.uniform(0, 1) for _ in range(4)]
            peers.append(peer(asked.every, waits[0]))
            found += [ours(home, asked.every, waits[1]), ours(home, asked.every, waits[2])]
            peers.append(peer(asked.every, waits[3]))
    report("a worker", [worker for worker, _ in found], peers, every=asked.every, longer_s_max=0.0)
    report(
        "a node", [node for _, node in found], peers, every=asked.every, longer_s_max=NODE_LONGER_AT_MOST_S
    )


def report(
    victim: str, losses: Sequence[Loss], peers: Sequence[float], *, every: int, longer_s_max: float
) -> None:
    longer_s = [loss.new_s - peer_s for loss, peer_s in zip(losses, peers, strict=True)]
    show(
        Figure(
            name=f"kill -9 of {victim} → next new step",
            unit="s",
            ours=tuple(loss.new_s for loss in losses),
            peer=tuple(peers),
            peer_name="torchrun after a worker's kill",
            target="≤ torchrun" + (f" + {longer_s_max:g} s" if longer_s_max else ""),
            reached=median(longer_s) <= longer_s_max,
            note=f"longer by {median(longer_s):+.2f} s, at most {max(longer_s):+.2f} s;"
            f" first step of any kind after {median(loss.first_s for loss in losses):.2f} s",
        )
    )
    repeated = tuple(float(loss.repeated) for loss in losses)
    show(
        Figure(
            name=f"most steps repeated after the loss of {victim}",
            unit="steps",
            ours=(max(repeated),),
            target=f"≤ one interval ({every})",
            reached=max(repeated) <= every,
            note=f"all of them: {', '.join(f'{steps:.0f}' for steps in repeated)}",
        )
    )


if __name__ == "__main__":
    main()
