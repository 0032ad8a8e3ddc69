"""The decision: one pass over the queue, granting what fits and booking a start for the first that does not.

Invariant: `decide` is pure, and its plan grants no accelerator twice, no part of a gang, and nothing that would
put off the first run that has to wait.

The head of the queue (the first run that does not fit) books the capacity it will get when the leases before it
end. A later run may start only if it ends by then, or leaves the booked capacity alone. For every further
accelerator model the first run waiting for it books likewise, so that no model's queue starves behind another's.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from baseai.ground.identity import RunId
from baseai.scheduling.booking import Booking, Held, booking_of
from baseai.scheduling.explain import explanation_of
from baseai.scheduling.place import Placement, permitted, place, take
from baseai.scheduling.plan import Explanation, Grant, Plan, Wait, WaitKind
from baseai.scheduling.snapshot import Bools, Capacity, Snapshot, micros
from baseai.workloads.demand import Demand

EXPLAINED_MOST = 100  # different explanations worked out in one cycle; `explain` gives the others when asked

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
    held: Held
    bookings: list[Booking]
    grants: list[Grant]
    waiting: list[_Waiting]


def decide(snapshot: Snapshot, now: datetime, *, explained_most: int = EXPLAINED_MOST) -> Plan:
    """Who starts now, and why each of the others waits.

    Order: priority, then time of submission, then run id. `now` is an aware instant. Runs with equal demands
    fail together, so the cost is O(different demands x bays), not O(queue x bays), plus O(bays) per grant.
    """
    cycle = _served(snapshot, now)
    explanations: dict[Likeness, Explanation] = {}
    waits = []
    for ahead, waiting in enumerate(cycle.waiting):
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
    return Plan(grants=tuple(cycle.grants), waits=tuple(waits))


def explain(snapshot: Snapshot, now: datetime, run_id: RunId) -> Wait | Grant | None:
    """The wait of one run with its explanation, whatever the bound; its grant if it starts; None if not queued."""
    cycle = _served(snapshot, now)
    for ahead, waiting in enumerate(cycle.waiting):
        if waiting.demand.run_id == run_id:
            return _wait(waiting, ahead, _explanation(waiting, snapshot, cycle, now))
    return next((grant for grant in cycle.grants if grant.run_id == run_id), None)


def _served(snapshot: Snapshot, now: datetime) -> _Cycle:
    now_us = micros(now)
    cycle = _Cycle(free=snapshot.free.copy(), held=Held(snapshot.leases), bookings=[], grants=[], waiting=[])
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
                for capacity in (cycle.free, *left):
                    take(placement, demand, snapshot, capacity)
                cycle.held.add(placement, demand, snapshot, ends_us)
                cycle.grants.append(_grant(placement, demand, snapshot, now))
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
    return cycle


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
