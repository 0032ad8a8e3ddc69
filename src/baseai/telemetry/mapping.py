"""A mapping row says which term of a vendor becomes which field of an accelerator: unit, factor, and how terms combine.

Invariant: the rows are data, one table a dialect in `mappings/`, and every row is exercised by a test. Of the rows of
one field the lowest rank that the source can fill wins; rows of one rank that are parts of a word of bits are joined.
A term that is known and must not be used stands in the table as refused, with the reason.

A term is written as its source spells it, without blanks:
    NAME, NAME{label=value}              a metric of an exporter; names and labels match whatever their case
    call(argument,…).key.key             a call of a driver's library, and what to take of its answer (0: first place)
    call.a*b                             two keys of one answer, multiplied
A `?` behind a term: it may be missing as long as another term of its row is there.
"""

import csv
import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from types import MappingProxyType

from baseai.telemetry.field import ACCELERATOR, Throttle


class Dialect(StrEnum):
    """The language in which one exporter or driver library speaks of accelerators."""

    DCGM = "dcgm"  # NVIDIA dcgm-exporter
    AMD_EXPORTER = "amd_exporter"  # AMD device-metrics-exporter
    TPU = "tpu"  # TPU runtime, its SDK, and GKE
    NVML = "nvml"  # the library of NVIDIA's driver
    AMD_SMI = "amd_smi"  # the library of AMD's driver


class How(StrEnum):
    """How the numbers of a row's terms become one."""

    SUM = "sum"
    MAX = "max"
    RATE = "rate"  # what an accumulator gained since the reading before, a second
    RESIDENCY = "residency"  # share of the last term's ticks that the others held, as milliseconds
    BITS = "bits"  # a word of NVML's reasons
    FLAG = "flag"  # above 0 sets the row's bit of throttle_bits
    COUNT = "count"  # the count within row_remap
    PENDING = "pending"  # above 0 sets its bit of row_remap
    FAILED = "failed"  # above 0 sets its bit of row_remap
    RISEN = "risen"  # a count per code, which stands in a label: the codes whose count has risen
    APPEARED = "appeared"  # the numbers are codes: those that were not there before
    REFUSED = "refused"  # known, and not used


JOINED = frozenset({How.FLAG, How.COUNT, How.PENDING, How.FAILED})  # parts of one word


