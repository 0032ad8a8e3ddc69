"""The REST door under /api/v1: authenticates, translates, and maps faults to RFC 9457 problems.

No decision is made here and no SQL is known here.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Asked

import baseai
from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.engine.order import NodeReport, Sighting
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict, Fault, NotFound, Refused
from baseai.ground.identity import NodeId, RunId, mint
from baseai.tenancy.key import Holder, NotAdmitted, NotAllowed
from baseai.tenancy.role import Deed, Role, may
from baseai.truth.session import Scope, TruthUnavailable
from baseai.workloads.demand import UnknownAccelerator
from baseai.workloads.reason import Reason
from baseai.workloads.run import RunState
from baseai.workloads.sheet import BadSpec
from baseai.workloads.upload import Upload

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 2 * 1024**3
BODY_BYTES_MAX = 4 * 1024**2  # of a request: room for the largest spec, which reading bounds at 1 MiB
REPORT_BYTES_MAX = 16 * 1024**2  # of an agent's: it may have spooled for hours
LOG_PART_BYTES = 256 * 1024
WAIT_MAX_S = 30.0
ACCELERATOR_FIELDS = ("accelerator_id", "model", "serial", "device_index", "state", "run_id")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
DIGEST = re.compile(r"[0-9a-f]{64}")
STATUSES: tuple[tuple[type[Fault], int, str], ...] = (
    (NotAdmitted, 401, "Not admitted"),
    (NotAllowed, 403, "Not allowed"),
    (NotFound, 404, "Not found"),
    (Conflict, 409, "Conflict"),
    (BadSpec, 422, "The spec is wrong"),
    (UnknownAccelerator, 422, "The spec is wrong"),
    (Refused, 422, "Refused"),
    (TruthUnavailable, 503, "For a moment not available"),
)


def create_api(doors: Doors) -> FastAPI:
    """The application with every REST route; pages are mounted beside it by wiring."""
    app = FastAPI(
        title="baseai",
        version=baseai.__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    _problems(app)
    app.add_middleware(Bounded)
    app.include_router(_people(doors), prefix="/api/v1")
    app.include_router(_agents(doors), prefix="/api/v1/agent")
    return app


# ---- problems ---------------------------------------------------------------------------------------------------


def _problems(app: FastAPI) -> None:
    async def on_fault(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, Fault)
        status, title = next(
            ((status, title) for kind, status, title in STATUSES if isinstance(fault, kind)), (500, "Fault")
        )
        return problem(request, status, title, str(fault), errors=_spec_problems(fault))

    async def on_http(request: Request, wrong: Exception) -> Response:
        assert isinstance(wrong, HTTPException)
        return problem(request, wrong.status_code, str(wrong.detail), str(wrong.detail))

    async def on_invalid(request: Request, wrong: Exception) -> Response:
        assert isinstance(wrong, RequestValidationError)
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors())
        return problem(request, 422, "The request is wrong", places)

    async def on_os(request: Request, wrong: Exception) -> Response:
        if isinstance(wrong, OSError) and wrong.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return problem(request, 507, "No space", f"the platform cannot keep it: {wrong.strerror}")
        return await on_bug(request, wrong)

    async def on_bug(request: Request, wrong: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=wrong)
        return problem(
            request, 500, "Fault of the platform", "the platform failed at this; its log says more"
        )

    async def on_gone(request: Request, _: Exception) -> Response:
        return problem(request, 400, "Cut short", "the request ended before it was whole")

    app.add_exception_handler(Exception, on_bug)
    app.add_exception_handler(OSError, on_os)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Fault, on_fault)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)


def problem(
    request: Request, status: int, title: str, detail: str, errors: list[wire.SpecProblem] | None = None
) -> Response:
    """An `application/problem+json` answer."""
    body = wire.Problem(
        title=title, status=status, detail=detail, instance=request.url.path, errors=errors or []
    )
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        body.model_dump(mode="json"), status, media_type="application/problem+json", headers=headers
    )


def _spec_problems(fault: Fault) -> list[wire.SpecProblem]:
    if not isinstance(fault, BadSpec):
        return []
    return [
        wire.SpecProblem(file=e.file, line=e.line, column=e.column, key=e.key, message=e.message, fix=e.fix)
        for e in fault.errors
    ]


class Bounded:
    """Ends a request whose body is larger than any that is meant; a file is counted where it is taken in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Asked, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (
            scope["method"] == "PUT" and scope["path"].startswith("/api/v1/files/")
        ):
            await self._app(scope, receive, send)
            return
        most = REPORT_BYTES_MAX if scope["path"].startswith("/api/v1/agent/") else BODY_BYTES_MAX
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"a request has at most {most // 1024**2} MiB")
            return message

        await self._app(scope, counted, send)


