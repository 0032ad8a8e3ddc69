"""Writes docs/settings.md from the source: every settings dataclass, each field with meaning, unit and default.

Invariant: the page is a function of the source text alone, so a test can hold that the two agree. A field's
meaning is the comment behind it, or the comment lines above it. Run `python tools/settings_page.py` after a change.
"""

import ast
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "baseai"

HEAD = """# Settings

Every setting of baseai, from the dataclasses beside their readers. Written by `tools/settings_page.py`; change the
source, not this page.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting."""

    name: str
    kind: str
    default: str | None  # as the source writes it; None where a value must be given
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One settings dataclass."""

    name: str
    module: str
    meaning: str
    fields: tuple[Field, ...]


def groups_of(module: str, text: str) -> Iterator[Group]:
    """The settings dataclasses of one file: those named `…Settings`, and in `settings` every dataclass."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef) or not any(
            "dataclass" in ast.unparse(d) for d in node.decorator_list
        ):
            continue
        if node.name.endswith("Settings") or module.partition(".")[0] == "settings":
            fields = tuple(_field(part, lines) for part in node.body if isinstance(part, ast.AnnAssign))
            meaning = " ".join((ast.get_docstring(node) or "").split())
            yield Group(name=node.name, module=f"baseai.{module}", meaning=meaning, fields=fields)


def _field(node: ast.AnnAssign, lines: Sequence[str]) -> Field:
    last = (node.end_lineno or node.lineno) - 1
    behind = lines[last].encode()[node.end_col_offset or 0 :].decode().partition("#")[2].strip()
    above: list[str] = []
    row = node.lineno - 2
    while not behind and row >= 0 and lines[row].lstrip().startswith("#"):
        above.insert(0, lines[row].strip().lstrip("# "))
        row -= 1
    return Field(
        name=ast.unparse(node.target),
        kind=ast.unparse(node.annotation),
        default=ast.unparse(node.value) if node.value else None,
        meaning=behind or " ".join(above),
    )


def groups(package: Path) -> tuple[Group, ...]:
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        with contextlib.suppress(SyntaxError):  # that every file parses is another rule's to hold
            found += groups_of(module, path.read_text(encoding="utf-8"))
    return tuple(found)


def page(found: Sequence[Group]) -> str:
    """The whole page, in Markdown."""
    parts = [HEAD]
    for group in found:
        parts.append(f"\n## {group.name}\n\n{group.meaning}\n\nRead by `{group.module}`.\n\n")
        parts.append("| setting | type | default | meaning |\n|---|---|---|---|\n")
        for field in group.fields:
            default = "must be given" if field.default is None else f"`{_cell(field.default)}`"
            parts.append(f"| `{field.name}` | `{_cell(field.kind)}` | {default} | {_cell(field.meaning)} |\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(page(groups(PACKAGE)), encoding="utf-8")
    sys.stdout.write("docs/settings.md written\n")
