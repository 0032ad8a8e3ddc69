"""The part of the loopback platform that serves: services as the door tells them, and a gateway beside them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from baseai.api.schemas import (
    ExampleView,
    ModelView,
    Page,
    ReplicaView,
    ScalingView,
    ServiceApplied,
    ServiceCost,
    ServiceCostView,
    ServiceDetail,
    ServiceVersionView,
    ServiceView,
    SloView,
    Submit,
    TrafficPoint,
    TrafficSum,
    TrafficView,
)

LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHAT_URL = "/v1/chat/completions"


def service_of(name: str = "chat", **facts: Any) -> ServiceView:
    known: dict[str, Any] = {
        "service_id": f"svc_{name}", "name": name, "tenant": "acme", "project": "default", "model_name": name,
        "model": "run:train-gpt", "engine": "chat", "protocol": "openai", "gpu": "cpu-slot:1", "state": "serving",
        "version_no": 1, "wanted": 2, "wanted_why": "6.0 requests under way, 4 a replica", "replicas": 2, "ready": 2,
        "least": 0, "most": 4, "concurrency": 4, "p99_ms": 100.0, "requests_per_s": 12.5, "error_ratio": 0.001,
        "made_by": "ana", "made_at": LONG_AGO, "url": f"http://127.0.0.1:1/s/svc_{name}",
    }  # fmt: skip
    return ServiceView(**(known | facts))


def replica_of(number: int = 1, **facts: Any) -> ReplicaView:
    known: dict[str, Any] = {
        "run_id": f"run_{number}", "run": f"chat-{number}", "run_state": "running", "version_no": 1, "state": "ready",
        "node": "n1", "address": "127.0.0.1", "port": 9000 + number, "warm_up_s": 4.25, "age_s": 60.0,
        "made_at": LONG_AGO, "ready_at": LONG_AGO,
    }  # fmt: skip
    return ReplicaView(**(known | facts))


def version_of(number: int = 1, **facts: Any) -> ServiceVersionView:
    known: dict[str, Any] = {
        "version_no": number, "state": "current", "share": 1.0, "digest": f"{number:064x}", "engine": "chat",
        "model": "run:train-gpt", "made_by": "ana", "made_at": LONG_AGO,
    }  # fmt: skip
    return ServiceVersionView(**(known | facts))


def detail_of(service: ServiceView | None = None, **facts: Any) -> ServiceDetail:
    known: dict[str, Any] = {
        "service": service or service_of(), "versions": [version_of()], "replicas": [replica_of(1), replica_of(2)],
        "scalings": [ScalingView(at=LONG_AGO, wanted=2, had=1, ready=1, demand=6.0, panic=True, why="6 under way")],
        "slo": SloView(p99_ms=100, state="kept", burn=0.4, seen_p99_ms=81.2, requests=1000), "spec": {},
    }  # fmt: skip
    return ServiceDetail(**(known | facts))


def sum_of(**facts: Any) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys(
        ("requests", "answered", "errors", "lost", "refused", "slow", "cache_hits", "collapsed", "retried", "tokens_in",
         "tokens_out", "bytes_in", "bytes_out"), 0,
    )  # fmt: skip
    return known | {"requests_per_s": 0.0, "tokens_per_s": 0.0} | facts


class Serving:
    """What is served, and what was asked for."""

    def __init__(self) -> None:
        self.coming: list[ServiceDetail] = [detail_of()]  # told one after the other; the last stays
        self.services: list[ServiceView] = [service_of()]
        self.applied = ServiceApplied(
            service=service_of(), version_no=1, made=True, rolling=False, example="curl x"
        )
        self.specs: list[str] = []
        self.steered: list[tuple[str, Any]] = []
        self.called: list[Any] = []
        self.items = [
            ServiceCost(
                currency="USD", replicas=2, accelerator_hours=Decimal("0.5"), revenue=Decimal("0.02"),
                cost=Decimal("0.004"), revenue_per_1000_requests=Decimal("0.04"),
                cost_per_1000_requests=Decimal("0.008"), requests=500, tokens=0, accruing=True,
            )
        ]  # fmt: skip

    def told(self) -> ServiceDetail:
        return self.coming.pop(0) if len(self.coming) > 1 else self.coming[0]


def _page(items: list[Any]) -> Response:
    return Response(
        Page(items=[item.model_dump(mode="json") for item in items]).model_dump_json(),
        media_type="application/json",
    )


def _shaped(shape: Any, status: int = 200) -> Response:
    return Response(shape.model_dump_json(), status, media_type="application/json")


class Holds(Protocol):
    """Whoever keeps what is served; each test begins with a new one."""

    serving: Serving


def serve(app: FastAPI, state: Holds) -> None:
    """The routes of services, and those of a gateway."""

    @app.post("/api/v1/services")
    async def apply(request: Request, dry_run: bool = False) -> Response:
        asked = Submit.model_validate_json(await request.body())
        name = yaml.safe_load(asked.spec)["name"]
        if dry_run:
            return _shaped(
                state.serving.applied.model_copy(update={"service": service_of(name), "made": False})
            )
        assert request.headers.get("idempotency-key")
        state.serving.specs.append(name)
        return _shaped(state.serving.applied, 201)

    @app.get("/api/v1/services")
    async def services() -> Response:
        return _page(state.serving.services)

    @app.get("/api/v1/services/{name}")
    async def service(request: Request, name: str) -> Response:
        base = str(request.base_url).rstrip("/")
        examples = [
            ExampleView(
                name="chat", method="POST", url=base + CHAT_URL, said="messages", streams=True, curl=f"curl {CHAT_URL}",
                body={"model": "chat", "messages": [{"role": "user", "content": "hello"}]},
            ),
            ExampleView(
                name="json", method="POST", url=f"{base}/json/chat", takes_bytes=True, body={}, curl="curl /json"
            ),
            ExampleView(name="models", method="GET", url=f"{base}/v1/models", curl="curl /v1/models"),
        ]  # fmt: skip
        return _shaped(state.serving.told().model_copy(update={"examples": examples}))

    @app.get("/api/v1/services/{name}/traffic")
    async def traffic(name: str, window: str) -> Response:
        asked = {"requests": 125, "requests_per_s": 12.5, "p50_ms": 4.1, "p95_ms": 20.0, "p99_ms": 80.0}
        point = TrafficPoint(
            at=LONG_AGO, **sum_of(**asked, error_ratio=0.008), concurrency=3.5, wanted=2, ready=1
        )
        quiet = TrafficPoint(at=LONG_AGO + timedelta(seconds=10), **sum_of(), concurrency=0.0, ready=1)
        total = TrafficSum(**sum_of(**asked, errors=1, slow=3, cache_hits=50, bytes_in=2048, bytes_out=4096))
        return _shaped(
            TrafficView(
                window=window,
                from_at=LONG_AGO,
                until_at=LONG_AGO,
                step_s=10,
                total=total,
                points=[point, quiet],
            )
        )

    @app.get("/api/v1/services/{name}/cost")
    async def cost(name: str, window: str) -> Response:
        return _shaped(
            ServiceCostView(window=window, from_at=LONG_AGO, until_at=LONG_AGO, items=state.serving.items)
        )

    @app.post("/api/v1/services/{name}/{verb}")
    async def steer(request: Request, name: str, verb: str) -> Response:
        state.serving.steered.append((verb, await request.json()))
        after = "stopped" if verb == "stop" else "serving"
        return _shaped(detail_of(service_of(name, state=after)))

    @app.get("/api/v1/models")
    async def models() -> Response:
        return _page(
            [
                ModelView(
                    model_id="mdl_1", name="chat", digest="d" * 64, tenant="acme", project="default",
                    source="run:run_1", origin_run="train-gpt", evaluation={"bits_per_byte": 1.82},
                    bytes=41_200_000, engine="chat", served_by=["chat"], made_at=LONG_AGO,
                )
            ]
        )  # fmt: skip

    # ---- the gateway

    @app.post(CHAT_URL)
    async def chat(request: Request) -> Response:
        asked = await request.json()
        state.serving.called.append(asked)
        if "messages" not in asked:
            wrong = {
                "message": "messages: is missing",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
            return JSONResponse({"error": wrong}, 400)
        headers = {"cache-status": "baseai; fwd=miss", "x-baseai-replica": "run_1", "x-baseai-version": "1"}
        if asked.get("stream"):
            return StreamingResponse(
                _streamed("Olá", ", mundo"), media_type="text/event-stream", headers=headers
            )
        return JSONResponse(
            {"choices": [{"message": {"role": "assistant", "content": "Olá"}}]}, headers=headers
        )

    @app.post("/json/chat")
    async def plain(request: Request) -> dict[str, Any]:
        return {"bytes": len(await request.body()), "type": request.headers["content-type"]}

    @app.get("/v1/models")
    async def listed() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "chat"}]}


async def _streamed(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"
        await asyncio.sleep(0.01)
    yield "data: [DONE]\n\n"
