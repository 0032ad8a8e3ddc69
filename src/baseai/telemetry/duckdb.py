"""The metric store of one machine: a ring in memory, a journal, a DuckDB file for open hours, Parquet for sealed ones.

Invariant: a row is acknowledged once the journal is on disk; from there it is in exactly one of pending rows, the
DuckDB file and a sealed file, and moves between them in one transaction. What DuckDB holds says up to which number
the journal is in it, so that a kill anywhere replays the rest and doubles nothing. One process has the folder open.
Rows of an hour are sorted by thing and instant in its sealed file; `docs/decisions/metric-store.md` says why so.
"""

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import FAMILIES, Family, Kind
from baseai.telemetry.grid import Grid
from baseai.telemetry.journal import Told, entries_in, record_of
from baseai.telemetry.ring import LONG_AGO, Ring
from baseai.telemetry.rolled import Rolled, by_tiers, coarser
from baseai.telemetry.rolled import all_of as all_rolled
from baseai.telemetry.rollup import Cells, Rollup, chain, picked
from baseai.telemetry.rows import Rows, all_of, no_rows
from baseai.telemetry.sample import Batch
from baseai.telemetry.seen import Seen, digest_of
from baseai.telemetry.store import (
    STEP_MS,
    Aggregate,
    Appended,
    By,
    Latest,
    Place,
    Retention,
    Series,
    StoreFull,
    StoreHeld,
    Tier,
)
from baseai.telemetry.things import Things
from baseai.telemetry.tier import HOUR_MS, ROLLED, Buckets, buckets_of, floors

log = logging.getLogger(__name__)

PENDING_MAX = 262_144  # rows in memory and the journal only; more go into DuckDB
PENDING_LIMIT = 4 * PENDING_MAX  # rows while DuckDB takes none; beyond, nothing more is acknowledged
ROLL_ROWS = 400_000  # rows rolled up at a time: 100 MB of an accelerator's fields
ROW_GROUP = 122_880
SMALL_ROWS = 200_000  # a sealed file below this is written again for any late row
GRACE_MS = 60_000  # after the end of an hour, for what comes a little late
GRID_CELLS = 4_000_000  # of an aggregate at a time: 200 MB
INSTANT_BITS = 43  # milliseconds until the year 2248
RING_MS = 900_000
STAMP = "thing INTEGER, at_ms BIGINT, boot INTEGER, pattern INTEGER"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name VARCHAR, value BIGINT);
CREATE TABLE IF NOT EXISTS things (
  family VARCHAR, thing INTEGER, key VARCHAR, born_ms BIGINT, seen VARCHAR, told VARCHAR, sources VARCHAR);
CREATE TABLE IF NOT EXISTS patterns (family VARCHAR, pattern INTEGER, codes BLOB);
CREATE TABLE IF NOT EXISTS boots (boot INTEGER, name VARCHAR);
CREATE TABLE IF NOT EXISTS batches (hour INTEGER, head UBIGINT, tail UBIGINT);
CREATE TABLE IF NOT EXISTS files (
  tier VARCHAR, family VARCHAR, hour INTEGER, hours INTEGER, name VARCHAR, fields INTEGER, rows BIGINT);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A sealed file: `hours` whole hours of one tier and family, beginning with hour number `hour` since 1970."""

    tier: Tier
    family: str
    hour: int
    hours: int
    name: str  # below the store's folder
    fields: int  # how many fields the family had when it was written
    rows: int


Files = Mapping[tuple[Tier, str], Mapping[int, File]]  # by its first hour


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Part of what a question covers: sealed files of one tier, or one hour that is read row by row."""

    from_ms: int
    until_ms: int
    hour: int
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What a question reads, as of one moment: it stays while rows move on."""

    cursor: duckdb.DuckDBPyConnection
    files: Files
    pending: Mapping[str, tuple[Rows, ...]]
    open_hours: Mapping[str, frozenset[int]]

    def file(self, tier: Tier, family: str, hour: int) -> File | None:
        return self.files.get((tier, family), {}).get(hour)

    def hours_of(self, family: str, from_ms: int, until_ms: int) -> list[int]:
        """The hours of a range that have rows."""
        hours = self.open_hours.get(family, frozenset()) | self.files.get((Tier.RAW, family), {}).keys()
        return sorted(hour for hour in hours if (hour + 1) * HOUR_MS > from_ms and hour * HOUR_MS < until_ms)

    def pieces(self, family: str, asked: Buckets) -> list[_Piece]:
        """The range in the order of time. An hour with rows that are not in its rollup is read row by row."""
        begins, ends = asked.from_ms, asked.until_ms
        with_rows = self.hours_of(family, begins, ends)
        files = [] if asked.tier is Tier.RAW else [
            file for file in self.files.get((asked.tier, family), {}).values()
            if (file.hour + file.hours) * HOUR_MS > begins and file.hour * HOUR_MS < ends
        ]  # fmt: skip
        covered = {hour for file in files for hour in range(file.hour, file.hour + file.hours)}
        open_hours, raw = self.open_hours.get(family, frozenset()), self.files.get((Tier.RAW, family), {})
        by_row = {hour for hour in with_rows if hour not in covered or (hour in open_hours and hour in raw)}
        parts: list[tuple[int, int, File | None]] = [(hour, hour + 1, None) for hour in by_row]
        for file in files:
            cuts = sorted(hour for hour in by_row if file.hour <= hour < file.hour + file.hours)
            starts = [file.hour, *(hour + 1 for hour in cuts)]
            stops = [*cuts, file.hour + file.hours]
            parts += [(start, stop, file) for start, stop in zip(starts, stops, strict=True) if start < stop]
        found: list[_Piece] = []
        for start, stop, lot in sorted(parts, key=lambda part: part[0]):
            from_ms, until_ms = max(begins, start * HOUR_MS), min(ends, stop * HOUR_MS)
            last = found[-1] if found else None
            if lot and last and last.files and last.files[-1].fields == lot.fields:
                found[-1] = replace(last, until_ms=until_ms, files=(*last.files, lot))
            else:
                found.append(
                    _Piece(from_ms=from_ms, until_ms=until_ms, hour=start, files=(lot,) if lot else ())
                )
        return found


@dataclass(slots=True, kw_only=True)
class _Ticket:
    """One caller's batches on their way into the journal."""

    batches: Sequence[Batch]
    answers: list[Appended] | None = None
    failure: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fresh:
    """Rows of one family that are new, ready to be taken in."""

    things: Things
    rows: Rows
    senders: NDArray[np.int32]  # shape (rows,), places in `batches`
    batches: Sequence[Batch]


