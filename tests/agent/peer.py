"""A server for agents to talk to, and agents as real processes on folders of their own."""

import contextlib
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from baseai.api.schemas import (
    CollectorView,
    Desired,
    FileRef,
    Kept,
    Launch,
    LeasedDevice,
    LogOffset,
    Measured,
    Observation,
    Report,
    Reported,
    Samples,
    Witness,
)

SRC = Path(__file__).parents[2] / "src"


class Peer:
    """The server's half of the agents' contract, in memory. It keeps its truth while it is away."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.tokens = {"join-once"}
        self.keys: dict[str, str] = {}  # node key → node id
        self.revoked = False
        self.version = 1
        self.launches: dict[str, tuple[Launch, float]] = {}  # with its end on the monotonic clock
        self.node_of: dict[str, str] = {}
        self.released: list[str] = []
        self.observations: dict[str, Observation] = {}  # in the order of their first coming
        self.repeated: list[str] = []
        self.seen_at: dict[str, float] = {}
        self.logs: dict[tuple[str, str], bytearray] = {}
        self.files: dict[str, bytes] = {}
        self.reports: list[Report] = []
        self.facts: list[dict[str, Any]] = []
        self.samples: dict[str, Samples] = {}  # batches in the order of their first coming
        self.witnesses: dict[str, Witness] = {}
        self.measured: list[Measured] = []
        self.takes_samples = True
        self.lose_next_answer = False
        self.port = 0
        self._http: ThreadingHTTPServer | None = None
        self._sockets: list[Any] = []

    # what a test says ------------------------------------------------------------------------------------------

    def open(self) -> None:
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                peer._answer(self, b"")

            def do_POST(self) -> None:
                peer._answer(self, self.rfile.read(int(self.headers.get("content-length", 0))))

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None: ...

        self._http = Http(("127.0.0.1", self.port), Handler)
        self._sockets = []
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Go away at once, with the connections that are open."""
        assert self._http is not None
        http, self._http = self._http, None
        http.shutdown()
        http.server_close()
        with self.changed:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(2)
            self.changed.notify_all()

    def is_open(self) -> bool:
        return self._http is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def want(self, launch: Launch, *, node_id: str = "node_1") -> None:
        with self.changed:
            self.launches[launch.lease_id] = (launch, time.monotonic() + launch.ends_in_s)
            self.node_of[launch.lease_id] = node_id
            self.version += 1
            self.changed.notify_all()

    def stop(self, lease_id: str, *, reason: str = "stopped_by_user", grace_s: float = 20.0) -> None:
        launch, ends_s = self.launches[lease_id]
        update = {
            "stop": True,
            "stop_reason": reason,
            "stop_grace_s": grace_s,
            "ends_in_s": ends_s - time.monotonic(),
        }
        self.want(launch.model_copy(update=update), node_id=self.node_of[lease_id])

    def release(self, lease_id: str) -> None:
        with self.changed:
            self.launches.pop(lease_id, None)
            self.released.append(lease_id)
            self.version += 1
            self.changed.notify_all()

    def store(self, content: bytes, path: str, *, mode: int = 0o644) -> FileRef:
        digest = hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        return FileRef(path=path, digest=digest, bytes=len(content), mode=mode)

    # what a test waits for -------------------------------------------------------------------------------------

    def until(self, holds: Callable[[], Any], what: str, *, wait_s: float = 40.0) -> Any:
        deadline_s = time.monotonic() + wait_s
        with self.changed:
            while not (found := holds()):
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"waited {wait_s:g} s for {what}; seen: {list(self.observations.values())}"
                self.changed.wait(min(left_s, 0.1))
            return found

    def of(self, lease_id: str, kind: str) -> list[Observation]:
        return [
            each
            for each in list(self.observations.values())
            if each.lease_id == lease_id and each.kind == kind
        ]

    def started(self, lease_id: str) -> Observation:
        return self.until(lambda: self.of(lease_id, "started"), f"{lease_id} to start")[0]

    def exited(self, lease_id: str, *, wait_s: float = 40.0) -> Observation:
        return self.until(lambda: self.of(lease_id, "exited"), f"{lease_id} to end", wait_s=wait_s)[0]

    def declined(self, lease_id: str) -> Observation:
        return self.until(lambda: self.of(lease_id, "not_started"), f"{lease_id} to be declined")[0]

    def collector(self, name: str) -> CollectorView | None:
        """How a collector fares, as far as was told."""
        told = [each for measured in self.measured[-1:] for each in measured.collectors if each.name == name]
        return told[0] if told else None

    def values(self, family: str, field: str) -> dict[str, list[tuple[int, float]]]:
        """Key → (instant, value), oldest first, of all that came."""
        found: dict[str, list[tuple[int, float]]] = {}
        for batch in list(self.samples.values()):
            for key, at, value in zip(batch.keys, batch.ts_ms, batch.values.get(field, ()), strict=False):
                if batch.family == family and value is not None:
                    found.setdefault(key, []).append((at, value))
        return {key: sorted(points) for key, points in found.items()}

    def log_of(self, lease_id: str) -> str:
        return bytes(self.logs.get((lease_id, "output"), b"")).decode()

    # what an agent gets ----------------------------------------------------------------------------------------

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        with self.changed:
            self._sockets.append(request.connection)
            status, answer = self._route(request, parts.path.removeprefix("/api/v1/agent/"), query, body)
            if self._http is None:
                request.close_connection = True
                return
            if self.lose_next_answer and parts.path.endswith("/report") and json.loads(body)["observations"]:
                self.lose_next_answer = False
                request.close_connection = True
                request.connection.shutdown(2)
                return
            self.changed.notify_all()
        request.send_response(status)
        request.send_header("content-length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _route(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        if path == "join":
            asked = json.loads(body)
            if asked["token"] not in self.tokens:
                return 409, b'{"title": "conflict", "status": 409, "detail": "this join token was used"}'
            self.tokens.remove(asked["token"])
            node_id = f"node_{len(self.keys) + 1}"
            self.keys[f"key-of-{node_id}"] = node_id
            return 200, json.dumps({"node_id": node_id, "node_key": f"key-of-{node_id}"}).encode()
        key = (request.headers.get("authorization") or "").removeprefix("Bearer ")
        node_id = self.keys.get(key, "")
        if not node_id or self.revoked:
            return 401, b'{"title": "unauthorized", "status": 401, "detail": ""}'
        match path.split("/"):
            case ["facts"]:
                self.facts.append(json.loads(body))
                return 200, b"{}"
            case ["desired"]:
                deadline_s = time.monotonic() + float(query["wait_s"])
                while int(query["version"]) == self.version and self._http is not None:
                    left_s = deadline_s - time.monotonic()
                    if left_s <= 0:
                        break
                    self.changed.wait(left_s)
                return 200, self._desired(node_id).model_dump_json().encode()
            case ["report"]:
                report = Report.model_validate_json(body)
                self.reports.append(report)
                for each in report.observations:
                    if each.event_id in self.observations:
                        self.repeated.append(each.event_id)
                    else:
                        self.observations[each.event_id] = each
                        self.seen_at[each.event_id] = time.time()
                accepted = [each.event_id for each in report.observations]
                return 200, Reported(
                    accepted=accepted, desired_version=self.version
                ).model_dump_json().encode()
            case ["telemetry"] if self.takes_samples:
                if request.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                measured = Measured.model_validate_json(body)
                self.measured.append(measured)
                ids = [each.batch_id for each in measured.batches] + [
                    each.event_id for each in measured.witnesses
                ]
                self.repeated += [each for each in ids if each in self.samples or each in self.witnesses]
                self.samples = {each.batch_id: each for each in measured.batches} | self.samples
                self.witnesses = {each.event_id: each for each in measured.witnesses} | self.witnesses
                return 200, Kept(accepted=ids).model_dump_json().encode()
            case ["logs", lease_id, stream]:
                log = self.logs.setdefault((lease_id, stream), bytearray())
                if int(query["offset"]) == len(log):
                    log += body
                return 200, LogOffset(next_offset=len(log)).model_dump_json().encode()
            case ["files", digest] if digest in self.files:
                return 200, self.files[digest]
        return 404, b'{"title": "not found", "status": 404, "detail": "no such thing"}'

    def _desired(self, node_id: str) -> Desired:
        now_s = time.monotonic()
        mine = [
            launch.model_copy(update={"ends_in_s": ends_s - now_s})
            for lease_id, (launch, ends_s) in self.launches.items()
            if self.node_of[lease_id] == node_id
        ]
        return Desired(
            version=self.version, node_id=node_id, node_state="ready", launches=mine, released=self.released
        )


class AgentProcess:
    """One agent as a process of its own, which can be killed like one."""

    def __init__(self, folder: Path, url: str, **settings: object) -> None:
        self.folder = folder
        said = {
            "folder": str(folder),
            "url": url,
            "token": "join-once",
            "name": "n1",
            "cpu_slots": 4,
            **settings,
        }
        code = (
            "import sys, json; from pathlib import Path; from baseai.agent import main, process; "
            "said = json.loads(sys.argv[1]); said['folder'] = Path(said['folder']); "
            "process.TRAIN_MODULE = said.pop('train_module', process.TRAIN_MODULE); "
            "from baseai.wiring.eyes import watch_and_tend; said['scrape'] = tuple(said.get('scrape', ())); "
            "sys.exit(watch_and_tend(main.AgentSettings(**said)))"
        )
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(said)],
                env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{SRC.parent}", "OWN_KEY": "not for runs"},
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def task(lease: str = "lease_1", *commands: str, **said: Any) -> Launch:
    """A task of one node on one CPU slot, unless said otherwise."""
    ends_in_s = said.get("ends_in_s", 3600.0)
    return Launch.model_validate(
        {
            "lease_id": lease,
            "run_id": f"run_of_{lease}",
            "run_name": "a-run",
            "tenant_id": "tenant_1",
            "attempt_no": 1,
            "kind": "task",
            "commands": commands,
            "devices": [LeasedDevice(accelerator_id=f"acc_{lease}", model="cpu-slot", index=0)],
            "node_rank": 0,
            "nodes": 1,
            "addresses": ["127.0.0.1"],
            "rendezvous_port": 29400,
            "checkpoint_folder": said.pop("shared", "") + "/checkpoints",
            "output_folder": said.get("output_folder", "") or "/tmp",
            "ends_at": datetime.now(UTC) + timedelta(seconds=ends_in_s),
            "ends_in_s": ends_in_s,
            **said,
        }
    )
