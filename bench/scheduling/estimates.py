"""How good the estimates of starts are: on the Philly sets, for who waits under a policy, without any duration.

Every run is asked for as it comes, and all that wait (20 of them, drawn, where there are more) every 12 hours. Printed
are the share of intervals that held (80 % is meant) and the median absolute error of the likely start. `live` is the
same for what the platform says (`scheduling.starts`): the first estimate alone, and a few runs a turn.

    python bench/scheduling/estimates.py --traces FOLDER [--quick] [--seeds 42 43 44]
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np

from baseai.scheduling.estimate import Estimate, Estimator
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.registry import packing_named, timing_named
from baseai.scheduling.policy.seam import Moment, Move, Start, Timing
from baseai.scheduling.starts.said import Pool, Starts
from baseai.twin.replay import Replay
from bench.scheduling import traces, verdict
from bench.scheduling.verdict import Verdict

EVERY_S, ASKED_MOST = 12 * 3600.0, 20
HIT_RATIO = (0.7, 0.9)
SEEDS = (42, 43, 44)


class Asking:
    """A policy beside which estimates are asked for; it decides as it would alone."""

    def __init__(self, inner: Timing, milli: int, rng: np.random.Generator) -> None:
        self.needs_durations = inner.needs_durations
        self._inner, self._rng = inner, rng
        self._estimator = Estimator(milli, rng)
        self._open: dict[str, list[Estimate]] = {}
        self._outlived: set[tuple[str, Estimate]] = set()
        self._next_s = 0.0
        self.outcomes: list[tuple[Estimate, float]] = []  # and how long it waited from then on

    def turn(self, moment: Moment) -> Iterator[Move]:
        now_s = moment.now_s
        for gang in moment.ended:
            self._estimator.ended(gang.shape, moment.served_s(gang))
        came = {gang.run_id for gang in moment.arrived}
        for move in self._inner.turn(moment):
            if isinstance(move, Start):
                self._started(move.run_id, now_s)
            yield move
        for run_id, estimates in self._open.items():
            for estimate in estimates:
                key = (run_id, estimate)
                if now_s - estimate.asked_s > estimate.latest_s and key not in self._outlived:
                    self._outlived.add(key)
                    self._estimator.outlived(estimate)
        everybody = now_s >= self._next_s
        if everybody:
            self._next_s = now_s + EVERY_S
        self._ask(moment, came if not everybody else set(moment.waiting))

    def _started(self, run_id: str, now_s: float) -> None:
        for estimate in self._open.pop(run_id, ()):
            waited_s = now_s - estimate.asked_s
            self.outcomes.append((estimate, waited_s))
            if (run_id, estimate) not in self._outlived:
                self._estimator.came(estimate, waited_s)
            self._outlived.discard((run_id, estimate))

    def _ask(self, moment: Moment, run_ids: set[str]) -> None:
        line = sorted(moment.waiting.values(), key=lambda gang: gang.number)
        asked = [place for place, gang in enumerate(line) if gang.run_id in run_ids]
        if len(asked) > ASKED_MOST:
            asked = sorted(self._rng.choice(asked, ASKED_MOST, replace=False).tolist())
        if not asked:
            return
        running = [(each.gang.shape, moment.served_s(each.gang)) for each in moment.running.values()]
        ahead = [(gang.shape, moment.served_s(gang)) for gang in line]
        for place in asked:
            gang = line[place]
            found = self._estimator.estimate(moment.now_s, running, ahead[:place], gang.shape)
            self._open.setdefault(gang.run_id, []).append(found)


class Live:
    """A policy beside which estimates are kept as the controller keeps them; it decides as it would alone."""

    def __init__(self, inner: Timing, milli: int, rng: np.random.Generator) -> None:
        self.needs_durations = inner.needs_durations
        self._inner, self._starts, self._pools = inner, Starts(rng), {"": Pool(milli=milli)}
        self.outcomes: list[tuple[Estimate, float]] = []

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in moment.ended:
            self._starts.ended(gang.shape, moment.served_s(gang))
        for move in self._inner.turn(moment):
            if isinstance(move, Start):
                self._starts.started(move.run_id, moment.now_s)
            yield move
        line = sorted(moment.waiting.values(), key=lambda gang: gang.number)
        running = [
            (each.gang.shape, moment.now_s - moment.served_s(each.gang)) for each in moment.running.values()
        ]
        self._starts.cycle(moment.now_s, self._pools, {"": running}, line)
        for said in self._starts.unwritten():
            if said.started_s is not None:
                self.outcomes.append((said.estimate, said.started_s - said.estimate.asked_s))


def measured(folder: Path, *, quick: bool, seeds: Sequence[int]) -> Iterator[Verdict]:
    """Replay each set and ask; prints a line for each."""
    print(
        "set         policy     asked  held %  median error 1,000 s  median wait  median width  CPU s",
        flush=True,
    )
    for name in ("trace3", "testbed400") if quick else tuple(traces.MURI_SETS):
        for policy, kept in (("easy", Asking), ("pledge", Asking), ("house", Live)):
            held, errors, waits, widths, count, began_s = [], [], [], [], 0, time.process_time()
            for seed in seeds[: 1 if quick else None]:
                case = traces.philly(folder, name)
                hall, rng = Hall(case.bays), np.random.default_rng(seed)
                inner = timing_named(policy)(hall, rng, packing_named("best_fit")(hall, rng))
                asking = kept(inner, hall.milli_installed, rng)
                Replay(case.submissions, hall, asking).run()
                held.append(mean(estimate.holds(waited_s) for estimate, waited_s in asking.outcomes))
                errors.append(median(abs(waited_s - each.likely_s) for each, waited_s in asking.outcomes))
                waits.append(median(waited_s for _, waited_s in asking.outcomes))
                widths.append(median(each.latest_s - each.earliest_s for each, _ in asking.outcomes))
                count += len(asking.outcomes)
            said = policy if kept is Asking else "live"
            print(
                f"{name:<11} {said:<8} {count:>7,} {100 * mean(held):>7.1f} {mean(errors) / 1000:>21,.1f}"
                f" {mean(waits) / 1000:>12,.1f} {mean(widths) / 1000:>13,.1f} {time.process_time() - began_s:>6.1f}",
                flush=True,
            )
            yield Verdict(
                bench="starts",
                case=name,
                policy=said,
                figure=f"80 % intervals that held, of {count:,}",
                ours=f"{100 * mean(held):.1f} %",
                wanted="70 to 90 %",
                beside=f"median error {mean(errors):,.0f} s, median wait {mean(waits):,.0f}",
                reached=all(HIT_RATIO[0] <= each <= HIT_RATIO[1] for each in held),
            )


def skipped(folder: Path) -> list[Verdict]:
    if (folder / "philly").is_dir():
        return []
    why = f"skipped: {folder / 'philly'} is not there"
    return [
        Verdict(bench="starts", case="all", policy="all", figure="estimates of starts", reached=None, why=why)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    asked = parser.parse_args()
    verdict.show(skipped(asked.traces) or list(measured(asked.traces, quick=asked.quick, seeds=asked.seeds)))


if __name__ == "__main__":
    main()
