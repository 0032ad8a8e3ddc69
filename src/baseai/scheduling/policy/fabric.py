"""Fabric: a gang goes under as few leaf switches as may be, inside one pod where one holds it, and spares whole leaves.

A gang that one leaf holds goes where the least is left beside it. A larger one takes the fullest of a pod's leaves, and
the last of its pods the leaf that they fill best; of all fabric pods the one with the fewest leaves so, then the
tightest. Only what no fabric pod holds crosses, from the roomiest on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Ints, Spots
from baseai.scheduling.policy.ranking import ranked


class Scatter(NamedTuple):
    """Over how much of the fabric a gang is spread."""

    leaves: int
    leaves_fewest: int  # that it takes in an empty hall
    pods: int  # of the fabric


class Fabric:
    """See the head of this file. O(rows + leaves^2) for a gang that no leaf holds."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        leaves = len(hall.leaves)
        self._empty = Hall(hall.bays)
        self._pod_of: Ints = np.zeros(leaves, dtype=np.int64)
        self._pod_of[hall.leaf] = hall.pod
        self._fewest: dict[Shape, int] = {}

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        shape = gang.shape
        room, spare = hall.room(shape), hall.spare

        def rank(rows: Ints) -> Ints:
            """Leaf by leaf as chosen, and in a leaf the row with the least left first."""
            count = len(hall.leaves)
            of_leaf: Ints = np.bincount(hall.leaf[rows], weights=room[rows], minlength=count).astype(np.int64)
            left: Ints = np.bincount(hall.leaf, weights=spare, minlength=count).astype(np.int64)
            place = np.full(count, -1)
            for number, leaf in enumerate(self._leaves_for(shape.pods, of_leaf, left)):
                place[leaf] = number
            mine: Ints = rows[place[hall.leaf[rows]] >= 0]
            return mine[np.lexsort((spare[mine], place[hall.leaf[mine]]))]

        return ranked(hall, shape, rank)

    def scatter(self, gang: Gang, spots: Spots, hall: Hall) -> Scatter:
        rows = np.array([spot.row for spot in spots])
        return Scatter(
            len(np.unique(hall.leaf[rows])), self._fewest_of(gang.shape), len(np.unique(hall.pod[rows]))
        )

    def _fewest_of(self, shape: Shape) -> int:
        if shape not in self._fewest:
            of_leaf = np.sort(np.bincount(self._empty.leaf, weights=self._empty.room(shape)))[::-1].cumsum()
            self._fewest[shape] = int(np.searchsorted(of_leaf, shape.pods)) + 1
        return self._fewest[shape]

    def _leaves_for(self, pods: int, room: Ints, left: Ints) -> list[int]:
        """Which leaves, in the order in which to fill them. room: pods of the gang each holds; left: in all."""
        holds = (room >= pods).nonzero()[0]
        if len(holds):
            return [int(holds[np.lexsort((left[holds], room[holds]))[0]])]
        of_pod: Ints = np.bincount(self._pod_of, weights=room).astype(np.int64)
        found: list[tuple[tuple[int, int, int], list[int]]] = []
        for pod in (of_pod >= pods).nonzero()[0].tolist():
            leaves = _cover(pods, self._leaves_of(pod, room), room)
            beyond = int(room[leaves].sum()) - pods
            found.append(((len(leaves), beyond, int(of_pod[pod])), leaves))
        if found:
            return min(found)[1]
        chosen: list[int] = []
        for pod in (-of_pod).argsort(kind="stable").tolist():
            count = min(pods, int(of_pod[pod]))
            if count:
                chosen += _cover(count, self._leaves_of(pod, room), room)
                pods -= count
        return chosen

    def _leaves_of(self, pod: int, room: Ints) -> list[int]:
        found: list[int] = ((self._pod_of == pod) & (room > 0)).nonzero()[0].tolist()
        return found


def _cover(pods: int, leaves: Sequence[int], room: Ints) -> list[int]:
    """The roomiest leaves until one holds the rest; of those that do, the tightest."""
    by_room = sorted(leaves, key=lambda leaf: (-int(room[leaf]), leaf))
    chosen: list[int] = []
    for number, leaf in enumerate(by_room):
        rest = [each for each in by_room[number:] if room[each] >= pods]
        if rest:
            return [*chosen, rest[-1]]
        chosen.append(leaf)
        pods -= int(room[leaf])
        if pods <= 0:
            break
    return chosen
