"""Sealing writes one hour's rows and rollups as Parquet: zstd, in order by thing and instant.

Invariant: a file is whole and on disk before it has its name; it counts only once the store has taken it over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
from numpy.typing import NDArray

from baseai.telemetry.duckdb.journal import sync_file, sync_folder
from baseai.telemetry.duckdb.view import View
from baseai.telemetry.field import Family
from baseai.telemetry.layout import STAMP, quoted, table_of_rolled
from baseai.telemetry.rolled import Merge, Rolled, all_of, by_tiers, coarser
from baseai.telemetry.shelf import DAY_H, File
from baseai.telemetry.store import STEP_MS, Tier
from baseai.telemetry.tier import HOUR_MS, ROLLED

SLICE_ROWS = 400_000  # rows rolled up at a time: 80 MB of an accelerator's fields
PART_CELLS = 200_000  # rolled rows of one part of a file: 220 MB of an accelerator's
ROW_GROUP = 61_440  # of rows: one thing's day is decoded from as little as that
ROW_GROUP_ROLLED = 122_880
DICTIONARY = 4_000  # of more distinct numbers in a row group there is none: it would be longer than they are

_serial = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Writes what one view sees."""

    view: View
    folder: Path
    family: Family
    written: list[str] = field(default_factory=list)  # names of all parts so far

    def take_back(self) -> None:
        """Remove what was written, which nobody has taken over."""
        for name in self.written:
            (self.folder / name).unlink(missing_ok=True)

    def rows(self, hour: int, old: File | None) -> File:
        """The hour's rows from the database, and those of its sealed file if it has one."""
        names = self.family.names
        of_hour = f"at_ms >= {hour * HOUR_MS} AND at_ms < {(hour + 1) * HOUR_MS}"
        lots = [f"SELECT {', '.join([*STAMP, *names])} FROM hot_{self.family.name} WHERE {of_hour}"]
        if old is not None:
            missing = [f"NULL::DOUBLE AS {name}" for name in names[old.fields :]]
            chosen = ", ".join([*STAMP, *names[: old.fields], *missing])
            lots.append(f"SELECT {chosen} FROM {self.view.parquet([old])}")
        stem = self._stem(Tier.RAW, hour)
        select = f"SELECT * FROM ({' UNION ALL '.join(lots)}) ORDER BY thing, at_ms"
        return self._file(Tier.RAW, [hour], [self._part(stem, 0, select)])

    def rollups(self, hour: int, raw: File, merge: Merge) -> list[File]:
        """The hour's rows rolled up to every tier; where a day is one file already, that day anew."""
        gathered: dict[Tier, list[Rolled]] = {tier: [] for tier in ROLLED}
        parts: dict[Tier, list[tuple[str, int]]] = {tier: [] for tier in ROLLED}
        stems = {tier: self._stem(tier, hour) for tier in ROLLED}
        days = {tier: self.view.shelf.day(tier, self.family.name, hour) for tier in ROLLED}
        for rolled_by_tier in self._rolled(raw, merge):
            for tier, rolled in rolled_by_tier.items():
                gathered[tier].append(rolled)
                if sum(map(len, gathered[tier])) >= PART_CELLS and days[tier] is None:
                    parts[tier].append(
                        self._rolled_part(stems[tier], len(parts[tier]), all_of(gathered[tier]))
                    )
                    gathered[tier].clear()
        fresh = []
        for tier in ROLLED:
            day = days[tier]
            if day is not None:
                fresh.append(self._day_with(day, hour, all_of(gathered[tier])))
                continue
            if gathered[tier]:
                parts[tier].append(self._rolled_part(stems[tier], len(parts[tier]), all_of(gathered[tier])))
            fresh.append(self._file(tier, [hour], parts[tier]))
        return fresh

    def day(self, tier: Tier, files: Sequence[File]) -> File:
        """Several files of one day as one."""
        hours = sorted({hour for file in files for hour in file.hours})
        lots = " UNION ALL BY NAME ".join(f"SELECT * FROM {self.view.parquet([file])}" for file in files)
        stem = self._stem(tier, hours[0], of_day=True)
        part = self._part(stem, 0, f"SELECT * FROM ({lots}) ORDER BY thing, at_ms")
        return self._file(tier, hours, [part], of_day=True)

    def _day_with(self, day: File, hour: int, rolled: Rolled) -> File:
        begin, end = hour * HOUR_MS, (hour + 1) * HOUR_MS
        select = (
            "SELECT * FROM (SELECT * FROM fresh UNION ALL BY NAME"
            f" SELECT * FROM {self.view.parquet([day])} WHERE at_ms < {begin} OR at_ms >= {end})"
            " ORDER BY thing, at_ms"
        )
        stem = self._stem(day.tier, day.hour, of_day=True)
        part = self._part(stem, 0, select, table_of_rolled(self.family, rolled))
        return self._file(day.tier, sorted({*day.hours, hour}), [part], of_day=True)

    def _rolled(self, raw: File, merge: Merge) -> Iterator[dict[Tier, Rolled]]:
        lot = self.view.parquet([raw])
        kinds = [each.kind for each in self.family.fields]
        for first, last in self._slices(lot):
            where = f"thing BETWEEN {first} AND {last}"
            rows = self.view.rows(self.family, lot, where, range(len(kinds)), raw.fields)
            rolled = by_tiers(kinds, rows, STEP_MS[Tier.MINUTE], merge)
            found = {Tier.MINUTE: rolled}
            for tier in ROLLED[1:]:
                rolled = coarser(rolled, STEP_MS[tier], merge)
                found[tier] = rolled
            yield found

    def _slices(self, lot: str) -> list[tuple[int, int]]:
        """Ranges of things with about SLICE_ROWS rows each."""
        counts = self.view.cursor.execute(
            f"SELECT thing, count(*) FROM {lot} GROUP BY thing ORDER BY thing"
        ).fetchall()
        slices: list[tuple[int, int]] = []
        rows, first = 0, -1
        for thing, number in counts:
            first = thing if first < 0 else first
            rows += number
            if rows >= SLICE_ROWS or thing == counts[-1][0]:
                slices.append((first, thing))
                rows, first = 0, -1
        return slices

    # ---- files

    def _stem(self, tier: Tier, hour: int, *, of_day: bool = False) -> str:
        """tier/family/date/hour, and a number that no other file of this store has."""
        at = datetime.fromtimestamp(hour * 3_600, UTC)
        folder = f"{tier}/{self.family.name}/{at:%Y-%m-%d}"
        what = "day" if of_day else f"{at:%H}"
        while True:
            stem = f"{what}-{self.view.lot}-{next(_serial)}"
            if not any((self.folder / folder).glob(f"{stem}-*")):
                return f"{folder}/{stem}"

    def _rolled_part(self, stem: str, number: int, rolled: Rolled) -> tuple[str, int]:
        return self._part(stem, number, "SELECT * FROM fresh", table_of_rolled(self.family, rolled))

    def _part(
        self, stem: str, number: int, select: str, fresh: dict[str, NDArray[Any]] | None = None
    ) -> tuple[str, int]:
        """Name and rows of a part that is whole and on disk."""
        name = f"{stem}-{number}.parquet"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".parquet.half")
        cursor = self.view.cursor
        size = ROW_GROUP if stem.startswith(f"{Tier.RAW}/") else ROW_GROUP_ROLLED
        if fresh is not None:
            cursor.register("fresh", fresh)
        try:
            ((rows,),) = cursor.execute(
                f"COPY ({select}) TO {quoted(str(half))}"
                f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {size}, DICTIONARY_SIZE_LIMIT {DICTIONARY})"
            ).fetchall()
            sync_file(half)
            half.rename(path)
            self.written.append(name)
            sync_folder(path.parent)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        finally:
            if fresh is not None:
                cursor.unregister("fresh")
        return name, rows

    def _file(
        self, tier: Tier, hours: Sequence[int], parts: Sequence[tuple[str, int]], *, of_day: bool = False
    ) -> File:
        return File(
            tier=tier,
            family=self.family.name,
            hour=hours[0] // DAY_H * DAY_H if of_day else hours[0],
            hours=tuple(hours),
            names=tuple(name for name, _ in parts),
            fields=len(self.family.fields),
            rows=sum(rows for _, rows in parts),
            is_day=of_day,
        )


def write_names(cursor: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """What numbers in sealed files mean, beside them: things, patterns of codes, starts of nodes."""
    (folder / "names").mkdir(exist_ok=True)
    for table in ("things", "patterns", "boots"):
        path = folder / "names" / f"{table}.parquet"
        half = path.with_suffix(".parquet.half")
        cursor.execute(f"COPY {table} TO {quoted(str(half))} (FORMAT parquet, COMPRESSION zstd)")
        sync_file(half)
        half.rename(path)
    sync_folder(folder / "names")
