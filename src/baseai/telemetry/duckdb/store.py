"""The metric store of one machine: a ring in memory, a journal, a DuckDB file for open hours, Parquet for sealed ones.

Invariant: a row is acknowledged once the journal is on disk; from there it is in exactly one of pending rows, the
database and a sealed file, and moves between them in one transaction. What the database holds says up to which number
the journal is in it, so that a kill anywhere replays the rest and doubles nothing. One process has the folder open.
"""

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.duckdb.answer import fill, rolled_of, settle, settle_from_disk, waiting
from baseai.telemetry.duckdb.database import FILE, connected, insert
from baseai.telemetry.duckdb.journal import Journal
from baseai.telemetry.duckdb.rebuild import rebuilt
from baseai.telemetry.duckdb.seal import Seal, write_names
from baseai.telemetry.duckdb.view import View, columns_from, parquet
from baseai.telemetry.field import FAMILIES, Family, Kind
from baseai.telemetry.grid import Grid
from baseai.telemetry.journal import Told, record_of
from baseai.telemetry.layout import table_of_rows
from baseai.telemetry.ring import LONG_AGO, Ring
from baseai.telemetry.rolled import Merge, Rolled, by_tiers, coarser
from baseai.telemetry.rollup import Cells, chain
from baseai.telemetry.rows import Rows, all_of, no_rows
from baseai.telemetry.sample import Batch
from baseai.telemetry.seen import Seen, digest_of
from baseai.telemetry.shelf import DAY_H, File, Shelf
from baseai.telemetry.store import (
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

T = TypeVar("T")

PENDING_MAX = 262_144  # rows in memory and the journal only; more go into the database
PENDING_LIMIT = 4 * PENDING_MAX  # rows while the database takes none; beyond, nothing more is acknowledged
INSTANT_BITS = 43  # milliseconds until the year 2248
RING_MS = 900_000
SMALL_ROWS = 200_000  # a sealed file below this is written again for any late row
GRACE_MS = 60_000  # after the end of an hour, for what comes a little late


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
        self._shelf = Shelf()
        self._boots: dict[str, int] = {}
        self._boots_kept = 0
        self._seen: dict[int, Seen] = {}
        self._seen_from = 0  # of hours from here on, `_seen` knows every batch
        self._digests: list[tuple[int, bytes]] = []  # not yet in DuckDB
        self._held_from: dict[Tier, int] = dict.fromkeys(Tier, 0)
        self._applied = 0
        self._number = 0
        self._open_before: dict[
            tuple[str, int], int
        ] = {}  # rows that hours had open when `rollup` last looked
        folder.mkdir(parents=True, exist_ok=True)
        self._held = _held(folder)
        try:
            self._open = partial(connected, folder, memory_mib=memory_mib, threads=threads)
            self._db = self._opened()
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
        for batch in batches:
            _check(batch)
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
        ).fetchall()
        return bool(found)

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
            late = np.flatnonzero(new & (found.at_ms <= things.ring.newest_ms[found.things]))
            if len(late):
                new[late[self._have(things, found.things[late], found.at_ms[late])]] = False
            found, senders = found.pick(new), senders[new]
            rows += np.bincount(senders, minlength=len(batches))
            fresh.append(_Fresh(things=things, rows=found, senders=senders, batches=batches))
        return fresh, rows

    def _columns(self, things: Things, batches: Sequence[Batch]) -> Rows:
        number = things.number
        numbers = [number(key) for batch in batches for key in batch.keys]
        things.ring.reach(len(things.keys))
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
        files = [file for hour in hours if (file := self._shelf.file(Tier.RAW, family, hour))]
        if files:
            lots.append(parquet(self._folder, files))
        self._db.register("asked", {"thing": numbers[asked], "at_ms": at_ms[asked]})
        try:
            for lot in lots:
                found = columns_from(
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
                things.moved(thing)

    def _take_in_places(self, told: Told) -> None:
        things = self._of(FAMILIES[told.family])
        for key, place in told.places.items():
            thing = things.number(key)
            things.told[thing] = place
            things.moved(thing)
        things.ring.reach(len(things.keys))

    # ---- into the database

    def _flush(self) -> None:
        """Pending rows and all that was learned with them, into DuckDB in one transaction; the journal may then go."""
        with self._lock:
            if self._applied == self._number:
                return
            try:
                with self._transaction():
                    for things in self._things.values():
                        self._keep_things(things)
                        if things.pending:
                            rows = all_of(things.pending)
                            lots = {"lot": np.full(len(rows), self._number, dtype=np.int64)}
                            insert(
                                self._db,
                                f"hot_{things.family.name}",
                                table_of_rows(things.family, rows) | lots,
                            )
                    self._keep_names()
                    self._db.execute("DELETE FROM meta WHERE name = 'applied'")
                    self._db.execute("INSERT INTO meta VALUES ('applied', ?)", [self._number])
            except (duckdb.Error, OSError) as why:
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
            insert(self._db, "batches", columns)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing of what is written within. A database that gave itself up is opened anew."""
        try:
            self._db.begin()
            yield
            self._db.commit()
        except BaseException as why:
            log.warning("the database of the metric store took nothing: %s", why)
            try:
                self._db.rollback()
                self._db.execute("SELECT count(*) FROM meta").fetchall()
            except duckdb.Error:
                with contextlib.suppress(duckdb.Error):
                    self._db.close()
                with contextlib.suppress(duckdb.Error):
                    self._db = self._open()
            raise

    # ---- opened

    def _opened(self) -> duckdb.DuckDBPyConnection:
        try:
            return self._open()
        except duckdb.Error as why:
            log.warning("the database of the metric store cannot be read: %s", why)
            db = rebuilt(self._folder, self._open)
            self._trouble(
                f"{FILE} could not be read and was set aside: sealed hours are whole, of open hours only what the"
                " journal still had"
            )
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
        for tier, family, hour, hours, names, fields, rows, is_day in db.execute(
            "SELECT * FROM files"
        ).fetchall():
            file = File(
                tier=Tier(tier), family=family, hour=hour, hours=tuple(hours), names=tuple(names), fields=fields,
                rows=rows, is_day=is_day,
            )  # fmt: skip
            if all((self._folder / name).is_file() for name in names):
                files.setdefault((file.tier, family), {})[hour] = file
            else:
                self._trouble(f"{names[0]} is gone from the metric store: {rows} rows are lost with it")
        self._shelf = Shelf(files=files)
        self._sweep()
        for things in self._things.values():
            things.changed = set()
            things.patterns_kept = len(things.codes)
            self._restore(things)
        self._remember()

    def _restore(self, things: Things) -> None:
        """The ring as it was: the last quarter of an hour, and the newest row of what has been silent for longer."""
        family, name = things.family, things.family.name
        things.ring.reach(len(things.keys))
        for hour, count in self._db.execute(
            f"SELECT at_ms // {HOUR_MS}, count(*) FROM hot_{name} GROUP BY 1"
        ).fetchall():
            things.open_rows[hour] = count
        hours = things.open_rows.keys() | self._shelf.of(Tier.RAW, name).keys()
        if not hours:
            return
        columns = range(len(family.fields))
        with self._view() as view:
            newest_hour = max(hours)
            at_ms = view.raw(family, [newest_hour], [], 0, 2**62).at_ms
            until_ms = int(at_ms.max(initial=newest_hour * HOUR_MS)) + 1
            horizon_ms = until_ms - RING_MS
            recent = view.raw(family, [newest_hour - 1, newest_hour], columns, horizon_ms + 1, until_ms)
            older = f"SELECT thing, max(at_ms) FROM hot_{name} WHERE at_ms <= {horizon_ms} GROUP BY thing"
            silent = all_of(
                [
                    view.rows(family, f"newest_{name}", f"at_ms <= {horizon_ms}", columns),
                    view.rows(family, f"hot_{name}", f"(thing, at_ms) IN ({older})", columns),
                ]
            ).in_order()
        if len(silent):
            ends = np.concatenate((silent.things[1:] != silent.things[:-1], [True]))
            things.ring.put(silent.pick(ends))
        things.ring.horizon_ms[:] = horizon_ms
        things.ring.put(recent)

    def _remember(self) -> None:
        """The names of the batches of recent hours, so that a repeat is known without asking DuckDB."""
        hours = [hour for things in self._things.values() for hour in things.open_rows]
        hours += [
            file.hour for files in self._shelf.files.values() for file in files.values() if not file.is_day
        ]
        self._seen_from = max(hours, default=0) - 1
        found = columns_from(
            self._db, f"SELECT hour, head, tail FROM batches WHERE hour >= {self._seen_from}"
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
        kept = {
            name for files in self._shelf.files.values() for file in files.values() for name in file.names
        }
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
        with self._lock:
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

    def _merge(self, things: Things) -> Merge:
        def merge(cells: Cells, patterns: NDArray[np.int32]) -> NDArray[np.int32]:
            with self._lock:
                return things.merged(cells, patterns)

        return merge

    def _rolled(self, things: Things, thing: int, columns: Sequence[int], asked: Buckets) -> Rolled:
        """One thing in the buckets that are asked for."""
        merge = self._merge(things)
        if asked.tier is Tier.RAW or (thing >= 0 and asked.from_ms > things.ring.horizon_ms[thing]):
            kinds = [things.family.fields[column].kind for column in columns]
            rows = self._samples(things, thing, columns, asked.from_ms, asked.until_ms)
            return coarser(by_tiers(kinds, rows, asked.step_ms, merge), asked.step_ms, merge)
        return self._looked_up(lambda view: rolled_of(view, things, thing, columns, asked, merge))

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
        only = np.array([thing], dtype=np.int32)

        def look_up(view: View) -> Rows:
            hours = view.shelf.hours_of(things.family.name, from_ms, until_ms)
            return view.raw(things.family, hours, columns, from_ms, until_ms, things=only)

        return self._looked_up(look_up)

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
            groups, of_thing = things.groups(by)
            everything = len(things.keys)
            if keys is None:
                numbers = np.arange(everything, dtype=np.int32)
            else:
                asked_for = {things.numbers[key] for key in keys if key in things.numbers}
                numbers = np.array(sorted(asked_for), dtype=np.int32)
        group_of = of_thing[numbers]
        if keys is not None:  # then few of the groups
            places, inverse = np.unique(group_of, return_inverse=True)
            groups, group_of = [groups[place] for place in places.tolist()], inverse.astype(np.int32)
        line_of = np.full(everything + 1, -1, dtype=np.int32)
        line_of[numbers] = np.arange(len(numbers), dtype=np.int32)

        def empty() -> Grid:
            return Grid(kind, asked, line_of=line_of, group_of=group_of, groups=len(groups))

        def look_up(view: View) -> Grid:
            grid = empty()
            fill(grid, view, things, column, numbers, asked)
            settle_from_disk(grid, view, things, column, numbers, asked.from_ms, self._held_from[Tier.MINUTE])
            return grid

        grid = self._from_ring(empty(), things, column, numbers, asked) if len(numbers) else empty()
        if grid is None:
            grid = self._looked_up(look_up)
        return grid.aggregate(field, by, groups)

    def _from_ring(
        self, grid: Grid, things: Things, column: int, numbers: NDArray[np.int32], asked: Buckets
    ) -> Grid | None:
        """The grid filled from memory, if memory reaches back far enough."""
        kind = things.family.fields[column].kind
        with self._lock:
            if asked.from_ms <= int(things.ring.horizon_ms[numbers].max()):
                return None
            since = LONG_AGO if kind is Kind.COUNTER else asked.from_ms
            rows = things.ring.column(column, numbers, since, asked.until_ms)
        within = rows.at_ms >= asked.from_ms
        before = rows.pick(~within) if not within.all() else None
        rows = rows if before is None else rows.pick(within)
        grid.put(chain(kind, asked.step_ms, rows.things, rows.at_ms, rows.values[0], rows.boots))
        if before is not None:
            settle(grid, before.things, before.values[0], before.boots)
        # The ring is as deep as its horizon: a counter that has nothing known between there and the range is looked up.
        if kind is Kind.COUNTER and len(waiting(grid, things, numbers, asked.from_ms)):
            return None
        return grid

    def sources(self, family: Family, key: str) -> Mapping[str, str]:
        with self._lock:
            things = self._of(family)
            thing = things.numbers.get(key)
            return {} if thing is None else dict(things.sources[thing])

    def _looked_up(self, look_up: Callable[[View], T]) -> T:
        """What `look_up` answers; a harmed file is set aside and the question asked again without it."""
        while True:
            try:
                with self._view() as view:
                    return look_up(view)
            except duckdb.Error as why:
                if not self._set_aside_broken((), why):
                    raise

    @contextlib.contextmanager
    def _view(self) -> Iterator[View]:
        with self._lock:
            cursor = self._db.cursor()
            cursor.begin()
            lot = cursor.execute("SELECT max(value) FROM meta WHERE name = 'applied'").fetchall()[0][0]
            open_hours = {name: frozenset(things.open_rows) for name, things in self._things.items()}
            view = View(
                lot=lot or 0,
                cursor=cursor,
                folder=self._folder,
                shelf=replace(self._shelf, open_hours=open_hours),
                pending={name: tuple(things.pending) for name, things in self._things.items()},
            )
            self._readers += 1
        try:
            yield view
        finally:
            with contextlib.suppress(duckdb.Error):
                cursor.close()
            with self._lock:
                self._readers -= 1
                self._clear_away()

    def _clear_away(self) -> None:
        """Remove files that were replaced, when nobody reads any longer."""
        if not self._readers:
            for path in self._obsolete:
                path.unlink(missing_ok=True)
            self._obsolete.clear()

    # ---- kept house

    def rollup(self, *, now_ms: int) -> None:
        with self._keeping:
            self._flush()
            sealed = 0
            for things in list(self._things.values()):
                for hour in self._due(things, now_ms):
                    self._seal(things, hour)
                    sealed += 1
                self._join_days(things, now_ms)
            if sealed:
                with self._view() as view:
                    write_names(view.cursor, self._folder)

    def _due(self, things: Things, now_ms: int) -> list[int]:
        """The hours to seal: over for a while, and quiet where a large file would be written again for few rows."""
        with self._lock:
            family = things.family.name
            raw = self._shelf.of(Tier.RAW, family)
            due = set()
            for hour, rows in things.open_rows.items():
                quiet = self._open_before.get((family, hour)) == rows
                if hour not in raw or raw[hour].rows < SMALL_ROWS or rows * 50 > raw[hour].rows or quiet:
                    due.add(hour)
                self._open_before[family, hour] = rows
            due -= self._shelf.lost(family)  # nothing can be added to rollups whose rows are gone
            for tier in ROLLED:
                missing = raw.keys() - self._shelf.covered(tier, family)
                due |= {hour for hour in missing if hour * HOUR_MS >= self._held_from[tier]}
            return sorted(hour for hour in due if (hour + 1) * HOUR_MS + GRACE_MS <= now_ms)

    def _seal(self, things: Things, hour: int) -> None:
        """Write one hour's rows and rollups, and let them stand for what the database had of it."""
        family = things.family
        with self._view() as view:
            seal = Seal(view=view, folder=self._folder, family=family)
            raw = view.shelf.file(Tier.RAW, family.name, hour)
            try:
                fresh = []
                rows = raw
                if rows is None or hour in view.shelf.open_hours[family.name]:
                    rows = seal.rows(hour, raw)
                    fresh.append(rows)
                if not rows.rows:
                    seal.take_back()  # all that the hour has is pending still
                    return
                fresh += seal.rollups(hour, rows, self._merge(things))
                self._take_over(things, hour, fresh, view.lot)
            except (duckdb.Error, OSError) as why:
                seal.take_back()
                if not self._set_aside_broken([raw] if raw else [], why):
                    raise StoreFull(str(self._folder), _first_line(why)) from why

    def _take_over(self, things: Things, hour: int, fresh: Sequence[File], lot: int) -> None:
        """From here on the fresh files count, and the rows in them no longer in the database: one transaction."""
        table, of_hour = (
            f"hot_{things.family.name}",
            f"at_ms >= {hour * HOUR_MS} AND at_ms < {(hour + 1) * HOUR_MS}",
        )
        with self._lock:
            self._flush()
            with self._transaction():
                self._db.execute(f"DELETE FROM {table} WHERE {of_hour} AND lot <= {lot}")
                ((left,),) = self._db.execute(f"SELECT count(*) FROM {table} WHERE {of_hour}").fetchall()
                self._keep_things(things)  # a rollup may have patterns that no row has
                self._keep_newest(things)
                self._record(fresh, ())
            things.changed = set()
            things.patterns_kept = len(things.codes)
            self._swap(fresh, ())
            if left:
                things.open_rows[hour] = left
            else:
                things.open_rows.pop(hour, None)
                self._open_before.pop((things.family.name, hour), None)
            still_open = [hour for each in self._things.values() for hour in each.open_rows]
            self._seen_from = max(self._seen_from, min(still_open, default=hour) - 1)

    def _keep_newest(self, things: Things) -> None:
        """The newest rows, for the next start: of what has been silent for long, its file is far back."""
        family = things.family
        known = np.flatnonzero(things.ring.newest_ms[: len(things.keys)] != LONG_AGO).astype(np.int32)
        self._db.execute(f"DELETE FROM newest_{family.name}")
        insert(self._db, f"newest_{family.name}", table_of_rows(family, things.ring.newest(known)))

    def _record(self, fresh: Sequence[File], gone: Sequence[File]) -> None:
        for file in (*gone, *fresh):
            self._db.execute(
                "DELETE FROM files WHERE tier = ? AND family = ? AND hour = ?",
                [file.tier, file.family, file.hour],
            )
        for file in fresh:
            self._db.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    file.tier, file.family, file.hour, list(file.hours), list(file.names), file.fields, file.rows,
                    file.is_day,
                ],
            )  # fmt: skip

    def _swap(self, fresh: Sequence[File], gone: Sequence[File]) -> None:
        """The same in memory."""
        self._shelf, left = self._shelf.changed(fresh, gone)
        self._obsolete += [self._folder / name for file in left for name in file.names]
        self._clear_away()

    def _join_days(self, things: Things, now_ms: int) -> None:
        """The hourly rollups of a day that is over become one file: a year is then 365 files and not 8,760."""
        with self._lock:
            family = things.family
            files = self._shelf.of(Tier.HOUR, family.name).values()
            open_days = {hour // DAY_H for hour in things.open_rows}
        days: dict[int, list[File]] = {}
        for file in files:
            day = file.hour // DAY_H
            if (day + 1) * DAY_H * HOUR_MS + GRACE_MS <= now_ms and day not in open_days:
                days.setdefault(day, []).append(file)
        for _, of_day in sorted(days.items()):
            if len(of_day) < 2:
                continue
            with self._view() as view:
                seal = Seal(view=view, folder=self._folder, family=family)
                try:
                    joined = seal.day(Tier.HOUR, of_day)
                    with self._lock, self._transaction():
                        self._record([joined], of_day)
                    self._swap([joined], of_day)
                except (duckdb.Error, OSError) as why:
                    seal.take_back()
                    if not self._set_aside_broken(of_day, why):
                        raise StoreFull(str(self._folder), _first_line(why)) from why

    def expire(self, *, now_ms: int, retention: Retention) -> int:
        with self._keeping, self._lock:
            self._flush()
            reached = floors(now_ms, retention)
            held = {tier: max(self._held_from[tier], reached[tier]) for tier in Tier}
            gone = [
                file for files in self._shelf.files.values() for file in files.values()
                if file.until_ms <= held[file.tier]
            ]  # fmt: skip
            with self._transaction():
                self._record((), gone)
                for tier, floor in held.items():
                    self._db.execute("DELETE FROM meta WHERE name = ?", [f"held_{tier}"])
                    self._db.execute("INSERT INTO meta VALUES (?, ?)", [f"held_{tier}", floor])
                self._db.execute("DELETE FROM batches WHERE hour < ?", [held[Tier.RAW] // HOUR_MS])
                for things in self._things.values():
                    self._keep_newest(things)
                    self._db.execute(
                        f"DELETE FROM hot_{things.family.name} WHERE at_ms < ?", [held[Tier.RAW]]
                    )
            self._held_from = held
            self._swap((), gone)
            for things in self._things.values():
                for hour in [hour for hour in things.open_rows if (hour + 1) * HOUR_MS <= held[Tier.RAW]]:
                    del things.open_rows[hour]
            return len(gone)

    def _set_aside_broken(self, files: Iterable[File], why: BaseException) -> bool:
        """Look through `files`, and those that the refusal names, for harmed ones; whether any was set aside."""
        told = str(why)
        suspects = {file.names: file for file in files}
        for held in self._shelf.files.values():
            suspects |= {
                file.names: file for file in held.values() if any(name in told for name in file.names)
            }
        broken = [file for file in suspects.values() if not self._is_whole(file)]
        if not broken:
            return False
        with self._lock:
            with self._transaction():
                self._record((), broken)
            for file in broken:
                for name in file.names:
                    path = self._folder / name
                    if path.exists():
                        path.rename(path.with_suffix(".parquet.broken"))
                self._trouble(
                    f"{file.names[0]} is harmed and was set aside: its {file.rows} rows cannot be read"
                )
            self._swap((), broken)
        return True

    def _is_whole(self, file: File) -> bool:
        try:
            with contextlib.closing(self._db.cursor()) as cursor:
                cursor.execute(f"SELECT max(COLUMNS(*)) FROM {parquet(self._folder, [file])}").fetchall()
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


def _check(batch: Batch) -> None:
    """Raises ValueError for what no store can keep: it must not fail those who append at the same time."""
    if batch.family.fields != FAMILIES[batch.family.name].fields:
        raise ValueError(f"batch {batch.batch_id}: other fields than those of {batch.family.name}")
    if len(batch) and (batch.ts_ms.min() < 0 or batch.ts_ms.max() >> INSTANT_BITS):
        raise ValueError(f"batch {batch.batch_id}: an instant outside 1970 to 2248")


def _name(things: NDArray[np.int32], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Thing and instant as one number."""
    return (things.astype(np.int64) << INSTANT_BITS) | at_ms


def _texts(texts: Iterable[str | None]) -> NDArray[Any]:
    return np.array(list(texts), dtype=object)


def _words(place: Place | None) -> str | None:
    if place is None:
        return None
    words = {"node_id": place.node_id, "site": place.site, "model": place.model, "rack": place.rack}
    return json.dumps(words, ensure_ascii=False)


def _place(words: str | None) -> Place | None:
    return None if words is None else Place(**json.loads(words))


def _first_line(why: BaseException) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0]
