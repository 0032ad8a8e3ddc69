"""What was said to each waiting run about its start, and what came of it: estimates kept over cycles.

The first that a run is told while it waits is the one that counts: it is kept until its run starts (held, early or
late), has waited beyond the latest that was said (late, from then on), or leaves the queue otherwise (gone, which says
nothing). What the run is shown is made anew every few minutes. Estimates are learned apart for each set of models
that runs ask for, as `estimate` learns them, and so is the share of those that held.

Invariant: of each first estimate exactly one fate is learned, also over a restart: what `Starts` was told can be
told to a new one, and that one says the same. Pure; the clock, chance and the record are given. One cycle is bounded:
so many runs are asked for in it, and beside many that run a few speak for all.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from heapq import heappop, heappush
from itertools import chain, islice
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from baseai.ground.identity import RunId
from baseai.scheduling.estimate import AHEAD_MOST, Estimate, Estimator
from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.plan import StartEstimate

FARTHEST_S = 10 * 365 * 86_400.0  # nothing is said of later than that
ANEW_S = 300.0  # what a run is shown is made anew so long after it was made
ANEW_SOON_S = 30.0  # the same while little is known
FRONT = 256  # places of the queue; every other cycle of a longer one is for those behind
PLAYED_MOST = 2  # runs a cycle whose futures are played
SUMMED_MOST = 200  # runs a cycle that wait far back, whose start is a sum
RUNNING_MOST = 128  # of those that run in a pool; where there are more, so many speak for all
OUTCOMES_KEPT = 500  # of each pool, the latest; their share is what people are told

Models = tuple[str, ...]  # that a run may be on, in the order of its demand; empty: any
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fate(StrEnum):
    """What came of a first estimate."""

    HELD = "held"
    EARLY = "early"  # it started before the earliest that was said
    LATE = "late"  # it started after the latest, or has waited longer than that
    GONE = "gone"  # it left the queue without starting


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The accelerators of one model that runs can be on now."""

    milli: int  # thousandths of accelerators
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The first estimate a run was told while it waits, and its fate as soon as there is one."""

    run_id: RunId
    models: Models
    simulated: bool  # nothing but simulated nodes could have taken it
    estimate: Estimate  # seconds from `asked_s`, which is in seconds since 1970
    fate: Fate | None = None
    settled_s: float | None = None  # since 1970
    started_s: float | None = None  # since 1970; one that was late starts after its fate


class _Line(NamedTuple):
    """Those that wait for some of the same models, in order."""

    places: Sequence[int]  # in the queue
    kinds: Sequence[Shape]  # each footprint once
    kind: Sequence[int]  # of each in the line, which of `kinds`


@dataclass(slots=True)
class _Learned:
    """What is known of one set of models."""

    estimator: Estimator
    held: deque[bool] = field(default_factory=lambda: deque(maxlen=OUTCOMES_KEPT))


class Starts:
    """All estimates of one fleet. `cycle` once a cycle; `unwritten` is what the record does not have yet."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._lasted: deque[tuple[Shape, float]] = deque(maxlen=OUTCOMES_KEPT)
        self._learned: dict[tuple[Models, bool], _Learned] = {}
        self._first: dict[str, Said] = {}  # of runs that wait, also of those that were late and wait on
        self._latest: list[tuple[float, str]] = []  # heap: when which of them is late
        self._told: dict[str, StartEstimate] = {}  # what is shown
        self._until_s: dict[str, float] = {}  # when that is made anew
        self._unwritten: list[Said] = []
        self._cycles = 0

    # ---- what is told

    def ended(self, shape: Shape, lasted_s: float) -> None:
        """An attempt of this shape came to its end by itself, so long after it started."""
        lifetime = (footprint(shape.pods, shape.milli), lasted_s)
        self._lasted.append(lifetime)
        for learned in self._learned.values():
            learned.estimator.ended(*lifetime)

    def remember(self, said: Said) -> None:
        """What the record has: those with a fate in the order in which it was settled, then those without."""
        if said.fate is not None:
            self._learn(said)
        late_and_waiting = (
            said.fate is Fate.LATE and said.started_s is None
        )  # what it is told next is not its first
        if said.fate is None or late_and_waiting:
            self._first[said.run_id] = said
            heappush(self._latest, (said.estimate.asked_s + said.estimate.latest_s, said.run_id))

    def missing(self, waiting: Iterable[Gang]) -> tuple[Said, ...]:
        """What runs were told that do not wait any more: say `started` or `gone` of each."""
        if not self._first:
            return ()
        still = {gang.run_id for gang in waiting}
        return tuple(said for run_id, said in self._first.items() if run_id not in still)

    def started(self, run_id: str, at_s: float) -> None:
        """A run has left the queue by starting. Of one that nobody asked for nothing is learned."""
        said = self._forget(run_id)
        if said is None:
            return
        begun = replace(said, started_s=at_s)
        if said.fate is None:
            self._settle(begun, at_s, _fate_of(said.estimate, at_s - said.estimate.asked_s))
        else:
            self._unwritten.append(begun)

    def gone(self, run_id: str, at_s: float) -> None:
        """A run has left the queue otherwise."""
        said = self._forget(run_id)
        if said is not None and said.fate is None:
            self._settle(said, at_s, Fate.GONE)

    # ---- what is asked

    def cycle(
        self,
        now_s: float,
        pools: Mapping[str, Pool],
        running: Mapping[str, Collection[tuple[Shape, float]]],
        waiting: Sequence[Gang],
    ) -> Mapping[str, StartEstimate]:
        """When those that wait will start, by run, as far as they have been asked for: the first in the queue first.

        Also of those who have left and of whom it was not said yet how. It is a view: the next cycle changes it.

        now_s: seconds since 1970, as all instants here. pools: by model.
        running: by model, shape and start of each run; may be kept from cycle to cycle.
        waiting: those that can start one day, in the order of the queue. Tests of nodes, which yield, are in neither.
        PLAYED_MOST new ones a cycle, and SUMMED_MOST of those far back: a long queue fills over some cycles.
        O(waiting), a few milliseconds, however many run.
        """
        self._outlive(now_s)
        self._cycles += 1
        front = waiting if self._cycles % 2 == 0 else waiting[:FRONT]
        due = self._due(now_s, front)
        if due:
            self._ask(now_s, pools, running, front, due)
        return MappingProxyType(self._told)

    def unwritten(self) -> tuple[Said, ...]:
        """First estimates and outcomes that came since the last call, in their order."""
        found, self._unwritten = tuple(self._unwritten), []
        return found

    def _due(self, now_s: float, waiting: Sequence[Gang]) -> list[int]:
        """Places in the queue: of those that know nothing yet, then of those that have known it for long."""
        unknown, old = [], []
        for place, gang in enumerate(waiting):
            until_s = self._until_s.get(gang.run_id)
            if until_s is None:
                unknown.append(place)
            elif now_s > until_s:
                old.append(place)
        return unknown + old

    def _ask(
        self,
        now_s: float,
        pools: Mapping[str, Pool],
        running: Mapping[str, Collection[tuple[Shape, float]]],
        waiting: Sequence[Gang],
        due: Sequence[int],
    ) -> None:
        own_milli = {
            models: _milli(models, pools) for models in {waiting[place].shape.models for place in due}
        }
        due = [
            place for place in due if waiting[place].shape.milli and own_milli[waiting[place].shape.models]
        ]  # nobody knows when what is not there comes
        if not due:
            return
        by_models: dict[Models, list[int]] = defaultdict(list)
        for place, gang in enumerate(waiting):
            by_models[gang.shape.models].append(place)
        views: dict[Models, _View] = {}
        played = summed = 0
        for place in due:
            gang = waiting[place]
            models = gang.shape.models
            if models not in views:
                views[models] = _View(now_s, models, pools, running, by_models, waiting)
            view = views[models]
            ahead = bisect_left(view.line.places, place)
            learned = self._learned_of(models, simulated=view.simulated)
            if ahead > AHEAD_MOST and summed < SUMMED_MOST:
                summed += 1
                likely_s = view.summed_s(learned.estimator)[ahead]
            elif ahead <= AHEAD_MOST and played < PLAYED_MOST:
                played += 1
                likely_s = view.played_s(learned.estimator, ahead, gang.shape)
            elif played + summed == PLAYED_MOST + SUMMED_MOST:
                break
            else:
                continue
            estimate = learned.estimator.about(now_s, min(likely_s, FARTHEST_S))
            estimate = estimate._replace(latest_s=min(estimate.latest_s, FARTHEST_S))
            self._tell(gang, estimate, learned, simulated=view.simulated)

    def _tell(self, gang: Gang, estimate: Estimate, learned: _Learned, *, simulated: bool) -> None:
        self._until_s[gang.run_id] = estimate.asked_s + min(
            ANEW_SOON_S if learned.estimator.is_new else ANEW_S, max(estimate.latest_s, 1.0)
        )
        self._told[gang.run_id] = _told(estimate, learned.held)
        if gang.run_id not in self._first:
            said = Said(
                run_id=RunId(gang.run_id), models=gang.shape.models, simulated=simulated, estimate=estimate
            )
            self.remember(said)
            self._unwritten.append(said)

    # ---- what is learned

    def _outlive(self, now_s: float) -> None:
        while self._latest and self._latest[0][0] < now_s:
            _, run_id = heappop(self._latest)
            said = self._first.get(run_id)
            lapsed = said is not None and now_s > said.estimate.asked_s + said.estimate.latest_s
            if said is not None and lapsed and said.fate is None:
                self._first[run_id] = self._settle(said, now_s, Fate.LATE)

    def _forget(self, run_id: str) -> Said | None:
        self._told.pop(run_id, None)
        self._until_s.pop(run_id, None)
        return self._first.pop(run_id, None)

    def _settle(self, said: Said, at_s: float, fate: Fate) -> Said:
        settled = replace(said, fate=fate, settled_s=at_s)
        self._learn(settled)
        self._unwritten.append(settled)
        return settled

    def _learn(self, said: Said) -> None:
        learned = self._learned_of(said.models, simulated=said.simulated)
        match said.fate:
            case Fate.LATE:
                learned.estimator.outlived(said.estimate)
            case Fate.HELD | Fate.EARLY:
                assert said.settled_s is not None
                learned.estimator.came(said.estimate, max(0.0, said.settled_s - said.estimate.asked_s))
            case _:
                return
        learned.held.append(said.fate is Fate.HELD)

    def _learned_of(self, models: Models, *, simulated: bool) -> _Learned:
        key = (models, simulated)
        if key not in self._learned:
            learned = self._learned[key] = _Learned(Estimator(1, self._rng))
            for lifetime in self._lasted:
                learned.estimator.ended(*lifetime)
        return self._learned[key]


