"""The layout is how rows and rolled rows stand in tables and files: a column each, unknown numbers as NULL.

Invariant: sealed files can be read without the store: `thing`, `boot` and `pattern` are numbers that the files in
`names/` explain, `at_ms` is the instant or the bucket's start in milliseconds UTC, fields carry their unit in the name.
Of a rolled field there are `_count`, `_low`, `_high`, `_total`, `_last`; of a counter no total, but `_first`, `_delta`
and the starts of the node, `_first_boot` and `_last_boot`, and low and high only where they are not its ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Family, Kind
from baseai.telemetry.rolled import Rolled
from baseai.telemetry.rollup import Rollup, nothing, picked
from baseai.telemetry.rows import Rows
from baseai.telemetry.shelf import File
from baseai.telemetry.tier import HOUR_MS

STAMP = ("thing", "at_ms", "boot", "pattern")
STAMP_COLUMNS = "thing INTEGER, at_ms BIGINT, boot INTEGER, pattern INTEGER"
FEW = 64


def parts_of(family: Family, column: int) -> list[tuple[str, str]]:
    """The columns of one field's rollup, and their types."""
    name, kind = family.names[column], family.fields[column].kind
    wholes, numbers = ["count"], ["low", "high", "total", "last"]
    if kind is Kind.COUNTER:
        wholes, numbers = ["count", "first_boot", "last_boot"], ["low", "high", "last", "first", "delta"]
    parts = [(f"{name}_{part}", "INTEGER") for part in wholes]
    return parts + [(f"{name}_{part}", "DOUBLE") for part in numbers]


def table_of_rows(family: Family, rows: Rows) -> dict[str, NDArray[Any]]:
    table: dict[str, NDArray[Any]] = {
        "thing": rows.things, "at_ms": rows.at_ms, "boot": rows.boots, "pattern": rows.patterns,
    }  # fmt: skip
    return table | {name: np.ascontiguousarray(rows.values[place]) for place, name in enumerate(family.names)}


def rows_in(table: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Rows:
    values = np.empty((len(names), len(table["thing"])))
    for place, name in enumerate(names):
        values[place] = table[name]
    return Rows(
        things=table["thing"],
        at_ms=table["at_ms"],
        boots=table["boot"],
        patterns=table["pattern"],
        values=values,
    )


def table_of_rolled(family: Family, rolled: Rolled) -> dict[str, NDArray[Any]]:
    table: dict[str, NDArray[Any]] = {
        "thing": rolled.things, "at_ms": rolled.at_ms, "boot": rolled.boots, "pattern": rolled.patterns,
    }  # fmt: skip
    for column, rollup in enumerate(rolled.fields):
        stem = family.names[column]
        for name, kind in parts_of(family, column):
            which = name.removeprefix(f"{stem}_")
            part = getattr(rollup, which)
            if rollup.first is not None and which in (
                "low",
                "high",
            ):  # a counter that only rose has them at its ends
                part = np.where(part == (rollup.first if which == "low" else rollup.last), np.nan, part)
            table[name] = part.astype(np.int32) if kind == "INTEGER" else part
    return table


def rollup_in(table: Mapping[str, NDArray[Any]], family: Family, column: int) -> Rollup:
    stem = family.names[column]
    parts: dict[str, Any] = {
        name.removeprefix(f"{stem}_"): table[name].astype(
            np.int32 if kind == "INTEGER" else np.float64, copy=False
        )
        for name, kind in parts_of(family, column)
    }
    parts["count"] = parts["count"].astype(np.int64)
    if family.fields[column].kind is Kind.COUNTER:
        parts["total"] = nothing(len(parts["count"]))
        for which, end in (("low", "first"), ("high", "last")):
            parts[which] = np.where(np.isnan(parts[which]), parts[end], parts[which])
    return Rollup(kind=family.fields[column].kind, things=table["thing"], at_ms=table["at_ms"], **parts)


def rolled_in(table: Mapping[str, NDArray[Any]], family: Family, columns: Sequence[int]) -> Rolled:
    return Rolled(
        things=table["thing"], at_ms=table["at_ms"], boots=table["boot"], patterns=table["pattern"],
        fields=tuple(rollup_in(table, family, column) for column in columns),
    )  # fmt: skip


def in_time(rollup: Rollup) -> Iterator[Rollup]:
    """What several files hold, one behind the other, as pieces in the order of time: each begins with a low thing."""
    cuts = np.flatnonzero(rollup.things[1:] < rollup.things[:-1]) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(rollup.things)]):
        yield picked(rollup, slice(start, stop))


def condition(
    from_ms: int, until_ms: int, things: NDArray[np.int32] | None, files: Sequence[File] = ()
) -> str:
    """Which rows: of a time, and of these things, and perhaps others where they are many.

    files: what is read; of files that lie within the time nothing is asked that they answer as a whole.
    """
    parts = []
    if not files or any(file.hours[0] * HOUR_MS < from_ms or file.until_ms > until_ms for file in files):
        parts.append(f"at_ms >= {from_ms} AND at_ms < {until_ms}")
    if things is not None and len(things) == 1:
        parts.append(f"thing = {things[0]}")
    elif things is not None and 1 < len(things) <= FEW:
        parts.append(f"thing IN ({', '.join(map(str, things.tolist()))})")
    elif things is not None:
        parts.append(f"thing BETWEEN {things.min()} AND {things.max()}" if len(things) else "false")
    return " AND ".join(parts) or "true"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
