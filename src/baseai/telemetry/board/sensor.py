"""A sensor is where one physical quantity is read: its definition says which, its name only where there is none.

Invariant: what measures the distance to a limit is never taken for a temperature. A property that excerpts a sensor is
known together with that sensor, because reports quote the one and resources hold the other.
"""

import re
from collections.abc import Iterable, Iterator

from baseai.telemetry.board.formula import Spot
from baseai.telemetry.board.listing import members
from baseai.telemetry.board.resource import MISSING, Address, Resource, Seen, at, link, plain, text

GONE = frozenset({"Absent", "Disabled", "InTest", "Deferring", "Qualified"})


def sensors_of(seen: Seen, chassis: Iterable[str], reading_type: str) -> Iterator[str]:
    """Sensors of a type that are there, in the order of their listing."""
    for each in chassis:
        for sensor in members(seen, link(seen[each], "/Sensors")):
            if is_there(seen[sensor]) and _type_of(seen[sensor]) == reading_type:
                yield sensor


def _type_of(sensor: Resource) -> str:
    """The sensor's type; some say only the unit."""
    by_unit = {
        "Cel": "Temperature",
        "W": "Power",
        "J": "EnergyJoules",
        "kW.h": "EnergykWh",
        "kWh": "EnergykWh",
    }
    return text(sensor, "/ReadingType") or by_unit.get(text(sensor, "/ReadingUnits"), "")


def is_there(resource: Resource) -> bool:
    return bool(resource) and text(resource, "/Status/State") not in GONE


def words_of(seen: Seen, sensor: str, chassis: str) -> set[str]:
    """The words of a sensor's name, without those of the chassis it is in."""
    own = text(seen[sensor], "/Name") or sensor.rpartition("/")[2]
    name = own.replace("_", " ").lower()
    name = name.removeprefix(chassis.rpartition("/")[2].replace("_", " ").lower())
    return set(re.findall(r"[a-z]+", name))


def is_headroom(seen: Seen, path: str) -> bool:
    """Whether a sensor says how far a limit is away, which looks like a temperature and is the opposite of one."""
    if path not in seen:
        return path.upper().endswith("_TEMP_1")  # NVIDIA's habit; the sensor itself was not there to ask
    words = " ".join(text(seen[path], name) for name in ("/ReadingBasis", "/Description", "/Name")).upper()
    return any(word in words for word in ("HEADROOM", "DELTA", "TLIMIT"))


def is_memory(seen: Seen, sensor: str) -> bool:
    words = [sensor.rpartition("/")[2], *(text(seen[sensor], each) for each in ("/Name", "/PhysicalContext"))]
    return any(sign in " ".join(words).upper() for sign in ("DRAM", "HBM", "MEMORY"))


def spots_of(seen: Seen, found: Iterable[tuple[str, str, float]]) -> Iterator[Spot]:
    """Those that exist, each followed by the sensor it is copied from, which reports may quote."""
    for path, pointer, factor in found:
        address = Address(path, pointer)
        if not path or seen.raw(address) is MISSING:
            continue
        yield Spot(address=address, factor=factor)
        if pointer.endswith("/Reading"):
            source = at(seen[path], pointer.removesuffix("/Reading") + "/DataSourceUri")
            if isinstance(source, str) and plain(source):
                yield Spot(address=Address(plain(source), "/Reading"), factor=factor)


def listed(
    seen: Seen, path: str, pointer: str, reading: str, *, context: str = ""
) -> Iterator[tuple[Spot, ...]]:
    """Entries of the lists in the deprecated Power and Thermal."""
    entries = at(seen[path], pointer) if path else MISSING
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        if context and text(entry, "/PhysicalContext") != context:
            continue
        if text(entry, "/Status/State") not in GONE and at(entry, reading) is not MISSING:
            yield (Spot(address=Address(path, f"{pointer}/{place}{reading}")),)
