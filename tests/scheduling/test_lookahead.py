"""What looking ahead changes, on halls small enough to see it, and that nothing kept is stale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy import lookahead
from baseai.scheduling.policy.lookahead import Lookahead
from tests.scheduling.halls import bay, gang
from tests.scheduling.test_hall import halls, shapes


def taught(one: Hall, *asked: Shape, times: int = 40) -> Lookahead:
    """A policy that has seen these shapes come in turns, on a hall that is still empty."""
    policy = Lookahead(one, np.random.default_rng(1))
    for number in range(times):
        policy.place(Gang(run_id=f"seen{number}", number=number, shape=asked[number % len(asked)]), one)
    return policy


def node_of(policy: Lookahead, one: Hall, asked: Gang) -> str:
    spots = policy.place(asked, one)
    assert spots is not None
    return one.node_ids[spots[0].row]


def test_who_may_go_anywhere_leaves_the_model_that_others_need() -> None:
    one = Hall([bay("a", model="T4"), bay("b", model="G2")])
    wanted = taught(one, Shape(milli=1000), Shape(milli=1000, models=("T4",)))
    assert node_of(wanted, one, gang("g90")) == "b"
    assert node_of(taught(one, Shape(milli=1000)), one, gang("g90")) == "a"


def test_it_goes_all_the_same_where_nothing_else_is_left() -> None:
    one = Hall([bay("a", 1, model="T4"), bay("b", 1, model="G2")])
    policy = taught(one, Shape(milli=1000, models=("T4",)))
    one.place("there", Shape(milli=1000), policy.place(gang("g80"), one) or ())
    assert node_of(policy, one, gang("g81")) == "a"


def test_who_needs_much_cpu_goes_where_there_is_much_and_strands_nothing() -> None:
    one = Hall([bay("a", 8, cpu_milli=96_000), bay("b", 2, cpu_milli=104_000)])
    policy = taught(one, Shape(milli=1000, cpu_milli=12_000))
    assert node_of(policy, one, gang("g80", 1000, cpu_milli=40_000)) == "b"
    assert node_of(policy, one, gang("g81", 1000, cpu_milli=12_000)) == "a"


def test_who_needs_no_accelerator_goes_where_they_are_gone() -> None:
    one = Hall([bay("a", 2, cpu_milli=30_000), bay("b", 2, cpu_milli=30_000)])
    policy = taught(one, Shape(milli=1000, cpu_milli=10_000))
    one.place("full", Shape(milli=2000), (one.spot(1, Shape(milli=2000)),))
    assert node_of(policy, one, gang("g80", 0, cpu_milli=12_000)) == "b"


def test_shares_fill_what_is_broken_and_leave_whole_nodes_whole() -> None:
    one = Hall([bay("a"), bay("b")])
    policy = taught(one, Shape(milli=8000), Shape(milli=400))
    one.place("first", Shape(milli=600), (one.spot(1, Shape(milli=600)),))
    [spot] = policy.place(gang("g80", 400), one) or [None]
    assert spot is not None
    assert (one.node_ids[spot.row], spot.devices) == ("b", (0,))


@pytest.mark.parametrize("first", [Shape(), Shape(milli=1000), Shape(milli=300), Shape(milli=8000, pods=2)])
def test_the_first_arrival_of_all_finds_room(first: Shape) -> None:
    one = Hall([bay("a"), bay("b")])
    assert Lookahead(one, np.random.default_rng(1)).place(Gang(run_id="g", number=0, shape=first), one)


def test_an_empty_hall_has_room_for_nobody() -> None:
    one = Hall([])
    assert Lookahead(one, np.random.default_rng(1)).place(gang("g0"), one) is None


@settings(max_examples=100, deadline=None)
@given(
    one=halls(),
    asked=st.lists(shapes, min_size=1, max_size=40),
    gone=st.sets(st.integers(0, 39)),
    away=st.integers(0, 39),
)
def test_what_is_kept_is_what_a_look_at_everything_finds(
    one: Hall, asked: list[Shape], gone: set[int], away: int
) -> None:
    """Through placing, removing, nodes going and coming, learning and forgetting costs that were kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookahead, "KEPT_CELLS", 0)
        patch.setattr(lookahead, "RELEARN_LEAST", 5)
        policy = Lookahead(one, np.random.default_rng(1))
        policy._kept_most = 2
        for number, shape in enumerate(asked):
            each = Gang(run_id=f"new{number}", number=number, shape=shape)
            spots = policy.place(each, one)
            assert spots == policy.place(each, one.copy())
            if spots is not None:
                one.place(each.run_id, shape, spots)
                if number in gone:
                    one.remove(each.run_id)
            if number == away:
                one.set_ready(one.node_ids[0], False)
            elif number == away + 3:
                one.set_ready(one.node_ids[0], True)
