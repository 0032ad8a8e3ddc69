"""The metric store of one machine on DuckDB and Parquet. `docs/decisions/metric-store.md` says why it is as it is."""

from baseai.telemetry.duckdb.store import DuckStore

__all__ = ["DuckStore"]
