"""A cycle in which somebody makes room: who is asked to go, for whom, and that it is gone before another starts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.ground.identity import RunId, TenantId
from baseai.scheduling.decide import decide, decide_on
from baseai.scheduling.plan import Eviction, WaitKind
from baseai.scheduling.queue_tree import Queue, QueueTree
from baseai.scheduling.snapshot import LeaseRow, WaitingRun, seconds, snapshot_of
from baseai.scheduling.standing import Standing
from baseai.workloads.demand import Demand
from tests.scheduling.fleet import H100, NOON, at, gang, lease, leases_of, node, places, snapshot, wait_of

THEIRS = TenantId("globex")


def spot_on(on: str, count: int = 8, *, run: str = "cheap", saved_h: float = -0.5) -> LeaseRow:
    """A spot run since eleven, which has saved so many hours before noon."""
    return lease(on, count, hours=3, run=run, spot=True, granted_at=at(-1), saved_at=at(saved_h))


def test_a_spot_run_is_asked_to_save_and_the_paying_one_waits_until_it_is_gone() -> None:
    held = spot_on("a")
    plan = decide(snapshot([node("a")], [held], [gang(1, 8, run="paying")]), NOON)
    assert [(each.run_id, each.for_run) for each in plan.evictions] == [("cheap", "paying")]
    assert plan.evictions[0].lost_accelerator_s == 8 * 1800.0
    assert [(wait.run_id, wait.kind) for wait in plan.waits] == [("paying", WaitKind.CLEARING)]

    saving = decide(snapshot([node("a")], [replace(held, yields=True)], [gang(1, 8, run="paying")]), NOON)
    assert places(saving) == {}, "it is still there"
    gone = decide(
        snapshot([node("a")], [], [gang(1, 8, run="paying"), gang(1, 8, run="cheap", spot=True)]), NOON
    )
    assert places(gone) == {"paying": ("a",)}
    assert wait_of(gone, "cheap").kind is WaitKind.SHORT


def test_who_has_saved_last_goes() -> None:
    held = [spot_on("a", run="early", saved_h=-0.5), spot_on("b", run="late", saved_h=-0.1)]
    plan = decide(snapshot([node("a"), node("b")], held, [gang(1, 8, run="paying")]), NOON)
    assert [each.run_id for each in plan.evictions] == ["late"]


def test_a_run_that_is_asked_to_go_starts_nowhere_else_in_the_same_cycle() -> None:
    """It could run on the small node, and has not saved yet."""
    held = spot_on("a", 4)
    nodes = [node("a"), node("b", 4)]
    plan = decide(snapshot(nodes, [held], [gang(1, 8, run="paying")]), NOON)
    assert [each.run_id for each in plan.evictions] == ["cheap"]
    assert places(plan) == {}


def test_an_urgent_run_makes_a_junior_of_its_queue_go_and_no_equal() -> None:
    junior = lease("a", 8, hours=3, run="junior", priority=20, granted_at=at(-1))
    equal = lease("b", 8, hours=3, run="equal", priority=80, granted_at=at(-1))
    plan = decide(
        snapshot([node("a"), node("b")], [junior, equal], [gang(1, 8, run="urgent", priority=80)]), NOON
    )
    assert plan.evictions == (Eviction(run_id="junior", for_run="urgent", lost_accelerator_s=8 * 3600.0),)  # type: ignore[arg-type]


def test_nobody_goes_within_its_minimum_runtime() -> None:
    young = replace(spot_on("a"), min_runtime_s=2 * 3600)
    plan = decide(snapshot([node("a")], [young], [gang(1, 8, run="paying")]), NOON)
    assert plan.evictions == ()
    assert wait_of(plan, "paying").kind is WaitKind.SHORT


def test_what_is_borrowed_goes_for_a_run_within_its_quota() -> None:
    held = lease("a", 8, hours=9, run="borrows", queue="theirs", granted_at=at(-1))
    tree = QueueTree((Queue(name="ours", quota={H100: 8}), Queue(name="theirs", quota={H100: 4})))
    waiting = [WaitingRun(demand=gang(1, 8, run="owed", queue="ours"), enqueued_at=at(-1))]
    plan = decide(snapshot_of([node("a")], [held], waiting, tree=tree), NOON)
    assert [(each.run_id, each.for_run) for each in plan.evictions] == [("borrows", "owed")]


def test_a_quota_of_one_model_entitles_to_nothing_of_another() -> None:
    """All H100 are covered by another's quota; its L4 are borrowed, and would be borrowed by this run as well."""
    covered = lease("a", 8, hours=9, run="covered", queue="theirs", granted_at=at(-1))
    borrows = lease("b", 8, hours=9, run="borrows", queue="theirs", model="L4", granted_at=at(-1))
    quota = {H100: 8, "L4": 0}
    tree = QueueTree((Queue(name="ours", quota=quota), Queue(name="theirs", quota=quota)))
    nodes = [node("a"), node("b", accelerators=(("L4", 8),))]
    asked = gang(1, 8, run="owed", queue="ours", models=(H100, "L4"))
    plan = decide(
        snapshot_of(nodes, [covered, borrows], [WaitingRun(demand=asked, enqueued_at=at(-1))], tree=tree),
        NOON,
    )
    assert plan.evictions == ()


