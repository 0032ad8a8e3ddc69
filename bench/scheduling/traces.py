"""Public traces as clusters and workloads in the neutral format, read from a folder that is not part of the project.

Each function takes the folder of all traces and gives bays and submissions, or raises FileNotFoundError where the
trace is not there. The protocols are those of the folder's own README and of the papers named at each function; what
is drawn by chance is drawn from the seed. Nothing of a trace is kept here.
"""

import csv
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Bay, Hall
from baseai.twin.neutral import Submission

OPENB_MIXES = (
    "default", "gpushare40", "gpushare100", "multigpu20", "multigpu50", "gpuspec10", "gpuspec33", "cpu050", "cpu250",
)  # fmt: skip
MURI_SETS = {
    "trace3": "muri_trace3.csv.gz",
    "testbed400": "muri_testbed_400jobs.csv",
    "trace2": "muri_trace2.csv.gz",
}
GAVEL_MSR_SETS = ("ee9e8c", "6214e9", "11cb48", "e13805")  # virtual clusters, the first 2,000 jobs of each
ARRIVED_RATIO = 1.3  # of all accelerators, at which a packing draw ends


class Case(NamedTuple):
    """One cluster and one workload."""

    name: str
    bays: tuple[Bay, ...]
    submissions: tuple[Submission, ...]


def rows_of(file: Path) -> list[dict[str, str]]:
    """A CSV with its header, packed or not."""
    if file.suffix == ".gz":
        with gzip.open(file, "rt", newline="") as packed:
            return list(csv.DictReader(packed))
    with file.open(newline="") as plain:
        return list(csv.DictReader(plain))


def submitted(
    gangs: Iterable[tuple[str, float, Shape, str, float | None, Mapping[str, float]]],
) -> tuple[Submission, ...]:
    """(run, submit_s, shape, group, duration_s, by_model) in any order → in the order of submission."""
    kept: dict[Shape, Shape] = {}
    found = sorted(enumerate(gangs), key=lambda each: (each[1][1], each[0]))
    return tuple(
        Submission(
            gang=Gang(
                run_id=run_id,
                number=number,
                shape=kept.setdefault(shape, shape),
                submit_s=submit_s,
                group=group,
            ),
            duration_s=duration_s,
            by_model=by_model,
        )
        for number, (_, (run_id, submit_s, shape, group, duration_s, by_model)) in enumerate(found)
    )


# ---------------------------------------------------------------------------------------------------------- openb


def openb_bays(traces: Path, *, every: int = 1, copies: int = 1) -> tuple[Bay, ...]:
    """Each `every`-th node that has accelerators, in the order of the list, so many times."""
    rows = rows_of(traces / "openb" / "openb_node_list_gpu_node.csv")
    return tuple(
        Bay(
            node_id=row["sn"] if copies == 1 else f"{row['sn']}-{copy}",
            model=row["model"],
            devices=int(row["gpu"]),
            cpu_milli=int(row["cpu_milli"]),
            memory_mib=int(row["memory_mib"]),
        )
        for row in rows[::every]
        for copy in range(copies)
    )


def _openb_shape(row: Mapping[str, str]) -> Shape:
    count = int(row["num_gpu"])
    return Shape(
        milli=0 if count == 0 else int(row["gpu_milli"]) if count == 1 else count * WHOLE,
        cpu_milli=int(row["cpu_milli"]),
        memory_mib=int(row["memory_mib"]),
        models=tuple(sorted(part for part in (row.get("gpu_spec") or "").split("|") if part))
        if count
        else (),
    )


def openb_packing(traces: Path, mix: str, seed: int, *, copies: int = 1) -> Case:
    """Pods drawn with replacement until they ask for 130 % of all accelerators, shuffled, as FGD did (ATC'23)."""
    bays = openb_bays(traces, copies=copies)
    pods = [_openb_shape(row) for row in rows_of(traces / "openb" / f"openb_pod_list_{mix}.csv.gz")]
    rng = np.random.default_rng(seed)
    wanted, asked, drawn = ARRIVED_RATIO * WHOLE * sum(bay.devices for bay in bays), 0, list[int]()
    while asked < wanted:
        drawn.append(int(rng.integers(len(pods))))
        asked += pods[drawn[-1]].milli
    order = rng.permutation(len(drawn)).tolist()
    gangs = (
        (str(number), float(number), pods[drawn[which]], "", None, {}) for number, which in enumerate(order)
    )
    return Case(f"{mix} seed {seed}", bays, submitted(gangs))


def openb_time(traces: Path, *, every: int = 150, mix: str = "default") -> Case:
    """The pods from creation to deletion, on each `every`-th node; those that none of these can take are left out."""
    hall, gangs = Hall(openb_bays(traces, every=every)), []
    for row in rows_of(traces / "openb" / f"openb_pod_list_{mix}.csv.gz"):
        shape = _openb_shape(row)
        duration_s = float(row["deletion_time"]) - float(row["creation_time"])
        if duration_s > 0 and not hall.could_ever(shape):
            gangs.append((row["name"], float(row["creation_time"]), shape, row["qos"], duration_s, {}))
    return Case(f"openb time, {len(hall)} nodes", hall.bays, submitted(gangs))


