"""Pieces are uses cut where their price changes: at an instant, at a commitment's end, at the next volume tier.

Invariant: cutting keeps the sum of quantities and the order in time, and a piece's amount is the rounded running total
after it less the one before it. So pieces of one price add up to the total rounded once, whatever was cut where.
Columns, not objects: a month has millions. Arrays of one Pieces have one length and are never changed in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
WIDE = 2**62  # beyond it 64 bits may overflow, and Python's own integers reckon


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Columns of one length, one row a piece."""

    use: Ints  # which use, by its place in the batch
    from_us: Ints  # since 1970
    quantity: Ints
    clause: Ints  # which rule prices it, by its place among the batch's clauses
    tier: Ints

    def __len__(self) -> int:
        return len(self.use)

    def where(self, rows: NDArray[np.bool_] | Ints) -> "Pieces":
        return Pieces(
            use=self.use[rows],
            from_us=self.from_us[rows],
            quantity=self.quantity[rows],
            clause=self.clause[rows],
            tier=self.tier[rows],
        )

    def with_clause(self, clause: Ints) -> "Pieces":
        return replace(self, clause=clause)


_NONE = np.zeros(0, np.int64)
NO_PIECES = Pieces(use=_NONE, from_us=_NONE, quantity=_NONE, clause=_NONE, tier=_NONE)


def joined(parts: Sequence[Pieces]) -> Pieces:
    """All of them, one after the other."""
    return Pieces(
        use=np.concatenate([part.use for part in parts]),
        from_us=np.concatenate([part.from_us for part in parts]),
        quantity=np.concatenate([part.quantity for part in parts]),
        clause=np.concatenate([part.clause for part in parts]),
        tier=np.concatenate([part.tier for part in parts]),
    )


def cut_at(pieces: Pieces, instants_us: Ints) -> Pieces:
    """Pieces of time (quantity is µs), none of which has one of the instants inside. instants_us: sorted."""
    until_us = pieces.from_us + pieces.quantity
    first = np.searchsorted(instants_us, pieces.from_us, side="right")
    last = np.searchsorted(instants_us, until_us, side="left")
    whole = first >= last
    if whole.all():
        return pieces
    parts = [pieces.where(whole)]
    for row in np.flatnonzero(~whole):  # few: only what straddles
        bounds = [
            int(pieces.from_us[row]),
            *instants_us[first[row] : last[row]].tolist(),
            int(until_us[row]),
        ]
        starts, ends = np.array(bounds[:-1], np.int64), np.array(bounds[1:], np.int64)
        same = pieces.where(np.full(len(starts), row, np.int64))
        parts.append(replace(same, from_us=starts, quantity=ends - starts))
    return joined(parts)


def running(pieces: Pieces, group: Ints, start: Ints) -> tuple[Ints, Ints]:
    """What was counted in its group before each piece and after it, pieces taken in order of time.

    group: shape (pieces,), any small numbers. start: shape (groups,), what each group had counted already.
    """
    order = np.lexsort((pieces.use, pieces.from_us, group))
    quantity, sorted_group = pieces.quantity[order], group[order]
    total = np.cumsum(quantity)
    begins = np.flatnonzero(np.diff(sorted_group, prepend=sorted_group[:1] - 1))
    base = np.repeat((total - quantity)[begins], np.diff(begins, append=len(order)))
    after = np.empty(len(order), np.int64)
    after[order] = total - base + start[sorted_group]
    return after - pieces.quantity, after


def within(pieces: Pieces, before: Ints, after: Ints, low: Ints, high: Ints, *, timed: bool) -> Pieces:
    """The part of each piece that is counted from `low` to `high` of its group; what has none is left out.

    timed: quantity is µs, so the part begins as much later as comes before it.
    """
    begin = np.maximum(before, low)
    part = np.minimum(after, high) - begin
    kept = part > 0
    found = pieces.where(kept)
    later = (begin - before)[kept] if timed else np.int64(0)
    return replace(found, from_us=found.from_us + later, quantity=part[kept])


def rounded(rate: Sequence[Fraction], key: Ints, quantity: Ints) -> Ints:
    """quantity × rate[key] in whole micro-units, half to even, exactly.

    rate: micro-units per counted unit, one for each key. key, quantity: shape (pieces,).
    """
    if not len(key):
        return np.zeros(0, np.int64)
    above = [one.numerator for one in rate]
    below = [one.denominator for one in rate]
    most = max(map(abs, above)) * max(1, int(np.abs(quantity).max()))
    kind = object if max(most, *below) >= WIDE else np.int64
    by = np.array(below, dtype=kind)[key]
    exact = np.array(above, dtype=kind)[key] * quantity.astype(kind)
    whole = exact // by
    rest = exact - whole * by
    up = (2 * rest > by) | ((2 * rest == by) & (whole % 2 == 1))
    return np.asarray(whole + up.astype(np.int64), dtype=np.int64)
