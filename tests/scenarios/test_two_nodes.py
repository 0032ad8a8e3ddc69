"""A second node on this machine, at another loopback address: gangs over both, and a partition between them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenarios.platform import ENVIRONMENT, TINY_GPT, Platform, platform

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(
        sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8 without being told to"
    ),
]

TWO_NODES = """
type: task
name: pair
nodes: 2
commands:
  - echo "rank $BASEAI_NODE_RANK of $BASEAI_NODES_NUM, master $MASTER_ADDR:$MASTER_PORT, ips $BASEAI_NODES_IPS"
  - sleep 1
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "1", "--node-name", "one", "--node-address", "127.0.0.2") as running:
        yield running


@contextmanager
def second_agent(home: Platform) -> Iterator[subprocess.Popen[bytes]]:
    """`baseai agent --join` with a data folder of its own, at 127.0.0.3, as its own process."""
    folder = home.data.parent / "node-two"
    words = [sys.executable, "-m", "baseai", "agent", "--join", home.connect["url"], "--data", str(folder)]
    words += ["--name", "two", "--address", "127.0.0.3", "--cpu-slots", "1"]
    if not (folder / "node.json").exists():
        words += ["--token", home.ask("POST", "/join-tokens", {})["token"]]
    with (home.data.parent / "two.log").open("ab") as log:
        process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_nodes(home, 2)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for_nodes(home: Platform, count: int) -> None:
    deadline = time.monotonic() + 30
    while sum(node["reachable"] for node in home.ask("GET", "/nodes")["items"]) != count:
        assert time.monotonic() < deadline, home.logs() + Path(home.data.parent / "two.log").read_text()
        time.sleep(0.1)


def test_a_task_runs_on_two_nodes_at_once_and_each_knows_the_other(home: Platform) -> None:
    with second_agent(home):
        run_id = home.submit(TWO_NODES)
        detail = home.wait_ended(run_id, 60)
        assert detail["run"]["state"] == "succeeded", home.logs()
        assert sorted(lease["node"] for lease in detail["leases"]) == ["one", "two"]
        for lease in detail["leases"]:
            text = log_of(home, run_id, 0 if lease["node"] == detail["leases"][0]["node"] else 1)
            assert "of 2, master 127.0.0." in text
            assert "127.0.0.2" in text
            assert "127.0.0.3" in text
        home.check_books()


def test_training_synchronises_over_two_nodes(home: Platform) -> None:
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    with second_agent(home):
        run_id = home.submit(TINY_GPT.format(name="wide", steps=60, slots=1, nodes=2, every=20))
        detail = home.wait_ended(run_id, 120)
        assert detail["run"]["state"] == "succeeded", (
            str(detail["run"]) + home.logs() + log_of(home, run_id, 0)
        )
        assert detail["run"]["progress"]["workers"] == 2
        home.check_books()


def test_a_partitioned_node_keeps_its_run_and_nobody_else_starts_it(home: Platform) -> None:
    with second_agent(home) as agent:
        home.ask("POST", "/nodes/one/cordon", {})
        marks = home.data.parent / "marks"
        marks.mkdir(exist_ok=True)
        run_id = home.submit(
            f"type: task\nname: lonely\ncommands:\n  - touch {marks}/$BASEAI_ATTEMPT-begun\n  - sleep 25\n"
            f"  - touch {marks}/$BASEAI_ATTEMPT-done\n"
        )
        home.wait(run_id, lambda run: run["state"] == "running", 30)
        home.ask("POST", "/nodes/one/uncordon", {})  # there is room elsewhere, if anybody were so rash
        os.kill(agent.pid, signal.SIGSTOP)  # it neither reports nor answers: to the platform, a partition
        deadline = time.monotonic() + 20
        while home.run(run_id)["leases"][0]["state"] != "unconfirmed":
            assert time.monotonic() < deadline, home.run(run_id)["leases"]
            time.sleep(0.2)
        assert [node["reachable"] for node in home.ask("GET", "/nodes")["items"]] == [True, False]
        time.sleep(3)
        assert home.run(run_id)["run"]["attempt_no"] == 1
        assert home.run(run_id)["run"]["state"] == "running"
        os.kill(agent.pid, signal.SIGCONT)
        detail = home.wait_ended(run_id, 60)
        assert detail["run"]["state"] == "succeeded"
        assert sorted(path.name for path in marks.iterdir()) == ["1-begun", "1-done"]
        assert len(detail["leases"]) == 1
        home.check_metered(run_id)
        home.check_books()


def test_a_join_token_works_once(home: Platform) -> None:
    token = home.ask("POST", "/join-tokens", {})["token"]

    def join(name: str) -> tuple[int | None, str]:
        """Exit status (None: it stays) and what it said, once it has said whether it joined."""
        folder = home.data.parent / f"node-{name}"
        words = [sys.executable, "-m", "baseai", "agent", "--join", home.connect["url"], "--token", token]
        words += ["--data", str(folder), "--name", name, "--cpu-slots", "0"]
        told = home.data.parent / f"{name}.log"
        with told.open("wb") as log:
            process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while process.poll() is None and "joined" not in told.read_text():
            assert time.monotonic() < deadline, told.read_text()
            time.sleep(0.05)
        code = process.poll()
        if code is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
        return code, told.read_text()

    (first, _), (again, why) = join("three"), join("four")
    assert first is None
    assert again == 1
    assert "token" in why
    assert "four" not in [node["name"] for node in home.ask("GET", "/nodes")["items"]]


def log_of(home: Platform, run_id: str, node_rank: int) -> str:
    import urllib.request

    connect = home.connect
    request = urllib.request.Request(
        f"{connect['url']}/api/v1/runs/{run_id}/logs?node_rank={node_rank}",
        headers={"Authorization": f"Bearer {connect['key']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()
