"""What the kernel of this node says: processors, memory, disks, Ethernet, temperatures, energy, and each CPU slot.

Invariant: a rate is taken over the time since the look before; the first look gives none, rather than a guess. A slot
that shares its core with others has its part of it. Outside things touched: /proc and /sys through psutil, the powercap
counters (RAPL) of the processors, and one small file that carries those on over a new agent.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from baseai.telemetry.collector import Collected
from baseai.telemetry.energy import Zone, meter_of
from baseai.telemetry.field import ACCELERATOR, NODE, PORT, Origin
from baseai.telemetry.sample import Reading, Row, Trouble

POWERCAP = Path("/sys/class/powercap")
NETWORK = Path("/sys/class/net")
SHORTEST_S = 0.5  # a rate is taken over so long at least: the kernel counts in hundredths
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
SPLIT = "host: processors' energy counters, split over cores by share of busy time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Which CPU slots this node offers, and the core of each: slots beyond the cores share them round."""

    cores: Sequence[int]  # numbers the agent may use
    count: int

    def core_of(self, index: int) -> int:
        return self.cores[index % len(self.cores)]

    def on_core(self) -> Mapping[int, int]:
        """How many slots each core carries."""
        found: dict[int, int] = {}
        for index in range(self.count if self.cores else 0):
            found[self.core_of(index)] = found.get(self.core_of(index), 0) + 1
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    at_s: float  # monotonic
    busy_s: Mapping[int, float]  # by core, since the node was started
    energy_j: float | None


