"""A front is one system that takes requests for replicas: ours, or a peer; started on demand, measured as a whole.

Invariant: every front of a bench stands before the same mock replicas, on the same cores, asked by the same load; while
one is measured the others stand still. Who takes part is `FRONTS`; a peer that cannot be had here is `Absent`, with the
reason, and the bench goes on without it.
"""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.serving.cpu import FRONT_CORES, cpu_ms, end
from bench.serving.open_loop import ROOT, UNIQUE

MODEL = "mock"  # what clients call it, everywhere
MEASURED_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("BASEAI_", "RAY_", "LITELLM_", "PYTHON"))
} | {"OMP_NUM_THREADS": "1"}


class Absent(Exception):
    """A peer that this machine cannot have, and why."""


class NotReady(Exception):
    """A system that was started and does not answer, and what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a front is to stand in front of, and how."""

    ports: tuple[int, ...]  # of the mock replicas, on the loopback
    folder: Path  # of its own, empty
    balance: str = "least"  # of ours; peers have one way each
    cached: bool = False
    answer_bytes: int = 1024  # of a front that is its own replica
    wait_ms: float = 0.0  # the same
    processes: int = 1
    autoscale: Mapping[str, float] | None = None  # of Ray Serve, in its own words


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """One that runs."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None
    log: Path | None = None
    beside: tuple[subprocess.Popen[bytes], ...] = ()  # what belongs to it and is no child of it

    @property
    def roots(self) -> list[int]:
        """Of the process trees that it is."""
        return [self.process.pid, *(each.pid for each in self.beside)]

    @property
    def cpu_ms(self) -> float:
        return sum(map(cpu_ms, self.roots))


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of the loopback that nobody listens on just now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)
    finally:
        for probe in probes:
            probe.close()


def start(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    cores: frozenset[int] = FRONT_CORES,
    inherit: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process, and all that it starts, on the given cores; what it says goes to the log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            env={**MEASURED_ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=cwd or ROOT,
            pass_fds=inherit,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path, *, within_s: float = 60.0) -> None:
    """Until the address answers 200; when it never does, the process is ended and NotReady raised."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            pass  # nobody listens yet, or he is not ready to be asked
        if process.poll() is not None:
            break
        time.sleep(0.05)
    how = "ended by itself" if process.poll() is not None else f"did not answer within {within_s:g} s"
    ended(process)
    said = log.read_text(errors="replace")[-2000:]
    raise NotReady(f"what was to answer at {url} {how}: {said}")


FRONTS: Mapping[str, str] = {  # name in options -> where it is started
    "ours": "bench.serving.ours:front",
    "litellm": "bench.serving.peers.litellm:front",
    "ours-magika": "bench.serving.ours:magika",
    "plain-onnx": "bench.serving.peers.plain_onnx:front",
    "nginx": "bench.serving.peers.nginx:front",
    "haproxy": "bench.serving.peers.haproxy:front",
    "ray": "bench.serving.peers.ray_serve:default",
    "ray-haproxy": "bench.serving.peers.ray_serve:behind_haproxy",
}


@dataclass
class Stage:
    """All that one bench has running; it ends with it."""

    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)
    fronts: dict[str, Front] = field(default_factory=dict)
    replicas: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def replica(self, **manner: float) -> int:
        """Start a mock replica; its port."""
        [port] = free_ports(1)
        self.replicas.append(self._replica(port, manner))
        return port

    def replica_again(self, number: int, port: int, **manner: float) -> None:
        """The same on its old port, after it was killed."""
        self.replicas[number] = self._replica(port, manner)

    def _replica(self, port: int, manner: Mapping[str, float]) -> subprocess.Popen[bytes]:
        words = [
            word for name, value in manner.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")
        ]
        log = self.folder / f"replica-{port}.log"
        process = start(
            [sys.executable, str(ROOT / "bench/serving/replica.py"), str(port), *words],
            log=log,
            environment={"PYTHONPATH": str(ROOT)},
            cores=frozenset(os.sched_getaffinity(0)),  # it chooses its own
        )
        self.stack.callback(ended, process)
        wait_ready(f"http://127.0.0.1:{port}/", process, log)
        return process

    def front(
        self,
        name: str,
        ports: Sequence[int],
        *,
        called: str | None = None,
        balance: str = "least",
        cached: bool = False,
        answer_bytes: int = 1024,
        wait_ms: float = 0.0,
        processes: int = 1,
        autoscale: Mapping[str, float] | None = None,
    ) -> Front:
        """Start one of `FRONTS`; raises Absent."""
        called = called or name
        folder = Path(tempfile.mkdtemp(prefix=f"{called}-", dir=self.folder))
        setup = Setup(
            ports=tuple(ports),
            folder=folder,
            balance=balance,
            cached=cached,
            answer_bytes=answer_bytes,
            wait_ms=wait_ms,
            processes=processes,
            autoscale=autoscale,
        )
        module, _, function = FRONTS[name].partition(":")
        try:
            running: Front = getattr(importlib.import_module(module), function)(setup)
        except NotReady as fault:
            if name.startswith("ours"):
                raise
            raise Absent(f"{name}: {fault}") from None
        for process in (*running.beside, running.process):
            self.stack.callback(ended, process)
        self.fronts[called] = running
        return running

    def close(self, called: str) -> None:
        """End one front before the others."""
        front = self.fronts.pop(called)
        for process in (front.process, *front.beside):
            ended(process)

    def others(self, measured: Front | None) -> list[int]:
        """The roots of all fronts but the one that is measured."""
        return [root for each in self.fronts.values() if each is not measured for root in each.roots]


def ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        end(process.pid)
        process.wait(10)


@contextmanager
def stage() -> Iterator[Stage]:
    """A place for fronts and replicas; whatever was started on it is over afterwards, also when the bench is ended."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    base = os.environ.get("TMPDIR", "/tmp")
    with tempfile.TemporaryDirectory(prefix="bsv-", dir=base, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        with ExitStack() as stack:
            stack.callback(signal.signal, signal.SIGTERM, before)
            yield Stage(Path(folder), stack)


def chat(bytes_about: int = 1024, *, unique: bool = True, stream: bool = False, text: str = "") -> str:
    """The body of a chat request of about so many bytes; at its end the digits that make it unlike all others.

    text: with what the prompt begins. A temperature of 0 lets caches keep the answer.
    """
    head = '{"model":"' + MODEL + '","temperature":0,' + ('"stream":true,' if stream else "")
    head += '"messages":[{"role":"user","content":"' + text
    tail = f' #{UNIQUE if unique else "00000000"}#"}}]}}'
    words = "tell me more of it " * (bytes_about // 19 + 1)
    return head + words[: max(0, bytes_about - len(head) - len(tail))] + tail
