"""The pages over a real application: who sees what, in which language, escaped, guarded, and alive."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI

from baseai.tenancy.role import Role
from baseai.truth.session import TruthUnavailable
from baseai.web.language import TAGS
from baseai.web.pages import router
from baseai.web.visit import SESSION_COOKIE
from tests.web.platform import HOSTILE, LINK, RUN, Platform, holder, node, run, waiting
from tests.web.services import SERVICE

pytestmark = pytest.mark.anyio
PATHS = ("/fleet", "/nodes/node-a", "/queue", "/runs", "/runs?state=all", f"/runs/{RUN}", "/services",
         f"/services/{SERVICE}", "/models", "/offers", "/books", "/books/trial-balance")  # fmt: skip
OWN = {"origin": "http://baseai.test"}


@asynccontextmanager
async def browser(
    platform: Platform,
    *,
    signed_in: bool = True,
    demo: bool = False,
    scheme: str = "http",
    language: str = "en",
) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(platform.doors(demo=demo)))
    cookies = {SESSION_COOKIE: "ses_open"} if signed_in else {}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url=f"{scheme}://baseai.test",
        cookies=cookies,
        headers={"accept-language": language},
    ) as client:
        yield client


# ---- who


@pytest.mark.parametrize("path", ["/", *PATHS, f"/runs/{RUN}/live", "/fleet/live"])
async def test_a_stranger_is_told_how_to_get_a_link(path: str) -> None:
    async with browser(Platform(), signed_in=False) as client:
        answer = await client.get(path)
    assert answer.status_code == 401
    assert "baseai status --link" in answer.text
    assert "train-gpt" not in answer.text


async def test_a_link_signs_in_once() -> None:
    platform = Platform(sessions=set())
    async with browser(platform, signed_in=False) as client:
        answer = await client.get(f"/sign-in/{LINK}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secure" not in cookie  # loopback without TLS
        assert (await client.get("/fleet")).status_code == 200
        again = await client.get(f"/sign-in/{LINK}")
    assert again.status_code == 401
    assert "no longer works" in again.text


async def test_a_browser_that_looks_ahead_does_not_use_a_link_up() -> None:
    async with browser(Platform(), signed_in=False) as client:
        await client.get(f"/sign-in/{LINK}", headers={"sec-purpose": "prefetch;prerender"})
        assert (await client.get(f"/sign-in/{LINK}")).status_code == 303


async def test_over_tls_the_session_travels_nowhere_else() -> None:
    async with browser(Platform(), signed_in=False, scheme="https") as client:
        answer = await client.get(f"/sign-in/{LINK}")
    assert "secure" in answer.headers["set-cookie"].lower()


async def test_a_link_followed_from_another_site_steps_through_a_page_of_ours() -> None:
    async with browser(Platform(), signed_in=False) as client:
        answer = await client.get(f"/sign-in/{LINK}", headers={"sec-fetch-site": "cross-site"})
    assert (answer.status_code, 'content="0;url=/"' in answer.text) == (200, True)


async def test_signing_out_ends_the_session() -> None:
    platform = Platform()
    async with browser(platform) as client:
        assert (await client.post("/sign-out", headers=OWN)).status_code == 200
        assert (await client.get("/fleet")).status_code == 401
    assert platform.sessions == set()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", **OWN},
        {"sec-fetch-site": "same-site", **OWN},
    ],
)
async def test_another_site_cannot_sign_anybody_out(headers: dict[str, str]) -> None:
    platform = Platform()
    async with browser(platform) as client:
        assert (await client.post("/sign-out", headers=headers)).status_code == 400
    assert platform.sessions == {"ses_open"}


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        pytest.param(Role.OPERATOR, set(PATHS), id="operator"),
        pytest.param(Role.FINANCE, set(PATHS), id="finance"),
        pytest.param(
            Role.CUSTOMER,
            {
                "/queue",
                "/runs",
                "/runs?state=all",
                f"/runs/{RUN}",
                "/services",
                f"/services/{SERVICE}",
                "/models",
                "/offers",
                "/books",
            },
            id="customer",
        ),
        pytest.param(
            Role.INVESTOR,
            {"/fleet", "/nodes/node-a", "/offers", "/books", "/books/trial-balance"},
            id="investor",
        ),
        pytest.param(Role.VIEWER, {"/fleet", "/nodes/node-a", "/offers"}, id="viewer"),
    ],
)
async def test_a_role_opens_its_pages_and_no_others(role: Role, allowed: set[str]) -> None:
    platform = Platform(holder=holder(role, "ten_a" if role is Role.CUSTOMER else None))
    async with browser(platform) as client:
        statuses = {path: (await client.get(path)).status_code for path in PATHS}
        home = await client.get("/")
        landing = await client.get(home.headers["location"])
    assert {path for path, status in statuses.items() if status == 200} == allowed
    assert {status for path, status in statuses.items() if path not in allowed} <= {403}
    assert landing.status_code == 200
    offered = set(re.findall(r'<a href="(/\w+)"', landing.text.split("</nav>")[0]))
    allowed -= {"/models"}  # one step from services
    assert offered == {path for path in allowed if path.count("/") == 1 and "?" not in path}


async def test_another_tenants_run_is_as_one_that_never_was() -> None:
    platform = Platform(holder=holder(Role.CUSTOMER, "ten_b"))
    async with browser(platform) as client:
        theirs, absent = await client.get(f"/runs/{RUN}"), await client.get("/runs/run_never")
        live = await client.get(f"/runs/{RUN}/live")
    assert (theirs.status_code, live.status_code) == (404, 404)
    assert theirs.text.replace(RUN, "run_never") == absent.text


async def test_a_tenant_sees_what_it_is_charged_and_not_what_it_costs_us() -> None:
    async with browser(Platform(holder=holder(Role.CUSTOMER, "ten_a"))) as client:
        text = (await client.get(f"/runs/{RUN}")).text
    assert "US$\xa00.001833" in text
    assert "US$\xa00.000417" not in text
    assert "US$\xa00.001416" not in text
    assert "PUE" not in text


async def test_who_may_not_see_runs_reads_no_name_of_one() -> None:
    async with browser(Platform(holder=holder(Role.INVESTOR))) as client:
        text = (await client.get("/fleet")).text
    assert "train-gpt" not in text
    assert "US$\xa00.001833" in text


# ---- what


async def test_a_run_shows_state_curve_lease_and_money() -> None:
    async with browser(Platform()) as client:
        text = (await client.get(f"/runs/{RUN}")).text
    for shown in (
        "Its processes run on every leased node.", "step 400 of 600", "66.7 %", '<svg class="chart"', "slot-7f3a-0",
        "11,873", "8.3 %", "91.4 %", "0.0458", "US$\xa00.001833", "US$\xa00.000417", "US$\xa00.001416", "PUE 1.3",
        "accruing", "estimated", "measured", "a worker was lost", "worker 1 ended by signal 9", "step-00000300",
        "a run of another tenant", "0.8 accelerator-seconds",
    ):  # fmt: skip
        assert shown in text, shown


async def test_a_finished_run_shows_its_result_and_is_not_live() -> None:
    result = {
        "bits_per_byte": 2.418,
        "perplexity": 57.31,
        "sample": "def f(<x>):",
        "model_folder": "models/run_1",
    }
    platform = Platform(rows=[run(state="succeeded", reason="finished", result=result)])
    async with browser(platform) as client:
        text = (await client.get(f"/runs/{RUN}")).text
    assert "data-live" not in text
    for shown in ("2.418", "57.31", "def f(&lt;x&gt;):", "models/run_1", "It ended well."):
        assert shown in text, shown


async def test_a_waiting_run_explains_itself_in_the_readers_language() -> None:
    async with browser(Platform(), language="pt-BR") as client:
        queue = (await client.get("/queue")).text
        own = (await client.get("/runs/run_waiting")).text
    for shown in (
        "com memória livre de menos: 2", "79,0 % de 412 intervalos se confirmaram",
        "2 aceleradores em cada nó em vez de 8", "Começa no mais tardar:",
        "22/11/2026 14:00 <small>BRT</small>",
    ):  # fmt: skip
        assert shown in queue, shown
        assert shown in own, shown
    assert "Waiting, first in the queue" not in queue


async def test_the_queue_shows_each_interval_on_one_axis_and_how_often_such_ones_held() -> None:
    platform = Platform(rows=[waiting(f"run_{number}") | {"name": f"waits-{number}"} for number in range(26)])
    async with browser(platform) as client:
        first = (await client.get("/queue")).text
        second = (await client.get("/queue?cursor=25")).text
    assert "26 runs wait." in first
    assert first.count("<circle") == 25
    assert "79.0 % of 412 intervals held" in first
    assert 'data-live="/queue/live"' in first
    assert 'href="/queue?cursor=25"' in first
    assert "waits-25</a>" in second
    assert "data-live" not in second  # what is sent live is the first page


async def test_why_a_run_is_where_it_is() -> None:
    why = {
        "kind": "backfill", "policy": "lookahead", "sentence": "", "fitting": 12, "strands_milli": 200.0,
        "next_best": "node-b", "next_best_strands_milli": 1400.0, "leaves": 2, "leaves_fewest": 1,
    }  # fmt: skip
    async with browser(Platform(rows=[run(why=why)]), language="pt-BR") as client:
        text = (await client.get(f"/runs/{RUN}")).text
    for shown in (
        "Começou antes da sua vez, sem atrasar ninguém.", "De 12 nós em que cabe, onde está é onde menos fica sem uso.",
        'em aceleradores: 1,2 (<a href="/nodes/node-b">node-b</a>)', "se espalha: 2; o mínimo possível: 1",
    ):  # fmt: skip
        assert shown in text, shown


async def test_a_silent_node_stands_out() -> None:
    async with browser(Platform()) as client:
        text = (await client.get("/fleet")).text
    assert len(re.findall(r"silent for", text)) == 1
    assert re.search(r'<tr class="alarm">\s*<th scope="row"><a href="/nodes/node-b">', text)


async def test_a_node_says_where_it_hangs_as_far_as_that_is_known() -> None:
    async with browser(Platform(node_rows=[node(rack="r12", leaf="l3", pod=None), node("node-b")])) as client:
        text = (await client.get("/nodes/node-a")).text
        assert "<dt>Rack</dt><dd>r12</dd>" in text
        assert "<dt>Network</dt><dd>l3</dd>" in text
        assert "<dt>Rack</dt>" not in (await client.get("/nodes/node-b")).text


async def test_wrong_books_are_called_wrong() -> None:
    async with browser(Platform(difference=Decimal("0.000001"))) as client:
        text = (await client.get("/books/trial-balance")).text
    assert "the books are wrong" in text
    assert "0.000001" in text
    async with browser(Platform()) as client:
        assert "debits equal credits" in (await client.get("/books/trial-balance")).text


async def test_offers_name_their_price_or_that_there_is_none() -> None:
    async with browser(Platform()) as client:
        assert "US$\xa00.04" in (await client.get("/offers")).text


async def test_a_demo_and_what_is_simulated_are_labelled() -> None:
    platform = Platform(rows=[run(simulated=True)], node_rows=[node(simulated=True)])
    async with browser(platform, demo=True, language="pt-BR") as client:
        for path in ("/fleet", "/runs", f"/runs/{RUN}"):
            body = (await client.get(path)).text
            assert "Demonstração:" in body
            assert "simulado" in body.split("<footer>")[0], path
    async with browser(Platform()) as client:
        assert "Demonstration" not in (await client.get("/fleet")).text


async def test_a_long_list_goes_on_with_its_filter() -> None:
    rows = [run(f"run_{number}", name=f"r{number}") for number in range(60)]
    async with browser(Platform(rows=rows)) as client:
        first = (await client.get("/runs?state=running")).text
        [address] = re.findall(r'<p class="pages"><a href="([^"]+)"', first)
        second = (await client.get(address.replace("&amp;", "&"))).text
    assert "state=running" in address
    assert (">r49<" in first, ">r50<" in first, ">r50<" in second) == (True, False, True)
    assert '<p class="pages">' not in second


async def test_a_database_that_is_away_is_told_with_what_to_do() -> None:
    async with browser(Platform(fault=TruthUnavailable("gone"))) as client:
        answer = await client.get("/runs")
    assert (answer.status_code, "restarted by itself" in answer.text) == (503, True)


# ---- form


@pytest.mark.parametrize("language", TAGS)
async def test_the_language_is_kept_once_asked_for(language: str) -> None:
    async with browser(Platform(), language="fr") as client:
        assert f'<html lang="{language}">' in (await client.get(f"/runs?lang={language}")).text
        assert f'<html lang="{language}">' in (await client.get("/fleet")).text


async def test_another_language_is_the_same_place() -> None:
    async with browser(Platform()) as client:
        text = (await client.get("/runs?state=running&lang=en")).text
    assert 'href="/runs?state=running&amp;lang=pt-BR"' in text


async def test_portuguese_pages_have_no_english_left() -> None:
    own = re.compile(
        r'<(\w+)[^>]* lang="en".*?</\1>|<code>.*?</code>|<[^>]*>', re.DOTALL
    )  # names and quotations
    async with browser(Platform(), language="pt-BR") as client:
        for path in PATHS:
            text = own.sub(" ", (await client.get(path)).text.split("</header>")[1])
            words = set(re.findall(r"[^\W\d_]+", text.lower()))
            assert words & {"the", "of", "is", "not", "state", "cost", "hours", "lease"} == set(), path


@pytest.mark.parametrize("path", PATHS)
async def test_what_people_wrote_is_text_and_never_markup(path: str) -> None:
    rows = [
        run(name=HOSTILE, tenant=HOSTILE, project=HOSTILE, gpu=HOSTILE, sentence=HOSTILE, state="failed",
            reason=HOSTILE, result={"sample": HOSTILE}, node_names=[HOSTILE]),
        waiting(tenant=HOSTILE),
    ]  # fmt: skip
    change = {"lever": HOSTILE, "asked": HOSTILE, "instead": HOSTILE, "sentence": HOSTILE}
    owners = [{"tenant_id": HOSTILE, "tenant": HOSTILE, "runs": 1}]
    rows[1]["wait"] |= {"behind": {"kind": HOSTILE, "name": HOSTILE}, "owners_ahead": owners}
    rows[1]["wait"] |= {"change": change, "failing": {HOSTILE: 1}, "code": HOSTILE, "sentence": HOSTILE}
    nodes = [node(runs=[HOSTILE], address=HOSTILE, site=HOSTILE), node(HOSTILE)]
    async with browser(Platform(rows=rows, node_rows=nodes)) as client:
        text = (await client.get(path)).text
    assert HOSTILE not in text
    assert "<script>" not in text
    assert 'alert("x")' not in text


class _Tags(HTMLParser):
    """Tags in order, and whether each is closed by its own."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "path", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if "id" in facts:
            self.ids.append(facts["id"] or "")
        self.inline += [name for name in facts if name.startswith("on") or name == "style"]
        if tag == "script" and "src" not in facts:
            self.inline.append(tag)
        self.elsewhere += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("/", "#", "?"))
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_is_well_formed_whole_and_light(path: str) -> None:
    async with browser(Platform(), demo=True) as client:
        answer = await client.get(path)
        style = (await client.get("/static/style.css")).content
    tags = _Tags()
    tags.feed(answer.text)
    assert (tags.wrong, tags.open) == ([], [])
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.inline == []  # the policy would refuse it
    assert tags.elsewhere == []  # nothing from third parties
    assert answer.text.count("<h1>") == 1
    assert len(gzip.compress(answer.content)) + len(gzip.compress(style)) < 60_000
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "no-store" in answer.headers["cache-control"]


