"""A shelf is what a store holds of each hour: its sealed files by tier, and the hours that have rows outside them.

Invariant: it is never changed, so that whoever reads has one; of a tier and family no hour is in two files. An hour
that is open, or of which a rollup is missing, is read row by row; all others from the tier that is asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from baseai.telemetry.store import Tier
from baseai.telemetry.tier import HOUR_MS, ROLLED, Buckets

DAY_H = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Sealed rows of one tier and family. Hours are numbered since 1970."""

    tier: Tier
    family: str
    hour: int  # under which it is found: its hour, or the first of its day
    hours: tuple[int, ...]  # all that it has rows of, rising
    names: tuple[str, ...]  # below the store's folder; the parts of one, each with other things, in order
    fields: int  # how many fields the family had when it was written
    rows: int

    is_day: bool = False

    @property
    def until_ms(self) -> int:
        return (self.hours[-1] + 1) * HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of a range: sealed files of one tier, or one hour that is read row by row."""

    from_ms: int
    until_ms: int
    hour: int
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """files: by tier and family, then by first hour. open_hours: by family."""

    files: Mapping[tuple[Tier, str], Mapping[int, File]] = field(default_factory=dict)
    open_hours: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def of(self, tier: Tier, family: str) -> Mapping[int, File]:
        return self.files.get((tier, family), {})

    def file(self, tier: Tier, family: str, hour: int) -> File | None:
        return self.of(tier, family).get(hour)

    def day(self, tier: Tier, family: str, hour: int) -> File | None:
        """The file of a whole day that holds this hour."""
        found = self.file(tier, family, hour // DAY_H * DAY_H)
        return found if found is not None and found.is_day else None

    def covered(self, tier: Tier, family: str) -> set[int]:
        """The hours that have a file."""
        return {hour for file in self.of(tier, family).values() for hour in file.hours}

    def hours_of(self, family: str, from_ms: int, until_ms: int) -> list[int]:
        """The hours of a range that have rows."""
        hours = self.open_hours.get(family, frozenset()) | self.of(Tier.RAW, family).keys()
        return sorted(hour for hour in hours if (hour + 1) * HOUR_MS > from_ms and hour * HOUR_MS < until_ms)

    def pieces(self, family: str, asked: Buckets) -> list[Piece]:
        """What covers a range, in the order of time."""
        files = [] if asked.tier is Tier.RAW else [
            file for file in self.of(asked.tier, family).values()
            if file.until_ms > asked.from_ms and file.hours[0] * HOUR_MS < asked.until_ms
        ]  # fmt: skip
        covered = {hour for file in files for hour in file.hours}
        # Rows of an hour whose sealed rows were lost cannot be rolled up: what is rolled already is all there is.
        stale = self.open_hours.get(family, frozenset()) & self.of(Tier.RAW, family).keys()
        by_row = {
            hour for hour in self.hours_of(family, asked.from_ms, asked.until_ms)
            if hour not in covered or hour in stale
        }  # fmt: skip
        parts: list[tuple[int, int, File | None]] = [(hour, hour + 1, None) for hour in by_row]
        for each in files:
            first, end = each.hours[0], each.hours[-1] + 1
            cuts = sorted(hour for hour in by_row if first <= hour < end)
            starts, stops = [first, *(hour + 1 for hour in cuts)], [*cuts, end]
            parts += [(start, stop, each) for start, stop in zip(starts, stops, strict=True) if start < stop]
        found: list[Piece] = []
        for start, stop, file in sorted(parts, key=lambda part: part[0]):
            from_ms, until_ms = max(asked.from_ms, start * HOUR_MS), min(asked.until_ms, stop * HOUR_MS)
            last = found[-1] if found else None
            if file and last and last.files and last.files[-1].fields == file.fields:
                found[-1] = replace(last, until_ms=until_ms, files=(*last.files, file))
            else:
                files_of = (file,) if file else ()
                found.append(Piece(from_ms=from_ms, until_ms=until_ms, hour=start, files=files_of))
        return found

    def lost(self, family: str) -> set[int]:
        """The hours whose rollups are here and whose rows are not, though their time has not come."""
        rolled = {hour for tier in ROLLED for hour in self.covered(tier, family)}
        return rolled - self.of(Tier.RAW, family).keys()

    def changed(self, fresh: Iterable[File], gone: Iterable[File]) -> tuple["Shelf", list[File]]:
        """With fresh files in the place of what they replace and of what is gone; and all files that are no longer."""
        files = {place: dict(held) for place, held in self.files.items()}
        left = []
        for file in (*gone, *fresh):
            old = files.setdefault((file.tier, file.family), {}).pop(file.hour, None)
            if old is not None:
                left.append(old)
        for file in fresh:
            files[file.tier, file.family][file.hour] = file
        return replace(self, files=files), left
