"""An ascent is what a counter had counted, as a function of time that can be cut anywhere.

Invariant: it never falls, and its differences over adjoining times add up exactly, whichever samples it was made from:
it is read in whole thousandths (mJ, ms). Between two samples it rises evenly; before the first and after the last it
stands still: what no sample tells of is nobody's. A reset counts from zero.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """at_ms: shape (points,), rising. counted: shape (points,), never falling, in whole thousandths of the unit."""

    at_ms: NDArray[np.int64]
    counted: NDArray[np.int64]

    def at(self, ms: int) -> int:
        """Counted up to `ms`."""
        if not len(self.at_ms):
            return 0
        right = int(np.searchsorted(self.at_ms, ms, side="right"))
        if right in (0, len(self.at_ms)):
            return int(self.counted[0 if right == 0 else -1])
        begin, end = int(self.at_ms[right - 1]), int(self.at_ms[right])
        left, rise = int(self.counted[right - 1]), int(self.counted[right] - self.counted[right - 1])
        return left + (2 * rise * (ms - begin) + (end - begin)) // (
            2 * (end - begin)
        )  # half rounds up, in integers

    def over(self, from_ms: int, until_ms: int) -> int:
        """Counted within [from_ms, until_ms)."""
        return self.at(until_ms) - self.at(from_ms)

    def around(self, ms: int) -> int:
        """Counted between the samples on both sides of `ms`: what a border there divides."""
        right = int(np.searchsorted(self.at_ms, ms, side="left"))
        if right in (0, len(self.at_ms)):
            return 0
        return int(self.counted[right] - self.counted[right - 1])

    def tells_of(self, from_ms: int, until_ms: int) -> bool:
        """Whether two samples stand on both sides of some part of that time."""
        return len(self.at_ms) > 1 and bool(self.at_ms[0] < until_ms and self.at_ms[-1] > from_ms)


NOTHING = Ascent(at_ms=np.empty(0, np.int64), counted=np.empty(0, np.int64))


def counted(
    at_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    boots: NDArray[np.int32],
    *,
    rate_max: float = float("inf"),
) -> Ascent:
    """The ascent of a counter in its unit (J, s, ...), from samples in rising order.

    values: shape (samples,), NaN where it was not read; such a sample is passed over.
    boots: shape (samples,); another number than the sample before means that it began again at zero, as does a fall.
    rate_max: units a second beyond which a rise cannot be; such a rise counts nothing, for it says nothing.
    """
    seen = ~np.isnan(values)
    at_ms, boots = at_ms[seen], boots[seen]
    thousandths = np.rint(values[seen] * 1000).astype(np.int64)
    if not len(thousandths):
        return NOTHING
    return _summed(at_ms, rises_of(at_ms, thousandths, boots, rate_max=rate_max))


def rises_of(
    at_ms: NDArray[np.int64], counter: NDArray[np.int64], boots: NDArray[np.int32], *, rate_max: float
) -> NDArray[np.int64]:
    """What was counted between each sample and the next, shape (samples - 1,), with resets from zero."""
    steps = np.diff(counter)
    rises = np.where((np.diff(boots) != 0) | (steps < 0), counter[1:], steps)
    return np.where(rises <= rate_max * np.diff(at_ms), rises, 0)


def integrated(
    at_ms: NDArray[np.int64], values: NDArray[np.float64], *, gap_max_ms: int
) -> tuple[Ascent, Ascent]:
    """The integral of a gauge over time in unit × ms, and the ms over which it is known.

    Between two samples it is their mean; two samples further apart than `gap_max_ms` say nothing of the time between.
    """
    if len(at_ms) < 2:
        return NOTHING, NOTHING
    steps = np.diff(at_ms)
    means = (values[1:] + values[:-1]) / 2
    known = (steps <= gap_max_ms) & ~np.isnan(means)
    area = np.rint(np.where(known, means * steps, 0.0)).astype(np.int64)
    return _summed(at_ms, area), _summed(at_ms, np.where(known, steps, 0))


def _summed(at_ms: NDArray[np.int64], rises: NDArray[np.int64]) -> Ascent:
    return Ascent(at_ms=at_ms, counted=np.concatenate((np.zeros(1, np.int64), np.cumsum(rises))))
