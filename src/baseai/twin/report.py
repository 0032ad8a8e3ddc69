"""A report is one page about one replay: figures, curves and bounds, in a single file that needs nothing else.

Invariant: plain HTML and SVG, no script and nothing fetched; the same replay gives the same bytes. A replay is a
simulation, and the page says so at its head.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from baseai.twin.outcome import Curve, Outcome, PackingOutcome

SHOWN_FROM = 80  # % arrived: before that nearly everything finds room
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 180, 56, 22
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#66707c;--line:#d5dae0;--mark:#0b6bcb;--bound:#b4451f;--paper:#fff}
@media(prefers-color-scheme:dark){
:root{--ink:#e6e9ed;--soft:#98a2ae;--line:#39414b;--mark:#69b1ff;--bound:#ff9a70;--paper:#14171b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:760px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.35rem;margin:0 0 .25rem}h2{font-size:1rem;margin:1.75rem 0 .4rem}
p,dt,text{color:var(--soft)}table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}th{font-weight:600}
svg{width:100%;height:auto;display:block}text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--line)}.curve{fill:none;stroke:var(--mark);stroke-width:1.5}.area{fill:var(--mark);opacity:.12}
.bound{stroke:var(--bound);stroke-dasharray:5 4}.told{fill:var(--bound)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem}dd{margin:0;overflow-wrap:anywhere}
"""


def report_of(outcome: Outcome | PackingOutcome, about: Mapping[str, str]) -> str:
    """The page. about: what was replayed, as terms and what they are, in the order shown."""
    title = "Replay in time" if isinstance(outcome, Outcome) else "Replay of packing"
    body = list(_time(outcome)) if isinstance(outcome, Outcome) else list(_packing(outcome))
    facts = "".join(f"<dt>{escape(term)}</dt><dd>{escape(what)}</dd>" for term, what in about.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        "<p>Simulated on a virtual clock; nothing here was measured.</p>\n"
        f"<dl>{facts}</dl>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def span_text(seconds: float) -> str:
    """Seconds as people say them, three digits that mean something."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:,.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
            )
    return f"{seconds:.3g} s"


def _time(outcome: Outcome) -> Iterator[str]:
    least_ratio = outcome.makespan_bound_s / outcome.makespan_s if outcome.makespan_s else 0.0
    yield _table(
        ("", "value", "bound"),
        (
            ("wait, mean", span_text(outcome.wait_mean_s), "0"),
            ("wait, median", span_text(outcome.wait_median_s), "0"),
            ("wait, p99", span_text(outcome.wait_p99_s), "0"),
            ("wait, longest", span_text(outcome.wait_max_s), "0"),
            (
                "from submission to end, mean",
                span_text(outcome.jct_mean_s),
                f"≥ {span_text(outcome.jct_bound_s)}",
            ),
            ("from submission to end, p99", span_text(outcome.jct_p99_s), "–"),
            ("slowdown, mean", f"{outcome.slowdown_mean:,.2f}", "≥ 1"),
            ("makespan", span_text(outcome.makespan_s), f"≥ {span_text(outcome.makespan_bound_s)}"),
            (
                "accelerators in use",
                f"{100 * outcome.utilisation_ratio:.1f} %",
                f"≤ {100 * _best_use(outcome, least_ratio):.1f} %",
            ),
            ("runs", f"{outcome.gangs:,}", "–"),
            ("preemptions and failures", f"{outcome.preemptions:,}", "≥ 0"),
        ),
    )
    yield _drawn(
        outcome.busy,
        top=100.0,
        bound=100 * _best_use(outcome, least_ratio),
        told="mean at the makespan's bound",
    )
    yield _drawn(outcome.queue)


def _best_use(outcome: Outcome, least_ratio: float) -> float:
    """Use over the shortest makespan there can be, of the same work."""
    return min(1.0, outcome.utilisation_ratio / least_ratio) if least_ratio else 0.0


def _packing(outcome: PackingOutcome) -> Iterator[str]:
    most = 100 * outcome.allocated_bound_ratio
    yield _table(
        ("", "value", "bound"),
        (
            ("allocated at the end", f"{100 * outcome.allocated_ratio:.2f} %", f"≤ {most:.2f} %"),
            ("asked for", f"{100 * outcome.asked_ratio:.2f} %", "–"),
            ("gangs", f"{outcome.gangs:,}", "–"),
            ("turned away", f"{outcome.refused:,}", "≥ 0"),
            *(
                (
                    f"allocated when {mark} % have arrived",
                    f"{100 * ratio:.2f} %",
                    "≤ 100 %" if mark >= 100 else "–",
                )
                for mark, ratio in outcome.allocated_at_ratio
                if mark >= SHOWN_FROM
            ),
        ),
    )
    over = "% of all accelerators asked for"
    yield _drawn(outcome.allocated, top=100.0, bound=most, told="all there is", over=over)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _drawn(
    curve: Curve, *, top: float | None = None, bound: float | None = None, told: str = "", over: str = ""
) -> str:
    """One curve as SVG, with a line for its bound."""
    most = max(top or 0.0, max(curve.values, default=0.0), bound or 0.0) or 1.0
    span = curve.step * len(curve.values)
    right, high = WIDTH - 8, HEIGHT - BOTTOM

    def x(place: float) -> float:
        return LEFT + (right - LEFT) * place / max(1, len(curve.values))

    def y(value: float) -> float:
        return 8 + (high - 8) * (1 - value / most)

    points = " ".join(f"{x(place + 0.5):.1f},{y(value):.1f}" for place, value in enumerate(curve.values))
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{_number(level)}</text>'
        for level in (0.0, most / 2, most)
    ]
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        label = f"{span * part:.0f}" if over else span_text(span * part)
        anchor = "start" if part == 0 else "end" if part == 1 else "middle"
        parts.append(
            f'<text x="{x(part * len(curve.values)):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>'
        )
    parts.append(f'<polygon class="area" points="{LEFT},{high} {points} {right},{high}"/>')
    parts.append(f'<polyline class="curve" points="{points}"/>')
    if bound is not None:
        parts.append(
            f'<line class="bound" x1="{LEFT}" x2="{right}" y1="{y(bound):.1f}" y2="{y(bound):.1f}"/>'
            f'<text class="told" x="{right}" y="{y(bound) + 13:.1f}" text-anchor="end">'
            f"{escape(told)}: {bound:.1f}</text>"
        )
    heading = f"{curve.name}, {curve.unit}" + (f", over {over}" if over else "")
    return (
        f'<h2>{escape(heading)}</h2>\n<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(heading)}">'
        f"{''.join(parts)}</svg>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
