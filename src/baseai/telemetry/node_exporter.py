"""What node_exporter says of one machine: the row of the node, and one of each port.

Invariant: a sum is taken over what is not part of something else that is summed: whole disks, physical networks,
packages of processors. What node_exporter cannot know (power supplies, leaks, the air that enters) is unsupported.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from baseai.telemetry.counter import is_saturated, saturated_sentence
from baseai.telemetry.exposition import Scrape
from baseai.telemetry.field import NODE, PORT, Family, Origin, State
from baseai.telemetry.sample import Reading, Row, Trouble

PART_OF_DISK = re.compile(r"(dm-|md|loop|ram|zram|sr|fd)\d|.*\d+p\d+$|[shv]d[a-z]+\d|xvd[a-z]+\d")
VIRTUAL_NETWORK = re.compile(
    r"lo$|veth|docker|br-|virbr|bond|team|tun|tap|cni|flannel|cali|ib\d|ibp|dummy|vlan|.*\."
)
CPU_CHIPS = frozenset({"coretemp", "k10temp", "zenpower"})
CPU_CHIP = re.compile(r"coretemp|k10temp|zenpower")
ACTIVE = 4  # state of an InfiniBand port


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Seconds of all cores so far, to be handed in with the next scrape."""

    busy_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one scrape says of a machine."""

    node: Row
    ports: tuple[Row, ...]
    troubles: tuple[Trouble, ...]
    cpu_time: CpuTime | None


Labels = Mapping[str, str]


class _Said:
    """The samples of a scrape by name."""

    def __init__(self, scrape: Scrape) -> None:
        self.by_name: dict[str, list[tuple[Labels, float]]] = {}
        for metric, value in zip(scrape.metrics, scrape.values, strict=True):
            self.by_name.setdefault(metric.name, []).append((metric.folded, value))

    def all(self, name: str) -> Sequence[tuple[Labels, float]]:
        return self.by_name.get(name, ())

    def one(self, name: str) -> float | None:
        found = self.all(name)
        return found[0][1] if found else None

    def total(self, *names: str, where: Callable[[Labels], bool] = lambda labels: True) -> float | None:
        """The sum over several names; None when nothing of it was said."""
        found = [value for name in names for labels, value in self.all(name) if where(labels)]
        return sum(found) if found else None


def is_node_exporter(scrape: Scrape) -> bool:
    """Whether a scrape speaks of a machine."""
    return any(metric.name.startswith("node_") for metric in scrape.metrics)


def machine_of(
    scrape: Scrape,
    *,
    at_ms: int,
    node_id: str = "",
    folder: str = "/",
    before: CpuTime | None = None,
    source: str = "node_exporter",
) -> Machine:
    """The rows of one scrape. `folder`: the disk on which it stands is the node's. `before`: from the scrape before."""
    said = _Said(scrape)
    troubles: list[Trouble] = []
    cpu_time = _cpu_time(said)
    numbers = {**_node_numbers(said, folder), "cpu_pct": _cpu_pct(cpu_time, before)}
    fields = {
        name: _reading(NODE, name, numbers[name], node_id, source, troubles)
        if name in numbers
        else Reading(value=None, state=State.UNSUPPORTED, source="node_exporter cannot say it")
        for name in NODE.names
    }
    ports = tuple(
        Row(
            key=f"{node_id}/{device}/{port}" if node_id else f"{device}/{port}",
            ts_ms=at_ms,
            fields=_port_fields(numbers_of_port, f"{device}/{port}", source, troubles),
        )
        for (device, port), numbers_of_port in sorted(_ports(said).items())
    )
    return Machine(
        node=Row(key=node_id, ts_ms=at_ms, fields=fields),
        ports=ports,
        troubles=tuple(troubles),
        cpu_time=cpu_time,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number:
    """One number for a field, and where it is from."""

    value: float | None
    source: str
    origin: Origin = Origin.MEASURED


def _number(value: float | None, source: str, origin: Origin = Origin.MEASURED) -> _Number:
    return _Number(value=value, source=f"node_exporter: {source}", origin=origin)


def _node_numbers(said: _Said, folder: str) -> dict[str, _Number]:
    total_b = said.one("node_memory_MemTotal_bytes")
    return {
        "mem_used_b": _memory_used(said, total_b),
        "mem_total_b": _number(total_b, "node_memory_MemTotal_bytes"),
        **_disk(said, folder),
        "disk_read_b": _number(
            said.total("node_disk_read_bytes_total", where=_whole_disk),
            "node_disk_read_bytes_total, whole disks",
        ),
        "disk_write_b": _number(
            said.total("node_disk_written_bytes_total", where=_whole_disk),
            "node_disk_written_bytes_total, whole disks",
        ),
        "net_rx_b": _number(
            said.total("node_network_receive_bytes_total", where=_physical),
            "node_network_receive_bytes_total, physical devices",
        ),
        "net_tx_b": _number(
            said.total("node_network_transmit_bytes_total", where=_physical),
            "node_network_transmit_bytes_total, physical devices",
        ),
        "net_err": _number(
            said.total(
                "node_network_receive_errs_total",
                "node_network_receive_drop_total",
                "node_network_transmit_errs_total",
                "node_network_transmit_drop_total",
                where=_physical,
            ),
            "node_network_{receive,transmit}_{errs,drop}_total, physical devices",
        ),
        "ib_rx_b": _number(
            said.total("node_infiniband_port_data_received_bytes_total"),
            "node_infiniband_port_data_received_bytes_total",
        ),
        "ib_tx_b": _number(
            said.total("node_infiniband_port_data_transmitted_bytes_total"),
            "node_infiniband_port_data_transmitted_bytes_total",
        ),
        "energy_j": _number(
            said.total("node_rapl_package_joules_total", "node_rapl_dram_joules_total"),
            "node_rapl_{package,dram}_joules_total; of processors and memory only, the rest of the node is not in it",
            Origin.ESTIMATED,
        ),
        "temp_cpu_c": _number(_hottest_cpu(said), "node_hwmon_temp_celsius, the hottest of the processors"),
        "fan_pct": _number(_fastest_fan(said), "node_hwmon_fan_rpm of node_hwmon_fan_max_rpm"),
        "uptime_s": _uptime(said),
        "load1": _number(said.one("node_load1"), "node_load1"),
    }


def _memory_used(said: _Said, total_b: float | None) -> _Number:
    available = said.one("node_memory_MemAvailable_bytes")
    if total_b is not None and available is not None:
        return _number(total_b - available, "node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes")
    free = [said.one(f"node_memory_{part}_bytes") for part in ("MemFree", "Buffers", "Cached")]
    known = [each for each in free if each is not None]
    used = total_b - sum(known) if total_b is not None and len(known) == len(free) else None
    return _number(used, "node_memory_MemTotal_bytes - MemFree - Buffers - Cached; an older kernel")


def _disk(said: _Said, folder: str) -> dict[str, _Number]:
    """The file system under the folder: the longest mount point that the folder stands below."""
    sizes = {labels.get("mountpoint", ""): value for labels, value in said.all("node_filesystem_size_bytes")}
    free = {labels.get("mountpoint", ""): value for labels, value in said.all("node_filesystem_free_bytes")}
    below = [
        mount
        for mount in sizes.keys() & free.keys()
        if folder == mount or folder.startswith(mount.rstrip("/") + "/")
    ]
    mount = max(below, key=len, default=None)
    used = sizes[mount] - free[mount] if mount is not None else None
    return {
        "disk_used_b": _number(
            used, f"node_filesystem_size_bytes - node_filesystem_free_bytes of {mount or folder}"
        ),
        "disk_total_b": _number(
            sizes[mount] if mount is not None else None, f"node_filesystem_size_bytes of {mount or folder}"
        ),
    }


def _whole_disk(labels: Labels) -> bool:
    return not PART_OF_DISK.match(labels.get("device", ""))


def _physical(labels: Labels) -> bool:
    return not VIRTUAL_NETWORK.match(labels.get("device", ""))


def _cpu_time(said: _Said) -> CpuTime | None:
    seconds = said.all("node_cpu_seconds_total")
    if not seconds:
        return None
    total = sum(value for _, value in seconds)
    idle = sum(value for labels, value in seconds if labels.get("mode") in ("idle", "iowait"))
    return CpuTime(busy_s=total - idle, total_s=total)


def _cpu_pct(now: CpuTime | None, before: CpuTime | None) -> _Number:
    """The share of two scrapes' difference; absent where the seconds fell or stood still."""
    value = None
    if (
        now is not None
        and before is not None
        and now.total_s > before.total_s
        and now.busy_s >= before.busy_s
    ):
        value = 100 * (now.busy_s - before.busy_s) / (now.total_s - before.total_s)
    return _number(
        value, "node_cpu_seconds_total, the share between two scrapes that was neither idle nor iowait"
    )


def _hottest_cpu(said: _Said) -> float | None:
    cpus = {
        labels.get("chip")
        for labels, _ in said.all("node_hwmon_chip_names")
        if labels.get("chip_name") in CPU_CHIPS
    }
    return max(
        (
            value
            for labels, value in said.all("node_hwmon_temp_celsius")
            if labels.get("chip") in cpus or CPU_CHIP.search(labels.get("chip", ""))
        ),
        default=None,
    )


def _fastest_fan(said: _Said) -> float | None:
    def fan(labels: Labels) -> tuple[str, str]:
        return labels.get("chip", ""), labels.get("sensor", "")

    most = {fan(labels): value for labels, value in said.all("node_hwmon_fan_max_rpm") if value > 0}
    return max(
        (
            min(100.0, 100 * value / most[fan(labels)])
            for labels, value in said.all("node_hwmon_fan_rpm")
            if fan(labels) in most
        ),
        default=None,
    )


def _uptime(said: _Said) -> _Number:
    now, boot = said.one("node_time_seconds"), said.one("node_boot_time_seconds")
    value = now - boot if now is not None and boot is not None else None
    return _number(value, "node_time_seconds - node_boot_time_seconds")


# Ports.

INFINIBAND: Mapping[str, tuple[str, float]] = {
    "rx_b": ("node_infiniband_port_data_received_bytes_total", 1),
    "tx_b": ("node_infiniband_port_data_transmitted_bytes_total", 1),
    "wait_ticks": ("node_infiniband_port_transmit_wait_total", 1),
    "rate_bps": ("node_infiniband_rate_bytes_per_second", 8),
    "up": ("node_infiniband_state_id", 1),
    "symbol_err": ("node_infiniband_symbol_error_total", 1),
    "rx_err": ("node_infiniband_port_errors_received_total", 1),
    "discards": ("node_infiniband_port_discards_transmitted_total", 1),
    "link_downed": ("node_infiniband_link_downed_total", 1),
}
ETHERNET: Mapping[str, tuple[str, float]] = {
    "rx_b": ("node_network_receive_bytes_total", 1),
    "tx_b": ("node_network_transmit_bytes_total", 1),
    "rate_bps": ("node_network_speed_bytes", 8),
    "up": ("node_network_carrier", 1),
    "rx_err": ("node_network_receive_errs_total", 1),
    "discards": ("node_network_transmit_drop_total", 1),
    "link_downed": ("node_network_carrier_down_changes_total", 1),
}


def _ports(said: _Said) -> dict[tuple[str, str], dict[str, _Number]]:
    """(device, port) → field → number. A port of Ethernet is its device's first and only."""
    ports: dict[tuple[str, str], dict[str, _Number]] = {}
    for table, is_infiniband in ((INFINIBAND, True), (ETHERNET, False)):
        for name, (metric, factor) in table.items():
            for labels, value in said.all(metric):
                if not is_infiniband and not _physical(labels):
                    continue
                number: float | None = value * factor
                if name == "up":
                    number = float(value == ACTIVE) if is_infiniband else value
                elif name == "rate_bps" and value < 0:
                    number = None
                source = f"{metric} × {factor:g}" if factor != 1 else metric
                ports.setdefault((labels.get("device", ""), labels.get("port", "1")), {})[name] = _number(
                    number, source
                )
    return ports


def _port_fields(
    numbers: Mapping[str, _Number], key: str, source: str, troubles: list[Trouble]
) -> dict[str, Reading]:
    infiniband = any("infiniband" in number.source for number in numbers.values())
    table = INFINIBAND if infiniband else ETHERNET
    fields: dict[str, Reading] = {}
    for name in PORT.names:
        number = numbers.get(name)
        if number is None:
            state = State.ABSENT if name in table else State.UNSUPPORTED
            fields[name] = Reading(value=None, state=state, source="node_exporter")
        elif infiniband and number.value is not None and is_saturated(name, number.value):
            troubles.append(
                Trouble(source=source, key=key, field=name, sentence=saturated_sentence(name, number.value))
            )
            fields[name] = Reading(value=None, state=State.BLANK, source=number.source)
        else:
            fields[name] = _reading(PORT, name, number, key, source, troubles)
    return fields


def _reading(
    family: Family, name: str, number: _Number, key: str, source: str, troubles: list[Trouble]
) -> Reading:
    """A number as a reading, if it can be one of its field's."""
    if number.value is None:
        return Reading(value=None, state=State.ABSENT, source=number.source)
    each = family[name]
    if not each.low <= number.value <= each.high:
        troubles.append(
            Trouble(
                source=source,
                key=key or None,
                field=name,
                sentence=f"{number.value:g} {each.unit} cannot be: {each.low:g} to {each.high:g} can".replace(
                    "  ", " "
                ),
            )
        )
        return Reading(value=None, state=State.BLANK, source=number.source)
    return Reading(value=number.value, source=number.source, origin=number.origin)
