"""Rebuilding makes a database again from sealed files, which say all that is needed, when its own file is harmed.

Invariant: nothing is thrown away: the harmed file stays beside the new one. What was only in it, the rows of open hours
that the journal no longer has, is lost, and said to be.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from baseai.telemetry.duckdb.database import FILE
from baseai.telemetry.field import FAMILIES, Family
from baseai.telemetry.layout import STAMP, quoted
from baseai.telemetry.shelf import DAY_H, File
from baseai.telemetry.store import Tier
from baseai.telemetry.tier import HOUR_MS

# tier/family/date/hour or day - up to where the journal was in it - serial - part
NAME = re.compile(
    r"(?P<tier>\w+)/(?P<family>\w+)/[\d-]+/(?P<what>\d\d|day)-(?P<lot>\d+)-(?P<serial>\d+)-\d+\.parquet"
)


def rebuilt(folder: Path, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
    """Set the harmed database aside and open one that knows the sealed files."""
    number = len(list(folder.glob(f"{FILE}.broken-*")))
    for name in (FILE, f"{FILE}.wal"):
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}.broken-{number}")
    db = connect()
    for table in ("things", "patterns", "boots"):
        path = folder / "names" / f"{table}.parquet"
        if path.is_file():
            db.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet({quoted(str(path))})")
    files = list(_files(db, folder))
    for file in files:
        words = [list(file.hours), list(file.names), file.fields, file.rows, file.is_day]
        db.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [file.tier, file.family, file.hour, *words]
        )
    for family in FAMILIES.values():
        raw = [file for file in files if file.tier is Tier.RAW and file.family == family.name]
        _find_newest(db, folder, family, sorted(raw, key=lambda file: -file.hour))
    return db


def _files(db: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[File]:
    """The newest of each hour's readable files."""
    found: dict[tuple[str, ...], dict[tuple[int, int], list[str]]] = {}
    for path in sorted(folder.glob("*/*/*/*.parquet")):
        name = path.relative_to(folder).as_posix()
        if (match := NAME.fullmatch(name)) and match["family"] in FAMILIES and match["tier"] in list(Tier):
            place = match["tier"], match["family"], path.parent.name, match["what"]
            found.setdefault(place, {}).setdefault((int(match["lot"]), int(match["serial"])), []).append(name)
    days: set[tuple[str, str, int]] = set()
    for (tier, family, _, what), versions in sorted(found.items(), key=lambda item: item[0][3] != "day"):
        names = versions[max(versions)]
        try:
            hours, rows, columns = _told(db, folder, names)
        except duckdb.Error:
            continue  # harmed as well: it stays where it is and is not read
        if not hours or (tier, family, hours[0]) in days:
            continue
        if what == "day":
            days |= {(tier, family, hour) for hour in hours}
        suffix = "" if tier == Tier.RAW else "_count"
        yield File(
            tier=Tier(tier),
            family=family,
            hour=hours[0] // DAY_H * DAY_H if what == "day" else hours[0],
            hours=tuple(hours),
            names=tuple(names),
            fields=sum(f"{name}{suffix}" in columns for name in FAMILIES[family].names),
            rows=rows,
            is_day=what == "day",
        )


def _told(db: duckdb.DuckDBPyConnection, folder: Path, names: list[str]) -> tuple[list[int], int, set[str]]:
    """Hours, rows and columns of a file's parts."""
    lot = f"read_parquet([{', '.join(quoted(str(folder / name)) for name in names)}])"
    counts = db.execute(f"SELECT at_ms // {HOUR_MS}, count(*) FROM {lot} GROUP BY 1 ORDER BY 1").fetchall()
    columns = {name for name, *_ in db.execute(f"DESCRIBE SELECT * FROM {lot}").fetchall()}
    return [hour for hour, _ in counts], sum(rows for _, rows in counts), columns


def _find_newest(db: duckdb.DuckDBPyConnection, folder: Path, family: Family, raw: list[File]) -> None:
    """The newest row of each thing, from the newest file backwards until all are found."""
    table = f"newest_{family.name}"
    ((things,),) = db.execute("SELECT count(*) FROM things WHERE family = ?", [family.name]).fetchall()
    for file in raw:
        columns = ", ".join([*STAMP, *family.names[: file.fields]])
        lot = ", ".join(quoted(str(folder / name)) for name in file.names)
        db.execute(
            f"INSERT INTO {table} BY NAME SELECT {columns} FROM read_parquet([{lot}])"
            f" WHERE thing NOT IN (SELECT thing FROM {table})"
            " QUALIFY row_number() OVER (PARTITION BY thing ORDER BY at_ms DESC) = 1"
        )
        ((found,),) = db.execute(f"SELECT count(*) FROM {table}").fetchall()
        if found >= things:
            return
