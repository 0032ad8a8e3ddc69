"""An explanation is why a run waits: nodes failing each constraint, the cheapest change, and when it may start.

Invariant: a change named here does start the run if it is made and nothing else moves: each is tried against the same
columns that grant. Reads them and changes none.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from baseai.scheduling.constraint import nodes_failing
from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.outlook import Free, chosen, free_now, holds, room
from baseai.scheduling.plan import Change, Explanation, Lever
from baseai.scheduling.policy.house import Verdict
from baseai.scheduling.standing import Standing
from baseai.workloads.demand import CPU_SLOT, Ask, Demand

LEAST_DURATION_S = 60  # a shorter run than this is no advice
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Advisor:
    """What can be said at the end of one cycle, where everything stands as it decided."""

    def __init__(self, standing: Standing, now_s: float) -> None:
        self._standing = standing
        self._now_s = now_s
        self._free = free_now(standing.hall)

    def explanation_of(self, demand: Demand, gang: Gang, verdict: Verdict) -> Explanation:
        """Why the run waits. All claims count but its own: in the next cycle those who made them go first."""
        hall, now_s = self._standing.hall, self._now_s
        claims = [
            claim
            for claim in self._standing.house.claims
            if claim is not verdict.own and now_s < claim.until_s and claim.concerns(gang, now_s)
        ]

        def starts_with(changed: Demand) -> bool:
            ends_s = now_s + changed.max_duration_s
            left = [claim.left for claim in claims if ends_s > claim.from_s]
            return any(
                holds(shape, (self._free, *left), hall) for shape in self._standing.fleet.shapes_of(changed)
            )

        failing, fitting = nodes_failing(gang.shapes, hall, self._free)
        ends = [max(0, int(claim.from_s - now_s)) for claim in claims]
        if verdict.own is not None:
            earliest_s: float | None = verdict.own.from_s
        elif verdict.behind is not None:
            earliest_s = max(now_s, verdict.behind.from_s)
        else:
            earliest_s = self._earliest_s(gang.shapes)
        return Explanation(
            nodes_failing=failing,
            nodes_fitting=fitting,
            nodes_needed=demand.node_count,
            change=cheapest_change(demand, hall.models, starts_with, durations_s=ends),
            earliest_at=None if earliest_s is None else at(earliest_s),
            latest_at=None if verdict.own is None else at(verdict.own.from_s),
        )

    def _earliest_s(self, shapes: Sequence[Shape]) -> float | None:
        """When the ends of leases alone would let the run start, had it the queue to itself."""
        found = [start_s for shape in shapes if (start_s := self._first_start_s(shape)) is not None]
        return min(found, default=None)

    def _first_start_s(self, shape: Shape) -> float | None:
        hall = self._standing.hall

        def rows_at(_: float, free: Free) -> list[int] | None:
            return chosen(shape, room(shape, free, hall), free, hall)

        start = self._standing.house.outlook.first_start(shape, self._now_s, rows_at)
        return None if start is None else start[0]


def at(since_1970_s: float) -> datetime:
    return _EPOCH + timedelta(seconds=round(since_1970_s, 6))


def cheapest_change(
    demand: Demand, models: Sequence[str], fits: Callable[[Demand], bool], *, durations_s: Sequence[int] = ()
) -> Change | None:
    """The single change that gives up least of what was asked and with which `fits` says yes, or None.

    What is given up is measured as the part of the figure asked for; another site and another model come last.
    models: of the fleet. durations_s: maximum durations worth trying, because a booking starts there.
    """
    found = [
        change
        for change in (
            _fewer_accelerators(demand, fits),
            _fewer_nodes(demand, fits),
            _less(demand, fits, Lever.MEMORY, "memory_mib", 1024 if demand.memory_mib > 1024 else 64),
            _less(demand, fits, Lever.DISK, "disk_mib", 1024 if demand.disk_mib > 1024 else 64),
            _less(demand, fits, Lever.CPU, "cpu_milli", 1000 if demand.cpu_milli > 1000 else 100),
            _shorter(demand, fits, durations_s),
        )
        if change is not None
    ]
    if found:
        return min(found, key=_given_up)
    return _anywhere(demand, fits) or _other_model(demand, models, fits)


def _given_up(change: Change) -> float:
    assert isinstance(change.asked, int)
    assert isinstance(change.instead, int)
    return 1 - change.instead / change.asked


def _greatest(below: int, fits: Callable[[int], bool]) -> int | None:
    """The greatest number from 1 to below - 1 that fits, by halving: what fits with more fits with less."""
    if below <= 1 or not fits(1):
        return None
    low, high = 1, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fewer_accelerators(demand: Demand, fits: Callable[[Demand], bool]) -> Change | None:
    asked = min(ask.count for ask in demand.asks)
    instead = _greatest(
        asked, lambda count: fits(replace(demand, asks=(Ask(models=demand.models, count=count),)))
    )
    return None if instead is None else Change(lever=Lever.ACCELERATORS, asked=asked, instead=instead)


def _fewer_nodes(demand: Demand, fits: Callable[[Demand], bool]) -> Change | None:
    instead = _greatest(demand.node_count, lambda count: fits(replace(demand, node_count=count)))
    return None if instead is None else Change(lever=Lever.NODES, asked=demand.node_count, instead=instead)


def _less(
    demand: Demand, fits: Callable[[Demand], bool], lever: Lever, column: str, step: int
) -> Change | None:
    asked: int = getattr(demand, column)
    steps = _greatest(
        -(-asked // step),
        lambda count: fits(replace(demand, **{column: count * step})),  # type: ignore[arg-type]
    )
    return None if steps is None else Change(lever=lever, asked=asked, instead=steps * step)


def _shorter(demand: Demand, fits: Callable[[Demand], bool], durations_s: Sequence[int]) -> Change | None:
    for shorter_s in sorted(set(durations_s), reverse=True):
        sensible = LEAST_DURATION_S <= shorter_s < demand.max_duration_s
        if sensible and fits(replace(demand, max_duration_s=shorter_s)):
            return Change(lever=Lever.DURATION, asked=demand.max_duration_s, instead=shorter_s)
    return None


def _anywhere(demand: Demand, fits: Callable[[Demand], bool]) -> Change | None:
    if demand.sites and fits(replace(demand, sites=())):
        return Change(lever=Lever.SITE, asked=", ".join(demand.sites), instead="any")
    return None


def _other_model(demand: Demand, models: Sequence[str], fits: Callable[[Demand], bool]) -> Change | None:
    count = min(ask.count for ask in demand.asks)
    for model in models:
        if not model or model in demand.models or (model == CPU_SLOT) != (CPU_SLOT in demand.models):
            continue
        if fits(replace(demand, asks=(Ask(models=(model,), count=count),))):
            return Change(lever=Lever.MODEL, asked=" or ".join(demand.models), instead=model)
    return None
