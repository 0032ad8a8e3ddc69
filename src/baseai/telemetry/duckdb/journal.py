"""The journal's files in one folder, and waiting for a disk.

Invariant: what `write` returned for is on disk; what it refused is not, or is cut off when the journal is read. Only
the last file grows; a file goes once the database holds all of it.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from baseai.telemetry.journal import Told, entries_in
from baseai.telemetry.sample import Batch

log = logging.getLogger(__name__)


class Journal:
    """The journal's files in one folder. Only its last file grows; a file goes once DuckDB holds all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = -1
        self._end = 0  # what of the last file is acknowledged
        self._lasts: dict[Path, int] = {}  # closed and open files → their last number
        self._path = folder
        folder.mkdir(exist_ok=True)
        self._files = max((int(path.stem) for path in folder.glob("*.log")), default=0)

    def entries(self) -> Iterator[tuple[int, Batch | Told]]:
        """All that was acknowledged, in order."""
        for path in sorted(self._folder.glob("*.log")):
            last, end, data = 0, 0, path.read_bytes()
            for number, entry, end in entries_in(data):  # noqa: B007 - where the last good record ends
                yield number, entry
                last = number
            if end < len(data):
                log.warning(
                    "%s: %d bytes at its end were never acknowledged and are dropped",
                    path.name,
                    len(data) - end,
                )
            self._lasts[path] = last

    def write(self, data: bytes, last: int) -> None:
        """Append and wait for the disk. Raises OSError with nothing of it left behind."""
        if self._file < 0:
            self._open()
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, memoryview(data)[written:], self._end + written)
            os.fdatasync(self._file)
        except OSError:
            self._take_back()
            raise
        self._end += len(data)
        self._lasts[self._path] = last

    def _open(self) -> None:
        self._files += 1
        self._path = self._folder / f"{self._files:012d}.log"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._end = 0
        sync_folder(self._folder)

    def _take_back(self) -> None:
        """Cut off what was not acknowledged; where the disk refuses that as well, leave the file and begin another."""
        try:
            os.ftruncate(self._file, self._end)
        except OSError:
            os.close(self._file)
            self._file = -1

    def forget(self, number: int) -> None:
        """Drop the files that hold nothing beyond `number`."""
        for path, last in list(self._lasts.items()):
            if last <= number:
                if path == self._path and self._file >= 0:
                    os.close(self._file)
                    self._file = -1
                path.unlink(missing_ok=True)
                del self._lasts[path]

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