# --------------------------------------------------------------------------------------------------------- Philly


def philly(traces: Path, name: str) -> Case:
    """One virtual cluster on 8 nodes of 8; above 8 accelerators a gang of whole nodes (Muri, SIGCOMM'22).

    The sets that Gavel released say steps instead of seconds: they last what their kind takes on V100, at its speed on
    one where it was not measured on as many.
    """
    bays = tuple(Bay(node_id=f"node-{number}", model="V100", devices=8) for number in range(8))
    gangs = []
    for run_id, submit_s, count, duration_s in (
        _muri(traces, name) if name in MURI_SETS else _msr(traces, name)
    ):
        pods = math.ceil(count / 8) if count > 8 else 1
        shape = Shape(pods=pods, milli=(8 if count > 8 else count) * WHOLE)
        gangs.append((run_id, submit_s, shape, "", duration_s, {}))
    return Case(name, bays, submitted(gangs))


def _muri(traces: Path, name: str) -> Iterator[tuple[str, float, int, float]]:
    for row in rows_of(traces / "philly" / MURI_SETS[name]):
        yield (
            row["job_id"],
            int(row["submit_time"]) / 1000,
            int(row["num_gpu"]),
            int(row["duration"]) / 1000,
        )


def _msr(traces: Path, name: str) -> Iterator[tuple[str, float, int, float]]:
    with gzip.open(traces / "gavel" / "simulation_throughputs.json.gz", "rt") as packed:
        speeds = json.load(packed)["v100"]
    for row in rows_of(traces / "philly" / f"gavel_msr_{name}.csv.gz"):
        count = int(row["scale_factor"])
        speed = next(
            found
            for kind in (count, 1)
            if (found := _alone(speeds.get(f"('{row['job_type']}', {kind})"))) > 0
        )
        yield row["job_id"], float(row["arrival_s"]), count, max(1.0, float(row["total_steps"]) / speed)


# ---------------------------------------------------------------------------------------------------------- Gavel


def gavel(traces: Path) -> Case:
    """100 jobs at time 0, each as fast as its kind is on V100, P100 or K80 (Gavel, OSDI'20; its physical cluster)."""
    bays = tuple(
        Bay(node_id=f"{model}-{number}", model=model, devices=devices)
        for model, nodes, devices in (("k80", 3, 8), ("p100", 4, 4), ("v100", 2, 4))
        for number in range(nodes)
    )
    with gzip.open(traces / "gavel" / "simulation_throughputs.json.gz", "rt") as packed:
        speeds = json.load(packed)
    gangs = []
    for row in rows_of(traces / "gavel" / "minimize_makespan_100jobs.csv"):
        count = int(row["scale_factor"])
        kind = f"('{row['job_type']}', {count})"
        by_model = {
            model: float(row["total_steps"]) / speed
            for model in ("v100", "p100", "k80")
            if (speed := _alone(speeds[model].get(kind))) > 0
        }
        fastest = tuple(sorted(by_model, key=lambda model: by_model[model]))
        shape = Shape(milli=count * WHOLE, models=fastest, one_model=True)
        gangs.append((row["job_id"], float(row["arrival_s"]), shape, row["job_type"], None, by_model))
    return Case("gavel 100", bays, submitted(gangs))


def _alone(speeds: Mapping[str, float | Sequence[float]] | None) -> float:
    """Steps a second with the accelerators to itself; 0 where it was not measured."""
    found = (speeds or {}).get("null", 0.0)
    return float(found) if isinstance(found, (int, float)) else 0.0


# -------------------------------------------------------------------------------------------------------- Lingjun


def lingjun(
    traces: Path, *, load: float = 0.9, gangs: int = 3000, seed: int = 7, mean_h: float = 4.0
) -> Case:
    """Gangs of 1 to 64 whole nodes, exponential durations, Poisson arrivals at this load, on Lingjun's switches."""
    rows = rows_of(traces / "alibaba_lingjun2023" / "topo.csv")
    bays = tuple(
        Bay(
            node_id=f"{number:04}",
            model="",
            devices=8,
            leaf=f"{row['PSW']}/{row['ASW']}",
            pod=row["PSW"],
        )
        for number, row in enumerate(rows)
    )
    rng = np.random.default_rng(seed)
    sizes = rng.choice((1, 2, 4, 8, 16, 32, 64), size=gangs, p=(0.50, 0.15, 0.12, 0.11, 0.07, 0.04, 0.01))
    durations_s = rng.exponential(mean_h * 3600, size=gangs)
    at_s = np.cumsum(rng.exponential(1.0, size=gangs))
    at_s *= float((sizes * durations_s).sum()) / (
        load * len(bays) * at_s[-1]
    )  # what is asked for is that load exactly
    return Case(
        f"lingjun load {load:g}",
        bays,
        submitted(
            (str(number), float(at_s[number]), Shape(pods=int(sizes[number]), milli=8 * WHOLE, apart=True), "",
             float(durations_s[number]), {})
            for number in range(gangs)
        ),
    )  # fmt: skip


def folders_missing(traces: Path, names: Iterable[str]) -> Iterator[str]:
    """Which of these folders are not there."""
    return (name for name in names if not (traces / name).is_dir())
