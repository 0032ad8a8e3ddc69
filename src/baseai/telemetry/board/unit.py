"""A unit is one part whose condition is watched: a supply, a fan, a leak detector, a redundant group, a sensor.

Invariant: a unit is known by the place of its status, in a resource of its own or in a list of an older one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baseai.telemetry.board.accelerator import FoundAccelerator
from baseai.telemetry.board.listing import members
from baseai.telemetry.board.resource import MISSING, Address, Seen, at, link, text
from baseai.telemetry.board.sensor import sensors_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A supply, a fan, a detector, a redundant group or a sensor whose condition is watched."""

    kind: str  # supply, fan, detector, redundancy, sensor, thermal, accelerator
    label: str
    place: Address  # of what has a Status, or a state of its own
    key: str | None = None  # of the accelerator it belongs to


def units_of(seen: Seen, main: Sequence[str], fans: Sequence[Unit]) -> Iterator[Unit]:
    for chassis in main:
        power = link(seen[chassis], "/PowerSubsystem")
        thermal = link(seen[chassis], "/ThermalSubsystem")
        supplies = [path for path in members(seen, link(seen[power], "/PowerSupplies")) if path in seen]
        for path in supplies:
            yield Unit(kind="supply", label=label_of(seen, path), place=Address(path))
        if not supplies:
            yield from _listed_units(seen, link(seen[chassis], "/Power"), "/PowerSupplies", "supply")
        yield from _listed_units(seen, power, "/PowerSupplyRedundancy", "redundancy", "power supplies")
        yield from _listed_units(seen, thermal, "/FanRedundancy", "redundancy", "fans")
        yield from _listed_units(seen, link(seen[chassis], "/Thermal"), "/Redundancy", "redundancy", "fans")
        if thermal in seen:
            yield Unit(kind="thermal", label=f"cooling of {label_of(seen, chassis)}", place=Address(thermal))
        leaks = link(seen[thermal], "/LeakDetection")
        for path in members(seen, link(seen[leaks], "/LeakDetectors")):
            if path in seen:
                yield Unit(kind="detector", label=label_of(seen, path), place=Address(path))
        for sensor in sensors_of(seen, [chassis], "Temperature"):
            yield Unit(kind="sensor", label=label_of(seen, sensor), place=Address(sensor))
    yield from fans


def units_of_accelerators(accelerators: Sequence[FoundAccelerator]) -> Iterator[Unit]:
    for each in accelerators:
        yield Unit(kind="accelerator", label=each.label, place=Address(each.paths[0]), key=each.key)


def _listed_units(seen: Seen, path: str, pointer: str, kind: str, what: str = "") -> Iterator[Unit]:
    entries = at(seen[path], pointer) if path else MISSING
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        label = what or text(entry, "/Name") or f"{kind} {place}"
        yield Unit(kind=kind, label=label, place=Address(path, f"{pointer}/{place}"))


def label_of(seen: Seen, path: str) -> str:
    return text(seen[path], "/Name") or text(seen[path], "/Id") or path.rpartition("/")[2]
