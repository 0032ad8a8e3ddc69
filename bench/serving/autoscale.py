"""Our autoscaler beside Knative's, Kubernetes' and Ray's: SLO misses against replica-seconds on recorded demand.

    PYTHONPATH=src:. python bench/serving/autoscale.py [--traces FOLDER] [--quick] [--workers 2]

Requests of public traces of language models, and days of ServeGen's rates squeezed to two hours, are replayed in the
twin through the very function that the platform decides by and through the rules of its rivals, as they come and tuned
to be quick. Each takes part with a dozen targets, from a third to almost twice of what a replica is given at once, so
that each draws a curve; ours has to be no worse than the best of them all at the same misses.

Ours was tuned on the first half of each trace and on other days of the rates than it is judged on here. The pace of a
replica is that of Llama 2 70B on eight H100 as splitwise-sim measured it, or 2 s; it comes 10 to 60 s after its order.
Misses are requests held for more than a second. Every autoscaler begins with enough replicas; 3 minutes do not count.
Without the traces the bench is skipped, by name; nothing is timed, so that a busy machine changes no figure.
"""

import argparse
import csv
import gzip
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baseai.twin.serving.outcome import Point, ServingOutcome, front_of, outcome_of
from baseai.twin.serving.pace import FixedPace, Pace, measured_pace_of
from baseai.twin.serving.policy.registry import autoscaler_named
from baseai.twin.serving.replay import Clients, Hardware, ServingReplay
from baseai.twin.serving.trace import Draw, Request, stretch_of, trace_of
from baseai.workloads.service import Scaling
from bench.report import Figure, show

