"""The application of a replica: one loaded engine behind HTTP, as a raw ASGI callable.

Invariant: a route exists only where the engine has what it needs; nothing but the engine's own answer is said of it;
and whatever goes wrong is told in the protocol of the route. `host.py` makes one per replica and lets uvicorn serve it.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from baseai.workloads.inference.engine import (
    Busy,
    Calls,
    DeadlineOver,
    Embeds,
    Engine,
    Generates,
    Infers,
    TooLong,
)
from baseai.workloads.inference.server import completion, embedding, generation, oip, openai, plain
from baseai.workloads.inference.server.exchange import (
    JSON,
    ClientGone,
    Exchange,
    Receive,
    Scope,
    Send,
)
from baseai.workloads.inference.server.guard import shows
from baseai.workloads.inference.server.refusal import (
    Headers,
    NotOffered,
    NotTheGateway,
    Refusal,
    Spelling,
    WrongMethod,
    oip_error,
    openai_error,
    problem,
    refusal_of,
)
from baseai.workloads.inference.server.terms import Terms

__all__ = ["App", "Terms", "asgi_app"]

log = logging.getLogger(__name__)

Free = Callable[[], tuple[int, Any]]
"""Answers a GET without the model: a status and a JSON-ready body."""

Work = Callable[[Exchange, bytes], Awaitable[None]]
"""Answers a POST by the model, given its body."""

READY = "/baseai/ready"  # open to all: it tells who is here, and asks nothing of the model
RETRY_AFTER_S = 1.0
PROBLEM: Headers = ((b"content-type", b"application/problem+json"),)


class App:
    """The ASGI callable. `under_way` and `draining` are for the host, which ends the process when nothing is left."""

    def __init__(self, engine: Engine, terms: Terms, facts: Mapping[str, Any]) -> None:
        self.engine = engine
        self.terms = terms
        self.facts = facts
        self.under_way = 0  # requests to the model that are not answered yet
        self.served = 0  # requests to the model that are answered, well or badly
        self.draining = False  # set by the host: readiness says no, requests are still taken
        self._most_under_way = 2 * terms.concurrency  # gateways do not know of each other
        described = engine.describe()
        self._free: dict[str, Free] = {READY: self._ready}
        self._free |= openai.routes(terms) | oip.routes(engine, terms, lambda: not self.draining)
        self._work: dict[str, Work] = {}
        if isinstance(engine, Generates):
            self._work |= completion.routes(engine, described, terms) | generation.routes(engine, terms)
        if isinstance(engine, Embeds):
            self._work |= embedding.routes(engine, terms)
        if isinstance(engine, Infers):
            self._work |= oip.infer_routes(engine, described, terms)
        if isinstance(engine, Calls):
            self._work |= plain.routes(engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self._answered(exchange)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if exchange.ended is None or task is None:
                raise  # the server itself is ending
            task.uncancel()
            if exchange.ended == "deadline":
                await _refuse(exchange, DeadlineOver(exchange.call.request_id))
        except Exception as wrong:  # noqa: BLE001  whatever an engine or a user's callable raises is told
            await _refuse(exchange, wrong)

    async def _answered(self, exchange: Exchange) -> None:
        if exchange.path != READY and not self._admits(exchange):
            raise NotTheGateway
        work = self._work.get(exchange.path)
        if work is None or exchange.method != "POST":
            await self._answered_freely(exchange)
            return
        if self.under_way >= self._most_under_way:
            raise Busy(self.terms.concurrency, RETRY_AFTER_S)
        self.under_way += 1
        try:
            body = await exchange.body(self.terms.most_body_bytes)
            if exchange.is_over:
                raise DeadlineOver(exchange.call.request_id)
            exchange.watch()
            await work(exchange, body)
        finally:
            exchange.unwatch()
            self.under_way -= 1
            self.served += 1

    def _admits(self, exchange: Exchange) -> bool:
        token = self.terms.token
        return token is None or shows(exchange.headers.get(b"authorization"), token)

    async def _answered_freely(self, exchange: Exchange) -> None:
        free = self._free.get(exchange.path)
        if free is not None and exchange.method in ("GET", "HEAD"):
            status, told = free()
            await exchange.answer(status, json.dumps(told).encode())
        elif free is not None:
            raise WrongMethod(exchange.method, exchange.path, "GET")
        elif exchange.path in self._work:
            raise WrongMethod(exchange.method, exchange.path, "POST")
        else:
            openai.refuse_other_models(exchange.path, self.terms)
            oip.refuse_other_models(exchange.path, self.terms)
            raise NotOffered(exchange.method, exchange.path, self._offered())

    def _offered(self) -> tuple[str, ...]:
        """What does something here, under the name that clients know; not the run's own, nor each version's."""
        own = oip.MODELS + self.terms.model_name + "/"
        named = [path for path in self._work if path.startswith(own) or not path.startswith(oip.MODELS)]
        return tuple(sorted(path for path in named if not path.startswith(own + "versions/")))

    def _ready(self) -> tuple[int, Any]:
        described = self.engine.describe()
        told = {
            "ready": not self.draining,
            "model": self.terms.model_name,
            "version": self.terms.version,
            "platform": described.platform,
            "digest": described.digest,
            "under_way": self.under_way,
            "served": self.served,
        }
        return 503 if self.draining else 200, told | {"facts": {**described.facts, **self.facts}}


def asgi_app(engine: Engine, terms: Terms, *, facts: Mapping[str, Any] | None = None) -> App:
    """The application over a loaded engine. `facts` is what `GET /baseai/ready` says beside what the engine says."""
    return App(engine, terms, facts or {})


async def _refuse(exchange: Exchange, wrong: Exception) -> None:
    """Tell what went wrong; within a stream as its last event."""
    refusal = refusal_of(wrong)
    if isinstance(wrong, TooLong):
        refusal = replace(refusal, param=openai.TEXTS_IN.get(exchange.path))
    request_id = exchange.call.request_id or "without id"
    if refusal.is_ours:
        log.error("request %s to %s failed", request_id, exchange.path, exc_info=wrong)
    else:
        log.info(
            "request %s to %s refused with %d: %s",
            request_id,
            exchange.path,
            refusal.status,
            refusal.sentence,
        )
    spelling, headers = _spelled(exchange.path)
    if exchange.began:
        await _refuse_in_stream(exchange, refusal, spelling)
        return
    await exchange.answer(refusal.status, spelling(refusal), (*headers, *refusal.headers))


async def _refuse_in_stream(exchange: Exchange, refusal: Refusal, spelling: Spelling) -> None:
    end = "data: [DONE]\n\n" if spelling is openai_error else ""
    await exchange.events(f"data: {spelling(refusal).decode()}\n\n{end}")
    await exchange.end_events()


def _spelled(path: str) -> tuple[Spelling, Headers]:
    if path.startswith("/v1/"):
        return openai_error, JSON
    if path == "/v2" or path.startswith("/v2/"):
        return oip_error, JSON
    return problem, PROBLEM


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
