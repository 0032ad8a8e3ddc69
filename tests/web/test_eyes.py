"""Pages of measurements over a store in this process: what they say and mark, who sees it, and what if it is away."""

import asyncio
import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from baseai.telemetry.field import ACCELERATOR, Origin, State, Throttle
from baseai.telemetry.store import Place
from baseai.tenancy.role import Role
from baseai.truth.session import Scope
from baseai.web.heatmap import ASPECTS
from baseai.web.pages import Pages
from baseai.web.panel import held_of
from baseai.web.plot import LOOKBACKS
from baseai.web.visit import Visit
from tests.web.fleet import TICK_MS, Asked, batch, installed, laptop, now_ms, places, tick
from tests.web.platform import RUN, Platform, holder
from tests.web.test_pages import browser

pytestmark = pytest.mark.anyio
SLOT = "slot-7f3a-0"


def measured(**facts: Any) -> Platform:
    """A laptop whose slots and host were measured for a quarter of an hour."""
    eyes = Asked()
    laptop(eyes)
    return Platform(eyes=eyes, **facts)


def large(nodes: int = 30) -> Platform:
    """A fleet of simulated accelerators after one tick."""
    cells, eyes = installed(nodes, 8), Asked()
    eyes.store.place(ACCELERATOR, places(cells))
    eyes.append(tick(cells, now_ms()))
    return Platform(eyes=eyes, cells=cells)


# ---- what is said


async def test_the_fleet_is_summed_up_and_says_that_a_figure_is_estimated() -> None:
    async with browser(measured()) as client:
        text = (await client.get("/fleet")).text
    body = text.split("<h2>")[0]
    for shown in (
        "Accelerators",
        "2 leased",
        "GiB",
        '<span class="mark estimated">estimated</span>',
        'id="map"',
    ):
        assert shown in body, shown
    assert 'class="mark simulated"' not in body


async def test_an_accelerators_page_says_each_field_with_its_state_unit_and_source() -> None:
    async with browser(measured()) as client:
        text = (await client.get(f"/accelerators/{SLOT}")).text
    for shown in (
        "utilisation", "psutil cpu_percent per core", "unsupported", "The device or its source cannot say it, ever.",
        "absent", 'data-plot="activity"', 'data-plot="power"', "every sample", "train-gpt", "Energy over this time:",
    ):  # fmt: skip
        assert shown in text, shown
    assert 'data-plot="clocks"' not in text  # nothing to draw: said in words instead
    assert "Not drawn, for there is no value:" in text


async def test_what_was_never_measured_says_so() -> None:
    async with browser(Platform(eyes=Asked())) as client:
        text = (await client.get(f"/accelerators/{SLOT}?back=24h")).text
        node = (await client.get("/nodes/node-a")).text
    assert "Nothing was measured over this time." in text
    assert "Nothing was measured here yet." in text
    assert "Nothing was measured over this time." in node
    assert "uplot.js" not in text + node


async def test_a_nodes_page_compares_its_accelerators_and_shows_its_collectors() -> None:
    collector = {
        "name": "dcgm http://127.0.0.1:9400", "state": "failing", "interval_s": 10.0, "last_ok_at": None,
        "took_ms": 812.4, "failures": 3, "sentence": "no answer within 8 s", "troubles": ["GPU-1: temp_c: blank"],
    }  # fmt: skip
    async with browser(measured(collector_rows=[collector])) as client:
        text = (await client.get("/nodes/node-a")).text
    for shown in (
        'data-plot="each_util_pct"', 'data-plot="processors"', 'data-plot="network"', "Cores of the node",
        f'href="/accelerators/{SLOT}"', "no answer within 8 s", "failures in a row: 3", "GPU-1: temp_c: blank",
    ):  # fmt: skip
        assert shown in text, shown


