"""FOCUS files as Parquet, with types: decimals of 38 digits, instants in UTC, all else text."""

from collections.abc import Sequence
from pathlib import Path

from baseai.finance.focus.rule import Dataset, RuleKind, load_rules

SQL_TYPES = {"decimal": "DECIMAL(38, 17)", "datetime": "TIMESTAMPTZ"}


def write_parquet(folder: Path, dataset: Dataset, columns: Sequence[str]) -> str:
    """Write the dataset's Parquet file beside its CSV; its name."""
    import duckdb

    kinds = {
        rule.column: rule.value
        for rule in load_rules()
        if rule.dataset is dataset and rule.kind is RuleKind.TYPE
    }
    chosen = ", ".join(
        f'CAST("{name}" AS {SQL_TYPES[kind]}) AS "{name}"'
        if (kind := kinds.get(name)) in SQL_TYPES
        else f'"{name}"'
        for name in columns
    )
    name = f"{dataset.value}.parquet"
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        source = connection.read_csv(
            str(folder / dataset.file), header=True, all_varchar=True, na_values=[""]
        )
        source.select(chosen).write_parquet(str(folder / name), compression="zstd")
    return name
