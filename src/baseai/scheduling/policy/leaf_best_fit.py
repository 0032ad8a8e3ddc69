"""Leaf best fit: a gang goes under the one leaf switch it fills best, else under as few leaves as it takes.

The usual rule of schedulers that know the fabric, and what any better one is measured by.
"""

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Ints, Spots
from baseai.scheduling.policy.ranking import ranked


class LeafBestFit:
    """The leaf with the least room that holds the whole gang; else leaves with the most room first, pod by pod."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        leaves = len(hall.leaves)
        self._pod_of: Ints = np.zeros(leaves, dtype=np.int64)
        self._pod_of[hall.leaf] = hall.pod

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        shape = gang.shape
        room = hall.room(shape)

        def rank(rows: Ints) -> Ints:
            of_leaf: Ints = np.bincount(
                hall.leaf[rows], weights=room[rows], minlength=len(hall.leaves)
            ).astype(np.int64)
            holds = of_leaf >= shape.pods
            if holds.any():
                best = int(np.where(holds, of_leaf, np.iinfo(np.int64).max).argmin())
                return _of_leaves(rows, hall, np.array([best]))
            of_pod: Ints = np.bincount(self._pod_of, weights=of_leaf, minlength=len(hall.pods)).astype(
                np.int64
            )
            whole = of_pod >= shape.pods  # a pod that holds it all, the tightest first, then the roomiest
            order = np.lexsort((np.where(whole, of_pod, -of_pod), ~whole))
            place_of = order.argsort()
            return _of_leaves(rows, hall, np.lexsort((-of_leaf, place_of[self._pod_of])))

        return ranked(hall, shape, rank)


def _of_leaves(rows: Ints, hall: Hall, leaves: NDArray[np.intp]) -> Ints:
    """The rows under these leaves, leaf by leaf."""
    place = np.full(len(hall.leaves), -1)
    place[leaves] = np.arange(len(leaves))
    of_row = place[hall.leaf[rows]]
    chosen: Ints = rows[of_row.argsort(kind="stable")]
    return chosen[(of_row < 0).sum() :]
