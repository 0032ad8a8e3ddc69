"""A field is one measured property of an accelerator, a node or a port: its name, unit, kind and plausible range.

Invariant: units are SI and stand in the name; a number outside its field's range is never kept as a value. A family is
the set of fields that one kind of thing has; the order of its fields is the order of columns and only grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType


class State(IntEnum):
    """Whether a field holds a value at a tick and, if not, why. Unknown is not zero."""

    VALUE = 0
    ABSENT = 1  # the source said nothing of it this time
    UNSUPPORTED = 2  # the device or its source cannot say it, ever
    BLANK = 3  # the source gave its sign for "no reading", or a number that cannot be
    PAUSED = 4  # the counters are held by somebody else, as while a user runs a profiler


class Origin(IntEnum):
    """Where a value comes from: three different things on every page."""

    MEASURED = 0
    ESTIMATED = 1
    SIMULATED = 2


class Kind(StrEnum):
    """How values of a field add up over time."""

    GAUGE = "gauge"  # a level at an instant: mean, min and max over time
    COUNTER = "counter"  # only rises until it is reset: differences over time
    BITS = "bits"  # flags: or-ed over time
    CODE = "code"  # the last word counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One measured property."""

    name: str
    unit: str  # "" for flags and codes
    kind: Kind
    low: float = 0.0  # a reading below this cannot be
    high: float = float("inf")  # nor one above this
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The fields of one kind of thing. `key` says what names a thing of it."""

    name: str
    key: str
    fields: tuple[Field, ...]
    index: Mapping[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = [each.name for each in self.fields]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: a field stands twice")
        object.__setattr__(self, "index", MappingProxyType({name: place for place, name in enumerate(names)}))

    def __getitem__(self, name: str) -> Field:
        return self.fields[self.index[name]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.fields)


def _gauge(name: str, unit: str, high: float, meaning: str, low: float = 0.0) -> Field:
    return Field(name=name, unit=unit, kind=Kind.GAUGE, low=low, high=high, meaning=meaning)


def _counter(name: str, unit: str, meaning: str) -> Field:
    return Field(name=name, unit=unit, kind=Kind.COUNTER, meaning=meaning)


TIB = float(2**40)

ACCELERATOR = Family(
    name="accelerator",
    key="serial",
    fields=(
        _gauge("util_pct", "%", 100, "share of time in which the device computed"),
        _gauge("compute_pct", "%", 100, "share of its multiprocessors that had work"),
        _gauge("tensor_pct", "%", 100, "share of time in which matrix units worked"),
        _gauge("membw_pct", "%", 100, "share of its memory bandwidth in use"),
        _gauge("temp_c", "°C", 130, "temperature of the processor", low=-40),
        _gauge("temp_mem_c", "°C", 130, "temperature of its memory", low=-40),
        _gauge("clock_mhz", "MHz", 10_000, "clock of the processor"),
        _gauge("clock_mem_mhz", "MHz", 20_000, "clock of its memory"),
        Field(name="throttle_bits", unit="", kind=Kind.BITS, high=255, meaning="why it is slowed down, see Throttle"),
        _counter("throttle_ms", "ms", "time it was slowed down"),
        _gauge("mem_used_b", "B", 16 * TIB, "memory in use"),
        _gauge("mem_total_b", "B", 16 * TIB, "memory installed"),
        _gauge("power_w", "W", 5_000, "draw of the whole board"),
        _gauge("power_cap_w", "W", 5_000, "limit of the draw in force"),
        _counter("energy_j", "J", "energy drawn"),
        _gauge("pcie_tx_bps", "B/s", 1e13, "sent over PCIe"),
        _gauge("pcie_rx_bps", "B/s", 1e13, "received over PCIe"),
        _gauge("link_tx_bps", "B/s", 1e13, "sent over links between accelerators"),
        _gauge("link_rx_bps", "B/s", 1e13, "received over links between accelerators"),
        _counter("ecc_ce", "", "memory errors corrected"),
        _counter("ecc_ue", "", "memory errors not corrected"),
        Field(name="row_remap", unit="", kind=Kind.CODE, high=2**31, meaning="replaced memory rows, see remap_code"),
        _counter("link_err", "", "errors on links between accelerators"),
        Field(name="fault_code", unit="", kind=Kind.CODE, high=2**31, meaning="last Xid or AFID since the tick before"),
    ),
)  # fmt: skip

NODE = Family(
    name="node",
    key="node_id",
    fields=(
        _gauge("cpu_pct", "%", 100, "share of all cores in use"),
        _gauge("mem_used_b", "B", 1024 * TIB, "main memory in use"),
        _gauge("mem_total_b", "B", 1024 * TIB, "main memory installed"),
        _gauge("disk_used_b", "B", 2**20 * TIB, "space in use on the disk of the node folder"),
        _gauge("disk_total_b", "B", 2**20 * TIB, "space of that disk"),
        _counter("disk_read_b", "B", "read from all disks"),
        _counter("disk_write_b", "B", "written to all disks"),
        _counter("net_rx_b", "B", "received over Ethernet, loopback left out"),
        _counter("net_tx_b", "B", "sent over Ethernet, loopback left out"),
        _counter("net_err", "", "errors and drops on Ethernet"),
        _counter("ib_rx_b", "B", "received over InfiniBand"),
        _counter("ib_tx_b", "B", "sent over InfiniBand"),
        _gauge("power_w", "W", 100_000, "draw of the whole node"),
        _counter("energy_j", "J", "energy drawn by the whole node"),
        _gauge("temp_inlet_c", "°C", 130, "temperature of the air that enters", low=-40),
        _gauge("temp_cpu_c", "°C", 130, "temperature of its hottest processor", low=-40),
        _gauge("fan_pct", "%", 100, "speed of its fastest fan"),
        _gauge("psu_ok", "", 64, "power supplies that work"),
        _gauge("psu_total", "", 64, "power supplies installed"),
        _gauge("leak", "", 64, "leak detectors that report one"),
        _gauge("uptime_s", "s", 1e10, "since it was started"),
        _gauge("load1", "", 1e6, "processes ready to run, mean of a minute"),
        _gauge("accel_seen", "", 65_536, "accelerators its sources reported"),
        _gauge("accel_expected", "", 65_536, "accelerators installed in it"),
    ),
)  # fmt: skip

PORT = Family(
    name="port",
    key="node_id/device/port",
    fields=(
        _counter("rx_b", "B", "received"),
        _counter("tx_b", "B", "sent"),
        _counter("wait_ticks", "", "times it had to wait to send: congestion"),
        _gauge("rate_bps", "bit/s", 1e14, "signalling rate in force"),
        _gauge("up", "", 1, "1 while the link is active"),
        _counter("symbol_err", "", "symbol errors"),
        _counter("rx_err", "", "packets received with errors"),
        _counter("discards", "", "packets thrown away while sending"),
        _counter("link_downed", "", "times the link went down"),
        _counter("retrans", "", "retransmissions, time-outs and packets out of sequence"),
        _counter("congestion", "", "congestion notices sent and handled"),
    ),
)

FAMILIES: Mapping[str, Family] = MappingProxyType({each.name: each for each in (ACCELERATOR, NODE, PORT)})


class Throttle(IntEnum):
    """Bits of `throttle_bits`. POWER_CAP is normal at full load; the harmful ones are in HARMFUL."""

    POWER_CAP = 1
    THERMAL_SW = 2
    THERMAL_HW = 4
    POWER_BRAKE = 8
    MEM_THERMAL = 16
    VR_THERMAL = 32
    RELIABILITY = 64
    OTHER = 128


HARMFUL = (
    Throttle.THERMAL_SW
    | Throttle.THERMAL_HW
    | Throttle.POWER_BRAKE
    | Throttle.MEM_THERMAL
    | Throttle.VR_THERMAL
)


def remap_code(*, pending: bool, failed: bool, count: int) -> int:
    """`row_remap` of one device: bit 0 a replacement waits for a reset, bit 1 one has failed, above them the count."""
    return int(pending) | int(failed) << 1 | count << 2
