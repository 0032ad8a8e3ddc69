"""A platform on loopback with its truth in memory: it speaks the endpoints that the terminal asks for.

Answers are made from the same shapes as the server's. `Loopback` may be stopped and started again on its port,
and told to break off an answer halfway.
"""

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from baseai.api.schemas import (
    AccountView,
    AccuracyView,
    AuditView,
    Balance,
    BurnInView,
    CheckpointView,
    CloseView,
    CollectorView,
    CostView,
    EventView,
    Extended,
    FigureView,
    FindingView,
    KeyView,
    LeaseView,
    MaintenanceView,
    NamedQueueView,
    NewKey,
    NodeFigures,
    NodeInWindowView,
    NodeView,
    Offer,
    Page,
    PeriodView,
    PreemptionView,
    Problem,
    QueueModelView,
    QueueView,
    Reckoning,
    ReservationView,
    RoomView,
    RunDetail,
    RunView,
    SecretView,
    SpecProblem,
    Submit,
    TenantView,
    TimeRow,
    TimeView,
    TransferView,
    TrialBalance,
    UseView,
    WaitView,
    WithheldHour,
)
from baseai.ground.quantity import duration_s
from tests.cli.serving import Serving, serve

KEY = "bk_loopback"
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PIECE_BYTES = 64


def run_of(name: str = "hello", **facts: Any) -> RunView:
    known: dict[str, Any] = {
        "run_id": f"run_{hashlib.sha256(name.encode()).hexdigest()[:20]}",
        "name": name,
        "tenant": "acme",
        "project": "default",
        "kind": "task",
        "state": "running",
        "priority": 50,
        "gpu": "cpu-slot:2",
        "nodes": 1,
        "attempt_no": 1,
        "submitted_at": LONG_AGO,
    }
    return RunView(**(known | facts))


def queue_of(name: str, **facts: Any) -> NamedQueueView:
    held = QueueModelView(
        model="H100-SXM", quota=16, limit=None, held=12, spot=4, usage_accelerator_h=1234.56
    )
    known: dict[str, Any] = {
        "name": name,
        "parent": "lab" if name == "vision" else "root",
        "weight": 2.0,
        "half_life_s": 604_800.0,
        "waiting": 3,
        "running": 1,
        "models": [] if name == "default" else [held],
        "note": "the quotas of all queues come to more than there is" if name == "dear" else None,
    }
    return NamedQueueView(**(known | facts))


def reservation_of(**facts: Any) -> ReservationView:
    known: dict[str, Any] = {
        "reservation_id": "rsv_1", "name": "exam", "tenant": "acme", "project": "default", "nodes": 2,
        "accelerators": 8, "model": "H100-SXM", "site": "SP4", "from_at": LONG_AGO,
        "until_at": LONG_AGO + timedelta(days=2), "kind": "hold", "forfeit_at": LONG_AGO + timedelta(minutes=30),
        "state": "held", "in_use": 0, "made_by": "ana", "made_at": LONG_AGO,
    }  # fmt: skip
    return ReservationView(**(known | facts))


def maintenance_of(**facts: Any) -> MaintenanceView:
    known: dict[str, Any] = {
        "maintenance_id": "mnt_1", "nodes": [NodeInWindowView(node=f"gpu-{n}", state="ready") for n in range(6)],
        "from_at": LONG_AGO, "until_at": LONG_AGO + timedelta(hours=2), "notice_s": 86_400, "why": "fans",
        "state": "scheduled", "made_by": "ana", "made_at": LONG_AGO,
    }  # fmt: skip
    return MaintenanceView(**(known | facts))


