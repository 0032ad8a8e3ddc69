"""Smith's order: least sum of completions among those orders of one machine that keep every deadline (Smith, 1956).

Invariant: from the last place on, it goes to the largest of those who may start as late as that; where nobody may, to
whoever has the latest deadline, so that an order is always found, and is by deadline where it cannot be kept.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from baseai.scheduling.gang import Gang


class Due(NamedTuple):
    """One that waits."""

    deadline_s: float  # of its start; inf for none
    number: int  # breaks ties
    size: float  # the smaller the sooner
    share_s: float  # of the machine
    gang: Gang


def smith_order(due: Iterable[Due], done_s: float) -> list[Gang]:
    """The first first. `done_s`: when the machine will have worked all of them off. O(n log n)."""
    by_deadline = sorted(due, key=lambda each: each[:2])
    may: list[tuple[float, int, Due]] = []
    order: list[Gang] = []
    at_s = done_s
    while by_deadline or may:
        while by_deadline and (not may or by_deadline[-1].deadline_s >= at_s - by_deadline[-1].share_s):
            each = by_deadline.pop()
            heappush(may, (-each.size, -each.number, each))
        last = heappop(may)[2]
        order.append(last.gang)
        at_s -= last.share_s
    order.reverse()
    return order
