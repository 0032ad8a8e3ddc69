"""Routes of runs: submit, list, look, stop, read the log and the curve."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.clock import now_utc
from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import RunId, mint
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed
from baseai.truth.session import Scope
from baseai.workloads.reason import Reason
from baseai.workloads.run import RunState
from baseai.workloads.service import KIND as SERVICE
from baseai.workloads.upload import Upload

LOG_PART_BYTES = 256 * 1024
WAIT_MAX_S = 30.0


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.post("/runs", status_code=201, response_model=wire.RunView)
    async def submit(
        request: Request,
        body: wire.Submit,
        dry_run: bool = False,
        holder: Holder = gate.allowed(Deed.SUBMIT_RUNS),
    ) -> Response:
        scope = scope_of(holder)

        async def make() -> BaseModel:
            project = await doors.tenancy.project(scope, holder.tenant_id, body.project)
            spec = await run_in_threadpool(doors.admission.read, body.spec, body.file)
            if spec.type == SERVICE:
                raise Refused(f"{body.file} is a service, not a run: apply it at /api/v1/services")
            try:
                uploads = [Upload(**file.model_dump()) for file in body.files]
            except ValueError as wrong:
                raise Refused(str(wrong)) from wrong
            run_id = RunId(mint("run"))
            await doors.queues.refuse_missing(scope, project, spec.queue)
            await doors.admission.check(run_id, project[0], spec)
            if dry_run:
                await doors.runs.refuse_missing(
                    scope, project, spec, ()
                )  # files are brought after it is known good
                tenant_name, project_name = await doors.tenancy.project_names(scope, project)
                return wire.RunView(
                    run_id="", name=spec.name, tenant=tenant_name, project=project_name, kind=spec.type, state="queued",
                    priority=spec.priority, gpu=spec.asked_text,
                    nodes=spec.nodes, submitted_at=now_utc(),
                )  # fmt: skip
            await doors.runs.submit(scope, project, run_id, spec, uploads, submitted_by=holder.name)
            return await run_view(scope, run_id)

        if dry_run:
            return Response((await make()).model_dump_json(), 200, media_type="application/json")
        return await gate.once(request, holder, 201, make)

    async def run_view(scope: Scope, run_id: str) -> wire.RunView:
        return wire.RunView(**(await doors.views.run(scope, run_id))["run"])

    @router.get("/runs")
    async def runs(
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
        state: Annotated[list[str] | None, Query()] = None,
        all: bool = False,  # noqa: A002 - the name people type
        limit: int = 100,
        cursor: str | None = None,
    ) -> wire.Page:
        states = [one for given in state or [] for one in given.split(",") if one]
        for one in states:
            if one not in tuple(RunState):
                raise Refused(f"{one!r} is not a state of a run: it is {', '.join(RunState)}")
        rows, more = await doors.views.runs(
            scope_of(holder), states=states, everything=all, limit=limit, cursor=cursor
        )
        return wire.Page(items=[wire.RunView(**row) for row in rows], next=more)

    @router.get("/queue")
    async def queue(
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        cursor: str | None = None,
    ) -> wire.QueueView:
        """Who waits, in the order of the last cycle: all, or a tenant's own with their positions among all."""
        scope = scope_of(holder)
        rows, more = await doors.views.queue(scope, limit=limit, cursor=cursor)
        counts = await doors.views.run_counts(scope)
        return wire.QueueView(
            items=[wire.RunView(**row) for row in rows],
            next=more,
            waiting=counts["queued"],
            accuracy=[wire.AccuracyView(**row) for row in await doors.views.accuracy()],
            models=[wire.RoomView(**row) for row in await doors.views.room()],
        )

    @router.get("/runs/{name}")
    async def run(name: str, holder: Holder = gate.allowed(Deed.SEE_RUNS)) -> wire.RunDetail:
        scope = scope_of(holder)
        run_id = (await doors.runs.find(scope, name))["run_id"]
        detail = await doors.views.run(scope, run_id)
        money = await doors.money.cost("run", run_id, scope)
        return wire.RunDetail(**{**detail, "money": money[0] if money else _nothing(run_id, holder)})

    @router.post("/runs/{name}/stop")
    async def stop(
        name: str, body: wire.Why | None = None, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)
    ) -> wire.RunView:
        scope = scope_of(holder)
        found = await doors.runs.find(scope, name)
        reason = Reason.STOPPED_BY_USER if holder.tenant_id else Reason.STOPPED_BY_OPERATOR
        await doors.runs.ask_to_stop(scope, found["run_id"], reason, why=body.reason if body else None)
        return await run_view(scope, found["run_id"])

    @router.get("/runs/{name}/points")
    async def points(
        name: str,
        after_step: Annotated[int, Query(ge=-1, le=2**62)] = -1,
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
    ) -> dict[str, list[wire.PointView]]:
        scope = scope_of(holder)
        found = await doors.runs.find(scope, name)
        rows = await doors.views.points(scope, found["run_id"], after_step=after_step)
        return {"items": [wire.PointView(**row) for row in rows]}

    @router.get("/runs/{name}/logs")
    async def logs(
        name: str,
        offset: Annotated[int, Query(ge=0)] = 0,
        node_rank: Annotated[int, Query(ge=0)] = 0,
        attempt: str = "latest",
        wait_s: float = 0.0,
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
    ) -> Response:
        scope = scope_of(holder)
        found = await doors.runs.find(scope, name)
        if attempt != "latest" and not re.fullmatch("[0-9]{1,9}", attempt):
            raise Refused(f"{attempt!r} is not an attempt: write its number, or latest")
        attempt_no = found["attempt_no"] if attempt == "latest" else int(attempt)
        if attempt_no < 1 or attempt_no > found["attempt_no"]:
            raise NotFound("attempt", f"{attempt} of {name}: it has started {found['attempt_no']} times")
        deadline = min(wait_s, WAIT_MAX_S)
        while True:
            part = await run_in_threadpool(
                doors.logs.read, found["run_id"], attempt_no, node_rank, offset, LOG_PART_BYTES
            )
            ended = found["ended_at"] is not None or found["attempt_no"] > attempt_no
            if part.content or deadline <= 0 or ended:
                break
            await doors.bell.wait(found["run_id"], min(deadline, 1.0))
            deadline -= 1.0
            found = await doors.runs.find(scope, found["run_id"])
        # The last lines may arrive a moment after the end was seen.
        late = ended and found["ended_at"] is not None and (now_utc() - found["ended_at"]).total_seconds() < 2
        return Response(
            part.content,
            media_type="text/plain; charset=utf-8",
            headers={
                "X-Next-Offset": str(part.next_offset),
                "X-Attempt": str(attempt_no),
                "X-Log-Ended": str(ended and not part.content and not late).lower(),
            },
        )

    return router


def _nothing(run_id: str, holder: Holder) -> dict[str, Any]:
    ours = None if holder.tenant_id else 0
    return {
        "subject": run_id, "label": "", "accelerator_hours": 0, "revenue": 0, "cost": ours, "contribution": ours
    }  # fmt: skip