async def test_static_files_are_kept_by_their_digest() -> None:
    async with browser(Platform(), signed_in=False) as client:
        page = (await client.get("/fleet")).text
        [address] = re.findall(r'"(/static/style\.css\?v=\w+)"', page)
        kept = await client.get(address)
        bare = await client.get("/static/style.css")
        again = await client.get("/static/style.css", headers={"if-none-match": bare.headers["etag"]})
        assert "immutable" in kept.headers["cache-control"]
        assert bare.headers["cache-control"] == "no-cache"
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.get("/static/../pages.py")).status_code == 404
        assert (await client.get("/static/%2e%2e%2fpages.py")).status_code == 404
        assert len((await client.get("/static/live.js")).content) < 5_000


# ---- live


async def stream(client: httpx.AsyncClient, path: str) -> list[tuple[str, dict[str, str]]]:
    """Everything a stream that ends sent, as (event, data)."""
    answer = await client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            told.append((fields.get("event", "message"), json.loads(fields["data"])))
    return told


async def test_a_stream_tells_the_end_of_a_run_and_ends() -> None:
    platform = Platform(rows=[run(state="succeeded", reason="finished")])
    async with browser(platform) as client:
        page = (await client.get(f"/runs/{RUN}")).text
        told = await stream(client, f"/runs/{RUN}/live")
    assert [event for event, _ in told] == ["message", "over"]
    fragments = told[0][1]
    assert "It ended well." in fragments["state"]
    assert all(f'id="{part}"' in page for part in fragments)
    assert '<svg class="chart"' in fragments["curve"]


