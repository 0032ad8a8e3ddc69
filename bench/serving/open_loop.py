"""A load asks a system at given instants, whether or not it keeps up, and tells how each request ended.

Invariant: a latency counts from the instant at which the request was meant to be sent, so a system that makes its
clients wait is charged for it (an open loop); how late the load itself was is told beside. A closed loop, in which
each client asks again when it has its answer, only serves to find a system's greatest rate.

The load is a process of its own on a core of its own (`cpu.LOAD_CORES`) and tells its result as JSON. Timers of
the event loop are as coarse as a millisecond, so instants come from a timer of the kernel.
"""

import asyncio
import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)] if __name__ == "__main__" else []

import httptools  # noqa: E402 - after the line above, as what follows

from bench.serving.cpu import LOAD_CORES  # noqa: E402

UNIQUE = "@@@@@@@@"  # in a body: eight digits that no other request of the load has, echoed by a mock replica
DRAIN_S = 15.0  # for what is under way when the time is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked, how often and for how long."""

    port: int
    seconds: float
    bodies: tuple[str, ...]  # taken in turn
    rate: float | None = None  # requests a second; None: a closed loop
    connections: int = 64  # closed: clients; open: at most so many requests are under way
    arrivals: Literal["poisson", "even"] = "poisson"
    at_random: bool = False  # bodies are drawn instead
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    tries: int = 1  # 2: a request that got no answer is sent once more, as clients in the field do
    give_up_s: float = 30.0  # a request without its whole answer by then is lost
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """How it went. Lists are in the order of the ends."""

    asked: int
    began_s: float  # on the monotonic clock, which all processes of a machine share
    seconds: float  # from the first intended instant to the last end
    served: int
    refused: dict[str, int]  # by status
    wrong: int  # 200, and not the answer to what was asked
    lost: int  # without an answer
    repeated: int  # sent once more after the connection broke
    latency_ms: list[float]  # of the served, from the intended instant
    first_ms: list[float]  # the same until the first byte of a body; of streams
    gap_ms: list[float]  # between chunks of a stream
    late_ms: list[float]  # how late the load sent
    ends: list[tuple[float, str]] = field(
        default_factory=list
    )  # (seconds since the start, how) of all not served

    @property
    def rate(self) -> float:
        """Served in a second."""
        return self.served / self.seconds if self.seconds else 0.0


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least q of all do not exceed; not a number when there is none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def run(load: Load) -> LoadResult:
    """Carry it out in a process of its own and wait for its end."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        (Path(folder) / "load.json").write_text(json.dumps(asdict(load)))
        process = subprocess.run(
            [sys.executable, __file__, folder],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=load.seconds + load.give_up_s + DRAIN_S + 30,
            cwd=ROOT,
        )
        if process.returncode:
            raise SystemExit(f"the load failed: {process.stderr[-2000:]}")
        told = json.loads((Path(folder) / "result.json").read_text())
    told["ends"] = [(at_s, how) for at_s, how in told["ends"]]
    return LoadResult(**told)


@dataclass(slots=True)
class Request:
    """One request on its way."""

    number: int
    meant_s: float  # on the clock of the monotonic
    left: int  # tries
    message: bytes = b""
    echo: bytes = b""


class KernelTimer:
    """Readable at an instant, exact to some microseconds."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at_s: float) -> None:
        """at_s: on the monotonic clock; what is over already fires at once."""
        at_ns = max(1, int(at_s * 1e9))
        when = (ctypes.c_long * 4)(0, 0, at_ns // 10**9, at_ns % 10**9)
        if self._libc.timerfd_settime(self.descriptor, 1, when, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        try:
            os.read(self.descriptor, 8)
        except BlockingIOError:
            pass  # it has been set again since


class Asking:
    """One load while it runs."""

    def __init__(self, load: Load, loop: asyncio.AbstractEventLoop) -> None:
        self.load, self.loop = load, loop
        self.rng = random.Random(load.seed)
        self.messages = [self._message(body) for body in load.bodies]
        self.idle: list[Client] = []
        self.open = 0
        self.queue: deque[Request] = deque()
        self.asked = self.ended = self.served = self.wrong = self.lost = self.repeated = 0
        self.refused: Counter[str] = Counter()
        self.latency_ms: list[float] = []
        self.first_ms: list[float] = []
        self.gap_ms: list[float] = []
        self.late_ms: list[float] = []
        self.ends: list[tuple[float, str]] = []
        self.all_sent = False
        self.over = asyncio.Event()
        self.last_s = 0.0

    def _message(self, body: str) -> tuple[bytes, bytes | None]:
        """Before and after the unique digits; the second is None where there are none."""
        told = "".join(f"{name}: {value}\r\n" for name, value in self.load.headers)
        encoded = body.encode()
        head = (
            f"POST {self.load.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.load.port}\r\ncontent-type: application/json\r\n"
            f"{told}content-length: {len(encoded)}\r\n\r\n"
        ).encode()
        before, found, after = (head + encoded).partition(UNIQUE.encode())
        return before, after if found else None

    def request(self, meant_s: float) -> Request:
        number = self.asked
        self.asked += 1
        count = len(self.messages)
        before, after = self.messages[self.rng.randrange(count) if self.load.at_random else number % count]
        request = Request(number, meant_s, self.load.tries)
        if after is None:
            request.message = before
        else:
            request.echo = b"%08d" % number
            request.message = before + request.echo + after
        return request

    def send(self, request: Request) -> None:
        """Now, by a connection that is free, or by a new one; at the end of the queue when there are too many."""
        while self.idle:
            client = self.idle.pop()
            if not client.closed:
                client.ask(request)
                return
        self.queue.append(request)
        if self.open < self.load.connections:
            self.open += 1
            self.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            _, client = await self.loop.create_connection(lambda: Client(self), "127.0.0.1", self.load.port)
        except OSError:
            self.open -= 1
            if self.queue:
                self.broken(self.queue.popleft(), "refused")
            return
        self.free(client)

    def free(self, client: "Client") -> None:
        if self.queue:
            client.ask(self.queue.popleft())
        else:
            self.idle.append(client)

    def broken(self, request: Request, how: str) -> None:
        """There is no answer to it: once more, or lost."""
        if request.left > 1:
            request.left -= 1
            self.repeated += 1
            self.loop.call_later(0.02, self.send, request)
            return
        self.lost += 1
        self.done(request, how)

    def done(self, request: Request, how: str | None) -> None:
        now_s = time.monotonic()
        self.last_s = now_s
        self.ended += 1
        if how is not None:
            self.ends.append((now_s - self.began_s, how))
        if self.load.rate is None and not self.all_sent:
            self.loop.call_soon(self._again)
        if self.all_sent and self.ended == self.asked:
            self.over.set()

    def _again(self) -> None:
        if not self.all_sent:
            self.send(self.request(time.monotonic()))

    async def open_loop(self) -> None:
        rate = self.load.rate
        assert rate is not None
        even = self.load.arrivals == "even"
        timer = KernelTimer()
        finished = asyncio.Event()
        meant_s = self.began_s

        def due() -> None:
            nonlocal meant_s
            timer.clear()
            now_s = time.monotonic()
            while meant_s <= now_s:
                if meant_s >= self.until_s:
                    finished.set()
                    return
                self.late_ms.append((now_s - meant_s) * 1000)
                self.send(self.request(meant_s))
                meant_s += 1 / rate if even else self.rng.expovariate(rate)
                now_s = time.monotonic()
            timer.set(meant_s)

        self.loop.add_reader(timer.descriptor, due)
        timer.set(meant_s)
        await finished.wait()
        self.loop.remove_reader(timer.descriptor)

    async def carry_out(self) -> dict[str, Any]:
        load = self.load
        warm = [asyncio.ensure_future(self._warm()) for _ in range(min(load.connections, 16))]
        await asyncio.gather(*warm)
        self.began_s = self.last_s = time.monotonic() + 0.01
        self.until_s = self.began_s + load.seconds
        if load.rate is None:
            for _ in range(load.connections):
                self._again()
            await asyncio.sleep(load.seconds)
        else:
            await self.open_loop()
        self.all_sent = True
        if self.ended < self.asked:
            self.over.clear()
            try:
                await asyncio.wait_for(self.over.wait(), DRAIN_S + load.give_up_s)
            except TimeoutError:
                missing = self.asked - self.ended
                self.lost += missing
                self.ends += [(time.monotonic() - self.began_s, "no answer")] * missing
        return {
            "asked": self.asked,
            "began_s": self.began_s,
            "seconds": self.last_s - self.began_s,
            "served": self.served,
            "refused": dict(self.refused),
            "wrong": self.wrong,
            "lost": self.lost,
            "repeated": self.repeated,
            "latency_ms": self.latency_ms,
            "first_ms": self.first_ms,
            "gap_ms": self.gap_ms,
            "late_ms": self.late_ms,
            "ends": self.ends,
        }

    async def _warm(self) -> None:
        self.open += 1
        await self._connect()


class Client(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.parser = httptools.HttpResponseParser(self)
        self.request: Request | None = None
        self.closed = False
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def ask(self, request: Request) -> None:
        self.request = request
        self.body: list[bytes] = []
        self.stream = False
        self.first_s = self.before_s = 0.0
        self.transport.write(request.message)
        self.timer = self.asking.loop.call_later(self.asking.load.give_up_s, self.give_up)

    def give_up(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.asking.open -= 1
        if self.request is not None:
            request, self.request = self.request, None
            self._stop_timer()
            self.asking.broken(request, "broken")

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if value.startswith(b"text/event-stream"):
            self.stream = True

    def on_body(self, body: bytes) -> None:
        if self.stream:
            if b"[DONE]" in body and b"{" not in body:
                self.body.append(body)
                return
            now_s = time.monotonic()
            if self.first_s:
                self.asking.gap_ms.append((now_s - self.before_s) * 1000)
            else:
                self.first_s = now_s
            self.before_s = now_s
        self.body.append(body)

    def on_message_complete(self) -> None:
        request, asking = self.request, self.asking
        if request is None:
            return
        status = self.parser.get_status_code()
        if status < 200:
            return
        self.request = None
        self._stop_timer()
        body = b"".join(self.body)
        how: str | None = None
        if status >= 300:
            how = str(status)
            asking.refused[how] += 1
        elif (self.stream and b"[DONE]" not in body) or (not self.stream and request.echo not in body):
            how = "wrong"
            asking.wrong += 1
        else:
            asking.served += 1
            asking.latency_ms.append((time.monotonic() - request.meant_s) * 1000)
            if self.stream:
                asking.first_ms.append((self.first_s - request.meant_s) * 1000)
        if not self.parser.should_keep_alive():
            self.transport.close()
        else:
            asking.free(self)
        asking.done(request, how)


def main() -> None:
    import uvloop

    os.sched_setaffinity(0, LOAD_CORES)
    folder = Path(sys.argv[1])
    told = json.loads((folder / "load.json").read_text())
    told["bodies"] = tuple(told["bodies"])
    told["headers"] = tuple((name, value) for name, value in told["headers"])
    load = Load(**told)

    async def whole() -> dict[str, Any]:
        return await Asking(load, asyncio.get_running_loop()).carry_out()

    gc.disable()
    found = uvloop.run(whole())
    (folder / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
