"""A passage is the way of one request: who asks, whether he may, which replica answers, and what was served.

Invariant: however it ends, it ends once: its place is given back, what was counted beforehand is settled, and the
journal is told what went out. Time and the client's leaving cut it short at any moment of it.
"""

import asyncio
import time
from typing import Any, Literal

from baseai.gateway.balance import point_of, version_at
from baseai.gateway.delivery import Delivery
from baseai.gateway.door import Door, steady_s
from baseai.gateway.errand import BROKEN, Errand, Sheet
from baseai.gateway.head import request_id_of
from baseai.gateway.inquiry import ClientGone, Inquiry, Message, Receive, Send
from baseai.gateway.protocol import tokens_guessed
from baseai.gateway.refusal import GONE, Refusal
from baseai.gateway.seams import (
    Admitted,
    Bypass,
    Cache,
    Headers,
    Kept,
    Lead,
    Limited,
    OnlyKept,
    Outcome,
    Question,
    Told,
)
from baseai.gateway.upstream import BrokenOff
from baseai.ground.identity import mint
from baseai.serving.route import Route, RoutedVersion

DEADLINE = Refusal(
    504,
    "deadline",
    "no replica answered in time; the service's `timeout` and the header x-baseai-timeout-ms set it",
    retry_after_s=1.0,
    lost=True,
)
STOPPED = Refusal(
    503,
    "service_stopped",
    "the service was stopped; `baseai apply` of its spec starts it again",
    hopeless=True,
)
CUT = 500  # what the server says by itself when a process ends before an answer has begun
NOT_KEPT = Refusal(
    504, "not_kept", "no answer is kept, and `only-if-cached` asks for none other", hopeless=True
)


