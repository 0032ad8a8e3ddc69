"""A stream moves arrays far larger than any cache through a device's memory: a copy, and a triad.

Invariant: bytes are counted as STREAM counts them, two arrays for a copy and three for a triad (a = b + 3·c); what a
cache line read before it is written costs is not counted. The arrays hold whole numbers, so what arrives is known
exactly.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from baseai.workloads.burn_in.product import median_of

ARRAYS = {"copy": 2, "triad": 3}
FACTOR = 3.0
WARM_UPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How fast one device moved memory, and what came back wrong."""

    gb_per_s: float  # 10⁹ bytes a second, the median over the rounds
    wrong_elements: int


def stream(way: str, *, memory_mib: int, device: str, seconds: float, wait: Callable[[], None]) -> Moved:
    """Move arrays of `memory_mib` each for so long. `wait` returns when the device has done what it was given."""
    import torch

    count = memory_mib * (1 << 20) // 4
    source = (torch.arange(count, dtype=torch.int32, device=device) % 1021).float()
    other = (
        (torch.arange(count, dtype=torch.int32, device=device) % 509).float() if way == "triad" else source
    )
    into = torch.zeros(count, dtype=torch.float32, device=device)

    def move() -> None:
        if way == "triad":
            torch.add(source, other, alpha=FACTOR, out=into)
        else:
            into.copy_(source)

    for _ in range(WARM_UPS):
        move()
    wait()
    rates: list[float] = []
    moved_bytes = ARRAYS[way] * count * 4
    deadline_s = time.perf_counter() + seconds
    while not rates or time.perf_counter() < deadline_s:
        began_s = time.perf_counter()
        move()
        wait()
        rates.append(moved_bytes / (time.perf_counter() - began_s) / 1e9)
    expected = source + FACTOR * other if way == "triad" else source
    return Moved(gb_per_s=median_of(tuple(rates)), wrong_elements=int((into != expected).sum()))
