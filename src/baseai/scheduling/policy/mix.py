"""A mix is what came lately: how often each shape was asked for, the older the less.

Invariant: it knows arrivals and nothing else, and each at most once; what is to come is never asked. Whoever looks
ahead takes a `learned` copy and works with that until it takes the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Ints

Floats = NDArray[np.float64]

MEMORY = 20_000  # gangs after which an arrival counts for 1/e of a new one
SHAPES_MOST = 1024  # the rarest beyond are forgotten whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A mix at one instant; every array has one element for each shape."""

    shapes: tuple[Shape, ...]
    frequency: Floats  # of pods; sums to 1, or is empty
    milli: Ints
    cpu_milli: Ints
    memory_mib: Ints

    @property
    def volume(self) -> Floats:
        """Thousandths of accelerators that an average pod brings in each shape."""
        return self.frequency * self.milli


class Mix:
    """Counts arrivals. Counting costs O(1); a copy O(shapes log shapes)."""

    def __init__(self) -> None:
        self._weights: dict[Shape, float] = {}
        self._new = 1.0  # what an arrival counts now: growing it is the same as shrinking all others
        self._last = -1
        self.gangs = 0

    def count(self, gang: Gang) -> None:
        """One that is asked for again counts once: numbers rise."""
        if gang.number <= self._last:
            return
        self._last = gang.number
        self.gangs += 1
        self._new *= 1.0 + 1.0 / MEMORY
        shape = gang.shape
        self._weights[shape] = self._weights.get(shape, 0.0) + self._new * shape.pods

    def learned(self) -> Learned:
        if len(self._weights) > SHAPES_MOST:
            rarest = sorted(self._weights, key=self._weights.__getitem__)[: len(self._weights) - SHAPES_MOST]
            for shape in rarest:
                del self._weights[shape]
        if self._new > 1e100:
            self._weights = {shape: weight / self._new for shape, weight in self._weights.items()}
            self._new = 1.0
        return learned_of(self._weights)


def learned_of(weights: Mapping[Shape, float]) -> Learned:
    """Shapes in the order given, frequencies in proportion to the weights."""
    shapes = tuple(weights)
    frequency = np.array(list(weights.values()), dtype=np.float64)
    return Learned(
        shapes=shapes,
        frequency=frequency / frequency.sum() if len(shapes) else frequency,
        milli=np.array([shape.milli for shape in shapes], dtype=np.int64),
        cpu_milli=np.array([shape.cpu_milli for shape in shapes], dtype=np.int64),
        memory_mib=np.array([shape.memory_mib for shape in shapes], dtype=np.int64),
    )
