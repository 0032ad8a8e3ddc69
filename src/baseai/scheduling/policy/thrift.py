"""Thrift: shortest remaining service first, where a preemption must be worth more than it takes away.

A gang is worth one over the seconds it has left: so much sooner, per second, one is done. Whoever has the least
accelerator time left is asked first, as in SRSF; but it may stop others only if it is worth more than all of them
together and a margin, so that holes that no small gang fills go to a large one, and nearly equal ones do not change
places. Since a restart costs, a gang first waits some restarts long for room that comes by itself: several short ones
that come together then follow each other where one long one was stopped.

Invariant: nobody is stopped who started at this instant or ends within a restart; what all that run are worth grows
with every eviction, so that a turn comes to an end.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterator

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.eviction import Stoppable, eviction_for
from baseai.scheduling.policy.knowledge import ends_s, shortest_left_s
from baseai.scheduling.policy.seam import Moment, Move, Packing, Running, Start, Stop, Wake

MARGIN = 0.2  # by which it must be worth more
PATIENCE = 25.0  # restarts it waits before it stops anybody
LEFT_LEAST_S = 1.0  # so that nobody is worth endlessly much


class Thrift:
    """See the head of this file. Knows true durations."""

    needs_durations = True
    margin = MARGIN
    patience = PATIENCE

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._packing = packing
        self._lines: dict[Shape, list[tuple[float, int, Gang]]] = {}  # of each shape, the least left first
        self._joined: dict[str, tuple[float, float]] = {}  # run → (left as it stands in its line, since when)

    # --------------------------------------------------------------------- what a policy that knows less changes

    def left_s(self, moment: Moment, gang: Gang) -> float:
        """Seconds a waiting gang has left."""
        return shortest_left_s(moment, gang)

    def running_left_s(self, moment: Moment, running: Running) -> float:
        return ends_s(moment, running) - moment.now_s

    def learned(self, moment: Moment) -> bool:
        """Take in what has ended; whether what is known of those that wait has changed by it."""
        return False

    def wake_s(self, moment: Moment) -> float:
        """When what is known changes by itself."""
        return math.inf

    # -------------------------------------------------------------------------------------------------- the turn

    def turn(self, moment: Moment) -> Iterator[Move]:
        if self.learned(moment):
            self._rejoin(moment)
        for gang in moment.arrived:
            self._join(moment, gang, moment.now_s)
        wake_s = math.inf
        full, settled = set[Shape](), set[Shape]()  # no room now; and nobody to be stopped for them
        while True:
            head = self._first(settled)
            if head is None:
                break
            left_s, gang = head
            if gang.shape not in full:
                spots = self._packing.place(gang, moment.hall)
                if spots is not None:
                    self._leave(gang)
                    yield Start(gang.run_id, spots)
                    continue
                full.add(gang.shape)
            ripe_s = self._joined[gang.run_id][1] + self.patience * moment.restart_s
            if moment.now_s < ripe_s:
                settled.add(gang.shape)
                wake_s = min(wake_s, ripe_s)
                continue
            victims = eviction_for(
                gang, self._worth(left_s), self._stoppable(moment), moment.hall, self._packing
            )
            if not victims:
                settled.add(gang.shape)
                continue
            for victim in victims:
                yield Stop(victim.gang.run_id)
                self._join(moment, victim.gang, moment.now_s)
            spots = self._packing.place(gang, moment.hall)
            if spots is None:
                raise AssertionError(f"{gang.run_id} was to fit after its eviction")
            self._leave(gang)
            yield Start(gang.run_id, spots)
            full.clear()  # those who were stopped have left other rows as well
        wake_s = min(wake_s, self.wake_s(moment)) if self._joined else math.inf
        if wake_s < math.inf:
            yield Wake(wake_s)

    def _first(self, settled: set[Shape]) -> tuple[float, Gang] | None:
        """The head of a line that is not settled with the least accelerator time left."""
        best: tuple[float, int, float, Gang] | None = None
        for shape, line in self._lines.items():
            if shape in settled:
                continue
            left_s, number, gang = line[0]
            key = (left_s * shape.milli_total, number)
            if best is None or key < best[:2]:
                best = (*key, left_s, gang)
        return None if best is None else best[2:]

    def _stoppable(self, moment: Moment) -> list[Stoppable]:
        found = []
        for running in moment.running.values():
            left_s = self.running_left_s(moment, running)
            if left_s >= moment.restart_s and running.since_s < moment.now_s:
                found.append(Stoppable((1.0 + self.margin) * self._worth(left_s), running))
        return found

    def _worth(self, left_s: float) -> float:
        return 1.0 / max(left_s, LEFT_LEAST_S)

    # ------------------------------------------------------------------------------------------------- the lines

    def _join(self, moment: Moment, gang: Gang, since_s: float) -> None:
        again_s = moment.restart_s if moment.served_s(gang) > 0 else 0.0
        left_s = self.left_s(moment, gang) + again_s
        insort(self._lines.setdefault(gang.shape, []), (left_s, gang.number, gang))
        self._joined[gang.run_id] = (left_s, since_s)

    def _leave(self, gang: Gang) -> None:
        left_s, _ = self._joined.pop(gang.run_id)
        line = self._lines[gang.shape]
        del line[bisect_left(line, (left_s, gang.number))]
        if not line:
            del self._lines[gang.shape]

    def _rejoin(self, moment: Moment) -> None:
        """Put everybody in line anew, waiting for as long as before."""
        lines, joined = self._lines, self._joined
        self._lines, self._joined = {}, {}
        for line in lines.values():
            for _, _, gang in line:
                self._join(moment, gang, joined[gang.run_id][1])
