"""Tests of nodes do not exist for anybody else: what they hold is free, and they are gone where somebody starts."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.decide import decide, explain
from baseai.scheduling.plan import Plan, Wait, WaitKind
from baseai.scheduling.snapshot import LeaseRow
from baseai.workloads.demand import Ask, Demand
from tests.scheduling.fleet import NOON, at, gang, lease, node, places, snapshot, wait_of

HOUSE = TenantId("house")


def held_by_test(on: str, count: int = 8, *, run: str = "test", **other: Any) -> LeaseRow:
    """The lease of a test that runs on all of a node."""
    return lease(on, count, hours=1, run=run, tenant_id=HOUSE, yields=True, **other)


def pinned_to(on: str, count: int = 8, *, run: str = "test", **other: Any) -> Demand:
    """A test that waits for all of a node."""
    return gang(
        1, count, run=run, pinned=NodeId(on), yields=True, priority=0, tenant_id=HOUSE, hours=0.25, **other
    )


def started(plan: Plan) -> set[str]:
    """Who starts now, or as soon as a test is gone."""
    return {grant.run_id for grant in plan.grants} | {
        wait.run_id for wait in plan.waits if wait.kind is WaitKind.CLEARING
    }


def evicted(plan: Plan) -> tuple[str, ...]:
    """Who is to stop now."""
    return tuple(eviction.run_id for eviction in plan.evictions)


def test_a_test_gives_way_and_the_run_starts_once_it_is_gone() -> None:
    plan = decide(snapshot([node("a")], [held_by_test("a")], [gang(1, 4, run="customer")]), NOON)
    assert (evicted(plan), places(plan)) == (("test",), {})
    assert wait_of(plan, "customer").kind is WaitKind.CLEARING
    assert places(decide(snapshot([node("a")], [], [gang(1, 4, run="customer")]), NOON)) == {
        "customer": ("a",)
    }


def test_a_run_takes_a_node_as_good_without_a_test_on_it() -> None:
    plan = decide(snapshot([node("a"), node("b")], [held_by_test("a")], [gang(1, 8, run="customer")]), NOON)
    assert (evicted(plan), places(plan)) == ((), {"customer": ("b",)})


def test_a_run_is_not_packed_worse_because_of_a_test() -> None:
    leases = [lease("a", 4, hours=9), held_by_test("a", 4)]
    plan = decide(snapshot([node("a"), node("b")], leases, [gang(1, 4, run="customer")]), NOON)
    assert evicted(plan) == ("test",)  # else `b` would be broken up for it


def test_a_run_does_not_get_less_because_of_a_test() -> None:
    asks = (Ask(models=("H100-SXM",), count=8), Ask(models=("H100-SXM",), count=2))
    leases = [held_by_test("a"), lease("b", 6, hours=9)]
    plan = decide(snapshot([node("a"), node("b")], leases, [gang(1, asks=asks, run="customer")]), NOON)
    assert evicted(plan) == ("test",)


def test_only_the_tests_on_the_nodes_in_question_are_evicted() -> None:
    nodes = [node(name) for name in "abc"]
    leases = [held_by_test(name, run=f"test-{name}") for name in "abc"]
    plan = decide(snapshot(nodes, leases, [gang(2, 8, run="customer")]), NOON)
    assert evicted(plan) == ("test-a", "test-b")


def test_what_an_eviction_frees_goes_to_nobody_else() -> None:
    queue = [gang(1, 8, run="first", priority=60), gang(1, 8, run="second")]
    plan = decide(snapshot([node("a")], [held_by_test("a")], queue), NOON)
    assert wait_of(plan, "second").kind is WaitKind.SHORT


def test_a_node_without_isolation_is_no_obstacle_either() -> None:
    plan = decide(
        snapshot([node("a", isolation="none")], [held_by_test("a", 4)], [gang(1, 4, run="customer")]), NOON
    )
    assert evicted(plan) == ("test",)


def test_evicting_twice_says_the_same() -> None:
    given_ = snapshot([node("a")], [held_by_test("a")], [gang(1, 8, run="customer")])
    assert decide(given_, NOON) == decide(given_, NOON)


@pytest.mark.parametrize(
    ("state", "starts"),
    [
        pytest.param("ready", True, id="a ready node"),
        pytest.param("burn_in", True, id="a new one"),
        pytest.param("verifying", True, id="a repaired one"),
        pytest.param("cordoned", False, id="a cordoned one"),
        pytest.param("repairing", False, id="one under repair"),
    ],
)
def test_where_a_test_may_start(state: str, starts: bool) -> None:
    plan = decide(snapshot([node("a", state=state), node("b")], queue=[pinned_to("a")]), NOON)
    assert places(plan) == ({"test": ("a",)} if starts else {})


@pytest.mark.parametrize("state", ["burn_in", "verifying"])
def test_nobody_else_starts_on_a_node_under_test(state: str) -> None:
    plan = decide(snapshot([node("a", state=state)], queue=[gang(1, 1, run="customer", priority=100)]), NOON)
    assert places(plan) == {}


def test_a_test_is_served_after_all_others_whatever_its_priority() -> None:
    queue = [pinned_to("a"), gang(1, 1, run="customer", priority=0)]
    plan = decide(snapshot([node("a")], queue=queue), NOON)
    assert places(plan) == {"customer": ("a",)}
    assert wait_of(plan, "test").kind is WaitKind.OWN_NODE


def test_a_waiting_test_is_explained_by_its_kind_alone() -> None:
    found = explain(snapshot([node("a")], [lease("a", 1, hours=1)], [pinned_to("a")]), NOON, RunId("test"))
    assert isinstance(found, Wait)
    assert (found.kind, found.explanation) == (WaitKind.OWN_NODE, None)


def test_a_test_does_not_book_and_does_not_hold_up_a_booking() -> None:
    queue = [gang(1, 8, run="head"), gang(1, 4, run="beside", hours=1.5)]
    leases = [lease("a", 4, hours=2), held_by_test("a", 4)]
    plan = decide(snapshot([node("a")], leases, queue), NOON)
    assert wait_of(plan, "beside").kind is WaitKind.CLEARING
    head = wait_of(plan, "head").explanation
    assert head is not None
    assert head.latest_at == at(2)  # by the customer's lease, whatever the test's


@given(
    counts=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    busy=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 5)), max_size=4),
    under_test=st.sets(st.integers(0, 5)),
    waiting=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 8), st.integers(1, 6)), max_size=8),
    pinned=st.sets(st.integers(0, 5)),
)
def test_a_test_never_delays_anybody(
    counts: list[int],
    busy: list[tuple[int, int, int]],
    under_test: set[int],
    waiting: list[tuple[int, int, int]],
    pinned: set[int],
) -> None:
    """With tests or without, the same runs start, and the same runs wait for the same reason till the same hour."""
    nodes = [node(f"n{number}", count) for number, count in enumerate(counts)]
    free = dict(enumerate(counts))
    leases = []
    for number, (where, count, hours) in enumerate(busy):
        if free.get(where, 0) >= count:
            free[where] -= count
            leases.append(lease(f"n{where}", count, hours=hours, run=f"busy{number}"))
    tests = [
        held_by_test(f"n{where}", free[where], run=f"test{where}") for where in under_test if free.get(where)
    ]
    queue = [
        gang(size, count, run=f"run{number}", hours=hours)
        for number, (size, count, hours) in enumerate(waiting)
    ]
    more = [
        pinned_to(f"n{where}", counts[where], run=f"again{where}") for where in pinned if where < len(counts)
    ]
    alone = decide(snapshot(nodes, leases, queue), NOON)
    beside = decide(snapshot(nodes, [*leases, *tests], [*queue, *more]), NOON)
    customers = {demand.run_id for demand in queue}
    assert started(beside) & customers == started(alone)
    assert set(evicted(beside)) <= {row.run_id for row in tests}
    for wait in alone.waits:
        again = wait_of(beside, wait.run_id)
        assert (again.kind, again.behind) == (wait.kind, wait.behind)
        if wait.explanation is not None and again.explanation is not None:
            assert again.explanation.latest_at == wait.explanation.latest_at
    # What is granted now stands on nothing that a test still holds.
    held = {f"n{number}": count for number, count in free.items()}
    for row in tests:
        held[row.node_id] -= row.count
    for grant in beside.grants:
        for node_id, _, count in grant.places:
            held[node_id] -= count
    assert min(held.values()) >= 0


def test_the_next_cycle_keeps_the_promise() -> None:
    queue = [gang(1, 4, run="customer"), pinned_to("a", run="again")]
    first = decide(snapshot([node("a")], [held_by_test("a")], queue), NOON)
    assert evicted(first) == ("test",)
    second = decide(snapshot([node("a")], [], queue), NOON + timedelta(seconds=2))
    assert places(second) == {"customer": ("a",)}