class Passage:
    """One request on its way."""

    __slots__ = (
        "_admitted",
        "_at_s",
        "_deadline_s",
        "_delivery",
        "_door",
        "_errand",
        "_hurried",
        "_inquiry",
        "_lead",
        "_outcome",
        "_over",
        "_receive",
        "_request_id",
        "_scope",
        "_stopped",
        "_task",
        "_timer",
        "_version",
        "_watcher",
    )

    def __init__(self, door: Door, scope: Message, receive: Receive, send: Send) -> None:
        self._at_s = steady_s()
        self._door = door
        self._scope = scope
        self._receive = receive
        self._inquiry = Inquiry(door, scope, receive)
        self._request_id = request_id_of(self._inquiry.incoming.request_id) or mint("req")
        self._delivery = Delivery(send, self._request_id)
        self._version: RoutedVersion | None = None
        self._admitted: Admitted | None = None
        self._lead: Lead | None = None
        self._errand: Errand | None = None
        self._outcome: Outcome = "refused"
        self._deadline_s = 0.0
        self._hurried = False  # the client gives less time than the service
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stopped: Literal["gone", "deadline"] | None = None
        self._over = False

    async def go(self) -> None:
        """From the request's first line to its answer's last byte. Raises AnswerCut when that cannot be."""
        try:
            try:
                refusal = await self._go()
                self._over = True
            except ClientGone:
                self._outcome = "gone"
                return
            except asyncio.CancelledError:
                self._over = True
                if (
                    self._stopped is None or self._task is None
                ):  # the process ends, and has waited long enough
                    self._outcome = "failed" if self._delivery.begun else "lost"
                    raise
                self._task.uncancel()
                refusal = await self._cut_short()
            if refusal is not None:
                await self._refuse(refusal)
        finally:
            self._over = True
            self._end()

    async def _go(self) -> Refusal | None:
        inquiry = self._inquiry
        wrong = await inquiry.understand()
        if wrong is not None:
            return wrong
        route = inquiry.route
        assert route is not None
        self._version = version = self._chosen_version(route)
        wrong = self._admit(route)
        if wrong is not None:
            return wrong
        self._limit_time(version.terms.timeout_s)
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        cache = self._door.cache
        if cache is not None and version.terms.cache is not None and not inquiry.asked.stream:
            kept = await self._looked_up(cache, route, version)
            if isinstance(kept, Refusal):
                return kept
            if kept is not None:
                self._delivery.version_no = version.version_no
                await self._delivery.kept(kept, self._limits_told)
                self._outcome = "served"
                return None
        return await self._forward(route, version)

    # Whether it may, which version, and until when

    def _admit(self, route: Route) -> Refusal | None:
        inquiry = self._inquiry
        verdict = self._door.limits.admit(
            inquiry.caller,
            route,
            tokens=tokens_guessed(inquiry.asked, inquiry.body),
            now_s=self._at_s,
        )
        if isinstance(verdict, Limited):
            return Refusal(
                429,
                "rate_limited",
                verdict.sentence,
                retry_after_s=verdict.retry_after_s,
                headers=verdict.headers,
            )
        self._admitted = verdict
        return STOPPED if route.state == "stopped" else None

    @property
    def _limits_told(self) -> Headers:
        return () if self._admitted is None else self._admitted.headers

    def _chosen_version(self, route: Route) -> RoutedVersion:
        if len(route.versions) == 1:
            return route.versions[0]
        session = self._inquiry.incoming.session
        point = self._door.chance() if session is None else point_of(session)
        return route.versions[version_at([version.share for version in route.versions], point)]

    def _limit_time(self, seconds: float) -> None:
        offered = self._inquiry.incoming.timeout_ms
        # A number of more digits than these is longer than any service gives.
        if (
            offered is not None
            and offered.isdigit()
            and len(offered) <= 12
            and 0 < int(offered) < seconds * 1000
        ):
            self._hurried = True
            seconds = int(offered) / 1000
        self._deadline_s = self._at_s + seconds
        self._task = asyncio.current_task()
        left_s = max(0.0, self._deadline_s - steady_s())
        self._timer = asyncio.get_running_loop().call_later(left_s, self._stop, "deadline")

    def _stop(self, why: Literal["gone", "deadline"]) -> None:
        if not self._over and self._stopped is None and self._task is not None:
            self._stopped = why
            self._task.cancel()

    async def _watch(self) -> None:
        """See the client leave. Ends with the answer, which the server tells in the same way."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._stop("gone")

    # An answer that is known, or a replica's

    async def _looked_up(self, cache: Cache, route: Route, version: RoutedVersion) -> Kept | Refusal | None:
        """A kept answer; None: ask a replica."""
        inquiry, query = self._inquiry, self._scope["query_string"]
        assert inquiry.address is not None
        path = inquiry.address.path + b"?" + query if query else inquiry.address.path
        question = Question(
            route=route,
            version=version,
            caller=inquiry.caller,
            method=self._scope["method"],
            path=path.decode("latin-1"),
            content_type=inquiry.incoming.content_type,
            body=inquiry.body,
            cache_control=inquiry.incoming.cache_control,
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
                return NOT_KEPT
            if isinstance(view, Lead):
                self._lead = view
                return None
            kept = await view.answer()
            if kept is not None:
                self._delivery.cache = "collapsed"
                return kept

    async def _forward(self, route: Route, version: RoutedVersion) -> Refusal | None:
        scope, inquiry, delivery = self._scope, self._inquiry, self._delivery
        assert inquiry.address is not None
        errand = self._errand = Errand(
            self._door.lobby(route),
            inquiry,
            version,
            sheet=Sheet(scope["method"], b"", scope["query_string"], scope["headers"], b""),
            request_id=self._request_id,
            deadline_s=self._deadline_s,
        )
        found = await errand.answer()
        if isinstance(found, Refusal):
            return found
        desk, wire = found
        delivery.run_id = desk.run_id
        delivery.version_no = desk.backend.version_no
        self._outcome = "failed"
        try:
            await delivery.of_replica(
                wire,
                kind=inquiry.address.kind,
                asked=inquiry.asked,
                limits=self._limits_told,
                lead=self._lead,
            )
        except BrokenOff as broken:
            errand.give_back("broken")
            if not delivery.begun:
                return BROKEN
            await delivery.break_off(str(broken))
            return None
        failed = wire.status >= 500
        errand.give_back("error" if failed else "answered")
        if not failed:
            self._outcome = "served"
        return None

    # How it ends

    async def _cut_short(self) -> Refusal | None:
        """The client left, or time is up."""
        errand, begun = self._errand, self._delivery.begun
        if self._stopped == "gone":
            self._outcome = "gone"
            return None
        if errand is not None:
            # Less time than the service promises, or an answer that goes on, say nothing against a replica.
            errand.give_back("answered" if begun else "gone" if self._hurried else "error")
        if not begun:
            return DEADLINE
        self._outcome = "failed"
        await self._delivery.break_off("the time that the service gives a request is over")
        return None

    async def _refuse(self, refusal: Refusal) -> None:
        if refusal.lost:
            self._outcome = "lost"
        address = self._inquiry.address
        if self._inquiry.incoming.expects and not self._inquiry.read:
            refusal = refusal._replace(
                closes=True
            )  # the body he has not sent would be taken for his next request
        await self._delivery.refusal(refusal, address.kind if address is not None else "raw")
        if refusal.closes:
            await self._delivery.linger(self._receive)

    def _end(self) -> None:
        """Give everything back and write down what was."""
        if self._timer is not None:
            self._timer.cancel()
        if self._errand is not None:
            self._errand.close()
        if self._lead is not None and not self._delivery.shared:
            self._lead.drop()
        now_s = steady_s()
        self._settle(now_s)
        status = GONE if self._outcome == "gone" else self._delivery.status or CUT
        self._door.counts.answered(status)
        if self._inquiry.route is not None:
            self._tell(self._inquiry.route, status, now_s)

    def _settle(self, now_s: float) -> None:
        if self._admitted is None:
            return
        served = self._delivery.served(whole=self._outcome == "served")
        nothing = self._outcome != "served" and not (served.tokens_in or served.tokens_out)
        worked = 0 if self._delivery.cache is not None else served.tokens_in + served.tokens_out
        tokens = None if nothing else worked  # a known answer takes none: no replica worked for it
        self._door.limits.settle(self._admitted, tokens=tokens, now_s=now_s)

    def _tell(self, route: Route, status: int, now_s: float) -> None:
        delivery, inquiry = self._delivery, self._inquiry
        served = delivery.served(whole=self._outcome == "served")
        version = self._version or route.versions[0]
        latency_ms = (now_s - self._at_s) * 1000
        first = delivery.first_byte_at_s
        retries = 0 if self._errand is None else self._errand.retries
        self._door.counts.retries += retries
        self._door.journal.ended(
            Told(
                service_id=route.service_id,
                tenant_id=route.tenant_id,
                project_id=route.project_id,
                version_no=delivery.version_no or version.version_no,
                key_id=inquiry.caller.key_id if inquiry.caller is not None else None,
                run_id=delivery.run_id,
                request_id=self._request_id,
                at_s=time.time() - latency_ms / 1000,
                status=status,
                outcome=self._outcome,
                latency_ms=latency_ms,
                first_byte_ms=None if first is None else (first - self._at_s) * 1000,
                tokens_in=served.tokens_in,
                tokens_out=served.tokens_out,
                bytes_in=len(inquiry.body),
                bytes_out=delivery.body_bytes,
                cache=delivery.cache,
                retries=retries,
                slow=version.terms.p99_ms is not None and latency_ms > version.terms.p99_ms,
            )
        )
