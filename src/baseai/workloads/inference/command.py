"""A command is a program that listens by itself: the tenant's own, vLLM's server, or an application of Ray Serve.

Invariant: it runs in a session of its own, is told where to listen ($HOST, $PORT), and everything it started has ended
when `end` returns. Signals go to the group whose leader was started here, never to a name.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from baseai.ground.fault import Fault, Refused
from baseai.workloads.inference.order import Order
from baseai.workloads.inference.server.guard import VARIABLE as TOKEN_VARIABLE

LINUX = sys.platform == "linux"
LOOK_S = 0.1
PROBE_S = 2.0
ANSWER_BYTES = 65_536
HINT_S = 30.0  # until the log says what is still waited for
START_MOST_S = 1800.0  # until it answers; a large model takes minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start, and how to see that it answers."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready_path: str


class PortTaken(Fault):
    """Nothing can listen at a port of this node now."""

    retryable = True

    def __init__(self, port: int | None, why: str) -> None:
        super().__init__(port, why)
        self.port = port  # None: any free one
        self.why = why

    def __str__(self) -> str:
        if self.port is None:
            return f"this node gives no port ({self.why})"
        fix = "leave `port` out and listen at $PORT, which is free"
        return f"port {self.port} of this node cannot be had ({self.why}); {fix}"


class NeverReady(Fault):
    """A command runs and does not answer."""

    def __init__(self, where: str, path: str, waited_s: float) -> None:
        super().__init__(where, path, waited_s)
        self.where = where
        self.path = path
        self.waited_s = waited_s

    def __str__(self) -> str:
        return (
            f"nothing answered GET {self.path} at {self.where} within {self.waited_s:g} s;"
            " let the command listen at $HOST:$PORT, or name another path in `probes.ready`"
        )


def program_of(order: Order, *, host: str, port: int, model: str | None) -> Program:
    """The tenant's commands in one shell, which ends with the first that fails."""
    return Program(
        argv=script_argv(order),
        env=environment_of(order, os.environ, host=host, port=port, model=model),
        ready_path=order.service.ready_path,
    )


def script_argv(order: Order) -> tuple[str, ...]:
    """A shell over the spec's commands, which it reads from the attempt's folder."""
    script = order.attempt_folder / "serve.sh"
    script.write_text("\n".join(order.service.commands) + "\n", encoding="utf-8")
    return ("/bin/sh", "-e", str(script))


def environment_of(
    order: Order, own: Mapping[str, str], *, host: str, port: int, model: str | None
) -> dict[str, str]:
    """The run's variables with the tenant's PYTHONPATH in place of the host's own, where to listen, and the token.

    The token goes by a variable: a command line can be read by everybody on the node.
    """
    environment = {name: value for name, value in own.items() if name != "PYTHONPATH"}
    if order.python_path:
        environment["PYTHONPATH"] = order.python_path
    environment |= {"HOST": host, "PORT": str(port), "BASEAI_PORT": str(port)}
    environment["BASEAI_MODEL_NAME"] = order.service.model_name
    if model is not None:
        environment["BASEAI_MODEL"] = model
    if order.token is not None:
        environment[TOKEN_VARIABLE] = order.token
    return environment


def host_to_listen(address: str) -> str:
    """The node's address where it is one of this machine's own, else all of them."""
    family = _family(address)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:  # behind a translation of addresses, for example
            return "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104  others know it by another address
    return address


def bound(host: str, port: int | None) -> socket.socket:
    """A socket bound there, not yet listening; without a port, at a free one. Raises PortTaken."""
    listener = socket.socket(_family(host), socket.SOCK_STREAM)
    if port is not None:  # a free port shall be nobody's; a certain one may have served a moment ago
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port or 0))
    except OSError as wrong:
        listener.close()
        raise PortTaken(port, wrong.strerror or str(wrong)) from wrong
    return listener


def free_port(host: str, port: int | None) -> int:
    """A port that was free a moment ago. Raises PortTaken where the one that is wanted is."""
    with bound(host, port) as listener:
        return int(listener.getsockname()[1])


