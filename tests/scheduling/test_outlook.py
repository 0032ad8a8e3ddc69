"""What will be free at a later instant, and when a gang can start by it: ends, tenants, breakers, reach and models."""

import numpy as np
import pytest

from baseai.scheduling.gang import WHOLE, Shape
from baseai.scheduling.hall import Bay, Hall, Spot
from baseai.scheduling.outlook import Free, Outlook, alone, chosen, free_now, holds, room, take
from tests.scheduling.halls import bay

Stays = tuple[str, int, float, str]  # node, accelerators, until, tenant


def hall(*bays: Bay) -> Hall:
    return Hall(bays)


def standing(one: Hall, *stays: Stays, watts: int = 0, model: str = "") -> Outlook:
    """Runs that stand there until those instants."""
    outlook = Outlook(one)
    for number, (node_id, count, until_s, tenant) in enumerate(stays):
        row = next(
            row
            for row, name in enumerate(one.node_ids)
            if name == node_id and (not model or one.models[one.model[row]] == model)
        )
        shape = Shape(milli=count * WHOLE, tenant=tenant, watts=watts * count, cpu_milli=1000)
        spot = one.spot(row, shape)
        one.place(f"r{number}", shape, (spot,))
        outlook.hold(f"r{number}", shape, (spot,), until_s)
    return outlook


def start_of(shape: Shape, outlook: Outlook, one: Hall) -> float | None:
    """The earliest instant at which it has room."""
    found = outlook.first_start(shape, 0.0, lambda _, free: chosen(shape, room(shape, free, one), free, one))
    return None if found is None else found[0]


def pods(count: int, accelerators: int, **rest: object) -> Shape:
    return Shape(pods=count, milli=accelerators * WHOLE, apart=count > 1, **rest)  # type: ignore[arg-type]


def test_before_the_first_end_there_is_what_there_is_now_and_then_ever_more() -> None:
    one = hall(bay("a", 4, cpu_milli=8000), bay("b", 4, cpu_milli=8000))
    outlook = standing(one, ("a", 4, 100.0, ""), ("b", 3, 200.0, ""), ("b", 1, float("inf"), ""))
    assert outlook.free_at(99.0).amounts.tolist() == free_now(one).amounts.tolist()
    assert outlook.free_at(100.0).amounts[0].tolist() == [4000, 0]
    assert outlook.free_at(200.0).amounts[0].tolist() == [4000, 3000]
    assert outlook.free_at(1e12).amounts[1].tolist() == [8000, 7000], "one of them nobody sees end"


def test_who_is_released_leaves_the_others_as_they_were() -> None:
    one = hall(bay("a", 4, cpu_milli=8000), bay("b", 4, cpu_milli=8000))
    outlook = standing(one, ("a", 1, 100.0, ""), ("a", 2, 200.0, ""), ("b", 1, 300.0, ""))
    one.remove("r0")
    outlook.release("r0")
    assert "r0" not in outlook
    assert [outlook.free_at(at_s).amounts[0].tolist() for at_s in (0.0, 200.0, 300.0)] == [
        [2000, 3000],
        [4000, 3000],
        [4000, 4000],
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param(pods(1, 4), 100.0, id="the first end that frees enough"),
        pytest.param(pods(2, 4), 200.0, id="a gang waits for all its nodes"),
        pytest.param(pods(2, 1), 200.0, id="on nodes of its own, however small it is"),
        pytest.param(pods(3, 1), None, id="no end frees a node that is not there"),
        pytest.param(pods(1, 4, cpu_milli=8000), 100.0, id="what is beside the accelerators frees with them"),
    ],
)
def test_first_start(shape: Shape, expected: float | None) -> None:
    one = hall(bay("a", 4, cpu_milli=8000), bay("b", 4, cpu_milli=8000))
    outlook = standing(one, ("a", 4, 100.0, ""), ("b", 4, 200.0, ""))
    assert start_of(shape, outlook, one) == expected


@pytest.mark.parametrize(
    ("tenant", "expected"),
    [
        pytest.param("own", 0.0, id="beside one's own at once"),
        pytest.param("other", 300.0, id="beside another's only when all of it has ended"),
    ],
)
def test_a_node_that_keeps_nobody_apart_is_whose_runs_are_there_then(tenant: str, expected: float) -> None:
    one = hall(bay("a", 4, shared=False, cpu_milli=8000))
    outlook = standing(one, ("a", 1, 100.0, "own"), ("a", 1, 300.0, "own"))
    shape = pods(1, 2, tenant=tenant)
    if expected == 0.0:
        assert holds(shape, (outlook.free_at(0.0),), one)
    else:
        assert not holds(shape, (outlook.free_at(100.0),), one)
        assert start_of(shape, outlook, one) == expected


