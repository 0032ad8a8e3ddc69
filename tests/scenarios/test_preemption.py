"""A spot run on a real platform makes room: it saves, another one runs in its place, and it goes on where it was."""

from collections.abc import Iterator

import pytest

from tests.scenarios.platform import TINY_GPT, Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EVERY = 100_000  # no checkpoint comes by itself: the only one is the one that was asked for
PAYING = """
type: task
name: paying
resources: {gpu: "cpu-slot:1"}
commands: [sleep 3]
max_duration: 10m
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "1", "--node-name", "one") as running:
        yield running


def test_a_spot_run_saves_makes_room_and_repeats_no_step(home: Platform) -> None:
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    spot = home.submit(
        TINY_GPT.format(name="cheap", steps=6000, slots=1, nodes=1, every=EVERY) + "spot: true\n"
    )
    home.wait(spot, lambda run: int(run["progress"].get("step") or 0) > 50, 120)
    [turn] = home.sql(f"SELECT enqueued_at FROM runs WHERE run_id = '{spot}'")

    paying = home.submit(PAYING)
    home.wait(spot, lambda run: run["state"] == "queued", 90)
    [saved] = home.run(spot)["checkpoints"]
    [told] = home.run(spot)["preemptions"]
    assert (told["for_run"], told["saved_step"], told["for_kind"]) == ("paying", saved["step"], "run")
    assert told["lost_accelerator_s"] < 10.0, "what it did after it had saved, while it ended"
    assert home.run(spot)["run"]["sentence"].startswith(
        f"made room for run paying and goes on from its checkpoint at step {saved['step']:,}:"
    )
    home.wait(paying, lambda run: run["state"] == "succeeded", 60)

    detail = home.wait(spot, lambda run: int(run["progress"].get("step") or 0) > saved["step"] + 50, 120)
    assert detail["run"]["attempt_no"] == 2
    assert detail["preemptions"][0]["resumed_step"] > saved["step"], "no step is done again"
    assert home.sql(f"SELECT errors, interruptions FROM runs WHERE run_id = '{spot}'") == [(0, 0)]
    assert home.sql(f"SELECT enqueued_at FROM runs WHERE run_id = '{spot}'") == [turn]
    states = [each["to_state"] for each in detail["events"] if each["event"] in ("preempt", "requeue")]
    assert states == ["preempted", "queued"]
    home.ask("POST", f"/runs/{spot}/stop", {})
    home.wait_ended(spot)
    home.check_books()
    home.check_metered(spot)
