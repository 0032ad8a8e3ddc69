"""An estimate is the interval in which a waiting run will start, four times of five, told without knowing durations.

Drawn by going forward: all that runs and all that waits ahead is given lifetimes as they have been seen lately, some
futures long, and the middle future is the likely start. How far off that has been so far sets the interval about it
(quantile tracking: each miss moves the bound that was missed by nine steps, each other outcome back by one; the steps
are long at first, and shrink as more is known), so that the share of hits comes to four fifths whatever the futures
leave out: those who are to come, nodes, other policies.

Invariant: only what has been seen counts; an estimate that its run has outlived is a miss from then on, not only once
the run starts. The same history and the same rng give the same estimates.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baseai.scheduling.gang import Shape

Floats = NDArray[np.float64]

FUTURES = 16
KEPT = 300  # lifetimes of each shape, the latest
OWN_LEAST = 10  # lifetimes of a shape before they count instead of those of all
AHEAD_MOST = 64  # beyond it the accelerator time ahead is summed, not played
STEP = 0.08  # of a bound, in the logarithm of the ratio of what came to what was likely
STEP_FIRST, STEP_OUTCOMES = 0.4, 4  # at first; by half after 3 times so many outcomes, as 1 / sqrt after that
OUTSIDE_RATIO = 0.1  # wanted beyond each bound
LEVEL_S = 60.0  # added to both before the ratio, so that a minute more or less is no miss
FIRST_EARLIEST, FIRST_LATEST = 1.5, 1.0  # bounds before anything is known, as that logarithm
UNSEEN_S = 3600.0
DRAWN = 400  # lifetimes into which a distribution is cut
MISSED = math.inf


class Estimate(NamedTuple):
    """Seconds from the instant it was asked for."""

    asked_s: float
    earliest_s: float
    likely_s: float
    latest_s: float

    def holds(self, waited_s: float) -> bool:
        return self.earliest_s <= waited_s <= self.latest_s


class Estimator:
    """What is learned so far. Ask with `estimate`; say what came of it with `came` or `outlived`, once for each."""

    def __init__(self, milli: int, rng: np.random.Generator) -> None:
        self._milli = milli
        self._rng = rng
        self._lasted_s: dict[Shape, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._lasted_all_s: deque[float] = deque(maxlen=KEPT)
        self._early, self._late = FIRST_EARLIEST, FIRST_LATEST
        self._outcomes = 0

    def ended(self, shape: Shape, lasted_s: float) -> None:
        self._lasted_s[shape].append(lasted_s)
        self._lasted_all_s.append(lasted_s)

    def came(self, estimate: Estimate, waited_s: float) -> None:
        """Its run has started."""
        self._outcome(math.log((waited_s + LEVEL_S) / (estimate.likely_s + LEVEL_S)))

    def outlived(self, estimate: Estimate) -> None:
        """Its run still waits, longer than the latest that was said."""
        self._outcome(MISSED)

    def _outcome(self, ratio_log: float) -> None:
        step = max(STEP, STEP_FIRST / math.sqrt(1 + self._outcomes / STEP_OUTCOMES))
        inside = step * OUTSIDE_RATIO
        self._outcomes += 1
        self._late += step - inside if ratio_log > self._late else -inside
        self._early += step - inside if ratio_log < -self._early else -inside
        self._early = max(self._early, -self._late)

    def resized(self, milli: int) -> None:
        """From now on the pool has so many thousandths of accelerators."""
        self._milli = milli

    def likely_s(
        self,
        running: Sequence[tuple[Shape, float]],
        ahead: Sequence[tuple[Shape, float]],
        shape: Shape,
        *,
        stands_for: float = 1.0,
    ) -> float:
        """The median over futures of the seconds until a gang starts, first come, first served, in one pool.

        running, ahead: shape and seconds served so far, `ahead` in its order.
        stands_for: how many that run each of `running` was drawn to speak for.
        """
        going: dict[Shape, list[float]] = defaultdict(list)
        for one, served_s in chain(running, ahead):
            if served_s > 0:
                going[one].append(served_s)
        lifetimes: dict[Shape, Floats] = {}

        def left(one: Shape, served_s: float, count: int = FUTURES) -> Floats:
            if one not in lifetimes:
                lifetimes[one] = self._lifetimes(one, going)
            return self._left(lifetimes[one], served_s, count)

        left_s = [left(one, served_s) for one, served_s in running]
        if len(ahead) > AHEAD_MOST:
            work = sum(
                (
                    found * one.milli_total * stands_for
                    for found, (one, _) in zip(left_s, running, strict=True)
                ),
                start=np.zeros(FUTURES),
            )
            for one, count in Counter(one for one, _ in ahead).items():
                work += left(one, 0.0, 4 * FUTURES).mean() * one.milli_total * count
            return float(np.median(work)) / self._milli
        ahead_s = [left(one, served_s) for one, served_s in ahead]
        return float(
            np.median(
                [
                    self._start_s(
                        [
                            (float(found[future]), one.milli_total * stands_for)
                            for found, (one, _) in zip(left_s, running, strict=True)
                        ],
                        [
                            (one.milli_total, float(found[future]))
                            for found, (one, _) in zip(ahead_s, ahead, strict=True)
                        ],
                        shape.milli_total,
                    )
                    for future in range(FUTURES)
                ]
            )
        )

    def estimate(
        self,
        now_s: float,
        running: Sequence[tuple[Shape, float]],
        ahead: Sequence[tuple[Shape, float]],
        shape: Shape,
    ) -> Estimate:
        """When a gang of this shape starts that waits behind `ahead`. See `likely_s` for the arguments."""
        return self.about(now_s, self.likely_s(running, ahead, shape))

    def line_s(
        self,
        running: Sequence[tuple[Shape, float]],
        kinds: Sequence[Shape],
        line: Sequence[int],
        *,
        stands_for: float = 1.0,
    ) -> Floats:
        """(len(line),) the seconds until each of a long line starts, by the accelerator time ahead of it: one sum.

        It is what `likely_s` says beyond AHEAD_MOST, for all of them at the price of one.
        line: of each in its order, which of `kinds` it is.
        """
        going: dict[Shape, list[float]] = defaultdict(list)
        for one, served_s in running:
            going[one].append(served_s)
        lifetimes = {one: self._lifetimes(one, going) for one in dict.fromkeys((*going, *kinds))}
        work = np.zeros(FUTURES)
        for one, served_s in running:
            work += self._left(lifetimes[one], served_s, FUTURES) * one.milli_total * stands_for
        takes = np.array(
            [self._left(lifetimes[one], 0.0, 4 * FUTURES).mean() * one.milli_total for one in kinds]
        )
        ahead = np.cumsum(takes[np.asarray(line, dtype=np.int64)])
        found: Floats = (float(np.median(work)) + np.concatenate([[0.0], ahead[:-1]])) / self._milli
        return found

    @property
    def is_new(self) -> bool:
        """Whether it has seen too little to say of anybody that it will not start at once."""
        return len(self._lasted_all_s) < OWN_LEAST

    def about(self, now_s: float, likely_s: float) -> Estimate:
        """The interval about a likely start, as wide as the errors so far make it."""
        earliest_s = 0.0 if self.is_new else (likely_s + LEVEL_S) * math.exp(-self._early) - LEVEL_S
        return Estimate(
            now_s,
            max(0.0, earliest_s),
            likely_s,
            max(0.0, (likely_s + LEVEL_S) * math.exp(self._late) - LEVEL_S),
        )

    def _start_s(
        self, running: list[tuple[float, float]], ahead: Sequence[tuple[int, float]], milli: int
    ) -> float:
        """One future: (ends, milli) of those that run, (milli, lasts) of those ahead."""
        ends, free, at_s = running, self._milli - sum(each for _, each in running), 0.0
        heapify(ends)
        for needs, lasts_s in (*ahead, (milli, 0.0)):
            while free < needs and ends:
                end_s, gives = heappop(ends)
                at_s = max(at_s, end_s)
                free += gives
            free -= needs
            heappush(ends, (at_s + lasts_s, needs))
        return at_s

    def _left(self, lifetimes: Floats, served_s: float, count: int) -> Floats:
        """Draws of what is left after so long; of one older than all that were seen, about as much again."""
        first = int(np.searchsorted(lifetimes, served_s, side="right"))
        if first == len(lifetimes):
            return served_s * self._rng.exponential(1.0, count) + LEVEL_S
        drawn: Floats = lifetimes[self._rng.integers(first, len(lifetimes), count)] - served_s
        return drawn

    def _lifetimes(self, shape: Shape, going: Mapping[Shape, Sequence[float]]) -> Floats:
        """Lifetimes in order, each as likely as any other, by Kaplan and Meier (1958): those that go on count too."""
        own = len(self._lasted_s[shape]) >= OWN_LEAST
        ended = list(self._lasted_s[shape] if own else self._lasted_all_s) or [UNSEEN_S]
        still = [each for one, served in going.items() if not own or one == shape for each in served]
        seen_s = np.array(ended + still)
        is_end = np.concatenate([np.ones(len(ended)), np.zeros(len(still))])
        order = np.lexsort((-is_end, seen_s))
        seen_s, is_end = seen_s[order], is_end[order]
        survival = np.cumprod(1.0 - is_end / (len(seen_s) - np.arange(len(seen_s))))
        weight = np.concatenate([[1.0], survival[:-1]]) - survival
        counts = np.where(weight > 0, np.maximum(1, np.round(weight * DRAWN)), 0).astype(int)
        found = np.repeat(seen_s, counts)
        beyond = round(float(survival[-1]) * DRAWN)  # of nobody that goes on is known how long it will
        if beyond:
            found = np.concatenate([found, np.linspace(1.1, 2.5, beyond) * seen_s[-1]])
        return np.sort(found)
