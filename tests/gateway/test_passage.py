"""One request's way through the gateway, over real sockets: who asks, what the replica gets, what comes back."""

import asyncio
import contextlib
import json
from dataclasses import replace

import httpx
import openai
import pytest

from baseai.gateway.seams import Caller, Outcome, Told
from baseai.serving.route import RoutedVersion
from tests.gateway.replicas import (
    KEY,
    CountedLimits,
    Gateway,
    Replica,
    Seen,
    Send,
    completes,
    gateway,
    replicas,
    reply,
    route,
    service,
    until,
    with_version,
)

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Bom dia"}]}
LONG = {**CHAT, "more": "x" * 6000}
ENDLESS = b'{"model": "tiny", "max_tokens": ' + b"9" * 5000 + b"}"
STREAM = {**CHAT, "stream": True}


def chunk(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


async def streams(replica: Replica, seen: Seen, send: Send) -> None:
    """Three words, 50 ms apart, then usage if it was asked for."""
    head = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for word in ("um", "dois", "três"):
        await send({"type": "http.response.body", "body": chunk(word), "more_body": True})
        await asyncio.sleep(0.05)
    last = b""
    if json.loads(seen.body).get("stream_options", {}).get("include_usage"):
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": last + b"data: [DONE]\n\n"})


async def echoes(replica: Replica, seen: Seen, send: Send) -> None:
    await reply(send, json.dumps([seen.method, seen.path, seen.headers, seen.body.decode()]).encode())


async def sleeps(replica: Replica, seen: Seen, send: Send) -> None:
    await asyncio.sleep(30)


def spent(told: Told) -> tuple[Outcome, int, int, int]:
    return told.outcome, told.status, told.tokens_in, told.tokens_out


async def test_a_request_goes_to_a_replica_and_its_answer_comes_back() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/chat/completions", json=CHAT, headers=KEY)
        [told] = await door.told()

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "run_0"
    assert answer.headers["x-baseai-replica"] == "run_0"
    assert answer.headers["x-baseai-version"] == "1"
    assert answer.headers["cache-status"] == "baseai; fwd=bypass"
    assert answer.headers["x-ratelimit-remaining-requests"]
    assert spent(told) == ("served", 200, 3, 5)
    assert told.bytes_out == len(answer.content)
    assert door.limits.settled == [8]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        pytest.param("/v1/embeddings", "/v1/embeddings", id="OpenAI by the body's model"),
        pytest.param("/v2/models/tiny/infer?a=1", "/v2/models/tiny/infer?a=1", id="OIP by the path's model"),
        pytest.param("/v2/models/chat/infer", "/v2/models/tiny/infer", id="OIP by the service's name"),
        pytest.param("/json/tiny", "/json", id="plain JSON by its model"),
        pytest.param("/s/svc_chat/v1/completions", "/v1/completions", id="OpenAI by service"),
        pytest.param("/s/svc_chat/v2/models/tiny/infer", "/v2/models/tiny/infer", id="OIP by service"),
        pytest.param("/s/svc_chat/json", "/json", id="plain JSON by service"),
        pytest.param("/s/svc_chat/any/%C3%A9?q=%20", "/any/%C3%A9?q=%20", id="anything by service"),
        pytest.param("/s/svc_chat", "/", id="the service itself"),
    ],
)
async def test_an_address_finds_the_service_and_the_replicas_path(asked: str, got: str) -> None:
    async with (
        replicas(1, echoes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post(asked, json={"model": "tiny"}, headers=KEY)
    assert answer.status_code == 200, answer.text
    path = replica.seen[0].path
    assert path == got.partition("?")[0]
    assert answer.json()[0] == "POST"


async def test_a_replica_gets_no_key_and_nobodys_pretence() -> None:
    spoof = {
        "x-baseai-deadline-ms": "1",
        "x-baseai-usage": "tokens_in=9",
        "connection": "keep-alive, x-private",
        "x-private": "1",
        "x-session-id": "s1",
        "x-request-id": "my-id",
        "te": "trailers",
    }
    async with (
        replicas(1, echoes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        for path in ("/v1/chat/completions", "/s/svc_chat/anything"):
            answer = await client.post(path, json=CHAT, headers={**KEY, **spoof})
            assert answer.headers["x-request-id"] == "my-id"
        bad = await client.post(
            "/v1/chat/completions", json=CHAT, headers={**KEY, "x-request-id": "a b" * 90}
        )
    for seen in replica.seen[:2]:
        assert not {"authorization", "x-private", "te", "x-baseai-usage"} & set(seen.headers)
        assert 50_000 < int(seen.headers["x-baseai-deadline-ms"]) <= 60_000
        assert seen.headers["x-session-id"] == "s1"
        assert seen.headers["x-request-id"] == "my-id"
        assert seen.headers["host"] == f"127.0.0.1:{replica.port}"
    assert bad.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("terms", "path", "key", "expected"),
    [
        pytest.param({}, "/v1/chat/completions", "good", ("Bearer rpl_0", None), id="in the place of the key"),
        pytest.param({}, "/s/svc_chat/page", "good", ("Bearer rpl_0", None), id="also where anything goes through"),
        pytest.param({"auth": False}, "/s/svc_chat/page", "own", ("Bearer own", "rpl_0"), id="beside a program's own"),
        pytest.param({"auth": False}, "/s/svc_chat/v1/chat/completions", None, (None, "rpl_0"), id="beside none"),
        pytest.param({"auth": False, "engine": "ray"}, "/s/svc_chat/x", "own", ("Bearer own", "rpl_0"), id="Ray's"),
        pytest.param(
            {"auth": False, "engine": "vllm"}, "/s/svc_chat/v1/chat/completions", "own", ("Bearer rpl_0", None),
            id="an engine of the platform's knows no keys of clients",
        ),
    ],
)  # fmt: skip
async def test_a_replica_is_shown_its_token(
    terms: dict[str, object], path: str, key: str | None, expected: tuple[str | None, str | None]
) -> None:
    spoof = {"x-baseai-replica-token": "mine"}
    headers = spoof if key is None else {**spoof, "authorization": f"Bearer {key}"}
    async with (
        replicas(1, echoes) as [replica],
        gateway(route(replica.backend(token="rpl_0"), **terms)) as door,
        door.client() as client,
    ):
        answer = await client.post(path, json=CHAT, headers=headers)
    assert answer.status_code == 200, answer.text
    seen = replica.seen[0].headers
    assert (seen.get("authorization"), seen.get("x-baseai-replica-token")) == expected
    assert "rpl_0" not in str(answer.headers)


async def test_each_replica_is_shown_its_own_token_also_when_another_failed() -> None:
    async with replicas(2, echoes) as [first, second]:
        await first.stop()
        backends = first.backend(token="rpl_0"), second.backend(token="rpl_1")
        async with gateway(route(*backends)) as door, door.client() as client:
            for _ in range(4):
                assert (await client.post("/v1/completions", json=CHAT, headers=KEY)).status_code == 200
        await first.start()
    assert {seen.headers["authorization"] for seen in second.seen} == {"Bearer rpl_1"}


async def test_no_log_of_a_gateway_can_tell_a_token_by_telling_its_routes() -> None:
    assert "rpl_0" not in repr(route(Replica(echoes, "run_0").backend(token="rpl_0")))


async def test_a_client_gets_no_pretence_of_a_replica_either() -> None:
    async def pretends(replica: Replica, seen: Seen, send: Send) -> None:
        headers = {
            "x-baseai-usage": "tokens_in=12,tokens_out=34",
            "x-baseai-replica": "another",
            "cache-status": "baseai; hit",
            "x-own": "kept",
        }
        await reply(send, b"{}", headers=headers)

    async with (
        replicas(1, pretends) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/completions", json=CHAT, headers=KEY)
        [told] = await door.told()
    assert "x-baseai-usage" not in answer.headers
    assert answer.headers.get_list("x-baseai-replica") == ["run_0"]
    assert answer.headers.get_list("cache-status") == ["baseai; fwd=bypass"]
    assert answer.headers["x-own"] == "kept"
    assert spent(told) == ("served", 200, 12, 34)


@pytest.mark.parametrize(
    ("path", "body", "key", "status", "said"),
    [
        pytest.param("/v1/completions", CHAT, "Bearer bad", 401, "invalid_api_key", id="a bad key"),
        pytest.param("/v1/completions", CHAT, None, 401, "invalid_api_key", id="no key"),
        pytest.param("/v1/completions", b"{", "Bearer good", 400, "invalid_json", id="no JSON"),
        pytest.param("/v1/completions", b"[1]", "Bearer good", 400, "invalid_json", id="no object"),
        pytest.param("/v1/completions", b"\xff", "Bearer good", 400, "invalid_json", id="no text"),
        pytest.param("/v1/completions", ENDLESS, "Bearer good", 400, "invalid_json", id="endless number"),
        pytest.param("/v1/completions", {}, "Bearer good", 400, "missing_model", id="no model"),
        pytest.param("/v1/completions", {"model": 3}, "Bearer good", 400, "invalid_model", id="odd model"),
        pytest.param(
            "/v1/completions", {"model": "x"}, "Bearer good", 404, "model_not_found", id="unknown model"
        ),
        pytest.param("/v1/completions", LONG, "Bearer good", 413, "body_too_large", id="too long"),
        pytest.param("/s/svc_other/v1/completions", CHAT, "Bearer good", 404, "not_found", id="no service"),
    ],
)
async def test_what_is_wrong_is_told_as_openai_tells_it(
    path: str, body: object, key: str | None, status: int, said: str
) -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend(), most_body_bytes=5100)) as door,
        door.client() as client,
    ):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await client.post(path, content=content, headers={"authorization": key} if key else {})
        again = await client.post("/v1/completions", json=CHAT, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, said)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]
    assert answer.headers["cache-status"] == "baseai; fwd=bypass"
    assert again.status_code == 200
    assert len(replica.seen) == 1


