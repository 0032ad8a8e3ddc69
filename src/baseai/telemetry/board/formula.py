"""A formula says of which properties of a controller one field of one thing is made, and with what factors.

Invariant: a sum with one part unknown is unknown: a counter that lacks a part would seem to run backwards and then to
begin anew. A counter is read at one address for good, for the same reason; a level may be read wherever it stands.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from baseai.telemetry.board.resource import MISSING, Address, Seen, Taken, flag, number, seconds, shown
from baseai.telemetry.field import Family, State, Throttle, remap_code
from baseai.telemetry.sample import Reading

JOULES_A_KWH = 3.6e6
BYTES_A_MIB = 2.0**20
# NVIDIA's firmware divides bytes by 2^27 and calls it Gbps: every saved value is a whole number of bytes that way.
BYTES_A_GBPS = 2.0**27
MS_A_SECOND = 1e3

# NVIDIA's words for why a clock is held down, as its firmware spells them. Other words become OTHER.
THROTTLES: Mapping[str, int] = MappingProxyType(
    {
        "NA": 0,
        "None": 0,
        "Idle": 0,
        "AppClock": 0,
        "UserDefined": 0,
        "ClockOptimizedForPower": 0,
        "SyncBoost": 0,
        "SWPowerCap": Throttle.POWER_CAP,
        "SWThermalSlowdown": Throttle.THERMAL_SW,
        "HWSlowdown": Throttle.THERMAL_HW,
        "HWThermalSlowdown": Throttle.THERMAL_HW,
        "HWPowerBrakeSlowdown": Throttle.POWER_BRAKE,
    }
)


class How(StrEnum):
    """How parts become one value."""

    SUM = "sum"
    HIGHEST = "highest"  # of the parts that are known
    SHARE = "share"  # a percentage of a whole: the first part of the second
    REASONS = "reasons"  # words become the bits of Throttle
    REMAP = "remap"  # pending, failed, then counts of rows: see remap_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One place where a part may be read, and the factor to the field's unit."""

    address: Address
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One number of a formula. Its spots stand in the order of preference and mean the same."""

    spots: tuple[Spot, ...]
    is_time: bool = False
    is_flag: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """How one field is made."""

    field: str
    parts: tuple[Part, ...]
    how: How = How.SUM
    is_slow: bool = False  # may wait for its turn instead of being asked for at each poll

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(spot.address for part in self.parts for spot in part.spots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A reading, and what to complain of."""

    reading: Reading
    complaints: tuple[tuple[Address, str], ...] = ()


def made(formula: Formula, family: Family, seen: Seen) -> Made:
    """The field as the resources seen have it."""
    if formula.how is How.REASONS:
        return _reasons(formula, seen)
    complaints: list[tuple[Address, str]] = []
    taken = [_part(part, seen, complaints) for part in formula.parts]
    known = [each.value for each, _ in taken if each.value is not None]
    if formula.how is How.HIGHEST and known:
        value = max(known)
    elif len(known) == len(taken):
        value = _combined(formula.how, known)
    else:
        state = next(each.state for each, _ in taken if each.value is None)
        return Made(reading=Reading(value=None, state=state), complaints=tuple(complaints))
    source = _source(formula, [spot for _, spot in taken if spot is not None])
    kind = family[formula.field]
    if not kind.low <= value <= kind.high:
        where = taken[0][1].address if taken[0][1] else formula.addresses[0]
        complaints.append(
            (where, f"makes {formula.field} {value:g} {kind.unit}, which cannot be".replace("  ", " "))
        )
        return Made(
            reading=Reading(value=None, state=State.BLANK, source=source), complaints=tuple(complaints)
        )
    return Made(reading=Reading(value=float(value), source=source), complaints=tuple(complaints))


def pinned(formula: Formula, chosen: Sequence[Spot]) -> Formula:
    """The formula with one spot for each part."""
    parts = tuple(
        Part(spots=(spot,), is_time=part.is_time, is_flag=part.is_flag)
        for part, spot in zip(formula.parts, chosen, strict=True)
    )
    return Formula(field=formula.field, parts=parts, how=formula.how, is_slow=formula.is_slow)


def _part(part: Part, seen: Seen, complaints: list[tuple[Address, str]]) -> tuple[Taken, Spot | None]:
    """The first spot that has a number; else what the first says that says anything."""
    none: tuple[Taken, Spot | None] = (Taken(value=None, state=State.ABSENT), None)
    for spot in part.spots:
        raw = seen.raw(spot.address)
        if raw is MISSING:
            if (age := seen.too_old(spot.address)) is not None:
                complaints.append((spot.address, f"is {age}"))
            continue
        taken = seconds(raw) if part.is_time else flag(raw) if part.is_flag else number(raw)
        if taken.why is not None:
            complaints.append((spot.address, taken.why))
        if taken.value is not None:
            return Taken(value=taken.value * spot.factor, state=State.VALUE), spot
        if none[1] is None:
            none = (taken, spot)
    return none


def _combined(how: How, values: Sequence[float]) -> float:
    if how is How.SHARE:
        percent, whole = values
        return percent / 100 * whole
    if how is How.REMAP:
        pending, failed, *counts = values
        return remap_code(pending=bool(pending), failed=bool(failed), count=int(sum(counts)))
    return sum(values)


def _reasons(formula: Formula, seen: Seen) -> Made:
    for spot in formula.parts[0].spots:
        raw = seen.raw(spot.address)
        if raw is MISSING:
            continue
        words = raw if isinstance(raw, list) else [raw]
        if not all(isinstance(word, str) for word in words):
            why = f"is {shown(raw)} and not a list of words"
            return Made(reading=Reading(value=None, state=State.BLANK), complaints=((spot.address, why),))
        bits = 0
        for word in words:
            bits |= THROTTLES.get(str(word), Throttle.OTHER)
        return Made(reading=Reading(value=float(bits), source=_source(formula, [spot])))
    return Made(reading=Reading(value=None, state=State.ABSENT))


def _source(formula: Formula, spots: Iterable[Spot]) -> str:
    """The properties' own names and factors, without the path that differs from device to device."""
    words = []
    for spot in spots:
        resource = spot.address.path.rpartition("/")[2] if spot.address.pointer == "/Reading" else ""
        name = _without_numbers(resource or spot.address.pointer.lstrip("/"))
        words.append(name if spot.factor == 1 else f"{name} × {spot.factor:g}")
    joined = {How.SUM: " + ", How.SHARE: " % of "}.get(formula.how, ", ")
    return f"redfish {joined.join(dict.fromkeys(words))}"


def _without_numbers(name: str) -> str:
    """`HGX_GPU_3_Power_0` becomes `HGX_GPU_n_Power_n`: one source for all devices of a kind."""
    parts = (["n" if word.isdigit() else word for word in step.split("_")] for step in name.split("/"))
    return "/".join("_".join(words) for words in parts)
