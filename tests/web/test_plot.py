"""What is drawn: gaps stay gaps with their reason, counters are rates that survive a reset, events have their place."""

import numpy as np
import pytest

from baseai.telemetry.field import ACCELERATOR, FAMILIES, NODE, Origin, State, Throttle
from baseai.telemetry.sample import code_of
from baseai.telemetry.store import Series, Tier
from baseai.web.phrase import FIELDS, MARKERS, PLOT_TITLES
from baseai.web.plot import (
    BESIDE,
    EVENTS,
    PLOTS,
    beside,
    breaks_in,
    bridged,
    drawing_of,
    gaps_json,
    line_json,
    rates_of,
    risen,
)

NAN = float("nan")
T0 = 1_800_000_000_000


def series(
    ts_s: list[float], *, tier: Tier = Tier.RAW, boots: list[int] | None = None, **columns: list[float]
) -> Series:
    """One thing's samples at T0 + ts_s; NaN is blank."""
    values = np.array([columns[name] for name in columns], dtype=np.float64).T.reshape(
        len(ts_s), len(columns)
    )
    codes = np.where(np.isnan(values), code_of(State.BLANK), code_of(State.VALUE)).astype(np.uint8)
    return Series(
        key="a", fields=tuple(columns), tier=tier, ts_ms=np.array([T0 + round(1000 * s) for s in ts_s], np.int64),
        values=values, codes=codes, boots=np.array(boots or [0] * len(ts_s), np.int32),
    )  # fmt: skip


PLOT = PLOTS["accelerator"][0]
UTIL = type(PLOT)(name="u", unit="%", fields=("util_pct",))
RATE = type(PLOT)(name="r", unit="MB/s", fields=("net_rx_b",), factor=1e-6, is_rate=True)


def test_missing_rows_break_the_line_and_one_late_tick_does_not() -> None:
    drawing = drawing_of(series([0, 10, 22, 30, 60, 70], util_pct=[1, 2, 3, 4, 5, 6]), (UTIL,))
    line = drawing.lines["util_pct"]
    assert line_json(line, "u")["values"] == [1, 2, 3, 4, None, 5, 6]
    assert (drawing.ts_ms[4] - T0) == 30_001
    assert line_json(line, "u")["gaps"] == [[4, 5, State.ABSENT]]


def test_a_field_without_a_value_keeps_its_reason() -> None:
    drawing = drawing_of(series([0, 10, 20], util_pct=[1, NAN, 3]), (UTIL,))
    assert line_json(drawing.lines["util_pct"], "u")["values"] == [1, None, 3]
    assert gaps_json(drawing.lines["util_pct"].codes) == [[1, 2, State.BLANK]]


def test_buckets_that_are_missing_break_the_line_by_their_tier() -> None:
    assert breaks_in(np.array([0, 60_000, 180_000]), Tier.MINUTE).tolist() == [2]
    assert breaks_in(np.array([0, 60_000, 120_000]), Tier.MINUTE).tolist() == []


@pytest.mark.parametrize(
    ("counter", "boots", "expected"),
    [
        pytest.param([0, 50, 150], [0, 0, 0], [NAN, 5, 10], id="a rate is what it rose by in a second"),
        pytest.param([500, 20, 40], [0, 1, 1], [NAN, 2, 2], id="a reset begins again from zero"),
        pytest.param([10, 20, 40], [0, 1, 1], [NAN, 2, 2], id="also where the new count is higher already"),
        pytest.param([0, NAN, 200], [0, 0, 0], [NAN, NAN, 10], id="over a blank by the time that passed"),
    ],
)
def test_a_counter_is_shown_as_its_rate(
    counter: list[float], boots: list[int], expected: list[float]
) -> None:
    rates = rates_of(np.array(counter), np.array([0, 10_000, 20_000]), np.array(boots, np.int32))
    np.testing.assert_allclose(rates, expected)


def test_energy_is_what_the_counter_rose_by_over_resets() -> None:
    assert (
        risen(np.array([100.0, 160.0, 30.0, NAN, 50.0]), np.array([0, 0, 1, 1, 1], np.int32)) == 60 + 30 + 20
    )
    assert risen(np.array([NAN, 5.0]), np.zeros(2, np.int32)) is None


