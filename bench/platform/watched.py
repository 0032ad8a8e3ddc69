"""A training run on a platform, watched from outside in the way in which `bench/training/contest.py` watches its sides.

Invariant: both sides are timed by the same clock, from the same kind of command to the same kind of mark in a file,
looked for every 5 ms; neither is asked over HTTP while it is timed.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baseai.workloads.training.board import Board
from bench.training.contest import Mark
from tests.scenarios.platform import ENVIRONMENT, Platform

LOOK_EVERY_S = 0.005
TICKS = os.sysconf("SC_CLK_TCK")

# Less than a second of model: what is left is the path to the first step.
TINY = {"layers": 1, "heads": 2, "width": 32, "context": 32, "vocabulary": 512, "batch": 4, "text_mb": 0.2}
USUAL = {"batch": 8, "text_mb": 1.0, "held_out_tokens": 256}


class Watched:
    """One run, submitted by `baseai apply` as its tenant would."""

    def __init__(
        self, home: Platform, config: dict[str, Any], *, checkpoint_every: Any, workers: int = 2
    ) -> None:
        self.home = home
        self.workers_count = workers
        spec = {
            "type": "train",
            "name": "bench",
            "recipe": "gpt",
            "config": config,
            "resources": {"gpu": f"cpu-slot:{workers}"},
            "checkpoint_every": checkpoint_every,
            "retry": {"on_events": ["error", "interruption"], "max_attempts": 20},
            "max_duration": "1h",
        }
        file = home.data.parent / "bench.yaml"
        file.write_text(json.dumps(spec))  # JSON is YAML
        self.runs_folder = home.data / "node" / "runs"
        before = self._runs()
        self.began_s = time.monotonic()
        self._apply = subprocess.Popen(
            [sys.executable, "-m", "baseai", "apply", "-f", str(file), "--json", "--data", str(home.data)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while not (found := self._runs() - before):
            if self._apply.poll() not in (None, 0):
                raise SystemExit(f"the run was not accepted: {self._apply.communicate()[1].decode()}")
            if time.monotonic() > self.began_s + 60:
                raise SystemExit(f"the run was not started within a minute\n{home.logs()}")
            time.sleep(LOOK_EVERY_S)
        self.placed_s = time.monotonic()
        [self.run_id] = found

    def _runs(self) -> set[str]:
        return set(os.listdir(self.runs_folder)) if self.runs_folder.exists() else set()

    def attempt(self, number: int) -> Path:
        """The attempt's folder on the node; may not be there yet."""
        found = [
            name
            for name in os.listdir(self.runs_folder / self.run_id)
            if name.isdigit() and int(name) == number
        ]
        return self.runs_folder / self.run_id / (found[0] if found else str(number))

    def told(self, attempt: int = 1) -> list[dict[str, Any]]:
        """The lines of progress so far."""
        try:
            text = (self.attempt(attempt) / "train" / "progress.jsonl").read_text()
        except OSError:
            return []
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def marks(self, attempt: int = 1) -> list[Mark]:
        return [
            Mark(restart=line["restart"], step=line["step"], step_ms=line["step_ms"])
            for line in self.told(attempt)
            if line["kind"] == "step"
        ]

    def wait_for(self, *, step: int = 1, attempt: int = 1, within_s: float = 120.0) -> Mark:
        """The first mark at or after the step in that attempt."""
        deadline = time.monotonic() + within_s
        while True:
            for mark in self.marks(attempt):
                if mark.step >= step:
                    return mark
            if time.monotonic() > deadline:
                raise SystemExit(f"no step {step} of attempt {attempt} in {within_s:g} s\n{self.home.logs()}")
            time.sleep(LOOK_EVERY_S)

    def board(self, attempt: int) -> Board:
        """The page on which the workers count their steps; held, it outlives them and their folder."""
        return Board(self.attempt(attempt) / "train", self.workers_count)

    def born(self, attempt: int = 1) -> dict[str, Any]:
        """The pids of the attempt's shim and of its command."""
        return json.loads((self.attempt(attempt) / "process.json").read_text())  # type: ignore[no-any-return]

    def processes(self, attempt: int = 1) -> list[int]:
        """The shim and all that lives below it: launcher, workers, the writer of their checkpoints."""
        return sorted(family({self.born(attempt)["shim_pid"]}, processes()))

    def workers_cpu_s(self) -> float:
        """CPU of the workers and of the writer of their checkpoints, as contest counts it."""
        tree, launcher = processes(), self.born()["pid"]
        workers = {pid for pid, (parent, _) in tree.items() if tree.get(parent, (0, 0.0))[0] == launcher}
        return sum(cpu for pid, (parent, cpu) in tree.items() if pid in workers or parent in workers)

    def end(self) -> None:
        """Wait for the run's end, or ask for it; the accelerators are free afterwards."""
        self._apply.communicate(timeout=30)
        if self.home.run(self.run_id)["run"]["state"] not in ("succeeded", "failed", "cancelled"):
            self.home.ask("POST", f"/runs/{self.run_id}/stop", {})
        self.home.wait_ended(self.run_id, 60)


def platform_cpu_s(home: Platform) -> float:
    """CPU of supervisor, server, controller, agent, PostgreSQL and what they have reaped; not of runs that live."""
    tree = processes(reaped=True)
    ours = family({home.process.pid}, tree)
    shims = family({pid for pid in ours if b"shim.py" in command_line(pid)}, tree)
    return sum(tree[pid][1] for pid in (ours - shims) & tree.keys())


def command_line(pid: int) -> bytes:
    """Empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def family(pids: set[int], tree: Mapping[int, tuple[int, float]]) -> set[int]:
    """The processes and their descendants."""
    found = set(pids)
    while more := {pid for pid, (parent, _) in tree.items() if parent in found} - found:
        found |= more
    return found


def processes(*, reaped: bool = False) -> dict[int, tuple[int, float]]:
    """pid → (parent, CPU seconds), of its ended children too where `reaped`."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if stat[0] not in "ZX":
                found[int(entry)] = (int(stat[1]), sum(map(int, stat[11 : 15 if reaped else 13])) / TICKS)
    return found
