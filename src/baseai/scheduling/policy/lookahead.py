"""Lookahead: the node on which the least will stay unused for what usually comes, learned from what came.

Invariant: who fits is never refused, and a cost that is kept is that of the row as it stands and of the mix last
learned: rows that changed since a shape was last asked for are reckoned again when it is asked for, and no others.
Why these parts and weights: docs/decisions/scheduling-lookahead.md.
"""

import math

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Hall, Ints, Spot, Spots
from baseai.scheduling.policy.mix import Floats, Mix
from baseai.scheduling.policy.potential import Potential
from baseai.scheduling.policy.ranking import ranked
from baseai.scheduling.policy.scarcity import Kinds

RELEARN_RATIO = 1.15  # so many times as many gangs have come
RELEARN_LEAST = 32  # gangs between two lessons, at least
KEPT_CELLS = 4_000_000  # costs that are kept: shapes × rows


class _Costs:
    """Of one shape, on every row; inf where it does not fit."""

    __slots__ = ("cost", "device", "reckoned")

    def __init__(self, rows: int) -> None:
        self.cost: Floats = np.full(rows, np.inf)
        self.device: NDArray[np.int8] = np.zeros(rows, dtype=np.int8)
        self.reckoned = -1  # changes that are in it


class Lookahead:
    """A decision costs the rows that changed since its shape was last asked for, and one look over all rows."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._hall = hall
        self._every: Ints = np.arange(len(hall))
        self._changed = hall.watch()
        self._changes = 0
        self._change_of: Ints = np.zeros(len(hall), dtype=np.int64)  # the last change of each row
        self._mix = Mix()
        self._due = 1  # gangs that have come when the next lesson is taken
        self._kinds = Kinds(hall)
        self._potential: Potential | None = None
        self._standing: Floats = np.zeros(len(hall))  # potential of each row as it stands
        self._kept: dict[Shape, _Costs] = {}
        self._kept_most = max(64, KEPT_CELLS // max(1, len(hall)))

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        self._mix.count(gang)
        shape = gang.shape
        if self._mix.gangs >= self._due and not hall.fits(shape).any():
            return None  # a lesson can wait for somebody to whom it matters
        if shape not in self._kept and not hall.fits(shape).any():
            return None  # nor is anything reckoned for one that fits nowhere
        potential = self._up_to_date()
        kept = hall is self._hall or hall.origin is self._hall
        costs = self._costs(shape, potential) if kept else self._on_a_copy(shape, hall, potential)
        if shape.pods > 1 or shape.one_model:
            return ranked(hall, shape, lambda rows: rows[costs.cost[rows].argsort(kind="stable")])
        cost = costs.cost if hall.origin is None else np.where(hall.ready, costs.cost, np.inf)
        row = int(cost.argmin()) if len(hall) else 0
        if not len(hall) or math.isinf(cost[row]):
            return None
        if 0 < shape.milli < WHOLE:
            return (Spot(row, (int(costs.device[row]),)),)
        return (hall.spot(row, shape),)

    def heed(self, gang: Gang) -> None:
        """Learn of one that came and was placed otherwise."""
        self._mix.count(gang)

    def costs(self, shape: Shape, hall: Hall) -> Floats:
        """What one pod of the shape strands on each row, in thousandths of accelerators; inf where it does not fit.

        Read and not kept: the next question may change it. Of a hall that is known and its views it costs the rows that
        changed since the shape was last asked for.
        """
        potential = self._up_to_date()
        if hall is not self._hall and hall.origin is not self._hall:
            return self._on_a_copy(shape, hall, potential).cost
        cost = self._costs(shape, potential).cost
        return cost if hall.origin is None else np.where(hall.ready, cost, np.inf)

    def _up_to_date(self) -> Potential:
        """Notice which rows changed, and learn anew where that is due."""
        if self._potential is None or self._mix.gangs >= self._due:
            self._potential = Potential(self._hall, self._kinds, self._mix.learned())
            self._due = max(
                self._mix.gangs + RELEARN_LEAST,
                min(int(self._mix.gangs * RELEARN_RATIO), self._mix.gangs + len(self._hall) // 4),
            )
            self._notice(self._every)
        elif self._changed:
            self._notice(np.array(sorted(self._changed), dtype=np.int64))
        self._changed.clear()
        return self._potential

    def _notice(self, rows: Ints) -> None:
        assert self._potential is not None
        self._changes += 1
        self._change_of[rows] = self._changes
        self._standing[rows] = self._potential.of(self._hall, rows)

    def _costs(self, shape: Shape, potential: Potential) -> _Costs:
        costs = self._kept.pop(shape, None)
        if costs is None:
            costs = _Costs(len(self._hall))
            if len(self._kept) >= self._kept_most:
                del self._kept[next(iter(self._kept))]  # whichever was not asked for the longest
        self._kept[shape] = costs
        if costs.reckoned < self._changes:
            rows = np.flatnonzero(self._change_of > costs.reckoned)
            _reckon(costs, self._hall, shape, rows, potential, self._standing[rows])
            costs.reckoned = self._changes
        return costs

    def _on_a_copy(self, shape: Shape, hall: Hall, potential: Potential) -> _Costs:
        costs = _Costs(len(hall))
        _reckon(costs, hall, shape, self._every, potential, potential.of(hall, self._every))
        return costs


def _reckon(
    costs: _Costs, hall: Hall, shape: Shape, rows: Ints, potential: Potential, standing: Floats
) -> None:
    """The costs of a shape on these rows: how much more will stay unused than without it."""
    fits = hall.fits(shape, rows)
    costs.cost[rows] = np.inf
    fitting = rows[fits]
    if len(fitting):
        after, device = potential.after(hall, shape, fitting)
        costs.cost[fitting] = after - standing[fits]
        costs.device[fitting] = device
