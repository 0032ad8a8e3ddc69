"""A snapshot is the fleet, its leases and the queue at one instant, as columns the decision can scan.

Invariant: nothing here changes after `snapshot_of` has built it (the arrays refuse writes), nodes stand in the
order of their ids, and what is free is always what is installed less what is leased. Equal rows in any order
give equal snapshots. Only `snapshot_of` makes one.

A *bay* is all accelerators of one model on one node: a node with eight H100 and its left-over cores has two
bays, which share the node's memory, disk and tenant.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.workloads.demand import Demand

Isolation = Literal["none", "user", "container"]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

NOBODY = -1  # tenant code of a node without leases
SEVERAL = -2  # tenant code of a node on which two tenants already stand: nobody else may join
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
    yields: bool = False  # its run gives way to every other


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRun:
    """One run in the queue. `enqueued_at` is when it was first submitted, and no retry moves it back."""

    demand: Demand
    enqueued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capacity:
    """What is free at one instant, as columns over bays (`accelerators`) and over nodes (the others)."""

    accelerators: Ints
    memory_mib: Ints
    disk_mib: Ints
    cpu_milli: Ints
    tenant: Ints  # code of the tenant on each node, NOBODY or SEVERAL

    def copy(self) -> "Capacity":
        return Capacity(
            accelerators=self.accelerators.copy(),
            memory_mib=self.memory_mib.copy(),
            disk_mib=self.disk_mib.copy(),
            cpu_milli=self.cpu_milli.copy(),
            tenant=self.tenant.copy(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Holdings:
    """Leases as columns, one row each."""

    bay: Ints
    node: Ints
    count: Ints
    memory_mib: Ints
    disk_mib: Ints
    cpu_milli: Ints
    tenant: Ints
    ends_us: Ints  # µs since the epoch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Nodes, bays, leases and queue; an index into a column is a node's or a bay's number.

    What yields stands apart: `free`, `leases` and `waiting` are as if it were not there.
    """

    node_ids: tuple[NodeId, ...]  # ascending
    site: Ints  # code, into `sites`
    country: Ints
    ready: Bools
    standing: Bools  # ready, or able to be ready again: cordoned or under test
    testable: Bools  # where a pinned run may start: ready or under test
    shared: Bools  # isolation keeps tenants apart
    all_shared: bool  # on every node, so that whose run it is decides nothing
    container: Bools
    bay_node: Ints
    bay_span: dict[str, tuple[int, int]]  # the bays of one model, in the order of their nodes
    bay_model: tuple[str, ...]
    total: Capacity
    free: Capacity
    leases: Holdings
    beside: Capacity  # free beside what yields as well; `free` itself where nothing does
    yielding: Holdings
    yielding_runs: tuple[RunId, ...]  # whose lease each of `yielding` is
    waiting: tuple[WaitingRun, ...]  # in queue order
    waiting_pinned: tuple[WaitingRun, ...]  # what yields, in queue order: it is served after all others
    likeness: tuple[int, ...]  # of each waiting run: equal where no instant can tell their demands apart
    models_of: tuple[frozenset[str], ...]  # what the runs of one likeness ask for
    sites: dict[str, int]
    countries: dict[str, int]
    tenants: dict[TenantId, int]


def micros(at: datetime) -> int:
    """µs since the epoch, exactly. Raises ValueError where `at` names no zone."""
    if at.tzinfo is None:
        raise ValueError(f"{at} names no zone")
    return round(at.timestamp()) * 1_000_000 if at.microsecond == 0 else round(at.timestamp() * 1e6)


def queue_order(run: WaitingRun) -> tuple[int, int, str]:
    """Priority, then first come, then the id: a total order that no retry and no cycle disturbs."""
    return (-run.demand.priority, micros(run.enqueued_at), run.demand.run_id)


