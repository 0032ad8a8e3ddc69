"""Assign: each gang to the node and the turn at which all of them together are done best, where speed is by model.

All that wait is planned at once whenever somebody comes, by a local search over who goes to which row and in which
order: exchanges and moves, of which worse ones are taken the more seldom the longer it goes on. Best is the least mean
completion plus a weight on the last end. Nobody is preempted, so what runs is left alone.

Invariant: a plan gives every gang its devices from its start to its end, and is kept until somebody comes; the same
gangs and the same rng give the same plan. For gangs of one pod that lack only accelerators; knows true durations.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from baseai.ground.fault import Refused
from baseai.scheduling.gang import WHOLE, Gang
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy.knowledge import ends_s, known
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start, Wake

LAST_END_WEIGHT = 3.0  # of the last end, against 1 of the mean completion
UNEVEN_WEIGHT = 0.2  # of each row's end, so that even rows are preferred where the last is the same
STEPS_PER_GANG, STEPS_MOST = 3000, 400_000
WORSE_RATIO = 0.02  # of the value, taken at the beginning; nothing at the end
MOVES_RATIO = 0.4  # of all steps; the others exchange


class Assign:
    """See the head of this file."""

    needs_durations = True

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._rng = rng
        self._promised: list[tuple[float, int, Gang, Spot]] = []

    def turn(self, moment: Moment) -> Iterator[Move]:
        if moment.arrived:
            self._plan(moment)
        while self._promised and self._promised[0][0] <= moment.now_s:
            _, _, gang, spot = self._promised.pop(0)
            yield Start(gang.run_id, (spot,))
        if self._promised:
            yield Wake(self._promised[0][0])

    def _plan(self, moment: Moment) -> None:
        hall = moment.hall
        gangs = sorted(moment.waiting.values(), key=lambda gang: gang.number)
        for gang in gangs:
            if gang.shape.pods > 1 or gang.shape.milli < WHOLE:
                raise Refused(
                    f"run {gang.run_id}: this policy assigns gangs of one pod of whole accelerators"
                )
        free_s = [[moment.now_s] * bay.devices for bay in hall.bays]
        for running in moment.running.values():
            for spot in running.spots:
                for device in spot.devices:
                    free_s[spot.row][device] = ends_s(moment, running)
        search = _Search([sorted(each) for each in free_s], gangs, moment)
        lines = search.best(self._rng)
        self._promised = []
        for row, line in enumerate(lines):
            for number in line:
                gang = gangs[number]
                by_free = sorted(range(len(free_s[row])), key=lambda device: (free_s[row][device], device))
                devices = tuple(sorted(by_free[: gang.shape.devices]))
                start_s = max(free_s[row][device] for device in devices)
                for device in devices:
                    free_s[row][device] = start_s + search.lasts_s[row][number]
                self._promised.append((start_s, gang.number, gang, Spot(row, devices)))
        self._promised.sort(key=lambda promise: promise[:2])


class _Search:
    """Lines of gangs by row, each worked off in its order on the devices that are free first."""

    def __init__(self, free_s: Sequence[list[float]], gangs: Sequence[Gang], moment: Moment) -> None:
        hall = moment.hall
        self._free_s = free_s
        self._devices = [gang.shape.devices for gang in gangs]
        self.lasts_s = [[math.inf] * len(gangs) for _ in free_s]
        for number, gang in enumerate(gangs):
            mask = hall.permitted(gang.shape)
            for row, bay in enumerate(hall.bays):
                if bay.devices >= gang.shape.devices and hall.ready[row] and (mask is None or mask[row]):
                    self.lasts_s[row][number] = known(moment.work_s(gang, bay.model))

    def best(self, rng: np.random.Generator) -> list[list[int]]:
        """For each row its gangs in order."""
        lines = self._first()
        done = [self._worked_off(row, line) for row, line in enumerate(lines)]
        value = least = self._value(done)
        found = [line.copy() for line in lines]
        rows = len(lines)
        steps = min(STEPS_MOST, STEPS_PER_GANG * len(self._devices))
        draws = rng.random((steps, 5)).tolist()
        for step, (kind, first, second, where, beside) in enumerate(draws):
            a, b = int(first * rows), int(second * rows)
            if not lines[a] or (kind >= MOVES_RATIO and not lines[b]):
                continue
            i = int(where * len(lines[a]))
            if kind < MOVES_RATIO:
                changed = self._moved(lines, a, b, i, beside)
            else:
                changed = _exchanged(lines, a, b, i, int(beside * len(lines[b])))
            trial = done.copy()
            for row, line in changed.items():
                trial[row] = self._worked_off(row, line)
            now = self._value(trial)
            if now < value * (1.0 + WORSE_RATIO * (1.0 - step / steps) ** 3):
                value, done = now, trial
                for row, line in changed.items():
                    lines[row] = line
                if value < least:
                    least, found = value, [line.copy() for line in lines]
        return found

    def _first(self) -> list[list[int]]:
        """The largest first, each where it ends first; then the least of each row in front."""
        lines: list[list[int]] = [[] for _ in self._free_s]
        order = sorted(
            range(len(self._devices)),
            key=lambda number: -self._devices[number] * min(lasts[number] for lasts in self.lasts_s),
        )
        busy_s = [sum(free) / max(1, len(free)) for free in self._free_s]
        for number in order:
            row = min(range(len(lines)), key=lambda row: busy_s[row] + self._share_s(row, number))
            busy_s[row] += self._share_s(row, number)
            lines[row].append(number)
        for row, line in enumerate(lines):
            line.sort(key=lambda number: self._share_s(row, number))
        return lines

    def _share_s(self, row: int, number: int) -> float:
        """Seconds of all devices of the row."""
        return self.lasts_s[row][number] * self._devices[number] / max(1, len(self._free_s[row]))

    def _moved(
        self, lines: Sequence[list[int]], a: int, b: int, i: int, beside: float
    ) -> dict[int, list[int]]:
        number = lines[a][i]
        rest = lines[a][:i] + lines[a][i + 1 :]
        into = rest if a == b else lines[b].copy()
        if a != b and beside < 0.5:  # by size, as a row is mostly ordered
            size = self._share_s(b, number)
            place = sum(self._share_s(b, other) <= size for other in into)
        else:
            place = int((2 * beside) % 1.0 * (len(into) + 1))
        into.insert(place, number)
        return {a: rest, b: into}

    def _worked_off(self, row: int, line: Sequence[int]) -> tuple[float, float]:
        """Sum of completions, and the last."""
        free, lasts = self._free_s[row].copy(), self.lasts_s[row]
        total = 0.0
        for number in line:
            devices = self._devices[number]
            end_s = free[devices - 1] + lasts[number] if devices <= len(free) else math.inf
            total += end_s
            free[:devices] = [end_s] * devices
            free.sort()
        return total, free[-1] if free else 0.0

    def _value(self, done: Sequence[tuple[float, float]]) -> float:
        count = max(1, len(self._devices))
        return (
            sum(total for total, _ in done) / count
            + LAST_END_WEIGHT * max(last for _, last in done)
            + UNEVEN_WEIGHT * sum(last for _, last in done) / len(done)
        )


def _exchanged(lines: Sequence[list[int]], a: int, b: int, i: int, j: int) -> dict[int, list[int]]:
    one = lines[a].copy()
    if a == b:
        one[i], one[j] = one[j], one[i]
        return {a: one}
    other = lines[b].copy()
    one[i], other[j] = other[j], one[i]
    return {a: one, b: other}
