"""SJF: whoever is shortest starts first, nobody is preempted; who does not fit is passed over and may starve."""

from collections.abc import Iterator

import numpy as np

from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.knowledge import shortest_left_s
from baseai.scheduling.policy.line import Line
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start


class Sjf:
    """Shortest first, among those that fit now."""

    needs_durations = True

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._packing = packing
        self._line = Line()

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in moment.arrived:
            self._line.join(gang, shortest_left_s(moment, gang))
        hopeless: set[Shape] = set()
        for _, gang in self._line.but(hopeless):
            spots = self._packing.place(gang, moment.hall)
            if spots is None:
                hopeless.add(gang.shape)
            else:
                self._line.leave(gang)
                yield Start(gang.run_id, spots)
