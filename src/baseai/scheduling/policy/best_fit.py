"""Best fit: the node on which the least is left over all that was asked for, each amount in proportion to its own size.

The published rule of that name scores what is left of CPU and of accelerators after placing, weighted equally
(hkust-adsl/kubernetes-scheduler-simulator, the baselines of FGD, ATC'23).
"""

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import UNBOUNDED, Hall, Ints, Spots
from baseai.scheduling.policy.ranking import ranked


class BestFit:
    """The least left of accelerators and CPU wins, then the lowest node id. O(rows)."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._milli_most = max(1, int(hall.devices.max(initial=0))) * 1000
        bounded = hall.cpu_milli[hall.cpu_milli < UNBOUNDED]
        self._cpu_most = max(1, int(bounded.max(initial=0)))

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        return ranked(
            hall, gang.shape, lambda rows: rows[self._left(rows, gang.shape, hall).argsort(kind="stable")]
        )

    def _left(self, rows: Ints, shape: Shape, hall: Hall) -> NDArray[np.float64]:
        milli = (hall.spare[rows] - shape.milli) / self._milli_most
        cpu = hall.cpu_milli[rows]
        return milli + np.where(cpu < UNBOUNDED, (cpu - shape.cpu_milli) / self._cpu_most, 0.0)
