"""A plot is one live chart of a thing: which fields it draws, in which unit, and its series as a browser draws them.

Invariant: where nothing was heard the line is broken, and where a field had no value the reason is kept beside it; a
counter is shown as its rate, begun anew where it was reset; nothing is smoothed or filled in. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import ACCELERATOR, NODE, Family, Kind, Origin, State, Throttle
from baseai.telemetry.sample import ORIGIN_SHIFT
from baseai.telemetry.store import STEP_MS, Series, Tier

GIB = 2.0**-30
GAP_TICKS = 2.5  # a tick may be late; two that are missing are a gap
LEAST_GAP_MS = 25_000
TICK_MS = 10_000  # the usual one
DIGITS = 5  # significant ones of a number on the wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One chart: its fields, all in one unit, each × `factor` of the field's own."""

    name: str
    unit: str
    fields: tuple[str, ...]
    factor: float = 1.0
    high: float | None = None  # where the axis ends at least; None: at the highest value
    is_rate: bool = False  # the fields are counters, shown as what they rose by in a second
    has_bands: bool = False  # shows when and why the device was slowed down


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookback:
    """How far back a page of plots looks."""

    name: str
    ms: int
    points_max: int | None  # None: every sample
    every_s: float  # how often it is drawn anew


LOOKBACKS: Mapping[str, Lookback] = MappingProxyType(
    {
        each.name: each
        for each in (
            Lookback(name="15m", ms=900_000, points_max=None, every_s=0.0),
            Lookback(name="1h", ms=3_600_000, points_max=720, every_s=0.0),
            Lookback(name="6h", ms=6 * 3_600_000, points_max=400, every_s=30.0),
            Lookback(name="24h", ms=24 * 3_600_000, points_max=300, every_s=60.0),
            Lookback(name="7d", ms=7 * 24 * 3_600_000, points_max=340, every_s=300.0),
        )
    }
)
FIRST_LOOKBACK = "15m"

PLOTS: Mapping[str, tuple[Plot, ...]] = MappingProxyType(
    {
        ACCELERATOR.name: (
            Plot(name="activity", unit="%", fields=("util_pct", "compute_pct", "tensor_pct", "membw_pct"), high=100),
            Plot(name="temperature", unit="°C", fields=("temp_c", "temp_mem_c")),
            Plot(name="power", unit="W", fields=("power_w", "power_cap_w")),
            Plot(name="memory", unit="GiB", fields=("mem_used_b", "mem_total_b"), factor=GIB),
            Plot(name="clocks", unit="MHz", fields=("clock_mhz", "clock_mem_mhz"), has_bands=True),
            Plot(
                name="transfer", unit="GB/s", factor=1e-9,
                fields=("pcie_tx_bps", "pcie_rx_bps", "link_tx_bps", "link_rx_bps"),
            ),
        ),
        NODE.name: (
            Plot(name="processors", unit="%", fields=("cpu_pct",), high=100),
            Plot(name="main_memory", unit="GiB", fields=("mem_used_b", "mem_total_b"), factor=GIB),
            Plot(name="node_power", unit="W", fields=("power_w",)),
            Plot(name="node_temperature", unit="°C", fields=("temp_inlet_c", "temp_cpu_c")),
            Plot(
                name="network", unit="MB/s", factor=1e-6, is_rate=True,
                fields=("net_rx_b", "net_tx_b", "ib_rx_b", "ib_tx_b"),
            ),
            Plot(name="disk", unit="MB/s", factor=1e-6, is_rate=True, fields=("disk_read_b", "disk_write_b")),
        ),
    }
)  # fmt: skip

# One line per accelerator of a node, so that the one that differs stands out.
BESIDE = (
    Plot(name="util_pct", unit="%", fields=("util_pct",), high=100),
    Plot(name="temp_c", unit="°C", fields=("temp_c",)),
    Plot(name="power_w", unit="W", fields=("power_w",)),
    Plot(name="mem_used_b", unit="GiB", fields=("mem_used_b",), factor=GIB),
)
BESIDE_MAX = 16  # lines that a person can tell apart, just

