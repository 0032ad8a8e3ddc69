"""The screen is what a command writes to: figures and documents to standard output, all else to standard error.

Invariant: with --json, standard output holds the API's documents and nothing more. Colour is for terminals that
want it: never into a file or a pipe, never under NO_COLOR.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from baseai.cli.column import Column, fact_lines, table_lines

if TYPE_CHECKING:
    from rich.console import Console

STYLES: Mapping[str, str] = {
    "running": "green",
    "ready": "green",
    "succeeded": "green",
    "active": "green",
    "failed": "red",
    "faulty": "red",
    "quarantined": "red",
    "unreachable": "red",
    "cancelled": "yellow",
    "queued": "yellow",
    "recovering": "yellow",
    "cordoned": "yellow",
    "draining": "yellow",
    "suspect": "yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where this call writes, and how much its reader can take."""

    out: TextIO
    err: TextIO
    as_json: bool = False
    colour: bool = False
    width: int | None = None  # cells; None where nobody counts them

    @property
    def live(self) -> bool:
        """Whether a person watches: a line may be drawn over."""
        return self.width is not None and not self.as_json

    def say(self, *lines: str) -> None:
        for line in lines:
            self.out.write(self._coloured(line) + "\n")
        self.out.flush()

    def note(self, *lines: str) -> None:
        for line in lines:
            self.err.write(line + "\n")
        self.err.flush()

    def document(self, text: str) -> None:
        """The API's JSON as it came; an empty answer stays empty."""
        if text:
            self.out.write(text if text.endswith("\n") else text + "\n")
        self.out.flush()

    def raw(self, content: bytes) -> None:
        """Bytes of a log, untouched where the stream can take bytes."""
        binary = getattr(self.out, "buffer", None)
        if binary is None:
            self.out.write(content.decode("utf-8", "replace"))
        else:
            binary.write(content)
        self.out.flush()

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        self.say(*table_lines(columns, rows, width=self.width))

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        self.say(*fact_lines(facts))

    def console(self) -> "Console":
        """A rich console over standard error, for what moves."""
        from rich.console import Console

        return Console(
            file=self.err,
            force_terminal=self.live,
            no_color=not self.colour,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def _coloured(self, line: str) -> str:
        if not self.colour:
            return line
        codes = {"green": "32", "red": "31", "yellow": "33"}
        words = line.split(" ")
        return " ".join(
            f"\x1b[{codes[STYLES[word]]}m{word}\x1b[0m" if word in STYLES else word for word in words
        )


def this_screen(environ: Mapping[str, str], *, as_json: bool) -> Screen:
    """The screen of this process, as it is now."""
    import shutil

    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    is_terminal = sys.stdout.isatty()
    wants_colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Screen(
        out=sys.stdout,
        err=sys.stderr,
        as_json=as_json,
        colour=is_terminal and wants_colour,
        width=shutil.get_terminal_size().columns if is_terminal else None,
    )