class State:
    """All that the platform knows."""

    def __init__(self) -> None:
        self.runs: dict[str, RunView] = {}
        self.logs: dict[tuple[str, int], bytes] = {}
        self.log_ended: set[tuple[str, int]] = set()
        self.files: dict[str, bytes] = {}
        self.puts = 0
        self.keys: list[KeyView] = []
        self.secrets: dict[str, str] = {}
        self.tenants: dict[str, list[str]] = {"acme": ["default"]}
        self.moves: list[tuple[str, str, str]] = []
        self.submitted: dict[str, str] = {}  # key of idempotency → run
        self.settings: list[tuple[str, Any]] = []  # of queues; None: removed
        self.difference = Decimal(0)
        self.withheld: list[str] = []  # why hours of the time ledger are not shown
        self.booked: dict[str, Any] = {}  # what was said last of a reservation or of maintenance
        self.break_log_answers = 0
        self.waits: WaitView | None = None
        self.asked: list[str] = []
        self.may_see_money = True
        self.findings: list[FindingView] = []  # of a check of the books
        self.serving = Serving()
        self.outages = 0  # so many questions about a run are answered with 503: the database is away
        self.health = {"status": "ok", "version": "0.1.0", "database": "ok", "controller": "leading"}

    def add(self, run: RunView) -> RunView:
        self.runs[run.run_id] = run
        return run

    def change(self, run_id: str, **facts: Any) -> None:
        self.runs[run_id] = self.runs[run_id].model_copy(update=facts)

    def run(self, name: str) -> RunView | None:
        return next((run for run in self.runs.values() if name in (run.run_id, run.name)), None)


def problem(status: int, title: str, detail: str, errors: list[SpecProblem] | None = None) -> Response:
    shape = Problem(title=title, status=status, detail=detail, errors=errors or [])
    return JSONResponse(shape.model_dump(mode="json"), status, media_type="application/problem+json")


def shaped(shape: Any, status: int = 200) -> Response:
    return Response(shape.model_dump_json(), status, media_type="application/json")


def page(items: list[Any], limit: int = 100, cursor: str | None = None) -> Response:
    start = int(cursor or 0)
    following = str(start + limit) if start + limit < len(items) else None
    return shaped(
        Page(items=[item.model_dump(mode="json") for item in items[start : start + limit]], next=following)
    )


def money_of(run: RunView) -> CostView:
    return CostView(
        subject=run.run_id,
        label=run.name,
        accelerator_hours=Decimal("0.25"),
        revenue=Decimal("0.0102"),
        cost=Decimal("0.000417"),
        contribution=Decimal("0.009783"),
        accruing=run.state == "running",
        basis="straight-line depreciation, estimated",
    )