class Journal:
    """The journal's files in one folder. Only its last file grows; a file goes once DuckDB holds all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = -1
        self._end = 0  # what of the last file is acknowledged
        self._lasts: dict[Path, int] = {}  # closed and open files → their last number
        self._path = folder
        folder.mkdir(exist_ok=True)

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
            self._open(last)
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

    def _open(self, number: int) -> None:
        self._path = self._folder / f"{number:020d}.log"
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


class DuckStore:
    """Open the store in `folder`, which is made where it is missing. Raises StoreHeld where another process has it.

    memory_mib, threads: what DuckDB may use. slots: rows of each thing in the ring, 16 minutes at a tick of 10 s.
    Any thread may call; questions run beside one another and beside what is written.
    """

    def __init__(self, folder: Path, *, memory_mib: int = 1_024, threads: int = 2, slots: int = 96) -> None:
        self._folder = folder
        self._slots = slots
        self._lock = threading.RLock()
        self._keeping = threading.Lock()  # one rollup or expiry at a time
        self._queue: list[_Ticket] = []
        self._queue_lock = threading.Lock()
        self._readers = 0
        self._obsolete: list[Path] = []
        self._troubles: list[str] = []
        self._things: dict[str, Things] = {}
        self._files: Files = {}
        self._boots: dict[str, int] = {}
        self._boots_kept = 0
        self._seen: dict[int, Seen] = {}
        self._seen_from = 0  # of hours from here on, `_seen` knows every batch
        self._digests: list[tuple[int, bytes]] = []  # not yet in DuckDB
        self._held_from: dict[Tier, int] = dict.fromkeys(Tier, 0)
        self._applied = 0
        self._number = 0
        self._written = 0  # sealed files since the store was opened; a part of their names
        self._open_before: dict[
            tuple[str, int], int
        ] = {}  # rows that hours had open when `rollup` last looked
        folder.mkdir(parents=True, exist_ok=True)
        self._held = _held(folder)
        try:
            self._config: dict[str, str | bool | int | float | list[str]] = {
                "threads": threads,
                "memory_limit": f"{memory_mib}MiB",
                "temp_directory": str(folder / "tmp"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "checkpoint_threshold": "128MiB",
            }
            self._db = self._connected()
            self._load()
            self._journal = Journal(folder / "journal")
            self._replay()
        except BaseException:
            os.close(self._held)
            raise

    @property
    def troubles(self) -> tuple[str, ...]:
        """What was set aside or could not be read since the store was opened, a sentence each."""
        return tuple(self._troubles)

    # ---- written

    def place(self, family: Family, places: Mapping[str, Place]) -> None:
        with self._lock:
            things = self._of(family)
            news = {
                key: place for key, place in places.items()
                if key not in things.numbers or things.told[things.numbers[key]] != place
            }  # fmt: skip
            if news:
                told = Told(family=family.name, places=news)
                self._number += 1
                self._acknowledge(record_of(told, self._number))
                self._take_in_places(told)

    def append(self, batch: Batch) -> Appended:
        return self.append_all([batch])[0]

    def append_all(self, batches: Sequence[Batch]) -> Sequence[Appended]:
        """Whoever gets the lock writes for all who wait, so that they share one wait for the disk."""
        ticket = _Ticket(batches=batches)
        with self._queue_lock:
            self._queue.append(ticket)
        with self._lock:
            if ticket.answers is None and ticket.failure is None:
                with self._queue_lock:
                    tickets, self._queue = self._queue, []
                self._commit(tickets)
        if ticket.failure is not None:
            raise ticket.failure
        assert ticket.answers is not None
        return ticket.answers

    def _commit(self, tickets: Sequence[_Ticket]) -> None:
        try:
            self._make_room()
            batches: list[Batch] = []
            names: set[bytes] = set()
            taken: list[list[int]] = []  # per ticket and batch its place in `batches`, −1 for a repeated one
            for ticket in tickets:
                places = []
                for batch in ticket.batches:
                    digest = digest_of(batch.batch_id)
                    if digest in names or self._was_here(batch, digest):
                        places.append(-1)
                    else:
                        names.add(digest)
                        places.append(len(batches))
                        batches.append(batch)
                taken.append(places)
            fresh, rows = self._fresh(batches)
            if batches:
                first = self._number + 1
                self._number += len(batches)
                self._acknowledge(
                    b"".join(record_of(batch, first + place) for place, batch in enumerate(batches))
                )
                self._take_in(batches, fresh)
            for ticket, places in zip(tickets, taken, strict=True):
                ticket.answers = [
                    Appended(rows=0, repeated=True)
                    if place < 0
                    else Appended(rows=int(rows[place]), repeated=False)
                    for place in places
                ]
        except BaseException as failure:  # noqa: BLE001 - each caller gets it, in its own thread
            for ticket in tickets:
                if ticket.answers is None:
                    ticket.failure = failure

    def _acknowledge(self, data: bytes) -> None:
        try:
            self._journal.write(data, self._number)
        except OSError as why:
            raise StoreFull(str(self._folder), why.strerror or str(why)) from why

    def _make_room(self) -> None:
        """Move pending rows into DuckDB when they are many. Raises StoreFull where it takes none and memory is full."""
        pending = sum(things.pending_rows for things in self._things.values())
        if pending < PENDING_MAX:
            return
        try:
            self._flush()
        except StoreFull:
            if pending >= PENDING_LIMIT:
                raise

    def _was_here(self, batch: Batch, digest: bytes) -> bool:
        if not len(batch):
            return False
        hour = int(batch.ts_ms.min()) // HOUR_MS
        seen = self._seen.get(hour)
        if seen is not None and digest in seen:
            return True
        if hour >= self._seen_from or self._is_ahead(batch):
            return False
        head, tail = np.frombuffer(digest, dtype="<u8").tolist()
        found = self._db.execute(
            "SELECT 1 FROM batches WHERE hour = ? AND head = ? AND tail = ? LIMIT 1", [hour, head, tail]
        ).fetchone()
        return found is not None

    def _is_ahead(self, batch: Batch) -> bool:
        """Whether every row is newer than the newest of its thing: then none of them was here before."""
        things = self._of(batch.family)
        newest = things.ring.newest_ms
        for key, at_ms in zip(batch.keys, batch.ts_ms.tolist(), strict=True):
            thing = things.numbers.get(key)
            if thing is not None and thing < len(newest) and at_ms <= newest[thing]:
                return False
        return True

    def _fresh(self, batches: Sequence[Batch]) -> tuple[list[_Fresh], NDArray[np.int64]]:
        """The rows that are new, by family, and how many each batch has."""
        rows = np.zeros(len(batches), dtype=np.int64)
        fresh = []
        for name, family in FAMILIES.items():
            places = [
                place for place, batch in enumerate(batches) if batch.family.name == name and len(batch)
            ]
            if not places:
                continue
            things = self._of(family)
            found = self._columns(things, [batches[place] for place in places])
            senders = np.repeat(np.array(places, dtype=np.int32), [len(batches[place]) for place in places])
            order = np.lexsort((found.at_ms, found.things))
            found, senders = found.pick(order), senders[order]
            new = found.at_ms >= self._held_from[Tier.RAW]
            same = (found.things[1:] == found.things[:-1]) & (found.at_ms[1:] == found.at_ms[:-1])
            new[1:] &= ~same
            things.ring.reach(len(things.keys))
            late = np.flatnonzero(new & (found.at_ms <= things.ring.newest_ms[found.things]))
            if len(late):
                new[late[self._have(things, found.things[late], found.at_ms[late])]] = False
            found, senders = found.pick(new), senders[new]
            rows += np.bincount(senders, minlength=len(batches))
            fresh.append(_Fresh(things=things, rows=found, senders=senders, batches=batches))
        return fresh, rows

    def _columns(self, things: Things, batches: Sequence[Batch]) -> Rows:
        for batch in batches:
            if batch.family.fields != things.family.fields:
                raise ValueError(
                    f"batch {batch.batch_id}: fields of another {things.family.name} than this one's"
                )
            if batch.ts_ms.min() < 0 or batch.ts_ms.max() >> INSTANT_BITS:
                raise ValueError(f"batch {batch.batch_id}: an instant outside 1970 to 2248")
        number = things.number
        numbers = [number(key) for batch in batches for key in batch.keys]
        boots = [self._boots.setdefault(batch.boot_id, len(self._boots)) for batch in batches]
        sizes = [len(batch) for batch in batches]
        return Rows(
            things=np.array(numbers, dtype=np.int32),
            at_ms=np.concatenate([batch.ts_ms for batch in batches]).astype(np.int64),
            boots=np.repeat(np.array(boots, dtype=np.int32), sizes),
            patterns=things.patterns_of(np.concatenate([batch.codes for batch in batches])),
            values=np.ascontiguousarray(np.concatenate([batch.values for batch in batches]).T),
        )

    def _have(
        self, things: Things, numbers: NDArray[np.int32], at_ms: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each of these rows, none of them the newest of its thing, is here already."""
        have = np.zeros(len(numbers), dtype=np.bool_)
        in_ring = at_ms > things.ring.horizon_ms[numbers]
        if in_ring.any():
            have[in_ring] = things.ring.holds(numbers[in_ring], at_ms[in_ring])
        asked = np.flatnonzero(~in_ring)
        if not len(asked):
            return have
        names = _name(numbers[asked], at_ms[asked])
        here = np.zeros(len(asked), dtype=np.bool_)
        for part in things.pending:
            here |= np.isin(names, _name(part.things, part.at_ms))
        family, hours = things.family.name, np.unique(at_ms[asked] // HOUR_MS).tolist()
        lots = [f"hot_{family}"]
        files = [file for hour in hours if (file := self._files.get((Tier.RAW, family), {}).get(hour))]
        if files:
            lots.append(self._parquet(files))
        self._db.register("asked", {"thing": numbers[asked], "at_ms": at_ms[asked]})
        try:
            for lot in lots:
                found = self._numpy(
                    self._db, f"SELECT thing, at_ms FROM {lot} SEMI JOIN asked USING (thing, at_ms)"
                )
                here |= np.isin(names, _name(found["thing"], found["at_ms"]))
        except duckdb.Error as why:
            if not self._set_aside_broken(files, why):
                raise
            return self._have(things, numbers, at_ms)
        finally:
            self._db.unregister("asked")
        have[asked] = here
        return have

    def _take_in(self, batches: Sequence[Batch], fresh: Sequence[_Fresh]) -> None:
        """What is in the journal now, into memory: nothing here can be refused."""
        for batch in batches:
            if len(batch):
                digest, hour = digest_of(batch.batch_id), int(batch.ts_ms.min()) // HOUR_MS
                self._seen.setdefault(hour, Seen()).add(digest)
                self._digests.append((hour, digest))
        for each in fresh:
            if len(each.rows):
                self._meet(each)
                each.things.ring.put(each.rows)
                each.things.pending.append(each.rows)
                hours, counts = np.unique(each.rows.at_ms // HOUR_MS, return_counts=True)
                for hour, count in zip(hours.tolist(), counts.tolist(), strict=True):
                    each.things.open_rows[hour] = each.things.open_rows.get(hour, 0) + count

    def _meet(self, fresh: _Fresh) -> None:
        """Note where the newest rows of things come from, and when things were first seen."""
        things, rows = fresh.things, fresh.rows
        first = np.flatnonzero(np.concatenate(([True], rows.things[1:] != rows.things[:-1])))
        last = np.append(first[1:], len(rows)) - 1
        numbers = rows.things[first].tolist()
        newer = (rows.at_ms[last] > things.ring.newest_ms[rows.things[last]]).tolist()
        senders, born = fresh.senders[last].tolist(), rows.at_ms[first].tolist()
        known: dict[int, tuple[int, Place]] = {}
        for thing, is_newer, sender, born_ms in zip(numbers, newer, senders, born, strict=True):
            if born_ms < things.born_ms[thing]:
                things.born_ms[thing] = born_ms
                things.changed.add(thing)
            if not is_newer:
                continue
            batch = fresh.batches[sender]
            if sender not in known:
                words = (batch.node_id, batch.site, tuple(sorted(batch.sources.items())))
                known[sender] = hash(words), Place(node_id=batch.node_id, site=batch.site)
            mark, place = known[sender]
            if things.sender[thing] != mark:
                things.sender[thing] = mark
                things.seen[thing] = place
                things.sources[thing] = things.sources[thing] | dict(batch.sources)
                things.changed.add(thing)

    def _take_in_places(self, told: Told) -> None:
        things = self._of(FAMILIES[told.family])
        for key, place in told.places.items():
            thing = things.number(key)
            things.told[thing] = place
            things.changed.add(thing)
        things.ring.reach(len(things.keys))

    # ---- into DuckDB

    def _flush(self) -> None:
        """Pending rows and all that was learned with them, into DuckDB in one transaction; the journal may then go."""
        with self._lock:
            if self._applied == self._number:
                return
            try:
                self._db.begin()
                for things in self._things.values():
                    self._keep_things(things)
                    if things.pending:
                        rows = all_of(things.pending)
                        columns = _by_name(things.family, rows)
                        columns["lot"] = np.full(len(rows), self._number, dtype=np.int64)
                        self._insert(self._db, f"hot_{things.family.name}", columns)
                self._keep_names()
                self._db.execute("DELETE FROM meta WHERE name = 'applied'")
                self._db.execute("INSERT INTO meta VALUES ('applied', ?)", [self._number])
                self._db.commit()
            except (duckdb.Error, OSError) as why:
                self._recover(why)
                raise StoreFull(str(self._folder), _first_line(why)) from why
            for things in self._things.values():
                things.pending = []
                things.changed = set()
                things.patterns_kept = len(things.codes)
            self._boots_kept = len(self._boots)
            self._digests = []
            for hour in [hour for hour in self._seen if hour < self._seen_from]:
                del self._seen[hour]
            self._applied = self._number
            self._journal.forget(self._applied)

    def _keep_things(self, things: Things) -> None:
        family = things.family.name
        changed = sorted(things.changed)
        if changed:
            columns = {
                "family": np.array([family] * len(changed), dtype=object),
                "thing": np.array(changed, dtype=np.int32),
                "key": _texts(things.keys[thing] for thing in changed),
                "born_ms": np.array([things.born_ms[thing] for thing in changed], dtype=np.int64),
                "seen": _texts(_words(things.seen[thing]) for thing in changed),
                "told": _texts(_words(things.told[thing]) for thing in changed),
                "sources": _texts(json.dumps(things.sources[thing]) for thing in changed),
            }
            self._db.register("changed", columns)
            self._db.execute(
                "DELETE FROM things WHERE family = ? AND thing IN (SELECT thing FROM changed)", [family]
            )
            self._db.execute("INSERT INTO things SELECT * FROM changed")
            self._db.unregister("changed")
        for number in range(things.patterns_kept, len(things.codes)):
            self._db.execute(
                "INSERT INTO patterns VALUES (?, ?, ?)", [family, number, things.codes[number].tobytes()]
            )

    def _keep_names(self) -> None:
        fresh = [(number, name) for name, number in self._boots.items() if number >= self._boots_kept]
        if fresh:
            self._db.register(
                "fresh_boots",
                {
                    "boot": np.array([number for number, _ in fresh], dtype=np.int32),
                    "name": _texts(name for _, name in fresh),
                },
            )
            self._db.execute("INSERT INTO boots SELECT * FROM fresh_boots")
            self._db.unregister("fresh_boots")
        if self._digests:
            halves = np.frombuffer(b"".join(digest for _, digest in self._digests), dtype="<u8").reshape(
                -1, 2
            )
            hours = np.array([hour for hour, _ in self._digests], dtype=np.int32)
            order = np.argsort(hours, kind="stable")
            columns = {"hour": hours[order], "head": halves[order, 0].copy(), "tail": halves[order, 1].copy()}
            self._insert(self._db, "batches", columns)

    @staticmethod
    def _insert(cursor: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, NDArray[Any]]) -> None:
        cursor.register("fresh", dict(columns))
        try:
            cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM fresh")
        finally:
            cursor.unregister("fresh")

    def _recover(self, why: BaseException) -> None:
        """After a refusal: roll back, or open it anew where it gave itself up. Pending rows stay as they are."""
        log.warning("the metric store's database refused: %s", why)
        try:
            self._db.rollback()
            self._db.execute("SELECT count(*) FROM meta").fetchone()
        except duckdb.Error:
            with contextlib.suppress(duckdb.Error):
                self._db.close()
            with contextlib.suppress(duckdb.Error):
                self._db = self._connected()

    # ---- opened

    def _connected(self) -> duckdb.DuckDBPyConnection:
        db = duckdb.connect(str(self._folder / "open.duckdb"), config=self._config)
        db.execute("SET GLOBAL parquet_metadata_cache = true")
        db.execute(
            "SET GLOBAL validate_external_file_cache = 'NO_VALIDATION'"
        )  # a sealed file is never changed
        db.execute(SCHEMA)
        for family in FAMILIES.values():
            columns = ", ".join(f"{name} DOUBLE" for name in family.names)
            db.execute(f"CREATE TABLE IF NOT EXISTS hot_{family.name} ({STAMP}, lot BIGINT, {columns})")
            db.execute(f"CREATE TABLE IF NOT EXISTS newest_{family.name} ({STAMP}, {columns})")
            for name in family.names:
                for table in ("hot", "newest"):
                    db.execute(f"ALTER TABLE {table}_{family.name} ADD COLUMN IF NOT EXISTS {name} DOUBLE")
        return db

    def _of(self, family: Family) -> Things:
        things = self._things.get(family.name)
        if things is None:
            things = Things(family=family, ring=Ring(len(family.fields), self._slots))
            self._things[family.name] = things
        return things

    def _load(self) -> None:
        """What DuckDB knows, into memory."""
        db = self._db
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        self._applied = self._number = meta.get("applied", 0)
        for tier in Tier:
            self._held_from[tier] = meta.get(f"held_{tier}", 0)
        for family, thing, key, born_ms, seen, told, sources in db.execute(
            "SELECT * FROM things ORDER BY family, thing"
        ).fetchall():
            things = self._of(FAMILIES[family])
            number = things.number(key)
            assert number == thing, f"{family} {key} is number {thing} and not {number}"
            things.born_ms[thing] = born_ms
            things.seen[thing], things.told[thing] = _place(seen), _place(told)
            things.sources[thing] = json.loads(sources)
        for family, number, codes in db.execute("SELECT * FROM patterns ORDER BY family, pattern").fetchall():
            assert self._of(FAMILIES[family]).pattern(bytes(codes)) == number
        self._boots = {
            name: boot for boot, name in db.execute("SELECT * FROM boots ORDER BY boot").fetchall()
        }
        self._boots_kept = len(self._boots)
        files: dict[tuple[Tier, str], dict[int, File]] = {}
        for tier, family, hour, hours, name, fields, rows in db.execute("SELECT * FROM files").fetchall():
            file = File(
                tier=Tier(tier), family=family, hour=hour, hours=hours, name=name, fields=fields, rows=rows
            )
            if (self._folder / name).is_file():
                files.setdefault((file.tier, family), {})[hour] = file
            else:
                self._trouble(f"{name} is gone from the metric store: {rows} rows of it are lost")
        self._files = files
        self._sweep()
        for things in self._things.values():
            things.changed = set()
            things.patterns_kept = len(things.codes)
            self._restore(things)
        self._remember()

    def _restore(self, things: Things) -> None:
        """The ring as it was: the last quarter of an hour, and the newest row of what has been silent for longer."""
        family = things.family
        things.ring.reach(len(things.keys))
        for hour, count in self._db.execute(
            f"SELECT at_ms // {HOUR_MS}, count(*) FROM hot_{family.name} GROUP BY 1"
        ).fetchall():
            things.open_rows[hour] = count
        hours = set(things.open_rows) | set(self._files.get((Tier.RAW, family.name), {}))
        with self._view() as view:
            newest = self._rows(
                view.cursor, family, f"newest_{family.name}", "true", range(len(family.fields))
            )
            recent = no_rows(len(family.fields))
            horizon_ms = LONG_AGO
            if hours:
                last = max(hours)
                columns = range(len(family.fields))
                recent = self._raw(view, things, [last], columns, 0, 2**62)
                until_ms = int(recent.at_ms.max()) + 1 if len(recent) else last * HOUR_MS
                horizon_ms = until_ms - RING_MS
                if horizon_ms < last * HOUR_MS and last - 1 in hours:
                    before = self._raw(view, things, [last - 1], columns, horizon_ms, until_ms)
                    recent = all_of([recent, before])
                recent = recent.pick(recent.at_ms > horizon_ms).in_order()
                others = [hour for hour in things.open_rows if hour < last - 1 or hour < last]
                for hour in sorted(others):  # open still, and so perhaps newer than what was kept as newest
                    newest = all_of([newest, self._raw(view, things, [hour], columns, 0, horizon_ms + 1)])
        newest = newest.pick(newest.at_ms <= horizon_ms).in_order() if len(newest) else newest
        if len(newest):
            lasts = np.flatnonzero(np.concatenate((newest.things[1:] != newest.things[:-1], [True])))
            things.ring.put(newest.pick(lasts))
        things.ring.horizon_ms[:] = horizon_ms
        things.ring.put(recent)

    def _remember(self) -> None:
        """The names of the batches of recent hours, so that a repeat is known without asking DuckDB."""
        hours = [hour for things in self._things.values() for hour in things.open_rows]
        self._seen_from = max(hours, default=0) - 1
        found = self._numpy(
            self._db, "SELECT hour, head, tail FROM batches WHERE hour >= ?", [self._seen_from]
        )
        halves = np.column_stack((found["head"], found["tail"])).astype("<u8")
        for hour, digest in zip(found["hour"].tolist(), halves, strict=True):
            self._seen.setdefault(hour, Seen()).add(digest.tobytes())

    def _replay(self) -> None:
        """What the journal has beyond DuckDB, taken in as it was the first time."""
        batches: list[Batch] = []
        rows = 0
        for number, entry in self._journal.entries():
            self._number = max(self._number, number)
            if number <= self._applied:
                continue
            if isinstance(entry, Told):
                self._take_in_places(entry)
            else:
                batches.append(entry)
                rows += len(entry)
            if rows > PENDING_MAX:
                self._replay_batches(batches)
                batches, rows = [], 0
        self._replay_batches(batches)

    def _replay_batches(self, batches: Sequence[Batch]) -> None:
        names: set[bytes] = set()
        new = []
        for batch in batches:
            digest = digest_of(batch.batch_id)
            if digest not in names and not self._was_here(batch, digest):
                names.add(digest)
                new.append(batch)
        fresh, _ = self._fresh(new)
        self._take_in(new, fresh)

    def _sweep(self) -> None:
        """Remove what a kill left behind: files half written, and files that no transaction took over."""
        kept = {file.name for files in self._files.values() for file in files.values()}
        for path in sorted(self._folder.glob("*/*/*/*.parquet*")):
            name = path.relative_to(self._folder).as_posix()
            if name not in kept and not name.endswith(".broken"):
                path.unlink()

    def _trouble(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._troubles.append(sentence)
        del self._troubles[:-100]

    # ---- asked

    def latest(self, family: Family, keys: Sequence[str] | None = None) -> Latest:
        with self._lock:
            things = self._of(family)
            asked = sorted(things.numbers) if keys is None else keys
            found = [(key, things.numbers[key]) for key in asked if key in things.numbers]
            found = [(key, thing) for key, thing in found if things.ring.newest_ms[thing] != LONG_AGO]
            numbers = np.array([thing for _, thing in found], dtype=np.int32)
            rows = things.ring.newest(numbers)
            return Latest(
                family=family,
                keys=tuple(key for key, _ in found),
                places=tuple(things.place(thing) for _, thing in found),
                ts_ms=rows.at_ms,
                values=np.ascontiguousarray(rows.values.T),
                codes=things.codes_of(rows.patterns),
            )

    def range(
        self,
        family: Family,
        key: str,
        fields: Sequence[str],
        *,
        from_ms: int,
        until_ms: int,
        points_max: int | None = None,
    ) -> Series:
        columns = [family.index[name] for name in fields]
        things = self._of(family)
        asked = None
        if points_max is not None:
            asked = buckets_of(from_ms, until_ms, points_max, self._held_from)
            from_ms, until_ms = asked.from_ms, asked.until_ms
        else:
            from_ms = max(from_ms, self._held_from[Tier.RAW])
        thing = things.numbers.get(key, -1)
        if asked is None:
            rows = self._samples(things, thing, columns, from_ms, until_ms)
            tier, at_ms, boots = Tier.RAW, rows.at_ms, rows.boots
            values, patterns = np.ascontiguousarray(rows.values.T), rows.patterns
        else:
            tier = asked.tier
            rolled = self._rolled(things, thing, columns, asked)
            at_ms, boots, values, patterns = rolled.at_ms, rolled.boots, rolled.values(), rolled.patterns
        with self._lock:
            codes = things.codes_of(patterns)[:, columns]
        return Series(
            key=key, fields=tuple(fields), tier=tier, ts_ms=at_ms, values=values, codes=codes, boots=boots
        )

    def _rolled(self, things: Things, thing: int, columns: Sequence[int], asked: Buckets) -> Rolled:
        """One thing in the buckets that are asked for."""
        kinds = [things.family.fields[column].kind for column in columns]

        def merge(cells: Cells, patterns: NDArray[np.int32]) -> NDArray[np.int32]:
            with self._lock:
                return things.merged(cells, patterns)

        if asked.tier is Tier.RAW or (thing >= 0 and asked.from_ms > things.ring.horizon_ms[thing]):
            rows = self._samples(things, thing, columns, asked.from_ms, asked.until_ms)
            return coarser(by_tiers(kinds, rows, asked.step_ms, merge), asked.step_ms, merge)
        among = np.array([thing], dtype=np.int32)
        parts = [by_tiers(kinds, no_rows(len(columns)), STEP_MS[asked.tier], merge)]
        with self._view() as view:
            for piece in view.pieces(things.family.name, asked):
                if piece.files:
                    found = self._read(view, piece, things.family, columns, among, whole=True)
                    parts.append(_rolled_in(found, things.family, columns))
                else:
                    rows = self._raw(
                        view, things, [piece.hour], columns, piece.from_ms, piece.until_ms, among=among
                    )
                    parts.append(by_tiers(kinds, rows, STEP_MS[asked.tier], merge))
        return coarser(all_rolled(parts), asked.step_ms, merge)

    def _samples(
        self, things: Things, thing: int, columns: Sequence[int], from_ms: int, until_ms: int
    ) -> Rows:
        if thing < 0:
            return no_rows(len(columns))
        with self._lock:
            if from_ms > things.ring.horizon_ms[thing]:
                rows = things.ring.of_thing(thing, from_ms, until_ms)
                return Rows(
                    things=rows.things, at_ms=rows.at_ms, boots=rows.boots, patterns=rows.patterns,
                    values=rows.values[list(columns)],
                )  # fmt: skip
        with self._view() as view:
            hours = view.hours_of(things.family.name, from_ms, until_ms)
            among = np.array([thing], dtype=np.int32)
            return self._raw(view, things, hours, columns, from_ms, until_ms, among=among)

    def aggregate(
        self,
        family: Family,
        field: str,
        *,
        from_ms: int,
        until_ms: int,
        by: By = By.FLEET,
        keys: Sequence[str] | None = None,
        points_max: int = 300,
    ) -> Aggregate:
        things = self._of(family)
        column, kind = family.index[field], family[field].kind
        asked = buckets_of(from_ms, until_ms, points_max, self._held_from)
        with self._lock:
            wanted = (
                things.numbers.values()
                if keys is None
                else {things.numbers[key] for key in keys if key in things.numbers}
            )
            numbers = np.array(sorted(wanted), dtype=np.int32)
            names = [_group(things, thing, by) for thing in numbers.tolist()]
            everything = len(things.keys)
        groups = sorted(set(names))
        place = {name: number for number, name in enumerate(groups)}
        group_of = np.array([place[name] for name in names], dtype=np.int32)
        line_of = np.full(max(1, everything), -1, dtype=np.int32)
        line_of[numbers] = np.arange(len(numbers), dtype=np.int32)
        grid = Grid(kind, line_of, len(numbers), asked)
        if len(numbers) and not self._from_ring(grid, things, column, numbers, asked):
            with self._view() as view:
                self._from_disk(grid, view, things, column, numbers, asked)
        return grid.aggregate(field, by, groups, group_of)

    def _from_ring(
        self, grid: Grid, things: Things, column: int, numbers: NDArray[np.int32], asked: Buckets
    ) -> bool:
        """Fill the grid from memory, if memory reaches back far enough."""
        kind = things.family.fields[column].kind
        with self._lock:
            if asked.from_ms <= int(things.ring.horizon_ms[numbers].max()):
                return False
            since = LONG_AGO if kind is Kind.COUNTER else asked.from_ms
            rows = things.ring.column(column, numbers, since, asked.until_ms)
        within = rows.at_ms >= asked.from_ms
        before = None
        if not within.all():
            before, rows = rows.pick(~within), rows.pick(within)
        grid.put(chain(kind, asked.step_ms, rows.things, rows.at_ms, rows.values[0], rows.boots))
        if before is not None:
            _settle(grid, before.things, before.at_ms, before.values[0], before.boots)
        if kind is Kind.COUNTER and len(self._waiting(grid, things, numbers, asked.from_ms)):
            with self._view() as view:
                self._settle_from_disk(grid, view, things, column, numbers, asked.from_ms)
        return True

    def _from_disk(
        self,
        grid: Grid,
        view: _View,
        things: Things,
        column: int,
        numbers: NDArray[np.int32],
        asked: Buckets,
    ) -> None:
        family, kind = things.family, things.family.fields[column].kind
        step_ms = asked.step_ms if asked.tier is Tier.RAW else STEP_MS[asked.tier]
        for piece in view.pieces(family.name, asked):
            if piece.files:
                found = self._read(view, piece, family, [column], numbers)
                for rollup in _in_time(_rollup_in(found, family, column)):
                    grid.put(rollup)
            else:
                rows = self._raw(
                    view, things, [piece.hour], [column], piece.from_ms, piece.until_ms, among=numbers
                )
                grid.put(chain(kind, step_ms, rows.things, rows.at_ms, rows.values[0], rows.boots))
        if kind is Kind.COUNTER and len(self._waiting(grid, things, numbers, asked.from_ms)):
            self._settle_from_disk(grid, view, things, column, numbers, asked.from_ms)

    def _waiting(
        self, grid: Grid, things: Things, numbers: NDArray[np.int32], from_ms: int
    ) -> NDArray[np.int32]:
        """The things whose counter began before this range, as long as nobody said what it stood at."""
        waiting = numbers[grid.waiting()]
        born_ms = np.array([things.born_ms[thing] for thing in waiting.tolist()], dtype=np.int64)
        return np.asarray(waiting[born_ms < from_ms])

    def _settle_from_disk(
        self, grid: Grid, view: _View, things: Things, column: int, numbers: NDArray[np.int32], from_ms: int
    ) -> None:
        """Walk back, in ever longer strides, until every counter of the range has its value before it."""
        until_ms, stride = from_ms, 1
        begins_ms = (from_ms - 1) // HOUR_MS * HOUR_MS
        while len(waiting := self._waiting(grid, things, numbers, from_ms)):
            if until_ms <= min(things.born_ms[thing] for thing in waiting.tolist()):
                return
            tier = (
                Tier.HOUR if until_ms % HOUR_MS == 0 else Tier.MINUTE if until_ms % 60_000 == 0 else Tier.RAW
            )
            if tier is Tier.MINUTE and begins_ms < self._held_from[Tier.MINUTE]:
                tier = Tier.TEN_MINUTES
            step_ms = STEP_MS[tier] or until_ms - begins_ms
            asked = Buckets(
                tier=tier, step_ms=step_ms, from_ms=begins_ms, count=(until_ms - begins_ms) // step_ms
            )
            self._settle_within(grid, view, things, column, waiting, asked)
            until_ms, stride = begins_ms, min(2 * stride, 1_024)
            begins_ms -= stride * HOUR_MS

    def _settle_within(
        self, grid: Grid, view: _View, things: Things, column: int, waiting: NDArray[np.int32], asked: Buckets
    ) -> None:
        family = things.family
        found: list[tuple[NDArray[Any], ...]] = []
        for piece in view.pieces(family.name, asked):
            if piece.files:
                rollup = _rollup_in(self._read(view, piece, family, [column], waiting), family, column)
                assert rollup.last_boot is not None
                found.append((rollup.things, rollup.at_ms, rollup.last, rollup.last_boot))
            else:
                rows = self._raw(
                    view, things, [piece.hour], [column], piece.from_ms, piece.until_ms, among=waiting
                )
                found.append((rows.things, rows.at_ms, rows.values[0], rows.boots))
        if found:
            numbers, at_ms, values, boots = (np.concatenate(columns) for columns in zip(*found, strict=True))
            order = np.lexsort((at_ms, numbers))
            _settle(grid, numbers[order], at_ms[order], values[order], boots[order])

    def sources(self, family: Family, key: str) -> Mapping[str, str]:
        with self._lock:
            things = self._of(family)
            thing = things.numbers.get(key)
            return {} if thing is None else dict(things.sources[thing])

    # ---- read

    @contextlib.contextmanager
    def _view(self) -> Iterator[_View]:
        with self._lock:
            cursor = self._db.cursor()
            cursor.begin()
            cursor.execute("SELECT count(*) FROM meta").fetchone()  # from here on it sees what there is now
            view = _View(
                cursor=cursor,
                files=self._files,
                pending={name: tuple(things.pending) for name, things in self._things.items()},
                open_hours={name: frozenset(things.open_rows) for name, things in self._things.items()},
            )
            self._readers += 1
        try:
            yield view
        finally:
            with contextlib.suppress(duckdb.Error):
                cursor.close()
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    for path in self._obsolete:
                        path.unlink(missing_ok=True)
                    self._obsolete.clear()

    def _numpy(
        self, cursor: duckdb.DuckDBPyConnection, sql: str, values: Sequence[object] = ()
    ) -> dict[str, NDArray[Any]]:
        return {
            name: _filled(column) for name, column in cursor.execute(sql, list(values)).fetchnumpy().items()
        }

    def _parquet(self, files: Iterable[File]) -> str:
        names = ", ".join(_quoted(str(self._folder / file.name)) for file in files)
        return f"read_parquet([{names}])"

    def _read(
        self,
        view: _View,
        piece: _Piece,
        family: Family,
        columns: Sequence[int],
        among: NDArray[np.int32],
        *,
        whole: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Rolled rows of sealed files: of each field only what its kind has. whole: boots and patterns as well."""
        known = piece.files[-1].fields
        parts = ["thing", "at_ms", *(("boot", "pattern") if whole else ())]
        for column in columns:
            for name, kind in _parts_of(family, column):
                parts.append(name if column < known else f"NULL::{kind} AS {name}")
        sql = f"SELECT {', '.join(parts)} FROM {self._parquet(piece.files)} WHERE {_within(piece)} AND {_among(among)}"
        return self._numpy(view.cursor, sql)

    def _raw(
        self,
        view: _View,
        things: Things,
        hours: Sequence[int],
        columns: Sequence[int],
        from_ms: int,
        until_ms: int,
        *,
        among: NDArray[np.int32] | None = None,
    ) -> Rows:
        """Rows of some hours and fields, in order, wherever they are now."""
        family = things.family
        where = f"at_ms >= {from_ms} AND at_ms < {until_ms}"
        if among is not None:
            where += f" AND {_among(among)}"
        parts = [no_rows(len(columns))]
        files = [file for hour in hours if (file := view.file(Tier.RAW, family.name, hour))]
        for fields in sorted({file.fields for file in files}):
            same = [file for file in files if file.fields == fields]
            parts.append(self._rows(view.cursor, family, self._parquet(same), where, columns, fields))
        in_order = len(files) <= 1
        if any(hour in view.open_hours.get(family.name, ()) for hour in hours):
            in_order = False
            parts.append(self._rows(view.cursor, family, f"hot_{family.name}", where, columns))
            for rows in view.pending.get(family.name, ()):
                wanted = (rows.at_ms >= from_ms) & (rows.at_ms < until_ms)
                if among is not None:
                    wanted &= np.isin(rows.things, among)
                if wanted.any():
                    rows = rows.pick(wanted)
                    parts.append(replace(rows, values=rows.values[list(columns)]))
        found = all_of(parts)
        return found if in_order else found.in_order()

    def _rows(
        self,
        cursor: duckdb.DuckDBPyConnection,
        family: Family,
        lot: str,
        where: str,
        columns: Sequence[int],
        known: int | None = None,
    ) -> Rows:
        """known: how many of the family's fields the lot has."""
        names = [family.names[column] for column in columns]
        chosen = [
            name if known is None or column < known else f"NULL::DOUBLE AS {name}"
            for column, name in zip(columns, names, strict=True)
        ]
        sql = f"SELECT {', '.join(['thing, at_ms, boot, pattern', *chosen])} FROM {lot} WHERE {where}"
        found = self._numpy(cursor, sql)
        size = len(found["thing"])
        values = np.empty((len(names), size))
        for place, name in enumerate(names):
            values[place] = found[name]
        return Rows(
            things=found["thing"],
            at_ms=found["at_ms"],
            boots=found["boot"],
            patterns=found["pattern"],
            values=values,
        )

    # ---- kept house

    def rollup(self, *, now_ms: int) -> None:
        with self._keeping:
            self._flush()
            for things in list(self._things.values()):
                for hour in self._due(things, now_ms):
                    self._seal(things, hour)
                self._join_days(things.family.name, now_ms)

    def _due(self, things: Things, now_ms: int) -> list[int]:
        """The hours to seal: over for a while, and quiet where a large file would be written again for few rows."""
        with self._lock:
            family = things.family.name
            raw = self._files.get((Tier.RAW, family), {})
            due = set()
            for hour, rows in things.open_rows.items():
                quiet = self._open_before.get((family, hour)) == rows
                if hour not in raw or raw[hour].rows < SMALL_ROWS or rows * 50 > raw[hour].rows or quiet:
                    due.add(hour)
                self._open_before[family, hour] = rows
            for tier in ROLLED:
                covered = self._covered(tier, family)
                due |= {hour for hour in raw.keys() - covered if hour * HOUR_MS >= self._held_from[tier]}
            return sorted(hour for hour in due if (hour + 1) * HOUR_MS + GRACE_MS <= now_ms)

    def _covered(self, tier: Tier, family: str) -> set[int]:
        files = self._files.get((tier, family), {}).values()
        return {hour for file in files for hour in range(file.hour, file.hour + file.hours)}

    def _seal(self, things: Things, hour: int) -> None:
        """Write one hour's rows and rollups, and let them stand for what DuckDB had of it."""
        family = things.family
        fresh: list[File] = []
        raw: File | None = None
        try:
            with self._view() as view:
                lot = self._lot_of(view)
                raw = view.file(Tier.RAW, family.name, hour)
                rolled = any(hour in self._covered(tier, family.name) for tier in ROLLED)
                if hour in view.open_hours[family.name]:
                    fresh.append(self._write_rows(view, family, hour, raw, lot))
                if (
                    raw is not None or not rolled
                ):  # else what the rollups were made of is gone: they stay as they are
                    fresh += self._write_rollups(view, things, hour, fresh[0] if fresh else raw, lot)
            self._take_over(things, hour, fresh, lot)
        except (duckdb.Error, OSError) as why:
            for file in fresh:
                (self._folder / file.name).unlink(missing_ok=True)
            if not self._set_aside_broken([raw] if raw else [], why):
                raise StoreFull(str(self._folder), _first_line(why)) from why

    @staticmethod
    def _lot_of(view: _View) -> int:
        """Up to where the journal is in what this view sees."""
        found = view.cursor.execute("SELECT value FROM meta WHERE name = 'applied'").fetchone()
        return int(found[0]) if found else 0

    def _write_rows(self, view: _View, family: Family, hour: int, old: File | None, lot: int) -> File:
        names = ", ".join(family.names)
        columns = f"thing, at_ms, boot, pattern, {names}"
        lots = [
            (
                f"SELECT {columns} FROM hot_{family.name} WHERE at_ms >= {hour * HOUR_MS}"
                f" AND at_ms < {(hour + 1) * HOUR_MS} AND lot <= {lot}"
            )
        ]
        if old is not None:
            known = family.names[: old.fields]
            missing = [f"NULL::DOUBLE AS {name}" for name in family.names[old.fields :]]
            chosen = ", ".join(["thing, at_ms, boot, pattern", *known, *missing])
            lots.append(f"SELECT {chosen} FROM {self._parquet([old])}")
        return self._write(
            view, Tier.RAW, family, hour, 1, lot,
            f"""SELECT r.thing, t.key, r.at_ms, r.boot, b.name AS boot_name, r.pattern, p.codes, {names}
            FROM ({" UNION ALL ".join(lots)}) r JOIN boots b USING (boot)
            JOIN things t ON t.family = '{family.name}' AND t.thing = r.thing
            JOIN patterns p ON p.family = '{family.name}' AND p.pattern = r.pattern
            ORDER BY r.thing, r.at_ms""",
        )  # fmt: skip

    def _write_rollups(
        self, view: _View, things: Things, hour: int, raw: File | None, lot: int
    ) -> list[File]:
        if raw is None:
            return []
        family, cursor = things.family, view.cursor
        kinds = [field.kind for field in family.fields]
        everything = range(len(family.fields))

        def merge(cells: Cells, patterns: NDArray[np.int32]) -> NDArray[np.int32]:
            with self._lock:
                return things.merged(cells, patterns)

        lot_of_rows = self._parquet([raw])
        tables: set[Tier] = set()
        for first, last in self._slices(cursor, lot_of_rows):
            where = f"thing BETWEEN {first} AND {last}"
            rows = self._rows(cursor, family, lot_of_rows, where, everything, raw.fields)
            rolled: Rolled | None = None
            for tier in ROLLED:
                step_ms = STEP_MS[tier]
                rolled = (
                    by_tiers(kinds, rows, step_ms, merge)
                    if rolled is None
                    else coarser(rolled, step_ms, merge)
                )
                cursor.register("fresh", _columns_of(rolled, family))
                if tier in tables:
                    cursor.execute(f"INSERT INTO rolled_{tier} SELECT * FROM fresh")
                else:
                    cursor.execute(f"CREATE OR REPLACE TEMP TABLE rolled_{tier} AS SELECT * FROM fresh")
                    tables.add(tier)
                cursor.unregister("fresh")
        fresh = []
        for tier in ROLLED:
            day = self._day_of(view, tier, family.name, hour)
            select = (
                f"SELECT t.key, r.* FROM rolled_{tier} r"
                f" JOIN things t ON t.family = '{family.name}' AND t.thing = r.thing"
            )
            if day is not None:
                select += (
                    f" UNION ALL BY NAME SELECT * FROM {self._parquet([day])}"
                    f" WHERE at_ms < {hour * HOUR_MS} OR at_ms >= {(hour + 1) * HOUR_MS}"
                )
            begin, hours = (day.hour, day.hours) if day else (hour, 1)
            fresh.append(
                self._write(
                    view, tier, family, begin, hours, lot, f"SELECT * FROM ({select}) ORDER BY thing, at_ms"
                )
            )
            cursor.execute(f"DROP TABLE rolled_{tier}")
        return fresh

    @staticmethod
    def _day_of(view: _View, tier: Tier, family: str, hour: int) -> File | None:
        """The file of several hours that holds this one."""
        day = view.file(tier, family, hour // 24 * 24)
        return day if day is not None and day.hours > 1 else None

    @staticmethod
    def _slices(cursor: duckdb.DuckDBPyConnection, lot: str) -> list[tuple[int, int]]:
        """Ranges of things with about ROLL_ROWS rows each."""
        counts = cursor.execute(f"SELECT thing, count(*) FROM {lot} GROUP BY thing ORDER BY thing").fetchall()
        slices: list[tuple[int, int]] = []
        rows, first = 0, -1
        for thing, count in counts:
            first = thing if first < 0 else first
            rows += count
            if rows >= ROLL_ROWS or thing == counts[-1][0]:
                slices.append((first, thing))
                rows, first = 0, -1
        return slices

    def _write(
        self, view: _View, tier: Tier, family: Family, hour: int, hours: int, lot: int, select: str
    ) -> File:
        """A sealed file, whole and on disk when this returns, and not yet part of the store."""
        at = datetime.fromtimestamp(hour * 3_600, UTC)
        self._written += 1
        stem = "day" if hours > 1 else f"{at:%H}"
        name = f"{tier}/{family.name}/{at:%Y-%m-%d}/{stem}-{lot}-{self._written}.parquet"
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".parquet.half")
        try:
            (rows,) = view.cursor.execute(
                f"COPY ({select}) TO {_quoted(str(half))}"
                f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
            ).fetchone() or (0,)
            sync_file(half)
            half.rename(path)
            sync_folder(path.parent)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        return File(
            tier=tier,
            family=family.name,
            hour=hour,
            hours=hours,
            name=name,
            fields=len(family.fields),
            rows=rows,
        )

    def _take_over(self, things: Things, hour: int, fresh: Sequence[File], lot: int) -> None:
        """From here on the fresh files count, and the rows in them no longer in DuckDB: one transaction."""
        family = things.family
        with self._lock:
            self._flush()
            self._db.begin()
            try:
                begin, end = hour * HOUR_MS, (hour + 1) * HOUR_MS
                self._db.execute(
                    f"DELETE FROM hot_{family.name} WHERE at_ms >= ? AND at_ms < ? AND lot <= ?",
                    [begin, end, lot],
                )
                (left,) = self._db.execute(
                    f"SELECT count(*) FROM hot_{family.name} WHERE at_ms >= ? AND at_ms < ?",
                    [begin, end],
                ).fetchone() or (0,)
                self._keep_newest(things)
                self._record(fresh, ())
                self._db.commit()
            except BaseException:
                with contextlib.suppress(duckdb.Error):
                    self._db.rollback()
                raise
            self._swap(fresh, ())
            if left:
                things.open_rows[hour] = left
            else:
                things.open_rows.pop(hour, None)
                self._open_before.pop((family.name, hour), None)
            still_open = [hour for each in self._things.values() for hour in each.open_rows]
            self._seen_from = max(self._seen_from, min(still_open, default=hour) - 1)

    def _keep_newest(self, things: Things) -> None:
        """The newest rows, for the next start: of what has been silent for long, its file is far back."""
        family = things.family
        known = np.flatnonzero(things.ring.newest_ms[: len(things.keys)] != LONG_AGO).astype(np.int32)
        self._db.execute(f"DELETE FROM newest_{family.name}")
        self._insert(self._db, f"newest_{family.name}", _by_name(family, things.ring.newest(known)))

    def _record(self, fresh: Sequence[File], gone: Sequence[File]) -> None:
        for file in gone:
            self._db.execute("DELETE FROM files WHERE name = ?", [file.name])
        for file in fresh:
            self._db.execute(
                "DELETE FROM files WHERE tier = ? AND family = ? AND hour = ?",
                [file.tier, file.family, file.hour],
            )
            self._db.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                [file.tier, file.family, file.hour, file.hours, file.name, file.fields, file.rows],
            )

    def _swap(self, fresh: Sequence[File], gone: Sequence[File]) -> None:
        """The same in memory. Old files go when nobody reads any longer."""
        files = {place: dict(held) for place, held in self._files.items()}
        for file in (*gone, *fresh):
            held = files.setdefault((file.tier, file.family), {})
            old = held.pop(file.hour, None)
            if old is not None:
                self._obsolete.append(self._folder / old.name)
        for file in fresh:
            files[file.tier, file.family][file.hour] = file
        self._files = files
        if not self._readers:
            for path in self._obsolete:
                path.unlink(missing_ok=True)
            self._obsolete.clear()

    def _join_days(self, family: str, now_ms: int) -> None:
        """The hourly rollups of a day that is over become one file: a year is then 365 files and not 8,760."""
        with self._lock:
            hourly = [file for file in self._files.get((Tier.HOUR, family), {}).values() if file.hours == 1]
            open_days = {hour // 24 for hour in self._things[family].open_rows}
        days: dict[int, list[File]] = {}
        for file in hourly:
            if (file.hour // 24 + 1) * 24 * HOUR_MS + GRACE_MS <= now_ms and file.hour // 24 not in open_days:
                days.setdefault(file.hour // 24, []).append(file)
        for day, files in sorted(days.items()):
            begin = self._files[Tier.HOUR, family].get(day * 24)
            together = [*files, begin] if begin is not None and begin.hours > 1 else files
            lots = " UNION ALL BY NAME ".join(f"SELECT * FROM {self._parquet([file])}" for file in together)
            try:
                with self._view() as view:
                    lot = self._lot_of(view)
                    select = f"SELECT * FROM ({lots}) ORDER BY thing, at_ms"
                    joined = self._write(view, Tier.HOUR, FAMILIES[family], day * 24, 24, lot, select)
                with self._lock:
                    self._db.begin()
                    self._record([joined], files)
                    self._db.commit()
                    self._swap([joined], files)
            except (duckdb.Error, OSError) as why:
                if not self._set_aside_broken(together, why):
                    raise StoreFull(str(self._folder), _first_line(why)) from why

    def expire(self, *, now_ms: int, retention: Retention) -> int:
        with self._keeping, self._lock:
            self._flush()
            held = {
                tier: max(self._held_from[tier], floor) for tier, floor in floors(now_ms, retention).items()
            }
            gone = [
                file for files in self._files.values() for file in files.values()
                if (file.hour + file.hours) * HOUR_MS <= held[file.tier]
            ]  # fmt: skip
            self._db.begin()
            try:
                self._record((), gone)
                for tier, floor in held.items():
                    self._db.execute("DELETE FROM meta WHERE name = ?", [f"held_{tier}"])
                    self._db.execute("INSERT INTO meta VALUES (?, ?)", [f"held_{tier}", floor])
                self._db.execute("DELETE FROM batches WHERE hour < ?", [held[Tier.RAW] // HOUR_MS])
                for things in self._things.values():
                    self._keep_newest(things)
                    self._db.execute(
                        f"DELETE FROM hot_{things.family.name} WHERE at_ms < ?",
                        [held[Tier.RAW]],
                    )
                self._db.commit()
            except BaseException:
                with contextlib.suppress(duckdb.Error):
                    self._db.rollback()
                raise
            self._held_from = held
            self._swap((), gone)
            for things in self._things.values():
                for hour in [hour for hour in things.open_rows if (hour + 1) * HOUR_MS <= held[Tier.RAW]]:
                    del things.open_rows[hour]
            return len(gone)

    def _set_aside_broken(self, files: Iterable[File], why: BaseException) -> bool:
        """Look through `files`, or those that the refusal names, for harmed ones; whether any was set aside."""
        told = str(why)
        suspects = {file.name: file for file in files}
        for held in self._files.values():
            suspects |= {file.name: file for file in held.values() if file.name in told}
        broken = [file for file in suspects.values() if not self._is_whole(file)]
        with self._lock:
            if broken:
                self._db.begin()
                self._record((), broken)
                self._db.commit()
            for file in broken:
                path = self._folder / file.name
                if path.exists():
                    path.rename(path.with_suffix(".parquet.broken"))
                self._trouble(f"{file.name} is harmed and was set aside: its {file.rows} rows cannot be read")
            self._swap((), broken)
        return bool(broken)

    def _is_whole(self, file: File) -> bool:
        try:
            with contextlib.closing(self._db.cursor()) as cursor:
                cursor.execute(f"SELECT max(COLUMNS(*)) FROM {self._parquet([file])}").fetchall()
        except duckdb.Error:
            return False
        return True

    def close(self) -> None:
        with self._keeping, self._lock:
            if self._held < 0:
                return
            try:
                self._flush()
            except StoreFull as why:
                log.warning("closing without moving rows on: %s", why)  # they stay in the journal
            self._journal.close()
            self._db.close()
            os.close(self._held)
            self._held = -1


def _held(folder: Path) -> int:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as why:
        os.close(handle)
        raise StoreHeld(str(folder)) from why
    return handle


def _group(things: Things, thing: int, by: By) -> str:
    if by is By.FLEET:
        return "fleet"
    if by is By.KEY:
        return things.keys[thing]
    place = things.place(thing)
    return place.site if by is By.SITE else place.model if by is By.MODEL else place.node_id


def _settle(
    grid: Grid,
    things: NDArray[np.int32],
    at_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    boots: NDArray[np.int32],
) -> None:
    """Tell the grid the last known value of each thing among rows that are in order."""
    known = np.flatnonzero(~np.isnan(values))
    things = things[known]
    lasts = known[np.concatenate((things[1:] != things[:-1], [True]))] if len(known) else known
    grid.settle(things[np.searchsorted(known, lasts)], values[lasts], boots[lasts])


def _name(things: NDArray[np.int32], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Thing and instant as one number."""
    return (things.astype(np.int64) << INSTANT_BITS) | at_ms


def _filled(column: Any) -> NDArray[Any]:
    if not isinstance(column, np.ma.MaskedArray):
        return np.asarray(column)
    if column.dtype.kind == "f":
        return np.asarray(column.filled(np.nan))
    return np.asarray(column.filled(0))


def _by_name(family: Family, rows: Rows) -> dict[str, NDArray[Any]]:
    """Rows as columns of a table; what is not known becomes NULL there."""
    columns: dict[str, NDArray[Any]] = {
        "thing": rows.things, "at_ms": rows.at_ms, "boot": rows.boots, "pattern": rows.patterns,
    }  # fmt: skip
    columns |= {name: np.ascontiguousarray(rows.values[place]) for place, name in enumerate(family.names)}
    return columns


def _parts_of(family: Family, column: int) -> list[tuple[str, str]]:
    """The columns of one field's rollup, and their types."""
    name, kind = family.names[column], family.fields[column].kind
    parts = [(f"{name}_count", "INTEGER")]
    parts += [(f"{name}_{part}", "DOUBLE") for part in ("low", "high", "total", "last")]
    if kind is Kind.COUNTER:
        parts += [(f"{name}_{part}", "DOUBLE") for part in ("first", "delta")]
        parts += [(f"{name}_{part}", "INTEGER") for part in ("first_boot", "last_boot")]
    return parts


def _columns_of(rolled: Rolled, family: Family) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        "thing": rolled.things, "at_ms": rolled.at_ms, "boot": rolled.boots, "pattern": rolled.patterns,
    }  # fmt: skip
    for column, rollup in enumerate(rolled.fields):
        stem = family.names[column]
        for name, kind in _parts_of(family, column):
            part = getattr(rollup, name.removeprefix(f"{stem}_"))
            columns[name] = part.astype(np.int32) if kind == "INTEGER" else part
    return columns


def _rollup_in(found: Mapping[str, NDArray[Any]], family: Family, column: int) -> Rollup:
    stem = family.names[column]
    parts: dict[str, Any] = {
        name.removeprefix(f"{stem}_"): found[name].astype(
            np.int32 if kind == "INTEGER" else np.float64, copy=False
        )
        for name, kind in _parts_of(family, column)
    }
    parts["count"] = parts["count"].astype(np.int64)
    return Rollup(kind=family.fields[column].kind, things=found["thing"], at_ms=found["at_ms"], **parts)


def _rolled_in(found: Mapping[str, NDArray[Any]], family: Family, columns: Sequence[int]) -> Rolled:
    return Rolled(
        things=found["thing"], at_ms=found["at_ms"], boots=found["boot"], patterns=found["pattern"],
        fields=tuple(_rollup_in(found, family, column) for column in columns),
    )  # fmt: skip


def _in_time(rollup: Rollup) -> Iterator[Rollup]:
    """What several files hold, behind one another in the order of time, file by file: each begins with a low thing."""
    cuts = np.flatnonzero(rollup.things[1:] < rollup.things[:-1]) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(rollup.things)]):
        yield picked(rollup, slice(start, stop))


def _within(piece: _Piece) -> str:
    return f"at_ms >= {piece.from_ms} AND at_ms < {piece.until_ms}"


def _among(things: NDArray[np.int32]) -> str:
    """A condition that lets these things through, and perhaps others where they are many."""
    if len(things) <= 64:
        return f"thing IN ({', '.join(map(str, things.tolist()))})" if len(things) else "false"
    return f"thing BETWEEN {things.min()} AND {things.max()}"


def _texts(texts: Iterable[str | None]) -> NDArray[Any]:
    return np.array(list(texts), dtype=object)


def _words(place: Place | None) -> str | None:
    return None if place is None else json.dumps(asdict(place))


def _place(words: str | None) -> Place | None:
    return None if words is None else Place(**json.loads(words))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(why: BaseException) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0]
