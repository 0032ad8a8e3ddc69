"""The sample spool keeps what was measured until the server has it: batches and witnesses, each known by its id.

Invariant: an id is made once and is on disk before anything is sent under it; what is forgotten was accepted or refused
by the server, or had to go because the spool was full, and the loss is told. After kill -9 whatever was not yet known
to be settled is sent again, under the same id. Outside thing touched: the node folder.

    samples/00000007.log    lines `<crc32> <b|w> <rows> <id> <json>`
    samples/00000007.done   ids of that file that are settled
"""

import contextlib
import logging
import os
import re
import zlib
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from baseai.api.schemas import Samples, Witness

log = logging.getLogger(__name__)

LIMIT_BYTES = 512 * 1024 * 1024
SEGMENTS = 32  # at the limit; the oldest of them goes first
MEMORY_BYTES = 8 * 1024 * 1024  # what is kept without a disk, when that is full
LOSSES_TOLD = 8

Kind = Literal["b", "w"]


@dataclass(slots=True)
class _Entry:
    """One batch or witness that waits."""

    segment: int
    offset: int
    length: int  # of its line, without the end
    kind: Kind
    rows: int
    text: str | None  # kept in memory while it is fresh, or where the disk was full


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one message carries."""

    batches: list[Samples]
    witnesses: list[Witness]
    rows: int

    @property
    def ids(self) -> list[str]:
        return [*(each.batch_id for each in self.batches), *(each.event_id for each in self.witnesses)]


class SampleSpool:
    """Segments of an append-only log, with what is settled beside each."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._segment_bytes = max(4096, limit_bytes // SEGMENTS)
        self._waiting: dict[str, _Entry] = {}  # oldest first
        self._fresh: list[str] = []  # of them, what came since the last load
        self._bytes_of: dict[int, int] = {}  # on disk, by segment
        self._open_count: dict[int, int] = {}  # what waits in it, by segment
        self._in_memory: deque[str] = deque()  # ids whose text may be in memory, oldest first
        self._memory_bytes = 0
        self.losses: deque[str] = deque(maxlen=LOSSES_TOLD)  # sentences, newest last
        self._fd: int | None = None
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._load()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def fresh(self) -> int:
        """How many wait that were in no load yet."""
        return len(self._fresh)

    @property
    def disk_bytes(self) -> int:
        """How much lies on disk."""
        return sum(self._bytes_of.values())

    def add(self, batches: Sequence[Samples], witnesses: Sequence[Witness] = ()) -> None:
        """Write one tick down, with one flush to disk for all of it. A full disk costs durability, not the tick."""
        lines: list[tuple[str, Kind, int, str]] = [
            *((each.batch_id, "b", len(each.keys), each.model_dump_json()) for each in batches),
            *((each.event_id, "w", 0, each.model_dump_json()) for each in witnesses),
        ]
        lines = [line for line in lines if line[0] not in self._waiting]
        if not lines:
            return
        written, offset, places = bytearray(), self._room(), []
        for key, kind, rows, text in lines:
            line = _line(key, kind, rows, text)
            places.append((key, kind, rows, text, offset + len(written), len(line)))
            written += line + b"\n"
        on_disk = self._append(bytes(written))
        for key, kind, rows, text, place, length in places:
            self._remember(key, _Entry(self._number if on_disk else 0, place, length, kind, rows, text))
            self._fresh.append(key)
        self._bound()

    def load(self, *, rows_max: int) -> Load:
        """What to send next, `rows_max` rows at most but one batch at least: first what is fresh, then the oldest."""
        taken: dict[str, _Entry] = {}
        rows = 0
        fresh = [key for key in self._fresh if key in self._waiting]
        self._fresh = []
        for count, key in enumerate(chain(fresh, self._waiting)):
            entry = self._waiting[key]
            if key in taken:
                continue
            if taken and rows + entry.rows > rows_max:
                self._fresh = fresh[count:]
                break
            taken[key] = entry
            rows += entry.rows
            if len(taken) >= rows_max:
                self._fresh = fresh[count + 1 :]
                break
        return self._read(taken, rows)

    def settle(self, ids: Collection[str]) -> None:
        """Forget what the server has, or will never take."""
        done: dict[int, list[str]] = {}
        for key in ids:
            entry = self._waiting.get(key)
            if entry is not None:
                self._drop(key)
                done.setdefault(entry.segment, []).append(key)
        for segment, keys in done.items():
            self._mark_done(segment, keys)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # ---- on disk ----------------------------------------------------------------------------------------------

    def _path(self, segment: int, ending: str = "log") -> Path:
        return self._folder / f"{segment:08d}.{ending}"

    def _room(self) -> int:
        """Where the next line begins, in a new segment when the last one is full."""
        if self._fd is None or self._bytes_of.get(self._number, 0) >= self._segment_bytes:
            self.close()
            if self._number in self._bytes_of and not self._open_count.get(self._number):
                self._remove(self._number)
            self._number += 1
            try:
                self._fd = os.open(self._path(self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                _flush_folder(self._folder)
            except OSError as error:
                log.warning("what was measured stays in memory: %s", error)
                self.close()
                return 0
            self._bytes_of[self._number] = 0
        return self._bytes_of[self._number]

    def _append(self, written: bytes) -> bool:
        """Whether it is on disk, for good. After a failure the segment is left alone: its end may be torn."""
        if self._fd is None:
            return False
        try:
            count = os.write(self._fd, written)
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
        except OSError as error:
            count = -1
            log.warning("what was measured stays in memory: %s", error)
        if count == len(written):
            self._bytes_of[self._number] += count
            return True
        self.close()
        return False

    def _mark_done(self, segment: int, keys: Sequence[str]) -> None:
        if segment == 0:
            return
        if self._open_count.get(segment, 0) == 0 and (segment != self._number or self._fd is None):
            self._remove(segment)
            return
        # Not flushed: after a power cut it would be sent again, under the same id.
        with contextlib.suppress(OSError), self._path(segment, "done").open("a") as done:
            done.write("".join(key + "\n" for key in keys))

    def _remove(self, segment: int) -> None:
        for ending in ("log", "done"):
            with contextlib.suppress(OSError):
                self._path(segment, ending).unlink(missing_ok=True)
        self._bytes_of.pop(segment, None)
        self._open_count.pop(segment, None)

    def _load(self) -> None:
        """Take up what a former agent left; a line cut short by a crash costs only itself."""
        for path in sorted(self._folder.glob("*.log")):
            if not re.fullmatch(r"\d{8}", path.stem):
                continue
            segment = int(path.stem)
            self._number = max(self._number, segment)
            try:
                text = path.read_bytes()
            except OSError as error:
                self._lose(f"the file {path.name} of the spool cannot be read: {error.strerror}")
                continue
            settled: set[str] = set()
            with contextlib.suppress(OSError):
                settled = set(self._path(segment, "done").read_text().split())
            self._bytes_of[segment] = len(text)
            self._open_count.setdefault(segment, 0)
            offset, broken = 0, 0
            for line in text.splitlines(keepends=True):
                found = _parsed(line.rstrip(b"\n"))
                if found is None:
                    broken += 1
                elif found[0] not in settled and found[0] not in self._waiting:
                    key, kind, rows = found
                    self._remember(key, _Entry(segment, offset, len(line.rstrip(b"\n")), kind, rows, None))
                offset += len(line)
            if broken > (0 if text.endswith(b"\n") else 1):
                self._lose(f"{broken} lines of the spool's file {path.name} were unreadable")
            if not self._open_count[segment]:
                self._remove(segment)

    def _read(self, taken: dict[str, _Entry], rows: int) -> Load:
        batches: list[Samples] = []
        witnesses: list[Witness] = []
        unreadable: list[str] = []
        for key, entry in taken.items():
            text = entry.text if entry.text is not None else self._text_of(entry)
            try:
                if text is None:
                    raise ValueError("the file is gone")
                if entry.kind == "b":
                    batches.append(Samples.model_validate_json(text))
                else:
                    witnesses.append(Witness.model_validate_json(text))
            except ValueError as error:
                self._lose(f"{key} in the spool cannot be read any more: {str(error).splitlines()[0]}")
                unreadable.append(key)
                continue
            if entry.segment and entry.text is not None:  # from now on the disk is enough
                self._memory_bytes -= len(entry.text)
                entry.text = None
        while self._in_memory and not self._holds_text(self._in_memory[0]):
            self._in_memory.popleft()
        self.settle(unreadable)
        return Load(batches=batches, witnesses=witnesses, rows=rows)

    def _text_of(self, entry: _Entry) -> str | None:
        try:
            with self._path(entry.segment).open("rb") as file:
                file.seek(entry.offset)
                line = file.read(entry.length)
        except OSError:
            return None
        return line.split(b" ", 4)[4].decode() if _parsed(line) else None

    # ---- in memory --------------------------------------------------------------------------------------------

    def _remember(self, key: str, entry: _Entry) -> None:
        self._waiting[key] = entry
        if entry.text is not None:
            self._in_memory.append(key)
        if entry.segment:
            self._open_count[entry.segment] = self._open_count.get(entry.segment, 0) + 1
        self._memory_bytes += len(entry.text or "")

    def _holds_text(self, key: str) -> bool:
        entry = self._waiting.get(key)
        return entry is not None and entry.text is not None

    def _drop(self, key: str) -> None:
        entry = self._waiting.pop(key)
        self._memory_bytes -= len(entry.text or "")
        if entry.segment:
            self._open_count[entry.segment] -= 1

    def _bound(self) -> None:
        """The oldest segment goes when the disk's share is used up; the oldest in memory when the disk was full."""
        while self.disk_bytes > self._limit_bytes and len(self._bytes_of) > 1:
            segment = min(self._bytes_of)
            gone = [key for key, entry in self._waiting.items() if entry.segment == segment]
            for key in gone:
                self._drop(key)
            self._remove(segment)
            if gone:
                limit_mib = self._limit_bytes / 2**20
                self._lose(
                    f"the spool holds {limit_mib:g} MiB and was full: the oldest {len(gone)} batches are lost"
                )
        while self._memory_bytes > MEMORY_BYTES and self._in_memory:
            key = self._in_memory.popleft()
            entry = self._waiting.get(key)
            if entry is None or entry.text is None:
                continue
            if entry.segment:  # it is on disk as well
                self._memory_bytes -= len(entry.text)
                entry.text = None
            else:
                self._drop(key)
                self._lose("the disk is full, and so is the memory for samples: the oldest are lost")

    def _lose(self, sentence: str) -> None:
        if sentence not in self.losses:
            self.losses.append(sentence)
        log.warning("%s", sentence)


def _line(key: str, kind: Kind, rows: int, text: str) -> bytes:
    body = f"{kind} {rows} {key} {text}".encode()
    return b"%08x %b" % (zlib.crc32(body), body)


def _parsed(line: bytes) -> tuple[str, Kind, int] | None:
    """Id, kind and rows of a whole line; None for one that is cut short or damaged."""
    parts = line.split(b" ", 4)
    if len(parts) != 5 or parts[1] not in (b"b", b"w"):
        return None
    try:
        if int(parts[0], 16) != zlib.crc32(line[len(parts[0]) + 1 :]):
            return None
        return parts[3].decode(), "b" if parts[1] == b"b" else "w", int(parts[2])
    except ValueError:
        return None


def _flush_folder(folder: Path) -> None:
    """A new file's name is on disk only when its folder is."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
