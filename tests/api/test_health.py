"""Health over REST: what operators see and settle, what others may not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from baseai.ground.clock import now_utc
from baseai.telemetry.witness import Witness
from baseai.truth.session import Truth
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ill(truth: Truth, tmp_path: Path) -> AsyncIterator[Platform]:
    """A platform on whose node a disk and a power supply failed."""
    platform = Platform(truth, tmp_path)
    await platform.furnish()
    for event_id, kind, sentence in (
        ("wit_1", "kernel", "nvme nvme3: controller is down; will reset"),
        ("wit_2", "redfish", "Power supply PSU.Slot.2 has failed."),
    ):
        seen = Witness(
            event_id=event_id,
            at=now_utc(),
            kind=kind,
            key=None,
            code=None,
            severity="warning",
            sentence=sentence,
        )
        await platform.rooms.health.witness(platform.node_id, [seen])
    await platform.rooms.judge.tick(None)
    yield platform
    await platform.close()


async def asked(platform: Platform, method: str, path: str, **said: Any) -> Any:
    answer = await platform.ask(method, path, **said)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_node_tells_what_stands_against_it_and_what_is_being_done(ill: Platform) -> None:
    [node] = (await asked(ill, "GET", "/fleet/health"))["items"]
    assert (node["node"], node["health"], node["state"]) == ("one", "faulty", "draining")
    assert {each["rule"]: each["action"] for each in node["evidence"]} == {
        "kernel.disk": "inspect",
        "bmc.psu": "ticket",
    }
    told = await asked(ill, "GET", "/nodes/one/health")
    assert told["sentence"] == "kernel.disk: nvme nvme3: controller is down; will reset"
    assert told["unjudged"] == "nothing is measured here"
    [repair] = (await asked(ill, "GET", "/repairs"))["items"]
    assert (repair["rule"], repair["step"], repair["state"]) == ("kernel.disk", "inspect", "approved")
    assert (await asked(ill, "GET", "/nodes/one"))["health"] == "faulty"


async def test_a_persons_word_is_kept_with_its_name(ill: Platform) -> None:
    [repair] = (await asked(ill, "GET", "/repairs"))["items"]
    path = f"/repairs/{repair['repair_id']}"
    done = await asked(ill, "POST", f"{path}/done", json={"reason": "disk replaced"})
    assert (done["state"], done["outcome"]) == ("done", "disk replaced")
    assert (await ill.ask("POST", f"{path}/done", json={})).status_code == 409
    assert (await ill.ask("POST", f"{path}/explode", json={})).status_code == 404
    assert (await asked(ill, "GET", "/repairs"))["items"] == []
    assert len((await asked(ill, "GET", "/repairs?everything=true"))["items"]) == 1
    events = (await asked(ill, "GET", f"/events?subject={repair['repair_id']}"))["items"]
    assert [(each["event"], each["actor"]) for each in events] == [("finish", "operator"), ("open", "health")]


async def test_evidence_is_acknowledged_or_cleared(ill: Platform) -> None:
    evidence = {each["rule"]: each for each in (await asked(ill, "GET", "/nodes/one/health"))["evidence"]}
    psu = evidence["bmc.psu"]["evidence_id"]
    assert (await asked(ill, "POST", f"/evidence/{psu}/acknowledge"))["acknowledged_by"] == "operator"
    assert await asked(ill, "POST", "/nodes/one/health/clear", json={"evidence_id": psu}) == {"cleared": 1}
    assert (await ill.ask("POST", f"/evidence/{psu}/acknowledge")).status_code == 409
    assert await asked(ill, "POST", "/nodes/one/health/clear", json={"reason": "all well"}) == {"cleared": 1}
    await ill.rooms.judge.tick(None)
    assert (await asked(ill, "GET", "/nodes/one/health"))["health"] == "healthy"


@pytest.mark.parametrize(
    ("key", "method", "path", "status"),
    [
        ("viewer", "GET", "/fleet/health", 200),
        ("viewer", "POST", "/nodes/one/health/clear", 403),
        ("viewer", "POST", "/repairs/rep_1/approve", 403),
        ("alpha", "GET", "/fleet/health", 403),
        ("alpha", "GET", "/nodes/one/health", 403),
        ("node", "GET", "/fleet/health", 403),
        ("operator", "GET", "/nodes/nobody/health", 404),
        ("operator", "POST", "/repairs/rep_1/approve", 404),
        ("operator", "POST", "/evidence/evi_1/acknowledge", 404),
    ],
)
async def test_who_may_see_and_settle(ill: Platform, key: str, method: str, path: str, status: int) -> None:
    said = {"json": {}} if method == "POST" else {}
    assert (await ill.ask(method, path, key=key, **said)).status_code == status


async def test_a_node_hears_of_its_repairs_and_says_what_it_may_do(ill: Platform) -> None:
    await asked(ill, "POST", "/agent/facts", key="node", json=_facts(["reboot", "reset"]))
    [row] = await ill.rows("SELECT repair_steps FROM nodes")
    assert row["repair_steps"] == ["reboot", "reset"]
    await ill.rows("UPDATE repairs SET state = 'ordered', step = 'reboot', ordered_at = now() RETURNING 1")
    [order] = (await asked(ill, "GET", "/agent/desired?wait_s=0", key="node"))["repairs"]
    assert order["step"] == "reboot"
    seen = {
        "event_id": "wit_9", "at": now_utc().isoformat(), "kind": "repair", "sentence": "the node started anew",
        "payload": {"repair_id": order["repair_id"], "ok": True},
    }  # fmt: skip
    measured = {"sent_at": now_utc().isoformat(), "witnesses": [seen]}
    assert (await asked(ill, "POST", "/agent/telemetry", key="node", json=measured))["accepted"] == ["wit_9"]
    assert (await asked(ill, "GET", "/agent/desired?wait_s=0", key="node"))["repairs"] == []
    [repair] = (await asked(ill, "GET", "/repairs?everything=true"))["items"]
    assert (repair["state"], repair["outcome"]) == ("done", "the node started anew")


async def test_what_stands_is_told_to_a_prometheus(ill: Platform) -> None:
    answer = await ill.client.get("/metrics", headers={"Authorization": f"Bearer {ill.keys['operator']}"})
    assert (
        'baseai_evidence{node="one",serial="",rule="kernel.disk",severity="critical",action="inspect"} 1'
        in answer.text
    )


def _facts(steps: list[str]) -> dict[str, Any]:
    from tests.api.platform import facts

    return facts("one", repair_steps=steps)