def _family(address: str) -> socket.AddressFamily:
    with contextlib.suppress(OSError):
        return socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]
    return socket.AF_INET


class Child:
    """One started program with everything it starts."""

    def __init__(self, process: asyncio.subprocess.Process, ends_on: signal.Signals) -> None:
        self._process = process
        self._ends_on = ends_on
        self.pid = process.pid

    @staticmethod
    async def start(
        argv: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        *,
        ends_on: signal.Signals = signal.SIGTERM,
    ) -> "Child":
        """In a session of its own; it ends on the signal `ends_on`. Raises Refused where there is no such program."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, env=dict(env), cwd=folder, start_new_session=True, stdin=asyncio.subprocess.DEVNULL
            )
        except OSError as wrong:
            raise Refused(f"cannot start {argv[0]}: {wrong.strerror}") from wrong
        return Child(process, ends_on)

    async def ended(self) -> int:
        """Its exit code as a shell has it: 128 and the signal's number where a signal ended it."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def end(self, grace_s: float) -> bool:
        """Ask it to end, and kill it when the grace is over; whether all of it ended by itself."""
        self._signal(self._ends_on)
        deadline_s = time.monotonic() + grace_s
        while self._lives() and time.monotonic() < deadline_s:  # noqa: ASYNC110  processes set no event
            await asyncio.sleep(LOOK_S)
        by_itself = not self._lives()
        self._signal(signal.SIGKILL)
        await self._process.wait()
        return by_itself

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _lives(self) -> bool:
        """Whether any process of the group still runs; one that only waits to be collected does not."""
        if LINUX:
            return any(group == self.pid and state not in ("Z", "X") for group, state in _groups())
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


def _groups() -> list[tuple[int, str]]:
    """Process group and state of every process (man 5 proc_pid_stat)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                state, _, group, *_ = stat.read().rpartition(b")")[2].decode().split()
                found.append((int(group), state))
    return found


async def until_ready(
    address: str, port: int, path: str, *, most_s: float = START_MOST_S, hint_s: float = HINT_S
) -> None:
    """Until a GET of the path is answered below 500; once it takes long, the log says what it is. Raises NeverReady."""
    began_s = time.monotonic()
    deadline_s = began_s + most_s
    told = hinted = False
    while time.monotonic() < deadline_s:
        status = await status_of(address, port, path)
        if status is not None and status < 500:
            return
        if status is None and not told and not _is_loopback(address):
            inward = await status_of("127.0.0.1", port, path)
            if inward is not None and inward < 500:
                told = True
                sentence = f"the command listens at 127.0.0.1:{port} alone, where the gateway does not come"
                print(f"{sentence}; let it listen at $HOST", file=sys.stderr, flush=True)
        if not hinted and time.monotonic() - began_s >= hint_s:
            hinted = True
            seen = "nobody answers" if status is None else f"{status} is the answer"
            sentence = (
                f"after {hint_s:g} s {seen} to GET {path} at {address}:{port}; the replica is ready below 500"
            )
            print(f"{sentence}, at $HOST:$PORT and the path `probes.ready`", file=sys.stderr, flush=True)
        await asyncio.sleep(LOOK_S)
    raise NeverReady(f"{address}:{port}", path, most_s)


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")


async def status_of(address: str, port: int, path: str) -> int | None:
    """The status of one GET; None where nobody answers in good time, or not in HTTP."""
    answer = await answer_of(address, port, path)
    return None if answer is None else answer[0]


async def answer_of(address: str, port: int, path: str) -> tuple[int, bytes] | None:
    """Status and the begin of the body of one GET; None where nobody answers in good time, or not in HTTP."""
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                host = f"[{address}]" if ":" in address else address
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
                line = await reader.readline()
                rest = await reader.read(ANSWER_BYTES)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None
    protocol, _, words = line.partition(b" ")
    if not protocol.startswith(b"HTTP/") or not words[:3].isdigit():
        return None
    return int(words[:3]), rest.partition(b"\r\n\r\n")[2]
