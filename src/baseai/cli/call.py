"""A call is one command as somebody typed it: the platform it speaks to, and the screen it answers on.

Invariant: whatever goes wrong ends in one sentence on standard error and a status that scripts can read: 2 the
request is wrong, 3 no platform, 1 all else, 130 interrupted. A traceback is shown under BASEAI_DEBUG=1 only.
"""

import inspect
import os
import shlex
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baseai.cli.attachment import BadAttachment
from baseai.cli.connection import Asked, NoRecord, find_connection
from baseai.cli.http import Declined, NoPlatform, Platform
from baseai.cli.screen import Screen, this_screen
from baseai.ground.fault import Fault, Refused

if TYPE_CHECKING:
    from pydantic import BaseModel

OTHERWISE, BAD_INPUT, NO_PLATFORM, INTERRUPTED = 1, 2, 3, 130

Body = Callable[..., "int | None"]


class Call:
    """The arguments every command shares. The platform is reached when it is first asked for."""

    def __init__(self, asked: Asked, environ: Mapping[str, str], screen: Screen) -> None:
        self.asked = asked
        self.environ = environ
        self.screen = screen
        self._platform: Platform | None = None

    @property
    def platform(self) -> Platform:
        if self._platform is None:
            self._platform = Platform(find_connection(self.asked, self.environ))
        return self._platform

    def close(self) -> None:
        if self._platform is not None:
            self._platform.close()

    def run_id(self, name: str) -> str:
        """The id of a run that may be called by its name."""
        if name.startswith("run_"):
            return name
        from baseai.api.schemas import RunDetail

        return self.platform.get(f"/runs/{segment(name)}").read(RunDetail).run.run_id


def segment(name: str) -> str:
    """A name as one segment of a path."""
    from urllib.parse import quote

    return quote(name, safe="")


def status_of(fault: Fault) -> int:
    """The exit status a fault ends a command with."""
    if isinstance(fault, (NoPlatform, NoRecord)):
        return NO_PLATFORM
    if isinstance(fault, (Refused, BadAttachment)) or (isinstance(fault, Declined) and fault.is_bad_input):
        return BAD_INPUT
    return OTHERWISE


def ended(body: Callable[[], "int | None"], screen: Screen, environ: Mapping[str, str]) -> int:
    """Carry a command out and give its exit status; what goes wrong becomes its sentence."""
    try:
        return body() or 0
    except Fault as fault:
        if environ.get("BASEAI_DEBUG") == "1":
            traceback.print_exc(file=screen.err)
        if screen.as_json and isinstance(fault, Declined):
            screen.document(fault.document)
        screen.note(f"baseai: {fault}")
        return status_of(fault)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except typer.Exit:
        raise
    except Exception as bug:  # noqa: BLE001 - the outermost door: a person gets a sentence, never a traceback
        if environ.get("BASEAI_DEBUG") == "1":
            traceback.print_exc(file=screen.err)
        screen.note(f"baseai: {type(bug).__name__}: {bug}; this is a bug, BASEAI_DEBUG=1 shows where")
        return OTHERWISE


def command(
    app: typer.Typer, name: str, *, example: str, environ: Mapping[str, str]
) -> Callable[[Body], Body]:
    """Register a function whose first parameter is a Call; the shared options are added to its own.

    Every command takes --json, --url, --key, --data and --ca-file; the last four may stand before it as well.
    """

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]

        def called(**said: Any) -> None:
            before: Asked = said.pop("ctx").find_root().obj or Asked()
            asked = Asked(
                url=said.pop("url") or before.url,
                key=said.pop("key") or before.key,
                data=said.pop("data") or before.data,
                ca_file=said.pop("ca_file") or before.ca_file,
            )
            screen = this_screen(environ, as_json=said.pop("as_json"))
            call = Call(asked, environ, screen)
            try:
                status = ended(lambda: body(call, **said), screen, environ)
            finally:
                call.close()
            raise typer.Exit(status)

        hidden = {"hidden": True}
        shared = [
            _option("as_json", bool, False, "--json", help="Print the API's JSON and nothing else."),
            _option("url", str | None, None, "--url", **hidden),
            _option("key", str | None, None, "--key", **hidden),
            _option("data", Path | None, None, "--data", **hidden),
            _option("ca_file", Path | None, None, "--ca-file", **hidden),
        ]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *shared]]
        called.__signature__ = inspect.Signature([context, *keyword])  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in [context, *keyword]}
        called.__name__ = body.__name__
        called.__doc__ = body.__doc__
        app.command(name, help=inspect.getdoc(body), epilog=f"Example:  {example}")(called)
        return body

    return register


def _option(name: str, kind: Any, default: object, flag: str, **more: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(flag, show_default=False, **more)],
    )


def listed(call: Call, path: str, shape: "type[BaseModel]", **query: object) -> "list[Any] | None":
    """One page of a list, or None after it was printed as JSON. Says how to get the next page, if there is one."""
    answer = call.platform.get(path, **query)
    if call.screen.as_json:
        call.screen.document(answer.text)
        return None
    items, following = answer.items(shape)
    if following:
        call.screen.note(f"there is more: --cursor {shlex.quote(following)}")
    return items
