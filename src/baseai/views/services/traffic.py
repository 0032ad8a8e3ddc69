"""Traffic is what a service was asked and how it answered over a stretch of time: rates, shares and percentiles.

Invariant: percentiles come from counts that were added up, never from percentiles of parts; where nothing was asked
there is no percentile and no share, which is not zero. Pure.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from baseai.serving.latency import BOUNDS_MS, LONGEST_MS, quantile

Row = dict[str, Any]
SloState = Literal["kept", "burning", "missed", "unmeasured"]

COUNTED = (
    "requests", "errors", "refused", "slow", "cache_hits", "collapsed", "retried", "lost", "tokens_in", "tokens_out",
    "bytes_in", "bytes_out",
)  # fmt: skip
SLOW_ALLOWED = 0.01  # an SLO is on the 99th percentile: one in a hundred may be slower
FEW = 100  # of so few requests one that is slow would already be beyond the share


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How far back one looks, and in which steps it is told."""

    name: str
    span_s: int
    step_s: int  # a multiple of the ten seconds in which gateways count


WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        each.name: each
        for each in (
            Window(name="15m", span_s=900, step_s=10),
            Window(name="1h", span_s=3_600, step_s=20),
            Window(name="6h", span_s=6 * 3_600, step_s=60),
            Window(name="24h", span_s=24 * 3_600, step_s=300),
            Window(name="7d", span_s=7 * 24 * 3_600, step_s=1_800),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Something that changes at instants and holds until the next: how many replicas were wanted, or ready."""

    at: tuple[datetime, ...]  # ascending
    values: tuple[int, ...]

    def as_of(self, at: datetime) -> int | None:
        """None before the first is known."""
        place = bisect_right(self.at, at)
        return self.values[place - 1] if place else None


def ready_steps(replicas: Sequence[tuple[datetime | None, datetime | None]]) -> Steps:
    """How many answered at each instant, from when each was ready and when it ceased to be (None: not yet)."""
    moves = sorted(
        [(since, 1) for since, _ in replicas if since is not None]
        + [(until, -1) for since, until in replicas if since is not None and until is not None]
    )
    at: list[datetime] = []
    values: list[int] = []
    ready = 0
    for instant, by in moves:
        ready += by
        if at and at[-1] == instant:
            values[-1] = ready
        else:
            at.append(instant)
            values.append(ready)
    return Steps(at=tuple(at), values=tuple(values))


def told_of(counts: Mapping[str, Any] | None, span_s: float) -> Row:
    """Rates, shares and percentiles of one stretch. `counts`: COUNTED and two arrays of latencies; None: nothing."""
    known: Row = {name: int(counts[name] or 0) if counts else 0 for name in COUNTED}
    latency = list(counts["latency"] or ()) if counts else []
    first_byte = list(counts["first_byte"] or ()) if counts else []
    answered, asked = sum(latency), known["requests"] - known["refused"]  # what is refused reaches no replica
    return known | {
        "answered": answered,
        "requests_per_s": known["requests"] / span_s,
        "tokens_per_s": (known["tokens_in"] + known["tokens_out"]) / span_s,
        "error_ratio": _share(known["errors"], asked),
        "cache_hit_ratio": _share(known["cache_hits"] + known["collapsed"], asked),
        "slow_ratio": _share(known["slow"], answered),
        **{f"p{q}_ms": quantile(latency, q / 100) if latency else None for q in (50, 95, 99)},
        **{f"first_byte_p{q}_ms": quantile(first_byte, q / 100) if first_byte else None for q in (50, 99)},
    }


def points_of(
    counted: Mapping[datetime, Mapping[str, Any]], from_at: datetime, until_at: datetime, step_s: int, *,
    concurrency: Mapping[datetime, float], wanted: Steps, ready: Steps,
) -> list[Row]:  # fmt: skip
    """One point for each step of [from_at, until_at), also where nothing was asked.

    counted and concurrency are by the start of their step; replicas are as of its end. Where seconds of demand are not
    kept any more, requests under way are reckoned from how long those took that were answered.
    """
    points = []
    at = from_at
    while at < until_at:
        end = min(at + timedelta(seconds=step_s), until_at)
        seen = concurrency.get(at)
        points.append(
            {
                "at": at,
                **told_of(counted.get(at), step_s),
                "concurrency": under_way(counted.get(at), step_s) if seen is None else seen,
                "wanted": wanted.as_of(end),
                "ready": ready.as_of(end) or 0,
            }
        )
        at += timedelta(seconds=step_s)
    return points


def under_way(counts: Mapping[str, Any] | None, span_s: float) -> float:
    """Mean of requests under way at once, by Little's law: how many came in a second times how long each took."""
    if counts is None or not counts["latency"]:
        return 0.0
    edges = (BOUNDS_MS[0] / 2, *BOUNDS_MS, LONGEST_MS)
    all_ms = sum(
        count * (edges[bucket] * edges[bucket + 1]) ** 0.5
        for bucket, count in enumerate(counts["latency"])
        if count
    )
    return float(all_ms) / 1000 / span_s


def slo_of(p99_ms: float | None, short: Mapping[str, Any], long: Mapping[str, Any]) -> Row | None:
    """How a service stands against its SLO: over a short time, which says what is now, and a long one.

    None where it has none. burn: how many times the slow requests that are allowed. It is missed where the long
    time is beyond it, burning where only the short one is, and unmeasured where almost nothing was asked.
    """
    if p99_ms is None:
        return None
    state: SloState = "kept"
    if long["answered"] < FEW:
        state = "unmeasured"
    elif long["slow_ratio"] > SLOW_ALLOWED:
        state = "missed"
    elif short["answered"] >= FEW and short["slow_ratio"] > SLOW_ALLOWED:
        state = "burning"
    return {
        "p99_ms": p99_ms,
        "state": state,
        "burn": None if long["slow_ratio"] is None else long["slow_ratio"] / SLOW_ALLOWED,
        "burn_now": None if short["slow_ratio"] is None else short["slow_ratio"] / SLOW_ALLOWED,
        "seen_p99_ms": long["p99_ms"],
        "requests": long["answered"],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
