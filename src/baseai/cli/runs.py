"""The commands around runs: apply, ps, show, logs, stop, events.

Invariant: what cannot be undone is never asked about and never guessed: apply creates what the spec says or nothing.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from baseai.cli.call import OTHERWISE, Call, command, listed, segment
from baseai.cli.column import (
    Column,
    age,
    bytes_text,
    fact_lines,
    figure,
    instant_text,
    money_column,
    plain,
    table_lines,
)
from baseai.cli.http import Declined
from baseai.cli.price import listed_price
from baseai.cli.serving import SERVICE, served, would_serve
from baseai.cli.waiting import starts_text, wait_lines, why_lines
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    from baseai.api.schemas import (
        CheckpointView,
        CostView,
        EventView,
        FileRef,
        LeaseView,
        NodeView,
        PreemptionView,
        RunDetail,
        RunView,
    )
    from baseai.cli.attachment import Attachment
    from baseai.cli.follow import LogPiece

WATCH_EVERY_S = 2.0

Table = tuple[Sequence[Column], Sequence[Sequence[str]]]

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name or id of the run.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", help="Where the page before ended.", show_default=False)
]


def add_runs(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""

    @command(app, "apply", example="baseai apply -f examples/train-gpt.yaml --follow", environ=environ)
    def apply(
        call: Call,
        file: Annotated[
            Path, typer.Option("-f", "--file", help="The spec, YAML; - reads it from standard input.")
        ],
        name: Annotated[str | None, typer.Option("--name", help="Another name for the run.")] = None,
        project: Annotated[str | None, typer.Option("--project", help="The project it belongs to.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show; create nothing.")] = False,
        follow: Annotated[bool, typer.Option("-F", "--follow", help="Stay until the run has ended.")] = False,
    ) -> int:
        """Create a run or a service from a spec. Its files are uploaded once, by digest.

        A spec of a service that is there already rolls a new version of it out; the same spec again changes nothing.
        With --follow a run is watched until it ends, a service until it serves.
        """
        return _apply(call, file, name=name, project=project, dry_run=dry_run, follow=follow)

    @command(app, "ps", example="baseai ps --watch", environ=environ)
    def ps(
        call: Call,
        everything: Annotated[bool, typer.Option("-a", "--all", help="Ended runs too.")] = False,
        state: Annotated[str | None, typer.Option("--state", help="Runs in this state only.")] = None,
        watch: Annotated[
            bool, typer.Option("-w", "--watch", help="Show it anew every 2 s until Ctrl-C.")
        ] = False,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> None:
        """List runs with state, place, progress and cost so far. A replica's KIND names its service and version.

        Of those that wait: their place in the queue and when they will probably start, in local time.

        The cost is what the tenant is charged; ~ marks an estimate that is not posted yet.
        """
        if watch and call.screen.as_json:
            raise Refused("--watch draws for people; call `baseai ps --json` again instead")
        query = {
            "state": state,
            "all": True if everything or state else None,
            "limit": limit,
            "cursor": cursor,
        }
        if watch:
            _watch(call, query)
            return
        runs = _listed_runs(call, query)
        if runs is not None:
            lines = _ps_lines(call, runs)
            call.screen.say(*(table_lines(*lines, width=call.screen.width)))
            if not runs:
                call.screen.note(
                    "no runs" if everything or state else "no runs under way; --all shows those that ended"
                )

    @command(app, "show", example="baseai show train-gpt", environ=environ)
    def show(call: Call, run: RunName) -> None:
        """Show one run.

        State, why it waits, money, leases, checkpoints and events.
        """
        from baseai.api.schemas import RunDetail

        answer = call.platform.get(f"/runs/{segment(run)}")
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        detail = answer.read(RunDetail)
        call.screen.say(*detail_lines(detail, now_utc(), page_url=call.platform.page_url(detail.run.run_id)))

    @command(app, "logs", example="baseai logs -f train-gpt", environ=environ)
    def logs(
        call: Call,
        run: RunName,
        follow: Annotated[
            bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")
        ] = False,
        rank: Annotated[int, typer.Option("--rank", min=0, help="Which node of the run.")] = 0,
        attempt: Annotated[
            int | None, typer.Option("--attempt", min=1, help="Which attempt; the latest without it.")
        ] = None,
    ) -> None:
        """Print what a run writes. With --json, one object for each piece of the log."""
        _logs(call, run, follow=follow, rank=rank, attempt=attempt)

    @command(app, "stop", example="baseai stop train-gpt --reason 'wrong data'", environ=environ)
    def stop(
        call: Call,
        run: RunName,
        reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
    ) -> None:
        """Stop a run. It may save a last checkpoint first."""
        from baseai.api.schemas import RunView

        answer = call.platform.post(f"/runs/{segment(run)}/stop", {"reason": reason} if reason else {})
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        view = answer.read(RunView)
        call.screen.say(f"{plain(view.name)} is {view.state}")

    @command(app, "events", example="baseai events train-gpt", environ=environ)
    def events(
        call: Call,
        subject: Annotated[
            str | None,
            typer.Argument(metavar="SUBJECT", help="A run, by name or id, or the id of another thing."),
        ] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> None:
        """List what happened: when, to what, why, by whom."""
        from baseai.api.schemas import EventView

        if subject and not re.match(r"^[a-z]+_[0-9a-z]{20}$", subject):
            subject = call.run_id(subject)
        found = listed(call, "/events", EventView, subject=subject, limit=limit, cursor=cursor)
        if found is not None:
            call.screen.say(*event_lines(found, with_subject=True, width=call.screen.width))


# ---- apply ----------------------------------------------------------------------------------------------------


def _apply(
    call: Call, file: Path, *, name: str | None, project: str | None, dry_run: bool, follow: bool
) -> int:
    from baseai.api.schemas import RunView, Submit
    from baseai.cli.attachment import attachments, kind_of, named, reference

    text, shown_name, folder = _spec(file)
    if name is not None:
        text = named(text, name)
    found = attachments(text, file=shown_name, folder=folder)
    references = [reference(one) for one in found]
    submit = Submit(spec=text, file=shown_name, files=references, project=project).model_dump(mode="json")
    screen, platform = call.screen, call.platform
    path = "/services" if kind_of(text) == SERVICE else "/runs"
    if dry_run:
        answer = platform.send("POST", path, query={"dry_run": True}, document=submit)
        if screen.as_json:
            screen.document(answer.text)
            return 0
        if path == "/services":
            return would_serve(call, answer, _files_text(references))
        view = answer.read(RunView)
        screen.say(f"{plain(view.name)} would be created; nothing was")
        screen.facts(_created_facts(call, view, references))
        return 0
    sources = dict(zip([one.digest for one in references], found, strict=True))
    missing = {digest: one for digest, one in sources.items() if not platform.has(f"/files/{digest}")}
    if missing:  # a wrong spec is refused before anything is sent for it
        platform.send("POST", path, query={"dry_run": True}, document=submit)
        _upload(call, missing)
    # The key is made once and sent with every try: a repeated request cannot make a second run.
    answer = platform.send("POST", path, document=submit, idempotency_key=uuid4().hex)
    if path == "/services":
        return served(call, answer, _files_text(references), follow=follow)
    view = answer.read(RunView)
    if screen.as_json and not follow:
        screen.document(answer.text)
        return 0
    if not screen.as_json:
        screen.say(f"{plain(view.name)} was created ({view.run_id})")
        page = ("page", platform.page_url(view.run_id))
        screen.facts([*_created_facts(call, view, references), page])
        if view.state == "queued" and view.wait is not None:
            screen.say(*wait_lines(view, now_utc()))
    if not follow:
        return 0
    return _followed(call, view)


def _followed(call: Call, view: "RunView") -> int:
    from baseai.api.schemas import RunDetail
    from baseai.cli.follow import follow_run, patiently

    screen, platform = call.screen, call.platform
    try:
        last = follow_run(platform, view.run_id, screen.console())
    except KeyboardInterrupt:
        screen.note(f"the run goes on; `baseai stop {plain(view.name)}` ends it")
        raise
    answer = patiently(
        lambda: platform.get(f"/runs/{segment(view.run_id)}"), note=screen.note, sleep=platform.sleep
    )
    if screen.as_json:
        screen.document(answer.text)
    else:
        detail = answer.read(RunDetail)
        screen.facts([*_result_facts(detail.run), *_money_facts(detail.money)])
    return 0 if last.state == "succeeded" else OTHERWISE


def _spec(file: Path) -> tuple[str, str, Path]:
    """Text, name for messages, and the folder that relative paths count from."""
    from baseai.cli.attachment import SPEC_BYTES_MAX

    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except FileNotFoundError as wrong:
        raise Refused(f"there is no file {file}") from wrong
    except OSError as wrong:
        raise Refused(f"{file} cannot be read: {wrong.strerror}") from wrong
    if len(content) > SPEC_BYTES_MAX:
        raise Refused(
            f"{file} has {bytes_text(len(content))}; a spec has at most {bytes_text(SPEC_BYTES_MAX)}"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = content[: wrong.start].count(b"\n") + 1
        raise Refused(f"{file}:{line} is not UTF-8 text; save it as UTF-8") from wrong
    return (text, "<stdin>", Path.cwd()) if str(file) == "-" else (text, str(file), file.resolve().parent)


def _upload(call: Call, missing: "Mapping[str, Attachment]") -> None:
    """Bring to the platform what it does not have yet: digest → where it lies here."""
    from baseai.cli.attachment import content

    total = sum(one.bytes for one in missing.values())
    files = "1 file" if len(missing) == 1 else f"{len(missing):,} files"
    note = f"uploading {files}, {bytes_text(total)}"
    if not call.screen.live:
        call.screen.note(note)
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=call.screen.console(),
        disable=not call.screen.live,
        transient=True,
    )
    with bar:
        task = bar.add_task(note, total=total)
        for digest, one in missing.items():
            call.platform.send(
                "PUT",
                f"/files/{digest}",
                content=content(one.source, lambda sent: bar.advance(task, sent)),
                content_bytes=one.bytes,
            )


def _asked_text(run: "RunView") -> str:
    return plain(run.gpu) + (f" on each of {run.nodes} nodes" if run.nodes > 1 else "")


def _files_text(files: "Sequence[FileRef]") -> str:
    return f"{len(files):,} ({bytes_text(sum(one.bytes for one in files))})" if files else ""


def _created_facts(call: Call, run: "RunView", files: "Sequence[FileRef]") -> list[tuple[str, str]]:
    """What was asked for and what an hour of it costs."""
    return [
        ("kind", run.kind),
        ("asks for", _asked_text(run)),
        ("files", _files_text(files)),
        ("price", listed_price(call, run)),
    ]


# ---- ps -------------------------------------------------------------------------------------------------------


def _listed_runs(call: Call, query: Mapping[str, Any]) -> "list[RunView] | None":
    from baseai.api.schemas import RunView

    return listed(call, "/runs", RunView, **query)


def _ps_lines(call: Call, runs: "Sequence[RunView]") -> Table:
    """The table of ps. Money and places are joined in where the key may see them."""
    from baseai.api.schemas import CostView, NodeView

    costs: Iterable[CostView] = ()
    nodes: Iterable[NodeView] = ()
    if runs:
        try:
            costs, _ = call.platform.get("/cost", by="run").items(CostView)
        except Declined:
            pass
        try:
            nodes, _ = call.platform.get("/nodes").items(NodeView)
        except Declined:
            pass
    return run_columns(runs, costs, nodes, now_utc())


def run_columns(
    runs: "Sequence[RunView]", costs: "Iterable[CostView]", nodes: "Iterable[NodeView]", now: datetime
) -> Table:
    """One row a run. The cost is what the tenant is charged so far; ~ marks an estimate."""
    cost_of = {cost.subject: cost for cost in costs}
    places: dict[str, list[str]] = {}
    for node in nodes:
        for placed in node.runs:
            places.setdefault(placed, []).append(node.name)
    charged = [cost_of.get(run.run_id) or cost_of.get(run.name) for run in runs]
    amounts = money_column([cost.revenue if cost else None for cost in charged])
    columns = (
        Column(head="NAME"),
        Column(head="KIND"),
        Column(head="STATE"),
        Column(head="GPU"),
        Column(head="NODES"),
        Column(head="PROGRESS"),
        Column(head="AGE", right=True),
        Column(head=f"COST {charged[0].currency}" if charged and charged[0] else "COST", right=True),
        Column(head="WHY"),
    )
    rows: list[Sequence[str]] = []
    for run, cost, amount in zip(runs, charged, amounts, strict=True):
        # A node tells names, and a name may be that of several runs of which one is there.
        there = run.state != "queued" and run.ended_at is None
        where = (places.get(run.run_id) or places.get(run.name) or []) if there else []
        waits = run.wait is not None and run.state == "queued"
        why = run.wait.sentence if run.wait and waits else run.sentence or run.reason or ""
        if waits and run.reason == "preempted":
            why = f"{run.sentence or 'made room for another run'}; {why}"
        rows.append(
            (
                run.name,
                f"{run.kind} {run.service} v{run.version_no}" if run.service else run.kind,
                run.state,
                run.gpu,
                ",".join(where) if where else (f"({run.nodes})" if run.nodes > 1 else ""),
                starts_text(run, now) if waits else _progress_cell(run),
                age(run.submitted_at, run.ended_at or now),
                f"~{amount}" if cost and cost.accruing else amount,
                why,
            )
        )
    return columns, rows


def _progress_cell(run: "RunView") -> str:
    step, total, loss = (run.progress.get(key) for key in ("step", "steps_total", "loss"))
    if step is None:
        return ""
    where = f"{step}/{total}" if total else str(step)
    return f"{where} loss {figure(loss)}" if figure(loss) else where


def _watch(call: Call, query: Mapping[str, Any]) -> None:
    """Draw the table anew every two seconds; off a terminal print it when it has changed."""
    from baseai.cli.follow import patiently

    before: list[str] = []
    drawn = 0
    try:
        while True:
            runs = (
                patiently(lambda: _listed_runs(call, query), note=call.screen.note, sleep=call.platform.sleep)
                or []
            )
            lines = table_lines(*_ps_lines(call, runs), width=call.screen.width)
            if call.screen.live:
                if drawn:
                    call.screen.out.write(f"\x1b[{drawn}A\x1b[J")
                call.screen.say(*lines)
                drawn = len(lines)
            elif lines != before:
                call.screen.say(*lines)
                before = lines
            call.platform.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


# ---- show -----------------------------------------------------------------------------------------------------


def detail_lines(detail: "RunDetail", now: datetime, *, page_url: str) -> list[str]:
    """All that is known of a run, most wanted first."""
    run = detail.run
    lines = fact_lines(
        [
            ("run", f"{run.name} ({run.run_id})" + (" [simulated]" if run.simulated else "")),
            ("kind", run.kind),
            ("replica of", f"{run.service}, version {run.version_no}" if run.service else ""),
            ("state", run.state + (f" ({run.reason})" if run.reason else "")),
            ("why", run.sentence or ""),
            ("project", f"{run.tenant}/{run.project}"),
            ("asks for", _asked_text(run)),
            ("priority", str(run.priority)),
            ("submitted", f"{instant_text(run.submitted_at)}, {age(run.submitted_at, now)} ago"),
            ("started", instant_text(run.started_at)),
            ("ended", instant_text(run.ended_at)),
            ("attempt", f"{run.attempt_no}, {run.restarts} restarts" if run.attempt_no else ""),
            ("progress", _long_progress(run)),
            ("page", page_url),
            *_result_facts(run),
            *_money_facts(detail.money),
        ]
    )
    if run.state == "queued" and run.wait is not None:
        lines += ["", *wait_lines(run, now)]
    if run.why is not None:
        lines += ["", *why_lines(run)]
    if detail.leases:
        lines += ["", *table_lines(*_lease_table(detail.leases))]
    if detail.checkpoints:
        lines += ["", *table_lines(*_checkpoint_table(detail.checkpoints))]
    if detail.preemptions:
        lines += ["", *table_lines(*_preemption_table(detail.preemptions))]
    if detail.events:
        lines += ["", *event_lines(detail.events, with_subject=False)]
    return lines


def _lease_table(leases: "Sequence[LeaseView]") -> Table:
    heads = ("LEASE", "ATTEMPT", "NODE", "STATE", "MODEL", "ACCELERATORS", "GRANTED", "RELEASED OR ENDS")
    rows = [
        (
            lease.lease_id,
            str(lease.attempt_no),
            lease.node,
            lease.state,
            lease.model,
            ",".join(lease.accelerators),
            instant_text(lease.granted_at),
            instant_text(lease.released_at or lease.ends_at),
        )
        for lease in leases
    ]
    return [Column(head=head, right=head == "ATTEMPT") for head in heads], rows


def _checkpoint_table(checkpoints: "Sequence[CheckpointView]") -> Table:
    heads = ("CHECKPOINT AT STEP", "ATTEMPT", "SIZE", "SAVED IN S", "STALL MS", "COMMITTED", "PATH")
    rows = [
        (
            str(one.step),
            str(one.attempt_no),
            bytes_text(one.bytes),
            figure(one.save_s, digits=3),
            figure(one.stall_ms, digits=3),
            instant_text(one.committed_at),
            one.path,
        )
        for one in checkpoints
    ]
    return [Column(head=head, right=head not in ("COMMITTED", "PATH")) for head in heads], rows


def _preemption_table(preemptions: "Sequence[PreemptionView]") -> Table:
    heads = ("MADE ROOM AT", "ATTEMPT", "FOR", "ACCELERATOR-S LOST", "SAVED AT STEP", "WENT ON AT STEP")
    rows = [
        (
            instant_text(each.asked_at),
            str(each.attempt_no),
            each.for_run or ("a reservation" if each.for_kind == "reservation" else "another tenant's run"),
            figure(each.lost_accelerator_s, digits=3) if each.stopped_at else "it saves",
            "" if each.saved_step is None else str(each.saved_step),
            "" if each.resumed_step is None else str(each.resumed_step),
        )
        for each in preemptions
    ]
    return [Column(head=head, right=head not in ("MADE ROOM AT", "FOR")) for head in heads], rows


def event_lines(events: "Sequence[EventView]", *, with_subject: bool, width: int | None = None) -> list[str]:
    columns = [Column(head=head) for head in ("AT", "SUBJECT", "EVENT", "MOVE", "REASON", "BY", "SENTENCE")]
    rows = []
    for event in events:
        move = f"{event.from_state or ''} → {event.to_state}".strip() if event.to_state else ""
        rows.append(
            [
                instant_text(event.at),
                event.subject,
                event.event,
                move,
                event.reason or "",
                event.actor,
                event.sentence or "",
            ]
        )
    if not with_subject:
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    return table_lines(columns, rows, width=width)


def _long_progress(run: "RunView") -> str:
    from baseai.cli.follow import progress_text

    return progress_text(run)


def _result_facts(run: "RunView") -> list[tuple[str, str]]:
    result = run.result
    known = [
        ("bits per byte", figure(result.get("bits_per_byte"))),
        ("perplexity", figure(result.get("perplexity"))),
        (
            "goodput",
            f"{result['goodput_ratio']:.1%}" if isinstance(result.get("goodput_ratio"), float) else "",
        ),
        ("steps repeated", figure(result.get("repeated_steps"))),
        ("model", str(result.get("model_folder") or "")),
        ("sample", str(result.get("sample") or "")),
    ]
    return [(name, value) for name, value in known if value]


def _money_facts(money: "CostView") -> list[tuple[str, str]]:
    estimate = " (estimate until posted)" if money.accruing else ""
    revenue, cost, contribution = money_column(
        [money.revenue, money.cost, money.contribution], money.currency
    )
    wide = max(len(revenue), len(cost), len(contribution))
    facts = [
        ("accelerator-hours", f"{money.accelerator_hours:f}"),
        ("revenue", f"{money.currency} {revenue.rjust(wide)}{estimate}"),
    ]
    if money.cost is None:  # a customer sees what it pays
        return facts
    basis = f", {money.basis}" if money.basis else ""
    return [
        *facts,
        ("cost", f"{money.currency} {cost.rjust(wide)}{estimate}{basis}"),
        ("contribution", f"{money.currency} {contribution.rjust(wide)}{estimate}"),
    ]


# ---- logs -----------------------------------------------------------------------------------------------------


def _logs(call: Call, run: str, *, follow: bool, rank: int, attempt: int | None) -> None:
    from baseai.cli.follow import follow_log, print_log, state_line, view_of

    screen = call.screen

    def write(piece: "LogPiece", offset: int) -> None:
        if not screen.as_json:
            screen.raw(piece.content)
            return
        entry = {
            "offset": offset,
            "next_offset": piece.next_offset,
            "ended": piece.ended,
            "text": piece.content.decode("utf-8", "replace"),
        }
        screen.document(json.dumps(entry, ensure_ascii=False))

    if follow:
        follow_log(call.platform, run, screen, attempt=attempt, node_rank=rank, write=write)
        return
    offset = print_log(call.platform, run, attempt=attempt or "latest", node_rank=rank, write=write)
    if offset == 0:
        screen.note(f"nothing written yet: {state_line(view_of(call.platform, run))}")