def test_what_ends_on_another_model_of_the_node_frees_the_node_for_another_tenant() -> None:
    """Its accelerators are of no use to the gang, and the end counts all the same."""
    one = hall(bay("a", 2, model="A", shared=False), bay("a", 2, model="B", shared=False))
    outlook = Outlook(one)
    for run_id, row, until_s in (("a", 0, 100.0), ("b", 1, 50.0)):
        shape = Shape(milli=WHOLE, tenant="own")
        one.place(run_id, shape, (Spot(row, (0,)),))
        outlook.hold(run_id, shape, (Spot(row, (0,)),), until_s)
    assert start_of(pods(1, 2, models=("B",), tenant="other"), outlook, one) == 100.0


def test_what_ends_under_the_same_breaker_gives_its_watts_to_other_nodes() -> None:
    one = hall(*(bay(name, 4, model=model, rack="r", watts=4000) for name, model in (("a", "A"), ("b", "B"))))
    outlook = Outlook(one)
    shape = Shape(milli=3 * WHOLE, watts=3000)
    one.place("a", shape, (Spot(0, (0, 1, 2)),))
    outlook.hold("a", shape, (Spot(0, (0, 1, 2)),), 100.0)
    assert start_of(pods(1, 2, models=("B",), watts=2000), outlook, one) == 100.0


def test_a_breaker_is_shared_by_the_pods_of_a_gang_on_one_model_alone() -> None:
    """It could stand on either model, so that what it would draw on one leaves the other as it is."""
    one = hall(*(bay(f"n{number}", 4, model="AB"[number % 2], rack="r", watts=8000) for number in range(4)))
    shape = pods(2, 4, models=("A", "B"), one_model=True, watts=4000)
    assert room(shape, free_now(one), one).tolist() == [1, 1, 1, 1]
    assert chosen(shape, room(shape, free_now(one), one), free_now(one), one) == [0, 2]
    three = pods(3, 4, models=("A",), one_model=True, watts=4000)
    assert not holds(three, (free_now(one),), one)


def test_watts_are_dealt_out_among_rows_that_nothing_rules_out() -> None:
    """Under the breaker one of two nodes can run at a time; the first is closed later on, so it is the second."""
    one = hall(bay("a", 4, rack="r", watts=4000), bay("b", 4, rack="r", watts=4000), bay("c", 4))
    now, later = free_now(one), free_now(one)
    later.open[0] = False
    shape = pods(2, 4, watts=4000)
    assert room(shape, now, one).tolist() == [1, 0, 1]
    assert alone(shape, now, one).tolist() == [1, 1, 1]
    assert room(shape, now, one, (later,)).tolist() == [0, 1, 1]
    assert holds(shape, (now, later), one)
    later.amounts[4][:2] = 3999
    assert not holds(shape, (now, later), one), "nor do they draw more than the least of what is left"


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        pytest.param("", 0.0, id="anywhere"),
        pytest.param("leaf", 200.0, id="within one leaf, once both its nodes are free"),
    ],
)
def test_reach_holds_at_later_instants(reach: str, expected: float) -> None:
    one = hall(*(bay(f"n{number}", 4, leaf="xxyy"[number], pod="p", cpu_milli=8000) for number in range(4)))
    outlook = standing(one, ("n0", 4, 200.0, ""), ("n2", 4, 300.0, ""))
    shape = pods(2, 4, reach=reach)
    if expected == 0.0:
        assert holds(shape, (outlook.free_at(0.0),), one)
    else:
        assert start_of(shape, outlook, one) == expected


def test_of_rows_as_tight_those_are_chosen_on_which_somebody_stands_now() -> None:
    """What is free now is left for who starts now."""
    one = hall(bay("a", 4, cpu_milli=8000), bay("b", 4, cpu_milli=8000))
    outlook = standing(one, ("b", 4, 100.0, ""))
    free = outlook.free_at(100.0)
    shape = pods(1, 4)
    assert chosen(shape, room(shape, free, one), free, one) == [1]


def test_what_is_taken_of_a_free_is_taken_of_the_whole_node_and_its_breaker() -> None:
    one = hall(
        bay("a", 2, model="A", cpu_milli=8000, rack="r", watts=9000),
        bay("a", 2, model="B", cpu_milli=8000, rack="r", watts=9000),
        bay("b", 2, model="A", cpu_milli=8000, rack="r", watts=9000),
    )
    free: Free = free_now(one)
    take(Shape(milli=WHOLE, cpu_milli=3000, watts=1000, models=("A",)), [0], free, one)
    assert free.amounts[0].tolist() == [1000, 2000, 2000]
    assert free.amounts[1].tolist() == [5000, 5000, 8000]
    assert free.amounts[4].tolist() == [8000, 8000, 8000]
    assert np.array_equal(free_now(one).amounts[4], [9000, 9000, 9000]), "the hall is as it was"