async def test_a_run_shows_what_it_used_and_how_that_is_known() -> None:
    use = {
        "subject": RUN, "label": "train-gpt", "accelerator_s": 160.0, "seen_s": 120.0, "util_pct": 61.25,
        "mem_used_max_b": 1.5 * 2**30, "energy_wh": 0.42, "energy_origin": "estimated", "throttled_s": 12.0,
        "methods": ["whole device"], "open": True, "missing": None,
        "from_at": datetime(2026, 11, 22, 15, tzinfo=UTC), "until_at": datetime(2026, 11, 22, 15, 2, 40, tzinfo=UTC),
    }  # fmt: skip
    async with browser(measured(use=use)) as client:
        text = (await client.get(f"/runs/{RUN}")).text
    for shown in (
        "61.2 %",
        "1.5 GiB",
        "0.42 Wh",
        "12 s",
        "75.0 %",
        "whole device",
        "open hour",
        "By lease",
        'data-plot="util_pct"',
    ):
        assert shown in text, shown


async def test_evidence_and_repairs_stand_on_the_page_of_what_they_are_about() -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    evidence = {
        "evidence_id": "evi_1", "rule": "xid.79", "subject_kind": "accelerator", "subject": SLOT, "at": at,
        "ended_at": None, "ended_by": None, "acknowledged_by": None, "severity": "critical", "action": "reboot",
        "code": 79, "before": 0.0, "after": 1.0, "witnesses": ["kernel", "metrics"], "sentence": "fell off the bus",
    }  # fmt: skip
    repair = {
        "repair_id": "rep_1", "node_id": "nod_node-a", "node": "node-a", "serials": [SLOT], "step": "reboot",
        "state": "proposed", "by_agent": True, "needs_approval": True, "rule": "xid.79", "sentence": "Xid 79",
        "instructions": "reboot the node", "opened_at": at, "approved_by": None, "ended_at": None, "outcome": None,
    }  # fmt: skip
    judged = {
        "node_id": "nod_node-a", "node": "node-a", "state": "ready", "health": "faulty", "since": at,
        "sentence": "1 accelerator is faulty", "held": "two reboots this week already", "judged_at": at,
        "unjudged": None, "evidence": [evidence], "repairs": [repair],
        "verdicts": [{"subject_kind": "accelerator", "subject": SLOT, "health": "faulty", "action": "reboot",
                      "rules": ["xid.79"], "since": at, "sentence": "Xid 79 was seen twice"}],
    }  # fmt: skip
    async with browser(measured(judged=judged)) as client:
        own = (await client.get(f"/accelerators/{SLOT}")).text
        other = (await client.get("/accelerators/slot-7f3a-1")).text
        node = (await client.get("/nodes/node-a")).text
        drawn = (await client.get(f"/accelerators/{SLOT}/series")).json()
        cells = (await client.get("/fleet/cells?aspect=health")).content
    for shown in (
        "fell off the bus",
        "Xid 79 was seen twice",
        "reboot the node",
        "waits for approval",
        "kernel, metrics",
    ):
        assert shown in own, shown
    assert "fell off the bus" not in other
    assert "two reboots this week already" in node
    assert [at.timestamp(), "bad", "fell off the bus"] in drawn["markers"]
    assert np.frombuffer(cells[8:16], "<u2").tolist() == [
        2,
        0,
        0,
        0,
    ]  # faulty, and the others as their node is


@pytest.mark.parametrize("path", [f"/accelerators/{SLOT}", "/nodes/node-a", "/fleet", f"/runs/{RUN}"])
async def test_a_store_that_is_away_leaves_the_page_whole(path: str) -> None:
    platform = measured()
    assert platform.eyes is not None
    platform.eyes.away = True
    async with browser(platform) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    if not path.startswith("/runs"):
        assert "The figures are away" in answer.text
    async with browser(Platform()) as client:  # one that measures nothing at all
        assert (await client.get(path)).status_code == 200


async def test_series_of_a_store_that_is_away_are_told_to_come_later() -> None:
    platform = measured()
    assert platform.eyes is not None
    platform.eyes.away = True
    async with browser(platform) as client:
        answer = await client.get(f"/accelerators/{SLOT}/series")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_an_accelerator_that_never_was_is_absent() -> None:
    async with browser(measured()) as client:
        for path in (
            "/accelerators/none",
            "/accelerators/none/series",
            "/accelerators/none/live",
            "/nodes/none/series",
        ):
            assert (await client.get(path)).status_code == 404, path


