"""Exposing is writing what is known now as a text that Prometheus reads: one line for each thing and field.

Invariant: what is unknown or old has no line, never a zero; a name says the field and its unit, a counter ends in
`_total`; labels are escaped. Measured, estimated and simulated values are told apart by the label `origin`.

Format: Prometheus text 0.0.4, or OpenMetrics 1.0.0 where that is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from baseai.telemetry.field import Family, Kind, Origin, State
from baseai.telemetry.sample import ORIGIN_SHIFT
from baseai.telemetry.store import Latest

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ORIGINS = tuple(origin.name.lower() for origin in Origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One figure of the platform's own: name, meaning, and a value for each set of labels."""

    name: str
    meaning: str
    values: Sequence[tuple[Mapping[str, str], float]]
    counter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """All that one text tells. labels: by family, key → the labels of that thing beside its origin."""

    latest: Sequence[Latest] = ()
    labels: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    gauges: Sequence[Gauge] = ()


def wants_open_metrics(accept: str) -> bool:
    return "application/openmetrics-text" in accept


def text_of(exposed: Exposed, *, since_ms: int, open_metrics: bool = False) -> str:
    """The text. Rows from before `since_ms` are left out: what was is not what is."""
    lines: list[str] = []
    for latest in exposed.latest:
        lines += _family_lines(latest, exposed.labels.get(latest.family.name, {}), since_ms, open_metrics)
    for gauge in exposed.gauges:
        kind = "counter" if gauge.counter else "gauge"
        lines += _head(gauge.name, kind, gauge.meaning, open_metrics)
        suffix = "_total" if gauge.counter else ""
        lines += [
            f"{gauge.name}{suffix}{{{_labels(labels)}}} {_number(value)}" for labels, value in gauge.values
        ]
    if open_metrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""])


def _family_lines(
    latest: Latest, labels: Mapping[str, Mapping[str, str]], since_ms: int, open_metrics: bool
) -> Iterable[str]:
    fresh = [
        row for row, at in enumerate(latest.ts_ms.tolist()) if at >= since_ms and latest.keys[row] in labels
    ]
    told = {row: _labels(labels[latest.keys[row]]) for row in fresh}
    codes, values = latest.codes, latest.values
    for column, name in enumerate(latest.family.names):
        lines = [
            (row, int(codes[row, column]) >> ORIGIN_SHIFT, float(values[row, column]))
            for row in fresh
            if int(codes[row, column]) & 15 == State.VALUE
        ]
        if not lines:
            continue
        full, kind, suffix = _name(latest.family, name)
        yield from _head(full, kind, latest.family[name].meaning, open_metrics)
        for row, origin, value in lines:
            yield f'{full}{suffix}{{{told[row]},origin="{ORIGINS[origin]}"}} {_number(value)}'


def _name(family: Family, name: str) -> tuple[str, str, str]:
    """Name, kind and what stands behind the name of its lines."""
    counter = family[name].kind is Kind.COUNTER
    return f"baseai_{family.name}_{name}", "counter" if counter else "gauge", "_total" if counter else ""


def _head(name: str, kind: str, meaning: str, open_metrics: bool) -> list[str]:
    # The older format knows a counter by the name of its lines, OpenMetrics by the name without its end.
    shown = f"{name}_total" if kind == "counter" and not open_metrics else name
    return [f"# HELP {shown} {meaning}", f"# TYPE {shown} {kind}"]


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
