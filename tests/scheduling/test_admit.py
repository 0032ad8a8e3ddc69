"""A run that can never fit is told at once, with the constraint to blame and what would fit."""

from collections.abc import Sequence

import pytest

from baseai.scheduling.admit import Fits, NeverFits, fits_ever
from baseai.scheduling.constraint import Constraint
from baseai.scheduling.fleet import fleet_of
from baseai.scheduling.plan import Change, Lever
from baseai.scheduling.snapshot import NodeRow
from baseai.workloads.demand import Demand
from tests.scheduling.fleet import gang, node


def test_a_cordoned_node_still_counts() -> None:
    assert fits_ever(gang(2, 8), fleet_of([node("a"), node("b", state="cordoned")], {})) == Fits()


@pytest.mark.parametrize(
    ("demand", "nodes", "constraint", "largest"),
    [
        pytest.param(
            gang(1, 16),
            [node("a"), node("b", 4)],
            Constraint.ACCELERATORS,
            Change(lever=Lever.ACCELERATORS, asked=16, instead=8),
            id="no node has so many",
        ),
        pytest.param(
            gang(4, 8),
            [node("a"), node("b"), node("c")],
            Constraint.NODES,
            Change(lever=Lever.NODES, asked=4, instead=3),
            id="too few nodes",
        ),
        pytest.param(
            gang(1, 1, memory_mib=100 << 10),
            [node("a", memory_mib=64 << 10)],
            Constraint.MEMORY,
            Change(lever=Lever.MEMORY, asked=100 << 10, instead=64 << 10),
            id="memory",
        ),
        pytest.param(
            gang(1, 1, residency=("PT",)), [node("a")], Constraint.SITE, None, id="data may lie nowhere here"
        ),
        pytest.param(gang(1, 1), [node("a", state="retired")], Constraint.STATE, None, id="no node stands"),
        pytest.param(gang(1, 1, needs_container=True), [node("a")], Constraint.CONTAINER, None, id="image"),
    ],
)
def test_never_fits(
    demand: Demand, nodes: Sequence[NodeRow], constraint: Constraint, largest: Change | None
) -> None:
    answer = fits_ever(demand, fleet_of(nodes, {}))
    assert isinstance(answer, NeverFits)
    assert (answer.constraint, answer.largest) == (constraint, largest)


def test_the_sentence_names_what_the_fleet_has() -> None:
    answer = fits_ever(
        gang(1, 1, models=("MI300X",)), fleet_of([node("a", accelerators=(("cpu-slot", 4),))], {})
    )
    assert isinstance(answer, NeverFits)
    assert answer.sentence == (
        "This run can never start here: it needs 1 node, 0 of 1 could take it when empty; "
        "too few nodes have MI300X. The fleet has cpu-slot."
    )
