"""The addresses of services: all of them, one with its charts, what it costs and requests to try, and the models.

Invariant: a request that is tried goes to the gateway as any client's does, for whoever is signed in and may call
models; what comes back is shown as text or data, never as a page of ours. Nothing here decides.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from baseai.ground.fault import Fault, NotFound, Refused
from baseai.serving.example import BYTES, JSON, Example, url_of
from baseai.tenancy.role import Deed
from baseai.views.services.traffic import WINDOWS
from baseai.web.doors import GatewayAway, News, Row, Serving
from baseai.web.service_page import CHARTS, chart_json, terms_of, tried
from baseai.web.visit import Visit, refuse_strangers

FIRST_WINDOW = "15m"
COST_WINDOW = "24h"  # of what a service costs, whatever the charts show
SERVICES_PER_PAGE = 50
MODELS_PER_PAGE = 50
KEPT_S = 5.0  # sums over a window are not asked for again within this time
KEPT = 256
SERIES_EVERY_S = 10.0  # gateways tell ten seconds at a time
TRIED_BYTES_MAX = 1 << 20
PARTS = ("state", "figures", "money", "versions", "replicas", "scalings")
SHOWN = ("cache-status", "x-baseai-replica", "x-baseai-version", "x-request-id", "retry-after")
Facts = dict[str, Any]


class Renders(Protocol):
    """What of all pages these need: who visits, the answer, and the stream of a live page."""

    async def visit(self, request: Request, *deeds: Deed) -> Visit:
        """Raises NotAdmitted or, where the role covers none of `deeds`, NotAllowed."""

    def page(self, request: Request, visit: Visit, template: str, **facts: Any) -> Response: ...

    def drawn(self, request: Request, told: Facts) -> Response: ...

    def live(
        self, request: Request, visit: Visit, changes: AsyncIterator[None], parts: Sequence[str], folder: str,
        facts: Callable[[], Awaitable[Facts]], beside: AsyncGenerator[str, None] | None = None,
    ) -> Response: ...  # fmt: skip


class ServicePages:
    """What the pages of services read."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._kept: dict[tuple[str, str | None, str, str], tuple[float, Row]] = {}

    async def services(self, visit: Visit, query: Mapping[str, str]) -> Facts:
        """All that were not stopped, or with them those that were. Raises Refused for a cursor that is none."""
        everything = query.get("state") == "all"
        rows, more = await self._serving.views.services(
            visit.scope, everything=everything, limit=SERVICES_PER_PAGE, cursor=query.get("cursor")
        )
        return {"services": rows, "more": more, "everything": everything}

    async def models(self, visit: Visit, query: Mapping[str, str]) -> Facts:
        rows, more = await self._serving.views.models(
            visit.scope, limit=MODELS_PER_PAGE, cursor=query.get("cursor")
        )
        return {"models": rows, "more": more}

    async def service(self, visit: Visit, name: str, window: str) -> Facts:
        """The whole page. Raises NotFound, also for another tenant's."""
        views = self._serving.views
        detail = await views.service(visit.scope, name)
        service_id = detail["service"]["service_id"]
        traffic = await self._once("traffic", visit, service_id, window, views.traffic)
        money: Sequence[Row] = ()
        if visit.sees_charges:
            cost = self._serving.money.service_cost
            money = (await self._once("cost", visit, service_id, COST_WINDOW, cost))["items"]
        return {
            **detail, "total": traffic["total"], "money": money, "cost_window": COST_WINDOW, "back": WINDOWS[window],
            "ended": detail["service"]["state"] == "stopped", "charts": CHARTS, "terms": terms_of(detail),
            "examples": self._examples(visit, detail), "try_it": self._may_try(visit, detail),
            "address": self._serving.gateway_url and url_of(self._serving.gateway_url, service_id),
        }  # fmt: skip

    async def series(self, visit: Visit, name: str, window: str) -> Facts:
        """What its charts draw. Raises NotFound."""
        views = self._serving.views
        detail = await views.service(visit.scope, name)
        traffic = await self._once("traffic", visit, detail["service"]["service_id"], window, views.traffic)
        return chart_json(traffic, detail, visit.language)

    async def series_told(self, visit: Visit, name: str, window: str) -> AsyncGenerator[str, None]:
        """Event `series`, the whole of what the page draws, every SERIES_EVERY_S."""
        while True:
            await asyncio.sleep(SERIES_EVERY_S)
            try:
                told = await self.series(visit, name, window)
            except Fault as fault:
                if not fault.retryable:
                    return
                continue
            yield f"event: series\ndata: {json.dumps(told, separators=(',', ':'))}\n\n"

    async def example(self, visit: Visit, name: str, what: str) -> tuple[Row, Example]:
        """A service and one of its requests. Raises NotFound for either, Refused where it cannot be tried."""
        detail = await self._serving.views.service(visit.scope, name)
        found = next((each for each in tried(detail, by_name=True) if each.name == what), None)
        if found is None:
            raise NotFound("request", what)
        if not self._may_try(visit, detail):
            raise Refused("this service takes no requests")
        return detail["service"], found

    def _may_try(self, visit: Visit, detail: Row) -> bool:
        runs = self._serving.calls is not None and detail["service"]["state"] != "stopped"
        return runs and visit.may(Deed.CALL_MODELS)

    def _examples(self, visit: Visit, detail: Row) -> list[Facts]:
        """Requests with what a form begins with, and as a command."""
        url, terms = self._serving.gateway_url, terms_of(detail)
        return [
            {
                "name": each.name, "method": each.method, "path": each.path, "said": each.said, "text": each.text,
                "streams": each.streams,
                "body": None if each.body is None else json.dumps(each.body, indent=2, ensure_ascii=False),
                "curl": url and each.curl(url, with_key=terms.auth),
            }
            for each in tried(detail, by_name=visit.scope.tenant_id is not None)
        ]  # fmt: skip

    async def _once(
        self, what: str, visit: Visit, service_id: str, window: str, ask: Callable[..., Awaitable[Row]]
    ) -> Row:
        """A sum over a window, at most KEPT_S old: many may watch one service."""
        key = (what, visit.scope.tenant_id, service_id, window)
        kept = self._kept.get(key)
        if kept is None or time.monotonic() - kept[0] > KEPT_S:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            kept = self._kept[key] = (time.monotonic(), await ask(visit.scope, service_id, window))
        return kept[1]


