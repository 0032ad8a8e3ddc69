"""Kept and shared answers on the way of requests, with the real cache."""

import asyncio

import httpx
import pytest

from baseai.gateway.cache import MemoryCache
from baseai.workloads.service import CacheTerms
from tests.gateway.replicas import KEY, Replica, Seen, Send, completes, gateway, replicas, reply, route, until

pytestmark = pytest.mark.anyio

ASKED = {"model": "tiny", "input": "Bom dia"}
KEPT = CacheTerms()


async def slowly(replica: Replica, seen: Seen, send: Send) -> None:
    await asyncio.sleep(0.2)
    await completes(replica, seen, send)


async def asked(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post("/v1/embeddings", json=ASKED, headers={**KEY, **headers})


async def test_the_same_question_is_answered_from_what_is_kept() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend(), cache=KEPT), cache=MemoryCache()) as door,
        door.client() as client,
    ):
        first, second = await asked(client), await asked(client)
        told = await door.told(2)
    assert first.content == second.content
    assert second.headers["cache-status"].startswith("baseai; hit")
    assert second.headers["x-baseai-replica"] == "run_0"
    assert second.headers["x-baseai-version"] == "1"
    assert second.headers["x-ratelimit-remaining-requests"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(replica.seen) == 1
    assert [each.cache for each in told] == [None, "hit"]
    assert [each.outcome for each in told] == ["served", "served"]


async def test_a_hundred_equal_questions_at_once_are_one_call() -> None:
    async with (
        replicas(1, slowly) as [replica],
        gateway(route(replica.backend(), cache=KEPT), cache=MemoryCache()) as door,
        door.client(limits=httpx.Limits(max_connections=100)) as client,
    ):
        answers = await asyncio.gather(*(asked(client) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(replica.seen) == 1


async def test_when_whoever_asks_for_all_leaves_another_one_asks() -> None:
    async with (
        replicas(1, slowly) as [replica],
        gateway(route(replica.backend(), cache=KEPT), cache=MemoryCache()) as door,
        door.client() as client,
    ):
        leading = asyncio.ensure_future(asked(client))
        await until(lambda: len(replica.seen) == 1)
        others = asyncio.gather(*(asked(client) for _ in range(10)))
        await asyncio.sleep(0.05)
        leading.cancel()
        answers = await others
    assert {answer.status_code for answer in answers} == {200}
    assert len(replica.seen) == 2


async def test_a_failure_is_shared_with_nobody() -> None:
    async def fails_once(replica: Replica, seen: Seen, send: Send) -> None:
        if len(replica.seen) == 1:
            await asyncio.sleep(0.1)
            await reply(send, b"{}", status=500)
        else:
            await completes(replica, seen, send)

    async with (
        replicas(1, fails_once) as [replica],
        gateway(route(replica.backend(), cache=KEPT), cache=MemoryCache()) as door,
        door.client() as client,
    ):
        answers = await asyncio.gather(*(asked(client) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 500]


async def test_who_wants_only_what_is_kept_wakes_no_replica() -> None:
    async with (
        gateway(route(cache=KEPT), cache=MemoryCache()) as door,
        door.client() as client,
    ):
        answer = await asked(client, **{"cache-control": "only-if-cached"})
        [told] = await door.told()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "not_kept")
    assert told.outcome == "refused"
    assert door.app.door.lobbies == {}


async def test_what_is_kept_is_answered_without_a_replica() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend(), cache=KEPT), cache=MemoryCache()) as door,
        door.client() as client,
    ):
        await asked(client)
        door.hold(route(cache=KEPT))
        answer = await asked(client)
    assert answer.headers["cache-status"].startswith("baseai; hit")
