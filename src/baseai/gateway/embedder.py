"""The embedder turns a text into a vector by asking a service of the same project that embeds, as any client would.

Invariant: no model runs in a gateway. What is asked on a tenant's behalf is admitted, balanced, counted and charged
like his own request, and its answer is kept like any other. Without such a service, or in time, there is no vector.
"""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import numpy as np

from baseai.gateway.nearness import Vector, unit
from baseai.gateway.seams import Caller
from baseai.serving.route import Route, Routes

WITHIN_S = 2.0
Message = MutableMapping[str, Any]

log = logging.getLogger(__name__)
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Lends(Protocol):
    """Who gives a key for the gateway's own questions."""

    def on_behalf(self, caller: Caller) -> bytes:
        """The value of `authorization` that stands for this caller, in this process alone."""


class TenantEmbedder:
    """Asks `app` itself. `routes` gives those that stand."""

    def __init__(self, app: App, keys: Lends, routes: Callable[[], Routes]) -> None:
        self._app = app
        self._keys = keys
        self._routes = routes

    async def vector(self, route: Route, text: str) -> Vector | None:
        """The text's vector, of length 1; None when nobody embeds it in time."""
        service = self._service(route)
        if service is None:
            return None
        name = service.terms.model_name
        body = json.dumps({"model": name, "input": text, "encoding_format": "base64"}).encode()
        asking = asyncio.ensure_future(self._answer(service, body))
        try:
            done, _ = await asyncio.wait({asking}, timeout=WITHIN_S)
        finally:
            asking.cancel()
        if not done:
            return None
        if (wrong := asking.exception()) is not None:
            log.error("asking %s for a vector failed", service.service_id, exc_info=wrong)
            return None
        answer = asking.result()
        return None if answer is None else vector_in(answer)

    def _service(self, route: Route) -> Route | None:
        """The project's service that embeds; of several, the oldest."""
        able = (
            one
            for one in self._routes().by_id.values()
            if one.terms.engine == "embeddings"
            and one.project_id == route.project_id
            and any(not backend.draining for backend in one.backends)
        )
        return min(able, key=lambda one: one.service_id, default=None)

    async def _answer(self, service: Route, body: bytes) -> bytes | None:
        caller = Caller(
            key_id="gateway",
            tenant_id=service.tenant_id,
            project_id=service.project_id,
            services=frozenset({service.name}),
        )
        path = f"/s/{service.service_id}/v1/embeddings"
        headers = [
            (b"authorization", self._keys.on_behalf(caller)),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
                 "raw_path": path.encode(), "query_string": b"", "headers": headers, "client": None}  # fmt: skip
        whole, parts, status = asyncio.Event(), [], 0

        async def receive() -> Message:
            if not whole.is_set():
                whole.set()
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.get_running_loop().create_future()  # this client leaves by being cancelled
            raise AssertionError("nobody resolves it")

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return b"".join(parts) if status == 200 else None


def vector_in(answer: bytes) -> Vector | None:
    """The vector of an answer to `/v1/embeddings`, base64 or numbers; None for anything else."""
    try:
        told = json.loads(answer)["data"][0]["embedding"]
        if isinstance(told, str):
            return unit(np.frombuffer(base64.b64decode(told, validate=True), dtype="<f4"))
        return unit(np.asarray(told, dtype=np.float32))
    except (ValueError, KeyError, IndexError, TypeError):
        return None
