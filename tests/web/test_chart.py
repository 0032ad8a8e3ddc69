"""The curve as a picture: what it shows, what it says aloud, and that it holds whatever is measured."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.web.chart import HEIGHT, WIDTH, Point, Words, loss_chart, ticks

SVG = "{http://www.w3.org/2000/svg}"
WORDS = Words(
    title="Loss <by> step",
    description="from 7 to 3",
    x_axis="step",
    y_axis="loss",
    restart="restart",
    checkpoint="checkpoint",
    number=lambda value: f"{value:g}",
)


def chart(values: dict[int, float], **facts: object) -> ET.Element:
    points = [Point(step=step, value=value) for step, value in values.items()]
    return ET.fromstring(loss_chart(points, words=WORDS, **facts))  # type: ignore[arg-type]


def line(drawn: ET.Element) -> list[tuple[float, float]]:
    polyline = drawn.find(f"{SVG}polyline")
    assert polyline is not None
    return [
        (float(x), float(y))
        for x, _, y in (pair.partition(",") for pair in polyline.attrib["points"].split())
    ]


def classes(drawn: ET.Element, name: str) -> list[ET.Element]:
    return [each for each in drawn.iter() if each.attrib.get("class") == name]


def test_nothing_measured_draws_nothing() -> None:
    assert loss_chart([], words=WORDS) == ""
    assert loss_chart([Point(step=1, value=float("nan"))], words=WORDS) == ""


def test_a_falling_loss_falls_on_the_picture_from_left_to_right() -> None:
    places = line(chart({0: 7.0, 10: 5.0, 20: 3.0}))
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted(y for _, y in places)


def test_the_axis_reaches_the_end_of_the_run_so_that_the_curve_shows_how_far_it_is() -> None:
    half = line(chart({0: 7.0, 300: 3.0}, steps_total=600))
    whole = line(chart({0: 7.0, 300: 3.0}))
    assert half[-1][0] - half[0][0] == pytest.approx((whole[-1][0] - whole[0][0]) / 2, abs=0.2)


def test_a_picture_says_itself_aloud() -> None:
    drawn = chart({0: 7.0, 10: 3.0})
    assert drawn.attrib["role"] == "img"
    ids = drawn.attrib["aria-labelledby"].split()
    said = {each.attrib.get("id"): each.text for each in drawn.iter()}
    assert [said[name] for name in ids] == ["Loss <by> step", "from 7 to 3"]


def test_restarts_and_checkpoints_are_marked_where_they_were_and_once() -> None:
    drawn = chart({0: 7.0, 100: 3.0}, restarts=[50, 50, 900], checkpoints=[25, 75])
    assert len(classes(drawn, "restart")) == 1
    assert len(classes(drawn, "checkpoint")) == 2
    titles = [each.text for mark in classes(drawn, "restart") for each in mark.iter(f"{SVG}title")]
    assert titles == ["restart: 50"]


@given(
    values=st.dictionaries(
        st.integers(0, 10**7),
        st.floats(-1e6, 1e6).map(lambda value: round(value, 6)),
        min_size=1,
        max_size=30,
    )
)
def test_every_point_lies_inside_the_picture(values: dict[int, float]) -> None:
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line(chart(values)))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        pytest.param(0, 600, (0, 200, 400, 600), id="steps of a run"),
        pytest.param(3.1, 7.3, (3, 4, 5, 6, 7, 8), id="a loss"),
        pytest.param(2.0, 2.0, (1.9, 1.95, 2.0, 2.05, 2.1), id="one value still has an axis"),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(low=st.floats(-1e9, 1e9), width=st.floats(0, 1e9))
def test_ticks_enclose_any_range(low: float, width: float) -> None:
    found = ticks(low, low + width)
    span = max(width, 1e-9 * abs(low))
    assert 2 <= len(found) <= 12
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + width - 1e-6 * span


def test_no_range_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no range"):
        ticks(2, 1)
