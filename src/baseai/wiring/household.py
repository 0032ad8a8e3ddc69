"""A household is a platform's data folder: what lies where, who holds it, and how to reach the platform.

Invariant: one supervisor holds the folder at a time; its keys are made once, readable by its owner only.
"""

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from baseai.ground.fault import Fault
from baseai.tenancy.key import key_text


class HeldAlready(Fault):
    """Another platform runs on this data folder."""

    def __init__(self, data: str, pid: int | None) -> None:
        super().__init__(data, pid)
        self.data = data
        self.pid = pid

    def __str__(self) -> str:
        by = f" (pid {self.pid})" if self.pid else ""
        return (
            f"a platform runs on {self.data} already{by}: end it with `baseai down`, or choose another --data"
        )


class FolderUnusable(Fault):
    """The data folder cannot be written."""

    def __init__(self, data: str, why: str) -> None:
        super().__init__(data, why)
        self.data = data
        self.why = why

    def __str__(self) -> str:
        return f"the data folder {self.data} cannot be used: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """Where things lie below one data folder."""

    data: Path

    @property
    def postgres(self) -> Path:
        return self.data / "postgres"

    @property
    def metrics(self) -> Path:
        return self.data / "metrics"

    @property
    def health_policy(self) -> Path:
        """An operator's own rules of health, where there are some: changes to the policy that ships."""
        return self.data / "health.toml"

    @property
    def issuer(self) -> Path:
        """What an operator says of the company in whose name invoices are written, where it says anything."""
        return self.data / "issuer.toml"

    @property
    def logs(self) -> Path:
        return self.data / "log"

    @property
    def node(self) -> Path:
        return self.data / "node"

    @property
    def files(self) -> Path:
        return self.data / "files"

    @property
    def gateway(self) -> Path:
        """What gateways count and limit: their journals, and one file of limits that they share."""
        return self.data / "gateway"

    @property
    def uploads(self) -> Path:
        return self.files / "uploads"

    @property
    def run_logs(self) -> Path:
        return self.files / "logs"

    @property
    def connect(self) -> Path:
        return self.data / "connect.json"

    @property
    def running(self) -> Path:
        return self.data / "platform.json"

    def checkpoints(self, run_id: str) -> str:
        return str(self.files / "checkpoints" / run_id)

    def outputs(self, run_id: str) -> str:
        return str(self.files / "outputs" / run_id)

    def make(self) -> None:
        """The folders. Others may pass through `data` (PostgreSQL's account must), and read nothing in it."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            os.chmod(self.data, 0o711 if os.geteuid() == 0 else 0o700)
            for folder in (
                self.metrics,
                self.gateway,
                self.logs,
                self.files,
                self.uploads,
                self.run_logs,
                self.data / "keys",
            ):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.node.mkdir(exist_ok=True)
            # A run's own user passes through; what is private in it says so itself.
            os.chmod(self.node, 0o711)  # noqa: S103
            probe = self.data / ".probe"
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as wrong:
            raise FolderUnusable(str(self.data), wrong.strerror or str(wrong)) from wrong

    def hold(self) -> IO[str]:
        """Hold the folder until the returned file is closed or the process ends. Raises HeldAlready."""
        try:
            file = self._lock.open("a+")
        except OSError as wrong:
            raise FolderUnusable(str(self.data), wrong.strerror or str(wrong)) from wrong
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as wrong:
            file.close()
            raise HeldAlready(str(self.data), self.pid()) from wrong
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def is_held(self) -> bool:
        """Whether a supervisor holds the folder now. Raises FolderUnusable when that may not be known."""
        try:
            with self._lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except BlockingIOError:
            return True
        except OSError as wrong:
            raise FolderUnusable(str(self.data), wrong.strerror or str(wrong)) from wrong
        return False

    def pid(self) -> int | None:
        """Of the supervisor that holds the folder, or held it last; None where that is not written."""
        try:
            return int(self._lock.read_text())
        except (OSError, ValueError):
            return None

    @property
    def _lock(self) -> Path:
        return self.data / "platform.lock"

    def key(self, name: str) -> bytes:
        """32 secret bytes of that name, made on first use."""
        return self._made_once(name, secrets.token_bytes(32))

    def text(self, name: str, prefix: str) -> str:
        """A secret text of that name, made on first use."""
        return self._made_once(name, key_text(prefix, secrets.token_bytes(25)).encode()).decode()

    def _made_once(self, name: str, fresh: bytes) -> bytes:
        """What that key is; `fresh` from now on where there was none. Of processes that come at once, one makes it."""
        path = self.data / "keys" / name
        if not path.exists():
            offered = path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
            write_private(offered, fresh)
            with contextlib.suppress(FileExistsError):
                os.link(offered, path)
            offered.unlink()
        return path.read_bytes()

    def read(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 600, whole or not at all."""
    coming = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(coming, path)
