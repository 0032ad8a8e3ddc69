"""An area is layers stacked over steps of time as inline SVG: each step a plateau, so that areas are accelerator-hours.

Invariant: equal layers give equal text; the height of all layers of a step is their sum; a step without a sum is a gap
and not a zero. Every word comes from the caller, escaped. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from baseai.web.chart import ticks

WIDTH, HEIGHT = 760, 420  # units of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 66, 6, 10, 40
LABELS_MOST = 16  # under the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kind of what is stacked: `name` is its class in the style sheet, b-name."""

    name: str
    label: str
    values: Sequence[float | None]  # per step; None where nothing may be said


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaWords:
    """All that the picture says, in the reader's language."""

    title: str
    description: str
    x_axis: str
    y_axis: str
    number: Callable[[float], str]


def stacked(
    steps: Sequence[str],
    layers: Sequence[Layer],
    *,
    words: AreaWords,
    links: Sequence[str | None] = (),
    name: str = "area",
) -> str:
    """The layers as an `<svg>` element, the first at the bottom; "" where there is nothing to draw.

    links: what each step opens, None where it opens nothing; or none at all.
    """
    drawn = [layer for layer in layers if any(layer.values)]
    if not steps or not drawn:
        return ""
    sums = [sum(layer.values[place] or 0.0 for layer in drawn) for place in range(len(steps))]
    y_ticks = ticks(0, max(sums))
    high, wide = y_ticks[-1], (WIDTH - LEFT - RIGHT) / len(steps)
    floor = HEIGHT - BOTTOM

    def x(place: int) -> str:
        return _short(LEFT + wide * place)

    def y(value: float) -> str:
        return _short(TOP + (floor - TOP) * (1 - value / high))

    parts = [
        (
            f'<svg class="chart area" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">'
        ),
        f'<title id="{name}-title">{escape(words.title)}</title>',
        f'<desc id="{name}-desc">{escape(words.description)}</desc>',
    ]
    parts += [
        f'<path class="grid" d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}"/>'
        f'<text class="tick y" x="{LEFT - 8}" y="{y(tick)}" dy=".32em">{escape(words.number(tick))}</text>'
        for tick in y_ticks
    ]
    below = [0.0] * len(steps)
    for layer in drawn:
        above = [low + (layer.values[place] or 0.0) for place, low in enumerate(below)]
        shapes = "".join(
            _band(start, end, above, below, x, y) for start, end in _runs(layer.values, above, below)
        )
        parts.append(f'<path class="b-{layer.name}" d="{shapes}"><title>{escape(layer.label)}</title></path>')
        below = above
    every = -(-len(steps) // LABELS_MOST)
    parts += [
        f'<text class="tick x" x="{_short(LEFT + wide * (place + 0.5))}" y="{floor + 17}">{escape(step)}</text>'
        for place, step in enumerate(steps)
        if place % every == 0
    ]
    parts.append(f'<path class="axis" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>')
    parts += [
        f'<a href="{escape(link)}" tabindex="-1"><rect class="step" x="{x(place)}" y="{TOP}" width="{_short(wide)}"'
        f' height="{floor - TOP}"><title>{escape(steps[place])}: {escape(words.number(sums[place]))}</title></rect></a>'
        for place, link in enumerate(links)
        if link
    ]
    parts.append(
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(words.x_axis)}</text>'
        f'<text class="name" x="{LEFT}" y="{HEIGHT - 4}">{escape(words.y_axis)}</text></svg>'
    )
    return "".join(parts)


def _runs(
    values: Sequence[float | None], above: Sequence[float], below: Sequence[float]
) -> list[tuple[int, int]]:
    """Stretches of steps in which a layer has a height: [start, end)."""
    found: list[tuple[int, int]] = []
    for place, value in enumerate(values):
        if not value or above[place] == below[place]:
            continue
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def _band(
    start: int,
    end: int,
    above: Sequence[float],
    below: Sequence[float],
    x: Callable[[int], str],
    y: Callable[[float], str],
) -> str:
    """One closed shape: along the upper edges from left to right, back along the lower ones."""
    upper = "".join(f"V{y(above[place])}H{x(place + 1)}" for place in range(start, end))
    lower = "".join(f"V{y(below[place])}H{x(place)}" for place in reversed(range(start, end)))
    return f"M{x(start)} {y(below[start])}{upper}{lower}Z"


def _short(place: float) -> str:
    return f"{place:.1f}".removesuffix(".0")