ROOT = Path(__file__).resolve().parents[2]
RIVALS = ("kpa", "hpa", "hpa-tuned", "ray", "ray-tuned")
TARGETS = (0.3, 0.36, 0.42, 0.5, 0.58, 0.66, 0.75, 0.85, 0.95, 1.05, 1.2, 1.4, 1.7)  # of a replica's places
SLO_S, LEAD_S, SEED = 1.0, 180.0, 7
MISSES = (0.05, 0.02, 0.01, 0.005, 0.001)  # shares at which curves are compared
FIXED = FixedPace(each_s=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One trace on one kind of replica."""

    name: str
    requests: tuple[Request, ...]
    hardware: Hardware


def read(folder: Path, name: str) -> tuple[Request, ...]:
    with gzip.open(folder / name, "rt") as lines:
        return trace_of(lines, name, Draw(rng=np.random.default_rng(SEED)))


def day(folder: Path, name: str, *, from_day: int, share: float, variation: float) -> tuple[Request, ...]:
    """A day of rates within two hours."""
    with gzip.open(folder / name, "rt") as lines:
        rates = [(float(row["t_s"]), row["requests_per_s"]) for row in csv.DictReader(lines)]
    since_s = from_day * 86_400.0
    rows = [f"{(at_s - since_s) / 12},{rate}\n" for at_s, rate in rates if since_s <= at_s < since_s + 86_400]
    draw = Draw(rng=np.random.default_rng(SEED), share=share, gap_variation=variation)
    return trace_of(["t_s,requests_per_s\n", *rows], name, draw)


def cases_of(folder: Path, *, quick: bool) -> list[Case]:
    """What ours is judged on: second halves, and other days than it was tuned on."""
    with gzip.open(folder / "splitwise_perf_model.csv.gz", "rt") as lines:
        llama = measured_pace_of(
            lines, "splitwise_perf_model", model="llama2-70b", hardware="h100-80gb", tensor_parallel=8
        )

    def case(name: str, requests: tuple[Request, ...], pace: Pace, places: int, warm_up_s: float) -> Case:
        return Case(
            name=f"{name}, {warm_up_s:g} s",
            requests=requests,
            hardware=Hardware(pace=pace, concurrency=places, warm_up_s=warm_up_s),
        )

    azure = read(folder, "AzureLLMInferenceTrace_conv.csv.gz")
    mooncake = read(folder, "mooncake_conversation_first60pct.jsonl.gz")
    later = stretch_of(azure, from_s=1750, for_s=1800)
    found = [
        case("Azure conversation", later, llama, 8, 30),
        case("Mooncake conversation", stretch_of(mooncake, from_s=1110, for_s=1200), llama, 8, 60),
    ]
    if quick:
        return found
    large, mid = "servegen_m-large_rate_10min.csv.gz", "servegen_m-mid_rate_10min.csv.gz"
    bursts = day(folder, mid, from_day=11, share=0.003, variation=2)
    return [
        *found,
        case("Azure conversation", later, llama, 8, 10),
        case(
            "ServeGen m-large, day 9", day(folder, large, from_day=9, share=0.02, variation=1), FIXED, 4, 30
        ),
        case("ServeGen m-mid, day 5", day(folder, mid, from_day=5, share=0.003, variation=1), FIXED, 4, 20),
        case("ServeGen m-mid, day 11 in bursts", bursts, FIXED, 4, 20),
    ]


def replayed(case: Case, name: str, share: float) -> ServingOutcome:
    places = case.hardware.concurrency
    pace = case.hardware.pace
    first_s = sum(pace.service_s(request, places) for request in case.requests if request.at_s < 60)
    scaling = Scaling(least=1, most=500, target=share * places)
    replay = ServingReplay(
        case.requests,
        case.hardware,
        autoscaler_named(name)(scaling),
        np.random.default_rng(SEED),
        begin_with=1 + math.ceil(1.5 * first_s / 60 / places),
    )
    return outcome_of(replay.run(), slo_s=SLO_S, concurrency=places, from_s=LEAD_S)


def curve(task: tuple[Case, str]) -> list[Point]:
    case, name = task
    found = [(share, replayed(case, name, share)) for share in TARGETS]
    return [
        Point(name=f"{name} {share:g}", missed_ratio=one.missed_ratio, replica_s=one.replica_s)
        for share, one in found
    ]


def cheapest_s(points: Sequence[Point], missed_most: float) -> float:
    """Replica-seconds for which no more than that share misses: on the line between neighbours of the front.

    Between two targets lies another one; misses are taken to fall by equal factors over equal costs, and a share that
    no run fell below is that of a single request in 100,000. inf where no point misses so little.
    """
    front = front_of(points)
    floor = 1e-5
    for dearer, point in enumerate(front):
        if point.missed_ratio <= missed_most:
            if dearer == 0:
                return point.replica_s
            before = front[dearer - 1]
            high, low = math.log(max(floor, before.missed_ratio)), math.log(max(floor, point.missed_ratio))
            part = (high - math.log(missed_most)) / (high - low) if high > low else 1.0
            return before.replica_s + part * (point.replica_s - before.replica_s)
    return math.inf


def told(case: Case, curves: Mapping[str, Sequence[Point]]) -> Figure:
    """Print one case's table; its figure: the cost of ours over that of the best rival, at each share missed."""
    print(f"\n{case.name} to warm up, {len(case.requests):,} requests")
    heads = "".join(f"{100 * missed:>9g} %" for missed in MISSES)
    print(f"{'replica-hours for misses of':28}{heads}   points on the front of all")
    everybody = [point for points in curves.values() for point in points]
    best = front_of(everybody)
    for name, points in curves.items():
        spent = [cheapest_s(points, missed) / 3600 for missed in MISSES]
        hours = "".join(f"{each:>11.2f}" if math.isfinite(each) else f"{'–':>11}" for each in spent)
        print(f"{name:28}{hours}   {sum(point in points for point in best)} of {len(best)}")
    ours, rivals = [], []
    for missed in MISSES:
        least = min(cheapest_s(points, missed) for name, points in curves.items() if name != "ours")
        mine = cheapest_s(curves["ours"], missed)
        if math.isfinite(least) and math.isfinite(mine):
            ours.append(mine / 3600)
            rivals.append(least / 3600)
    worst = max((mine / least for mine, least in zip(ours, rivals, strict=True)), default=math.inf)
    return Figure(
        name=f"autoscaling, {case.name}: replica-hours for equal misses",
        unit="h",
        ours=tuple(ours),
        peer=tuple(rivals),
        peer_name="the best of five rivals at each",
        target="on or inside the front",
        reached=worst <= 1.0 and len(ours) == len(MISSES),
        note=f"worst {worst:.3f} of {len(ours)} shares missed",
    )


def step() -> list[Figure]:
    """From 1 to 20 at once on a model of 200 ms, 4 replicas at most; then 1, then nobody."""
    clients = [Clients(count=1, from_s=0, until_s=300), Clients(count=19, from_s=120, until_s=240)]
    hardware = Hardware(pace=FixedPace(each_s=0.2), concurrency=5, warm_up_s=3.0)
    figures = []
    decided_s: dict[str, float] = {}
    for name in ("ours", *RIVALS):
        scaling = Scaling(least=0, most=20, target=5.0 if name != "kpa" else 5.0 / 0.7)
        replay = ServingReplay(
            [], hardware, autoscaler_named(name)(scaling), np.random.default_rng(SEED), clients=clients,
            until_s=1500,
        )  # fmt: skip
        carried = replay.run()
        after = [each for each in carried.decisions if each.at_s >= 120]
        decided_s[name] = next((each.at_s - 120 for each in after if each.wanted >= 4), math.inf)
        over = max(each.wanted for each in carried.decisions) - 4
        rests = next((each.at_s - 300 for each in after if each.at_s > 300 and each.wanted == 0), math.inf)
        lost = sum(not math.isfinite(wait_s) for _, wait_s in carried.waits)
        print(
            f"step 1 → 20, {name:10} decided after {decided_s[name]:g} s, {over:+d} replicas,"
            f" at rest after {rests:g} s, {lost} lost"
        )
        if name == "ours":
            figures = [
                Figure(name="autoscaling, step 1 → 20 in the twin: overshoot", unit="replicas",
                       ours=(float(over),), target="≤ 1", reached=over <= 1),
                Figure(name="autoscaling, step in the twin: at rest after the last request", unit="s",
                       ours=(rests,), target="≤ 95 s", reached=rests <= 95),
            ]  # fmt: skip
    quickest = min(decided_s[name] for name in RIVALS)
    return [
        Figure(name="autoscaling, step 1 → 20 in the twin: decided", unit="s", ours=(decided_s["ours"],),
               peer=(quickest,), peer_name="the quickest rival", target="≤ 3 s", reached=decided_s["ours"] <= 3),
        *figures,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = Path(os.environ.get("BASEAI_SHARED") or ROOT.parent / "shared")
    parser.add_argument("--traces", type=Path, default=shared / "traces" / "llm")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    for figure in step():
        show(figure)
    if not (asked.traces / "splitwise_perf_model.csv.gz").is_file():
        print(f"skipped: the traces of language models are not in {asked.traces}")
        return
    cases = cases_of(asked.traces, quick=asked.quick)
    names = ("ours", *RIVALS)
    with ProcessPoolExecutor(asked.workers) as workers:
        for case in cases:
            points = list(workers.map(curve, [(case, name) for name in names]))
            show(told(case, dict(zip(names, points, strict=True))))


if __name__ == "__main__":
    main()
