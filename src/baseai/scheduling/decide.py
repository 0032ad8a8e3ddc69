"""The decision: one pass over the queue, granting what fits and booking a start for the first that does not.

Invariant: `decide` is pure, and its plan grants no accelerator twice, no part of a gang, and nothing that would
put off the first run that has to wait.

The head of the queue (the first run that does not fit) books the capacity it will get when the leases before it
end. A later run may start only if it ends by then, or leaves the booked capacity alone. For every further
accelerator model the first run waiting for it books likewise, so that no model's queue starves behind another's.

Runs that yield (tests of nodes) do not exist for all this: everybody else is placed, booked and explained as if
they held nothing. Where such a placement stands on what they hold and no like one stands beside it, they are
evicted, and the run starts in the cycle after their processes are gone. They themselves get what is left over.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from baseai.ground.identity import RunId
from baseai.scheduling.booking import Booking, Held, booking_of
from baseai.scheduling.explain import explanation_of
from baseai.scheduling.place import Placement, permitted, place, take
from baseai.scheduling.plan import Explanation, Grant, Plan, Wait, WaitKind
from baseai.scheduling.snapshot import Bools, Capacity, Snapshot, micros
from baseai.workloads.demand import Ask, Demand

EXPLAINED_MOST = 100  # different explanations worked out in one cycle; `explain` gives the others when asked

UNEXPLAINED = (WaitKind.CLEARING, WaitKind.OWN_NODE)  # the kind says it all

Likeness = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiting:
    demand: Demand
    likeness: int
    kind: WaitKind
    behind: Booking | None
    own: Booking | None
    bookings_ahead: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cycle:
    """What a cycle has come to so far. Its arrays and lists are this cycle's own."""

    free: Capacity
    beside: Capacity  # what of `free` no run that yields stands on; `free` itself where none does
    held: Held
    bookings: list[Booking]
    grants: list[Grant]
    waiting: list[_Waiting]
    evictions: dict[RunId, None]
    clearing: set[
        int
    ]  # numbers of nodes on which somebody is evicted: what is placed there starts afterwards


def decide(snapshot: Snapshot, now: datetime, *, explained_most: int = EXPLAINED_MOST) -> Plan:
    """Who starts now, and why each of the others waits.

    Order: priority, then time of submission, then run id. `now` is an aware instant. Runs with equal demands
    fail together, so the cost is O(different demands x bays), not O(queue x bays), plus O(bays) per grant.
    """
    cycle = _served(snapshot, now)
    explanations: dict[Likeness, Explanation] = {}
    waits = []
    for ahead, waiting in enumerate(cycle.waiting):
        if waiting.kind in UNEXPLAINED:
            waits.append(_wait(waiting, ahead, None))
            continue
        alike = (
            waiting.likeness,
            waiting.demand.max_duration_s,
            waiting.bookings_ahead,
            waiting.own is not None,
        )
        explanation = explanations.get(alike)
        if explanation is None and len(explanations) < explained_most:
            explanation = explanations[alike] = _explanation(waiting, snapshot, cycle, now)
        waits.append(_wait(waiting, ahead, explanation))
    return Plan(grants=tuple(cycle.grants), waits=tuple(waits), evictions=tuple(cycle.evictions))


def explain(snapshot: Snapshot, now: datetime, run_id: RunId) -> Wait | Grant | None:
    """The wait of one run with its explanation, whatever the bound; its grant if it starts; None if not queued."""
    cycle = _served(snapshot, now)
    for ahead, waiting in enumerate(cycle.waiting):
        if waiting.demand.run_id == run_id:
            explained = waiting.kind not in UNEXPLAINED
            return _wait(waiting, ahead, _explanation(waiting, snapshot, cycle, now) if explained else None)
    return next((grant for grant in cycle.grants if grant.run_id == run_id), None)


def _served(snapshot: Snapshot, now: datetime) -> _Cycle:
    now_us = micros(now)
    free = snapshot.free.copy()
    cycle = _Cycle(
        free=free,
        beside=free if snapshot.beside is snapshot.free else snapshot.beside.copy(),
        held=Held(snapshot.leases),
        bookings=[],
        grants=[],
        waiting=[],
        evictions={},
        clearing=set(),
    )
    hopeless: dict[Likeness, tuple[WaitKind, Booking | None]] = {}
    permits: dict[Likeness, Bools] = {}
    booked: set[str] = set()
    for run, likeness in zip(snapshot.waiting, snapshot.likeness, strict=True):
        demand = run.demand
        ends_us = now_us + demand.max_duration_s * 1_000_000
        outlived = [booking for booking in cycle.bookings if ends_us > booking.starts_us]
        # Capacity only shrinks within a cycle, so what failed once fails again.
        alike = (likeness, *[booking.run_id for booking in outlived])
        known = hopeless.get(alike)
        if known is None:
            left = [booking.left for booking in outlived]
            where = (demand.sites, demand.residency, demand.needs_container)
            if where not in permits:
                permits[where] = permitted(demand, snapshot, snapshot.ready)
            placement = place(
                demand, snapshot, cycle.free, left, usable=snapshot.ready, allowed=permits[where]
            )
            if placement is not None:
                placement, clear = _cleared(placement, demand, snapshot, cycle, left, permits[where])
                for capacity in (cycle.free, *left):
                    take(placement, demand, snapshot, capacity)
                if cycle.beside is not cycle.free:
                    take(placement, demand, snapshot, cycle.beside)
                cycle.held.add(placement, demand, snapshot, ends_us)
                if clear:
                    cycle.grants.append(_grant(placement, demand, snapshot, now))
                else:
                    cycle.waiting.append(_clearing(demand, likeness, len(cycle.bookings)))
                continue
            known = hopeless[alike] = _kind(demand, snapshot, cycle.free, outlived, permits[where])
        kind, behind = known
        ahead, own = len(cycle.bookings), None
        if kind is WaitKind.SHORT and booked.isdisjoint(snapshot.models_of[likeness]):
            own = booking_of(demand, snapshot, cycle.held, now_us)
            cycle.bookings.append(own)
            booked.add(own.model)
        cycle.waiting.append(
            _Waiting(
                demand=demand, likeness=likeness, kind=kind, behind=behind, own=own, bookings_ahead=ahead
            )
        )
    _serve_pinned(cycle, snapshot, now)
    return cycle