def test_who_gives_back_what_would_be_borrowed_goes_as_well_wherever_it_stands() -> None:
    """Only the larger node has the memory; the junior on the other holds all of their queue's quota."""
    junior = lease("small", 8, hours=3, run="junior", priority=20, queue="ours", granted_at=at(-1))
    borrows = lease("large", 8, hours=3, run="borrows", queue="theirs", granted_at=at(-1))
    tree = QueueTree((Queue(name="ours", quota={H100: 8}), Queue(name="theirs", quota={H100: 0})))
    asked = gang(1, 8, run="urgent", priority=80, queue="ours", memory_mib=1000)
    plan = decide(
        snapshot_of(
            [node("small", memory_mib=10), node("large")],
            [junior, borrows],
            [WaitingRun(demand=asked, enqueued_at=at(-1))],
            tree=tree,
        ),
        NOON,
    )
    assert {(each.run_id, each.for_run) for each in plan.evictions} == {
        ("junior", "urgent"),
        ("borrows", "urgent"),
    }


def test_who_is_saving_draws_its_watts_still() -> None:
    """Of the breaker they share, the one who is asked to go has left enough for one more accelerator, not for two."""
    held = spot_on("a", 4)
    nodes = [node("a", 4, rack="r", watts=5000), node("b", rack="r", watts=5000)]
    queue = [gang(1, 4, run="paying", disk_mib=5000)]
    nodes[1] = replace(nodes[1], disk_mib=10)
    queue += [gang(1, 1, run="one"), gang(1, 1, run="two")]
    waiting = [
        WaitingRun(demand=demand, enqueued_at=at(-1) + timedelta(seconds=second))
        for second, demand in enumerate(queue)
    ]
    plan = decide(snapshot_of(nodes, [held], waiting, watts={H100: 1000}), NOON)
    assert [each.run_id for each in plan.evictions] == ["cheap"]
    assert places(plan) == {"one": ("b",)}


def test_an_urgent_run_makes_a_junior_go_also_in_a_cycle_in_which_nobody_is_told_why_he_waits() -> None:
    """The first of the same shape can make nobody go, for it is in another queue."""
    junior = lease("a", 8, hours=3, run="junior", priority=20, tenant_id=THEIRS, granted_at=at(-1))
    queue = [gang(1, 8, run="first"), gang(1, 8, run="urgent", priority=80, tenant_id=THEIRS)]
    standing = Standing("best_fit")
    standing.take_in(snapshot([node("a")], [junior], queue), seconds(NOON))
    plan = decide_on(standing, NOON, everybody=False)
    assert [(each.run_id, each.for_run) for each in plan.evictions] == [("junior", "urgent")]


