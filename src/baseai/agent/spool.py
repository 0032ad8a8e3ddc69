"""The spool keeps what this node saw until the server has it, through outages and kill -9.

Invariant: an observation is on disk before anybody is told that it happened, leaves in the order in which it
came, and an id stands in the spool once. How far a progress file was read is part of the same write as the
observation made from it, so that a line of it is neither lost nor doubled.
"""

import contextlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from baseai.api.schemas import Observation

LIMIT = 100_000
COMPACT_LINES = 2_000


class Spool:
    """An append-only file of JSON lines: seen (`o`, with `to` for progress) and settled (`x`)."""

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._waiting: dict[str, Observation] = {}
        self._read_to: dict[str, int] = {}
        self._lines = 0
        self.dropped = 0  # progress observations that had to go because the spool was full
        self._load()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __len__(self) -> int:
        return len(self._waiting)

    def first(self, count: int) -> list[Observation]:
        """The oldest observations still to be delivered."""
        return [observation for observation, _ in zip(self._waiting.values(), range(count), strict=False)]

    def holds(self, event_id: str) -> bool:
        return event_id in self._waiting

    def read_to(self, lease_id: str) -> int:
        """The offset up to which this lease's progress file is in the spool or beyond it."""
        return self._read_to.get(lease_id, 0)

    def add(
        self, observations: Sequence[Observation], *, lease_id: str | None = None, read_to: int | None = None
    ) -> None:
        """Write observations down, and with them how far the progress file of `lease_id` has been read."""
        fresh = [each for each in observations if each.event_id not in self._waiting]
        lines: list[str] = []
        for each in fresh:
            self._waiting[each.event_id] = each
            lines.append(json.dumps({"o": each.model_dump(mode="json")}))
        if lease_id is not None and read_to is not None:
            self._read_to[lease_id] = read_to
            lines.append(json.dumps({"lease": lease_id, "to": read_to}))
        self._write(lines, sync=True)
        self._bound()

    def settle(self, event_ids: Collection[str]) -> None:
        """Forget what the server has taken, or will never take."""
        known = [event_id for event_id in event_ids if self._waiting.pop(event_id, None) is not None]
        if known:
            self._write([json.dumps({"x": known})], sync=False)
        if self._lines > COMPACT_LINES and self._lines > 4 * len(self._waiting):
            self._compact()

    def forget(self, lease_id: str) -> None:
        """The lease's folder is gone, so its offset is of no use any more."""
        if self._read_to.pop(lease_id, None) is not None:
            self._write([json.dumps({"lease": lease_id, "to": None})], sync=False)

    def close(self) -> None:
        os.close(self._fd)

    def _bound(self) -> None:
        excess = len(self._waiting) - self._limit
        if excess <= 0:
            return
        oldest = [event_id for event_id, each in self._waiting.items() if each.kind == "progress"][:excess]
        self.dropped += len(oldest)
        self.settle(oldest)

    def _write(self, lines: list[str], *, sync: bool) -> None:
        """A full disk costs durability, not the observation: it stays in memory and goes out as usual."""
        if not lines:
            return
        self._lines += len(lines)
        with contextlib.suppress(OSError):
            text = "".join(line + "\n" for line in lines).encode()
            if os.write(self._fd, text) < len(text):
                os.write(self._fd, b"\n")
            if sync:
                os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def _load(self) -> None:
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            self._lines += 1
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the line a crash or a full disk cut short
            if "o" in record:
                observation = Observation.model_validate(record["o"])
                self._waiting[observation.event_id] = observation
            elif "x" in record:
                for event_id in record["x"]:
                    self._waiting.pop(event_id, None)
            elif record["to"] is None:
                self._read_to.pop(record["lease"], None)
            else:
                self._read_to[record["lease"]] = record["to"]
        text = self._path.read_bytes()
        if text and not text.endswith(b"\n"):
            with self._path.open("ab") as file:
                file.write(b"\n")

    def _compact(self) -> None:
        fresh = self._path.with_suffix(".new")
        lines = [json.dumps({"o": each.model_dump(mode="json")}) for each in self._waiting.values()]
        lines += [json.dumps({"lease": lease_id, "to": to}) for lease_id, to in self._read_to.items()]
        try:
            with fresh.open("w") as file:
                file.writelines(line + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            fresh.chmod(0o600)
            fd = os.open(fresh, os.O_WRONLY | os.O_APPEND)
            fresh.replace(self._path)
        except OSError:
            return
        os.close(self._fd)
        self._fd = fd
        self._lines = len(lines)
