"""Replicas of a gateway's tests: real servers on loopback that answer as told, and a gateway in front of them."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import uvicorn

from baseai.gateway.app import GatewayApp
from baseai.gateway.door import Door, DoorSettings
from baseai.gateway.seams import Admitted, Cache, Caller, Denied, Limited, Told
from baseai.gateway.server import ServerSettings, gateway_server
from baseai.serving.route import Backend, Route, RoutedVersion, routes_of
from baseai.workloads.service import Scaling, Service

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

KEY = {"authorization": "Bearer good"}


@dataclass
class Seen:
    """One request as a replica got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


async def until(so: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait until it is so. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not so():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


class Replica:
    """A server that answers each request by `answer`, and remembers what it was asked."""

    def __init__(self, answer: Callable[["Replica", Seen, Send], Awaitable[None]], run_id: str) -> None:
        self.answer = answer
        self.run_id = run_id
        self.seen: list[Seen] = []
        self.under_way = 0
        self.most_under_way = 0
        self.left: list[str] = []  # paths whose client left before the end
        self.port = 0
        self._server: uvicorn.Server | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = Seen(scope["method"], scope["raw_path"].decode(), headers, body)
        self.seen.append(seen)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

        async def watch() -> None:
            await receive()
            answering.cancel()

        answering = asyncio.ensure_future(self.answer(self, seen, send))
        watching = asyncio.ensure_future(watch())
        try:
            await answering
        except asyncio.CancelledError:
            self.left.append(seen.path)
        finally:
            watching.cancel()
            self.under_way -= 1

    async def start(self, port: int = 0) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        self.port = listening.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(self, lifespan="off", log_level="critical", http="httptools", loop="none")
        )
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[listening])

    def drop_connections(self) -> None:
        """As when a process dies: connections end in the middle of whatever they carry."""
        assert self._server is not None
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self.drop_connections()
        await self._server.shutdown()

    def backend(self, *, version_no: int = 1, draining: bool = False, token: str | None = None) -> Backend:
        return Backend(
            run_id=self.run_id,
            version_no=version_no,
            address="127.0.0.1",
            port=self.port,
            draining=draining,
            token=token,
        )


def service(**terms: Any) -> Service:
    """The terms of a service: OpenAI's protocol, one to four replicas, no cache."""
    told: dict[str, Any] = {
        "engine": "command",
        "model": None,
        "model_name": "tiny",
        "protocol": "openai",
        "scaling": Scaling(least=0, most=4),
        **terms,
    }
    return Service(**told)


def route(*backends: Backend, name: str = "chat", **terms: Any) -> Route:
    """A service of the tenant `ten`, called `chat`, with the model `tiny`."""
    version = RoutedVersion(version_no=1, share=1.0, digest="d1", terms=service(**terms))
    return Route(
        service_id=f"svc_{name}",
        tenant_id="ten",
        project_id="prj",
        name=name,
        state="serving",
        versions=(version,),
        backends=backends,
    )


class OneKey:
    """Knows the key `good` of the tenant `ten`; `slow` is the same and has to be asked for."""

    def __init__(self) -> None:
        self.caller = Caller(key_id="key_1", tenant_id="ten", project_id=None)
        self.fetched = 0

    def known(self, authorization: bytes | None, *, wall_s: float) -> Caller | Denied | None:
        if authorization == b"Bearer good":
            return self.caller
        if authorization == b"Bearer slow":
            return None
        return Denied(status=401, code="invalid_api_key", sentence="the key is not accepted; keys can expire")

    async def fetch(self, authorization: bytes, *, wall_s: float) -> Caller | Denied:
        self.fetched += 1
        return self.caller


class CountedLimits:
    """Admits `most` requests, and remembers what was settled."""

    def __init__(self, most: int = 10**9) -> None:
        self.most = most
        self.settled: list[int | None] = []

    def admit(self, caller: Caller | None, route: Route, *, tokens: int, now_s: float) -> Admitted | Limited:
        if self.most <= 0:
            return Limited(retry_after_s=2.5, headers=(), sentence="3 requests a minute; come back in 2.5 s")
        self.most -= 1
        return Admitted(headers=((b"x-ratelimit-remaining-requests", b"%d" % self.most),), tokens=tokens)

    def settle(self, admitted: Admitted, *, tokens: int | None, now_s: float) -> None:
        self.settled.append(tokens)


@dataclass
class Page:
    """The journal, as a list."""

    told: list[Told] = field(default_factory=list)

    def ended(self, told: Told) -> None:
        self.told.append(told)


@dataclass
class Gateway:
    """A gateway that serves on loopback."""

    app: GatewayApp
    url: str
    journal: Page
    limits: CountedLimits
    keys: OneKey
    server: uvicorn.Server

    def hold(self, *routes: Route) -> None:
        self.app.hold_routes(routes_of(list(routes)))

    def client(self, **settings: Any) -> httpx.AsyncClient:
        """A client of it, without the certificates that loopback has no use for."""
        return httpx.AsyncClient(base_url=self.url, verify=False, trust_env=False, **settings)

    async def told(self, count: int = 1) -> list[Told]:
        """What the journal was told, once it is so many."""
        await until(lambda: len(self.journal.told) >= count)
        return self.journal.told


@asynccontextmanager
async def gateway(
    *routes: Route,
    limits: CountedLimits | None = None,
    cache: Cache | None = None,
    settings: DoorSettings | None = None,
    server: ServerSettings | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway on a free port with these routes, in this event loop."""
    journal, keys = Page(), OneKey()
    counted = limits or CountedLimits()
    door = Door(
        keys=keys,
        limits=counted,
        cache=cache,
        journal=journal,
        chance=random.Random(7).random,
        settings=settings,
    )
    app = GatewayApp(door)
    app.hold_routes(routes_of(list(routes)))
    running = gateway_server(app, server or ServerSettings(drain_s=5))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    task = asyncio.ensure_future(running._serve([listening]))
    await until(lambda: running.started)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield Gateway(app, url, journal, counted, keys, running)
    finally:
        running.should_exit = True
        await task
        door.close()


@asynccontextmanager
async def replicas(
    count: int, answer: Callable[[Replica, Seen, Send], Awaitable[None]]
) -> AsyncIterator[list[Replica]]:
    """So many replicas that answer alike."""
    started = [Replica(answer, f"run_{number}") for number in range(count)]
    for replica in started:
        await replica.start()
    try:
        yield started
    finally:
        for replica in started:
            await replica.stop()


async def reply(send: Send, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
    """A whole answer."""
    told = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def completes(replica: Replica, seen: Seen, send: Send) -> None:
    """Answers like OpenAI, with 3 tokens in and 5 out, and says which replica it was."""
    answer = {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": replica.run_id}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }
    await reply(send, json.dumps(answer).encode())


def with_version(route: Route, version: RoutedVersion, *backends: Backend) -> Route:
    """The route with a second version that takes its share from the first one."""
    first = replace(route.versions[0], share=1.0 - version.share)
    return replace(route, versions=(first, version), backends=(*route.backends, *backends))