# ---- people -----------------------------------------------------------------------------------------------------


def _people(doors: Doors) -> APIRouter:
    router = APIRouter()

    async def admitted(authorization: Annotated[str | None, Header()] = None) -> Holder:
        kind, _, text = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not text:
            raise NotAdmitted
        holder = await doors.tenancy.holder(text.strip())
        if holder.node_id is not None:  # it speaks as its node, and for nobody
            raise NotAllowed(holder.role.value, "do anything but report as its node")
        return holder

    def allowed(deed: Deed) -> Any:
        async def check(holder: Annotated[Holder, Depends(admitted)]) -> Holder:
            if not may(holder.role, deed):
                raise NotAllowed(holder.role.value, deed.value)
            return holder

        return Depends(check)

    answering: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def once(
        request: Request, holder: Holder, status: int, make: Callable[[], Awaitable[BaseModel]]
    ) -> Response:
        """Do it once for one Idempotency-Key; the repeated request gets the first answer, less any secret."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return Response((await make()).model_dump_json(), status, media_type="application/json")
        if not 1 <= len(key) <= 255:
            raise Refused("an Idempotency-Key has 1 to 255 characters")
        body = request.url.path.encode() + b"\n" + await request.body()
        # The repeat may come while the first is still answered.
        async with answering.setdefault((holder.key_id, key), asyncio.Lock()):
            earlier = await doors.runs.earlier_answer(holder.key_id, key, body)
            if earlier is not None:
                return JSONResponse(
                    earlier["response"], earlier["status"], headers={"Idempotent-Replayed": "true"}
                )
            made = await make()
            kept = made.model_copy(update={"secret": None}) if hasattr(made, "secret") else made
            await doors.runs.keep_answer(holder.key_id, key, body, status, kept.model_dump_json())
        return Response(made.model_dump_json(), status, media_type="application/json")

    # -- about the platform

    @router.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": baseai.__version__, **await doors.health()}

    @router.get("/me")
    async def me(holder: Annotated[Holder, Depends(admitted)]) -> dict[str, Any]:
        return {
            "name": holder.name,
            "role": holder.role.value,
            "tenant": holder.tenant_id,
            "key_id": holder.key_id,
        }

    @router.post("/sign-in-links", status_code=201)
    async def make_link(holder: Annotated[Holder, Depends(admitted)]) -> dict[str, str]:
        """A link that signs one browser in as this key's holder, once, within ten minutes."""
        token = await doors.tenancy.make_link(holder.key_id)
        return {"url": f"{doors.base_url}/sign-in/{token}"}

    # -- runs

    @router.post("/runs", status_code=201, response_model=wire.RunView)
    async def submit(
        request: Request, body: wire.Submit, dry_run: bool = False, holder: Holder = allowed(Deed.SUBMIT_RUNS)
    ) -> Response:
        scope = _scope(holder)

        async def make() -> BaseModel:
            project = await doors.tenancy.project(scope, holder.tenant_id, body.project)
            spec = await run_in_threadpool(doors.admission.read, body.spec, body.file)
            try:
                uploads = [Upload(**file.model_dump()) for file in body.files]
            except ValueError as wrong:
                raise Refused(str(wrong)) from wrong
            run_id = RunId(mint("run"))
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
        return await once(request, holder, 201, make)

    async def run_view(scope: Scope, run_id: str) -> wire.RunView:
        return wire.RunView(**(await doors.views.run(scope, run_id))["run"])

    @router.get("/runs")
    async def runs(
        holder: Holder = allowed(Deed.SEE_RUNS),
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
            _scope(holder), states=states, everything=all, limit=limit, cursor=cursor
        )
        return wire.Page(items=[wire.RunView(**row) for row in rows], next=more)

    @router.get("/runs/{name}")
    async def run(name: str, holder: Holder = allowed(Deed.SEE_RUNS)) -> wire.RunDetail:
        scope = _scope(holder)
        run_id = (await doors.runs.find(scope, name))["run_id"]
        detail = await doors.views.run(scope, run_id)
        money = await doors.money.cost("run", run_id, scope)
        return wire.RunDetail(**{**detail, "money": money[0] if money else _nothing(run_id, holder)})

    @router.post("/runs/{name}/stop")
    async def stop(
        name: str, body: wire.Why | None = None, holder: Holder = allowed(Deed.SUBMIT_RUNS)
    ) -> wire.RunView:
        scope = _scope(holder)
        found = await doors.runs.find(scope, name)
        reason = Reason.STOPPED_BY_USER if holder.tenant_id else Reason.STOPPED_BY_OPERATOR
        await doors.runs.ask_to_stop(scope, found["run_id"], reason, why=body.reason if body else None)
        return await run_view(scope, found["run_id"])

    @router.get("/runs/{name}/points")
    async def points(
        name: str,
        after_step: Annotated[int, Query(ge=-1, le=2**62)] = -1,
        holder: Holder = allowed(Deed.SEE_RUNS),
    ) -> dict[str, list[wire.PointView]]:
        scope = _scope(holder)
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
        holder: Holder = allowed(Deed.SEE_RUNS),
    ) -> Response:
        scope = _scope(holder)
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

    # -- files

    @router.head("/files/{digest}")
    async def has_file(digest: str, holder: Holder = allowed(Deed.SUBMIT_RUNS)) -> Response:
        scope = _scope(holder)
        tenant_id, _ = await doors.tenancy.project(scope, holder.tenant_id, None)
        there = await doors.runs.has_file(scope, tenant_id, digest) and (doors.uploads / digest).exists()
        return Response(status_code=200 if there else 404)

    @router.put("/files/{digest}", status_code=201)
    async def put_file(
        digest: str, request: Request, holder: Holder = allowed(Deed.SUBMIT_RUNS)
    ) -> dict[str, Any]:
        if not DIGEST.fullmatch(digest):
            raise Refused(f"{digest[:80]!r} is not a SHA-256 digest in small letters")
        scope = _scope(holder)
        project = await doors.tenancy.project(scope, holder.tenant_id, None)
        size = await _receive(request, doors, digest)
        await doors.runs.note_file(scope, project, digest, size)
        return {"digest": digest, "bytes": size}

    # -- fleet

    @router.get("/nodes")
    async def nodes(holder: Holder = allowed(Deed.SEE_FLEET)) -> wire.Page:
        return wire.Page(items=[wire.NodeView(**row) for row in await doors.views.nodes(_scope(holder))])

    @router.get("/nodes/{name}")
    async def node(name: str, holder: Holder = allowed(Deed.SEE_FLEET)) -> dict[str, Any]:
        for row in await doors.views.nodes(_scope(holder)):
            if name in (row["name"], row["node_id"]):
                devices = await doors.views.accelerators(_scope(holder), row["node_id"])
                return {
                    **wire.NodeView(**row).model_dump(mode="json"),
                    "accelerators": [
                        {
                            key: one[key]
                            for key in ("accelerator_id", "model", "serial", "device_index", "state", "run_id")
                        }
                        for one in devices
                    ],
                }  # fmt: skip
        raise NotFound("node", name)

    @router.post("/nodes/{name}/declare-dead")
    async def declare_dead(
        name: str, body: wire.Why | None = None, holder: Holder = allowed(Deed.STEER_FLEET)
    ) -> dict[str, Any]:
        """Your word that a silent node's processes are gone: its leases end and its runs may start elsewhere."""
        reason = body.reason if body else None
        return {"released": await doors.engine.declare_dead(name, actor=holder.name, reason=reason)}

    @router.post("/nodes/{name}/{verb}")
    async def steer(
        name: str, verb: str, body: wire.Why | None = None, holder: Holder = allowed(Deed.STEER_FLEET)
    ) -> wire.NodeView:
        verbs = ("cordon", "uncordon", "drain", "retire", "repair", "verify", "quarantine", "admit")
        if verb not in verbs:
            raise NotFound("verb", f"{verb}: a node is told to {', '.join(verbs)} or declare-dead")
        await doors.fleet.steer(
            name, NodeEvent(verb), actor=holder.name, reason=body.reason if body else None
        )
        for row in await doors.views.nodes(_scope(holder)):
            if name in (row["name"], row["node_id"]):
                return wire.NodeView(**row)
        raise NotFound("node", name)

    @router.post("/join-tokens", status_code=201)
    async def join_token(
        body: wire.NewToken | None = None, holder: Holder = allowed(Deed.STEER_FLEET)
    ) -> dict[str, Any]:
        site = body.site if body else wire.NewToken().site
        token, expires_at = await doors.tenancy.make_join_token(site, actor=holder.name)
        command = f"baseai agent --join {doors.base_url} --token {token}"
        return {"token": token, "expires_at": expires_at, "join_command": command}

    @router.get("/offers")
    async def offers(holder: Annotated[Holder, Depends(admitted)]) -> dict[str, list[wire.Offer]]:
        return {
            "items": [
                wire.Offer(**row, **doors.money.offer(row["model"])) for row in await doors.views.offers()
            ]
        }

    # -- tenancy

    @router.get("/tenants")
    async def tenants(holder: Holder = allowed(Deed.MANAGE_TENANTS)) -> wire.Page:
        return wire.Page(
            items=[wire.TenantView(**row) for row in await doors.tenancy.tenants(_scope(holder))]
        )

    @router.post("/tenants", status_code=201)
    async def make_tenant(
        request: Request, body: dict[str, str], holder: Holder = allowed(Deed.MANAGE_TENANTS)
    ) -> Response:
        async def make() -> BaseModel:
            return wire.TenantView(**await doors.tenancy.make_tenant(_name(body), actor=holder.name))

        return await once(request, holder, 201, make)

    @router.post("/tenants/{tenant}/projects", status_code=201)
    async def make_project(
        tenant: str, body: dict[str, str], holder: Holder = allowed(Deed.MANAGE_TENANTS)
    ) -> dict[str, Any]:
        return dict(await doors.tenancy.make_project(tenant, _name(body), actor=holder.name))

    @router.get("/keys")
    async def keys(holder: Holder = allowed(Deed.MANAGE_TENANTS)) -> wire.Page:
        return wire.Page(items=[wire.KeyView(**row) for row in await doors.tenancy.keys(_scope(holder))])

    @router.post("/keys", status_code=201)
    async def make_key(
        request: Request, body: wire.NewKey, holder: Holder = allowed(Deed.MANAGE_TENANTS)
    ) -> Response:
        async def make() -> BaseModel:
            return wire.KeyView(
                **await doors.tenancy.make_key(
                    body.name, Role(body.role), actor=holder.name, tenant=body.tenant
                )
            )

        return await once(request, holder, 201, make)

    @router.delete("/keys/{key_id}", status_code=204)
    async def revoke_key(key_id: str, holder: Holder = allowed(Deed.MANAGE_TENANTS)) -> None:
        await doors.tenancy.revoke_key(key_id, actor=holder.name)

    @router.get("/secrets")
    async def secrets(holder: Holder = allowed(Deed.MANAGE_SECRETS)) -> wire.Page:
        return wire.Page(
            items=[wire.SecretView(**row) for row in await doors.tenancy.secret_names(_scope(holder))]
        )

    @router.put("/secrets/{name}")
    async def set_secret(
        name: str, body: dict[str, str], holder: Holder = allowed(Deed.MANAGE_SECRETS)
    ) -> wire.SecretView:
        if "value" not in body:
            raise Refused("a secret needs a value")
        scope = _scope(holder)
        project = await doors.tenancy.project(scope, holder.tenant_id, body.get("project"))
        row = await doors.tenancy.set_secret(scope, project, name, body["value"])
        return wire.SecretView(**{"project": body.get("project") or "main", **row})

    @router.delete("/secrets/{name}", status_code=204)
    async def remove_secret(
        name: str, project: str | None = None, holder: Holder = allowed(Deed.MANAGE_SECRETS)
    ) -> None:
        scope = _scope(holder)
        await doors.tenancy.remove_secret(
            scope, await doors.tenancy.project(scope, holder.tenant_id, project), name
        )

    # -- money

    @router.get("/cost")
    async def cost(
        by: str = "run", subject: str | None = None, holder: Holder = allowed(Deed.SEE_MONEY)
    ) -> dict[str, list[wire.CostView]]:
        if by not in ("run", "node", "accelerator", "tenant"):
            raise Refused(f"cost is told by run, node, accelerator or tenant, not by {by}")
        scope = _scope(holder)
        if subject is not None and by == "run":
            subject = (await doors.runs.find(scope, subject))["run_id"]
        return {"items": [wire.CostView(**row) for row in await doors.money.cost(by, subject, scope)]}

    @router.get("/books/trial-balance")
    async def trial_balance(holder: Holder = allowed(Deed.SEE_BOOKS)) -> wire.TrialBalance:
        return wire.TrialBalance(**await doors.money.trial_balance(_scope(holder)))

    @router.get("/books/transfers")
    async def transfers(
        run: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        holder: Holder = allowed(Deed.SEE_BOOKS),
    ) -> wire.Page:
        scope = _scope(holder)
        run_id = (await doors.runs.find(scope, run))["run_id"] if run else None
        rows, more = await doors.money.transfers(scope, run_id=run_id, limit=limit, cursor=cursor)
        return wire.Page(items=[wire.TransferView(**row) for row in rows], next=more)

    @router.get("/events")
    async def events(
        subject: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        holder: Holder = allowed(Deed.SEE_RUNS),
    ) -> wire.Page:
        rows, more = await doors.views.events(_scope(holder), subject=subject, limit=limit, cursor=cursor)
        return wire.Page(items=[wire.EventView(**row) for row in rows], next=more)

    return router


