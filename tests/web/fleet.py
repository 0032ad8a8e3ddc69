"""A fleet that does not exist, measured by a store that does: rows of its inventory, and samples marked simulated.

The samples stand in a MemoryStore and are asked for as the pages ask the real one; `append` may come from any thread.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import ACCELERATOR, NODE, Family, Origin, State, Throttle
from baseai.telemetry.memory import MemoryStore
from baseai.telemetry.sample import Batch, code_of
from baseai.telemetry.store import Aggregate, By, Latest, Place, Series, StoreAway

Row = dict[str, Any]
TICK_MS = 10_000
BOARD_B = 80 * 2**30
SOURCES = {name: f"dcgm-exporter 4.5 {name} (simulated)" for name in ACCELERATOR.names}


class Asked:
    """A metric store in this process, asked as the pages ask the one of another process."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.away = False
        self.latest_asked = 0
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def append(self, *batches: Batch) -> None:
        with self._lock:
            for batch in batches:
                self.store.append(batch)
        self.ring()

    def ring(self) -> None:
        for loop, event in tuple(self._waiting):
            loop.call_soon_threadsafe(event.set)

    def _answers(self) -> MemoryStore:
        if self.away:
            raise StoreAway("the socket is gone")
        return self.store

    async def latest(self, family: Family, keys: Sequence[str] | None = None) -> Latest:
        self.latest_asked += 1
        with self._lock:
            return self._answers().latest(family, keys)

    async def range(
        self, family: Family, key: str, fields: Sequence[str], *, from_ms: int, until_ms: int,
        points_max: int | None = None,
    ) -> Series:  # fmt: skip
        with self._lock:
            return self._answers().range(
                family, key, fields, from_ms=from_ms, until_ms=until_ms, points_max=points_max
            )

    async def aggregate(
        self, family: Family, field: str, *, from_ms: int, until_ms: int, by: By = By.FLEET,
        keys: Sequence[str] | None = None, points_max: int = 300,
    ) -> Aggregate:  # fmt: skip
        with self._lock:
            return self._answers().aggregate(
                family, field, from_ms=from_ms, until_ms=until_ms, by=by, keys=keys, points_max=points_max
            )

    async def sources(self, family: Family, key: str) -> Mapping[str, str]:
        with self._lock:
            return self._answers().sources(family, key)

    async def changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        own = (asyncio.get_running_loop(), event)
        self._waiting.add(own)
        try:
            while True:
                if self.away:
                    raise StoreAway("the socket is gone")
                await event.wait()
                event.clear()
                yield
        finally:
            self._waiting.discard(own)


def installed(nodes: int, per_node: int, *, racks: bool = True, model: str = "h100-sxm-80") -> list[Row]:
    """The inventory of a fleet on two sites, four nodes a rack; every third node is in use."""
    rows = []
    for number in range(nodes):
        site = "sp4" if number < nodes * 0.6 else "rj2"
        used = number % 3 != 1
        for device in range(per_node):
            rows.append(
                {
                    "serial": f"SIM-{number:04d}-{device}", "model": model, "device_index": device,
                    "node_id": f"nod_{number:04d}", "node": f"node-{number:04d}", "site": site,
                    "rack": f"R{number // 4:03d}" if racks else "", "simulated": True,
                    "health": "faulty" if number % 211 == 210 else "suspect" if number % 97 == 96 else "healthy",
                    "run_id": f"run_{number % 24:02d}" if used else None,
                    "run": f"train-{number % 24:02d}" if used else None, "tenant": "acme" if used else None,
                }
            )  # fmt: skip
    return rows


def places(rows: Sequence[Row]) -> Mapping[str, Place]:
    return {
        row["serial"]: Place(node_id=row["node_id"], site=row["site"], model=row["model"], rack=row["rack"])
        for row in rows
    }


def tick(rows: Sequence[Row], ts_ms: int, *, seed: int = 7, number: int = 0) -> Batch:
    """One tick of the whole fleet as one batch: busy where it is leased, cool where not, a few without a value."""
    rng = np.random.default_rng(seed)
    cells = len(rows)
    busy = np.array([row["run_id"] is not None for row in rows])
    wave = 8 * np.sin(number / 6 + np.arange(cells) / 40)
    util = np.where(busy, np.clip(84 + wave + 10 * rng.standard_normal(cells), 0, 100), 0.0)
    temp = 31 + 0.42 * util + 3 * rng.standard_normal(cells)
    hot = rng.random(cells) < 0.004
    temp = np.where(hot & busy, 91.0, temp)
    power = 78 + 6.1 * util + 8 * rng.standard_normal(cells)
    columns: dict[str, NDArray[np.float64]] = {
        "util_pct": util,
        "compute_pct": util * 0.9,
        "tensor_pct": util * 0.55,
        "membw_pct": util * 0.6,
        "temp_c": temp,
        "temp_mem_c": temp + 7,
        "clock_mhz": np.where(hot, 1200.0, 1980 - util),
        "clock_mem_mhz": np.full(cells, 2619.0),
        "throttle_bits": np.where(
            hot & busy, int(Throttle.THERMAL_HW), np.where(util > 96, int(Throttle.POWER_CAP), 0)
        ),
        "mem_used_b": np.where(busy, 0.8, 0.01) * BOARD_B,
        "mem_total_b": np.full(cells, float(BOARD_B)),
        "power_w": power,
        "power_cap_w": np.full(cells, 700.0),
        "energy_j": np.full(cells, 0.0) + 450.0 * (ts_ms / 1000 % 1e6),
        "ecc_ce": np.zeros(cells),
        "ecc_ue": np.zeros(cells),
        "row_remap": np.zeros(cells),
    }
    return batch(
        ACCELERATOR, [row["serial"] for row in rows], ts_ms, columns, batch_id=f"bat_{ts_ms}_{seed}", sources=SOURCES,
        unsaid={"link_tx_bps": State.UNSUPPORTED, "link_rx_bps": State.UNSUPPORTED},
        blanked=rng.random(cells) < 0.01,
    )  # fmt: skip


