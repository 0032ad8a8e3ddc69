"""Trying a service from its page: through the gateway, with a key of its tenant that opens nothing else."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from baseai.ground.identity import KeyId
from baseai.serving.example import JSON, Example
from baseai.tenancy.key import Holder
from baseai.tenancy.postgres import Tenancy
from baseai.tenancy.role import Role
from baseai.truth.session import PLATFORM, Truth
from baseai.web.doors import GatewayAway
from baseai.wiring.playground import Playground

pytestmark = pytest.mark.anyio
ADA = Holder(
    key_id=KeyId("key_ada"), name="ada", role=Role.OPERATOR, tenant_id=None, project_id=None, node_id=None
)
MAGIKA = {"service_id": "svc_1", "name": "magika", "tenant": "acme", "auth": True}
ASK = Example(name="json", method="POST", path="/json/magika", body={"text": "x"})


class Gateway:
    """A peer that notes whose key it was shown, and answers in two pieces."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.left = asyncio.Event()
        self.endless = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = (await receive())["body"]
        self.asked.append((scope["method"], scope["path"], headers.get("authorization", ""), body))
        start = [(b"content-type", b"application/json"), (b"Cache-Status", b"baseai; hit")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": b'{"answer":', "more_body": True})
        if self.endless:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
            return
        await send({"type": "http.response.body", "body": b" 1}"})


@asynccontextmanager
async def listening(gateway: Gateway) -> AsyncIterator[str]:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        config = uvicorn.Config(gateway, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[line]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells it by nothing else
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{line.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
async def tenancy(truth: Truth) -> Tenancy:
    made = Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)
    await made.make_tenant("acme", actor="test")
    return made


async def test_a_request_goes_with_a_key_that_opens_this_service_alone(tenancy: Tenancy) -> None:
    gateway = Gateway()
    async with listening(gateway) as url:
        playground = Playground(tenancy, url)
        for _ in range(2):
            called = await playground.call(ADA, MAGIKA, ASK, ASK.body_with(), JSON)
            assert b"".join([piece async for piece in called.pieces]) == b'{"answer": 1}'
            assert (called.status, called.headers["cache-status"]) == (200, "baseai; hit")
        await playground.close()
    [(method, path, shown, body), (_, _, again, _)] = gateway.asked
    assert (method, path, json.loads(body)) == ("POST", "/json/magika", {"text": "x"})
    assert shown == again  # one key for one person and service
    holder = await tenancy.holder(shown.removeprefix("Bearer "))
    assert (holder.role, holder.scopes, holder.name) == (
        Role.CUSTOMER,
        ("service:magika",),
        "playground of ada",
    )
    assert holder.expires_at is not None
    assert len(await tenancy.keys(PLATFORM)) == 1


async def test_a_service_that_asks_for_no_key_is_shown_none(tenancy: Tenancy) -> None:
    gateway = Gateway()
    async with listening(gateway) as url:
        playground = Playground(tenancy, url)
        called = await playground.call(ADA, MAGIKA | {"auth": False}, ASK, b"{}", JSON)
        assert [piece async for piece in called.pieces]
        await playground.close()
    assert gateway.asked[0][2] == ""
    assert await tenancy.keys(PLATFORM) == []


async def test_who_leaves_ends_the_request_behind_it(tenancy: Tenancy) -> None:
    gateway = Gateway()
    gateway.endless = True
    async with listening(gateway) as url:
        playground = Playground(tenancy, url)
        called = await playground.call(ADA, MAGIKA, ASK, b"{}", JSON)
        assert await anext(called.pieces) == b'{"answer":'
        await called.pieces.aclose()
        await asyncio.wait_for(gateway.left.wait(), 5)
        await playground.close()


async def test_a_gateway_that_is_away_is_a_fault_that_may_pass(tenancy: Tenancy) -> None:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))  # bound, and nobody listens
        playground = Playground(tenancy, f"http://127.0.0.1:{line.getsockname()[1]}")
        with pytest.raises(GatewayAway) as raised:
            await playground.call(ADA, MAGIKA, ASK, b"{}", JSON)
        await playground.close()
    assert raised.value.retryable