class ThisNode:
    """The source for the node's own row, the rows of its CPU slots and its Ethernet ports."""

    name = "host"

    def __init__(
        self,
        *,
        folder: Path,
        boot_id: str,
        slots: Slots,
        watts_per_core: float | None = None,
        watts_source: str = "",
        energy_of_node: bool = True,
        powercap: Path = POWERCAP,
        network: Path = NETWORK,
    ) -> None:
        """folder: of this node; its disk is measured and its file `energy.json` carries measured energy on.

        watts_per_core: what a core at work is taken to draw where nothing measures it, with where that stands.
        energy_of_node: False where a controller of the board measures the whole node: this is only its processors.
        """
        self._folder = folder
        self._slots = slots
        self._watts = watts_per_core
        self._watts_source = watts_source
        self._energy_of_node = energy_of_node
        self._powercap = powercap
        self._network = network
        self._meter = meter_of(_read_record(folder / "energy.json"), boot_id)
        self._last = self._look([])

    def observe(self, now: datetime) -> Collected:
        ts_ms = round(now.timestamp() * 1000)
        troubles: list[Trouble] = []
        look, before = self._look(troubles), self._last
        busy_s, energy_j = look.busy_s, look.energy_j
        is_long = look.at_s - before.at_s >= SHORTEST_S
        util_pct = _util_pct(before, look) if is_long else {}
        power_w = _power_w(before, look) if is_long else None
        if is_long:
            self._last = look
        temperatures = _temperatures()
        ports, net = self._ethernet(ts_ms)
        node = {
            **self._machine(util_pct, temperatures),
            **net,
            **(self._node_energy(energy_j, power_w, busy_s, util_pct) if self._energy_of_node else {}),
        }
        return Collected(
            rows={
                NODE.name: [Row(key="", ts_ms=ts_ms, fields=node)],
                ACCELERATOR.name: self._slot_rows(
                    ts_ms, util_pct, busy_s, temperatures, measured=energy_j is not None
                ),
                PORT.name: ports,
            },
            troubles=troubles,
        )

    def _look(self, troubles: list[Trouble]) -> _Look:
        busy_s = _busy_s()
        zones = self._zones(troubles)
        energy_j = self._advance(zones, busy_s) if zones else None
        return _Look(at_s=time.monotonic(), busy_s=busy_s, energy_j=energy_j)

    # ---- the machine ------------------------------------------------------------------------------------------

    def _machine(
        self, util_pct: Mapping[int, float], temperatures: Mapping[int | None, float]
    ) -> dict[str, Reading]:
        memory = psutil.virtual_memory()
        fields = {
            "mem_used_b": _measured(memory.total - memory.available, "memory in use, caches left out"),
            "mem_total_b": _measured(memory.total, "memory"),
            "uptime_s": _measured(time.clock_gettime(time.CLOCK_BOOTTIME), "clock since the start")
            if hasattr(time, "CLOCK_BOOTTIME")
            else _measured(time.time() - psutil.boot_time(), "clock less time of the start"),
            "load1": _measured(os.getloadavg()[0], "load average"),
        }
        if util_pct:
            fields["cpu_pct"] = _measured(
                sum(util_pct.values()) / len(util_pct), "time of all cores not idle"
            )
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(self._folder)
            fields["disk_used_b"] = _measured(disk.used, f"disk of {self._folder}")
            fields["disk_total_b"] = _measured(disk.total, f"disk of {self._folder}")
        with contextlib.suppress(RuntimeError, OSError):
            traffic = psutil.disk_io_counters()
            if traffic is not None:
                fields["disk_read_b"] = _measured(traffic.read_bytes, "all disks")
                fields["disk_write_b"] = _measured(traffic.write_bytes, "all disks")
        if temperatures:
            fields["temp_cpu_c"] = _measured(max(temperatures.values()), "hottest processor sensor")
        return fields

    def _slot_rows(
        self,
        ts_ms: int,
        util_pct: Mapping[int, float],
        busy_s: Mapping[int, float],
        temperatures: Mapping[int | None, float],
        *,
        measured: bool,
    ) -> list[Row]:
        if not self._slots.count or not self._slots.cores:
            return []
        shared = self._slots.on_core()
        clocks = _clocks_mhz()
        whole = temperatures.get(None)
        rows = []
        for index in range(self._slots.count):
            core = self._slots.core_of(index)
            fields: dict[str, Reading] = {}
            if core in util_pct:
                fields["util_pct"] = _measured(util_pct[core], "time of its core not idle")
            if core in clocks:
                fields["clock_mhz"] = _measured(clocks[core], "clock of its core")
            if (temperature := temperatures.get(core, whole)) is not None:
                fields["temp_c"] = _measured(temperature, "sensor of its core or processor")
            if measured:
                fields["energy_j"] = Reading(
                    value=self._meter.core_j.get(core, 0.0) / shared[core],
                    source=SPLIT,
                    origin=Origin.ESTIMATED,
                )
            elif self._watts is not None and core in busy_s:
                fields["energy_j"] = self._assumed(busy_s[core] * self._watts / shared[core])
                if core in util_pct:
                    fields["power_w"] = self._assumed(util_pct[core] / 100 * self._watts / shared[core])
            rows.append(Row(key=f"cpu/{index}", ts_ms=ts_ms, fields=fields))
        return rows

    def _ethernet(self, ts_ms: int) -> tuple[list[Row], dict[str, Reading]]:
        """Ports that are hardware, one row each, and their sums; without such ports, all but loopback."""
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        real = [name for name in counters if (self._network / name / "device").exists()]
        counted = real or [name for name in counters if name != "lo"]
        net = {
            "net_rx_b": _measured(sum(counters[name].bytes_recv for name in counted), "Ethernet ports"),
            "net_tx_b": _measured(sum(counters[name].bytes_sent for name in counted), "Ethernet ports"),
            "net_err": _measured(
                sum(
                    each.errin + each.errout + each.dropin + each.dropout
                    for each in map(counters.get, counted)
                    if each
                ),
                "errors and drops of Ethernet ports",
            ),
        }
        rows = []
        for name in real:
            port, states = counters[name], self._network / name
            fields = {
                "rx_b": _measured(port.bytes_recv, "rx_bytes"),
                "tx_b": _measured(port.bytes_sent, "tx_bytes"),
                "rx_err": _measured(port.errin, "rx_errors"),
                "discards": _measured(port.dropout, "tx_dropped"),
            }
            if (state := _text(states / "operstate")) is not None:
                fields["up"] = _measured(float(state == "up"), "operstate")
            if (speed := _text(states / "speed")) is not None and speed.isdigit():
                fields["rate_bps"] = _measured(int(speed) * 1e6, "speed, Mbit/s × 1e6")
            if (downs := _text(states / "carrier_down_count")) is not None and downs.isdigit():
                fields["link_downed"] = _measured(int(downs), "carrier_down_count")
            rows.append(Row(key=f"{name}/1", ts_ms=ts_ms, fields=fields))
        return rows, net

    # ---- energy -----------------------------------------------------------------------------------------------

    def _zones(self, troubles: list[Trouble]) -> list[Zone]:
        """Packages and their memory. What lies within a package, as core and uncore, is in it already; psys is not."""
        zones = []
        for folder in sorted(self._powercap.glob("*-rapl:*")):
            name = _text(folder / "name")
            if name is None or not (name.startswith("package") or name == "dram"):
                continue
            try:
                micro_j = int((folder / "energy_uj").read_text())
                wraps_at = int((folder / "max_energy_range_uj").read_text())
            except (OSError, ValueError) as error:
                sentence = f"{folder.name} ({name}) cannot be read: {error}"
                troubles.append(Trouble(source=self.name, key=None, field="energy_j", sentence=sentence))
                return []  # a part of the node is not the node
            zones.append(Zone(name=f"{folder.name} {name}", micro_j=micro_j, wraps_at_micro_j=wraps_at))
        return zones

    def _advance(self, zones: Sequence[Zone], busy_s: Mapping[int, float]) -> float:
        self._meter.advance(zones, busy_s)
        with contextlib.suppress(OSError):
            fresh = self._folder / "energy.json.new"
            fresh.write_text(json.dumps(self._meter.to_record()))
            fresh.replace(self._folder / "energy.json")
        return self._meter.total_j

    def _node_energy(
        self,
        energy_j: float | None,
        power_w: float | None,
        busy_s: Mapping[int, float],
        util_pct: Mapping[int, float],
    ) -> dict[str, Reading]:
        if energy_j is not None:
            source = "energy counters of processors and their memory; fans, disks and losses left out"
            fields = {"energy_j": _measured(energy_j, source)}
            if power_w is not None:
                fields["power_w"] = _measured(power_w, source)
            return fields
        if self._watts is None:
            return {}
        fields = {"energy_j": self._assumed(sum(busy_s.values()) * self._watts)}
        if util_pct:
            fields["power_w"] = self._assumed(sum(util_pct.values()) / 100 * self._watts)
        return fields

    def _assumed(self, value: float) -> Reading:
        source = f"{self._watts:g} W a core at work ({self._watts_source}) × time busy; idle draw left out"
        return Reading(value=value, source=source, origin=Origin.ESTIMATED)


