"""Random: any rows that hold the gang, each order as likely as any other. What every policy must beat."""

import numpy as np

from baseai.scheduling.gang import WHOLE, Gang
from baseai.scheduling.hall import Hall, Spot, Spots
from baseai.scheduling.policy.ranking import ranked


class Random:
    """Rows in an order drawn for each gang; a share of a gang of one goes to any accelerator that holds it."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._rng = rng

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        shape = gang.shape
        spots = ranked(hall, shape, self._rng.permutation)
        if spots is not None and shape.pods == 1 and 0 < shape.milli < WHOLE:
            row = spots[0].row
            return (Spot(row, (int(self._rng.choice((hall.free[row] >= shape.milli).nonzero()[0])),)),)
        return spots
