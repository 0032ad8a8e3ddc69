"""What is remembered of what came."""

import numpy as np
import pytest

from baseai.scheduling.gang import Shape
from baseai.scheduling.policy import mix
from baseai.scheduling.policy.mix import Mix
from tests.scheduling.halls import gang


def frequency(one: Mix, milli: int) -> float:
    learned = one.learned()
    return float(learned.frequency[learned.milli == milli].sum())


def test_frequencies_are_of_pods_and_sum_to_one() -> None:
    one = Mix()
    one.count(gang("g0", 500))
    one.count(gang("g1", 1000, pods=3))
    assert frequency(one, 1000) == pytest.approx(0.75, abs=1e-4)
    assert one.learned().frequency.sum() == pytest.approx(1.0)
    assert one.learned().volume.sum() == pytest.approx(875, abs=0.1)


def test_who_is_asked_for_again_counts_once() -> None:
    one = Mix()
    for each in ("g0", "g1", "g0", "g1"):
        one.count(gang(each, 1000))
    assert one.gangs == 2


def test_what_has_not_come_for_long_hardly_counts() -> None:
    one = Mix()
    for number in range(4 * mix.MEMORY):
        one.count(gang("g", 500 if number < mix.MEMORY else 1000, number=number))
    assert frequency(one, 500) < 0.05
    assert one.learned().frequency.sum() == pytest.approx(1.0)


def test_only_so_many_shapes_are_remembered_and_the_rarest_go() -> None:
    one = Mix()
    for number in range(mix.SHAPES_MOST):
        one.count(gang("g", 1000, number=2 * number, cpu_milli=number))
        one.count(gang("g", 1000, number=2 * number + 1, cpu_milli=number))
    one.count(gang("g", 700, number=9_999))
    learned = one.learned()
    assert len(learned.shapes) == mix.SHAPES_MOST
    assert Shape(milli=700) not in learned.shapes


def test_nothing_came_and_nothing_is_learned() -> None:
    assert Mix().learned().shapes == ()
    assert np.array_equal(Mix().learned().volume, [])
