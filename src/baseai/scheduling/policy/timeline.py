"""A timeline is what every row will have free, from now until all that runs has ended, if nothing else starts.

Invariant: what is taken from it is taken for the whole stretch; a place is offered only where it is free throughout.
It counts thousandths of accelerators, CPU and memory by row; which devices they are is left to the instant of starting.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Ints
from baseai.scheduling.policy.knowledge import ends_s
from baseai.scheduling.policy.seam import Moment

EVER = float("inf")


class Timeline:
    """Steps over three amounts of every row. Built from what runs in O(running x rows)."""

    def __init__(self, moment: Moment) -> None:
        hall = moment.hall
        self._hall: Hall = hall
        ends = sorted(
            (ends_s(moment, running), running.gang.number, running) for running in moment.running.values()
        )
        self._at_s = [moment.now_s]
        free = [np.array([hall.spare, hall.cpu_milli, hall.memory_mib])]
        for at_s, _, running in ends:
            if at_s > self._at_s[-1]:
                self._at_s.append(at_s)
                free.append(free[-1].copy())
            for spot in running.spots:
                free[-1][:, spot.row] += _needs(running.gang.shape)
        self._free: NDArray[np.int64] = np.array(free)  # (steps, 3, rows)

    def is_free(self, shape: Shape, rows: Sequence[int], lasts_s: float) -> bool:
        """Whether a gang can be on these rows from now on, one entry a pod."""
        free = self._least(0, lasts_s)
        needs = _needs(shape)
        for row in rows:
            free[:, row] -= needs
            if (free[:, row] < 0).any():
                return False
        return True

    def rows_free(self, shape: Shape, lasts_s: float) -> Ints:
        """Rows on which at least one pod can be from now on."""
        found: Ints = (_room(shape, self._least(0, lasts_s)) > 0).nonzero()[0]
        return found

    def take(self, shape: Shape, rows: Iterable[int], from_s: float, lasts_s: float) -> None:
        first, last = self._step(from_s), self._step(from_s + lasts_s)
        needs = _needs(shape)
        for row in rows:
            self._free[first:last, :, row] -= needs

    def reserve(self, gang: Gang, lasts_s: float) -> float:
        """Hold the earliest place for a gang, on the rows it fills best; when that is. EVER where nobody knows."""
        shape = gang.shape
        mask = self._hall.permitted(shape)
        for step, from_s in enumerate(self._at_s):
            free = self._least(step, lasts_s)
            room = _room(shape, free)
            if mask is not None:
                room = np.where(mask, room, 0)
            if not self._hall.all_ready:
                room = np.where(self._hall.ready, room, 0)
            if shape.apart:
                room = np.minimum(room, 1)
            if int(room.sum()) < shape.pods:
                continue
            rows: list[int] = []
            for row in free[0].argsort(kind="stable").tolist():
                rows += [row] * min(int(room[row]), shape.pods - len(rows))
            self.take(shape, rows, from_s, lasts_s)
            return from_s
        return EVER

    def _least(self, step: int, lasts_s: float) -> NDArray[np.int64]:
        """What is free throughout, from a step on."""
        last = max(step + 1, bisect_left(self._at_s, self._at_s[step] + lasts_s))
        found: NDArray[np.int64] = self._free[step:last].min(axis=0)
        return found

    def _step(self, at_s: float) -> int:
        """The step that begins at this instant, made where there is none."""
        step = bisect_left(self._at_s, at_s)
        if step == len(self._at_s) or self._at_s[step] != at_s:
            self._at_s.insert(step, at_s)
            self._free = np.insert(self._free, step, self._free[step - 1], axis=0)
        return step


def _needs(shape: Shape) -> NDArray[np.int64]:
    return np.array([shape.milli, shape.cpu_milli, shape.memory_mib], dtype=np.int64)


def _room(shape: Shape, free: NDArray[np.int64]) -> Ints:
    """How many pods each row holds by its sums, at most as many as the gang has."""
    room: Ints = np.full(free.shape[1], shape.pods, dtype=np.int64)
    for amount, need in zip(free, _needs(shape).tolist(), strict=True):
        if need:
            np.minimum(room, amount // need, out=room)
    return room
