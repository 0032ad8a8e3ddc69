"""Routes of queues: who may use how much of the fleet, what they hold and had, and what an operator says of them."""

from typing import Annotated

from fastapi import APIRouter, Depends

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.scheduling.queues.setting import Setting
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed, may


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/queues")
    async def queues(holder: Annotated[Holder, Depends(gate.admitted)]) -> wire.Page:
        """Queues for everybody, and the asker's own."""
        rows = await doors.queues.queues(scope_of(holder), shared_alone=_is_onlooker(holder))
        return wire.Page(items=[wire.NamedQueueView.model_validate(row) for row in rows])

    @router.get("/queues/{name}")
    async def queue(name: str, holder: Annotated[Holder, Depends(gate.admitted)]) -> wire.NamedQueueView:
        row = await doors.queues.queue(scope_of(holder), name, shared_alone=_is_onlooker(holder))
        return wire.NamedQueueView.model_validate(row)

    @router.put("/queues/{name}")
    async def set_queue(
        name: str, body: wire.QueueSetting, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.NamedQueueView:
        """Make a queue or change it: what the body leaves out stays as it is."""
        try:
            setting = Setting(**body.model_dump())
        except ValueError as wrong:
            raise Refused(str(wrong)) from wrong
        await doors.queues.set(name, setting, actor=holder.name)
        return wire.NamedQueueView.model_validate(await doors.queues.queue(scope_of(holder), name))

    @router.delete("/queues/{name}", status_code=204)
    async def remove_queue(name: str, holder: Holder = gate.allowed(Deed.STEER_FLEET)) -> None:
        await doors.queues.remove(name, actor=holder.name)

    return router


def _is_onlooker(holder: Holder) -> bool:
    """Who may not see tenants' runs sees none of their queues either."""
    return not may(holder.role, Deed.SEE_RUNS)
