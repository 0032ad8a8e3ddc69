"""The real keys, limits and journal on the gateway's path: who may call, how much, and what is written down of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from baseai.gateway.journal import Journal, closed_segments
from baseai.gateway.keys import Keys
from baseai.gateway.limits import SharedLimits
from baseai.gateway.segment import Sums
from baseai.ground.clock import now_utc
from baseai.ground.identity import TenantId
from baseai.serving.route import Route
from baseai.tenancy.key import Holder
from baseai.workloads.service import RateLimit
from tests.gateway.replicas import completes, gateway, replicas, route
from tests.gateway.test_keys import ANA, PEPPER, Office

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
HOLDER = replace(ANA, tenant_id=TenantId("ten"))


@asynccontextmanager
async def front(folder: Path, *services: Route, **holders: Holder) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway with everything real but whoever keeps the keys."""
    limits, journal = SharedLimits(folder / "limits"), Journal(folder, "gw_1")
    async with gateway(*services) as running, running.client() as client:
        door = running.app.door
        door.keys, door.limits, door.journal = Keys(Office(**holders), pepper=PEPPER), limits, journal
        yield client
    limits.close()
    journal.close()


async def ask(client: httpx.AsyncClient, key: str, path: str = CHAT) -> httpx.Response:
    return await client.post(path, json=HELLO, headers={"authorization": f"Bearer {key}"})


async def test_of_twenty_at_once_as_many_are_answered_as_the_key_may_ask(tmp_path: Path) -> None:
    limited = replace(HOLDER, requests_per_minute=5)
    async with replicas(1, completes) as [replica]:
        async with front(tmp_path, route(replica.backend()), ana=limited) as client:
            answers = await asyncio.gather(*(ask(client, "bai_ana") for _ in range(20)))
        assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 15}
        assert len(replica.seen) == 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["x-ratelimit-limit-requests"] == "5"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    assert 0 < int(refused.headers["retry-after-ms"]) <= 12_000
    assert "this key may take 5 requests in 60 s" in refused.json()["error"]["message"]
    [(_, segment)] = closed_segments(tmp_path, "gw_1")
    sums = Sums.from_bytes(segment.read_bytes())
    assert [(one.requests, one.refused, one.tokens_in) for one in sums.stretches] == [(20, 15, 15)]
    assert [(one.requests, one.tokens_in, one.tokens_out) for one in sums.uses] == [(5, 15, 25)]


async def test_tokens_run_into_debt_once_and_are_waited_for(tmp_path: Path) -> None:
    terms = (RateLimit(per="key", every_s=60.0, tokens=10),)
    async with (
        replicas(1, completes) as [replica],
        front(tmp_path, route(replica.backend(), rate_limits=terms), ana=HOLDER) as client,
    ):
        first, second = await ask(client, "bai_ana"), await ask(client, "bai_ana")
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["x-ratelimit-limit-tokens"] == "10"
    assert "10 tokens in 60 s" in second.json()["error"]["message"]


async def test_an_expired_a_wrong_and_no_key_are_told_the_same(tmp_path: Path) -> None:
    ends_at = now_utc() + timedelta(seconds=1)
    async with (
        replicas(1, completes) as [replica],
        front(tmp_path, route(replica.backend()), ana=replace(HOLDER, expires_at=ends_at)) as client,
    ):
        assert (await ask(client, "bai_ana")).status_code == 200
        await asyncio.sleep((ends_at - now_utc()).total_seconds() + 0.01)
        ended, wrong = await ask(client, "bai_ana"), await ask(client, "bai_wrong")
        assert (ended.status_code, wrong.status_code) == (401, 401)
        assert ended.json() == wrong.json()
        assert "can expire" in ended.json()["error"]["message"]


async def test_a_key_for_one_service_does_not_see_another(tmp_path: Path) -> None:
    async with replicas(1, completes) as [replica]:
        service = route(replica.backend())
        narrow, other = (
            replace(HOLDER, scopes=("service:chat",)),
            replace(HOLDER, scopes=("call", "service:x")),
        )
        async with front(tmp_path, service, narrow=narrow, other=other) as client:
            assert (await ask(client, "bai_narrow")).status_code == 200
            assert (await ask(client, "bai_other")).status_code == 404
            assert (await ask(client, "bai_other", f"/s/{service.service_id}{CHAT}")).status_code == 404


async def test_a_key_of_the_platform_calls_by_id_and_by_a_name_that_only_one_tenant_has(
    tmp_path: Path,
) -> None:
    operator = replace(HOLDER, tenant_id=None)
    async with replicas(1, completes) as [replica]:
        service = route(replica.backend())
        other = replace(route(replica.backend(), name="other"), tenant_id="ten_2")
        for services, by_name in (((service,), 200), ((service, other), 404)):
            async with front(tmp_path, *services, op=operator) as client:
                assert (await ask(client, "bai_op", f"/s/{service.service_id}{CHAT}")).status_code == 200
                assert (await ask(client, "bai_op")).status_code == by_name
