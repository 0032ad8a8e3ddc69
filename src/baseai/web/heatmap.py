"""A heat map is one aspect of every accelerator as coloured cells; here as the numbers that a browser paints.

Invariant: a cell without a value carries the reason instead, and its number means nothing; equal readings give equal
bytes, so that only what changed is sent again. Pure.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import State
from baseai.telemetry.store import Latest
from baseai.web.floorplan import Floorplan

STALE_AFTER_MS = 60_000  # six ticks without a word: what was read then is no longer shown as if it were now


class Shown(IntEnum):
    """Why a cell shows no value, beyond the states that a reading can have."""

    STALE = 8  # there was one, too long ago
    NEVER = 9  # nothing was ever heard of this accelerator


class How(StrEnum):
    """How the numbers of an aspect are coloured."""

    LEVEL = "level"  # along a scale
    BITS = "bits"  # by what flags stand
    HEALTH = "health"
    HOLDER = "holder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """What a map shows of each accelerator. On the wire a level is round((value − low) × scale), 16 bits."""

    name: str
    how: How
    unit: str = ""
    low: float = 0.0
    high: float | None = None  # where the scale ends; None: at the highest value of the fleet
    scale: float = 1.0
    warn: float | None = None  # from here on it wants attention
    bad: float | None = None  # from here on it is wrong


ASPECTS: Mapping[str, Aspect] = MappingProxyType(
    {
        each.name: each
        for each in (
            Aspect(name="util_pct", how=How.LEVEL, unit="%", high=100, scale=100),
            Aspect(name="temp_c", how=How.LEVEL, unit="°C", low=20, high=95, scale=100, warn=85, bad=90),
            Aspect(name="power_w", how=How.LEVEL, unit="W", scale=10),
            Aspect(name="mem_pct", how=How.LEVEL, unit="%", high=100, scale=100),
            Aspect(name="throttle_bits", how=How.BITS),
            Aspect(name="health", how=How.HEALTH),
            Aspect(name="holder", how=How.HOLDER),
        )
    }
)
FIRST = "util_pct"
HEALTHS = ("healthy", "suspect", "faulty")  # in the order of their numbers on the wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One aspect of every accelerator, in the order of a floorplan.

    numbers: shape (cells,), uint16, see `Aspect`; 0 where there is no value. codes: shape (cells,), uint8: State or
    Shown in the low four bits, Origin above.
    """

    numbers: NDArray[np.uint16]
    codes: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest rows in the order of a floorplan.

    values, codes: shape (cells, fields), in the order of the family; rows that never were are NaN and NEVER, old ones
    NaN and STALE.
    """

    fields: Mapping[str, int]
    values: NDArray[np.float64]
    codes: NDArray[np.uint8]


def seen_of(plan: Floorplan, latest: Latest | None, *, now_ms: int) -> Seen:
    """`latest` brought into the plan's order; without it (the store is away) nothing is known of any cell."""
    cells = len(plan.rows)
    if latest is None or not latest.keys:
        fields = {} if latest is None else dict(latest.family.index)
        return Seen(
            fields=fields,
            values=np.full((cells, len(fields)), np.nan),
            codes=np.full((cells, len(fields)), Shown.NEVER, dtype=np.uint8),
        )
    row_of = {key: number for number, key in enumerate(latest.keys)}
    rows = np.fromiter((row_of.get(serial, -1) for serial in plan.serials), dtype=np.int64, count=cells)
    values, codes = latest.values[rows], latest.codes[rows]
    values[rows < 0], codes[rows < 0] = np.nan, Shown.NEVER
    old = (rows >= 0) & (latest.ts_ms[rows] < now_ms - STALE_AFTER_MS)
    values[old], codes[old] = np.nan, Shown.STALE
    return Seen(fields=latest.family.index, values=values, codes=codes)


def cells_of(aspect: Aspect, plan: Floorplan, seen: Seen) -> Cells:
    """What the cells of `plan` show of one aspect."""
    count = len(plan.rows)
    if aspect.how is How.HOLDER:
        return Cells(numbers=np.array(plan.holder, dtype=np.uint16), codes=np.zeros(count, dtype=np.uint8))
    if aspect.how is How.HEALTH:
        known = {health: number for number, health in enumerate(HEALTHS)}
        numbers = np.array([known.get(row["health"], len(HEALTHS)) for row in plan.rows], dtype=np.uint16)
        codes = np.where(numbers < len(HEALTHS), State.VALUE, State.ABSENT).astype(np.uint8)
        return Cells(numbers=numbers, codes=codes)
    values, codes = column_of(aspect.name, seen)
    with np.errstate(invalid="ignore"):
        wide = np.rint((values - aspect.low) * aspect.scale)
    numbers = np.where(np.isnan(wide), 0, np.clip(wide, 0, 65_535)).astype(np.uint16)
    return Cells(numbers=numbers, codes=codes)


def column_of(name: str, seen: Seen) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Values and codes of a field, or of `mem_pct`: memory in use as a share of what is installed."""
    cells = len(seen.values)
    if name == "mem_pct":
        used, used_codes = column_of("mem_used_b", seen)
        total, total_codes = column_of("mem_total_b", seen)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(total > 0, 100 * used / total, np.nan)
        codes = np.where(used_codes & 15, used_codes, total_codes)
        return share, np.where(np.isnan(share) & (codes & 15 == 0), State.ABSENT, codes).astype(np.uint8)
    if name not in seen.fields:
        return np.full(cells, np.nan), np.full(cells, Shown.NEVER, dtype=np.uint8)
    place = seen.fields[name]
    return seen.values[:, place], seen.codes[:, place]


def packed(cells: Cells) -> bytes:
    """All cells: their count (uint32), 0 (uint32), then the numbers and the codes; little-endian."""
    return (
        struct.pack("<II", len(cells.codes), 0)
        + cells.numbers.astype("<u2").tobytes()
        + cells.codes.tobytes()
    )


def packed_changes(before: Cells, after: Cells) -> bytes:
    """The cells that differ: their count, 1, their places (uint32), numbers and codes; b"" where none does."""
    changed = np.flatnonzero((before.numbers != after.numbers) | (before.codes != after.codes))
    if not len(changed):
        return b""
    return (
        struct.pack("<II", len(changed), 1)
        + changed.astype("<u4").tobytes()
        + after.numbers[changed].astype("<u2").tobytes()
        + after.codes[changed].tobytes()
    )
