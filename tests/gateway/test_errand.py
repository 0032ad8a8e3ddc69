"""When a replica fails, is full, or is not there: who is asked next, who waits, and what is never sent twice."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from baseai.serving.route import Backend
from tests.gateway.replicas import (
    KEY,
    Gateway,
    Replica,
    Seen,
    Send,
    completes,
    gateway,
    replicas,
    reply,
    route,
    until,
)

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": []}


def nobody(run_id: str) -> Backend:
    """A replica whose port nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Backend(run_id=run_id, version_no=1, address="127.0.0.1", port=port, draining=False)


async def dies(replica: Replica, seen: Seen, send: Send) -> None:
    """Ends the connection before a byte of an answer."""
    replica.drop_connections()
    await asyncio.sleep(5)


async def dies_halfway(replica: Replica, seen: Seen, send: Send) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b'{"half":', "more_body": True})
    await asyncio.sleep(0.05)
    replica.drop_connections()
    await asyncio.sleep(5)


async def asked(client: httpx.AsyncClient, path: str = "/v1/completions") -> httpx.Response:
    return await client.post(path, json=CHAT, headers=KEY)


async def test_where_nobody_listens_another_one_is_asked() -> None:
    async with (
        replicas(1, completes) as [well],
        gateway(route(nobody("run_dead"), well.backend())) as door,
        door.client() as client,
    ):
        answers = [await asked(client) for _ in range(20)]
        told = await door.told(20)
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= sum(each.retries for each in told) <= 2  # then it is spared
    assert door.app.door.lobbies["svc_chat"].ejected() == 1


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        pytest.param("/v1/completions", {200}, id="an inference may be repeated"),
        pytest.param("/v2/models/tiny/infer", {200}, id="OIP's too"),
        pytest.param("/json/tiny", {200}, id="a callable's too"),
        pytest.param("/s/svc_chat/own", {200, 502}, id="what is not known is never sent twice"),
    ],
)
async def test_a_replica_that_dies_over_a_request(path: str, statuses: set[int]) -> None:
    async with (
        replicas(1, completes) as [well],
        replicas(1, dies) as [sick],
        gateway(route(well.backend(), renamed(sick, "run_sick"))) as door,
        door.client() as client,
    ):
        answers = [await asked(client, path) for _ in range(12)]
    assert {answer.status_code for answer in answers} == statuses
    assert len(well.seen) + len(sick.seen) == 12 + (len(sick.seen) if statuses == {200} else 0)
    assert 1 <= len(sick.seen) <= 2


def renamed(replica: Replica, run_id: str) -> Backend:
    replica.run_id = run_id
    return replica.backend()


async def test_no_more_than_two_replicas_are_sent_one_request() -> None:
    async with (
        replicas(5, dies) as sick,
        gateway(route(*(each.backend() for each in sick))) as door,
        door.client() as client,
    ):
        answer = await asked(client)
        [told] = await door.told()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "replica_lost")
    assert sum(len(each.seen) for each in sick) == 2
    assert (told.outcome, told.tokens_in, told.retries) == ("lost", 0, 1)


