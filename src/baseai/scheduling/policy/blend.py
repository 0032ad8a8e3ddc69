"""Blend: the packing of the house. Gangs of several pods go by the fabric where it is known, all else by lookahead.

Invariant: who fits is never refused; the topology that a gang requires is kept, and the one it prefers is tried first
(`ranking`); runs that had best not share a failure domain are spread over as many as there are (`spread`). What comes
is learned from every gang, whichever way it goes.
"""

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Bools, Hall, Spot, Spots
from baseai.scheduling.policy.fabric import Fabric
from baseai.scheduling.policy.lookahead import Lookahead
from baseai.scheduling.policy.spread import steps

FORGET_FROM = 256  # runs of one name, before it is looked who of them is gone


class Blend:
    """See the head of this file. A decision costs that of the policy it goes by, and one more look where it spreads."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._hall = hall
        self.lookahead, self.fabric = Lookahead(hall, rng), Fabric(hall, rng)
        self._on_fabric: Bools = np.array([name != "" for name in hall.leaves], dtype=np.bool_)[hall.leaf]
        self._alike: dict[str, dict[str, None]] = {}  # runs that were placed or stand, by what they spread

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        others = self._others(gang, hall)
        self.stands(gang)
        packing = self.fabric if self.goes_by_fabric(gang.shape) else self.lookahead
        if packing is self.fabric:
            self.lookahead.heed(gang)
        if others:
            for open_rows in steps(hall, gang.shape, others):
                if found := packing.place(gang, hall.narrowed(open_rows)):
                    return found
        return packing.place(gang, hall)

    def stands(self, gang: Gang) -> None:
        """This gang is to be kept apart from its like. Only who was not placed by this policy has to be told of."""
        if gang.terms.spread:
            self._alike.setdefault(gang.terms.spread, {})[gang.run_id] = None

    def goes_by_fabric(self, shape: Shape) -> bool:
        """Whether it has several pods, and the network is known where it may be."""
        if shape.pods == 1:
            return False
        mask = self._hall.permitted(shape)
        return bool((self._on_fabric if mask is None else self._on_fabric & mask).any())

    def _others(self, gang: Gang, hall: Hall) -> list[Spot]:
        """Where its like stand now."""
        alike = self._alike.get(gang.terms.spread) if gang.terms.spread else None
        if not alike:
            return []
        if len(alike) > FORGET_FROM:
            for run_id in list(alike)[: len(alike) // 2]:  # who came lately may be about to start
                if run_id not in self._hall.held:
                    del alike[run_id]
        return [
            spot
            for run_id in alike
            if run_id in hall.held and run_id != gang.run_id
            for spot in hall.held[run_id].spots
        ]
