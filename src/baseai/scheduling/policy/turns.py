"""Turns are whose turn it is among queues at one grade of one cycle: at every queue a heap of those that hang below it.

Invariant: next is always the head of the queue that has had the least for its weight, compared level by level from
the root; queues that fall into one band are told apart by the margin of their heads. Made by `Shares` for one
grade of one cycle; a step costs O(log queues) on each level.
"""

import math
from collections.abc import Iterator
from enum import IntEnum
from heapq import heapify, heappop, heapreplace

from baseai.scheduling.gang import Gang
from baseai.scheduling.policy.portion import Portion

BAND_RATIO = 0.05  # of a fair share: queues that close together are told apart by margin
BAND_LEAST = 1.0  # worth of one accelerator of all queues together: closer than that is even


class Grade(IntEnum):
    """What a gang would take: the first goes first, whatever the shares are."""

    QUOTA = 0  # what its queue is guaranteed
    BORROWED = 1  # what others are guaranteed, or nobody
    SPOT = 2  # what nobody wants at present


Option = tuple[str, int, float]  # a model that would do, milli of it for the whole gang, and their worth
Candidate = tuple[Gang, Option]
_Key = tuple[int, float, float, int]


class Turn:
    """One queue: those below it whose heads wait, or a leaf's own line."""

    __slots__ = ("_band", "_candidates", "_heap", "_with_spot", "head", "portion", "waiting")

    def __init__(self, portion: Portion, grade: Grade, candidates: Iterator[Candidate] | None = None) -> None:
        """candidates: of a leaf, in its own order."""
        self.portion = portion
        self.head: Candidate | None = None  # who is next, and what it would take
        self.waiting: list[Turn] = []  # those below, until `begin`
        self._candidates = candidates
        self._with_spot = grade is Grade.SPOT
        self._heap: list[tuple[_Key, Turn]] = []
        self._band = 0.0

    def begin(self) -> None:
        """All that wait below are there, and have begun."""
        if self._candidates is not None:
            self.head = next(self._candidates, None)
            return
        below = self.portion.below
        total = math.fsum(one.worth(with_spot=self._with_spot) for one in below)
        self._band = max(BAND_LEAST, BAND_RATIO * total) / math.fsum(one.weight for one in below)
        self._heap = [(self._key(turn), turn) for turn in self.waiting]
        heapify(self._heap)
        self._look()

    def path(self) -> "list[Turn]":
        """From here to the leaf whose turn it is."""
        path = [self]
        while path[-1]._heap:
            path.append(path[-1]._heap[0][1])
        return path

    def advance(self) -> None:
        """Whose turn it was has had it, and may hold another amount."""
        if self._candidates is not None:
            self.head = next(self._candidates, None)
            return
        turn = self._heap[0][1]
        turn.advance()
        if turn.head is None:
            heappop(self._heap)
        else:
            heapreplace(self._heap, (self._key(turn), turn))
        self._look()

    def _look(self) -> None:
        self.head = self._heap[0][1].head if self._heap else None

    def _key(self, turn: "Turn") -> _Key:
        """Ends in a number that no other gang has, so that no two keys are equal."""
        assert turn.head is not None
        gang, _ = turn.head
        ratio = turn.portion.worth(with_spot=self._with_spot) / turn.portion.weight
        # The fair share itself lies in the middle of a band: that is where most queues are.
        return math.floor(ratio / self._band + 0.5), -gang.terms.margin, ratio, gang.number
