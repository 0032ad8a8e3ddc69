"""What a real platform on a machine without accelerators measures, and that kills lose and double none of it."""

import itertools
import json
import subprocess
import sys
import threading
import time
from typing import Any

import httpx
import pytest

from baseai.ground.clock import now_utc
from tests.scenarios.platform import ENVIRONMENT, Platform, platform

BUSY = """
type: task
name: busy
resources: {{cpu: 1}}
commands:
  - >-
    {python} -c "import time, itertools;
    end = time.time() + 8;
    all(time.time() < end for _ in itertools.count())"
"""


def get(running: Platform, path: str) -> Any:
    return running.ask("GET", path)


def told(running: Platform, *words: str) -> str:
    """What the terminal prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "baseai", *words, "--data", str(running.data)],
        env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return ended.stdout


@pytest.mark.slow
def test_a_machine_of_cpu_slots_shows_what_a_run_used() -> None:
    with platform("--cpu-slots", "2", "--sample-every", "1") as running:
        run_id = running.submit(BUSY.format(python=sys.executable))
        running.wait_ended(run_id)
        time.sleep(3)  # the last samples are on their way
        use = get(running, f"/runs/{run_id}/use")
        assert use["accelerator_s"] == pytest.approx(8, abs=3)
        assert use["seen_s"] > 0.5 * use["accelerator_s"]
        assert use["energy_wh"] > 0
        assert use["energy_origin"] in ("measured", "estimated")  # measured where the machine has RAPL
        assert use["util_pct"] > 20

        latest = get(running, "/telemetry/latest")["items"]
        assert [item["model"] for item in latest] == ["cpu-slot"] * 2
        assert all(item["fields"]["util_pct"]["state"] == "value" for item in latest)
        [node] = get(running, "/telemetry/latest?family=node")["items"]
        for field in ("cpu_pct", "mem_used_b", "energy_j", "uptime_s"):
            assert node["fields"][field]["value"] > 0, field
        fares = {one["name"]: one["state"] for one in get(running, "/telemetry/collectors")["items"]}
        assert (fares["host"], fares["intake"]) == ("ok", "ok")

        # Runs and nobody together have what the node has.
        by_run = get(running, "/telemetry/use?by=run&from=1h")["items"]
        by_node = get(running, "/telemetry/use?by=node&from=1h")["items"]
        assert {one["label"] for one in by_run} == {"busy", ""}
        whole, parts = by_node[0]["energy_wh"], sum(one["energy_wh"] for one in by_run)
        assert parts == pytest.approx(whole, rel=0.2)  # the second question came later, and time went on

        assert "util_pct" in told(running, "telemetry", "query", "util_pct", "--run", run_id).lower()
        assert (
            json.loads(told(running, "telemetry", "query", "power_w", "--by", "node", "--json"))["unit"]
            == "W"
        )
        assert "busy" in told(running, "telemetry", "use", "--by", "run")


class Node(threading.Thread):
    """A node played by hand: it sends a batch after the other, each until it is accepted."""

    def __init__(self, running: Platform) -> None:
        super().__init__(daemon=True)
        self.running = running
        token = running.ask("POST", "/join-tokens", {})["token"]
        facts = {
            "name": "by-hand", "address": "127.0.0.1", "isolation": "user", "cores": 1, "memory_mib": 1024,
            "disk_mib": 1024, "boot_id": "b", "devices": [{"serial": "hand/0", "model": "cpu-slot", "index": 0}],
        }  # fmt: skip
        self.key = running.ask("POST", "/agent/join", {"token": token, "facts": facts}, key="none")[
            "node_key"
        ]
        self.sent_ms: list[int] = []  # of rows that were acknowledged
        self.repeats = 0
        self.told = threading.Event()
        self.client = httpx.Client(timeout=15)

    def run(self) -> None:
        for number in itertools.count():
            if self.told.is_set():
                self.client.close()
                return
            at_ms = round(now_utc().timestamp() * 1000)
            batch = {
                "batch_id": f"hand-{number}", "family": "accelerator", "boot_id": "b",
                "keys": ["hand/0"] * 3, "ts_ms": [at_ms, at_ms + 1, at_ms + 2],
                "values": {"util_pct": [1.0, 2.0, 3.0], "energy_j": [float(3 * number + row) for row in range(3)]},
            }  # fmt: skip
            while not self._is_kept(batch):
                self.repeats += 1
                time.sleep(0.05)
            self.sent_ms += batch["ts_ms"]  # type: ignore[arg-type]
            time.sleep(0.05)

    def _is_kept(self, batch: dict[str, Any]) -> bool:
        try:
            answer = self.client.post(
                f"{self.running.connect['url']}/api/v1/agent/telemetry",
                json={"sent_at": now_utc().isoformat(), "batches": [batch]},
                headers={"Authorization": f"Bearer {self.key}"},
            )
        except httpx.HTTPError:
            return False
        if answer.status_code != 503:
            assert answer.json()["accepted"] == [batch["batch_id"]], answer.text
        return answer.status_code == 200


@pytest.mark.slow
def test_kills_lose_no_acknowledged_sample_and_double_none() -> None:
    with platform("--cpu-slots", "1", "--sample-every", "0.5") as running:
        node = Node(running)
        node.start()
        for child, pause_s in zip(
            itertools.cycle(("metrics", "server", "metrics", "agent")), (1.1, 0.7, 1.6, 0.4) * 3, strict=False
        ):
            time.sleep(pause_s)
            running.kill(child)
        time.sleep(2)
        node.told.set()
        node.join(30)
        assert not node.is_alive(), running.logs()
        assert node.repeats > 0, "the kills disturbed nobody"

        series = get(running, "/telemetry/range?key=hand/0&field=energy_j,util_pct&from=10m")
        assert series["ts_ms"] == node.sent_ms
        assert series["fields"]["energy_j"]["values"] == [
            float(number) for number in range(len(node.sent_ms))
        ]
        counted = get(running, "/telemetry/aggregate?field=util_pct&by=key&key=hand/0&from=10m&points=1")
        assert [sum(line["count"]) for line in counted["groups"]] == [len(node.sent_ms)]
        energy = get(running, "/telemetry/aggregate?field=energy_j&by=key&key=hand/0&from=10m&points=1")
        assert [sum(filter(None, line["delta"])) for line in energy["groups"]] == [len(node.sent_ms) - 1]

        # The node's own agent lost its life too: what it measures still stands once at each instant.
        [slot] = [
            item["key"] for item in get(running, "/telemetry/latest")["items"] if item["key"] != "hand/0"
        ]
        deadline = time.monotonic() + 30
        while (
            len(ticks := get(running, f"/telemetry/range?key={slot}&field=util_pct&from=10m")["ts_ms"]) < 20
        ):
            assert time.monotonic() < deadline, running.logs()
            time.sleep(0.5)
        assert all(later > earlier for earlier, later in itertools.pairwise(ticks))


@pytest.mark.slow
def test_without_the_store_runs_go_on_and_they_say_what_is_missing() -> None:
    with platform("--cpu-slots", "1") as running:
        folder = running.data / "metrics"
        running.kill("metrics")
        folder.rename(running.data / "away")
        folder.write_text("in the way")  # so that it cannot come back
        run_id = running.submit("type: task\nname: hello\ncommands: [sleep 1]\n")
        assert running.wait_ended(run_id)["run"]["state"] == "succeeded"
        assert "no answer" in get(running, "/health")["metrics"]
        use = get(running, f"/runs/{run_id}/use")
        assert (use["energy_wh"], "no answer" in use["missing"]) == (None, True)
        folder.unlink()
        (running.data / "away").rename(folder)
        deadline = time.monotonic() + 30
        while get(running, "/health")["metrics"] != "ready":
            assert time.monotonic() < deadline, running.logs()
            time.sleep(0.2)