async def test_a_stream_sends_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baseai.web.pages.LIVE_EVERY_S", 0.0)
    platform = Platform()

    async def changes(run_id: str) -> AsyncIterator[None]:
        platform.rows[0] = run(priority=51)  # shown nowhere
        yield
        platform.rows[0] = run(state="succeeded", reason="finished", restarts=2)
        yield

    monkeypatch.setattr(platform, "run_changes", changes)
    async with browser(platform) as client:
        told = await stream(client, f"/runs/{RUN}/live")
    assert [event for event, _ in told] == ["message", "message", "over"]
    assert set(told[1][1]) == {"state", "figures"}


async def test_a_stream_ends_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baseai.web.pages.LIVE_EVERY_S", 0.0)
    platform = Platform()

    async def changes(run_id: str) -> AsyncIterator[None]:
        platform.sessions.clear()
        while True:
            yield

    monkeypatch.setattr(platform, "run_changes", changes)
    async with browser(platform) as client:
        told = await stream(client, f"/runs/{RUN}/live")
    assert [event for event, _ in told] == ["message", "over"]


async def test_a_stream_outlives_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baseai.web.pages.LIVE_EVERY_S", 0.0)
    platform = Platform(rows=[run(state="stopping")])

    async def changes(run_id: str) -> AsyncIterator[None]:
        platform.fault = TruthUnavailable("gone")
        yield
        platform.fault, platform.rows[0] = None, run(state="cancelled", reason="stopped_by_user")
        yield

    monkeypatch.setattr(platform, "run_changes", changes)
    async with browser(platform) as client:
        told = await stream(client, f"/runs/{RUN}/live")
    assert [event for event, _ in told] == ["message", "message", "over"]
