"""An estimate learns from what came of it, and goes by what is seen alone."""

import numpy as np
import pytest

from baseai.scheduling.estimate import Estimate, Estimator
from baseai.scheduling.gang import Shape

ONE, ALL = Shape(milli=1000), Shape(milli=4000)


def estimator(*lasted_s: float, shape: Shape = ONE, seed: int = 1) -> Estimator:
    """On four accelerators, after these lifetimes."""
    found = Estimator(4000, np.random.default_rng(seed))
    for each in lasted_s:
        found.ended(shape, each)
    return found


@pytest.mark.parametrize(
    ("running", "ahead", "shape", "likely_s"),
    [
        pytest.param([], [], ALL, 0, id="room now"),
        pytest.param([(ONE, 40.0)], [], ALL, 60, id="what runs has been served already"),
        pytest.param([(ONE, 40.0)], [], ONE, 0, id="room beside it"),
        pytest.param([(ONE, 0.0)] * 4, [(ONE, 0.0)] * 4, ONE, 200, id="behind those ahead"),
        pytest.param(
            [(ONE, 0.0)] * 4, [(ONE, 0.0)] * 400, ONE, 10_100, id="behind so many that they are summed"
        ),
    ],
)
def test_the_likely_start_where_all_last_as_long(
    running: list[tuple[Shape, float]], ahead: list[tuple[Shape, float]], shape: Shape, likely_s: float
) -> None:
    assert estimator(*[100.0] * 20).likely_s(running, ahead, shape) == pytest.approx(likely_s)


def test_the_share_that_holds_comes_to_four_fifths_however_wrong_the_middle_is() -> None:
    chance = np.random.default_rng(5)
    one = estimator(*[100.0] * 20)
    held = []
    for number in range(4000):
        said = one.estimate(float(number), [(ONE, 0.0)] * 4, [], ONE)
        waited_s = 300.0 * float(chance.lognormal(0.0, 1.0))
        held.append(said.holds(waited_s))
        one.came(said, waited_s)
    assert 0.77 < np.mean(held[500:]) < 0.83


def test_an_interval_grows_as_soon_as_it_is_outlived() -> None:
    one = estimator(*[100.0] * 20)
    before = one.estimate(0.0, [(ONE, 0.0)] * 4, [], ONE)
    one.outlived(before)
    after = one.estimate(0.0, [(ONE, 0.0)] * 4, [], ONE)
    assert after.latest_s > before.latest_s
    assert after.likely_s == before.likely_s


def test_who_still_goes_says_that_lifetimes_are_longer() -> None:
    young, old = [(ONE, 1.0)] * 4, [(ONE, 1.0)] * 4 + [(ALL, 900.0)] * 20
    few = estimator(*[10.0] * 3)  # too few of one shape: those of all count
    assert few.likely_s([], [*old, *young], ALL) > estimator(*[10.0] * 3).likely_s([], [*young, *young], ALL)


def test_before_ten_have_ended_nobody_is_told_not_to_start_at_once() -> None:
    for ended, earliest_is_now in ((9, True), (10, False)):
        said = estimator(*[10_000.0] * ended).estimate(0.0, [(ONE, 0.0)] * 4, [], ONE)
        assert (said.earliest_s == 0) == earliest_is_now


def test_nothing_known_is_an_interval_all_the_same_and_equal_histories_give_equal_estimates() -> None:
    said = [estimator(seed=3).estimate(7.0, [(ALL, 5.0)], [(ONE, 0.0)], ONE) for _ in range(2)]
    assert said[0] == said[1]
    assert isinstance(said[0], Estimate)
    assert 0 <= said[0].earliest_s <= said[0].likely_s <= said[0].latest_s
