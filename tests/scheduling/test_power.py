"""What a breaker leaves to runs: the rated draw of everything leased in the rack, and never less than nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.ground.identity import NodeId
from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Bay, Hall
from baseai.scheduling.power import Feed, Power, power_of, spare_watts, watts_of

RATED = {"H100": 1275, "L40S": 500}
Lease = tuple[NodeId, str, int]


def feed(node: str, rack: str, load_watts: int = 10_000) -> Feed:
    return Feed(node_id=NodeId(node), rack=rack, load_watts=load_watts)


def lease(node: str, model: str, count: int) -> Lease:
    return NodeId(node), model, count


@pytest.mark.parametrize(
    ("leases", "expected"),
    [
        pytest.param([], {"a": 10_000, "b": 10_000, "c": 10_000}, id="nobody draws"),
        pytest.param([lease("a", "H100", 4)], {"a": 4900, "b": 4900, "c": 10_000}, id="a rack is one breaker"),
        pytest.param(
            [lease("a", "H100", 4), lease("b", "H100", 4)], {"a": 0, "b": 0, "c": 10_000}, id="never below nothing"
        ),
        pytest.param([lease("c", "quantum", 9)], {"a": 10_000, "b": 10_000, "c": 10_000}, id="no rated draw is known"),
        pytest.param([lease("away", "H100", 8)], {"a": 10_000, "b": 10_000, "c": 10_000}, id="under no breaker"),
    ],
)  # fmt: skip
def test_spare(leases: list[Lease], expected: dict[str, int]) -> None:
    assert spare_watts([feed("a", "r"), feed("b", "r"), feed("c", "s")], leases, RATED) == expected


def test_a_rack_says_what_it_may_and_what_it_does() -> None:
    power = power_of([feed("a", "r"), feed("b", "r")], [lease("b", "L40S", 3)], RATED)
    assert power == {"r": Power(load_watts=10_000, drawn_watts=1500)}


@pytest.mark.parametrize(
    ("models", "devices", "watts"),
    [
        pytest.param(["H100"], 8, 10_200, id="as many as it holds"),
        pytest.param(["L40S", "H100"], 2, 2550, id="the hungriest that it may come to stand on"),
        pytest.param(["unknown"], 8, 0, id="nothing is known"),
        pytest.param([], 8, 0, id="no model is named"),
    ],
)
def test_watts_of_a_pod(models: list[str], devices: int, watts: int) -> None:
    assert watts_of(models, devices, RATED) == watts


@given(counts=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=8))
def test_a_hall_in_which_the_leases_stand_has_the_same_left(counts: list[tuple[str, int]]) -> None:
    feeds = [feed("a", "r", 4000), feed("b", "r", 4000), feed("c", "s", 9000)]
    hall = Hall(
        [
            Bay(node_id=each.node_id, model="H100", devices=24, rack=each.rack, watts=each.load_watts)
            for each in feeds
        ]
    )
    for number, (node, count) in enumerate(counts):
        shape = Shape(milli=1000 * count, watts=watts_of(["H100"], count, RATED))
        row = hall.node_ids.index(node)
        hall.place(f"run {number}", shape, [hall.spot(row, shape)], stands=True)
    left = spare_watts(feeds, [lease(node, "H100", count) for node, count in counts], RATED)
    assert [max(0, watts) for watts in hall.watts.tolist()] == [left[NodeId(name)] for name in hall.node_ids]
