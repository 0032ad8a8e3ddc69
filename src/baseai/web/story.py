"""A story is what a page tells, worked out from rows: a run's curve, figures and money, the fleet.

Invariant: nothing is measured or invented here; what is not known stays None and is shown as a dash. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from baseai.fleet.node import SILENT_AFTER_S
from baseai.web.chart import Point, Words, loss_chart
from baseai.web.language import Language
from baseai.workloads.run import ENDED

Row = Mapping[str, Any]
TABLE_ROWS_MAX = 24  # of the curve in words; the picture has them all
LIVE_ENDS = frozenset(state.value for state in ENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The loss of a run over its steps, as a picture and as a table."""

    svg: str
    rows: Sequence[Row]  # of the table, thinned
    first: Row
    last: Row
    lowest: float


def curve_of(
    points: Sequence[Row],
    events: Sequence[Row],
    checkpoints: Sequence[Row],
    progress: Row,
    language: Language,
) -> Curve | None:
    """None while there is no loss to show."""
    seen = sorted((point for point in points if point["loss"] is not None), key=lambda point: point["step"])
    if not seen:
        return None
    restarts = restart_steps(points, events)
    lowest = min(point["loss"] for point in seen)
    facts = {
        "first": language.exact(seen[0]["loss"], 3),
        "last": language.exact(seen[-1]["loss"], 3),
        "steps": language.number(seen[-1]["step"]),
        "restarts": language.number(len(restarts)),
    }
    words = Words(
        title=language.say("Training loss by step"),
        description=language.say(
            "The loss went from %(first)s to %(last)s over %(steps)s steps; restarts: %(restarts)s.",
            **facts,
        ),
        x_axis=language.say("step"),
        y_axis=language.say("loss (nats per token)"),
        restart=language.say("restart"),
        checkpoint=language.say("checkpoint"),
        number=lambda value: language.number(value, 3),
    )
    svg = loss_chart(
        [Point(step=point["step"], value=point["loss"]) for point in seen],
        words=words,
        restarts=restarts,
        checkpoints=[checkpoint["step"] for checkpoint in checkpoints],
        steps_total=progress.get("steps_total"),
    )
    return Curve(svg=svg, rows=thinned(seen, TABLE_ROWS_MAX), first=seen[0], last=seen[-1], lowest=lowest)


def restart_steps(points: Sequence[Row], events: Sequence[Row]) -> tuple[int, ...]:
    """The step each recovery began at: the last one measured before it."""
    lost_at = [event["at"] for event in events if event.get("to_state") == "recovering"]
    found = []
    for at in lost_at:
        before = [point["step"] for point in points if point["at"] <= at]
        found.append(max(before, default=0))
    return tuple(sorted(set(found)))


def thinned(rows: Sequence[Row], most: int) -> Sequence[Row]:
    """At most `most` of the rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return rows
    places = [round(number * (len(rows) - 1) / (most - 1)) for number in range(most)]
    assert all(before < after for before, after in pairwise(places))
    return [rows[place] for place in places]


def done_ratio(run: Row) -> float | None:
    """The part of its steps a run has done; None where it counts none."""
    progress = run["progress"] or {}
    step, total = progress.get("step"), progress.get("steps_total")
    if step is None or not total:
        return None
    return min(1.0, float(step) / float(total))


def lasted_s(run: Row, now: datetime) -> float | None:
    """How long it has been running, or ran, from its first start."""
    started: datetime | None = run["started_at"]
    ended: datetime = run["ended_at"] or now
    return None if started is None else max(0.0, (ended - started).total_seconds())


def remaining_s(run: Row, points: Sequence[Row]) -> float | None:
    """How long the steps that remain take at the pace of the last ten points; None where it is not known."""
    progress = run["progress"] or {}
    total, step = progress.get("steps_total"), progress.get("step")
    paces = [point["step_ms"] for point in points[-10:] if point["step_ms"]]
    if run["state"] != "running" or not total or step is None or not paces:
        return None
    left_s: float = max(0.0, (total - step) * sorted(paces)[len(paces) // 2] / 1000)
    return left_s


def silent_s(node: Row, now: datetime) -> float | None:
    """For how long a node has said nothing; None while it speaks."""
    seen: datetime | None = node["seen_at"]
    if node["reachable"] or seen is None:
        return None
    return max(SILENT_AFTER_S, (now - seen).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSum:
    """How many accelerators of one model the fleet has, and how many are free on nodes that speak."""

    model: str
    total: int
    free: int


def models_of(nodes: Sequence[Row]) -> tuple[ModelSum, ...]:
    totals: dict[str, list[int]] = {}
    for node in nodes:
        for model, total in node["models"].items():
            sums = totals.setdefault(model, [0, 0])
            sums[0] += total
            usable = node["reachable"] and node["state"] == "ready"
            sums[1] += node["free"].get(model, 0) if usable else 0
    return tuple(
        ModelSum(model=model, total=total, free=free) for model, (total, free) in sorted(totals.items())
    )


def money_by(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    """Cost rows by their subject; a subject has one row per currency."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["subject"], []).append(row)
    return found


def sums_of(rows: Sequence[Row]) -> Sequence[Row]:
    """Hours and money over all rows, one row per currency: amounts of two currencies are never added."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        sums = found.setdefault(
            row["currency"],
            {"currency": row["currency"], "accruing": False}
            | dict.fromkeys(("accelerator_hours", "revenue", "cost", "contribution"), Decimal(0)),
        )
        for name in ("accelerator_hours", "revenue", "cost", "contribution"):
            sums[name] += row[name]
        sums["accruing"] |= row["accruing"]
    return [found[currency] for currency in sorted(found)]


def without_tenants(balances: Sequence[Row]) -> Sequence[Row]:
    """Balances with those of all tenants as one line for each kind of account and currency."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in balances:
        kind, _, rest = row["account"].partition(":")
        account = f"tenant:…:{rest.partition(':')[2]}" if kind == "tenant" else row["account"]
        sums = found.setdefault(
            (account, row["currency"]),
            {"account": account, "currency": row["currency"]}
            | dict.fromkeys(("debits", "credits", "balance"), Decimal(0)),
        )
        for name in ("debits", "credits", "balance"):
            sums[name] += row[name]
    return list(found.values())
