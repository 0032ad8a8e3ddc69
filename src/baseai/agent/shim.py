"""A shim is the small parent of one attempt's command: it outlives the agent, keeps the log and writes the end down.

Invariant: once `exit.json` lies in the attempt's folder, no process of the attempt exists any more; and while
the shim lives it holds the lock on `shim.lock`. Secrets and the environment come over stdin and stay in memory.
It is a script of the standard library alone, started as `python -I -S shim.py FOLDER LOCK_FD`, and must stay so:
it starts in milliseconds and keeps working while the package around it is upgraded.

Signals: SIGTERM asks the command to stop; SIGUSR1 kills everything it started. At the instant in the file `ends`
(seconds of the monotonic clock) it kills unasked, so that a lease ends even when the agent never comes back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # the module typing would cost a third of the start
if TYPE_CHECKING:
    from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINGER_S = 2.0  # what the command leaves behind gets this long between SIGTERM and SIGKILL
AGENT_FIRST_S = 1.0  # at the lease's end the agent acts first: it knows more to say
TICK_S = 0.05
READ_BYTES = 65536
RESERVED_BYTES = 4096  # exit.json is written into space taken beforehand, so that a full disk cannot lose it
LINUX = sys.platform == "linux"


def utc(at_s: float) -> str:
    whole = int(at_s)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((at_s - whole) * 1e6):06d}+00:00"


def start_ticks(pid: int) -> int:
    """When a process started, in the kernel's ticks since boot; with the pid it names one process for ever."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0


