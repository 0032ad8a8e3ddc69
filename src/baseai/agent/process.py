"""The process launcher starts, watches and ends attempts as plain processes, each below a shim of its own.

Invariant: a signal goes to a process only when its pid still has the start time that was recorded, so a reused
pid is never hit; an attempt counts as gone only when a sweep found none of its processes.
Outside thing touched: the operating system's processes.
"""

import contextlib
import json
import os
import py_compile
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from baseai.agent.environment import (
    burn_in_order,
    cores_of,
    environment_of,
    masked_of,
    service_order,
    train_order,
)
from baseai.agent.files import FileUnfit, is_disk_full, place_below
from baseai.agent.folder import AttemptFolder, Born, write_whole
from baseai.agent.shim import start_ticks
from baseai.api.schemas import Launch
from baseai.ground.identity import LeaseId
from baseai.workloads.reason import Reason

SHIM = Path(__file__).with_name("shim.py")
TRAIN_MODULE = "baseai.workloads.training.launch"
BURN_IN_MODULE = "baseai.workloads.burn_in.launch"
SERVICE_MODULE = "baseai.workloads.inference.host"
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENTS = 4
START_WAIT_S = 30.0
SWEEP_WAIT_S = 10.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LINUX = sys.platform == "linux"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """Nothing runs, and why."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeUse:
    """What an attempt's processes use together."""

    memory_mib: int  # own pages of each, and once the largest shared part
    cpu_s: float
    largest: str | None  # the process with most memory, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUser:
    """The user runs are started as, where the agent may choose."""

    name: str
    uid: int
    gid: int
    home: str


def compiled_shim(folder: Path) -> Path:
    """The shim as byte code in `folder`, which saves half of its start; its source where that cannot be written."""
    try:
        return Path(py_compile.compile(str(SHIM), cfile=str(folder / "shim.pyc"), doraise=True) or SHIM)
    except (OSError, py_compile.PyCompileError):
        return SHIM


class Launcher(Protocol):
    """Starts, adopts and ends attempts on this node. Calls may block for moments: not for the event loop."""

    def start(self, launch: Launch, folder: AttemptFolder) -> Born | NotStarted:
        """Start the command in the prepared folder. Called once for an attempt of which no process exists."""

    def adopt(self, folder: AttemptFolder, wait_s: float) -> Born | None:
        """The living attempt that a former agent left in this folder, or None when none lives."""

    def lives(self, born: Born, folder: AttemptFolder) -> bool: ...

    def ask(self, born: Born) -> None:
        """SIGTERM to the command."""

    def kill(self, born: Born) -> None:
        """SIGKILL to everything of the attempt."""

    def sweep(self, lease_id: LeaseId, born: Born | None) -> int:
        """Kill what is left when the shim itself is gone; how many processes that were. Returns when none is left."""

    def use(self, borns: Mapping[LeaseId, Born]) -> Mapping[LeaseId, TreeUse]:
        """What each attempt's processes use now."""

    def reap(self, born: Born) -> None:
        """Let the kernel forget the ended shim, if it was this agent's child."""


