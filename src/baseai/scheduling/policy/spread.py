"""Spread keeps runs of one name apart: what takes one of them down, a node, a rack, a leaf, a site, spares the others.

Invariant: it is a wish and never a condition. Rows are opened step by step, the least crowded first, and the last step
opens every row that the gang could be on without it: nobody who fits is refused. What is not known of a node (its rack,
its leaf) it shares with nobody.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Bools, Hall, Ints, Spot


def crowding(hall: Hall, others: Sequence[Spot]) -> Ints:
    """How much each row has in common with where the others stand; equal numbers are equally good, 0 has nothing.

    A site with one more of them is worse than any rack or leaf, and that is worse than any node. O(rows + others).
    """
    rows = np.array([spot.row for spot in others], dtype=np.int64)

    def there(reach: str) -> Ints:
        domain = hall.domain(reach)
        return np.bincount(domain[rows], minlength=int(domain.max(initial=-1)) + 1)[domain]

    most = 2 * len(rows) + 1
    return (there("site") * most + there("rack") + there("leaf")) * most + there("node")


def steps(hall: Hall, shape: Shape, others: Sequence[Spot]) -> Iterator[Bools]:
    """The rows that are open to a gang whose like stand on `others`, one truth a row, more of them at each step.

    Steps at which they do not hold the gang are left out; where even all rows do not, there is none.
    """
    room, crowd = hall.room_together(shape), crowding(hall, others)
    levels = np.unique(crowd[room > 0])
    first, beyond = 0, len(levels)
    while first < beyond:  # the first level that holds it: with each more, there is more room
        middle = (first + beyond) // 2
        if hall.most_together(shape, np.where(crowd <= levels[middle], room, 0)) >= shape.pods:
            beyond = middle
        else:
            first = middle + 1
    for level in levels[first:]:
        yield crowd <= level
