"""Nearness: texts that mean about the same in frames that are equal word for word; asked of a service of the tenant."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from baseai.gateway.cache import MemoryCache
from baseai.gateway.embedder import TenantEmbedder, vector_in
from baseai.gateway.keys import Keys
from baseai.gateway.nearness import TEXTS_MOST, Framed, Nearest, framed, unit
from baseai.workloads.service import CacheTerms
from tests.gateway.replicas import (
    KEY,
    Gateway,
    OneKey,
    Replica,
    Seen,
    Send,
    completes,
    gateway,
    replicas,
    reply,
    route,
)
from tests.gateway.test_keys import PEPPER, Office

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
NEAR = CacheTerms(max_age_s=60.0, semantic=0.95)
# What the embedding replica of these tests makes of texts: two that are near, and one that is not.
VECTORS = {"what does it cost?": [1.0, 0.1], "how much is it?": [1.0, 0.2], "who are you?": [0.0, 1.0]}


def chat(text: Any, *, system: str = "be brief", **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return {"model": "tiny", "messages": messages, "temperature": 0, **more}


def frame_of(asked: Any, path: str = CHAT) -> Framed | None:
    return framed(path, b"application/json", json.dumps(asked).encode())


def test_a_frame_is_all_but_the_last_text() -> None:
    one, other = frame_of(chat("a")), frame_of(chat("b"))
    assert one is not None
    assert other is not None
    assert (one.text, other.text, one.frame) == ("a", "b", other.frame)


@pytest.mark.parametrize(
    "other",
    [chat("a", system="be long"), chat("a", max_tokens=5), chat("a", seed=1), {**chat("a"), "model": "huge"}],
)
def test_another_frame_is_never_the_same(other: Any) -> None:
    one, two = frame_of(chat("a")), frame_of(other)
    assert one is not None
    assert two is not None
    assert one.frame != two.frame


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        pytest.param(chat("a", temperature=1), CHAT, id="by chance"),
        pytest.param({"messages": []}, CHAT, id="nobody asks"),
        pytest.param(
            {"messages": [{"role": "assistant", "content": "x"}], "seed": 1}, CHAT, id="the model spoke last"
        ),
        pytest.param(chat([{"type": "image_url"}]), CHAT, id="a picture"),
        pytest.param(chat("x" * 8_001), CHAT, id="a document"),
        pytest.param({"prompt": ["a", "b"], "seed": 1}, "/v1/completions", id="several"),
        pytest.param({"input": "a"}, "/v1/embeddings", id="an embedding"),
        pytest.param([], CHAT, id="no request"),
    ],
)
def test_what_has_no_text_to_compare(asked: Any, path: str) -> None:
    assert frame_of(asked, path) is None


def test_the_nearest_comes_first_and_what_is_too_far_not_at_all() -> None:
    nearest = Nearest()
    for key, numbers in ((b"far", [0.0, 1.0]), (b"near", [1.0, 0.3]), (b"nearer", [1.0, 0.1])):
        vector = unit(np.array(numbers, np.float32))
        assert vector is not None
        nearest.add(b"frame", vector, key)
    asked = unit(np.array([1.0, 0.0], np.float32))
    assert asked is not None
    assert nearest.near(b"frame", asked, least=0.9) == [b"nearer", b"near"]
    nearest.forget(b"frame", b"nearer")
    assert nearest.near(b"frame", asked, least=0.9) == [b"near"]
    assert nearest.near(b"other", asked, least=0.0) == []


def test_texts_are_bounded_and_vectors_of_another_model_are_forgotten() -> None:
    nearest, one = Nearest(), np.array([1.0, 0.0], np.float32)
    for number in range(TEXTS_MOST + 5):
        nearest.add(b"frame", one, b"%d" % number)
    assert len(nearest.near(b"frame", one, least=0.0)) == TEXTS_MOST
    longer = np.array([1.0, 0.0, 0.0], np.float32)
    nearest.add(b"frame", longer, b"new")
    assert nearest.near(b"frame", longer, least=0.0) == [b"new"]


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b'{"data": []}', b'{"data": [{"embedding": "*"}]}', b'{"data": [{"embedding": [0, 0]}]}'],
)
def test_what_is_no_vector_is_none(answer: bytes) -> None:
    assert vector_in(answer) is None


async def embeds(replica: Replica, seen: Seen, send: Send) -> None:
    numbers = np.array(VECTORS[json.loads(seen.body)["input"]], "<f4")
    encoded = base64.b64encode(numbers.tobytes()).decode()
    answer = {"data": [{"embedding": encoded}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    await reply(send, json.dumps(answer).encode())


def by_nearness(running: Gateway, cache: MemoryCache) -> None:
    """The real keys, which know the tests' key, and lend one to the embedder."""

    class Lending(Keys):
        def known(self, authorization: bytes | None, *, wall_s: float) -> Any:
            known = super().known(authorization, wall_s=wall_s)
            return known if known is not None else OneKey().known(authorization, wall_s=wall_s)

    door = running.app.door
    door.keys = keys = Lending(Office(), pepper=PEPPER)
    cache.embed_by(TenantEmbedder(running.app, keys, lambda: door.routes))


