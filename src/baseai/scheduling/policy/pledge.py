"""Pledge: the least service first, and all but the hundredth that asks most start as soon as the yardstick promises.

In the order of completion it is like SJF, by seconds times a root of the accelerators; the first that finds no room
is held a place, so that large gangs do not starve. Against that order stands a deadline for each start: the wait that
the yardstick (first come, first served) gives to 99 of 100 so far. Where, going forward, more than a hundredth would
start too late in that order, it is Smith's, which keeps deadlines (`smith.py`).

Invariant: nobody is preempted, and whoever is first in the order is never put off by those behind it. Who has missed
its deadline has none any more; as long as those are fewer than `EXEMPT_RATIO` of all that came, the ones that ask most
are let off theirs beforehand. Knows true durations.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, nlargest

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Spots
from baseai.scheduling.policy.knowledge import ends_s, shortest_left_s
from baseai.scheduling.policy.line import Line
from baseai.scheduling.policy.needs import Needs
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start, Wake
from baseai.scheduling.policy.smith import Due, smith_order
from baseai.scheduling.policy.timeline import Timeline
from baseai.scheduling.policy.yardstick import Yardstick

WIDTH_POWER = 0.4  # of the accelerators, in the order of completion
PROMISED_RATIO = 0.99  # of all whose wait in the yardstick is the deadline
EXEMPT_RATIO = 0.009  # of all that came; a little below the hundredth that the promise leaves
PACES = (
    1.6,
    1.3,
    1.0,
)  # at which the queue may be worked off, over what the sum says: holes are filled by the way


class Pledge:
    """See the head of this file."""

    needs_durations = True

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._packing = packing
        self._milli = max(1, hall.milli_installed)
        self._yardstick = Yardstick(self._milli)
        self._line, self._needs = Line(), Needs()
        self._lasts_s: dict[str, float] = {}
        self._share_s: dict[str, float] = {}  # seconds of the whole hall
        self._queued_s = 0.0  # of all that wait, so
        self._came = 0
        self._promise_s = 0.0
        self._waited_s: list[float] = []  # of all that started, in order

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in moment.arrived:
            self._take_in(gang, shortest_left_s(moment, gang))
        if moment.arrived:
            self._promise_s = self._yardstick.wait_s(PROMISED_RATIO)
        if not len(self._line):
            return
        room, number = self._needs.finding_room(moment.hall), self._needs.number
        if not room.any():
            return
        held: Gang | None = None
        wake_s = math.inf
        timeline: Timeline | None = None
        late: dict[Shape, float] = {}  # beside the held place so long ones of that shape find none
        for gang in self._in_order(moment):
            spots = self._packing.place(gang, moment.hall) if room[number[gang.shape]] else None
            if spots is None:
                room[number[gang.shape]] = False
                held = held or gang
                if not room.any():
                    break
                continue
            later_s = self.rather_s(moment, gang, spots)
            if later_s > moment.now_s:
                wake_s = min(wake_s, later_s)
                room[number[gang.shape]] = False
                continue
            lasts_s = self._lasts_s[gang.run_id]
            if held is not None:
                if lasts_s >= late.get(gang.shape, np.inf):
                    continue
                if timeline is None:
                    timeline = Timeline(moment)
                    timeline.reserve(held, self._lasts_s[held.run_id])
                spots = self.beside(timeline, gang, spots, moment.hall)
                if spots is None:
                    late[gang.shape] = lasts_s
                    continue
                timeline.take(gang.shape, [spot.row for spot in spots], moment.now_s, lasts_s)
            self._let_go(gang, moment.now_s)
            yield Start(gang.run_id, spots)
        if wake_s < math.inf:
            yield Wake(wake_s)

    def rather_s(self, moment: Moment, gang: Gang, spots: Spots) -> float:
        """Until when the gang would rather wait than go there; now or before where it would not."""
        return moment.now_s

    def lasts_s(self, gang: Gang) -> float:
        return self._lasts_s[gang.run_id]

    def beside(self, timeline: Timeline, gang: Gang, spots: Spots, hall: Hall) -> Spots | None:
        """Where the gang is not in the way of the held place: where it was put, else on rows that stay free."""
        shape, lasts_s = gang.shape, self._lasts_s[gang.run_id]
        if timeline.is_free(shape, [spot.row for spot in spots], lasts_s):
            return spots
        rows = np.intersect1d(timeline.rows_free(shape, lasts_s), hall.fits(shape).nonzero()[0])
        for model in dict.fromkeys(hall.model[rows].tolist() if shape.one_model else [-1]):
            of_model = rows[hall.model[rows] == model] if shape.one_model else rows
            tightest = of_model[hall.spare[of_model].argsort(kind="stable")]
            found = hall.spots(shape, tightest.tolist())
            if found is not None and timeline.is_free(shape, [spot.row for spot in found], lasts_s):
                return found
        return None

    # ------------------------------------------------------------------------------------------------- the order

    def _in_order(self, moment: Moment) -> list[Gang]:
        """By size where no more come too late than may, else by Smith, with as little in the way of size as will do."""
        by_size = [gang for _, gang in self._line.but(set())]
        ends = [
            (ends_s(moment, running), running.gang.shape.milli_total) for running in moment.running.values()
        ]
        work_s = self._queued_s + sum((end_s - moment.now_s) * milli for end_s, milli in ends) / self._milli
        if all(gang.submit_s + self._promise_s >= moment.now_s + work_s for gang in by_size):
            return by_size
        may = int(EXEMPT_RATIO * self._came)
        may -= len(self._waited_s) - bisect_right(self._waited_s, self._promise_s)
        may = max(0, may)
        if self._late(by_size, ends, moment.now_s) <= may:
            return by_size
        found: list[tuple[int, list[Gang]]] = []
        for pace in PACES:
            order = self._by_smith(moment, work_s, pace, may)
            found.append((self._late(order, ends, moment.now_s), order))
            if found[-1][0] <= may:
                break
        return min(found, key=lambda each: each[0])[1]

    def _late(self, order: Sequence[Gang], ends: Sequence[tuple[float, int]], now_s: float) -> int:
        """How many would start behind their deadline if nobody else came, in one pool and strictly in this order."""
        running, at_s, late = list(ends), now_s, 0
        heapify(running)
        free = self._milli - sum(milli for _, milli in running)
        for gang in order:
            milli = gang.shape.milli_total
            while free < milli and running:
                end_s, gives = heappop(running)
                at_s = max(at_s, end_s)
                free += gives
            free -= milli
            heappush(running, (at_s + self._lasts_s[gang.run_id], milli))
            late += at_s - gang.submit_s > self._promise_s
        return late

    def _by_smith(self, moment: Moment, work_s: float, pace: float, may: int) -> list[Gang]:
        """By deadline where it must be; the ones that ask most are exempt, and those it is too late for."""
        free = {
            gang.run_id for gang in moment.waiting.values() if moment.now_s - gang.submit_s > self._promise_s
        }
        others = (gang for gang in moment.waiting.values() if gang.run_id not in free)
        free.update(
            gang.run_id
            for gang in nlargest(max(0, may - len(free)), others, key=lambda gang: self._share_s[gang.run_id])
        )
        return smith_order(
            (
                Due(
                    deadline_s=math.inf if gang.run_id in free else gang.submit_s + self._promise_s,
                    number=gang.number,
                    size=size,
                    share_s=self._share_s[gang.run_id] / pace,
                    gang=gang,
                )
                for size, gang in self._line.but(set())
            ),
            moment.now_s + work_s / pace,
        )

    # ------------------------------------------------------------------------------------------------- the queue

    def _take_in(self, gang: Gang, lasts_s: float) -> None:
        milli = gang.shape.milli_total
        if gang.run_id not in self._lasts_s:  # else it comes back from a node that failed
            self._came += 1
            self._yardstick.came(gang.submit_s, milli, lasts_s)
        self._lasts_s[gang.run_id] = lasts_s
        self._share_s[gang.run_id] = lasts_s * milli / self._milli
        self._queued_s += self._share_s[gang.run_id]
        self._line.join(gang, lasts_s * max(1, milli) ** WIDTH_POWER)
        self._needs.join(gang.shape)

    def _let_go(self, gang: Gang, now_s: float) -> None:
        self._line.leave(gang)
        self._needs.leave(gang.shape)
        self._queued_s -= self._share_s[gang.run_id]
        insort(self._waited_s, now_s - gang.submit_s)
