"""A sheet is one data file of the catalogue: its sources, and entries whose facts each name one.

Invariant: a fact is written `key = [value, "source"]`, the unit in the key, and an array is always a fact. The
word "none" as value says that there is no such figure: an unsupported number format, a price that does not
exist, a thing its maker does not publish. Whatever breaks this is a BrokenSheet
that names file, entry and key. Only `load_sheet` reads a file.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable

from baseai.catalog.bounds import Bounds
from baseai.catalog.source import Evidence, Mark, Source
from baseai.ground.fault import Fault

__all__ = ["BrokenSheet", "Entry", "Sheet", "load_sheet", "parse_sheet", "shipped_data"]


class BrokenSheet(Fault):
    """A data file of the catalogue does not say what it must."""

    def __init__(self, file: str, entry: str, key: str, problem: str) -> None:
        super().__init__(file, entry, key, problem)
        self.file = file
        self.entry = entry
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.file}, entry {self.entry}, key {self.key}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One table of a sheet. Each method takes one key out of it, or says what is wrong with that key."""

    file: str
    name: str
    values: Mapping[str, object]
    sources: Mapping[str, Source]

    def broken(self, key: str, problem: str) -> BrokenSheet:
        return BrokenSheet(self.file, self.name, key, problem)

    def only(self, *known: str) -> None:
        """Refuse keys that nobody reads: a misspelt fact must not vanish."""
        for key in self.values:
            if key not in known:
                raise self.broken(key, f"is not a key here; known are {', '.join(sorted(known))}")

    def has(self, key: str) -> bool:
        return key in self.values

    def evidence(self) -> Evidence:
        """The source of every fact of this entry, in the order of the file."""
        return tuple((key, self._fact(key)[1]) for key, value in self.values.items() if _is_fact(value))

    def source(self, key: str) -> Source:
        return self._fact(key)[1]

    def table(self, key: str) -> "Entry":
        found = self.values.get(key)
        if not isinstance(found, dict):
            raise self.broken(key, "is missing or is not a table")
        return Entry(file=self.file, name=f"{self.name}.{key}", values=found, sources=self.sources)

    def tables(self) -> Iterator["Entry"]:
        """Every table below this one, each as an entry under its own name."""
        for name, found in self.values.items():
            if not isinstance(found, dict):
                raise self.broken(name, "is not a table")
            yield Entry(file=self.file, name=name, values=found, sources=self.sources)

    def plain(self, key: str) -> str:
        """A text that is ours to choose and needs no source: a name, a placement, an explanation."""
        found = self.values.get(key)
        if not isinstance(found, str) or not found:
            raise self.broken(key, "is missing" if found is None else f"{found!r} is not a text")
        return found

    def words(self, key: str) -> tuple[str, ...]:
        """A plain text of words, split at spaces."""
        return tuple(self.plain(key).split())

    def text(self, key: str) -> str:
        found, _ = self._fact(key)
        if not isinstance(found, str) or not found:
            raise self.broken(key, f"{found!r} is not a text")
        return found

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) and not self._denied(key) else None

    def texts(self, key: str) -> tuple[str, ...]:
        found, _ = self._fact(key)
        if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
            raise self.broken(key, f"{found!r} is not a list of texts")
        return tuple(found)

    def number(self, key: str) -> float:
        return float(self._amount(key))

    def maybe_number(self, key: str) -> float | None:
        return float(self._amount(key)) if self.has(key) and not self._denied(key) else None

    def whole(self, key: str) -> int:
        found = self._amount(key)
        if found != int(found):
            raise self.broken(key, f"{found} is not a whole number")
        return int(found)

    def maybe_whole(self, key: str) -> int | None:
        return self.whole(key) if self.has(key) and not self._denied(key) else None

    def decimal(self, key: str) -> Decimal:
        return self._amount(key)

    def bounds(self, key: str) -> Bounds:
        """The value of a fact written `[[low, default, high], "source"]`."""
        found, _ = self._fact(key)
        if not isinstance(found, list) or len(found) != 3 or not all(map(_is_amount, found)):
            raise self.broken(key, f"{found!r} is not [low, default, high]")
        low, default, high = (Decimal(str(amount)) for amount in found)
        if low < 0 or not low <= default <= high:
            raise self.broken(key, f"0 ≤ {low} ≤ {default} ≤ {high} does not hold")
        return Bounds(low=low, default=default, high=high)

    def maybe_bounds(self, key: str) -> Bounds | None:
        return None if self._denied(key) else self.bounds(key)

    def day(self, key: str) -> date:
        found = self.values.get(key)
        if not isinstance(found, date) or isinstance(found, datetime):
            raise self.broken(key, f"{found!r} is not a date")
        return found

    def instant(self, key: str) -> datetime:
        found = self.values.get(key)
        if not isinstance(found, datetime) or found.tzinfo is None:
            raise self.broken(key, f"{found!r} is not an instant with its zone")
        return found.astimezone(UTC)

    def _denied(self, key: str) -> bool:
        return self._fact(key)[0] == "none"

    def _amount(self, key: str) -> Decimal:
        found, _ = self._fact(key)
        if not _is_amount(found):
            raise self.broken(key, f"{found!r} is not a number")
        return Decimal(str(found))

    def _fact(self, key: str) -> tuple[object, Source]:
        found = self.values.get(key)
        if found is None:
            raise self.broken(key, "is missing")
        if not _is_fact(found):
            raise self.broken(key, f'{found!r} is not [value, "source"]')
        assert isinstance(found, list)
        value, source_id = found
        if source_id not in self.sources:
            raise self.broken(key, f"names the source {source_id!r}, which this file does not list")
        return value, self.sources[source_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A parsed data file."""

    file: str
    sources: Mapping[str, Source]
    root: Entry

    def entries(self, group: str) -> Iterator[Entry]:
        """The entries of one top-level group, in the order of the file."""
        return self.root.table(group).tables()


def parse_sheet(text: str, *, file: str) -> Sheet:
    """A sheet from TOML text; numbers with a point stay exact Decimals. Raises BrokenSheet."""
    try:
        parsed = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise BrokenSheet(file, "-", "-", f"is not TOML: {error}") from error
    listed = parsed.pop("sources", {})
    if not isinstance(listed, dict) or not listed:
        raise BrokenSheet(file, "sources", "-", "lists no source")
    bare = Entry(file=file, name="sources", values=listed, sources={})
    sources = {entry.name: _source_of(entry) for entry in bare.tables()}
    return Sheet(file=file, sources=sources, root=Entry(file=file, name="-", values=parsed, sources=sources))


def load_sheet(folder: Traversable, file: str) -> Sheet:
    """Read and parse one data file. Raises BrokenSheet, also when the file is absent or is not UTF-8."""
    try:
        text = folder.joinpath(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenSheet(file, "-", "-", f"cannot be read: {error}") from error
    return parse_sheet(text, file=file)


def shipped_data() -> Traversable:
    """The folder of data files that comes with the package."""
    return files("baseai.catalog").joinpath("data")


def _source_of(entry: Entry) -> Source:
    entry.only("title", "dated", "read_on", "mark", "url")
    mark = entry.plain("mark")
    if mark not in set(Mark):
        raise entry.broken("mark", f"{mark!r} is none of A, B, C")
    return Source(
        source_id=entry.name,
        title=entry.plain("title"),
        read_on=entry.day("read_on"),
        mark=Mark(mark),
        dated=entry.plain("dated") if entry.has("dated") else None,
        url=entry.plain("url") if entry.has("url") else None,
    )


def _is_fact(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)
