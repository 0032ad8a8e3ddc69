"""The facts of a window: for each accelerator all that claims its time, and the capacity held for somebody.

Invariant: what a window's hours come to follows from these values alone, so an hour counted twice is the same twice.
Rows of PostgreSQL become these in `postgres.py`; nobody changes them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from baseai.finance.bucket import Bucket, BucketSpan, Claim, Interval, hours_of, spans_of
from baseai.finance.claim import (
    Hold,
    LeaseFacts,
    Move,
    Terms,
    accelerator_claims,
    lease_claims,
    node_claims,
    unused_claims,
)

Pool = tuple[str, str]  # model, site
Hours = Mapping[tuple[int, datetime], Mapping[Bucket, int]]  # (accelerator_no, hour) → µs by bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorFacts:
    """One accelerator with its moves, its node's, and its leases, each ascending in time."""

    accelerator_no: int
    pool: Pool
    installed: Interval
    state: str
    moves: Sequence[Move]
    node_state: str
    node_moves: Sequence[Move]
    leases: Sequence[LeaseFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of some accelerators in one window. Pools in `holds` are here whole, or not in it."""

    window: tuple[datetime, datetime]
    accelerators: Sequence[AcceleratorFacts]
    fragmented: Mapping[Pool, Sequence[Interval]]
    holds: Mapping[Pool, Sequence[Hold]]


def reckoned(facts: Facts) -> Hours:
    """What every hour of the window was. Linear in claims and hours but for sorting."""
    claims = {one.accelerator_no: list(_claims(one, facts)) for one in facts.accelerators}
    spans = {one.accelerator_no: _spans(one, claims, facts) for one in facts.accelerators}
    pools: dict[Pool, list[AcceleratorFacts]] = defaultdict(list)
    for one in facts.accelerators:
        if facts.holds.get(one.pool):
            pools[one.pool].append(one)
    for pool, members in pools.items():
        found = unused_claims(
            chain.from_iterable(spans[one.accelerator_no] for one in members),
            facts.holds[pool],
            _used_by_holders(members),
        )
        for one in members:
            if one.accelerator_no in found:
                claims[one.accelerator_no] += found[one.accelerator_no]
                spans[one.accelerator_no] = _spans(one, claims, facts)
    return hours_of(chain.from_iterable(spans.values()))


def _claims(one: AcceleratorFacts, facts: Facts) -> Iterator[Claim]:
    since = one.installed.from_at
    yield from node_claims(one.node_moves, now_in=one.node_state, since=since)
    yield from accelerator_claims(one.moves, now_in=one.state, since=since)
    for lease in one.leases:
        yield from lease_claims(lease)
    for interval in facts.fragmented.get(one.pool, ()):
        yield Claim(bucket=Bucket.FRAGMENTED, from_at=interval.from_at, until_at=interval.until_at)


def _spans(
    one: AcceleratorFacts, claims: Mapping[int, Iterable[Claim]], facts: Facts
) -> Sequence[BucketSpan]:
    return spans_of(one.accelerator_no, one.installed, claims[one.accelerator_no], window=facts.window)


def _used_by_holders(members: Iterable[AcceleratorFacts]) -> Iterator[Interval]:
    for one in members:
        for lease in one.leases:
            if lease.terms is Terms.RESERVED:
                yield Interval(from_at=lease.granted_at, until_at=lease.until_at)
