"""A line is the queue as one policy orders it, with the shapes that stand in it.

Invariant: in the order of (key, number); a gang stands in it once. What a shape could not get, no gang of that shape
behind it gets either, for within one turn room only shrinks: whoever asks the line in order need ask once a shape.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Set

from baseai.scheduling.gang import Gang, Shape


class Line:
    """Gangs in order. Joining and leaving cost O(log n) steps and one shift."""

    def __init__(self) -> None:
        self._order: list[tuple[float, int]] = []
        self._gangs: dict[tuple[float, int], Gang] = {}
        self._places: dict[str, tuple[float, int]] = {}
        self._shapes: Counter[Shape] = Counter()

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, gang: Gang) -> bool:
        return gang.run_id in self._places

    @property
    def shapes(self) -> Set[Shape]:
        """Of all who stand in it."""
        return self._shapes.keys()

    def join(self, gang: Gang, key: float) -> None:
        place = (key, gang.number)
        insort(self._order, place)
        self._gangs[place] = gang
        self._places[gang.run_id] = place
        self._shapes[gang.shape] += 1

    def leave(self, gang: Gang) -> None:
        place = self._places.pop(gang.run_id)
        del self._order[bisect_left(self._order, place)]
        del self._gangs[place]
        self._shapes[gang.shape] -= 1
        if not self._shapes[gang.shape]:
            del self._shapes[gang.shape]

    def first(self) -> Gang | None:
        return self._gangs[self._order[0]] if self._order else None

    def but(self, hopeless: set[Shape]) -> Iterator[tuple[float, Gang]]:
        """Key and gang in order, without those whose shape is hopeless by the time they are reached.

        Over as soon as every shape is. The line may be left and joined meanwhile; who joins is not seen.
        """
        for place in self._order.copy():
            if len(hopeless) >= len(self._shapes) and hopeless >= self._shapes.keys():
                return
            gang = self._gangs.get(place)
            if gang is not None and gang.shape not in hopeless:
                yield place[0], gang
