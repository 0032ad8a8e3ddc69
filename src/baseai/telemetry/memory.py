"""A metric store held in this process: for tests, and what other stores are compared with.

Invariant: it answers by the definitions in `store.py` and by nothing else: every question is worked out from all rows,
one after another. It is exact and slow, keeps no rollups, and forgets everything when the process ends.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Family, Kind, State
from baseai.telemetry.sample import Batch, state_of
from baseai.telemetry.store import Aggregate, Appended, By, Latest, Place, Retention, Series, Tier
from baseai.telemetry.tier import Buckets, buckets_of, floors

Sample = tuple[int, str, tuple[float, ...], tuple[int, ...]]  # instant, boot, values, codes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """What one thing had of one field in one bucket."""

    values: list[float]  # the known ones, oldest first
    last: float
    delta: float


class MemoryStore:
    """All samples of one world, by family and key."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, dict[int, Sample]]] = {}
        self._batches: set[str] = set()
        self._told: dict[tuple[str, str], Place] = {}
        self._seen_at: dict[tuple[str, str], Place] = {}
        self._sources: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}
        self._boots: dict[str, int] = {}
        self._held_from: dict[Tier, int] = dict.fromkeys(Tier, 0)

    def place(self, family: Family, places: Mapping[str, Place]) -> None:
        self._told |= {(family.name, key): place for key, place in places.items()}

    def append_all(self, batches: Sequence[Batch]) -> Sequence[Appended]:
        return [self.append(batch) for batch in batches]

    def append(self, batch: Batch) -> Appended:
        if batch.batch_id in self._batches:
            return Appended(rows=0, repeated=True)
        self._batches.add(batch.batch_id)
        self._boots.setdefault(batch.boot_id, len(self._boots))
        of_family = self._rows.setdefault(batch.family.name, {})
        rows = 0
        for number, key in enumerate(batch.keys):
            at = int(batch.ts_ms[number])
            if at < self._held_from[Tier.RAW]:
                continue
            of_key = of_family.setdefault(key, {})
            if at not in of_key:
                values, codes = tuple(batch.values[number].tolist()), tuple(batch.codes[number].tolist())
                of_key[at] = (at, batch.boot_id, values, codes)
                rows += 1
            newest, sources = self._sources.get((batch.family.name, key), (at, {}))
            if at >= newest:
                self._sources[batch.family.name, key] = at, {**sources, **batch.sources}
                self._seen_at[batch.family.name, key] = Place(node_id=batch.node_id, site=batch.site)
        return Appended(rows=rows, repeated=False)

    def latest(self, family: Family, keys: Sequence[str] | None = None) -> Latest:
        of_family = self._rows.get(family.name, {})
        found = sorted(of_family) if keys is None else [key for key in keys if key in of_family]
        newest = [of_family[key][max(of_family[key])] for key in found]
        shape = (len(found), len(family.fields))
        return Latest(
            family=family,
            keys=tuple(found),
            places=tuple(self._place(family, key) for key in found),
            ts_ms=np.array([row[0] for row in newest], dtype=np.int64),
            values=np.array([row[2] for row in newest], dtype=np.float64).reshape(shape),
            codes=np.array([row[3] for row in newest], dtype=np.uint8).reshape(shape),
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
        tier = Tier.RAW
        if points_max is None:
            rows = [row for row in self._samples(family, key) if from_ms <= row[0] < until_ms]
            rows = [row for row in rows if row[0] >= self._held_from[Tier.RAW]]
        else:
            asked = buckets_of(from_ms, until_ms, points_max, self._held_from)
            tier = asked.tier
            rows = [self._bucketed(family, at, held) for at, held in self._buckets(family, key, asked)]
        shape = (len(rows), len(columns))
        picked = [[row[2][column] for column in columns] for row in rows]
        codes = [[row[3][column] for column in columns] for row in rows]
        return Series(
            key=key,
            fields=tuple(fields),
            tier=tier,
            ts_ms=np.array([row[0] for row in rows], dtype=np.int64),
            values=np.array(picked, dtype=np.float64).reshape(shape),
            codes=np.array(codes, dtype=np.uint8).reshape(shape),
            boots=np.array([self._boots[row[1]] for row in rows], dtype=np.int32),
        )

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
        asked = buckets_of(from_ms, until_ms, points_max, self._held_from)
        column, kind = family.index[field], family[field].kind
        known = self._rows.get(family.name, {})
        cells: dict[tuple[str, int], list[_Cell]] = {}
        for key in sorted(known if keys is None else set(keys) & known.keys()):
            group = self._group(family, key, by)
            differences = self._differences(family, key, column)
            for at, rows in self._buckets(family, key, asked):
                values = [row[2][column] for row in rows if not math.isnan(row[2][column])]
                if values:
                    rises = [differences.get(row[0], 0.0) for row in rows]
                    delta = math.fsum(rises) if kind is Kind.COUNTER else math.nan
                    cell = _Cell(values=values, last=_last(kind, values), delta=delta)
                    cells.setdefault((group, at), []).append(cell)
        groups = sorted({group for group, _ in cells})
        starts = [asked.from_ms + number * asked.step_ms for number in range(asked.count)]
        table = [[cells.get((group, at), []) for at in starts] for group in groups]
        shape = (len(groups), len(starts))

        def filled(of: Callable[[list[_Cell]], float]) -> NDArray[np.float64]:
            found = [[of(cell) if cell else math.nan for cell in line] for line in table]
            return np.array(found, dtype=np.float64).reshape(shape)

        counts = [[sum(len(each.values) for each in cell) for cell in line] for line in table]
        return Aggregate(
            field=field,
            by=by,
            tier=asked.tier,
            step_ms=asked.step_ms,
            groups=tuple(groups),
            ts_ms=np.array(starts, dtype=np.int64),
            low=filled(lambda cell: min(min(each.values) for each in cell)),
            high=filled(lambda cell: max(max(each.values) for each in cell)),
            total=filled(lambda cell: math.nan if kind is Kind.COUNTER else _sum(cell)),
            count=np.array(counts, dtype=np.int64).reshape(shape),
            last=filled(lambda cell: _together(kind, [each.last for each in cell])),
            delta=filled(lambda cell: math.fsum(each.delta for each in cell)),
        )

    def sources(self, family: Family, key: str) -> Mapping[str, str]:
        return self._sources.get((family.name, key), (0, {}))[1]

    def rollup(self, *, now_ms: int) -> None:
        """Nothing to do: every question is worked out from rows."""

    def expire(self, *, now_ms: int, retention: Retention) -> int:
        """How many tiers begin later now. Rows stand in for their rollups and go when no tier needs them."""
        reached = {
            tier: floor for tier, floor in floors(now_ms, retention).items() if floor > self._held_from[tier]
        }
        self._held_from |= reached
        gone = min(self._held_from.values())
        for of_family in self._rows.values():
            for of_key in of_family.values():
                newest = max(of_key)
                for at in [at for at in of_key if at < gone and at != newest]:
                    del of_key[at]
        return len(reached)

    def close(self) -> None:
        """Nothing to let go."""

    # ---- worked out

    def _place(self, family: Family, key: str) -> Place:
        return self._told.get((family.name, key)) or self._seen_at[family.name, key]

    def _group(self, family: Family, key: str, by: By) -> str:
        place = self._place(family, key)
        names = {By.FLEET: "fleet", By.SITE: place.site, By.MODEL: place.model, By.NODE: place.node_id}
        return names.get(by, key)

    def _samples(self, family: Family, key: str) -> list[Sample]:
        return [row for _, row in sorted(self._rows.get(family.name, {}).get(key, {}).items())]

    def _buckets(self, family: Family, key: str, asked: Buckets) -> list[tuple[int, list[Sample]]]:
        found: dict[int, list[Sample]] = {}
        for row in self._samples(family, key):
            if max(asked.from_ms, self._held_from[asked.tier]) <= row[0] < asked.until_ms:
                found.setdefault(row[0] // asked.step_ms * asked.step_ms, []).append(row)
        return list(found.items())

    def _differences(self, family: Family, key: str, column: int) -> dict[int, float]:
        """By how much the counter rose to each sample from the one before it."""
        known = [row for row in self._samples(family, key) if not math.isnan(row[2][column])]
        found = {}
        for before, row in pairwise(known):
            rose = row[2][column] - before[2][column]
            found[row[0]] = rose if rose >= 0 and row[1] == before[1] else row[2][column]
        return found

    def _bucketed(self, family: Family, at: int, rows: list[Sample]) -> Sample:
        values, codes = [], []
        for column, field in enumerate(family.fields):
            known = [row for row in rows if state_of(row[3][column]) is State.VALUE]
            numbers = [row[2][column] for row in known if not math.isnan(row[2][column])]
            codes.append((known or rows)[-1][3][column])
            if not numbers:
                values.append(math.nan)
            elif field.kind is Kind.GAUGE:
                values.append(math.fsum(numbers) / len(numbers))
            else:
                values.append(_last(field.kind, numbers))
        return at, rows[-1][1], tuple(values), tuple(codes)


def _sum(cells: Sequence[_Cell]) -> float:
    return math.fsum(value for each in cells for value in each.values)


def _last(kind: Kind, values: Sequence[float]) -> float:
    return _or(values) if kind is Kind.BITS else values[-1]


def _together(kind: Kind, lasts: Sequence[float]) -> float:
    """Several things' lasts as one."""
    if kind is Kind.BITS:
        return _or(lasts)
    return max(lasts) if kind is Kind.CODE else math.fsum(lasts)


def _or(values: Sequence[float]) -> float:
    bits = 0
    for value in values:
        bits |= int(value)
    return float(bits)
