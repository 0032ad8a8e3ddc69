"""A delivery is what goes out to the client for one request, and what of it has gone.

Invariant: bytes go out as they come in, none is held back but usage nobody asked to see; what was served is what went
out. An answer that breaks off after its first byte is never mended or ended as if it were whole.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from baseai.gateway.address import Kind
from baseai.gateway.door import steady_s
from baseai.gateway.head import Pairs, head_for_client
from baseai.gateway.protocol import TAIL, Asked, Usage, usage_in, usage_told
from baseai.gateway.refusal import Refusal, body_of, headers_of
from baseai.gateway.seams import Answer, Headers, Kept, Lead
from baseai.gateway.stream import Stream
from baseai.gateway.upstream import Wire

Message = MutableMapping[str, Any]

COLLECT_MOST = (
    8 << 20
)  # bytes of an answer that others wait for; a longer one is passed on and shared with nobody
LINGER_S = 1.0  # for a client to read a refusal before the connection with his unread body ends
BYPASS = b"baseai; fwd=bypass"
MISS = b"baseai; fwd=miss"


class Delivery:
    """The answer of one request, going out."""

    __slots__ = (
        "_kind",
        "_request_id",
        "_send",
        "_stream",
        "_usage",
        "begun",
        "body_bytes",
        "cache",
        "cache_status",
        "first_byte_at_s",
        "run_id",
        "shared",
        "status",
        "version_no",
    )

    def __init__(self, send: Callable[[Message], Awaitable[None]], request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._kind: Kind = "raw"
        self._stream: Stream | None = None
        self._usage = Usage(0, 0)
        self.begun = False
        self.status = 0  # 0: nothing went out
        self.body_bytes = 0
        self.first_byte_at_s: float | None = None
        self.run_id: str | None = None
        self.version_no: int | None = None
        self.cache: Literal["hit", "collapsed"] | None = None
        self.cache_status = BYPASS
        self.shared = False  # those who waited for this answer have it

    def served(self, *, whole: bool) -> Usage:
        """Tokens of what went out. whole: to its end, without which only a stream has given anything."""
        if self._stream is not None:
            told = self._stream.served
            return (
                told
                if told.tokens_in or not self._usage.tokens_in
                else told._replace(tokens_in=self._usage.tokens_in)
            )
        return self._usage if whole else Usage(0, 0)

    async def of_replica(
        self, wire: Wire, *, kind: Kind, asked: Asked, limits: Headers, lead: Lead | None
    ) -> None:
        """Pass a replica's answer on while it comes. Raises BrokenOff."""
        headers, content_type, told = head_for_client(wire.headers)
        if told:
            self._usage = usage_told(told)
        self._kind = kind
        events = kind in ("openai", "oip") and content_type.startswith(b"text/event-stream")
        if lead is not None and not events and wire.status < 500:
            await self._shared_answer(wire, headers, kind, bool(told), limits, lead)
            return
        if lead is not None:  # a stream, or a failure: others need not wait for its end
            self.shared = True
            self.cache_status = lead.drop()
        if events:
            self._stream = Stream(hides_usage=asked.hides_usage)
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        await self._begin(wire.status, headers, limits)
        tail = b""
        while True:
            part = await wire.read()
            if not part:
                break
            if self._stream is not None:
                part = self._stream.passed(part)
                if not part:
                    continue
            elif kind == "openai" and not told:
                tail = (tail + part)[-TAIL:] if tail else part[-TAIL:]
            if wire.ended and self._stream is None:
                self._count(tail)
                await self._body(part, more=False)
                return
            await self._body(part)
        self._count(tail)
        await self._body(self._stream.rest() if self._stream is not None else b"", more=False)

    async def kept(self, kept: Kept, limits: Headers) -> None:
        """An answer that was known."""
        answer = kept.answer
        self.run_id = answer.run_id
        self.cache_status = kept.status
        self._usage = Usage(answer.tokens_in, answer.tokens_out)
        await self._whole(answer, (*kept.headers, *limits))

    async def refusal(self, refusal: Refusal, kind: Kind) -> None:
        """The gateway's own no."""
        body = body_of(refusal, kind, self._request_id)
        await self._begin(refusal.status, headers_of(refusal, kind, len(body)), ())
        await self._body(body, more=refusal.closes)

    async def linger(self, receive: Callable[[], Awaitable[Message]]) -> None:
        """Let the client read a refusal while he still sends, then end: else the reset would reach him first."""
        try:
            async with asyncio.timeout(LINGER_S):
                while (message := await receive())["type"] == "http.request":
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await self._body(b"", more=False)

    async def break_off(self, why: str) -> None:
        """End an answer that has begun and cannot be whole: in a stream by an event, else by the connection's end."""
        if self._stream is None:
            raise AnswerCut(why)
        if self._stream.ended:
            await self._body(b"", more=False)
            return
        wrong = body_of(Refusal(502, "answer_broken_off", why), self._kind, self._request_id)
        await self._body(b"data: " + wrong + b"\n\n", more=False)

    async def _shared_answer(
        self, wire: Wire, headers: Pairs, kind: Kind, told: bool, limits: Headers, lead: Lead
    ) -> None:
        pieces: list[bytes] = []
        length = 0
        while length <= COLLECT_MOST:
            part = await wire.read()
            if not part:
                body = b"".join(pieces)
                if kind == "openai" and not told:
                    self._count(body[-TAIL:])
                answer = Answer(
                    status=wire.status,
                    headers=tuple(pair for pair in headers if pair[0] != b"content-length"),
                    body=body,
                    tokens_in=self._usage.tokens_in,
                    tokens_out=self._usage.tokens_out,
                    run_id=self.run_id or "",
                )
                self.shared = True
                self.cache_status = lead.keep(answer, now_s=steady_s())
                await self._whole(answer, limits)
                return
            pieces.append(part)
            length += len(part)
        self.shared = True
        self.cache_status = lead.drop()
        await self._begin(wire.status, headers, limits)
        await self._body(b"".join(pieces))
        tail = pieces[-1]
        while part := await wire.read():
            tail = (tail + part)[-TAIL:]
            await self._body(part)
        if kind == "openai" and not told:
            self._count(tail)
        await self._body(b"", more=False)

    async def _whole(self, answer: Answer, more_headers: Headers) -> None:
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await self._begin(answer.status, headers, more_headers)
        await self._body(answer.body, more=False)

    async def _begin(self, status: int, headers: Pairs, more_headers: Headers) -> None:
        headers.append((b"x-request-id", self._request_id.encode()))
        headers.append((b"cache-status", self.cache_status))
        if self.run_id is not None:
            headers.append((b"x-baseai-replica", self.run_id.encode()))
        if self.version_no is not None:
            headers.append((b"x-baseai-version", b"%d" % self.version_no))
        headers += more_headers
        self.begun = True
        self.status = status
        self.first_byte_at_s = steady_s()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        self.body_bytes += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _count(self, tail: bytes) -> None:
        if tail:
            self._usage = usage_in(tail) or self._usage


class AnswerCut(Exception):
    """Tells the server to end a connection whose answer cannot be whole; never seen by anybody else."""
