"""The database file of a metric store: rows of open hours, the newest row of each thing, and what numbers mean.

Invariant: its tables grow columns with the families and lose none. It uses no network and loads no extension.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
from numpy.typing import NDArray

from baseai.telemetry.field import FAMILIES
from baseai.telemetry.layout import STAMP_COLUMNS

FILE = "open.duckdb"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name VARCHAR, value BIGINT);
CREATE TABLE IF NOT EXISTS things (
  family VARCHAR, thing INTEGER, key VARCHAR, born_ms BIGINT, seen VARCHAR, told VARCHAR, sources VARCHAR);
CREATE TABLE IF NOT EXISTS patterns (family VARCHAR, pattern INTEGER, codes BLOB);
CREATE TABLE IF NOT EXISTS boots (boot INTEGER, name VARCHAR);
CREATE TABLE IF NOT EXISTS batches (hour INTEGER, head UBIGINT, tail UBIGINT);
CREATE TABLE IF NOT EXISTS files (
  tier VARCHAR, family VARCHAR, hour INTEGER, hours INTEGER[], names VARCHAR[], fields INTEGER,
  rows BIGINT, is_day BOOLEAN);
"""


def connected(folder: Path, *, memory_mib: int, threads: int) -> duckdb.DuckDBPyConnection:
    """The open database, with every table it needs. `hot_*`: rows that no sealed file has; lot: when they came in."""
    db = duckdb.connect(
        str(folder / FILE),
        config={
            "threads": threads,
            "memory_limit": f"{memory_mib}MiB",
            "temp_directory": str(folder / "tmp"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "checkpoint_threshold": "128MiB",
        },
    )
    db.execute("SET GLOBAL parquet_metadata_cache = true")
    db.execute("SET GLOBAL validate_external_file_cache = 'NO_VALIDATION'")  # a sealed file is never changed
    db.execute(SCHEMA)
    for family in FAMILIES.values():
        columns = ", ".join(f"{name} DOUBLE" for name in family.names)
        db.execute(f"CREATE TABLE IF NOT EXISTS hot_{family.name} ({STAMP_COLUMNS}, lot BIGINT, {columns})")
        db.execute(f"CREATE TABLE IF NOT EXISTS newest_{family.name} ({STAMP_COLUMNS}, {columns})")
        for table in (f"hot_{family.name}", f"newest_{family.name}"):
            known = {name for name, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
            for name in family.names:
                if name not in known:
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {name} DOUBLE")
    return db


def insert(cursor: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Add rows to a table: columns of one length, NaN becoming NULL."""
    cursor.register("fresh", dict(columns))
    try:
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM fresh")
    finally:
        cursor.unregister("fresh")
