"""Routes of services: apply, list, look, traffic, cost, scale, promote, roll back, stop; and the models they serve."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused
from baseai.ground.identity import mint
from baseai.serving.example import examples_of, url_of
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed
from baseai.truth.session import Scope
from baseai.workloads.service import KIND, Service
from baseai.workloads.spec import RunSpec
from baseai.workloads.upload import Upload

Row = Mapping[str, Any]


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()

    @router.post("/services", status_code=201, response_model=wire.ServiceApplied)
    async def apply(
        request: Request,
        body: wire.Submit,
        dry_run: bool = False,
        holder: Holder = gate.allowed(Deed.SUBMIT_RUNS),
    ) -> Response:
        """Make the service that a spec says, or roll a new version of it out; the same again changes nothing."""
        scope = scope_of(holder)

        async def make() -> BaseModel:
            project = await doors.tenancy.project(scope, holder.tenant_id, body.project)
            spec = await run_in_threadpool(doors.admission.read, body.spec, body.file)
            if spec.type != KIND:
                raise Refused(f"{body.file} is a {spec.type}, not a service: submit it to /api/v1/runs")
            try:
                uploads = [Upload(**file.model_dump()) for file in body.files]
            except ValueError as wrong:
                raise Refused(str(wrong)) from wrong
            await doors.queues.refuse_missing(scope, project, spec.queue)
            await doors.admission.check(mint("run"), project[0], spec)
            if dry_run:
                await doors.runs.refuse_missing(scope, project, spec, ())  # files come after it is known good
                names = await doors.tenancy.project_names(scope, project)
                return wire.ServiceApplied(
                    service=_unmade(spec, names, holder.name), version_no=0, made=False, rolling=False
                )
            told = await doors.services.apply(scope, project, spec, uploads, by=holder.name)
            detail = await _detail(scope, told.service_id)
            return wire.ServiceApplied(
                service=detail.service,
                version_no=told.version_no,
                made=told.made,
                rolling=told.rolling,
                example=next((each.curl for each in detail.examples), None),
            )

        if dry_run:
            return Response((await make()).model_dump_json(), 200, media_type="application/json")
        return await gate.once(request, holder, 201, make)

    def _view(row: Row) -> wire.ServiceView:
        url = doors.gateway_url and url_of(doors.gateway_url, row["service_id"])
        return wire.ServiceView(**row, url=url)

    def _examples(scope: Scope, service_id: str, terms: Service) -> list[wire.ExampleView]:
        if doors.gateway_url is None:
            return []
        return [
            wire.ExampleView(
                name=each.name, method=each.method, url=doors.gateway_url + each.path,
                body=dict(each.body) if each.body is not None else None, said=each.said, streams=each.streams,
                takes_bytes=each.takes_bytes,
                curl=each.curl(doors.gateway_url, with_key=terms.auth),
            )
            for each in examples_of(service_id, terms, by_name=scope.tenant_id is not None)
        ]  # fmt: skip

    @router.get("/services")
    async def services(
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
        all: bool = False,  # noqa: A002 - the name people type
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        cursor: str | None = None,
    ) -> wire.Page:
        """The newest first; stopped ones with `all`."""
        rows, more = await doors.service_views.services(
            scope_of(holder), everything=all, limit=limit, cursor=cursor
        )
        return wire.Page(items=[_view(row) for row in rows], next=more)

    @router.get("/services/{name}")
    async def service(name: str, holder: Holder = gate.allowed(Deed.SEE_RUNS)) -> wire.ServiceDetail:
        return await _detail(scope_of(holder), name)

    async def _detail(scope: Scope, name: str) -> wire.ServiceDetail:
        found = await doors.service_views.service(scope, name)
        row = found["service"]
        return wire.ServiceDetail(
            **{**found, "service": _view(row)}, examples=_examples(scope, row["service_id"], _terms_of(found))
        )

    @router.get("/services/{name}/traffic")
    async def traffic(
        name: str, window: str = "15m", holder: Holder = gate.allowed(Deed.SEE_RUNS)
    ) -> wire.TrafficView:
        return wire.TrafficView(**await doors.service_views.traffic(scope_of(holder), name, window))

    @router.get("/services/{name}/cost")
    async def cost(
        name: str, window: str = "24h", holder: Holder = gate.allowed(Deed.SEE_MONEY)
    ) -> wire.ServiceCostView:
        return wire.ServiceCostView(**await doors.service_money.service_cost(scope_of(holder), name, window))

    @router.post("/services/{name}/scale")
    async def scale(
        name: str, body: wire.Bounds, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)
    ) -> wire.ServiceDetail:
        """Other bounds for how many replicas there may be."""
        if body.least is None and body.most is None:
            raise Refused("say `least`, `most` or both")
        scope = scope_of(holder)
        found = await doors.service_views.find(scope, name)
        await doors.services.scale(
            scope, found["service_id"], least=body.least, most=body.most, by=holder.name
        )
        return await _detail(scope, found["service_id"])

    @router.post("/services/{name}/promote")
    async def promote(name: str, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)) -> wire.ServiceDetail:
        """Give the version that is being rolled out all requests at once."""
        scope = scope_of(holder)
        service_id = (await doors.service_views.find(scope, name))["service_id"]
        await doors.services.promote(scope, service_id, by=holder.name)
        return await _detail(scope, service_id)

    @router.post("/services/{name}/rollback")
    async def roll_back(name: str, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)) -> wire.ServiceDetail:
        """Take the version that is being rolled out back."""
        scope = scope_of(holder)
        service_id = (await doors.service_views.find(scope, name))["service_id"]
        await doors.services.roll_back(scope, service_id, by=holder.name)
        return await _detail(scope, service_id)

    @router.post("/services/{name}/stop")
    async def stop(name: str, holder: Holder = gate.allowed(Deed.SUBMIT_RUNS)) -> wire.ServiceDetail:
        """End a service: requests under way are answered first."""
        scope = scope_of(holder)
        service_id = (await doors.service_views.find(scope, name))["service_id"]
        await doors.services.stop(scope, service_id, by=holder.name)
        return await _detail(scope, service_id)

    @router.get("/models")
    async def models(
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        cursor: str | None = None,
    ) -> wire.Page:
        """Models that were served here, the newest first."""
        rows, more = await doors.service_views.models(scope_of(holder), limit=limit, cursor=cursor)
        return wire.Page(items=[wire.ModelView(**row) for row in rows], next=more)

    return router


def _terms_of(detail: Row) -> Service:
    return Service.from_json(detail["spec"]["work"])


def _unmade(spec: RunSpec, names: Sequence[str], by: str) -> wire.ServiceView:
    """What a spec would make."""
    terms = spec.work
    assert isinstance(terms, Service)
    return wire.ServiceView(
        service_id="", name=spec.name, tenant=names[0], project=names[1], model_name=terms.model_name,
        model=terms.model, engine=terms.engine, protocol=terms.protocol, license=terms.license,
        gpu=spec.asked_text, nodes=spec.nodes, state="idle", version_no=0, wanted=0, replicas=0, ready=0,
        least=terms.scaling.least, most=terms.scaling.most, concurrency=terms.concurrency, p99_ms=terms.p99_ms,
        auth=terms.auth, cached=terms.cache is not None, made_by=by, made_at=now_utc(),
    )  # fmt: skip
