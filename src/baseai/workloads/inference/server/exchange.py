"""An exchange is one request being answered: its body is read once, its answer goes out whole or as a stream.

Invariant: when the client goes or the deadline is over, the task that answers is cancelled, once, and `ended` says why;
nothing is sent to a client that is gone. The application makes one per request.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from baseai.workloads.inference.engine import BadInput, Call
from baseai.workloads.inference.server.refusal import BodyTooLarge, Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON: Headers = ((b"content-type", b"application/json"),)
EVENTS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies on the way are asked to pass each event on at once
)
WANTED = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"inference-header-content-length",
        b"x-request-id",
        b"x-session-id",
        b"x-baseai-deadline-ms",
    }
)
MOST_DEADLINE_S = 86_400.0
LOOK_AFTER_S = 0.02  # most answers are there before; only longer work is worth watching its client


class ClientGone(Exception):
    """The client closed its connection before it had sent the whole request."""


class Exchange:
    """See above. `call` is what the engine is told of the request."""

    __slots__ = (
        "_looking",
        "_receive",
        "_send",
        "_task",
        "_timers",
        "began",
        "call",
        "ended",
        "headers",
        "method",
        "path",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name: value for name, value in scope["headers"] if name in WANTED}
        self.began = False  # a status is out
        self.ended: Literal["gone", "deadline"] | None = None
        self._receive = receive
        self._send = send
        self._looking: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._task: asyncio.Task[Any] | None = None
        self.call = Call(
            request_id=self.headers.get(b"x-request-id", b"").decode("latin-1"),
            deadline_at_s=self._deadline_at_s(),
            session_id=self.headers[b"x-session-id"].decode("latin-1")
            if b"x-session-id" in self.headers
            else None,
        )

    def _deadline_at_s(self) -> float | None:
        left = self.headers.get(b"x-baseai-deadline-ms")
        if left is None:
            return None
        try:
            left_s = float(left) / 1000
        except ValueError:
            return None  # of a gateway of another version, whose own deadline still holds
        if not math.isfinite(left_s):
            return None
        return asyncio.get_running_loop().time() + min(left_s, MOST_DEADLINE_S)

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed already."""
        at_s = self.call.deadline_at_s
        return at_s is not None and at_s <= asyncio.get_running_loop().time()

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON, or nothing is said of it; a form is what curl says by itself."""
        kind = self.headers.get(b"content-type", b"application/json").lower()
        return b"json" in kind or kind.startswith(b"application/x-www-form-urlencoded")

    async def body(self, most_bytes: int) -> bytes:
        """The whole body. Raises BodyTooLarge before more than that is held, ClientGone."""
        told = self.headers.get(b"content-length", b"")
        if told.isdigit() and int(told) > most_bytes:
            raise BodyTooLarge(most_bytes, int(told))
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(part) > most_bytes:
                raise BodyTooLarge(most_bytes, len(part))
            return part
        parts, size = [part], len(part)
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most_bytes:
                raise BodyTooLarge(most_bytes, None)
        return b"".join(parts)

    def watch(self) -> None:
        """From now on the current task ends with its client and its deadline."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timers.append(loop.call_later(LOOK_AFTER_S, self._look))
        if self.call.deadline_at_s is not None:
            self._timers.append(loop.call_at(self.call.deadline_at_s, self._end, "deadline"))

    def unwatch(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end("gone")

    def _end(self, why: Literal["gone", "deadline"]) -> None:
        if self.ended is None and self._task is not None:
            self.ended = why
            self._task.cancel()

    async def answer(self, status: int, body: bytes, headers: Headers = JSON) -> None:
        """The whole answer."""
        self.began = True
        await self._send(
            {"type": "http.response.start", "status": status, "headers": self._own(headers, len(body))}
        )
        await self._send({"type": "http.response.body", "body": body})

    async def begin_events(self, tokens_in: int) -> None:
        """The head of a stream of server-sent events, which says what was read already: not all stay to its end."""
        self.began = True
        headers = self._own((*EVENTS, usage_header(tokens_in)), None)
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def events(self, text: str) -> None:
        """One event or several; each is on the wire when this returns."""
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def end_events(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    def _own(self, headers: Headers, size_bytes: int | None) -> list[tuple[bytes, bytes]]:
        own = list(headers)
        if size_bytes is not None:
            own.append((b"content-length", b"%d" % size_bytes))
        if self.call.request_id:
            own.append((b"x-request-id", self.headers[b"x-request-id"]))
        return own


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises BadInput that says where it stops being one."""
    value = json_of(body)
    if not isinstance(value, dict):
        raise BadInput(f"the body must be a JSON object, not {kind_of(value)}", code="invalid_json")
    return value


def json_of(body: bytes) -> Any:
    """Any JSON value. Raises BadInput."""
    if not body:
        raise BadInput("the body is empty; send JSON", code="invalid_json")
    try:
        value = json.loads(body)
        if b"\\ud" in body.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        wrong_text = "the body's JSON has half of a surrogate pair, which is no text; send both halves"
        raise BadInput(wrong_text, code="invalid_json") from None
    except UnicodeDecodeError as wrong:
        raise BadInput(f"the body is not UTF-8 from byte {wrong.start} on", code="invalid_json") from None
    except json.JSONDecodeError as wrong:
        where = f"line {wrong.lineno}, column {wrong.colno}"
        raise BadInput(f"the body is not JSON at {where}: {wrong.msg}", code="invalid_json") from None
    except RecursionError:
        raise BadInput("the body's JSON is nested too deeply", code="invalid_json") from None
    except ValueError:
        raise BadInput("the body's JSON has a number of too many digits", code="invalid_json") from None


def kind_of(value: object) -> str:
    """The JSON type of a parsed value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def usage_header(tokens_in: int, tokens_out: int = 0) -> tuple[bytes, bytes]:
    """What the gateway meters of an answer that is no stream; it keeps the header to itself."""
    return (b"x-baseai-usage", b"tokens_in=%d,tokens_out=%d" % (tokens_in, tokens_out))