def application(state: State) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def only_with_key(request: Request, call_next: Any) -> Response:
        state.asked.append(f"{request.method} {request.url.path}?{request.url.query}")
        if request.url.path != "/api/v1/health" and request.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "Unauthorized", "no")
        return await call_next(request)

    serve(app, state)

    @app.post("/api/v1/runs")
    async def submit(request: Request, dry_run: bool = False) -> Response:
        asked = Submit.model_validate_json(await request.body())
        try:
            spec = yaml.safe_load(asked.spec)
        except yaml.YAMLError:
            return problem(
                422, "The spec is not accepted", "1 error", [_error(asked.file, "", "is not YAML")]
            )
        if "comands" in spec:
            line = asked.spec[: asked.spec.index("comands")].count("\n") + 1
            return problem(
                422,
                "The spec is not accepted",
                "1 error",
                [_error(asked.file, "comands", "is not a key", line)],
            )
        if not dry_run and (missing := [one.path for one in asked.files if one.digest not in state.files]):
            return problem(409, "Files are missing", ", ".join(missing))
        run = run_of(
            spec.get("name", "unnamed"), state="queued" if state.waits else "starting", wait=state.waits
        )
        if dry_run:
            return shaped(run)
        key = request.headers.get("idempotency-key")
        if key is None:
            return problem(400, "No Idempotency-Key", "a POST carries one")
        if key not in state.submitted:
            state.submitted[key] = state.add(run).run_id
        return shaped(state.runs[state.submitted[key]], 201)

    @app.get("/api/v1/runs")
    async def runs(request: Request, limit: int = 100, cursor: str | None = None) -> Response:
        everything = request.query_params.get("all") == "true"
        ended = {"succeeded", "failed", "cancelled"}
        shown = [run for run in state.runs.values() if everything or run.state not in ended]
        return page(
            [run for run in shown if request.query_params.get("state") in (None, run.state)], limit, cursor
        )

    @app.get("/api/v1/queue")
    async def queue(limit: int = 100, cursor: str | None = None) -> Response:
        waiting = [run for run in state.runs.values() if run.state == "queued"]
        start = int(cursor or 0)
        following = str(start + limit) if start + limit < len(waiting) else None
        accuracy = AccuracyView(
            models=["H100-SXM"], outcomes=412, held_ratio=0.79, median_error_s=750.0, from_at=LONG_AGO
        )
        return shaped(
            QueueView(
                items=waiting[start : start + limit], next=following, waiting=len(waiting), accuracy=[accuracy],
                models=[RoomView(model="H100-SXM", total=16, free=3)],
            )
        )  # fmt: skip

    @app.get("/api/v1/queues")
    async def queues() -> Response:
        return page(
            [queue_of("vision"), queue_of("lab", below=["vision"]), queue_of("default", tenant="acme")]
        )

    @app.get("/api/v1/queues/{name}")
    async def one_queue(name: str) -> Response:
        return shaped(queue_of(name))

    @app.put("/api/v1/queues/{name}")
    async def set_queue(name: str, request: Request) -> Response:
        state.settings.append((name, await request.json()))
        return shaped(queue_of(name))

    @app.delete("/api/v1/queues/{name}", status_code=204)
    async def remove_queue(name: str) -> Response:
        state.settings.append((name, None))
        return Response(status_code=204)

    @app.get("/api/v1/runs/{name}")
    async def run(name: str) -> Response:
        if state.outages:
            state.outages -= 1
            return problem(503, "Unavailable", "the database is away")
        found = state.run(name)
        return problem(404, "Not found", f"no run {name}") if found is None else shaped(_detail(found))

    @app.post("/api/v1/runs/{name}/stop")
    async def stop(name: str) -> Response:
        found = state.run(name)
        if found is None:
            return problem(404, "Not found", f"no run {name}")
        state.change(found.run_id, state="stopping")
        return shaped(state.runs[found.run_id])

    @app.post("/api/v1/runs/{name}/extend")
    async def extend(name: str, request: Request) -> Response:
        run, by = state.run(name), (await request.json())["by"]
        if run is None:
            return problem(404, "Not found", f"no run {name}")
        ends_at = LONG_AGO + timedelta(seconds=duration_s(by))
        return shaped(Extended(run_id=run.run_id, name=run.name, ends_at=ends_at))

    @app.get("/api/v1/reservations")
    async def reservations() -> Response:
        return page([reservation_of()] if state.booked else [])

    @app.post("/api/v1/reservations")
    async def reserve(request: Request) -> Response:
        state.booked = await request.json()
        return shaped(reservation_of(**{name: state.booked[name] for name in ("name", "nodes", "site")}), 201)

    @app.get("/api/v1/reservations/{name}")
    async def reservation(name: str) -> Response:
        return shaped(reservation_of(name=name))

    @app.post("/api/v1/reservations/{name}/cancel")
    async def give_back(name: str) -> Response:
        return shaped(reservation_of(name=name, state="cancelled"))

    @app.get("/api/v1/maintenances")
    async def maintenances() -> Response:
        return page([maintenance_of()] if state.booked else [])

    @app.post("/api/v1/maintenances")
    async def plan(request: Request) -> Response:
        state.booked = await request.json()
        return shaped(maintenance_of(why=state.booked["why"]), 201)

    @app.get("/api/v1/maintenances/{maintenance_id}")
    async def maintenance(maintenance_id: str) -> Response:
        return shaped(maintenance_of(maintenance_id=maintenance_id))

    @app.post("/api/v1/maintenances/{maintenance_id}/{verb}")
    async def told(maintenance_id: str, verb: str) -> Response:
        after = {"cancel": "cancelled", "end": "in_progress"}[verb]
        return shaped(maintenance_of(maintenance_id=maintenance_id, state=after))

    @app.get("/api/v1/runs/{name}/logs")
    async def logs(
        name: str, offset: int = 0, node_rank: int = 0, attempt: str = "latest", wait_s: float = 0
    ) -> Response:
        found = state.run(name)
        if found is None:
            return problem(404, "Not found", f"no run {name}")
        which = (found.run_id, found.attempt_no if attempt == "latest" else int(attempt))
        await _something(lambda: len(state.logs.get(which, b"")) > offset or which in state.log_ended, wait_s)
        piece = state.logs.get(which, b"")[offset : offset + PIECE_BYTES]
        headers = {
            "X-Next-Offset": str(offset + len(piece)),
            "X-Log-Ended": str(which in state.log_ended).lower(),
        }
        if state.break_log_answers and piece:
            state.break_log_answers -= 1
            return StreamingResponse(
                _broken(piece), headers=headers | {"Content-Length": str(len(piece))}, media_type="text/plain"
            )
        return Response(piece, headers=headers, media_type="text/plain")

    @app.head("/api/v1/files/{digest}")
    async def has_file(digest: str) -> Response:
        return Response(status_code=200 if digest in state.files else 404)

    @app.put("/api/v1/files/{digest}")
    async def put_file(digest: str, request: Request) -> Response:
        body = await request.body()
        if hashlib.sha256(body).hexdigest() != digest:
            return problem(400, "Digest", "the bytes are not those of the digest")
        state.puts += 1
        state.files[digest] = body
        return Response(status_code=201)

    @app.get("/api/v1/nodes")
    async def nodes() -> Response:
        return page([_node(state)])

    @app.get("/api/v1/telemetry/collectors")
    async def collectors() -> Response:
        view = {
            "name": "nvml",
            "state": "failing",
            "interval_s": 10.0,
            "last_ok_at": LONG_AGO,
            "took_ms": 5000.0,
            "failures": 3,
            "sentence": "no answer in 5 s",
            "troubles": ["GPU-1 temp_c: 900 °C cannot be"],
        }
        told = CollectorView.model_validate(view).model_dump(mode="json")
        return shaped(Page(items=[{"node": "big", "node_id": "nod_1"} | told]))

    @app.get("/api/v1/telemetry/use")
    async def use() -> Response:
        used = UseView(
            subject="run_1", label="hello", from_at=LONG_AGO, until_at=LONG_AGO, accelerator_s=60.0, held_s=60.0,
            seen_s=57.0, util_pct=81.5, mem_used_max_b=2.0**30, energy_wh=1.25, energy_origin="measured",
            throttled_s=None, methods=["whole device"], open=False,
        )  # fmt: skip
        said = Reckoning(hours=24, checked=23, astray=0, apart=0)
        return JSONResponse(
            {"items": [used.model_dump(mode="json")], "reckoning": said.model_dump(mode="json")}
        )

    @app.get("/api/v1/fleet/health")
    async def fleet_health() -> Response:
        return page([])

    @app.get("/api/v1/repairs")
    async def repairs() -> Response:
        return page([])

    @app.get("/api/v1/nodes/{name}")
    async def node(name: str) -> Response:
        if name != "big":
            return problem(404, "Not found", f"no node {name}")
        slots = [
            {
                "accelerator_id": "acc_1",
                "model": "cpu-slot",
                "serial": "slot-0",
                "device_index": 0,
                "run_id": None,
            }
        ]
        return JSONResponse(_node(state).model_dump(mode="json") | {"accelerators": slots})

    @app.get("/api/v1/nodes/{name}/figures")
    async def figures(name: str) -> Response:
        return shaped(_figures(name))

    @app.post("/api/v1/nodes/{name}/test", status_code=201)
    async def test(name: str, request: Request) -> Response:
        state.moves.append((name, "test", (await request.json())["profile"]))
        return page(_figures(name).burn_ins)

    @app.post("/api/v1/nodes/{name}/declare-dead")
    async def declare_dead(name: str) -> dict[str, int]:
        state.moves.append((name, "declare-dead", ""))
        return {"released": 2}

    @app.post("/api/v1/nodes/{name}/{verb}")
    async def move(name: str, verb: str, request: Request) -> Response:
        state.moves.append((name, verb, (await request.json())["reason"]))
        return shaped(_node(state).model_copy(update={"state": f"{verb}ed"}))

    @app.post("/api/v1/join-tokens")
    async def join_token() -> dict[str, str]:
        command = "baseai agent --join http://127.0.0.1:1 --token jt_1"
        return {"token": "jt_1", "expires_at": "2026-01-02T04:04:05Z", "join_command": command}

    @app.get("/api/v1/offers")
    async def offers() -> Response:
        return page(
            [
                Offer(model="cpu-slot", site="local", total=4, free=2, price_per_hour=Decimal("0.0408")),
                Offer(
                    model="H100-SXM",
                    site="SP4",
                    total=8,
                    free=8,
                    memory_gib=80,
                    price_per_hour=Decimal("3.85"),
                ),
            ]
        )

    @app.get("/api/v1/tenants")
    async def tenants() -> Response:
        return page([_tenant(name, projects) for name, projects in state.tenants.items()])

    @app.post("/api/v1/tenants")
    async def add_tenant(request: Request) -> Response:
        name = (await request.json())["name"]
        state.tenants[name] = ["default"]
        return shaped(_tenant(name, state.tenants[name]), 201)

    @app.post("/api/v1/tenants/{name}/projects")
    async def add_project(name: str, request: Request) -> Response:
        project = (await request.json())["name"]
        state.tenants[name].append(project)
        return JSONResponse({"tenant": name, "name": project}, 201)

    @app.get("/api/v1/keys")
    async def keys() -> Response:
        return page(state.keys)

    @app.post("/api/v1/keys")
    async def add_key(asked: NewKey) -> Response:
        made = KeyView(
            key_id="key_1",
            name=asked.name,
            role=asked.role,
            tenant=asked.tenant,
            created_at=LONG_AGO,
            expires_at=LONG_AGO + timedelta(seconds=asked.expires_in_s) if asked.expires_in_s else None,
            scopes=asked.scopes or None,
            requests_per_minute=asked.requests_per_minute,
            tokens_per_minute=asked.tokens_per_minute,
        )
        state.keys.append(made)
        return shaped(made.model_copy(update={"secret": "bk_once"}), 201)

    @app.delete("/api/v1/keys/{key_id}")
    async def revoke(key_id: str) -> Response:
        state.keys = [one for one in state.keys if one.key_id != key_id]
        return Response(status_code=204)

    @app.get("/api/v1/secrets")
    async def secret_names() -> Response:
        return page([SecretView(name=name, project="default", updated_at=LONG_AGO) for name in state.secrets])

    @app.put("/api/v1/secrets/{name}")
    async def set_secret(name: str, request: Request) -> Response:
        state.secrets[name] = (await request.json())["value"]
        return shaped(SecretView(name=name, project="default", updated_at=LONG_AGO))

    @app.delete("/api/v1/secrets/{name}")
    async def remove_secret(name: str) -> Response:
        del state.secrets[name]
        return Response(status_code=204)

    @app.get("/api/v1/time")
    async def time_ledger(by: str) -> Response:
        hour_us, subject = 3_600_000_000, None if by == "bucket" else "SP4"
        sold, idle = (
            TimeRow(
                subject=subject, label=subject, bucket=bucket, accelerator_hours=Decimal(hours),
                micro_seconds=hours * hour_us, share_ratio=hours / 16, used=used, sold=used, available=True,
                fault="nobody",
            )
            for bucket, hours, used in (("on_demand", 12, True), ("reserved_unused", 4, False))
        )  # fmt: skip
        return shaped(
            TimeView(
                from_at=LONG_AGO, until_at=LONG_AGO + timedelta(hours=2), by=by, installed_hours=Decimal(16),
                installed_us=16 * hour_us, items=[sold, idle], provisional=bool(state.withheld),
                revised=3 * len(state.withheld),
                withheld=[WithheldHour(hour=LONG_AGO, site="SP4", sentence=each) for each in state.withheld],
            )
        )  # fmt: skip

    @app.get("/api/v1/books/trial-balance")
    async def trial_balance() -> Response:
        one = Balance(
            account="revenue",
            currency="USD",
            debits=Decimal(0),
            credits=Decimal("1.5"),
            balance=Decimal("-1.5"),
        )
        two = Balance(
            account="receivable",
            currency="USD",
            debits=Decimal("1.5"),
            credits=Decimal(0),
            balance=Decimal("1.5"),
        )
        return shaped(TrialBalance(at=LONG_AGO, balances=[one, two], difference=state.difference))

    @app.get("/api/v1/books/balance")
    async def balance(account: str) -> Response:
        if account != "revenue":
            return problem(404, "Not found", f"no account with a transfer {account}")
        line = Balance(
            account=account,
            currency="USD",
            debits=Decimal(0),
            credits=Decimal("1.5"),
            balance=Decimal("-1.5"),
        )
        return shaped(AccountView(at=LONG_AGO, account=account, balances=[line]))

    @app.get("/api/v1/books/periods")
    async def periods() -> Response:
        return page(
            [PeriodView(period="2020-01", state="closed", closed_by="ana", transfers=1200, digest="ab" * 32)]
        )

    @app.post("/api/v1/books/periods/{period}/close")
    async def close(period: str) -> Response:
        if state.findings:
            return shaped(CloseView(period=period, state="closing", findings=state.findings))
        return shaped(
            CloseView(period=period, state="closed", digest="ab" * 32, transfers=1200, closed_at=LONG_AGO)
        )

    @app.post("/api/v1/books/check")
    async def check() -> Response:
        return shaped(
            AuditView(ran_at=LONG_AGO, took_s=0.25, transfers=1200, digest="ab" * 32, findings=state.findings)
        )

    @app.get("/api/v1/books/transfers")
    async def transfers() -> Response:
        return page(
            [
                TransferView(
                    transfer_id="tr_1",
                    debit="receivable",
                    credit="revenue",
                    amount=Decimal("0.000417"),
                    currency="USD",
                    effective_at=LONG_AGO,
                    run_id="run_1",
                )
            ]
        )

    @app.get("/api/v1/cost")
    async def cost(subject: str | None = None) -> Response:
        if not state.may_see_money:
            return problem(403, "Forbidden", "this role may not see money")
        return page([money_of(run) for run in state.runs.values() if subject in (None, run.run_id)])

    @app.get("/api/v1/events")
    async def events() -> Response:
        return page([_event()])

    @app.get("/api/v1/me")
    async def me() -> dict[str, Any]:
        return {"name": "ana", "role": "operator", "tenant": None}

    @app.get("/api/v1/health")
    async def health() -> Response:
        return JSONResponse(state.health, 200 if state.health["status"] == "ok" else 503)

    return app


