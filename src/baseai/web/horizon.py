"""A horizon is how far the queue page looks ahead: one axis of time to come, on which all estimates are drawn.

The axis is logarithmic, so that minutes can be told apart beside days. Invariant: an interval lies between now and the
end of the axis, whatever was estimated; what goes beyond it says so. Pure.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LEVEL_S = 600.0  # below it the axis is nearly even
SHORTEST_S, FARTHEST_S = 900.0, 400 * 86_400.0
MARKS_S = (
    300,
    900,
    3600,
    4 * 3600,
    12 * 3600,
    86_400,
    3 * 86_400,
    7 * 86_400,
    30 * 86_400,
    90 * 86_400,
    365 * 86_400,
)
APART_PCT = 13.0  # least distance of two marks that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A time from now that the axis names."""

    at_pct: float
    after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One interval on the axis, in parts of a hundred."""

    from_pct: float
    wide_pct: float
    likely_pct: float
    beyond: bool  # it ends after the axis does


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """The axis from `now` on, `end_s` long."""

    now: datetime
    end_s: float

    def at_pct(self, after_s: float) -> float:
        """Where an instant stands so long after now."""
        within_s = min(max(0.0, after_s), self.end_s)
        return round(100 * math.log1p(within_s / LEVEL_S) / math.log1p(self.end_s / LEVEL_S), 2)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Those that fit, none nearer to the one before than can be read."""
        found: list[Mark] = []
        for after_s in MARKS_S:
            at_pct = self.at_pct(after_s)
            clear = at_pct - (found[-1].at_pct if found else 0.0) >= APART_PCT
            if after_s < self.end_s and clear and at_pct <= 100 - APART_PCT / 2:
                found.append(Mark(at_pct=at_pct, after_s=after_s))
        return tuple(found)

    def bar(self, estimate: Mapping[str, Any]) -> Bar:
        """estimate: a row with earliest_at, likely_at, latest_at."""
        earliest_s, likely_s, latest_s = (
            (_instant(estimate[name]) - self.now).total_seconds()
            for name in ("earliest_at", "likely_at", "latest_at")
        )
        from_pct = self.at_pct(earliest_s)
        return Bar(
            from_pct=from_pct,
            wide_pct=round(max(0.6, self.at_pct(latest_s) - from_pct), 2),  # also where it is an instant
            likely_pct=self.at_pct(likely_s),
            beyond=latest_s > self.end_s,
        )


def horizon_of(runs: Iterable[Mapping[str, Any]], now: datetime) -> Horizon | None:
    """The axis on which the estimates of these runs are drawn; None where none has one."""
    latest = _latest([run["wait"]["estimate"] for run in runs if run["wait"]])
    if latest is None:
        return None
    end_s = min(max(SHORTEST_S, 1.05 * (latest - now).total_seconds()), FARTHEST_S)
    return Horizon(now=now, end_s=end_s)


def _latest(estimates: Sequence[Mapping[str, Any] | None]) -> datetime | None:
    return max((_instant(one["latest_at"]) for one in estimates if one is not None), default=None)


def _instant(at: datetime | str) -> datetime:
    return datetime.fromisoformat(at) if isinstance(at, str) else at
