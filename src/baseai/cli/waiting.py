"""What waits, and why, on a terminal: `waiting` lists the queue, `explain` says all that is known of one run.

Invariant: it is the record that the API gives, no more and no less; instants are local time here, with their zone, and
UTC in --json.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command, segment
from baseai.cli.column import Column, age, fact_lines, plain, table_lines
from baseai.ground.clock import now_utc
from baseai.ground.quantity import shown_s

if TYPE_CHECKING:
    from baseai.api.schemas import AccuracyView, QueueView, RoomView, RunView, StartEstimateView

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name or id of the run.", show_default=False)]


def add_waiting(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""

    @command(app, "waiting", example="baseai waiting", environ=environ)
    def waiting(
        call: Call,
        limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 100,
        cursor: Annotated[
            str | None, typer.Option("--cursor", help="Where the page before ended.", show_default=False)
        ] = None,
    ) -> None:
        """List who waits, in order: place, when it will probably start, why it does not yet.

        An interval is meant to hold four times of five; below stands how often those before did. Local time.
        """
        from baseai.api.schemas import QueueView

        answer = call.platform.get("/queue", limit=limit, cursor=cursor)
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        view = answer.read(QueueView)
        call.screen.say(*queue_lines(view, now_utc(), width=call.screen.width))
        if view.next:
            call.screen.note(f"there is more: --cursor {shlex.quote(view.next)}")

    @command(app, "explain", example="baseai explain train-gpt", environ=environ)
    def explain(call: Call, run: RunName) -> None:
        """Say why a run waits and when it will start, or why it started where it did."""
        from baseai.api.schemas import RunDetail

        view = call.platform.get(f"/runs/{segment(run)}").read(RunDetail).run
        if call.screen.as_json:
            record = view.model_dump(mode="json", include={"run_id", "name", "state", "wait", "why"})
            call.screen.document(json.dumps(record, ensure_ascii=False))
            return
        call.screen.say(*explain_lines(view, now_utc()))


# ---- one run


def explain_lines(run: "RunView", now: datetime, zone: tzinfo | None = None) -> list[str]:
    """All that is known of why it waits or why it is where it is. zone: of the reader; None is this machine's."""
    head = f"{plain(run.name)} ({run.run_id}): {run.state}"
    if run.state == "queued":
        if run.wait is None:
            return [f"{head}; the next cycle of the scheduler looks at it"]
        return [head, *wait_lines(run, now, zone)]
    if run.why is None:
        return [f"{head}; why it started where it did is not on record"]
    return [head, *why_lines(run)]


def wait_lines(run: "RunView", now: datetime, zone: tzinfo | None = None) -> list[str]:
    """The record of its wait, most wanted first."""
    wait = run.wait
    if wait is None:
        return []
    failing = ", ".join(f"{count} by {constraint}" for constraint, count in wait.failing.items() if count)
    owners = ", ".join(f"{owner.runs} of {owner.tenant}" for owner in wait.owners_ahead)
    if wait.own_ahead is not None:
        owners = f"{wait.own_ahead} own, {wait.others_ahead} of others" if wait.ahead else ""
    behind = wait.behind and f"{wait.behind.kind} {wait.behind.name or 'of another tenant'}"
    fitting = f"{wait.fitting} of {wait.needed} needed" if wait.needed is not None else ""
    return fact_lines(
        [
            ("waits", wait.sentence),
            ("position", f"{wait.position}, {wait.ahead} ahead"),
            ("ahead of it", owners),
            ("held up by", behind or ""),
            ("nodes that fit", fitting),
            ("nodes ruled out", failing),
            ("would start now", f"with {wait.change.sentence}" if wait.change else ""),
            *(estimate_facts(wait.estimate, now, zone) if wait.estimate else ()),
            ("not before", local_text(wait.earliest_at, now, zone)),
            ("at the latest", f"{local_text(wait.latest_at, now, zone)}, if no node is lost" if wait.latest_at else ""),
        ]
    )  # fmt: skip