# ---- who sees it


@pytest.mark.parametrize(
    "path", [f"/accelerators/{SLOT}", "/fleet/plan", "/fleet/cells", "/nodes/node-a/series"]
)
async def test_a_customer_sees_no_fleet(path: str) -> None:
    async with browser(measured(holder=holder(Role.CUSTOMER, "ten_a"))) as client:
        assert (await client.get(path)).status_code == 403


async def test_another_tenants_measurements_are_as_none_that_ever_were() -> None:
    async with browser(measured(holder=holder(Role.CUSTOMER, "ten_b"))) as client:
        assert (await client.get(f"/runs/{RUN}/series")).status_code == 404


async def test_an_investor_sees_what_is_held_and_not_by_whom() -> None:
    platform = large()
    async with browser(platform) as client:
        assert "train-00" in (await client.get("/fleet/plan")).text
    platform.holder = holder(Role.INVESTOR)
    async with browser(platform) as client:
        plan = (await client.get("/fleet/plan")).text
        numbers = np.frombuffer(
            (await client.get("/fleet/cells?aspect=holder")).content[8 : 8 + 2 * 240], "<u2"
        )
    assert "train-00" not in plan
    assert set(numbers.tolist()) == {0, 1}


def lease(
    attempt_no: int, serials: list[str], from_s: float, until_s: float | None, **facts: Any
) -> dict[str, Any]:
    start = datetime(2026, 11, 22, 15, tzinfo=UTC)
    end = None if until_s is None else start + timedelta(seconds=until_s)
    return {
        "attempt_no": attempt_no, "accelerators": serials, "observed_from": start + timedelta(seconds=from_s),
        "observed_until": end, "released_at": end, **facts,
    }  # fmt: skip


def test_a_run_is_drawn_only_while_it_held_all_of_an_attempt() -> None:
    leases = [
        lease(1, ["a"], 0, 100),
        lease(1, ["b"], 2, 90),
        lease(2, ["c"], 200, None),
        lease(3, ["d"], 300, 300),
        lease(4, ["e"], 0, 1, observed_from=None),
    ]
    base = round(datetime(2026, 11, 22, 15, tzinfo=UTC).timestamp() * 1000)
    found = [
        (each.serials, each.from_ms - base, each.until_ms - base < 10**12 and each.until_ms - base)
        for each in held_of(leases)
    ]
    assert found == [(("a", "b"), 2_000, 90_000), (("c",), 200_000, False)]


async def test_a_run_is_never_shown_the_time_before_and_after_its_lease() -> None:
    """Before and after, somebody else used the same accelerator at 99 %."""
    eyes = Asked()
    eyes.store.place(ACCELERATOR, {"a": Place(node_id="n", site="s")})
    until = now_ms() // 60_000 * 60_000
    first, last = until - 40 * TICK_MS, until - 10 * TICK_MS
    for number in range(60):
        ts_ms = until - number * TICK_MS
        util = 42.0 if first <= ts_ms < last else 99.0
        eyes.append(batch(ACCELERATOR, ["a"], ts_ms, {"util_pct": np.array([util])}, batch_id=f"b{ts_ms}"))
    row = {
        "attempt_no": 1, "accelerators": ["a"], "observed_from": datetime.fromtimestamp(first / 1000, UTC),
        "observed_until": datetime.fromtimestamp(last / 1000, UTC), "released_at": datetime.now(UTC),
    }  # fmt: skip
    pages = Pages(Platform(eyes=eyes).doors())
    told = await pages.eyes.panels.run_series(held_of([row]), pages.languages["en"])
    values = [value for line in told["plots"]["util_pct"]["lines"] for value in line["values"] if value]
    assert values
    assert set(values) == {42.0}
    assert told["plots"]["util_pct"]["origins"] == [["simulated", "simulated"]]


# ---- the map, live


