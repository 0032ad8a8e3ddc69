"""A turn is one front measured once, by one load, while the other fronts of the stage stand still.

Invariant: turns go peer, ours, ours, peer, so that a machine that slows down slows both; what ours[i] is compared with
is the neighbour peer[i].
"""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.serving.cpu import still
from bench.serving.front import Front, Stage
from bench.serving.open_loop import Load, LoadResult, quantile, run

OWN = "ours"
LATE_MS = 5.0  # a load whose p99 was later than this says little about tails


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What came of it."""

    result: LoadResult
    cpu_ms: float  # of the front's process tree, for each request that was served

    def latency_ms(self, q: float) -> float:
        return quantile(self.result.latency_ms, q)

    def first_ms(self, q: float) -> float:
        return quantile(self.result.first_ms, q)

    def gap_ms(self, q: float) -> float:
        return quantile(self.result.gap_ms, q)

    @property
    def late_ms(self) -> float:
        """p99 of how late the load itself was."""
        return quantile(self.result.late_ms, 0.99)

    @property
    def not_served(self) -> int:
        return self.result.asked - self.result.served


def take(here: Stage, front: Front, load: Load) -> Turn:
    """Ask the front; the others stand still meanwhile."""
    asked = replace(load, port=front.port, path=front.path, headers=(*front.headers, *load.headers))
    with still(here.others(front)):
        before_ms = front.cpu_ms
        result = run(asked)
        cpu_ms = front.cpu_ms - before_ms
    return Turn(result=result, cpu_ms=cpu_ms / max(1, result.served))


def take_direct(here: Stage, port: int, load: Load) -> Turn:
    """Ask the replica itself; all fronts stand still."""
    with still(here.others(None)):
        return Turn(result=run(replace(load, port=port)), cpu_ms=0.0)


def counted(ports: Sequence[int]) -> list[dict[str, int]]:
    """What each mock replica was asked so far."""
    found = []
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts", timeout=5) as answer:
            found.append(json.load(answer))
    return found


def since(before: Sequence[dict[str, int]], after: Sequence[dict[str, int]], what: str) -> list[int]:
    """What was added to one count, replica by replica."""
    return [later[what] - earlier[what] for earlier, later in zip(before, after, strict=True)]


def order(rounds: int, peer: str) -> Iterator[str]:
    """Whose turn it is."""
    for _ in range(rounds):
        yield from (peer, OWN, OWN, peer)
