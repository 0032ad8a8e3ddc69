"""Buckets as areas: heights are sums, gaps are gaps, words are escaped."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from baseai.web.area import BOTTOM, HEIGHT, TOP, AreaWords, Layer, stacked
from baseai.web.strip import WIDTH, Stretch, strip

WORDS = AreaWords(
    title="<b>", description="all", x_axis="day", y_axis="hours", number=lambda value: f"{value:g}"
)
DAWN = datetime(2026, 11, 14, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)


def layer(name: str, *values: float | None) -> Layer:
    return Layer(name=name, label=name, values=values)


def heights(svg: str, name: str) -> list[float]:
    """How high the plateaus of a layer stand over the floor, in units of the picture."""
    [path] = re.findall(rf'class="b-{name}" d="([^"]*)"', svg)
    return [HEIGHT - BOTTOM - float(place) for place in re.findall(r"V([\d.]+)", path)]


def test_layers_stand_on_each_other() -> None:
    svg = stacked(["1", "2"], [layer("sold", 2, 1), layer("idle", 2, 3)], words=WORDS)
    whole = HEIGHT - TOP - BOTTOM
    assert heights(svg, "sold")[:2] == [pytest.approx(whole / 2), pytest.approx(whole / 4)]
    assert heights(svg, "idle")[:2] == [pytest.approx(whole)] * 2  # both days have four hours


def test_what_may_not_be_said_is_a_gap_and_nothing_is_no_layer() -> None:
    svg = stacked(["1", "2", "3"], [layer("sold", 1, None, 1), layer("rma", 0, 0, 0)], words=WORDS)
    assert svg.count("M", svg.index('class="b-sold" d="'), svg.index("</path>", svg.index("b-sold"))) == 2
    assert "b-rma" not in svg
    assert stacked(["1"], [layer("rma", 0)], words=WORDS) == ""


def test_words_are_escaped_and_steps_lead_where_they_are_told() -> None:
    svg = stacked(["1", "2"], [layer("sold", 1, 1)], words=WORDS, links=["/books?day=1&b=2", None])
    assert "<b>" not in svg
    assert re.findall(r'<a href="([^"]*)"', svg) == ["/books?day=1&amp;b=2"]


def test_a_strip_is_as_long_as_its_day_and_shows_the_shortest() -> None:
    stretches = [
        Stretch(name="idle", label="<idle>", from_at=DAWN, until_at=DAWN + 12 * HOUR),
        Stretch(name="spot", label="spot", from_at=DAWN + 12 * HOUR, until_at=DAWN + 12 * HOUR, link="/books/leases/l"),
        Stretch(name="lost", label="lost", from_at=DAWN + 12 * HOUR, until_at=DAWN + 48 * HOUR),
    ]  # fmt: skip
    svg = strip(stretches, DAWN, DAWN + 24 * HOUR, title="a day")
    bars = [(float(x), float(w)) for x, w in re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', svg)]
    assert bars == [(0, WIDTH / 2), (WIDTH / 2, 1.5), (WIDTH / 2, WIDTH / 2)]
    assert "<idle>" not in svg
    assert 'href="/books/leases/l"' in svg