def test_a_rate_is_in_the_units_of_its_plot() -> None:
    drawing = drawing_of(series([0, 10], net_rx_b=[0, 5e7]), (RATE,))
    assert line_json(drawing.lines["net_rx_b"], "r")["values"] == [None, 5.0]


def test_bands_say_when_and_why_it_was_slowed_down_and_end_at_a_gap() -> None:
    cap, hot = int(Throttle.POWER_CAP), int(Throttle.THERMAL_HW)
    told = series(
        [0, 10, 20, 30, 40, 100, 110], util_pct=[1] * 7, throttle_bits=[0, cap, cap, hot, hot, hot, 0]
    )
    assert [
        (band.from_ms - T0, band.until_ms - T0, band.bits) for band in drawing_of(told, (UTIL,)).bands
    ] == [
        (10_000, 30_000, cap),
        (30_000, 50_000, hot),
        (100_000, 110_000, hot),
    ]


def test_errors_faults_and_starts_are_marked_where_they_happened() -> None:
    told = series(
        [0, 10, 20, 30, 40], util_pct=[1] * 5, ecc_ue=[0, 0, 2, 2, 0], ecc_ce=[5, 5, 5, 5, 5],
        fault_code=[NAN, NAN, 79, NAN, NAN], row_remap=[0, 0, 0, 1, 1], boots=[0, 0, 0, 0, 1],
    )  # fmt: skip
    found = [(marker.ts_ms - T0, marker.field, marker.amount) for marker in drawing_of(told, (UTIL,)).markers]
    assert found == [
        (20_000, "ecc_ue", 2),
        (20_000, "fault_code", 79),
        (30_000, "row_remap", 1),
        (40_000, "boot", 1),
        (40_000, "ecc_ce", 5),  # counted since the start
    ]


def test_several_things_share_their_instants_and_break_where_their_own_rows_miss() -> None:
    many = {
        "a": series([0, 10, 20, 30], power_w=[1, 2, 3, 4]),
        "b": series([0.1, 10.1, 20.1, 90.1], power_w=[5, 6, 7, 8]),
    }
    ts_ms, lines = beside(many, "power_w", 1.0)
    assert [(ts - T0) / 1000 for ts in ts_ms.tolist()] == [0, 0.1, 10, 10.1, 20, 20.1, 20.101, 30, 90.1]
    one, other = (line_json(line, line.name)["values"] for line in lines)
    assert one == [1, False, 2, False, 3, False, False, 4, None]
    assert other == [None, 5, False, 6, False, 7, None, None, 8]


def test_a_gap_that_all_have_is_a_gap() -> None:
    many = {key: series([0, 10, 100, 110], power_w=[1, 2, 3, 4]) for key in ("a", "b")}
    _, lines = beside(many, "power_w", 1.0)
    assert [line_json(line, "")["values"] for line in lines] == [[1, 2, None, 3, 4]] * 2


def test_a_bucket_as_short_as_a_tick_that_just_missed_it_is_no_gap() -> None:
    assert bridged(np.array([1, NAN, 3, NAN, NAN, 6]), 10_000) == [1, False, 3, None, None, 6]
    assert bridged(np.array([1, NAN, 3]), 60_000) == [1, None, 3]


def test_the_weakest_origin_marks_a_line() -> None:
    told = series([0, 10], util_pct=[1, 2])
    told.codes[1, 0] = code_of(State.VALUE, Origin.ESTIMATED)
    assert drawing_of(told, (UTIL,)).lines["util_pct"].origin is Origin.ESTIMATED


def test_every_field_that_is_drawn_is_one_of_its_family_and_has_its_words() -> None:
    for family in (ACCELERATOR, NODE):
        for plot in PLOTS[family.name]:
            assert set(plot.fields) <= set(family.names)
            assert plot.name in PLOT_TITLES
    assert {f"each_{plot.name}" for plot in BESIDE} <= set(PLOT_TITLES)
    assert {*EVENTS, "boot"} == set(MARKERS)
    assert {name: set(words) for name, words in FIELDS.items()} == {
        family.name: set(family.names) for family in FAMILIES.values()
    }
