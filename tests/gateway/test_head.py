"""What goes on to the other side of the gateway, what a path asks for, and what a body says."""

import json

import pytest

from baseai.gateway.address import Address, address_of
from baseai.gateway.head import head_for_client, head_for_replica, request_id_of
from baseai.gateway.prompt import prompt_of
from baseai.gateway.protocol import Asked, Usage, asked_of, body_for_replica, usage_in, usage_told
from baseai.gateway.refusal import Refusal


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(b"/v1/chat/completions", ("openai", None, None), id="OpenAI"),
        pytest.param(b"/v2/models/a%2Fb/infer", ("oip", None, "a/b"), id="a name with a slash"),
        pytest.param(b"/v2/models//infer", None, id="no name"),
        pytest.param(b"/json/x", ("json", None, "x"), id="plain JSON"),
        pytest.param(b"/json/x/y", None, id="nothing below it"),
        pytest.param(b"/s/svc/v1/x", ("openai", "svc", None), id="OpenAI of a service"),
        pytest.param(b"/s/svc/v2", ("oip", "svc", None), id="OIP's own page of a service"),
        pytest.param(b"/s/svc/v2x", ("raw", "svc", None), id="a page of the service"),
        pytest.param(b"/s//x", None, id="no service"),
        pytest.param(b"/x", None, id="nothing"),
    ],
)
def test_an_address(path: bytes, expected: tuple[str, str | None, str | None] | None) -> None:
    address = address_of(path)
    assert (address and address[:3]) == expected


def test_a_model_is_called_as_the_replica_calls_it() -> None:
    address = address_of(b"/v2/models/alias/versions/1/infer")
    assert address is not None
    assert address.of_model("own/name") == b"/v2/models/own%2Fname/versions/1/infer"


@pytest.mark.parametrize(
    ("offered", "taken"),
    [(b"a-1:b/2", "a-1:b/2"), (b"", None), (b"a b", None), (b"x" * 129, None), (b"a\tb", None), (None, None)],
)
def test_a_request_id_is_taken_when_a_log_can_hold_it(offered: bytes | None, taken: str | None) -> None:
    assert request_id_of(offered) == taken


def test_what_connection_names_stays_on_its_side() -> None:
    headers = [(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-end", b"2"), (b"upgrade", b"h2c")]
    head = head_for_replica(
        kind="raw",
        method="GET",
        path=b"/p",
        query=b"q=1",
        host=b"h:1",
        headers=headers,
        own=b"x-request-id: r\r\n",
        length=None,
        token=b"t",
        keeps_key=False,
    )
    own = b"x-request-id: r\r\nauthorization: Bearer t\r\n"
    assert head == b"GET /p?q=1 HTTP/1.1\r\nhost: h:1\r\nx-end: 2\r\n" + own + b"\r\n"
    passed, content_type, usage = head_for_client(
        [*headers, (b"content-type", b"t"), (b"x-baseai-usage", b"u")]
    )
    assert (passed, content_type, usage) == ([(b"x-end", b"2"), (b"content-type", b"t")], b"t", b"u")


CHAT = Address("openai", None, None, b"/v1/chat/completions")


def asked(body: object) -> Asked:
    understood = asked_of(CHAT, "POST", json.dumps(body).encode())
    assert isinstance(understood, Asked)
    return understood


@pytest.mark.parametrize(
    ("options", "hides"),
    [
        pytest.param({}, True, id="no word of it"),
        pytest.param({"stream_options": None}, True, id="null"),
        pytest.param({"stream_options": {"include_usage": False}}, True, id="not wanted"),
        pytest.param({"stream_options": {"include_usage": True}}, False, id="wanted"),
    ],
)
def test_every_stream_is_asked_for_usage(options: dict[str, object], hides: bool) -> None:
    body = {"model": "m", "stream": True, "seed": 12345678901234567890, **options}
    wanted = asked(body)
    assert wanted.hides_usage is hides
    sent = json.loads(body_for_replica(wanted, json.dumps(body).encode(), None))
    assert sent == {**body, "stream_options": {"include_usage": True}}


def test_a_body_that_needs_nothing_goes_on_byte_for_byte() -> None:
    raw = b'{ "model":"m" ,"x":1.0e2}'
    understood = asked_of(CHAT, "POST", raw)
    assert isinstance(understood, Asked)
    assert body_for_replica(understood, raw, "m") is raw


def test_deep_nesting_is_refused_and_not_fallen_over() -> None:
    assert isinstance(asked_of(CHAT, "POST", b"[" * 200_000), Refusal)


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        pytest.param(b'..."usage":{"prompt_tokens":3,"completion_tokens":4},"x":1}', Usage(3, 4), id="chat"),
        pytest.param(b'"usage": {"prompt_tokens": 7, "total_tokens": 7}}', Usage(7, 0), id="embeddings"),
        pytest.param(b'"usage":{"input_tokens":2,"output_tokens":5}', Usage(2, 5), id="responses"),
        pytest.param(b'"usage":{"prompt_tokens":-3}', Usage(0, 0), id="nonsense counts as nothing"),
        pytest.param(rb'"text":"\"usage\":{\"prompt_tokens\":9}"', None, id="a model's words are no usage"),
        pytest.param(b'"usage":null', None, id="none"),
        pytest.param(b'"usage":{"prompt', None, id="cut"),
    ],
)
def test_usage_is_read_at_the_end_of_an_answer(tail: bytes, usage: Usage | None) -> None:
    assert usage_in(tail) == usage


def test_usage_in_a_header() -> None:
    assert usage_told(b"tokens_in=12, tokens_out=34") == Usage(12, 34)
    assert usage_told(b"tokens_in=x,other=3") == Usage(0, 0)
    assert usage_told("tokens_in=\u00b2,tokens_out=3".encode("latin-1")) == Usage(0, 3)
    assert usage_told(b"tokens_in=" + b"9" * 5000) == Usage(0, 0)


def test_a_prompt_is_the_whole_conversation_after_its_tools() -> None:
    body = {
        "tools": [{"name": "f"}],
        "messages": [
            {"role": "system", "content": "S"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "U"}, {"type": "image_url", "image_url": "i"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        ],
    }
    text = prompt_of(body).decode()
    assert [
        text.index(piece) for piece in ('"f"', "system\nS", "user\nU", '"image_url"', '"id":"1"')
    ] == sorted(text.index(piece) for piece in ('"f"', "system\nS", "user\nU", '"image_url"', '"id":"1"'))


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"prompt": "a"}, b"a"),
        ({"prompt": ["a", "b"]}, b"a"),
        ({"prompt": [1, 2]}, b"[1,2]"),
        ({"input": "x"}, b""),
    ],
)
def test_a_prompt_of_completions(body: dict[str, object], prompt: bytes) -> None:
    assert prompt_of(body) == prompt


@pytest.mark.parametrize("messages", [None, "x", [1], [{"content": 3}], [{"role": None, "content": [None]}]])
def test_an_odd_conversation_has_a_prompt_too(messages: object) -> None:
    assert isinstance(prompt_of({"messages": messages}), bytes)
