"""Starting either side of a contest, and watching both from outside in the same way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import baseai
from baseai.workloads.training.assignment import assignment_of
from baseai.workloads.training.data import prepared

HERE = Path(__file__).parent
SOURCE = str(Path(baseai.__file__).parents[1])
TICKS = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": SOURCE, "GLOO_SOCKET_IFNAME": "lo"}
# Without a store of its own for each start, bare torchrun's restarted workers dial dead addresses and hang.
PEER_ENVIRONMENT = ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One line that a run wrote about a step."""

    restart: int
    step: int
    step_ms: float


class Running:
    """One run of either side, in a folder of its own."""

    def __init__(
        self, side: str, config: Mapping[str, Any], *, checkpoint_every: Any, mark: int = 20
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"baseai-bench-{side}-"))
        self.side = side
        told = {
            "run_id": "run_bench",
            "attempt_no": 1,
            "recipe": "gpt",
            "config": dict(config),
            "nodes": 1,
            "node_rank": 0,
            "workers": 2,
            "master_addr": "127.0.0.1",
            "master_port": 0,
            "checkpoint_folder": str(self.folder / "checkpoints"),
            "output_folder": str(self.folder / "model"),
            "attempt_folder": str(self.folder / "attempt"),
            "device": "cpu",
            "parallel": "ddp",
            "checkpoint_every": checkpoint_every,
            "max_restarts": 3,
        }
        (self.folder / "attempt").mkdir()
        (self.folder / "train.json").write_text(json.dumps(told))
        data = prepared(assignment_of(told))  # both sides find the data ready
        if side == "ours":
            self.marks_file = self.folder / "attempt" / "progress.jsonl"
            command = ["-m", "baseai.workloads.training.launch", str(self.folder / "train.json")]
        else:
            self.marks_file = self.folder / "marks.jsonl"
            command = [
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node=2",
                "--max-restarts=3",
            ]
            command += [str(HERE / "bare.py"), json.dumps(dict(config)), str(data), str(self.marks_file)]
            command += [f"--mark={mark}"]
            if isinstance(checkpoint_every, dict):
                command += [f"--checkpoint-every={checkpoint_every['steps']}"]
        self.log = (self.folder / "log").open("wb")
        self.began_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=ENVIRONMENT if side == "ours" else PEER_ENVIRONMENT,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def marks(self) -> list[Mark]:
        try:
            lines = [
                json.loads(line) for line in self.marks_file.read_text().splitlines() if line.endswith("}")
            ]
        except FileNotFoundError:
            return []
        return [
            Mark(restart=line["restart"], step=line["step"], step_ms=line["step_ms"])
            for line in lines
            if line.get("kind", "step") == "step"
        ]

    def wait_for(self, *, step: int = 1, restart: int = 0, timeout_s: float = 300) -> Mark:
        """The first mark at or after the step in that life; polled every 5 ms. Raises TimeoutError."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            for mark in self.marks():
                if mark.restart >= restart and mark.step >= step:
                    return mark
            if self.process.poll() not in (None, 0):
                raise SystemExit(f"{self.side} failed: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.005)
        raise TimeoutError(f"{self.side} came to no step {step} in {timeout_s:g} s")

    def tree(self) -> dict[int, tuple[int, float, str]]:
        """pid -> (parent, CPU seconds, command) of the launcher's descendants (torchrun gives workers sessions)."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                    command = Path(f"/proc/{entry}/cmdline").read_text()
                except OSError:
                    continue
                if stat[0] not in "ZX":
                    found[int(entry)] = (int(stat[1]), (int(stat[11]) + int(stat[12])) / TICKS, command)
        ours = {self.process.pid}
        while more := {pid for pid, (parent, _, _) in found.items() if parent in ours} - ours:
            ours |= more
        return {pid: facts for pid, facts in found.items() if pid in ours}

    def workers(self) -> list[int]:
        tree = self.tree()
        if self.side == "ours":
            grand = [
                pid for pid, (parent, _, _) in tree.items() if tree.get(parent, (0,))[0] == self.process.pid
            ]
            return sorted(grand)
        return sorted(
            pid for pid, (parent, _, told) in tree.items() if parent == self.process.pid and "bare" in told
        )

    def cpu_s(self) -> float:
        """CPU of the workers and, on our side, of their writer."""
        tree = self.tree()
        workers = self.workers()
        return sum(cpu for pid, (parent, cpu, _) in tree.items() if pid in workers or parent in workers)

    def end(self) -> None:
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


def quartiles(values: list[float]) -> str:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    return f"{median(ordered):.3f} [{low:.3f}, {high:.3f}]"


def line(name: str, unit: str, ours: list[float], peer: list[float], rounds: int) -> None:
    """One figure. Ratios are paired: run i of ours over the peer's run beside it; A/A is the peer over itself."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    own = [a / b for a, b in zip(peer[::2], peer[1::2], strict=False)]
    print(
        f"{name}: ours {median(ours):.1f} {unit}, bare torchrun {median(peer):.1f} {unit}, "
        f"ratio {quartiles(ratios)}, A/A {quartiles(own) if own else 'n/a'} (range {min(own):.3f}-{max(own):.3f}), "
        f"rounds {rounds}, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
