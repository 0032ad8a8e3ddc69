"""Sameness: what only names the asker makes no difference, and whatever an answer may depend on does."""

import json
from typing import Any

import pytest

from baseai.gateway.sameness import READ_MOST, same_as

JSON = b"application/json"
EMBED, CHAT, INFER = "/v1/embeddings", "/v1/chat/completions", "/v2/models/m/infer"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def same(path: str, body: Any, content_type: bytes = JSON) -> bytes | None:
    return same_as(path, content_type, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(json.dumps(HELLO, indent=2, sort_keys=True).encode(), id="order and spaces"),
        pytest.param(
            json.dumps(HELLO).replace("hello", "h\\u0065llo").encode(), id="another way to write a letter"
        ),
        pytest.param({**HELLO, "user": "ana", "metadata": {"a": "b"}, "stream": False}, id="who asks"),
    ],
)
def test_these_ask_the_same(other: Any) -> None:
    assert same(CHAT, HELLO) is not None
    assert same(CHAT, HELLO) == same(CHAT, other)


@pytest.mark.parametrize(
    ("path", "other"),
    [
        pytest.param(CHAT, {**HELLO, "max_tokens": 5}, id="a word more"),
        pytest.param(CHAT, {**HELLO, "temperature": 0.0, "seed": 1}, id="a seed"),
        pytest.param(CHAT, {**HELLO, "messages": [{"role": "user", "content": "Hello"}]}, id="a letter"),
        pytest.param(CHAT + "?beta=1", HELLO, id="a query"),
        pytest.param("/v1/completions", HELLO, id="a path"),
    ],
)
def test_these_do_not(path: str, other: Any) -> None:
    assert same(path, other) is not None
    assert same(path, other) != same(CHAT, HELLO)


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        pytest.param(CHAT, {**HELLO, "temperature": 0.7}, JSON, id="an answer by chance"),
        pytest.param(CHAT, {**HELLO, "temperature": None}, JSON, id="chance by default"),
        pytest.param(CHAT, {**HELLO, "temperature": False}, JSON, id="no number"),
        pytest.param(CHAT, {**HELLO, "stream": True}, JSON, id="a stream"),
        pytest.param(CHAT, [HELLO], JSON, id="no object"),
        pytest.param("/v2/models/m/generate", {"text_input": "x"}, JSON, id="generating by chance"),
        pytest.param("/v1/audio/speech", {"input": "x"}, JSON, id="a path that nobody vouches for"),
        pytest.param("/anything", {"a": 1}, JSON, id="a path that goes through as it is"),
        pytest.param(EMBED, b"{", JSON, id="no JSON"),
        pytest.param(EMBED, b'{"input": "a", "input": "b"}', JSON, id="a key that stands twice"),
        pytest.param(EMBED, b"[" * 100_000, JSON, id="deeper than anybody reads"),
        pytest.param(EMBED, b'{"input": "\xff"}', JSON, id="no text"),
        pytest.param(INFER, b'{"inputs": []}', b"application/octet-stream", id="tensors beside the JSON"),
        pytest.param(EMBED, {"input": "x" * READ_MOST}, JSON, id="larger than is read"),
    ],
)
def test_these_are_like_nothing(path: str, body: Any, content_type: bytes) -> None:
    assert same(path, body, content_type) is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EMBED, {"model": "m", "input": ["a", "b"]}),
        (INFER, {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5]}]}),
        ("/v2/models/m/versions/3/infer", {"inputs": []}),
        ("/v2/models/m/generate", {"text_input": "x", "parameters": {"seed": 7}}),
        ("/v1/completions", {"prompt": "x", "seed": 7}),
        ("/json", {"a": 1}),
        ("/json", [1, 2]),
    ],
)
def test_these_can_be_kept(path: str, body: Any) -> None:
    assert same(path, body, b"application/json; charset=utf-8") is not None
