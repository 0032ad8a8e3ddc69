"""Latencies are counted in buckets: those of all gateways, versions and seconds add up and still tell percentiles.

Invariant: `BOUNDS_MS` never changes once rows were written by it: counts are stored by position (`service_traffic`).
A bucket holds what is at most its bound and more than the one before; the last one holds what is beyond every bound.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

SHORTEST_MS = 0.1
LONGEST_MS = 600_000.0  # ten minutes
STEPS = 90  # each bound is 1.19 times the one before: a percentile is at most 9 % off, before interpolation

BOUNDS_MS: tuple[float, ...] = (
    *(SHORTEST_MS * (LONGEST_MS / SHORTEST_MS) ** (step / STEPS) for step in range(STEPS)),
    LONGEST_MS,
)
BUCKETS = len(BOUNDS_MS) + 1


def bucket_of(ms: float) -> int:
    """Where a latency is counted, 0 to `BUCKETS` - 1. About 0.1 µs."""
    return bisect_left(BOUNDS_MS, ms)


def added(*counts: Sequence[int]) -> tuple[int, ...]:
    """The sum of counts of several stretches or gateways; zeros where there are none.

    Raises ValueError where one of them has another number of buckets.
    """
    return tuple(map(sum, zip((0,) * BUCKETS, *counts, strict=True)))


def quantile(counts: Sequence[int], q: float) -> float | None:
    """The latency in ms that the share `q` of all was at most; None where nothing was counted.

    counts: shape (BUCKETS,). Between the bounds of its bucket latencies are taken to lie evenly on a logarithmic
    scale. What is beyond ten minutes is told as ten minutes.
    """
    if len(counts) != BUCKETS:
        raise ValueError(f"{len(counts)} counts are none of {BUCKETS} buckets")
    if not 0 <= q <= 1:
        raise ValueError(f"no share is {q}")
    total = sum(counts)
    if total == 0:
        return None
    below, rank = 0, q * total
    for bucket, count in enumerate(counts):
        if count and below + count >= rank:
            if bucket == BUCKETS - 1:
                return LONGEST_MS
            high_ms = BOUNDS_MS[bucket]
            if bucket == 0:
                return high_ms * (rank - below) / count
            low_ms = BOUNDS_MS[bucket - 1]
            return low_ms * math.exp(math.log(high_ms / low_ms) * (rank - below) / count)
        below += count
    return LONGEST_MS
