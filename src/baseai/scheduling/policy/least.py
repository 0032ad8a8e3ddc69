"""The least first, with preemption: what SRTF and SRSF have in common.

Invariant: nobody is stopped but for somebody with less left to do than each that is stopped, and not more of them
than it needs; who runs and is not in the way stays where it is. Restarts are not weighed: the published policies
take them as free.
"""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Spots
from baseai.scheduling.policy.knowledge import ends_s, shortest_left_s
from baseai.scheduling.policy.line import Line
from baseai.scheduling.policy.seam import Moment, Move, Packing, Running, Start, Stop


class Least:
    """Whoever weighs least runs. A subclass says what weighs."""

    needs_durations = True

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._packing = packing
        self._line = Line()

    @abstractmethod
    def weight(self, gang: Gang, left_s: float) -> float:
        """What is left to do, as this policy counts it."""

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in moment.arrived:
            self._line.join(gang, self.weight(gang, shortest_left_s(moment, gang)))
        heaviest = sorted(
            (self.weight(running.gang, ends_s(moment, running) - moment.now_s), running.gang.number, running)
            for running in moment.running.values()
        )
        hopeless: set[Shape] = set()
        for weight, gang in self._line.but(hopeless):
            spots = self._packing.place(gang, moment.hall)
            if spots is None:
                while heaviest and heaviest[-1][2].gang.run_id not in moment.running:
                    heaviest.pop()
                victims, spots = self._room_for(gang, weight, heaviest, moment.hall)
                for victim in victims:
                    yield Stop(victim.gang.run_id)
                    self._line.join(
                        victim.gang, self.weight(victim.gang, shortest_left_s(moment, victim.gang))
                    )
                stopped = {victim.gang.run_id for victim in victims}
                heaviest = [each for each in heaviest if each[2].gang.run_id not in stopped]
            if spots is None:
                hopeless.add(gang.shape)
            else:
                self._line.leave(gang)
                yield Start(gang.run_id, spots)

    def _room_for(
        self, gang: Gang, weight: float, heaviest: list[tuple[float, int, Running]], hall: Hall
    ) -> tuple[list[Running], Spots | None]:
        """Whom to stop so that the gang fits, and where it then goes; nobody and None where that does not help."""
        milli = int(hall.spare.sum())
        trial: Hall | None = None
        gone: list[Running] = []
        for heavier, number, running in reversed(heaviest):
            if (heavier, number) <= (weight, gang.number):
                break
            trial = trial or hall.copy()
            trial.remove(running.gang.run_id)
            gone.append(running)
            milli += running.gang.shape.milli_total
            if milli < gang.shape.milli_total:
                continue
            spots = self._packing.place(gang, trial)
            if spots is None:
                continue
            used = {spot.row for spot in spots}
            return [each for each in gone if used & {spot.row for spot in each.spots}], spots
        return [], None
