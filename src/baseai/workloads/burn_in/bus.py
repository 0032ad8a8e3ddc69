"""A collective is one exchange between all accelerators; its bus bandwidth is what the links themselves carried.

Invariant: `FACTORS` are those of nccl-tests (doc/PERFORMANCE.md), so that a figure here stands beside one measured
there. The algorithm bandwidth is S / t, with S the bytes that the collective is about: what each rank holds for
all_reduce and broadcast, what all ranks hold together for the three others. The bus bandwidth is it times the factor
of n ranks, and can be held against the links whatever n is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

WARM_UPS = 5
ITERATIONS = 20

FACTORS: Mapping[str, Callable[[int], float]] = MappingProxyType(
    {
        "all_reduce": lambda ranks: 2 * (ranks - 1) / ranks,
        "all_gather": lambda ranks: (ranks - 1) / ranks,
        "reduce_scatter": lambda ranks: (ranks - 1) / ranks,
        "all_to_all": lambda ranks: (ranks - 1) / ranks,
        "broadcast": lambda ranks: 1.0,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """One collective at one size, in 10⁹ bytes a second."""

    algorithm_gb_per_s: float
    bus_gb_per_s: float


def bandwidth_of(collective: str, *, size_bytes: int, ranks: int, slowest_s: float) -> Bandwidth:
    """The bandwidth of one exchange that took `slowest_s` on the slowest rank.

    Raises KeyError for a collective that has no factor, ValueError where nothing was exchanged or no time passed.
    """
    if ranks < 2:
        raise ValueError(f"{ranks} rank has nobody to exchange with")
    if size_bytes < 1 or slowest_s <= 0:
        raise ValueError(f"{size_bytes} bytes in {slowest_s} s is no exchange")
    algorithm = size_bytes / slowest_s / 1e9
    return Bandwidth(algorithm_gb_per_s=algorithm, bus_gb_per_s=algorithm * FACTORS[collective](ranks))


def sizes_of(least_bytes: int, most_bytes: int) -> Iterator[int]:
    """Doubling from the least to the most."""
    if least_bytes < 1:
        raise ValueError(f"{least_bytes} bytes double to nothing")
    size = least_bytes
    while size <= most_bytes:
        yield size
        size *= 2
