"""The server around the path: what bounds a connection, how it ends, and the gateway's own pages."""

import asyncio
import signal
import sys

import httpx
import openai
import pytest

from baseai.gateway.server import ServerSettings
from tests.gateway.replicas import (
    KEY,
    Gateway,
    Replica,
    Seen,
    Send,
    completes,
    gateway,
    replicas,
    route,
    until,
)

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": []}

# A process that would end at SIGTERM by ending its work, as children of the platform do.
CHILD = """
import asyncio, signal, socket
from types import SimpleNamespace
from baseai.gateway.server import serve_gateway

async def app(scope, receive, send):
    print("asked", flush=True)
    await asyncio.sleep(0.4)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

app.door = SimpleNamespace(close=lambda: None)

async def work():
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    await serve_gateway(listening, app)
    await asyncio.sleep(0.05)
    print("shipped", flush=True)

async def main():
    task = asyncio.ensure_future(work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task

asyncio.run(main())
"""


async def said(door: Gateway, sent: bytes) -> bytes:
    """What a client that writes these bytes and nothing more reads until the connection ends."""
    host, _, port = door.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_head_that_is_too_long_is_refused() -> None:
    bounds = ServerSettings(most_head_bytes=2000, drain_s=1)
    async with gateway(route(), server=bounds) as door:
        long = await said(door, b"GET /health HTTP/1.1\r\nx: " + b"y" * 3000 + b"\r\n\r\n")
        many = await said(door, b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n")
        broken = await said(door, b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 431 ")
    assert many.startswith(b"HTTP/1.1 431 ")
    assert broken.startswith(b"HTTP/1.1 400 ")


async def test_a_head_that_does_not_end_ends_the_connection() -> None:
    async with gateway(route(), server=ServerSettings(head_s=0.2, drain_s=1)) as door:
        assert await said(door, b"GET /health HTTP/1.1\r\nx: ") == b""


async def test_what_comes_behind_a_body_is_no_part_of_the_head() -> None:
    async with replicas(1, completes) as [replica], gateway(route(replica.backend())) as door:
        head = (
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
        )
        body = b'\r\nf\r\n{"model":"tiny"\r\n1\r\n}\r\n0\r\nauthorization: Bearer %b\r\n\r\n'
        stranger = await said(door, head + body % b"good")
        customer = await said(door, head + b"authorization: Bearer good\r\n" + body % b"bad")
    assert stranger.startswith(b"HTTP/1.1 401 ")
    assert customer.startswith(b"HTTP/1.1 200 ")


async def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with gateway(route(most_body_bytes=1000)) as door:
        head = b"POST /s/svc_chat/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n"
        announced = await said(door, head + b"content-length: 99999999\r\n\r\n")
        growing = head + b"transfer-encoding: chunked\r\n\r\n" + b"200\r\n" + b"x" * 512 + b"\r\n"
        chunked = await said(door, growing + b"200\r\n" + b"x" * 512 + b"\r\n")
    for answer in (announced, chunked):
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"code": "body_too_large"' in answer
        assert b"connection: close" in answer


async def test_a_client_that_sends_all_the_same_can_read_why_not() -> None:
    async with gateway(route(most_body_bytes=1000)) as door, door.client() as client:
        answer = await client.post("/s/svc_chat/x", content=b"x" * (4 << 20), headers=KEY)
    assert answer.status_code == 413


async def test_the_signal_to_end_drains_whoever_else_would_hear_it() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await child.stdout.readline() == b"asked\n"
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        answer = await reader.read()
        rest, wrong = await child.communicate()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (child.returncode, rest, wrong) == (0, b"shipped\n", b"")


async def test_told_to_end_it_takes_nothing_new_and_finishes_what_it_has() -> None:
    async def slow(replica: Replica, seen: Seen, send: Send) -> None:
        await asyncio.sleep(0.4)
        await completes(replica, seen, send)

    async with (
        replicas(1, slow) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        asking = asyncio.ensure_future(client.post("/v1/completions", json=CHAT, headers=KEY))
        await until(lambda: replica.under_way == 1)
        door.server.should_exit = True
        await asyncio.sleep(0.2)
        async with door.client() as late:
            with pytest.raises(httpx.TransportError):
                await late.get("/health")
        answer = await asking
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


async def test_what_takes_longer_than_the_process_waits_is_written_down_as_lost() -> None:
    async def sleeps(replica: Replica, seen: Seen, send: Send) -> None:
        await asyncio.sleep(30)

    async with (
        replicas(1, sleeps) as [replica],
        gateway(route(replica.backend()), server=ServerSettings(drain_s=1)) as door,
        door.client() as client,
    ):
        asking = asyncio.ensure_future(client.post("/v1/completions", json=CHAT, headers=KEY))
        await until(lambda: replica.under_way == 1)
        door.server.should_exit = True
        [told] = await door.told()
        answer = await asking
        await until(lambda: bool(replica.left))
    assert answer.status_code >= 500
    assert (told.outcome, told.status) == ("lost", 500)


async def test_its_health_says_how_old_its_routes_are() -> None:
    async with gateway(route()) as door, door.client() as client:
        fresh = await client.get("/health")
        door.app.door.routes_at_s = (door.app.door.routes_at_s or 0) - 100
        old = await client.get("/health")
        live, ready = await client.get("/v2/health/live"), await client.get("/v2/health/ready")
    assert (fresh.status_code, fresh.json()["status"], fresh.json()["routes_old"]) == (200, "ok", False)
    assert (old.status_code, old.json()["routes_old"]) == (200, True)
    assert "database is away" in old.json()["sentence"]
    assert (live.json(), ready.json()) == ({"live": True}, {"ready": True})


async def test_its_figures_name_nobody() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        await client.post("/v1/completions", json=CHAT, headers=KEY)
        await client.post("/v1/completions", json=CHAT)
        figures = (await client.get("/metrics")).text
    assert 'baseai_gateway_answers_total{status="200"} 1' in figures
    assert 'baseai_gateway_answers_total{status="401"} 1' in figures
    assert "baseai_gateway_replicas 1" in figures
    assert not any(name in figures for name in ("svc_chat", "ten", "tiny", "run_0") if f'"{name}"' in figures)


async def test_the_official_client_lists_models_and_learns_what_is_wrong() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend()), route(name="second", model_name="other")) as door,
        openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="good", max_retries=0) as client,
    ):
        listed = [model.id async for model in client.models.list()]
        assert listed == ["other", "tiny"]
        assert (await client.models.retrieve("tiny")).owned_by == "prj"
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "oi"}]
        )
        assert answer.choices[0].message.content == "run_0"
        with pytest.raises(openai.NotFoundError, match="no model"):
            await client.chat.completions.create(model="none", messages=[])
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="bad").models.list()


