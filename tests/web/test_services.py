"""The pages of services: what each shows and to whom, what its charts draw, and what trying one does."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import httpx
import pytest

from baseai.tenancy.role import Role
from baseai.web.language import load_languages
from baseai.web.service_page import chart_json, markers_of
from baseai.web.services import ServicePages
from tests.web.platform import HOSTILE, Platform, holder, run
from tests.web.services import NOON, SERVICE, Shelf, chat_shelf, service, spec, version
from tests.web.test_pages import OWN, browser

pytestmark = pytest.mark.anyio
EN = load_languages()["en"]
CALLABLE = "type: service\nname: {name}\nmodel: python:m.py:answer\nfiles: [m.py]\n"
FORM = {"content-type": "application/x-www-form-urlencoded", **OWN}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with browser(Platform()) as opened:
        yield opened


# ---- what


async def test_services_are_listed_with_state_replicas_and_rollout(client: httpx.AsyncClient) -> None:
    text = (await client.get("/services")).text
    for shown in (
        f'href="/services/{SERVICE}">magika</a>',
        "serving",
        "2 / 3",
        "21.4",
        "0.2 %",
        "1 → 2",
        "10.0 %",
    ):
        assert shown in text, shown
    assert 'data-live="/services/live"' in text


async def test_a_service_shows_how_it_answers_and_why_it_has_its_replicas(client: httpx.AsyncClient) -> None:
    text = (await client.get(f"/services/{SERVICE}")).text
    for shown in (
        "Its replicas answer.", "Version 2 takes over from version 1: it gets 10.0 % of the requests.",
        "11.5 requests under way, 4 a replica", "at most 100 ms", "0.4 × what may be slow", "in haste",
        "first in the queue, waits for 1 accelerator", 'href="/runs/run_1">magika-1</a>', 'href="/nodes/node-a"',
        "Revenue per 1,000 requests", "US$\xa00.0016", "Cost per 1,000 requests", "US$\xa00.00034", "accruing",
        f"http://127.0.0.1:7801/s/{SERVICE}", f"curl http://127.0.0.1:7801/s/{SERVICE}/v2/models/magika/infer",
        "Apache-2.0",
    ):  # fmt: skip
        assert shown in text, shown
    assert f'data-series="/services/{SERVICE}/series?back=15m"' in text


async def test_a_tenant_sees_what_it_is_charged_for_a_service_and_not_what_it_costs_us() -> None:
    async with browser(Platform(holder=holder(Role.CUSTOMER, "ten_a"))) as client:
        text = (await client.get(f"/services/{SERVICE}")).text
    assert "Charge per 1,000 requests" in text
    assert "US$\xa00.00034" not in text
    assert 'href="/nodes/' not in text


async def test_another_tenants_service_is_as_one_that_never_was() -> None:
    async with browser(Platform(holder=holder(Role.CUSTOMER, "ten_b"))) as client:
        for path in (f"/services/{SERVICE}", f"/services/{SERVICE}/series", f"/services/{SERVICE}/live"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post(f"/services/{SERVICE}/try/infer", headers=FORM)).status_code == 404
        assert ">magika<" not in (await client.get("/services")).text
        assert "d" * 12 not in (await client.get("/models")).text


async def test_a_stopped_service_is_not_live_and_takes_nothing() -> None:
    shelf = Shelf(rows=[service(state="stopped", candidate_no=None, ready=0, wanted=0)])
    async with browser(Platform(shelf=shelf)) as client:
        text = (await client.get(f"/services/{SERVICE}")).text
        tried = await client.post(f"/services/{SERVICE}/try/infer", headers=FORM)
        listed = (await client.get("/services")).text, (await client.get("/services?state=all")).text
    assert ("data-live" in text, "data-try" in text, tried.status_code) == (False, False, 400)
    assert ["magika</a>" in each for each in listed] == [False, True]


async def test_models_are_told_with_digest_origin_and_evaluation(client: httpx.AsyncClient) -> None:
    text = (await client.get("/models")).text
    for shown in (
        "d" * 12,
        "pkg:magika:model.onnx",
        'href="/runs/run_x">train-gpt</a>',
        "bits_per_byte <b>1.821</b>",
    ):
        assert shown in text, shown


async def test_a_replicas_run_leads_to_its_service() -> None:
    replica = run(kind="service", service="magika", service_id=SERVICE, version_no=3)
    async with browser(Platform(rows=[replica])) as client:
        one, all_ = (await client.get(f"/runs/{replica['run_id']}")).text, (await client.get("/runs")).text
    assert f'replica of <a href="/services/{SERVICE}">magika</a>, version 3' in one
    assert "Tokens per second" not in one  # a replica learns nothing
    assert f'replica of <a href="/services/{SERVICE}">magika</a>' in all_


async def test_names_of_services_are_shown_as_text() -> None:
    shelf = Shelf(rows=[service(name=HOSTILE, sentence=HOSTILE, wanted_why=HOSTILE)])
    async with browser(Platform(shelf=shelf)) as client:
        for path in ("/services", f"/services/{SERVICE}"):
            assert HOSTILE not in (await client.get(path)).text


async def test_a_live_page_sends_fragments_and_then_what_its_charts_draw() -> None:
    pages = ServicePages(Shelf().serving())
    platform = Platform(shelf=Shelf(rows=[service(state="stopped")]))
    async with browser(platform) as client:
        told = (await client.get(f"/services/{SERVICE}/live")).text
    first = json.loads(told.partition("data: ")[2].split("\n")[0])
    assert {"state", "figures", "money", "versions", "replicas", "scalings"} == set(first)
    assert "event: over" in told
    visit = type("Visit", (), {"scope": type("S", (), {"tenant_id": None})(), "language": EN})()
    drawn = await pages.series(visit, SERVICE, "15m")
    assert list(drawn["plots"]) == ["requests", "latency", "replicas", "shares"]


# ---- charts


async def test_charts_draw_what_was_counted_and_break_where_nothing_was_asked() -> None:
    shelf = Shelf()
    scope = type("S", (), {"tenant_id": None})()
    drawn = chart_json(await shelf.traffic(scope, SERVICE), await shelf.service(scope, SERVICE), EN)
    lines = {line["name"]: line["values"] for line in drawn["plots"]["latency"]["lines"]}
    assert set(lines["slo"]) == {100.0}
    assert (lines["p99"][0], lines["p99"][45] > lines["p50"][45] > 0) == (None, True)
    replicas = {line["name"]: line["values"] for line in drawn["plots"]["replicas"]["lines"]}
    assert replicas["demand"][45] == pytest.approx(
        30 * 0.4 / 4
    )  # requests under way, by what one replica is given
    assert (max(replicas["wanted"]), max(replicas["ready"])) == (3, 3)
    requests = {line["name"]: line["values"] for line in drawn["plots"]["requests"]["lines"]}
    assert requests["requests"][45] == pytest.approx(30.0)
    assert requests["hits"][45] == pytest.approx(10.0)
    assert len({len(line["values"]) for plot in drawn["plots"].values() for line in plot["lines"]}) == 1


def test_what_became_of_versions_is_marked() -> None:
    later = NOON.replace(minute=30)
    versions = [
        version(3, state="rolled_back", made_at=NOON, settled_at=later), version(2, made_at=NOON, settled_at=NOON),
        version(1, state="retired", made_at=NOON.replace(hour=3), settled_at=NOON),
    ]  # fmt: skip
    marks = [(tone, words) for _, tone, words in markers_of(versions, NOON.replace(hour=14), EN)]
    assert marks == [
        ("good", "version 2 took over"), ("plain", "version 2 came"), ("plain", "version 3 came"),
        ("warn", "version 3 was taken back"),
    ]  # fmt: skip


# ---- trying


async def test_a_request_is_passed_on_and_its_answer_back_without_what_is_not_ours() -> None:
    shelf = Shelf()
    async with browser(Platform(shelf=shelf)) as client:
        answer = await client.post(
            f"/services/{SERVICE}/try/infer", headers=FORM, content='body={"inputs": []}'.replace(" ", "%20")
        )
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert answer.headers["cache-status"] == "baseai; hit"
    assert "set-cookie" not in answer.headers
    assert shelf.called == [(SERVICE, "POST", "/v2/models/magika/infer", b'{"inputs": []}')]


@pytest.mark.parametrize("streams", [True, False])
async def test_a_text_is_said_as_the_protocol_has_it(streams: bool) -> None:
    shelf = chat_shelf()
    shelf.answer = (
        200,
        {"content-type": "text/event-stream; charset=utf-8"},
        (b"data: {}\n\n", b"data: [DONE]\n\n"),
    )
    accept = "text/event-stream, application/json" if streams else "application/json"
    async with browser(Platform(shelf=shelf)) as client:
        answer = await client.post(
            f"/services/{SERVICE}/try/chat",
            headers={**FORM, "accept": accept},
            content="text=Ol%C3%A1%2C+mundo",
        )
    assert answer.text == "data: {}\n\ndata: [DONE]\n\n"
    assert answer.headers["content-type"].startswith("text/event-stream")
    [(_, _, path, body)] = shelf.called
    sent = json.loads(body)
    assert path == "/v1/chat/completions"
    assert sent["messages"] == [{"role": "user", "content": "Olá, mundo"}]
    assert sent.get("stream", False) is streams


@pytest.mark.parametrize(
    ("written", "media_type"),
    [('{"a": 1}', "application/json"), ("def f(): pass", "application/octet-stream")],
)
async def test_a_function_is_given_json_or_whatever_was_written(written: str, media_type: str) -> None:
    shelf = Shelf(rows=[service(engine="callable", protocol="json")], spec=spec(CALLABLE))
    async with browser(Platform(shelf=shelf)) as client:
        form = urlencode({"body": written})
        assert (
            await client.post(f"/services/{SERVICE}/try/json", headers=FORM, content=form)
        ).status_code == 200
    assert (shelf.called[0][2:], shelf.media_types) == (("/json/magika", written.encode()), [media_type])


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/javascript", ""])
async def test_what_a_program_answers_is_never_a_page_of_ours(kind: str) -> None:
    shelf = Shelf(answer=(200, {"content-type": kind}, (HOSTILE.encode(),)))
    async with browser(Platform(shelf=shelf)) as client:
        answer = await client.post(f"/services/{SERVICE}/try/metadata", headers=FORM)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_an_answer_that_says_no_keeps_its_status() -> None:
    shelf = Shelf(
        answer=(429, {"content-type": "application/json", "retry-after": "3"}, (b'{"error": "slow down"}',))
    )
    async with browser(Platform(shelf=shelf)) as client:
        answer = await client.post(f"/services/{SERVICE}/try/metadata", headers=FORM)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()) == (
        429,
        "3",
        {"error": "slow down"},
    )


async def test_a_gateway_that_is_away_is_told() -> None:
    async with browser(Platform(shelf=Shelf(answer=None))) as client:
        answer = await client.post(f"/services/{SERVICE}/try/metadata", headers=FORM)
    assert answer.status_code == 503
    assert "restarted by itself" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("what", "content", "status"),
    [
        pytest.param("infer", "body=%7B", 400, id="no JSON"),
        pytest.param("fly", "", 404, id="no such request"),
        pytest.param("infer", "body=" + "1" * (1 << 20), 400, id="too long"),
    ],
)
async def test_what_cannot_be_sent_is_not(what: str, content: str, status: int) -> None:
    shelf = Shelf()
    async with browser(Platform(shelf=shelf)) as client:
        answer = await client.post(f"/services/{SERVICE}/try/{what}", headers=FORM, content=content)
    assert (answer.status_code, shelf.called) == (status, [])


@pytest.mark.parametrize(
    "headers", [{}, {"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site", **OWN}]
)
async def test_another_site_cannot_have_anybody_call_a_model(headers: dict[str, str]) -> None:
    shelf = Shelf()
    async with browser(Platform(shelf=shelf)) as client:
        assert (await client.post(f"/services/{SERVICE}/try/infer", headers=headers)).status_code == 400
    assert shelf.called == []


async def test_who_may_not_call_models_looks_and_tries_nothing() -> None:
    shelf = Shelf()
    async with browser(Platform(shelf=shelf, holder=holder(Role.FINANCE))) as client:
        text = (await client.get(f"/services/{SERVICE}")).text
        tried = await client.post(f"/services/{SERVICE}/try/infer", headers=FORM)
    assert ("data-try" in text, "does not call models" in text, tried.status_code) == (False, True, 403)
    assert shelf.called == []


async def test_the_page_of_a_service_is_light(client: httpx.AsyncClient) -> None:
    text = (await client.get(f"/services/{SERVICE}")).content
    loaded = {"css": 0, "js": 0}
    for address, kind in re.findall(r'(?:src|href)="(/static/[^"]+\.(css|js)[^"]*)"', text.decode()):
        loaded[kind] += len(gzip.compress((await client.get(address)).content))
    assert len(gzip.compress(text)) + loaded["css"] < 60_000
    assert 0 < loaded["js"] < 60_000