class Loopback:
    """The platform behind a port of its own, startable again on the same one."""

    def __init__(self) -> None:
        self.state = State()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        config = uvicorn.Config(
            application(self.state), port=self.port, log_level="critical", lifespan="off", ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < until, "the loopback platform did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)
            self._server = self._thread = None


async def _something(happened: Any, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not happened() and time.monotonic() < until:  # noqa: ASYNC110 - the test's own thread changes the truth
        await asyncio.sleep(0.02)


async def _broken(piece: bytes) -> AsyncIterator[bytes]:
    yield piece[: len(piece) // 2]
    raise ConnectionResetError("the cable was cut")


def _error(file: str, key: str, message: str, line: int = 1) -> SpecProblem:
    return SpecProblem(file=file, line=line, column=1, key=key, message=message, fix="write `commands`")


def _figures(name: str) -> NodeFigures:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    burn_in = BurnInView(
        run_id="run_9", node=name, model="H100-SXM", occasion="re_entry", profile="standard", asked_by="platform",
        asked_at=at, state="succeeded", verdict="passed", judged_at=at,
    )  # fmt: skip
    one = FigureView(
        run_id="run_9", profile="standard", model="H100-SXM", test="bus", variant="all_reduce", size_bytes=1 << 30,
        value=361.0, unit="GB/s", state="value", peak=450.0, ratio=361 / 450, origin="measured", at=at,
    )  # fmt: skip
    gemm = one.model_copy(
        update={
            "test": "gemm", "variant": "bf16", "accelerator_id": "acc_1", "serial": "s", "device_index": 0,
            "value": 560_000.0, "unit": "GFLOP/s", "peak": 989_000.0, "ratio": 0.566, "fleet_median": 690_000.0,
            "fleet_ratio": 0.81, "own_median": 700_000.0, "own_ratio": 0.8,
            "alert": "80% of its own median over 4 tests",
        }
    )  # fmt: skip
    heat = gemm.model_copy(
        update={
            "test": "heat", "variant": "temp_c", "value": None, "unit": "°C", "state": "unsupported", "peak": None,
            "ratio": None, "fleet_ratio": None, "own_ratio": None, "alert": None,
            "sentence": "this device has no such sensor",
        }
    )  # fmt: skip
    return NodeFigures(
        node=name, node_id="nod_1", state="ready", burn_ins=[burn_in], figures=[one, gemm, heat]
    )


def _node(state: State) -> NodeView:
    return NodeView(
        node_id="node_1",
        name="big",
        site="local",
        state="ready",
        health="healthy",
        reachable=True,
        address="127.0.0.1",
        isolation="none",
        models={"cpu-slot": 4},
        free={"cpu-slot": 2},
        memory_mib=16384,
        disk_mib=102400,
        seen_at=LONG_AGO,
        runs=[run.run_id for run in state.runs.values()],
    )


def _tenant(name: str, projects: list[str]) -> TenantView:
    return TenantView(tenant_id=f"ten_{name}", name=name, projects=projects)


def _event() -> EventView:
    return EventView(
        at=LONG_AGO,
        subject="run_1",
        event="grant",
        from_state="queued",
        to_state="starting",
        actor="controller",
    )


def _detail(run: RunView) -> RunDetail:
    lease = LeaseView(
        lease_id="lease_1",
        attempt_no=1,
        node_id="node_1",
        node="big",
        state="active",
        accelerators=["slot-0", "slot-1"],
        model="cpu-slot",
        granted_at=LONG_AGO,
        ends_at=LONG_AGO + timedelta(days=1),
    )
    checkpoint = CheckpointView(
        step=100,
        attempt_no=1,
        bytes=3 * 1024**2,
        save_s=0.21,
        stall_ms=4.2,
        path="/c/100",
        committed_at=LONG_AGO,
    )
    made_room = PreemptionView(
        attempt_no=1,
        asked_at=LONG_AGO,
        stopped_at=LONG_AGO,
        for_run="urgent",
        saved_step=100,
        lost_accelerator_s=12.5,
        resumed_step=101,
    )
    return RunDetail(
        run=run,
        leases=[lease],
        events=[_event()],
        checkpoints=[checkpoint],
        preemptions=[made_room],
        money=money_of(run),
        spec={},
    )