# ------------------------------------------------------------------------------------------------ cycle after cycle

RUNS = st.tuples(
    st.sampled_from(("ours", "theirs", "default")),
    st.sampled_from((20, 50, 80)),
    st.booleans(),  # spot
    st.sampled_from(((H100,), ("L4",), (H100, "L4"), ("L4", H100))),
    st.sampled_from((1, 2, 4)),
    st.sampled_from((1, 1, 2)),  # nodes
)
QUOTAS = st.fixed_dictionaries({H100: st.integers(0, 8), "L4": st.integers(0, 4)})


class Fleet:
    """Cycles over a fleet in which whoever is asked to go is gone by the next cycle, and nothing ends by itself."""

    def __init__(self, runs: Sequence[Demand], tree: QueueTree) -> None:
        self.tree = tree
        self.demand = {run.run_id: run for run in runs}
        self.waiting = list(self.demand)
        self.leases: list[LeaseRow] = []
        self.now = NOON
        self.promised: dict[RunId, datetime | None] = {}  # as the last cycle wrote it down
        self.gone: set[tuple[str, str]] = set()  # (who went, for whom), since something ended last

    def cycle(self) -> bool:
        """Whether anything moved."""
        self.now += timedelta(minutes=1)
        waiting = [
            WaitingRun(
                demand=self.demand[run_id],
                enqueued_at=at(-1) + timedelta(seconds=number),
                promised_since=self.promised.get(run_id),
            )
            for number, run_id in enumerate(self.demand)
            if run_id in self.waiting
        ]
        nodes = [node("a", 4), node("b", 4), node("c", accelerators=(("L4", 4),))]
        plan = decide(snapshot_of(nodes, self.leases, waiting, tree=self.tree), self.now)
        self.promised = {wait.run_id: wait.promised_since for wait in plan.waits}
        for eviction in plan.evictions:
            assert (eviction.for_run, eviction.run_id) not in self.gone, "two made each other go"
            self.gone.add((eviction.run_id, eviction.for_run))
            self.end(eviction.run_id)
            self.waiting.append(eviction.run_id)
        for grant in plan.grants:
            demand = self.demand[grant.run_id]
            self.waiting.remove(grant.run_id)
            self.leases += [
                replace(
                    each, queue=demand.queue, priority=demand.priority, spot=demand.spot, granted_at=self.now
                )
                for each in leases_of(grant, demand)
            ]
        return bool(plan.evictions or plan.grants)

    def end(self, run_id: RunId) -> None:
        self.leases = [each for each in self.leases if each.run_id != run_id]


@settings(max_examples=150, deadline=None)
@given(st.lists(RUNS, min_size=2, max_size=10), QUOTAS, QUOTAS)
def test_cycles_come_to_rest_and_all_of_a_finite_load_has_its_turn(
    asked: list[tuple[str, int, bool, tuple[str, ...], int, int]],
    ours: dict[str, int],
    theirs: dict[str, int],
) -> None:
    runs = [
        gang(
            nodes,
            count,
            run=f"run-{number}",
            queue=queue,
            priority=priority,
            spot=spot,
            models=models,
            hours=24,
        )
        for number, (queue, priority, spot, models, count, nodes) in enumerate(asked)
        if nodes == 1 or models == (H100,)
    ]
    fleet = Fleet(runs, QueueTree((Queue(name="ours", quota=ours), Queue(name="theirs", quota=theirs))))
    ended = 0
    while fleet.waiting or fleet.leases:
        rested = next((cycle for cycle in range(40) if not fleet.cycle()), None)
        assert rested is not None, "somebody starts or goes in each of forty cycles, though nothing ends"
        assert fleet.leases, f"{fleet.waiting} wait in an empty fleet"
        fleet.end(fleet.leases[0].run_id)
        fleet.gone.clear()
        ended += 1
    assert ended == len(runs)
