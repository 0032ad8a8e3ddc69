"""A door is what one gateway process knows and holds: routes, lobbies, and who decides about callers.

Invariant: routes are replaced as a whole by `hold_routes`; a request keeps the route it came in with. Passages read
the door; only it makes and forgets lobbies.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from baseai.gateway.lobby import Lobby, lobbies_renewed
from baseai.gateway.seams import Cache, Journal, Keys, Limits
from baseai.serving.demand import DemandSecond
from baseai.serving.route import Route, Routes

# Whole seconds of it are whole seconds of the wall clock, so that seconds of several gateways add up; and it is never
# more than a second off the machine's steady clock, by which processes share their limits.
_SKEW_S = (time.time() - time.monotonic()) % 1.0


def steady_s() -> float:
    """The steady clock of this process, in seconds."""
    return time.monotonic() + _SKEW_S


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """What whoever runs gateways may set."""

    processes: int = 1  # gateways that share the replicas; each has its part of a service's `concurrency`
    most_body_bytes: int = 32 << 20  # of a request, before its service is known; services set less
    body_s: float = 30.0  # for a request's body to arrive
    routes_old_after_s: float = 30.0  # without a word from the database; then /health says so


class Door:
    """What passages share."""

    def __init__(
        self,
        *,
        keys: Keys,
        limits: Limits,
        cache: Cache | None,
        journal: Journal,
        chance: Callable[[], float],
        settings: DoorSettings | None = None,
    ) -> None:
        self.keys = keys
        self.limits = limits
        self.cache = cache
        self.journal = journal
        self.chance = chance
        self.settings = settings or DoorSettings()
        self.routes = Routes(by_id={}, by_model={})
        self.routes_at_s: float | None = None  # when they were last heard of; None: never
        self.lobbies: dict[str, Lobby] = {}
        self.counts = Counts()
        self._sweeping: asyncio.TimerHandle | None = None

    def hold_routes(self, routes: Routes) -> None:
        """Go on with these. Called in the gateway's event loop, also when nothing has changed."""
        self.routes_at_s = steady_s()
        self.routes = routes
        self.lobbies = lobbies_renewed(self.lobbies, routes.by_id)

    def lobby(self, route: Route) -> Lobby:
        lobby = self.lobbies.get(route.service_id)
        if lobby is None:
            loop = asyncio.get_running_loop()
            lobby = self.lobbies[route.service_id] = Lobby(
                route,
                loop=loop,
                clock=steady_s,
                chance=self.chance,
                processes=self.settings.processes,
            )
            if self._sweeping is None:
                self._sweeping = loop.call_later(1.0, self._sweep)
        return lobby

    def taken(self, *, now_s: float, wall_s: float) -> Sequence[tuple[str, DemandSecond]]:
        """The seconds of demand that are over (`seams.DemandCount`)."""
        ago_s = wall_s - now_s
        return [
            (
                service_id,
                DemandSecond(
                    at_s=float(round(second.began_s + ago_s)),
                    concurrency=second.concurrency,
                    held=second.held,
                    arrivals=second.arrivals,
                ),
            )
            for service_id, lobby in self.lobbies.items()
            for second in lobby.tally.taken(now_s)
        ]

    def close(self) -> None:
        """Close what stands idle."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for lobby in self.lobbies.values():
            lobby.close()

    def _sweep(self) -> None:
        for lobby in self.lobbies.values():
            lobby.sweep()
        self._sweeping = asyncio.get_running_loop().call_later(1.0, self._sweep)


@dataclass(slots=True)
class Counts:
    """How often what happened in this process, for /metrics."""

    answers: dict[int, int] = field(default_factory=dict)  # by status
    retries: int = 0
    under_way: int = 0

    def answered(self, status: int) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1
