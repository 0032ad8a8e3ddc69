"""A replica answers who shows its token, and says no to all others in the words of each protocol."""

import importlib
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from baseai.workloads.inference import vllm
from baseai.workloads.inference.server.guard import VARIABLE, shows
from tests.workloads.inference.mirror import Mirror
from tests.workloads.inference.served import Served, listening, serving

TOKEN = "rpl_abc"
SHOWN = {"authorization": f"Bearer {TOKEN}"}
SENTENCE = "this replica answers its gateway alone; call the service at the gateway's address, with a key"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(Mirror(), model_name="mirror", token=TOKEN) as served:
        yield served


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        pytest.param(b"Bearer rpl_abc", True, id="the token"),
        pytest.param(b"bearer rpl_abc ", True, id="a scheme has no case, and blanks at the end are nothing"),
        pytest.param(None, False, id="nothing"),
        pytest.param(b"", False, id="an empty one"),
        pytest.param(b"Bearer", False, id="a scheme alone"),
        pytest.param(b"rpl_abc", False, id="no scheme"),
        pytest.param(b"Basic rpl_abc", False, id="another scheme"),
        pytest.param(b"Bearer rpl_ab", False, id="a beginning of it"),
        pytest.param(b"Bearer rpl_abcd", False, id="more than it"),
        pytest.param(b"Bearer rpl_ab\xc3\xa9", False, id="letters beyond ASCII"),
    ],
)
def test_what_shows_the_token(authorization: bytes | None, expected: bool) -> None:
    assert shows(authorization, TOKEN) is expected


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        pytest.param("GET", "/v1/models", lambda answer: answer["error"]["message"], id="OpenAI"),
        pytest.param("GET", "/v2/models/mirror", lambda answer: answer["error"], id="OIP"),
        pytest.param("POST", "/v2/models/mirror/infer", lambda answer: answer["error"], id="inference"),
        pytest.param("POST", "/json", lambda answer: answer["detail"], id="JSON"),
        pytest.param("GET", "/no/such/route", lambda answer: answer["detail"], id="not even which routes there are"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer bai_akey"}], ids=["no key", "a client's key"]
)
def test_a_stranger_is_told_where_to_go(
    served: Served, method: str, path: str, told: Any, headers: dict[str, str]
) -> None:
    answer = served.http.request(
        method, path, json=1 if method == "POST" else None, headers={**headers, "x-request-id": "r-1"}
    )
    assert (answer.status_code, told(answer.json())) == (401, SENTENCE)
    assert (answer.headers["www-authenticate"], answer.headers["x-should-retry"]) == ("Bearer", "false")
    assert answer.headers["x-request-id"] == "r-1"
    assert (served.app.served, served.app.under_way) == (0, 0), "the model was asked nothing"


def test_its_gateway_is_answered_and_so_is_whoever_asks_whether_it_is_ready(served: Served) -> None:
    assert served.post("/json", json=[1], headers=SHOWN).json() == [1]
    ready = served.get("/baseai/ready")
    assert ready.status_code == 200
    assert TOKEN not in ready.text


def test_the_official_client_takes_the_no_for_what_it_is(served: Served) -> None:
    with pytest.raises(openai.AuthenticationError, match="answers its gateway alone"):
        served.client.models.list()
    assert [each.id for each in served.client.with_options(api_key=TOKEN).models.list()] == ["mirror"]


def test_a_replica_that_was_given_no_token_answers_whoever_comes() -> None:
    with serving(Mirror(), model_name="mirror") as old:
        assert old.post("/json", json=1).json() == 1
        assert old.post("/json", json=1, headers=SHOWN).json() == 1


def test_a_body_that_is_not_wanted_is_not_read(served: Served) -> None:
    answer = served.post("/json", content=b"1" * (32 << 20))
    assert answer.status_code == 401
    assert answer.headers["connection"] == "close"


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """An application with paths like vLLM's, given our middleware by its name as vLLM gives it."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    app = FastAPI()
    for path in ("/health", "/v1/models", "/invocations", "/pause"):
        app.add_api_route(path, lambda: "asked", methods=["GET", "POST"])
    module, name = vllm.GUARD.rsplit(".", 1)
    app.add_middleware(getattr(importlib.import_module(module), name))
    with listening(app) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/invocations", "/pause", "/docs", "/health/", "/healthy"])
def test_every_path_of_vllm_is_guarded_and_not_those_alone_that_its_own_key_guards(
    guarded: httpx.Client, path: str
) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        refused = guarded.request(method, path, headers={"authorization": "Bearer another"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "not_the_gateway")
    assert guarded.get(path, headers=SHOWN).status_code != 401


def test_vllm_says_to_all_whether_it_is_well(guarded: httpx.Client) -> None:
    assert guarded.get("/health").json() == "asked"


def test_vllm_without_its_token_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    module, name = vllm.GUARD.rsplit(".", 1)
    with pytest.raises(KeyError, match=VARIABLE):
        getattr(importlib.import_module(module), name)(None)
