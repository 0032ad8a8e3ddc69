"""Every policy on every public trace: what came of it, beside the bounds, as an independent judge sees it.

Needs the folder of traces; a bench whose trace is not there is skipped by name, and so is the verdict of the judge
where that is not beside the traces (`../tools/judge_placement.py`, or --judge). CPU time is that of the policy and
the replay together, without reading, writing and judging.

    python bench/scheduling/policies.py --traces FOLDER [--quick] [--only B1 B2] [--policies fgd easy] [--workers 2]
"""

import argparse
import importlib
import math
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.registry import packing_named, timing_named
from baseai.twin.outcome import outcome_of, packing_outcome_of
from baseai.twin.replay import Costs, Replay, pack
from bench.scheduling import traces, verdict
from bench.scheduling.contenders import CONTENDERS, Contender
from bench.scheduling.judged import judged
from bench.scheduling.targets import TARGETS
from bench.scheduling.verdict import Verdict

SEEDS, QUICK_SEEDS = (42, 43, 44), (42,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One bench: its cases, and which figures of them are shown."""

    name: str
    title: str
    folder: str  # of the traces it needs
    cases: Mapping[str, Callable[[Path, int], traces.Case]]  # case → (traces, seed) → cluster and workload
    quick: tuple[str, ...]  # cases of a quick look
    shown: Mapping[str, tuple[str, float]]  # figure → (heading, divided by)
    packing: bool = False
    seeded: bool = False  # the workload is drawn, so that seeds differ
    timed: bool = False  # each decision's time is the figure; what was decided is judged elsewhere

    def cases_of(self, quick: bool) -> Sequence[str]:
        return self.quick if quick else tuple(self.cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One replay to be done."""

    bench: str
    case: str
    seed: int
    contender: Contender
    traces: Path
    judge: Path | None


def _mix(mix: str) -> Callable[[Path, int], traces.Case]:
    return lambda folder, seed: traces.openb_packing(folder, mix, seed)


def _set(name: str) -> Callable[[Path, int], traces.Case]:
    return lambda folder, seed: traces.philly(folder, name)


def _openb_time(every: int) -> Callable[[Path, int], traces.Case]:
    return lambda folder, seed: traces.openb_time(folder, every=every)


def _lingjun(load: float) -> Callable[[Path, int], traces.Case]:
    return lambda folder, seed: traces.lingjun(folder, load=load, seed=seed - 35)  # 7 is the note's


def _copied(times: int) -> Callable[[Path, int], traces.Case]:
    """The default mix on so many copies of the cluster, drawn until it is asked for 130 % of them all."""
    return lambda folder, seed: traces.openb_packing(folder, "default", seed, copies=times)


WAITS = {
    "wait_mean_s": ("wait 1,000 s", 1000.0),
    "wait_p99_s": ("p99", 1000.0),
    "jct_mean_s": ("JCT 1,000 s", 1000.0),
    "jct_mean_bound_s": ("bound", 1000.0),
    "makespan_s": ("makespan", 1000.0),
    "makespan_bound_s": ("bound", 1000.0),
    "gpu_utilisation_pct": ("use %", 1.0),
    "preemptions": ("preempt.", 1.0),
    "events_per_min": ("M events/min", 1e6),
    "cpu_s": ("CPU s", 1.0),
}
BENCHES = (
    Bench(
        name="B1",
        title="packing under fragmentation, % of accelerators given out when 100 % and 130 % have arrived",
        folder="openb",
        cases={mix: _mix(mix) for mix in traces.OPENB_MIXES},
        quick=("default", "gpuspec33", "cpu250"),
        shown={"at_100": ("at 100 %", 1.0), "at_end": ("at the end", 1.0), "allocated_pct_bound": ("bound", 1.0),
               "rejected": ("refused", 1.0), "decisions_per_s": ("decisions/s", 1.0)},
        packing=True,
        seeded=True,
    ),
    Bench(
        name="B2", title="queueing with gangs, Philly on 8 × 8", folder="philly",
        cases={name: _set(name) for name in (*traces.MURI_SETS, *traces.GAVEL_MSR_SETS)},
        quick=("trace3", "testbed400"), shown=WAITS,
    ),
    Bench(
        name="B3", title="overloaded shared accelerators, openb at its own times", folder="openb",
        cases={"9 nodes": _openb_time(150), "13 nodes": _openb_time(100)}, quick=("9 nodes",),
        shown={**WAITS, "wait_mean_s": ("wait s", 1.0), "wait_p99_s": ("p99 s", 1.0)},
    ),
    Bench(
        name="B4", title="mixed models, Gavel's static 100", folder="gavel",
        cases={"100 jobs": lambda folder, seed: traces.gavel(folder)}, quick=("100 jobs",),
        shown={"makespan_s": ("makespan h", 3600.0), "makespan_bound_s": ("bound", 3600.0),
               "jct_mean_s": ("JCT h", 3600.0), "wait_mean_s": ("wait h", 3600.0), "preemptions": ("preempt.", 1.0)},
    ),
    Bench(
        name="B5", title="gangs on a fabric, Lingjun", folder="alibaba_lingjun2023",
        cases={"load 0.8": _lingjun(0.8), "load 0.9": _lingjun(0.9)}, quick=("load 0.9",), seeded=True,
        shown={"leaves_over_min": ("leaves / fewest", 1.0), "gangs_at_min_pct": ("at the fewest %", 1.0),
               "gangs_cross_pod_pct": ("cross pods %", 1.0), "wait_mean_s": ("wait s", 1.0),
               "jct_mean_s": ("JCT s", 1.0), "events_per_min": ("M events/min", 1e6)},
    ),
    Bench(
        name="B8", title="decision speed, one core", folder="openb",
        cases={"1,213 nodes": _copied(1), "9,704 nodes": _copied(8)}, quick=("1,213 nodes",),
        shown={"decisions_per_s": ("decisions/s", 1.0), "decision_p99_ms": ("p99 ms", 1.0),
               "verdict_ms": ("fits nowhere ms", 1.0)}, packing=True, timed=True,
    ),
)  # fmt: skip
BENCH_OF = {bench.name: bench for bench in BENCHES}


class _Timed:
    """A packing policy whose every answer is timed."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.spent_ns = inner, list[int]()

    def place(self, gang: Any, hall: Hall) -> Any:
        began_ns = time.perf_counter_ns()
        spots = self._inner.place(gang, hall)
        self.spent_ns.append(time.perf_counter_ns() - began_ns)
        return spots


def _class(name: str, named: Callable[[str], Any]) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute) if attribute else named(name)


def _verdict_ms(policy: Any, hall: Hall, number: int) -> float:
    """The longest that a gang which fits nowhere waits to hear so; each of a shape that was never seen."""
    spent_ns = []
    for each in range(32):
        shape = Shape(milli=int(hall.devices.max()) * 1000, memory_mib=1 + each)
        assert not hall.fits(shape).any()
        began_ns = time.perf_counter_ns()
        assert policy.place(Gang(run_id="none", number=number, shape=shape), hall) is None
        spent_ns.append(time.perf_counter_ns() - began_ns)
    return max(spent_ns) / 1e6


def done(task: Task) -> tuple[Task, dict[str, float], str]:
    """One replay with its figures, and what the judge found wrong (empty: feasible)."""
    bench, contender = BENCH_OF[task.bench], task.contender
    case = bench.cases[task.case](task.traces, task.seed)
    hall, rng = Hall(case.bays), np.random.default_rng(task.seed)
    figures: dict[str, float] = {}
    if bench.packing:
        policy = _class(contender.policy, packing_named)(hall, rng)
        timed = _Timed(policy) if bench.timed else policy
        began_s = time.process_time()
        segments = pack(case.submissions, hall, timed)
        spent_s = time.process_time() - began_s
        figures["decisions_per_s"] = len(case.submissions) / spent_s
        if isinstance(timed, _Timed):
            figures["decision_p99_ms"] = float(np.percentile(timed.spent_ns, 99)) / 1e6
            figures["verdict_ms"] = _verdict_ms(policy, hall, len(case.submissions))
            return task, figures, ""
        outcome = packing_outcome_of(case.submissions, segments, hall)
        marks = dict(outcome.allocated_at_ratio)
        figures |= {"at_100": 100 * marks.get(100, math.nan), "at_end": 100 * marks.get(130, math.nan)}
        figures["rejected"] = outcome.refused
    else:
        packing = _class(contender.packing, packing_named)(hall, rng)
        replay = Replay(
            case.submissions,
            hall,
            _class(contender.policy, timing_named)(hall, rng, packing),
            costs=Costs(restart_s=contender.restart_s),
            durations_known=contender.durations_known,
        )
        began_s = time.process_time()
        segments = replay.run()
        spent_s = time.process_time() - began_s
        figures |= {"events_per_min": 60 * replay.events / spent_s, "cpu_s": spent_s}
        ours = outcome_of(case.submissions, segments, hall)
        figures |= {
            "wait_mean_s": ours.wait_mean_s, "wait_p99_s": ours.wait_p99_s, "jct_mean_s": ours.jct_mean_s,
            "jct_mean_bound_s": ours.jct_bound_s, "makespan_s": ours.makespan_s, "preemptions": ours.preemptions,
            "makespan_bound_s": ours.makespan_bound_s, "gpu_utilisation_pct": 100 * ours.utilisation_ratio,
        }  # fmt: skip
    if task.judge is None:
        return task, figures, "not judged"
    said = judged(
        task.judge,
        case,
        hall,
        segments,
        packing=bench.packing,
        preemptive=True,
        restart_s=contender.restart_s,
    )
    if not said["feasible"]:
        return task, figures, f"{said['errors']} errors: {said['first_errors'][:2]}"
    if bench.packing:
        said |= {"at_100": said["allocated_pct_at_100"], "at_end": said["allocated_pct_at_130"]}
    own = figures.get("jct_mean_bound_s", 0.0)
    figures |= {name: float(value) for name, value in said.items() if isinstance(value, (int, float))}
    if not bench.packing:
        figures["jct_mean_bound_s"] = max(own, figures["jct_mean_bound_s"])  # both hold, so the larger does
    return task, figures, ""


def tasks_of(asked: argparse.Namespace, judge: Path | None) -> Iterator[Task]:
    for bench in BENCHES:
        if asked.only and bench.name not in asked.only:
            continue
        if not (asked.traces / bench.folder).is_dir():
            continue
        seeds = QUICK_SEEDS if asked.quick or not bench.seeded else SEEDS
        for case in bench.cases_of(asked.quick):
            for contender in CONTENDERS[bench.name]:
                if (
                    asked.policies
                    and contender.name not in asked.policies
                    and contender.policy not in asked.policies
                ):
                    continue
                for seed in seeds:
                    yield Task(
                        bench=bench.name, case=case, seed=seed, contender=contender, traces=asked.traces, judge=judge
                    )  # fmt: skip


def show(
    bench: Bench, found: Mapping[tuple[str, str], Sequence[Mapping[str, float]]], wrong: Mapping[Any, str]
) -> list[Verdict]:
    """Print the table of one bench; what it says of ours."""
    print(f"\n{bench.name}: {bench.title}")
    head = ["case", "policy", *(heading for heading, _ in bench.shown.values()), "judged"]
    rows = [head]
    table: dict[tuple[str, str], Mapping[str, float]] = {}
    for (case, name), figures in found.items():
        table[case, name] = {each: mean(one[each] for one in figures) for each in figures[0]}
        cells = [
            _cell([one[figure] / divisor for one in figures]) if figure in figures[0] else "–"
            for figure, (_, divisor) in bench.shown.items()
        ]
        rows.append([case, name, *cells, wrong.get((case, name)) or ("timed" if bench.timed else "feasible")])
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    for row in rows:
        line = [cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))]  # fmt: skip
        print("  ".join([*line, row[-1]]).rstrip())
    sys.stdout.flush()
    verdicts = []
    for contender in CONTENDERS[bench.name]:
        if contender.role and any(name == contender.name for _, name in table):
            try:
                found_of_it = list(TARGETS[contender.role](table, contender.name))
            except (KeyError, ValueError) as absent:
                why = f"not taken: {absent} did not take part"
                found_of_it = [Verdict(case="all", figure="all", reached=None, why=why)]
            verdicts += [replace(each, bench=bench.name, policy=contender.name) for each in found_of_it]
    bad = {key: why for key, why in wrong.items() if why != "not judged"}
    judged_fine = [key for key in found if key not in wrong]
    if not bench.timed and (bad or judged_fine):
        verdicts.append(
            Verdict(
                bench=bench.name,
                case="all",
                policy="all",
                figure="judged feasible",
                ours=f"{len(judged_fine)}" + (f", not {bad}" if bad else ""),
                wanted=f"{len(judged_fine) + len(bad)} pairs",
                reached=not bad,
            )
        )
    return verdicts


def _cell(values: Sequence[float]) -> str:
    middle = mean(values)
    text = f"{middle:,.0f}" if abs(middle) >= 1000 else f"{middle:,.2f}"
    return text + (f" ±{stdev(values):.2f}" if len(values) > 1 and abs(middle) < 1000 else "")


def measured(tasks: Sequence[Task], workers: int) -> list[Verdict]:
    """Do all of these, print the table of each bench when it is complete; what they say of ours."""
    found: dict[str, dict[tuple[str, str], list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    wrong: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    left = {bench.name: sum(task.bench == bench.name for task in tasks) for bench in BENCHES}
    verdicts = list[Verdict]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=workers, mp_context=context) as pool:
        for task, figures, why in pool.map(done, tasks):
            found[task.bench][task.case, task.contender.name].append(figures)
            if why:
                wrong[task.bench][task.case, task.contender.name] = why
            left[task.bench] -= 1
            if not left[task.bench]:
                verdicts += show(BENCH_OF[task.bench], found[task.bench], wrong[task.bench])
    return verdicts


def skipped(folder: Path, only: Sequence[str] | None) -> list[Verdict]:
    """The benches whose trace is not there, by name."""
    return [
        Verdict(
            bench=bench.name, case="all", policy="all", figure=bench.title, reached=None,
            why=f"skipped: {folder / bench.folder} is not there",
        )
        for bench in BENCHES
        if (not only or bench.name in only) and not (folder / bench.folder).is_dir()
    ]  # fmt: skip


def judge_beside(folder: Path) -> Path | None:
    """Where the judge is, if it is beside the traces."""
    judge = folder.absolute().parent / "tools" / "judge_placement.py"
    return judge if judge.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="BENCH", choices=[bench.name for bench in BENCHES])
    parser.add_argument(
        "--policies", nargs="+", metavar="NAME", help="of contenders or policies; baselines are not added"
    )
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    asked = parser.parse_args()
    judge = asked.judge or judge_beside(asked.traces)
    if judge is None:
        print("no judge beside the traces: decisions are not judged", flush=True)
    began_s = time.monotonic()
    verdicts = measured(list(tasks_of(asked, judge)), asked.workers)
    print()
    verdict.show([*skipped(asked.traces, asked.only), *verdicts])
    print(
        f"{(time.monotonic() - began_s) / 60:.1f} min, {asked.workers} workers on {os.cpu_count()} cores,"
        f" load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, NumPy {np.__version__}"
    )
    raise SystemExit(any(each.figure == "judged feasible" and not each.reached for each in verdicts))


if __name__ == "__main__":
    main()
