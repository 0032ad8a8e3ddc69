"""Every microsecond in one bucket, whatever is claimed: the rule itself, and any facts a machine can think of."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.finance.bucket import (
    HOUR,
    NATURE,
    PRECEDENCE,
    Bucket,
    Claim,
    Interval,
    hours_of,
    installed_us,
    spans_of,
)
from tests.finance.leased import HOUR_US, TEN, after

BERLIN = ZoneInfo("Europe/Berlin")
ALWAYS = Interval(from_at=TEN - timedelta(days=9))
SIX_HOURS = (TEN, TEN + 6 * HOUR)


def claim(bucket: Bucket, start: float, end: float | None) -> Claim:
    """Hours after ten o'clock."""
    return Claim(bucket=bucket, from_at=after(start), until_at=None if end is None else after(end))


def sums(*claims: Claim, installed: Interval = ALWAYS, hours: float = 1) -> dict[Bucket, float]:
    """Hours in each bucket from ten o'clock on."""
    spans = spans_of(1, installed, claims, window=(TEN, after(hours)))
    total: dict[Bucket, float] = {}
    for span in spans:
        total[span.bucket] = total.get(span.bucket, 0) + span.micro_seconds / HOUR_US
    return total


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param([], {Bucket.IDLE: 1.0}, id="what nobody claims is idle"),
        pytest.param(
            [claim(Bucket.ON_DEMAND, 0.25, 0.75), claim(Bucket.MAINTENANCE, 0.5, None)],
            {Bucket.IDLE: 0.25, Bucket.ON_DEMAND: 0.5, Bucket.MAINTENANCE: 0.25},
            id="a run on a node that is drained is sold to its end",
        ),
        pytest.param(
            [claim(Bucket.ON_DEMAND, 0, 1), claim(Bucket.LOST, 0.5, 1)],
            {Bucket.ON_DEMAND: 0.5, Bucket.LOST: 0.5},
            id="what our fault cost was never sold",
        ),
        pytest.param(
            [claim(Bucket.FRAGMENTED, 0, 1), claim(Bucket.FAILED, 0, 0.5)],
            {Bucket.FAILED: 0.5, Bucket.FRAGMENTED: 0.5},
            id="what is broken is not fragmented",
        ),
        pytest.param(
            [claim(Bucket.RESERVED_UNUSED, 0, 1), claim(Bucket.FRAGMENTED, 0, 1)],
            {Bucket.RESERVED_UNUSED: 1.0},
            id="what is held for somebody is not fragmented",
        ),
        pytest.param(
            [claim(Bucket.BURN_IN, 0.5, 0.5), claim(Bucket.RMA, 0.9, 0.1)],
            {Bucket.IDLE: 1.0},
            id="a claim without time claims nothing",
        ),
    ],
)
def test_the_first_of_the_precedence_has_the_time(
    claims: Sequence[Claim], expected: dict[Bucket, float]
) -> None:
    assert sums(*claims) == expected
    assert sums(*reversed(claims)) == expected


def test_only_installed_time_is_told() -> None:
    installed = Interval(from_at=after(0.25), until_at=after(0.5))
    assert sums(claim(Bucket.ON_DEMAND, -3, 9), installed=installed, hours=3) == {Bucket.ON_DEMAND: 0.25}
    assert installed_us(installed, TEN) == HOUR_US // 4
    assert installed_us(installed, TEN + HOUR) == 0


def test_every_bucket_has_a_nature_and_a_place_in_the_precedence() -> None:
    assert set(NATURE) == set(Bucket)
    assert sorted(bucket for bucket, _ in PRECEDENCE) == sorted(Bucket)
    for bucket, nature in NATURE.items():
        assert nature.sold or not nature.used, bucket
        assert nature.available or not nature.sold, bucket


instants = st.integers(-2 * HOUR_US, 8 * HOUR_US).map(lambda us: TEN + timedelta(microseconds=us))
claims = st.builds(Claim, bucket=st.sampled_from(Bucket), from_at=instants, until_at=st.none() | instants)
intervals = st.builds(Interval, from_at=instants, until_at=st.none() | instants)
ranks = {bucket: rank for rank, (bucket, _) in enumerate(PRECEDENCE)}


def bucket_at(at: datetime, facts: Sequence[Claim]) -> Bucket:
    """The rule, said the slow way."""
    standing = [c.bucket for c in facts if c.from_at <= at and (c.until_at is None or at < c.until_at)]
    return min(standing, key=ranks.__getitem__, default=Bucket.IDLE)


@given(facts=st.lists(claims, max_size=12), installed=intervals, seed=st.randoms(use_true_random=False))
def test_any_claims_in_any_order_give_each_microsecond_to_one_bucket(
    facts: list[Claim], installed: Interval, seed: object
) -> None:
    spans = spans_of(7, installed, facts, window=SIX_HOURS)
    shuffled = list(facts)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert spans_of(7, installed, shuffled, window=SIX_HOURS) == spans
    for span in spans:
        assert span.micro_seconds > 0
        for at in (span.from_at, span.until_at - timedelta(microseconds=1)):
            assert bucket_at(at, facts) is span.bucket
    for before, behind in pairwise(spans):
        assert before.until_at == behind.from_at
        assert before.bucket is not behind.bucket
    by_hour = hours_of(spans)
    for number in range(6):
        hour = TEN + number * HOUR
        of_hour = by_hour.get((7, hour), {})
        assert sum(of_hour.values()) == installed_us(installed, hour)
        assert all(us > 0 for us in of_hour.values())


@given(facts=st.lists(claims, max_size=8), late=claims, installed=intervals)
def test_a_late_claim_changes_only_the_hours_it_touches(
    facts: list[Claim], late: Claim, installed: Interval
) -> None:
    before = hours_of(spans_of(7, installed, facts, window=SIX_HOURS))
    behind = hours_of(spans_of(7, installed, [*facts, late], window=SIX_HOURS))
    for hour in {hour for _, hour in {*before, *behind}}:
        touches = hour + HOUR > late.from_at and (late.until_at is None or hour < late.until_at)
        assert touches or before.get((7, hour)) == behind.get((7, hour))


@given(facts=st.lists(claims, max_size=8), installed=intervals, cut=st.integers(1, 5))
def test_two_windows_say_what_one_says(facts: list[Claim], installed: Interval, cut: int) -> None:
    at = TEN + cut * HOUR
    whole = hours_of(spans_of(7, installed, facts, window=SIX_HOURS))
    parts = [hours_of(spans_of(7, installed, facts, window=w)) for w in ((TEN, at), (at, SIX_HOURS[1]))]
    assert parts[0] | parts[1] == whole


def test_hours_are_those_of_utc_in_a_night_in_which_the_clock_changes() -> None:
    """Where a civil hour happens twice, sixty minutes are still sixty minutes."""
    night = (datetime(2026, 10, 25, 0, tzinfo=BERLIN), datetime(2026, 10, 26, 0, tzinfo=BERLIN))
    sold = Claim(
        bucket=Bucket.ON_DEMAND, from_at=night[0], until_at=datetime(2026, 10, 25, 12, tzinfo=BERLIN)
    )
    spans = spans_of(1, Interval(from_at=night[0] - HOUR), [sold], window=night)
    assert [span.micro_seconds for span in spans] == [13 * HOUR_US, 12 * HOUR_US]
    by_hour = hours_of(spans)
    assert len(by_hour) == 25
    assert all(sum(of_hour.values()) == HOUR_US for of_hour in by_hour.values())
