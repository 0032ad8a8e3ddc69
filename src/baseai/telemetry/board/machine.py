"""A machine is the node as its board measures it: draw, energy, the air that enters, processors, fans.

Invariant: of several places that could say the same the best is taken, and a sum is never made where a total exists.
What belongs to one supply or one accelerator is not the machine's.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from baseai.telemetry.board.formula import JOULES_A_KWH, Formula, How, Part, Spot
from baseai.telemetry.board.listing import members, processors
from baseai.telemetry.board.resource import MISSING, Address, Resource, Seen, at, link, plain, text
from baseai.telemetry.board.sensor import GONE, is_headroom, is_there, listed, sensors_of, spots_of, words_of
from baseai.telemetry.board.unit import Unit, label_of

PER_SUPPLY = re.compile(r"\b(?:ps|psu|p)[ _]?\d", re.IGNORECASE)


def machine(seen: Seen, main: Sequence[str]) -> tuple[tuple[Formula, ...], tuple[Unit, ...]]:
    """How the fields of the node are made, and its fans."""
    formulas = []
    first = next(iter(_power(seen, main)), ())
    if first:
        formulas.append(Formula(field="power_w", parts=(Part(spots=first),)))
    if energy := next(iter(_energy(seen, main)), ()):
        formulas.append(Formula(field="energy_j", parts=(Part(spots=energy),)))
    if inlet := next(iter(_inlet(seen, main)), ()):
        formulas.append(Formula(field="temp_inlet_c", parts=(Part(spots=inlet),)))
    if chips := tuple(_cpu_temperatures(seen, main)):
        formulas.append(Formula(field="temp_cpu_c", parts=chips, how=How.HIGHEST))
    speeds, fans = _fans(seen, main)
    if speeds:
        formulas.append(Formula(field="fan_pct", parts=speeds, how=How.HIGHEST))
    return tuple(formulas), fans


def _power(seen: Seen, main: Sequence[str]) -> Iterator[tuple[Spot, ...]]:
    """Where the draw of the whole machine is read, best first."""
    for chassis in main:
        environment = link(seen[chassis], "/EnvironmentMetrics")
        if found := tuple(spots_of(seen, [(environment, "/PowerWatts/Reading", 1.0)])):
            yield found
    for chassis in main:
        totals = []
        for sensor in sensors_of(seen, [chassis], "Power"):
            words = words_of(seen, sensor, chassis)
            if words & {"total", "totalhsc", "chassis", "system"} and not words & {
                "out",
                "output",
                "gpu",
                "cpu",
            }:
                totals.append((not words & {"in", "input", "totalhsc"}, len(words), sensor))
        for _, _, sensor in sorted(totals):
            yield (Spot(address=Address(sensor, "/Reading")),)
    for chassis in main:
        power = link(seen[chassis], "/Power")
        yield from listed(seen, power, "/PowerControl", "/PowerConsumedWatts")


def _energy(seen: Seen, main: Sequence[str]) -> Iterator[tuple[Spot, ...]]:
    for chassis in main:
        environment = link(seen[chassis], "/EnvironmentMetrics")
        found = (environment, "/EnergyJoules/Reading", 1.0), (environment, "/EnergykWh/Reading", JOULES_A_KWH)
        if spots := tuple(spots_of(seen, found)):
            yield spots
    for chassis in main:
        for kind, factor in (("EnergyJoules", 1.0), ("EnergykWh", JOULES_A_KWH)):
            for sensor in sensors_of(seen, [chassis], kind):
                whole = text(seen[sensor], "/PhysicalContext") == "Chassis" or "total" in words_of(
                    seen, sensor, chassis
                )
                name = text(seen[sensor], "/Name").replace("_", " ")
                if (
                    whole
                    and not PER_SUPPLY.search(name)
                    and not words_of(seen, sensor, chassis) & {"out", "output"}
                ):
                    yield (Spot(address=Address(sensor, "/Reading"), factor=factor),)


def _inlet(seen: Seen, main: Sequence[str]) -> Iterator[tuple[Spot, ...]]:
    """Where the temperature of the air that enters is read, best first."""
    for chassis in main:
        metrics = link(seen[link(seen[chassis], "/ThermalSubsystem")], "/ThermalMetrics")
        if found := tuple(spots_of(seen, [(metrics, "/TemperatureSummaryCelsius/Intake/Reading", 1.0)])):
            yield found
    fits: tuple[Callable[[Resource, set[str]], bool], ...] = (
        lambda sensor, words: text(sensor, "/PhysicalContext") == "Intake",
        lambda sensor, words: bool(words & {"inlet", "intake"}),
        lambda sensor, words: bool(words & {"ambient", "front"}),
    )
    for fit in fits:
        for chassis in main:
            for sensor in sensors_of(seen, [chassis], "Temperature"):
                named = text(seen[sensor], "/Name").replace("_", " ")
                if is_headroom(seen, sensor) or PER_SUPPLY.search(named):
                    continue
                if fit(seen[sensor], words_of(seen, sensor, chassis)):
                    yield (Spot(address=Address(sensor, "/Reading")),)
    for chassis in main:
        thermal = link(seen[chassis], "/Thermal")
        yield from listed(seen, thermal, "/Temperatures", "/ReadingCelsius", context="Intake")


def _cpu_temperatures(seen: Seen, main: Sequence[str]) -> Iterator[Part]:
    found = False
    for path in processors(seen, "CPU"):
        environment = link(seen[path], "/EnvironmentMetrics")
        if spots := tuple(spots_of(seen, [(environment, "/TemperatureCelsius/Reading", 1.0)])):
            found = True
            yield Part(spots=spots)
    if found:
        return
    for sensor in sensors_of(seen, main, "Temperature"):
        if text(seen[sensor], "/PhysicalContext") == "CPU" and not is_headroom(seen, sensor):
            found = True
            yield Part(spots=(Spot(address=Address(sensor, "/Reading")),))
    if not found:
        for chassis in main:
            thermal = link(seen[chassis], "/Thermal")
            for spots in listed(seen, thermal, "/Temperatures", "/ReadingCelsius", context="CPU"):
                yield Part(spots=spots)


def _fans(seen: Seen, main: Sequence[str]) -> tuple[tuple[Part, ...], tuple[Unit, ...]]:
    """The speeds of fans in percent, from whichever of four places has them, and the fans to watch."""
    fans, speeds = [], []
    for chassis in main:
        for fan in members(seen, link(seen[link(seen[chassis], "/ThermalSubsystem")], "/Fans")):
            if is_there(seen[fan]):
                fans.append(Unit(kind="fan", label=label_of(seen, fan), place=Address(fan)))
                speeds.append(tuple(spots_of(seen, [(fan, "/SpeedPercent/Reading", 1.0)])))
        thermal = link(seen[chassis], "/Thermal")
        listed = at(seen[thermal], "/Fans") if thermal else MISSING
        for place, entry in enumerate(listed if isinstance(listed, list) and not fans else ()):
            if text(entry, "/Status/State") not in GONE:
                where = Address(thermal, f"/Fans/{place}")
                fans.append(Unit(kind="fan", label=text(entry, "/Name") or str(place), place=where))
                if text(entry, "/ReadingUnits") == "Percent":
                    speeds.append((Spot(address=where.below("/Reading")),))
    if not any(speeds):
        speeds = [spots for chassis in main for spots in _excerpts_of_fans(seen, chassis)]
    if not any(speeds):
        for chassis in main:
            for sensor in sensors_of(seen, [chassis], "Percent"):
                if words_of(seen, sensor, chassis) & {"fan", "pwm"}:
                    speeds.append((Spot(address=Address(sensor, "/Reading")),))
    return tuple(Part(spots=spots) for spots in speeds if spots), tuple(fans)


def _excerpts_of_fans(seen: Seen, chassis: str) -> Iterator[tuple[Spot, ...]]:
    """Speeds as EnvironmentMetrics excerpts them. Some write a sensor's percentage into SpeedRPM."""
    environment = link(seen[chassis], "/EnvironmentMetrics")
    entries = at(seen[environment], "/FanSpeedsPercent")
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        where = Address(environment, f"/FanSpeedsPercent/{place}")
        source = plain(str(at(entry, "/DataSourceUri")))
        if at(entry, "/Reading") is not MISSING:
            yield tuple(spots_of(seen, [(environment, where.below("/Reading").pointer, 1.0)]))
        elif text(seen[source], "/ReadingUnits") == "%" and at(entry, "/SpeedRPM") is not MISSING:
            yield Spot(address=Address(source, "/Reading")), Spot(address=where.below("/SpeedRPM"))
