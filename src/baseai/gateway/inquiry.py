"""An inquiry is what a request turns out to be: who asks, for which service, with what body.

Invariant: nobody's body is read before his key is known to be good, no more of it than the service takes, and nobody
learns of a service that he may not call. Its passage lets it `understand` itself once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from baseai.gateway.address import Address, address_of
from baseai.gateway.door import Door
from baseai.gateway.head import Incoming
from baseai.gateway.protocol import NOTHING_ASKED, Asked, asked_of
from baseai.gateway.refusal import Refusal
from baseai.gateway.seams import Caller, Denied
from baseai.serving.route import Route

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NO_SERVICE = Refusal(
    404,
    "not_found",
    "there is no such service, or this key may not call it; GET /v1/models lists those it may call",
    hopeless=True,
)
NO_PATH = NO_SERVICE._replace(
    sentence="nothing is here; there are /v1/…, /v2/models/NAME/…, /json/NAME and /s/SERVICE_ID/…"
)
NO_ROUTES = Refusal(
    503,
    "starting",
    "this gateway has just started and does not know its services yet; try again in a second",
    retry_after_s=1.0,
)
NO_MODEL = Refusal(
    400, "missing_model", "`model` is missing; GET /v1/models lists the models", hopeless=True, param="model"
)
SLOW_BODY = Refusal(
    408, "body_slow", "the request's body did not arrive in time", retry_after_s=1.0, closes=True
)


class ClientGone(Exception):
    """The client left before he had said what he wants; never seen outside the passage."""


class Inquiry:
    """One request, understood step by step; what is known so far stands in its fields."""

    __slots__ = (
        "_door",
        "_receive",
        "_scope",
        "address",
        "asked",
        "body",
        "caller",
        "incoming",
        "read",
        "route",
    )

    def __init__(self, door: Door, scope: Message, receive: Receive) -> None:
        self._door = door
        self._scope = scope
        self._receive = receive
        self.incoming = Incoming(scope["headers"])
        self.address = address_of(scope["raw_path"])
        self.caller: Caller | None = None
        self.route: Route | None = None
        self.asked: Asked = NOTHING_ASKED
        self.body = b""
        self.read = False  # the body was asked for, if not to its end

    async def understand(self) -> Refusal | None:
        """None when all of it is good; then `address`, `route`, `asked` and `body` are there. Raises ClientGone."""
        address = self.address
        if address is None:
            return NO_PATH
        if self._door.routes_at_s is None:
            return NO_ROUTES
        by_id = None if address.service_id is None else self._door.routes.by_id.get(address.service_id)
        if by_id is None or by_id.terms.auth:
            caller = await known_caller(self._door, self.incoming)
            if isinstance(caller, Denied):
                return no_of(caller)
            self.caller = caller
        in_path = address.service_id is not None or address.model is not None
        if in_path:
            route = by_id if address.model is None or by_id is not None else self._named(address.model)
            if route is None or not self._may_see(route):
                return NO_SERVICE
            self.route = route
        wrong = await self._read_body()
        if wrong is not None:
            return wrong
        asked = asked_of(address, self._scope["method"], self.body)
        if isinstance(asked, Refusal):
            return asked
        self.asked = asked
        return None if in_path else self._find_by_body(address)

    def _named(self, model: str) -> Route | None:
        tenant_id = None if self.caller is None else self.caller.tenant_id
        return self._door.routes.named(tenant_id, model)

    def _may_see(self, route: Route) -> bool:
        return not route.terms.auth if self.caller is None else may_see(self.caller, route)

    def _find_by_body(self, address: Address) -> Refusal | None:
        model = self.asked.model
        if model is None:
            return NO_MODEL if self._scope["method"] == "POST" else NO_PATH
        route = self._named(model)
        if route is None or not self._may_see(route):
            return Refusal(
                404,
                "model_not_found",
                f"there is no model {model[:100]!r}, or not for this key; GET /v1/models lists the models",
                hopeless=True,
                param="model",
            )
        self.route = route
        most = route.terms.most_body_bytes
        return _too_long(most) if len(self.body) > most else None

    async def _read_body(self) -> Refusal | None:
        settings = self._door.settings
        most = settings.most_body_bytes if self.route is None else self.route.terms.most_body_bytes
        announced = self.incoming.content_length
        if announced is not None and announced.isdigit() and int(announced) > most:
            return _too_long(most)
        self.read = True
        message = await self._receive()
        if message["type"] != "http.disconnect" and not message.get("more_body", False):
            self.body = message.get("body", b"")
        else:
            try:
                async with asyncio.timeout(settings.body_s):
                    self.body = await self._rest(message, most)
            except TimeoutError:
                return SLOW_BODY
        return _too_long(most) if len(self.body) > most else None

    async def _rest(self, message: Message, most: int) -> bytes:
        """The body from its first message on, or at least so much of it that it is too much."""
        pieces: list[bytes] = []
        length = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            length += len(pieces[-1])
            if length > most or not message.get("more_body", False):
                return b"".join(pieces)
            message = await self._receive()


async def known_caller(door: Door, incoming: Incoming) -> Caller | Denied:
    """Who shows this key: from memory, else as the database says."""
    caller = door.keys.known(incoming.authorization, wall_s=time.time())
    if caller is None:
        assert incoming.authorization is not None  # without one the answer is always known
        caller = await door.keys.fetch(incoming.authorization, wall_s=time.time())
    return caller


def may_see(caller: Caller, route: Route) -> bool:
    """Whether a caller may know of a service, and call it."""
    return (
        caller.tenant_id in (None, route.tenant_id)
        and caller.project_id in (None, route.project_id)
        and (caller.services is None or route.name in caller.services)
    )


def no_of(denied: Denied) -> Refusal:
    """The no to somebody who is not let in."""
    return Refusal(
        denied.status,
        denied.code,
        denied.sentence,
        hopeless=denied.status in (401, 403),
        retry_after_s=1.0 if denied.status >= 500 else None,
    )


def _too_long(most: int) -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"the body is longer than {most} bytes, the most that is taken here (`max_body` of the service)",
        hopeless=True,
        closes=True,
    )
