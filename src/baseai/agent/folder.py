"""The node folder is all that an agent knows across restarts: who this node is, and what it started.

Invariant: one agent at a time holds the folder's lock; every record is replaced whole or not at all; no secret
and no environment of a run is ever in a record. The node key lies in `node.json`, readable by its owner only.

    node.json   lock   spool.jsonl   samples/   files/<sha256>
    runs/<run>/<attempt>/  launch.json ends stop.json declined.json settled   by the agent
                           process.json exit.json stream/ shim.lock           by the shim
                           script.sh work/ train/                             of the run
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from baseai.agent.outcome import Asked
from baseai.agent.stream import Splice
from baseai.ground.clock import instant
from baseai.ground.fault import Fault
from baseai.ground.identity import LeaseId
from baseai.workloads.reason import Reason


class NodeFolderBusy(Fault):
    """Another agent holds this node folder."""

    def __init__(self, folder: str, pid: str) -> None:
        super().__init__(folder, pid)
        self.folder = folder
        self.pid = pid

    def __str__(self) -> str:
        who = f"another agent (process {self.pid or 'unknown'})"
        return f"{who} already works in {self.folder}; give this one a folder of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """What joining gave: who this node is and the key that says so."""

    node_id: str
    node_key: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecord:
    """What an agent that adopts the attempt must know of its launch."""

    lease_id: LeaseId
    run_id: str
    attempt_no: int
    kind: Literal["task", "train", "service", "burn_in"]
    devices: tuple[str, ...]
    memory_mib: int | None
    stop_grace_s: float
    notice_s: float
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """The shim and its command; pid and start ticks together name a process for ever."""

    pid: int
    pid_start: int
    shim_pid: int
    shim_start: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    exit_code: int
    ended_at: datetime
    log_bytes: int
    lease_over: bool  # the shim itself killed at the lease's end, because no agent did


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    reason: Reason
    sentence: str
    at: datetime


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file so that a reader, or a crash, sees the old text or the new one."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _read(path: Path) -> Any:
    """The JSON in a file, or None when there is none (yet)."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


