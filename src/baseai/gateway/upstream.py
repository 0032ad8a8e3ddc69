"""A wire is one HTTP/1.1 connection to a replica, and carries one exchange at a time.

Invariant: a wire goes back to the pool only after an exchange that ended whole and left nothing unread; any other wire
is closed. Nothing of an answer is held back: a read gives what has arrived. Whoever took a wire reads or aborts it.
"""

import asyncio
from collections import deque
from typing import Any, cast

import httptools

from baseai.ground.fault import Fault

CONNECT_S = 2.0  # a replica in the same building that takes longer is away
FRESH_S = (
    4.0  # a wire idle for longer may be closed by its other end at any moment; common servers do after 5 s
)
FRESH_ONCE_S = 0.5  # the same, of requests that must not be sent twice
IDLE_MOST = 128  # for each replica
UNREAD_MOST = 256 << 10  # bytes of an answer that wait for a slow client before the replica is made to wait
HEAD_MOST = 64 << 10  # bytes of an answer's headers


class NotReached(Fault):
    """No connection to a replica came about, so nothing was sent."""

    retryable = True

    def __init__(self, address: str, port: int, why: str) -> None:
        super().__init__(address, port, why)
        self.address = address
        self.port = port
        self.why = why

    def __str__(self) -> str:
        return f"no connection to {self.address}:{self.port}: {self.why}"


class BrokenOff(Fault):
    """A connection ended, or spoke no HTTP, before the answer was whole."""

    retryable = True

    def __init__(self, why: str, answered: bool) -> None:
        super().__init__(why, answered)
        self.why = why
        self.answered = answered  # some byte of an answer had come

    def __str__(self) -> str:
        return f"the replica's answer broke off: {self.why}"


class Wire(asyncio.Protocol):
    """One connection. Use: `ask`, then `head`, then `read` until it gives nothing."""

    __slots__ = (
        "_bytes_of_head",
        "_loop",
        "_parser",
        "_parts",
        "_paused",
        "_transport",
        "_unread",
        "_until_close",
        "_waiter",
        "answered",
        "bodiless",
        "broken",
        "ended",
        "headed",
        "headers",
        "idle_since_s",
        "reusable",
        "reused",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self._until_close = False
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._bytes_of_head = 0
        self.reused = False
        self.idle_since_s = 0.0
        self.broken: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._parts.clear()  # of an answer that ended and that nobody wanted to read
        self._unread = 0
        self._until_close = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.headed = False
        self.ended = False
        self.answered = False
        self.reusable = False
        self.bodiless = False

    # What the path calls

    def ask(self, head: bytes, body: bytes, *, bodiless: bool) -> None:
        """Send one request. bodiless: its answer has no body whatever its headers say (HEAD)."""
        self._begin()
        self.bodiless = bodiless
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is not None:
            self._transport.write(head + body if len(body) < 65536 else head)
            if len(body) >= 65536:
                self._transport.write(body)

    async def head(self) -> None:
        """Wait until status and headers are there. Raises BrokenOff."""
        while not self.headed:
            if self.broken is not None:
                raise BrokenOff(self.broken, self.answered)
            await self._more()

    async def read(self) -> bytes:
        """What has arrived of the body since the last time, at least a byte; nothing at its end. Raises BrokenOff."""
        while not self._parts:
            if self.ended:
                return b""
            if self.broken is not None:
                raise BrokenOff(self.broken, True)
            await self._more()
        part = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._unread = 0
        if self._paused and self._transport is not None and self.broken is None:
            self._paused = False
            self._transport.resume_reading()
        return part

    def abort(self) -> None:
        """End the connection at once, so that the replica can stop what it does for it."""
        self.broken = self.broken or "given up"
        if self._transport is not None:
            self._transport.abort()

    @property
    def fit_again(self) -> bool:
        """Another exchange may follow: this one ended whole, and both sides still read."""
        return self.reusable and self.ended and self.broken is None and not self._paused

    async def _more(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.ended:  # nobody asked: whatever this is, the wire is out of step
            self._break("it spoke without being asked")
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as wrong:
            self._break(f"no HTTP: {wrong}")
            return
        except httptools.HttpParserUpgrade:
            self._break("it changes to another protocol, which was not asked for")
            return
        if self._unread > UNREAD_MOST and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False  # the other end is done: so are we

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._until_close and exc is None and self.broken is None:
            self.ended = True
        self.reusable = False
        self.broken = self.broken or (str(exc) if exc else "the connection was closed")
        self._wake()

    def _break(self, why: str) -> None:
        self.broken = why
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # What the parser calls

    def on_message_begin(self) -> None:
        if self.ended:
            raise ValueError("it answers what nobody asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._bytes_of_head += len(name) + len(value)
        if self._bytes_of_head > HEAD_MOST:
            raise ValueError("its headers are too long")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._bytes_of_head = 0
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return  # said in between; the answer is to come
        self.headed = True
        self.reusable = bool(self._parser.should_keep_alive())
        bodiless = self.bodiless or self.status in (204, 304)
        self._until_close = not bodiless and not any(
            name in (b"content-length", b"transfer-encoding") for name, _ in self.headers
        )
        if self.bodiless:  # the parser would wait for a body that its length announces
            self.ended = True
            self.reusable = False

    def on_body(self, body: bytes) -> None:
        if not self.bodiless:
            self._parts.append(body)
            self._unread += len(body)

    def on_message_complete(self) -> None:
        if not self.headed:
            self.headers = []
            return
        self.ended = True


class Pool:
    """The wires to one replica."""

    __slots__ = ("_idle", "_loop", "address", "host", "port")

    def __init__(self, address: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.port = port
        self.host = f"[{address}]:{port}".encode() if ":" in address else f"{address}:{port}".encode()
        self._loop = loop
        self._idle: list[Wire] = []

    def taken(self, *, once: bool, now_s: float) -> Wire | None:
        """A wire that stands ready, the one used last; None when there is none. once: must not be sent twice."""
        fresh_s = FRESH_ONCE_S if once else FRESH_S
        while self._idle:
            wire = self._idle.pop()
            if wire.broken is None and now_s - wire.idle_since_s < fresh_s:
                wire.reused = True
                return wire
            wire.abort()
        return None

    async def connected(self) -> Wire:
        """A new wire. Raises NotReached."""
        try:
            async with asyncio.timeout(CONNECT_S):
                _, wire = await self._loop.create_connection(
                    lambda: Wire(self._loop), self.address, self.port
                )
        except TimeoutError:
            raise NotReached(self.address, self.port, f"no answer within {CONNECT_S:g} s") from None
        except OSError as refused:
            raise NotReached(self.address, self.port, refused.strerror or type(refused).__name__) from refused
        return wire

    def give_back(self, wire: Wire, *, now_s: float) -> None:
        """Keep a wire whose exchange has ended, if it can serve again; close it otherwise."""
        if wire.fit_again and len(self._idle) < IDLE_MOST:
            wire.idle_since_s = now_s
            self._idle.append(wire)
        else:
            wire.abort()

    def sweep(self, *, now_s: float) -> None:
        """Close what has stood idle for too long to be used again."""
        stale = [wire for wire in self._idle if now_s - wire.idle_since_s >= FRESH_S]
        self._idle = [wire for wire in self._idle if now_s - wire.idle_since_s < FRESH_S]
        for wire in stale:
            wire.abort()

    def close(self) -> None:
        """Close what stands idle; what is under way ends by itself."""
        while self._idle:
            self._idle.pop().abort()
