"""Free in sum and in no place: the rule on counts, the same of a whole cycle, and the intervals it leaves."""

from collections.abc import Sequence
from typing import Any

import pytest

from baseai.scheduling.decide import decide
from baseai.scheduling.fragmentation import Pool, fragmented_pools
from baseai.scheduling.fragments.postgres import Fragmentations
from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Bay, Hall, Spot
from baseai.scheduling.snapshot import LeaseRow, NodeRow
from baseai.truth.session import Truth, fetch_all
from baseai.workloads.demand import Demand
from tests.scheduling.fleet import H100, NOON, at, gang, lease, node, snapshot


def hall(*free: int, **other: Any) -> Sequence[Bay]:
    """Bays of a node each, with so many accelerators on it, all of them free."""
    usual: dict[str, Any] = {"model": H100, "site": "SP4", "country": "BR", "memory_mib": 64}
    said = usual | other
    return [
        Bay(node_id=f"{said['site']}{said['model']}{n}", devices=many, **said) for n, many in enumerate(free)
    ]


def shape(pods: int, count: int, *models: str, **other: Any) -> Shape:
    return Shape(
        pods=pods, milli=count * WHOLE, models=models or (H100,), one_model=True, apart=True, **other
    )


@pytest.mark.parametrize(
    ("bays", "short", "expected"),
    [
        pytest.param(hall(4, 4), [(shape(1, 8),)], {(H100, "SP4")}, id="eight are free and not on one node"),
        pytest.param(hall(4, 3), [(shape(1, 8),)], set(), id="not even in sum"),
        pytest.param(hall(8, 1), [(shape(1, 8),)], set(), id="it fits"),
        pytest.param(hall(16), [(shape(2, 8),)], {(H100, "SP4")}, id="two nodes are wanted, one has it all"),
        pytest.param(
            [*hall(4), *hall(4, site="MI1")],
            [(shape(1, 8),)],
            {(H100, "SP4"), (H100, "MI1")},
            id="half of it at each of two sites",
        ),
        pytest.param(
            [*hall(4), *hall(4, site="MI1")], [(shape(1, 8, sites=("SP4",)),)], set(), id="one is allowed"
        ),
        pytest.param(
            [*hall(4), *hall(4, site="MI1", country="US")],
            [(shape(1, 8, residency=("BR",)),)],
            set(),
            id="data stays here",
        ),
        pytest.param(
            [*hall(4, 4), *hall(8, model="A100")],
            [(shape(1, 8, H100, "A100"),)],
            set(),
            id="another model serves",
        ),
        pytest.param(
            [*hall(4, 4), *hall(4, model="A100")],
            [(shape(1, 8, H100, "A100"),)],
            {(H100, "SP4")},
            id="no model serves",
        ),
        pytest.param(hall(4, 4), [(shape(1, 8), shape(1, 4))], set(), id="less would do"),
        pytest.param(
            hall(8), [(shape(1, 8, memory_mib=100),)], {(H100, "SP4")}, id="its node has no memory left"
        ),
        pytest.param(
            hall(4, 4), [(shape(1, 9),), (shape(1, 8),)], {(H100, "SP4")}, id="one of two is enough"
        ),
        pytest.param(hall(4, 4), [], set(), id="nobody waits"),
    ],
)
def test_fragmented_pools(
    bays: Sequence[Bay], short: Sequence[tuple[Shape, ...]], expected: set[tuple[str, str]]
) -> None:
    found = fragmented_pools(short, Hall(bays))
    assert {(pool.model, pool.site) for pool in found} == expected


def test_what_is_taken_or_out_of_service_is_not_free() -> None:
    stood = Hall(hall(4, 4, 4))
    eight = shape(1, 8)
    assert fragmented_pools([(eight,)], stood)
    stood.place("busy", shape(1, 2), [Spot(0, (0, 1))])
    stood.set_ready(stood.node_ids[1], False)
    assert not fragmented_pools([(eight,)], stood)


TWO = (node("n1"), node("n2"))
HERE = frozenset({Pool(model=H100, site="SP4")})


def cycle(nodes: Sequence[NodeRow], leases: Sequence[LeaseRow], *queue: Demand) -> frozenset[Pool]:
    return decide(snapshot(nodes, leases, queue), NOON).fragmented


@pytest.mark.parametrize(
    ("nodes", "leases", "queue", "expected"),
    [
        pytest.param(
            TWO, [lease("n1", 4, hours=9), lease("n2", 4, hours=9)], [gang(1, 8)], HERE, id="four and four"
        ),
        pytest.param(
            TWO, [lease("n1", 4, hours=9), lease("n2", 5, hours=9)], [gang(1, 8)], set(), id="too few in sum"
        ),
        pytest.param(TWO, [lease("n1", 8, hours=9)], [gang(1, 8)], set(), id="it starts"),
        pytest.param(
            [node("n1"), node("n2", state="cordoned")],
            [lease("n1", 4, hours=9)],
            [gang(1, 8)],
            set(),
            id="what is out of service is not free",
        ),
        pytest.param(
            TWO,
            [lease("n1", 2, hours=9), lease("n2", 2, hours=9)],
            [gang(1, 5, run="a"), gang(1, 7, run="b")],
            HERE,
            id="what the first to start leaves",
        ),
        pytest.param(
            TWO,
            [lease("n1", 4, hours=1)],
            [gang(2, 8, run="head"), gang(1, 4, run="long", hours=9)],
            set(),
            id="held back behind a booking is not without a place",
        ),
        pytest.param(
            [node("n1", memory_mib=64)],
            [lease("n1", 1, hours=9, memory_mib=60)],
            [gang(1, 4, memory_mib=32)],
            HERE,
            id="accelerators are free and their node's memory is not",
        ),
    ],
)
def test_a_whole_cycle(
    nodes: Sequence[NodeRow], leases: Sequence[LeaseRow], queue: Sequence[Demand], expected: set[Pool]
) -> None:
    assert cycle(nodes, leases, *queue) == expected


async def intervals(truth: Truth) -> list[tuple[float, float, float | None]]:
    """(from, last seen, until) in seconds after noon."""
    async with truth.transaction() as session:
        rows = await fetch_all(session, "SELECT * FROM fragmentations ORDER BY from_at")
    return [
        (
            (row["from_at"] - NOON).total_seconds(),
            (row["seen_at"] - NOON).total_seconds(),
            row["until_at"] and (row["until_at"] - NOON).total_seconds(),
        )
        for row in rows
    ]


@pytest.mark.anyio
async def test_an_interval_reaches_from_the_first_verdict_to_the_one_that_ends_it(truth: Truth) -> None:
    async with truth.transaction() as session:
        await session.execute("INSERT INTO sites (site_id) VALUES ('SP4')")
    record = Fragmentations(truth)
    for second, pools in ((0, HERE), (10, HERE), (20, frozenset[Pool]()), (30, frozenset[Pool]())):
        await record.note(pools, at(second / 3600))
    assert await intervals(truth) == [(0, 20, 20)]


@pytest.mark.anyio
async def test_nobody_knows_what_was_while_no_cycle_looked(truth: Truth) -> None:
    async with truth.transaction() as session:
        await session.execute("INSERT INTO sites (site_id) VALUES ('SP4')")
    await Fragmentations(truth).note(HERE, at(0))
    await Fragmentations(truth).note(HERE, at(10 / 3600))
    await Fragmentations(truth).note(HERE, at(1))  # another controller, an hour later
    await Fragmentations(truth).note(frozenset(), at(2))
    assert await intervals(truth) == [(0, 10, 10), (3600, 3600, 3600)]
