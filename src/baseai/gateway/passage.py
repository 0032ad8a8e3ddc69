"""A passage is the way of one request: who asks, what for, whether it may, which replica answers, and what was served.

Invariant: however it ends, it ends once: its place is given back, what was counted beforehand is settled, and the
journal is told what went out. A replica is asked again only before the first byte of an answer has gone to the client.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from baseai.gateway.address import Address, address_of
from baseai.gateway.balance import blocks_of, point_of, version_at
from baseai.gateway.delivery import Delivery
from baseai.gateway.desk import Desk, End
from baseai.gateway.door import Door, steady_s
from baseai.gateway.hall import Hall, Wish
from baseai.gateway.head import Incoming, head_for_replica, request_id_of
from baseai.gateway.prompt import prompt_of
from baseai.gateway.protocol import (
    NOTHING_ASKED,
    Asked,
    asked_of,
    body_for_replica,
    may_repeat,
    tokens_guessed,
)
from baseai.gateway.refusal import GONE, Refusal
from baseai.gateway.seams import (
    Admitted,
    Bypass,
    Caller,
    Denied,
    Kept,
    Lead,
    Limited,
    OnlyKept,
    Outcome,
    Question,
    Told,
)
from baseai.gateway.upstream import BrokenOff, NotReached, Wire
from baseai.ground.identity import mint
from baseai.serving.route import Route, RoutedVersion

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASKED_MOST = 3  # replicas that are sent one request
FULL_MOST = 16  # answers "I am full" that are taken from replicas before one goes to the client
NO_CACHE = b"baseai; fwd=bypass"

NO_SERVICE = Refusal(
    404,
    "not_found",
    "there is no such service, or this key may not call it; GET /v1/models lists those it may call",
    hopeless=True,
)
DEADLINE = Refusal(
    504,
    "deadline",
    "no replica answered in time; the service's `timeout` and the header x-baseai-timeout-ms set it",
    retry_after_s=1.0,
    lost=True,
)
BROKEN = Refusal(
    502, "replica_lost", "the replica that had this request went away", retry_after_s=1.0, lost=True
)
QUEUE_FULL = Refusal(
    503,
    "queue_full",
    "every replica is busy and no more requests are held; try again, or let the service have more replicas",
    retry_after_s=1.0,
)


class Passage:
    """One request on its way."""

    __slots__ = (
        "_admitted",
        "_asked",
        "_at_s",
        "_body",
        "_caller",
        "_deadline_s",
        "_delivery",
        "_desk",
        "_door",
        "_hall",
        "_incoming",
        "_lead",
        "_outcome",
        "_over",
        "_receive",
        "_retries",
        "_route",
        "_scope",
        "_stopped",
        "_task",
        "_ticket",
        "_timer",
        "_version",
        "_watcher",
        "_wire",
        "address",
        "request_id",
    )

    def __init__(self, door: Door, scope: Message, receive: Receive, send: Send) -> None:
        self._door = door
        self._scope = scope
        self._receive = receive
        self._at_s = steady_s()
        self._incoming = Incoming(scope["headers"])
        self.request_id = request_id_of(self._incoming.request_id) or mint("req")
        self.address: Address | None = None
        self._delivery = Delivery(send, self.request_id)
        self._route: Route | None = None
        self._version: RoutedVersion | None = None
        self._caller: Caller | None = None
        self._asked = NOTHING_ASKED
        self._body = b""
        self._admitted: Admitted | None = None
        self._lead: Lead | None = None
        self._hall: Hall | None = None
        self._desk: Desk | None = None
        self._wire: Wire | None = None
        self._ticket = 0
        self._retries = 0
        self._outcome: Outcome = "refused"
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stopped: Literal["gone", "deadline"] | None = None
        self._over = False

    async def go(self) -> None:
        """From the request's first line to its answer's last byte."""
        try:
            try:
                refusal = await self._go()
                self._over = True
            except asyncio.CancelledError:
                self._over = True
                if self._stopped is None:
                    raise  # the process ends
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
                refusal = await self._cut_short()
            if refusal is not None:
                await self._refuse(refusal)
        finally:
            self._over = True
            self._end()

    async def _go(self) -> Refusal | None:
        wrong = await self._understand()
        if wrong is not None:
            return wrong
        route = self._route
        assert route is not None
        self._hall = self._door.hall(route)
        self._ticket = self._hall.enter()
        wrong = self._admit(route)
        if wrong is not None:
            return wrong
        self._version = self._chosen_version(route)
        self._limit_time()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        if self._version.terms.cache is not None and self._door.cache is not None:
            kept = await self._looked_up(route)
            if isinstance(kept, Refusal):
                return kept
            if kept is not None:
                await self._delivery.kept(kept)
                self._outcome = "served"
                return None
        return await self._forward(route)

    # Who asks for what

    async def _understand(self) -> Refusal | None:
        """Who asks, for which service, with what body; None when all of it is good."""
        address = self.address = address_of(self._scope["raw_path"])
        if address is None:
            return NO_SERVICE._replace(
                sentence="nothing is at this path; there are /v1/…, /v2/models/NAME/…, /json/NAME and /s/SERVICE_ID/…"
            )
        by_id = None if address.service_id is None else self._door.routes.by_id.get(address.service_id)
        if by_id is None or by_id.terms.auth:
            caller = await self._who()
            if isinstance(caller, Denied):
                return no_of(caller)
            self._caller = caller
        route = by_id
        if address.service_id is None and address.model is not None:
            route = self._named(address.model)
        known = address.service_id is not None or address.model is not None
        if known:
            if route is None or not self._may_see(route):
                return NO_SERVICE
            self._route = route
        most = self._door.settings.most_body_bytes if route is None else route.terms.most_body_bytes
        body = await self._read_body(most)
        if isinstance(body, Refusal):
            return body
        self._body = body
        asked = asked_of(address.kind, self._scope["method"], body)
        if isinstance(asked, Refusal):
            return asked
        self._asked = asked
        if not known:
            return self._find_by_body(asked, len(body))
        return None

    async def _who(self) -> Caller | Denied:
        authorization = self._incoming.authorization
        wall_s = time.time()
        caller = self._door.keys.known(authorization, wall_s=wall_s)
        if caller is None:
            assert authorization is not None
            caller = await self._door.keys.fetch(authorization, wall_s=wall_s)
        return caller

    def _named(self, model: str) -> Route | None:
        tenant_id = self._caller.tenant_id if self._caller is not None else None
        return None if tenant_id is None else self._door.routes.named(tenant_id, model)

    def _may_see(self, route: Route) -> bool:
        return not route.terms.auth if self._caller is None else may_see(self._caller, route)

    def _find_by_body(self, asked: Asked, length: int) -> Refusal | None:
        if asked.model is None:
            if self._scope["method"] != "POST":
                return NO_SERVICE._replace(
                    sentence="nothing is at this path; GET /v1/models lists the models"
                )
            return Refusal(
                400,
                "missing_model",
                "`model` is missing; GET /v1/models lists the models",
                hopeless=True,
                param="model",
            )
        route = self._named(asked.model)
        if route is None or not self._may_see(route):
            return Refusal(
                404,
                "model_not_found",
                f"there is no model {asked.model[:100]!r}, or not for this key; GET /v1/models lists the models",
                hopeless=True,
                param="model",
            )
        self._route = route
        return _too_long(route.terms.most_body_bytes) if length > route.terms.most_body_bytes else None

    async def _read_body(self, most: int) -> bytes | Refusal:
        announced = self._incoming.content_length
        if announced is not None and announced.isdigit() and int(announced) > most:
            return _too_long(most)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._stopped = "gone"
            raise asyncio.CancelledError
        if not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            return body if len(body) <= most else _too_long(most)
        pieces, length = [message.get("body", b"")], len(message.get("body", b""))
        try:
            async with asyncio.timeout(self._door.settings.body_s):
                while message.get("more_body", False):
                    if length > most:
                        return _too_long(most)
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self._stopped = "gone"
                        raise asyncio.CancelledError
                    pieces.append(message.get("body", b""))
                    length += len(pieces[-1])
        except TimeoutError:
            return Refusal(
                408, "body_slow", "the request's body did not arrive in time", retry_after_s=1.0, closes=True
            )
        return b"".join(pieces) if length <= most else _too_long(most)

    # Whether it may, and until when

    def _admit(self, route: Route) -> Refusal | None:
        assert self.address is not None
        verdict = self._door.limits.admit(
            self._caller,
            route,
            tokens=tokens_guessed(self.address.kind, self._asked, self._body),
            now_s=self._at_s,
        )
        if isinstance(verdict, Limited):
            return Refusal(
                429,
                "rate_limited",
                verdict.sentence,
                retry_after_s=None if verdict.hopeless else verdict.retry_after_s,
                hopeless=verdict.hopeless,
                headers=verdict.headers,
            )
        self._admitted = verdict
        return None

    def _chosen_version(self, route: Route) -> RoutedVersion:
        if len(route.versions) == 1:
            return route.versions[0]
        session = self._incoming.session
        point = self._door.chance() if session is None else point_of(session)
        return route.versions[version_at([version.share for version in route.versions], point)]

    def _limit_time(self) -> None:
        assert self._version is not None
        seconds = self._version.terms.timeout_s
        offered = self._incoming.timeout_ms
        if offered is not None and offered.isdigit() and int(offered) > 0:
            seconds = min(seconds, int(offered) / 1000)
        self._deadline_s = self._at_s + seconds
        left_s = self._deadline_s - steady_s()
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(max(left_s, 0), self._stop, "deadline")

    def _stop(self, why: Literal["gone", "deadline"]) -> None:
        if not self._over and self._stopped is None and self._task is not None:
            self._stopped = why
            self._task.cancel()

    async def _watch(self) -> None:
        """See the client leave."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._stop("gone")

    # Answers that are known

    async def _looked_up(self, route: Route) -> Kept | Refusal | None:
        """A kept answer, or None: ask a replica."""
        cache, address, version = self._door.cache, self.address, self._version
        assert cache is not None
        assert address is not None
        assert version is not None
        if self._asked.stream:
            return None
        question = Question(
            route=route,
            version=version,
            caller=self._caller,
            method=self._scope["method"],
            path=_with_query(address.path, self._scope["query_string"]).decode("latin-1"),
            content_type=self._incoming.content_type,
            body=self._body,
            cache_control=self._incoming.cache_control,
        )
        while True:
            view = cache.look(question, now_s=steady_s())
            if view is None:
                view = await cache.fetch(question, now_s=steady_s())
            if isinstance(view, Kept):
                self._delivery.cache = "hit"
                return view
            if isinstance(view, Bypass):
                self._delivery.cache_status = view.status
                return None
            if isinstance(view, OnlyKept):
                self._delivery.cache_status = view.status
                return Refusal(
                    504, "not_kept", "no kept answer, and only-if-cached asks for none other", hopeless=True
                )
            if isinstance(view, Lead):
                self._lead = view
                return None
            kept = await view.answer()
            if kept is not None:
                self._delivery.cache = "collapsed"
                return kept

    # The replica

    async def _forward(self, route: Route) -> Refusal | None:
        address, hall, version, asked = self.address, self._hall, self._version, self._asked
        assert address is not None
        assert hall is not None
        assert version is not None
        method = self._scope["method"]
        named = address.service_id is None
        body = body_for_replica(asked, self._body, version.terms.model_name if named else None)
        path = address.of_model(version.terms.model_name) if named else address.path
        repeatable = may_repeat(address.kind, method)
        wish = self._wish(route)
        sent = full = 0
        while True:
            desk = hall.desk_now(wish)
            if desk is None:
                if hall.full:
                    return QUEUE_FULL
                self._outcome = "lost"
                desk = await hall.desk(wish)
            self._desk = desk
            try:
                wire = await self._exchanged(desk, path, method, body, repeatable)
            except NotReached:
                self._give_back("refused")  # nothing was sent: it is as if nobody had been asked
                wish = wish._replace(tried=wish.tried | {desk.run_id})
                self._retries += 1
                continue
            except BrokenOff as broken:
                self._give_back("broken")
                sent += 1
                if not repeatable or broken.answered or sent >= ASKED_MOST:
                    return BROKEN
                wish = wish._replace(tried=wish.tried | {desk.run_id})
                self._retries += 1
                continue
            if wire.status == 503 and repeatable and full < FULL_MOST and _says_when(wire):
                full += 1
                self._give_back("full")
                continue
            return await self._deliver(wire, desk, hall)

    async def _exchanged(self, desk: Desk, path: bytes, method: str, body: bytes, repeatable: bool) -> Wire:
        """A wire whose answer has begun. Raises NotReached, BrokenOff."""
        assert self._route is not None
        assert self.address is not None
        left_ms = max(1, int((self._deadline_s - steady_s()) * 1000))
        own = b"x-request-id: %b\r\nx-baseai-deadline-ms: %d\r\n" % (self.request_id.encode(), left_ms)
        pool = desk.pool
        head = head_for_replica(
            kind=self.address.kind,
            method=method,
            path=path,
            query=self._scope["query_string"],
            host=pool.host,
            headers=self._scope["headers"],
            own=own,
            length=len(body) if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS") else None,
            keeps_key=not self._route.terms.auth,
        )
        while True:
            wire = pool.taken(once=not repeatable, now_s=steady_s()) or await pool.connected()
            self._wire = wire
            wire.ask(head, body, bodiless=method == "HEAD")
            try:
                await wire.head()
            except BrokenOff as broken:
                # A wire that stood idle may have been closed just before: that says nothing about the replica.
                if wire.reused and repeatable and not broken.answered:
                    continue
                raise
            desk.first_byte(self._ticket, steady_s())
            return wire

    def _wish(self, route: Route) -> Wish:
        assert self._version is not None
        terms = self._version.terms
        blocks: tuple[bytes, ...] = ()
        if terms.balance == "prefix" and self._asked.body is not None:
            blocks = blocks_of(prompt_of(self._asked.body))
        session = self._incoming.session if terms.balance == "session" else None
        return Wish(self._ticket, self._version.version_no, session, blocks, frozenset())

    async def _deliver(self, wire: Wire, desk: Desk, hall: Hall) -> Refusal | None:
        """Pass the answer on, as it comes."""
        delivery = self._delivery
        delivery.run_id = desk.run_id
        delivery.version_no = desk.backend.version_no
        assert self.address is not None
        self._outcome = "failed"
        try:
            await delivery.of_replica(
                wire,
                kind=self.address.kind,
                asked=self._asked,
                limits=self._admitted.headers if self._admitted else (),
                lead=self._lead,
            )
        except BrokenOff as broken:
            self._give_back("broken")
            if not delivery.begun:
                return BROKEN
            await delivery.break_off(str(broken))
            return None
        failed = wire.status >= 500
        self._give_back("error" if failed else "answered")
        if not failed:
            self._outcome = "served"
        return None

    def _give_back(self, end: End) -> None:
        desk, wire, hall = self._desk, self._wire, self._hall
        self._desk = self._wire = None
        if wire is not None and desk is not None:
            desk.pool.give_back(wire, now_s=steady_s())
        if desk is not None and hall is not None:
            hall.give_back(desk, self._ticket, end)

    # How it ends

    async def _cut_short(self) -> Refusal | None:
        """The client left, or time is up."""
        if self._stopped == "gone":
            self._outcome = "gone"
            self._give_back("gone")
            return None
        self._give_back("error")
        if self._delivery.begun:
            self._outcome = "failed"
            await self._delivery.break_off(DEADLINE.sentence)
            return None
        return DEADLINE

    async def _refuse(self, refusal: Refusal) -> None:
        if refusal.lost:
            self._outcome = "lost"
        elif self._outcome == "lost":
            self._outcome = "refused"
        kind = self.address.kind if self.address is not None else "raw"
        await self._delivery.refusal(refusal, kind)
        if refusal.closes:
            await self._delivery.linger(self._receive)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._give_back("gone")
        if self._lead is not None and not self._delivery.shared:
            self._lead.drop()
        hall, route, delivery = self._hall, self._route, self._delivery
        now_s = steady_s()
        status = delivery.status or GONE
        self._door.counts.answered(status)
        if hall is not None:
            hall.leave()
        served = delivery.served
        if self._admitted is not None:
            nothing = delivery.body_bytes == 0 and self._outcome != "served"
            self._door.limits.settle(
                self._admitted,
                tokens=None if nothing else served.tokens_in + served.tokens_out,
                now_s=now_s,
            )
        if route is None:
            return
        version_no = delivery.version_no
        if version_no is None:
            version_no = (self._version or route.versions[0]).version_no
        self._door.counts.retries += self._retries
        first = delivery.first_byte_at_s
        self._door.journal.ended(
            Told(
                service_id=route.service_id,
                tenant_id=route.tenant_id,
                project_id=route.project_id,
                version_no=version_no,
                key_id=self._caller.key_id if self._caller is not None else None,
                run_id=delivery.run_id,
                request_id=self.request_id,
                at_s=time.time() - (now_s - self._at_s),
                status=GONE if self._outcome == "gone" else status,
                outcome=self._outcome,
                latency_ms=(now_s - self._at_s) * 1000,
                first_byte_ms=None if first is None else (first - self._at_s) * 1000,
                tokens_in=served.tokens_in,
                tokens_out=served.tokens_out,
                bytes_in=len(self._body),
                bytes_out=delivery.body_bytes,
                cache=delivery.cache,
                retries=self._retries,
                slow=self._slow(now_s),
            )
        )

    def _slow(self, now_s: float) -> bool:
        version = self._version
        promised_ms = None if version is None else version.terms.p99_ms
        return promised_ms is not None and (now_s - self._at_s) * 1000 > promised_ms


def may_see(caller: Caller, route: Route) -> bool:
    """Whether a caller may know of a service, and call it."""
    return (
        caller.tenant_id in (None, route.tenant_id)
        and caller.project_id in (None, route.project_id)
        and (caller.services is None or route.name in caller.services)
    )


def no_of(denied: Denied) -> Refusal:
    """The no of somebody who is not let in."""
    return Refusal(
        denied.status,
        denied.code,
        denied.sentence,
        hopeless=denied.status in (401, 403),
        retry_after_s=1.0 if denied.status >= 500 else None,
    )


def _too_long(most: int) -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"the body is longer than {most} bytes, which is the most that is taken here (`max_body` of the service)",
        hopeless=True,
        closes=True,
    )


def _with_query(path: bytes, query: bytes) -> bytes:
    return path + b"?" + query if query else path


def _says_when(wire: Wire) -> bool:
    return any(name == b"retry-after" for name, _ in wire.headers)