class _View:
    """The fleet and the queue as those see them who ask for the same models."""

    def __init__(
        self,
        now_s: float,
        models: Models,
        pools: Mapping[str, Pool],
        running: Mapping[str, Collection[tuple[Shape, float]]],
        by_models: Mapping[Models, Sequence[int]],
        waiting: Sequence[Gang],
    ) -> None:
        self._milli = _milli(models, pools)
        own = [model for model in models or tuple(pools) if model in pools]
        self.simulated = all(pools[model].simulated for model in own)
        self.running, self.stands_for = _drawn(now_s, [running[model] for model in own if model in running])
        beside = [
            places
            for other, places in by_models.items()
            if not other or not models or not set(other).isdisjoint(models)
        ]
        places = sorted(chain.from_iterable(beside))
        numbers: dict[tuple[int, int], int] = {}
        kind = []
        for place in places:
            shape = waiting[place].shape
            kind.append(numbers.setdefault((shape.pods, shape.milli), len(numbers)))
        self.line = _Line(places, [footprint(*each) for each in numbers], kind)
        self._summed_s: Sequence[float] | None = None

    def played_s(self, estimator: Estimator, ahead: int, shape: Shape) -> float:
        """Until a gang starts that has so many ahead of it.

        What is free now is of no use to it, or it would not wait: too scattered, or kept for somebody.
        """
        held_milli = int(self.stands_for * sum(one.milli_total for one, _ in self.running))
        estimator.resized(min(self._milli, held_milli))
        before = [(self.line.kinds[number], 0.0) for number in self.line.kind[:ahead]]
        own = footprint(shape.pods, shape.milli)
        return estimator.likely_s(self.running, before, own, stands_for=self.stands_for)

    def summed_s(self, estimator: Estimator) -> Sequence[float]:
        """Of everybody in the line, by what is ahead of each."""
        if self._summed_s is None:
            estimator.resized(self._milli)
            found = estimator.line_s(
                self.running, self.line.kinds, self.line.kind, stands_for=self.stands_for
            )
            self._summed_s = found.tolist()
        return self._summed_s