async def test_each_protocol_has_its_own_shape_of_error() -> None:
    async with gateway(route()) as door, door.client() as client:
        oip = await client.post("/v2/models/none/infer", json={}, headers=KEY)
        plain = await client.post("/json/none", json={}, headers=KEY)
        nothing = await client.get("/nothing")
    assert isinstance(oip.json()["error"], str)
    assert plain.headers["content-type"] == "application/problem+json"
    assert (plain.json()["status"], plain.json()["title"]) == (404, "Not Found")
    assert nothing.status_code == 404


async def test_a_key_sees_only_its_own_tenants_projects_and_services() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):

        async def status(**narrower: object) -> int:
            door.keys.caller = replace(Caller(key_id="k", tenant_id="ten", project_id=None), **narrower)  # type: ignore[arg-type]
            by_id = await client.post("/s/svc_chat/v1/completions", json=CHAT, headers=KEY)
            by_model = await client.post("/v1/completions", json=CHAT, headers=KEY)
            assert by_id.status_code == by_model.status_code
            return by_id.status_code

        assert await status() == 200
        assert await status(tenant_id="other") == 404
        assert await status(project_id="prj") == 200
        assert await status(project_id="other") == 404
        assert await status(services=frozenset({"chat"})) == 200
        assert await status(services=frozenset({"other"})) == 404


