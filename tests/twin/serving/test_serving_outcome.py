"""A front is what no other point beats in both figures."""

import pytest

from baseai.twin.serving.outcome import Point, area_under, beats, front_of


def point(missed_ratio: float, replica_s: float, name: str = "p") -> Point:
    return Point(name=name, missed_ratio=missed_ratio, replica_s=replica_s)


CHEAP, DEAR, BEATEN = point(0.1, 100.0), point(0.01, 200.0), point(0.1, 150.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(CHEAP, BEATEN, True, id="as good for less"),
        pytest.param(CHEAP, DEAR, False, id="worse for less"),
        pytest.param(CHEAP, CHEAP, False, id="itself"),
    ],
)
def test_beats(one: Point, other: Point, expected: bool) -> None:
    assert beats(one, other) is expected


def test_a_front_leaves_out_what_is_beaten_cheapest_first() -> None:
    assert front_of([DEAR, BEATEN, CHEAP]) == (CHEAP, DEAR)


def test_a_better_front_has_the_smaller_area() -> None:
    better = [point(0.01, 100.0)]
    assert area_under(better, replica_s_most=200.0) == pytest.approx(-1.0)
    assert area_under([CHEAP, DEAR], replica_s_most=200.0) > area_under(better, replica_s_most=200.0)
