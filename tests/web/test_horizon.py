"""One axis of time to come: minutes beside days, and nothing beyond its ends."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.web.horizon import APART_PCT, horizon_of

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
SECONDS = st.floats(-1e6, 3e8)


def waits(earliest_s: float, likely_s: float, latest_s: float) -> dict[str, Any]:
    names = ("earliest_at", "likely_at", "latest_at")
    after = (earliest_s, likely_s, latest_s)
    return {
        "wait": {
            "estimate": {
                name: (NOW + timedelta(seconds=s)).isoformat() for name, s in zip(names, after, strict=True)
            }
        }
    }


@pytest.mark.parametrize(
    ("latest_s", "marks_s"),
    [
        pytest.param(60, [300], id="a quarter of an hour at the least"),
        pytest.param(6 * 3600, [900, 3600, 14_400], id="hours"),
        pytest.param(
            30 * 86_400, [3600, 14_400, 86_400, 7 * 86_400], id="weeks: what would be too near is left out"
        ),
    ],
)
def test_the_axis_reaches_to_the_last_interval(latest_s: float, marks_s: list[int]) -> None:
    found = horizon_of([waits(0, 30, latest_s), {"wait": None}, {"wait": {"estimate": None}}], NOW)
    assert found is not None
    assert [mark.after_s for mark in found.marks] == marks_s


def test_without_an_estimate_there_is_no_axis() -> None:
    assert horizon_of([{"wait": None}, {"wait": {"estimate": None}}], NOW) is None


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS).map(sorted), min_size=1, max_size=5))
def test_bars_lie_on_the_axis_in_the_order_of_their_instants(intervals: list[list[float]]) -> None:
    runs = [waits(*interval) for interval in intervals]
    horizon = horizon_of(runs, NOW)
    assert horizon is not None
    for run, (_, _, latest_s) in zip(runs, intervals, strict=True):
        bar = horizon.bar(run["wait"]["estimate"])
        assert 0 <= bar.from_pct <= bar.likely_pct <= 100
        assert bar.likely_pct <= bar.from_pct + bar.wide_pct + 0.02
        assert bar.beyond == (latest_s > horizon.end_s)
    places = [0.0, *(mark.at_pct for mark in horizon.marks)]
    assert all(later - sooner >= APART_PCT for sooner, later in pairwise(places))
