"""A clearing is the least that must be stopped for a gang to have room: chosen row by row on a copy of the hall.

Invariant: what is lightest on a row is exact where few stand on it, and rows are taken by a bound that is never more
than they weigh, so that a gang of one pod gets the lightest there is. Fragments of devices and what is beside them are
looked at. A run that spans rows is gone from all of them at once. Nothing is stopped here: only on the copy.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Bools, Hall, Ints, Spots
from baseai.scheduling.policy.stakes import Floats, Stakes

EXACT_MOST = 10  # runs on a row of which every choice is looked at; of more, the lightest one by one
LOOKS_MOST = 512  # rows that are looked at closely for one gang
TRIES_MOST = 12  # times more is cleared where the gang still has no place
DOMAINS_MOST = 8  # looked at closely


class Clearing:
    """What is to be stopped in one domain of a hall; see the head of this file."""

    def __init__(
        self,
        shape: Shape,
        running: Stakes,
        hall: Hall,
        weights: Floats,
        room: Ints,
        bounds: Floats,
        least_weight: float,
    ) -> None:
        self._shape = shape
        self._running = running
        self._hall = hall
        self._weights = weights  # by slot; inf for those who stay
        self._fits = int(np.maximum(room, 0).sum())  # pods, if nothing but room decides
        self._room = room  # pods that each row of the domain takes, as the trial stands; −1 beyond the domain
        self._bounds = bounds
        self._looks = 0
        self._trial, self._stays = hall, weights  # of its own from `clear` on
        self.least_weight = least_weight  # never more than what has to go weighs

    @property
    def trial(self) -> Hall:
        """The copy on which those are gone who were chosen."""
        return self._trial

    @staticmethod
    def of_each_domain(shape: Shape, running: Stakes, hall: Hall, weights: Floats) -> Iterator["Clearing"]:
        """One for each domain in which there might be room, the one that may weigh least first."""
        rows = hall.devices >= shape.devices
        for mask in (hall.permitted(shape), None if hall.all_ready else hall.ready):
            if mask is not None:
                rows = rows & mask
        room = np.where(rows, np.minimum(hall.room(shape), shape.pods), 0)
        most, bounds = _most_and_bounds(shape, running, hall, weights, rows, room)
        number: Ints = np.zeros(len(hall), dtype=np.int64)
        if shape.pods > 1 and shape.reach:
            number = hall.domain(shape.reach)
        if shape.pods > 1 and shape.one_model:
            number = number * len(hall.models) + hall.model
        leasts = _leasts(shape.pods, number, room, most, bounds)
        for domain in np.argsort(leasts, kind="stable")[:DOMAINS_MOST].tolist():
            if math.isfinite(leasts[domain]):
                inside = rows & (number == domain)
                own = np.where(inside, room, -1), np.where(inside, bounds, math.inf)
                yield Clearing(shape, running, hall, weights, *own, float(leasts[domain]))

    def clear(self, places: Callable[[Hall], Spots | None]) -> list[int] | None:
        """Slots of those who are stopped so that the gang has a place; None where that is not enough."""
        self._trial = self._hall.copy()
        self._stays = self._weights.copy()
        gone: list[int] = []
        lacking = self._shape.pods - self._fits
        for _ in range(TRIES_MOST):
            while lacking > 0:
                gained = self._clear_next(gone, lacking)
                if gained is None:
                    return None
                lacking -= gained
            if places(self._trial) is not None:
                return gone
            # Some check wants more than room: as much again is cleared, and the needless are let off.
            lacking = max(1, len(gone))
        return None

    def stop(self, slots: list[int], gone: list[int]) -> int:
        """Have these go from the trial as well; how many more pods fit by it."""
        gained = 0
        for slot in slots:
            self._trial.remove(self._running.at(slot).gang.run_id)
            gone.append(slot)
            self._stays[slot] = math.inf
        for slot in slots:
            gained += self._count(slot)
        return gained

    def let_off(
        self,
        gone: list[int],
        places: Callable[[Hall], Spots | None],
        goes: Callable[[int], bool] = lambda _: False,
    ) -> Spots:
        """Take out of `gone` whoever is not needed, the dearest first; where the gang goes then.

        goes: whether that one goes in any case, asked while `gone` still names it.
        """
        spots = places(self._trial)
        assert spots is not None
        for slot in sorted(gone, key=lambda slot: (-self._weights[slot], self._running.number[slot])):
            if goes(slot):
                continue
            candidate = self._running.at(slot)
            self._trial.place(candidate.gang.run_id, candidate.gang.shape, candidate.spots, stands=True)
            self._count(slot)
            without = places(self._trial) if self._fits >= self._shape.pods else None
            if without is None:
                self._trial.remove(candidate.gang.run_id)
                self._count(slot)
            else:
                gone.remove(slot)
                spots = without
        return spots

    # ------------------------------------------------------------------------------------------------- row by row

    def _count(self, slot: int) -> int:
        """Look anew at what fits where that one stands, or stood; how many more than before."""
        gained = 0
        for row in sorted(set(self._running.rows_at(slot))):
            if self._room[row] >= 0:
                room = min(self._shape.pods, self._room_on(row))
                gained += room - int(self._room[row])
                self._room[row] = room
                self._bounds[row] = 0.0  # looked at anew before it counts
        self._fits += gained
        return gained

    def _clear_next(self, gone: list[int], lacking: int) -> int | None:
        """Clear the lightest row for another pod; how many more fit by it, None where no row is left."""
        looked: dict[int, list[int]] = {}
        while self._looks < LOOKS_MOST:
            row = int(np.argmin(self._bounds))
            if not math.isfinite(self._bounds[row]):
                return None
            if row in looked:
                return self.stop(looked[row], gone)
            self._looks += 1
            weight, slots = self._lightest_on(row, lacking)
            self._bounds[row] = weight
            looked[row] = slots
        return None

    def _room_on(self, row: int) -> int:
        if self._shape.tenant and not self._trial.joined_by(self._shape.tenant)[row]:
            return 0
        devices = self._trial.free[row][np.newaxis, : self._hall.bays[row].devices]
        beside = np.array([[column[row] for column in _columns(self._trial)]], dtype=np.int64)
        return int(_room(self._shape, devices, beside)[0])

    def _lightest_on(self, row: int, lacking: int) -> tuple[float, list[int]]:
        """The least weight to stop for one more pod on the row, and who that is; inf where nothing is enough."""
        running, shape, trial = self._running, self._shape, self._trial
        parts = ((running.part_row == row) & (running.part_run >= 0)).nonzero()[0]
        parts = parts[np.isfinite(self._stays[running.part_run[parts]])]
        wanted = int(self._room[row]) + 1
        if len(parts) == 0 or wanted > shape.pods or (shape.apart and wanted > 1):
            return math.inf, []
        slots = running.part_run[parts]
        weights = self._weights[slots] / np.minimum(running.rows_of[slots], max(1, lacking))
        count = self._hall.bays[row].devices
        frees = np.zeros((len(parts), count), dtype=np.int64)
        for at, slot in enumerate(slots.tolist()):
            candidate = running.at(slot)
            for spot in candidate.spots:
                if spot.row == row:
                    frees[at, list(spot.devices)] += candidate.gang.shape.share
        strangers = np.array([self._keeps_out(row, slot) for slot in slots.tolist()], dtype=np.bool_)
        beside = running.amounts[parts, 1:]
        have = np.array([column[row] for column in _columns(trial)], dtype=np.int64)

        def enough(chosen: Ints) -> Bools:
            """For each choice, a row of ones and zeros over the runs: whether the pods fit once those are gone."""
            free = trial.free[row, :count] + chosen @ frees
            found: Bools = _room(shape, free, have + chosen @ beside) >= wanted
            return found & chosen[:, strangers].all(axis=1)

        chosen = (
            _CHOICES[len(parts)]
            if len(parts) <= EXACT_MOST
            else _by_turns(enough, weights, frees.sum(axis=1))
        )
        sums = np.where(enough(chosen), chosen @ weights, math.inf)
        best = int(np.argmin(sums))
        return float(sums[best]), slots[chosen[best] > 0].tolist()

    def _keeps_out(self, row: int, slot: int) -> bool:
        """Whether the gang may not join the node while that one is on it."""
        if not self._shape.tenant or self._hall.shared[row]:
            return False
        candidate = self._running.at(slot)
        return candidate.gang.shape.tenant != self._shape.tenant


def _by_turns(enough: Callable[[Ints], Bools], weights: Floats, milli: Ints) -> Ints:
    """One choice, as a row: the lightest per accelerator until it is enough, without those who are not needed."""
    order = np.argsort(weights / np.maximum(1, milli), kind="stable")
    chosen: Ints = np.zeros((1, len(weights)), dtype=np.int64)
    for at in order.tolist():
        chosen[0, at] = 1
        if enough(chosen)[0]:
            break
    for at in np.argsort(-weights, kind="stable").tolist():
        if chosen[0, at]:
            chosen[0, at] = 0
            if not enough(chosen)[0]:
                chosen[0, at] = 1
    return chosen


_CHOICES: list[Ints] = [
    np.array([[choice >> bit & 1 for bit in range(count)] for choice in range(1, 1 << count)], dtype=np.int64)
    for count in range(EXACT_MOST + 1)
]  # of so many runs every choice, but for none of them: a row of ones and zeros each


def _columns(hall: Hall) -> tuple[Ints, ...]:
    return hall.cpu_milli, hall.memory_mib, hall.disk_mib, hall.watts


def _needs(shape: Shape) -> tuple[int, ...]:
    return shape.cpu_milli, shape.memory_mib, shape.disk_mib, shape.watts


def _room(shape: Shape, free: Ints, beside: Ints) -> Ints:
    """How many pods fit, for each of several states of a row. free: (states, devices); beside: (states, 4)."""
    if shape.milli >= WHOLE:
        room = (free == WHOLE).sum(axis=1) // shape.devices
    elif shape.milli:
        room = (free // shape.milli).sum(axis=1)
    else:
        room = np.full(len(free), shape.pods, dtype=np.int64)
    for column, need in enumerate(_needs(shape)):
        if need:
            room = np.minimum(room, beside[:, column] // need)
    found: Ints = np.minimum(room, 1) if shape.apart else room
    return found


def _most_and_bounds(
    shape: Shape, running: Stakes, hall: Hall, weights: Floats, rows: Bools, room: Ints
) -> tuple[Ints, Floats]:
    """Of each row never fewer pods than could be made to fit, and never more than what one more weighs; inf for none.

    By sums over the row, the lightest per thousandth of an accelerator first, the last one in part.
    """
    may = (running.part_run >= 0) & np.isfinite(weights[running.part_run]) & rows[running.part_row]
    parts = may.nonzero()[0]
    count = len(hall)
    bounds = np.full(count, math.inf)
    if len(parts) == 0:
        return room, bounds
    row, slot = running.part_row[parts], running.part_run[parts]
    frees = running.amounts[parts]
    weight = weights[slot] / np.minimum(running.rows_of[slot], shape.pods)
    stood_on = np.zeros(count, dtype=np.bool_)
    stood_on[row] = True
    most: Ints = np.where(stood_on, 1 if shape.apart else shape.pods, room)
    needs = (shape.milli, *_needs(shape))
    for column, (have, need) in enumerate(zip((hall.spare, *_columns(hall)), needs, strict=True)):
        if need:
            freed = np.bincount(row, frees[:, column], count).astype(np.int64)
            most = np.minimum(most, np.where(stood_on, (have + freed) // need, room))
    more = most > room
    least = np.full(count, math.inf)
    np.minimum.at(least, row, weight)
    bounds[more] = least[more]
    kept = more[row] & (frees[:, 0] > 0)
    if shape.milli == 0 or not kept.any():
        return most, bounds
    row, weight, milli = row[kept], weight[kept], frees[kept, 0]
    order = np.lexsort((weight / milli, row))
    row, weight, milli = row[order], weight[order], milli[order]
    before = np.cumsum(milli) - milli
    first = np.concatenate([[True], row[1:] != row[:-1]])
    before -= np.repeat(before[first], np.diff(np.append(first.nonzero()[0], len(row))))
    short = ((room + 1) * shape.milli - hall.spare)[row] - before
    by_sums = np.bincount(row, weight * np.clip(short / milli, 0.0, 1.0), count)
    return most, np.maximum(bounds, by_sums)


def _leasts(pods: int, number: Ints, room: Ints, most: Ints, bounds: Floats) -> Floats:
    """Never more than what a gang weighs in each domain; inf where it cannot be made to fit. number: of each row."""
    count = int(number.max(initial=0)) + 1
    lacking = np.maximum(0, pods - np.bincount(number, room, count).astype(np.int64))
    leasts = np.where(lacking > 0, math.inf, 0.0)
    hopeful = (np.bincount(number, most, count) >= pods) & (lacking > 0)
    rows = (hopeful[number] & np.isfinite(bounds)).nonzero()[0]
    if len(rows) == 0:
        return leasts
    each_most = np.ones(count, dtype=np.int64)  # pods that one row of the domain may come to take
    np.maximum.at(each_most, number[rows], (most - room)[rows])
    touched = -(-lacking // each_most)  # rows at least
    rows = rows[np.lexsort((bounds[rows], number[rows]))]
    domain = number[rows]
    first = np.concatenate([[True], domain[1:] != domain[:-1]]).nonzero()[0]
    place = np.arange(len(rows)) - np.repeat(first, np.diff(np.append(first, len(rows))))
    counted = place < touched[domain]
    sums = np.bincount(domain[counted], bounds[rows[counted]], count)
    leasts[hopeful] = sums[hopeful]
    return leasts
