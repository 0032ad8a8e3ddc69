"""The calendar on a real platform: spot makes way for a reservation, and a node is maintained and comes back."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from baseai.ground.clock import now_utc
from tests.scenarios.platform import Declined, Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TASK = "type: task\nname: {name}\ncommands: [sleep {seconds}]\nmax_duration: {lasts}\n{more}\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "1", "--node-name", "one") as running:
        yield running


def until(is_it: Callable[[], bool], what: str, home: Platform, within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_it():
        assert time.monotonic() < deadline, f"{what} within {within_s:g} s\n{home.logs()}"
        time.sleep(0.2)


def span(in_s: float, for_s: float) -> dict[str, str]:
    at = now_utc() + timedelta(seconds=in_s)
    return {"from_at": at.isoformat(), "until_at": (at + timedelta(seconds=for_s)).isoformat()}


def submit(home: Platform, name: str, seconds: int, lasts: str = "20m", more: str = "") -> str:
    return home.submit(TASK.format(name=name, seconds=seconds, lasts=lasts, more=more))


def node(home: Platform) -> dict[str, Any]:
    found: dict[str, Any] = home.ask("GET", "/nodes/one")
    return found


def test_spot_makes_way_for_a_reservation_and_goes_on_after_it(home: Platform) -> None:
    spot = submit(home, "cheap", 600, more="spot: true\nretry: true")
    home.wait(spot, lambda run: run["state"] == "running")
    with pytest.raises(Declined, match="too few"):
        home.ask("POST", "/reservations", {"name": "x", "gpu": "cpu-slot:2", "site": "local", **span(60, 60)})
    exam = {"name": "exam", "gpu": "cpu-slot:1", "site": "local", "take_or_pay": True, **span(45, 40)}
    begins = home.ask("POST", "/reservations", exam)["from_at"]
    own = submit(home, "own", 3, more="reservation: exam")  # too long to be over before it begins
    stopped = home.wait(spot, lambda run: run["state"] == "queued", 60)
    assert [each["reason"] for each in stopped["events"] if each["event"] == "evict"] == ["preempted"]
    assert now_utc().isoformat() < begins, "it is gone before the reservation begins"
    done = home.wait_ended(own)
    assert done["run"]["state"] == "succeeded"
    assert done["run"]["started_at"] >= begins
    until(lambda: home.ask("GET", "/reservations/exam")["state"] == "completed", "it is over", home)
    home.wait(spot, lambda run: run["state"] == "running" and run["attempt_no"] == 2, 60)
    home.ask("POST", f"/runs/{spot}/stop", {})
    home.wait_ended(spot)
    home.check_books()


def test_maintenance_drains_a_node_in_time_and_tests_bring_it_back(home: Platform) -> None:
    run = submit(home, "moved", 600, lasts="1h")
    home.wait(run, lambda run: run["state"] == "running")
    planned = home.ask("POST", "/maintenances", {"nodes": ["one"], "why": "new fans", **span(40, 10)})
    window = f"/maintenances/{planned['maintenance_id']}"
    until(lambda: node(home)["state"] == "draining", "it drains", home)
    assert now_utc().isoformat() < planned["from_at"]
    home.wait(run, lambda run: run["state"] == "queued", 60)
    until(lambda: node(home)["state"] == "repairing", "it is down", home)
    assert home.ask("GET", window)["state"] == "in_progress"
    until(lambda: node(home)["state"] in ("verifying", "ready"), "it is tested", home)
    until(lambda: node(home)["state"] == "ready", "it serves again", home, 150)
    until(lambda: home.ask("GET", window)["state"] == "completed", "it is over", home)
    home.wait(run, lambda run: run["state"] == "running", 60)
    before = home.sql(f"SELECT max(ends_at) FROM leases WHERE run_id = '{run}'")
    home.ask("POST", f"/runs/{run}/extend", {"by": "1h"})
    [(after,)] = home.sql(f"SELECT max(ends_at) FROM leases WHERE run_id = '{run}'")
    assert after - before[0][0] == timedelta(hours=1)
    home.ask("POST", f"/runs/{run}/stop", {})
    home.wait_ended(run)
    home.check_books()
