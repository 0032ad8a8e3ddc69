"""The commands around queues: who may use how much of the fleet, and what they hold and had of it.

Invariant: `queue set` says what is typed and nothing else; what is left out stays as the platform has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, plain
from baseai.ground.fault import Refused
from baseai.ground.quantity import duration_s, shown_s

if TYPE_CHECKING:
    from baseai.api.schemas import NamedQueueView, QueueModelView

ROOT = "root"
NONE = "none"
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the queue.", show_default=False)]


def add_queues(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    queue = typer.Typer(
        help="Shares of the fleet, in which runs wait.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(queue, name="queue")

    @command(queue, "list", example="baseai queue list", environ=environ)
    def list_queues(call: Call) -> None:
        """List queues as a tree: what each is guaranteed, may hold, holds and lately held of each model.

        A queue shows what those below it have as well. USED is in accelerator-hours, each counted by half for every
        half-life it is ago.
        """
        from baseai.api.schemas import NamedQueueView

        queues = listed(call, "/queues", NamedQueueView)
        if queues is None:
            return
        call.screen.table(
            [
                Column(head="QUEUE"),
                Column(head="TENANT"),
                Column(head="WEIGHT", right=True),
                Column(head="WAIT", right=True),
                Column(head="RUN", right=True),
                *_MODEL_COLUMNS,
            ],
            list(_tree_rows(queues)),
        )

    @command(queue, "show", example="baseai queue show vision", environ=environ)
    def show_queue(call: Call, name: QueueName) -> None:
        """Show one queue."""
        _show(call, "GET", name, None)

    @command(
        queue,
        "set",
        example="baseai queue set vision --parent lab --weight 2 --quota H100-SXM=16 --limit H100-SXM=64",
        environ=environ,
    )
    def set_queue(
        call: Call,
        name: QueueName,
        parent: Annotated[
            str | None, typer.Option("--parent", help=f"The queue it hangs below; `{ROOT}` for none.")
        ] = None,
        weight: Annotated[
            float | None,
            typer.Option("--weight", help="Its part of what is left over, against its siblings'."),
        ] = None,
        quota: Annotated[
            list[str] | None,
            typer.Option("--quota", help="MODEL=COUNT that is guaranteed; repeatable; `none` for no quota."),
        ] = None,
        limit: Annotated[
            list[str] | None,
            typer.Option("--limit", help="MODEL=COUNT it never exceeds; repeatable; `none` for no limit."),
        ] = None,
        half_life: Annotated[
            str | None, typer.Option("--half-life", help="After which its use counts by half: 7d, 12h.")
        ] = None,
        tenant: Annotated[
            str | None, typer.Option("--tenant", help="The tenant whose runs alone may wait in it.")
        ] = None,
        project: Annotated[
            str | None, typer.Option("--project", help="The project of that tenant, likewise.")
        ] = None,
        shared: Annotated[bool, typer.Option("--shared", help="Everybody's runs may wait in it.")] = False,
    ) -> None:
        """Make a queue, or change one: what is left out stays as it is."""
        said = {
            "parent": parent,
            "weight": weight,
            "quota": _amounts("--quota", quota),
            "limit": _amounts("--limit", limit),
            "half_life_s": None if half_life is None else _seconds(half_life),
            "tenant": tenant,
            "project": project,
            "shared": shared or None,
        }
        _show(call, "PUT", name, {key: value for key, value in said.items() if value is not None})

    @command(queue, "remove", example="baseai queue remove vision", environ=environ)
    def remove_queue(call: Call, name: QueueName) -> None:
        """Remove a queue in which nobody is and below which none hangs."""
        answer = call.platform.send("DELETE", f"/queues/{segment(name)}")
        if call.screen.as_json:
            call.screen.document(answer.text)
        else:
            call.screen.say(f"{plain(name)} is removed")


_MODEL_COLUMNS = (
    Column(head="MODEL"),
    Column(head="HELD", right=True),
    Column(head="QUOTA", right=True),
    Column(head="LIMIT", right=True),
    Column(head="SPOT", right=True),
    Column(head="USED", right=True),
)


def _model_cells(one: "QueueModelView") -> tuple[str, ...]:
    return (
        one.model,
        str(one.held),
        "" if one.quota is None else str(one.quota),
        "" if one.limit is None else str(one.limit),
        str(one.spot),
        f"{one.usage_accelerator_h:,.1f}",
    )


def _tree_rows(queues: "Sequence[NamedQueueView]") -> Iterator[Sequence[str]]:
    """A row for each queue and model, those below a queue after it and further in."""
    shown = {queue.name for queue in queues}
    nothing = ("",) * len(_MODEL_COLUMNS)

    def rows(queue: "NamedQueueView", depth: int) -> Iterator[Sequence[str]]:
        own = (
            "  " * depth + queue.name,
            "/".join(part for part in (queue.tenant, queue.project) if part),
            f"{queue.weight:g}",
            str(queue.waiting),
            str(queue.running),
        )
        for cells in [_model_cells(one) for one in queue.models] or [nothing]:
            yield (*own, *cells)
        for below in queues:
            if below.parent == queue.name:
                yield from rows(below, depth + 1)

    for queue in queues:
        if queue.parent not in shown:
            yield from rows(queue, 0)


def _show(call: Call, method: str, name: str, document: object) -> None:
    from baseai.api.schemas import NamedQueueView

    answer = call.platform.send(method, f"/queues/{segment(name)}", document=document)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    queue = answer.read(NamedQueueView)
    call.screen.facts(
        [
            ("queue", queue.name),
            ("below", queue.parent or ""),
            ("above", ", ".join(queue.below)),
            ("for", " ".join(part for part in (queue.tenant or "everybody", queue.project) if part)),
            ("weight", f"{queue.weight:g}"),
            ("half-life", shown_s(queue.half_life_s)),
            ("runs", f"{queue.waiting} waiting, {queue.running} running"),
        ]
    )
    if queue.models:
        call.screen.say("")
        call.screen.table(_MODEL_COLUMNS, [_model_cells(one) for one in queue.models])
    if queue.note:
        call.screen.note(plain(queue.note))


def _amounts(option: str, said: Sequence[str] | None) -> dict[str, int] | None:
    """`H100-SXM=16` and so on, by model; None where nothing is said, empty for `none`."""
    if not said:
        return None
    if list(said) == [NONE]:
        return {}
    amounts: dict[str, int] = {}
    for one in said:
        model, sign, count = one.partition("=")
        if not (sign and model and count.isdecimal() and count.isascii()):
            raise Refused(f"{option} {one}: write MODEL=COUNT, as H100-SXM=16, or `none` alone")
        if model in amounts:
            raise Refused(f"{option} {one}: {model} is said twice")
        amounts[model] = int(count)
    return amounts


def _seconds(said: str) -> int:
    try:
        return duration_s(said)
    except ValueError as wrong:
        raise Refused(f"--half-life {said}: {wrong}") from wrong
