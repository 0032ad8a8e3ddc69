"""A bucket is what one second of one accelerator was: sold, idle, lost, failed, … The time ledger adds them up.

Invariant: every installed microsecond stands in exactly one bucket, so the buckets of an hour sum to its installed
time, whatever the facts are, in whatever order and however late they come. Facts *claim* time for a bucket; where
several claim the same time, the first of `PRECEDENCE` has it, and time that nobody claims is idle. Pure: the shell
under `hours/` writes what comes out.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from baseai.ground.clock import hour_of

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


class Bucket(StrEnum):
    """What a second of an accelerator was. The values are stored, so they never change their meaning."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"
    RESEARCH = "research"
    SPOT = "spot"
    RESERVED_UNUSED = "reserved_unused"
    START_UP = "start_up"  # leased, and no process of its run is seen: it is being started or cleared away
    LOST = "lost"  # leased, and of no use to the tenant because of us
    IDLE = "idle"
    FRAGMENTED = "fragmented"  # idle while somebody waits who would fit the free total, and fits nowhere
    BURN_IN = "burn_in"  # or verified after a repair: tests of our own
    MAINTENANCE = "maintenance"  # taken out by a person
    FAILED = "failed"  # taken out for a fault, or the device is gone
    RMA = "rma"  # on its way to its maker and back
    NOT_LIVE = "not_live"  # it stands there and nobody was ever meant to have it yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """What follows from a bucket."""

    used: bool  # a tenant's processes ran on it, to some use
    sold: bool  # somebody has bought it
    available: bool  # it was there to be sold: the denominator of utilisation
    billable: bool
    fault: str  # who answers for it where it was not sold: "nobody", "platform", "maker"


def _nature(
    *, used: int = 0, sold: int = 0, available: int = 0, billable: int = 0, fault: str = "nobody"
) -> Nature:
    return Nature(
        used=bool(used), sold=bool(sold), available=bool(available), billable=bool(billable), fault=fault
    )


NATURE: Mapping[Bucket, Nature] = MappingProxyType(
    {
        Bucket.ON_DEMAND: _nature(used=1, sold=1, available=1, billable=1),
        Bucket.RESERVED: _nature(used=1, sold=1, available=1, billable=1),
        Bucket.RESEARCH: _nature(used=1, sold=1, available=1, billable=1),
        Bucket.SPOT: _nature(used=1, sold=1, available=1, billable=1),
        Bucket.RESERVED_UNUSED: _nature(sold=1, available=1, billable=1),  # by contract, not by the meter
        Bucket.START_UP: _nature(available=1),
        Bucket.LOST: _nature(fault="platform"),
        Bucket.IDLE: _nature(available=1),
        Bucket.FRAGMENTED: _nature(available=1, fault="platform"),
        Bucket.BURN_IN: _nature(),
        Bucket.MAINTENANCE: _nature(fault="platform"),
        Bucket.FAILED: _nature(fault="platform"),
        Bucket.RMA: _nature(fault="maker"),
        Bucket.NOT_LIVE: _nature(),
    }
)

