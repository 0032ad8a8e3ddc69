"""Rows are samples of one family as a store keeps them: columns of numbers, with keys and codes behind numbers too.

Invariant: rows are never changed; what is not known is NaN. In order means by thing and, of one thing, by instant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows, not always in order.

    things, boots, patterns: shape (rows,), the store's numbers for keys, starts of nodes, and codes of a whole row.
    values: shape (fields, rows), NaN where nothing is known.
    """

    things: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    boots: NDArray[np.int32]
    patterns: NDArray[np.int32]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.things)

    def pick(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Rows":
        return Rows(
            things=self.things[which],
            at_ms=self.at_ms[which],
            boots=self.boots[which],
            patterns=self.patterns[which],
            values=self.values[:, which],
        )

    def in_order(self) -> "Rows":
        """Sorted by thing and instant; equal ones stay as they came."""
        return self.pick(np.lexsort((self.at_ms, self.things)))


def no_rows(fields: int) -> Rows:
    few = np.zeros(0, dtype=np.int32)
    return Rows(
        things=few, at_ms=np.zeros(0, dtype=np.int64), boots=few, patterns=few, values=np.zeros((fields, 0))
    )


def all_of(parts: Sequence[Rows]) -> Rows:
    """Several lots of rows behind one another."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        things=np.concatenate([part.things for part in parts]),
        at_ms=np.concatenate([part.at_ms for part in parts]),
        boots=np.concatenate([part.boots for part in parts]),
        patterns=np.concatenate([part.patterns for part in parts]),
        values=np.concatenate([part.values for part in parts], axis=1),
    )
