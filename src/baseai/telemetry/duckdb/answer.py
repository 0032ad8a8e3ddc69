"""Answers from disk: a grid filled, one thing rolled up, what a counter stood at before a range.

Invariant: the same question has the same answer, bit for bit, before and after its hours are sealed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.duckdb.view import View
from baseai.telemetry.field import Kind
from baseai.telemetry.grid import Grid
from baseai.telemetry.layout import in_time, rolled_in, rollup_in
from baseai.telemetry.rolled import Merge, Rolled, all_of, by_tiers, coarser
from baseai.telemetry.rollup import chain
from baseai.telemetry.rows import no_rows
from baseai.telemetry.store import STEP_MS, Tier
from baseai.telemetry.things import Things
from baseai.telemetry.tier import HOUR_MS, Buckets

STRIDE_MAX_H = 1_024
MINUTE_MS = STEP_MS[Tier.MINUTE]


def rolled_of(
    view: View, things: Things, thing: int, columns: Sequence[int], asked: Buckets, merge: Merge
) -> Rolled:
    """One thing in the buckets that are asked for."""
    family, step_ms = things.family, STEP_MS[asked.tier]
    kinds = [family.fields[column].kind for column in columns]
    only = np.array([thing], dtype=np.int32)
    parts = [by_tiers(kinds, no_rows(len(columns)), step_ms, merge)]
    for piece in view.shelf.pieces(family.name, asked):
        if piece.files:
            parts.append(rolled_in(view.rolled(piece, family, columns, only, whole=True), family, columns))
        else:
            rows = view.raw(family, [piece.hour], columns, piece.from_ms, piece.until_ms, things=only)
            parts.append(by_tiers(kinds, rows, step_ms, merge))
    return coarser(all_of(parts), asked.step_ms, merge)


def fill(
    grid: Grid, view: View, things: Things, column: int, numbers: NDArray[np.int32], asked: Buckets
) -> None:
    """Put everything that is on disk or pending into the grid."""
    family, kind = things.family, things.family.fields[column].kind
    step_ms = STEP_MS[asked.tier] or asked.step_ms
    only = None if len(numbers) == len(things.keys) else numbers
    for piece in view.shelf.pieces(family.name, asked):
        if piece.files:
            for rollup in in_time(rollup_in(view.rolled(piece, family, [column], only), family, column)):
                grid.put(rollup)
        else:
            rows = view.raw(family, [piece.hour], [column], piece.from_ms, piece.until_ms, things=only)
            grid.put(chain(kind, step_ms, rows.things, rows.at_ms, rows.values[0], rows.boots))


def waiting(grid: Grid, things: Things, numbers: NDArray[np.int32], from_ms: int) -> NDArray[np.int32]:
    """The things whose counter began before this range, as long as nobody said what it stood at."""
    left = numbers[grid.waiting()]
    born_ms = np.array([things.born_ms[thing] for thing in left.tolist()], dtype=np.int64)
    return np.asarray(left[born_ms < from_ms])


def settle_from_disk(
    grid: Grid,
    view: View,
    things: Things,
    column: int,
    numbers: NDArray[np.int32],
    from_ms: int,
    minutes_from_ms: int,
) -> None:
    """Walk back, in ever longer strides, until every counter of the range has its value before it.

    minutes_from_ms: from when on there are minutes; before, what is left is ten of them.
    """
    if things.family.fields[column].kind is not Kind.COUNTER:
        return
    until_ms, stride = from_ms, 1
    begins_ms = (from_ms - 1) // HOUR_MS * HOUR_MS
    while len(left := waiting(grid, things, numbers, from_ms)):
        if until_ms <= min(things.born_ms[thing] for thing in left.tolist()):
            return
        tier = (
            Tier.HOUR if until_ms % HOUR_MS == 0 else Tier.MINUTE if until_ms % MINUTE_MS == 0 else Tier.RAW
        )
        if tier is Tier.MINUTE and begins_ms < minutes_from_ms:
            tier = Tier.TEN_MINUTES
        step_ms = STEP_MS[tier] or until_ms - begins_ms
        count = (until_ms - begins_ms) // step_ms
        _settle_within(
            grid,
            view,
            things,
            column,
            left,
            Buckets(tier=tier, step_ms=step_ms, from_ms=begins_ms, count=count),
        )
        until_ms, stride = begins_ms, min(2 * stride, STRIDE_MAX_H)
        begins_ms -= stride * HOUR_MS


def _settle_within(
    grid: Grid, view: View, things: Things, column: int, left: NDArray[np.int32], asked: Buckets
) -> None:
    family = things.family
    found: list[tuple[NDArray[Any], ...]] = []
    for piece in view.shelf.pieces(family.name, asked):
        if piece.files:
            rollup = rollup_in(view.rolled(piece, family, [column], left), family, column)
            assert rollup.last_boot is not None
            found.append((rollup.things, rollup.at_ms, rollup.last, rollup.last_boot))
        else:
            rows = view.raw(family, [piece.hour], [column], piece.from_ms, piece.until_ms, things=left)
            found.append((rows.things, rows.at_ms, rows.values[0], rows.boots))
    if found:
        numbers, at_ms, values, boots = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.lexsort((at_ms, numbers))
        settle(grid, numbers[order], values[order], boots[order])


def settle(
    grid: Grid, things: NDArray[np.int32], values: NDArray[np.float64], boots: NDArray[np.int32]
) -> None:
    """Tell the grid the last known value of each thing among rows that are in order."""
    known = np.flatnonzero(~np.isnan(values))
    things, values, boots = things[known], values[known], boots[known]
    if len(things):
        lasts = np.flatnonzero(np.concatenate((things[1:] != things[:-1], [True])))
        grid.settle(things[lasts], values[lasts], boots[lasts])
