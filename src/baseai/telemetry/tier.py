"""A tier is how finely samples are kept; a step is the length of a chart's buckets. Which step comes from which tier.

Invariant: a bucket's length is a multiple of its tier's, and buckets begin at multiples of their length since 1970,
so that a coarser bucket is always made of whole finer ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baseai.telemetry.store import STEP_MS, Retention, Tier

DAY_MS = 86_400_000
HOUR_MS = STEP_MS[Tier.HOUR]

ROLLED = (Tier.MINUTE, Tier.TEN_MINUTES, Tier.HOUR)

# Between two minutes and ten nothing: a day of a fleet in buckets of 5 minutes would be read from ten times the rows.
LADDER_S: Mapping[Tier, tuple[int, ...]] = {
    Tier.RAW: (10, 20, 30),  # sources are read every 10 s
    Tier.MINUTE: (60, 120),
    Tier.TEN_MINUTES: (600, 1_200, 1_800),
    Tier.HOUR: (3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """The whole buckets that cover a range, and the tier they are made from."""

    tier: Tier
    step_ms: int
    from_ms: int  # of the first bucket, a multiple of the step
    count: int

    @property
    def until_ms(self) -> int:
        return self.from_ms + self.count * self.step_ms


def buckets_of(from_ms: int, until_ms: int, points_max: int, held_from: Mapping[Tier, int]) -> Buckets:
    """The shortest buckets of which `points_max` cover [from_ms, until_ms), from the coarsest tier that makes them.

    held_from: what each tier still has, as the instant it begins at. A tier that does not reach back to `from_ms` is
    passed over for a coarser one; the hour is always taken, as nothing reaches further.
    Raises ValueError for less than one point and for a range that ends before it begins.
    """
    if points_max < 1:
        raise ValueError(f"{points_max} points cannot show anything")
    if until_ms < from_ms:
        raise ValueError(f"a range cannot end at {until_ms} and begin at {from_ms}")
    for tier, step_ms in _steps():
        first = from_ms // step_ms
        count = -(-until_ms // step_ms) - first
        held = tier is Tier.HOUR or held_from.get(tier, 0) <= from_ms
        if held and count <= max(points_max, 1):
            return Buckets(tier=tier, step_ms=step_ms, from_ms=first * step_ms, count=max(0, count))
    raise AssertionError("the ladder has no end")


def _steps() -> Iterator[tuple[Tier, int]]:
    for tier, steps_s in LADDER_S.items():
        for step_s in steps_s:
            yield tier, step_s * 1_000
    step_ms = LADDER_S[Tier.HOUR][-1] * 1_000
    while True:
        step_ms *= 2
        yield Tier.HOUR, step_ms


def floors(now_ms: int, retention: Retention) -> Mapping[Tier, int]:
    """The instant from which each tier is kept, a whole hour: files hold whole hours. A tier for ever begins at 0."""
    days = {
        Tier.RAW: retention.raw_days,
        Tier.MINUTE: retention.minute_days,
        Tier.TEN_MINUTES: retention.ten_minutes_days,
        Tier.HOUR: retention.hour_days,
    }
    return {
        tier: 0 if kept is None else max(0, (now_ms - kept * DAY_MS) // HOUR_MS * HOUR_MS)
        for tier, kept in days.items()
    }
