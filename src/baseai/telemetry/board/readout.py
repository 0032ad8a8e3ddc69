"""A readout is what one poll of a controller comes to: rows of its accelerators and its node, and what went wrong.

Invariant: a field that the controller cannot say is unsupported, one that it did not say this time is absent, and for
each absence there is a trouble with the device, the field and the ask that failed. Nothing is carried over from an
earlier poll.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from baseai.telemetry.board.formula import Formula, made
from baseai.telemetry.board.resource import Seen, plain, text
from baseai.telemetry.board.rota import Rota
from baseai.telemetry.board.survey import Survey
from baseai.telemetry.board.unit import Unit
from baseai.telemetry.field import ACCELERATOR, NODE, Family, State
from baseai.telemetry.sample import Reading, Row, Trouble

NODE_KEY = ""  # the node's own row, whose name the agent knows
WORKING = frozenset({"Enabled", "Standby", "StandbySpare", "StandbyOffline", ""})
# What a controller may say of a node; the rest of the family is the operating system's.
OF_NODE = ("power_w", "energy_j", "temp_inlet_c", "temp_cpu_c", "fan_pct", "psu_ok", "psu_total", "leak")
NOT_OURS = frozenset({"fault_code"})  # comes as events, never as a property
TIGHT = frozenset({"OK", "Unavailable", "Absent", "Disabled", "Unknown", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """One poll."""

    rows: Mapping[
        str, Sequence[Row]
    ]  # by family; equipment that is no node has a row of NODE under its own name
    troubles: tuple[Trouble, ...]


def readout(rota: Rota, seen: Seen, *, ts_ms: int, source: str) -> Readout:
    """The rows of one poll at its tick. `source` names the controller in troubles."""
    survey = rota.survey
    troubles: list[Trouble] = []
    rows = []
    for found in survey.accelerators:
        fields = dict(_fields(found.formulas, ACCELERATOR, rota, seen, found.key, source, troubles))
        nothing = Reading(value=None, state=State.UNSUPPORTED, source="redfish")
        fields |= {name: nothing for name in ACCELERATOR.names if name not in fields and name not in NOT_OURS}
        rows.append(Row(key=found.key, ts_ms=ts_ms, fields=fields))
    key = survey.equipment or NODE_KEY
    fields = dict(_fields(survey.node, NODE, rota, seen, key, source, troubles))
    fields |= dict(_counts(survey, seen))
    fields |= {
        name: Reading(value=None, state=State.UNSUPPORTED, source="redfish")
        for name in OF_NODE
        if name not in fields
    }
    troubles += _of_asks(rota, seen, source)
    return Readout(
        rows={ACCELERATOR.name: tuple(rows), NODE.name: (Row(key=key, ts_ms=ts_ms, fields=fields),)},
        troubles=tuple(dict.fromkeys(troubles)),
    )


def _fields(
    formulas: Iterable[Formula],
    family: Family,
    rota: Rota,
    seen: Seen,
    key: str,
    source: str,
    troubles: list[Trouble],
) -> Iterator[tuple[str, Reading]]:
    for formula in formulas:
        if formula.is_slow and not _in_turn(formula, rota, seen):
            continue
        result = made(formula, family, seen)
        yield formula.field, result.reading
        for address, why in result.complaints:
            troubles.append(
                Trouble(
                    source=f"{source} {address}", key=key or None, field=formula.field, sentence=f"it {why}"
                )
            )
        if result.reading.state is State.ABSENT and not result.complaints:
            address = formula.addresses[0]
            ask = next((rota.brings[each] for each in formula.addresses if each in rota.brings), address.path)
            why = seen.silent.get(ask) or "the answer lacks it"
            troubles.append(
                Trouble(source=f"{source} {address}", key=key or None, field=formula.field, sentence=why)
            )


def _in_turn(formula: Formula, rota: Rota, seen: Seen) -> bool:
    return any(seen.asked(rota.brings[address]) for address in formula.addresses if address in rota.brings)


def _of_asks(rota: Rota, seen: Seen, source: str) -> Iterator[Trouble]:
    for ask, why in seen.silent.items():
        yield Trouble(source=f"{source} {plain(ask)}", key=None, field=None, sentence=why)
    for place, why in seen.odd.items():
        yield Trouble(source=f"{source} {place}", key=None, field=None, sentence=why)


def _counts(survey: Survey, seen: Seen) -> Iterator[tuple[str, Reading]]:
    """Supplies that work and that are there, and leaks; unknown while one of them did not answer."""
    supplies = [unit for unit in survey.units if unit.kind == "supply"]
    detectors = [unit for unit in survey.units if unit.kind == "detector"]
    if supplies:
        states = [_state(unit, seen) for unit in supplies]
        there = [(health, state) for health, state in states if state != "Absent"]
        complete = all(state is not None for _, state in states)
        working = sum(health != "Critical" and state in WORKING for health, state in there)
        yield "psu_ok", _count(working if complete else None, "redfish PowerSupplies not Critical")
        yield "psu_total", _count(len(there) if complete else None, "redfish PowerSupplies not Absent")
    if detectors:
        words = [leak_of(unit, seen) for unit in detectors]
        leaking = sum(word not in TIGHT for word in words if word is not None)
        known = leaking if leaking or None not in words else None
        yield "leak", _count(known, "redfish LeakDetectors DetectorState not OK")


def _count(value: int | None, source: str) -> Reading:
    if value is None:
        return Reading(value=None, state=State.ABSENT, source=source)
    return Reading(value=float(value), source=source)


def _state(unit: Unit, seen: Seen) -> tuple[str, str | None]:
    """Health and state of a unit; None for the state where the unit was not seen."""
    if unit.place.path not in seen:
        return "", None
    resource = seen[unit.place.path]
    return (
        text(resource, unit.place.pointer + "/Status/Health"),
        text(resource, unit.place.pointer + "/Status/State"),
    )


def leak_of(unit: Unit, seen: Seen) -> str | None:
    """The word of a leak detector; None where it did not answer. Firmware without a word has a health."""
    if unit.place.path not in seen:
        return None
    resource = seen[unit.place.path]
    return text(resource, unit.place.pointer + "/DetectorState") or text(resource, "/Status/Health")
