"""Which nodes a gang is given, and which it may not have."""

from collections.abc import Sequence

import pytest

from baseai.scheduling.decide import decide
from baseai.scheduling.snapshot import LeaseRow, NodeRow
from baseai.workloads.demand import Ask, Demand
from tests.scheduling.fleet import NOON, gang, lease, node, places, snapshot

SLOTS = (("H100-SXM", 8), ("cpu-slot", 16))


@pytest.mark.parametrize(
    ("demand", "nodes", "leases", "expected"),
    [
        pytest.param(gang(1, 2), [node("a", 8), node("b", 2)], [], ("b",), id="the tightest node wins"),
        pytest.param(
            gang(1, 2),
            [node("a"), node("b")],
            [lease("b", 4, hours=1)],
            ("b",),
            id="tight is by what is free, not by what is there",
        ),
        pytest.param(gang(1, 2), [node("b", 4), node("a", 4)], [], ("a",), id="then the lowest node id"),
        pytest.param(gang(2, 8), [node("a"), node("b", 4)], [], None, id="a gang is all or nothing"),
        pytest.param(
            gang(2, 4),
            [node("c", 8), node("b", 4), node("a", 6)],
            [],
            ("a", "b"),
            id="a gang is on different nodes",
        ),
        pytest.param(gang(2, 4), [node("a", 8)], [], None, id="one large node is no gang of two"),
        pytest.param(gang(1, 1), [node("a", state="cordoned")], [], None, id="a cordoned node takes no runs"),
        pytest.param(gang(1, 1, models=("A100",)), [node("a")], [], None, id="another model will not do"),
        pytest.param(
            gang(1, 4, models=("A100", "H100-SXM")),
            [node("a")],
            [],
            ("a",),
            id="any of several models will do",
        ),
        pytest.param(
            gang(2, 4, models=("A100", "H100-SXM")),
            [node("a"), node("b", accelerators=(("A100", 8),))],
            [],
            None,
            id="a gang has one model throughout",
        ),
        pytest.param(gang(1, 1, memory_mib=2048), [node("a", memory_mib=1024)], [], None, id="memory"),
        pytest.param(gang(1, 1, disk_mib=2048), [node("a", disk_mib=1024)], [], None, id="disk"),
        pytest.param(gang(1, 1, cpu_milli=2000), [node("a", cpu_milli=1500)], [], None, id="cores"),
        pytest.param(
            gang(1, 1, memory_mib=600),
            [node("a", memory_mib=1000, accelerators=SLOTS)],
            [lease("a", 1, hours=1, model="cpu-slot", memory_mib=500)],
            None,
            id="the two bays of a node share its memory",
        ),
        pytest.param(gang(1, 1, sites=("SP5",)), [node("a"), node("b", site="SP5")], [], ("b",), id="site"),
        pytest.param(gang(1, 1, sites=("RJ2",)), [node("a")], [], None, id="a site nobody has"),
        pytest.param(
            gang(1, 1, residency=("BR",)),
            [node("a", site="MI1", country="US"), node("b")],
            [],
            ("b",),
            id="data stays in the country",
        ),
        pytest.param(
            gang(1, 1, residency=("BR", "MI1")),
            [node("a", site="MI1", country="US"), node("b", site="DC2", country="US")],
            [],
            ("a",),
            id="data stays in a country or a site",
        ),
        pytest.param(
            gang(1, 1, needs_container=True),
            [node("a", 2), node("b", has_container_runtime=True)],
            [],
            ("b",),
            id="an image needs a container runtime",
        ),
        pytest.param(
            gang(1, 1),
            [node("a", isolation="none")],
            [lease("a", 1, hours=1, tenant_id="rival")],
            None,
            id="no two tenants on a node that cannot keep them apart",
        ),
        pytest.param(
            gang(1, 1),
            [node("a", isolation="none")],
            [lease("a", 1, hours=1, tenant_id="acme")],
            ("a",),
            id="two runs of one tenant may share such a node",
        ),
        pytest.param(
            gang(1, 1),
            [node("a", isolation="none")],
            [lease("a", 1, hours=1, tenant_id="rival"), lease("a", 1, hours=1, tenant_id="acme")],
            None,
            id="where two already stand, nobody joins",
        ),
        pytest.param(
            gang(1, 2, models=("cpu-slot",)),
            [node("a", accelerators=SLOTS)],
            [],
            ("a",),
            id="CPU slots beside GPUs",
        ),
        pytest.param(
            gang(1, 1),
            [node("a", accelerators=(("H100-SXM", 2),))],
            [lease("a", 3, hours=1)],
            None,
            id="more leased than is still usable leaves nothing",
        ),
    ],
)
def test_place(
    demand: Demand, nodes: Sequence[NodeRow], leases: Sequence[LeaseRow], expected: tuple[str, ...] | None
) -> None:
    plan = decide(snapshot(nodes, leases, [demand]), NOON)
    assert places(plan).get("run") == expected


def test_two_tenants_do_not_meet_within_one_cycle() -> None:
    queue = [gang(1, 1, run="ours"), gang(1, 1, run="theirs", tenant_id="rival")]
    plan = decide(snapshot([node("a", isolation="none")], queue=queue), NOON)
    assert places(plan) == {"ours": ("a",)}


def test_the_preferred_of_several_choices_is_taken() -> None:
    either = gang(asks=(Ask(models=("H100-SXM",), count=8), Ask(models=("H100-SXM",), count=4)))
    whole = decide(snapshot([node("a", 8)], queue=[either]), NOON)
    part = decide(snapshot([node("a", 8)], [lease("a", 2, hours=1)], [either]), NOON)
    assert whole.grants[0].places == (("a", "H100-SXM", 8),)
    assert part.grants[0].places == (("a", "H100-SXM", 4),)
