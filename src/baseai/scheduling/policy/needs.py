"""Needs are the shapes that a queue has seen, as columns, so that what finds no room is known for all of them at once.

Invariant: a shape that is said to find no room does not fit onto any single row now; one that is said to may still not
fit, as a gang, or for its models, sites or devices. Shapes are remembered for good: there are far fewer than gangs.
"""

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Bools, Hall


class Needs:
    """A number for each shape, and how many of it wait."""

    def __init__(self) -> None:
        self.number: dict[Shape, int] = {}
        self._columns: NDArray[np.int64] = np.zeros((3, 64), dtype=np.int64)
        self._waiting: NDArray[np.int64] = np.zeros(64, dtype=np.int64)

    def join(self, shape: Shape) -> None:
        number = self.number.setdefault(shape, len(self.number))
        if number == len(self._waiting):
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
            self._waiting = np.concatenate([self._waiting, np.zeros_like(self._waiting)])
        self._columns[:, number] = shape.milli, shape.cpu_milli, shape.memory_mib
        self._waiting[number] += 1

    def leave(self, shape: Shape) -> None:
        self._waiting[self.number[shape]] -= 1

    def finding_room(self, hall: Hall) -> Bools:
        """By number: somebody of it waits, and one pod fits onto some row by its sums. O(shapes x rows)."""
        milli, cpu, memory = self._columns[:, : len(self.number), None]
        fit: Bools = np.where(milli < WHOLE, hall.largest, hall.whole * WHOLE) >= milli
        fit &= hall.cpu_milli >= cpu
        fit &= hall.memory_mib >= memory
        if not hall.all_ready:
            fit &= hall.ready
        found: Bools = fit.any(axis=1) & (self._waiting[: len(self.number)] > 0)
        return found
