"""An outlook is what every row will have free at later instants, if all that runs ends when it must and nothing starts.

Invariant: what is free only grows towards later instants, and at an instant before the first end it is what the hall
has free now. It counts sums by row: which devices they are is left to the instant of starting. `hold` and `release`
are the only writers, cost what the rows of one gang cost, and undo each other; a `Free` is its asker's own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import NOBODY, SEVERAL, UNBOUNDED, Bools, Hall, Ints, Spots

AMOUNTS = 5  # thousandths of accelerators, CPU, memory, disk, watts
OWNER_NONE = -1  # of a gang whose owner decides nothing
NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Free:
    """What is free on each row at one instant, by sums."""

    amounts: NDArray[np.int64]  # (AMOUNTS, rows)
    tenant: Ints  # as in the hall
    open: Bools  # rows that take gangs

    def copy(self) -> "Free":
        return Free(self.amounts.copy(), self.tenant.copy(), self.open.copy())


def needs(shape: Shape) -> tuple[int, ...]:
    """What one pod takes, in the order of a Free's amounts."""
    return shape.milli, shape.cpu_milli, shape.memory_mib, shape.disk_mib, shape.watts


def free_now(hall: Hall) -> Free:
    """What is free in a hall as it stands. O(rows)."""
    amounts = np.array([hall.spare, hall.cpu_milli, hall.memory_mib, hall.disk_mib, hall.watts])
    return Free(amounts, hall.tenant.copy(), hall.ready.copy())


def installed(hall: Hall) -> NDArray[np.int64]:
    """The amounts of a hall on which nothing stands: (AMOUNTS, rows)."""
    columns = [
        [UNBOUNDED if amount is None else amount for amount in amounts]
        for amounts in (
            [bay.devices * WHOLE for bay in hall.bays],
            [bay.cpu_milli for bay in hall.bays],
            [bay.memory_mib for bay in hall.bays],
            [bay.disk_mib for bay in hall.bays],
            [bay.watts for bay in hall.bays],
        )
    ]
    return np.array(columns, dtype=np.int64)


def joined(shape: Shape, free: Free, hall: Hall) -> Bools:
    """Rows where isolation, or whose gangs stand there then, let this one in."""
    own = hall.tenants.get(shape.tenant, SEVERAL - 1)
    found: Bools = hall.shared | (free.tenant == NOBODY) | (free.tenant == own)
    return found