async def ask(client: httpx.AsyncClient, text: str, **more: Any) -> str:
    answer = await client.post(CHAT, json=chat(text, **more), headers=KEY)
    assert answer.status_code == 200
    return answer.headers["cache-status"]


async def test_a_text_that_means_about_the_same_is_answered_alike_and_marked() -> None:
    cache = MemoryCache()
    async with replicas(1, completes) as [talks], replicas(1, embeds) as [vectors]:
        service = route(talks.backend(), cache=NEAR)
        encoder = route(vectors.backend(), name="encoder", engine="embeddings", model_name="mini")
        async with gateway(service, encoder, cache=cache) as running, running.client() as client:
            by_nearness(running, cache)
            assert "fwd=miss" in await ask(client, "what does it cost?")
            near = await ask(client, "how much is it?")
            assert near.startswith("baseai; hit; ttl=")
            assert near.endswith("; detail=semantic")
            assert "detail" not in await ask(client, "what does it cost?")
            assert "fwd=miss" in await ask(client, "who are you?")
            assert "fwd=miss" in await ask(client, "how much is it?", max_tokens=9)
            assert len(talks.seen) == 3
            told = await running.told(9)
            assert {one.service_id for one in told} == {
                "svc_chat",
                "svc_encoder",
            }  # its vectors are charged as well


async def test_without_a_service_that_embeds_only_equal_texts_are_answered_alike() -> None:
    cache = MemoryCache()
    async with (
        replicas(1, completes) as [talks],
        gateway(route(talks.backend(), cache=NEAR), cache=cache) as running,
        running.client() as client,
    ):
        by_nearness(running, cache)
        assert "fwd=miss" in await ask(client, "what does it cost?")
        assert "fwd=miss" in await ask(client, "how much is it?")
        assert "hit" in await ask(client, "what does it cost?")


async def test_an_embedder_that_fails_is_a_miss() -> None:
    async def fails(replica: Replica, seen: Seen, send: Send) -> None:
        await reply(send, b"{}", status=500)

    cache = MemoryCache()
    async with replicas(1, completes) as [talks], replicas(1, fails) as [vectors]:
        service = route(talks.backend(), cache=NEAR)
        encoder = route(vectors.backend(), name="encoder", engine="embeddings", model_name="mini")
        async with gateway(service, encoder, cache=cache) as running, running.client() as client:
            by_nearness(running, cache)
            assert "fwd=miss" in await ask(client, "what does it cost?")
            assert "hit" in await ask(client, "what does it cost?")


async def test_nobody_else_takes_the_key_that_a_gateway_lends_itself() -> None:
    from baseai.gateway.seams import Caller

    caller = Caller(key_id="gateway", tenant_id="ten", project_id="prj", services=frozenset({"encoder"}))
    one, other = Keys(Office(), pepper=PEPPER), Keys(Office(), pepper=PEPPER)
    lent = one.on_behalf(caller)
    assert one.on_behalf(caller) == lent
    assert one.known(lent, wall_s=0.0) == caller
    assert other.known(lent, wall_s=0.0) is None
