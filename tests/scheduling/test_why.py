"""Why a gang is where it is, in the figures that put it there."""

import numpy as np
import pytest

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy.best_fit import BestFit
from baseai.scheduling.policy.blend import Blend
from baseai.scheduling.policy.fabric import Fabric
from baseai.scheduling.policy.lookahead import Lookahead
from baseai.scheduling.policy.why import Reasons, why_there
from tests.scheduling.halls import bay, gang

CHANCE = np.random.default_rng(1)


def taught(policy: Lookahead | Blend, one: Hall) -> None:
    for number in range(40):
        policy.place(
            Gang(run_id=f"seen{number}", number=number, shape=Shape(milli=[8000, 400][number % 2])), one
        )


def test_lookahead_says_what_it_strands_and_what_the_next_best_would_have() -> None:
    one = Hall([bay("a"), bay("b"), bay("c")])
    policy = Blend(one, CHANCE)
    taught(policy, one)
    one.place("there", Shape(milli=500), [Spot(0, (0,))])
    asked = gang("g90", 400)
    spots = policy.place(asked, one)
    assert spots is not None
    why = why_there(asked, spots, one, policy)
    assert (one.node_ids[spots[0].row], why.policy, why.nodes_fitting) == ("a", "lookahead", 3)
    assert why.strands_milli is not None
    assert why.next_best_strands_milli is not None
    assert why.strands_milli < why.next_best_strands_milli
    assert why.next_best in {"b", "c"}
    assert (why.leaves, why.leaves_fewest) == (None, None)
    costs = policy.lookahead.costs(asked.shape, one)
    assert [why.strands_milli, why.next_best_strands_milli] == sorted(costs.tolist())[:2]


def test_without_another_node_there_is_no_next_best() -> None:
    one = Hall([bay("a")])
    policy = Lookahead(one, CHANCE)
    asked = gang("g1")
    why = why_there(asked, policy.place(asked, one) or (), one, policy)
    assert (why.next_best, why.next_best_strands_milli, why.nodes_fitting) == (None, None, 1)


def test_the_other_model_of_the_same_node_is_no_other_node() -> None:
    one = Hall([bay("a", model="A"), bay("a", model="B"), bay("c", model="B")])
    policy = Lookahead(one, CHANCE)
    asked = gang("g1", 8000)
    why = why_there(asked, [one.spot(0, asked.shape)], one, policy)
    assert (why.next_best, why.nodes_fitting) == ("c", 2)


def test_a_gang_on_the_fabric_says_over_how_many_leaves_and_how_few_there_could_be() -> None:
    one = Hall(
        [bay(f"l{leaf}-{number}", 1, leaf=f"l{leaf}", pod="p") for leaf in range(3) for number in range(4)]
    )
    one.place("there", Shape(pods=2, milli=1000), [Spot(0, (0,)), Spot(4, (0,))])
    policy = Blend(one, CHANCE)
    asked = gang("g2", pods=9)
    spots = policy.place(asked, one)
    assert spots is not None
    assert why_there(asked, spots, one, policy) == Reasons("fabric", 10, None, None, None, 3, 3)
    alone = gang("g3")
    on = policy.place(alone, one)
    assert on is not None
    assert why_there(alone, on, one, policy)[-2:] == (1, 1)


@pytest.mark.parametrize(("packing", "leaves"), [(BestFit, (None, None)), (Fabric, (1, 1))])
def test_what_a_policy_does_not_reckon_it_does_not_say(
    packing: type[BestFit] | type[Fabric], leaves: tuple[int | None, int | None]
) -> None:
    one = Hall([bay("a", leaf="l"), bay("b", leaf="l")])
    policy = packing(one, CHANCE)
    asked = gang("g1", pods=2)
    why = why_there(asked, policy.place(asked, one) or (), one, policy)
    assert (why.strands_milli, why.next_best, why.nodes_fitting) == (None, None, 2)
    assert (why.leaves, why.leaves_fewest) == leaves


def test_a_view_counts_what_is_open_in_it() -> None:
    one = Hall([bay("a"), bay("b")])
    policy = Lookahead(one, CHANCE)
    costs = policy.costs(Shape(milli=1000), one.narrowed(np.array([False, True])))
    assert np.isinf(costs).tolist() == [True, False]
