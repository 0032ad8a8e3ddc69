"""A world is a small fleet that lives cycle by cycle: runs come, end, are cancelled and stopped; nodes fail and return.

It is all there is to a platform but its database: what a plan decides is written down as rows, and the next snapshot is
made of them. Everything is drawn from one seed, which says it all again.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.calendar import Bay, Calendar, claims_of
from baseai.scheduling.maintenance import Window
from baseai.scheduling.oversold import Oversold, admit
from baseai.scheduling.plan import Grant, Plan, Wait
from baseai.scheduling.queue_tree import Queue, QueueTree, leaf_of
from baseai.scheduling.record import promised_in, wait_record
from baseai.scheduling.reservation import Reservation, ReservationKind
from baseai.scheduling.snapshot import LeaseRow, NodeRow, Snapshot, WaitingRun, seconds, snapshot_of
from baseai.workloads.demand import Ask, Demand
from baseai.workloads.spec import Topology
from tests.scheduling.fleet import H100, NOON, gang, node

L4 = "L4"
OWNERS = {"ours": "acme", "theirs": "globex", "below": "globex"}  # of queues
WATTS = {H100: 1000, L4: 100}
WORTH = {H100: 4.0, L4: 1.0}
MINUTE = timedelta(minutes=1)


class World:
    """See the head of this file."""

    def __init__(self, seed: int, *, calm: bool = False) -> None:
        """calm: nothing fails or is reserved, and nobody may stop another."""
        self.rng = random.Random(seed)
        self.calm = calm
        self.now = NOON
        self.nodes = [self._node(name) for name in "abcdef"[: self.rng.randint(2, 6)]]
        self.tree = QueueTree() if calm else self._tree()
        self._book()
        self.demands: dict[RunId, Demand] = {}
        self.enqueued: dict[RunId, datetime] = {}
        self.told: dict[RunId, Wait] = {}  # as the last cycle wrote it down
        self.waiting: set[RunId] = set()
        self.leases: dict[RunId, list[LeaseRow]] = {}
        self.lasts: dict[RunId, timedelta] = {}  # how long each truly runs

    # ---- what there is

    def _node(self, name: str) -> NodeRow:
        rng = self.rng
        has: tuple[tuple[str, int], ...] = rng.choice(
            (((H100, 4),), ((H100, 4),), ((H100, 2),), ((L4, 4),), ((H100, 2), (L4, 2)))
        )
        rack = rng.choice(("", "r1", "r2"))
        return node(
            name, accelerators=has, isolation=rng.choice(("user", "user", "none")), memory_mib=1024,
            disk_mib=1024, cpu_milli=8000, rack=rack, watts={"": None, "r1": 6000, "r2": 12_000}[rack],
            leaf=rng.choice(("l1", "l2")), pod="p", has_container_runtime=rng.random() < 0.8,
        )  # fmt: skip

    def _tree(self) -> QueueTree:
        rng = self.rng
        if rng.random() < 0.3:
            return QueueTree()
        amount = {"ours": rng.choice((0, 2, 4, 8)), "theirs": rng.choice((4, 8)), "below": rng.choice((0, 4))}
        quotas: dict[str, dict[str, int]] = {
            name: {H100: count} if rng.random() < 0.8 or name == "theirs" else {}
            for name, count in amount.items()
        }
        limits = {name: {H100: 12} if rng.random() < 0.3 else {} for name in amount}
        return QueueTree(
            tuple(
                Queue(
                    name=name, parent="theirs" if name == "below" else "root", weight=rng.choice((1.0, 3.0)),
                    quota=quotas[name], limit=limits[name],
                )
                for name in amount
            )
        )  # fmt: skip

    def _book(self) -> None:
        """Windows and reservations of which there is enough, as those are refused of which there is not."""
        rng, noon_s = self.rng, seconds(NOON)
        self.windows: list[Window] = []
        self.reservations: list[Reservation] = []
        if rng.random() < 0.3:
            from_s = noon_s + rng.choice((900, 2400))
            self.windows.append(
                Window(
                    maintenance_id="mnt-1", node_ids=(rng.choice(self.nodes).node_id,), site=None, from_s=from_s,
                    until_s=from_s + 1200, notice_s=86_400.0 if self.calm else rng.choice((600.0, 3600.0)), why="fans",
                )
            )  # fmt: skip
        bays = [Bay(each.node_id, each.site, *has) for each in self.nodes for has in each.accelerators]
        for number in range(0 if self.calm else rng.choice((0, 0, 1, 2))):
            from_s = noon_s + rng.choice((600, 1800, 3600))
            asked = Reservation(
                reservation_id=f"rsv-{number}", name=f"exam-{number}", tenant_id="acme", nodes=rng.randint(1, 2),
                accelerators=rng.choice((1, 2, 4)), model=H100, site="SP4", from_s=from_s,
                until_s=from_s + rng.choice((600, 3600)), kind=ReservationKind.TAKE_OR_PAY, forfeit_after_s=None,
            )  # fmt: skip
            booked = Calendar(bays=bays, reservations=self.reservations, windows=self.windows, holdings=[])
            if not isinstance(admit(asked, booked, noon_s), Oversold):
                self.reservations.append(asked)

    # ---- what happens

    def happen(self) -> None:
        """Time passes, and a few things with it."""
        rng = self.rng
        then = self.now + timedelta(seconds=rng.choice((1, 30, 300, 900)))
        ends = [rows[0].ends_at for rows in self.leases.values()]
        self.now = min([then, *ends]) if self.calm else then
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            self.submit()
        for run_id in sorted(self.waiting):
            if rng.random() < 0.04:
                self.waiting.discard(run_id)
        for run_id, rows in sorted(self.leases.items()):
            if self.now >= rows[0].ends_at or rng.random() < 0.08:
                del self.leases[run_id]
            elif rows[0].yields and rng.random() < 0.6:
                self.stop(run_id)
            elif rng.random() < 0.1:
                self.leases[run_id] = [replace(row, saved_at=self.now) for row in rows]
        self._change_nodes()

    def _change_nodes(self) -> None:
        rng = self.rng
        away = {
            node_id
            for window in self.windows
            if window.from_s <= seconds(self.now) < window.until_s
            for node_id in window.node_ids
        }
        for place, each in enumerate(self.nodes):
            state = each.state
            if each.node_id in away:
                state = "repairing"
            elif state == "repairing" and self.calm:
                state = "ready"
            elif not self.calm and (state == "repairing" or rng.random() < 0.2):
                state = rng.choice(("ready", "ready", "ready", "cordoned", "draining"))
            has = each.accelerators
            if not self.calm and rng.random() < 0.02:  # one fails, or is there again
                model, count = has[0]
                has = ((model, max(1, count + rng.choice((-1, 1)))), *has[1:])
            self.nodes[place] = replace(each, state=state, accelerators=has)
        for run_id in sorted(self.leases):
            if any(row.node_id in away for row in self.leases[run_id]):
                self.stop(run_id)

    def submit(self) -> None:
        rng = self.rng
        run_id = RunId(f"run-{len(self.demands):03}")
        queue = rng.choice(
            ("default", "default", *(one.name for one in self.tree.queues if one.name != "root"))
        )
        tenant = OWNERS.get(queue) or rng.choice(("acme", "globex"))
        nodes, count = rng.choice((1, 1, 1, 2, 3)), rng.choice((1, 1, 2, 4))
        models = rng.choice(((H100,), (H100,), (L4,), (H100, L4)))
        more: dict[str, Any] = {}
        if rng.random() < 0.1 and count > 1:
            more["asks"] = (Ask(models=models, count=count), Ask(models=models, count=count - 1))
        if rng.random() < 0.1:
            more["topology"] = Topology(required=rng.choice(("leaf", "site")), preferred=None)
        if self.reservations and tenant == "acme" and rng.random() < 0.3:
            one = rng.choice(self.reservations)
            nodes, count, models = rng.randint(1, one.nodes), one.accelerators, (H100,)
            more = {"reservation": one.name}
        self.demands[run_id] = gang(
            nodes, count, run=run_id, hours=rng.choice((0.1, 0.5, 1, 4)), models=models, tenant_id=TenantId(tenant),
            queue=queue, priority=50 if self.calm else rng.choice((20, 50, 50, 80)),
            spot=not self.calm and rng.random() < 0.25 and not more,
            min_runtime_s=rng.choice((0, 0, 600)), memory_mib=rng.choice((0, 0, 400)), cpu_milli=rng.choice((0, 2000)),
            needs_container=rng.random() < 0.05, **more,
        )  # fmt: skip
        self.enqueued[run_id] = self.now - timedelta(
            seconds=rng.randint(0, 50), microseconds=len(self.demands)
        )
        self.waiting.add(run_id)

    def stop(self, run_id: RunId) -> None:
        """It is gone, and waits again."""
        del self.leases[run_id]
        self.waiting.add(run_id)

    def write(self, plan: Plan, *, refused: float = 0.0) -> None:
        """What a cycle decided becomes rows; some of its grants went stale."""
        self.told = {wait.run_id: wait for wait in plan.waits}
        for eviction in plan.evictions:
            rows = self.leases.get(eviction.run_id)
            if rows is not None:
                self.leases[eviction.run_id] = [replace(row, yields=True) for row in rows]
        for grant in plan.grants:
            if self.rng.random() >= refused:
                self._lease(grant)

    def _lease(self, grant: Grant) -> None:
        demand = self.demands[grant.run_id]
        self.waiting.remove(grant.run_id)
        self.leases[grant.run_id] = [
            LeaseRow(
                run_id=grant.run_id, tenant_id=demand.tenant_id, node_id=node_id, model=model, count=count,
                memory_mib=demand.memory_mib, disk_mib=demand.disk_mib, cpu_milli=demand.cpu_milli,
                ends_at=grant.ends_at,
                enqueued_at=self.enqueued[grant.run_id], granted_at=self.now, queue=demand.queue,
                priority=demand.priority, spot=demand.spot, min_runtime_s=demand.min_runtime_s,
            )
            for node_id, model, count in grant.places
        ]  # fmt: skip

    # ---- the end of it

    def mend(self) -> None:
        """All nodes serve from now on, nothing more is booked, and nobody comes any more."""
        self.nodes = [replace(each, state="ready") for each in self.nodes]
        self.reservations, self.windows = [], []

    def pass_until_somebody_ends(self) -> None:
        """As long as its lease allows."""
        if not self.leases:
            self.now += timedelta(hours=1)
            return
        run_id = min(self.leases, key=lambda run_id: (self.leases[run_id][0].ends_at, run_id))
        self.now = max(self.now, self.leases.pop(run_id)[0].ends_at)

    # ---- what a cycle sees

    def snapshot(self) -> Snapshot:
        used: dict[str, dict[str, int]] = {}
        for run_id, rows in self.leases.items():
            for one in self.reservations:
                if self.demands[run_id].reservation == one.name and one.from_s <= seconds(self.now):
                    held = used.setdefault(one.reservation_id, {})
                    for row in rows:
                        held[row.node_id] = held.get(row.node_id, 0) + row.count
        waiting = [
            WaitingRun(
                demand=self.demands[run_id],
                enqueued_at=self.enqueued[run_id],
                **promised_in(wait_record(self.told[run_id]) if run_id in self.told else {}),
            )
            for run_id in self.waiting
        ]
        return snapshot_of(
            self.nodes,
            [row for rows in self.leases.values() for row in rows],
            waiting,
            tree=self.tree,
            calendar=claims_of(self.reservations, self.windows, used, seconds(self.now)),
            watts=WATTS,
            worth=WORTH,
        )


# ---- what must hold of every plan


def assert_everybody_is_told(plan: Plan, snapshot: Snapshot) -> None:
    """All start or wait, once, and who waits knows his place."""
    said = [grant.run_id for grant in plan.grants] + [wait.run_id for wait in plan.waits]
    assert sorted(said) == sorted(run.demand.run_id for run in snapshot.waiting)
    assert [wait.position for wait in plan.waits] == [number + 1 for number in range(len(plan.waits))]


def assert_sound(plan: Plan, snapshot: Snapshot, now: datetime) -> None:
    """What no plan may break, whatever came before it."""
    demands = {run.demand.run_id: run.demand for run in snapshot.waiting}
    assert len({grant.run_id for grant in plan.grants}) == len(plan.grants)
    nodes = {each.node_id: each for each in snapshot.nodes}
    for grant in plan.grants:
        demand = demands[grant.run_id]
        on = [node_id for node_id, _, _ in grant.places]
        assert len(set(on)) == len(on) == demand.node_count, "a gang is whole, each part on a node of its own"
        assert len({(model, count) for _, model, count in grant.places}) == 1
        _, model, count = grant.places[0]
        assert any(model in ask.models and count == ask.count for ask in demand.asks)
        assert all(nodes[node_id].state == "ready" for node_id in on)
        assert grant.why is not None
    _assert_room(plan, snapshot, demands)
    _assert_apart(plan, snapshot, demands)
    _assert_within_limits(plan, snapshot, demands)
    _assert_out_of_the_way(plan, snapshot, demands, now)


def _assert_room(plan: Plan, snapshot: Snapshot, demands: dict[RunId, Demand]) -> None:
    """Nothing is granted of what is not there: accelerators, what is beside them, and watts."""
    used: Counter[tuple[str, str]] = Counter()
    granted = set[tuple[str, str]]()
    for lease in snapshot.leases:
        for what, amount in _amounts(lease.node_id, lease.model, lease.count, lease, snapshot):
            used[what] += amount
    for grant in plan.grants:
        for node_id, model, count in grant.places:
            for what, amount in _amounts(node_id, model, count, demands[grant.run_id], snapshot):
                used[what] += amount
                if amount:
                    granted.add(what)
    have: dict[tuple[str, str], int] = {}
    for each in snapshot.nodes:
        for model, count in each.accelerators:
            have[each.node_id, model] = count
        have[each.node_id, "memory"] = each.memory_mib
        have[each.node_id, "cpu"] = each.cpu_milli
        if each.watts is not None:
            have[each.rack, "watts"] = each.watts
    for what in granted:
        assert used[what] <= have.get(what, 1 << 40), f"too much of {what} is granted"


def _amounts(
    node_id: NodeId, model: str, count: int, of: LeaseRow | Demand, snapshot: Snapshot
) -> Iterable[tuple[tuple[str, str], int]]:
    rack = next(each.rack for each in snapshot.nodes if each.node_id == node_id)
    yield (node_id, model), count
    yield (node_id, "memory"), of.memory_mib
    yield (node_id, "cpu"), of.cpu_milli
    if rack:
        yield (rack, "watts"), count * WATTS[model]


def _assert_apart(plan: Plan, snapshot: Snapshot, demands: dict[RunId, Demand]) -> None:
    """Two tenants never share a node that cannot keep them apart."""
    tenants: dict[str, set[str]] = {}
    for lease in snapshot.leases:
        tenants.setdefault(lease.node_id, set()).add(lease.tenant_id)
    for grant in plan.grants:
        for node_id, _, _ in grant.places:
            tenants.setdefault(node_id, set()).add(demands[grant.run_id].tenant_id)
    for each in snapshot.nodes:
        if each.isolation == "none":
            assert len(tenants.get(each.node_id, ())) <= 1, f"{each.node_id} is shared"


def _assert_within_limits(plan: Plan, snapshot: Snapshot, demands: dict[RunId, Demand]) -> None:
    held: Counter[tuple[str, str]] = Counter()
    grown = set[tuple[str, str]]()
    rows = [(lease.queue, lease.tenant_id, lease.model, lease.count, False) for lease in snapshot.leases]
    for grant in plan.grants:
        demand = demands[grant.run_id]
        rows += [(demand.queue, demand.tenant_id, model, count, True) for _, model, count in grant.places]
    for queue, tenant, model, count, is_new in rows:
        for above in snapshot.tree.path(leaf_of(tenant, queue)):
            held[above.name, model] += count
            if is_new:
                grown.add((above.name, model))
    for one in snapshot.tree.queues:
        for model, most in one.limit.items():
            if (one.name, model) in grown:
                assert held[one.name, model] <= most, f"{one.name} holds more than it may"


def _assert_out_of_the_way(
    plan: Plan, snapshot: Snapshot, demands: dict[RunId, Demand], now: datetime
) -> None:
    """Nothing starts that outlives the beginning of a window on its node, and no reservation is started too early."""
    for claim in snapshot.calendar:
        for grant in plan.grants:
            on = {node_id for node_id, _, _ in grant.places}
            if claim.kind == "maintenance" and not on.isdisjoint(claim.node_ids):
                assert seconds(grant.ends_at) <= claim.from_s or seconds(now) >= claim.until_s
            demand = demands[grant.run_id]
            if (claim.name, claim.tenant_id) == (demand.reservation, demand.tenant_id):
                assert claim.from_s <= seconds(now)
