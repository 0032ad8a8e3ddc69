"""An explanation is why a run waits: nodes failing each constraint, the cheapest change, and when it may start.

Invariant: a change named here does start the run if it is made and nothing else moves: each is tried by the
same `place` that grants. Reads capacity and changes none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from baseai.scheduling.booking import Booking, Held, earliest_start_us
from baseai.scheduling.place import Constraint, on_site, options, place, tenant_may_join
from baseai.scheduling.plan import Change, Explanation, Lever
from baseai.scheduling.snapshot import Bools, Capacity, Snapshot
from baseai.workloads.demand import CPU_SLOT, Ask, Demand

LEAST_DURATION_S = 60  # a shorter run than this is no advice
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def explanation_of(
    demand: Demand,
    snapshot: Snapshot,
    free: Capacity,
    bookings: Sequence[Booking],
    held: Held,
    now_us: int,
    *,
    own: Booking | None,
    behind: Booking | None,
) -> Explanation:
    """Why `demand` waits, where `free` is left at the end of the cycle and `bookings` were made ahead of it.

    own: the booking it holds itself; behind: the one it would put off.
    """

    def starts_with(changed: Demand) -> bool:
        ends_us = now_us + changed.max_duration_s * 1_000_000
        left = [booking.left for booking in bookings if ends_us > booking.starts_us]
        return place(changed, snapshot, free, left, usable=snapshot.ready) is not None

    failing, fitting = nodes_failing(demand, snapshot, free, usable=snapshot.ready)
    ends = [max(0, booking.starts_us - now_us) // 1_000_000 for booking in bookings]
    if own is not None:
        earliest_us: int | None = own.starts_us
    elif behind is not None:
        earliest_us = behind.starts_us
    else:
        earliest_us = earliest_start_us(demand, snapshot, held, now_us)
    return Explanation(
        nodes_failing=failing,
        nodes_fitting=fitting,
        nodes_needed=demand.node_count,
        change=cheapest_change(demand, snapshot, starts_with, durations_s=ends),
        earliest_at=None if earliest_us is None else _EPOCH + timedelta(microseconds=earliest_us),
        latest_at=None if own is None else _EPOCH + timedelta(microseconds=own.starts_us),
    )


def nodes_failing(
    demand: Demand, snapshot: Snapshot, free: Capacity, *, usable: Bools
) -> tuple[tuple[tuple[Constraint, int], ...], int]:
    """How many nodes fail each constraint first, and how many fail none.

    A node has the model if it has any of those asked for, and enough if any of the options fits on it.
    """
    left = np.ones(len(snapshot.node_ids), dtype=np.bool_)
    counts = []
    for constraint, passes in _sieves(demand, snapshot, free, usable):
        failed = int(np.count_nonzero(left & ~passes))
        if failed:
            counts.append((constraint, failed))
        left &= passes
    return tuple(counts), int(np.count_nonzero(left))


def _sieves(
    demand: Demand, snapshot: Snapshot, free: Capacity, usable: Bools
) -> Iterator[tuple[Constraint, Bools]]:
    has_model = np.zeros(len(snapshot.node_ids), dtype=np.bool_)
    has_enough = has_model.copy()
    for model, count in options(demand):
        bays = slice(*snapshot.bay_span.get(model, (0, 0)))
        nodes = snapshot.bay_node[bays]
        has_model[nodes] = True
        has_enough[nodes] |= free.accelerators[bays] >= count
    yield Constraint.STATE, usable
    yield Constraint.SITE, on_site(demand, snapshot)
    yield Constraint.MODEL, has_model
    yield Constraint.ACCELERATORS, has_enough
    yield Constraint.MEMORY, free.memory_mib >= demand.memory_mib
    yield Constraint.DISK, free.disk_mib >= demand.disk_mib
    yield Constraint.CPU, free.cpu_milli >= demand.cpu_milli
    yield Constraint.TENANT, tenant_may_join(demand, snapshot, free.tenant, snapshot.shared)
    if demand.needs_container:
        yield Constraint.CONTAINER, snapshot.container


def cheapest_change(
    demand: Demand, snapshot: Snapshot, fits: Callable[[Demand], bool], *, durations_s: Sequence[int] = ()
) -> Change | None:
    """The single change that gives up least of what was asked and with which `fits` says yes, or None.

    What is given up is measured as the part of the figure asked for; another site and another model come last.
    durations_s: maximum durations worth trying, because a booking starts there.
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
    return _anywhere(demand, fits) or _other_model(demand, snapshot, fits)


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


def _other_model(demand: Demand, snapshot: Snapshot, fits: Callable[[Demand], bool]) -> Change | None:
    count = min(ask.count for ask in demand.asks)
    for model in snapshot.bay_span:
        if model in demand.models or (model == CPU_SLOT) != (CPU_SLOT in demand.models):
            continue
        if fits(replace(demand, asks=(Ask(models=(model,), count=count),))):
            return Change(lever=Lever.MODEL, asked=" or ".join(demand.models), instead=model)
    return None
