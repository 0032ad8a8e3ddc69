"""A rollup is one field of many things in buckets of one length: low, high, total, count, last, and how far it counted.

Invariant: a rollup of a rollup equals the rollup of the samples, bit for bit: totals are added up one after another in
the order of time, from samples to minutes, from minutes to ten, from there to hours, whoever asks and whenever. What
a counter did between two buckets is left to whoever puts them side by side, so a late sample changes its own only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Kind
from baseai.telemetry.store import STEP_MS
from baseai.telemetry.tier import ROLLED

STATE = 15  # the bits of a code that are its state; 0 is VALUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Where each thing's buckets begin among rows that are sorted by thing and instant.

    first: shape (cells,), the place of each cell's first row. things: shape (cells,). at_ms: shape (cells,), the
    start of its bucket. rows: how many rows there are in all.
    """

    first: NDArray[np.intp]
    things: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    rows: int

    @property
    def ends(self) -> NDArray[np.intp]:
        return np.append(self.first[1:], self.rows)[: len(self.first)]

    def of_row(self) -> NDArray[np.intp]:
        """The cell of each row."""
        return np.repeat(np.arange(len(self.first)), self.ends - self.first)


def cells_of(things: NDArray[np.int32], at_ms: NDArray[np.int64], step_ms: int) -> Cells:
    """The cells of rows that are sorted by thing and instant."""
    buckets = at_ms // step_ms
    begins = np.empty(len(things), dtype=np.bool_)
    begins[:1] = True
    np.not_equal(buckets[1:], buckets[:-1], out=begins[1:])
    begins[1:] |= things[1:] != things[:-1]
    first = np.flatnonzero(begins)
    return Cells(first=first, things=things[first], at_ms=buckets[first] * step_ms, rows=len(things))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """One field, shape (cells,) each. Where `count` is 0 the numbers are NaN, and so is a counter's total.

    Of a counter also: its first value, what it counted from there to its last, and the starts of the node under which
    both were read. `last` of flags is all of them or-ed.
    """

    kind: Kind
    things: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    count: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    total: NDArray[np.float64]
    last: NDArray[np.float64]
    first: NDArray[np.float64] | None = None
    delta: NDArray[np.float64] | None = None
    first_boot: NDArray[np.int32] | None = None
    last_boot: NDArray[np.int32] | None = None


def of_samples(kind: Kind, cells: Cells, values: NDArray[np.float64], boots: NDArray[np.int32]) -> Rollup:
    """The rollup of one field's samples. values, boots: shape (rows,), NaN where nothing is known."""
    known = ~np.isnan(values)
    all_known = bool(known.all())
    of_row = cells.of_row()
    size = len(cells.first)
    if all_known:
        count = np.diff(cells.first, append=cells.rows).astype(np.int64)
    else:
        count = np.bincount(of_row[known], minlength=size).astype(np.int64)
    total = nothing(size) if kind is Kind.COUNTER else summed(of_row[known], values[known], size)
    rollup = _levels(kind, cells, count, total, low=values, high=values, last=values, known=known)
    if kind is not Kind.COUNTER:
        return rollup
    if size == cells.rows:
        none = np.where(known, 0.0, np.nan)
        return replace(rollup, first=values, delta=none, first_boot=boots, last_boot=boots)
    places = np.arange(cells.rows) if all_known else np.flatnonzero(known)
    rises = np.zeros(cells.rows)
    rises[places[1:]] = rise(values[places[:-1]], boots[places[:-1]], values[places[1:]], boots[places[1:]])
    first, last = _ends(cells, known, all_known)
    within = rises
    within[first[count > 0]] = 0.0  # what came before belongs to whoever knows it
    return _counted(rollup, values, values, within, boots, boots, of_row, first, last)


def of_rollup(finer: Rollup, step_ms: int) -> Rollup:
    """The same field in longer buckets. `finer` is sorted by thing and bucket; its step divides `step_ms`."""
    cells = cells_of(finer.things, finer.at_ms, step_ms)
    known = finer.count > 0
    all_known = bool(known.all())
    of_row = cells.of_row()
    size = len(cells.first)
    count = np.bincount(of_row, weights=finer.count, minlength=size).astype(np.int64)
    counts = finer.kind is Kind.COUNTER
    total = nothing(size) if counts else summed(of_row[known], finer.total[known], size)
    rollup = _levels(
        finer.kind, cells, count, total, low=finer.low, high=finer.high, last=finer.last, known=known
    )
    if finer.first is None or finer.first_boot is None or finer.delta is None or finer.last_boot is None:
        return rollup
    places = np.arange(cells.rows) if all_known else np.flatnonzero(known)
    rises = np.zeros(cells.rows)
    rises[places[1:]] = rise(
        finer.last[places[:-1]],
        finer.last_boot[places[:-1]],
        finer.first[places[1:]],
        finer.first_boot[places[1:]],
    )
    first, last = _ends(cells, known, all_known)
    rises[first[count > 0]] = 0.0
    within = rises + np.where(known, finer.delta, 0.0)
    return _counted(
        rollup, finer.first, finer.last, within, finer.first_boot, finer.last_boot, of_row, first, last
    )


def nothing(size: int) -> NDArray[np.float64]:
    """So many NaN, which take no room."""
    return np.broadcast_to(np.float64(np.nan), size)


