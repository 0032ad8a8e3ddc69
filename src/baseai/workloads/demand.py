"""A demand is what a run needs of the fleet before it can start, in the scheduler's own words.

Invariant: a demand is complete: the scheduler never reads a spec, and two runs with equal demands (ids aside)
are treated alike. Made from a spec by `demand_of` when a run is submitted; nothing changes it afterwards.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from baseai.ground.fault import Fault
from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.workloads.burn import BurnIn
from baseai.workloads.spec import DEFAULT_QUEUE, AcceleratorAsk, Deadline, RunSpec, Topology

CPU_SLOT = "cpu-slot"  # the accelerator model that a core left beside the accelerators is leased as

ModelsMatching = Callable[[str | None, range | None], tuple[str, ...]]
"""Catalogue models for a name as people write it (None for any but the CPU slot) and whole GiB of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One way to satisfy a demand: so many whole accelerators of one of these models on each node."""

    models: tuple[str, ...]  # catalogue ids, the preferred first; a gang has one model throughout
    count: int  # on each node

    def __post_init__(self) -> None:
        if self.count < 1 or not self.models:
            raise ValueError(f"{self.count} of {self.models} asks for nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one run needs on each of `node_count` different nodes, all at once or not at all."""

    run_id: RunId
    tenant_id: TenantId
    node_count: int
    asks: tuple[Ask, ...]  # in order of preference: the first that can start now is taken
    memory_mib: int  # host memory on each node; 0 asks for none in particular
    disk_mib: int  # on each node; 0 likewise
    cpu_milli: int  # thousandths of a host core beside the accelerators; 0 where cores are the accelerators
    sites: tuple[str, ...]  # any of these; empty means anywhere
    residency: tuple[str, ...]  # sites or country codes that data may not leave; empty means anywhere
    max_duration_s: int
    priority: int  # 0 to 100, the higher the sooner
    needs_container: bool
    pinned: NodeId | None = None  # the one node it may be on; it takes that node before it is ready as well
    yields: bool = False  # to every other run, at once: what it holds counts as free to them
    queue: str = DEFAULT_QUEUE
    spot: bool = False  # gives way to every run that is not
    min_runtime_s: int = 0  # of each start, before it may be preempted
    deadline: Deadline | None = None
    reservation: str | None = None
    topology: Topology | None = None

    def __post_init__(self) -> None:
        if self.node_count < 1 or not self.asks:
            raise ValueError(f"{self.run_id} asks for nothing")
        if min(self.memory_mib, self.disk_mib, self.cpu_milli) < 0 or self.max_duration_s < 1:
            raise ValueError(f"{self.run_id} asks for a negative amount")

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that would do, the preferred first."""
        return tuple(dict.fromkeys(model for ask in self.asks for model in ask.models))

    @property
    def accelerators_per_node(self) -> int:
        """What the preferred ask leases on each node."""
        return self.asks[0].count


class UnknownAccelerator(Fault):
    """No model of the catalogue answers to what the spec calls it."""

    def __init__(self, written: str) -> None:
        super().__init__(written)
        self.written = written

    def __str__(self) -> str:
        return f"no accelerator model answers to gpu: {self.written}; see `baseai catalog` for the names"


def demand_of(spec: RunSpec, run_id: RunId, tenant_id: TenantId, models_matching: ModelsMatching) -> Demand:
    """What `spec` asks of the fleet. Raises UnknownAccelerator where the catalogue has no such model."""
    resources = spec.resources
    cores = resources.cpu
    burn_in = spec.work if isinstance(spec.work, BurnIn) else None
    if burn_in is not None:
        asks: tuple[Ask, ...] = (Ask(models=(burn_in.model,), count=burn_in.accelerators),)
        cpu_milli = 0
    elif resources.gpu:
        asks = tuple(ask for written in resources.gpu for ask in _asks_of(written, models_matching))
        cpu_milli = 0 if cores is None else round(cores.least * 1000)
    else:
        least, most = (1, 1) if cores is None else (math.ceil(cores.least), math.ceil(cores.most))
        asks = tuple(Ask(models=(CPU_SLOT,), count=count) for count in range(most, least - 1, -1))
        cpu_milli = 0
    return Demand(
        run_id=run_id,
        tenant_id=tenant_id,
        node_count=spec.nodes,
        asks=asks,
        memory_mib=resources.memory_mib or 0,
        disk_mib=resources.disk_mib or 0,
        cpu_milli=cpu_milli,
        sites=() if spec.site is None else (spec.site,),
        residency=spec.data_residency,
        max_duration_s=spec.max_duration_s,
        priority=spec.priority,
        needs_container=spec.image is not None,
        pinned=None if burn_in is None else burn_in.node_id,
        yields=burn_in is not None,
        queue=spec.queue,
        spot=spec.spot,
        min_runtime_s=spec.min_runtime_s,
        deadline=spec.deadline,
        reservation=spec.reservation,
        topology=spec.topology,
    )


def _asks_of(written: AcceleratorAsk, models_matching: ModelsMatching) -> tuple[Ask, ...]:
    if written.name == CPU_SLOT:
        models: tuple[str, ...] = (CPU_SLOT,)
    else:
        memory = None
        if written.memory_gib_least is not None or written.memory_gib_most is not None:
            memory = range(written.memory_gib_least or 0, (written.memory_gib_most or 1 << 20) + 1)
        models = models_matching(written.name, memory)
    if not models:
        raise UnknownAccelerator(written.text)
    return tuple(
        Ask(models=tuple(models), count=count)
        for count in range(written.count_most, written.count_least - 1, -1)
    )