async def test_before_its_first_routes_nobody_is_told_that_a_model_does_not_exist() -> None:
    async with gateway(route()) as door, door.client() as client:
        door.app.door.routes_at_s = None
        answers = [
            await client.post("/v1/completions", json=CHAT, headers=KEY),
            await client.get("/v1/models", headers=KEY),
            await client.get("/v2/models/tiny/ready", headers=KEY),
            await client.post("/s/svc_chat/x"),
        ]
        assert (await client.get("/v2/health/live")).status_code == 200
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "x-should-retry" not in answer.headers
    assert answers[0].json()["error"]["code"] == "starting"


async def test_a_model_is_ready_when_a_replica_is_and_asking_wakes_none() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route()) as door,
        door.client() as client,
    ):
        away = await client.get("/v2/models/tiny/ready", headers=KEY)
        door.hold(route(replica.backend()))
        there = await client.get("/v2/models/tiny/ready", headers=KEY)
        unknown = await client.get("/v2/models/none/ready", headers=KEY)
        version = await client.get("/v2/models/tiny/versions/1/ready", headers=KEY)
        assert door.app.door.lobbies == {}
        astray = await client.get("/v2/models/tiny/versions/1/more/ready", headers=KEY)
    assert (away.status_code, away.json()) == (503, {"name": "tiny", "ready": False})
    assert (there.status_code, there.json()["ready"]) == (200, True)
    assert (unknown.status_code, version.status_code) == (404, 200)
    assert astray.request.url.path in [
        seen.path for seen in replica.seen
    ]  # no page of ours: its replica's to say