def estimate_facts(
    estimate: "StartEstimateView", now: datetime, zone: tzinfo | None = None
) -> list[tuple[str, str]]:
    likely = local_text(estimate.likely_at, now, zone)
    here = f"{estimate.likely_at.astimezone(zone):%Z}"
    return [
        ("starts between", f"{_between(estimate, now, zone)} {here}, most likely {likely}"),
        ("which held", _held_text(estimate.held_ratio, estimate.outcomes)),
    ]


def why_lines(run: "RunView") -> list[str]:
    """The record of its placement."""
    why = run.why
    if why is None:
        return []
    return fact_lines(
        [
            ("placed", why.sentence),
            ("nodes that fit", str(why.fitting)),
            ("next best", why.next_best or ""),
            ("leaves", f"{why.leaves}, at least {why.leaves_fewest}" if why.leaves is not None else ""),
            ("by policy", why.policy),
        ]
    )


def starts_text(run: "RunView", now: datetime, zone: tzinfo | None = None) -> str:
    """Place and interval in one cell: `no. 3, 14:10 to 16:40`."""
    if run.wait is None:
        return ""
    estimate = run.wait.estimate
    return f"no. {run.wait.position}" + (f", {_between(estimate, now, zone)}" if estimate else "")


# ---- the queue


def queue_lines(
    view: "QueueView", now: datetime, *, zone: tzinfo | None = None, width: int | None = None
) -> list[str]:
    below = [*_room_lines(view.models), *_accuracy_lines(view.accuracy)]
    if not view.items:
        return ["nothing waits", *below]
    columns = [
        Column(head=head, right=head in ("NO.", "FOR"))
        for head in ("NO.", "NAME", "PROJECT", "GPU", "FOR", f"STARTS {now.astimezone(zone):%Z}", "WHY")
    ]
    rows = [
        (
            str(run.wait.position) if run.wait else "",
            run.name,
            f"{run.tenant}/{run.project}",
            f"{run.nodes} x {run.gpu}" if run.nodes > 1 else run.gpu,
            age(run.submitted_at, now),
            _between(run.wait.estimate, now, zone) if run.wait and run.wait.estimate else "",
            run.wait.sentence if run.wait else "it has just arrived",
        )
        for run in view.items
    ]
    return [
        *table_lines(columns, rows, width=width),
        "",
        f"{view.waiting} {'waits' if view.waiting == 1 else 'wait'}",
        *below,
    ]


def _room_lines(models: "Iterable[RoomView]") -> list[str]:
    free = ", ".join(f"{one.free} of {one.total} {one.model}" for one in models)
    return [f"free: {free}"] if free else []


def _accuracy_lines(accuracy: "Sequence[AccuracyView]") -> list[str]:
    lines = []
    for one in accuracy:
        models = " or ".join(map(plain, one.models)) or "any model"
        error = f"; median error {shown_s(one.median_error_s)}" if one.median_error_s is not None else ""
        simulated = " [simulated]" if one.simulated else ""
        lines.append(f"estimates for {models}: {_held_text(one.held_ratio, one.outcomes)}{error}{simulated}")
    return lines


def _held_text(held_ratio: float | None, outcomes: int) -> str:
    if held_ratio is None:
        return "not tested yet"
    return f"{held_ratio:.0%} of {outcomes} intervals held"


def _between(estimate: "StartEstimateView", now: datetime, zone: tzinfo | None) -> str:
    earliest, latest = (at.astimezone(zone) for at in (estimate.earliest_at, estimate.latest_at))
    short = f"{latest:%H:%M}" if earliest.date() == latest.date() else local_text(latest, now, zone)
    return f"{local_text(earliest, now, zone)} to {short}"


def local_text(at: datetime | None, now: datetime, zone: tzinfo | None = None) -> str:
    """An instant in the reader's time: `14:10` today, `11-28 14:10` on another day, with its year in another one."""
    if at is None:
        return ""
    local, today = at.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"
