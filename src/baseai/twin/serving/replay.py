"""A replay of requests carries an autoscaler's choices out: replicas that take their time to come, a queue that holds.

Invariant: the same requests, hall of terms, autoscaler and seed give the same outcome; nothing reads a real clock. No
request is lost: what finds no replica with room is held, first come first served, and goes to the replica with the
least under way. A replica is paid for from its order to its end, warming up and draining included.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from baseai.serving.autoscale import ReplicasSeen
from baseai.serving.demand import DemandSecond
from baseai.twin.serving.pace import Pace
from baseai.twin.serving.policy.seam import Autoscaler
from baseai.twin.serving.trace import Request

Tell = Callable[[float, float], None]
"""Told every ten virtual minutes: the instant, and the one at which the replay ends."""

TOLD_EVERY_S = 600
NO_TOKENS = Request(0.0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What replicas are made of."""

    pace: Pace
    concurrency: int  # requests that one replica is given at once
    warm_up_s: float  # from order to ready, waiting for a lease included
    warm_up_spread: float = 0.2  # each takes so much more or less, evenly spread

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.warm_up_s < 0 or not 0 <= self.warm_up_spread <= 1:
            raise ValueError(f"no replica is like {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Some who ask again as soon as they are answered: what a step of concurrency is made of."""

    count: int
    from_s: float
    until_s: float
    request: Request = NO_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One second in which the number of replicas was changed."""

    at_s: float
    wanted: int
    had: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """One replica's life."""

    ordered_s: float
    ready_s: float | None
    ended_s: float | None  # None: it stood when the replay ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a replay brought about."""

    waits: Sequence[tuple[float, float]]  # (arrived at, seconds held); inf where it was never begun
    replicas: Sequence[Lived]
    decisions: Sequence[Decision]
    served_s: float  # of requests, summed over their time on replicas
    until_s: float


class _Replica:
    __slots__ = ("draining", "ended_s", "load", "number", "ordered_s", "ready_s")

    def __init__(self, number: int, ordered_s: float) -> None:
        self.number = number
        self.ordered_s = ordered_s
        self.ready_s: float | None = None
        self.ended_s: float | None = None
        self.load = 0
        self.draining = False


class ServingReplay:
    """One replay. Call `run` once."""

    def __init__(
        self,
        requests: Sequence[Request],
        hardware: Hardware,
        autoscaler: Autoscaler,
        rng: np.random.Generator,
        *,
        clients: Sequence[Clients] = (),
        begin_with: int = 0,
        until_s: float | None = None,
        tell: Tell | None = None,
    ) -> None:
        """begin_with: replicas ready at 0 s. until_s: where it ends; by default a minute after the last arrival."""
        self._requests = requests
        self._hardware = hardware
        self._autoscaler = autoscaler
        self._rng = rng
        self._clients = sorted(clients, key=lambda each: each.from_s)
        self._tell = tell
        last_s = max(
            [requests[-1].at_s if requests else 0.0, *(each.until_s for each in clients)], default=0.0
        )
        self._until_s = math.ceil(last_s + 60) if until_s is None else until_s
        self._replicas: list[_Replica] = []
        self._by_load: list[dict[int, _Replica]] = [{} for _ in range(hardware.concurrency + 1)]
        self._held: deque[tuple[float, Request, float]] = deque()  # arrived, what, asked again until
        self._events: list[tuple[float, int, _Replica, Request | None, float]] = []
        self._event_no = 0
        self._in_it = 0  # requests under way or held
        self._area = 0.0  # their integral over this second
        self._since_s = 0.0
        self._arrivals = 0
        self._seconds: list[DemandSecond] = []
        self._waits: list[tuple[float, float]] = []
        self._decisions: list[Decision] = []
        self._served_s = 0.0
        for _ in range(begin_with):
            replica = self._order(0.0)
            self._events.pop()
            self._get_ready(replica, 0.0)

    def run(self) -> Carried:
        """Until the end; requests that are under way then have been begun, those held have not."""
        for second in range(math.floor(self._until_s)):
            self._live_through(float(second), float(second + 1))
            self._decide(float(second + 1))
            if self._tell is not None and second % TOLD_EVERY_S == 0:
                self._tell(float(second), self._until_s)
        self._waits += [(arrived_s, math.inf) for arrived_s, _, _ in self._held]
        return Carried(
            waits=self._waits,
            replicas=[
                Lived(ordered_s=each.ordered_s, ready_s=each.ready_s, ended_s=each.ended_s)
                for each in self._replicas
            ],
            decisions=self._decisions,
            served_s=self._served_s,
            until_s=self._until_s,
        )

    # ----------------------------------------------------------------------------------------------- one second

    def _live_through(self, from_s: float, to_s: float) -> None:
        requests, events = self._requests, self._events
        self._area, self._since_s, arrivals_before = 0.0, from_s, self._arrivals
        while self._clients and self._clients[0].from_s < to_s:
            group = self._clients.pop(0)
            for _ in range(group.count):
                self._arrive(max(from_s, group.from_s), group.request, group.until_s)
        begun = self._next
        while True:
            arrives_s = requests[begun].at_s if begun < len(requests) else math.inf
            event_s = events[0][0] if events else math.inf
            if min(arrives_s, event_s) >= to_s:
                break
            if event_s <= arrives_s:
                at_s, _, replica, request, again_until_s = heappop(events)
                if request is None:
                    self._get_ready(replica, at_s)
                else:
                    self._finish(replica, at_s)
                    if at_s < again_until_s:
                        self._arrive(at_s, request, again_until_s)
            else:
                self._arrive(arrives_s, requests[begun], 0.0)
                begun += 1
        self._next = begun
        self._count(to_s)
        self._seconds.append(
            DemandSecond(
                at_s=from_s,
                concurrency=self._area,
                held=len(self._held),
                arrivals=self._arrivals - arrivals_before,
            )
        )

    _next = 0  # request that has not arrived yet

    def _count(self, now_s: float) -> None:
        self._area += self._in_it * (now_s - self._since_s)
        self._since_s = now_s

    def _arrive(self, now_s: float, request: Request, again_until_s: float) -> None:
        self._count(now_s)
        self._in_it += 1
        self._arrivals += 1
        for level in self._by_load[:-1]:
            if level:
                self._begin(next(iter(level.values())), now_s, request, now_s, again_until_s)
                return
        self._held.append((now_s, request, again_until_s))

    def _begin(
        self, replica: _Replica, now_s: float, request: Request, arrived_s: float, again_until_s: float
    ) -> None:
        del self._by_load[replica.load][replica.number]
        replica.load += 1
        self._by_load[replica.load][replica.number] = replica
        self._waits.append((arrived_s, now_s - arrived_s))
        takes_s = self._hardware.pace.service_s(request, replica.load)
        self._served_s += takes_s
        self._event_no += 1
        heappush(self._events, (now_s + takes_s, self._event_no, replica, request, again_until_s))

    def _finish(self, replica: _Replica, now_s: float) -> None:
        self._count(now_s)
        self._in_it -= 1
        if replica.draining:
            replica.load -= 1
            if replica.load == 0:
                replica.ended_s = now_s
            return
        del self._by_load[replica.load][replica.number]
        replica.load -= 1
        self._by_load[replica.load][replica.number] = replica
        self._fill(replica, now_s)

    def _get_ready(self, replica: _Replica, now_s: float) -> None:
        if replica.ended_s is None:  # else it was called off while it started
            replica.ready_s = now_s
            self._by_load[0][replica.number] = replica
            self._fill(replica, now_s)

    def _fill(self, replica: _Replica, now_s: float) -> None:
        while self._held and replica.load < self._hardware.concurrency:
            arrived_s, request, again_until_s = self._held.popleft()
            self._begin(replica, now_s, request, arrived_s, again_until_s)

    # ------------------------------------------------------------------------------------------------ decisions

    def _decide(self, now_s: float) -> None:
        autoscaler = self._autoscaler
        if now_s % autoscaler.every_s:
            return
        starting = [each for each in self._replicas if each.ready_s is None and each.ended_s is None]
        ready = [replica for level in self._by_load for replica in level.values()]
        seen = ReplicasSeen(ready=len(ready), starting=len(starting), warm_up_s=self._hardware.warm_up_s)
        wanted = autoscaler.wanted(self._seconds[-autoscaler.looks_back_s :], seen, now_s)
        had = len(ready) + len(starting)
        if wanted == had:
            return
        self._decisions.append(Decision(at_s=now_s, wanted=wanted, had=had))
        for _ in range(wanted - had):
            self._order(now_s)
        if wanted < had:
            spare = sorted(starting, key=lambda each: -each.ordered_s)
            spare += sorted(ready, key=lambda each: (each.load, -each.number))
            for replica in spare[: had - wanted]:
                self._drain(replica, now_s)

    def _order(self, now_s: float) -> _Replica:
        replica = _Replica(len(self._replicas), now_s)
        self._replicas.append(replica)
        spread = self._hardware.warm_up_spread
        takes_s = self._hardware.warm_up_s * float(self._rng.uniform(1 - spread, 1 + spread))
        self._event_no += 1
        heappush(self._events, (now_s + takes_s, self._event_no, replica, None, 0.0))
        return replica

    def _drain(self, replica: _Replica, now_s: float) -> None:
        if replica.ready_s is not None:
            del self._by_load[replica.load][replica.number]
        replica.draining = True
        if replica.load == 0:
            replica.ended_s = now_s
