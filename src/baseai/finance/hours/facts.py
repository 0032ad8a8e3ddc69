"""The facts of a window: for each accelerator all that claims its time, and the capacity held for somebody.

Invariant: what a window's hours come to follows from these values alone, so an hour counted twice is the same twice.
Rows of PostgreSQL become these in `postgres.py`; nobody changes them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from baseai.finance.bucket import Bucket, BucketSpan, Claim, Interval, hours_of, spans_of
from baseai.finance.claim import (
    LeaseFacts,
    Move,
    Terms,
    accelerator_claims,
    lease_claims,
    node_claims,
)
from baseai.finance.held import Hold, Presence, committed_steps, first_claims, unused_steps

Pool = tuple[str, str]  # model, site
Hours = Mapping[tuple[int, datetime], Mapping[Bucket, int]]  # (accelerator_no, hour) → µs by bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorFacts:
    """One accelerator with its moves, its node's, and its leases, each ascending in time."""

    accelerator_no: int
    model: str
    site_id: str
    installed: Interval
    state: str
    moves: Sequence[Move]
    node_state: str
    node_moves: Sequence[Move]
    leases: Sequence[LeaseFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of some accelerators in one window. A model of which something is held is here whole."""

    window: tuple[datetime, datetime]
    accelerators: Sequence[AcceleratorFacts]
    fragmented: Mapping[Pool, Sequence[Interval]]
    holds: Sequence[Hold]


def reckoned(facts: Facts) -> Hours:
    """What every hour of the window was. Linear in claims and hours but for sorting, where nothing is held."""
    return hours_of(chain.from_iterable(stretches(facts).values()))


def stretches(facts: Facts) -> Mapping[int, Sequence[BucketSpan]]:
    """What each accelerator was from when to when, by accelerator_no: what its hours are summed of."""
    claims = {one.accelerator_no: list(_claims(one, facts)) for one in facts.accelerators}
    spans = {one.accelerator_no: _spans(one, claims, facts) for one in facts.accelerators}
    for holds, members in _held(facts):
        found = first_claims(Bucket.RESERVED, committed_steps(holds), _seen(members, holds[0]))
        _add(found, members, claims, spans, facts)
        idle = (
            Presence(accelerator_no=span.accelerator_no, from_at=span.from_at, until_at=span.until_at)
            for span in chain.from_iterable(spans[one.accelerator_no] for one in members)
            if span.bucket in (Bucket.IDLE, Bucket.FRAGMENTED)
        )
        steps = unused_steps(holds, _leased(members, holds[0], facts))
        _add(first_claims(Bucket.RESERVED_UNUSED, steps, idle), members, claims, spans, facts)
    return spans


def _claims(one: AcceleratorFacts, facts: Facts) -> Iterator[Claim]:
    since = one.installed.from_at
    yield from node_claims(one.node_moves, now_in=one.node_state, since=since)
    yield from accelerator_claims(one.moves, now_in=one.state, since=since)
    for lease in one.leases:
        yield from lease_claims(lease)
    for interval in facts.fragmented.get((one.model, one.site_id), ()):
        yield Claim(bucket=Bucket.FRAGMENTED, from_at=interval.from_at, until_at=interval.until_at)


def _spans(
    one: AcceleratorFacts, claims: Mapping[int, Sequence[Claim]], facts: Facts
) -> Sequence[BucketSpan]:
    return spans_of(one.accelerator_no, one.installed, claims[one.accelerator_no], window=facts.window)


def _add(
    found: Mapping[int, Sequence[Claim]],
    members: Sequence[AcceleratorFacts],
    claims: Mapping[int, list[Claim]],
    spans: dict[int, Sequence[BucketSpan]],
    facts: Facts,
) -> None:
    for one in members:
        if one.accelerator_no in found:
            claims[one.accelerator_no].extend(found[one.accelerator_no])
            spans[one.accelerator_no] = _spans(one, claims, facts)


def _held(facts: Facts) -> Iterator[tuple[Sequence[Hold], Sequence[AcceleratorFacts]]]:
    """The holds of each tenant or project on each model, with the accelerators for them, in one order always."""
    by_holder: dict[tuple[str, str, str], list[Hold]] = defaultdict(list)
    for hold in facts.holds:
        by_holder[hold.model, hold.tenant_id, hold.project_id or ""].append(hold)
    for (model, _, _), holds in sorted(by_holder.items()):
        sites = {hold.site_id for hold in holds}
        members = [
            one
            for one in facts.accelerators
            if one.model == model and (None in sites or one.site_id in sites)
        ]
        yield holds, members


def _leased(members: Sequence[AcceleratorFacts], hold: Hold, facts: Facts) -> Iterator[Presence]:
    """What the holder has leased that can be within its hold, processes seen or not."""
    for one in members:
        for lease in one.leases:
            if _within(lease, hold):
                until_at = facts.window[1] if lease.until_at is None else lease.until_at
                yield Presence(accelerator_no=one.accelerator_no, from_at=lease.granted_at, until_at=until_at)


def _seen(members: Sequence[AcceleratorFacts], hold: Hold) -> Iterator[Presence]:
    """Likewise, while its processes were seen."""
    for one in members:
        for lease in one.leases:
            seen = lease.seen()
            if seen is not None and seen.until_at is not None and _within(lease, hold):
                yield Presence(
                    accelerator_no=one.accelerator_no, from_at=seen.from_at, until_at=seen.until_at
                )


def _within(lease: LeaseFacts, hold: Hold) -> bool:
    return (
        lease.tenant_id == hold.tenant_id
        and hold.project_id in (None, lease.project_id)
        and lease.terms in (Terms.ON_DEMAND, Terms.RESERVED)
    )