def _milli(models: Models, pools: Mapping[str, Pool]) -> int:
    return sum(pool.milli for model, pool in pools.items() if not models or model in models)


def _drawn(
    now_s: float, running: Sequence[Collection[tuple[Shape, float]]]
) -> tuple[list[tuple[Shape, float]], float]:
    """At most RUNNING_MOST of those that run, evenly over them, with the seconds served; how many each speaks for."""
    count = sum(map(len, running))
    step = -(-count // RUNNING_MOST) or 1
    drawn = [
        (footprint(shape.pods, shape.milli), max(0.0, now_s - start_s))
        for shape, start_s in islice(chain.from_iterable(running), 0, None, step)
    ]
    return drawn, count / len(drawn) if drawn else 1.0


@lru_cache(maxsize=4096)
def footprint(pods: int, milli: int) -> Shape:
    """What of a shape lifetimes are learned by: how many accelerators, on how many nodes."""
    return Shape(pods=pods, milli=milli)


def _fate_of(estimate: Estimate, waited_s: float) -> Fate:
    if estimate.holds(max(0.0, waited_s)):
        return Fate.HELD
    return Fate.EARLY if waited_s < estimate.earliest_s else Fate.LATE


def _told(estimate: Estimate, held: Sequence[bool]) -> StartEstimate:
    asked_at = _EPOCH + timedelta(seconds=estimate.asked_s)
    return StartEstimate(
        asked_at=asked_at,
        earliest_at=asked_at + timedelta(seconds=estimate.earliest_s),
        likely_at=asked_at + timedelta(seconds=estimate.likely_s),
        latest_at=asked_at + timedelta(seconds=estimate.latest_s),
        held_ratio=sum(held) / len(held) if held else None,
        outcomes=len(held),
    )
