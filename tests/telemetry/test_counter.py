"""A counter's gain is never negative and never guessed: resets, starts and ceilings are told apart."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.counter import gains, is_saturated, saturated_sentence

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "boots", "gained", "restarted"),
    [
        pytest.param([5, 7, 7, 10], None, [NAN, 2, 0, 3], [], id="it rises"),
        pytest.param([5, 7, 3, 4], None, [NAN, 2, 3, 1], [2], id="it fell: it began at zero"),
        pytest.param(
            [5, 7, 9, 12], [1, 1, 2, 2], [NAN, 2, 9, 3], [2], id="a start shows though the value rose"
        ),
        pytest.param(
            [5, NAN, 9, NAN], None, [NAN, NAN, 4, NAN], [], id="a hole is bridged by the next reading"
        ),
        pytest.param([NAN, NAN, 4, 6], None, [NAN, NAN, NAN, 2], [], id="nothing is gained before the first"),
        pytest.param([5, NAN, 2], [1, 2, 2], [NAN, NAN, 2], [2], id="a start within a hole"),
        pytest.param([0, 0], None, [NAN, 0], [], id="nothing happened"),
    ],
)
def test_gains(
    values: list[float], boots: list[int] | None, gained: list[float], restarted: list[int]
) -> None:
    found = gains(values, boots)
    np.testing.assert_array_equal(found.gained, gained)
    assert np.flatnonzero(found.restarted).tolist() == restarted


def test_many_counters_at_once_are_each_by_itself() -> None:
    values = np.array([[1.0, 2.0, 1.0], [10.0, NAN, 30.0]])
    both = gains(values, [1, 1, 1])
    for row, alone in zip(both.gained, values, strict=True):
        np.testing.assert_array_equal(row, gains(alone, [1, 1, 1]).gained)


def test_a_counter_at_its_ceiling_says_nothing_until_it_is_cleared() -> None:
    found = gains([250, 255, 255, 3, 5], ceiling=255)
    np.testing.assert_array_equal(found.gained, [NAN, NAN, NAN, 3, 2])


@pytest.mark.parametrize(
    ("field", "value", "saturated"),
    [
        ("link_downed", 255, True),
        ("link_downed", 254, False),
        ("symbol_err", 65535, True),
        ("rx_err", 255, False),
        ("wait_ticks", 2**32 - 1, True),
        ("rx_b", 2**32 - 1, False),
    ],
)
def test_ceilings_of_infiniband(field: str, value: float, saturated: bool) -> None:
    assert is_saturated(field, value) is saturated


def test_the_sentence_says_which_counter_stands_where() -> None:
    assert saturated_sentence("link_downed", 255).startswith("link_downed stands at 255, the most")


COUNTED = st.lists(st.none() | st.integers(0, 1000), max_size=30)


@given(COUNTED, st.data())
def test_what_was_gained_over_resets_is_never_negative_and_never_more_than_was_shown(
    shown: list[int | None], data: st.DataObject
) -> None:
    boots = data.draw(st.lists(st.integers(0, 3), min_size=len(shown), max_size=len(shown)))
    values = np.array([NAN if each is None else each for each in shown], dtype=float)
    found = gains(values, sorted(boots))
    known = ~np.isnan(found.gained)
    assert (found.gained[known] >= 0).all()
    assert (found.gained[known] <= values[known]).all()


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=30))
def test_without_resets_gains_add_up_to_the_difference(rises: list[int]) -> None:
    values = np.cumsum(rises)
    assert np.nansum(gains(values).gained) == values[-1] - values[0]