class Parts(StrEnum):
    """How the figures of MIG instances become their device's."""

    DEVICE = "device"  # every instance repeats the device's own
    SLICES = "slices"  # mean, weighted by compute slices out of all the device has
    MEMORY = "memory"  # mean, weighted by memory out of all the device has
    SUM = "sum"
    NONE = "none"  # does not exist under MIG


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One name of a vendor, taken apart."""

    text: str  # as the table spells it, without `?`; readings are keyed by it
    name: str  # metric or call
    arguments: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # into the answer of a call; "a*b" is a product of two
    labels: tuple[tuple[str, str], ...] = ()  # that a metric must have
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingRow:
    """One way to fill one field."""

    dialect: Dialect
    field: str
    rank: int  # 0 is tried first
    terms: tuple[Term, ...]
    how: How
    unit: str  # the vendor's
    factor: float  # from the vendor's unit to the field's
    parts: Parts
    weaker: bool  # says less than the field means; `why` says what
    why: str
    bit: Throttle | None = None  # of FLAG
    label: str = ""  # of RISEN: the label that holds the code

    source: str = dataclasses.field(
        init=False, compare=False
    )  # where the value comes from, for a person to follow

    def __post_init__(self) -> None:
        names = " + ".join(term.text for term in self.terms)
        factor = f" × {self.factor:.10g}" if self.factor != 1 else ""
        note = f"; {'weaker: ' if self.weaker else ''}{self.why}" if self.why else ""
        object.__setattr__(self, "source", f"{self.dialect}: {names} ({self.unit}{factor}{note})")


@functools.cache
def rows_of(dialect: Dialect | str) -> tuple[MappingRow, ...]:
    """The usable rows of a dialect, by field and rank. Raises ValueError for a dialect nobody speaks."""
    return tuple(row for row in all_rows(dialect) if row.how is not How.REFUSED)


@functools.cache
def refused_by(dialect: Dialect | str) -> tuple[MappingRow, ...]:
    """What a dialect says and nobody should believe, each with the reason."""
    return tuple(row for row in all_rows(dialect) if row.how is How.REFUSED)


@functools.cache
def ranks_of(dialect: Dialect | str) -> Mapping[str, tuple[tuple[MappingRow, ...], ...]]:
    """field → its ranks, best first, each the rows that fill it together."""
    ranks: dict[str, dict[int, list[MappingRow]]] = {}
    for row in rows_of(dialect):
        ranks.setdefault(row.field, {}).setdefault(row.rank, []).append(row)
    return MappingProxyType(
        {name: tuple(tuple(held[rank]) for rank in sorted(held)) for name, held in ranks.items()}
    )


@functools.cache
def all_rows(dialect: Dialect | str) -> tuple[MappingRow, ...]:
    """The whole table of a dialect. Raises ValueError for a dialect nobody speaks, or a table that is wrong."""
    spoken = Dialect(dialect)
    text = files("baseai.telemetry").joinpath("mappings", f"{spoken}.csv").read_text(encoding="utf-8")
    return tuple(row_of(spoken, cells) for cells in csv.DictReader(text.splitlines()))


def row_of(dialect: Dialect, cells: Mapping[str, str]) -> MappingRow:
    """One line of a table. Raises ValueError when it names a field, a rule or a unit that cannot be."""
    if cells["field"] not in ACCELERATOR.index:
        raise ValueError(f"{dialect}: an accelerator has no field {cells['field']}")
    how, _, detail = cells["how"].partition(" ")
    return MappingRow(
        dialect=dialect,
        field=cells["field"],
        rank=int(cells["rank"]),
        terms=tuple(term_of(text) for text in cells["terms"].split()),
        how=How(how),
        unit=cells["unit"],
        factor=float(cells["factor"]),
        parts=Parts(cells["parts"]),
        weaker=cells["weaker"] == "yes",
        why=cells["why"],
        bit=Throttle[detail] if how == How.FLAG else None,
        label=detail if how == How.RISEN else "",
    )


TERM = re.compile(
    r"([\w.*]+)(?:\(([\w,]+)\))?((?:\.[\w*]+)*)(?:\{([\w=,]+)\})?"
)  # name, arguments, keys, labels


def term_of(text: str) -> Term:
    """A term as the tables write it. Raises ValueError for anything else."""
    optional = text.endswith("?")
    bare = text.removesuffix("?")
    matched = TERM.fullmatch(bare)
    if matched is None:
        raise ValueError(f"{text!r} is no term")
    name, arguments, keys, labels = matched.groups(default="")
    if re.match(r"(nvml|amdsmi_)", name):  # of a metric the points belong to the name
        name, _, inner = name.partition(".")
        keys = f".{inner}{keys}" if inner else keys
    return Term(
        text=bare,
        name=name,
        arguments=tuple(arguments.split(",")) if arguments else (),
        keys=tuple(keys.removeprefix(".").split(".")) if keys else (),
        labels=tuple(
            (label, value) for label, _, value in (pair.partition("=") for pair in labels.split(","))
        )
        if labels
        else (),
        optional=optional,
    )


# NVML's word of reasons (its own list, which DCGM repeats). None: nobody is slowed down by it.
NVML_REASONS: Mapping[int, Throttle | None] = MappingProxyType(
    {
        0x1: None,  # idle
        0x2: None,  # clocks as the application set them
        0x4: Throttle.POWER_CAP,
        0x10: Throttle.OTHER,  # sync boost: waits for the slowest of its group
        0x20: Throttle.THERMAL_SW,
        0x40: Throttle.THERMAL_HW,
        0x80: Throttle.POWER_BRAKE,
        0x100: Throttle.OTHER,  # display clocks
        0x200: Throttle.POWER_CAP,  # limit of the board
        0x400: Throttle.RELIABILITY,
    }
)
HW_SLOWDOWN = 0x8  # stands beside 0x40 or 0x80; alone it is the fast trigger against too much current


def throttle_of(reasons: int) -> int:
    """NVML's word of reasons in our own bits. A reason nobody knows is OTHER."""
    bits, left = 0, reasons & ~HW_SLOWDOWN
    for reason, bit in NVML_REASONS.items():
        if left & reason:
            left &= ~reason
            bits |= bit or 0
    if left:
        bits |= Throttle.OTHER
    if reasons & HW_SLOWDOWN and not bits & (Throttle.THERMAL_HW | Throttle.POWER_BRAKE):
        bits |= Throttle.POWER_BRAKE
    return bits
