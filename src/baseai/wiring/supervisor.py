"""The supervisor starts the platform's children in order, starts them again when they end, and ends them in order.

Invariant: it is single-threaded and does nothing else, so it has little to die of; when it does, the kernel ends
its children (Linux), and the runs go on until the next supervisor's agent adopts them. A child that keeps ending is
started ever more slowly, never given up.
"""

import contextlib
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from baseai.ground.fault import Fault
from baseai.settings import PlatformSettings
from baseai.truth.embedded import as_postgres, end_with_parent, own_folder, prepare, wait_ready
from baseai.truth.migrate import look_at
from baseai.wiring.child import VARIABLE, Errand
from baseai.wiring.household import Household, write_private

SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
STEADY_AFTER_S = 30.0  # a child that has run so long starts at the shortest pause again
READY_WITHIN_S = 60.0
LOG_BYTES_MAX = 8 * 1024 * 1024
END_WITHIN_S = {
    "agent": 40.0,
    "gateway": 35.0,  # it drains for 30 s
    "controller": 5.0,
    "server": 5.0,
    "metrics": 15.0,
    "postgres": 20.0,
}
METRICS_SOCKET = "metrics.sock"


class PortTaken(Fault):
    """Something else listens on the address."""

    def __init__(self, address: str, port: int, why: str) -> None:
        super().__init__(address, port, why)
        self.address = address
        self.port = port
        self.why = why

    def __str__(self) -> str:
        where = f"{self.address}:{self.port}"
        return f"the server cannot listen on {where} ({self.why}): choose another --port, 0 for a free one"


class NotReady(Fault):
    """The platform did not come up."""

    def __init__(self, waited_s: float, log: str, last: str) -> None:
        super().__init__(waited_s, log, last)
        self.waited_s = waited_s
        self.log = log
        self.last = last

    def __str__(self) -> str:
        return f"the platform was not ready within {self.waited_s:g} s; {self.log} ends with: {self.last}"


class KeysDiffer(Fault):
    """The database was set up by a platform with other keys."""

    def __init__(self, keys: str) -> None:
        super().__init__(keys)
        self.keys = keys

    def __str__(self) -> str:
        return (
            "the database was set up by a platform with other keys:"
            f" bring its keys to {self.keys}, or name another database"
        )


