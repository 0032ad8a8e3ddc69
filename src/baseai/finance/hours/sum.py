"""Sums of the time ledger: how much of what was installed was what, over a span, by site, model, node or bucket.

Invariant: sums are of hours that add up; an hour that does not is withheld, with the reason, and is in no sum. Hours
that are not closed are provisional. Simulated nodes and real ones are never summed together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from baseai.finance.bucket import Bucket


class TimeBy(StrEnum):
    """What the sums are by, beside the bucket."""

    BUCKET = "bucket"  # nothing else
    SITE = "site"
    MODEL = "model"
    NODE = "node"
    ACCELERATOR = "accelerator"  # by its serial


class Pace(StrEnum):
    """How long the steps of a series are."""

    HOUR = "hour"
    DAY = "day"  # of the books' zone


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSum:
    """µs in one bucket of one subject, over the whole span or from one step on."""

    subject: str | None  # a site, a model, a node's id; None by bucket
    start_at: datetime | None  # of the step; None without steps
    bucket: Bucket
    micro_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """One hour of one site whose figures are not shown, and why."""

    hour: datetime
    site_id: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeReport:
    """What the accelerators were in a span."""

    from_at: datetime
    until_at: datetime
    closed_until: datetime | None  # hours from here on are provisional
    checked_at: datetime | None  # when every hour was last held against installed time
    sums: tuple[TimeSum, ...]
    withheld: tuple[Withheld, ...]
    labels: Mapping[str, str]  # names of subjects that have one
    revised: int  # hours of one accelerator in it that late facts changed after they were closed
    open_left_out: bool = False  # there are too many accelerators to reckon open hours as they are asked for

    @property
    def installed_us(self) -> int:
        return sum(one.micro_seconds for one in self.sums)


def merged(sums: Iterable[TimeSum]) -> tuple[TimeSum, ...]:
    """Sums of one subject, step and bucket as one, by subject, step, and the order of buckets."""
    total: dict[tuple[str | None, datetime | None, Bucket], int] = {}
    for one in sums:
        key = one.subject, one.start_at, one.bucket
        total[key] = total.get(key, 0) + one.micro_seconds
    order = {bucket: number for number, bucket in enumerate(Bucket)}
    return tuple(
        TimeSum(subject=subject, start_at=start_at, bucket=bucket, micro_seconds=us)
        for (subject, start_at, bucket), us in sorted(
            total.items(),
            key=lambda item: (
                item[0][0] or "",
                item[0][1].timestamp() if item[0][1] else 0.0,
                order[item[0][2]],
            ),
        )
    )