async def test_a_key_that_memory_does_not_know_is_asked_for() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/completions", json=CHAT, headers={"authorization": "Bearer slow"})
    assert (answer.status_code, door.keys.fetched) == (200, 1)


async def test_a_service_that_asks_for_no_key_is_open_by_its_id_alone_and_gets_the_clients_own_key() -> None:
    async with (
        replicas(1, echoes) as [replica],
        gateway(route(replica.backend(), auth=False)) as door,
        door.client() as client,
    ):
        by_id = await client.get("/s/svc_chat/page", headers={"authorization": "Basic own"})
        by_model = await client.post("/v1/completions", json=CHAT)
    assert by_id.status_code == 200
    assert replica.seen[0].headers["authorization"] == "Basic own"
    assert by_model.status_code == 401


async def test_too_many_requests_are_told_when_to_come_back() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend()), limits=CountedLimits(most=1)) as door,
        door.client() as client,
    ):
        await client.post("/v1/completions", json=CHAT, headers=KEY)
        answer = await client.post("/v1/completions", json=CHAT, headers=KEY)
        [_, told] = await door.told(2)
    assert answer.status_code == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("3", "2500")
    assert told.outcome == "refused"
    assert len(replica.seen) == 1


async def test_events_come_one_by_one_and_usage_that_was_not_asked_for_stays_here() -> None:
    async with (
        replicas(1, streams) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        arrivals, text = [], b""
        loop = asyncio.get_running_loop()
        async with client.stream("POST", "/v1/chat/completions", json=STREAM, headers=KEY) as answer:
            async for piece in answer.aiter_raw():
                arrivals.append(loop.time())
                text += piece
        [told] = await door.told()
    assert text == chunk("um") + chunk("dois") + chunk("três") + b"data: [DONE]\n\n"
    assert len(arrivals) >= 2
    assert arrivals[-1] - arrivals[0] > 0.08
    assert spent(told) == ("served", 200, 9, 3)
    assert told.first_byte_ms is not None
    assert told.first_byte_ms < told.latency_ms - 90
    assert json.loads(replica.seen[0].body) == {**STREAM, "stream_options": {"include_usage": True}}


async def test_usage_that_was_asked_for_is_shown() -> None:
    asked = {**STREAM, "stream_options": {"include_usage": True}}
    async with (
        replicas(1, streams) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/chat/completions", json=asked, headers=KEY)
    assert b'"prompt_tokens": 9' in answer.content
    assert json.loads(replica.seen[0].body) == asked


async def test_a_client_that_leaves_stops_the_replica_and_pays_what_he_got() -> None:
    async with (
        replicas(1, streams) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        async with client.stream("POST", "/v1/chat/completions", json=STREAM, headers=KEY) as answer:
            async for _ in answer.aiter_raw():
                break
        [told] = await door.told()
        await until(lambda: bool(replica.left))
    assert told.outcome == "gone"
    assert told.tokens_in == 0
    assert 1 <= told.tokens_out <= 3
    assert replica.under_way == 0


async def test_a_client_that_leaves_before_the_answer_pays_nothing() -> None:
    async with (
        replicas(1, sleeps) as [replica],
        gateway(route(replica.backend())) as door,
        door.client(timeout=0.2) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json=CHAT, headers=KEY)
        [told] = await door.told()
        await until(lambda: bool(replica.left))
    assert spent(told) == ("gone", 499, 0, 0)
    assert door.limits.settled == [None]


async def test_time_ends_a_request_and_the_smaller_time_wins() -> None:
    async with (
        replicas(1, sleeps) as [replica],
        gateway(route(replica.backend(), timeout_s=1.0)) as door,
        door.client() as client,
    ):
        own = await client.post("/v1/chat/completions", json=CHAT, headers=KEY)
        hurried = await client.post(
            "/v1/chat/completions", json=CHAT, headers={**KEY, "x-baseai-timeout-ms": "100"}
        )
        told = await door.told(2)
        await until(lambda: len(replica.left) == 2)
    assert (own.status_code, hurried.status_code) == (504, 504)
    assert own.json()["error"]["code"] == "deadline"
    assert told[0].latency_ms >= 980
    assert 90 <= told[1].latency_ms < 900
    assert [each.outcome for each in told] == ["lost", "lost"]


async def test_a_time_that_is_no_number_of_milliseconds_is_the_service_s_own() -> None:
    async with (
        replicas(1, completes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        for odd in ("9" * 5000, "-1", "soon", "0", "\u00b2"):
            headers = [(b"authorization", b"Bearer good"), (b"x-baseai-timeout-ms", odd.encode("latin-1"))]
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert answer.status_code == 200


async def test_a_stream_of_the_open_inference_protocol_is_metered_as_its_events_tell() -> None:
    async def generates(replica: Replica, seen: Seen, send: Send) -> None:
        head = [(b"content-type", b"text/event-stream"), (b"x-baseai-usage", b"tokens_in=7,tokens_out=0")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        first = b'data: {"text_output": "um", "done": false}\n\n'
        await send({"type": "http.response.body", "body": first, "more_body": True})
        await asyncio.sleep(30 if b"long" in seen.body else 0.02)
        last = b'data: {"text_output": "", "done": true, "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
        await send({"type": "http.response.body", "body": last})

    async with (
        replicas(1, generates) as [replica],
        gateway(route(replica.backend(), timeout_s=0.6)) as door,
        door.client() as client,
    ):
        path = "/v2/models/tiny/generate_stream"
        whole = await client.post(path, json={"text_input": "a"}, headers=KEY)
        late = await client.post(path, json={"text_input": "long"}, headers=KEY)
        with contextlib.suppress(httpx.ReadTimeout):
            await client.post(path, json={"text_input": "long"}, headers=KEY, timeout=0.2)
        told = await door.told(3)
    assert b'"usage"' in whole.content
    assert b'data: {"error": "the time' in late.content
    assert [(each.outcome, each.tokens_in, each.tokens_out) for each in told] == [
        ("served", 7, 2), ("failed", 7, 1), ("gone", 7, 1),
    ]  # fmt: skip


async def test_a_stream_whose_time_is_over_ends_with_an_error_that_clients_see() -> None:
    async with (
        replicas(1, streams) as [replica],
        gateway(route(replica.backend(), timeout_s=0.12)) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/chat/completions", json=STREAM, headers=KEY)
        [told] = await door.told()
    assert b'data: {"error": ' in answer.content
    assert b"[DONE]" not in answer.content
    assert (told.outcome, told.tokens_out > 0) == ("failed", True)


async def test_the_official_client_reads_a_stream_and_raises_where_it_broke() -> None:
    async def breaks(replica: Replica, seen: Seen, send: Send) -> None:
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": chunk("um") + b"data: {", "more_body": True})
        await asyncio.sleep(0.05)
        replica.drop_connections()
        await asyncio.sleep(5)

    async def hear(door: Gateway, heard: list[str]) -> None:
        async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="good", max_retries=0) as client:
            async for part in await client.chat.completions.create(model="tiny", messages=[], stream=True):
                heard.append(part.choices[0].delta.content or "")

    heard: list[str] = []
    async with replicas(1, streams) as [well], gateway(route(well.backend())) as door:
        await hear(door, heard)
    assert heard == ["um", "dois", "três"]
    heard.clear()
    async with replicas(1, breaks) as [sick], gateway(route(sick.backend())) as door:
        with pytest.raises(openai.APIError, match="broke off"):
            await hear(door, heard)
        [told] = await door.told()
    assert heard == ["um"]
    assert (told.outcome, told.tokens_out) == ("failed", 1)


async def test_a_replicas_own_error_passes_and_counts_against_it() -> None:
    async def fails(replica: Replica, seen: Seen, send: Send) -> None:
        await reply(send, b'{"error": {"message": "own"}}', status=500)

    async with (
        replicas(1, fails) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/completions", json=CHAT, headers=KEY)
        [told] = await door.told()
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "own")
    assert told.outcome == "failed"
    assert len(replica.seen) == 1


async def test_a_version_gets_its_share_and_a_session_keeps_its_version() -> None:
    async with replicas(2, completes) as [old, new]:
        candidate = RoutedVersion(version_no=2, share=0.3, digest="d2", terms=service())
        two = with_version(route(old.backend()), candidate, new.backend(version_no=2))
        async with gateway(two) as door, door.client() as client:
            seen = []
            for _ in range(200):
                answer = await client.post("/v1/completions", json=CHAT, headers=KEY)
                seen.append(answer.headers["x-baseai-version"])
            sticky = {
                (await client.post("/v1/completions", json=CHAT, headers={**KEY, "x-session-id": f"s{number % 5}"}))
                .headers["x-baseai-version"] + f"s{number % 5}"
                for number in range(30)
            }  # fmt: skip
    assert 35 <= seen.count("2") <= 85
    assert len(sticky) == 5


async def test_a_version_without_a_replica_leaves_its_share_to_the_other() -> None:
    async with replicas(1, completes) as [old]:
        candidate = RoutedVersion(version_no=2, share=1.0, digest="d2", terms=service())
        two = with_version(route(old.backend()), candidate)
        async with gateway(two) as door, door.client() as client:
            answer = await client.post("/v1/completions", json=CHAT, headers=KEY)
    assert (answer.status_code, answer.headers["x-baseai-version"]) == (200, "1")


async def test_a_service_is_known_by_its_name_too() -> None:
    async with (
        replicas(1, echoes) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        answer = await client.post("/v1/completions", json={"model": "chat", "n": 1}, headers=KEY)
    assert answer.status_code == 200
    assert json.loads(replica.seen[0].body) == {"model": "tiny", "n": 1}


async def test_demand_is_the_time_requests_spend_here() -> None:
    async def slow(replica: Replica, seen: Seen, send: Send) -> None:
        await asyncio.sleep(0.3)
        await reply(send, b"{}")

    async with (
        replicas(1, slow) as [replica],
        gateway(route(replica.backend())) as door,
        door.client() as client,
    ):
        await asyncio.gather(*(client.post("/v1/completions", json=CHAT, headers=KEY) for _ in range(4)))
        told = await door.told(4)
        last_s = max(each.at_s for each in told) + 3
        seconds = door.app.door.taken(now_s=last_s, wall_s=last_s)
    assert {service_id for service_id, _ in seconds} == {"svc_chat"}
    assert sum(second.arrivals for _, second in seconds) == 4
    assert 1.1 <= sum(second.concurrency for _, second in seconds) <= 2.0


async def test_a_stopped_service_says_so() -> None:
    stopped = replace(route(), state="stopped")
    async with gateway(stopped) as door, door.client() as client:
        answer = await client.post("/v1/completions", json=CHAT, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_stopped")
