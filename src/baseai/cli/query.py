"""The commands that ask a platform what was measured, by whom, and who used it: telemetry query, collectors, use.

Invariant: what is unknown is shown as such, never as 0; a counter is shown by what it counted in each stretch.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baseai.cli.call import BAD_INPUT, Call, command, segment
from baseai.cli.column import ABSENT, Column, age, bytes_text, figure, instant_text, plain
from baseai.ground.clock import instant, now_utc
from baseai.ground.quantity import shown_s

if TYPE_CHECKING:
    from baseai.api.schemas import Reckoning

POINTS_SHOWN = 20  # of a table that a person reads
POINTS_TOLD = 300  # of a document

From = Annotated[
    str, typer.Option("--from", help="Since when: 2026-11-26T12:00:00Z, or how long ago, like 15m or 1d.")
]
Until = Annotated[str, typer.Option("--until", help="Up to when, in the same words.")]


def add_query(room: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""

    @command(room, "query", example="baseai telemetry query util_pct --by node --from 1h", environ=environ)
    def query(
        call: Call,
        field: Annotated[
            str, typer.Argument(metavar="FIELD", help="What was measured, like util_pct or power_w.")
        ],
        by: Annotated[
            str, typer.Option("--by", help="fleet, site, model, node or key (each thing by itself).")
        ] = "fleet",
        accel: Annotated[
            str | None, typer.Option("--accel", help="One accelerator, by its serial: its samples.")
        ] = None,
        run: Annotated[
            str | None, typer.Option("--run", help="One run: its accelerators while it had them.")
        ] = None,
        family: Annotated[str, typer.Option("--family", help="accelerator, node or port.")] = "accelerator",
        from_: From = "1h",
        until: Until = "now",
        points: Annotated[
            int | None, typer.Option("--points", help="At most so many points.", show_default=False)
        ] = None,
    ) -> int:
        """Ask what was measured, over the fleet, of one accelerator, or of one run."""
        if accel and run:
            call.screen.note("baseai: --accel and --run are two questions: ask one of them")
            return BAD_INPUT
        most = points or (POINTS_TOLD if call.screen.as_json else POINTS_SHOWN)
        when = {"from": from_, "until": until, "points": most}
        if run:
            answer = call.platform.get(f"/runs/{segment(run)}/telemetry", field=field, points=most)
        elif accel:
            answer = call.platform.get("/telemetry/range", family=family, key=accel, field=field, **when)
        else:
            answer = call.platform.get("/telemetry/aggregate", family=family, field=field, by=by, **when)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return 0
        told = json.loads(answer.text)
        if not (run or accel):
            _show_aggregate(call, told)
            return 0
        for series in told["items"] if run else [told]:
            if run:
                call.screen.say(f"{plain(series['serial'])} on {plain(series['node_id'])}")
            _show_series(call, series, field)
        if run and not told["items"]:
            call.screen.note("the run had no accelerator yet")
        return 0

    @command(room, "collectors", example="baseai telemetry collectors gpu-07", environ=environ)
    def collectors(
        call: Call,
        node: Annotated[
            str | None,
            typer.Argument(metavar="[NODE]", help="Of one node, by name or id.", show_default=False),
        ] = None,
    ) -> None:
        """Show who measures, how each fares, and which device and field gave it trouble."""
        answer = call.platform.get("/telemetry/collectors", **({"node": node} if node else {}))
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        items = json.loads(answer.text)["items"]
        if not items:
            call.screen.note("no node has told of its collectors yet")
            return
        now = now_utc()
        call.screen.table(
            [
                Column(head="NODE"),
                Column(head="COLLECTOR"),
                Column(head="STATE"),
                Column(head="EVERY", right=True),
                Column(head="LAST OK", right=True),
                Column(head="TOOK", right=True),
                Column(head="FAILURES", right=True),
                Column(head="WHY"),
            ],
            [
                (
                    one["node"],
                    one["name"],
                    one["state"],
                    shown_s(one["interval_s"]) if one["interval_s"] else ABSENT,
                    age(instant(one["last_ok_at"]), now) if one["last_ok_at"] else ABSENT,
                    ABSENT if one["took_ms"] is None else f"{figure(one['took_ms'])} ms",
                    str(one["failures"]),
                    one["sentence"] or "",
                )
                for one in items
            ],
        )
        for one in items:
            for trouble in one["troubles"]:
                call.screen.say(f"{plain(one['node'])} {plain(one['name'])}: {plain(trouble)}")

    @command(room, "use", example="baseai telemetry use --by tenant --from 7d", environ=environ)
    def use(
        call: Call,
        by: Annotated[str, typer.Option("--by", help="run, tenant, round, node or accelerator.")] = "run",
        subject: Annotated[str | None, typer.Option("--of", help="One of them, by its id.")] = None,
        from_: From = "1d",
        until: Until = "now",
    ) -> None:
        """Show who used accelerators: time, utilisation, memory, energy, throttling."""
        from baseai.api.schemas import Reckoning, UseView

        asked = {"by": by, "from": from_, "until": until} | ({"subject": subject} if subject else {})
        answer = call.platform.get("/telemetry/use", **asked)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        told = json.loads(answer.text)
        views = [UseView.model_validate(item) for item in told["items"]]
        if not views:
            call.screen.note("nobody used an accelerator in that time")
            return
        call.screen.table(
            [
                Column(head=by.upper()),
                Column(head="HELD", right=True),
                Column(head="SEEN %", right=True),
                Column(head="UTIL %", right=True),
                Column(head="MEMORY", right=True),
                Column(head="WH", right=True),
                Column(head="ENERGY"),
                Column(head="THROTTLED", right=True),
                Column(head="UNTIL"),
            ],
            [
                (
                    one.label or "(nobody)",
                    shown_s(one.accelerator_s),
                    figure(100 * one.seen_s / one.accelerator_s) if one.accelerator_s else ABSENT,
                    _shown(one.util_pct),
                    ABSENT if one.mem_used_max_b is None else bytes_text(one.mem_used_max_b),
                    _shown(one.energy_wh),
                    one.energy_origin or "unknown",
                    ABSENT if one.throttled_s is None else shown_s(one.throttled_s),
                    f"{instant_text(one.until_at)}{' (open)' if one.open else ''}",
                )
                for one in views
            ],
        )
        for sentence in dict.fromkeys(one.missing for one in views if one.missing):
            call.screen.note(f"not all of it: {sentence}")
        if told.get("reckoning"):
            call.screen.note(_reckoned(Reckoning.model_validate(told["reckoning"])))


def _reckoned(said: "Reckoning") -> str:
    if said.astray or said.apart:
        return (
            f"of {said.hours:,} closed hours, {said.astray:,} do not add up to the counter and {said.apart:,} are not"
            f" what the store sums: {', '.join(plain(serial) for serial in said.serials)}"
        )
    if not said.hours:
        return "no hour is closed yet"
    return (
        f"{said.hours:,} closed hours add up to the accelerators' counters; the store's own sums say so of"
        f" {said.checked:,}"
    )


def _show_aggregate(call: Call, told: Mapping[str, Any]) -> None:
    counted = any(value is not None for line in told["groups"] for value in line["delta"])
    heads = ("delta",) if counted else ("mean", "low", "high")
    unit = f" {told['unit']}" if told["unit"] else ""
    call.screen.table(
        [
            Column(head=told["by"].upper()),
            Column(head="FROM"),
            *(Column(head=f"{head.upper()}{unit}", right=True) for head in heads),
            Column(head="SAMPLES", right=True),
        ],
        [
            (
                line["group"],
                _at(at),
                *(_shown(line[head][place]) for head in heads),
                str(line["count"][place]),
            )
            for line in told["groups"]
            for place, at in enumerate(told["ts_ms"])
            if line["count"][place]
        ],
    )
    if told["groups"]:
        call.screen.note(f"each line is {shown_s(told['step_s'])}, from the tier {told['tier']}")
    else:
        call.screen.note("nothing is known of that in that time")


def _show_series(call: Call, series: Mapping[str, Any], field: str) -> None:
    for name, column in series["fields"].items() or [(field, {"values": []})]:
        values: Sequence[float | None] = column["values"]
        call.screen.table(
            [
                Column(head="AT"),
                Column(head=f"{name} {column.get('unit', '')}".strip().upper(), right=True),
                Column(head="STATE"),
                Column(head="ORIGIN"),
            ],
            [
                (
                    _at(at),
                    _shown(value),
                    column["states"][place],
                    column["origins"][place] if value is not None else "",
                )
                for place, (at, value) in enumerate(zip(series["ts_ms"], values, strict=True))
            ],
        )
        if not values:
            call.screen.note("no sample of it in that time")


def _at(ts_ms: int) -> str:
    return instant_text(datetime.fromtimestamp(ts_ms / 1000, UTC))


def _shown(value: float | None) -> str:
    return ABSENT if value is None else figure(value)
