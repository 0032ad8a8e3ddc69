"""First fit: the lowest node ids that hold the gang."""

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Spots
from baseai.scheduling.policy.ranking import ranked


class FirstFit:
    """Rows in the order of node ids. O(rows); nothing is remembered."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        pass

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        shape = gang.shape
        if shape.pods > 1:
            return ranked(hall, shape, lambda rows: rows)
        fits = hall.fits(shape)
        row = int(fits.argmax())
        return (hall.spot(row, shape),) if fits[row] else None