def batch(
    family: Family,
    keys: Sequence[str],
    ts_ms: int,
    columns: Mapping[str, Any],
    *,
    batch_id: str,
    origin: Origin = Origin.SIMULATED,
    sources: Mapping[str, str] | None = None,
    unsaid: Mapping[str, State] | None = None,
    blanked: Any = None,
    node_id: str = "nod_0000",
    boot_id: str = "boot",
) -> Batch:
    """A batch of one instant; fields that are missing in `columns` are absent."""
    values = np.full((len(keys), len(family.fields)), np.nan)
    codes = np.full(values.shape, code_of(State.ABSENT), dtype=np.uint8)
    for name, state in (unsaid or {}).items():
        codes[:, family.index[name]] = code_of(state)
    for name, column in columns.items():
        values[:, family.index[name]] = column
        codes[:, family.index[name]] = code_of(State.VALUE, origin)
    if blanked is not None:
        values[blanked], codes[blanked] = np.nan, code_of(State.BLANK)
    return Batch(
        batch_id=batch_id, family=family, node_id=node_id, site="sp4", boot_id=boot_id, keys=tuple(keys),
        ts_ms=np.full(len(keys), ts_ms, dtype=np.int64), values=values, codes=codes, sources=dict(sources or {}),
    )  # fmt: skip


def now_ms() -> int:
    return round(time.time() * 1000)


def laptop(eyes: Asked, node_id: str = "nod_node-a", *, minutes: int = 15, slots: int = 4) -> None:
    """A quarter of an hour of a machine without accelerators: CPU slots that say little, and the host around them."""
    serials = [f"slot-7f3a-{number}" for number in range(slots)]
    eyes.store.place(
        ACCELERATOR, {serial: Place(node_id=node_id, site="local", model="cpu-slot") for serial in serials}
    )
    eyes.store.place(NODE, {node_id: Place(node_id=node_id, site="local")})
    until = now_ms() // TICK_MS * TICK_MS
    for number in range(minutes * 6):
        ts_ms = until - (minutes * 6 - 1 - number) * TICK_MS
        level = 60 + 30 * np.sin(number / 9)
        if 30 <= number < 40:
            continue  # the agent was away: a gap
        util = np.clip(np.array([level, level - 8, 3.0, 2.0])[:slots], 0, 100)
        slot = {
            "util_pct": util, "mem_used_b": (0.4 + util / 100) * 2**30, "mem_total_b": np.full(slots, 4.0 * 2**30),
        }  # fmt: skip
        measured = batch(
            ACCELERATOR, serials, ts_ms, slot, batch_id=f"lap_{ts_ms}", origin=Origin.MEASURED, node_id=node_id,
            sources={"util_pct": "psutil cpu_percent per core", "mem_used_b": "psutil, share of the run"},
            unsaid=dict.fromkeys(("temp_c", "clock_mhz", "throttle_bits", "pcie_tx_bps"), State.UNSUPPORTED),
        )  # fmt: skip
        power = batch(
            ACCELERATOR, serials, ts_ms, {"power_w": 3 + util / 12, "energy_j": 40.0 * (number + 1) + 0 * util},
            batch_id="-", origin=Origin.ESTIMATED,
        )  # fmt: skip
        for name in ("power_w", "energy_j"):
            place = ACCELERATOR.index[name]
            measured.values[:, place], measured.codes[:, place] = (
                power.values[:, place],
                power.codes[:, place],
            )
        host = {
            "cpu_pct": level * 0.7, "mem_used_b": (5 + np.sin(number / 5)) * 2**30, "mem_total_b": 15.9 * 2**30,
            "net_rx_b": 4e6 * number, "net_tx_b": 1e6 * number, "disk_read_b": 2e6 * number,
            "disk_write_b": 9e6 * number, "uptime_s": 86_400.0 + 10 * number, "load1": 1.4, "accel_seen": 4,
            "accel_expected": 4,
        }  # fmt: skip
        eyes.append(
            measured,
            batch(
                NODE, [node_id], ts_ms, host, batch_id=f"host_{ts_ms}", origin=Origin.MEASURED, node_id=node_id,
                sources=dict.fromkeys(host, "psutil"), unsaid={"power_w": State.UNSUPPORTED},
            ),
        )  # fmt: skip
