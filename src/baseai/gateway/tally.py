"""A tally counts what is asked of one service, second by second: requests under way or held, and arrivals.

Invariant: a second's concurrency is the area under the count of requests, so nothing between two looks is missed.
The path enters and leaves; whoever ships demand takes the seconds that are over.
"""

from collections import deque
from typing import NamedTuple

SECONDS_MOST = 120  # for whoever comes late


class Second(NamedTuple):
    """One second that is over, on the steady clock."""

    began_s: float
    concurrency: float
    held: int
    arrivals: int


class Tally:
    """The demand of one service at this gateway process."""

    __slots__ = ("_area", "_arrivals", "_began_s", "_over", "_seen_s", "held", "present")

    def __init__(self, now_s: float) -> None:
        self.present = 0  # under way or held
        self.held = 0
        self._began_s = float(int(now_s))
        self._seen_s = now_s
        self._area = 0.0
        self._arrivals = 0
        self._over: deque[Second] = deque(maxlen=SECONDS_MOST)

    def enter(self, now_s: float) -> None:
        self._pass(now_s)
        self.present += 1
        self._arrivals += 1

    def leave(self, now_s: float) -> None:
        self._pass(now_s)
        self.present -= 1

    def hold(self, now_s: float) -> None:
        """One of those present has to wait."""
        self._pass(now_s)
        self.held += 1

    def let_go(self, now_s: float) -> None:
        """He has a place, or gave up."""
        self._pass(now_s)
        self.held -= 1

    def taken(self, now_s: float) -> list[Second]:
        """The seconds that are over and were not taken before, oldest first, without those in which nothing was."""
        self._pass(now_s)
        over = list(self._over)
        self._over.clear()
        return over

    def _pass(self, now_s: float) -> None:
        """Let time pass: close the seconds that ended since the last look."""
        while now_s >= self._began_s + 1.0:
            end_s = self._began_s + 1.0
            self._area += self.present * (end_s - self._seen_s)
            if self._area or self._arrivals:
                self._over.append(Second(self._began_s, self._area, self.held, self._arrivals))
            elif not self.present:  # nothing was, nothing is: the rest of the gap is empty too
                self._began_s, self._seen_s = float(int(now_s)), now_s
                return
            self._began_s = self._seen_s = end_s
            self._area, self._arrivals = 0.0, 0
        self._area += self.present * (now_s - self._seen_s)
        self._seen_s = now_s
