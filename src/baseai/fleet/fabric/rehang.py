"""A rehang is what shall change of one node's mount; a file of them changes many at once, or none.

Invariant: a part that nobody names stays as it is; `-` takes it off. A file is read whole before anything changes, and
everything wrong in it is told by line and column.
"""

import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baseai.fleet.fabric.mount import PARTS, Misfit, Mount, Part
from baseai.ground.fault import Fault, Refused

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OFF = "-"
COLUMNS = ("node", *PARTS)
ROWS_MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehang:
    """What shall change of one node's mount."""

    node: str  # its name or id
    parts: Mapping[Part, str | None]  # None: nothing is known of it any more
    line: int = 0  # in the file that says so; 0 where none does
    columns: tuple[str, ...] = COLUMNS  # of that file

    def of(self, mount: Mount) -> Mount:
        return Mount(
            rack=self.parts.get("rack", mount.rack),
            leaf=self.parts.get("leaf", mount.leaf),
            pod=self.parts.get("pod", mount.pod),
        )

    def wrong(self, key: str, message: str, fix: str) -> "FieldError":
        """Of one field of its row."""
        column = self.columns.index(key) + 1 if key in self.columns else 1
        return FieldError(line=self.line, column=column, key=key, message=message, fix=fix)

    def misfit(self, one: Misfit) -> "FieldError":
        return self.wrong(one.part, one.message, one.fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One thing that is wrong in a file: where it stands, and what to do."""

    line: int
    column: int
    key: str
    message: str
    fix: str


class BadFile(Fault):
    """A file of mounts that cannot be taken, with everything found wrong in it; nothing was changed."""

    def __init__(self, file: str, errors: tuple[FieldError, ...]) -> None:
        super().__init__(file, errors)
        self.file = file
        self.errors = tuple(sorted(errors, key=lambda one: (one.line, one.column)))

    def __str__(self) -> str:
        return "\n".join(
            f"{self.file}:{one.line}:{one.column} {one.key}: {one.message}; {one.fix}" for one in self.errors
        )


def part_of(written: str) -> str | None:
    """The name of a rack, leaf or pod as somebody wrote it; None for `-`. Raises Refused."""
    if written == OFF:
        return None
    if not NAME.fullmatch(written):
        raise Refused(
            f"{written[:80]!r} is no name: use 1 to 100 of A-Z, a-z, 0-9, . _ and -, or - alone for nothing known"
        )
    return written


def rehangs_in(text: str, file: str) -> tuple[Rehang, ...]:
    """The rows of a CSV with the columns node and any of rack, leaf and pod, in its order.

    An empty field leaves what is known. Raises BadFile with everything that is wrong.
    """
    rows = _rows(text, file)
    _, header = next(rows, (1, []))
    columns = tuple(name.strip() for name in header)
    errors = list(_bad_header(columns))
    if errors:
        raise BadFile(file, tuple(errors))
    found: list[Rehang] = []
    line_of: dict[str, int] = {}
    for line, row in rows:
        if len(found) == ROWS_MOST:
            raise BadFile(file, (_at(line, 1, "node", f"more than {ROWS_MOST} rows", "split the file"),))
        if len(row) != len(columns):
            column = min(len(row), len(columns)) + 1
            message = f"{len(row)} fields, and {len(columns)} in the header"
            errors.append(_at(line, column, "", message, "write one field for each column"))
            continue
        fields = dict(zip(columns, (field.strip() for field in row), strict=True))
        parts: dict[Part, str | None] = {}
        one = Rehang(node=fields["node"], parts=parts, line=line, columns=columns)
        for part in PARTS:
            try:
                if fields.get(part):
                    parts[part] = part_of(fields[part])
            except Refused as wrong:
                errors.append(one.wrong(part, str(wrong), "write another"))
        if not one.node:
            errors.append(one.wrong("node", "no node is named", "write its name or its id"))
        elif one.node in line_of:
            errors.append(
                one.wrong("node", f"{one.node} stands on line {line_of[one.node]} too", "keep one of them")
            )
        line_of.setdefault(one.node, line)
        found.append(one)
    if errors:
        raise BadFile(file, tuple(errors))
    return tuple(found)


def _rows(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, each with the line on which it ends."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, row
    except csv.Error as wrong:
        raise BadFile(file, (_at(reader.line_num, 1, "", str(wrong), "write it as CSV"),)) from wrong


def _bad_header(columns: tuple[str, ...]) -> Iterator[FieldError]:
    if "node" not in columns or not set(columns) & set(PARTS):
        missing = "the header does not name node and any of rack, leaf and pod"
        yield _at(1, 1, "", missing, f"begin with {','.join(COLUMNS)}")
    for number, name in enumerate(columns, start=1):
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            fix = f"did you mean {near[0]}?" if near else "leave it out"
            yield _at(1, number, name, "there is no such column", fix)
        elif columns.index(name) + 1 < number:
            yield _at(1, number, name, "the column stands twice", "keep one of them")


def _at(line: int, column: int, key: str, message: str, fix: str) -> FieldError:
    return FieldError(line=line, column=column, key=key, message=message, fix=fix)
