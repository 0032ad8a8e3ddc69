"""Gangs on a fabric stay under few leaves of one pod, and the scattered wait a little; models get their work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.ground.fault import Refused
from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.assign import Assign
from baseai.scheduling.policy.fabric import Fabric, Scatter
from baseai.scheduling.policy.registry import packing_named, timing_named
from baseai.twin.neutral import Segment, Submission
from baseai.twin.replay import Replay
from tests.scheduling.halls import bay, gang

CHANCE = np.random.default_rng(1)


def fabric(*leaves: tuple[str, int]) -> Hall:
    """Nodes of one accelerator under leaves l0, l1, …, each (pod, nodes)."""
    return Hall(
        [
            bay(f"l{number}-{node}", 1, leaf=f"l{number}", pod=pod)
            for number, (pod, nodes) in enumerate(leaves)
            for node in range(nodes)
        ]
    )


def taken(one: Hall, count: int, *already: str) -> list[str]:
    """How often each leaf is used by a gang of so many nodes, with nodes that are taken already."""
    for number, node_id in enumerate(already):
        each = gang(f"x{number}")
        one.place(each.run_id, each.shape, [one.spot(one.node_ids.index(node_id), each.shape)])
    spots = Fabric(one, CHANCE).place(gang("g", pods=count), one)
    return [] if spots is None else sorted(one.leaves[one.leaf[spot.row]] for spot in spots)


@pytest.mark.parametrize(
    ("leaves", "count", "already", "expected"),
    [
        pytest.param([("p", 4), ("p", 2)], 2, [], ["l1"] * 2, id="the leaf that it fills"),
        pytest.param([("p", 4), ("p", 4)], 2, ["l1-0"], ["l1"] * 2, id="a leaf that is in use already"),
        pytest.param([("p", 4), ("p", 4), ("p", 2)], 6, [], ["l0"] * 4 + ["l2"] * 2, id="the rest where it fits best"),
        pytest.param([("p", 3), ("p", 3), ("p", 1), ("q", 4), ("q", 2)], 6, [], ["l3"] * 4 + ["l4"] * 2, id="the pod"),
        pytest.param([("p", 2), ("p", 2), ("p", 2), ("q", 4), ("q", 4)], 6, [], ["l3"] * 3 + ["l4"] * 3, id="fewer"),
        pytest.param([("p", 15), ("p", 9), ("p", 8), ("p", 1)], 16, [], ["l1"] * 8 + ["l2"] * 8, id="8:8, not 15:1"),
        pytest.param([("p", 6), ("p", 6), ("p", 6)], 14, [], ["l0"] * 5 + ["l1"] * 5 + ["l2"] * 4, id="by thirds"),
        pytest.param([("p", 6), ("p", 2)], 7, [], ["l0"] * 5 + ["l1"] * 2, id="as even as they allow"),
        pytest.param([("p", 4), ("p", 1), ("q", 3)], 5, ["l0-0"], [*["l0"] * 3, "l1", "l2"], id="across pods"),
        pytest.param([("p", 2), ("q", 2)], 5, [], [], id="not at all"),
    ],
)  # fmt: skip
def test_a_gang_goes_under_the_fewest_leaves_of_one_pod(
    leaves: list[tuple[str, int]], count: int, already: list[str], expected: list[str]
) -> None:
    assert taken(fabric(*leaves), count, *already) == expected


@given(
    leaves=st.lists(st.tuples(st.sampled_from("pq"), st.integers(1, 6)), min_size=1, max_size=6),
    count=st.integers(1, 20),
)
def test_even_shares_never_take_a_leaf_more_and_nobody_who_fits_is_refused(
    leaves: list[tuple[str, int]], count: int
) -> None:
    of_leaf = taken(fabric(*leaves), count)
    sizes = [size for _, size in leaves]
    assert len(of_leaf) == (count if sum(sizes) >= count else 0)
    in_pod = [sorted((size for name, size in leaves if name == pod), reverse=True) for pod in "pq"]
    fewest = [next((n for n in range(7) if sum(own[:n]) >= count), None) for own in in_pod]
    if of_leaf and (best := [number for number in fewest if number is not None]):
        assert len(set(of_leaf)) == min(best)


def test_a_gang_that_comes_again_finds_the_leaves_that_it_had() -> None:
    one = fabric(("p", 4), ("p", 4), ("p", 4), ("p", 4))
    policy = Fabric(one, CHANCE)
    asked = gang("g1", pods=6)
    first = policy.place(asked, one)
    assert first is not None
    one.place(asked.run_id, asked.shape, first)
    for number in (2, 3, 4):  # others come, and it is thrown off and comes back
        other = gang(f"g{number}", pods=1)
        spots = policy.place(other, one)
        assert spots is not None
        one.place(other.run_id, other.shape, spots)
        one.remove(asked.run_id)
        again = policy.place(asked, one)
        assert again == first
        one.place(asked.run_id, asked.shape, again)
        one.remove(other.run_id)


def test_who_must_cross_pods_stays_within_a_site_that_holds_it() -> None:
    one = Hall(
        [
            bay(f"{site}{pod}{number}", 1, leaf=f"{site}{pod}", pod=f"{site}{pod}", site=site)
            for site, pod, nodes in [("s", "a", 5), ("s", "b", 1), ("t", "a", 4), ("t", "b", 4)]
            for number in range(nodes)
        ]
    )
    spots = Fabric(one, CHANCE).place(gang("g", pods=7), one)
    assert spots is not None
    assert {one.sites[one.site[spot.row]] for spot in spots} == {"t"}


def test_nodes_of_which_no_leaf_is_known_are_not_taken_for_one_leaf() -> None:
    one = Hall(
        [bay(f"a{number}", 1) for number in range(4)]
        + [bay(f"b{number}", 1, leaf="l") for number in range(4)]
    )
    spots = Fabric(one, CHANCE).place(gang("g", pods=3), one)
    assert spots is not None
    assert {one.leaves[one.leaf[spot.row]] for spot in spots} == {"l"}


def test_a_leaf_whose_racks_have_too_little_power_holds_less() -> None:
    racks = {"l0": "r", "l1": "s"}
    one = Hall(
        [
            bay(f"{leaf}-{number}", 1, leaf=leaf, pod="p", rack=racks[leaf], watts=watts)
            for leaf, nodes, watts in [("l0", 4, 2000), ("l1", 5, 9000)]
            for number in range(nodes)
        ]
    )
    spots = Fabric(one, CHANCE).place(gang("g", pods=4, watts=1000), one)
    assert spots is not None
    assert {one.leaves[one.leaf[spot.row]] for spot in spots} == {"l1"}


@pytest.mark.parametrize(
    "packing", ["fabric", "blend", "lookahead", "best_fit", "leaf_best_fit", "first_fit", "fgd"]
)
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param({"reach": "leaf", "pods": 3}, {"l2"}, id="within the one leaf that holds it"),
        pytest.param({"reach": "leaf", "pods": 4}, None, id="or not at all"),
        pytest.param({"reach": "pod", "pods": 4}, {"l2", "l3"}, id="within the one pod that holds it"),
        pytest.param({"reach": "pod", "pods": 6}, None, id="no pod has six"),
        pytest.param({"near": "leaf", "pods": 3}, {"l2"}, id="near is tried first"),
        pytest.param({"near": "leaf", "pods": 8}, {"l0", "l1", "l2", "l3"}, id="and is no condition"),
        pytest.param({"near": "leaf", "reach": "pod", "pods": 5}, {"l2", "l3"}, id="within the pod, if not the leaf"),
    ],
)  # fmt: skip
def test_topology_is_kept_by_whatever_packs(
    packing: str, shape: dict[str, object], expected: set[str] | None
) -> None:
    one = fabric(("p", 2), ("p", 1), ("q", 3), ("q", 2))
    spots = packing_named(packing)(one, CHANCE).place(gang("g", **shape), one)
    assert (None if spots is None else {one.leaves[one.leaf[spot.row]] for spot in spots}) == expected
    if spots is not None:
        one.place("g", gang("g", **shape).shape, spots)


def test_scatter_counts_against_an_empty_hall() -> None:
    one = fabric(("p", 4), ("p", 4), ("q", 4))
    asked = gang("g", pods=6)
    spots = [one.spot(row, asked.shape) for row in (0, 1, 4, 5, 8, 9)]
    assert Fabric(one, CHANCE).scatter(asked, spots, one) == Scatter(leaves=3, leaves_fewest=2, pods=2)


def test_who_would_cross_pods_waits_for_better_and_goes_there_in_the_end() -> None:
    def start_of_wide(first_ends_s: float) -> float:
        one = fabric(("p", 2), ("q", 2))
        jobs = [(gang("a0"), first_ends_s), (gang("a1"), 1e6), (gang("a2", pods=2, submit_s=1), 10_000.0)]
        ran = replayed("gather", one, jobs)
        return next(segment.start_s for segment in ran if segment.run_id == "a2")

    assert start_of_wide(1e6) == 1  # q is whole
    one = fabric(("p", 2), ("q", 1))
    jobs = [(gang("a0"), 500.0), (gang("a1", pods=2, submit_s=1), 10_000.0)]
    assert replayed("gather", one, jobs)[-1].start_s in (1, 500)
    held = fabric(("p", 1), ("q", 1))
    assert replayed("gather", held, [(gang("a1", pods=2, submit_s=1), 10_000.0)])[0].start_s == 1 + 3 * 1000


def replayed(policy: str, one: Hall, jobs: list[tuple[Gang, float]]) -> list[Segment]:
    rng = np.random.default_rng(1)
    chosen = timing_named(policy)(one, rng, packing_named("best_fit")(one, rng))
    return Replay([Submission(gang=each, duration_s=s, by_model={}) for each, s in jobs], one, chosen).run()


def test_assign_gives_each_model_what_it_is_relatively_fast_at() -> None:
    one = Hall([bay("a", 2, model="A"), bay("b", 2, model="B")])
    by_model = {"x": {"A": 10.0, "B": 11.0}, "y": {"A": 12.0, "B": 60.0}}
    jobs = [
        Submission(
            gang=gang(
                f"{kind}{number}", models=("A", "B"), one_model=True, number=number + 10 * (kind == "y")
            ),
            duration_s=None,
            by_model=by_model[kind],
        )
        for kind in by_model
        for number in range(2)
    ]
    segments = Replay(jobs, one, Assign(one, np.random.default_rng(1), Fabric(one, CHANCE))).run()
    assert {segment.run_id[0]: one.models[one.model[segment.spots[0].row]] for segment in segments} == {
        "x": "B",
        "y": "A",
    }
    assert max(segment.end_s for segment in segments) == 12


def test_assign_plans_anew_around_what_runs_when_somebody_comes() -> None:
    one = Hall([bay("a", 1)])
    ran = replayed(
        "assign", one, [(gang("a0"), 10.0), (gang("a1", submit_s=1), 9.0), (gang("a2", submit_s=2), 1.0)]
    )
    assert [(each.run_id, each.start_s) for each in ran] == [("a0", 0), ("a2", 10), ("a1", 11)]


def test_assign_says_whom_it_cannot_plan() -> None:
    one = Hall([bay("a", 4)])
    with pytest.raises(Refused, match="run g1: this policy assigns gangs of one pod"):
        replayed("assign", one, [(gang("g1", pods=2), 1.0)])