def write_whole(path: str, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new one."""
    with open(path + ".new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


class Log:
    """The command's output in segments named by the offset at which they start; the oldest go first.

    A full disk loses output, never the run: what could not be written is counted and said once it can be.
    """

    def __init__(self, folder: str, *, segment_bytes: int, segments: int) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.segments = segments
        self.end = 0
        self.room = 0
        self.fd = -1
        self.names: list[str] = []
        self.lost_bytes = 0
        os.makedirs(folder, exist_ok=True)

    def write(self, chunk: bytes) -> None:
        try:
            if self.lost_bytes:
                self._append(
                    b"\n[baseai] %d bytes of output were lost: the disk was full\n" % self.lost_bytes
                )
                self.lost_bytes = 0
            while chunk:
                chunk = chunk[self._append(chunk) :]
        except OSError:
            self.lost_bytes += len(chunk)

    def _append(self, chunk: bytes) -> int:
        if self.room <= 0:
            self._rotate()
        written = os.write(self.fd, chunk[: self.room])
        self.end += written
        self.room -= written
        return written

    def _rotate(self) -> None:
        name = os.path.join(self.folder, f"{self.end:020d}.log")
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = fd
        self.room = self.segment_bytes
        self.names.append(name)
        while len(self.names) > self.segments:
            with contextlib.suppress(OSError):
                os.unlink(self.names.pop(0))


class Mask:
    """Hides the run's secrets in its own output, also where a read cuts one in two."""

    def __init__(self, secrets: list[str]) -> None:
        self.secrets = sorted({s.encode() for s in secrets if len(s) >= 4}, key=len, reverse=True)
        self.held = b""

    def through(self, chunk: bytes) -> bytes:
        if not self.secrets:
            return chunk
        text = self.held + chunk
        for secret in self.secrets:
            text = text.replace(secret, b"***")
        keep = 0
        for secret in self.secrets:
            for length in range(min(len(secret) - 1, len(text)), keep, -1):
                if text.endswith(secret[:length]):
                    keep = length
                    break
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> bytes:
        rest, self.held = self.held, b""
        return rest


def become_command(order: dict[str, Any], output: int, parent: int) -> None:
    """In the child: take off everything of the shim and turn into the command. Returns only by raising."""
    os.setsid()
    for number in (
        signal.SIGPIPE,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGHUP,
        signal.SIGCHLD,
    ):
        signal.signal(number, signal.SIG_DFL)
    if order.get("cores") and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, order["cores"])
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would write secrets to disk
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")  # when the machine runs out, the kernel takes the run and not the agent
    if order.get("user") is not None:
        uid, gid = order["user"]
        os.initgroups(order["user_name"], gid)
        os.setgid(gid)
        os.setuid(uid)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(126)
    os.umask(0o022)
    os.chdir(order["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - the argv is the order


def start_command(order: dict[str, Any], output: int) -> tuple[int, str | None]:
    """The command's pid, or why it could not be started: a pipe that closes on exec carries the child's errors."""
    heard, told = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            become_command(order, output, parent)
        except BaseException as error:  # noqa: BLE001 - a forked child must never go on as its parent
            os.write(told, str(error).encode()[:2000])
        os._exit(127)
    os.close(told)
    trouble = b""
    while chunk := os.read(heard, 2000):
        trouble += chunk
    os.close(heard)
    return pid, trouble.decode(errors="replace") or None


def descendants() -> list[int]:
    """All living processes below this one, by one look at the process table."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat", "rb") as stat,
            ):
                children.setdefault(int(stat.read().rpartition(b")")[2].split()[1]), []).append(int(name))
    found: list[int] = []
    below = children.get(os.getpid(), [])
    while below:
        found += below
        below = [grandchild for child in below for grandchild in children.get(child, [])]
    return found


class Shim:
    """One attempt's command from its start to its recorded end."""

    def __init__(self, folder: str, order: dict[str, Any]) -> None:
        self.folder = folder
        self.order = order
        self.pid = 0
        self.exit_code: int | None = None
        self.ended_at_s = 0.0
        self.stop_asked = False
        self.kill_asked = False
        self.lease_over = False
        self.ends_s = self.read_end()
        self.linger_until_s: float | None = None

    def read_end(self) -> float:
        try:
            with open(os.path.join(self.folder, "ends")) as file:
                return float(file.read()) + AGENT_FIRST_S
        except (OSError, ValueError):
            return float("inf")

    def signal_all(self, number: int) -> None:
        """To the command's group and, where the process table can be read, to everything below this shim."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)
        if LINUX:
            for pid in descendants():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)

    def reap(self) -> bool:
        """Collect what ended. True while any child is left; orphans of the command become children here."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.pid:
                    self.exit_code = os.waitstatus_to_exitcode(status)
                    self.ended_at_s = time.time()
        except ChildProcessError:
            return False

    def step(self) -> bool:
        """One look at clock, signals and children. False when nothing of the attempt is left."""
        now_s = time.monotonic()
        if now_s >= self.ends_s:
            self.ends_s = self.read_end()
            if now_s >= self.ends_s:
                # Once true it stays: a later look, with the command reaped and others left, must not forget it.
                self.lease_over = self.lease_over or self.exit_code is None
                self.kill_asked = True
        if self.kill_asked:
            self.signal_all(signal.SIGKILL)
        left = self.reap()
        if left and self.exit_code is not None and not self.kill_asked:
            if self.linger_until_s is None:
                grace_s = float(self.order["stop_grace_s"]) if self.stop_asked else LINGER_S
                self.linger_until_s = now_s + grace_s
                if not self.stop_asked:
                    self.signal_all(signal.SIGTERM)
            elif now_s >= self.linger_until_s:
                self.kill_asked = True
        return left

    def wait_s(self, *, holding: bool) -> float | None:
        """How long nothing can be to do; None is until something happens. Held output waits half a second at most."""
        if self.kill_asked or self.exit_code is not None:
            return TICK_S
        if holding:
            return 0.5
        if self.ends_s == float("inf"):
            return None
        return max(0.0, min(self.ends_s - time.monotonic(), 3600.0))


def run(folder: str, lock_fd: int) -> int:
    os.set_inheritable(lock_fd, False)  # the command must not hold the lock beyond the shim
    answer = os.dup(1)
    text = sys.stdin.buffer.read()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    try:
        order = json.loads(text)
    except ValueError:
        return 3  # the agent died while it spoke: nothing was started, and the next one will see that
    del text

    def tell(words: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(answer, json.dumps(words).encode() + b"\n")
        os.close(answer)

    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shim = Shim(folder, order)
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)

    def on_term(_number: int, _frame: object) -> None:
        shim.stop_asked = True
        with contextlib.suppress(OSError):
            os.killpg(shim.pid, signal.SIGTERM)

    def on_kill(_number: int, _frame: object) -> None:
        shim.kill_asked = True

    born: dict[str, Any] = {}
    try:
        reserved = os.open(os.path.join(folder, "exit.json.new"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(reserved, b" " * RESERVED_BYTES)
        log = Log(
            os.path.join(folder, "stream"), segment_bytes=order["segment_bytes"], segments=order["segments"]
        )
        mask = Mask(order.get("mask", []))
        output, into = os.pipe()
        started_at_s = time.time()
        shim.pid, trouble = start_command(order, into)
        os.close(into)
        if trouble is None:
            signal.signal(signal.SIGTERM, on_term)
            signal.signal(signal.SIGUSR1, on_kill)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
            born = {
                "pid": shim.pid,
                "pid_start": start_ticks(shim.pid),
                "shim_pid": os.getpid(),
                "shim_start": start_ticks(os.getpid()),
                "started_at": utc(started_at_s),
            }
            try:
                write_whole(os.path.join(folder, "process.json"), json.dumps(born))
            except OSError:
                shim.kill_asked = True  # what cannot be written down cannot be adopted
                while shim.step():
                    time.sleep(TICK_S)
                raise
    except OSError as error:
        tell({"error": str(error), "disk_full": error.errno in (errno.ENOSPC, errno.EDQUOT)})
        return 2
    if trouble is not None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "exit.json.new"))
        tell({"error": trouble, "disk_full": False})
        return 2
    tell(born)
    order.pop("env")

    watched = [output, wake]
    while shim.step():
        ready, _, _ = select.select(watched, [], [], shim.wait_s(holding=bool(mask.held)))
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if output in ready:
            chunk = os.read(output, READ_BYTES)
            if chunk:
                log.write(mask.through(chunk))
            else:
                watched.remove(output)
        elif mask.held and not ready:
            log.write(mask.rest())
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(output, READ_BYTES):
            log.write(mask.through(chunk))
    log.write(mask.rest())

    end = {
        "exit_code": shim.exit_code,
        "ended_at": utc(time.time()),
        "log_bytes": log.end,
        "lease_over": shim.lease_over,
    }
    os.pwrite(reserved, json.dumps(end).encode(), 0)
    with contextlib.suppress(OSError):
        os.fsync(reserved)
    os.replace(os.path.join(folder, "exit.json.new"), os.path.join(folder, "exit.json"))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], int(sys.argv[2])))
