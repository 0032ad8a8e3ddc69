"""A strip is one day of one accelerator as inline SVG: a bar for each stretch, as long as it lasted.

Invariant: where a bar begins is an instant of the day; only the shortest are drawn longer than they lasted. Every word
comes from the caller, escaped. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

WIDTH, HEIGHT, BAR = 960, 74, 44
HOURS_A_LABEL = 3
LEAST = 1.5  # of a bar's width, so that a minute is seen and can be pointed at


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One bar: `name` is its class in the style sheet, b-name; `link` leads to what stands behind it."""

    name: str
    label: str
    from_at: datetime
    until_at: datetime
    link: str | None = None


def strip(
    stretches: Sequence[Stretch], since: datetime, until: datetime, *, title: str, name: str = "strip"
) -> str:
    """The bars of [since, until), under them its hours."""
    whole_s = (until - since).total_seconds()

    def x(at: datetime) -> float:
        return round(WIDTH * (min(max(at, since), until) - since).total_seconds() / whole_s, 2)

    head = (
        f'<svg class="chart strip" viewBox="0 -4 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-title"'
        f' xmlns="http://www.w3.org/2000/svg"><title id="{name}-title">{escape(title)}</title>'
    )
    parts = [head]
    for one in stretches:
        left, right = x(one.from_at), x(one.until_at)
        bar = (
            f'<rect class="b-{one.name}" x="{left:g}" y="0" width="{max(right - left, LEAST):g}" height="{BAR}">'
            f"<title>{escape(one.label)}</title></rect>"
        )
        parts.append(f'<a href="{escape(one.link)}" tabindex="-1">{bar}</a>' if one.link else bar)
    hours = round(whole_s / 3600)
    for hour in range(0, hours + 1, HOURS_A_LABEL):
        place = WIDTH * hour / hours
        anchor = "start" if hour == 0 else "end" if hour == hours else "middle"
        parts.append(
            f'<path class="axis" d="M{place:g} {BAR}v5"/><text class="tick" x="{place:g}" y="{BAR + 20}"'
            f' text-anchor="{anchor}">{hour:02d}:00</text>'
        )
    return "".join(parts) + "</svg>"
