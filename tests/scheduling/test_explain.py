"""What a waiting run is told: who is in the way, what would start it now, and when it may start."""

from collections.abc import Sequence

import pytest

from baseai.scheduling.constraint import Constraint
from baseai.scheduling.decide import decide
from baseai.scheduling.plan import Change, Lever
from baseai.scheduling.snapshot import LeaseRow, NodeRow
from baseai.workloads.demand import Demand
from tests.scheduling.fleet import NOON, at, gang, lease, node, snapshot, wait_of


def test_each_node_counts_for_the_first_constraint_it_fails() -> None:
    nodes = [
        node("a", state="cordoned", site="RJ2"),
        node("b", site="RJ2", memory_mib=1),
        node("c", accelerators=(("A100", 8),)),
        node("d", 4),
        node("e", memory_mib=1),
        node("f", disk_mib=1),
        node("g", cpu_milli=1),
        node("h", isolation="none"),
        node("i"),
        node("j", has_container_runtime=True),
    ]
    leases = [lease("h", 0, hours=1, tenant_id="rival")]
    demand = gang(2, 8, sites=("SP4",), memory_mib=2, disk_mib=2, cpu_milli=2, needs_container=True)
    explanation = wait_of(decide(snapshot(nodes, leases, [demand]), NOON), "run").explanation
    assert explanation is not None
    assert explanation.nodes_failing == (
        (Constraint.STATE, 1),
        (Constraint.SITE, 1),
        (Constraint.MODEL, 1),
        (Constraint.ACCELERATORS, 1),
        (Constraint.MEMORY, 1),
        (Constraint.DISK, 1),
        (Constraint.CPU, 1),
        (Constraint.TENANT, 1),
        (Constraint.CONTAINER, 1),
    )
    assert (explanation.nodes_fitting, explanation.nodes_needed) == (1, 2)


@pytest.mark.parametrize(
    ("demand", "nodes", "leases", "change"),
    [
        pytest.param(
            gang(1, 8),
            [node("a"), node("b")],
            [lease("a", 2, hours=1), lease("b", 5, hours=1)],
            Change(lever=Lever.ACCELERATORS, asked=8, instead=6),
            id="fewer accelerators",
        ),
        pytest.param(
            gang(2, 8),
            [node("a"), node("b")],
            [lease("b", 8, hours=1)],
            Change(lever=Lever.NODES, asked=2, instead=1),
            id="fewer nodes",
        ),
        pytest.param(
            gang(1, 8, memory_mib=64 << 10),
            [node("a", memory_mib=48 << 10)],
            [],
            Change(lever=Lever.MEMORY, asked=64 << 10, instead=48 << 10),
            id="less memory",
        ),
        pytest.param(
            gang(4, 8),
            [node("a"), node("b"), node("c"), node("d")],
            [lease("a", 1, hours=1)],
            Change(lever=Lever.ACCELERATORS, asked=8, instead=7),
            id="the one that gives up least: an eighth, not a quarter",
        ),
        pytest.param(
            gang(1, 8, sites=("RJ2",)),
            [node("a"), node("b", site="RJ2")],
            [lease("b", 8, hours=1)],
            Change(lever=Lever.SITE, asked="RJ2", instead="any"),
            id="another site",
        ),
        pytest.param(
            gang(1, 8),
            [node("a"), node("b", accelerators=(("A100", 8), ("cpu-slot", 64)))],
            [lease("a", 8, hours=1)],
            Change(lever=Lever.MODEL, asked="H100-SXM", instead="A100"),
            id="another model, never a CPU slot for a GPU",
        ),
        pytest.param(
            gang(1, 8, residency=("BR",)),
            [node("a"), node("b", country="US")],
            [lease("a", 8, hours=1)],
            None,
            id="where data may lie is not up for advice",
        ),
    ],
)
def test_cheapest_change(
    demand: Demand, nodes: Sequence[NodeRow], leases: Sequence[LeaseRow], change: Change | None
) -> None:
    explanation = wait_of(decide(snapshot(nodes, leases, [demand]), NOON), "run").explanation
    assert explanation is not None
    assert explanation.change == change


def test_a_run_held_back_by_the_head_is_told_how_short_would_do() -> None:
    queue = [gang(1, 8, run="head"), gang(1, 4, run="later", hours=3)]
    explanation = wait_of(
        decide(snapshot([node("a")], [lease("a", 4, hours=2)], queue), NOON), "later"
    ).explanation
    assert explanation is not None
    assert explanation.change == Change(lever=Lever.DURATION, asked=3 * 3600, instead=2 * 3600)
    assert (explanation.earliest_at, explanation.latest_at) == (at(2), None)


def test_only_the_holder_of_a_booking_is_promised_a_start() -> None:
    queue = [gang(1, 8, run="head"), gang(1, 6, run="second", hours=9)]
    leases = [lease("a", 4, hours=3), lease("b", 3, hours=5)]
    plan = decide(snapshot([node("a", 6), node("b", 8)], leases, queue), NOON)
    head, second = wait_of(plan, "head").explanation, wait_of(plan, "second").explanation
    assert head is not None
    assert second is not None
    assert (head.earliest_at, head.latest_at) == (at(5), at(5))
    assert (second.earliest_at, second.latest_at) == (at(3), None)
