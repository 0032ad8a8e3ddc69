"""Fabric: a gang goes under as few leaf switches as may be, inside one pod where one holds it, and spares whole leaves.

A gang that one leaf holds goes where the least is left beside it. A larger one takes the fewest leaves of one pod, in
even shares (8 and 8 rather than 15 and 1) unless that breaks leaves which uneven ones would fill; of all fabric pods
the one with the fewest leaves so, then the tightest. Only what no fabric pod holds crosses, within one site if that can
be, from the roomiest on. Ties go by name, so that a gang that comes again finds the leaves that it had.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Ints, Spots
from baseai.scheduling.policy.ranking import ranked

LEAST_SHARE_RATIO = 0.5  # of an even share; a leaf that gets less is worth breaking another leaf for


class Scatter(NamedTuple):
    """Over how much of the fabric a gang is spread."""

    leaves: int
    leaves_fewest: int  # that it takes in an empty hall
    pods: int  # of the fabric


class Fabric:
    """See the head of this file. O(rows + leaves^2) for a gang that no leaf holds."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        self._empty = Hall(hall.bays)
        self._leaf, pod, site = hall.domain("leaf"), hall.domain("pod"), hall.domain("site")
        self._leaves = int(self._leaf.max(initial=-1)) + 1
        self._pod_of: Ints = np.zeros(self._leaves, dtype=np.int64)
        self._pod_of[self._leaf] = pod
        self._site_of: Ints = np.zeros(int(pod.max(initial=-1)) + 1, dtype=np.int64)
        self._site_of[pod] = site
        self._pod = pod
        self._fewest: dict[Shape, int] = {}

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        shape = gang.shape
        room, spare = hall.room_together(shape), hall.spare

        def rank(rows: Ints) -> Ints:
            """Leaf by leaf as chosen, of each what its share takes, and the row with the least left first."""
            of_leaf = self._summed(self._leaf[rows], room[rows])
            left = self._summed(self._leaf, spare)
            place = np.full(self._leaves, -1)
            share = np.zeros(self._leaves, dtype=np.int64)
            for number, (leaf, pods) in enumerate(self._shares(shape.pods, of_leaf, left).items()):
                place[leaf], share[leaf] = number, pods
            mine: Ints = rows[place[self._leaf[rows]] >= 0]
            mine = mine[np.lexsort((spare[mine], place[self._leaf[mine]]))]
            before = room[mine].cumsum() - room[mine]
            _, firsts, of_row = np.unique(self._leaf[mine], return_index=True, return_inverse=True)
            before -= before[firsts][of_row]  # pods that rows of the same leaf take which come first
            # What is over a share comes last: it is there for a gang that finds less than its room promises.
            over = before >= share[self._leaf[mine]]
            return mine[over.argsort(kind="stable")]

        return ranked(hall, shape, rank)

    def scatter(self, gang: Gang, spots: Spots, hall: Hall) -> Scatter:
        rows = np.array([spot.row for spot in spots])
        return Scatter(
            len(np.unique(self._leaf[rows])), self._fewest_of(gang.shape), len(np.unique(self._pod[rows]))
        )

    def _summed(self, leaf: Ints, amount: Ints) -> Ints:
        return np.bincount(leaf, weights=amount, minlength=self._leaves).astype(np.int64)

    def _fewest_of(self, shape: Shape) -> int:
        if shape not in self._fewest:
            of_leaf = np.sort(self._summed(self._leaf, self._empty.room_together(shape)))[::-1].cumsum()
            self._fewest[shape] = int(np.searchsorted(of_leaf, shape.pods)) + 1
        return self._fewest[shape]

    def _shares(self, pods: int, room: Ints, left: Ints) -> Mapping[int, int]:
        """How many pods each leaf takes, in the order in which to fill them. room: pods it holds; left: in all."""
        holds = (room >= pods).nonzero()[0]
        if len(holds):
            return {int(holds[np.lexsort((left[holds], room[holds]))[0]]): pods}
        of_pod: Ints = np.bincount(self._pod_of, weights=room).astype(np.int64)
        found: list[tuple[tuple[int, int, int], Mapping[int, int]]] = []
        for pod in (of_pod >= pods).nonzero()[0].tolist():
            shares = _shared(pods, self._leaves_of(pod, room), room)
            beyond = int(room[list(shares)].sum()) - pods
            found.append(((len(shares), beyond, int(of_pod[pod])), shares))
        if found:
            return min(found, key=lambda one: one[0])[1]
        chosen: dict[int, int] = {}
        for pod in self._pods_to_cross(pods, of_pod):
            count = min(pods, int(of_pod[pod]))
            if count:
                chosen |= _shared(count, self._leaves_of(pod, room), room)
                pods -= count
        return chosen

    def _pods_to_cross(self, pods: int, of_pod: Ints) -> list[int]:
        """Fabric pods from the roomiest on, of the site that needs the fewest of them where one holds all."""
        roomiest: list[int] = (-of_pod).argsort(kind="stable").tolist()
        best: list[int] = []
        of_site = np.bincount(self._site_of, weights=of_pod)
        for site in (of_site >= pods).nonzero()[0].tolist():
            own = [pod for pod in roomiest if self._site_of[pod] == site]
            needed = int(np.searchsorted(of_pod[own].cumsum(), pods)) + 1
            if not best or needed < len(best):
                best = own[:needed]
        return best or roomiest

    def _leaves_of(self, pod: int, room: Ints) -> list[int]:
        found: list[int] = ((self._pod_of == pod) & (room > 0)).nonzero()[0].tolist()
        return found


def _shared(pods: int, leaves: Sequence[int], room: Ints) -> dict[int, int]:
    """The fewest of these leaves that hold so many pods together, and how many each takes.

    Even shares where they leave no more behind in their leaves, or where one leaf would get next to nothing.
    """
    chosen = _cover(pods, leaves, room)
    share = -(-pods // len(chosen))
    even = sorted((leaf for leaf in leaves if room[leaf] >= share), key=lambda leaf: (int(room[leaf]), leaf))
    even = even[: len(chosen)]
    if len(even) == len(chosen):
        least = min(pods - int(room[chosen[:-1]].sum()), int(room[chosen].min()))
        if least < LEAST_SHARE_RATIO * share or room[even].sum() <= room[chosen].sum():
            chosen = even
    shares: dict[int, int] = {}
    for number, leaf in enumerate(sorted(chosen, key=lambda leaf: (int(room[leaf]), leaf))):
        shares[leaf] = min(int(room[leaf]), -(-pods // (len(chosen) - number)))
        pods -= shares[leaf]
    return shares


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