# Which claim has the time where several do: the first. And why it goes before what follows.
PRECEDENCE: tuple[tuple[Bucket, str], ...] = (
    (Bucket.LOST, "a lease that our fault made worthless was never a sale, whatever it looked like before"),
    (Bucket.SPOT, "a tenant's processes were seen: it was sold, also on a node that is being drained"),
    (Bucket.RESERVED, "likewise; what a commitment covers goes first, so it is not on demand as well"),
    (Bucket.RESEARCH, "likewise; where the tariff holds, nothing is on demand"),
    (Bucket.ON_DEMAND, "likewise; the terms of whoever agreed on nothing else"),
    (Bucket.START_UP, "a lease holds the accelerator for its run, whatever becomes of the node meanwhile"),
    (Bucket.RMA, "what is with its maker is not merely broken"),
    (Bucket.FAILED, "what is broken is not in maintenance because somebody looks after its node as well"),
    (Bucket.MAINTENANCE, "what is being worked on is not being tested yet"),
    (Bucket.BURN_IN, "a test is not readiness"),
    (Bucket.NOT_LIVE, "what nobody could have had was neither idle nor held for anybody"),
    (Bucket.RESERVED_UNUSED, "what is held for somebody is not idle"),
    (Bucket.FRAGMENTED, "idle, and somebody waits"),
    (Bucket.IDLE, "what nobody claims"),
)
_RANK: Mapping[Bucket, int] = {bucket: rank for rank, (bucket, _) in enumerate(PRECEDENCE)}
_RANKED: tuple[Bucket, ...] = tuple(bucket for bucket, _ in PRECEDENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Time from an instant to another, the end not included. `until_at` None: it has not ended."""

    from_at: datetime
    until_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One fact's word on what an accelerator was for a while. None after all: a claim that ends before it begins."""

    bucket: Bucket
    from_at: datetime
    until_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSpan:
    """One accelerator in one bucket, from an instant to another."""

    accelerator_no: int
    bucket: Bucket
    from_at: datetime
    until_at: datetime

    @property
    def micro_seconds(self) -> int:
        return (self.until_at - self.from_at) // MICROSECOND


Sums = Mapping[Bucket, int]  # µs, each above 0


def spans_of(
    accelerator_no: int, installed: Interval, claims: Iterable[Claim], *, window: tuple[datetime, datetime]
) -> tuple[BucketSpan, ...]:
    """What the accelerator was in `window`, without gap or overlap, neighbours of one bucket joined.

    Time outside `installed` is in no span. `claims` come in any order, may overlap and reach out of the window; all
    instants are aware. O(n log n) in claims.
    """
    start, end = _within(installed.from_at, installed.until_at, window)
    if start >= end:
        return ()
    turns: dict[datetime, list[tuple[int, int]]] = defaultdict(list)
    for claim in claims:
        from_at, until_at = _within(claim.from_at, claim.until_at, (start, end))
        if from_at < until_at:
            rank = _RANK[claim.bucket]
            turns[from_at].append((rank, 1))
            turns[until_at].append((rank, -1))
    standing = [0] * len(_RANKED)
    spans: list[BucketSpan] = []
    since, bucket = start, _first(standing)
    for at in sorted(turns):
        for rank, change in turns[at]:
            standing[rank] += change
        next_bucket = _first(standing)
        if next_bucket is bucket:
            continue
        if since < at:
            spans.append(_span(accelerator_no, bucket, since, at))
        since, bucket = at, next_bucket
    if since < end:
        spans.append(_span(accelerator_no, bucket, since, end))
    return tuple(spans)


def hours_of(spans: Iterable[BucketSpan]) -> dict[tuple[int, datetime], dict[Bucket, int]]:
    """µs by bucket of each accelerator and UTC hour. Hours without installed time are not there."""
    sums: dict[tuple[int, datetime], dict[Bucket, int]] = {}
    for span in spans:
        for hour, us in _split(span):
            of_hour = sums.setdefault((span.accelerator_no, hour), {})
            of_hour[span.bucket] = of_hour.get(span.bucket, 0) + us
    return sums


def installed_us(installed: Interval, hour: datetime) -> int:
    """µs of `hour` for which the accelerator was installed: what its buckets must sum to."""
    start, end = _within(installed.from_at, installed.until_at, (hour, hour + HOUR))
    return max(0, (end - start) // MICROSECOND)


def _within(
    from_at: datetime, until_at: datetime | None, window: tuple[datetime, datetime]
) -> tuple[datetime, datetime]:
    # In UTC: Python reckons two instants of one zone by their clocks, which a change of the clock sets wrong.
    start, end = window[0].astimezone(UTC), window[1].astimezone(UTC)
    return max(from_at.astimezone(UTC), start), end if until_at is None else min(
        until_at.astimezone(UTC), end
    )


def _first(standing: list[int]) -> Bucket:
    return next((bucket for bucket, claims in zip(_RANKED, standing, strict=True) if claims), Bucket.IDLE)


def _span(accelerator_no: int, bucket: Bucket, from_at: datetime, until_at: datetime) -> BucketSpan:
    return BucketSpan(accelerator_no=accelerator_no, bucket=bucket, from_at=from_at, until_at=until_at)


def _split(span: BucketSpan) -> Iterator[tuple[datetime, int]]:
    from_at = span.from_at
    while from_at < span.until_at:
        hour = hour_of(from_at)
        to_at = min(hour + HOUR, span.until_at)
        yield hour, (to_at - from_at) // MICROSECOND
        from_at = to_at