# Fields whose rise, or whose word, is an event; and how grave it is.
EVENTS: Mapping[str, str] = MappingProxyType(
    {"fault_code": "bad", "ecc_ue": "bad", "row_remap": "warn", "link_err": "warn", "ecc_ce": "plain"}
)


def fields_of(family: Family) -> tuple[str, ...]:
    """All that a page of plots of this family asks the store for."""
    drawn = [name for plot in PLOTS[family.name] for name in plot.fields]
    besides = [*EVENTS, "throttle_bits", "energy_j"] if family is ACCELERATOR else ["energy_j"]
    return tuple(dict.fromkeys([*drawn, *besides]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One field of a plot over its time.

    values: shape (points,), in the plot's unit, NaN where there is no value. codes: shape (points,); where the line
    was broken because no row came, ABSENT. joined: shape (points,), where the line goes on although the point is not
    one of its own.
    """

    name: str
    values: NDArray[np.float64]
    codes: NDArray[np.uint8]
    joined: NDArray[np.bool_] | None = None

    @property
    def says_anything(self) -> bool:
        return bool(np.isfinite(self.values).any())

    @property
    def origin(self) -> Origin:
        """The weakest of its values'."""
        known = self.codes[np.isfinite(self.values)] >> ORIGIN_SHIFT
        return Origin(int(known.max())) if len(known) else Origin.MEASURED

    @property
    def state(self) -> State:
        """Of its newest point."""
        return State(int(self.codes[-1]) & 15) if len(self.codes) else State.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Something that happened at an instant."""

    ts_ms: int
    field: str
    tone: str
    amount: float  # by how much the counter rose, or the code that was said


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A time over which the device was slowed down, [from, until), and why: bits of Throttle."""

    from_ms: int
    until_ms: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The series of one thing, ready to be drawn. ts_ms: shape (points,), with the breaks."""

    ts_ms: NDArray[np.int64]
    tier: Tier
    lines: Mapping[str, Line]
    bands: tuple[Band, ...] = ()
    markers: tuple[Marker, ...] = ()
    energy_j: float | None = None  # drawn over what is shown; None where no counter says
    energy_origin: Origin = Origin.MEASURED
    extent: Mapping[str, tuple[float, float, float]] = field(
        default_factory=dict
    )  # field → lowest, mean, highest


def drawing_of(series: Series, plots: Sequence[Plot]) -> Drawing:
    """`series` as the plots draw it."""
    breaks = breaks_in(series.ts_ms, series.tier)
    place = {name: number for number, name in enumerate(series.fields)}
    ts_ms = np.insert(series.ts_ms, breaks, series.ts_ms[breaks - 1] + 1 if len(breaks) else 0)
    lines: dict[str, Line] = {}
    for plot in plots:
        for name in plot.fields:
            own = series.values[:, place[name]]
            values = rates_of(own, series.ts_ms, series.boots) if plot.is_rate else own
            lines[name] = Line(
                name=name,
                values=np.insert(values * plot.factor, breaks, np.nan),
                codes=np.insert(series.codes[:, place[name]], breaks, State.ABSENT),
            )
    energy, energy_codes = None, np.array([], dtype=np.uint8)
    if "energy_j" in place:
        own = series.values[:, place["energy_j"]]
        energy_codes = series.codes[np.isfinite(own), place["energy_j"]]
        energy = risen(own, series.boots)
    return Drawing(
        ts_ms=ts_ms,
        tier=series.tier,
        lines=lines,
        bands=bands_of(series, place["throttle_bits"], breaks) if "throttle_bits" in place else (),
        markers=markers_of(series),
        energy_j=energy,
        energy_origin=Origin(int(energy_codes.max()) >> ORIGIN_SHIFT)
        if len(energy_codes)
        else Origin.MEASURED,
        extent={
            name: (float(known.min()), float(known.mean()), float(known.max()))
            for name, line in lines.items()
            if len(known := line.values[np.isfinite(line.values)])
        },
    )


def breaks_in(ts_ms: NDArray[np.int64], tier: Tier) -> NDArray[np.int64]:
    """The places before which rows are missing."""
    if len(ts_ms) < 2:
        return np.array([], dtype=np.int64)
    apart = np.diff(ts_ms)
    usual = STEP_MS[tier] or float(np.median(apart))
    longest = 1.5 * usual if STEP_MS[tier] else max(GAP_TICKS * usual, LEAST_GAP_MS)
    return np.flatnonzero(apart > longest) + 1


def steps_of(values: NDArray[np.float64], boots: NDArray[np.int32]) -> NDArray[np.float64]:
    """By how much a counter rose since its value before, shape as `values`; NaN where either is not known.

    A counter that fell, or whose node started anew, began again from zero.
    """
    steps = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if len(known) > 1:
        before, after = values[known[:-1]], values[known[1:]]
        anew = (after < before) | (boots[known[1:]] != boots[known[:-1]])
        steps[known[1:]] = np.where(anew, after, after - before)
    return steps


def risen(values: NDArray[np.float64], boots: NDArray[np.int32]) -> float | None:
    """By how much a counter rose in all; None with fewer than two values."""
    steps = steps_of(values, boots)
    return float(np.nansum(steps)) if np.isfinite(steps).any() else None


def rates_of(
    values: NDArray[np.float64], ts_ms: NDArray[np.int64], boots: NDArray[np.int32]
) -> NDArray[np.float64]:
    """A counter as what it rose by in a second."""
    known = np.flatnonzero(np.isfinite(values))
    apart_s = np.full(len(values), np.nan)
    if len(known) > 1:
        apart_s[known[1:]] = np.diff(ts_ms[known]) / 1000
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(apart_s > 0, steps_of(values, boots) / apart_s, np.nan)


def bands_of(series: Series, place: int, breaks: NDArray[np.int64]) -> tuple[Band, ...]:
    """Each stretch with the same throttle bits. One lasts until the next row, but not across a gap."""
    bits = np.nan_to_num(series.values[:, place]).astype(np.int64)
    ends = _ends(series.ts_ms, breaks)
    found: list[Band] = []
    for ts, end, own in zip(series.ts_ms.tolist(), ends.tolist(), bits.tolist(), strict=True):
        if own == 0:
            continue
        if found and found[-1].bits == own and found[-1].until_ms == ts:
            found[-1] = Band(from_ms=found[-1].from_ms, until_ms=end, bits=own)
        else:
            found.append(Band(from_ms=ts, until_ms=end, bits=own))
    return tuple(found)


def _ends(ts_ms: NDArray[np.int64], breaks: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(ts_ms) < 2:
        return ts_ms.copy()
    usual = int(np.median(np.diff(ts_ms)))
    ends = np.append(ts_ms[1:], ts_ms[-1])
    ends[breaks - 1] = ts_ms[breaks - 1] + usual
    return ends


def markers_of(series: Series) -> tuple[Marker, ...]:
    """Errors that were counted, faults that were named, rows that were replaced, and starts of the node."""
    place = {name: number for number, name in enumerate(series.fields)}
    found: list[Marker] = []
    for name, tone in EVENTS.items():
        if name not in place:
            continue
        values = series.values[:, place[name]]
        if ACCELERATOR[name].kind is Kind.COUNTER:
            amounts = steps_of(values, series.boots)
        elif name == "fault_code":
            amounts = values
        else:
            amounts = np.where(_changed(values), values, 0)
        happened = np.flatnonzero(np.nan_to_num(amounts) > 0)
        found += [
            Marker(ts_ms=int(series.ts_ms[at]), field=name, tone=tone, amount=float(amounts[at]))
            for at in happened
        ]
    starts = np.flatnonzero(np.diff(series.boots)) + 1
    found += [Marker(ts_ms=int(series.ts_ms[at]), field="boot", tone="plain", amount=1.0) for at in starts]
    return tuple(sorted(found, key=lambda marker: (marker.ts_ms, marker.field)))


def _changed(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    changed = np.zeros(len(values), dtype=np.bool_)
    known = np.flatnonzero(np.isfinite(values))
    if len(known) > 1:
        changed[known[1:]] = values[known[1:]] != values[known[:-1]]
    return changed


def reasons_of(bits: int) -> tuple[Throttle, ...]:
    """The reasons that stand in throttle bits."""
    return tuple(each for each in Throttle if bits & each)


def beside(series: Mapping[str, Series], name: str, factor: float) -> tuple[NDArray[np.int64], list[Line]]:
    """One field of several things over one time: every instant at which one was read, and a line for each thing.

    Between two of its own rows a line goes on over the instants of others (`joined`); over a gap of its own it breaks.
    """
    breaks = {key: breaks_in(each.ts_ms, each.tier) for key, each in series.items()}
    instants = [each.ts_ms for each in series.values()]
    instants += [each.ts_ms[breaks[key] - 1] + 1 for key, each in series.items()]  # for a gap that all have
    ts_ms = np.unique(np.concatenate(instants)) if instants else np.array([], dtype=np.int64)
    lines = []
    for key, each in series.items():
        values = np.full(len(ts_ms), np.nan)
        codes = np.full(len(ts_ms), int(State.ABSENT), dtype=np.uint8)
        joined = np.zeros(len(ts_ms), dtype=np.bool_)
        own, place = np.searchsorted(ts_ms, each.ts_ms), each.fields.index(name)
        if len(own):
            joined[own[0] : own[-1]] = True
            for at in breaks[key]:
                joined[own[at - 1] : own[at]] = False
            joined[own] = False
            values[own], codes[own] = each.values[:, place] * factor, each.codes[:, place]
        lines.append(Line(name=key, values=values, codes=codes, joined=joined))
    return ts_ms, lines


def line_json(line: Line, label: str, **facts: Any) -> dict[str, Any]:
    """A line for a browser: null where it breaks, false where it goes on; and why it broke: [from, until, state]."""
    values: list[float | bool | None] = [*numbers_json(line.values)]
    codes = line.codes
    if line.joined is not None:
        for place in np.flatnonzero(line.joined):
            values[place] = False
        codes = np.where(line.joined, State.VALUE, codes).astype(np.uint8)
    return {
        "name": line.name,
        "label": label,
        "values": values,
        "gaps": gaps_json(codes),
        "origin": line.origin.name.lower(),
        **facts,
    }


def numbers_json(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if value == value else None for value in values.tolist()]


def bridged(values: NDArray[np.float64], step_ms: int) -> list[float | bool | None]:
    """Buckets for a browser: null where nothing is known, false where a bucket as short as a tick just missed it."""
    told: list[float | bool | None] = [*numbers_json(values)]
    if step_ms > TICK_MS:
        return told
    for place in range(1, len(told) - 1):
        if (
            told[place] is None
            and values[place - 1] == values[place - 1]
            and values[place + 1] == values[place + 1]
        ):
            told[place] = False
    return told


def gaps_json(codes: NDArray[np.uint8]) -> list[list[int]]:
    """Each stretch without values: the first place, the place after the last, and the state."""
    states = (codes & 15).tolist()
    edges = [0, *(place for place, (one, two) in enumerate(pairwise(states), 1) if one != two), len(states)]
    return [[start, end, states[start]] for start, end in pairwise(edges) if end > start and states[start]]


def markers_json(markers: Sequence[Marker], say: Callable[[Marker], str]) -> list[list[Any]]:
    return [[marker.ts_ms / 1000, marker.tone, say(marker)] for marker in markers]