def routes(pages: Renders, router: APIRouter, serving: Serving, news: News) -> None:
    """The addresses below /services, and /models."""
    own = ServicePages(serving)

    @router.get("/services")
    async def services(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        return pages.page(request, visit, "services.html", **await own.services(visit, request.query_params))

    @router.get("/services/live")
    async def services_live(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        query = dict(request.query_params)
        return pages.live(
            request, visit, news.serving_changes(), ("services",), "", lambda: own.services(visit, query)
        )

    @router.get("/services/{name}")
    async def service(request: Request, name: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        facts = await own.service(visit, name, _window(request))
        return pages.page(request, visit, "service.html", parts=PARTS, windows=tuple(WINDOWS), **facts)

    @router.get("/services/{name}/series")
    async def series(request: Request, name: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        return pages.drawn(request, await own.series(visit, name, _window(request)))

    @router.get("/services/{name}/live")
    async def live(request: Request, name: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        window = _window(request)
        await serving.views.service(visit.scope, name)  # 404 before anything is told
        return pages.live(
            request, visit, news.serving_changes(), PARTS, "service_", lambda: own.service(visit, name, window),
            own.series_told(visit, name, window),
        )  # fmt: skip

    @router.post("/services/{name}/try/{what}")
    async def try_it(request: Request, name: str, what: str) -> Response:
        """Send one request for the visitor and pass on what comes back, as it comes."""
        refuse_strangers(request)
        visit = await pages.visit(request, Deed.CALL_MODELS)
        service, example = await own.example(visit, name, what)
        body = _body(
            example, await request.body(), stream="text/event-stream" in request.headers.get("accept", "")
        )
        assert serving.calls is not None
        try:
            called = await serving.calls.call(visit.holder, service, example, *body)
        except GatewayAway as away:
            return JSONResponse({"error": {"message": str(away)}}, 503, {"Retry-After": "2"})
        headers = {header: called.headers[header] for header in SHOWN if header in called.headers}
        return StreamingResponse(
            _passed_on(called.pieces),
            status_code=called.status,
            media_type=_safe_type(called.headers.get("content-type", "")),
            headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @router.get("/models")
    async def models(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        return pages.page(request, visit, "models.html", **await own.models(visit, request.query_params))


def _window(request: Request) -> str:
    """The window an address asks for, or the first."""
    asked = request.query_params.get("back", FIRST_WINDOW)
    return asked if asked in WINDOWS else FIRST_WINDOW


def _body(example: Example, form: bytes, *, stream: bool) -> tuple[bytes, str]:
    """What is sent, and its media type: the example with a form's text, or what was written out. Raises Refused."""
    if len(form) > TRIED_BYTES_MAX:
        raise Refused("a request that is tried here has at most 1 MiB")
    said = parse_qs(form.decode("utf-8", "replace"), keep_blank_values=True)
    if "body" not in said or example.said is not None:
        return example.body_with(said["text"][0] if "text" in said else None, stream=stream), JSON
    text = said["body"][0]
    try:
        json.loads(text)
    except ValueError as wrong:
        if example.takes_bytes:
            return text.encode(), BYTES
        raise Refused(f"the request is no JSON: {wrong}") from wrong
    return text.encode(), JSON


def _safe_type(told: str) -> str:
    """What a browser may make of an answer that somebody's program gave: data or text, never a page or a script."""
    kind = told.partition(";")[0].strip().lower()
    if kind in ("application/json", "application/problem+json", "text/event-stream"):
        return kind
    return "text/plain; charset=utf-8"


async def _passed_on(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The pieces; whoever leaves ends the request behind it as well."""
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
