"""A plan is who starts now and on what, and who waits and why: the answer to one snapshot.

Invariant: grants and waits together are the whole queue, each run once, both in queue order. Made by `decide`;
nobody changes a plan: the shell that writes it may be refused single grants by the database, and asks again.
All explanations are codes with their figures, so that a page can say them in any language; `sentence` says them in
English.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.constraint import Constraint
from baseai.scheduling.fragmentation import Pool


class WaitKind(StrEnum):
    """Why a run does not start in this cycle."""

    SHORT = "short"  # too few nodes can take it now
    HELD = "held"  # it would fit, and would put off a run that was promised its start
    NEVER = "never"  # the nodes that are ready could not take it even without a single lease
    CLEARING = "clearing"  # what yields or is preempted is being stopped for it; it starts once that is gone
    BOOKED = "booked"  # it is for a reservation, which has not begun
    OWN_NODE = "own_node"  # a pinned run that yields, and its node is not free for it
    LIMIT = "limit"  # its queue, or one above it, holds all that it may
    UNKNOWN_QUEUE = "unknown_queue"  # its queue is there no more


class Obstacle(StrEnum):
    """What a run that would fit must not put off, or is held up by."""

    RUN = "run"  # one that was promised its start
    RESERVATION = "reservation"
    MAINTENANCE = "maintenance"
    QUEUE = "queue"  # that holds all it may: its own, or one above it


class StartKind(StrEnum):
    """How a run came to start now."""

    IN_TURN = "in_turn"  # everybody ahead of it had started
    BACKFILL = "backfill"  # ahead of others that cannot start yet, whom it does not put off
    RESERVED = "reserved"  # on capacity that was held for it
    SPOT = "spot"  # on what nobody else wanted


class Lever(StrEnum):
    """What a tenant can change of a demand. Where data may lie is not among them."""

    ACCELERATORS = "accelerators"  # on each node
    NODES = "nodes"
    MEMORY = "memory"  # MiB on each node
    DISK = "disk"  # MiB on each node
    CPU = "cpu"  # thousandths of a core on each node
    DURATION = "max_duration"  # seconds
    SITE = "site"
    MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of the demand with which the run would fit: the largest that does, of the cheapest lever."""

    lever: Lever
    asked: int | str
    instead: int | str  # for `site`, "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why one run waits, in figures. Nodes count for the first constraint they fail."""

    nodes_failing: tuple[tuple[Constraint, int], ...]  # those above 0, in the order considered
    nodes_fitting: int
    nodes_needed: int
    change: Change | None  # None where no single change would start it now
    earliest_at: datetime | None  # by the ends of the leases that stand, had it the queue to itself
    latest_at: datetime | None  # sure while no node is lost; None where nothing is sure


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why one run starts now, and there."""

    kind: StartKind
    policy: str  # that found the nodes, by the name of its file
    nodes_fitting: int  # that could have taken a pod of it
    strands_milli: (
        float | None
    )  # thousandths of accelerators more that will probably stay unused; None: not reckoned
    next_best: NodeId | None  # where the least would have been stranded otherwise
    next_best_strands_milli: float | None
    leaves: int | None  # of the network that it is spread over; None where the network is not known
    leaves_fewest: int | None  # that it could be spread over in an empty fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right of one run to accelerators until `ends_at`. The shell names the serials."""

    run_id: RunId
    places: tuple[tuple[NodeId, str, int], ...]  # (node, model, accelerators), in the order of node ids
    ends_at: datetime
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEstimate:
    """When a waiting run will probably start: an interval that is meant to hold four times of five."""

    asked_at: datetime
    earliest_at: datetime
    likely_at: datetime
    latest_at: datetime
    held_ratio: float | None  # of the estimates before whose outcome is known; None where there are none yet
    outcomes: int  # how many those are


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One run that does not start in this cycle. `ahead` counts the waiting runs that are served before it."""

    run_id: RunId
    position: int  # 1 for the first that waits
    ahead: int
    kind: WaitKind
    behind: (
        str | None
    )  # the run, reservation or maintenance that it would put off, where that is what holds it
    explanation: Explanation | None  # None beyond the cycle's bound on explanations
    obstacle: Obstacle = Obstacle.RUN  # what `behind` names
    behind_tenant: TenantId | None = None  # whose that is; None where it is the platform's
    promised_at: datetime | None = (
        None  # by then it starts if no node is lost, whoever comes; kept from cycle to cycle
    )
    promised_since: datetime | None = None  # when it was first told that; promises are kept in this order
    promised_on: tuple[tuple[str, str, int], ...] = ()  # node, model and accelerators of each pod then
    owners_ahead: tuple[tuple[TenantId, int], ...] = ()  # runs ahead of it by tenant, the most first
    estimate: StartEstimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """A run that is to stop now, for another one."""

    run_id: RunId
    for_run: RunId
    lost_accelerator_s: float | None  # of its work since it last saved; None for a test, which loses nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole queue, split in two, and whose leases are wanted back for it."""

    grants: tuple[Grant, ...]
    waits: tuple[Wait, ...]
    evictions: tuple[Eviction, ...] = ()  # of those who give way and stand where another one starts
    fragmented: frozenset[Pool] | None = (
        frozenset()
    )  # where accelerators are free in sum and in no place; None: not said
