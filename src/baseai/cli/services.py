"""The commands around services: what serves, how it answers, what it costs; steering one, calling one, and models.

Invariant: what is shown of a service is what the platform says of it; `call` goes through the gateway as anybody's
request does, with the key of this terminal.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from baseai.cli.call import Call, command, listed
from baseai.cli.column import Column, age, figure
from baseai.ground.clock import now_utc

if TYPE_CHECKING:
    from baseai.api.schemas import ServiceView

ServiceName = Annotated[
    str, typer.Argument(metavar="SERVICE", help="Name or id of the service.", show_default=False)
]


def add_services(app: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the commands."""
    service = typer.Typer(
        help="Services: models and programs that answer requests.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(service, name="service")

    @command(service, "ls", example="baseai service ls", environ=environ)
    def list_services(
        call: Call,
        everything: Annotated[bool, typer.Option("-a", "--all", help="Stopped ones too.")] = False,
        limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 100,
        cursor: Annotated[
            str | None, typer.Option("--cursor", help="Where the page before ended.", show_default=False)
        ] = None,
    ) -> None:
        """List services with state, replicas and what they were asked in the last minute."""
        from baseai.api.schemas import ServiceView

        found = listed(
            call, "/services", ServiceView, all=True if everything else None, limit=limit, cursor=cursor
        )
        if found is None:
            return
        if not found:
            call.screen.note("no services" + ("" if everything else " that were not stopped"))
            return
        call.screen.table(_SERVICE_COLUMNS, [_service_cells(one) for one in found])


_SERVICE_COLUMNS = (
    Column(head="NAME"),
    Column(head="STATE"),
    Column(head="VERSION"),
    Column(head="READY", right=True),
    Column(head="BOUNDS", right=True),
    Column(head="REQUESTS/S", right=True),
    Column(head="ERRORS", right=True),
    Column(head="ENGINE"),
    Column(head="AGE", right=True),
    Column(head="URL"),
)


def _service_cells(one: "ServiceView") -> Sequence[str]:
    return (
        one.name,
        one.state,
        version_text(one),
        f"{one.ready}/{one.wanted}",
        str(one.most) if one.least == one.most else f"{one.least}..{one.most}",
        figure(one.requests_per_s, digits=3),
        "" if one.error_ratio is None else f"{one.error_ratio:.2%}",
        one.engine,
        age(one.made_at, one.stopped_at or now_utc()),
        one.url,
    )


def version_text(one: "ServiceView") -> str:
    """The current version, and the one that is taking over with its share of the requests."""
    if one.candidate_no is None:
        return f"{one.version_no}"
    return f"{one.version_no}→{one.candidate_no} {one.candidate_share:.0%}"
