"""Random: any rows that hold the gang, each order as likely as any other. What every policy must beat."""

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Spots
from baseai.scheduling.policy.ranking import ranked


class Random:
    """Rows in an order drawn for each gang; a share goes to any accelerator that holds it, not to the tightest."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._rng = rng

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        return ranked(hall, gang.shape, self._rng.permutation)
