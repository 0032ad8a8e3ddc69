"""Reads the kernel's log as it grows: the second witness of whatever drivers and exporters say, or fail to say.

Invariant: a message is told under an id made of the start of the node and its place in the log, so that a new agent
that reads the log again tells nothing twice; the place up to which all was told is kept. Outside thing touched:
/dev/kmsg, or a file that a log daemon writes.
"""

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from baseai.ground.identity import derived
from baseai.telemetry.collector import Collected, NothingThere
from baseai.telemetry.kernel_line import KernelLine, kernel_line_of
from baseai.telemetry.sample import Trouble
from baseai.telemetry.witness import Witness

KMSG = Path("/dev/kmsg")
RECORD_BYTES = 8192  # the kernel's own limit of one record
LOOK_RECORDS_MAX = 20_000
FIRST_LOOK_S = 3600.0
LOOK_WITNESSES_MAX = 500
STAMP = re.compile(r"^(?:<\d+>)?\[([^\]]+)\]\s?(.*)$")


class KernelLog:
    """The source for witnesses out of the kernel's log."""

    name = "kernel_log"

    def __init__(
        self,
        *,
        boot_id: str,
        path: Path = KMSG,
        record: Path | None = None,
        first_look_s: float = FIRST_LOOK_S,
    ) -> None:
        """record: a file that keeps how far the log was read, for the next agent. first_look_s: without it, how old a
        message may be: what happened long before anybody looked is not news."""
        self._boot_id = boot_id
        self._path = path
        self._record = record
        self._first_look_s = first_look_s
        self._read_to = _read_to(
            record, boot_id
        )  # sequence of the last message that was told, None before any
        self._kept_to = self._read_to
        self._looked = self._read_to is not None
        self._fd: int | None = None
        self._offset = 0
        self._inode = 0
        self._seen: dict[str, int] = {}  # in a file: how often each line came, which tells repetitions apart
        self._rest = b""

    def observe(self, now: datetime) -> Collected:
        """Raises NothingThere where the log is not there or may not be read."""
        self._keep_place()  # of the look before: what that told is in safe hands by now
        witnesses: list[Witness] = []
        troubles: list[Trouble] = []
        left_out = 0
        oldest = None if self._looked else now - timedelta(seconds=self._first_look_s)
        for at, mark, priority, message in (
            self._records(now, troubles) if self._is_device() else self._lines(now)
        ):
            line = kernel_line_of(message, priority=priority)
            if line is None or (oldest is not None and at < oldest):
                continue
            if len(witnesses) >= LOOK_WITNESSES_MAX:
                left_out += 1
                continue
            witnesses.append(self._witness(line, at, mark))
        self._looked = True
        if left_out:
            sentence = f"{left_out} more messages about hardware came at once and were left out"
            troubles.append(Trouble(source=self.name, key=None, field=None, sentence=sentence))
        return Collected(witnesses=witnesses, troubles=troubles)

    def _keep_place(self) -> None:
        if self._record is None or self._read_to == self._kept_to:
            return
        with contextlib.suppress(OSError):
            fresh = self._record.with_name(self._record.name + ".new")
            fresh.write_text(json.dumps({"boot_id": self._boot_id, "read_to": self._read_to}))
            fresh.replace(self._record)
            self._kept_to = self._read_to

    def _is_device(self) -> bool:
        try:
            return stat.S_ISCHR(self._path.stat().st_mode)
        except OSError as error:
            raise NothingThere(f"{self._path} cannot be looked at: {error.strerror}") from None

    def _records(
        self, now: datetime, troubles: list[Trouble]
    ) -> Iterator[tuple[datetime, str, int | None, str]]:
        """Records of /dev/kmsg: `priority,sequence,µs since the start,flags;message`."""
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as error:
                raise NothingThere(f"{self._path} may not be read: {error.strerror}") from None
        since_start_s = time.clock_gettime(time.CLOCK_MONOTONIC)
        for _ in range(LOOK_RECORDS_MAX):
            try:
                record = os.read(self._fd, RECORD_BYTES)
            except BlockingIOError:
                return
            except (
                BrokenPipeError
            ):  # the kernel has overwritten what was not read yet; reading goes on behind it
                sentence = "the kernel's log ran over: messages were lost"
                troubles.append(Trouble(source=self.name, key=None, field=None, sentence=sentence))
                continue
            except OSError as error:
                raise NothingThere(f"{self._path} cannot be read: {error.strerror}") from None
            if not record:
                return
            head, _, message = record.decode(errors="replace").partition(";")
            words = head.split(",")
            if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
                continue
            if self._read_to is not None and int(words[1]) <= self._read_to:
                continue
            self._read_to = int(words[1])
            at = now - timedelta(seconds=max(0.0, since_start_s - int(words[2]) / 1e6))
            yield at, words[1], int(words[0]) & 7, message.partition("\n")[0]

    def _lines(self, now: datetime) -> Iterator[tuple[datetime, str, int | None, str]]:
        """New whole lines of a file; from its beginning when it was replaced or cut."""
        try:
            found = self._path.stat()
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._inode, self._offset, self._rest = found.st_ino, 0, b""
                self._seen.clear()
            with self._path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except OSError as error:
            raise NothingThere(f"{self._path} cannot be read: {error.strerror}") from None
        self._offset += len(fresh)
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        for raw in lines:
            text = raw.decode(errors="replace")
            stamped = STAMP.match(text)
            if kernel_line_of(text) is None:
                continue
            count = self._seen[text] = self._seen.get(text, 0) + 1
            yield (
                _at(stamped[1], now) if stamped else now,
                derived("line", text, count),
                None,
                stamped[2] if stamped else text,
            )

    def _witness(self, line: KernelLine, at: datetime, mark: str) -> Witness:
        payload: dict[str, object] = {"source": "kernel"}
        if line.pid is not None:
            payload |= {"pid": line.pid, "process": line.process}
        return Witness(
            event_id=derived("wit", self._boot_id, "kernel", mark),
            at=at,
            kind=line.kind,
            key=line.device,
            code=line.code,
            severity=line.severity,
            sentence=line.sentence[:1000],
            payload=payload,
        )


def _read_to(record: Path | None, boot_id: str) -> int | None:
    """How far a former agent has read, if that was since the node was started."""
    try:
        found = json.loads(record.read_text()) if record is not None else None
    except (OSError, ValueError):
        return None
    return int(found["read_to"]) if found and found.get("boot_id") == boot_id else None


def _at(stamp: str, now: datetime) -> datetime:
    """The instant of `dmesg -T`'s stamp, or of seconds since the start; `now` where it is neither."""
    try:
        since_start_s = float(stamp)
    except ValueError:
        try:
            local = datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").astimezone()
        except ValueError:
            return now
        return local.astimezone(UTC)
    return now - timedelta(seconds=max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - since_start_s))
