"""Fragmentation is capacity that is free in sum and in no place: somebody waits who would fit the free total.

Invariant: a verdict is about one instant, and says nothing of runs that wait for another reason: behind a booking, at
a limit, or for more than is free. Pure; who reads the verdict (the time ledger does, from its table) is no matter here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from baseai.scheduling.place import options, permitted, place
from baseai.scheduling.plan import Plan, WaitKind
from baseai.scheduling.snapshot import Ints, Snapshot
from baseai.workloads.demand import Demand


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pool:
    """The accelerators of one model at one site."""

    model: str
    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One way in which a waiting run could be served: so many accelerators on each of so many nodes."""

    models: tuple[str, ...]  # any of these, one for all its nodes
    count: int  # on each node
    node_count: int
    sites: tuple[str, ...] = ()  # empty means anywhere


def fragmented_models(free: Mapping[Pool, Sequence[int]], wants: Iterable[Want]) -> frozenset[Pool]:
    """Pools with free accelerators that in sum would serve a want, which no choice of nodes can.

    free: accelerators free on each node of the pool. One site's nodes may serve a want together with another's.
    A want that one of its models can serve fragments none of them: it will start.
    """
    fragmented: set[Pool] = set()
    for want in wants:
        short: set[Pool] = set()
        for model in want.models:
            pools = {
                pool: counts
                for pool, counts in free.items()
                if pool.model == model and (not want.sites or pool.site in want.sites)
            }
            every = [count for counts in pools.values() for count in counts]
            if sum(count >= want.count for count in every) >= want.node_count:
                short.clear()
                break
            if sum(every) >= want.count * want.node_count:
                short.update(pool for pool, counts in pools.items() if sum(counts) > 0)
        fragmented |= short
    return frozenset(fragmented)


def fragmented_in(snapshot: Snapshot, plan: Plan) -> frozenset[Pool]:
    """The same of a whole cycle: what `plan`'s grants leave of `snapshot`, and who waits because too few nodes fit.

    Here no placement exists by every constraint, memory and tenants among them, and what a node that the run may
    not be on has free is not counted. O(different demands that wait x bays).
    """
    short = {wait.run_id for wait in plan.waits if wait.kind is WaitKind.SHORT}
    if not short:
        return frozenset()
    free = snapshot.free.copy()
    node_no = {node_id: number for number, node_id in enumerate(snapshot.node_ids)}
    granted = {run.demand.run_id: run.demand for run in snapshot.waiting}
    for grant in plan.grants:
        demand = granted.get(grant.run_id)
        if demand is None:
            continue  # it yields, and holds nothing to others
        for node_id, model, count in grant.places:
            node = node_no[node_id]
            start, end = snapshot.bay_span[model]
            bay = start + int(np.flatnonzero(snapshot.bay_node[start:end] == node)[0])
            free.accelerators[bay] -= count
            free.memory_mib[node] -= demand.memory_mib
            free.disk_mib[node] -= demand.disk_mib
            free.cpu_milli[node] -= demand.cpu_milli
            free.tenant[node] = snapshot.tenants[demand.tenant_id]
    fragmented: set[Pool] = set()
    seen: set[int] = set()
    for run, likeness in zip(snapshot.waiting, snapshot.likeness, strict=True):
        if run.demand.run_id not in short or likeness in seen:
            continue
        seen.add(likeness)
        if place(run.demand, snapshot, free, (), usable=snapshot.ready) is None:
            fragmented |= _short_pools(run.demand, snapshot, free.accelerators)
    return frozenset(fragmented)


def _short_pools(demand: Demand, snapshot: Snapshot, free: Ints) -> set[Pool]:
    sites = {code: site for site, code in snapshot.sites.items()}
    allowed = permitted(demand, snapshot, snapshot.ready)
    pools: set[Pool] = set()
    for model, count in options(demand):
        start, end = snapshot.bay_span.get(model, (0, 0))
        nodes = snapshot.bay_node[start:end]
        counts = np.where(allowed[nodes], free[start:end], 0)
        if counts.sum() >= count * demand.node_count:
            pools |= {
                Pool(model=model, site=sites[int(code)])
                for code in np.unique(snapshot.site[nodes[counts > 0]])
            }
    return pools
