"""A whole platform of its own for one scenario: the real command, real processes, a data folder that is thrown away."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("BASEAI_")},
    "PYTHONPATH": str(ROOT / "src"),
}

# A model so small that a step takes milliseconds; what is tested is the path, not the learning.
TINY_GPT = """
type: train
name: {name}
recipe: gpt
config: {{steps: {steps}, layers: 1, heads: 2, width: 32, context: 32, vocabulary: 512, batch: 4, text_mb: 0.2}}
resources: {{gpu: "cpu-slot:{slots}"}}
nodes: {nodes}
checkpoint_every: {{steps: {every}}}
max_duration: 30m
"""


class Declined(Exception):
    """The platform answered with a problem."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


class Platform:
    """One running platform, spoken to as its operator."""

    def __init__(self, data: Path, process: subprocess.Popen[bytes]) -> None:
        self.data = data
        self.process = process

    @property
    def connect(self) -> dict[str, Any]:
        return json.loads((self.data / "connect.json").read_text())

    def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, patience_s: float = 20.0
    ) -> Any:
        """One request; an outage is waited out for `patience_s`."""
        deadline = time.monotonic() + patience_s
        connect = self.connect
        while True:
            request = urllib.request.Request(
                connect["url"] + "/api/v1" + path,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={
                    "Authorization": f"Bearer {key or connect['key']}",
                    "Content-Type": "application/json",
                },
            )
            try:
                with urllib.request.urlopen(request, timeout=15) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as wrong:
                if wrong.code != 503:
                    raise Declined(wrong.code, json.loads(wrong.read() or b"{}")) from None
                last: Exception = wrong
            except OSError as wrong:
                last = wrong
            if time.monotonic() > deadline:
                raise last
            time.sleep(0.1)

    def submit(self, spec: str) -> str:
        return self.ask("POST", "/runs", {"spec": spec, "file": "scenario.yaml"})["run_id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.ask("GET", f"/runs/{run_id}")

    def wait(
        self, run_id: str, is_it: Callable[[dict[str, Any]], bool], within_s: float = 90.0
    ) -> dict[str, Any]:
        """The run once `is_it` holds for its view; fails with what it last was."""
        deadline = time.monotonic() + within_s
        while True:
            detail = self.run(run_id)
            if is_it(detail["run"]):
                return detail
            if time.monotonic() > deadline:
                raise AssertionError(f"after {within_s:g} s the run still is {detail['run']}\n{self.logs()}")
            time.sleep(0.1)

    def wait_ended(self, run_id: str, within_s: float = 90.0) -> dict[str, Any]:
        return self.wait(run_id, lambda run: run["state"] in ("succeeded", "failed", "cancelled"), within_s)

    def step_of(self, run_id: str) -> int:
        return int(self.run(run_id)["run"]["progress"].get("step") or 0)

    def pid(self, child: str) -> int:
        return int(json.loads((self.data / "platform.json").read_text())["children"][child])

    def kill(self, child: str) -> None:
        """kill -9 of one of the platform's own processes, by its pid."""
        os.kill(self.pid(child), signal.SIGKILL)

    def kill_a_worker(self, run_id: str) -> int:
        """kill -9 of a process that trains; its pid."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.workers(run_id)
            if found:
                os.kill(found[-1], signal.SIGKILL)
                return found[-1]
            time.sleep(0.1)
        raise AssertionError("no worker was found")

    def workers(self, run_id: str) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline", "ppid"]):
            try:
                words = process.info["cmdline"] or []
                if any("forkserver" in word for word in words):
                    family = [parent.cmdline() for parent in process.parents()]
                    if words in family and any(run_id in word for line in family for word in line):
                        found.append(process.pid)
            except psutil.Error:
                continue
        return sorted(found)

    def shims(self, run_id: str) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any("shim.py" in word for word in words) and any(run_id in word for word in words):
                found.append(process.pid)
        return found

    def kill_node(self, run_id: str) -> None:
        """kill -9 of all that a node loses when it goes down: its agent, and everything of the run, at once."""
        [shim] = self.shims(run_id)
        lost = [psutil.Process(shim), *psutil.Process(shim).children(recursive=True)]
        os.kill(self.pid("agent"), signal.SIGKILL)
        for process in lost:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the embedded database directly, as its owner."""
        import psycopg

        from baseai.settings import runtime_folder

        sockets = runtime_folder(self.data, ENVIRONMENT)
        with psycopg.connect(f"host={sockets} user=postgres dbname=baseai") as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload,no-any-return]

    def check_books(self) -> None:
        """What must hold whatever happened: the books balance, no accelerator was leased or counted twice."""
        assert float(self.ask("GET", "/books/trial-balance")["difference"]) == 0
        assert self.sql(
            "SELECT count(*) FROM lease_accelerators a JOIN lease_accelerators b ON a.accelerator_no = b.accelerator_no"
            " AND a.lease_id < b.lease_id AND a.during && b.during"
        ) == [(0,)]
        assert self.sql(
            "SELECT count(*) FROM usage_lines a JOIN usage_lines b ON a.accelerator_no = b.accelerator_no"
            " AND a.line_id < b.line_id AND tstzrange(a.from_at, a.to_at) && tstzrange(b.from_at, b.to_at)"
        ) == [(0,)]

    def check_metered(self, run_id: str) -> None:
        """Every observed second of the run's leases stands in exactly one usage line."""
        deadline = time.monotonic() + 15
        query = (
            "SELECT (SELECT coalesce(sum(micro_seconds), 0) FROM usage_lines u WHERE u.run_id = l.run_id)::bigint,"
            " sum(extract(epoch FROM least(observed_until, released_at, ends_at) - greatest(observed_from, granted_at))"
            " * 1000000 * (SELECT count(*) FROM lease_accelerators a WHERE a.lease_id = l.lease_id))::bigint"
            f" FROM leases l WHERE run_id = '{run_id}' AND observed_from IS NOT NULL GROUP BY run_id"
        )
        while True:
            [(metered, observed)] = self.sql(query)
            if metered == observed:
                return
            assert time.monotonic() < deadline, f"metered {metered} µs of {observed} µs observed"
            time.sleep(0.3)

    def logs(self) -> str:
        """The ends of the children's logs, for a failure's message."""
        ends = []
        for path in sorted((self.data / "log").glob("*.log")):
            ends.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:]))
        return "\n".join(ends)


