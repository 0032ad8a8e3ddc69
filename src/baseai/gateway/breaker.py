"""A breaker spares a replica that fails requests, for a growing time, and then lets one request try it.

Invariant: while it is open nothing is sent; half open, exactly one request is under way; one good answer closes it.
The desk of the replica tells it how each request ended.
"""

from typing import Literal

Failing = Literal["refused", "broken", "error"]

# How far one failure in a row goes towards ejection. A refused connection says it all; an answer of 5xx or a missed
# deadline may be the request's own fault.
WEIGHTS: dict[Failing, int] = {"refused": 6, "broken": 3, "error": 1}
LIMIT = 6
FIRST_S = 0.5
LONGEST_S = 30.0
FORGIVEN_S = 60.0  # of good answers after an ejection, before the next is short again


class Breaker:
    """Whether one replica may be sent requests, as its last answers have it."""

    __slots__ = ("_ejections", "_failures", "_trial", "_well_since_s", "until_s")

    def __init__(self) -> None:
        self._failures = 0
        self._ejections = 0
        self._trial = False
        self._well_since_s = 0.0
        self.until_s: float | None = None  # ejected until then, and on trial after it; None: closed

    def admits(self, now_s: float) -> bool:
        return self.until_s is None or (now_s >= self.until_s and not self._trial)

    def ejected(self, now_s: float) -> bool:
        """Nothing may be sent now: the time runs, or the trial is under way."""
        return not self.admits(now_s)

    def sent(self) -> None:
        """A request goes to the replica."""
        self._trial = self.until_s is not None

    def answered(self, now_s: float) -> None:
        """It gave a good answer."""
        self._failures = 0
        if self.until_s is not None:
            self.until_s = None
            self._trial = False
            self._well_since_s = now_s
        elif self._ejections and now_s - self._well_since_s > FORGIVEN_S:
            self._ejections = 0

    def abandoned(self) -> None:
        """A request ended that says nothing of the replica: its client left."""
        self._trial = False

    def failed(self, failing: Failing, *, may_eject: bool, now_s: float) -> bool:
        """It failed a request; whether it is ejected now. may_eject: enough of its peers are left."""
        self._failures += WEIGHTS[failing]
        on_trial = self._trial
        self._trial = False
        if not on_trial and (self._failures < LIMIT or not may_eject):
            return False
        if not on_trial and self.until_s is not None:
            return False  # what was under way when it was ejected fails after it: that is no news
        self._failures = 0
        self.until_s = now_s + min(LONGEST_S, FIRST_S * 2**self._ejections)
        self._ejections += 1
        return True
