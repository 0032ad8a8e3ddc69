"""A placement is the choice of nodes for one gang out of what is free at one instant.

Invariant: a gang is placed whole, on different nodes, with one accelerator model, or not at all; equal capacity
gives equal choices. Reads columns and changes none; `take` is the only function here that writes, and it writes
only to the capacity the caller gives it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from baseai.scheduling.snapshot import NOBODY, SEVERAL, Bools, Capacity, Ints, Snapshot
from baseai.workloads.demand import Demand


class Constraint(StrEnum):
    """What a node can fail, in the order in which nodes are considered: each counts for its first failure."""

    STATE = "state"
    SITE = "site"
    MODEL = "model"
    ACCELERATORS = "accelerators"
    MEMORY = "memory"
    DISK = "disk"
    CPU = "cpu"
    TENANT = "tenant"
    CONTAINER = "container"
    NODES = "nodes"  # none fails alone, but a gang needs more of them with one and the same model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Where one gang goes: bay numbers, in the order of their nodes, and what it takes of each."""

    bays: Ints
    nodes: Ints
    model: str
    count: int  # accelerators on each node


def options(demand: Demand) -> Iterator[tuple[str, int]]:
    """(model, accelerators per node), the preferred first."""
    for ask in demand.asks:
        for model in ask.models:
            yield model, ask.count


def place(
    demand: Demand,
    snapshot: Snapshot,
    free: Capacity,
    also: Sequence[Capacity],
    *,
    usable: Bools,
    allowed: Bools | None = None,
) -> Placement | None:
    """Choose the nodes of one gang, or None where it does not fit as a whole.

    free: what is free now; the tightest fit in it wins, then the lowest node id.
    also: capacities at later instants that the gang must fit into as well, because it will still be running.
    usable: per node, whether it may be used at all (`snapshot.ready`, as a rule).
    allowed: what `permitted` says of demand and usable, where the caller has asked before.
    The first of the demand's options that fits is taken. O(bays of the models asked for).
    """
    for model, count in options(demand):
        span = snapshot.bay_span.get(model)
        if span is None:
            continue
        bays = slice(*span)
        counts = free.accelerators[bays]
        fits = counts >= count
        if np.count_nonzero(fits) < demand.node_count:
            continue
        if allowed is None:
            allowed = permitted(demand, snapshot, usable)
        nodes = snapshot.bay_node[bays]
        fits &= allowed[nodes]
        for capacity in (free, *also):
            fits &= _holds(demand, count, snapshot, capacity, bays, nodes)
        found = np.flatnonzero(fits)
        if len(found) < demand.node_count:
            continue
        if demand.node_count == 1:
            chosen = found[np.argmin(counts[found])][np.newaxis]
        else:
            chosen = np.sort(found[np.argsort(counts[found], kind="stable")[: demand.node_count]])
        return Placement(bays=chosen + span[0], nodes=nodes[chosen], model=model, count=count)
    return None


def permitted(demand: Demand, snapshot: Snapshot, usable: Bools) -> Bools:
    """Nodes that state, site and container runtime permit, whatever is free on them."""
    allowed = usable & on_site(demand, snapshot)
    if demand.needs_container:
        allowed &= snapshot.container
    return allowed


def on_site(demand: Demand, snapshot: Snapshot) -> Bools:
    """Nodes where the run may be and its data may lie."""
    allowed = np.ones(len(snapshot.node_ids), dtype=np.bool_)
    if demand.sites:
        allowed &= np.isin(snapshot.site, _codes(demand.sites, snapshot.sites))
    if demand.residency:
        allowed &= np.isin(snapshot.site, _codes(demand.residency, snapshot.sites)) | np.isin(
            snapshot.country, _codes(demand.residency, snapshot.countries)
        )
    return allowed


def tenant_may_join(demand: Demand, snapshot: Snapshot, tenant: Ints, shared: Bools) -> Bools:
    """Where isolation or the tenants already there let this one in. Columns of the same nodes."""
    own = snapshot.tenants.get(demand.tenant_id, SEVERAL - 1)
    joins: Bools = shared | (tenant == NOBODY) | (tenant == own)
    return joins


def take(placement: Placement, demand: Demand, snapshot: Snapshot, capacity: Capacity) -> None:
    """Subtract the gang from `capacity`, in place."""
    own = snapshot.tenants[demand.tenant_id]
    capacity.accelerators[placement.bays] -= placement.count
    capacity.memory_mib[placement.nodes] -= demand.memory_mib
    capacity.disk_mib[placement.nodes] -= demand.disk_mib
    capacity.cpu_milli[placement.nodes] -= demand.cpu_milli
    there = capacity.tenant[placement.nodes]
    capacity.tenant[placement.nodes] = np.where((there == NOBODY) | (there == own), own, SEVERAL)


def _holds(
    demand: Demand, count: int, snapshot: Snapshot, capacity: Capacity, bays: slice, nodes: Ints
) -> Bools:
    holds: Bools = capacity.accelerators[bays] >= count
    if demand.memory_mib:
        holds &= capacity.memory_mib[nodes] >= demand.memory_mib
    if demand.disk_mib:
        holds &= capacity.disk_mib[nodes] >= demand.disk_mib
    if demand.cpu_milli:
        holds &= capacity.cpu_milli[nodes] >= demand.cpu_milli
    if not snapshot.all_shared:
        holds &= tenant_may_join(demand, snapshot, capacity.tenant[nodes], snapshot.shared[nodes])
    return holds


def _codes(names: Sequence[str], known: dict[str, int]) -> list[int]:
    return [known[name] for name in names if name in known]
