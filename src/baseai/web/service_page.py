"""What the pages of services show, worked out from rows: the charts of one, and requests to try.

Invariant: a chart draws what was counted, and breaks where nothing was asked; demand stands in replicas, so that it is
read against how many there were. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from baseai.serving.example import Example, examples_of
from baseai.web.language import Language
from baseai.web.phrase import N_
from baseai.workloads.service import Service

Row = Mapping[str, Any]
DIGITS = 5  # significant ones of a number on the wire

# Charts in the order of the page: name, title, unit.
CHARTS: Sequence[tuple[str, str, str]] = (
    ("requests", N_("Requests"), "1/s"),
    ("latency", N_("Latency, by percentile"), "ms"),
    ("replicas", N_("Replicas against demand"), ""),
    ("shares", N_("Cache hits and errors"), "%"),
    ("tokens", N_("Tokens"), "1/s"),
)


def terms_of(detail: Row) -> Service:
    """The terms of a service's current version."""
    return Service.from_json(detail["spec"]["work"])


def tried(detail: Row, *, by_name: bool) -> tuple[Example, ...]:
    """The requests one may try; `by_name` of whoever has keys of the service's tenant."""
    return examples_of(detail["service"]["service_id"], terms_of(detail), by_name=by_name)


def chart_json(traffic: Row, detail: Row, language: Language) -> dict[str, Any]:
    """What a browser draws of one service over a window: the lines of each chart, and what happened."""
    points: Sequence[Row] = traffic["points"]
    terms = terms_of(detail)
    say = language.say

    def line(
        name: str, label: str, of: Callable[[Row], float | None], *, edge: bool = False
    ) -> dict[str, Any]:
        values = [None if (value := of(point)) is None else float(f"{value:.{DIGITS}g}") for point in points]
        return {"name": name, "label": label, "values": values, "gaps": [], "edge": edge}

    def chart(unit: str, lines: Sequence[Mapping[str, Any]], **facts: Any) -> dict[str, Any]:
        instants = [point["at"].timestamp() for point in points]
        return {
            "ts": instants,
            "unit": unit,
            "high": None,
            "lines": list(lines),
            "bands": [],
            "dots": True,
        } | facts

    def rate(name: str) -> Callable[[Row], float | None]:
        return lambda point: point[name] / traffic["step_s"]

    def share(name: str) -> Callable[[Row], float | None]:
        return lambda point: None if point[name] is None else 100 * point[name]

    def demand(point: Row) -> float:
        asked = point["requests_per_s" if terms.scaling.metric == "requests" else "concurrency"]
        return float(asked) / terms.scaling.target

    latency = [
        line(f"p{q}", f"p{q}", lambda point, q=q: point[f"p{q}_ms"])  # type: ignore[misc]
        for q in (50, 95, 99)
    ]
    if terms.p99_ms is not None:
        latency.append(line("slo", say(N_("SLO of p99")), lambda _: terms.p99_ms, edge=True))
    plots = {
        "requests": chart(
            "1/s",
            [
                line("requests", say(N_("requests")), lambda point: point["requests_per_s"]),
                line("hits", say(N_("from the cache")), rate("cache_hits")),
                line("errors", say(N_("failed or lost")), rate("errors")),
                line("refused", say(N_("refused")), rate("refused")),
            ],
        ),
        "latency": chart("ms", latency, log=True),  # a warm-up lasts a thousand times as long as an answer
        "replicas": chart(
            "",
            [
                line("ready", say(N_("replicas ready")), lambda point: point["ready"]),
                line("wanted", say(N_("replicas wanted")), lambda point: point["wanted"]),
                line("demand", say(N_("demand, in replicas")), demand),
            ],
        ),
        "shares": chart(
            "%",
            [
                line("hits", say(N_("cache hits")), share("cache_hit_ratio")),
                line("errors", say(N_("errors")), share("error_ratio")),
            ],
            high=100,
        ),
    }  # fmt: skip
    if traffic["total"]["tokens_in"] or traffic["total"]["tokens_out"]:
        plots["tokens"] = chart(
            "1/s",
            [
                line("in", say(N_("tokens in")), rate("tokens_in")),
                line("out", say(N_("tokens out")), rate("tokens_out")),
            ],
        )
    return {
        "from": traffic["from_at"].timestamp(),
        "until": traffic["until_at"].timestamp(),
        "plots": plots,
        "markers": markers_of(detail["versions"], traffic["from_at"], language),
    }


def markers_of(versions: Sequence[Row], from_at: datetime, language: Language) -> list[list[Any]]:
    """When versions came, took over, or were taken back: [seconds, tone, words]."""
    happened: list[tuple[datetime, str, str]] = []
    for version in versions:
        number = version["version_no"]
        if version["made_at"] >= from_at:
            happened.append(
                (version["made_at"], "plain", language.say(N_("version %(number)s came"), number=number))
            )
        settled_at = version["settled_at"]
        if settled_at is None or settled_at < from_at:
            continue
        if version["state"] == "current":
            happened.append(
                (settled_at, "good", language.say(N_("version %(number)s took over"), number=number))
            )
        elif version["state"] == "rolled_back":
            happened.append(
                (settled_at, "warn", language.say(N_("version %(number)s was taken back"), number=number))
            )
    return [[at.timestamp(), tone, words] for at, tone, words in sorted(happened)]