class ShimLauncher:
    """The launcher for plain processes."""

    def __init__(
        self,
        *,
        run_user: RunUser | None,
        environment: Mapping[str, str],
        cores: Sequence[int],
        segment_bytes: int = SEGMENT_BYTES,
        segments: int = SEGMENTS,
        shim: Path = SHIM,
    ) -> None:
        self._shim = shim
        self._run_user = run_user
        self._environment = environment
        self._cores = cores
        self._segment_bytes = segment_bytes
        self._segments = segments
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, launch: Launch, folder: AttemptFolder) -> Born | NotStarted:
        try:
            argv, cwd = self._lay_command(launch, folder)
            lock_fd = folder.locked_for_shim()
        except FileUnfit as unfit:
            return NotStarted(reason=Reason.START_FAILED, sentence=str(unfit))
        except OSError as error:
            return _refused_by_disk(error, folder)
        if lock_fd is None:
            return NotStarted(
                reason=Reason.START_FAILED, sentence="a process of this attempt still runs here"
            )
        cores = cores_of(launch, self._cores)
        order = {
            "argv": argv,
            "env": environment_of(
                launch,
                self._environment,
                interpreter=Path(sys.executable),
                cores=self._cores_bound(launch),
                attempt_folder=folder.path,
                home=self._run_user.home if self._run_user else None,
            ),
            "folder": str(cwd),
            "cores": cores,
            "mask": masked_of(launch),
            "stop_grace_s": launch.stop_grace_s,
            "segment_bytes": self._segment_bytes,
            "segments": self._segments,
        }
        if self._run_user:
            order["user"] = [self._run_user.uid, self._run_user.gid]
            order["user_name"] = self._run_user.name
        try:
            return self._start_shim(order, folder, lock_fd)
        except OSError as error:
            return _refused_by_disk(error, folder)
        finally:
            os.close(lock_fd)

    def _lay_command(self, launch: Launch, folder: AttemptFolder) -> tuple[list[str], Path]:
        """Write what the command reads, and answer the command and the folder it starts in."""
        cwd = folder.work
        cwd.mkdir(parents=True, exist_ok=True)
        if launch.working_dir and launch.working_dir not in (".", "./"):
            cwd = place_below(folder.work, launch.working_dir)
            cwd.mkdir(parents=True, exist_ok=True)
        for shared in (launch.checkpoint_folder, launch.output_folder):
            self._make_shared(Path(shared))
        if launch.kind == "train":
            train = folder.train
            (train / "logs").mkdir(parents=True, exist_ok=True)
            write_whole(train / "train.json", json.dumps(train_order(launch, train), indent=1))
            argv = [sys.executable, "-m", TRAIN_MODULE, str(train / "train.json")]
        elif launch.kind == "burn_in":
            folder.train.mkdir(parents=True, exist_ok=True)
            order = burn_in_order(launch, cores_of(launch, self._cores), folder.train)
            write_whole(folder.train / "burn_in.json", json.dumps(order, indent=1))
            argv = [sys.executable, "-m", BURN_IN_MODULE, str(folder.train / "burn_in.json")]
        elif launch.kind == "service":
            folder.train.mkdir(parents=True, exist_ok=True)
            order = service_order(launch, self._cores_bound(launch), folder.train, cwd)
            write_whole(folder.train / "service.json", json.dumps(order, indent=1), mode=0o600)
            argv = [sys.executable, "-m", SERVICE_MODULE, str(folder.train / "service.json")]
        else:
            write_whole(folder.path / "script.sh", "\n".join(launch.commands) + "\n")
            argv = ["/bin/sh", "-e", str(folder.path / "script.sh")]
        if self._run_user:
            for path in (folder.work, folder.train):
                if path.exists():
                    self._give_away(path)
        return argv, cwd

    def _cores_bound(self, launch: Launch) -> int:
        return len(cores_of(launch, self._cores)) or len(self._cores) or 1

    def _make_shared(self, shared: Path) -> None:
        if not shared.exists():
            shared.mkdir(parents=True, exist_ok=True)
            if self._run_user:
                os.chown(shared, self._run_user.uid, self._run_user.gid)

    def _give_away(self, top: Path) -> None:
        assert self._run_user is not None
        uid, gid = self._run_user.uid, self._run_user.gid
        os.chown(top, uid, gid)
        for parent, folders, files in os.walk(top):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)

    def _start_shim(
        self, order: Mapping[str, object], folder: AttemptFolder, lock_fd: int
    ) -> Born | NotStarted:
        with (folder.path / "shim.err").open("ab") as errors:
            shim = subprocess.Popen(
                [sys.executable, "-I", "-S", str(self._shim), str(folder.path), str(lock_fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(lock_fd,),
                start_new_session=True,
                cwd=folder.path,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            )
        assert shim.stdin is not None
        assert shim.stdout is not None
        with shim.stdin as speak, shim.stdout as hear:
            with contextlib.suppress(BrokenPipeError):
                speak.write(json.dumps(order).encode())
                speak.close()
            ready, _, _ = select.select([hear], [], [], START_WAIT_S)
            line = hear.readline() if ready else b""
        if not line:
            shim.kill()
            shim.wait()
            return NotStarted(reason=Reason.START_FAILED, sentence="the run's shim gave no answer")
        answer = json.loads(line)
        if "error" in answer:
            shim.wait()
            reason = Reason.DISK_FULL if answer["disk_full"] else Reason.START_FAILED
            return NotStarted(reason=reason, sentence=f"could not start: {answer['error']}")
        self._children[shim.pid] = shim
        born = folder.born()
        assert born is not None, "the shim answers after it wrote process.json"
        return born

    def adopt(self, folder: AttemptFolder, wait_s: float) -> Born | None:
        deadline_s = time.monotonic() + wait_s
        while folder.shim_lives():
            born = folder.born()
            if born is not None:
                return born
            if time.monotonic() > deadline_s:
                return None
            time.sleep(0.02)  # a shim between its start and its first record: a few of these at most
        return None

    def lives(self, born: Born, folder: AttemptFolder) -> bool:
        if LINUX:
            return (
                born.shim_start != 0
                and start_ticks(born.shim_pid) == born.shim_start
                and not _is_zombie(born.shim_pid)
            )
        return folder.shim_lives()

    def ask(self, born: Born) -> None:
        _signal(born.shim_pid, born.shim_start, signal.SIGTERM)

    def kill(self, born: Born) -> None:
        _signal(born.shim_pid, born.shim_start, signal.SIGUSR1)

    def sweep(self, lease_id: LeaseId, born: Born | None) -> int:
        killed: set[int] = set()
        deadline_s = time.monotonic() + SWEEP_WAIT_S
        while left := _left_of(lease_id, born):
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            killed |= left
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.02)
        return len(killed)

    def use(self, borns: Mapping[LeaseId, Born]) -> Mapping[LeaseId, TreeUse]:
        if not borns:
            return {}
        if not LINUX:
            return {lease_id: _use_by_psutil(born.shim_pid) for lease_id, born in borns.items()}
        children: dict[int, list[int]] = {}
        for pid, stat in _process_table():
            children.setdefault(int(stat[1]), []).append(pid)
        return {lease_id: _use_below(born.shim_pid, children) for lease_id, born in borns.items()}

    def reap(self, born: Born) -> None:
        child = self._children.pop(born.shim_pid, None)
        if child is not None:
            child.wait()


def _refused_by_disk(error: OSError, folder: AttemptFolder) -> NotStarted:
    if is_disk_full(error):
        return NotStarted(reason=Reason.DISK_FULL, sentence=f"the disk under {folder.path} is full")
    return NotStarted(reason=Reason.START_FAILED, sentence=f"could not start: {error}")


def _signal(pid: int, start: int, number: signal.Signals) -> None:
    """To exactly the process that started then: the descriptor pins it between the check and the signal."""
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return
        fd = os.pidfd_open(pid)
        try:
            if start_ticks(pid) == start:
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def _is_zombie(pid: int) -> bool:
    stat = _stat(pid)
    return stat is None or stat[0] in ("Z", "X")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name: state, parent, group, session, … (man 5 proc_pid_stat)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _process_table() -> list[tuple[int, list[str]]]:
    table = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None and len(stat) > 20:
            table.append((int(name), stat))
    return table


def _left_of(lease_id: LeaseId, born: Born | None) -> set[int]:
    """Living processes of an attempt whose shim is gone: its session's, and those that carry its mark."""
    if not LINUX:
        return set()
    mark = b"BASEAI_LEASE_ID=" + lease_id.encode() + b"\0"
    left = set()
    for pid, stat in _process_table():
        if stat[0] in ("Z", "X"):
            continue
        # A session id can be reused only by a process born later than the last one of the session.
        if (
            born is not None
            and born.pid > 1
            and stat[3] == str(born.pid)
            and (pid != born.pid or int(stat[19]) == born.pid_start)
        ):
            left.add(pid)
            continue
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
            if mark in b"\0" + environ.read() + b"\0":
                left.add(pid)
    return left


def _use_below(top: int, children: Mapping[int, Sequence[int]]) -> TreeUse:
    own_pages, shared_pages, ticks = 0, 0, 0
    largest_pages, largest_pid = 0, 0
    below = list(children.get(top, ()))
    while below:
        pid = below.pop()
        below.extend(children.get(pid, ()))
        stat = _stat(pid)
        try:
            with open(f"/proc/{pid}/statm", "rb") as statm:
                _, resident, shared, *_ = (int(field) for field in statm.read().split())
        except (OSError, ValueError):
            continue
        own_pages += resident - shared
        shared_pages = max(shared_pages, shared)
        if stat is not None:
            ticks += sum(int(field) for field in stat[11:15])  # user, system, and those of reaped children
        if resident > largest_pages:
            largest_pages, largest_pid = resident, pid
    largest = f"{_name(largest_pid)} (process {largest_pid})" if largest_pid else None
    memory_mib = (own_pages + shared_pages) * PAGE_BYTES // (1024 * 1024)
    return TreeUse(memory_mib=memory_mib, cpu_s=ticks / TICKS_PER_S, largest=largest)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as comm:
            return comm.read().strip()
    except OSError:
        return "a process"


def _use_by_psutil(top: int) -> TreeUse:
    """The same where there is no /proc, by resident size alone."""
    import psutil

    memory, cpu_s = 0, 0.0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(top).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                memory += process.memory_info().rss
                times = process.cpu_times()
                cpu_s += times.user + times.system
    return TreeUse(memory_mib=memory // (1024 * 1024), cpu_s=cpu_s, largest=None)
