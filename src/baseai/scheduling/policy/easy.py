"""EASY: first come, first served, and whoever does not put off the head may start before its turn.

The head that does not fit is given the earliest instant at which enough will have ended, and the nodes it will then
take; others start now if they end before, or if they leave those nodes what the head needs.
"""

from collections.abc import Iterator

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Misplaced, Spots
from baseai.scheduling.policy.knowledge import ends_s, known, shortest_left_s
from baseai.scheduling.policy.line import Line
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start


class Easy:
    """One reservation, for the head, and backfilling in the order of submission behind it."""

    needs_durations = True

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._packing = packing
        self._line = Line()

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in moment.arrived:
            self._line.join(gang, gang.number)
        while (head := self._line.first()) is not None:
            spots = self._packing.place(head, moment.hall)
            if spots is None:
                break
            self._line.leave(head)
            yield Start(head.run_id, spots)
        if head is None:
            return
        hopeless = {head.shape}
        shadow_s = 0.0
        then: Hall | None = None
        late: set[Shape] = set()  # shapes that do not fit beside the head
        for _, gang in self._line.but(hopeless):
            # Where it would end too late even on its fastest model, asking for nodes is in vain.
            if gang.shape in late and moment.now_s + shortest_left_s(moment, gang) > shadow_s:
                continue
            spots = self._packing.place(gang, moment.hall)
            if spots is None:
                hopeless.add(gang.shape)
                continue
            if then is None:
                shadow_s, then = self._reserved(head, moment)
            model = moment.hall.models[moment.hall.model[spots[0].row]]
            is_late = moment.now_s + known(moment.left_s(gang, model)) > shadow_s
            if is_late and (gang.shape in late or not _beside(then, gang, spots)):
                late.add(gang.shape)
                continue
            self._line.leave(gang)
            yield Start(gang.run_id, spots)

    def _reserved(self, head: Gang, moment: Moment) -> tuple[float, Hall]:
        """When the head can start by the ends of what runs, and the hall of that instant with the head in it."""
        then = moment.hall.copy()
        milli = int(then.spare.sum())
        ends = sorted(
            (ends_s(moment, running), running.gang.number, running.gang)
            for running in moment.running.values()
        )
        at_s = moment.now_s
        for at_s, _, gang in ends:
            then.remove(gang.run_id)
            milli += gang.shape.milli_total
            if milli < head.shape.milli_total:
                continue
            spots = self._packing.place(head, then)
            if spots is not None:
                then.place(head.run_id, head.shape, spots)
                return at_s, then
        return float("inf"), then  # a node is away: nobody knows when, and nothing is in its way


def _beside(then: Hall, gang: Gang, spots: Spots) -> bool:
    """Whether the gang leaves the head what it needs; if so it is put there as well."""
    try:
        then.place(gang.run_id, gang.shape, spots)
    except Misplaced:
        return False
    return True
