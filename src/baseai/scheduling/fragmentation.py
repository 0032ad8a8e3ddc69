"""Fragmentation is capacity that is free in sum and in no place: somebody waits who would fit the free total.

Invariant: a verdict is about one instant, and says nothing of runs that wait for another reason: behind a booking, at
a limit, or for more than is free. Pure; who reads the verdict (the time ledger does, from its table) is no matter here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Bools, Hall


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pool:
    """The accelerators of one model at one site."""

    model: str
    site: str


def fragmented_pools(short: Iterable[tuple[Shape, ...]], hall: Hall) -> frozenset[Pool]:
    """Pools with free accelerators that in sum would serve somebody who is short, which no choice of nodes does.

    short: of each that waits, the shapes that would do. Whoever one of them can serve fragments nothing, and only
    nodes where the run may be count; nodes of several sites may serve it together. O(shapes x rows).
    """
    fragmented: set[Pool] = set()
    for shapes in short:
        found: set[Pool] = set()
        ways = ((way, rows) for way in shapes for rows in _together(way, hall))
        for shape, rows in ways:
            if shape.milli == 0 or _milli_free(rows, shape, hall) < shape.milli_total:
                continue
            if int(hall.room_together(shape)[rows].sum()) >= shape.pods:
                found.clear()
                break
            found |= _pools(rows, hall)
        fragmented |= found
    return frozenset(fragmented)


def _together(shape: Shape, hall: Hall) -> Iterator[Bools]:
    """The rows that can serve the shape together: all where it may be, or those of one model at a time."""
    permitted = hall.permitted(shape)
    allowed: Bools = hall.ready if permitted is None else hall.ready & permitted
    if not shape.one_model:
        yield allowed
        return
    for number, name in enumerate(hall.models):
        if not shape.models or name in shape.models:
            yield allowed & (hall.model == number)


def _milli_free(rows: Bools, shape: Shape, hall: Hall) -> int:
    return int(hall.spare[rows].sum() if shape.milli < WHOLE else hall.whole[rows].sum() * WHOLE)


def _pools(rows: Bools, hall: Hall) -> set[Pool]:
    return {
        Pool(model=hall.models[int(hall.model[row])], site=hall.sites[int(hall.site[row])])
        for row in np.flatnonzero(rows & (hall.spare > 0)).tolist()
    }
