"""A replica as its agent starts it: a real process with an order of its own, and what it tells."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from baseai.workloads.progress import FILE
from baseai.workloads.service import Service
from baseai.workloads.service_keys import service_of
from baseai.workloads.sheet import Sheet

WAIT_S = 60.0


def service(text: str) -> Service:
    """The service of a spec's own keys."""
    sheet = Sheet(text, "shop.yaml")
    found = service_of(sheet.top, name="shop", on_accelerators=False)
    sheet.raise_errors()
    return found


def order_of(folder: Path, text: str, **other: Any) -> dict[str, Any]:
    """What the agent writes into service.json; the tenant's files lie in `folder/work`."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    usual = {
        "run_id": "run_1", "run_name": "shop-1", "attempt_no": 1, "service_id": "svc_1", "version_no": 3,
        "service": service(text).to_json(), "model_path": None, "address": "127.0.0.1", "device": "cpu",
        "accelerators": 1, "threads": 1, "stop_grace_s": 10.0, "attempt_folder": str(folder / "train"),
        "work_folder": str(folder / "work"), "python_path": None,
    }  # fmt: skip
    return usual | other


class Hosted:
    """The process of one replica."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def told(self, kind: str) -> dict[str, Any] | None:
        """The first line of that kind."""
        path = self.folder / "train" / FILE
        lines = path.read_text().splitlines() if path.exists() else []
        return next((line for line in map(json.loads, lines) if line["kind"] == kind), None)

    def ready(self) -> dict[str, Any]:
        """What it told when it could be asked."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            found = self.told("ready")
            if found is not None:
                return found
            if self.process.poll() is not None:
                raise AssertionError(f"exited with {self.process.returncode}: {self.log()}")
            time.sleep(0.02)
        raise AssertionError("it never became ready")

    @property
    def url(self) -> str:
        ready = self.ready()
        return f"http://{ready['address']}:{ready['port']}"

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=WAIT_S)

    def ask(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        return self.process.wait(WAIT_S)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def last_line(self) -> str:
        return [line for line in self.log().splitlines() if line.strip()][-1]


@contextlib.contextmanager
def hosted(folder: Path, text: str, *, env: dict[str, str] | None = None, **other: Any) -> Iterator[Hosted]:
    """A replica of the service that `text` describes; it is gone afterwards."""
    order = folder / "service.json"
    order.parent.mkdir(parents=True, exist_ok=True)
    order.write_text(json.dumps(order_of(folder, text, **other)))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "baseai.workloads.inference.host", str(order)],
            stdout=log,
            stderr=log,
            text=True,
            env=os.environ | (env or {}),
        )
    try:
        yield Hosted(process, folder)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def write(folder: Path, name: str, text: str) -> None:
    """A file among the tenant's."""
    path = folder / "work" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
