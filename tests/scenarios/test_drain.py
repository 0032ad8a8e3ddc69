"""Draining on a real platform: a run is asked for a checkpoint and goes on later, and the node moves on by itself."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from baseai.ground.clock import now_utc
from tests.scenarios.platform import ENVIRONMENT, TINY_GPT, Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
EVERY = 100_000  # no checkpoint comes by itself: the only one is the one that was asked for


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "1", "--node-name", "one") as running:
        yield running


def until(is_it: Callable[[], bool], what: str, home: Platform, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_it():
        assert time.monotonic() < deadline, f"{what} within {within_s:g} s\n{home.logs()}"
        time.sleep(0.1)


def state(home: Platform) -> str:
    return str(home.ask("GET", "/nodes/one")["state"])


def training(home: Platform, name: str) -> str:
    """A training run that has done some steps and has no checkpoint yet."""
    run_id = home.submit(TINY_GPT.format(name=name, steps=60_000, slots=1, nodes=1, every=EVERY))
    home.wait(run_id, lambda run: int(run["progress"].get("step") or 0) > 50, 120)
    assert home.run(run_id)["checkpoints"] == []
    return run_id


def check_resumed(home: Platform, run_id: str) -> None:
    """It goes on from where it was asked to stop, in a second attempt that counts as no error of its own."""
    [saved] = home.run(run_id)["checkpoints"]
    assert saved["attempt_no"] == 1
    detail = home.wait(run_id, lambda run: int(run["progress"].get("step") or 0) > saved["step"] + 50, 120)
    assert detail["run"]["attempt_no"] == 2
    assert home.sql(f"SELECT errors, interruptions FROM runs WHERE run_id = '{run_id}'") == [(0, 1)]
    told = [each for each in detail["events"] if each["event"] == "requeue"]
    assert [each["reason"] for each in told] == ["drained"]
    first, second = home.sql(
        f"SELECT attempt_no, min(step) FROM run_points WHERE run_id = '{run_id}' GROUP BY 1 ORDER BY 1"
    )
    assert (first[0], second[0]) == (1, 2)
    assert second[1] > saved["step"], "no step is done again"


def test_an_operator_drains_a_node_and_the_run_goes_on_when_it_may(home: Platform) -> None:
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    run_id = training(home, "moved")
    home.ask("POST", "/nodes/one/drain", {"reason": "new fans"})
    home.wait(run_id, lambda run: run["state"] == "queued", 60)
    until(lambda: not home.ask("GET", "/nodes/one")["runs"], "the node is empty", home)
    assert state(home) == "draining", "an operator's drain ends at an operator's word"
    home.ask("POST", "/nodes/one/cordon", {})
    home.ask("POST", "/nodes/one/uncordon", {})
    check_resumed(home, run_id)
    home.ask("POST", f"/runs/{run_id}/stop", {})
    home.wait_ended(run_id)
    home.check_books()


def test_a_fault_drains_repairs_and_tests_the_node_by_itself(home: Platform) -> None:
    """The kernel reports a memory error that was not corrected: the rest follows, but for a person's hands."""
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    until(lambda: state(home) == "ready", "the node is ready", home)
    run_id = training(home, "saved")
    witness(home, "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0")
    until(lambda: state(home) == "repairing", "the node waits for its repair", home)
    told = home.ask("GET", "/nodes/one/health")
    assert told["health"] == "faulty"
    assert [(each["rule"], each["action"], each["ended_at"]) for each in told["evidence"]] == [
        ("kernel.mce", "inspect", None)
    ]
    [repair] = told["repairs"]
    assert (repair["step"], repair["state"], repair["by_agent"]) == ("inspect", "approved", False)
    assert "EDAC MC0: 1 UE" in repair["instructions"]
    assert home.run(run_id)["run"]["state"] == "queued"
    shown = terminal(home, "node", "health", "one")
    assert "kernel.mce" in shown
    assert repair["instructions"] in shown.replace("\n", " ")
    assert repair["repair_id"] in terminal(home, "node", "repairs")
    assert "is done" in terminal(home, "node", "done", repair["repair_id"], "--reason", "module replaced")
    until(lambda: state(home) in ("verifying", "ready"), "its tests begin", home)
    until(lambda: state(home) == "ready", "it is tested and ready again", home, 150)
    check_resumed(home, run_id)
    told = home.ask("GET", "/nodes/one/health")
    assert (told["health"], told["evidence"][0]["ended_by"]) == ("healthy", "repaired")
    home.check_books()


def terminal(home: Platform, *words: str) -> str:
    """What the command prints, typed by the operator of this machine."""
    environ = {**ENVIRONMENT, "BASEAI_DATA": str(home.data), "COLUMNS": "10000"}
    done = subprocess.run(
        [sys.executable, "-m", "baseai", *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def witness(home: Platform, line: str) -> None:
    """What the node's agent would send when it read that line: it speaks with the node's own key."""
    key = home.data / "node" / "node.json"
    said: dict[str, Any] = {
        "sent_at": now_utc().isoformat(),
        "witnesses": [
            {"event_id": f"wit_{time.time_ns()}", "at": now_utc().isoformat(), "kind": "kernel", "severity": "critical",
             "sentence": line}
        ],
    }  # fmt: skip
    home.ask("POST", "/agent/telemetry", said, key=json.loads(key.read_text())["node_key"])
