"""A chart is one curve over steps as inline SVG: readable without script, without colour and aloud.

Invariant: equal points give equal text, and every word in it comes from the caller, escaped. Pure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 268  # units of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 16, 46  # room for labels around the plot
TICKS = 5  # wanted on each axis; the number found depends on round steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured value at one step."""

    step: int
    value: float  # finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """All that the chart says, in the reader's language."""

    title: str
    description: str
    x_axis: str
    y_axis: str
    restart: str
    checkpoint: str
    number: Callable[[float], str]


def loss_chart(
    points: Sequence[Point],
    *,
    words: Words,
    restarts: Sequence[int] = (),
    checkpoints: Sequence[int] = (),
    steps_total: int | None = None,
    name: str = "curve",
) -> str:
    """The curve as an `<svg>` element, or "" where there is no point to draw.

    restarts: steps at which the run began anew; checkpoints: steps that are safe.
    steps_total: where the run will end; the axis reaches it, so that the curve shows how far it is.
    name: prefix of the ids inside, so that two charts may share a page.
    """
    drawn = sorted((point for point in points if math.isfinite(point.value)), key=lambda point: point.step)
    if not drawn:
        return ""
    most = max(drawn[-1].step, steps_total or 0, 1)
    y_ticks = ticks(min(point.value for point in drawn), max(point.value for point in drawn))
    x_ticks = [tick for tick in ticks(0, most) if tick <= most and tick == int(tick)]
    low, high = y_ticks[0], y_ticks[-1]

    def x(step: float) -> str:
        return _short(LEFT + (WIDTH - LEFT - RIGHT) * step / most)

    def y(value: float) -> str:
        return _short(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low))

    floor = HEIGHT - BOTTOM
    parts = [
        (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
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
    parts += [
        f'<path class="axis" d="M{x(tick)} {floor}v5"/>'
        f'<text class="tick x" x="{x(tick)}" y="{floor + 20}">{escape(words.number(tick))}</text>'
        for tick in x_ticks
    ]
    parts.append(f'<path class="axis" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>')
    parts += [
        f'<path class="checkpoint" d="M{x(step)} {floor}v-9">'
        f"<title>{escape(words.checkpoint)}: {escape(words.number(step))}</title></path>"
        for step in sorted(set(checkpoints))
        if 0 <= step <= most
    ]
    parts += [
        f'<g class="restart"><path d="M{x(step)} {TOP}V{floor}"/><path class="flag" d="M{x(step)} {TOP}l-5 -9h10z"/>'
        f"<title>{escape(words.restart)}: {escape(words.number(step))}</title></g>"
        for step in sorted(set(restarts))
        if 0 <= step <= most
    ]
    line = " ".join(f"{x(point.step)},{y(point.value)}" for point in drawn)
    parts.append(f'<polyline class="line" points="{line}"/>')
    last = drawn[-1]
    parts.append(f'<circle class="last" cx="{x(last.step)}" cy="{y(last.value)}" r="3.5"/>')
    parts.append(
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(words.x_axis)}</text>'
        f'<text class="name" x="{LEFT}" y="{HEIGHT - 4}">{escape(words.y_axis)}</text></svg>'
    )
    return "".join(parts)


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers around [low, high], at least two, the first not above `low` and the last not below `high`."""
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError(f"{low} to {high} is no range")
    # As good as one value: floats could not tell its ticks apart.
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-300, 1e-9 * largest):
        margin = 0.05 * (largest if largest > 1e-200 else 1.0)
        low, high = low - margin, high + margin
    rough = (high - low) / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))


def _short(place: float) -> str:
    return f"{place:.1f}".removesuffix(".0")
