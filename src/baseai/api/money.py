"""Routes of money and history: what things earned and cost, the events."""

from fastapi import APIRouter

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/cost")
    async def cost(
        by: str = "run", subject: str | None = None, holder: Holder = gate.allowed(Deed.SEE_MONEY)
    ) -> dict[str, list[wire.CostView]]:
        if by not in ("run", "node", "accelerator", "tenant"):
            raise Refused(f"cost is told by run, node, accelerator or tenant, not by {by}")
        scope = scope_of(holder)
        if subject is not None and by == "run":
            subject = (await doors.runs.find(scope, subject))["run_id"]
        return {"items": [wire.CostView(**row) for row in await doors.money.cost(by, subject, scope)]}

    @router.get("/events")
    async def events(
        subject: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
    ) -> wire.Page:
        rows, more = await doors.views.events(scope_of(holder), subject=subject, limit=limit, cursor=cursor)
        return wire.Page(items=[wire.EventView(**row) for row in rows], next=more)

    return router
