"""Who starts, in which order, and that nobody overtakes at the expense of the one in front."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baseai.scheduling.decide import decide, explain
from baseai.scheduling.plan import Plan, Wait, WaitKind
from baseai.scheduling.snapshot import LeaseRow, NodeRow, WaitingRun, snapshot_of
from baseai.workloads.demand import Ask, Demand
from tests.scheduling.fleet import NOON, at, changed, gang, lease, leases_of, node, places, snapshot, wait_of


def test_priority_then_submission_then_id() -> None:
    def waiting(run: str, *, priority: int, hour: float) -> WaitingRun:
        return WaitingRun(demand=gang(1, 8, run=run, priority=priority), enqueued_at=at(hour))

    queue = [
        waiting("d", priority=50, hour=-1),
        waiting("c", priority=50, hour=-1),
        waiting("b", priority=50, hour=-2),
        waiting("a", priority=90, hour=0),
    ]
    plan = decide(snapshot([node("n1")], queue=queue), NOON)
    assert [grant.run_id for grant in plan.grants] == ["a"]
    assert [(wait.run_id, wait.position, wait.ahead) for wait in plan.waits] == [
        ("b", 1, 0),
        ("c", 2, 1),
        ("d", 3, 2),
    ]


def test_a_grant_ends_after_the_run_s_longest_duration() -> None:
    (grant,) = decide(snapshot([node("a")], queue=[gang(1, 8, hours=3)]), NOON).grants
    assert (grant.places, grant.ends_at) == ((("a", "H100-SXM", 8),), at(3))


@pytest.mark.parametrize(
    ("later", "starts"),
    [
        pytest.param(gang(1, 4, run="later", hours=2), True, id="it ends when the head starts"),
        pytest.param(gang(1, 4, run="later", hours=2.1), False, id="it would put the head off"),
    ],
)
def test_backfill_ends_before_the_head_starts(later: Demand, starts: bool) -> None:
    queue = [gang(1, 8, run="head"), later]
    plan = decide(snapshot([node("a")], [lease("a", 4, hours=2)], queue), NOON)
    assert ("later" in places(plan)) is starts
    assert wait_of(plan, "head").kind is WaitKind.SHORT
    if not starts:
        assert (wait_of(plan, "later").kind, wait_of(plan, "later").behind) == (WaitKind.HELD, "head")


def test_backfill_may_outlive_the_head_s_start_on_what_the_head_leaves() -> None:
    queue = [gang(1, 6, run="head"), gang(1, 2, run="beside", hours=99), gang(1, 2, run="over", hours=99)]
    plan = decide(snapshot([node("a", 8)], [lease("a", 4, hours=2)], queue), NOON)
    assert places(plan) == {"beside": ("a",)}
    assert wait_of(plan, "over").behind == "head"


def test_one_model_s_queue_does_not_starve_behind_another_s() -> None:
    nodes = [node("a"), node("b", accelerators=(("A100", 8),))]
    leases = [lease("a", 8, hours=9), lease("b", 4, hours=1, model="A100")]
    queue = [
        gang(1, 8, run="head"),
        gang(1, 8, run="second", models=("A100",)),
        gang(1, 4, run="long", models=("A100",), hours=99),
    ]
    plan = decide(snapshot(nodes, leases, queue), NOON)
    assert places(plan) == {}
    assert wait_of(plan, "long").behind == "second"


def test_a_run_that_fits_no_empty_fleet_holds_nobody_up() -> None:
    queue = [gang(1, 9, run="giant"), gang(1, 8, run="next", hours=99)]
    plan = decide(snapshot([node("a")], queue=queue), NOON)
    assert places(plan) == {"next": ("a",)}
    assert wait_of(plan, "giant").kind is WaitKind.NEVER


def test_an_overdue_lease_still_holds_and_is_due_now() -> None:
    plan = decide(snapshot([node("a")], [lease("a", 8, hours=-1)], [gang(1, 8)]), NOON)
    explanation = wait_of(plan, "run").explanation
    assert explanation is not None
    assert explanation.latest_at == NOON


def test_explain_says_what_the_plan_says_beyond_its_bound() -> None:
    queue = [
        gang(1, 8, run="first"),
        *(gang(1, 8, run=f"run{memory}", memory_mib=memory) for memory in range(1, 4)),
    ]
    columns = snapshot([node("a")], queue=queue)
    full, bounded = decide(columns, NOON), decide(columns, NOON, explained_most=1)
    assert [wait.explanation is None for wait in bounded.waits] == [False, True, True]
    assert tuple(explain(columns, NOON, wait.run_id) for wait in bounded.waits) == full.waits
    assert explain(columns, NOON, full.grants[0].run_id) == full.grants[0]


# Properties, over small fleets in which everything is scarce.

TENANTS = st.sampled_from(["acme", "rival"])
MODELS = st.sampled_from(["H100-SXM", "A100", "cpu-slot"])


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeRow]:
    return [
        node(
            f"n{number}",
            site=draw(st.sampled_from(["SP4", "SP5"])),
            state=draw(st.sampled_from(["ready", "ready", "ready", "cordoned"])),
            isolation=draw(st.sampled_from(["none", "user"])),
            memory_mib=draw(st.integers(0, 8)),
            accelerators=tuple(
                draw(st.dictionaries(MODELS, st.integers(0, 8), min_size=1, max_size=2)).items()
            ),
        )
        for number in range(draw(st.integers(1, 5)))
    ]


@st.composite
def demands(draw: st.DrawFn, run: str) -> Demand:
    count = draw(st.integers(1, 8))
    asks = [Ask(models=tuple(draw(st.lists(MODELS, min_size=1, max_size=2, unique=True))), count=count)]
    if draw(st.booleans()):
        asks.append(Ask(models=asks[0].models, count=max(1, count // 2)))
    return gang(
        draw(st.integers(1, 3)),
        run=run,
        hours=draw(st.integers(1, 6)),
        asks=tuple(asks),
        memory_mib=draw(st.integers(0, 4)),
        sites=draw(st.sampled_from([(), (), ("SP4",)])),
        priority=draw(st.integers(0, 2)),
        tenant_id=draw(TENANTS),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[list[NodeRow], list[LeaseRow], list[WaitingRun]]:
    """A fleet, a queue, and the leases that an earlier cycle gave an earlier queue."""
    nodes = draw(fleets())
    earlier = [draw(demands(f"old{number}")) for number in range(draw(st.integers(0, 4)))]
    plan = decide(snapshot(nodes, queue=earlier), NOON)
    by_run = {demand.run_id: demand for demand in earlier}
    leases = [row for grant in plan.grants for row in leases_of(grant, by_run[grant.run_id])]
    queue = [
        WaitingRun(demand=draw(demands(f"run{number}")), enqueued_at=at(-draw(st.integers(1, 3))))
        for number in range(draw(st.integers(1, 8)))
    ]
    return nodes, leases, queue


@settings(max_examples=150, deadline=None)
@given(snapshots())
def test_nothing_is_granted_twice_nor_in_part(
    rows: tuple[list[NodeRow], list[LeaseRow], list[WaitingRun]],
) -> None:
    nodes, leases, queue = rows
    plan = decide(snapshot_of(nodes, leases, queue), NOON)
    demand_of = {run.demand.run_id: run.demand for run in queue}
    answered = [grant.run_id for grant in plan.grants] + [wait.run_id for wait in plan.waits]
    assert sorted(answered) == sorted(demand_of)
    held = list(leases)
    for grant in plan.grants:
        demand = demand_of[grant.run_id]
        node_ids = [node_id for node_id, _, _ in grant.places]
        assert node_ids == sorted(set(node_ids))
        assert len(node_ids) == demand.node_count
        models = {(model, count) for _, model, count in grant.places}
        assert len(models) == 1
        assert any(
            model in ask.models and count == ask.count for ask in demand.asks for model, count in models
        )
        held += leases_of(grant, demand)
    for each in nodes:
        here = [row for row in held if row.node_id == each.node_id]
        assert sum(row.memory_mib for row in here) <= each.memory_mib
        for model, usable in each.accelerators:
            assert sum(row.count for row in here if row.model == model) <= usable
        if each.isolation == "none":
            assert len({row.tenant_id for row in here}) <= 1
        if each.state != "ready":
            assert all(row in leases for row in here)


@settings(max_examples=100, deadline=None)
@given(snapshots(), st.randoms(use_true_random=False))
def test_equal_rows_in_any_order_give_equal_plans(
    rows: tuple[list[NodeRow], list[LeaseRow], list[WaitingRun]], chance: object
) -> None:
    nodes, leases, queue = rows
    plan = decide(snapshot_of(nodes, leases, queue), NOON)
    for shuffled in (nodes, leases, queue):
        chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(snapshot_of(nodes, leases, queue), NOON) == plan


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[NodeRow], list[LeaseRow], list[WaitingRun]]:
    """A busy fleet, a large run in front of it and a crowd of small ones, some long, behind it."""
    nodes = [node(name, isolation=draw(st.sampled_from(["none", "user"]))) for name in ("a", "b", "c")]
    leases = [
        lease(each.node_id, draw(st.integers(1, 7)), hours=draw(st.integers(1, 4)), tenant_id=draw(TENANTS))
        for each in nodes
    ]
    head = gang(draw(st.integers(1, 2)), draw(st.integers(5, 8)), run="head", tenant_id=draw(TENANTS))
    small = [
        gang(1, draw(st.integers(1, 3)), run=f"r{n}", hours=draw(st.integers(1, 9)), tenant_id=draw(TENANTS))
        for n in range(draw(st.integers(2, 8)))
    ]
    return nodes, leases, [WaitingRun(demand=demand, enqueued_at=at(-1)) for demand in (head, *small)]


def waiting_on(queue: Sequence[WaitingRun], plan: Plan) -> list[WaitingRun]:
    """Who still waits after a plan, with what it has promised them."""
    promised = {wait.run_id: wait.promised_since for wait in plan.waits}
    return [
        replace(run, promised_since=promised[run.demand.run_id])
        for run in queue
        if run.demand.run_id in promised
    ]


@settings(max_examples=150, deadline=None)
@given(crowds() | snapshots(), st.data())
def test_the_head_starts_when_it_was_promised(
    rows: tuple[list[NodeRow], list[LeaseRow], list[WaitingRun]], data: st.DataObject
) -> None:
    """Whatever is backfilled, and however much earlier than promised each run ends."""
    nodes, leases, queue = rows
    plan = decide(snapshot_of(nodes, leases, queue), NOON)
    booked = [
        wait for wait in plan.waits if wait.explanation is not None and wait.explanation.latest_at is not None
    ]
    if not booked:
        return
    head = booked[0]
    assert head.explanation is not None
    promised = head.explanation.latest_at
    assert promised is not None
    ends: dict[tuple[str, str], datetime] = {}
    now = NOON
    while True:
        assert now <= promised, f"{head.run_id} was promised {promised}"
        for grant in plan.grants:
            demand = next(run.demand for run in queue if run.demand.run_id == grant.run_id)
            lasts = data.draw(st.sampled_from([demand.max_duration_s // 3600, 1]))
            for row in leases_of(grant, demand):
                leases.append(row)
                ends[row.run_id, row.node_id] = now + timedelta(hours=lasts)
        started = {grant.run_id for grant in plan.grants}
        if head.run_id in started:
            return
        queue = waiting_on(queue, plan)
        now = min(
            [ends.get((row.run_id, row.node_id), row.ends_at) for row in leases],
            default=promised + timedelta(1),
        )
        leases = [row for row in leases if ends.get((row.run_id, row.node_id), row.ends_at) > now]
        plan = decide(snapshot_of(nodes, leases, queue), now, explained_most=0)


# What r0 and r1 were given makes another pair of nodes the tightest for the head, which leaves room for r2: it starts
# in the next cycle, whatever is changed about r7, and on what r7 was advised to take.
MOVED_BOOKING = (
    [node(name, isolation="none") for name in ("a", "b", "c")],
    [lease("a", 3, hours=3), lease("b", 1, hours=1), lease("c", 2, hours=3, tenant_id="rival")],
    [
        WaitingRun(demand=demand, enqueued_at=at(-1))
        for demand in (
            gang(2, 7, run="head", tenant_id="rival"),
            gang(1, 1, run="r0"),
            gang(1, 1, run="r1"),
            gang(1, 1, run="r2", hours=4),
            gang(1, 1, run="r3", hours=4, tenant_id="rival"),
            gang(1, 2, run="r4"),
            gang(1, 2, run="r5"),
            gang(1, 3, run="r6"),
            gang(1, 3, run="r7"),
        )
    ],
)


# No two nodes can ever take the first, who is advised to ask for one; the second, looked at after him, claims both.
CLAIMED_BEHIND = (
    [node("a"), node("b")],
    [lease("a", 8, hours=2)],
    [
        WaitingRun(demand=demand, enqueued_at=at(-1))
        for demand in (gang(3, 8, run="never", hours=3), gang(2, 8, run="claims"))
    ],
)


@settings(max_examples=60, deadline=None)
@given(crowds() | snapshots())
@example(MOVED_BOOKING)
@example(CLAIMED_BEHIND)
def test_the_change_that_is_advised_starts_the_run(
    rows: tuple[list[NodeRow], list[LeaseRow], list[WaitingRun]],
) -> None:
    """Where nothing else moves: what one cycle grants may move a booking in the next, and let somebody else start."""
    nodes, leases, queue = rows
    while (plan := decide(snapshot_of(nodes, leases, queue), NOON)).grants:
        demand_of = {run.demand.run_id: run.demand for run in queue}
        leases = leases + [row for grant in plan.grants for row in leases_of(grant, demand_of[grant.run_id])]
        queue = waiting_on(queue, plan)
    queue = waiting_on(queue, plan)
    for wait in plan.waits:
        assert isinstance(wait, Wait)
        if wait.explanation is None or wait.explanation.change is None:
            continue
        advised = [
            WaitingRun(
                demand=changed(run.demand, wait.explanation.change)
                if run.demand.run_id == wait.run_id
                else run.demand,
                enqueued_at=run.enqueued_at,
                promised_since=run.promised_since,
            )
            for run in queue
        ]
        assert wait.run_id in places(decide(snapshot_of(nodes, leases, advised), NOON, explained_most=0))
