"""Rollups: what stands in a bucket, and that rolling up twice equals rolling up once, bit for bit."""

from dataclasses import fields as fields_of

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.field import Kind
from baseai.telemetry.rollup import Cells, Rollup, cells_of, chain, codes_of, of_rollup, of_samples
from tests.telemetry.sampled import HOUR, MINUTE, S

NAN = float("nan")


def rolled(kind: Kind, *rows: tuple[int, float, float, int], step_ms: int = MINUTE) -> Rollup:
    """Rows as (thing, seconds, value, start of the node)."""
    things, at_s, values, boots = (np.array(column) for column in zip(*rows, strict=True))
    at_ms = (at_s * S).astype(np.int64)
    cells = cells_of(things.astype(np.int32), at_ms, step_ms)
    return of_samples(kind, cells, values.astype(np.float64), boots.astype(np.int32))


def test_buckets_begin_at_multiples_of_their_length_for_each_thing_apart() -> None:
    found = rolled(Kind.GAUGE, (0, 59, 1, 1), (0, 60, 2, 1), (0, 119, 4, 1), (2, 61, 8, 1))
    assert found.things.tolist() == [0, 0, 2]
    assert found.at_ms.tolist() == [0, MINUTE, MINUTE]
    assert found.total.tolist() == [1, 6, 8]
    assert found.count.tolist() == [1, 2, 1]


def test_what_is_unknown_counts_for_nothing() -> None:
    found = rolled(Kind.GAUGE, (0, 0, NAN, 1), (0, 10, 3, 1), (0, 20, 1, 1), (0, 30, NAN, 1), (1, 0, NAN, 1))
    assert found.count.tolist() == [2, 0]
    for name, known in (("low", 1), ("high", 3), ("total", 4), ("last", 1)):
        np.testing.assert_array_equal(getattr(found, name), [known, NAN], err_msg=name)


@pytest.mark.parametrize(
    ("rows", "first", "delta", "last"),
    [
        pytest.param([(0, 5, 1), (10, 9, 1)], 5, 4, 9, id="what lies within"),
        pytest.param([(0, 5, 1), (10, NAN, 1), (20, 9, 1)], 5, 4, 9, id="over what is unknown"),
        pytest.param([(0, 5, 1), (10, 2, 1), (20, 3, 1)], 5, 3, 3, id="it fell"),
        pytest.param([(0, 5, 1), (10, 9, 2)], 5, 9, 9, id="the node started anew"),
        pytest.param([(0, 5, 1)], 5, 0, 5, id="one reading"),
    ],
)
def test_a_counter_has_its_ends_and_what_it_counted_between(
    rows: list[tuple[float, float, int]], first: float, delta: float, last: float
) -> None:
    found = rolled(Kind.COUNTER, *((0, at_s, value, boot) for at_s, value, boot in rows))
    assert found.first is not None
    assert found.delta is not None
    assert (found.first[0], found.delta[0], found.last[0]) == (first, delta, last)


def test_what_a_counter_counted_between_two_buckets_is_found_when_they_are_put_together() -> None:
    found = of_rollup(rolled(Kind.COUNTER, (0, 0, 5, 1), (0, 50, 7, 1), (0, 70, 9, 1), (0, 130, 4, 2)), HOUR)
    assert found.delta is not None
    assert found.delta.tolist() == [2 + 2 + 4]


@st.composite
def samples(draw: st.DrawFn) -> tuple[Kind, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    kind = draw(st.sampled_from(Kind))
    numbers = st.integers(0, 255).map(float) if kind is Kind.BITS else st.floats(0, 1e9)
    places = sorted(draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 720)), max_size=60)))
    values = [draw(st.one_of(numbers, st.just(NAN))) for _ in places]
    boots = [at // 300 for _, at in places]
    return (
        kind,
        np.array([thing for thing, _ in places], dtype=np.int32),
        np.array([at * 10 * S for _, at in places], dtype=np.int64),
        np.array(values, dtype=np.float64),
        np.array(boots, dtype=np.int32),
    )


@given(samples())
def test_rolling_up_step_by_step_is_the_one_way_to_add_up(
    drawn: tuple[Kind, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    kind, things, at_ms, values, boots = drawn
    minutes = of_samples(kind, cells_of(things, at_ms, MINUTE), values, boots)
    by_steps = of_rollup(of_rollup(minutes, 10 * MINUTE), HOUR)
    from_samples = chain(kind, HOUR, things, at_ms, values, boots)
    for each in fields_of(Rollup):
        np.testing.assert_array_equal(
            getattr(by_steps, each.name), getattr(from_samples, each.name), each.name
        )


@given(samples())
def test_a_rollup_holds_what_its_samples_hold(
    drawn: tuple[Kind, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    kind, things, at_ms, values, boots = drawn
    found = chain(kind, HOUR, things, at_ms, values, boots)
    for place, (thing, start) in enumerate(zip(found.things, found.at_ms, strict=True)):
        within = (things == thing) & (at_ms >= start) & (at_ms < start + HOUR) & ~np.isnan(values)
        known = values[within]
        assert found.count[place] == len(known)
        if len(known):
            assert (found.low[place], found.high[place]) == (known.min(), known.max())
            total = NAN if kind is Kind.COUNTER else known.sum()
            np.testing.assert_allclose(found.total[place], total, rtol=1e-12)
            bits = np.bitwise_or.reduce(known.astype(np.int64)) if kind is Kind.BITS else known[-1]
            assert found.last[place] == bits


def test_a_code_is_that_of_the_last_known_value_or_the_last_reason() -> None:
    cells = Cells(first=np.array([0, 3]), things=np.zeros(2, np.int32), at_ms=np.array([0, 1]), rows=5)
    codes = np.array([[0x00, 2], [0x10, 2], [1, 4], [1, 3], [4, 1]], dtype=np.uint8)
    assert codes_of(cells, codes).tolist() == [[0x10, 4], [4, 1]]
