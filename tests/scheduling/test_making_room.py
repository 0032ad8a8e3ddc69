"""A cycle in which somebody makes room: who is asked to go, for whom, and that it is gone before another starts."""

from dataclasses import replace

from baseai.scheduling.decide import decide
from baseai.scheduling.plan import Eviction, WaitKind
from baseai.scheduling.queue_tree import Queue, QueueTree
from baseai.scheduling.snapshot import LeaseRow, WaitingRun, snapshot_of
from tests.scheduling.fleet import H100, NOON, at, gang, lease, node, places, snapshot, wait_of


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
