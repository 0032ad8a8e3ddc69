"""Runs of one name stand apart as far as there is room, site before rack before node, and are never refused for it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape, Terms
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy.blend import FORGET_FROM, Blend
from baseai.scheduling.policy.spread import crowding, steps
from tests.scheduling.halls import bay, gang

CHANCE = np.random.default_rng(1)


def replica(number: int, spread: str = "chat", **shape: object) -> Gang:
    return replace(gang(f"r{number}", **shape), terms=Terms(spread=spread))  # type: ignore[arg-type]


def house() -> Hall:
    """Two sites; in s two racks of two nodes under a leaf each, in t one rack of one node."""
    return Hall(
        [
            bay("a", 2, site="s", rack="r1", leaf="l1"),
            bay("b", 2, site="s", rack="r1", leaf="l1"),
            bay("c", 2, site="s", rack="r2", leaf="l2"),
            bay("d", 2, site="s", rack="r2", leaf="l2"),
            bay("e", 2, site="t", rack="r3", leaf="l3"),
        ]
    )


def placed(one: Hall, policy: Blend, *gangs: Gang) -> list[str]:
    """The node of the first pod of each, one after the other."""
    nodes = []
    for each in gangs:
        spots = policy.place(each, one)
        assert spots is not None
        one.place(each.run_id, each.shape, spots)
        nodes.append(one.node_ids[spots[0].row])
    return nodes


def test_crowding_counts_sites_before_racks_and_leaves_before_nodes() -> None:
    crowd = crowding(house(), [Spot(0, (0,))]).tolist()
    assert crowd[4] < crowd[2] == crowd[3] < crowd[1] < crowd[0]
    assert crowding(house(), []).tolist() == [0] * 5


def test_replicas_go_to_another_site_then_another_rack_then_another_node() -> None:
    one = house()
    nodes = placed(one, Blend(one, CHANCE), *(replica(number) for number in range(7)))
    assert nodes == ["a", "e", "c", "e", "b", "d", "a"]  # t has room for two


def test_it_goes_beside_its_like_where_nothing_else_is_left() -> None:
    one = Hall([bay("a", 4, site="s", rack="r"), bay("b", 1, site="t", rack="q")])
    one.place("other", Shape(milli=1000), [Spot(1, (0,))])
    assert placed(one, Blend(one, CHANCE), *(replica(number) for number in range(4))) == ["a"] * 4


def test_another_name_and_no_name_do_not_matter() -> None:
    one = Hall([bay("a"), bay("b")])
    nodes = placed(one, Blend(one, CHANCE), replica(0), replica(1, "other"), replica(2, ""), replica(3, ""))
    assert len(set(nodes)) == 1  # the packing's own choice
    assert placed(one, Blend(one, CHANCE), replica(4)) == nodes[:1]  # who stands was not told of


def test_whoever_stands_already_is_told_of() -> None:
    one = Hall([bay("a", 4), bay("b", 4)])
    before = placed(one, Blend(one, CHANCE), replica(0))
    anew = Blend(one, CHANCE)
    anew.stands(replica(0))
    assert set(placed(one, anew, replica(1))) == {"a", "b"} - set(before)


def test_the_gone_are_forgotten_in_time() -> None:
    one = Hall([bay("a", 4), bay("b", 4)])
    policy = Blend(one, CHANCE)
    for number in range(3 * FORGET_FROM):
        each = replica(number)
        placed(one, policy, each)
        one.remove(each.run_id)
    assert len(policy._alike["chat"]) <= FORGET_FROM + 1


@pytest.mark.parametrize("pods", [2, 3])
def test_a_gang_of_several_pods_opens_as_few_crowded_rows_as_it_needs(pods: int) -> None:
    one = house()
    one.place("r9", Shape(milli=2000), [Spot(0, (0, 1))])
    found = [mask.tolist() for mask in steps(one, Shape(pods=pods, milli=1000), [Spot(0, (0,))])]
    assert found[0] == ([False] * 4 + [True] if pods == 2 else [False, False, True, True, True])
    assert found[-1] == [False, True, True, True, True]  # a itself has no room any more


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Hall, list[Gang]]:
    bays = []
    for number in range(draw(st.integers(1, 6))):
        site, leaf = draw(st.sampled_from("st")), draw(st.sampled_from(["", "l1", "l2"]))
        bays.append(
            bay(
                f"n{number}",
                draw(st.integers(0, 3)),
                site=site,
                rack=draw(st.sampled_from(["", f"{site}r1", f"{site}r2"])),
                leaf=leaf and f"{site}{leaf}",
                pod=leaf and f"{site}p",
            )
        )
    gangs = [
        replica(
            number,
            draw(st.sampled_from(["chat", "other", ""])),
            milli=draw(st.sampled_from([400, 1000, 2000])),
            pods=draw(st.integers(1, 3)),
            near=draw(st.sampled_from(["", "leaf"])),
            reach=draw(st.sampled_from(["", "pod", "site"])),
        )
        for number in range(draw(st.integers(1, 10)))
    ]
    return Hall(bays), gangs


@settings(max_examples=200, deadline=None)
@given(case=crowds())
def test_nobody_who_fits_is_refused(case: tuple[Hall, list[Gang]]) -> None:
    one, gangs = case
    policy = Blend(one, CHANCE)
    for each in gangs:
        holds = one.most_together(each.shape, one.room_together(each.shape)) >= each.shape.pods
        spots = policy.place(each, one)
        assert (spots is not None) == holds
        if spots is not None:
            one.place(each.run_id, each.shape, spots)
