"""The playground is where somebody who is signed in tries a service from its page, without a key in the browser.

Invariant: a request goes through the gateway like any other, counted, limited and billed, with a key of the service's
tenant that opens this one service and soon ends; the key never leaves this process.
"""

import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from baseai.serving.example import Example
from baseai.tenancy.key import Holder
from baseai.tenancy.key_scope import SERVICE
from baseai.tenancy.postgres import Tenancy
from baseai.tenancy.role import Role
from baseai.web.doors import Called, GatewayAway, Row

KEY_LIVES = timedelta(minutes=30)
KEY_USED_S = 20 * 60.0  # then another is made, long before it ends
KEYS_MAX = 1_000
CONNECT_S = 5.0
ANSWER_S = 300.0  # between two pieces; the service's own time-out is the gateway's to keep


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lent:
    text: str
    made_s: float


class Playground:
    """Requests to services, sent for people who look at their pages."""

    def __init__(self, tenancy: Tenancy, gateway_url: str, *, ca_file: Path | None = None) -> None:
        self._tenancy = tenancy
        self._url = gateway_url
        self._ca_file = ca_file
        self._client: httpx.AsyncClient | None = None
        self._lent: dict[tuple[str, str], _Lent] = {}

    async def call(
        self, holder: Holder, service: Row, example: Example, body: bytes, media_type: str
    ) -> Called:
        """Raises GatewayAway."""
        headers = {"User-Agent": "baseai-playground"}
        if service["auth"]:
            headers["Authorization"] = f"Bearer {await self._key(holder, service)}"
        if body:
            headers["Content-Type"] = media_type
        stack = AsyncExitStack()
        try:
            reply = await stack.enter_async_context(
                self._open().stream(example.method, self._url + example.path, content=body, headers=headers)
            )
        except httpx.HTTPError as wrong:
            await stack.aclose()
            raise GatewayAway(str(wrong) or type(wrong).__name__) from wrong
        told = {name.lower(): value for name, value in reply.headers.items()}
        return Called(status=reply.status_code, headers=told, pieces=_pieces(reply, stack))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _key(self, holder: Holder, service: Row) -> str:
        """A key that opens this service alone, made when the one before is old."""
        place = (holder.key_id, service["service_id"])
        lent = self._lent.get(place)
        if lent is None or time.monotonic() - lent.made_s > KEY_USED_S:
            made = await self._tenancy.make_key(
                f"playground of {holder.name}",
                Role.CUSTOMER,
                actor=holder.name,
                tenant=service["tenant"],
                expires_in=KEY_LIVES,
                scopes=(f"{SERVICE}{service['name']}",),
            )
            if len(self._lent) >= KEYS_MAX:
                self._lent.clear()
            lent = self._lent[place] = _Lent(text=made["secret"], made_s=time.monotonic())
        return lent.text

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            trust: ssl.SSLContext | bool = self._url.startswith("https:")
            if trust and self._ca_file is not None:
                trust = ssl.create_default_context(cafile=str(self._ca_file))
            timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
            self._client = httpx.AsyncClient(verify=trust, timeout=timeout, trust_env=False)
        return self._client


async def _pieces(reply: httpx.Response, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Leaving it ends the request at the gateway too; one torn off just ends."""
    try:
        async for piece in reply.aiter_bytes():
            yield piece
    except httpx.HTTPError:
        return  # the head is out already: all that can be said is that no more comes
    finally:
        await stack.aclose()
