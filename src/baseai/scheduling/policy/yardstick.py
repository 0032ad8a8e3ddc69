"""A yardstick is what first come, first served would have made everybody wait, on the same accelerators in one pool.

Invariant: each gang is given, as it comes, the earliest stretch that nobody before it was given (conservative
backfilling), and keeps it, for durations are known; so its wait is known when it comes. Nodes, CPU and memory are not
looked at, so that it promises a little more than anybody can keep: whoever stays below it stays below EASY.
"""

from bisect import bisect_left, bisect_right, insort


class Yardstick:
    """A step function of what is free from now on. One gang costs O(steps)."""

    def __init__(self, milli: int) -> None:
        self._milli = milli
        self._at_s = [0.0]
        self._free = [milli]
        self._waits_s: list[float] = []  # in order

    def came(self, now_s: float, milli: int, lasts_s: float) -> float:
        """Take in one gang; how long it would wait. `now_s` never falls. Larger than the pool: it takes it all."""
        at_s, free, milli = self._at_s, self._free, min(milli, self._milli)
        past = bisect_right(at_s, now_s) - 1
        if past > 0:
            del at_s[:past], free[:past]
        at_s[0] = max(at_s[0], now_s)
        step = 0
        while True:
            while free[step] < milli:
                step += 1
            end_s, last = at_s[step] + lasts_s, step
            while last < len(at_s) and at_s[last] < end_s and free[last] >= milli:
                last += 1
            if last == len(at_s) or at_s[last] >= end_s:
                break
            step = last
        start_s = at_s[step]
        last = bisect_left(at_s, end_s)
        if last == len(at_s) or at_s[last] != end_s:
            at_s.insert(last, end_s)
            free.insert(last, free[last - 1])
        for each in range(step, last):
            free[each] -= milli
        insort(self._waits_s, start_s - now_s)
        return start_s - now_s

    def wait_s(self, ratio: float) -> float:
        """The wait that this share of all that came does not exceed; between two, in proportion."""
        place = ratio * (len(self._waits_s) - 1)
        below = int(place)
        above = min(below + 1, len(self._waits_s) - 1)
        low_s = self._waits_s[below]
        return low_s + (place - below) * (self._waits_s[above] - low_s)
