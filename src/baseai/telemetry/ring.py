"""A ring is the newest rows of every thing of one family, held in memory: what live views and the newest row come from.

Invariant: of each thing it holds every row younger than that thing's horizon, once, oldest first; a row that leaves
raises the horizon. A row is never changed. It is allocated beforehand, a column a field, and grows with the things.
"""

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.rows import Rows, no_rows

LONG_AGO = np.iinfo(np.int64).min


class Ring:
    """`slots` rows of each thing of a family with `fields` fields: 8 bytes a field and slot, 16 a slot beside."""

    def __init__(self, fields: int, slots: int = 96) -> None:
        self._fields = fields
        self._slots = slots
        self._size = 0
        self._shape(0)

    def _shape(self, size: int) -> None:
        # By slot and then by thing: a tick of all things is written, and its memory first touched, in one stretch.
        self._at_ms = np.zeros((self._slots, size), dtype=np.int64)
        self._boots = np.zeros((self._slots, size), dtype=np.int32)
        self._patterns = np.zeros((self._slots, size), dtype=np.int32)
        self._values = np.empty((self._fields, self._slots, size))
        self._next = np.zeros(
            size, dtype=np.int64
        )  # rows ever put in; the next goes to that slot, going round
        self.newest_ms = np.full(size, LONG_AGO)
        self.horizon_ms = np.full(size, LONG_AGO)  # older rows may be missing, and this one's instant as well

    def reach(self, things: int) -> None:
        """Make room for things numbered below `things`."""
        if things <= self._size:
            return
        old, held = self.__dict__.copy(), self._size
        self._size = max(things, 2 * held, 64)
        self._shape(self._size)
        for name in ("_at_ms", "_boots", "_patterns", "_values", "_next", "newest_ms", "horizon_ms"):
            getattr(self, name)[..., :held] = old[name]

    def put(self, rows: Rows) -> None:
        """Take in rows, sorted by thing and instant, none of which it holds."""
        if not len(rows):
            return
        late = rows.at_ms <= self.newest_ms[rows.things]
        if late.any():
            for place in np.flatnonzero(late):
                self._put_late(rows, int(place))
            rows = rows.pick(~late)
        if not len(rows):
            return
        things = rows.things
        starts = np.flatnonzero(np.concatenate(([True], things[1:] != things[:-1])))
        runs = np.diff(starts, append=len(things))
        rank = np.arange(len(things)) - np.repeat(starts, runs)
        number = self._next[things] + rank
        over = np.flatnonzero(number >= self._slots)
        stays = rank >= np.repeat(runs, runs) - self._slots  # of more rows than slots only the newest
        slots = number % self._slots
        leaving = over[rank[over] < self._slots]
        np.maximum.at(self.horizon_ms, things[leaving], self._at_ms[slots[leaving], things[leaving]])
        if not stays.all():
            gone = np.flatnonzero(~stays)
            np.maximum.at(self.horizon_ms, things[gone], rows.at_ms[gone])
            rows, slots = rows.pick(stays), slots[stays]
        places = slots * self._size + rows.things
        self._at_ms.reshape(-1)[places] = rows.at_ms
        self._boots.reshape(-1)[places] = rows.boots
        self._patterns.reshape(-1)[places] = rows.patterns
        for field in range(self._fields):
            self._values[field].reshape(-1)[places] = rows.values[field]
        lasts = starts + runs - 1
        self._next[things[starts]] += runs
        self.newest_ms[things[lasts]] = np.maximum(
            self.newest_ms[things[lasts]], self._last_at(things[lasts])
        )

    def _last_at(self, things: NDArray[np.int32]) -> NDArray[np.int64]:
        return self._at_ms[(self._next[things] - 1) % self._slots, things]

    def _put_late(self, rows: Rows, place: int) -> None:
        """One row between those that are there: the older ones move one slot back."""
        thing, at_ms = int(rows.things[place]), int(rows.at_ms[place])
        if at_ms <= self.horizon_ms[thing]:
            return
        held = self._held(thing)
        before = int(np.searchsorted(self._at_ms[held, thing], at_ms))
        if len(held) == self._slots and before == 0:
            self.horizon_ms[thing] = at_ms  # older than all that are there, and there is no room
            return
        if len(held) == self._slots:
            self.horizon_ms[thing] = max(self.horizon_ms[thing], self._at_ms[held[0], thing])
            source, target = held[1:before], held[: before - 1]
            slot = held[before - 1]
        else:
            behind = np.append(held[before:], self._next[thing] % self._slots)
            source, target, slot = behind[:-1], behind[1:], behind[0]
            self._next[thing] += 1
        for column in (self._at_ms, self._boots, self._patterns):
            column[target, thing] = column[source, thing]
        self._values[:, target, thing] = self._values[:, source, thing]
        self._at_ms[slot, thing] = at_ms
        self._boots[slot, thing] = rows.boots[place]
        self._patterns[slot, thing] = rows.patterns[place]
        self._values[:, slot, thing] = rows.values[:, place]

    def _held(self, thing: int) -> NDArray[np.int64]:
        """The slots of one thing, oldest row first."""
        following = int(self._next[thing])
        return np.arange(max(0, following - self._slots), following, dtype=np.int64) % self._slots

    def holds(self, things: NDArray[np.int32], at_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these rows is here. What it says of rows at or before the horizon means nothing."""
        filled = np.arange(self._slots)[:, None] < self._next[things]
        return np.asarray(((self._at_ms[:, things] == at_ms) & filled).any(axis=0))

    def newest(self, things: NDArray[np.int32]) -> Rows:
        """The newest row of each of these things, which all have one."""
        slots = (self._next[things] - 1) % self._slots
        return Rows(
            things=things,
            at_ms=self._at_ms[slots, things],
            boots=self._boots[slots, things],
            patterns=self._patterns[slots, things],
            values=self._values[:, slots, things],
        )

    def of_thing(self, thing: int, from_ms: int, until_ms: int) -> Rows:
        """All rows of one thing in a range that begins after its horizon, oldest first."""
        held = self._held(thing)
        at_ms = self._at_ms[held, thing]
        held = held[np.searchsorted(at_ms, from_ms) : np.searchsorted(at_ms, until_ms)]
        return Rows(
            things=np.full(len(held), thing, dtype=np.int32),
            at_ms=self._at_ms[held, thing],
            boots=self._boots[held, thing],
            patterns=self._patterns[held, thing],
            values=self._values[:, held, thing],
        )

    def column(self, field: int, things: NDArray[np.int32], from_ms: int, until_ms: int) -> Rows:
        """One field of these things in a range that begins after their horizons, sorted as `things` and by instant."""
        if not len(things):
            return no_rows(1)
        following = self._next[things]
        oldest = np.maximum(0, following - self._slots)
        stretch = bool((np.diff(things) == 1).all())
        which = slice(int(things[0]), int(things[-1]) + 1) if stretch else things
        columns = [self._at_ms[:, which], self._boots[:, which], self._values[field][:, which]]
        turn = oldest % self._slots
        if bool((turn == turn[0]).all()):  # all tick together, as a rule
            columns = [np.roll(column, -int(turn[0]), axis=0) for column in columns]
        else:
            order = (oldest + np.arange(self._slots)[:, None]) % self._slots
            columns = [np.take_along_axis(column, order, axis=0) for column in columns]
        at_ms, boots, values = (np.ascontiguousarray(column.T) for column in columns)
        wanted = (at_ms >= from_ms) & (at_ms < until_ms)
        wanted &= np.arange(self._slots) < (following - oldest)[:, None]
        places = np.flatnonzero(wanted)
        return Rows(
            things=np.repeat(things, wanted.sum(axis=1)),
            at_ms=at_ms.reshape(-1)[places],
            boots=boots.reshape(-1)[places],
            patterns=np.zeros(len(places), dtype=np.int32),
            values=values.reshape(-1)[places][None, :],
        )