def snapshot_of(
    nodes: Iterable[NodeRow], leases: Iterable[LeaseRow], waiting: Iterable[WaitingRun]
) -> Snapshot:
    """The columns of these rows, which may come in any order.

    Raises ValueError where a lease names an unknown node; a lease on a model the node no longer offers, and
    accelerators leased beyond what is usable (one has failed since), leave nothing free there rather than less.
    """
    fleet = sorted(nodes, key=lambda node: node.node_id)
    node_of = {node.node_id: number for number, node in enumerate(fleet)}
    if len(node_of) != len(fleet):
        raise ValueError("a node stands in the snapshot twice")
    everybody = sorted(waiting, key=queue_order)
    queue = tuple(run for run in everybody if not run.demand.yields)
    pinned = tuple(run for run in everybody if run.demand.yields)
    held = sorted(leases, key=lambda lease: (micros(lease.ends_at), lease.run_id, lease.node_id, lease.model))
    usable_in = {
        (model, number): usable for number, node in enumerate(fleet) for model, usable in node.accelerators
    }
    for lease in held:
        if lease.node_id not in node_of:
            raise ValueError(
                f"run {lease.run_id} holds a lease on {lease.node_id}, which is not in the fleet"
            )
        usable_in.setdefault((lease.model, node_of[lease.node_id]), 0)
    bays = sorted(usable_in.items())
    bay_of = {bay: number for number, (bay, _) in enumerate(bays)}
    model_names = tuple(model for (model, _), _ in bays)
    tenants = {
        tenant: code
        for code, tenant in enumerate(
            sorted({lease.tenant_id for lease in held} | {run.demand.tenant_id for run in everybody})
        )
    }
    sites = {site: code for code, site in enumerate(sorted({node.site for node in fleet}))}
    countries = {name: code for code, name in enumerate(sorted({node.country for node in fleet}))}
    total = Capacity(
        accelerators=_ints(usable for _, usable in bays),
        memory_mib=_ints(node.memory_mib for node in fleet),
        disk_mib=_ints(node.disk_mib for node in fleet),
        cpu_milli=_ints(node.cpu_milli for node in fleet),
        tenant=np.full(len(fleet), NOBODY, dtype=np.int64),
    )

    def holdings(rows: Sequence[LeaseRow]) -> Holdings:
        return Holdings(
            bay=_ints(bay_of[lease.model, node_of[lease.node_id]] for lease in rows),
            node=_ints(node_of[lease.node_id] for lease in rows),
            count=_ints(lease.count for lease in rows),
            memory_mib=_ints(lease.memory_mib for lease in rows),
            disk_mib=_ints(lease.disk_mib for lease in rows),
            cpu_milli=_ints(lease.cpu_milli for lease in rows),
            tenant=_ints(tenants[lease.tenant_id] for lease in rows),
            ends_us=_ints(micros(lease.ends_at) for lease in rows),
        )

    firm = holdings([lease for lease in held if not lease.yields])
    giving_way = [lease for lease in held if lease.yields]
    free = less(total, firm)
    all_shared = all(node.isolation != "none" for node in fleet)
    codes: dict[tuple[object, ...], int] = {}
    models_of: list[frozenset[str]] = []
    for run in queue:
        alike = _alike(run.demand, all_shared)
        if alike not in codes:
            codes[alike] = len(codes)
            models_of.append(frozenset(run.demand.models))
    likeness = tuple(codes[_alike(run.demand, all_shared)] for run in queue)
    columns = Snapshot(
        node_ids=tuple(node.node_id for node in fleet),
        site=_ints(sites[node.site] for node in fleet),
        country=_ints(countries[node.country] for node in fleet),
        ready=np.array([node.state == "ready" for node in fleet], dtype=np.bool_),
        standing=np.array([node.state in ("ready", "cordoned", *UNTRIED) for node in fleet], dtype=np.bool_),
        testable=np.array([node.state in ("ready", *UNTRIED) for node in fleet], dtype=np.bool_),
        shared=np.array([node.isolation != "none" for node in fleet], dtype=np.bool_),
        all_shared=all_shared,
        container=np.array([node.has_container_runtime for node in fleet], dtype=np.bool_),
        bay_node=_ints(number for (_, number), _ in bays),
        bay_span=_spans(model_names),
        bay_model=model_names,
        total=total,
        free=free,
        leases=firm,
        beside=less(total, holdings(held)) if giving_way else free,
        yielding=holdings(giving_way),
        yielding_runs=tuple(lease.run_id for lease in giving_way),
        waiting=queue,
        waiting_pinned=pinned,
        likeness=likeness,
        models_of=tuple(models_of),
        sites=sites,
        countries=countries,
        tenants=tenants,
    )
    _freeze(columns)
    return columns


def less(total: Capacity, held: Holdings) -> Capacity:
    """What `held` leaves of `total`; never below nothing."""
    bays, nodes = len(total.accelerators), len(total.memory_mib)
    tenant = np.full(nodes, NOBODY, dtype=np.int64)
    tenant[held.node] = held.tenant
    tenant[held.node[tenant[held.node] != held.tenant]] = SEVERAL
    return Capacity(
        accelerators=np.maximum(total.accelerators - _summed(held.bay, held.count, bays), 0),
        memory_mib=np.maximum(total.memory_mib - _summed(held.node, held.memory_mib, nodes), 0),
        disk_mib=np.maximum(total.disk_mib - _summed(held.node, held.disk_mib, nodes), 0),
        cpu_milli=np.maximum(total.cpu_milli - _summed(held.node, held.cpu_milli, nodes), 0),
        tenant=tenant,
    )


def _alike(demand: Demand, all_shared: bool) -> tuple[object, ...]:
    """Everything of a demand that decides whether it fits at one instant."""
    return (
        None if all_shared else demand.tenant_id,
        demand.node_count,
        demand.asks,
        demand.memory_mib,
        demand.disk_mib,
        demand.cpu_milli,
        demand.sites,
        demand.residency,
        demand.needs_container,
    )


def _summed(where: Ints, amount: Ints, size: int) -> Ints:
    # Floats hold whole numbers exactly up to 2**53, far above any sum of MiB here.
    return np.bincount(where, weights=amount, minlength=size).astype(np.int64)


def _ints(numbers: Iterable[int]) -> Ints:
    return np.fromiter(numbers, dtype=np.int64)


def _spans(models: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    edges = [number for number, model in enumerate(models) if number == 0 or models[number - 1] != model]
    return {models[start]: (start, end) for start, end in pairwise([*edges, len(models)])}


def _freeze(columns: Snapshot) -> None:
    parts = (columns.total, columns.free, columns.beside, columns.leases, columns.yielding)
    for owner in (columns, *parts):
        for name in owner.__slots__:
            value = getattr(owner, name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
