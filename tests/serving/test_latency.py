"""Latencies in buckets: each counted once, sums tell percentiles of all, and those are as near as a bucket is wide."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.serving.latency import BOUNDS_MS, BUCKETS, LONGEST_MS, SHORTEST_MS, added, bucket_of, quantile

latencies_ms = st.floats(min_value=0.0, max_value=2 * LONGEST_MS, allow_nan=False)


def counted(*each_ms: float) -> tuple[int, ...]:
    counts = [0] * BUCKETS
    for ms in each_ms:
        counts[bucket_of(ms)] += 1
    return tuple(counts)


def test_bounds_rise_evenly_from_a_tenth_of_a_millisecond_to_ten_minutes() -> None:
    assert (BOUNDS_MS[0], BOUNDS_MS[-1], BUCKETS) == (SHORTEST_MS, 600_000.0, len(BOUNDS_MS) + 1)
    steps = {round(b / a, 6) for a, b in pairwise(BOUNDS_MS)}
    assert steps == {1.189359}


@given(latencies_ms)
def test_a_bucket_holds_what_is_at_most_its_bound_and_more_than_the_one_before(ms: float) -> None:
    bucket = bucket_of(ms)
    assert bucket == 0 or ms > BOUNDS_MS[bucket - 1]
    assert bucket == BUCKETS - 1 or ms <= BOUNDS_MS[bucket]


@given(st.lists(st.floats(min_value=0.2, max_value=500_000.0), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_a_percentile_is_no_farther_off_than_its_bucket_is_wide(each_ms: list[float], q: float) -> None:
    true_ms = sorted(each_ms)[max(0, math.ceil(q * len(each_ms)) - 1)]
    told_ms = quantile(counted(*each_ms), q)
    assert told_ms is not None
    assert true_ms / 1.19 <= told_ms <= true_ms * 1.19


@given(st.lists(latencies_ms, max_size=30), st.lists(latencies_ms, max_size=30))
def test_counts_of_two_gateways_add_up_to_those_of_all_requests(one: list[float], other: list[float]) -> None:
    assert added(counted(*one), counted(*other)) == counted(*one, *other)


def test_of_nothing_there_is_no_percentile_and_beyond_ten_minutes_is_ten_minutes() -> None:
    assert quantile(added(), 0.99) is None
    assert quantile(counted(9e9), 0.5) == LONGEST_MS


@pytest.mark.parametrize(
    ("counts", "q"),
    [pytest.param((1, 2), 0.5, id="of another scale"), pytest.param(added(), 1.5, id="no share")],
)
def test_counts_of_another_scale_are_refused(counts: tuple[int, ...], q: float) -> None:
    with pytest.raises(ValueError, match=r"buckets|share"):
        quantile(counts, q)


def test_counts_of_two_scales_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="argument"):
        added(added(), (1, 2, 3))
