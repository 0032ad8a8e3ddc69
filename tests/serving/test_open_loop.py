"""The load that measures serving charges a system for the time that its clients wait, and knows a wrong answer."""

import statistics

import pytest

from bench.serving.front import Stage, chat, stage
from bench.serving.open_loop import Load, quantile, run
from bench.serving.turn import counted

pytest.importorskip("uvloop")


def load(here: Stage, *, rate: float, **manner: float) -> Load:
    return Load(
        port=here.replica(**manner), seconds=1.5, bodies=(chat(),), rate=rate, arrivals="even", connections=64
    )


def test_a_latency_counts_from_when_the_request_was_meant() -> None:
    with stage() as here:
        # One lane of 50 ms carries 20 a second. Of 40 a second, each next one waits 25 ms longer than the one before.
        result = run(load(here, rate=40, wait_ms=50, lanes=1))
    assert (result.asked, result.served, result.lost) == (60, 60, 0)
    steps = [
        later - earlier for earlier, later in zip(result.latency_ms, result.latency_ms[1:], strict=False)
    ]
    assert statistics.median(steps) == pytest.approx(25, abs=8)
    assert result.latency_ms[-1] > 1000


def test_a_system_that_keeps_up_is_charged_what_it_takes() -> None:
    with stage() as here:
        result = run(load(here, rate=40, wait_ms=50))
    assert result.served == 60
    assert 50 <= quantile(result.latency_ms, 0.5) < 75


def test_the_answer_to_another_question_is_wrong() -> None:
    with stage() as here:
        asked = load(here, rate=40)
        # The replica echoes the first digits it finds, and here those are not the request's own.
        result = run(
            Load(port=asked.port, seconds=0.5, bodies=(chat(text="#12345678# "),), rate=40, arrivals="even")
        )
        [counts] = counted([asked.port])
    assert (result.served, result.wrong, counts["calls"]) == (0, 20, 20)


def test_nobody_who_listens_is_a_lost_request() -> None:
    with stage() as here:
        port = here.replica()
        here.stack.close()
        result = run(Load(port=port, seconds=0.475, bodies=(chat(),), rate=20, arrivals="even"))
    assert (result.served, result.lost) == (0, 10)
