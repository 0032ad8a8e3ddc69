"""One request's way through the gateway, over real sockets."""

import httpx
import pytest

from tests.gateway.replicas import KEY, completes, gateway, replicas, route

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Bom dia"}]}


async def test_a_request_goes_to_a_replica_and_its_answer_comes_back() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        httpx.AsyncClient(base_url=door.url) as client,
    ):
        answer = await client.post("/v1/chat/completions", json=CHAT, headers=KEY)
        [told] = await door.told()

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "run_0"
    assert answer.headers["x-baseai-replica"] == "run_0"
    assert answer.headers["x-baseai-version"] == "1"
    assert answer.headers["cache-status"].startswith("baseai; fwd=")
    assert (told.outcome, told.tokens_in, told.tokens_out, told.status) == ("served", 3, 5, 200)
