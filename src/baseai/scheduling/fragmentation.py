"""Fragmentation is capacity that is free in sum and in no place: somebody waits who would fit the free total.

Invariant: a verdict is about one instant, and says nothing of runs that wait for another reason: behind a booking, at
a limit, or for more than is free. Pure; who reads the verdict (the time ledger does, from its table) is no matter here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Bools, Hall


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pool:
    """The accelerators of one model at one site."""

    model: str
    site: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Reach:
    """Rows that can serve somebody together, and what is free in them."""

    rows: Bools
    whole: int  # accelerators
    spare_milli: int  # thousandths of accelerators, begun ones too
    pools: frozenset[Pool]  # of those rows where something is free


def fragmented_pools(short: Iterable[tuple[Shape, ...]], hall: Hall) -> frozenset[Pool]:
    """Pools with free accelerators that in sum would serve somebody who is short, which no choice of nodes does.

    short: of each that waits, the shapes that would do. Whoever one of them can serve fragments nothing, and only
    nodes where the run may be count; nodes of several sites may serve it together. O(rows) for each different set of
    nodes where runs may be, and for each shape that would fit the total and may add a pool.
    """
    fragmented: set[Pool] = set()
    known: dict[object, tuple[_Reach, ...]] = {}
    for shapes in short:
        found: set[Pool] = set()
        for shape, reach in ((way, reach) for way in shapes for reach in _reaches(way, hall, known)):
            free_milli = reach.spare_milli if shape.milli < WHOLE else reach.whole * WHOLE
            if shape.milli == 0 or free_milli < shape.milli_total or reach.pools <= fragmented:
                continue
            if int(hall.room_together(shape)[reach.rows].sum()) >= shape.pods:
                found.clear()
                break
            found |= reach.pools
        fragmented |= found
    return frozenset(fragmented)


def _reaches(shape: Shape, hall: Hall, known: dict[object, tuple[_Reach, ...]]) -> tuple[_Reach, ...]:
    """All rows where the shape may be, or those of one model at a time where it must have one."""
    where = (shape.models, shape.sites, shape.residency, shape.container, shape.one_model)
    if where not in known:
        permitted = hall.permitted(shape)
        allowed: Bools = hall.ready if permitted is None else hall.ready & permitted
        if shape.one_model:
            models = [
                number for number, name in enumerate(hall.models) if not shape.models or name in shape.models
            ]
            known[where] = tuple(_reach(allowed & (hall.model == number), hall) for number in models)
        else:
            known[where] = (_reach(allowed, hall),)
    return known[where]


def _reach(rows: Bools, hall: Hall) -> _Reach:
    free = np.flatnonzero(rows & (hall.spare > 0))
    pairs = set(zip(hall.model[free].tolist(), hall.site[free].tolist(), strict=True))
    return _Reach(
        rows=rows,
        whole=int(hall.whole[rows].sum()),
        spare_milli=int(hall.spare[rows].sum()),
        pools=frozenset(Pool(model=hall.models[model], site=hall.sites[site]) for model, site in pairs),
    )
