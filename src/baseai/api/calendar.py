"""Routes of the calendar: capacity reserved ahead, maintenance that is planned, runs that go on longer."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.ground.quantity import duration_s
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed

Limit = Annotated[int, Query(ge=1, le=500)]


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.get("/reservations")
    async def reservations(
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
        all: bool = False,  # noqa: A002 - the name people type
        limit: Limit = 100,
        cursor: str | None = None,
    ) -> wire.Page:
        """A tenant's own, or everybody's: those that stand, and with `all` those that are over."""
        rows, more = await doors.reservations.all(
            scope_of(holder), everything=all, limit=limit, cursor=cursor
        )
        return wire.Page(items=[wire.ReservationView.model_validate(row) for row in rows], next=more)

    @router.post("/reservations", status_code=201, response_model=wire.ReservationView)
    async def reserve(
        request: Request, body: wire.NewReservation, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)
    ) -> Response:
        """Have capacity promised. Where too little is left, the answer says how much, and what would do."""
        scope = scope_of(holder)

        async def make() -> wire.ReservationView:
            project = await doors.tenancy.project(scope, holder.tenant_id or body.tenant, body.project)
            row = await doors.reservations.reserve(
                scope,
                project,
                name=body.name,
                gpu=body.gpu,
                nodes=body.nodes,
                site=body.site,
                from_at=body.from_at,
                until_at=body.until_at,
                take_or_pay=body.take_or_pay,
                forfeit_after_s=None if body.forfeit_after is None else seconds(body.forfeit_after),
            )
            return wire.ReservationView.model_validate(row)

        return await gate.once(request, holder, 201, make)

    @router.get("/reservations/{name}")
    async def reservation(name: str, holder: Holder = gate.allowed(Deed.SEE_RUNS)) -> wire.ReservationView:
        return wire.ReservationView.model_validate(await doors.reservations.find(scope_of(holder), name))

    @router.post("/reservations/{name}/cancel")
    async def cancel(name: str, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)) -> wire.ReservationView:
        """Give back what is held. Runs that stand on it go on."""
        return wire.ReservationView.model_validate(await doors.reservations.cancel(scope_of(holder), name))

    @router.get("/maintenances")
    async def maintenances(
        holder: Holder = gate.allowed(Deed.SEE_FLEET),
        all: bool = False,  # noqa: A002 - the name people type
        limit: Limit = 100,
        cursor: str | None = None,
    ) -> wire.Page:
        rows, more = await doors.windows.all(everything=all, limit=limit, cursor=cursor)
        return wire.Page(items=[wire.MaintenanceView.model_validate(row) for row in rows], next=more)

    @router.post("/maintenances", status_code=201, response_model=wire.MaintenanceView)
    async def plan(
        request: Request, body: wire.NewMaintenance, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> Response:
        """Plan a time in which nodes are out of service. What runs there then is asked in time to save and leave."""

        async def make() -> wire.MaintenanceView:
            row = await doors.windows.plan(
                nodes=body.nodes,
                site=body.site,
                from_at=body.from_at,
                until_at=body.until_at,
                why=body.why,
                notice_s=None if body.notice is None else seconds(body.notice),
                actor=holder.name,
            )
            return wire.MaintenanceView.model_validate(row)

        return await gate.once(request, holder, 201, make)

    @router.get("/maintenances/{maintenance_id}")
    async def maintenance(
        maintenance_id: str, holder: Holder = gate.allowed(Deed.SEE_FLEET)
    ) -> wire.MaintenanceView:
        return wire.MaintenanceView.model_validate(await doors.windows.find(maintenance_id))

    @router.post("/maintenances/{maintenance_id}/cancel")
    async def call_off(
        maintenance_id: str, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.MaintenanceView:
        """Call off a window that has not begun."""
        row = await doors.windows.cancel(maintenance_id, actor=holder.name)
        return wire.MaintenanceView.model_validate(row)

    @router.post("/maintenances/{maintenance_id}/end")
    async def end(
        maintenance_id: str, holder: Holder = gate.allowed(Deed.STEER_FLEET)
    ) -> wire.MaintenanceView:
        """The work is done before its time: the nodes are tested now."""
        row = await doors.windows.end(maintenance_id, actor=holder.name)
        return wire.MaintenanceView.model_validate(row)

    @router.post("/runs/{name}/extend")
    async def extend(
        name: str, body: wire.Longer, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)
    ) -> wire.Extended:
        """Let a run go on longer, while nothing is booked behind it."""
        scope = scope_of(holder)
        run = await doors.runs.find(scope, name)
        ends_at = await doors.extensions.extend(scope, run["run_id"], seconds(body.by))
        return wire.Extended(run_id=run["run_id"], name=run["name"], ends_at=ends_at)

    return router


def seconds(written: str) -> int:
    """A duration as people write it. Raises Refused with the fix."""
    try:
        return duration_s(written)
    except ValueError as wrong:
        raise Refused(str(wrong)) from wrong
