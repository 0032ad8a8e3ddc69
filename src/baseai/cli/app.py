"""The app is the tree of commands behind `baseai`.

Invariant: importing it costs little: HTTP, shapes, YAML and drawing are imported by the command that needs them.
`wiring` adds the commands that start and stop things, and hands over the catalogue.
"""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baseai import __version__
from baseai.cli.agreements import add_agreements
from baseai.cli.books import add_books
from baseai.cli.calendar import add_calendar
from baseai.cli.call import ended
from baseai.cli.catalogue import add_catalogue
from baseai.cli.connection import Asked
from baseai.cli.costs import add_costs
from baseai.cli.nodes import add_nodes
from baseai.cli.queues import add_queues
from baseai.cli.runs import add_runs
from baseai.cli.screen import this_screen
from baseai.cli.services import add_services
from baseai.cli.status import add_status
from baseai.cli.telemetry import add_telemetry
from baseai.cli.tenancy import add_tenancy
from baseai.cli.twin import add_twin
from baseai.cli.waiting import add_waiting

if TYPE_CHECKING:
    from baseai.catalog.catalog import Catalog


def build_app(
    platform_commands: Mapping[str, Callable[..., Any]],
    *,
    catalog: "Callable[[], Catalog] | None" = None,
    environ: Mapping[str, str] = os.environ,
) -> typer.Typer:
    """Every command in one app.

    platform_commands: name → function with typer annotations; it gives its exit status or None, and a Fault it
    raises becomes a sentence. They stand first. catalog: loads the catalogue; without it there is no `catalog`.
    """
    app = typer.Typer(
        name="baseai",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    before: dict[str, object] = {}  # what stands before the command and may be meant for it

    @app.callback()
    def connect(
        ctx: typer.Context,
        url: Annotated[
            str | None,
            typer.Option("--url", help="Address of the platform (BASEAI_URL).", show_default=False),
        ] = None,
        key: Annotated[
            str | None, typer.Option("--key", help="API key (BASEAI_KEY).", show_default=False)
        ] = None,
        data: Annotated[
            Path | None,
            typer.Option(
                "--data",
                help="Data folder of a platform of this machine (BASEAI_DATA, else ~/.baseai).",
                show_default=False,
            ),
        ] = None,
        ca_file: Annotated[
            Path | None,
            typer.Option(
                "--ca-file", help="Certificate authority to trust (BASEAI_CA_FILE).", show_default=False
            ),
        ] = None,
        version: Annotated[
            bool,
            typer.Option(
                "--version", help="Print the version and end.", is_eager=True, callback=_say_version
            ),
        ] = False,
    ) -> None:
        """Train, lease, meter and price accelerators, on one machine or many.

        These options may stand before or after the command; every command also takes --json.
        """
        ctx.obj = Asked(url=url, key=key, data=data, ca_file=ca_file)
        before["data"] = data

    for name, started in platform_commands.items():
        app.command(name)(_ending(started, environ, before))
    add_runs(app, environ)
    add_services(app, environ)
    add_waiting(app, environ)
    add_calendar(app, environ)
    add_queues(app, environ)
    add_nodes(app, environ)
    add_tenancy(app, environ)
    add_books(app, environ)
    add_costs(app, environ)
    add_agreements(app, environ)
    if catalog is not None:
        add_catalogue(app, environ, catalog)
    add_telemetry(app, environ)
    add_twin(app, environ)
    add_status(app, environ)
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"baseai {__version__}")
        raise typer.Exit


def _ending(
    started: Callable[..., Any], environ: Mapping[str, str], before: Mapping[str, object]
) -> Callable[..., None]:
    """The command with its faults turned into sentences, and a --data that was written before it."""

    @functools.wraps(started)
    def command(*args: Any, **said: Any) -> None:
        for name, value in before.items():
            if name in said and said[name] is None:
                said[name] = value
        raise typer.Exit(ended(lambda: started(*args, **said), this_screen(environ, as_json=False), environ))

    return command


app = build_app({})
