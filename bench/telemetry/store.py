"""What the metric store on this machine takes and gives: a tick of a large fleet, bytes a sample, a day asked for.

    PYTHONPATH=src:. python bench/telemetry/store.py [--quick] [--only tick bytes day]

tick   100,000 accelerators of 12,500 nodes, one batch a node, every value another: acknowledged once it is on disk.
bytes  sealed hours, by known sample: the saved scrapes again and again, each level jittering by 2 % in the steps in
       which its source counts and counters running on; and floats in which every bit is chance. Beside them Debian's
       VictoriaMetrics on the same samples, where it is installed, through loopback.
day    10,000 accelerators of ten sites over 24 hours, a row every 10 s: written hour by hour by the code that seals
       hours, without the journal; then the store is opened again and asked. `--quick`: 2,000 accelerators, 6 hours.
The saved scrapes are those of tests/telemetry/fixtures, which say 3 to 13 fields of a device.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.duckdb import DuckStore
from baseai.telemetry.duckdb.answer import fill
from baseai.telemetry.duckdb.seal import Seal
from baseai.telemetry.exposition import Parser
from baseai.telemetry.field import ACCELERATOR, Kind, State
from baseai.telemetry.grid import Grid
from baseai.telemetry.layout import table_of_rows
from baseai.telemetry.normalise import Normaliser
from baseai.telemetry.rows import Rows
from baseai.telemetry.sample import Batch
from baseai.telemetry.store import Aggregate, By, Tier
from baseai.telemetry.tier import HOUR_MS, Buckets
from bench.report import Figure, show

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "telemetry" / "fixtures"
SCRAPES = ("dcgm_h100x8_aicr.prom", "dcgm_l40s_upcloud.prom", "amd_device_metrics_exporter_mini.prom")
MIDNIGHT_H = 497_280  # hours since 1970
T0 = MIDNIGHT_H * HOUR_MS
TICK_MS = 10_000
TICKS = HOUR_MS // TICK_MS
FIELDS = len(ACCELERATOR.fields)

# In which steps sources count: what a level jitters by is a multiple of it.
STEPS: Mapping[str, float] = {
    "util_pct": 1, "compute_pct": 0.0001, "tensor_pct": 0.0001, "membw_pct": 0.0001, "temp_c": 1, "temp_mem_c": 1,
    "clock_mhz": 15, "clock_mem_mhz": 1, "mem_used_b": 2**20, "mem_total_b": 2**20, "power_w": 0.001,
    "power_cap_w": 1, "energy_j": 0.001, "pcie_tx_bps": 1, "pcie_rx_bps": 1, "link_tx_bps": 1, "link_rx_bps": 1,
}  # fmt: skip
STILL = {"mem_total_b", "power_cap_w", "clock_mem_mhz"}


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="baseai-store-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def batches_of(
    values: NDArray[np.float64], at_ms: int, name: str, *, a_node: int = 8, a_site: int = 125
) -> list[Batch]:
    """One tick of a fleet: shape (accelerators, fields), a batch a node."""
    codes = np.where(np.isnan(values), State.ABSENT, State.VALUE).astype(np.uint8)
    return [
        Batch(
            batch_id=f"{name}-{node}",
            family=ACCELERATOR,
            node_id=f"node-{node}",
            site=f"site-{node // a_site}",
            boot_id=f"boot-{node}",
            keys=tuple(f"GPU-{node:05d}-{place}" for place in range(a_node)),
            ts_ms=np.full(a_node, at_ms),
            values=values[node * a_node : (node + 1) * a_node],
            codes=codes[node * a_node : (node + 1) * a_node],
            sources={"power_w": "dcgm 4.5"},
        )
        for node in range(len(values) // a_node)
    ]


# ---- a tick


def tick(accelerators: int, ticks: int) -> None:
    rng = np.random.default_rng(1)
    walls, cpus = [], []
    with folder() as path:
        store = DuckStore(path / "store")
        for number in range(ticks):
            batches = batches_of(
                rng.normal(50, 5, (accelerators, FIELDS)), T0 + number * TICK_MS, f"t{number}"
            )
            began_cpu_s, began_s = cpu_s(), time.perf_counter()
            answers = store.append_all(batches)
            walls.append(time.perf_counter() - began_s)
            cpus.append(cpu_s() - began_cpu_s)
            assert sum(answer.rows for answer in answers) == accelerators
        began_s = time.perf_counter()
        store.close()
        note = (
            f"first {walls[0]:.2f} s, slowest {max(walls):.2f} s (rows move into DuckDB), CPU {np.mean(cpus):.2f} s"
            f" a tick, closing {time.perf_counter() - began_s:.2f} s"
        )
    show(
        Figure(
            name=f"a tick of {accelerators:,} accelerators × {FIELDS} fields, on disk",
            unit="s",
            ours=tuple(walls),
            target="< 2 s",
            reached=float(np.mean(walls)) < 2,
            note=note,
        )
    )


# ---- bytes


def scraped() -> NDArray[np.float64]:
    """What the saved scrapes say: shape (accelerators, fields), NaN where they say nothing."""
    lines = []
    for name in SCRAPES:
        text = (FIXTURES / name).read_text()
        for row in Normaliser().normalise(Parser().parse(text), at_ms=T0, before=None).rows:
            line = np.full(FIELDS, np.nan)
            for field, reading in row.fields.items():
                if reading.value is not None:
                    line[ACCELERATOR.index[field]] = reading.value
            lines.append(line)
    return np.array(lines)


def replayed(accelerators: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """An hour of the saved scrapes with jitter: shape (fields, accelerators, ticks)."""
    lines = scraped()
    lines = lines[np.arange(accelerators) % len(lines)]
    hour = np.empty((FIELDS, accelerators, TICKS))
    power_w = np.nan_to_num(lines[:, ACCELERATOR.index["power_w"]], nan=100.0)
    for column, field in enumerate(ACCELERATOR.fields):
        began = lines[:, column, None]
        step = STEPS.get(field.name, 1.0)
        if field.name == "energy_j":
            drawn = power_w[:, None] * rng.uniform(0.98, 1.02, (accelerators, TICKS)) * (TICK_MS / 1000)
            values = began + np.cumsum(drawn, axis=1)
        elif field.kind is Kind.GAUGE and field.name not in STILL:
            values = began * rng.uniform(0.98, 1.02, (accelerators, TICKS))
        else:
            values = np.repeat(began, TICKS, axis=1)
        hour[column] = (
            np.round(values / step) * step
            if step >= 1
            else np.round(values * round(1 / step)) / round(1 / step)
        )
    return hour


def seal_hour(store: DuckStore, hour: int, values: NDArray[np.float64]) -> None:
    """One hour, shape (fields, accelerators, ticks), by the code that seals hours, without the journal before it."""
    things = store._of(ACCELERATOR)
    _, accelerators, ticks = values.shape
    patterns = things.patterns_of(
        np.where(np.isnan(values[:, :, 0].T), State.ABSENT, State.VALUE).astype(np.uint8)
    )
    rows = Rows(
        things=np.repeat(np.arange(accelerators, dtype=np.int32), ticks),
        at_ms=np.tile(hour * HOUR_MS + np.arange(ticks, dtype=np.int64) * TICK_MS, accelerators),
        boots=np.repeat(np.arange(accelerators, dtype=np.int32) // 8, ticks),
        patterns=np.repeat(patterns, ticks),
        values=values.reshape(FIELDS, -1),
    )
    with store._view() as view:
        seal = Seal(view=view, folder=store._folder, family=ACCELERATOR)
        part = seal._part(
            seal._stem(Tier.RAW, hour), 0, "SELECT * FROM fresh", table_of_rows(ACCELERATOR, rows)
        )
        raw = seal._file(Tier.RAW, [hour], [part])
        store._take_over(things, hour, [raw, *seal.rollups(hour, raw, store._merge(things))], view.lot)


def opened(path: Path, accelerators: int, *, a_site: int = 125) -> DuckStore:
    """A store that knows its accelerators: each was seen the tick before the day begins."""
    store = DuckStore(path)
    values = np.full((accelerators, FIELDS), 1.0)
    store.append_all(batches_of(values, T0 - TICK_MS, "first", a_site=a_site))
    store.rollup(now_ms=T0 - TICK_MS)
    return store


def size_of(path: Path, pattern: str = "**/*") -> int:
    return sum(file.stat().st_size for file in path.glob(pattern) if file.is_file())


def bytes_a_sample(name: str, values: NDArray[np.float64], target: float | None) -> None:
    known = int((~np.isnan(values)).sum())
    with folder() as path:
        store = opened(path / "store", values.shape[1])
        seal_hour(store, MIDNIGHT_H, values)
        store.close()
        raw = size_of(path / "store" / "raw") / known
        rolled = sum(size_of(path / "store" / tier) for tier in ("minute", "ten_minutes", "hour")) / known
    peer = victoria(values)
    note = f"{known:,} known samples; rollups of them {rolled:.2f} more"
    if peer is None:
        note += "; victoria-metrics is not installed"
    else:
        note += f"; the peer's index {peer[1]:.2f} more"
    show(
        Figure(
            name=f"sealed, {name}",
            unit="bytes a sample",
            ours=(raw,),
            peer=() if peer is None else (peer[0],),
            peer_name="VictoriaMetrics",
            target="" if target is None else f"≤ {target:g}",
            reached=None if target is None else raw <= target,
            note=note,
        )
    )


def victoria(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Bytes a sample of Debian's VictoriaMetrics for the same samples, data and index; None where it is not there."""
    program = shutil.which("victoria-metrics")
    if program is None:
        return None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = int((~np.isnan(values)).sum())
    now_ms = int(time.time()) // 3_600 * HOUR_MS
    at_ms = (np.arange(TICKS, dtype=np.int64) * TICK_MS + (now_ms - 2 * HOUR_MS)).tolist()
    with folder() as path:
        process = subprocess.Popen(
            [
                program,
                f"-storageDataPath={path / 'data'}",
                f"-httpListenAddr=127.0.0.1:{port}",
                "-retentionPeriod=1y",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until_s = time.monotonic() + 20
            while time.monotonic() < until_s:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=1).read()
                    break
                except OSError:
                    time.sleep(0.1)
            for first in range(0, values.shape[1], 50):
                lines = []
                for thing in range(first, min(first + 50, values.shape[1])):
                    for column, name in enumerate(ACCELERATOR.names):
                        samples = values[column, thing]
                        if not np.isnan(samples).all():
                            metric = {
                                "__name__": name,
                                "serial": f"GPU-{thing}",
                                "node": f"node-{thing // 8}",
                            }
                            lines.append(
                                json.dumps(
                                    {"metric": metric, "values": samples.tolist(), "timestamps": at_ms}
                                )
                            )
                urllib.request.urlopen(
                    f"{url}/api/v1/import", data="\n".join(lines).encode(), timeout=60
                ).read()
            urllib.request.urlopen(f"{url}/internal/force_flush", timeout=60).read()
            urllib.request.urlopen(f"{url}/internal/force_merge", timeout=60).read()
            time.sleep(3)
        finally:
            process.terminate()
            process.wait(timeout=60)
        return size_of(path / "data" / "data") / known, size_of(path / "data" / "indexdb") / known


# ---- a day


def a_day(accelerators: int, hours: int) -> None:
    rng = np.random.default_rng(2)
    noise = {step: np.round(rng.normal(0, 20, 1 << 22) / step) * step for step in (1.0, 0.1, 0.001)}
    with folder() as path:
        began_s = time.perf_counter()
        store = opened(path / "store", accelerators, a_site=max(1, accelerators // 80))
        size = accelerators * TICKS
        for hour in range(hours):
            values = np.empty((FIELDS, accelerators, TICKS))
            since_s = hour * 3_600 + np.arange(1, TICKS + 1) * (TICK_MS / 1000)
            for column, field in enumerate(ACCELERATOR.fields):
                if field.kind is Kind.COUNTER:
                    values[column] = np.arange(accelerators)[:, None] + np.round(since_s * (column + 1), 3)
                else:
                    chance = noise[(1.0, 0.1, 0.001)[column % 3]]
                    from_place = int(rng.integers(0, len(chance) // 2))
                    values[column] = 50.0 + np.resize(chance[from_place:], size).reshape(accelerators, TICKS)
            seal_hour(store, MIDNIGHT_H + hour, values)
            del values
        store.close()
        wrote_s = time.perf_counter() - began_s
        samples = size * hours * FIELDS
        tiers = {tier: size_of(path / "store" / tier) / samples for tier in Tier}
        print(
            f"{accelerators:,} accelerators, {hours} hours every {TICK_MS // 1000} s: {samples:,} samples sealed and"
            f" rolled up in {wrote_s:.0f} s; bytes a sample: raw {tiers[Tier.RAW]:.2f}, minutes"
            f" {tiers[Tier.MINUTE]:.2f}, coarser {tiers[Tier.TEN_MINUTES] + tiers[Tier.HOUR]:.2f}",
            flush=True,
        )
        began_s = time.perf_counter()
        store = DuckStore(path / "store")
        print(f"opened again in {time.perf_counter() - began_s:.2f} s", flush=True)
        end_ms = T0 + hours * HOUR_MS
        asked(store, accelerators, hours, end_ms)
        store.close()


def asked(store: DuckStore, accelerators: int, hours: int, end_ms: int) -> None:
    fleet = f"{accelerators:,} accelerators"
    points = 300 if hours == 24 else 40  # so that fewer hours come from the same tier

    def by_site(field: str, from_ms: int) -> Aggregate:
        return store.aggregate(
            ACCELERATOR,
            field,
            from_ms=from_ms,
            until_ms=end_ms,
            by=By.SITE,
            points_max=points if from_ms == T0 else 300,
        )

    recent_ms = end_ms - 900_000 + TICK_MS
    for field in ("power_w", "energy_j"):
        found = by_site(field, T0)
        assert found.count.sum() == accelerators * hours * TICKS
        name = f"{hours} h of {fleet} by site, {field}, {len(found.ts_ms)} points from {found.tier}"
        judged(name, 100, partial(by_site, field, T0))
        found = by_site(field, recent_ms)
        assert found.count.sum() == accelerators * 89
        name = f"last 15 min of {fleet} by site from the ring, {field}, {len(found.ts_ms)} points"
        judged(name, 50, partial(by_site, field, recent_ms))
    keys = iter(f"GPU-{number:05d}-3" for number in np.random.default_rng(3).permutation(accelerators // 8))
    judged(
        f"raw {hours} h of one accelerator, one field, {hours * TICKS:,} points",
        20,
        lambda: store.range(ACCELERATOR, next(keys), ["power_w"], from_ms=T0, until_ms=end_ms),
    )
    judged(
        f"raw {hours} h of one accelerator, all {FIELDS} fields",
        None,
        lambda: store.range(ACCELERATOR, next(keys), ACCELERATOR.names, from_ms=T0, until_ms=end_ms),
    )
    raw_fleet(store, accelerators, hours, end_ms)


def judged(name: str, wanted_ms: float | None, ask: Callable[[], object]) -> None:
    """The median of what a question takes once files are known; the first time in the note."""
    walls, cpus = [], []
    for _ in range(8):
        began_cpu_s, began_s = cpu_s(), time.perf_counter()
        ask()
        walls.append(1e3 * (time.perf_counter() - began_s))
        cpus.append(1e3 * (cpu_s() - began_cpu_s))
    show(
        Figure(
            name=name,
            unit="ms",
            ours=tuple(walls[1:]),
            target="" if wanted_ms is None else f"< {wanted_ms:g} ms",
            reached=None if wanted_ms is None else float(np.median(walls[1:])) < wanted_ms,
            note=f"first time {walls[0]:.0f} ms, best {min(walls):.1f} ms, CPU {np.median(cpus[1:]):.1f} ms",
        )
    )


def raw_fleet(store: DuckStore, accelerators: int, hours: int, end_ms: int) -> None:
    """Every row of the day read, into ten minutes by fleet; beside it DuckDB's own GROUP BY over the same files."""
    things = store._of(ACCELERATOR)
    numbers = np.arange(accelerators, dtype=np.int32)
    buckets = Buckets(tier=Tier.RAW, step_ms=600_000, from_ms=T0, count=(end_ms - T0) // 600_000)
    column = ACCELERATOR.index["power_w"]
    began_s = time.perf_counter()
    with store._view() as view:
        grid = Grid(
            Kind.GAUGE,
            buckets,
            line_of=np.append(numbers, -1).astype(np.int32),
            group_of=np.zeros(accelerators, np.int32),
            groups=1,
        )
        fill(grid, view, things, column, numbers, buckets)
        ours_s = time.perf_counter() - began_s
        files = [
            file for file in view.shelf.of(Tier.RAW, "accelerator").values() if file.hours[0] >= MIDNIGHT_H
        ]
        lot = view.parquet(files)
    count = int(grid.aggregate("power_w", By.FLEET, ["fleet"]).count.sum())
    assert count == accelerators * hours * TICKS, count
    began_s = time.perf_counter()
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GiB"}) as peer:
        peer.execute(
            "SELECT at_ms // 600000, min(power_w), max(power_w), sum(power_w), count(power_w),"
            f" arg_max(power_w, at_ms) FROM {lot} GROUP BY 1"
        ).fetchall()
    show(
        Figure(
            name=f"raw {hours} h of {accelerators:,} accelerators, {count:,} rows, one field",
            unit="s",
            ours=(ours_s,),
            peer=(time.perf_counter() - began_s,),
            peer_name="GROUP BY over the files",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only", nargs="+", choices=("tick", "bytes", "day"), default=("tick", "bytes", "day")
    )
    words = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if "tick" in words.only:
        tick(100_000, 3 if words.quick else 8)
    if "bytes" in words.only:
        rng = np.random.default_rng(4)
        accelerators = 200 if words.quick else 1_000
        bytes_a_sample("saved scrapes with jitter", replayed(accelerators, rng), 2)
        bytes_a_sample("every bit chance", rng.random((FIELDS, accelerators, TICKS)), None)
    if "day" in words.only:
        a_day(2_000 if words.quick else 10_000, 6 if words.quick else 24)


if __name__ == "__main__":
    main()
