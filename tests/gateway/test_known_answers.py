"""Known answers through the gateway: the same bytes, one question to the replica, and the books know the difference."""

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from baseai.gateway.cache import MemoryCache
from baseai.workloads.service import CacheTerms
from tests.gateway.replicas import KEY, Replica, Seen, Send, completes, gateway, replicas, reply, route, until

pytestmark = pytest.mark.anyio

KEEPS = CacheTerms(max_age_s=60.0)
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


async def ask(client: httpx.AsyncClient, body: object = ASKED, **headers: str) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=body, headers={**KEY, **headers})


async def test_a_known_answer_is_the_same_and_reaches_no_replica() -> None:
    async with replicas(1, completes) as [replica]:
        here = route(replica.backend(), cache=KEEPS)
        async with gateway(here, cache=MemoryCache()) as running, running.client() as client:
            first, second = await ask(client), await ask(client, {**ASKED, "user": "ana"})
            assert (first.status_code, second.status_code) == (200, 200)
            assert first.content == second.content
            assert first.headers["cache-status"] == "baseai; fwd=miss; fwd-status=200; stored; ttl=60"
            assert second.headers["cache-status"].startswith("baseai; hit; ttl=")
            assert second.headers["age"] == "0"
            assert second.headers["x-baseai-replica"] == "run_0"
            assert second.headers["x-request-id"] != first.headers["x-request-id"]
            assert len(replica.seen) == 1
            told = await running.told(2)
            assert [one.cache for one in told] == [None, "hit"]
            assert running.limits.settled == [8, 0]  # no replica worked for the second one


async def test_a_hundred_equal_questions_reach_a_replica_once() -> None:
    gate = asyncio.Event()

    async def when_let(replica: Replica, seen: Seen, send: Send) -> None:
        await gate.wait()
        await completes(replica, seen, send)

    async with replicas(1, when_let) as [replica]:
        here = route(replica.backend(), cache=KEEPS)
        limits = httpx.Limits(max_connections=100)
        async with gateway(here, cache=MemoryCache()) as running, running.client(limits=limits) as client:
            asking = [asyncio.create_task(ask(client)) for _ in range(100)]
            await until(lambda: len(replica.seen) == 1)
            await asyncio.sleep(0.2)
            gate.set()
            answers = await asyncio.gather(*asking)
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            assert len(replica.seen) == 1
            told = await running.told(100)
            assert sum(one.cache is None for one in told) == 1


async def test_when_the_client_who_asked_first_leaves_the_others_are_answered() -> None:
    gate = asyncio.Event()

    async def when_let(replica: Replica, seen: Seen, send: Send) -> None:
        await gate.wait()
        await completes(replica, seen, send)

    async with replicas(1, when_let) as [replica]:
        here = route(replica.backend(), cache=KEEPS)
        async with gateway(here, cache=MemoryCache()) as running:
            async with running.client() as client, running.client() as leaver:
                first = asyncio.create_task(ask(leaver))
                await until(lambda: len(replica.seen) == 1)
                others = [asyncio.create_task(ask(client)) for _ in range(5)]
                await asyncio.sleep(0.1)
                first.cancel()
                await until(lambda: len(replica.seen) == 2)
                gate.set()
                answers = await asyncio.gather(*others)
            assert {answer.status_code for answer in answers} == {200}
            assert len(replica.left) == 1


async def test_a_failure_is_nobody_elses_answer() -> None:
    async def fails_first(replica: Replica, seen: Seen, send: Send) -> None:
        await asyncio.sleep(0.1)
        if len(replica.seen) == 1:
            await reply(send, b'{"error": {"message": "no"}}', status=500)
        else:
            await completes(replica, seen, send)

    async with replicas(1, fails_first) as [replica]:
        here = route(replica.backend(), cache=KEEPS)
        async with gateway(here, cache=MemoryCache()) as running, running.client() as client:
            answers = await asyncio.gather(*(ask(client) for _ in range(10)))
            assert sorted(answer.status_code for answer in answers).count(200) >= 9
            assert len(replica.seen) == 2


async def test_what_may_be_answered_by_chance_or_in_a_stream_is_never_kept() -> None:
    async with replicas(1, completes) as [replica]:
        here = route(replica.backend(), cache=KEEPS)
        async with gateway(here, cache=MemoryCache()) as running, running.client() as client:
            for body in ({**ASKED, "temperature": 1}, {**ASKED, "stream": True}):
                for _ in range(2):
                    answer = await ask(client, body)
                    assert answer.headers["cache-status"] == "baseai; fwd=bypass"
            assert len(replica.seen) == 4


async def test_a_service_without_a_cache_keeps_nothing() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend()), cache=MemoryCache()) as running,
        running.client() as client,
    ):
        for _ in range(2):
            assert (await ask(client)).headers["cache-status"] == "baseai; fwd=bypass"
        assert len(replica.seen) == 2


async def test_only_if_cached_is_answered_with_504_when_nothing_is_kept() -> None:
    async with replicas(1, completes) as [replica]:
        here = route(replica.backend(), cache=KEEPS)
        async with gateway(here, cache=MemoryCache()) as running, running.client() as client:
            answer = await ask(client, **{"cache-control": "only-if-cached"})
            assert answer.status_code == 504
            assert json.loads(answer.content)["error"]["code"] == "not_kept"
            assert replica.seen == []


async def test_a_new_version_is_asked_anew() -> None:
    async with replicas(1, completes) as [replica]:
        old = route(replica.backend(), cache=KEEPS)
        new = replace(old, versions=(replace(old.versions[0], digest="d2"),))
        async with gateway(old, cache=MemoryCache()) as running, running.client() as client:
            await ask(client)
            running.hold(new)
            assert "fwd=miss" in (await ask(client)).headers["cache-status"]
            assert len(replica.seen) == 2
