"""An errand is the search for an answer to one request: a desk, a wire, and another desk when that one fails.

Invariant: at most one desk and one wire are held, and both are given back whatever happens. A request is sent to at
most three replicas, and again only while no byte of an answer has come, where its protocol lets it be repeated.
"""

from typing import NamedTuple

from baseai.gateway.balance import blocks_of
from baseai.gateway.desk import Desk, End
from baseai.gateway.door import steady_s
from baseai.gateway.head import head_for_replica
from baseai.gateway.inquiry import Inquiry
from baseai.gateway.lobby import Lobby, Wish
from baseai.gateway.prompt import prompt_of
from baseai.gateway.protocol import body_for_replica, may_repeat
from baseai.gateway.refusal import Refusal
from baseai.gateway.upstream import BrokenOff, NotReached, Wire
from baseai.serving.route import RoutedVersion

SENT_MOST = 2  # replicas that are sent one request: what broke two would break a third
SOON_S = 5  # `retry-after` of a replica that is only full
FULL_MOST = 16  # answers "I am full" that are taken before one goes to the client

BROKEN = Refusal(
    502, "replica_lost", "the replica that had this request went away", retry_after_s=1.0, lost=True
)
QUEUE_FULL = Refusal(
    503,
    "queue_full",
    "every replica is busy and no more requests are held; try again, or let the service have more replicas",
    retry_after_s=1.0,
)


class Sheet(NamedTuple):
    """What every replica is sent alike."""

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Errand:
    """The search for one answer. Its passage runs it, and gives back what it holds when it is cut short."""

    __slots__ = (
        "_deadline_s",
        "_desk",
        "_inquiry",
        "_lobby",
        "_repeatable",
        "_request_id",
        "_sheet",
        "_ticket",
        "_wire",
        "_wish",
        "retries",
    )

    def __init__(
        self,
        lobby: Lobby,
        inquiry: Inquiry,
        version: RoutedVersion,
        *,
        sheet: Sheet,
        request_id: str,
        deadline_s: float,
    ) -> None:
        assert inquiry.address is not None
        address, terms = inquiry.address, version.terms
        named = address.service_id is None
        self._lobby = lobby
        self._inquiry = inquiry
        self._request_id = request_id
        self._deadline_s = deadline_s
        self._repeatable = may_repeat(address.kind, sheet.method)
        self._sheet = sheet._replace(
            path=address.of_model(terms.model_name) if named else address.path,
            body=body_for_replica(inquiry.asked, inquiry.body, terms.model_name if named else None),
        )
        blocks: tuple[bytes, ...] = ()
        if terms.balance == "prefix" and inquiry.asked.body is not None:
            blocks = blocks_of(prompt_of(inquiry.asked.body))
        session = inquiry.incoming.session if terms.balance == "session" else None
        # From here on it is demand: what a cache or a limit answers calls for no replica.
        self._ticket = lobby.enter()
        self._wish = Wish(self._ticket, version.version_no, session, blocks, frozenset())
        self._desk: Desk | None = None
        self._wire: Wire | None = None
        self.retries = 0

    async def answer(self) -> tuple[Desk, Wire] | Refusal:
        """A wire whose answer has begun, and the desk it comes from; both stay held until `give_back`."""
        failed = sent = full = 0
        while True:
            desk = self._lobby.desk_now(self._wish)
            if desk is None:
                if self._lobby.full and not failed and not full:  # who was let in once is not sent away
                    return QUEUE_FULL
                desk = await self._lobby.desk(self._wish)
            self._desk = desk
            self.retries = failed
            try:
                wire = await self._exchanged(desk)
            except NotReached:  # nothing was sent: it is as if nobody had been asked
                failed += 1
                self._try_another(desk, "refused")
            except BrokenOff as broken:
                failed += 1
                sent += 1
                self._try_another(desk, "broken")
                if not self._repeatable or broken.answered or sent >= SENT_MOST:
                    return BROKEN
            else:
                if not (self._repeatable and full < FULL_MOST and _is_full(wire)):
                    return desk, wire
                full += 1
                self.give_back("full")

    def give_back(self, end: End) -> None:
        """Let go of what is held, saying how it ended; nothing happens when nothing is."""
        desk, wire = self._desk, self._wire
        self._desk = self._wire = None
        if desk is None:
            return
        if wire is not None:
            desk.pool.give_back(wire, now_s=steady_s())
        self._lobby.give_back(desk, self._ticket, end)

    def close(self) -> None:
        """It is over."""
        self.give_back("gone")
        self._lobby.leave()

    def _try_another(self, desk: Desk, end: End) -> None:
        self.give_back(end)
        self._wish = self._wish._replace(tried=self._wish.tried | {desk.run_id})

    async def _exchanged(self, desk: Desk) -> Wire:
        """A wire whose answer has begun. Raises NotReached, BrokenOff."""
        sheet, pool, inquiry = self._sheet, desk.pool, self._inquiry
        assert inquiry.address is not None
        assert inquiry.route is not None
        left_ms = max(1, int((self._deadline_s - steady_s()) * 1000))
        bodied = sheet.body or sheet.method not in ("GET", "HEAD", "DELETE", "OPTIONS")
        head = head_for_replica(
            kind=inquiry.address.kind,
            method=sheet.method,
            path=sheet.path,
            query=sheet.query,
            host=pool.host,
            headers=sheet.headers,
            own=b"x-request-id: %b\r\nx-baseai-deadline-ms: %d\r\n" % (self._request_id.encode(), left_ms),
            length=len(sheet.body) if bodied else None,
            token=desk.token,
            keeps_key=desk.own_program and not inquiry.route.terms.auth,
        )
        while True:
            wire = pool.taken(once=not self._repeatable, now_s=steady_s()) or await pool.connected()
            self._wire = wire
            wire.ask(head, sheet.body, bodiless=sheet.method == "HEAD")
            try:
                await wire.head()
            except BrokenOff as broken:
                # A wire that stood idle may have been closed just before: that says nothing about the replica.
                if wire.reused and self._repeatable and not broken.answered:
                    continue
                raise
            desk.first_byte(self._ticket, well=wire.status < 500, now_s=steady_s())
            return wire


def _is_full(wire: Wire) -> bool:
    """A replica over its capacity says so, and to come back soon; it has done nothing of what was asked.

    One that names a later time, or a day, has another reason, which is the client's to hear.
    """
    return wire.status == 503 and any(
        name == b"retry-after" and value.isdigit() and int(value) <= SOON_S for name, value in wire.headers
    )
