"""Claims are made of facts: leases with what was seen of them, and stays in a state.

Invariant: a fact claims only its own time and knows of no other fact; which claim has the time is decided in
`bucket.py` alone. Reasons and states are read from their tables (`workloads.reason`, `fleet.node`). Pure; the shell
brings the rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from baseai.finance.bucket import Bucket, Claim, Interval
from baseai.fleet.node import NodeState
from baseai.workloads.reason import Verdict


class Terms(StrEnum):
    """On what terms a lease is held."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"  # on capacity that its spec names as held for it
    SPOT = "spot"
    HOUSE = "house"  # a test of our own


SOLD_AS: Mapping[Terms, Bucket] = MappingProxyType(
    {
        Terms.ON_DEMAND: Bucket.ON_DEMAND,
        Terms.RESERVED: Bucket.RESERVED,
        Terms.SPOT: Bucket.SPOT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """Processes of an attempt were lost at an instant, and went on at another within the same attempt, or did not."""

    at: datetime
    resumed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """A lease on one accelerator with what its agent saw of it and what its attempt came to."""

    terms: Terms
    tenant_id: str
    project_id: str
    granted_at: datetime
    until_at: datetime | None  # released, or ended by itself; None: it goes on
    observed_from: datetime | None  # the first and the last moment at which its processes were seen
    observed_until: datetime | None
    verdict: Verdict | None = None  # None while the attempt goes on
    saved_at: tuple[datetime, ...] = ()  # commits of checkpoints by the attempt, ascending
    setbacks: tuple[Setback, ...] = ()
    research: tuple[Interval, ...] = ()  # when the research tariff held for its tenant

    def seen(self) -> Interval | None:
        """When its processes were seen, within the lease; None when never."""
        if self.observed_from is None or self.observed_until is None:
            return None
        until_at = self.observed_until if self.until_at is None else min(self.observed_until, self.until_at)
        from_at = max(self.observed_from, self.granted_at)
        return Interval(from_at=from_at, until_at=until_at) if from_at < until_at else None


def lease_claims(lease: LeaseFacts) -> Iterator[Claim]:
    """What a lease claims: its whole time while nothing is seen, what is seen as sold, what our faults cost as lost.

    An attempt that we failed and do not bill is lost from its grant on. One that we failed and bill had kept its
    work up to its last checkpoint; what it did after that is done again, and lost. So is what workers that were lost
    had not saved, up to when they work again.
    """
    if lease.terms is Terms.HOUSE:
        yield Claim(bucket=Bucket.BURN_IN, from_at=lease.granted_at, until_at=lease.until_at)
        return
    ours = lease.verdict is not None and lease.verdict.fault == "platform"
    if lease.verdict is not None and ours and not lease.verdict.billable:
        yield Claim(bucket=Bucket.LOST, from_at=lease.granted_at, until_at=lease.until_at)
        return
    yield Claim(bucket=Bucket.START_UP, from_at=lease.granted_at, until_at=lease.until_at)
    seen = lease.seen()
    if seen is None:
        return
    assert seen.until_at is not None
    yield Claim(bucket=SOLD_AS[lease.terms], from_at=seen.from_at, until_at=seen.until_at)
    if lease.terms is Terms.ON_DEMAND:
        for interval in lease.research:
            until_at = seen.until_at if interval.until_at is None else min(interval.until_at, seen.until_at)
            yield Claim(
                bucket=Bucket.RESEARCH, from_at=max(interval.from_at, seen.from_at), until_at=until_at
            )
    setbacks = (*lease.setbacks, Setback(at=seen.until_at)) if ours else lease.setbacks
    for setback in setbacks:
        saved_at = max((at for at in lease.saved_at if at <= setback.at), default=seen.from_at)
        yield Claim(
            bucket=Bucket.LOST,
            from_at=max(saved_at, seen.from_at),
            until_at=min(max(setback.at, setback.resumed_at or setback.at), seen.until_at),
        )


# ---- stays in a state ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of a node or an accelerator, as its event tells."""

    at: datetime
    from_state: str | None
    to_state: str
    by_fault: bool  # the platform itself moved it, for what it saw or what a test came to; a person otherwise


_UP = (NodeState.READY, NodeState.ONBOARDING)  # nothing that went before is held against such a node
NODE_CLAIMS: Mapping[str, Bucket | None] = MappingProxyType(
    {
        NodeState.ONBOARDING: Bucket.NOT_LIVE,
        NodeState.BURN_IN: Bucket.BURN_IN,
        NodeState.READY: None,
        NodeState.CORDONED: Bucket.MAINTENANCE,
        NodeState.DRAINING: Bucket.MAINTENANCE,
        NodeState.REPAIRING: Bucket.MAINTENANCE,
        NodeState.VERIFYING: Bucket.BURN_IN,
        NodeState.QUARANTINED: Bucket.FAILED,
        NodeState.RMA: Bucket.RMA,
        NodeState.RETIRED: None,  # not installed any more
    }
)
ACCELERATOR_CLAIMS: Mapping[str, Bucket | None] = MappingProxyType(
    {
        "ordered": Bucket.NOT_LIVE,
        "received": Bucket.NOT_LIVE,
        "installed": Bucket.NOT_LIVE,
        "in_service": None,
        "failed": Bucket.FAILED,
        "rma": Bucket.RMA,
        "retired": None,
    }
)


def node_claims(moves: Sequence[Move], *, now_in: str, since: datetime) -> Iterator[Claim]:
    """What the states of a node claim of all its accelerators, from `since` on.

    moves: ascending. now_in: its present state, for a node of which no move is known. A node that the platform took
    out of service for a fault stays `failed` until it is ready again, whoever works on it meanwhile.
    """
    by_fault = False
    for state, stay, move in _stays(moves, now_in=now_in, since=since):
        if state in _UP:
            by_fault = False
        elif move is not None and move.from_state in (
            NodeState.READY,
            NodeState.BURN_IN,
            NodeState.VERIFYING,
        ):
            by_fault |= move.by_fault
        bucket = NODE_CLAIMS[state]
        if bucket is Bucket.MAINTENANCE and by_fault:
            bucket = Bucket.FAILED
        if bucket is not None:
            yield Claim(bucket=bucket, from_at=stay.from_at, until_at=stay.until_at)


def accelerator_claims(moves: Sequence[Move], *, now_in: str, since: datetime) -> Iterator[Claim]:
    """What the states of an accelerator claim, from `since` on. moves: ascending."""
    for state, stay, _ in _stays(moves, now_in=now_in, since=since):
        bucket = ACCELERATOR_CLAIMS[state]
        if bucket is not None:
            yield Claim(bucket=bucket, from_at=stay.from_at, until_at=stay.until_at)


def _stays(
    moves: Sequence[Move], *, now_in: str, since: datetime
) -> Iterator[tuple[str, Interval, Move | None]]:
    """(state, when, the move into it). Before the first move it was where that move found it."""
    first = (moves[0].from_state or moves[0].to_state) if moves else now_in
    ends = [move.at for move in moves]
    yield first, Interval(from_at=since, until_at=ends[0] if ends else None), None
    for number, move in enumerate(moves):
        until_at = ends[number + 1] if number + 1 < len(ends) else None
        yield move.to_state, Interval(from_at=move.at, until_at=until_at), move
