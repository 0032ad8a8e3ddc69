"""A survey is what one management controller was found to have: accelerators, supplies, fans, detectors, sensors.

Invariant: it is made once from what `wishes` asks for, and remembered; two resources that mirror one accelerator under
two systems are one, and two accelerators on one board are two though they share its serial number. A sensor that
measures the distance to a limit is never taken for a temperature. What was promised by a link and not there is said.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from baseai.telemetry.board.formula import (
    BYTES_A_GBPS,
    BYTES_A_MIB,
    JOULES_A_KWH,
    MS_A_SECOND,
    Formula,
    How,
    Part,
    Spot,
)
from baseai.telemetry.board.resource import (
    MISSING,
    ROOT,
    Address,
    Ask,
    Resource,
    Seen,
    at,
    link,
    links,
    number,
    plain,
    text,
)

# Chassis that are parts of a machine rather than the machine.
PART_TYPES = frozenset(
    {
        "Component",
        "Module",
        "Zone",
        "Card",
        "Cartridge",
        "Expansion",
        "Drawer",
        "HeatExchanger",
        "StorageEnclosure",
    }
)
GONE = frozenset({"Absent", "Disabled", "InTest", "Deferring", "Qualified"})
MEMBERS_MAX = 512  # of one collection
ALIKE_MAX = 3  # complaints of one kind told one by one
PORTS_LEVELS = 2  # a port's metrics stand one level below it

_NVIDIA_UUID = re.compile(
    r"(?:GPU-)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What the service says it can put into one answer."""

    sign: str  # `*`, `.` or empty where it cannot
    levels_max: int = 1

    def of(self, path: str, levels: int = 1) -> Ask:
        """The ask that brings the resource with what stands so many levels below it."""
        if not self.sign:
            return path
        return f"{path}?$expand={self.sign}($levels={min(levels, self.levels_max)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAccelerator:
    """One accelerator as the controller knows it."""

    key: str  # as drivers name it where that can be told: `GPU-<uuid>`; else its serial or its path
    label: str  # the controller's own name, `GPU_0`
    model: str
    serial: str
    uuid: str
    paths: tuple[str, ...]  # of its processor, under each system that shows it, and of its chassis
    formulas: tuple[Formula, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A supply, a fan, a detector, a redundant group or a sensor whose condition is watched."""

    kind: str  # supply, fan, detector, redundancy, sensor, thermal, accelerator
    label: str
    place: Address  # of what has a Status, or a state of its own
    key: str | None = None  # of the accelerator it belongs to


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One controller."""

    service: str  # its own UUID; what ids of events are made of
    product: str
    equipment: str  # what it is where it has no computer system, as a power shelf; empty for a node
    accelerators: tuple[FoundAccelerator, ...]
    node: tuple[Formula, ...]
    units: tuple[Unit, ...]
    stream: str  # where events may be listened to; empty where they cannot
    logs: tuple[str, ...]  # collections of log entries
    complaints: tuple[tuple[str, str], ...]  # where, and what is wrong there


def expansion_of(seen: Seen) -> Expansion:
    """What the service root advertises. With `*` also what a resource links to, which brings a processor's memory."""
    offered = at(seen[ROOT], "/ProtocolFeaturesSupported/ExpandQuery")
    if at(offered, "/Levels") is not True:
        return Expansion(sign="")
    sign = "*" if at(offered, "/ExpandAll") is True else "." if at(offered, "/NoLinks") is True else ""
    levels = number(at(offered, "/MaxLevels")).value
    return Expansion(sign=sign, levels_max=int(levels) if levels else 1)


def unasked(seen: Seen) -> tuple[Ask, ...]:
    """What to ask next; nothing when all there is has been seen. Ask, take the answers, and ask this again."""
    return tuple(dict.fromkeys(ask for ask in wishes(seen) if not seen.asked(ask)))


def wishes(seen: Seen) -> Iterator[Ask]:
    """Every ask that a survey needs, as far as it can be known from what was seen."""
    yield ROOT
    if ROOT not in seen:
        return
    yield from _collection(seen, link(seen[ROOT], "/Systems"))
    yield from _collection(seen, link(seen[ROOT], "/Chassis"))
    telemetry = link(seen[ROOT], "/TelemetryService")
    reports = link(seen[telemetry], "/MetricReports")
    yield from filter(None, (telemetry, reports, link(seen[ROOT], "/EventService")))
    yield from _next_page(seen, reports)
    yield from _members(seen, reports)
    for system in _members(seen, link(seen[ROOT], "/Systems")):
        yield from _collection(seen, link(seen[system], "/Processors"))
        yield from _collection(seen, link(seen[system], "/LogServices"))
    for path in _processors(seen, "GPU"):
        yield from _wishes_of_accelerator(seen, path)
    for path in _processors(seen, "CPU"):
        yield from _one(seen, link(seen[path], "/EnvironmentMetrics"))
    for path in main_chassis(seen):
        yield from _wishes_of_chassis(seen, path)


def surveyed(seen: Seen) -> Survey:
    """The controller as `wishes` showed it."""
    main = main_chassis(seen)
    accelerators = _accelerators(seen)
    node, fans = _node(seen, main)
    systems = _members(seen, link(seen[ROOT], "/Systems"))
    return Survey(
        service=text(seen[ROOT], "/UUID") or text(seen[ROOT], "/ServiceIdentification"),
        product=" ".join(filter(None, (text(seen[ROOT], "/Vendor"), text(seen[ROOT], "/Product")))),
        equipment="" if systems else _equipment(seen, main),
        accelerators=accelerators,
        node=node,
        units=(*_units(seen, main, fans), *_units_of_accelerators(seen, accelerators)),
        stream=_stream(seen[link(seen[ROOT], "/EventService")]),
        logs=tuple(_logs(seen, systems)),
        complaints=tuple(_complaints(seen)),
    )


def main_chassis(seen: Seen) -> tuple[str, ...]:
    """The chassis that are the machine: in none, and no mere part; those of a computer system first."""
    members = [path for path in _members(seen, link(seen[ROOT], "/Chassis")) if path in seen]
    main = [
        path
        for path in members
        if not link(seen[path], "/Links/ContainedBy") and text(seen[path], "/ChassisType") not in PART_TYPES
    ]
    return tuple(sorted(main or members, key=lambda path: not links(seen[path], "/Links/ComputerSystems")))


def _equipment(seen: Seen, main: Sequence[str]) -> str:
    """A name for what is no node: the serial of its chassis, or the chassis' own name."""
    serials = [text(seen[path], "/SerialNumber") or path.rpartition("/")[2] for path in main]
    return serials[0] if serials else text(seen[ROOT], "/UUID") or "equipment"


def _stream(events: Resource) -> str:
    """Where to listen, to events alone where the service can leave metric reports out."""
    path = plain(text(events, "/ServerSentEventUri"))
    if not path or at(events, "/ServiceEnabled") is False:
        return ""
    can_choose = at(events, "/SSEFilterPropertiesSupported/EventFormatType") is True
    return f"{path}?$filter=EventFormatType eq Event" if can_choose else path


# ---- what to ask ------------------------------------------------------------------------------------------------


def _one(seen: Seen, path: str) -> Iterator[Ask]:
    if path and path not in seen:
        yield path


def _collection(seen: Seen, path: str) -> Iterator[Ask]:
    """A collection with its members: in one answer where that works, one by one where it does not."""
    if not path:
        return
    whole = expansion_of(seen).of(path)
    yield whole
    if whole in seen.silent:
        yield path
    yield from _next_page(seen, path)
    for member in _members(seen, path):
        yield from _one(seen, member)


def _next_page(seen: Seen, path: str) -> Iterator[Ask]:
    following = text(seen[path], "/Members@odata.nextLink")
    if plain(following) == path and path and len(_members(seen, path)) < MEMBERS_MAX:
        yield following


def _members(seen: Seen, path: str) -> tuple[str, ...]:
    return links(seen[path], "/Members")[:MEMBERS_MAX] if path in seen else ()


def _processors(seen: Seen, kind: str) -> tuple[str, ...]:
    """Processors of a kind that are there, under whatever system, in the order of their listing."""
    found = []
    for system in _members(seen, link(seen[ROOT], "/Systems")):
        for path in _members(seen, link(seen[system], "/Processors")):
            if text(seen[path], "/ProcessorType") == kind and text(seen[path], "/Status/State") != "Absent":
                found.append(path)
    return tuple(dict.fromkeys(found))


def _wishes_of_accelerator(seen: Seen, path: str) -> Iterator[Ask]:
    expansion = expansion_of(seen)
    if expansion.sign:
        yield expansion.of(path)
    for pointer in ("/Metrics", "/EnvironmentMetrics", "/MemorySummary/Metrics"):
        yield from _one(seen, link(seen[path], pointer))
    for memory in links(seen[path], "/Links/Memory"):
        yield from _one(seen, memory)
        yield from _one(seen, link(seen[memory], "/Metrics"))
        yield from _one(seen, link(seen[memory], "/EnvironmentMetrics"))
    for chassis in links(seen[path], "/Links/Chassis"):
        yield from _one(seen, chassis)
        yield from _collection(seen, link(seen[chassis], "/Sensors"))
    ports = link(seen[path], "/Ports")
    if ports and expansion.sign and expansion.levels_max >= PORTS_LEVELS:
        yield expansion.of(
            ports, PORTS_LEVELS
        )  # one by one they would be a hundred asks a machine: not worth it


def _wishes_of_chassis(seen: Seen, path: str) -> Iterator[Ask]:
    chassis = seen[path]
    yield from _one(seen, link(chassis, "/EnvironmentMetrics"))
    yield from _collection(seen, link(chassis, "/Sensors"))
    power, thermal = link(chassis, "/PowerSubsystem"), link(chassis, "/ThermalSubsystem")
    yield from _one(seen, power)
    yield from _collection(seen, link(seen[power], "/PowerSupplies"))
    yield from _one(seen, thermal)
    yield from _collection(seen, link(seen[thermal], "/Fans"))
    yield from _one(seen, link(seen[thermal], "/ThermalMetrics"))
    leaks = link(seen[thermal], "/LeakDetection")
    yield from _one(seen, leaks)
    yield from _collection(seen, link(seen[leaks], "/LeakDetectors"))
    if not power or power in seen.silent:  # the deprecated pair is all that older controllers have
        yield from _one(seen, link(chassis, "/Power"))
    if not thermal or thermal in seen.silent:
        yield from _one(seen, link(chassis, "/Thermal"))


# ---- accelerators -----------------------------------------------------------------------------------------------


def _accelerators(seen: Seen) -> tuple[FoundAccelerator, ...]:
    """One for each UUID, or for each serial where there is none; the mirror with more to say is read."""
    groups: dict[str, list[str]] = {}
    for path in _processors(seen, "GPU"):
        resource = seen[path]
        identity = text(resource, "/UUID") or text(resource, "/SerialNumber") or path
        groups.setdefault(identity.lower(), []).append(path)
    return tuple(_accelerator(seen, paths) for paths in groups.values())


def _accelerator(seen: Seen, paths: Sequence[str]) -> FoundAccelerator:
    first, *mirrors = sorted(paths, key=lambda path: not link(seen[path], "/Metrics"))
    resource = seen[first]
    uuid, serial = text(resource, "/UUID"), text(resource, "/SerialNumber")
    key = serial or uuid or first
    if (found := _NVIDIA_UUID.fullmatch(uuid)) and "nvidia" in text(resource, "/Manufacturer").lower():
        key = f"GPU-{found[1].lower()}"  # a serial is the board's, and a board may carry two
    return FoundAccelerator(
        key=key,
        label=text(resource, "/Id") or first.rpartition("/")[2],
        model=text(resource, "/Model"),
        serial=serial,
        uuid=uuid,
        paths=(first, *mirrors, *links(resource, "/Links/Chassis")),
        formulas=tuple(_formulas(seen, first)),
    )


def _formulas(seen: Seen, path: str) -> Iterator[Formula]:
    """How each field of one accelerator is made, of properties that the survey saw."""
    resource = seen[path]
    metrics, environment = link(resource, "/Metrics"), link(resource, "/EnvironmentMetrics")
    summary = link(resource, "/MemorySummary/Metrics")
    memories = links(resource, "/Links/Memory")
    of_memory = [link(seen[memory], "/Metrics") for memory in memories]
    nvidia = "/Oem/Nvidia"

    def spots(*found: tuple[str, str, float]) -> tuple[Spot, ...]:
        return tuple(_spots(seen, found))

    def plainly(name: str, *found: tuple[str, str, float]) -> Iterator[Formula]:
        if where := spots(*found):
            yield Formula(field=name, parts=(Part(spots=where),))

    def own(pointer: str, factor: float = 1.0) -> tuple[str, str, float]:
        return metrics, nvidia + pointer, factor

    def memory(pointer: str, factor: float = 1.0) -> list[tuple[str, str, float]]:
        """The memory's summary or, with one memory, that memory's own."""
        return [
            (summary, pointer, factor),
            *((each, pointer, factor) for each in of_memory if len(of_memory) == 1),
        ]

    yield from plainly("util_pct", own("/GraphicsEngineActivityPercent"), (metrics, "/BandwidthPercent", 1.0))
    yield from plainly("compute_pct", own("/SMActivityPercent"))
    yield from plainly("tensor_pct", own("/TensorCoreActivityPercent"))
    yield from plainly("membw_pct", *memory("/BandwidthPercent"))
    if where := _temperature(seen, path, environment):
        yield Formula(field="temp_c", parts=(Part(spots=where),))
    if where := _memory_temperature(seen, path, memories):
        yield Formula(field="temp_mem_c", parts=(Part(spots=where),))
    yield from plainly("clock_mhz", (metrics, "/OperatingSpeedMHz", 1.0), (path, "/OperatingSpeedMHz", 1.0))
    yield from plainly("clock_mem_mhz", *memory("/OperatingSpeedMHz"))
    if where := spots(own("/ThrottleReasons")):
        yield Formula(field="throttle_bits", parts=(Part(spots=where),), how=How.REASONS)
    # Not GlobalSoftwareViolationThrottleDuration: it runs while a device idles and holds the others' time too.
    lengths = (
        (metrics, "/PowerLimitThrottleDuration", MS_A_SECOND),
        (metrics, "/ThermalLimitThrottleDuration", MS_A_SECOND),
        own("/HardwareViolationThrottleDuration", MS_A_SECOND),
    )
    if parts := tuple(Part(spots=where, is_time=True) for each in lengths if (where := spots(each))):
        yield Formula(field="throttle_ms", parts=parts)
    whole = _size(seen, path, memories)
    if whole is not None:
        yield Formula(field="mem_total_b", parts=(Part(spots=(whole,)),))
        if where := spots(*memory("/CapacityUtilizationPercent")):
            yield Formula(field="mem_used_b", parts=(Part(spots=where), Part(spots=(whole,))), how=How.SHARE)
    yield from plainly("power_w", (environment, "/PowerWatts/Reading", 1.0))
    yield from plainly("power_cap_w", (environment, "/PowerLimitWatts/SetPoint", 1.0))
    energy = (environment, "/EnergyJoules/Reading", 1.0), (environment, "/EnergykWh/Reading", JOULES_A_KWH)
    yield from plainly("energy_j", *energy)
    for name, pointer in (
        ("pcie_tx_bps", "/PCIeRawTxBandwidthGbps"),
        ("pcie_rx_bps", "/PCIeRawRxBandwidthGbps"),
        ("link_tx_bps", "/NVLinkDataTxBandwidthGbps"),
        ("link_rx_bps", "/NVLinkDataRxBandwidthGbps"),
    ):
        yield from plainly(name, own(pointer, BYTES_A_GBPS))
    for name, count in (("ecc_ce", "/CorrectableECCErrorCount"), ("ecc_ue", "/UncorrectableECCErrorCount")):
        sums = (
            spots(*memory(f"/LifeTime{count}")),
            spots((metrics, f"/CacheMetricsTotal/LifeTime{count}", 1.0)),
        )
        if parts := tuple(Part(spots=where) for where in sums if where):
            yield Formula(field=name, parts=parts)
    yield from _remapping(seen, memories, of_memory)
    yield from _link_errors(seen, resource)


def _spots(seen: Seen, found: Iterable[tuple[str, str, float]]) -> Iterator[Spot]:
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


def is_headroom(seen: Seen, path: str) -> bool:
    """Whether a sensor says how far a limit is away, which looks like a temperature and is the opposite of one."""
    if path not in seen:
        return path.upper().endswith("_TEMP_1")  # NVIDIA's habit; the sensor itself was not there to ask
    words = " ".join(text(seen[path], name) for name in ("/ReadingBasis", "/Description", "/Name")).upper()
    return any(word in words for word in ("HEADROOM", "DELTA", "TLIMIT"))


def _temperature(seen: Seen, path: str, environment: str) -> tuple[Spot, ...]:
    """Where the temperature of the processor itself is read."""
    source = at(seen[environment], "/TemperatureCelsius/DataSourceUri")
    spots: list[Spot] = []
    if not (isinstance(source, str) and plain(source) and is_headroom(seen, plain(source))):
        spots += _spots(seen, [(environment, "/TemperatureCelsius/Reading", 1.0)])
    for sensor in _sensors_of(seen, links(seen[path], "/Links/Chassis"), "Temperature"):
        if not is_headroom(seen, sensor) and not _is_memory(seen, sensor):
            spots.append(Spot(address=Address(sensor, "/Reading")))
    # One sensor for good: a second one of the same chip sits elsewhere and reads otherwise.
    first = spots[0].address if spots else None
    return tuple(spot for spot in spots if spot.address == first or _same_sensor(seen, spots[0], spot))


def _same_sensor(seen: Seen, first: Spot, other: Spot) -> bool:
    source = at(seen[first.address.path], first.address.pointer.removesuffix("/Reading") + "/DataSourceUri")
    return isinstance(source, str) and plain(source) == other.address.path


def _memory_temperature(seen: Seen, path: str, memories: Sequence[str]) -> tuple[Spot, ...]:
    spots: list[Spot] = []
    if len(memories) == 1:
        environment = link(seen[memories[0]], "/EnvironmentMetrics")
        spots += _spots(seen, [(environment, "/TemperatureCelsius/Reading", 1.0)])
    for sensor in _sensors_of(seen, links(seen[path], "/Links/Chassis"), "Temperature"):
        if _is_memory(seen, sensor) and not is_headroom(seen, sensor):
            spots.append(Spot(address=Address(sensor, "/Reading")))
    return tuple(dict.fromkeys(spots))


def _is_memory(seen: Seen, sensor: str) -> bool:
    words = [sensor.rpartition("/")[2], *(text(seen[sensor], each) for each in ("/Name", "/PhysicalContext"))]
    return any(sign in " ".join(words).upper() for sign in ("DRAM", "HBM", "MEMORY"))


def _size(seen: Seen, path: str, memories: Sequence[str]) -> Spot | None:
    """Where the size of the memory is read; a controller that does not know it says 0."""
    places = [Address(path, "/MemorySummary/TotalMemorySizeMiB")]
    if len(memories) == 1:
        places.append(Address(memories[0], "/CapacityMiB"))
    for place in places:
        if (number(seen.raw(place)).value or 0) > 0:
            return Spot(address=place, factor=BYTES_A_MIB)
    return None


def _remapping(seen: Seen, memories: Sequence[str], of_memory: Sequence[str]) -> Iterator[Formula]:
    if len(memories) != 1:
        return
    flags = [Address(memories[0], f"/Oem/Nvidia/RowRemapping{word}") for word in ("Pending", "Failed")]
    counts = [
        Address(of_memory[0], f"/Oem/Nvidia/RowRemapping/{word}RowRemappingCount")
        for word in ("Correctable", "Uncorrectable")
    ]
    if all(seen.raw(each) is not MISSING for each in (*flags, *counts)):
        parts = (
            *(Part(spots=(Spot(address=each),), is_flag=True) for each in flags),
            *(Part(spots=(Spot(address=each),)) for each in counts),
        )
        yield Formula(field="row_remap", parts=parts, how=How.REMAP)


_LINK_ERRORS = (
    "/RXErrors",
    "/Oem/Nvidia/SymbolErrors",
    "/Oem/Nvidia/LinkErrorRecoveryCount",
    "/Oem/Nvidia/UnintentionalLinkDownCount",
)


def _link_errors(seen: Seen, resource: Resource) -> Iterator[Formula]:
    """Errors over all links between accelerators; none while one of the links does not answer."""
    parts = []
    for port in _members(seen, link(resource, "/Ports")):
        name = port.rpartition("/")[2].upper()
        protocol = text(seen[port], "/PortProtocol") or ("NVLink" if "NVLINK" in name else "")
        if protocol not in ("NVLink", "XGMI"):
            continue
        metrics = link(seen[port], "/Metrics")
        found = [
            Address(metrics, each) for each in _LINK_ERRORS if seen.raw(Address(metrics, each)) is not MISSING
        ]
        if not found:
            return
        parts += [Part(spots=(Spot(address=each),)) for each in found]
    if parts:
        yield Formula(field="link_err", parts=tuple(parts), is_slow=True)


# ---- the node ---------------------------------------------------------------------------------------------------

_PER_SUPPLY = re.compile(r"\b(?:ps|psu|p)[ _]?\d", re.IGNORECASE)


def _node(seen: Seen, main: Sequence[str]) -> tuple[tuple[Formula, ...], tuple[Unit, ...]]:
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


def _sensors_of(seen: Seen, chassis: Iterable[str], reading_type: str) -> Iterator[str]:
    """Sensors of a type that are there, in the order of their listing."""
    for each in chassis:
        for sensor in _members(seen, link(seen[each], "/Sensors")):
            if _is_there(seen[sensor]) and _type_of(seen[sensor]) == reading_type:
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


def _is_there(resource: Resource) -> bool:
    return bool(resource) and text(resource, "/Status/State") not in GONE


def _words(seen: Seen, sensor: str, chassis: str) -> set[str]:
    """The words of a sensor's name, without those of the chassis it is in."""
    own = text(seen[sensor], "/Name") or sensor.rpartition("/")[2]
    name = own.replace("_", " ").lower()
    name = name.removeprefix(chassis.rpartition("/")[2].replace("_", " ").lower())
    return set(re.findall(r"[a-z]+", name))


def _power(seen: Seen, main: Sequence[str]) -> Iterator[tuple[Spot, ...]]:
    """Where the draw of the whole machine is read, best first."""
    for chassis in main:
        environment = link(seen[chassis], "/EnvironmentMetrics")
        if found := tuple(_spots(seen, [(environment, "/PowerWatts/Reading", 1.0)])):
            yield found
    for chassis in main:
        totals = []
        for sensor in _sensors_of(seen, [chassis], "Power"):
            words = _words(seen, sensor, chassis)
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
        yield from _listed(seen, power, "/PowerControl", "/PowerConsumedWatts")


def _energy(seen: Seen, main: Sequence[str]) -> Iterator[tuple[Spot, ...]]:
    for chassis in main:
        environment = link(seen[chassis], "/EnvironmentMetrics")
        found = (environment, "/EnergyJoules/Reading", 1.0), (environment, "/EnergykWh/Reading", JOULES_A_KWH)
        if spots := tuple(_spots(seen, found)):
            yield spots
    for chassis in main:
        for kind, factor in (("EnergyJoules", 1.0), ("EnergykWh", JOULES_A_KWH)):
            for sensor in _sensors_of(seen, [chassis], kind):
                whole = text(seen[sensor], "/PhysicalContext") == "Chassis" or "total" in _words(
                    seen, sensor, chassis
                )
                name = text(seen[sensor], "/Name").replace("_", " ")
                if (
                    whole
                    and not _PER_SUPPLY.search(name)
                    and not _words(seen, sensor, chassis) & {"out", "output"}
                ):
                    yield (Spot(address=Address(sensor, "/Reading"), factor=factor),)


def _inlet(seen: Seen, main: Sequence[str]) -> Iterator[tuple[Spot, ...]]:
    """Where the temperature of the air that enters is read, best first."""
    for chassis in main:
        metrics = link(seen[link(seen[chassis], "/ThermalSubsystem")], "/ThermalMetrics")
        if found := tuple(_spots(seen, [(metrics, "/TemperatureSummaryCelsius/Intake/Reading", 1.0)])):
            yield found
    fits: tuple[Callable[[Resource, set[str]], bool], ...] = (
        lambda sensor, words: text(sensor, "/PhysicalContext") == "Intake",
        lambda sensor, words: bool(words & {"inlet", "intake"}),
        lambda sensor, words: bool(words & {"ambient", "front"}),
    )
    for fit in fits:
        for chassis in main:
            for sensor in _sensors_of(seen, [chassis], "Temperature"):
                named = text(seen[sensor], "/Name").replace("_", " ")
                if is_headroom(seen, sensor) or _PER_SUPPLY.search(named):
                    continue
                if fit(seen[sensor], _words(seen, sensor, chassis)):
                    yield (Spot(address=Address(sensor, "/Reading")),)
    for chassis in main:
        thermal = link(seen[chassis], "/Thermal")
        yield from _listed(seen, thermal, "/Temperatures", "/ReadingCelsius", context="Intake")


def _cpu_temperatures(seen: Seen, main: Sequence[str]) -> Iterator[Part]:
    found = False
    for path in _processors(seen, "CPU"):
        environment = link(seen[path], "/EnvironmentMetrics")
        if spots := tuple(_spots(seen, [(environment, "/TemperatureCelsius/Reading", 1.0)])):
            found = True
            yield Part(spots=spots)
    if found:
        return
    for sensor in _sensors_of(seen, main, "Temperature"):
        if text(seen[sensor], "/PhysicalContext") == "CPU" and not is_headroom(seen, sensor):
            found = True
            yield Part(spots=(Spot(address=Address(sensor, "/Reading")),))
    if not found:
        for chassis in main:
            thermal = link(seen[chassis], "/Thermal")
            for spots in _listed(seen, thermal, "/Temperatures", "/ReadingCelsius", context="CPU"):
                yield Part(spots=spots)


def _listed(
    seen: Seen, path: str, pointer: str, reading: str, *, context: str = ""
) -> Iterator[tuple[Spot, ...]]:
    """Entries of the lists in the deprecated Power and Thermal."""
    entries = at(seen[path], pointer) if path else MISSING
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        if context and text(entry, "/PhysicalContext") != context:
            continue
        if text(entry, "/Status/State") not in GONE and at(entry, reading) is not MISSING:
            yield (Spot(address=Address(path, f"{pointer}/{place}{reading}")),)


def _fans(seen: Seen, main: Sequence[str]) -> tuple[tuple[Part, ...], tuple[Unit, ...]]:
    """The speeds of fans in percent, from whichever of four places has them, and the fans to watch."""
    fans, speeds = [], []
    for chassis in main:
        for fan in _members(seen, link(seen[link(seen[chassis], "/ThermalSubsystem")], "/Fans")):
            if _is_there(seen[fan]):
                fans.append(Unit(kind="fan", label=_label(seen, fan), place=Address(fan)))
                speeds.append(tuple(_spots(seen, [(fan, "/SpeedPercent/Reading", 1.0)])))
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
            for sensor in _sensors_of(seen, [chassis], "Percent"):
                if _words(seen, sensor, chassis) & {"fan", "pwm"}:
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
            yield tuple(_spots(seen, [(environment, where.below("/Reading").pointer, 1.0)]))
        elif text(seen[source], "/ReadingUnits") == "%" and at(entry, "/SpeedRPM") is not MISSING:
            yield Spot(address=Address(source, "/Reading")), Spot(address=where.below("/SpeedRPM"))


# ---- what is watched --------------------------------------------------------------------------------------------


def _label(seen: Seen, path: str) -> str:
    return text(seen[path], "/Name") or text(seen[path], "/Id") or path.rpartition("/")[2]


def _units(seen: Seen, main: Sequence[str], fans: Sequence[Unit]) -> Iterator[Unit]:
    for chassis in main:
        power = link(seen[chassis], "/PowerSubsystem")
        thermal = link(seen[chassis], "/ThermalSubsystem")
        supplies = [path for path in _members(seen, link(seen[power], "/PowerSupplies")) if path in seen]
        for path in supplies:
            yield Unit(kind="supply", label=_label(seen, path), place=Address(path))
        if not supplies:
            yield from _listed_units(seen, link(seen[chassis], "/Power"), "/PowerSupplies", "supply")
        yield from _listed_units(seen, power, "/PowerSupplyRedundancy", "redundancy", "power supplies")
        yield from _listed_units(seen, thermal, "/FanRedundancy", "redundancy", "fans")
        yield from _listed_units(seen, link(seen[chassis], "/Thermal"), "/Redundancy", "redundancy", "fans")
        if thermal in seen:
            yield Unit(kind="thermal", label=f"cooling of {_label(seen, chassis)}", place=Address(thermal))
        leaks = link(seen[thermal], "/LeakDetection")
        for path in _members(seen, link(seen[leaks], "/LeakDetectors")):
            if path in seen:
                yield Unit(kind="detector", label=_label(seen, path), place=Address(path))
        for sensor in _sensors_of(seen, [chassis], "Temperature"):
            yield Unit(kind="sensor", label=_label(seen, sensor), place=Address(sensor))
    yield from fans


def _listed_units(seen: Seen, path: str, pointer: str, kind: str, what: str = "") -> Iterator[Unit]:
    entries = at(seen[path], pointer) if path else MISSING
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        label = what or text(entry, "/Name") or f"{kind} {place}"
        yield Unit(kind=kind, label=label, place=Address(path, f"{pointer}/{place}"))


def _units_of_accelerators(seen: Seen, accelerators: Sequence[FoundAccelerator]) -> Iterator[Unit]:
    for each in accelerators:
        yield Unit(kind="accelerator", label=each.label, place=Address(each.paths[0]), key=each.key)


def _logs(seen: Seen, systems: Sequence[str]) -> Iterator[str]:
    for system in systems:
        for service in _members(seen, link(seen[system], "/LogServices")):
            if entries := link(seen[service], "/Entries"):
                yield entries


def _complaints(seen: Seen) -> Iterator[tuple[str, str]]:
    """What was promised and not there, and what was odd."""
    answered = {plain(ask) for ask in seen.brought}
    alike: dict[tuple[str, str], list[str]] = {}
    for ask, why in seen.silent.items():
        if plain(ask) not in answered:
            parent, _, name = plain(ask).rpartition("/")
            alike.setdefault((parent, why), []).append(name)
    for (parent, why), names in alike.items():
        names = list(dict.fromkeys(names))
        if len(names) <= ALIKE_MAX:
            yield from ((f"{parent}/{name}", why) for name in names)
        else:
            yield (
                parent,
                f"{len(names)} of what it lists gave no answer ({why}): {', '.join(names[:ALIKE_MAX])}, …",
            )
    yield from seen.odd.items()
    for path, resource in seen.resources.items():
        count = number(at(resource, "/Members@odata.count")).value
        listed = at(resource, "/Members")
        more = isinstance(resource.get("Members@odata.nextLink") or resource.get("@odata.nextLink"), str)
        if count is not None and isinstance(listed, list) and len(listed) < count and not more:
            yield path, f"says that it has {count:g} members and lists {len(listed)}"