def summed(of_row: NDArray[np.intp], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The sum of each cell's values, added one after another as they come."""
    sums: NDArray[np.float64] = np.bincount(of_row, weights=values, minlength=size).astype(
        np.float64, copy=False
    )
    return sums


def rise(
    before: NDArray[np.float64],
    before_boot: NDArray[np.int32],
    after: NDArray[np.float64],
    after_boot: NDArray[np.int32],
) -> NDArray[np.float64]:
    """What a counter counted from one reading to the next: after a reset, all that it shows."""
    rose = after - before
    np.copyto(rose, after, where=(rose < 0) | (before_boot != after_boot))
    return rose


def codes_of(cells: Cells, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Per cell and field the code of its last known value, or the last code where nothing was known.

    codes: shape (rows, fields). Gives shape (cells, fields).
    """
    places = np.where(codes & STATE == 0, np.arange(cells.rows)[:, None], -1)
    newest_known = np.maximum.reduceat(places, cells.first, axis=0) if cells.rows else places
    newest = (cells.ends - 1)[:, None]
    chosen = np.where(newest_known >= 0, newest_known, newest)
    return np.take_along_axis(codes, chosen, axis=0)


def chain(
    kind: Kind, step_ms: int, things: NDArray[np.int32], at_ms: NDArray[np.int64],
    values: NDArray[np.float64], boots: NDArray[np.int32],
) -> Rollup:  # fmt: skip
    """Samples of one field in buckets of `step_ms`, by way of every tier between: the one way to add up.

    Rows are sorted by thing and instant. Beyond an hour the step is an hour: `Grid` puts hours side by side.
    """
    steps = [STEP_MS[tier] for tier in ROLLED if step_ms % STEP_MS[tier] == 0]
    if not steps:
        return of_samples(kind, cells_of(things, at_ms, step_ms), values, boots)
    rolled = of_samples(kind, cells_of(things, at_ms, steps[0]), values, boots)
    for coarser_ms in steps[1:]:
        rolled = of_rollup(rolled, coarser_ms)
    return rolled


def picked(rollup: Rollup, which: slice) -> Rollup:
    """Some consecutive cells of it."""

    def column(name: str) -> Any:
        found = getattr(rollup, name)
        return None if found is None else found[which]

    named = {each.name: column(each.name) for each in dataclass_fields(Rollup) if each.name != "kind"}
    return Rollup(kind=rollup.kind, **named)


def joined(parts: Sequence[Rollup]) -> Rollup:
    """Rollups of one field behind one another, which together must be in order."""

    def column(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    named = {each.name: column(each.name) for each in dataclass_fields(Rollup) if each.name != "kind"}
    return Rollup(kind=parts[0].kind, **named)


def _levels(
    kind: Kind,
    cells: Cells,
    count: NDArray[np.int64],
    total: NDArray[np.float64],
    *,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    last: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> Rollup:
    if not cells.rows:
        empty = np.zeros(0)
        return Rollup(
            kind=kind, things=cells.things, at_ms=cells.at_ms, count=count,
            low=empty, high=empty, total=empty, last=empty,
        )  # fmt: skip
    if len(cells.first) == cells.rows:  # each row is a cell: buckets no longer than the tick
        return Rollup(
            kind=kind, things=cells.things, at_ms=cells.at_ms, count=count,
            low=low, high=high, total=np.where(known, total, np.nan), last=last,
        )  # fmt: skip
    all_known = bool(known.all())
    lows = np.fmin.reduceat(low, cells.first) if not all_known else np.minimum.reduceat(low, cells.first)
    highs = np.fmax.reduceat(high, cells.first) if not all_known else np.maximum.reduceat(high, cells.first)
    if kind is Kind.BITS:
        bits = np.where(known, last, 0.0).astype(np.int64)
        lasts = np.bitwise_or.reduceat(bits, cells.first).astype(np.float64)
    else:
        lasts = last[_ends(cells, known, all_known)[1]]
    if not all_known:
        nothing_known = count == 0
        total = np.where(nothing_known, np.nan, total)
        lasts = np.where(nothing_known, np.nan, lasts)
    return Rollup(
        kind=kind, things=cells.things, at_ms=cells.at_ms, count=count,
        low=lows, high=highs, total=total, last=lasts,
    )  # fmt: skip


def _ends(
    cells: Cells, known: NDArray[np.bool_], all_known: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of the first and the last known row of each cell; of one without any, of some row of it."""
    if all_known or not cells.rows:
        return cells.first, cells.ends - 1
    places = np.arange(cells.rows)
    last = np.maximum.reduceat(np.where(known, places, -1), cells.first)
    first = np.minimum.reduceat(np.where(known, places, cells.rows), cells.first)
    return np.where(first < cells.rows, first, cells.first), np.where(last >= 0, last, cells.first)


def _counted(
    rollup: Rollup,
    firsts: NDArray[np.float64],
    lasts: NDArray[np.float64],
    within: NDArray[np.float64],
    first_boots: NDArray[np.int32],
    last_boots: NDArray[np.int32],
    of_row: NDArray[np.intp],
    first: NDArray[np.intp],
    last: NDArray[np.intp],
) -> Rollup:
    """`rollup` of a counter, with what it counted within each cell."""
    delta = summed(of_row, within, len(rollup.count))
    delta[rollup.count == 0] = np.nan
    return Rollup(
        kind=rollup.kind, things=rollup.things, at_ms=rollup.at_ms, count=rollup.count, low=rollup.low,
        high=rollup.high, total=rollup.total, last=lasts[last], first=firsts[first], delta=delta,
        first_boot=first_boots[first], last_boot=last_boots[last],
    )  # fmt: skip
