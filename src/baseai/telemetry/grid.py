"""A grid is one field of many things over a range, put together by group and bucket: what an aggregate is made of.

Invariant: rollups are put in piece by piece in the order of time, each sorted by thing and bucket, no two of them with
a bucket in common unless buckets are longer than an hour; the grid then holds the same numbers, bit for bit, wherever
its pieces came from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import Kind
from baseai.telemetry.rollup import Rollup, of_rollup, rise
from baseai.telemetry.store import Aggregate, By
from baseai.telemetry.tier import HOUR_MS, Buckets


class Grid:
    """line_of: by a store's number of a thing its line here, −1 where not asked for; its last stands for all beyond.

    group_of: shape (lines,), the place of each line's group.
    """

    def __init__(
        self,
        kind: Kind,
        buckets: Buckets,
        *,
        line_of: NDArray[np.int32],
        group_of: NDArray[np.int32],
        groups: int,
    ) -> None:
        self._kind = kind
        self._buckets = buckets
        self._line_of = line_of
        self._group_of = group_of
        self._groups = groups
        # Buckets of more than an hour are filled piece after piece: then the last of each thing has to be kept apart.
        self._by_line = buckets.step_ms > HOUR_MS
        lines = len(group_of)
        self._shape = (lines if self._by_line else groups, buckets.count)
        self._count = np.zeros(self._shape)
        self._low = np.full(self._shape, np.inf)
        self._high = np.full(self._shape, -np.inf)
        self._total = np.zeros(self._shape)
        self._last = np.full(self._shape, -np.inf) if kind is Kind.CODE else np.zeros(self._shape)
        self._delta = np.zeros(self._shape)
        self._before = np.full(lines, np.nan)  # each counter's last value so far
        self._before_boot = np.full(lines, -1, dtype=np.int32)
        self._first_cell = np.full(
            lines, -1, dtype=np.int64
        )  # where each counter begins, −1 once that is settled
        self._first = np.full(lines, np.nan)
        self._first_boot = np.full(lines, -1, dtype=np.int32)

    def put(self, piece: Rollup) -> None:
        """Add one piece. Buckets outside the range and things not asked for are passed over."""
        buckets = self._buckets
        columns = (piece.at_ms - buckets.from_ms) // buckets.step_ms
        if not self._by_line and bool(
            ((columns[1:] == columns[:-1]) & (piece.things[1:] == piece.things[:-1])).any()
        ):
            piece = of_rollup(piece, buckets.step_ms)
            columns = (piece.at_ms - buckets.from_ms) // buckets.step_ms
        lines = np.take(self._line_of, piece.things, mode="clip")
        wanted = (piece.count > 0) & (lines >= 0) & (columns >= 0) & (columns < buckets.count)
        pick: slice | NDArray[np.intp] = slice(None) if bool(wanted.all()) else np.flatnonzero(wanted)
        lines, columns = lines[pick], columns[pick]
        if not len(lines):
            return
        begin, end = int(columns.min()), int(columns.max()) + 1
        rows = lines if self._by_line else self._group_of[lines]
        cells = rows.astype(np.intp) * (end - begin) + (columns - begin)
        within = np.s_[:, begin:end]
        add = self._added if self._by_line else self._summed
        add(self._count, within, cells, piece.count[pick])
        if self._kind is not Kind.COUNTER:
            add(self._total, within, cells, piece.total[pick])
        _combine(np.minimum, self._low, within, cells, piece.low[pick])
        _combine(np.maximum, self._high, within, cells, piece.high[pick])
        last = piece.last[pick]
        if self._kind is Kind.BITS:
            bits = np.zeros((self._shape[0], end - begin), dtype=np.int64)
            np.bitwise_or.at(bits.reshape(-1), cells, last.astype(np.int64))
            self._last[within] = bits | self._last[within].astype(np.int64)
        elif self._by_line:
            table = self._last[within].copy()
            table.reshape(-1)[cells] = last  # of a cell that is named twice the later stays
            self._last[within] = table
        elif self._kind is Kind.CODE:
            _combine(np.maximum, self._last, within, cells, last)
        else:
            self._summed(self._last, within, cells, last)
        if self._kind is Kind.COUNTER:
            rises = self._rises(piece, pick, lines, rows.astype(np.int64) * buckets.count + columns)
            add(self._delta, within, cells, rises)

    def _summed(
        self,
        table: NDArray[np.float64],
        within: tuple[slice, slice],
        cells: NDArray[np.intp],
        numbers: NDArray[np.generic],
    ) -> None:
        stretch = table[within]
        table[within] = stretch + np.bincount(cells, weights=numbers, minlength=stretch.size).reshape(
            stretch.shape
        )

    @staticmethod
    def _added(
        table: NDArray[np.float64],
        within: tuple[slice, slice],
        cells: NDArray[np.intp],
        numbers: NDArray[np.generic],
    ) -> None:
        """One after another onto what is there: over several pieces the same sum as over one."""
        _combine(np.add, table, within, cells, numbers.astype(np.float64, copy=False))

    def _rises(
        self,
        piece: Rollup,
        pick: slice | NDArray[np.intp],
        lines: NDArray[np.int32],
        places: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """What each counter counted in each cell since the cell before it, in this piece or an earlier one."""
        assert piece.first is not None
        assert piece.delta is not None
        assert piece.first_boot is not None
        assert piece.last_boot is not None
        last, last_boot = piece.last[pick], piece.last_boot[pick]
        begins = np.flatnonzero(np.concatenate(([True], lines[1:] != lines[:-1])))
        before = np.concatenate(([np.nan], last[:-1]))
        before_boot = np.concatenate((np.array([-1], dtype=np.int32), last_boot[:-1]))
        before[begins] = self._before[lines[begins]]
        before_boot[begins] = self._before_boot[lines[begins]]
        first, first_boot = piece.first[pick], piece.first_boot[pick]
        crossed = rise(before, before_boot, first, first_boot)
        new = begins[np.isnan(before[begins])]
        crossed[new] = 0.0  # the first of the range: see `settle`
        self._first_cell[lines[new]] = places[new]
        self._first[lines[new]], self._first_boot[lines[new]] = first[new], first_boot[new]
        self._before[lines] = last
        self._before_boot[lines] = last_boot
        return crossed + piece.delta[pick]

    def waiting(self) -> NDArray[np.intp]:
        """The lines of counters that begin in this range, as long as nobody said what they stood at before it."""
        return np.flatnonzero(self._first_cell >= 0)

    def settle(
        self, things: NDArray[np.int32], values: NDArray[np.float64], boots: NDArray[np.int32]
    ) -> None:
        """Say what counters stood at before the range begins, once all pieces are in."""
        lines = np.take(self._line_of, things, mode="clip")
        told = np.flatnonzero(lines >= 0)
        told = told[self._first_cell[lines[told]] >= 0]
        lines = lines[told]
        rose = rise(values[told], boots[told], self._first[lines], self._first_boot[lines])
        np.add.at(self._delta.reshape(-1), self._first_cell[lines], rose)
        self._first_cell[lines] = -1

    def aggregate(self, field: str, by: By, names: Sequence[str]) -> Aggregate:
        """All of it. names: of the groups, sorted."""
        buckets = self._buckets
        counts = self._grouped(np.add, self._count)
        unknown = counts == 0
        if self._kind is Kind.BITS:
            lasts = self._grouped(np.bitwise_or, self._last.astype(np.int64)).astype(np.float64)
        else:
            lasts = self._grouped(np.maximum if self._kind is Kind.CODE else np.add, self._last)
        totals, deltas = self._grouped(np.add, self._total), self._grouped(np.add, self._delta)
        lows, highs = self._grouped(np.minimum, self._low), self._grouped(np.maximum, self._high)
        for table in (lasts, totals, lows, highs, deltas):
            table[unknown] = np.nan
        (totals if self._kind is Kind.COUNTER else deltas)[:] = np.nan
        seen = np.flatnonzero(~unknown.all(axis=1)) if buckets.count else np.zeros(0, dtype=np.intp)
        return Aggregate(
            field=field,
            by=by,
            tier=buckets.tier,
            step_ms=buckets.step_ms,
            groups=tuple(names[place] for place in seen.tolist()),
            ts_ms=buckets.from_ms + np.arange(buckets.count, dtype=np.int64) * buckets.step_ms,
            low=lows[seen],
            high=highs[seen],
            total=totals[seen],
            count=counts[seen].astype(np.int64),
            last=lasts[seen],
            delta=deltas[seen],
        )

    def _grouped(self, ufunc: np.ufunc, table: NDArray[np.generic]) -> NDArray[np.float64]:
        """Shape (groups, buckets)."""
        if not self._by_line:
            return np.array(table)
        order = np.argsort(self._group_of, kind="stable")
        begins = np.searchsorted(self._group_of[order], np.arange(self._groups))
        if not len(order) or not self._shape[1]:
            return np.array(table[: self._groups])
        return np.asarray(ufunc.reduceat(table[order], begins, axis=0))


def _combine(
    ufunc: np.ufunc,
    table: NDArray[np.float64],
    within: tuple[slice, slice],
    cells: NDArray[np.intp],
    numbers: NDArray[np.float64],
) -> None:
    stretch = table[within].copy()
    ufunc.at(stretch.reshape(-1), cells, numbers)
    table[within] = stretch
