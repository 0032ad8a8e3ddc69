"""Requests that are shown and sent as examples: each is one that the gateway knows and the protocol has."""

import json
import shlex

import pytest

from baseai.gateway.address import address_of
from baseai.serving.example import MOST_TOKENS, Example, examples_of, url_of
from baseai.workloads.service import Engine, Protocol, Service

SERVICE = "svc_1"


def service(engine: Engine, protocol: Protocol, *, auth: bool = True, model_name: str = "m.1") -> Service:
    return Service(engine=engine, model=None, model_name=model_name, protocol=protocol, auth=auth)


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("auth", [True, False])
@pytest.mark.parametrize(
    ("engine", "protocol", "names"),
    [
        ("chat", "openai", ["chat", "completion", "models"]),
        ("vllm", "openai", ["chat", "completion", "models"]),
        ("embeddings", "openai", ["embeddings", "models"]),
        ("onnx", "oip", ["metadata", "infer"]),
        ("chat", "oip", ["generate", "metadata"]),
        ("callable", "json", ["json"]),
        ("command", "json", ["any"]),
        ("ray", "json", ["any"]),
    ],
)
def test_the_gateway_finds_every_example(
    engine: Engine, protocol: Protocol, names: list[str], auth: bool, by_name: bool
) -> None:
    terms = service(engine, protocol, auth=auth)
    examples = examples_of(SERVICE, terms, by_name=by_name)
    assert [each.name for each in examples] == names
    for each in examples:
        address = address_of(each.path.encode())
        assert address is not None
        assert address.kind == ("raw" if each.name == "any" else protocol)
        outright = not (by_name and auth) or each.name == "any"
        assert address.service_id == (SERVICE if outright else None)
        if protocol == "oip" or (each.name == "json" and not outright):
            assert address.model == "m.1"


def test_a_name_with_what_paths_do_not_hold_is_written_out() -> None:
    [one] = examples_of(SERVICE, service("callable", "json", model_name="a b/c"), by_name=True)
    address = address_of(one.path.encode())
    assert address is not None
    assert address.model == "a b/c"


def test_what_a_person_says_stands_where_the_protocol_has_it() -> None:
    chat, completion, listed = examples_of(SERVICE, service("chat", "openai"), by_name=True)
    assert json.loads(chat.body_with("Olá", stream=True)) == {
        "model": "m.1", "messages": [{"role": "user", "content": "Olá"}], "max_tokens": MOST_TOKENS, "stream": True,
    }  # fmt: skip
    assert json.loads(completion.body_with("Era uma vez"))["prompt"] == "Era uma vez"
    assert listed.body_with("x", stream=True) == b""


@pytest.mark.parametrize("with_key", [True, False])
def test_the_command_is_one_a_shell_takes_as_it_stands(with_key: bool) -> None:
    one = Example(name="json", method="POST", path="/json/m", body={"text": "it's $HOME"})
    words = shlex.split(one.curl("http://gateway", with_key=with_key))
    assert words[:2] == ["curl", "http://gateway/json/m"]
    assert json.loads(words[-1]) == {"text": "it's $HOME"}
    assert ("Authorization: Bearer $BASEAI_KEY" in words) is with_key


def test_a_service_has_an_address_of_its_own() -> None:
    assert url_of("http://gateway", SERVICE) == "http://gateway/s/svc_1"