@contextmanager
def platform(*words: str) -> Iterator[Platform]:
    """`baseai up` on a fresh folder, ended at the end with everything it started."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-sc-", dir="/tmp"))
    os.chmod(folder, 0o755)  # PostgreSQL's account must be able to pass
    data = folder / "data"
    started = start(data, *words)
    try:
        yield started
    finally:
        end(started)
        shutil.rmtree(folder, ignore_errors=True)


def start(data: Path, *words: str, within_s: float = 60.0) -> Platform:
    data.parent.mkdir(parents=True, exist_ok=True)
    # People type the command in folders that hold anything; a file there is no module of the platform's.
    (data.parent / "h11.py").write_text("raise SystemExit('the folder it was typed in was searched')\n")
    with (data.parent / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "baseai", "up", "--data", str(data), "--port", "0", *words],
            cwd=data.parent, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + within_s
    while b"sign in, once" not in (data.parent / "up.log").read_bytes():
        told = (data.parent / "up.log").read_text()
        assert process.poll() is None, told
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    found = Platform(data, process)
    if "--no-agent" not in words:
        while not any(offer["free"] for offer in found.ask("GET", "/offers")["items"]):
            assert time.monotonic() < deadline, found.logs()
            time.sleep(0.05)
    return found


def end(platform: Platform) -> None:
    if platform.process.poll() is None:
        platform.process.send_signal(signal.SIGTERM)
        try:
            platform.process.wait(60)
        except subprocess.TimeoutExpired:
            platform.process.kill()
            raise
