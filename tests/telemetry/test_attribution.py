"""Whoever held an accelerator, and nobody, have together what its own counters say, however time is cut."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.telemetry.attribution import Course, counter_mj, course_of, uses_of
from baseai.telemetry.field import Origin, Throttle
from baseai.telemetry.span import Span
from baseai.telemetry.use import Method, Use
from tests.telemetry.course import SECOND, course, energy, series

HOUR = 3600


def span(owner: str, from_s: float, until_s: float, **told: object) -> Span:
    return Span(owner=owner, from_ms=round(from_s * SECOND), until_ms=round(until_s * SECOND), **told)  # type: ignore[arg-type]


def uses(told: Course, spans: Sequence[Span], from_s: float = 0, until_s: float = 100) -> tuple[Use, ...]:
    return uses_of("GPU-1", told, spans, from_ms=round(from_s * SECOND), until_ms=round(until_s * SECOND))


def energies(found: Sequence[Use]) -> dict[str | None, int | None]:
    return {use.owner: use.energy_mj for use in found}


# ---- energy


def test_a_counter_is_cut_at_a_span_s_border_in_proportion_to_time() -> None:
    told = energy((0, 1000), (10, 1500), (20, 1600))
    found = uses(told, [span("a", 0, 5), span("b", 5, 12)], 0, 20)
    assert energies(found) == {"a": 250_000, "b": 270_000, None: 80_000}
    assert [(use.owner, use.from_ms, use.until_ms) for use in found] == [
        ("a", 0, 5000), ("b", 5000, 12_000), (None, 12_000, 20_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("readings", "boots", "expected"),
    [
        pytest.param([(0, 900), (10, 1000), (20, 40), (30, 60)], [0, 0, 1, 1], 160_000, id="the node began anew"),
        pytest.param([(0, 900), (10, 1000), (20, 40), (30, 60)], [0] * 4, 160_000, id="the driver was loaded anew"),
        pytest.param([(0, 10), (10, 20), (20, 60), (30, 60)], [0, 0, 1, 1], 70_000, id="a reset that looks a rise"),
        pytest.param([(0, 10), (10, 1e9), (20, 1e9 + 5)], [0] * 3, 5_000, id="a rise that no board can draw"),
        pytest.param([(10, 5)], [0], None, id="one reading says nothing of a time"),
        pytest.param([(200, 5), (300, 9)], [0, 0], None, id="what came later says nothing of before"),
    ],
)  # fmt: skip
def test_a_reset_counts_from_zero(
    readings: list[tuple[float, float]], boots: list[int], expected: int | None
) -> None:
    [use] = uses(energy(*readings, boots=boots), [span("a", 0, 100)])
    assert use.energy_mj == expected


def test_over_a_gap_the_counter_still_counts_and_coverage_says_what_was_seen() -> None:
    told = energy((0, 0), (10, 100), (1010, 1100), (1020, 1200))
    [before, after] = uses(told, [span("a", 0, 510)], 0, 1020)
    assert (before.energy_mj, after.energy_mj) == (600_000, 600_000)
    assert (before.seen_ms, after.seen_ms) == (10_000, 10_000)


def test_draw_over_time_stands_in_for_a_counter_and_is_an_estimate() -> None:
    told = course((0, {"power_w": 100}), (10, {"power_w": 300}), (20, {"power_w": 300}))
    [use] = uses(told, [span("a", 0, 20)], 0, 20)
    assert (use.energy_mj, use.energy_origin) == (5_000_000, Origin.ESTIMATED)
    assert use.energy_wh == pytest.approx(5000 / 3600)


def test_an_estimated_counter_stays_an_estimate() -> None:
    told = course((0, {"energy_j": 0}), (10, {"energy_j": 9}), origin=Origin.ESTIMATED)
    assert [use.energy_origin for use in uses(told, [])] == [Origin.ESTIMATED]


def test_unknown_is_not_zero() -> None:
    [use] = uses(course_of(series()), [span("a", 0, 100)])
    assert (use.energy_mj, use.util_pct, use.mem_used_max_b, use.throttled_ms, use.seen_ms) == (None,) * 4 + (
        0,
    )


# ---- the rest of a use


def test_utilisation_is_weighted_by_time_and_memory_is_the_most() -> None:
    told = course(
        (0, {"util_pct": 100, "mem_used_b": 5}),
        (10, {"util_pct": 100, "mem_used_b": 7}),
        (40, {"util_pct": 0, "mem_used_b": 3}),
        (50, {"util_pct": None, "mem_used_b": None}),
    )
    [use] = uses(told, [span("a", 0, 60)], 0, 60)
    assert use.util_pct == pytest.approx((10 * 100 + 30 * 50) / 40)
    assert use.mem_used_max_b == 7
    assert use.seen_ms == 50_000


@pytest.mark.parametrize(
    ("rows", "throttled_s"),
    [
        pytest.param([(0, Throttle.THERMAL_HW, None), (10, 0, None), (20, 0, None)], 10, id="a bit holds to the next"),
        pytest.param([(0, Throttle.POWER_CAP, 0), (10, Throttle.POWER_CAP, 9000)], 0, id="a cap at full load is none"),
        pytest.param([(0, Throttle.THERMAL_SW, 0), (10, 0, 4000), (20, 0, 9000)], 4, id="a counter says how long"),
        pytest.param([(0, 0, 0), (10, Throttle.POWER_BRAKE, 3000)], 3, id="it began between two samples"),
        pytest.param([(0, Throttle.THERMAL_HW, None), (500, 0, None)], None, id="a bit does not hold over a gap"),
        pytest.param([(0, None, 0), (10, None, 9000)], None, id="a counter alone does not say why"),
    ],
)  # fmt: skip
def test_only_harmful_slowing_counts(
    rows: list[tuple[float, float | None, float | None]], throttled_s: float | None
) -> None:
    told = course(*((at, {"throttle_bits": bits, "throttle_ms": ms}) for at, bits, ms in rows))
    [use] = uses(told, [span("a", 0, 1000)], 0, 1000)
    assert use.throttled_ms == (None if throttled_s is None else throttled_s * 1000)


# ---- parts of a device


def test_parts_have_energy_by_how_busy_they_were() -> None:
    told = energy((0, 0), (10, 700))
    parts = [
        span("a", 0, 10, method=Method.PARTITION, size=3 / 7, activity=1.0, mem_used_max_b=9.0),
        span("b", 0, 10, method=Method.PARTITION, size=4 / 7, activity=0.0, mem_used_max_b=1.0),
    ]
    a, b = uses(told, parts, 0, 10)
    assert (a.energy_mj, b.energy_mj) == (700_000, 0)
    assert (a.util_pct, a.mem_used_max_b, a.method) == (100.0, 9.0, Method.PARTITION)


def test_parts_of_unknown_activity_have_energy_by_size_and_nobody_has_the_rest() -> None:
    told = energy((0, 0), (10, 700))
    found = uses(told, [span("a", 0, 10, method=Method.PARTITION, size=3 / 7)], 0, 10)
    assert energies(found) == {"a": 300_000, None: 400_000}


def test_time_slices_have_energy_by_the_time_each_computed() -> None:
    told = energy((0, 0), (10, 900))
    slices = [
        span(o, 0, 10, method=Method.TIME_SLICE, size=1 / 2, activity=a) for o, a in (("a", 0.6), ("b", 0.3))
    ]
    assert energies(uses(told, slices, 0, 10)) == {"a": 600_000, "b": 300_000}


# ---- it always adds up

TIMES = st.lists(st.integers(0, 3 * HOUR * 10), min_size=0, max_size=40, unique=True).map(sorted)


@st.composite
def courses(draw: st.DrawFn) -> Course:
    """Samples at any times, with gaps, unread fields, falls and boots."""
    tenths = draw(TIMES)
    joules = draw(st.lists(st.none() | st.floats(0, 1e6), min_size=len(tenths), max_size=len(tenths)))
    boots = np.cumsum(draw(st.lists(st.booleans(), min_size=len(tenths), max_size=len(tenths)))).tolist()
    return course(*((at / 10, {"energy_j": j}) for at, j in zip(tenths, joules, strict=True)), boots=boots)


@st.composite
def owners(draw: st.DrawFn) -> list[Span]:
    """Whole devices one after another, then parts that overlap one another."""
    cuts = sorted(draw(st.lists(st.integers(1, 3 * HOUR * SECOND), min_size=2, max_size=8, unique=True)))
    middle = len(cuts) // 2
    whole = [
        Span(owner=f"w{number}", from_ms=begin, until_ms=end)
        for number, (begin, end) in enumerate(itertools.pairwise(cuts[: middle + 1]))
        if draw(st.booleans())
    ]
    after = cuts[middle]
    parts = [
        Span(
            owner=f"p{number}",
            from_ms=begin,
            until_ms=end,
            method=Method.PARTITION,
            size=1 / 7,
            activity=draw(st.none() | st.floats(0, 1)),
        )
        for number, (begin, end) in enumerate((after, end) for end in cuts[middle + 1 :])
    ]
    return whole + parts


@settings(deadline=None, max_examples=300)
@given(courses(), owners(), st.lists(st.integers(0, 3 * HOUR * SECOND), min_size=2, max_size=6, unique=True))
def test_uses_add_up_to_the_counter_however_time_is_cut(
    told: Course, spans: list[Span], borders: list[int]
) -> None:
    borders = sorted(borders)
    found = [
        use
        for begin, end in itertools.pairwise(borders)
        for use in uses_of("GPU-1", told, spans, from_ms=begin, until_ms=end)
    ]
    assert sum(use.energy_mj or 0 for use in found) == counter_mj(told, borders[0], borders[-1])
    whole = [use for use in found if use.method is Method.WHOLE_DEVICE and use.owner]
    for one, next_one in itertools.pairwise(whole):
        assert one.until_ms <= next_one.from_ms


@settings(deadline=None, max_examples=100)
@given(courses(), st.integers(1, 3 * HOUR * SECOND - 1))
def test_windows_that_adjoin_cut_the_same_border_at_the_same_place(told: Course, border: int) -> None:
    """Two hours are closed from different samples; both have the two around their common border."""
    if told.energy is None or len(told.energy.at_ms) < 4:
        return
    at_ms, counted = told.energy.at_ms, told.energy.counted
    right = int(np.searchsorted(at_ms, border, side="right"))
    early = type(told.energy)(at_ms=at_ms[: right + 1], counted=counted[: right + 1])
    from_ = max(0, right - 1)
    late = type(told.energy)(at_ms=at_ms[from_:], counted=counted[from_:] - counted[from_])
    assert early.over(0, border) + late.over(border, 4 * HOUR * SECOND) == told.energy.over(
        0, 4 * HOUR * SECOND
    )


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 1000), min_size=3, max_size=30, unique=True))
def test_a_late_sample_moves_energy_between_owners_and_makes_none(seconds: list[int]) -> None:
    seconds = sorted(seconds)
    readings = [(at, float(at * 3)) for at in seconds]
    missing = readings[:1] + readings[2:]
    spans = [span("a", 0, 500), span("b", 500, 1001)]
    for told in (energy(*readings), energy(*missing)):
        found = uses_of("GPU-1", told, spans, from_ms=0, until_ms=1001 * SECOND)
        assert sum(use.energy_mj or 0 for use in found) == (seconds[-1] - seconds[0]) * 3000
