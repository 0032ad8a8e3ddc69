"""The gateway's own pages: its health, its figures, and the lists of models, answered from what it knows.

Invariant: none of them asks a replica, so looking wakes no service and costs nobody a place; what needs no key names no
service and no tenant. Everything here is GET.
"""

import json
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from baseai.gateway.address import MODELS, Kind
from baseai.gateway.door import Door, steady_s
from baseai.gateway.figures import exposition
from baseai.gateway.head import Incoming, request_id_of
from baseai.gateway.inquiry import NO_ROUTES, NO_SERVICE, Message, Send, known_caller, may_see, no_of
from baseai.gateway.refusal import JSON, Refusal, body_of, headers_of
from baseai.gateway.seams import Denied
from baseai.ground.identity import mint
from baseai.serving.route import Route

LISTS = "/v1/models"
VERSION = re.compile("versions/[^/]+")


class Page(NamedTuple):
    """One answer of the gateway's own."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def own_page(door: Door, scope: Message) -> Page | None:
    """The page at this path; None where a path is not the gateway's own."""
    path: str = scope["path"]
    if scope["method"] not in ("GET", "HEAD"):
        return None
    if path == "/health":
        return _json(200, health(door))
    if path == "/metrics":
        return Page(200, [(b"content-type", b"text/plain; version=0.0.4")], exposition(door))
    if path == "/v2":
        return _json(200, {"name": "baseai", "version": "2", "extensions": []})
    if path == "/v2/health/live":
        return _json(200, {"live": True})
    if path == "/v2/health/ready":
        return _json(200 if door.routes_at_s is not None else 503, {"ready": door.routes_at_s is not None})
    if path == LISTS or path.startswith(LISTS + "/"):
        return await _for_caller(door, scope, "openai", unquote(path[len(LISTS) + 1 :]))
    if path.startswith(MODELS.decode()) and path.endswith("/ready"):
        name, _, version = path[len(MODELS) : -len("/ready")].partition("/")
        if version and not VERSION.fullmatch(version):
            return None
        return await _for_caller(door, scope, "oip", name)
    return None


def health(door: Door) -> dict[str, Any]:
    """Whether this process takes requests, and how old its routes are."""
    age_s = None if door.routes_at_s is None else round(steady_s() - door.routes_at_s, 1)
    old = age_s is None or age_s > door.settings.routes_old_after_s
    said = "no routes yet" if age_s is None else f"routes are {age_s:g} s old, the database is away"
    return {"status": "ok", "routes_age_s": age_s, "routes_old": old, **({"sentence": said} if old else {})}


async def _for_caller(door: Door, scope: Message, kind: Kind, name: str) -> Page:
    """What only a caller may see: OpenAI's models, or whether one of OIP's is ready."""
    incoming = Incoming(scope["headers"])
    if door.routes_at_s is None:
        return _refused(NO_ROUTES, kind, incoming)
    caller = await known_caller(door, incoming)
    if isinstance(caller, Denied):
        return _refused(no_of(caller), kind, incoming)
    if not name:
        seen = [route for route in door.routes.by_id.values() if may_see(caller, route)]
        models = [_model(route) for route in sorted(seen, key=lambda route: route.terms.model_name)]
        return _json(200, {"object": "list", "data": models})
    route = door.routes.named(caller.tenant_id, name)
    if route is None or not may_see(caller, route):
        return _refused(NO_SERVICE, kind, incoming)
    if kind == "openai":
        return _json(200, _model(route))
    ready = any(not backend.draining for backend in route.backends)
    return _json(200 if ready else 503, {"name": route.terms.model_name, "ready": ready})


def _model(route: Route) -> dict[str, Any]:
    """OpenAI's object. `created` is what a route does not know; 0 is its documented least."""
    return {"id": route.terms.model_name, "object": "model", "created": 0, "owned_by": route.project_id}


def _json(status: int, body: dict[str, Any]) -> Page:
    return Page(status, [JSON], json.dumps(body).encode())


def _refused(refusal: Refusal, kind: Kind, incoming: Incoming) -> Page:
    request_id = request_id_of(incoming.request_id) or mint("req")
    body = body_of(refusal, kind, request_id)
    headers = [pair for pair in headers_of(refusal, kind, len(body)) if pair[0] != b"content-length"]
    return Page(refusal.status, [*headers, (b"x-request-id", request_id.encode())], body)


async def show(page: Page, send: Send) -> None:
    """Send it."""
    length = (b"content-length", b"%d" % len(page.body))
    await send({"type": "http.response.start", "status": page.status, "headers": [*page.headers, length]})
    await send({"type": "http.response.body", "body": page.body, "more_body": False})
