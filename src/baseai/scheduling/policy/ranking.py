"""A ranking puts rows in an order of preference; the gang goes to the first that hold it.

Invariant: a gang of one model tries the models one after the other, the preferred first, and never mixes them. A gang
with a reach is put into one leaf, pod or site, or nowhere; one that had best stand near is first tried so.
"""

from collections.abc import Callable

import numpy as np

from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Hall, Ints, Spots

Rank = Callable[[Ints], Ints]
"""Rows that fit, ascending → the same rows, the preferred first."""


def ranked(hall: Hall, shape: Shape, rank: Rank) -> Spots | None:
    """The gang on the rows that fit, as ranked; None where they do not hold it."""
    rows = hall.fits(shape).nonzero()[0]
    if not len(rows):
        return None
    if not shape.one_model:
        return _within_reach(hall, shape, rows, rank)
    for model in model_order(hall, shape):
        of_model = rows[hall.model[rows] == model]
        if len(of_model) and (found := _within_reach(hall, shape, of_model, rank)):
            return found
    return None


def _within_reach(hall: Hall, shape: Shape, rows: Ints, rank: Rank) -> Spots | None:
    """The gang on these rows: near each other where that can be had, and never beyond its reach."""
    if shape.pods > 1:
        for reach in (shape.near, shape.reach):
            if reach and (found := _in_one(hall, shape, rows, rank, reach)):
                return found
        if shape.reach:
            return None
    return hall.spots(shape, rank(rows).tolist())


def _in_one(hall: Hall, shape: Shape, rows: Ints, rank: Rank, reach: str) -> Spots | None:
    """The gang within one leaf, pod or site: that of the row that is ranked first, of those that hold it."""
    of_row = hall.domain(reach)[rows]
    room = hall.room_together(shape)[rows]
    holds = (np.bincount(of_row, weights=room) >= shape.pods).nonzero()[0]
    if not len(holds):
        return None
    ranked_rows = rank(rows[np.isin(of_row, holds)])
    domain = hall.domain(reach)
    for one in dict.fromkeys([*domain[ranked_rows].tolist(), *holds.tolist()]):
        if found := hall.spots(shape, rank(rows[of_row == one]).tolist()):
            return found
    return None


def model_order(hall: Hall, shape: Shape) -> list[int]:
    """Numbers of the models to try: as the shape prefers them, or all in the order of their names."""
    if shape.models:
        return [hall.models.index(name) for name in shape.models if name in hall.models]
    return list(range(len(hall.models)))
