"""The commands around the calendar: reservation, maintenance, extend.

Invariant: instants are written with their zone and shown in UTC; what is refused says what would be taken instead.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command, listed, segment
from baseai.cli.column import Column, instant_text, plain
from baseai.cli.runs import Cursor, Limit, RunName
from baseai.ground.clock import instant, now_utc
from baseai.ground.fault import Refused
from baseai.ground.quantity import duration_s, shown_s

if TYPE_CHECKING:
    from baseai.api.schemas import MaintenanceView

From = Annotated[
    str,
    typer.Option(
        "--from",
        help="When it begins, with its zone, as 2026-12-01T09:00-03:00; `now` too.",
        show_default=False,
    ),
]
Until = Annotated[
    str,
    typer.Option("--until", help="When it ends, or how long after its beginning, as 2d.", show_default=False),
]
Everything = Annotated[bool, typer.Option("-a", "--all", help="Those that are over too.")]
ReservationName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name or id of the reservation.", show_default=False)
]
MaintenanceId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the maintenance, as `list` shows it.", show_default=False)
]


def add_calendar(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    reservation = typer.Typer(
        help="Capacity promised ahead, by count, model and site.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(reservation, name="reservation")
    _add_reservation(reservation, environ)
    maintenance = typer.Typer(
        help="Times in which nodes are out of service on purpose.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(maintenance, name="maintenance")
    _add_maintenance(maintenance, environ)

    @command(app, "extend", example="baseai extend train-gpt 6h", environ=environ)
    def extend(
        call: Call,
        run: RunName,
        by: Annotated[str, typer.Argument(metavar="BY", help="How much longer, as 6h.", show_default=False)],
    ) -> None:
        """Let a run go on longer, while nothing is booked behind it.

        What is added makes way for what is booked later: the run is then asked in time to save, and waits again.
        """
        from baseai.api.schemas import Extended

        answer = call.platform.post(f"/runs/{segment(run)}/extend", {"by": by})
        if call.screen.as_json:
            call.screen.document(answer.text)
            return
        found = answer.read(Extended)
        call.screen.say(f"{plain(found.name)} may go on until {instant_text(found.ends_at)}")


def _add_reservation(app: typer.Typer, environ: Mapping[str, str]) -> None:
    @command(app, "list", example="baseai reservation list", environ=environ)
    def list_reservations(
        call: Call, everything: Everything = False, limit: Limit = 100, cursor: Cursor = None
    ) -> None:
        """List reservations: what is promised, from when to when, and how much of it is in use."""
        from baseai.api.schemas import ReservationView

        found = listed(
            call,
            "/reservations",
            ReservationView,
            all=True if everything else None,
            limit=limit,
            cursor=cursor,
        )
        if found is None:
            return
        heads = ("NAME", "TENANT", "WHAT", "SITE", "FROM", "UNTIL", "KIND", "STATE", "IN USE")
        call.screen.table(
            [Column(head=head, right=head == "IN USE") for head in heads],
            [
                (
                    one.name,
                    one.tenant,
                    f"{one.nodes} x {one.accelerators} {one.model}",
                    one.site,
                    instant_text(one.from_at),
                    instant_text(one.until_at),
                    one.kind,
                    one.state,
                    f"{one.in_use}/{one.nodes * one.accelerators}",
                )
                for one in found
            ],
        )
        if not found:
            call.screen.note("nothing is reserved; `baseai reservation add` has capacity promised")

    @command(app, "show", example="baseai reservation show exam", environ=environ)
    def show_reservation(call: Call, name: ReservationName) -> None:
        """Show one reservation."""
        _show_reservation(call, "GET", f"/reservations/{segment(name)}", None)

    @command(
        app,
        "add",
        example="baseai reservation add exam --gpu H100:8 --nodes 2 --site SP4 --from 2026-12-01T09:00-03:00"
        " --until 2d",
        environ=environ,
    )
    def add_reservation(
        call: Call,
        name: Annotated[
            str,
            typer.Argument(
                metavar="NAME", help="What specs call it: `reservation: NAME`.", show_default=False
            ),
        ],
        gpu: Annotated[
            str,
            typer.Option("--gpu", help="Model and accelerators on each node, as H100:8.", show_default=False),
        ],
        site: Annotated[str, typer.Option("--site", help="Where.", show_default=False)],
        begins: From,
        ends: Until,
        nodes: Annotated[int, typer.Option("--nodes", min=1, help="How many nodes.")] = 1,
        take_or_pay: Annotated[
            bool,
            typer.Option("--take-or-pay", help="Paid for whether it is used or not, and never forfeited."),
        ] = False,
        forfeit_after: Annotated[
            str | None,
            typer.Option(
                "--forfeit-after", help="Give up a hold that nobody uses so long after its start (30m)."
            ),
        ] = None,
        tenant: Annotated[str | None, typer.Option("--tenant", help="Whose it is; for operators.")] = None,
        project: Annotated[str | None, typer.Option("--project", help="The project it belongs to.")] = None,
    ) -> None:
        """Have capacity promised for a time to come.

        A hold costs nothing while it is not used, and is forfeited when nobody uses it after its start. If too little
        is left, nothing is reserved, and the answer says what would do.
        """
        from_at, until_at = _span(begins, ends)
        said = {
            "name": name, "gpu": gpu, "nodes": nodes, "site": site, "from_at": from_at.isoformat(),
            "until_at": until_at.isoformat(), "take_or_pay": take_or_pay, "forfeit_after": forfeit_after,
            "tenant": tenant, "project": project,
        }  # fmt: skip
        _show_reservation(call, "POST", "/reservations", said)

    @command(app, "cancel", example="baseai reservation cancel exam", environ=environ)
    def cancel_reservation(call: Call, name: ReservationName) -> None:
        """Give back what is held. Runs that stand on it go on."""
        _show_reservation(call, "POST", f"/reservations/{segment(name)}/cancel", {})


def _add_maintenance(app: typer.Typer, environ: Mapping[str, str]) -> None:
    @command(app, "list", example="baseai maintenance list", environ=environ)
    def list_maintenances(
        call: Call, everything: Everything = False, limit: Limit = 100, cursor: Cursor = None
    ) -> None:
        """List maintenance: which nodes, from when to when, why, and how far it is."""
        from baseai.api.schemas import MaintenanceView

        found = listed(
            call,
            "/maintenances",
            MaintenanceView,
            all=True if everything else None,
            limit=limit,
            cursor=cursor,
        )
        if found is None:
            return
        heads = ("ID", "NODES", "FROM", "UNTIL", "STATE", "WHY")
        call.screen.table(
            [Column(head=head) for head in heads],
            [
                (
                    one.maintenance_id,
                    _nodes_text(one),
                    instant_text(one.from_at),
                    instant_text(one.until_at),
                    one.state,
                    one.why,
                )
                for one in found
            ],
        )
        if not found:
            call.screen.note("no maintenance is planned")

    @command(
        app,
        "add",
        example="baseai maintenance add --node gpu-07 --node gpu-08 --from 2026-12-01T22:00-03:00 --until 2h"
        " --why 'new fans'",
        environ=environ,
    )
    def add_maintenance(
        call: Call,
        begins: From,
        ends: Until,
        why: Annotated[
            str, typer.Option("--why", help="Why; whoever must leave reads it.", show_default=False)
        ],
        node: Annotated[
            list[str] | None,
            typer.Option("--node", help="A node by name or id; as often as needed.", show_default=False),
        ] = None,
        site: Annotated[str | None, typer.Option("--site", help="Every node of a site instead.")] = None,
        notice: Annotated[
            str | None,
            typer.Option(
                "--notice", help="Start nothing there that could outlive the start, so long before (24h)."
            ),
        ] = None,
    ) -> None:
        """Plan a time in which nodes are out of service.

        What runs there then is asked in time to save, leaves, and goes on elsewhere. Afterwards the nodes are tested
        before they serve again.
        """
        from_at, until_at = _span(begins, ends)
        said = {
            "nodes": node or [], "site": site, "from_at": from_at.isoformat(), "until_at": until_at.isoformat(),
            "why": why, "notice": notice,
        }  # fmt: skip
        _show_maintenance(call, "POST", "/maintenances", said)

    @command(app, "show", example="baseai maintenance show mnt_0123456789abcdefghjk", environ=environ)
    def show_maintenance(call: Call, maintenance: MaintenanceId) -> None:
        """Show one maintenance, with how far each node is."""
        _show_maintenance(call, "GET", f"/maintenances/{segment(maintenance)}", None)

    for verb, meaning in {
        "cancel": "Call off maintenance that has not begun; what was drained for it serves again.",
        "end": "Say that the work is done before its time: the nodes are tested now.",
    }.items():
        _add_verb(app, verb, meaning, environ)


def _add_verb(app: typer.Typer, verb: str, meaning: str, environ: Mapping[str, str]) -> None:
    def told(call: Call, maintenance: MaintenanceId) -> None:
        _show_maintenance(call, "POST", f"/maintenances/{segment(maintenance)}/{verb}", {})

    told.__doc__ = meaning
    command(app, verb, example=f"baseai maintenance {verb} mnt_0123456789abcdefghjk", environ=environ)(told)


def _span(begins: str, ends: str) -> tuple[datetime, datetime]:
    """Both instants. Raises Refused with the fix."""
    from_at = now_utc() if begins == "now" else _instant("--from", begins)
    try:
        return from_at, from_at + timedelta(seconds=duration_s(ends))
    except (ValueError, OverflowError):
        return from_at, _instant("--until", ends)


def _instant(option: str, written: str) -> datetime:
    try:
        return instant(written)
    except ValueError:
        raise Refused(
            f"{option}: {written!r} is no instant with its zone; write it like 2026-12-01T09:00-03:00"
        ) from None


def _show_reservation(call: Call, method: str, path: str, document: object) -> None:
    from baseai.api.schemas import ReservationView

    answer = call.platform.send(method, path, document=document)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    one = answer.read(ReservationView)
    call.screen.facts(
        [
            ("reservation", f"{one.name} ({one.reservation_id})"),
            ("tenant", f"{one.tenant}, project {one.project}"),
            ("what", f"{one.nodes} x {one.accelerators} {one.model} at {one.site}"),
            ("from", instant_text(one.from_at)),
            ("until", instant_text(one.until_at)),
            ("kind", "take or pay" if one.kind == "take_or_pay" else one.kind),
            (
                "forfeited",
                f"{instant_text(one.forfeit_at)}, if unused"
                if one.forfeit_at and one.forfeit_at < one.until_at
                else "",
            ),
            ("state", one.state),
            ("in use", f"{one.in_use} of {one.nodes * one.accelerators}"),
            ("made by", f"{one.made_by}, {instant_text(one.made_at)}"),
        ]
    )


def _show_maintenance(call: Call, method: str, path: str, document: object) -> None:
    from baseai.api.schemas import MaintenanceView

    answer = call.platform.send(method, path, document=document)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return
    one = answer.read(MaintenanceView)
    call.screen.facts(
        [
            ("maintenance", one.maintenance_id),
            ("why", one.why),
            ("from", instant_text(one.from_at)),
            ("until", instant_text(one.until_at)),
            ("notice", shown_s(one.notice_s)),
            ("state", one.state),
            ("site", one.site or ""),
            ("made by", f"{one.made_by}, {instant_text(one.made_at)}"),
        ]
    )
    call.screen.say("")
    call.screen.table(
        [Column(head=head) for head in ("NODE", "STATE", "DRAINED", "TO ITS TESTS")],
        [
            (each.node, each.state, instant_text(each.taken_at), instant_text(each.returned_at))
            for each in one.nodes
        ],
    )


def _nodes_text(one: "MaintenanceView") -> str:
    names = [each.node for each in one.nodes]
    shown = ",".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"site {one.site}: {shown}" if one.site else shown
