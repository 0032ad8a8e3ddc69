"""A rolled row is a thing in one bucket with all its fields: what sealing writes, what a chart of one thing is made of.

Invariant: rolled rows are in order by thing and bucket, and equal those rolled from the samples again, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Kind
from baseai.telemetry.rollup import Cells, Rollup, cells_of, joined, of_rollup, of_samples
from baseai.telemetry.rows import Rows
from baseai.telemetry.store import STEP_MS
from baseai.telemetry.tier import ROLLED

Merge = Callable[[Cells, NDArray[np.int32]], NDArray[np.int32]]  # patterns of rows → the pattern of each cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """shape (cells,) each; `boots` is the start of the node at a cell's last sample. fields: one rollup each."""

    things: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    boots: NDArray[np.int32]
    patterns: NDArray[np.int32]
    fields: tuple[Rollup, ...]

    def __len__(self) -> int:
        return len(self.things)

    def values(self) -> NDArray[np.float64]:
        """Shape (cells, fields): the mean of gauges, the last of the rest."""
        table = np.full((len(self), len(self.fields)), np.nan)
        for column, rollup in enumerate(self.fields):
            if rollup.kind is Kind.GAUGE:
                known = rollup.count > 0
                np.divide(rollup.total, rollup.count, out=table[:, column], where=known)
            else:
                table[:, column] = rollup.last
        return table


def of_rows(kinds: Sequence[Kind], rows: Rows, step_ms: int, merge: Merge) -> Rolled:
    """Rows, in order, in buckets of `step_ms`. kinds: of each line of `rows.values`."""
    cells = cells_of(rows.things, rows.at_ms, step_ms)
    return Rolled(
        things=cells.things,
        at_ms=cells.at_ms,
        boots=rows.boots[cells.ends - 1],
        patterns=merge(cells, rows.patterns),
        fields=tuple(
            of_samples(kind, cells, values, rows.boots)
            for kind, values in zip(kinds, rows.values, strict=True)
        ),
    )


def coarser(finer: Rolled, step_ms: int, merge: Merge) -> Rolled:
    """The same in longer buckets."""
    cells = cells_of(finer.things, finer.at_ms, step_ms)
    return Rolled(
        things=cells.things,
        at_ms=cells.at_ms,
        boots=finer.boots[cells.ends - 1],
        patterns=merge(cells, finer.patterns),
        fields=tuple(of_rollup(rollup, step_ms) for rollup in finer.fields),
    )


def by_tiers(kinds: Sequence[Kind], rows: Rows, step_ms: int, merge: Merge) -> Rolled:
    """Rows in buckets of `step_ms`, by way of every tier between; see `rollup.chain`."""
    steps = [STEP_MS[tier] for tier in ROLLED if step_ms % STEP_MS[tier] == 0] or [step_ms]
    rolled = of_rows(kinds, rows, steps[0], merge)
    for longer_ms in steps[1:]:
        rolled = coarser(rolled, longer_ms, merge)
    return rolled


def all_of(parts: Sequence[Rolled]) -> Rolled:
    """Several lots behind one another, which together must be in order."""
    return Rolled(
        things=np.concatenate([part.things for part in parts]),
        at_ms=np.concatenate([part.at_ms for part in parts]),
        boots=np.concatenate([part.boots for part in parts]),
        patterns=np.concatenate([part.patterns for part in parts]),
        fields=tuple(joined(same) for same in zip(*(part.fields for part in parts), strict=True)),
    )
