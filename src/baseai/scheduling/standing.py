"""A standing is the fleet, its leases and its queue as columns that are kept between cycles, with their policy.

Invariant: after `take_in` it says what the snapshot says, and nothing else: a lease of the snapshot holds its
accelerators, a run of its queue waits. What a cycle decides is taken back when it ends, and counts once the record says
so. Costs what has changed since the last snapshot, and a look at each row; a changed fleet is built anew.

A run that yields (a test of a node), or that has been asked to go, holds nothing here: it stands in `giving_way`, and
on `beside`, the hall with everything that is physically there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from baseai.ground.identity import RunId
from baseai.scheduling.fleet import Fleet, fleet_of, gang_of
from baseai.scheduling.gang import WHOLE, Gang, Shape, Terms
from baseai.scheduling.hall import Hall, Misplaced, Spot
from baseai.scheduling.plan import Explanation
from baseai.scheduling.policy.house import Agreed, House
from baseai.scheduling.policy.promise import Promise
from baseai.scheduling.policy.registry import packing_named
from baseai.scheduling.policy.seam import Running
from baseai.scheduling.policy.shares import Shares
from baseai.scheduling.power import watts_of
from baseai.scheduling.queue_tree import leaf_of
from baseai.scheduling.snapshot import LeaseRow, NodeRow, Snapshot, WaitingRun, seconds
from baseai.workloads.demand import Demand

_WITHOUT_STATE = attrgetter(*(name for name in NodeRow.__slots__ if name != "state"))
SEED = 42  # of what little chance a packing policy takes
PACKING = "blend"
EXPLAINED_ANEW_S = 60.0  # an explanation is worked out anew so long after it was
EXPLAINED_KEPT = 4096


class Part(NamedTuple):
    """What one run holds in one way: as many equal pods as it has on one model. Most runs are one part."""

    run_id: RunId
    running: Running
    ends_s: float
    saved_s: float | None
    rate: float

    def lost_accelerator_s(self, now_s: float) -> float:
        """Of its work, if it were stopped at once: since it saved, or since it started."""
        gang = self.running.gang
        kept_s = max(self.running.since_s, self.saved_s or 0.0)
        return gang.shape.milli_total / WHOLE * max(0.0, now_s - kept_s)


class _Like(NamedTuple):
    """What leases of one run have in common that are pods of one part."""

    model: str
    accelerators: int
    memory_mib: int
    disk_mib: int
    cpu_milli: int
    tenant_id: str
    ends_at: datetime
    yields: bool


@dataclass(slots=True, eq=False)
class _Held:
    """The leases of one run as they were last seen, and what became of them."""

    rows: tuple[LeaseRow, ...]
    keys: tuple[str, ...]  # of its parts


class Standing:
    """See the head of this file."""

    def __init__(self, packing: str = PACKING) -> None:
        self._packing = packing
        self._snapshot: Snapshot | None = None
        self._held: dict[RunId, _Held] = {}
        self._numbers: dict[RunId, int] = {}
        self._taken = set[int]()  # of them
        self._known_shapes: dict[Shape, Shape] = {}
        self._explained: dict[object, tuple[float, Explanation]] = {}
        self._is_too_large = False  # more is leased somewhere than is usable there
        self.parts: dict[str, Part] = {}  # that hold something, by the name under which the hall knows them
        self.giving_way: dict[str, Part] = {}
        self.waiting: dict[str, Gang] = {}
        self.runs: dict[str, WaitingRun] = {}  # of the queue, what the record says of each
        self.pinned: tuple[WaitingRun, ...] = ()  # tests that wait, in their order
        self.fleet: Fleet
        self.house: House

    @property
    def hall(self) -> Hall:
        return self.fleet.hall

    def beside(self) -> tuple[Hall, set[int]]:
        """The hall with those on it who give way, the hall itself where nobody does; O(rows + leases) where one does.

        With it the nodes on which more stands than is usable, so that nothing is clear there.
        """
        if not self.giving_way:
            return self.hall, set()
        found, full = self.hall.copy(), set[int]()
        for key, part in self.giving_way.items():
            try:
                found.place(key, part.running.gang.shape, self._spots_on(found, part), stands=True)
            except Misplaced:
                rows = [spot.row for spot in part.running.spots]
                full.update(int(found.node[row]) for row in rows)
                draws = Shape(pods=len(rows), watts=part.running.gang.shape.watts)
                found.place(f"{key} draws", draws, tuple(Spot(row) for row in rows), stands=True)
        return found, full

    def explained_before(self, alike: object, now_s: float) -> Explanation | None:
        """What was said of late to those in the same place."""
        found = self._explained.get(alike)
        return None if found is None or now_s - found[0] > EXPLAINED_ANEW_S else found[1]

    def keep_explained(self, alike: object, explanation: Explanation, now_s: float) -> None:
        if len(self._explained) >= EXPLAINED_KEPT:
            del self._explained[next(iter(self._explained))]
        self._explained[alike] = now_s, explanation

    # ------------------------------------------------------------------------------------------ taking in

    def take_in(self, snapshot: Snapshot, now_s: float) -> None:
        """Become what the snapshot says."""
        before, self._snapshot = self._snapshot, snapshot
        new_fleet = (
            before is None or not _same_nodes(before.nodes, snapshot.nodes) or before.watts != snapshot.watts
        )
        if new_fleet or not self._leases_fit(snapshot, now_s):
            self._build(snapshot, now_s)
        elif before is not None and (before.tree != snapshot.tree or before.worth != snapshot.worth):
            self._agree(snapshot, now_s)
        self.house.agree(
            Agreed(tree=snapshot.tree, calendar=snapshot.calendar, worth=snapshot.worth), self.house.shares
        )
        self._line_up(snapshot)
        written = {
            run_id: Promise(
                since_s=seconds(run.promised_since),
                by_s=None if run.promised_at is None else seconds(run.promised_at),
                on=run.promised_on,
            )
            for run_id, run in self.runs.items()
            if run.promised_since is not None
        }
        # What the last cycle promised may not be written yet.
        self.house.promised = written | {
            run_id: promise for run_id, promise in self.house.promised.items() if run_id in self.waiting
        }

    def _build(self, snapshot: Snapshot, now_s: float) -> None:
        """All columns anew."""
        self.fleet = fleet_of(
            snapshot.nodes, snapshot.watts, [lease for lease in snapshot.leases if not lease.yields]
        )
        self._is_too_large = self.fleet.is_stretched
        hall, rng = self.fleet.hall, np.random.Generator(np.random.PCG64(SEED))
        self.house = House(hall, rng, packing_named(self._packing)(hall, rng))
        self._known_shapes, self._explained = {}, {}
        self._held, self.parts, self.giving_way, self.waiting, self.runs = {}, {}, {}, {}, {}
        self._agree(snapshot, now_s)
        self._hold(snapshot)

    def _agree(self, snapshot: Snapshot, now_s: float) -> None:
        """Shares of another tree: everybody who holds or waits is told to it again."""
        at_s = now_s if snapshot.usage_at_s is None else snapshot.usage_at_s
        shares = Shares(snapshot.tree, {}, snapshot.usage_s, worth=snapshot.worth, now_s=at_s)
        for part in self.parts.values():
            shares.started(part.running.gang, part.running.model)
        for gang in self.waiting.values():
            shares.join(gang)
        self.house.agree(Agreed(tree=snapshot.tree), shares)

    def _leases_fit(self, snapshot: Snapshot, now_s: float) -> bool:
        """Take the leases in; False where the hall is too small for them, or larger than it should be."""
        if self._is_too_large:
            return False
        self.house.shares.reckon(now_s)  # with what was held until now
        self.hall.open_rows(_ready(self.hall, snapshot.nodes))
        try:
            self._hold(snapshot)
        except Misplaced:
            return False
        return True

    def _hold(self, snapshot: Snapshot) -> None:
        by_run: dict[RunId, list[LeaseRow]] = {}
        for lease in snapshot.leases:
            by_run.setdefault(lease.run_id, []).append(lease)
        for run_id in [run_id for run_id in self._held if run_id not in by_run]:
            self._let_go(run_id)
        changed = []
        for run_id, leases in by_run.items():
            rows, held = tuple(leases), self._held.get(run_id)
            if held is None or held.rows != rows:
                if held is not None:
                    self._let_go(run_id)
                changed.append((run_id, rows))
        for run_id, rows in changed:
            self._take_hold(run_id, rows, snapshot)

    def _let_go(self, run_id: RunId) -> None:
        for key in self._held.pop(run_id).keys:
            if self.giving_way.pop(key, None) is None:
                part = self.parts.pop(key)
                self.hall.remove(key)
                self.house.ended(part.running.gang)

    def _take_hold(self, run_id: RunId, rows: tuple[LeaseRow, ...], snapshot: Snapshot) -> None:
        alike: dict[_Like, list[LeaseRow]] = {}
        for lease in rows:
            key = _Like(
                lease.model, lease.count, lease.memory_mib, lease.disk_mib, lease.cpu_milli, lease.tenant_id,
                lease.ends_at, lease.yields,
            )  # fmt: skip
            alike.setdefault(key, []).append(lease)
        names = tuple(run_id if number == 0 else f"{run_id}/{number}" for number in range(len(alike)))
        self._held[run_id] = _Held(rows, names)
        for name, (key, leases) in zip(names, alike.items(), strict=True):
            part = self._part(name, key, leases, snapshot)
            if leases[0].yields:
                self.giving_way[name] = part
                continue
            shape = part.running.gang.shape
            spots = self._spots_on(self.hall, part)
            self.hall.place(name, shape, spots, stands=True)
            running = part.running._replace(spots=spots)
            self.parts[name] = part._replace(running=running)
            self.house.runs(running, part.ends_s, saved_s=part.saved_s, rate=part.rate)

    def _part(self, name: str, key: _Like, leases: list[LeaseRow], snapshot: Snapshot) -> Part:
        first = leases[0]
        granted_s = seconds(first.granted_at or first.ends_at)
        gang = Gang(
            run_id=name,
            number=self._number(first.run_id, first.enqueued_at or first.granted_at),
            shape=Shape(
                pods=len(leases),
                milli=key.accelerators * WHOLE,
                cpu_milli=key.cpu_milli,
                memory_mib=key.memory_mib,
                disk_mib=key.disk_mib,
                watts=watts_of((key.model,), key.accelerators, snapshot.watts),
                models=(key.model,),
                one_model=True,
                apart=len(leases) > 1 and len({lease.node_id for lease in leases}) == len(leases),
                tenant="" if self.fleet.all_shared else first.tenant_id,
            ),
            submit_s=granted_s,
            group=first.tenant_id,
            terms=Terms(
                queue=leaf_of(first.tenant_id, first.queue),
                owner=first.tenant_id,
                priority=first.priority,
                min_runtime_s=float(first.min_runtime_s),
                spot=first.spot,
            ),
        )
        spots = tuple(Spot(self.fleet.row_of[lease.node_id, lease.model]) for lease in leases)
        return Part(
            run_id=first.run_id,
            running=Running(gang, granted_s, spots, key.model, 0),
            ends_s=max(seconds(lease.ends_at) for lease in leases),
            saved_s=None if first.saved_at is None else seconds(first.saved_at),
            rate=snapshot.worth.get(key.model, 1.0),
        )

    def _spots_on(self, hall: Hall, part: Part) -> tuple[Spot, ...]:
        """Its rows with accelerators that are free there: which ones they truly are is the record's affair."""
        shape = part.running.gang.shape
        taken: dict[int, int] = {}
        spots = []
        for spot in part.running.spots:
            skip = taken.get(spot.row, 0)
            whole = [device for device, milli in enumerate(hall.free[spot.row].tolist()) if milli == WHOLE]
            spots.append(Spot(spot.row, tuple(whole[skip : skip + shape.devices])))
            taken[spot.row] = skip + shape.devices
        return tuple(spots)

    # ------------------------------------------------------------------------------------------ the queue

    def _line_up(self, snapshot: Snapshot) -> None:
        wanted: dict[str, WaitingRun] = {
            run.demand.run_id: run for run in snapshot.waiting if not run.demand.yields
        }
        for gone in [run_id for run_id in self.waiting if run_id not in wanted]:
            self.house.shares.leave(self.waiting.pop(gone))
        for run_id, run in wanted.items():
            known = self.runs.get(run_id)
            if run_id in self.waiting:
                if known is not None and (known.demand is run.demand or known.demand == run.demand):
                    continue
                self.house.shares.leave(self.waiting.pop(run_id))
            number = self._number(run.demand.run_id, run.enqueued_at)
            gang = gang_of(run, number, self._shapes_of(run.demand), snapshot.worth)
            self.waiting[run_id] = gang
            self.house.comes(gang)
        self.runs = wanted
        pinned = [run for run in snapshot.waiting if run.demand.yields]
        self.pinned = tuple(sorted(pinned, key=_test_order))
        still = self.waiting.keys() | self._held.keys()
        if len(self._numbers) > 2 * len(still) + 1000:
            self._numbers = {run_id: number for run_id, number in self._numbers.items() if run_id in still}
            self._taken = set(self._numbers.values())

    def _shapes_of(self, demand: Demand) -> tuple[Shape, ...]:
        """The same objects for equal demands, so that they are told to be equal at a glance."""
        return tuple(self._known_shapes.setdefault(shape, shape) for shape in self.fleet.shapes_of(demand))

    def _number(self, run_id: RunId, since: datetime | None) -> int:
        """Of one run alone, by the microsecond in which it came: whoever builds a standing anew gives it the same."""
        if run_id not in self._numbers:
            number = 0 if since is None else round(seconds(since) * 1e6)
            while number in self._taken:
                number += 1
            self._numbers[run_id] = number
            self._taken.add(number)
        return self._numbers[run_id]


def _test_order(run: WaitingRun) -> tuple[int, datetime, str]:
    return (-run.demand.priority, run.enqueued_at, run.demand.run_id)


def _same_nodes(before: Iterable[NodeRow], now: Iterable[NodeRow]) -> bool:
    """But for the state of their lifecycle, which opens and closes rows."""
    return [_WITHOUT_STATE(node) for node in before] == [_WITHOUT_STATE(node) for node in now]


def _ready(hall: Hall, nodes: Iterable[NodeRow]) -> np.ndarray:
    ready = {node.node_id for node in nodes if node.state == "ready"}
    return np.array([node_id in ready for node_id in hall.node_ids], dtype=np.bool_)
