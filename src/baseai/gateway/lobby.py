"""A lobby is one service at this gateway process: its desks, who waits for one, and what was asked of it.

Invariant: a request is in the lobby from `enter` to `leave`, and at most at one desk at a time. New routes replace the
list of desks and nothing else: what is under way at a replica that left the list ends there.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from baseai.gateway.balance import Popularity, Trail, by_prefix, by_session, lighter, slownesses
from baseai.gateway.desk import Desk, End
from baseai.gateway.hold import Hold
from baseai.gateway.tally import Tally
from baseai.gateway.upstream import Pool
from baseai.serving.route import Backend, Route

FRESH_S = 0.1  # how old the comparison of replicas may be
PULSE_S = 0.05  # how often those who wait are looked after, beside each time a place is free
OWN_PROGRAMS = ("command", "ray")  # engines whose HTTP is the tenant's


class Wish(NamedTuple):
    """What a request needs of a desk."""

    ticket: int
    version_no: int  # chosen by share; another one when none of its replicas is there
    session: bytes | None
    blocks: tuple[bytes, ...]  # of the prompt, where the service balances by it
    tried: frozenset[str]  # replicas that failed it; they come last


class Lobby:
    """One service, live."""

    def __init__(
        self,
        route: Route,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],  # steady, finer than the loop's own
        chance: Callable[[], float],
        processes: int,  # gateways that share the replicas: each gives them its part of `concurrency`
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._chance = chance
        self._processes = processes
        self.route = route
        self.desks: dict[str, Desk] = {}
        self._trails: dict[str, Trail] = {}
        self._popularity = Popularity()
        self.hold: Hold[Wish, tuple[Desk, int]] = Hold(loop)
        self.tally = Tally(clock())
        self._compared_at_s = 0.0
        self._pulse: asyncio.TimerHandle | None = None
        self._ticket = 0
        self.renew(route)

    def renew(self, route: Route) -> None:
        """The service as it is now. Desks of replicas that stay keep what they know."""
        self.route = route
        versions = {version.version_no: version.terms for version in route.versions}
        desks = {}
        for backend in route.backends:
            terms = versions.get(backend.version_no, route.terms)
            most = max(1, -(-terms.concurrency // self._processes))
            desk = self.desks.get(backend.run_id)
            if desk is None or _moved(desk.backend, backend):
                desk = Desk(backend, Pool(backend.address, backend.port, self._loop), most)
            desk.backend = backend
            desk.most = most
            desk.own_program = terms.engine in OWN_PROGRAMS
            desks[backend.run_id] = desk
        for run_id, desk in self.desks.items():
            if desks.get(run_id) is not desk:
                desk.pool.close()
        self._trails = {
            run_id: self._trails[run_id] if self.desks.get(run_id) is desk else Trail()
            for run_id, desk in desks.items()
        }
        self.desks = desks
        self._wake()

    def enter(self) -> int:
        """A request comes; what it is called here."""
        self.tally.enter(self._clock())
        self._ticket += 1
        return self._ticket

    def leave(self) -> None:
        self.tally.leave(self._clock())

    @property
    def full(self) -> bool:
        """Nobody more may wait."""
        return len(self.hold) >= self.route.terms.queue_most

    def desk_now(self, wish: Wish) -> Desk | None:
        """A desk that can take the request at once, taken; None when it has to wait."""
        if len(self.hold):
            return None
        return self._take(wish)

    async def desk(self, wish: Wish) -> Desk:
        """Wait for a desk, behind whoever came before."""
        if self._pulse is None:
            self._pulse = self._loop.call_later(PULSE_S, self._beat)
        self.tally.hold(self._clock())
        try:
            desk, _ = await self.hold.place(wish, self._returned)
        finally:
            self.tally.let_go(self._clock())
        return desk

    def give_back(self, desk: Desk, ticket: int, end: End) -> None:
        """The request is over at its desk."""
        now_s = self._clock()
        desk.give_back(ticket, end, may_eject=end == "refused" or self._may_eject(desk, now_s), now_s=now_s)
        if len(self.hold):
            self._wake()

    def ejected(self) -> int:
        """How many replicas are spared just now."""
        now_s = self._clock()
        return sum(desk.breaker.ejected(now_s) for desk in self.desks.values())

    def sweep(self) -> None:
        """Close connections that stood idle for long."""
        now_s = self._clock()
        for desk in self.desks.values():
            desk.pool.sweep(now_s=now_s)

    def close(self) -> None:
        for desk in self.desks.values():
            desk.pool.close()

    def _take(self, wish: Wish) -> Desk | None:
        now_s = self._clock()
        able = [desk for desk in self.desks.values() if desk.open(now_s)]
        if not able:
            return None
        if now_s - self._compared_at_s > FRESH_S:
            self._compare(now_s)
        chosen = self._choice(able, wish)
        chosen.take(wish.ticket, now_s)
        return chosen

    def _choice(self, able: list[Desk], wish: Wish) -> Desk:
        if wish.tried:
            able = [desk for desk in able if desk.run_id not in wish.tried] or able
        if len(self.route.versions) > 1:
            own = [desk for desk in able if desk.backend.version_no == wish.version_no]
            # Its share's replicas are busy or gone: another version's answer is better than none.
            able = own or able
        if wish.blocks:
            chosen = by_prefix(able, wish.blocks, self._trails, self._popularity)
            self._trails[chosen.run_id].walk(wish.blocks)
            return chosen
        if wish.session is not None:
            return by_session(able, wish.session)
        return lighter(able, self._chance)

    def _compare(self, now_s: float) -> None:
        desks = list(self.desks.values())
        for desk, slowness in zip(desks, slownesses([desk.latency_ms(now_s) for desk in desks]), strict=True):
            desk.compare(slowness, now_s)
        self._compared_at_s = now_s

    def _may_eject(self, desk: Desk, now_s: float) -> bool:
        """At most half of the replicas are spared at once: what ails them all is not theirs."""
        spared = sum(each.breaker.ejected(now_s) for each in self.desks.values() if each is not desk)
        return (spared + 1) * 2 <= len(self.desks)

    def _returned(self, place: tuple[Desk, int]) -> None:
        desk, ticket = place
        self.give_back(desk, ticket, "gone")

    def _offer(self, wish: Wish) -> tuple[Desk, int] | None:
        desk = self._take(wish)
        return None if desk is None else (desk, wish.ticket)

    def _wake(self) -> None:
        self.hold.wake(self._offer)

    def _beat(self) -> None:
        """Ejections end and replicas stop being full by themselves: those who wait are looked after in between."""
        self._pulse = None
        self._wake()
        if len(self.hold):
            self._pulse = self._loop.call_later(PULSE_S, self._beat)


def _moved(old: Backend, new: Backend) -> bool:
    return (old.address, old.port, old.token) != (new.address, new.port, new.token)


def lobbies_renewed(lobbies: Mapping[str, Lobby], routes: Mapping[str, Route]) -> dict[str, Lobby]:
    """The lobbies whose services still are, as they are now; the others are closed."""
    kept = {}
    for service_id, lobby in lobbies.items():
        route = routes.get(service_id)
        if route is None:
            lobby.close()
        else:
            lobby.renew(route)
            kept[service_id] = lobby
    return kept