async def test_however_many_watch_the_store_is_asked_once_a_tick() -> None:
    platform = large()
    assert platform.eyes is not None
    pages = Pages(platform.doors())
    scope = Scope(tenant_id=None, actor="test")
    sights = await asyncio.gather(*(pages.eyes.lookout.sight(scope, names_holders=True) for _ in range(20)))
    assert platform.eyes.latest_asked == 1
    assert len({id(sight) for sight in sights}) == 1


async def test_the_map_is_sent_whole_once_and_then_what_changed() -> None:
    platform = large(nodes=3)
    assert platform.eyes is not None
    assert platform.cells is not None
    pages = Pages(platform.doors())
    told = pages.eyes.cells_told(visit(pages), ASPECTS["util_pct"])
    whole = await anext(told)
    assert whole.startswith("event: cells\n")
    assert (await anext(told)) == "event: away\ndata: 0\n\n"
    following = asyncio.ensure_future(anext(told))
    await asyncio.sleep(0.05)  # until it listens
    one = platform.cells[5]["serial"]
    platform.eyes.append(
        batch(ACCELERATOR, [one], now_ms() + 1, {"util_pct": np.array([3.0])}, batch_id="one")
    )
    changed = await asyncio.wait_for(following, 10)
    assert len(changed) < len(whole) / 2
    platform.eyes.away = True
    platform.eyes.ring()
    events = [(await asyncio.wait_for(anext(told), 10)).splitlines()[0] for _ in range(2)]
    assert events == ["event: cells", "event: away"]  # nothing is known any more, and it says so
    await told.aclose()


def visit(pages: Pages) -> Visit:
    return Visit(holder=holder(Role.OPERATOR), language=pages.languages["en"])


async def test_series_are_told_again_only_when_a_newer_row_has_come() -> None:
    platform = measured()
    assert platform.eyes is not None
    pages = Pages(platform.doors())
    asked = 0

    async def ask() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"asked": asked}

    told = pages.eyes.series_told(ACCELERATOR, SLOT, LOOKBACKS["15m"], ask)
    first = asyncio.ensure_future(anext(told))
    await asyncio.sleep(0.05)
    platform.eyes.ring()
    assert json.loads((await asyncio.wait_for(first, 10)).split("data: ")[1]) == {"asked": 1}
    second = asyncio.ensure_future(anext(told))
    await asyncio.sleep(0.05)
    platform.eyes.ring()  # something else was measured
    await asyncio.sleep(0.1)
    assert asked == 1
    platform.eyes.append(
        batch(ACCELERATOR, [SLOT], now_ms() + TICK_MS, {"util_pct": np.array([1.0])}, batch_id="n")
    )
    assert json.loads((await asyncio.wait_for(second, 10)).split("data: ")[1]) == {"asked": 2}
    await told.aclose()


async def test_throttling_is_told_with_its_reason_in_the_readers_language() -> None:
    eyes = Asked()
    eyes.store.place(ACCELERATOR, {SLOT: Place(node_id="nod_node-a", site="local")})
    for number in range(6):
        bits = int(Throttle.THERMAL_HW) if number in (2, 3) else 0
        columns = {
            "clock_mhz": np.array([1980.0 - 700 * bool(bits)]),
            "throttle_bits": np.array([float(bits)]),
        }
        ts_ms = now_ms() - (6 - number) * TICK_MS
        eyes.append(batch(ACCELERATOR, [SLOT], ts_ms, columns, batch_id=f"b{number}", origin=Origin.MEASURED))
    async with browser(Platform(eyes=eyes), language="pt-BR") as client:
        told = (await client.get(f"/accelerators/{SLOT}/series")).json()
    [[start, end, harmful, words]] = told["plots"]["clocks"]["bands"]
    assert (round(end - start), harmful, words) == (20, True, "calor, por hardware")
    assert told["plots"]["clocks"]["lines"][0]["label"] == "clock do processador"


