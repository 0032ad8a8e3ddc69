"""A journal is where a gateway process writes down each request as it ends, so that killing it loses none.

Invariant: a request is written before anybody may count on it; a closed segment is kept until both its traffic and its
usage are taken in. The files of a gateway belong to whoever holds its lock: the gateway itself, or, once it is dead,
one other. Written by `Journal`, emptied by `shipper`.
"""

import asyncio
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baseai.gateway.seams import Told
from baseai.gateway.segment import Sums, line_of, told_in

LINES, SUMS, LOCK = ".lines", ".sums", ".lock"
NAME = re.compile(r"(?P<gateway>[a-z0-9_]+)\.(?P<no>\d{10})\.(?:lines|sums)")
REFUSED = "refused"  # folder of what could not be taken in, for a person to look at
AT_ONCE = 200  # lines that are read before others have their turn

log = logging.getLogger(__name__)


class Journal:
    """The requests of one gateway process. `folder` is shared by those of one machine; `gateway` is this one's id."""

    def __init__(self, folder: Path, gateway: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.gateway = gateway
        self._lock = os.open(folder / f"{gateway}{LOCK}", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._no = 0
        self._unwritten = 0
        self._begin()

    def ended(self, told: Told) -> None:
        """Count one request; never raises. About 7 µs.

        What a full disk does not take is counted all the same, and lost only if the process is killed within seconds.
        """
        self._sums.add(told)
        line = line_of(told)
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, self._length)  # half a line would spoil the next one
                self._unwritten += 1
            else:
                self._length += written
        except OSError:
            self._unwritten += 1

    def turn(self) -> None:
        """Close the segment and begin the next one, unless nothing was told. Raises OSError where the disk is full."""
        if not self._sums:
            return
        if self._unwritten:
            log.warning(
                "%d requests were counted and could not be written down: the disk is full?", self._unwritten
            )
        _keep_sums(self._path.with_suffix(SUMS), self._sums)
        os.close(self._file)
        self._path.unlink()
        self._begin()

    def close(self) -> None:
        """Close the last segment and let others have what is left."""
        self.turn()
        os.close(self._file)
        self._path.unlink()
        if not closed_segments(self.folder, self.gateway):
            (self.folder / f"{self.gateway}{LOCK}").unlink()
        os.close(self._lock)

    def _begin(self) -> None:
        self._no += 1
        self._sums = Sums()
        self._unwritten = 0
        self._length = 0
        self._path = self.folder / f"{self.gateway}.{self._no:010d}{LINES}"
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)


def closed_segments(folder: Path, gateway: str) -> list[tuple[int, Path]]:
    """(number, file) of the sums that wait to be taken in, in order."""
    found = []
    for path in folder.glob(f"{gateway}.*{SUMS}"):
        if (match := NAME.fullmatch(path.name)) is not None:
            found.append((int(match["no"]), path))
    return sorted(found)


def gateways_in(folder: Path) -> list[str]:
    """Every gateway process that left or holds a segment."""
    names = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted({match["gateway"] for match in names if match is not None})


@contextmanager
def taken_over(folder: Path, gateway: str) -> Iterator[bool]:
    """Whether a gateway is dead and what it left is now the holder's; nobody else takes it meanwhile."""
    path = folder / f"{gateway}{LOCK}"
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        if gateway not in gateways_in(folder):
            path.unlink(missing_ok=True)
    finally:
        os.close(lock)


async def close_left(folder: Path, gateway: str) -> None:
    """Add up what a dead gateway had written down and not yet closed. Others have their turn meanwhile."""
    for path in sorted(folder.glob(f"{gateway}.*{LINES}")):  # noqa: ASYNC240 - local files, read in small pieces
        sums, cut = Sums(), 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines):
                told = told_in(line)
                if told is None:
                    cut += 1
                else:
                    sums.add(told)
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
        if cut:
            log.warning("%d lines of %s are cut off and not counted", cut, path.name)
        target = path.with_suffix(SUMS)
        if sums and not target.exists():  # it may have died between the two
            _keep_sums(target, sums)
        path.unlink()


def set_aside(path: Path) -> None:
    """Put a segment that cannot be taken in where a person finds it."""
    aside = path.parent / REFUSED
    aside.mkdir(mode=0o700, exist_ok=True)
    path.replace(aside / path.name)


def _keep_sums(target: Path, sums: Sums) -> None:
    """Write them whole or not at all."""
    draft = target.with_suffix(".draft")
    draft.write_bytes(sums.to_bytes())
    draft.replace(target)
