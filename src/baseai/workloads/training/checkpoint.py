"""A checkpoint is one committed folder: the whole state of a run after a step, and a manifest that proves it.

Invariant: a folder named `attempt-…` is complete, because it arrives by one rename after everything in it was
synced; and no attempt commits after a newer one has claimed the folder, because both happen under one lock.
Only the writer process commits; anybody may read. This file knows no tensors and imports nothing heavy.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseai.ground.fault import Fault

STATE = "state.safetensors"
MANIFEST = "manifest.json"
FENCE = "fence"
NAME = re.compile(r"attempt-(\d{6})-restart-(\d{4})-step-(\d{10})")
HASH_BLOCK = 1 << 22


class Fenced(Fault):
    """A newer attempt owns the checkpoint folder, so that this one may not write there any more."""

    def __init__(self, folder: str, attempt_no: int, newer_attempt_no: int) -> None:
        super().__init__(folder, attempt_no, newer_attempt_no)
        self.folder = folder
        self.attempt_no = attempt_no
        self.newer_attempt_no = newer_attempt_no

    def __str__(self) -> str:
        return (
            f"attempt {self.attempt_no} is fenced off {self.folder}: attempt {self.newer_attempt_no} owns it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One committed folder as its manifest describes it."""

    path: Path
    attempt_no: int
    restart: int
    step: int  # steps done; training goes on with the step of this number, counted from 0
    digest: str  # sha256 of the state file
    size_bytes: int
    facts: Mapping[str, Any]  # what the loop wished to remember

    @property
    def state(self) -> Path:
        """The tensors, in safetensors form."""
        return self.path / STATE


def name_of(*, attempt_no: int, restart: int, step: int) -> str:
    """The committed folder's name; names sort as their checkpoints do."""
    return f"attempt-{attempt_no:06d}-restart-{restart:04d}-step-{step:010d}"


def claim(folder: Path, attempt_no: int) -> None:
    """Make this attempt the owner of the folder, once and again. Raises Fenced where a newer one is."""
    folder.mkdir(parents=True, exist_ok=True)
    with _fence(folder) as fence:
        _pass(fence, folder, attempt_no)


def commit(staged: Path, folder: Path, *, name: str, attempt_no: int, keep: int) -> Path:
    """Publish a synced folder under its name and let go of all but the newest `keep`.

    Raises Fenced, and publishes nothing, where a newer attempt owns the folder. Committing a name that is
    there already leaves the first one in place: the same steps were done twice.
    """
    target = folder / name
    with _fence(folder) as fence:
        _pass(fence, folder, attempt_no)
        if target.exists():
            shutil.rmtree(staged)
        else:
            os.rename(staged, target)
            sync_folder(folder)
        for old in names(folder)[keep:]:
            _let_go(folder / old)
    return target


def names(folder: Path) -> list[str]:
    """The committed names, newest first."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted((name for name in found if NAME.fullmatch(name)), reverse=True)


def committed(folder: Path) -> Iterator[Checkpoint]:
    """The committed checkpoints whose manifest can be read, newest first; the state is not verified."""
    for name in names(folder):
        path = folder / name
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads((path / MANIFEST).read_bytes())
            yield Checkpoint(
                path=path,
                attempt_no=int(told["attempt_no"]),
                restart=int(told["restart"]),
                step=int(told["step"]),
                digest=str(told["digest"]),
                size_bytes=int(told["size_bytes"]),
                facts=dict(told["facts"]),
            )


def newest(folder: Path) -> Checkpoint | None:
    """The newest committed checkpoint whose bytes match their digest; torn and corrupt ones are passed over."""
    return next((each for each in committed(folder) if verifies(each)), None)


def verifies(checkpoint: Checkpoint) -> bool:
    """True when the state has the size and the digest that the manifest promises. Reads it whole."""
    try:
        with checkpoint.state.open("rb", buffering=0) as state:
            if os.fstat(state.fileno()).st_size != checkpoint.size_bytes:
                return False
            return hashlib.file_digest(state, "sha256").hexdigest() == checkpoint.digest
    except OSError:
        return False


def sweep(folder: Path, *, attempt_no: int, restart: int) -> None:
    """Remove what dead writers left: unfinished folders of this attempt's earlier lives and of older attempts."""
    for name in os.listdir(folder):
        left = re.fullmatch(r"\.(?:staged|gone)-" + NAME.pattern + r"(?:-\d+)?", name)
        if left and (int(left[1]), int(left[2])) < (attempt_no, restart):
            shutil.rmtree(folder / name, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _fence(folder: Path) -> Iterator[int]:
    handle = os.open(folder / FENCE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _pass(fence: int, folder: Path, attempt_no: int) -> None:
    """Raise the number on the fence to ours, or be refused by a higher one."""
    written = os.pread(fence, 32, 0).strip()
    owner = int(written) if written.isdigit() else 0
    if owner > attempt_no:
        raise Fenced(str(folder), attempt_no, owner)
    if owner < attempt_no:
        # A fixed width in one write: a reader sees the old number or the new one.
        os.pwrite(fence, f"{attempt_no:020d}\n".encode(), 0)
        os.fsync(fence)


def _let_go(path: Path) -> None:
    # Renamed first, so that a half-removed folder is never taken for a checkpoint.
    gone = path.with_name(f".gone-{path.name}")
    with contextlib.suppress(OSError):
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)