def _cleared(
    placement: Placement,
    demand: Demand,
    snapshot: Snapshot,
    cycle: _Cycle,
    left: list[Capacity],
    allowed: Bools,
) -> tuple[Placement, bool]:
    """The placement, or one as good that evicts nobody, and whether all of it is clear now.

    As good means the same model and number on nodes that are as tight: neither this run nor a later one gets less
    because a test was there first. Where there is none, the runs that yield on these nodes are evicted and leave
    `beside`.
    """
    if cycle.beside is cycle.free:
        return placement, True
    alike = replace(demand, asks=(Ask(models=(placement.model,), count=placement.count),))
    beside = place(alike, snapshot, cycle.beside, [cycle.free, *left], usable=snapshot.ready, allowed=allowed)
    if beside is not None and _as_tight(beside, placement, cycle.free):
        return beside, cycle.clearing.isdisjoint(beside.nodes.tolist())
    for node in placement.nodes.tolist():
        cycle.clearing.add(node)
        held = np.flatnonzero(snapshot.yielding.node == node).tolist()
        cycle.evictions.update(dict.fromkeys(snapshot.yielding_runs[lease] for lease in held))
        _give_back(node, snapshot, cycle)
    return placement, False


def _as_tight(one: Placement, other: Placement, free: Capacity) -> bool:
    return bool(np.array_equal(np.sort(free.accelerators[one.bays]), np.sort(free.accelerators[other.bays])))


def _give_back(node: int, snapshot: Snapshot, cycle: _Cycle) -> None:
    """Make what yields on one node disappear from `beside`."""
    bays = snapshot.bay_node == node
    cycle.beside.accelerators[bays] = cycle.free.accelerators[bays]
    for name in ("memory_mib", "disk_mib", "cpu_milli", "tenant"):
        getattr(cycle.beside, name)[node] = getattr(cycle.free, name)[node]


def _serve_pinned(cycle: _Cycle, snapshot: Snapshot, now: datetime) -> None:
    """Give what nobody else starts on to the runs that yield, each on its own node."""
    if not snapshot.waiting_pinned:
        return
    over = cycle.beside.copy()  # a copy, for nobody's wait is explained by what yields
    number_of = {node_id: number for number, node_id in enumerate(snapshot.node_ids)}
    for run in snapshot.waiting_pinned:
        demand = run.demand
        usable = np.zeros(len(snapshot.node_ids), dtype=np.bool_)
        if demand.pinned in number_of:
            number = number_of[demand.pinned]
            usable[number] = snapshot.testable[number]
        placement = place(demand, snapshot, over, (), usable=usable)
        if placement is None:
            cycle.waiting.append(
                _Waiting(
                    demand=demand,
                    likeness=-1,
                    kind=WaitKind.OWN_NODE,
                    behind=None,
                    own=None,
                    bookings_ahead=len(cycle.bookings),
                )
            )
            continue
        take(placement, demand, snapshot, over)
        cycle.grants.append(_grant(placement, demand, snapshot, now))


def _clearing(demand: Demand, likeness: int, bookings_ahead: int) -> _Waiting:
    return _Waiting(
        demand=demand,
        likeness=likeness,
        kind=WaitKind.CLEARING,
        behind=None,
        own=None,
        bookings_ahead=bookings_ahead,
    )


def _kind(
    demand: Demand, snapshot: Snapshot, free: Capacity, outlived: list[Booking], allowed: Bools
) -> tuple[WaitKind, Booking | None]:
    def fits(capacity: Capacity, also: list[Capacity]) -> bool:
        placed = place(demand, snapshot, capacity, also, usable=snapshot.ready, allowed=allowed)
        return placed is not None

    if not fits(snapshot.total, []):
        return WaitKind.NEVER, None
    if not fits(free, []):
        return WaitKind.SHORT, None
    # It fits now, so some booking is in the way: the first without which less is left than it needs.
    for number, booking in enumerate(outlived):
        if not fits(free, [earlier.left for earlier in outlived[: number + 1]]):
            return WaitKind.HELD, booking
    raise AssertionError("a run that fits beside every booking was not granted")


def _grant(placement: Placement, demand: Demand, snapshot: Snapshot, now: datetime) -> Grant:
    return Grant(
        run_id=demand.run_id,
        places=tuple(
            (snapshot.node_ids[node], placement.model, placement.count) for node in placement.nodes.tolist()
        ),
        ends_at=now.astimezone(UTC) + timedelta(seconds=demand.max_duration_s),
    )


def _wait(waiting: _Waiting, ahead: int, explanation: Explanation | None) -> Wait:
    return Wait(
        run_id=waiting.demand.run_id,
        position=ahead + 1,
        ahead=ahead,
        kind=waiting.kind,
        behind=None if waiting.behind is None else waiting.behind.run_id,
        explanation=explanation,
    )


def _explanation(waiting: _Waiting, snapshot: Snapshot, cycle: _Cycle, now: datetime) -> Explanation:
    return explanation_of(
        waiting.demand,
        snapshot,
        cycle.free,
        cycle.bookings[: waiting.bookings_ahead],
        cycle.held,
        micros(now),
        own=waiting.own,
        behind=waiting.behind,
    )