class AttemptFolder:
    """One attempt's records. Reading gives None for what has not happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def stream(self) -> Path:
        return self.path / "stream"

    @property
    def train(self) -> Path:
        """What an attempt of a program of ours may write beside its work folder: `progress.jsonl`, `logs/`, …"""
        return self.path / "train"

    @property
    def progress(self) -> Path:
        return self.train / "progress.jsonl"

    def record_launch(self, record: LaunchRecord) -> None:
        facts = {name: getattr(record, name) for name in LaunchRecord.__slots__}
        write_whole(self.path / "launch.json", json.dumps(facts))

    def launch(self) -> LaunchRecord | None:
        facts = _read(self.path / "launch.json")
        return LaunchRecord(**{**facts, "devices": tuple(facts["devices"])}) if facts else None

    def record_end_of_lease(self, ends_s: float) -> None:
        write_whole(self.path / "ends", repr(ends_s))

    def end_of_lease(self) -> float | None:
        found = _read(self.path / "ends")
        return float(found) if found is not None else None

    def record_stop(self, asked: Asked, *, asked_s: float) -> None:
        facts = {"reason": asked.reason.value, "sentence": asked.sentence, "asked_s": asked_s}
        write_whole(self.path / "stop.json", json.dumps(facts))

    def stop(self) -> tuple[Asked, float] | None:
        facts = _read(self.path / "stop.json")
        if not facts:
            return None
        return Asked(reason=Reason(facts["reason"]), sentence=facts["sentence"]), float(facts["asked_s"])

    def record_declined(self, declined: Declined) -> None:
        facts = {
            "reason": declined.reason.value,
            "sentence": declined.sentence,
            "at": declined.at.isoformat(),
        }
        write_whole(self.path / "declined.json", json.dumps(facts))

    def declined(self) -> Declined | None:
        facts = _read(self.path / "declined.json")
        if not facts:
            return None
        return Declined(reason=Reason(facts["reason"]), sentence=facts["sentence"], at=instant(facts["at"]))

    def record_splices(self, splices: list[Splice]) -> None:
        write_whole(
            self.path / "splices.json",
            json.dumps([{"at": s.at, "notice": s.notice, "log_from": s.log_from} for s in splices]),
        )

    def splices(self) -> list[Splice]:
        return [Splice(**facts) for facts in _read(self.path / "splices.json") or []]

    def born(self) -> Born | None:
        facts = _read(self.path / "process.json")
        return Born(**{**facts, "started_at": instant(facts["started_at"])}) if facts else None

    def end(self) -> End | None:
        facts = _read(self.path / "exit.json")
        return End(**{**facts, "ended_at": instant(facts["ended_at"])}) if facts else None

    def record_settled(self) -> None:
        (self.path / "settled").touch()

    def settled(self) -> bool:
        return (self.path / "settled").exists()

    def locked_for_shim(self) -> int | None:
        """An open file holding the shim's lock, or None while a shim of this attempt lives."""
        fd = os.open(self.path / "shim.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def shim_lives(self) -> bool:
        fd = self.locked_for_shim()
        if fd is None:
            return True
        os.close(fd)
        return False

    def segments(self) -> list[tuple[int, Path]]:
        """The log's pieces with the offsets at which they begin, oldest first."""
        try:
            return sorted((int(path.stem), path) for path in self.stream.glob("*.log"))
        except FileNotFoundError:
            return []

    def log_size(self) -> int:
        """Bytes the log has had so far, those already dropped included."""
        with contextlib.suppress(FileNotFoundError):
            segments = self.segments()
            return segments[-1][0] + segments[-1][1].stat().st_size if segments else 0
        return 0

    def log_bytes(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of the log from `offset`, out of one segment; empty at its end or before its begin."""
        for begins, path in reversed(self.segments()):
            if offset >= begins:
                with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                    file.seek(offset - begins)
                    return file.read(size)
                return b""
        return b""

    def last_line(self) -> str | None:
        """The last line of output that says something."""
        size = self.log_size()
        for tail_bytes in (4096, 65536):
            tail = self.log_bytes(max(0, size - tail_bytes), tail_bytes)
            if not tail and size:  # the tail spans two segments
                tail = self.log_bytes(self.segments()[-1][0], tail_bytes)
            lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


class NodeFolder:
    """The folder of one node, held by one agent from `hold` to the end of its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def spool(self) -> Path:
        return self.path / "spool.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def repairs(self) -> Path:
        """What was ordered to be mended here, and what came of it."""
        return self.path / "repairs.json"

    def hold(self) -> None:
        """Take the lock, which the kernel lets go when this process ends in whatever way."""
        self.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 20).decode(errors="replace").strip()
            os.close(fd)
            raise NodeFolderBusy(str(self.path), holder) from None
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd
        self.files.mkdir(exist_ok=True)
        (self.path / "runs").mkdir(exist_ok=True)

    def let_go(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def identity(self) -> NodeIdentity | None:
        facts = _read(self.path / "node.json")
        return NodeIdentity(**facts) if facts else None

    def record_identity(self, identity: NodeIdentity) -> None:
        facts = {"node_id": identity.node_id, "node_key": identity.node_key, "url": identity.url}
        write_whole(self.path / "node.json", json.dumps(facts), mode=0o600)

    def attempt(self, run_id: str, attempt_no: int) -> AttemptFolder:
        return AttemptFolder(self.path / "runs" / safe_name(run_id) / str(attempt_no))

    def attempts(self) -> Iterator[AttemptFolder]:
        for run in sorted((self.path / "runs").iterdir()):
            for path in sorted(run.iterdir()):
                yield AttemptFolder(path)


def safe_name(name: str) -> str:
    """A name as a path component. Raises ValueError for what could leave the folder."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name for a folder")
    return name
