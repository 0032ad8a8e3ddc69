"""Demand second by second: the area under the count of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.gateway.tally import SECONDS_MOST, Tally


def test_half_a_second_of_one_request_is_half_a_request() -> None:
    tally = Tally(100.0)
    tally.enter(100.25)
    tally.leave(100.75)
    [second] = tally.taken(101.5)
    assert (second.began_s, second.concurrency, second.arrivals, second.held) == (
        100.0,
        pytest.approx(0.5),
        1,
        0,
    )


def test_a_long_request_counts_in_every_second_and_arrives_once() -> None:
    tally = Tally(100.0)
    tally.enter(100.5)
    tally.hold(100.5)
    seconds = tally.taken(103.0)
    assert [second.concurrency for second in seconds] == [
        pytest.approx(0.5),
        pytest.approx(1.0),
        pytest.approx(1.0),
    ]
    assert [second.arrivals for second in seconds] == [1, 0, 0]
    assert [second.held for second in seconds] == [1, 1, 1]


def test_quiet_seconds_are_left_out_and_nothing_is_taken_twice() -> None:
    tally = Tally(100.0)
    tally.enter(100.0)
    tally.leave(100.1)
    tally.enter(5000.2)
    tally.leave(5000.3)
    assert [second.began_s for second in tally.taken(6000.0)] == [100.0, 5000.0]
    assert tally.taken(6000.0) == []


def test_whoever_comes_late_finds_two_minutes() -> None:
    tally = Tally(0.0)
    tally.enter(0.0)
    assert len(tally.taken(1000.0)) == SECONDS_MOST


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 5)), max_size=20))
def test_no_time_is_lost(stays: list[tuple[float, float]]) -> None:
    tally = Tally(0.0)
    moves = [(at, 1) for at, _ in stays] + [(at + length, -1) for at, length in stays]
    for at, change in sorted(moves, key=lambda move: (move[0], -move[1])):
        (tally.enter if change > 0 else tally.leave)(at)
    seconds = tally.taken(30.0)
    assert sum(second.concurrency for second in seconds) == pytest.approx(
        sum(length for _, length in stays), abs=1e-6
    )
    assert sum(second.arrivals for second in seconds) == len(stays)
