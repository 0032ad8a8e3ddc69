"""Racks and mounts over REST and from the terminal, on the real platform."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner

from baseai.catalog.catalog import load_catalog
from baseai.cli.app import build_app
from baseai.truth.session import PLATFORM
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio
RACK = {"site": "local", "breaker_watts": 1000, "base_watts": 100}


async def told(platform: Platform, method: str, path: str, status: int = 200, **said: Any) -> Any:
    answer = await platform.ask(method, path, **said)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def test_a_rack_says_what_its_runs_draw_and_what_is_left(platform: Platform) -> None:
    made = await told(platform, "PUT", "/racks/r1", json=RACK)
    assert (made["load_watts"], made["drawn_watts"], made["spare_watts"], made["nodes"]) == (700, 0, 700, [])
    node = await told(platform, "POST", "/nodes/one/place", json={"rack": "r1", "leaf": "l1"})
    assert (node["rack"], node["leaf"], node["pod"]) == ("r1", "l1", None)
    await platform.granted(await platform.submitted())
    [rack] = (await told(platform, "GET", "/racks", key="viewer"))["items"]
    slot = load_catalog().rated_watts()["cpu-slot"]
    assert (rack["drawn_watts"], rack["spare_watts"], rack["nodes"]) == (slot, 700 - slot, ["one"])


async def test_who_is_too_much_for_a_breaker_waits_until_there_is_a_larger_one(platform: Platform) -> None:
    slot = load_catalog().rated_watts()["cpu-slot"]
    one_slot = RACK | {"derating": "1", "base_watts": 1000 - slot}
    await told(platform, "PUT", "/racks/r1", json=one_slot)
    await told(platform, "POST", "/nodes/one/place", json={"rack": "r1"})
    await platform.granted(await platform.submitted("first"))
    second = await platform.submitted("second")
    await platform.rooms.scheduler.tick()
    run = (await told(platform, "GET", f"/runs/{second}", key="alpha"))["run"]
    assert (run["state"], run["wait"]["failing"]) == ("queued", {"power": 1})
    await told(platform, "PUT", "/racks/r1", json=one_slot | {"base_watts": 1000 - 2 * slot})
    await platform.granted(second)
    await told(platform, "PUT", "/racks/r1", json=one_slot)  # both go on, and nobody joins them
    [rack] = (await told(platform, "GET", "/racks"))["items"]
    assert (rack["load_watts"], rack["drawn_watts"], rack["spare_watts"]) == (slot, 2 * slot, 0)
    third = await platform.submitted("third")
    await platform.rooms.scheduler.tick()
    assert (await told(platform, "GET", f"/runs/{third}", key="alpha"))["run"]["state"] == "queued"


async def test_what_is_left_out_stays_and_null_takes_it_off(platform: Platform) -> None:
    await told(platform, "POST", "/nodes/one/place", json={"leaf": "l1", "pod": "p1"})
    node = await told(platform, "POST", "/nodes/one/place", json={"pod": None})
    assert (node["leaf"], node["pod"]) == ("l1", None)
    assert (await told(platform, "GET", "/nodes/one"))["leaf"] == "l1"


async def test_the_map_of_the_fleet_knows_the_racks(platform: Platform) -> None:
    await told(platform, "PUT", "/racks/r1", json=RACK)
    assert {row["rack"] for row in await platform.rooms.views.installed(PLATFORM)} == {""}
    await told(platform, "POST", "/nodes/one/place", json={"rack": "r1"})
    assert {row["rack"] for row in await platform.rooms.views.installed(PLATFORM)} == {"r1"}


async def test_a_file_that_is_wrong_is_told_by_line_and_changes_nothing(platform: Platform) -> None:
    wrong = await told(
        platform, "POST", "/mounts?file=all.csv", 422, content="node,leaf\none,l1\ntwo,l1\nthree,l 1\n"
    )
    assert [(one["file"], one["line"], one["column"], one["key"]) for one in wrong["errors"]] == [
        ("all.csv", 4, 2, "leaf")
    ]
    wrong = await told(platform, "POST", "/mounts", 422, content="node,leaf\none,l1\ntwo,l1\n")
    assert [(one["line"], one["message"]) for one in wrong["errors"]] == [(3, "there is no node two")]
    assert (await told(platform, "GET", "/nodes/one"))["leaf"] is None
    assert await told(platform, "POST", "/mounts", content="node,leaf\none,l1\n") == {
        "nodes": 1,
        "changed": 1,
    }
    assert "not UTF-8" in (await told(platform, "POST", "/mounts", 422, content=b"node,leaf\n\xff"))["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/racks/r1", RACK | {"site": "XX"}, 422, "no site XX is known here"),
        ("PUT", "/racks/r1", RACK | {"derating": "1.5"}, 422, "derating 1.5"),
        ("PUT", "/racks/r1", RACK | {"base_watts": 900}, 422, "give it a larger breaker"),
        ("DELETE", "/racks/r9", None, 404, "no rack r9"),
        ("POST", "/nodes/one/place", {"rack": "r9"}, 422, "there is no rack r9"),
        ("POST", "/nodes/one/place", {"leaf": "l 1"}, 422, "is no name"),
        ("POST", "/nodes/two/place", {"leaf": "l1"}, 404, "no node two"),
    ],
)
async def test_what_cannot_be_is_refused_with_what_to_do(
    platform: Platform, method: str, path: str, body: dict[str, Any] | None, status: int, said: str
) -> None:
    assert said in (await told(platform, method, path, status, json=body))["detail"]


@pytest.mark.parametrize("key", ["viewer", "alpha", "finance"])
async def test_only_operators_hang_nodes(platform: Platform, key: str) -> None:
    for method, path in (
        ("PUT", "/racks/r1"),
        ("DELETE", "/racks/r1"),
        ("POST", "/nodes/one/place"),
        ("POST", "/mounts"),
    ):
        await told(platform, method, path, 403, key=key, json=RACK)


@contextlib.asynccontextmanager
async def served(platform: Platform) -> AsyncIterator[str]:
    """The platform on a port of loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(platform.app, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_from_the_terminal(platform: Platform, tmp_path: Path) -> None:
    async with served(platform) as url:
        environ = {"BASEAI_URL": url, "BASEAI_KEY": platform.keys["operator"], "HOME": str(tmp_path)}

        async def typed(*words: str) -> tuple[int, str]:
            app = build_app({}, catalog=load_catalog, environ=environ)
            done = await asyncio.to_thread(CliRunner().invoke, app, list(words))
            return done.exit_code, done.output

        assert "no racks" in (await typed("rack", "list"))[1]
        said = await typed(
            "rack", "set", "r1", "--site", "local", "--breaker-watts", "1000", "--base-watts", "100"
        )
        assert said == (0, "runs in r1 may draw 700 W, and draw 0 W\n")
        assert await typed("node", "place", "one", "--rack", "r1", "--leaf", "l1") == (
            0,
            "one hangs in rack r1, leaf l1\n",
        )
        assert "RACK" in (await typed("node", "list"))[1]
        file = tmp_path / "nodes.csv"
        file.write_text("node,leaf,pod\none,l2,p1\n")
        assert await typed("node", "place", "--file", str(file)) == (
            0,
            "1 nodes named, 1 hang otherwise than before\n",
        )
        file.write_text("node,leaf,pod\none,l2,p1\ntwo,l2,p1\n")
        status, text = await typed("node", "place", "--file", str(file))
        assert (status, "nodes.csv:3:1 node: there is no node two" in text) == (2, True)
        assert "r1    local" in (await typed("rack", "list"))[1]
        status, text = await typed("rack", "remove", "r1")
        assert (status, "nodes hang in rack r1: one" in text) == (1, True)
        await typed("node", "place", "one", "--rack", "-", "--leaf", "-", "--pod", "-")
        assert (await typed("rack", "remove", "r1"))[0] == 0
        for words in (["one"], [], ["one", "--file", str(file)], ["--file", str(file), "--leaf", "l"]):
            assert (await typed("node", "place", *words))[0] == 2
        assert (await typed("node", "place", "--file", str(tmp_path / "none.csv")))[0] == 2
        wrong = await typed("rack", "set", "r1", "--site", "local", "--breaker-watts", "9", "--derating", "x")
        assert (wrong[0], "--derating x is no number" in wrong[1]) == (2, True)
