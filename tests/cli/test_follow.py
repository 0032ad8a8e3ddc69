"""Who follows a run sees all of it once, also through an outage, and is let go when it ends."""

import io
import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from baseai.api.schemas import RunView, StartEstimateView, WaitView
from baseai.cli.connection import Connection
from baseai.cli.follow import follow_run, patiently
from baseai.cli.http import NoPlatform, Platform
from tests.cli.conftest import Baseai
from tests.cli.loopback import KEY, LONG_AGO, PIECE_BYTES, Loopback, run_of

LINES = "".join(f"line {number:04d}\n" for number in range(60)).encode()


def meanwhile(*steps: Callable[[], object], after_s: float = 0.3) -> threading.Thread:
    """Do the steps one after the other, each a while later, beside the test."""

    def carry_out() -> None:
        for step in steps:
            time.sleep(after_s)
            step()

    thread = threading.Thread(target=carry_out)
    thread.start()
    return thread


def end_of(platform: Loopback, run: RunView, attempt: int = 1, state: str = "succeeded") -> None:
    platform.state.log_ended.add((run.run_id, attempt))
    platform.state.change(run.run_id, state=state)


def test_logs_without_following_print_what_there_is(platform: Loopback, baseai: Baseai) -> None:
    run = platform.state.add(run_of())
    platform.state.logs[run.run_id, 1] = LINES
    assert len(LINES) > 3 * PIECE_BYTES
    done = baseai("logs", "hello")
    assert (done.status, done.out, done.err) == (0, LINES.decode(), "")


def test_a_log_that_is_not_there_yet_is_explained(platform: Loopback, baseai: Baseai) -> None:
    wait = WaitView(position=1, ahead=0, sentence="waits for room")
    platform.state.add(run_of(state="queued", attempt_no=0, wait=wait))
    assert baseai("logs", "hello").err == "nothing written yet: hello: queued (waits for room)\n"


def test_following_survives_cut_answers_and_a_restart_without_losing_or_doubling(
    platform: Loopback, baseai: Baseai
) -> None:
    run = platform.state.add(run_of())
    which = (run.run_id, 1)
    platform.state.logs[which] = LINES[:300]
    platform.state.break_log_answers = 2

    def more() -> None:
        platform.state.logs[which] = LINES

    beside = meanwhile(platform.stop, more, platform.start, lambda: end_of(platform, run))
    done = baseai("logs", "-f", "hello")
    beside.join()
    assert done.status == 0
    assert done.out == LINES.decode()
    assert "does not answer; trying again" in done.err
    assert "connected again" in done.err


def test_following_goes_on_with_the_next_attempt(platform: Loopback, baseai: Baseai) -> None:
    run = platform.state.add(run_of())
    platform.state.logs[run.run_id, 1] = b"first\n"
    platform.state.logs[run.run_id, 2] = b"second\n"
    platform.state.log_ended.add((run.run_id, 1))
    beside = meanwhile(
        lambda: platform.state.change(run.run_id, state="recovering"),
        lambda: platform.state.change(run.run_id, state="running", attempt_no=2),
        lambda: end_of(platform, run, attempt=2),
    )
    done = baseai("logs", "-f", "hello")
    beside.join()
    assert done.out == "first\nsecond\n"
    assert done.err == "baseai: attempt 2\n"


def test_following_one_attempt_ends_with_it(platform: Loopback, baseai: Baseai) -> None:
    run = platform.state.add(run_of(attempt_no=2))
    platform.state.logs[run.run_id, 1] = b"first\n"
    platform.state.log_ended.add((run.run_id, 1))
    assert baseai("logs", "-f", "hello", "--attempt", "1").out == "first\n"


def test_following_waits_for_a_queued_run_and_ends_when_it_is_cancelled(
    platform: Loopback, baseai: Baseai
) -> None:
    run = platform.state.add(run_of(state="queued", attempt_no=0))
    beside = meanwhile(lambda: platform.state.change(run.run_id, state="cancelled"))
    done = baseai("logs", "-f", "hello")
    beside.join()
    assert (done.status, done.out) == (0, "")
    assert done.err == "baseai: hello: queued\nbaseai: hello: cancelled\n"


def test_a_later_run_of_the_same_name_does_not_cut_in(platform: Loopback, baseai: Baseai) -> None:
    run = platform.state.add(run_of())
    platform.state.logs[run.run_id, 1] = b"first\n"
    later = run_of(run_id="run_later")

    def take_the_name() -> None:
        platform.state.logs[later.run_id, 1] = b"other\n"
        platform.state.runs = {later.run_id: later, run.run_id: run}

    def more() -> None:
        platform.state.logs[run.run_id, 1] = b"first\nlast\n"

    beside = meanwhile(take_the_name, more, lambda: end_of(platform, run))
    done = baseai("logs", "-f", "hello")
    beside.join()
    assert done.out == "first\nlast\n"


