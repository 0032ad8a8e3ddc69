"""kill -9 of everything that runs, one after the other, during one training run: it finishes, and the books hold."""

import json
import sys
import time
from collections.abc import Iterator

import pytest

from tests.scenarios.platform import TINY_GPT, Platform, platform

pytest.importorskip("torch", reason="the extra `train` is not installed")


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "2") as running:
        yield running


def advance(home: Platform, run_id: str, steps: int, within_s: float = 60.0) -> None:
    """Wait until the run has taken `steps` more steps than now, and is running."""
    begin = home.step_of(run_id)
    home.wait(
        run_id,
        lambda run: (
            (run["state"] == "running" and int(run["progress"].get("step") or 0) >= begin + steps)
            or run["state"] in ("succeeded", "failed")
        ),
        within_s,
    )


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_run_outlives_the_death_of_every_process_around_it(home: Platform) -> None:
    run_id = home.submit(TINY_GPT.format(name="hardy", steps=6000, slots=2, nodes=1, every=100))
    home.wait(run_id, lambda run: bool(run["progress"].get("step")), 60)
    for victim in ("worker", "server", "controller", "agent", "postgres"):
        before = home.run(run_id)["run"]
        assert before["state"] not in ("succeeded", "failed"), f"it ended before the {victim} was killed"
        if victim == "worker":
            home.kill_a_worker(run_id)
            home.wait(run_id, lambda run: run["restarts"] == 1, 60)
        else:
            old = home.pid(victim)
            home.kill(victim)
            deadline = time.monotonic() + 20
            while home.pid(victim) == old:
                assert time.monotonic() < deadline, f"{victim} was not started again"
                time.sleep(0.05)
        advance(home, run_id, 50)
    home.ask("GET", "/health")
    detail = home.wait_ended(run_id, 150)
    assert detail["run"]["state"] == "succeeded", json.dumps(detail["run"], indent=1) + home.logs()
    assert detail["run"]["attempt_no"] == 1, "all but a lost launcher is survived within one attempt"
    assert detail["run"]["result"]["step"] == 6000
    home.check_metered(run_id)
    home.check_books()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(
    sys.platform != "linux", reason="a launcher's workers end with it by the kernel's hand on Linux only"
)
def test_a_run_whose_node_goes_down_goes_on_in_a_new_attempt_from_its_checkpoint(home: Platform) -> None:
    run_id = home.submit(TINY_GPT.format(name="reborn", steps=2000, slots=2, nodes=1, every=50))
    home.wait(run_id, lambda run: int(run["progress"].get("step") or 0) > 150, 60)
    home.wait(run_id, lambda run: bool(home.run(run_id)["checkpoints"]), 30)
    home.kill_node(run_id)
    detail = home.wait_ended(run_id, 120)
    assert detail["run"]["state"] == "succeeded", json.dumps(detail["run"], indent=1) + home.logs()
    assert detail["run"]["attempt_no"] == 2
    first, second = detail["leases"]
    assert first["released_at"] <= second["granted_at"], "one chain of leases, end to end"
    restarted = [point["step"] for point in home.ask("GET", f"/runs/{run_id}/points")["items"]]
    assert max(restarted) == 2000
    home.check_metered(run_id)
    home.check_books()
