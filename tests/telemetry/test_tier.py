"""Which buckets a chart gets, and from which tier."""

import pytest

from baseai.telemetry.store import Retention, Tier
from baseai.telemetry.tier import buckets_of, floors
from tests.telemetry.sampled import DAY, HOUR, MINUTE, T0, S


@pytest.mark.parametrize(
    ("length_ms", "points", "tier", "step_ms"),
    [
        pytest.param(15 * MINUTE, 300, Tier.RAW, 10 * S, id="a quarter of an hour as it was sampled"),
        pytest.param(HOUR, 300, Tier.RAW, 20 * S, id="an hour"),
        pytest.param(6 * HOUR, 300, Tier.MINUTE, 2 * MINUTE, id="six hours from minutes"),
        pytest.param(DAY, 300, Tier.TEN_MINUTES, 10 * MINUTE, id="a day from tens of minutes"),
        pytest.param(7 * DAY, 300, Tier.HOUR, HOUR, id="a week from hours"),
        pytest.param(365 * DAY, 300, Tier.HOUR, 48 * HOUR, id="a year from hours"),
        pytest.param(40_000 * DAY, 300, Tier.HOUR, 224 * DAY, id="a century"),
        pytest.param(HOUR, 1, Tier.HOUR, HOUR, id="one point"),
    ],
)
def test_a_range_gets_the_shortest_buckets_that_fit(
    length_ms: int, points: int, tier: Tier, step_ms: int
) -> None:
    found = buckets_of(T0, T0 + length_ms, points, {})
    assert (found.tier, found.step_ms) == (tier, step_ms)
    assert found.count <= points


def test_buckets_are_whole_and_cover_the_range() -> None:
    found = buckets_of(T0 + 5 * S, T0 + 31 * S, 10, {})
    assert (found.from_ms, found.until_ms, found.count) == (T0, T0 + 40 * S, 4)


@pytest.mark.parametrize(
    ("held", "tier"),
    [
        pytest.param({}, Tier.RAW, id="all is there"),
        pytest.param({Tier.RAW: T0 + 1}, Tier.MINUTE, id="samples do not reach back"),
        pytest.param(dict.fromkeys(Tier, T0 + 1), Tier.HOUR, id="nothing does: the hour is asked"),
    ],
)
def test_what_is_forgotten_is_shown_from_a_coarser_tier(held: dict[Tier, int], tier: Tier) -> None:
    assert buckets_of(T0, T0 + 10 * MINUTE, 300, held).tier is tier


@pytest.mark.parametrize(("until_ms", "points"), [(T0 + 1, 0), (T0 - 1, 10)])
def test_a_chart_without_points_and_a_range_turned_round_are_refused(until_ms: int, points: int) -> None:
    with pytest.raises(ValueError, match="cannot"):
        buckets_of(T0, until_ms, points, {})


def test_tiers_are_kept_from_a_whole_hour_on() -> None:
    found = floors(T0 + 5 * MINUTE, Retention(raw_days=1))
    assert found[Tier.RAW] == T0 - DAY
    assert found[Tier.HOUR] == 0
