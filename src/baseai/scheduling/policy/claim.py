"""A claim is capacity that somebody will need from an instant on, so that nobody may be given it beyond that instant.

Invariant: `left` is what is free beside the claim, and beside all that are claimed at that instant, when it begins; a
gang that outlives the beginning may start now only where it fits into what is left as well, and then takes its part of
it. Claims are made within one turn, for that turn: of the calendar first, then of those who are first to wait.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from baseai.scheduling.calendar import FutureClaim
from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Ints, Misplaced, Spots
from baseai.scheduling.outlook import Free, chosen, joined, needs, room, take


@dataclass(slots=True, eq=False)
class Claim:
    """See the head of this file."""

    name: str
    kind: Literal["run", "reservation", "maintenance"]
    from_s: float
    until_s: float
    shape: Shape | None
    rows: list[int]  # that it takes, one entry a pod
    left: Free
    future: FutureClaim | None = None  # where it comes from the calendar
    then: Hall | None = (
        None  # the hall of its beginning with the claim on it, where sums would say too little
    )

    def concerns(self, gang: Gang, now_s: float) -> bool:
        """Whether the gang must keep out of its way."""
        if self.future is None:
            return True
        terms = gang.terms
        if terms.spot and self.future.lets_spot_on(now_s, terms.min_runtime_s):
            return False
        return not self.future.lets_own_on(terms.owner, terms.reservation, now_s)

    def lets(self, run_id: str, shape: Shape, spots: Spots, hall: Hall) -> bool:
        """Whether a gang that outlives its beginning can be on these spots."""
        if self.then is not None:
            try:
                self.then.place(run_id, shape, spots)
            except Misplaced:
                return False
            self.then.remove(run_id)
            return True
        amounts = needs(shape)
        pods = Counter(spot.row for spot in spots)
        if shape.tenant and not hall.all_shared:
            joins = joined(shape, self.left, hall)
            if not all(joins[row] for row in pods):
                return False
        if shape.watts:  # which the rows under one breaker share
            fed: Counter[int] = Counter()
            for row, count in pods.items():
                fed[hall.fed.get(row, (row,))[0]] += count * shape.watts
            if any(self.left.amounts[4, first] < drawn for first, drawn in fed.items()):
                return False
        return all(
            self.left.open[row]
            and all(
                self.left.amounts[number, row] >= count * need for number, need in enumerate(amounts) if need
            )
            for row, count in pods.items()
        )

    def give(self, run_id: str, shape: Shape, spots: Spots, hall: Hall) -> None:
        """That gang is there: its part of what is left is gone."""
        take(shape, [spot.row for spot in spots], self.left, hall)
        if self.then is not None and self.lets(run_id, shape, spots, hall):
            self.then.place(run_id, shape, spots)

    def stands_at(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.until_s


def beside(claims: list[Claim], at_s: float, free: Free, hall: Hall) -> None:
    """Take off `free`, which is of the instant `at_s`, what the claims hold then."""
    for claim in claims:
        if claim.stands_at(at_s):
            if claim.shape is None:
                free.open[claim.rows] = False
            else:
                take(claim.shape, claim.rows, free, hall)


def claimed(
    future: FutureClaim,
    at_s: float,
    free: Free,
    claims: list[Claim],
    hall: Hall,
    promised: list[Claim] | None = None,
) -> Claim:
    """The claim of an entry of the calendar: as many of its pods as there will be room for, the tightest rows first.

    free: of `at_s`, the beginning of the entry or now; it becomes what is left. claims: those made before.
    promised: of runs, beside which it stands if all of it can.
    """
    beside(claims, at_s, free, hall)
    shape = future.shape
    if shape is None:
        named = set(future.node_ids)
        rows = [row for row, node_id in enumerate(hall.node_ids) if node_id in named]
        free.open[rows] = False
        return Claim(future.name, "maintenance", at_s, future.until_s, None, rows, free, future)
    each, rows = _room_for(future, shape, free, hall), list[int]()
    if promised:
        clear = free.copy()
        beside(promised, at_s, clear, hall)
        rows = chosen(shape, _room_for(future, shape, clear, hall), clear, hall) or rows
    rows = rows or chosen(shape, each, free, hall) or _as_many(shape, each.tolist(), hall)
    take(shape, rows, free, hall)
    return Claim(future.name, "reservation", at_s, future.until_s, shape, rows, free, future)


def _room_for(future: FutureClaim, shape: Shape, free: Free, hall: Hall) -> Ints:
    each = room(shape, free, hall)
    if future.node_ids:
        named = set(future.node_ids)
        for row in each.nonzero()[0].tolist():
            if hall.node_ids[row] not in named:
                each[row] = 0
    return each


def _as_many(shape: Shape, each: list[int], hall: Hall) -> list[int]:
    """The rest makes way in time, so the claim stands on what there is."""
    rows: list[int] = []
    nodes = set[int]()
    for row, count in enumerate(each):
        node = int(hall.node[row])
        if count > 0 and not (shape.apart and node in nodes):
            nodes.add(node)
            rows += [row] * min(count, shape.pods - len(rows))
    return rows
