"""What a replay of requests came to: how many missed the SLO, and how many replica-seconds were paid for that.

Invariant: made of what was carried out alone. Both figures leave out the first stretch, in which every autoscaler
still finds its feet, and count all requests and replicas after it, those of the end included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baseai.twin.serving.replay import Carried


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """One replay."""

    requests: int
    missed: int  # held longer than the SLO, or never begun
    missed_ratio: float
    replica_s: float  # from order to end
    replicas_mean: float
    replicas_most: int
    wait_p50_s: float
    wait_p99_s: float | None  # None: more than 1 % were never begun
    used_ratio: float  # of all places on replicas, over the whole replay
    decisions: int


def outcome_of(carried: Carried, *, slo_s: float, concurrency: int, from_s: float = 0.0) -> ServingOutcome:
    """slo_s: so long a request may be held before its replica begins it."""
    waits_s = np.array([wait_s for arrived_s, wait_s in carried.waits if arrived_s >= from_s])
    spans = [
        (max(from_s, each.ordered_s), carried.until_s if each.ended_s is None else each.ended_s)
        for each in carried.replicas
    ]
    replica_s = sum(max(0.0, to_s - since_s) for since_s, to_s in spans)
    missed = int(np.count_nonzero(waits_s > slo_s))
    all_s = sum(
        (carried.until_s if each.ended_s is None else each.ended_s) - each.ordered_s
        for each in carried.replicas
    )
    p99_s = float(np.quantile(waits_s, 0.99, method="higher")) if len(waits_s) else 0.0
    return ServingOutcome(
        requests=len(waits_s),
        missed=missed,
        missed_ratio=missed / max(1, len(waits_s)),
        replica_s=replica_s,
        replicas_mean=replica_s / max(1.0, carried.until_s - from_s),
        replicas_most=_most(spans),
        wait_p50_s=float(np.quantile(waits_s, 0.5, method="lower")) if len(waits_s) else 0.0,
        wait_p99_s=p99_s if math.isfinite(p99_s) else None,
        used_ratio=carried.served_s / (all_s * concurrency) if all_s else 0.0,
        decisions=len(carried.decisions),
    )


def _most(spans: Sequence[tuple[float, float]]) -> int:
    """The most replicas at one instant."""
    moves = sorted([(since_s, 1) for since_s, to_s in spans if to_s > since_s]
                   + [(to_s, -1) for since_s, to_s in spans if to_s > since_s])  # fmt: skip
    now = most = 0
    for _, move in moves:
        now += move
        most = max(most, now)
    return most


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One autoscaler at one setting."""

    name: str
    missed_ratio: float
    replica_s: float


def beats(one: Point, other: Point) -> bool:
    """No worse in both, better in one."""
    no_worse = one.missed_ratio <= other.missed_ratio and one.replica_s <= other.replica_s
    return no_worse and (one.missed_ratio, one.replica_s) != (other.missed_ratio, other.replica_s)


def front_of(points: Sequence[Point]) -> tuple[Point, ...]:
    """Those that no other beats, the cheapest first."""
    found = [point for point in points if not any(beats(other, point) for other in points)]
    return tuple(sorted(found, key=lambda point: (point.replica_s, point.missed_ratio)))


def area_under(points: Sequence[Point], *, replica_s_most: float, missed_floor: float = 1e-5) -> float:
    """How good a whole front is, in one number: the smaller the better.

    The mean over replica-seconds from 0 to `replica_s_most` of the logarithm (base 10) of the least share missed that
    can be had for so many; `missed_floor` stands for none, 1 where nothing can be had.
    """
    area, since_s, log = 0.0, 0.0, 0.0
    for point in front_of(points):
        if point.replica_s >= replica_s_most:
            break
        area += log * (point.replica_s - since_s)
        since_s, log = point.replica_s, math.log10(max(missed_floor, point.missed_ratio))
    return (area + log * (replica_s_most - since_s)) / replica_s_most
