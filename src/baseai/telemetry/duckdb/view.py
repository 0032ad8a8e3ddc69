"""A view is what a question reads, as of one moment: it stays while rows move on.

Invariant: a row that was acknowledged when the view was opened is in exactly one of its sealed files, its database and
its pending rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Family
from baseai.telemetry.layout import STAMP, among, parts_of, quoted, rows_in, within
from baseai.telemetry.rows import Rows, all_of, no_rows
from baseai.telemetry.shelf import File, Piece, Shelf
from baseai.telemetry.store import Tier


def columns_from(
    cursor: duckdb.DuckDBPyConnection, sql: str, values: Sequence[object] = ()
) -> dict[str, NDArray[Any]]:
    """The answer to a query, NULL as NaN, or 0 where the column holds whole numbers."""
    return {name: _filled(column) for name, column in cursor.execute(sql, list(values)).fetchnumpy().items()}


def _filled(column: Any) -> NDArray[Any]:
    if not isinstance(column, np.ma.MaskedArray):
        return np.asarray(column)
    return np.asarray(column.filled(np.nan if column.dtype.kind == "f" else 0))


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
        things: NDArray[np.int32],
        *,
        whole: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Rolled rows of sealed files, of each field only what its kind has. whole: boots and patterns as well."""
        known = piece.files[-1].fields
        parts = [*STAMP] if whole else ["thing", "at_ms"]
        for column in columns:
            for name, kind in parts_of(family, column):
                parts.append(name if column < known else f"NULL::{kind} AS {name}")
        lot = self.parquet(piece.files)
        return self.columns(f"SELECT {', '.join(parts)} FROM {lot} WHERE {within(piece)} AND {among(things)}")

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
        """Rows of some hours and fields, in order, wherever they are."""
        where = f"at_ms >= {from_ms} AND at_ms < {until_ms}"
        if things is not None:
            where += f" AND {among(things)}"
        parts = [no_rows(len(columns))]
        files = [file for hour in hours if (file := self.shelf.file(Tier.RAW, family.name, hour))]
        for fields in sorted({file.fields for file in files}):
            lot = self.parquet(file for file in files if file.fields == fields)
            parts.append(self.rows(family, lot, where, columns, fields))
        in_order = len(files) <= 1
        if any(hour in self.shelf.open_hours.get(family.name, ()) for hour in hours):
            in_order = False
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
        chosen = [
            name if known is None or column < known else f"NULL::DOUBLE AS {name}"
            for column, name in zip(columns, names, strict=True)
        ]
        return rows_in(self.columns(f"SELECT {', '.join([*STAMP, *chosen])} FROM {lot} WHERE {where}"), names)
