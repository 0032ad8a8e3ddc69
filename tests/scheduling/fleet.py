"""Builders for the tests of scheduling: a fleet, its leases and a queue in few words. Times are in hours."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.plan import Change, Grant, Lever, Plan, Wait
from baseai.scheduling.snapshot import LeaseRow, NodeRow, Snapshot, WaitingRun, snapshot_of
from baseai.workloads.demand import Ask, Demand

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
H100 = "H100-SXM"


def node(name: str, count: int = 8, **other: Any) -> NodeRow:
    """A ready node with `count` H100 that keeps tenants apart; `accelerators` replaces them."""
    usual: dict[str, Any] = {
        "node_id": NodeId(name),
        "site": "SP4",
        "country": "BR",
        "state": "ready",
        "isolation": "user",
        "has_container_runtime": False,
        "memory_mib": 1024 << 10,
        "disk_mib": 4096 << 10,
        "cpu_milli": 96_000,
        "accelerators": ((H100, count),),
    }
    return NodeRow(**(usual | other))


def gang(nodes: int = 1, count: int = 1, *, run: str = "run", hours: float = 1, **other: Any) -> Demand:
    """A run of `nodes` times `count` H100; `models` or `asks` replaces them."""
    models = other.pop("models", (H100,))
    usual: dict[str, Any] = {
        "run_id": RunId(run),
        "tenant_id": TenantId("acme"),
        "node_count": nodes,
        "asks": (Ask(models=models, count=count),),
        "memory_mib": 0,
        "disk_mib": 0,
        "cpu_milli": 0,
        "sites": (),
        "residency": (),
        "max_duration_s": round(hours * 3600),
        "priority": 50,
        "needs_container": False,
    }
    return Demand(**(usual | other))


def lease(on: str, count: int, *, hours: float, run: str = "busy", **other: Any) -> LeaseRow:
    """A lease on H100 that ends `hours` after noon."""
    usual: dict[str, Any] = {
        "run_id": RunId(run),
        "tenant_id": TenantId("acme"),
        "node_id": NodeId(on),
        "model": H100,
        "count": count,
        "memory_mib": 0,
        "disk_mib": 0,
        "cpu_milli": 0,
        "ends_at": at(hours),
    }
    return LeaseRow(**(usual | other))


def at(hours: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(hours=hours)


def snapshot(
    nodes: Sequence[NodeRow], leases: Sequence[LeaseRow] = (), queue: Sequence[Demand | WaitingRun] = ()
) -> Snapshot:
    """A snapshot whose queue was submitted in the order given, a second apart."""
    waiting = [
        run
        if isinstance(run, WaitingRun)
        else WaitingRun(demand=run, enqueued_at=at(-1) + timedelta(seconds=second))
        for second, run in enumerate(queue)
    ]
    return snapshot_of(nodes, leases, waiting)


def places(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Run to the nodes it was granted."""
    return {grant.run_id: tuple(node_id for node_id, _, _ in grant.places) for grant in plan.grants}


def wait_of(plan: Plan, run: str) -> Wait:
    """The wait of one run."""
    return next(wait for wait in plan.waits if wait.run_id == run)


def leases_of(grant: Grant, demand: Demand) -> list[LeaseRow]:
    """What the database would hold once a grant is written."""
    return [
        LeaseRow(
            run_id=grant.run_id,
            tenant_id=demand.tenant_id,
            node_id=node_id,
            model=model,
            count=count,
            memory_mib=demand.memory_mib,
            disk_mib=demand.disk_mib,
            cpu_milli=demand.cpu_milli,
            ends_at=grant.ends_at,
        )
        for node_id, model, count in grant.places
    ]


def changed(demand: Demand, change: Change) -> Demand:
    """The demand of a tenant who took the advice."""
    count = min(ask.count for ask in demand.asks)
    match change.lever, change.instead:
        case Lever.ACCELERATORS, int(fewer):
            return replace(demand, asks=(Ask(models=demand.models, count=fewer),))
        case Lever.MODEL, str(model):
            return replace(demand, asks=(Ask(models=(model,), count=count),))
        case Lever.NODES, int(nodes):
            return replace(demand, node_count=nodes)
        case Lever.MEMORY, int(mib):
            return replace(demand, memory_mib=mib)
        case Lever.DISK, int(mib):
            return replace(demand, disk_mib=mib)
        case Lever.CPU, int(milli):
            return replace(demand, cpu_milli=milli)
        case Lever.DURATION, int(shorter_s):
            return replace(demand, max_duration_s=shorter_s)
        case Lever.SITE, _:
            return replace(demand, sites=())
    raise AssertionError(change)
