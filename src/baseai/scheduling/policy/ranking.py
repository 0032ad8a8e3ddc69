"""A ranking puts rows in an order of preference; the gang goes to the first that hold it.

Invariant: a gang of one model tries the models one after the other, the preferred first, and never mixes them.
"""

from collections.abc import Callable

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
        return hall.spots(shape, rank(rows).tolist())
    for model in model_order(hall, shape):
        of_model = rows[hall.model[rows] == model]
        if len(of_model) and (found := hall.spots(shape, rank(of_model).tolist())):
            return found
    return None


def model_order(hall: Hall, shape: Shape) -> list[int]:
    """Numbers of the models to try: as the shape prefers them, or all in the order of their names."""
    if shape.models:
        return [hall.models.index(name) for name in shape.models if name in hall.models]
    return list(range(len(hall.models)))
