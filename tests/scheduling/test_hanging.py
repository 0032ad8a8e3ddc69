"""The cycle itself keeps breakers, topology and few leaves, because it asks the hall and the packing of the house."""

from datetime import timedelta

import pytest

from baseai.scheduling.decide import decide
from baseai.scheduling.plan import Plan, WaitKind
from baseai.scheduling.snapshot import LeaseRow, NodeRow, WaitingRun, snapshot_of
from baseai.workloads.demand import Demand
from baseai.workloads.spec import Topology
from tests.scheduling.fleet import H100, NOON, at, gang, lease, node, places, wait_of

WATTS = {H100: 1275}


def decided(nodes: list[NodeRow], queue: list[Demand], leases: list[LeaseRow] | None = None) -> Plan:
    waiting = [
        WaitingRun(demand=demand, enqueued_at=at(-1) + timedelta(seconds=second))
        for second, demand in enumerate(queue)
    ]
    return decide(snapshot_of(nodes, leases or [], waiting, watts=WATTS), NOON, packing="blend")


def racked(load_watts: int) -> list[NodeRow]:
    """Two nodes of eight under one breaker, and one under its own."""
    return [
        node("a", rack="r1", watts=load_watts),
        node("b", rack="r1", watts=load_watts),
        node("c", rack="r2", watts=load_watts),
    ]


def test_no_more_is_granted_under_a_breaker_than_it_lets_through() -> None:
    nodes = racked(12 * 1275)[:2]
    plan = decided(nodes, [gang(1, 8, run="first"), gang(1, 8, run="second"), gang(1, 4, run="third")])
    assert set(places(plan)) == {"first", "third"}
    assert wait_of(plan, "second").kind is WaitKind.SHORT


def test_a_gang_that_one_breaker_never_carries_is_told_so_and_gets_no_date() -> None:
    queue = [gang(2, 8, run="wide"), gang(1, 4, run="narrow")]
    plan = decided(racked(12 * 1275)[:2], queue)
    assert set(places(plan)) == {"narrow"}
    wait = wait_of(plan, "wide")
    assert wait.kind is WaitKind.NEVER
    assert wait.explanation is not None
    assert wait.explanation.earliest_at is None
    assert set(places(decided(racked(12 * 1275), queue))["wide"]) == {"a", "c"}  # two breakers do


def test_what_is_leased_already_draws_as_well() -> None:
    plan = decided(racked(10 * 1275), [gang(1, 8, run="r")], [lease("a", 4, hours=2)])
    assert places(plan) == {"r": ("c",)}
    plan = decided(racked(10 * 1275)[:2], [gang(1, 8, run="r")], [lease("a", 4, hours=2)])
    explanation = wait_of(plan, "r").explanation
    assert explanation is not None
    assert explanation.earliest_at == at(2)


def test_a_lease_stays_when_its_breaker_was_made_smaller_and_nobody_joins_it() -> None:
    plan = decided(racked(2 * 1275)[:2], [gang(1, 1, run="r")], [lease("a", 8, hours=2)])
    assert places(plan) == {}


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        pytest.param(None, {"a", "b"}, id="few leaves by itself"),
        pytest.param(Topology(required="leaf", preferred=None), {"a", "b"}, id="within one leaf"),
        pytest.param(Topology(required="site", preferred="leaf"), {"a", "b"}, id="near, if that can be had"),
    ],
)
def test_a_gang_stands_within_its_topology(topology: Topology | None, expected: set[str]) -> None:
    nodes = [
        node("a", leaf="l1", pod="p"),
        node("b", leaf="l1", pod="p"),
        node("c", leaf="l2", pod="p"),
        node("d", leaf="l2", pod="p"),
    ]
    plan = decided(nodes, [gang(2, 8, run="r", topology=topology)], [lease("c", 1, hours=9)])
    assert set(places(plan)["r"]) == expected


def test_a_gang_that_needs_one_leaf_waits_for_it() -> None:
    nodes = [node("a", leaf="l1"), node("b", leaf="l1"), node("c", leaf="l2"), node("d", leaf="l2")]
    asked = gang(2, 8, run="r", topology=Topology(required="leaf", preferred=None))
    plan = decided(nodes, [asked], [lease("a", 1, hours=3, run="x"), lease("c", 1, hours=5, run="y")])
    wait = wait_of(plan, "r")
    assert wait.kind is WaitKind.SHORT
    assert wait.explanation is not None
    assert wait.explanation.earliest_at == at(3)


def test_the_grant_says_over_how_many_leaves_and_how_few_there_could_be() -> None:
    nodes = [
        node(name, leaf=leaf, pod="p") for name, leaf in zip("abcd", ["l1", "l1", "l2", "l2"], strict=True)
    ]
    (grant,) = decided(nodes, [gang(3, 8, run="r")]).grants
    assert grant.why is not None
    assert (grant.why.policy, grant.why.leaves, grant.why.leaves_fewest) == ("fabric", 2, 2)
