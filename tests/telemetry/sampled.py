"""Builders of batches for tests of stores."""

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np

from baseai.telemetry.field import ACCELERATOR, Family, State
from baseai.telemetry.sample import Batch, code_of

S, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
T0 = 1_790_208_000_000  # a midnight, UTC

_numbers = count()


def batch(
    *rows: tuple[str, float, Mapping[str, float]],
    batch_id: str | None = None,
    boot: str = "boot-1",
    node: str = "node-1",
    site: str = "here",
    family: Family = ACCELERATOR,
    states: Mapping[str, State] | None = None,
    sources: Mapping[str, str] | None = None,
) -> Batch:
    """Rows as (key, seconds after T0, fields that have a value). Other fields are absent, or as `states` says."""
    values = np.full((len(rows), len(family.fields)), np.nan)
    codes = np.full(values.shape, code_of(State.ABSENT), dtype=np.uint8)
    for name, state in (states or {}).items():
        codes[:, family.index[name]] = code_of(state)
    for number, (_, _, fields) in enumerate(rows):
        for name, value in fields.items():
            values[number, family.index[name]] = value
            codes[number, family.index[name]] = code_of(State.VALUE)
    return Batch(
        batch_id=batch_id or f"batch-{next(_numbers)}",
        family=family,
        node_id=node,
        site=site,
        boot_id=boot,
        keys=tuple(key for key, _, _ in rows),
        ts_ms=np.array([T0 + round(at_s * S) for _, at_s, _ in rows], dtype=np.int64),
        values=values,
        codes=codes,
        sources=sources or {},
    )


def ticks(
    key: str, field: str, readings: Sequence[float], *, from_s: float = 0, every_s: float = 10
) -> Batch:
    """One field of one thing, tick by tick; NaN is a tick without it."""
    return batch(
        *(
            (key, from_s + number * every_s, {} if np.isnan(value) else {field: value})
            for number, value in enumerate(readings)
        )
    )
