"""FIFO: strictly in the order of submission; who does not fit holds up everybody behind."""

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start


class Fifo:
    """The head starts as soon as it fits, and nobody before it."""

    needs_durations = False

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._packing = packing
        self._queue: list[tuple[int, Gang]] = []

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in moment.arrived:
            heappush(self._queue, (gang.number, gang))
        while self._queue:
            head = self._queue[0][1]
            spots = self._packing.place(head, moment.hall)
            if spots is None:
                return
            heappop(self._queue)
            yield Start(head.run_id, spots)
