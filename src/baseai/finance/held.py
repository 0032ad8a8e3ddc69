"""A hold is capacity that is kept for a tenant: by count and model, on no serials in particular.

Invariant: at every instant as many accelerators count as reserved or reserved-unused as are held, as far as there are
any: first those that the tenant has leased, then idle ones, the lowest number first each time. That choice says
nothing of who will get which device; it is the same whenever it is made. Contracts and the calendar make holds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from baseai.finance.bucket import Bucket, Claim


class HeldBy(StrEnum):
    """What a hold rests on."""

    CONTRACT = "contract"  # a commitment: whatever the tenant runs, save spot, is within it first
    CALENDAR = "calendar"  # a reservation: what names it runs on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """So many accelerators of one model for one tenant, from an instant to another."""

    tenant_id: str
    model: str
    count: int
    by: HeldBy
    from_at: datetime
    until_at: datetime
    site_id: str | None = None  # None: at any site
    project_id: str | None = None  # None: for any project of the tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One accelerator that may count, from an instant to another."""

    accelerator_no: int
    from_at: datetime
    until_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A count that holds from an instant to another."""

    count: int
    from_at: datetime
    until_at: datetime


def first_claims(bucket: Bucket, steps: Iterable[Step], there: Iterable[Presence]) -> dict[int, list[Claim]]:
    """At each instant the first so many of the accelerators that are there, by number, as claims of each.

    Steps that overlap add up. O(turns x accelerators there).
    """
    turns: list[
        tuple[datetime, int, int, int]
    ] = []  # at, change of the count, accelerator, change of presence
    for step in steps:
        if step.from_at < step.until_at:
            turns += [(step.from_at, step.count, 0, 0), (step.until_at, -step.count, 0, 0)]
    if not turns:
        return {}
    for one in there:
        if one.from_at < one.until_at:
            turns += [(one.from_at, 0, one.accelerator_no, 1), (one.until_at, 0, one.accelerator_no, -1)]
    turns.sort()
    claims: dict[int, list[Claim]] = defaultdict(list)
    since: dict[int, datetime] = {}
    present: dict[int, int] = {}
    wanted = 0
    for number, (at, change, accelerator_no, appears) in enumerate(turns):
        wanted += change
        if appears:
            present[accelerator_no] = present.get(accelerator_no, 0) + appears
        if number + 1 < len(turns) and turns[number + 1][0] == at:
            continue
        chosen = set(sorted(no for no, times in present.items() if times > 0)[: max(0, wanted)])
        for gone in sorted(since.keys() - chosen):
            claims[gone].append(Claim(bucket=bucket, from_at=since.pop(gone), until_at=at))
        for come in chosen - since.keys():
            since[come] = at
    return dict(claims)


def committed_steps(holds: Iterable[Hold]) -> list[Step]:
    """What contracts keep: all that the tenant runs is within it first."""
    return [
        Step(count=hold.count, from_at=hold.from_at, until_at=hold.until_at)
        for hold in holds
        if hold.by is HeldBy.CONTRACT
    ]


def unused_steps(holds: Sequence[Hold], leased: Iterable[Presence]) -> list[Step]:
    """How many of one tenant's held accelerators of a model are not leased, instant by instant.

    A reservation in the calendar is how a commitment is kept, not more of it: the larger of the two sums counts.
    leased: what the tenant has leased on these terms.
    """
    turns: list[tuple[datetime, str, int]] = []
    for hold in holds:
        turns += [(hold.from_at, hold.by.value, hold.count), (hold.until_at, hold.by.value, -hold.count)]
    for one in leased:
        if one.from_at < one.until_at:
            turns += [(one.from_at, "leased", 1), (one.until_at, "leased", -1)]
    turns.sort()
    sums: dict[str, int] = defaultdict(int)
    steps = []
    for number, (at, kind, change) in enumerate(turns):
        sums[kind] += change
        until_at = turns[number + 1][0] if number + 1 < len(turns) else at
        unused = max(sums[HeldBy.CONTRACT.value], sums[HeldBy.CALENDAR.value]) - sums["leased"]
        if unused > 0 and until_at > at:
            steps.append(Step(count=unused, from_at=at, until_at=until_at))
    return steps