# ---- agents -----------------------------------------------------------------------------------------------------


def _agents(doors: Doors) -> APIRouter:
    router = APIRouter()

    async def node_of(authorization: Annotated[str | None, Header()] = None) -> NodeId:
        kind, _, text = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            raise NotAdmitted
        holder = await doors.tenancy.holder(text.strip())
        if holder.node_id is None:
            raise NotAllowed(holder.role.value, Deed.REPORT_AS_NODE.value)
        return holder.node_id

    Node = Annotated[NodeId, Depends(node_of)]  # noqa: N806

    @router.post("/join", status_code=201)
    async def join(body: wire.Join) -> wire.Joined:
        node_id, key = await doors.fleet.join(body.token, _machine(body.facts))
        return wire.Joined(node_id=node_id, node_key=key)

    @router.post("/facts")
    async def facts(body: wire.NodeFacts, node_id: Node) -> dict[str, str]:
        await doors.fleet.learn(node_id, _machine(body))
        return {"node_id": node_id}

    @router.get("/desired")
    async def desired(node_id: Node, version: int = 0, wait_s: float = 25.0) -> wire.Desired:
        left = min(max(0.0, wait_s), WAIT_MAX_S)
        # Listening begins before the look, so that no change falls between the two.
        with doors.bell.heard(node_id) as told:
            while left > 0 and await doors.engine.desired_version(node_id) == version:
                began = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), left)
                told.clear()
                left -= time.monotonic() - began
        orders = await doors.engine.orders(node_id)
        return wire.Desired(
            version=orders.version,
            node_id=orders.node_id,
            node_state=orders.node_state,
            launches=[wire.Launch.model_validate(order, from_attributes=True) for order in orders.orders],
        )

    @router.post("/report")
    async def report(body: wire.Report, node_id: Node) -> wire.Reported:
        if abs(body.protocol - wire.PROTOCOL) > 1:
            raise Refused(
                f"this agent speaks protocol {body.protocol} and the server {wire.PROTOCOL}: bring them closer"
            )
        taken = await doors.engine.take(
            node_id,
            NodeReport(
                boot_id=body.boot_id,
                sent_at=body.sent_at,
                alive=tuple((one.lease_id, one.pid) for one in body.alive),
                gone=tuple(body.gone),
                sightings=tuple(Sighting(**one.model_dump()) for one in body.observations),
            ),
        )
        return wire.Reported(
            accepted=list(taken.accepted), refused=taken.refused, desired_version=taken.desired_version
        )

    @router.post("/logs/{lease_id}/{stream}")
    async def take_log(
        lease_id: str,
        stream: str,
        request: Request,
        node_id: Node,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> wire.LogOffset:
        run_id, attempt_no, node_rank = await doors.engine.log_place(node_id, lease_id)
        chunk = await request.body()
        if len(chunk) > wire.LOG_CHUNK_BYTES:
            raise Refused(f"a piece of a log has at most {wire.LOG_CHUNK_BYTES} bytes")
        end = await run_in_threadpool(doors.logs.append, run_id, attempt_no, node_rank, offset, chunk)
        return wire.LogOffset(next_offset=end)

    @router.get("/files/{digest}")
    async def file(digest: str, node_id: Node) -> Response:
        path = doors.uploads / digest
        if not DIGEST.fullmatch(digest) or not await doors.runs.file_of_node(node_id, digest):
            raise NotFound("file", digest)
        if not path.is_file():
            raise NotFound("file", digest)
        return FileResponse(path, media_type="application/octet-stream")

    return router


# ---- pieces -----------------------------------------------------------------------------------------------------


async def _receive(request: Request, doors: Doors, digest: str) -> int:
    """Take a file in, check its digest, and put it in its place whole or not at all; its size in bytes."""
    doors.uploads.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=doors.uploads, prefix="coming-")
    size, sha = 0, hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as coming:
            async for chunk in request.stream():
                size += len(chunk)
                if size > FILE_BYTES_MAX:
                    raise Refused(f"a file has at most {FILE_BYTES_MAX // 1024**3} GiB")
                sha.update(chunk)
                coming.write(chunk)
            coming.flush()
            await run_in_threadpool(os.fsync, coming.fileno())
        if sha.hexdigest() != digest:
            raise Refused(
                f"the content does not have the digest {digest[:12]}…: it was changed on its way, send it again"
            )
        os.replace(name, doors.uploads / digest)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it is in its place
            os.unlink(name)
    return size


def _machine(facts: wire.NodeFacts) -> MachineFacts:
    return MachineFacts(
        name=facts.name,
        address=facts.address,
        isolation=facts.isolation,
        container_runtime=facts.container_runtime,
        cores=facts.cores,
        memory_mib=facts.memory_mib,
        disk_mib=facts.disk_mib,
        devices=tuple(DeviceFacts(**device.model_dump()) for device in facts.devices),
        boot_id=facts.boot_id,
        version=facts.version,
        protocol=facts.protocol,
    )


def _scope(holder: Holder) -> Scope:
    return Scope(tenant_id=holder.tenant_id, actor=holder.name)


def _name(body: dict[str, str]) -> str:
    name = body.get("name", "")
    if not NAME.fullmatch(name):
        raise Refused(f"{name[:80]!r} is not a name: use 1 to 63 of a-z, 0-9 and -, no - at the beginning")
    return name


def _nothing(run_id: str, holder: Holder) -> dict[str, Any]:
    ours = None if holder.tenant_id else 0
    return {
        "subject": run_id, "label": "", "accelerator_hours": 0, "revenue": 0, "cost": ours, "contribution": ours
    }  # fmt: skip
