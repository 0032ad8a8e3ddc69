"""Gather: pledge on a fabric, where a gang that would be scattered waits a little for a better place.

It waits a tenth of the time it will run and half an hour at most, three times that rather than cross pods; others may
pass meanwhile. What backfilling gains in waiting pays for it.
"""

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Spots
from baseai.scheduling.policy.fabric import Fabric
from baseai.scheduling.policy.pledge import Pledge
from baseai.scheduling.policy.seam import Moment, Packing
from baseai.scheduling.policy.timeline import Timeline

PATIENCE_S, PATIENCE_RATIO = 1800.0, 0.1  # at most, and of its own running time
ACROSS_PODS = 3.0  # times as patient
LEAVES_RATIO = 1.5  # of the fewest; up to it nobody waits for better


class Gather(Pledge):
    """See the head of this file. Finds the nodes itself (`Fabric`)."""

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._fabric = Fabric(hall, rng)
        super().__init__(hall, rng, self._fabric)

    def rather_s(self, moment: Moment, gang: Gang, spots: Spots) -> float:
        if gang.shape.pods == 1:
            return moment.now_s
        scatter = self._fabric.scatter(gang, spots, moment.hall)
        if scatter.pods == 1 and scatter.leaves <= LEAVES_RATIO * scatter.leaves_fewest:
            return moment.now_s
        patience_s = min(PATIENCE_S, PATIENCE_RATIO * self.lasts_s(gang))
        return gang.submit_s + patience_s * (ACROSS_PODS if scatter.pods > 1 else 1.0)

    def beside(self, timeline: Timeline, gang: Gang, spots: Spots, hall: Hall) -> Spots | None:
        """Where it was put or not at all: elsewhere it would be scattered."""
        free = timeline.is_free(gang.shape, [spot.row for spot in spots], self.lasts_s(gang))
        return spots if free else None
