"""A grid is one field of many things over a range, a line a thing and a column a bucket: what an aggregate is made of.

Invariant: rollups are put in piece by piece in the order of time, each sorted by thing and bucket, and no two of them
hold the same bucket of a tier; the grid then holds the same numbers wherever its pieces came from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Kind
from baseai.telemetry.rollup import Rollup, rise
from baseai.telemetry.store import Aggregate, By
from baseai.telemetry.tier import Buckets


class Grid:
    """Things are numbered 0, 1, … here; `line_of` translates from a store's own numbers, −1 where not asked for."""

    def __init__(self, kind: Kind, line_of: NDArray[np.int32], lines: int, buckets: Buckets) -> None:
        self._kind = kind
        self._line_of = line_of
        self._buckets = buckets
        self._lines = lines
        size = lines * buckets.count
        self._count = np.zeros(size, dtype=np.int64)
        self._low = np.full(size, np.nan)
        self._high = np.full(size, np.nan)
        self._total = np.zeros(size)
        self._last = np.full(size, np.nan)
        self._delta = np.zeros(size) if kind is Kind.COUNTER else None
        self._before = np.full(lines, np.nan)  # each counter's last value so far
        self._before_boot = np.full(lines, -1, dtype=np.int32)
        self._first_cell = np.full(
            lines, -1, dtype=np.int64
        )  # where each counter begins, −1 once that is settled
        self._first = np.full(lines, np.nan)
        self._first_boot = np.full(lines, -1, dtype=np.int32)

    def waiting(self) -> NDArray[np.intp]:
        """The lines of counters that begin in this range, as long as nobody said what they stood at before it."""
        return np.flatnonzero(self._first_cell >= 0)

    def settle(
        self, things: NDArray[np.int32], values: NDArray[np.float64], boots: NDArray[np.int32]
    ) -> None:
        """Say what counters stood at before the range begins, once all pieces are in; NaN is passed over."""
        lines = self._line_of[things]
        told = np.flatnonzero((lines >= 0) & ~np.isnan(values))
        told = told[self._first_cell[lines[told]] >= 0]
        lines = lines[told]
        if self._delta is not None and len(lines):
            rose = rise(values[told], boots[told], self._first[lines], self._first_boot[lines])
            self._delta[self._first_cell[lines]] += rose
            self._first_cell[lines] = -1

    def put(self, piece: Rollup) -> None:
        """Add one piece. Buckets outside the range and things not asked for are passed over."""
        buckets = self._buckets
        lines = self._line_of[piece.things]
        columns = (piece.at_ms - buckets.from_ms) // buckets.step_ms
        wanted = (piece.count > 0) & (lines >= 0) & (columns >= 0) & (columns < buckets.count)
        everything = bool(wanted.all())
        pick = slice(None) if everything else np.flatnonzero(wanted)
        cells = (lines.astype(np.int64) * buckets.count + columns)[pick]
        if not len(cells):
            return
        alone = bool((cells[1:] != cells[:-1]).all()) and not self._count[cells].any()
        count, total = piece.count[pick], piece.total[pick]
        low, high, last = piece.low[pick], piece.high[pick], piece.last[pick]
        if alone:
            self._count[cells], self._low[cells], self._high[cells] = count, low, high
            self._total[cells], self._last[cells] = total, last
        else:
            np.add.at(self._count, cells, count)
            np.add.at(self._total, cells, total)
            np.fmin.at(self._low, cells, low)
            np.fmax.at(self._high, cells, high)
            if self._kind is Kind.BITS:
                bits = np.nan_to_num(self._last).astype(np.int64)
                np.bitwise_or.at(bits, cells, last.astype(np.int64))
                self._last[cells] = bits[cells]
            else:
                self._last[cells] = last  # of cells named twice the later stays
        if self._delta is not None:
            self._count_on(piece, pick, lines[pick], cells, alone)

    def _count_on(
        self,
        piece: Rollup,
        pick: slice | NDArray[np.intp],
        lines: NDArray[np.int32],
        cells: NDArray[np.int64],
        alone: bool,
    ) -> None:
        assert self._delta is not None
        assert piece.first is not None
        assert piece.delta is not None
        assert piece.first_boot is not None
        assert piece.last_boot is not None
        last, last_boot = piece.last[pick], piece.last_boot[pick]
        first_of_line = np.empty(len(lines), dtype=np.bool_)
        first_of_line[0] = True
        np.not_equal(lines[1:], lines[:-1], out=first_of_line[1:])
        before = np.concatenate(([np.nan], last[:-1]))
        before_boot = np.concatenate((np.array([-1], dtype=np.int32), last_boot[:-1]))
        before[first_of_line] = self._before[lines[first_of_line]]
        before_boot[first_of_line] = self._before_boot[lines[first_of_line]]
        first, first_boot = piece.first[pick], piece.first_boot[pick]
        crossed = rise(before, before_boot, first, first_boot)
        begins = np.flatnonzero(np.isnan(before))
        crossed[begins] = 0.0  # the first of the range: see `settle`
        self._first_cell[lines[begins]] = cells[begins]
        self._first[lines[begins]], self._first_boot[lines[begins]] = first[begins], first_boot[begins]
        if alone:
            self._delta[cells] = crossed + piece.delta[pick]
        else:
            np.add.at(self._delta, cells, crossed + piece.delta[pick])
        self._before[lines] = last
        self._before_boot[lines] = last_boot

    def aggregate(self, field: str, by: By, names: Sequence[str], group_of: NDArray[np.int32]) -> Aggregate:
        """The grid's lines put together by group. group_of: shape (lines,), the place of each one's name."""
        buckets = self._buckets
        shape = (self._lines, buckets.count)
        count = self._count.reshape(shape)
        in_order = bool((group_of[1:] >= group_of[:-1]).all())  # as a rule: then the copies are spared
        order = slice(None) if in_order else np.argsort(group_of, kind="stable")
        sorted_groups = group_of[order]
        begins = np.flatnonzero(np.concatenate(([True], sorted_groups[1:] != sorted_groups[:-1])))[
            : len(group_of)
        ]
        present = sorted_groups[begins]

        def together(ufunc: np.ufunc, cells: NDArray[np.generic]) -> NDArray[np.float64]:
            lines = cells.reshape(shape)[order]
            if len(begins) == len(lines) or not len(lines):
                return np.array(lines)
            return np.asarray(ufunc.reduceat(lines, begins, axis=0))

        counts = together(np.add, count).astype(np.int64)
        unknown = counts == 0
        nothing_yet = self._count == 0
        last = np.where(nothing_yet, 0.0, self._last)
        if self._kind is Kind.BITS:
            lasts = together(np.bitwise_or, last.astype(np.int64)).astype(np.float64)
        elif self._kind is Kind.CODE:
            lasts = together(np.fmax, self._last)
        else:
            lasts = together(np.add, last)
        totals = together(np.add, self._total)
        if self._delta is None:
            deltas = np.full(totals.shape, np.nan)
        else:
            deltas = together(np.add, self._delta)
        lows, highs = together(np.fmin, self._low), together(np.fmax, self._high)
        for table in (lasts, totals, deltas):
            table[unknown] = np.nan
        seen = np.flatnonzero(~unknown.all(axis=1)) if buckets.count else np.arange(0)
        seen = seen[np.argsort([names[present[place]] for place in seen])] if len(seen) else seen
        return Aggregate(
            field=field,
            by=by,
            tier=buckets.tier,
            step_ms=buckets.step_ms,
            groups=tuple(names[present[place]] for place in seen),
            ts_ms=buckets.from_ms + np.arange(buckets.count, dtype=np.int64) * buckets.step_ms,
            low=lows[seen],
            high=highs[seen],
            total=totals[seen],
            count=counts[seen],
            last=lasts[seen],
            delta=deltas[seen],
        )