def _measured(value: float, what: str) -> Reading:
    return Reading(value=float(value), source=f"host: {what}")


def _busy_s() -> dict[int, float]:
    """Time each core worked since the node was started. Waiting for disks is not work."""
    return {
        core: times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "irq", 0.0)
        + getattr(times, "softirq", 0.0)
        for core, times in enumerate(psutil.cpu_times(percpu=True))
    }  # fmt: skip


def _util_pct(before: _Look, look: _Look) -> dict[int, float]:
    passed_s = look.at_s - before.at_s
    return {
        core: min(100.0, max(0.0, 100 * (busy - before.busy_s[core]) / passed_s))
        for core, busy in look.busy_s.items()
        if core in before.busy_s
    }


def _power_w(before: _Look, look: _Look) -> float | None:
    if before.energy_j is None or look.energy_j is None:
        return None
    return (look.energy_j - before.energy_j) / (look.at_s - before.at_s)


def _clocks_mhz() -> dict[int, float]:
    with contextlib.suppress(OSError, RuntimeError, NotImplementedError, AttributeError):
        return {
            core: each.current for core, each in enumerate(psutil.cpu_freq(percpu=True) or ()) if each.current
        }
    return {}


def _temperatures() -> dict[int | None, float]:
    """By core where the sensors name cores; under None the hottest of a whole processor."""
    found: dict[int | None, float] = {}
    with contextlib.suppress(OSError, AttributeError):
        for chip, sensors in psutil.sensors_temperatures().items():
            for sensor in sensors if chip in CPU_SENSORS else ():
                label = sensor.label.lower()
                number = label.removeprefix("core ")
                place = int(number) if label.startswith("core ") and number.isdigit() else None
                found[place] = max(found.get(place, sensor.current), sensor.current)
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _read_record(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