def alone(shape: Shape, free: Free, hall: Hall) -> Ints:
    """How many pods each row holds by these sums, if no other row takes any; at most `shape.pods`, one if apart."""
    fit: Bools = free.open.copy()
    mask = hall.permitted(shape)
    if mask is not None:
        fit &= mask
    if shape.tenant and not hall.all_shared:
        fit &= joined(shape, free, hall)
    most: Ints = np.where(fit, np.int64(1 if shape.apart else shape.pods), np.int64(0))
    for amounts, need in zip(free.amounts, needs(shape), strict=True):
        if need:
            np.minimum(most, amounts // need, out=most)
    return np.maximum(most, 0, out=most)


def room(shape: Shape, free: Free, hall: Hall, also: Sequence[Free] = ()) -> Ints:
    """How many pods the rows hold together by these sums, row by row, and by those of each of `also` at once.

    What a breaker lets through is dealt out after rows are ruled out by any of these: the least of it dealt out
    for each of them would count watts for rows that another rules out.
    """
    most, watts = alone(shape, free, hall), free.amounts[4]
    for other in also:
        np.minimum(most, alone(shape, other, hall), out=most)
        watts = np.minimum(watts, other.amounts[4])
    return hall.under_breakers(shape, most, watts)


def holds(shape: Shape, frees: Sequence[Free], hall: Hall) -> bool:
    """Whether the gang fits into each of these, on the same rows."""
    return _enough(shape, room(shape, frees[0], hall, frees[1:]), hall)


def _enough(shape: Shape, each: Ints, hall: Hall) -> bool:
    if int(each.sum()) < shape.pods:
        return False
    if shape.apart and hall.siblings and not shape.one_model:  # two rows of one node count once
        return len(np.unique(hall.node[each > 0])) >= shape.pods
    if shape.pods == 1 or not (shape.reach or (shape.one_model and len(hall.models) > 1)):
        return True
    return hall.most_together(shape, each) >= shape.pods


def chosen(shape: Shape, each: Ints, free: Free, hall: Hall) -> list[int] | None:
    """Rows for the gang out of `room`, one entry a pod: the tightest first; None where they do not hold it."""
    if not _enough(shape, each, hall):
        return None
    rows = each.nonzero()[0]
    if shape.one_model and len(hall.models) > 1:
        wanted = [hall.models.index(name) for name in shape.models if name in hall.models]
        for model in wanted or range(len(hall.models)):
            of_model = rows[hall.model[rows] == model]
            within = _within_reach(shape, each, of_model, hall)
            if within is not None:
                rows = within
                break
    elif shape.reach:
        within = _within_reach(shape, each, rows, hall)
        assert within is not None
        rows = within
    found: list[int] = []
    nodes = set[int]()
    # Of rows that are as tight then, those on which the least is free now: what is free stays for whoever starts now.
    for row in rows[np.lexsort((hall.spare[rows], free.amounts[0][rows]))].tolist():
        node = int(hall.node[row])
        if shape.apart and node in nodes:
            continue
        nodes.add(node)
        found += [row] * min(int(each[row]), shape.pods - len(found))
        if len(found) == shape.pods:
            return found
    return None


def _within_reach(shape: Shape, each: Ints, rows: Ints, hall: Hall) -> Ints | None:
    """Those of the rows that are in one domain which holds the gang, the tightest such; None where none does."""
    if not shape.reach:
        return rows if int(each[rows].sum()) >= shape.pods else None
    domain = hall.domain(shape.reach)[rows]
    of_domain = np.bincount(domain, weights=each[rows])
    enough = (of_domain >= shape.pods).nonzero()[0]
    if not len(enough):
        return None
    found: Ints = rows[domain == enough[of_domain[enough].argmin()]]
    return found


def take(shape: Shape, rows: Iterable[int], free: Free, hall: Hall) -> None:
    """Take a gang off these rows, one entry a pod. What its rows' siblings share goes there as well."""
    amounts = np.array(needs(shape), dtype=np.int64)
    for row in rows:
        free.amounts[0, row] -= amounts[0]
        siblings = hall.siblings.get(row, (row,))
        if amounts[4]:
            free.amounts[4, list(hall.fed.get(row, siblings))] -= amounts[4]
        for each in siblings:
            free.amounts[1:4, each] -= amounts[1:4]
            if shape.tenant and not hall.all_shared:
                own = hall.tenants.setdefault(shape.tenant, len(hall.tenants))
                there = int(free.tenant[each])
                free.tenant[each] = own if there in (NOBODY, own) else SEVERAL


def give(shape: Shape, rows: Iterable[int], free: Free, hall: Hall) -> None:
    """Put back what `take` took; whose tenants stand there is left as it was, which errs on the safe side."""
    amounts = np.array(needs(shape), dtype=np.int64)
    for row in rows:
        siblings = list(hall.siblings.get(row, (row,)))
        free.amounts[0, row] += amounts[0]
        free.amounts[1:4, siblings] += amounts[1:4, np.newaxis]
        free.amounts[4, list(hall.fed.get(row, siblings))] += amounts[4]


class Outlook:
    """The ends of what runs, as columns with one entry for each gang and row."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._feed: Ints = hall.domain("rack")  # what shares watts: a rack, or a node by itself
        self._what: NDArray[np.int64] = np.zeros(
            (AMOUNTS + 2, 64), dtype=np.int64
        )  # row, owner, then amounts
        self._ends_s: NDArray[np.float64] = np.zeros(64)
        self._size = 0
        self._places: dict[str, list[int]] = {}
        self._run_at: list[str] = []

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._places

    def hold(self, run_id: str, shape: Shape, spots: Spots, ends_s: float) -> None:
        """A gang that stands there until `ends_s` at the latest; infinite where nobody knows."""
        pods: dict[int, int] = {}
        for spot in spots:
            pods[spot.row] = pods.get(spot.row, 0) + 1
        owner = OWNER_NONE
        if shape.tenant and not self._hall.all_shared:
            owner = self._hall.tenants.setdefault(shape.tenant, len(self._hall.tenants))
        places = self._places[run_id] = []
        for row, count in pods.items():
            if self._size == len(self._ends_s):
                self._what = np.concatenate([self._what, np.zeros_like(self._what)], axis=1)
                self._ends_s = np.concatenate([self._ends_s, np.zeros_like(self._ends_s)])
            self._what[:, self._size] = (row, owner, *(count * need for need in needs(shape)))
            self._ends_s[self._size] = ends_s
            places.append(self._size)
            self._run_at.append(run_id)
            self._size += 1

    def release(self, run_id: str) -> None:
        """Raises KeyError where it holds nothing."""
        for place in sorted(self._places.pop(run_id), reverse=True):
            self._size -= 1
            last = self._size
            moved = self._run_at.pop()
            if place != last:
                self._what[:, place] = self._what[:, last]
                self._ends_s[place] = self._ends_s[last]
                self._run_at[place] = moved
                places = self._places[moved]
                places[places.index(last)] = place

    def free_at(self, at_s: float, rows: Bools | None = None) -> Free:
        """What will be free at an instant: now, and what ends by then. O(rows + what runs).

        rows: where only some rows are looked at; of the others accelerators are counted as they are now.
        """
        hall = self._hall
        free = free_now(hall)
        what, ends_s = self._what[:, : self._size], self._ends_s[: self._size]
        gone = ends_s <= at_s
        if rows is not None:
            gone &= rows[what[0]]
        if gone.any():
            ended = what[:, gone]
            nodes = int(hall.node[-1]) + 1
            free.amounts[0] += _summed(ended[0], ended[2], len(hall))
            of_node = hall.node[ended[0]]
            for number in range(1, 4):
                if ended[2 + number].any():
                    free.amounts[number] += _summed(of_node, ended[2 + number], nodes)[hall.node]
            if ended[6].any():
                of_feed = self._feed[ended[0]]
                free.amounts[4] += _summed(of_feed, ended[6], int(self._feed.max()) + 1)[self._feed]
        if not hall.all_shared:
            free.tenant = self._tenants_after(at_s)
        return free

    def first_start(
        self,
        shape: Shape,
        now_s: float,
        found: Callable[[float, Free], list[int] | None],
        also_s: Sequence[float] = (),
        before_s: float = NEVER,
    ) -> tuple[float, Free, list[int]] | None:
        """The earliest end, or one of `also_s`, at which `found` finds rows for the shape; what is free then; the rows.

        before_s: only what is earlier is looked at.
        Exact where `found` asks for no more than room, for that only grows; else from there on, instant by instant.
        """
        mask = self._beside(self._hall.permitted(shape))
        ends = self._ends_s[: self._size]
        if mask is not None:
            ends = ends[mask[self._what[0, : self._size]]]
        ends = np.concatenate([ends[ends < NEVER], also_s])
        ends = np.unique(np.maximum(ends, now_s))
        ends = ends[ends < before_s]
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            if holds(shape, (self.free_at(float(ends[middle]), mask),), self._hall):
                high = middle
            else:
                low = middle + 1
        for at_s in ends[low : low + ENDS_MOST].tolist():
            free = self.free_at(at_s)
            rows = found(at_s, free)
            if rows is not None:
                return at_s, free, rows
        return None

    def _beside(self, rows: Bools | None) -> Bools | None:
        """With the rows that share a node or a breaker with these: what ends there frees something here."""
        if rows is None:
            return None
        found = rows
        for shared in (self._hall.node, self._feed):
            any_of = np.zeros(int(shared.max(initial=0)) + 1, dtype=np.bool_)
            any_of[shared[rows]] = True
            found = found | any_of[shared]
        return found

    def _tenants_after(self, at_s: float) -> Ints:
        hall = self._hall
        stays = self._ends_s[: self._size] > at_s
        what = self._what[:, : self._size][:, stays]
        what = what[:, what[1] != OWNER_NONE]
        nodes = hall.node[what[0]]
        tenant = np.full(int(hall.node[-1]) + 1, NOBODY, dtype=np.int64)
        tenant[nodes] = what[1]
        tenant[nodes[tenant[nodes] != what[1]]] = SEVERAL
        found: Ints = tenant[hall.node]
        return found


ENDS_MOST = 64  # ends that are tried one by one, where claims stand in the way


def _summed(where: Ints, amount: Ints, size: int) -> Ints:
    # Floats hold whole numbers exactly up to 2**53, far above any sum of MiB here.
    found: Ints = np.bincount(where, weights=amount, minlength=size).astype(np.int64)
    return found
