"""The reference is the page about the terminal, written from the commands themselves.

Invariant: it holds what `--help` holds, command by command, each with an example; nobody edits it by hand.
Written anew by `python -m baseai.cli.reference > docs/cli.md`.
"""

from collections.abc import Iterator
from typing import Any

import typer

HEAD = """# The terminal

Written from the commands by `python -m baseai.cli.reference > docs/cli.md`; do not edit it by hand.

`baseai` speaks HTTP to a platform. It looks for address and key in this order: `--url` and `--key`; `BASEAI_URL` and
`BASEAI_KEY`; the record `connect.json` that `baseai up` leaves in the data folder (`--data`, `BASEAI_DATA`, else
`~/.baseai`, for root `/var/lib/baseai`). A private authority is named by `--ca-file` or `BASEAI_CA_FILE`. These
options may stand before or after any command. Without TLS a key is sent to loopback only.

- `--json`, on every command that asks the platform, prints the API's JSON and nothing else on standard output.
  Notes and progress go to standard error. A list is a page `{"items": [...], "next": cursor}`.
- Exit status: 0 done, 1 it did not work, 2 the request or the spec is wrong, 3 no platform answers, 130 interrupted.
- Colour appears on a terminal only, and never under `NO_COLOR`. `BASEAI_DEBUG=1` shows where a fault came from.
- Money has as many digits as it needs; `~` marks an estimate that is not posted yet.
"""


def reference(app: typer.Typer) -> str:
    """The page, in Markdown."""
    return "\n".join([HEAD, *_sections(typer.main.get_command(app), "baseai")]).rstrip() + "\n"


def _sections(command: Any, name: str) -> Iterator[str]:
    for short, inner in getattr(command, "commands", {}).items():
        full = f"{name} {short}"
        if hasattr(inner, "commands"):
            yield from _sections(inner, full)
            continue
        yield f"## {full}\n\n{inner.help}\n"
        if inner.epilog:
            yield f"    {inner.epilog.partition(':')[2].strip()}\n"
        shown = [one for one in inner.params if not getattr(one, "hidden", False) and one.name != "help"]
        rows = [_row(one) for one in shown if "--json" not in one.opts]
        if rows:
            yield "\n".join(rows) + "\n"


def _row(parameter: Any) -> str:
    written = ", ".join(f"`{word}`" for word in parameter.opts if word.startswith("-"))
    written = written or f"`{parameter.make_metavar() if parameter.metavar is None else parameter.metavar}`"
    return f"- {written}" + (f": {parameter.help}" if getattr(parameter, "help", None) else "")


if __name__ == "__main__":
    from baseai.catalog.catalog import load_catalog
    from baseai.cli.app import build_app

    print(reference(build_app({}, catalog=load_catalog)), end="")
