"""A view is what a question reads, as of one moment: it stays while rows move on.

Invariant: a row that was acknowledged when the view was opened is in exactly one of its sealed files, its database and
its pending rows.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import nanoarrow
import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Family
from baseai.telemetry.layout import STAMP, condition, parts_of, quoted, rows_in
from baseai.telemetry.rows import Rows, all_of, no_rows
from baseai.telemetry.shelf import File, Piece, Shelf
from baseai.telemetry.store import Tier
from baseai.telemetry.tier import HOUR_MS

MANY_FILES = 8
NUMBERS: Mapping[str, type[np.generic]] = {"i": np.int32, "l": np.int64, "L": np.uint64, "g": np.float64}


def columns_from(cursor: duckdb.DuckDBPyConnection, *queries: str) -> dict[str, NDArray[Any]]:
    """The answers to like queries behind one another: numbers, NULL as NaN, or as 0 in whole ones.

    By way of Arrow, in half the time of `fetchnumpy`. Each answer is handed over by one thread; so of several queries
    each gets a thread and a cursor of its own, outside the transaction: they may read sealed files only.
    """
    if len(queries) == 1:
        return _joined([_answer(cursor, queries[0])])
    with contextlib.ExitStack() as opened:
        cursors = [opened.enter_context(contextlib.closing(cursor.cursor())) for _ in queries]
        with ThreadPoolExecutor(len(queries), "read") as threads:
            return _joined(list(threads.map(_answer, cursors, queries)))


def _answer(cursor: duckdb.DuckDBPyConnection, query: str) -> tuple[list[str], list[str], list[Any]]:
    """Names, Arrow's formats, batches."""
    answer = cursor.sql(query)
    with nanoarrow.c_array_stream(answer) as stream:
        return answer.columns, [column.format for column in stream.get_schema().children], list(stream)


def _joined(answers: Sequence[tuple[list[str], list[str], list[Any]]]) -> dict[str, NDArray[Any]]:
    names, formats, _ = answers[0]
    batches = [batch for _, _, of_answer in answers for batch in of_answer]
    columns = {}
    for place, (name, form) in enumerate(zip(names, formats, strict=True)):
        parts = [_numbers(batch.child(place).view(), NUMBERS[form]) for batch in batches]
        columns[name] = np.concatenate(parts) if parts else np.zeros(0, dtype=NUMBERS[form])
    return columns


def _numbers(column: Any, form: type[np.generic]) -> NDArray[Any]:
    end = column.offset + column.length
    numbers = np.frombuffer(column.buffer(1), dtype=form)[column.offset : end]
    if not column.null_count:
        return numbers
    known = np.unpackbits(np.frombuffer(column.buffer(0), dtype=np.uint8), count=end, bitorder="little")
    unknown = np.nan if form is np.float64 else 0
    return np.where(known[column.offset :] == 1, numbers, form(unknown))


def parquet(folder: Path, files: Iterable[File]) -> str:
    """Sealed files as a table of a query."""
    names = ", ".join(quoted(str(folder / name)) for file in files for name in file.names)
    return f"read_parquet([{names}])"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """lot: up to which number the journal is in the database that this view sees. pending: by family."""

    lot: int
    cursor: duckdb.DuckDBPyConnection  # within a transaction
    folder: Path
    shelf: Shelf
    pending: Mapping[str, tuple[Rows, ...]]

    def columns(self, sql: str) -> dict[str, NDArray[Any]]:
        return columns_from(self.cursor, sql)

    def parquet(self, files: Iterable[File]) -> str:
        return parquet(self.folder, files)

    def rolled(
        self,
        piece: Piece,
        family: Family,
        columns: Sequence[int],
        things: NDArray[np.int32] | None,
        *,
        whole: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Rolled rows of sealed files, of each field only what its kind has. whole: boots and patterns as well."""
        known = piece.files[-1].fields
        parts = [*STAMP] if whole else ["thing", "at_ms"]
        for column in columns:
            for name, kind in parts_of(family, column):
                parts.append(name if column < known else f"NULL::{kind} AS {name}")
        where = condition(piece.from_ms, piece.until_ms, things, piece.files)
        return self._from_files(f"SELECT {', '.join(parts)}", piece.files, where)

    def _from_files(self, select: str, files: Sequence[File], where: str) -> dict[str, NDArray[Any]]:
        """Of many files two threads read half each."""
        middle = len(files) // 2 if len(files) >= MANY_FILES else 0
        halves = [files[:middle], files[middle:]] if middle else [files]
        return columns_from(
            self.cursor, *(f"{select} FROM {self.parquet(half)} WHERE {where}" for half in halves)
        )

    def raw(
        self,
        family: Family,
        hours: Sequence[int],
        columns: Sequence[int],
        from_ms: int,
        until_ms: int,
        *,
        things: NDArray[np.int32] | None = None,
    ) -> Rows:
        """Rows of hours that follow one another, in order, wherever they are: what lies within the time as well."""
        if not hours:
            return no_rows(len(columns))
        from_ms, until_ms = max(from_ms, hours[0] * HOUR_MS), min(until_ms, (hours[-1] + 1) * HOUR_MS)
        parts = [no_rows(len(columns))]
        files = [file for hour in hours if (file := self.shelf.file(Tier.RAW, family.name, hour))]
        for fields in sorted({file.fields for file in files}):
            same = [file for file in files if file.fields == fields]
            where = condition(from_ms, until_ms, things, same)
            names = [family.names[column] for column in columns]
            select = f"SELECT {', '.join([*STAMP, *_chosen(names, columns, fields)])}"
            parts.append(rows_in(self._from_files(select, same, where), names))
        in_order = len(files) <= 1
        if any(hour in self.shelf.open_hours.get(family.name, ()) for hour in hours):
            in_order = False
            where = condition(from_ms, until_ms, things)
            parts.append(self.rows(family, f"hot_{family.name}", where, columns))
            for rows in self.pending.get(family.name, ()):
                wanted = (rows.at_ms >= from_ms) & (rows.at_ms < until_ms)
                if things is not None:
                    wanted &= np.isin(rows.things, things)
                if wanted.any():
                    picked = rows.pick(wanted)
                    parts.append(replace(picked, values=picked.values[list(columns)]))
        found = all_of(parts)
        return found if in_order else found.in_order()

    def rows(
        self, family: Family, lot: str, where: str, columns: Sequence[int], known: int | None = None
    ) -> Rows:
        """Rows of one table or file, as they stand there. known: how many of the family's fields it has."""
        names = [family.names[column] for column in columns]
        chosen = _chosen(names, columns, len(family.fields) if known is None else known)
        return rows_in(self.columns(f"SELECT {', '.join([*STAMP, *chosen])} FROM {lot} WHERE {where}"), names)


def _chosen(names: Sequence[str], columns: Sequence[int], known: int) -> list[str]:
    """Columns of a table that has the first `known` fields of its family."""
    return [
        name if column < known else f"NULL::DOUBLE AS {name}"
        for column, name in zip(columns, names, strict=True)
    ]