@dataclass(slots=True)
class Child:
    """One process to keep running."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    due_s: float = 0.0
    pause_s: float = SHORTEST_PAUSE_S

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class Supervisor:
    """The children of one platform on one data folder, which the caller holds."""

    settings: PlatformSettings
    household: Household
    sockets: Path
    say: Callable[[str], None]
    children: dict[str, Child] = field(default_factory=dict)
    _told: bool = False
    _wake: tuple[int, int] | None = None
    _listening: socket.socket | None = None
    _gateway: socket.socket | None = None  # one queue of connections for all gateway processes

    def start(self) -> None:
        """Start everything and wait until the API answers. Raises a Fault with one sentence."""
        if self.settings.database:
            look_at(self.settings.database)
        self._listening = listen(self.settings.listen, self.settings.port)
        self.settings = replace(self.settings, port=self._listening.getsockname()[1])
        if self.settings.gateways:
            self._gateway = self._listen_beside()
            self.settings = replace(self.settings, gateway_port=self._gateway.getsockname()[1])
        self._watch_signals()
        if self.settings.database:
            own_folder(self.sockets)
        dsn = self.settings.database or self._start_postgres()
        self._keep("metrics", self._errand("metrics", dsn), signal.SIGTERM)
        self._keep("server", self._errand("server", dsn), signal.SIGTERM)
        self._keep("controller", self._errand("controller", dsn), signal.SIGTERM)
        for name in self._gateways():
            self._keep(name, self._errand(name, dsn), signal.SIGTERM)
        if self.settings.agent:
            self._keep("agent", self._errand("agent", dsn), signal.SIGHUP)
        self._wait_until_ready()
        self._write_down()

    def run(self) -> None:
        """Keep the children running until told to end."""
        while not self._told:
            self._mend()
            self._sleep()

    def end(self) -> None:
        """End the children in order: the runs first, PostgreSQL last; samples are taken in until nobody sends any."""
        self._told = True
        # Agents take their replicas along, so gateways first, all at once: what they were given they answer.
        for name in self._gateways():
            self._tell_to_end(name)
        for name in self._gateways():
            self._see_end(name)
        if self._gateway is not None:
            self._gateway.close()  # whoever comes now is refused, and does not wait for nobody
        self._end("agent", "controller", "server", "metrics", "postgres")
        self.household.running.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            self.sockets.rmdir()

    def _living(self, name: str) -> "subprocess.Popen[bytes] | None":
        child = self.children.get(name)
        return child.process if child is not None and child.alive() else None

    def _end(self, *names: str) -> None:
        for name in names:
            self._tell_to_end(name)
            self._see_end(name)

    def _tell_to_end(self, name: str) -> None:
        """Once: a second signal would meet a process that is ending already."""
        if (process := self._living(name)) is not None:
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)

    def _see_end(self, name: str) -> None:
        if (process := self._living(name)) is None:
            return
        try:
            process.wait(END_WITHIN_S[name.partition("-")[0]])
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    @property
    def told_to_end(self) -> bool:
        return self._told

    def tend(self) -> None:
        """One look at the children, for callers with a loop of their own."""
        self._mend()

    # ---- starting

    def _gateways(self) -> list[str]:
        return [f"gateway-{number}" for number in range(1, self.settings.gateways + 1)]

    def _listen_beside(self) -> socket.socket:
        """The gateways' socket: on the port that was asked for, else on the server's next, else on a free one."""
        if self.settings.gateway_port is not None:
            return listen(self.settings.listen, self.settings.gateway_port)
        try:
            return listen(self.settings.listen, min(65_535, self.settings.port + 1))
        except PortTaken:
            return listen(self.settings.listen, 0)

    def _start_postgres(self) -> str:
        embedded = prepare(self.household.postgres, self.sockets, durable=self.settings.durable)

        def start() -> subprocess.Popen[bytes]:
            prepare(self.household.postgres, self.sockets)  # an orphan of a killed server is in the way
            with self._log("postgres") as log:
                return subprocess.Popen(embedded.command(), stdout=log, stderr=log, **as_postgres())  # type: ignore[call-overload,no-any-return]

        child = self._start_child(Child("postgres", start))
        wait_ready(embedded, child.alive, log=self.household.logs / "postgres.log")
        return embedded.dsn

    def _keep(self, name: str, errand: Callable[[], Errand], death: signal.Signals) -> None:
        def start() -> subprocess.Popen[bytes]:
            given = errand()
            fds = () if given.listening_fd is None else (given.listening_fd,)
            with self._log(name) as log:
                return subprocess.Popen(
                    # -P: what lies in the folder this was typed in is no module of ours, be it named calendar.py
                    [sys.executable, "-P", "-m", "baseai.wiring.child"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, VARIABLE: given.to_text()},
                    pass_fds=fds,
                    start_new_session=True,
                    preexec_fn=end_with_parent(death),
                )

        self._start_child(Child(name, start))

    def _errand(self, role: str, dsn: str) -> Callable[[], Errand]:
        def errand() -> Errand:
            return Errand(
                role=role,
                settings=self.settings,
                dsn=dsn,
                metrics=self.sockets / METRICS_SOCKET,
                listening_fd=self._listening_fd(role),
                url=self.settings.url,
                token=None
                if (self.household.node / "node.json").exists()
                else self.household.text("join", "join"),
            )

        return errand

    def _listening_fd(self, role: str) -> int | None:
        listening = self._listening if role == "server" else self._gateway if "gateway" in role else None
        return None if listening is None else listening.fileno()

    def _start_child(self, child: Child) -> Child:
        child.process = child.start()
        child.started_s = time.monotonic()
        child.due_s = 0.0
        self.children[child.name] = child
        return child

    def _mend(self) -> None:
        for child in self.children.values():
            if child.alive():
                continue
            now = time.monotonic()
            if child.due_s == 0.0:
                code = child.process.returncode if child.process else None
                if now - child.started_s > STEADY_AFTER_S:
                    child.pause_s = SHORTEST_PAUSE_S
                child.due_s = now + child.pause_s
                self.say(f"{child.name} ended ({code}); it is started again")
                child.pause_s = min(LONGEST_PAUSE_S, child.pause_s * 2)
            if now >= child.due_s:
                try:
                    self._start_child(child)
                except (Fault, OSError) as wrong:
                    self.say(f"{child.name} could not be started: {wrong}")
                    child.due_s = now + child.pause_s
                    continue
                try:
                    self._write_down()
                except OSError as wrong:  # a full disk is no reason to end what runs
                    self.say(f"the record of the children could not be written: {wrong}")

    # ---- being ready

    def _wait_until_ready(self) -> None:
        began = time.monotonic()
        deadline = began + READY_WITHIN_S
        while not self._told:
            try:
                self.ask("GET", "/api/v1/me")
                return
            except OSError as wrong:
                if isinstance(wrong, urllib.error.HTTPError) and wrong.code == 401:
                    raise KeysDiffer(str(self.household.data / "keys")) from None
                self._mend()
                if time.monotonic() > deadline or self.children["server"].pause_s >= 1.6:
                    path = self.household.logs / "server.log"
                    lines = path.read_text(errors="replace").strip().splitlines() or ["nothing"]
                    raise NotReady(round(time.monotonic() - began, 1), str(path), lines[-1]) from None
                time.sleep(0.03)

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request to the platform as its operator. Raises OSError when it does not answer."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.settings.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.household.text('operator', 'bai')}",
                "Content-Type": "application/json",
            },
        )
        context = None
        if self.settings.tls_cert:
            # Our own certificate and no other; the name in it is the one that others know this machine by.
            context = ssl.create_default_context(cafile=str(self.settings.tls_cert))
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.check_hostname = False
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
            return found

    def _write_down(self) -> None:
        pids = {name: child.process.pid for name, child in self.children.items() if child.process}
        write_private(
            self.household.running,
            json.dumps(
                {
                    "pid": os.getpid(),
                    "url": self.settings.url,
                    "gateway_url": self.settings.gateway_url,
                    "children": pids,
                }
            ).encode(),
        )
        write_private(
            self.household.connect,
            json.dumps(
                {
                    "url": self.settings.url,
                    "key": self.household.text("operator", "bai"),
                    "ca_file": str(self.settings.tls_cert) if self.settings.tls_cert else None,
                }
            ).encode(),
        )

    def _log(self, name: str) -> IO[bytes]:
        path = self.household.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    # ---- signals

    def _watch_signals(self) -> None:
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._tell)

    def _tell(self, *_: object) -> None:
        self._told = True

    def _sleep(self) -> None:
        assert self._wake is not None
        dues = [child.due_s for child in self.children.values() if child.due_s]
        wait_s = max(0.0, min(dues) - time.monotonic()) if dues else 60.0
        select.select([self._wake[0]], [], [], wait_s)
        try:
            os.read(self._wake[0], 4096)
        except BlockingIOError:
            pass


def listen(address: str, port: int) -> socket.socket:
    """A listening socket that children inherit: it keeps its queue while a server is started again."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen(1024)
    except OSError as wrong:
        listening.close()
        raise PortTaken(address, port, wrong.strerror or str(wrong)) from wrong
    listening.set_inheritable(True)
    return listening
