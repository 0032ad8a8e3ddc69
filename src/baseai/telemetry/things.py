"""Things are what a store knows of one family's members: a number for each key, where it stands, its rows in memory.

Invariant: a number, once given, means the same key, and a pattern's number the same codes, as long as the store lives.
A pattern is the codes of a whole row, of which a fleet has few: so a row keeps 4 bytes instead of one a field.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Family, State
from baseai.telemetry.ring import Ring
from baseai.telemetry.rollup import Cells, codes_of
from baseai.telemetry.rows import Rows
from baseai.telemetry.store import By, Place


@dataclass(slots=True, kw_only=True)
class Things:
    """What the store knows of one family's things: their numbers, places, rows in memory."""

    family: Family
    ring: Ring
    numbers: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    seen: list[Place | None] = field(default_factory=list)  # where their batches came from
    told: list[Place | None] = field(default_factory=list)  # where `place` put them
    sources: list[dict[str, str]] = field(default_factory=list)
    sender: list[int] = field(
        default_factory=list
    )  # of their newest row: node, site and sources as one number
    born_ms: list[int] = field(default_factory=list)  # their oldest row
    patterns: dict[bytes, int] = field(default_factory=dict)
    codes: list[NDArray[np.uint8]] = field(default_factory=list)  # by pattern
    pending: list[Rows] = field(default_factory=list)
    open_rows: dict[int, int] = field(default_factory=dict)  # hour → rows that no sealed file has
    changed: set[int] = field(default_factory=set)  # things to be written again
    patterns_kept: int = 0
    grouped: dict[By, tuple[list[str], NDArray[np.int32]]] = field(default_factory=dict)

    def number(self, key: str) -> int:
        thing = self.numbers.get(key)
        if thing is None:
            thing = self.numbers[key] = len(self.keys)
            self.keys.append(key)
            self.seen.append(None)
            self.told.append(None)
            self.sources.append({})
            self.sender.append(-1)
            self.born_ms.append(2**62)
            self.moved(thing)
        return thing

    def place(self, thing: int) -> Place:
        return self.told[thing] or self.seen[thing] or Place(node_id="", site="")

    def groups(self, by: By) -> tuple[list[str], NDArray[np.int32]]:
        """The names of all groups, sorted, and by thing the place of its group's name. Remembered until things move."""
        found = self.grouped.get(by)
        if found is None:
            of_thing = [self._group(thing, by) for thing in range(len(self.keys))]
            names = sorted(set(of_thing))
            place = {name: number for number, name in enumerate(names)}
            found = self.grouped[by] = names, np.array([place[name] for name in of_thing], dtype=np.int32)
        return found

    def _group(self, thing: int, by: By) -> str:
        if by is By.FLEET:
            return "fleet"
        if by is By.KEY:
            return self.keys[thing]
        place = self.place(thing)
        return place.site if by is By.SITE else place.model if by is By.MODEL else place.node_id

    def moved(self, thing: int) -> None:
        """Note that something was learned of a thing that has to be written down."""
        self.changed.add(thing)
        self.grouped.clear()

    def pattern(self, codes: bytes) -> int:
        number = self.patterns.get(codes)
        if number is None:
            number = self.patterns[codes] = len(self.codes)
            self.codes.append(np.frombuffer(codes, dtype=np.uint8))
        return number

    def patterns_of(self, codes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The number of each row of codes, shape (rows, fields): few differ."""
        if not len(codes):
            return np.zeros(0, dtype=np.int32)
        rows = np.ascontiguousarray(codes)
        differs = np.flatnonzero(np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1))))
        heads = rows[differs]
        unique, place = np.unique(
            heads.view(np.dtype((np.void, heads.shape[1]))).ravel(), return_inverse=True
        )
        numbers = np.array([self.pattern(each.tobytes()) for each in unique], dtype=np.int32)
        return np.repeat(numbers[place], np.diff(differs, append=len(rows)))

    def codes_of(self, patterns: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Shape (rows, fields); a field younger than a pattern is absent."""
        table = np.full((len(self.codes) + 1, len(self.family.fields)), State.ABSENT, dtype=np.uint8)
        for number, codes in enumerate(self.codes):
            table[number, : len(codes)] = codes
        return table[patterns]

    @property
    def pending_rows(self) -> int:
        return sum(map(len, self.pending))

    def merged(self, cells: Cells, patterns: NDArray[np.int32]) -> NDArray[np.int32]:
        """The pattern of each cell: per field the code of its last known value, or the last code."""
        if not len(patterns):
            return patterns
        low = np.minimum.reduceat(patterns, cells.first)
        mixed = np.flatnonzero(low != np.maximum.reduceat(patterns, cells.first))
        if len(mixed):
            sizes = (cells.ends - cells.first)[mixed]
            begins = np.concatenate(([0], np.cumsum(sizes)[:-1]))
            rows = np.repeat(cells.first[mixed] - begins, sizes) + np.arange(sizes.sum())
            few = Cells(first=begins, things=cells.things[mixed], at_ms=cells.at_ms[mixed], rows=len(rows))
            low = low.copy()
            low[mixed] = self.patterns_of(codes_of(few, self.codes_of(patterns[rows])))
        return low
