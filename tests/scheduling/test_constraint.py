"""What nodes fail for a run: each counts once, for the first that it fails."""

from typing import Any

import pytest

from baseai.scheduling.constraint import Constraint, nodes_failing
from baseai.scheduling.fleet import fleet_of
from baseai.scheduling.gang import Shape
from baseai.scheduling.outlook import free_now
from baseai.workloads.demand import Ask, Demand
from tests.scheduling.fleet import H100, gang, node

WATTS = {H100: 1000}


def failing(nodes: list[Any], demand: Demand) -> tuple[dict[Constraint, int], int]:
    fleet = fleet_of(nodes, WATTS)
    counts, fitting = nodes_failing(fleet.shapes_of(demand), fleet.hall, free_now(fleet.hall))
    return dict(counts), fitting


@pytest.mark.parametrize(
    ("other", "demand", "constraint"),
    [
        pytest.param({"state": "cordoned"}, gang(), Constraint.STATE, id="it takes no runs"),
        pytest.param({"site": "RJ1"}, gang(sites=("SP4",)), Constraint.SITE, id="it is elsewhere"),
        pytest.param(
            {"site": "US1", "country": "US"},
            gang(residency=("BR",)),
            Constraint.SITE,
            id="data must not go there",
        ),
        pytest.param(
            {"accelerators": (("L4", 8),)}, gang(), Constraint.MODEL, id="it has other accelerators"
        ),
        pytest.param({"accelerators": ()}, gang(), Constraint.MODEL, id="it has none"),
        pytest.param(
            {"accelerators": ((H100, 2),)}, gang(1, 4), Constraint.ACCELERATORS, id="it has too few"
        ),
        pytest.param({"memory_mib": 10}, gang(memory_mib=11), Constraint.MEMORY, id="too little memory"),
        pytest.param({"disk_mib": 10}, gang(disk_mib=11), Constraint.DISK, id="too little disk"),
        pytest.param({"cpu_milli": 10}, gang(cpu_milli=11), Constraint.CPU, id="too few cores"),
        pytest.param({"rack": "r", "watts": 1999}, gang(1, 2), Constraint.POWER, id="too little power"),
        pytest.param({}, gang(needs_container=True), Constraint.CONTAINER, id="no container runtime"),
        pytest.param(
            {"site": "RJ1", "memory_mib": 10, "accelerators": (("L4", 8),)},
            gang(sites=("SP4",), memory_mib=11),
            Constraint.SITE,
            id="the first of several counts",
        ),
    ],
)
def test_a_node_counts_for_the_first_that_it_fails(
    other: dict[str, Any], demand: Demand, constraint: Constraint
) -> None:
    good = node("good", has_container_runtime=True)
    assert failing([good, node("bad", **other)], demand) == ({constraint: 1}, 1)


def test_a_node_has_enough_if_any_way_to_satisfy_the_run_finds_it_there() -> None:
    nodes = [node("eight", accelerators=(("L4", 8),)), node("two", 2), node("one", 1)]
    asks = (Ask(models=(H100,), count=2), Ask(models=("L4",), count=4))
    assert failing(nodes, gang(asks=asks)) == ({Constraint.ACCELERATORS: 1}, 2)


def test_a_node_of_two_models_counts_once() -> None:
    mixed = node("mixed", accelerators=((H100, 1), ("L4", 4)))
    assert failing([mixed], gang(1, 2)) == ({Constraint.ACCELERATORS: 1}, 0)
    assert failing([mixed], gang(1, 2, models=(H100, "L4"))) == ({}, 1)


def test_a_node_that_cannot_keep_tenants_apart_is_anothers_while_he_is_there() -> None:
    fleet = fleet_of([node("a", isolation="none"), node("b")], WATTS)
    one = fleet.hall
    shape = Shape(milli=1000, tenant="globex")
    one.place("theirs", shape, (one.spot(0, shape),))
    counts, fitting = nodes_failing(fleet.shapes_of(gang()), one, free_now(one))
    assert (dict(counts), fitting) == ({Constraint.TENANT: 1}, 1)


def test_all_nodes_are_counted_whatever_they_fail() -> None:
    nodes = [node("a", state="draining"), node("b", 2), node("c", memory_mib=1), node("d"), node("e")]
    counts, fitting = failing(nodes, gang(1, 4, memory_mib=100))
    assert sum(counts.values()) + fitting == len(nodes)