async def test_a_blank_is_told_as_a_gap_with_its_state() -> None:
    eyes = Asked()
    eyes.store.place(ACCELERATOR, {SLOT: Place(node_id="nod_node-a", site="local")})
    for number, state in enumerate((State.VALUE, State.PAUSED, State.VALUE)):
        own = batch(
            ACCELERATOR, [SLOT], now_ms() - (3 - number) * TICK_MS,
            {"util_pct": np.array([50.0])} if state is State.VALUE else {}, batch_id=f"b{number}",
            unsaid={"util_pct": state} if state is not State.VALUE else None,
        )  # fmt: skip
        eyes.append(own)
    async with browser(Platform(eyes=eyes)) as client:
        told = (await client.get(f"/accelerators/{SLOT}/series")).json()
    [line] = told["plots"]["activity"]["lines"]
    assert (line["values"], line["gaps"], line["origin"]) == (
        [50.0, None, 50.0],
        [[1, 2, State.PAUSED]],
        "simulated",
    )


# ---- form


@pytest.mark.parametrize("path", ["/fleet", f"/accelerators/{SLOT}", "/nodes/node-a", f"/runs/{RUN}"])
async def test_scripts_and_styles_of_a_page_are_light(path: str) -> None:
    async with browser(measured()) as client:
        page = await client.get(path)
        files = re.findall(r'(?:src|href)="(/static/[\w.]+\.(js|css))', page.text)
        sizes = {"js": 0, "css": len(gzip.compress(page.content))}
        for address, kind in dict.fromkeys(files):
            sizes[kind] += len(gzip.compress((await client.get(address)).content))
    assert sizes["js"] < 60_000
    assert sizes["css"] < 60_000


async def test_what_is_long_travels_in_gzip_where_the_browser_takes_it() -> None:
    async with browser(large(nodes=60)) as client:
        for path in ("/fleet", "/fleet/plan", "/fleet/cells", "/static/uplot.js"):
            packed = await client.get(path, headers={"accept-encoding": "gzip"})
            plain = await client.get(path, headers={"accept-encoding": "identity"})
            assert packed.headers["content-encoding"] == "gzip", path
            assert "content-encoding" not in plain.headers, path
            assert "accept-encoding" in packed.headers["vary"].lower(), path


async def test_a_large_fleet_is_listed_page_by_page() -> None:
    platform = large()
    platform.node_rows = [
        {**platform.node_rows[0], "name": f"node-{number:04d}", "node_id": f"nod_{number:04d}"}
        for number in range(130)
    ]
    async with browser(platform) as client:
        first, second = (await client.get("/fleet")).text, (await client.get("/fleet?from=100")).text
        wild = await client.get("/fleet?from=99999999999999999999")
    assert ("node-0099" in first, "node-0100" in first, "node-0100" in second) == (True, False, True)
    assert "Nodes 1 to 100 of 130" in first
    assert wild.status_code == 200


async def test_portuguese_pages_of_measurements_have_no_english_left() -> None:
    own = re.compile(r'<(\w+)[^>]* lang="en".*?</\1>|<code>.*?</code>|<[^>]*>', re.DOTALL)
    async with browser(measured(), language="pt-BR") as client:
        for path in ("/fleet", f"/accelerators/{SLOT}", "/nodes/node-a", f"/runs/{RUN}"):
            text = own.sub(" ", (await client.get(path)).text.split("</header>")[1])
            words = set(re.findall(r"[^\W\d_]+", text.lower()))
            assert words & {"the", "of", "is", "not", "state", "memory", "power", "absent"} == set(), path


async def test_the_live_stream_carries_fragments_and_cells_together() -> None:
    platform = measured()
    platform.sessions.add("ses_open")
    async with browser(platform) as client:
        platform.sessions = {"ses_open"}

        async def end() -> None:
            await asyncio.sleep(0.3)
            platform.sessions.clear()
            platform.changed.set()

        ending = asyncio.create_task(end())
        told = await raw_stream(client, "/fleet/live?aspect=util_pct")
        await ending
    events = [block.splitlines()[0] for block in told if block]
    assert "event: cells" in events
    assert any(line.startswith("data: {") for line in events)
    assert events[-1] == "event: over"


async def raw_stream(client: httpx.AsyncClient, path: str) -> list[str]:
    answer = await client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.text.split("\n\n")
