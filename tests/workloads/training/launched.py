"""A launched training process as a test sees it, and the tiny model it trains."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY = {
    "steps": 120,
    "batch": 4,
    "layers": 1,
    "heads": 2,
    "width": 32,
    "context": 32,
    "vocabulary": 300,
    "warmup": 10,
    "held_out_tokens": 512,
}


@dataclass
class Launched:
    """One launcher process and its folders."""

    process: subprocess.Popen[bytes]
    told: dict[str, Any]
    stderr: Path

    def lines(self, kind: str | None = None) -> list[dict[str, Any]]:
        path = Path(self.told["attempt_folder"]) / "progress.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [line for line in lines if kind in (None, line["kind"])]

    def wait_for(self, kind: str, timeout_s: float = 40) -> dict[str, Any]:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if found := self.lines(kind):
                return found[0]
            assert self.process.poll() is None, self.stderr.read_text()
            time.sleep(0.01)
        raise AssertionError(f"no {kind} in {timeout_s} s: {self.stderr.read_text()}")

    def ended(self, timeout_s: float = 60) -> int:
        return self.process.wait(timeout_s)

    def workers(self) -> list[int]:
        """The workers are the nursery's children; the nursery is the launcher's child that has children."""
        parents = {pid: parent for pid, parent, _ in living()}
        return sorted(pid for pid, parent in parents.items() if parents.get(parent) == self.process.pid)


def living() -> list[tuple[int, int, int]]:
    """(pid, parent, session) of every process that is not a zombie."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, parent, _, session = (
                    Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[:4]
                )
            except OSError:
                continue
            if state not in "ZX":
                found.append((int(entry), int(parent), int(session)))
    return found
