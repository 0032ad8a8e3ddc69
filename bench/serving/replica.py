"""A mock replica answers as a model's server would, at once or after a fixed time, and counts what it was asked.

Invariant: it does nothing else, so that what stands in front of it is what a bench measures. It echoes the eight digits
that stand between two `#` in a request into its answer: an answer that went to the wrong client is seen as such.

    python bench/serving/replica.py PORT [--wait-ms 20] [--lanes 8] [--slow 5] [--body 1024] [--chunks 50] …

`POST` anything: a chat completion, or its stream where the body says `"stream":true`. `lanes`: so many requests are
worked on at once, the others wait. `slow`: all takes so many times as long. `prefixes`: the beginnings of prompts
that it remembers, most recent first; one that it does not remember takes `--cold-ms` more, as filling a KV cache does.
`GET /counts`: calls so far, most under way at once, hits of remembered prefixes. `GET` anything else: 200.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import signal
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import cast

import httptools
import uvloop

from bench.serving.cpu import REPLICA_CORES

ECHOED = re.compile(rb"#(\d{8})#")
PREFIX_BYTES = 512  # of the first message, from where its text begins
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a mock replica answers."""

    wait_ms: float = 0.0
    lanes: int = 0  # 0: as many as come
    slow: float = 1.0
    body_bytes: int = 1024
    chunks: int = 50
    pace_ms: float = 10.0
    prefixes: int = 0  # 0: none is remembered, none is looked for
    cold_ms: float = 0.0


def completion(body_bytes: int) -> tuple[bytes, bytes]:
    """The answer's body, cut where the echo goes."""
    told = {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1764200000,
        "model": "mock",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "@"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240},
    }
    bare = json.dumps(told)
    padding = "words " * (max(0, body_bytes - len(bare) - 8) // 6)
    before, after = bare.encode().split(b"@")
    return before, padding.encode() + after


def chunk(text: str | None, *, usage: bool = False) -> bytes:
    """One event of a stream, as a chunk of HTTP; None: the last one before [DONE]."""
    told: dict[str, object] = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1764200000,
        "model": "mock",
        "choices": []
        if usage
        else [
            {
                "index": 0,
                "delta": {} if text is None else {"content": text},
                "finish_reason": "stop" if text is None else None,
            }
        ],
    }
    if usage:
        told["usage"] = {"prompt_tokens": 200, "completion_tokens": 50, "total_tokens": 250}
    return framed(b"data: " + json.dumps(told).encode() + b"\n\n")


def framed(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


class Mock:
    """What all connections of one replica share."""

    def __init__(self, manner: Manner) -> None:
        self.manner = manner
        self.before, self.after = completion(manner.body_bytes)
        self.head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (
            len(self.before) + 8 + len(self.after)
        )
        self.word, self.last, self.usage = chunk("word "), chunk(None), chunk(None, usage=True)
        self.calls = self.under_way = self.most = self.hits = 0
        self.waiting: deque[Connection] = deque()
        self.remembered: OrderedDict[bytes, None] = OrderedDict()

    def counts(self) -> bytes:
        told = {"calls": self.calls, "most": self.most, "hits": self.hits, "under_way": self.under_way}
        return json.dumps(told).encode()

    def begin(self, connection: "Connection") -> None:
        if self.manner.lanes and self.under_way >= self.manner.lanes:
            self.waiting.append(connection)
        else:
            self._work(connection)

    def _work(self, connection: "Connection") -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        wait_ms = self.manner.wait_ms
        if self.manner.prefixes and not self._remembers(connection.body):
            wait_ms += self.manner.cold_ms
        wait_s = wait_ms * self.manner.slow / 1000
        if wait_s > 0:
            connection.loop.call_later(wait_s, connection.answer)
        else:
            connection.answer()

    def _remembers(self, body: bytes) -> bool:
        at = body.find(b'"content":')
        prefix = body[at : at + PREFIX_BYTES]
        known = prefix in self.remembered
        self.remembered[prefix] = None
        self.remembered.move_to_end(prefix)
        if len(self.remembered) > self.manner.prefixes:
            self.remembered.popitem(last=False)
        self.hits += known
        return known

    def ended(self) -> None:
        self.under_way -= 1
        while self.waiting and (not self.manner.lanes or self.under_way < self.manner.lanes):
            following = self.waiting.popleft()
            if not following.closed:
                self._work(following)


class Connection(asyncio.Protocol):
    """One client; its requests come one after the other."""

    def __init__(self, mock: Mock, loop: asyncio.AbstractEventLoop) -> None:
        self.mock, self.loop = mock, loop
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.body = b"", b""
        self.closed = self.working = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.working:
            self.working = False
            self.mock.ended()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url, self.body = b"", b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.parser.get_method() == b"POST":
            self.mock.calls += 1
            self.mock.begin(self)
            return
        told = self.mock.counts() if self.url == b"/counts" else b"{}"
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(told)
            + told
        )

    def answer(self) -> None:
        if self.closed:
            self.mock.ended()
            return
        self.working = True
        compact = self.body.replace(b" ", b"") if b'"stream"' in self.body else b""
        if b'"stream":true' in compact:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self.left = self.mock.manner.chunks
            self.next_s = self.loop.time()
            self.usage = b'"include_usage":true' in compact
            self._next_chunk()
            return
        found = ECHOED.search(self.body)
        echo = found[1] if found else b"--------"
        mock = self.mock
        self.transport.write(mock.head + mock.before + echo + mock.after)
        self._end()

    def _next_chunk(self) -> None:
        if self.closed:
            return
        if self.left:
            self.left -= 1
            self.transport.write(self.mock.word)
            self.next_s += self.mock.manner.pace_ms * self.mock.manner.slow / 1000
            self.loop.call_at(self.next_s, self._next_chunk)
            return
        usage = self.mock.usage if self.usage else b""
        self.transport.write(self.mock.last + usage + DONE)
        self._end()

    def _end(self) -> None:
        if self.working:
            self.working = False
            self.mock.ended()


async def serve(port: int, manner: Manner) -> None:
    """Until somebody asks it to end."""
    loop = asyncio.get_running_loop()
    mock = Mock(manner)
    server = await loop.create_server(lambda: Connection(mock, loop), "127.0.0.1", port, backlog=2048)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    with contextlib.suppress(asyncio.CancelledError):
        await over.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int)
    parser.add_argument("--wait-ms", type=float, default=0.0)
    parser.add_argument("--lanes", type=int, default=0)
    parser.add_argument("--slow", type=float, default=1.0)
    parser.add_argument("--body", type=int, default=1024)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--pace-ms", type=float, default=10.0)
    parser.add_argument("--prefixes", type=int, default=0)
    parser.add_argument("--cold-ms", type=float, default=0.0)
    asked = parser.parse_args()
    os.sched_setaffinity(0, REPLICA_CORES)
    gc.freeze()
    manner = Manner(
        wait_ms=asked.wait_ms,
        lanes=asked.lanes,
        slow=asked.slow,
        body_bytes=asked.body,
        chunks=asked.chunks,
        pace_ms=asked.pace_ms,
        prefixes=asked.prefixes,
        cold_ms=asked.cold_ms,
    )
    uvloop.run(serve(asked.port, manner))


if __name__ == "__main__":
    main()
