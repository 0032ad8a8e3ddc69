"""An accelerator of a board is a processor that computes for tenants, and of which properties its fields are made.

Invariant: two resources that mirror one accelerator under two systems are one, and two accelerators on one board are
two though they share its serial number.
"""

import re
from collections.abc import Iterator, Sequence
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
from baseai.telemetry.board.listing import members, processors
from baseai.telemetry.board.resource import (
    MISSING,
    Address,
    Resource,
    Seen,
    at,
    link,
    links,
    number,
    plain,
    text,
)
from baseai.telemetry.board.sensor import is_headroom, is_memory, sensors_of, spots_of

_NVIDIA_UUID = re.compile(
    r"(?:GPU-)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.IGNORECASE
)


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


def accelerators(seen: Seen) -> tuple[FoundAccelerator, ...]:
    """One for each UUID, or for each serial where there is none; the mirror with more to say is read."""
    groups: dict[str, list[str]] = {}
    for path in processors(seen, "GPU"):
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
        return tuple(spots_of(seen, found))

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


def _temperature(seen: Seen, path: str, environment: str) -> tuple[Spot, ...]:
    """Where the temperature of the processor itself is read."""
    source = at(seen[environment], "/TemperatureCelsius/DataSourceUri")
    spots: list[Spot] = []
    if not (isinstance(source, str) and plain(source) and is_headroom(seen, plain(source))):
        spots += spots_of(seen, [(environment, "/TemperatureCelsius/Reading", 1.0)])
    for sensor in sensors_of(seen, links(seen[path], "/Links/Chassis"), "Temperature"):
        if not is_headroom(seen, sensor) and not is_memory(seen, sensor):
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
        spots += spots_of(seen, [(environment, "/TemperatureCelsius/Reading", 1.0)])
    for sensor in sensors_of(seen, links(seen[path], "/Links/Chassis"), "Temperature"):
        if is_memory(seen, sensor) and not is_headroom(seen, sensor):
            spots.append(Spot(address=Address(sensor, "/Reading")))
    return tuple(dict.fromkeys(spots))


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
    for port in members(seen, link(resource, "/Ports")):
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
