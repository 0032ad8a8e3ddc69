"""Whatever goes wrong is told as RFC 9457 says, and the description of the door is whole."""

from typing import Any

import pytest

from tests.api.platform import HELLO, Platform

pytestmark = pytest.mark.anyio

SPEC = {"spec": HELLO.format(name="x")}
WRONG: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("no such route", "GET", "/nothing", {}, 404),
    ("no such method", "PATCH", "/runs", {}, 405),
    ("no such thing", "GET", "/runs/none", {}, 404),
    ("a name that is no text", "GET", "/runs/a%00b", {}, 422),
    ("not JSON", "POST", "/runs", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
    ("not the shape", "POST", "/runs", {"json": {"spec": 1}}, 422),
    ("a zero byte", "POST", "/tenants", {"json": {"name": "a\0b"}}, 422),
    ("half a character", "POST", "/keys", {"content": b'{"name": "\\ud800", "role": "viewer"}'}, 422),
    ("a name that begins with a dash", "POST", "/tenants", {"json": {"name": "-x"}}, 422),
    ("a name that is taken", "POST", "/tenants", {"json": {"name": "alpha"}}, 409),
    ("an unknown state", "GET", "/runs?state=running,sleeping", {}, 422),
    ("a cursor of somewhere else", "GET", "/runs?cursor=7", {}, 422),
    ("a cursor that is no number", "GET", "/events?cursor=x", {}, 422),
    ("a number beyond all", "GET", "/events?cursor=" + "9" * 30, {}, 422),
    ("a limit that is none", "GET", "/runs?limit=many", {}, 422),
    ("an unknown dimension of cost", "GET", "/cost?by=colour", {}, 422),
    ("an unknown verb", "POST", "/nodes/one/kick", {"json": {}}, 404),
    ("a move that is none", "POST", "/nodes/one/uncordon", {"json": {}}, 409),
    ("a node that speaks is not dead", "POST", "/nodes/one/declare-dead", {"json": {}}, 409),
    ("a reason without end", "POST", "/nodes/one/cordon", {"json": {"reason": "x" * 2000}}, 422),
    ("a secret without a value", "PUT", "/secrets/A", {"json": {}}, 422),
    ("a secret without a name", "PUT", "/secrets/1A", {"json": {"value": "x"}}, 422),
    ("a secret that no variable holds", "PUT", "/secrets/A", {"json": {"value": "a\0b"}}, 422),
    ("a secret beyond all", "PUT", "/secrets/A", {"json": {"value": "x" * 70_000}}, 422),
    ("an unknown project", "POST", "/runs", {"json": SPEC | {"project": "none"}}, 404),
    ("an empty idempotency key", "POST", "/runs", {"json": SPEC, "headers": {"Idempotency-Key": ""}}, 422),
    ("a body beyond all", "POST", "/runs", {"json": {"spec": "#" * 5 * 1024**2}}, 413),
    ("a spec beyond all", "POST", "/runs", {"json": {"spec": "#" * (1024**2 + 1)}}, 422),
    ("a site that is no name", "POST", "/join-tokens", {"json": {"site": "a b"}}, 422),
]  # fmt: skip


@pytest.mark.parametrize("asked", WRONG, ids=[name for name, *_ in WRONG])
async def test_every_error_is_a_problem_document(
    platform: Platform, asked: tuple[str, str, str, Any, int]
) -> None:
    _, method, path, said, status = asked
    answer = await platform.ask(method, path, **said)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"]
    assert told["instance"].startswith("/api/v1/")
    assert "Traceback" not in answer.text


async def test_a_fault_of_our_own_tells_nothing_of_the_inside(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("host=/secret/place password=x")

    monkeypatch.setattr(type(platform.rooms.views), "offers", broken)
    answer = await platform.ask("GET", "/offers")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


async def test_a_lost_database_is_said_and_may_be_tried_again(platform: Platform) -> None:
    await platform.truth.close()
    answer = await platform.ask("GET", "/runs")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "the database is not answering" in answer.json()["detail"]


async def test_the_description_names_an_answer_for_every_route(platform: Platform) -> None:
    described = (await platform.ask("GET", "/openapi.json", key=None)).json()
    assert described["openapi"].startswith("3.")
    for path, methods in described["paths"].items():
        for method, said in methods.items():
            assert any(status.startswith("2") for status in said["responses"]), f"{method} {path}"
            for answer in said["responses"].values():
                for shape in answer.get("content", {}).values():
                    reference = shape["schema"].get("$ref", "")
                    assert not reference or reference.rpartition("/")[2] in described["components"]["schemas"]
