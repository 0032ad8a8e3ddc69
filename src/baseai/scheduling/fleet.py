"""A fleet is the nodes of a snapshot as a hall: which row is whose, and what each row has when nothing is on it.

Invariant: made from node rows alone, or from these and what is leased, so that more may be leased on a node than is
usable there (an accelerator has failed since) and nothing is free then, rather than less. Nobody changes a fleet but by
placing on its hall.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from baseai.scheduling.gang import WHOLE, Gang, Shape, Terms
from baseai.scheduling.hall import NOBODY, Bay, Bools, Hall
from baseai.scheduling.outlook import Free, installed
from baseai.scheduling.power import watts_of
from baseai.scheduling.queue_tree import leaf_of
from baseai.scheduling.snapshot import UNTRIED, LeaseRow, NodeRow, WaitingRun, seconds
from baseai.workloads.demand import Demand

STANDS = ("ready", "cordoned", *UNTRIED)  # ready, or able to be ready again


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """Node rows as a hall. `standing` and `testable` are columns over its rows, as `Hall.ready` is."""

    nodes: tuple[NodeRow, ...]
    hall: Hall
    row_of: Mapping[tuple[str, str], int]  # (node, model)
    watts: Mapping[str, int]  # of one accelerator of each model at work
    is_stretched: bool  # some node has more than is usable, because more is leased
    _empty: dict[tuple[str, ...], Free] = field(default_factory=dict)  # once somebody has asked

    @property
    def all_shared(self) -> bool:
        return self.hall.all_shared

    def rows_in(self, states: Sequence[str]) -> Bools:
        """Rows whose node is in one of these states of its lifecycle."""
        within = {node.node_id for node in self.nodes if node.state in states}
        return np.array([node_id in within for node_id in self.hall.node_ids], dtype=np.bool_)

    def when_empty(self, states: tuple[str, ...]) -> Free:
        """What the nodes in these states have with nothing on them. The same columns each time, only to be read."""
        if states not in self._empty:
            nobody = np.full(len(self.hall), NOBODY, dtype=np.int64)
            self._empty[states] = Free(installed(self.hall), nobody, self.rows_in(states))
        return self._empty[states]

    def shapes_of(self, demand: Demand) -> tuple[Shape, ...]:
        """One for each way in which the demand can be satisfied, the preferred first."""
        return shapes_of(demand, self.watts, told_apart=not self.all_shared)


def fleet_of(nodes: Iterable[NodeRow], watts: Mapping[str, int], leases: Iterable[LeaseRow] = ()) -> Fleet:
    """The hall of these nodes with nothing on it, large enough for these leases. Nodes are ready by their state."""
    rows = tuple(nodes)
    held: dict[tuple[str, str], int] = {}
    beside: dict[str, list[int]] = {}
    for lease in leases:
        key = (lease.node_id, lease.model)
        held[key] = held.get(key, 0) + lease.count
        sums = beside.setdefault(lease.node_id, [0, 0, 0])
        for place, amount in enumerate((lease.cpu_milli, lease.memory_mib, lease.disk_mib)):
            sums[place] += amount
    models: dict[str, list[str]] = {}
    for node_id, model in held:
        models.setdefault(node_id, []).append(model)
    bays, is_stretched = [], False
    for node in rows:
        usable = dict(node.accelerators)
        cpu_milli, memory_mib, disk_mib = beside.get(node.node_id, (0, 0, 0))
        is_stretched |= cpu_milli > node.cpu_milli or memory_mib > node.memory_mib or disk_mib > node.disk_mib
        for model in dict.fromkeys([*usable, *models.get(node.node_id, ())]) or {"": None}:
            is_stretched |= held.get((node.node_id, model), 0) > usable.get(model, 0)
            bays.append(
                Bay(
                    node_id=node.node_id,
                    model=model,
                    devices=max(usable.get(model, 0), held.get((node.node_id, model), 0)),
                    cpu_milli=max(node.cpu_milli, cpu_milli),
                    memory_mib=max(node.memory_mib, memory_mib),
                    disk_mib=max(node.disk_mib, disk_mib),
                    watts=node.watts,
                    rack=node.rack,
                    site=node.site,
                    country=node.country,
                    leaf=node.leaf,
                    pod=node.pod,
                    shared=node.isolation != "none",
                    container=node.has_container_runtime,
                )
            )
    hall = Hall(bays)
    row_of = {(bay.node_id, bay.model): row for row, bay in enumerate(hall.bays)}
    fleet = Fleet(rows, hall, row_of, watts, is_stretched)
    hall.open_rows(fleet.rows_in(("ready",)))
    return fleet


def shapes_of(demand: Demand, watts: Mapping[str, int], *, told_apart: bool) -> tuple[Shape, ...]:
    """told_apart: whose run it is decides where it may go, because some node cannot keep tenants apart."""
    topology = demand.topology
    return tuple(
        Shape(
            pods=demand.node_count,
            milli=ask.count * WHOLE,
            cpu_milli=demand.cpu_milli,
            memory_mib=demand.memory_mib,
            disk_mib=demand.disk_mib,
            watts=watts_of(ask.models, ask.count, watts),
            models=ask.models,
            sites=demand.sites,
            residency=demand.residency,
            one_model=True,
            apart=demand.node_count > 1,
            tenant=demand.tenant_id if told_apart else "",
            container=demand.needs_container,
            reach=topology.required or "" if topology else "",
            near=topology.preferred or "" if topology else "",
        )
        for ask in demand.asks
    )


def gang_of(run: WaitingRun, number: int, shapes: tuple[Shape, ...], worth: Mapping[str, float]) -> Gang:
    """The run as a policy sees it, on the clock of seconds since 1970."""
    demand, submit_s = run.demand, seconds(run.enqueued_at)
    deadline_s = None
    if demand.deadline is not None:
        deadline_s = demand.deadline.due_s(submit_s)
    return Gang(
        run_id=demand.run_id,
        number=number,
        shape=shapes[0],
        others=shapes[1:],
        submit_s=submit_s,
        group=demand.tenant_id,
        terms=Terms(
            queue=leaf_of(demand.tenant_id, demand.queue),
            owner=demand.tenant_id,
            priority=demand.priority,
            lasts_most_s=float(demand.max_duration_s),
            deadline_s=deadline_s,
            min_runtime_s=float(demand.min_runtime_s),
            spot=demand.spot,
            reservation=demand.reservation or "",
            margin=max((worth.get(model, 0.0) for model in demand.models), default=0.0),
        ),
    )
