"""A snapshot is what the record says at one instant: the fleet, its leases, the queue, and what was agreed about them.

Invariant: plain values in one order, whatever order the rows came in, so that equal rows give equal snapshots; each
lease is on a node of the fleet. Only `snapshot_of` makes one; nothing changes it. `standing` turns it into columns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.calendar import FutureClaim
from baseai.scheduling.queue_tree import QueueTree
from baseai.workloads.demand import Demand
from baseai.workloads.spec import DEFAULT_PRIORITY, DEFAULT_QUEUE

Isolation = Literal["none", "user", "container"]
UNTRIED = ("burn_in", "verifying")  # states in which a node is tested before anybody runs on it


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node: what it has in all, not what is left of it."""

    node_id: NodeId
    site: str
    country: str  # ISO 3166 alpha-2
    state: (
        str  # the node's lifecycle state; only `ready` takes runs, `cordoned` may again, tests also UNTRIED
    )
    isolation: Isolation
    has_container_runtime: bool
    memory_mib: int  # for runs, the node's own share taken off
    disk_mib: int
    cpu_milli: int  # host cores for runs beside their accelerators, in thousandths
    accelerators: tuple[tuple[str, int], ...]  # (model, usable accelerators); a faulty one is not usable
    rack: str = ""  # whose breaker feeds it; empty where that is not known
    watts: int | None = None  # that runs may draw under that breaker together; None where none is known
    leaf: str = ""  # of the network, where it is known
    pod: str = ""
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """What one run holds on one node, until when. Leases that are unconfirmed hold as firmly as any."""

    run_id: RunId
    tenant_id: TenantId
    node_id: NodeId
    model: str
    count: int
    memory_mib: int
    disk_mib: int
    cpu_milli: int
    ends_at: datetime
    yields: bool = False  # its run gives way to every other, or has been asked to go already
    enqueued_at: datetime | None = None  # its run
    granted_at: datetime | None = None
    saved_at: datetime | None = None  # of the run's last checkpoint
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    spot: bool = False
    min_runtime_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRun:
    """One run in the queue. `enqueued_at` is when it was first submitted, and no retry moves it back."""

    demand: Demand
    enqueued_at: datetime
    promised_since: datetime | None = None  # when it was first told by when it starts at the latest
    promised_at: datetime | None = None  # by then
    promised_on: tuple[tuple[str, str, int], ...] = ()  # there: node, model and accelerators of each pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Nodes by id, leases by end, and who waits by the time of submission."""

    nodes: tuple[NodeRow, ...]
    leases: tuple[LeaseRow, ...]
    waiting: tuple[WaitingRun, ...]
    tree: QueueTree = field(default_factory=QueueTree)
    usage_s: Mapping[str, float] = field(
        default_factory=dict
    )  # decayed accelerator-seconds of each leaf queue
    usage_at_s: float | None = None  # the instant of which usage is, in seconds since 1970; None: of now
    calendar: tuple[FutureClaim, ...] = ()  # on the clock of seconds since 1970
    watts: Mapping[str, int] = field(
        default_factory=dict
    )  # one accelerator of each model at work, with its host
    worth: Mapping[str, float] = field(default_factory=dict)  # US$ an accelerator-hour of each model


def seconds(at: datetime) -> float:
    """Seconds since 1970, exact to the microsecond. Raises ValueError where `at` names no zone."""
    if at.tzinfo is None:
        raise ValueError(f"{at} names no zone")
    return at.timestamp()


def snapshot_of(
    nodes: Iterable[NodeRow],
    leases: Iterable[LeaseRow],
    waiting: Iterable[WaitingRun],
    *,
    tree: QueueTree | None = None,
    usage_s: Mapping[str, float] | None = None,
    usage_at_s: float | None = None,
    calendar: Iterable[FutureClaim] = (),
    watts: Mapping[str, int] | None = None,
    worth: Mapping[str, float] | None = None,
) -> Snapshot:
    """The rows in their order. Raises ValueError where a node stands twice, or a lease names an unknown node."""
    fleet = tuple(sorted(nodes, key=lambda node: node.node_id))
    known = {node.node_id for node in fleet}
    if len(known) != len(fleet):
        raise ValueError("a node stands in the snapshot twice")
    held = tuple(
        sorted(
            leases,
            key=lambda lease: (seconds(lease.ends_at), lease.run_id, lease.node_id, lease.model, lease.count),
        )
    )
    for lease in held:
        if lease.node_id not in known:
            raise ValueError(
                f"run {lease.run_id} holds a lease on {lease.node_id}, which is not in the fleet"
            )
    return Snapshot(
        nodes=fleet,
        leases=held,
        waiting=tuple(sorted(waiting, key=lambda run: (seconds(run.enqueued_at), run.demand.run_id))),
        tree=tree or QueueTree(),
        usage_s=usage_s or {},
        usage_at_s=usage_at_s,
        calendar=tuple(calendar),
        watts=watts or {},
        worth=worth or {},
    )
