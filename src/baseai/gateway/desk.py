"""A desk is one replica as this gateway process knows it: what is under way, how fast it is, whether it is spared.

Invariant: each request that takes a place gives it back exactly once, saying how it went; no more are under way than
the service's `concurrency`. Its lobby takes and gives back; what it has learnt ends with the replica.
"""

import math
from typing import Literal

from baseai.gateway.breaker import Breaker, Failing
from baseai.gateway.upstream import Pool
from baseai.serving.route import Backend

MEMORY_S = 0.5  # how far back latency is remembered: a replica that turns slow loses traffic within a second
TRIAL_S = 1.0  # a slow replica that nobody sends to is tried once in so long, to see whether it still is
FORGET_S = 10.0  # without an answer for so long its speed is not known any more
FULL_S = 0.1  # a replica that said it is full is left alone for so long

End = Literal["answered", "full", "gone"] | Failing


class Desk:
    """One replica, live."""

    __slots__ = (
        "_answered_at_s",
        "_found_slowness",
        "_full_until_s",
        "_latency_ms",
        "_taken_at_s",
        "_waiting",
        "backend",
        "breaker",
        "most",
        "own_program",
        "pool",
        "run_id",
        "slowness",
        "token",
        "under_way",
    )

    def __init__(self, backend: Backend, pool: Pool, most: int) -> None:
        self.backend = backend
        self.run_id = backend.run_id
        self.pool = pool
        self.most = most
        self.own_program = False  # of the tenant: its server knows keys of its own, perhaps
        self.token = (backend.token or "").encode()
        self.breaker = Breaker()
        self.under_way = 0
        self.slowness = 1.0  # beside its peers, as choices are to see it
        self._found_slowness = 1.0
        self._latency_ms: float | None = None
        self._answered_at_s = 0.0
        self._taken_at_s = 0.0
        self._full_until_s = 0.0
        self._waiting: dict[
            int, float
        ] = {}  # request -> since when its first byte is waited for, oldest first

    def open(self, now_s: float) -> bool:
        """One more request may be sent there."""
        return (
            self.under_way < self.most
            and not self.backend.draining
            and self.breaker.admits(now_s)
            and now_s >= self._full_until_s
        )

    def compare(self, slowness: float, now_s: float) -> None:
        """Its lobby has compared the replicas: this one is so slow beside its peers.

        One that has been silent for a while, with no first byte waited for, counts as one of them until a request
        goes there: that is its trial. Long answers under way do not put it off.
        """
        silent_s = now_s - max(self._taken_at_s, self._answered_at_s)
        self._found_slowness = slowness
        self.slowness = 1.0 if silent_s >= TRIAL_S and not self._waiting else slowness

    def take(self, ticket: int, now_s: float) -> None:
        """A place for the request called `ticket`."""
        self.under_way += 1
        self.slowness = self._found_slowness
        self._taken_at_s = now_s
        self._waiting[ticket] = now_s
        self.breaker.sent()

    def first_byte(self, ticket: int, *, well: bool, now_s: float) -> None:
        """An answer has begun: that is what a replica's speed is measured by, however long its answers are.

        well: it is no error, so a trial is over, however long the answer goes on.
        """
        if well:
            self.breaker.answered(now_s)
        since_s = self._waiting.pop(ticket, None)
        if since_s is None:
            return
        latency_ms = (now_s - since_s) * 1000
        silent_s = now_s - self._answered_at_s
        if self._latency_ms is None or silent_s >= TRIAL_S:  # what a trial finds replaces what was known
            self._latency_ms = latency_ms
        else:
            part = 1 - math.exp(-silent_s / MEMORY_S)
            self._latency_ms += max(part, 0.05) * (latency_ms - self._latency_ms)
        self._answered_at_s = now_s

    def give_back(self, ticket: int, end: End, *, may_eject: bool, now_s: float) -> None:
        """The request called `ticket` is over."""
        self.under_way -= 1
        self._waiting.pop(ticket, None)
        if end == "answered":
            self.breaker.answered(now_s)
        elif end == "full":
            self.breaker.answered(now_s)  # it lives
            self._full_until_s = now_s + FULL_S
        elif end == "gone":
            self.breaker.abandoned()
        elif self.breaker.failed(end, may_eject=may_eject, now_s=now_s):
            self.pool.close()

    def latency_ms(self, now_s: float) -> float | None:
        """Of the first byte, lately; a request that has waited for longer than that counts as it stands."""
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None and now_s - self._answered_at_s > FORGET_S:
            self._latency_ms = None
        waited_ms = 0.0 if oldest is None else (now_s - oldest) * 1000
        if self._latency_ms is None:
            return waited_ms or None
        return max(self._latency_ms, waited_ms)