async def test_an_answer_that_broke_off_is_cut_and_never_sent_again() -> None:
    async with (
        replicas(1, dies_halfway) as [sick],
        gateway(route(sick.backend())) as door,
        door.client() as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await asked(client)
        [told] = await door.told()
    assert len(sick.seen) == 1
    assert (told.outcome, told.tokens_out) == ("failed", 0)


async def test_a_connection_that_was_closed_meanwhile_says_nothing_about_the_replica() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        await asked(client)
        replica.drop_connections()
        answer = await asked(client)
        told = await door.told(2)
    assert answer.status_code == 200
    assert told[1].retries == 0


async def test_a_full_replica_is_asked_again_later_and_another_one_at_once() -> None:
    full = {"run_0": 3}

    async def full_at_first(replica: Replica, seen: Seen, send: Send) -> None:
        if full.get(replica.run_id, 0) > 0:
            full[replica.run_id] -= 1
            await reply(send, b"{}", status=503, headers={"retry-after": "1"})
        else:
            await completes(replica, seen, send)

    async with (
        replicas(1, full_at_first) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await asked(client)
    assert answer.status_code == 200
    assert len(replica.seen) == 4


async def test_a_replica_that_is_away_for_longer_says_so_itself() -> None:
    async def away(replica: Replica, seen: Seen, send: Send) -> None:
        await reply(send, b'{"until": "tomorrow"}', status=503, headers={"retry-after": "3600"})

    async with (
        replicas(1, away) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await asked(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3600")
    assert len(replica.seen) == 1


async def test_no_replica_gets_more_than_it_takes_at_once_and_who_came_first_is_first() -> None:
    order: list[str] = []

    async def slow(replica: Replica, seen: Seen, send: Send) -> None:
        order.append(seen.headers["x-request-id"])
        await asyncio.sleep(0.05)
        await reply(send, b"{}")

    async with (
        replicas(1, slow) as [replica],
        gateway(route(replica.backend(), concurrency=2)) as door,
        door.client() as client,
    ):

        async def numbered(number: int) -> int:
            await asyncio.sleep(number * 0.005)
            headers = {**KEY, "x-request-id": str(number)}
            return (await client.post("/v1/completions", json=CHAT, headers=headers)).status_code

        statuses = await asyncio.gather(*(numbered(number) for number in range(10)))
    assert statuses == [200] * 10
    assert replica.most_under_way == 2
    assert order == [str(number) for number in range(10)]


async def test_without_a_replica_requests_are_held_until_one_is_ready() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route()) as door,
        door.client() as client,
    ):
        asking = asyncio.gather(*(asked(client) for _ in range(5)))
        await until(lambda: held(door) == 5)
        door.hold(route(replica.backend()))
        answers = await asking
    assert {answer.status_code for answer in answers} == {200}
    assert held(door) == 0


def held(door: Gateway) -> int:
    lobby = door.app.door.lobbies.get("svc_chat")
    return 0 if lobby is None else len(lobby.hold)


async def test_who_is_held_for_too_long_is_told_and_a_full_queue_takes_nobody() -> None:
    async with gateway(route(timeout_s=0.5, queue_most=2)) as door, door.client() as client:
        asking = [asyncio.ensure_future(asked(client)) for _ in range(2)]
        await until(lambda: held(door) == 2)
        refused = await asked(client)
        late = await asyncio.gather(*asking)
        told = await door.told(3)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert {answer.status_code for answer in late} == {504}
    assert Counter(each.outcome for each in told) == {"lost": 2, "refused": 1}
    assert held(door) == 0


async def test_who_leaves_while_he_is_held_leaves_no_trace() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route()) as door,
        door.client(timeout=0.2) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await asked(client)
        [told] = await door.told()
        assert held(door) == 0
        door.hold(route(replica.backend()))
        await asyncio.sleep(0.1)
    assert told.outcome == "gone"
    assert replica.seen == []


async def test_a_draining_replica_ends_what_it_has_and_gets_nothing_new() -> None:
    async def slow(replica: Replica, seen: Seen, send: Send) -> None:
        await asyncio.sleep(0.3)
        await completes(replica, seen, send)

    async with (
        replicas(2, slow) as [old, new],
        gateway(route(old.backend())) as door,
        door.client() as client,
    ):
        first = asyncio.ensure_future(asked(client))
        await until(lambda: old.under_way == 1)
        door.hold(route(old.backend(draining=True), new.backend()))
        second = await asked(client)
        answers = [(await first).headers["x-baseai-replica"], second.headers["x-baseai-replica"]]
    assert answers == ["run_0", "run_1"]


async def test_at_most_half_of_the_replicas_are_spared_for_their_errors() -> None:
    async def fails(replica: Replica, seen: Seen, send: Send) -> None:
        await reply(send, b"{}", status=500)

    async with (
        replicas(4, fails) as sick,
        gateway(route(*(each.backend() for each in sick))) as door,
        door.client() as client,
    ):
        for _ in range(80):
            await asked(client)
        assert door.app.door.lobbies["svc_chat"].ejected() == 2


SERVER = """
import sys, uvicorn
async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body[:-1] + b', "served": true}'})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off")
"""


def started(folder: Path, backends: list[Backend]) -> list[subprocess.Popen[bytes]]:
    (folder / "server.py").write_text(SERVER)
    return [
        subprocess.Popen([sys.executable, str(folder / "server.py"), str(backend.port)])
        for backend in backends
    ]


async def test_killing_a_replica_under_load_loses_nobody(tmp_path: Path) -> None:
    """A real process and a real SIGKILL: every request is answered, and with its own answer."""
    backends = [nobody(f"run_{number}") for number in range(2)]
    processes = started(tmp_path, backends)
    try:
        for backend in backends:
            await listens(backend.port)
        async with gateway(route(*backends)) as door, door.client() as client:
            wrong: list[object] = []

            async def worker(number: int) -> None:
                for turn in range(40):
                    body = {"model": "tiny", "mine": f"{number}/{turn}"}
                    answer = await client.post("/v1/completions", json=body, headers=KEY)
                    if answer.status_code != 200 or json.loads(answer.content)["mine"] != body["mine"]:
                        wrong.append(answer)

            working = asyncio.gather(*(worker(number) for number in range(8)))
            await until(lambda: len(door.journal.told) > 60)
            os.kill(processes[0].pid, signal.SIGKILL)
            await working
            assert wrong == []
            assert len(door.journal.told) == 320
            assert any(each.retries for each in door.journal.told)
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def listens(port: int) -> None:
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
