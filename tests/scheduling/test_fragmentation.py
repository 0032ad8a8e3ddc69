"""Free in sum and in no place: the rule on counts, the same of a whole cycle, and the intervals it leaves."""

from collections.abc import Mapping, Sequence

import pytest

from baseai.scheduling.decide import decide
from baseai.scheduling.fragmentation import Pool, Want, fragmented_in, fragmented_models
from baseai.scheduling.fragments.postgres import Fragmentations
from baseai.scheduling.snapshot import LeaseRow, NodeRow
from baseai.truth.session import Truth, fetch_all
from baseai.workloads.demand import Demand
from tests.scheduling.fleet import H100, NOON, at, gang, lease, node, snapshot


def pool(model: str = "H100", site: str = "a") -> Pool:
    return Pool(model=model, site=site)


def want(node_count: int, count: int, *models: str, sites: tuple[str, ...] = ()) -> Want:
    return Want(models=models or ("H100",), count=count, node_count=node_count, sites=sites)


@pytest.mark.parametrize(
    ("free", "wants", "expected"),
    [
        pytest.param({pool(): (4, 4)}, [want(1, 8)], {pool()}, id="eight are free and not on one node"),
        pytest.param({pool(): (4, 3)}, [want(1, 8)], set(), id="not even in sum"),
        pytest.param({pool(): (8, 0)}, [want(1, 8)], set(), id="it fits"),
        pytest.param({pool(): (16,)}, [want(2, 8)], {pool()}, id="two nodes are wanted and one has it all"),
        pytest.param(
            {pool(): (4,), pool(site="b"): (4,)}, [want(1, 8)], {pool(), pool(site="b")}, id="over two sites"
        ),
        pytest.param(
            {pool(): (4,), pool(site="b"): (4,)}, [want(1, 8, sites=("a",))], set(), id="only one is allowed"
        ),
        pytest.param(
            {pool(): (4, 4), pool("A100"): (8,)},
            [want(1, 8, "H100", "A100")],
            set(),
            id="another model serves",
        ),
        pytest.param(
            {pool(): (4, 4), pool("A100"): (4,)}, [want(1, 8, "H100", "A100")], {pool()}, id="no model serves"
        ),
        pytest.param({pool(): (4, 4)}, [], set(), id="nobody waits"),
    ],
)
def test_fragmented_models(
    free: Mapping[Pool, Sequence[int]], wants: Sequence[Want], expected: set[Pool]
) -> None:
    assert fragmented_models(free, wants) == expected


TWO = (node("n1"), node("n2"))
HERE = frozenset({Pool(model=H100, site="SP4")})


def cycle(nodes: Sequence[NodeRow], leases: Sequence[LeaseRow], *queue: Demand) -> frozenset[Pool]:
    seen = snapshot(nodes, leases, queue)
    return fragmented_in(seen, decide(seen, NOON))


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