def test_following_nobody_ends_at_once(platform: Loopback, baseai: Baseai) -> None:
    platform.stop()
    assert baseai("logs", "-f", "hello").status == 3


@pytest.mark.parametrize("terminal", [False, True])
def test_follow_run_shows_progress_until_the_end(platform: Loopback, terminal: bool) -> None:
    run = platform.state.add(run_of("train", kind="train", state="queued"))
    seen: list[str] = []
    steps = iter(
        [
            {"state": "running", "progress": {"step": 1, "steps_total": 9, "loss": 8.25}},
            {
                "progress": {
                    "step": 5,
                    "steps_total": 9,
                    "loss": 4.5,
                    "tokens_per_s": 1234.5,
                    "goodput_ratio": 0.75,
                }
            },
            {"state": "succeeded", "progress": {"step": 9, "steps_total": 9, "loss": 2.5}},
        ]
    )

    def watch(view: RunView) -> None:
        seen.append(view.state)
        platform.state.change(run.run_id, **next(steps, {}))

    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, no_color=True)
    with Platform(Connection(url=platform.url, key=KEY)) as client:
        last = follow_run(client, run.run_id, console, watch=watch, poll_s=0)
    assert last.state == "succeeded"
    assert seen == ["queued", "running", "running", "succeeded"]
    text = out.getvalue()
    assert "train: running" in text
    assert "loss 2.5" in text
    if terminal:
        assert "5/9" in text
        assert "1,234 tokens/s" in text
        assert "goodput 75.0%" in text
    else:
        assert "\x1b" not in text
        assert "step 9/9, loss 2.5" in text


def test_an_estimate_that_moves_is_no_news(platform: Loopback) -> None:
    def waiting(position: int, until: str) -> WaitView:
        at = dict.fromkeys(("asked_at", "earliest_at", "likely_at", "latest_at"), LONG_AGO)
        estimate = StartEstimateView.model_validate(
            {**at, "outcomes": 0, "sentence": f"Probably by {until}."}
        )
        return WaitView(
            position=position, ahead=0, sentence=f"Number {position}. {estimate.sentence}", estimate=estimate
        )

    run = platform.state.add(run_of("hello", state="queued", wait=waiting(2, "14:00")))
    steps = iter(
        [{"wait": waiting(2, "14:05")}, {"wait": waiting(1, "14:10")}, {"state": "succeeded", "wait": None}]
    )
    out = io.StringIO()
    with Platform(Connection(url=platform.url, key=KEY)) as client:
        follow_run(
            client, run.run_id, Console(file=out, width=120), poll_s=0,
            watch=lambda _: platform.state.change(run.run_id, **next(steps, {})),
        )  # fmt: skip
    assert out.getvalue().splitlines() == [
        "hello: queued (Number 2. Probably by 14:00.)",
        "hello: queued (Number 1. Probably by 14:10.)",
        "hello: succeeded",
    ]


def test_apply_and_follow_ends_with_the_runs_fate(platform: Loopback, baseai: Baseai) -> None:
    def fail() -> None:
        while (run := platform.state.run("hello")) is None:
            time.sleep(0.02)
        platform.state.change(run.run_id, state="failed", sentence="exited with 3")

    beside = meanwhile(fail)
    done = baseai("apply", "-f", "-", "--follow", stdin="type: task\nname: hello\n")
    beside.join()
    assert done.status == 1
    assert "hello: failed (exited with 3)" in done.err
    assert "contribution" in done.out


def test_an_outage_of_the_database_is_waited_out(platform: Loopback) -> None:
    run = platform.state.add(run_of(state="succeeded"))
    platform.state.outages = 3
    console = Console(file=io.StringIO(), width=120)
    with Platform(Connection(url=platform.url, key=KEY)) as client:
        assert follow_run(client, run.run_id, console).state == "succeeded"
    assert platform.state.outages == 0


def test_patience_ends() -> None:
    now = [0.0]
    notes: list[str] = []

    def ask() -> None:
        raise NoPlatform("http://127.0.0.1:1", "refused")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(NoPlatform):
        patiently(ask, note=notes.append, sleep=sleep, clock=lambda: now[0], patience_s=30)
    assert 30 < now[0] < 40
    assert notes == ["the platform does not answer; trying again"]
