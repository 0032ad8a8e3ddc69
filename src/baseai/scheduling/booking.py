"""A booking is the start that a waiting run is sure of, and the capacity it will then take.

Invariant: `left` is what that start leaves free at that instant, so a run that outlives the instant may start
now only if it fits into `left` as well. Made within one cycle, for that cycle; `decide` subtracts from `left`
what it grants to runs that outlive the start.
"""

from dataclasses import dataclass, replace

import numpy as np

from baseai.ground.identity import RunId
from baseai.scheduling.place import Placement, place, take
from baseai.scheduling.snapshot import Capacity, Holdings, Ints, Snapshot, less
from baseai.workloads.demand import Demand


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Booking:
    """When a waiting run starts at the latest if no node is lost, and what is left beside it then."""

    run_id: RunId
    model: str
    starts_us: int  # µs since the epoch
    left: Capacity


class Held:
    """The leases that stand at this point of a cycle: the snapshot's, and those granted since."""

    def __init__(self, leases: Holdings) -> None:
        self._settled = leases
        self._granted: list[tuple[Ints, ...]] = []

    def add(self, placement: Placement, demand: Demand, snapshot: Snapshot, ends_us: int) -> None:
        """Note a gang granted in this cycle."""
        each = (
            placement.count,
            demand.memory_mib,
            demand.disk_mib,
            demand.cpu_milli,
            snapshot.tenants[demand.tenant_id],
            ends_us,
        )
        size = len(placement.bays)
        self._granted.append(
            (placement.bays, placement.nodes, *(np.full(size, amount, dtype=np.int64) for amount in each))
        )

    def columns(self) -> Holdings:
        """All of them as columns. The granted ones are folded in once, not again and again."""
        if self._granted:
            old = self._settled
            parts = [
                np.concatenate(column)
                for column in zip(
                    (
                        old.bay,
                        old.node,
                        old.count,
                        old.memory_mib,
                        old.disk_mib,
                        old.cpu_milli,
                        old.tenant,
                        old.ends_us,
                    ),
                    *self._granted,
                    strict=True,
                )
            ]
            self._settled = Holdings(
                bay=parts[0],
                node=parts[1],
                count=parts[2],
                memory_mib=parts[3],
                disk_mib=parts[4],
                cpu_milli=parts[5],
                tenant=parts[6],
                ends_us=parts[7],
            )
            self._granted = []
        return self._settled


def booking_of(demand: Demand, snapshot: Snapshot, held: Held, now_us: int) -> Booking:
    """The earliest start that the ends of leases make sure, for a run that an empty fleet could take.

    Leases end at their `ends_us` at the latest; an overdue one is taken to end now. O(log leases) placements.
    """
    leases = held.columns()
    placed = _first_start(demand, snapshot, leases, now_us)
    if placed is None:
        raise ValueError(f"{demand.run_id} does not fit even when every lease has ended")
    starts_us, placement, left = placed
    take(placement, demand, snapshot, left)
    return Booking(run_id=demand.run_id, model=placement.model, starts_us=starts_us, left=left)


def earliest_start_us(demand: Demand, snapshot: Snapshot, held: Held, now_us: int) -> int | None:
    """When the ends of leases alone would let this run start, had it the queue to itself."""
    placed = _first_start(demand, snapshot, held.columns(), now_us)
    return None if placed is None else placed[0]


def _first_start(
    demand: Demand, snapshot: Snapshot, leases: Holdings, now_us: int
) -> tuple[int, Placement, Capacity] | None:
    # What is free only grows as leases end, so the first sufficient end is found by halving.
    ends = np.sort(np.maximum(leases.ends_us, now_us))
    low, high = 0, len(ends)
    best: tuple[int, Placement, Capacity] | None = None
    while low < high:
        middle = (low + high) // 2
        capacity = _free_after(snapshot, leases, int(ends[middle]))
        placement = place(demand, snapshot, capacity, (), usable=snapshot.ready)
        if placement is None:
            low = middle + 1
        else:
            best = (int(ends[middle]), placement, capacity)
            high = middle
    return best


def _free_after(snapshot: Snapshot, leases: Holdings, at_us: int) -> Capacity:
    kept = leases.ends_us > at_us
    return less(
        snapshot.total,
        replace(leases, **{name: getattr(leases, name)[kept] for name in leases.__slots__}),
    )
