"""Routes of health: what stands against nodes, what is being done about it, and a person's word on both."""

from typing import Any

from fastapi import APIRouter

from baseai.api import schemas as wire
from baseai.api.doors import Doors, HealthDoor
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import NotFound
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/fleet/health")
    async def nodes(everything: bool = False, holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> wire.Page:
        """Every node with something to tell; with `everything` the others too."""
        found = await _health(doors).nodes_health(scope_of(holder))
        return wire.Page(
            items=[
                wire.NodeHealth(**row)
                for row in found
                if everything or row["health"] != "healthy" or row["evidence"] or row["repairs"]
            ]
        )

    @router.get("/nodes/{name}/health")
    async def node(name: str, holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> wire.NodeHealth:
        return wire.NodeHealth(**await _health(doors).health_of(scope_of(holder), name))

    @router.post("/nodes/{name}/health/clear")
    async def clear(
        name: str,
        body: wire.Clearing | None = None,
        holder: Holder = gate.allowed(Deed.STEER_FLEET),
    ) -> dict[str, Any]:
        """Your word that evidence no longer holds: one piece of it, or all that stands against the node."""
        said = body or wire.Clearing()
        cleared = await _health(doors).clear(
            name, actor=holder.name, reason=said.reason, evidence_id=said.evidence_id
        )
        return {"cleared": cleared}

    @router.post("/evidence/{evidence_id}/acknowledge")
    async def acknowledge(
        evidence_id: str, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.EvidenceView:
        """Your word that you see to it: it asks for nothing by itself any more."""
        return wire.EvidenceView(**await _health(doors).acknowledge(evidence_id, actor=holder.name))

    @router.get("/repairs")
    async def repairs(everything: bool = False, holder: Holder = gate.allowed(Deed.SEE_FLEET)) -> wire.Page:
        """Open repairs, oldest first; with `everything` those of the last 30 days too."""
        found = await _health(doors).repairs(scope_of(holder), everything=everything)
        return wire.Page(items=[wire.RepairView(**row) for row in found])

    @router.post("/repairs/{repair_id}/{verb}")
    async def settle(
        repair_id: str,
        verb: str,
        body: wire.Why | None = None,
        holder: Holder = gate.allowed(Deed.STEER_FLEET),
    ) -> wire.RepairView:
        """A person's word on a repair: approve, done, failed or dismiss."""
        reason = body.reason if body else None
        row = await _health(doors).settle_repair(repair_id, verb, actor=holder.name, reason=reason)
        return wire.RepairView(**row)

    return router


def _health(doors: Doors) -> HealthDoor:
    if doors.fleet_health is None:
        raise NotFound("health", "of nodes: this platform judges none")
    return doors.fleet_health
