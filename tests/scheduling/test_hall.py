"""A hall is kept, not rebuilt: whatever is placed and removed, its columns say what a recount would."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Bay, Hall, Misplaced, Spot
from tests.scheduling.halls import assert_adds_up, bay, gang, hall


def test_a_gang_takes_and_gives_back_what_it_holds() -> None:
    one = hall(4, 4, cpu_milli=8000, memory_mib=1000)
    shape = Shape(pods=2, milli=2000, cpu_milli=3000, memory_mib=10)
    one.place("a", shape, [Spot(0, (0, 1)), Spot(1, (2, 3))])
    assert one.free.tolist() == [[0, 0, 1000, 1000], [1000, 1000, 0, 0]]
    assert (one.cpu_milli.tolist(), one.whole.tolist()) == ([5000, 5000], [2, 2])
    held = one.remove("a")
    assert (held.shape, held.spots) == (shape, (Spot(0, (0, 1)), Spot(1, (2, 3))))
    assert_adds_up(one)
    assert one.spare.tolist() == [4000, 4000]


def test_two_models_of_one_node_share_its_cores() -> None:
    one = Hall([bay("n", 2, model="H100", cpu_milli=4000), bay("n", 4, model="cpu-slot", cpu_milli=4000)])
    one.place(
        "a",
        Shape(milli=1000, cpu_milli=3000, models=("H100",)),
        [Spot(0, (0,)) if one.models[one.model[0]] == "H100" else Spot(1, (0,))],
    )
    assert one.cpu_milli.tolist() == [1000, 1000]
    assert not one.fits(Shape(milli=1000, cpu_milli=2000)).any()
    assert_adds_up(one)


def racked(*racks: str, watts: int | None = 1000, devices: int = 4) -> Hall:
    """Nodes n0, n1, … in these racks."""
    return Hall(
        [bay(f"n{number}", devices, rack=rack, watts=watts, model="A") for number, rack in enumerate(racks)]
    )


def test_what_one_node_draws_is_gone_for_its_whole_rack() -> None:
    one = racked("r", "r", "s")
    rows = one.watch()
    one.place("a", Shape(milli=1000, watts=700), [Spot(0, (0,))])
    assert (one.watts.tolist(), rows) == ([300, 300, 1000], {0, 1})
    assert one.fits(Shape(milli=1000, watts=400)).tolist() == [False, False, True]
    assert_adds_up(one)
    one.remove("a")
    assert one.watts.tolist() == [1000, 1000, 1000]


def test_a_node_without_a_rack_has_a_breaker_of_its_own() -> None:
    one = racked("", "", watts=1000)
    one.place("a", Shape(milli=1000, watts=700), [Spot(0, (0,))])
    assert one.watts.tolist() == [300, 1000]
    assert_adds_up(one)


def test_a_gang_counts_what_its_own_pods_draw_under_one_breaker() -> None:
    one = racked("r", "r", "s")
    shape = Shape(pods=4, milli=1000, watts=400)
    assert (one.room(shape).tolist(), one.room_together(shape).tolist()) == ([2, 2, 2], [2, 0, 2])
    spots = one.spots(shape, [1, 0, 2])
    assert spots is not None
    assert [spot.row for spot in spots] == [1, 1, 2, 2]
    one.place("a", shape, spots)
    assert one.could_ever(Shape(pods=5, milli=1000, watts=400)) == "pods"
    assert one.could_ever(Shape(milli=1000, watts=1001)) == "watts"
    with pytest.raises(Misplaced, match="watts: 200 left"):
        one.place("b", Shape(milli=1000, watts=400), [Spot(0, (0,))])


def test_what_runs_under_a_breaker_that_was_made_smaller_stays_and_nothing_joins_it() -> None:
    one = racked("r", "r", watts=500)
    one.place("a", Shape(pods=2, milli=1000, watts=400), [Spot(0, (0,)), Spot(1, (0,))], stands=True)
    assert one.watts.tolist() == [-300, -300]
    assert one.room(Shape(pods=2, milli=1000, watts=1)).tolist() == [0, 0]
    assert one.spots(Shape(pods=2, milli=1000, watts=1), [0, 1]) is None
    one.remove("a")
    assert one.watts.tolist() == [500, 500]


@pytest.mark.parametrize(
    ("bays", "said"),
    [
        pytest.param([bay("a", rack="r", watts=1), bay("b", rack="r", watts=2)], "rack r differ", id="two breakers"),
        pytest.param([bay("a", model="A", rack="r"), bay("a", model="B", rack="s")], "a stands in two", id="two racks"),
    ],
)  # fmt: skip
def test_a_rack_that_cannot_be_is_refused(bays: list[Bay], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Hall(bays)


@pytest.mark.parametrize(
    ("shape", "spots", "resource", "where"),
    [
        pytest.param(Shape(milli=1000), [Spot(0, (0,))], "gpu_milli", "n0", id="a device that is taken in part"),
        pytest.param(Shape(milli=600), [Spot(0, (0,))], "gpu_milli", "n0", id="a share too large for what is left"),
        pytest.param(Shape(milli=2000), [Spot(0, (1, 1))], "gpu_milli", "n0", id="one device twice"),
        pytest.param(Shape(milli=1000), [Spot(0, (4,))], "gpu_milli", "n0", id="a device that is not there"),
        pytest.param(Shape(milli=1000), [Spot(1, (-1,))], "gpu_milli", "n1", id="a device before the first"),
        pytest.param(Shape(milli=1000), [Spot(7, (0,))], "node", "", id="a row that is not there"),
        pytest.param(Shape(cpu_milli=9000), [Spot(1)], "cpu_milli", "n1", id="too few cores"),
        pytest.param(Shape(memory_mib=101), [Spot(1)], "mem_mib", "n1", id="too little memory"),
        pytest.param(Shape(watts=11), [Spot(1)], "watts", "n1", id="too little power under the breaker"),
        pytest.param(Shape(milli=1000, models=("B",)), [Spot(1, (0,))], "gpu_models", "n1", id="another model"),
        pytest.param(Shape(milli=1000, sites=("X",)), [Spot(1, (0,))], "gpu_models", "n1", id="another site"),
        pytest.param(Shape(pods=2, milli=1000), [Spot(1, (0,))], "pods", "", id="half a gang"),
        pytest.param(Shape(pods=2, milli=1000, apart=True), [Spot(1, (0,)), Spot(1, (1,))], "node", "", id="not apart"),
        pytest.param(Shape(pods=2, milli=1000), [Spot(1, (0,)), Spot(1, (0,))], "gpu_milli", "n1", id="on one device"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(
    shape: Shape, spots: list[Spot], resource: str, where: str
) -> None:
    one = hall(4, 4, model="A", cpu_milli=8000, memory_mib=100, watts=10)
    one.place("before", Shape(milli=500), [Spot(0, (0,))])
    was = one.free.tolist()
    with pytest.raises(Misplaced) as refused:
        one.place("late", shape, spots)
    assert (refused.value.run_id, refused.value.resource, refused.value.node_id) == ("late", resource, where)
    assert "late" in str(refused.value)
    assert (one.free.tolist(), list(one.held)) == (was, ["before"])
    assert_adds_up(one)


def test_a_run_is_not_placed_twice() -> None:
    one = hall(4)
    one.place("a", Shape(milli=1000), [Spot(0, (0,))])
    with pytest.raises(Misplaced, match="placed already"):
        one.place("a", Shape(milli=1000), [Spot(0, (1,))])


def test_columns_refuse_writes() -> None:
    one = hall(4)
    with pytest.raises(ValueError, match="read-only"):
        one.free[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        one.cpu_milli[0] += 1


def test_a_copy_stands_alone_and_a_watcher_hears_of_every_row() -> None:
    one = hall(4, 4, 4)
    rows = one.watch()
    copy = one.copy()
    copy.place("there", Shape(milli=1000), [Spot(0, (0,))])
    assert (one.whole.tolist(), rows) == ([4, 4, 4], set())
    one.place("here", Shape(pods=2, milli=1000), [Spot(1, (0,)), Spot(2, (0,))])
    assert rows == {1, 2}
    rows.clear()
    one.remove("here")
    assert rows == {1, 2}
    assert copy.whole.tolist() == [3, 4, 4]


def test_a_closed_node_takes_nothing_new_and_keeps_what_it_has() -> None:
    one = hall(4, 4)
    one.place("a", Shape(milli=1000), [Spot(0, (0,))])
    one.set_ready("n0", False)
    assert one.fits(Shape(milli=1000)).tolist() == [False, True]
    with pytest.raises(Misplaced, match="takes no runs"):
        one.place("b", Shape(milli=1000), [Spot(0, (1,))])
    one.set_ready("n0", True)
    assert one.fits(Shape(milli=1000)).all()
    assert "a" in one.held


@pytest.mark.parametrize(
    ("shape", "lacks"),
    [
        pytest.param(Shape(pods=3, milli=4000), "", id="three nodes of four hold it"),
        pytest.param(Shape(pods=4, milli=4000), "pods", id="one pod too many"),
        pytest.param(Shape(milli=5000), "gpu_milli", id="no node is so large"),
        pytest.param(Shape(milli=1000, models=("Z",)), "gpu_models", id="no such model"),
        pytest.param(Shape(cpu_milli=9000), "cpu_milli", id="no node has so many cores"),
        pytest.param(Shape(milli=1000, residency=("DE",)), "site", id="data may not lie here"),
        pytest.param(Shape(pods=2, milli=300, residency=("BR",)), "", id="data may lie here"),
    ],
)  # fmt: skip
def test_what_can_never_fit_says_of_what_there_is_too_little(shape: Shape, lacks: str) -> None:
    one = hall(4, 4, 4, model="A", cpu_milli=8000, country="BR")
    one.place("there", Shape(milli=4000), [Spot(0, (0, 1, 2, 3))])
    assert one.could_ever(shape) == lacks


@pytest.mark.parametrize(
    ("reach", "pods", "lacks"),
    [
        pytest.param("leaf", 2, "", id="a leaf of two nodes"),
        pytest.param("leaf", 3, "topology", id="no leaf has three"),
        pytest.param("pod", 3, "", id="a pod of three nodes"),
        pytest.param("pod", 4, "topology", id="no pod has four"),
        pytest.param("site", 4, "", id="a site of four, wherever they hang"),
        pytest.param("site", 6, "pods", id="nowhere are six"),
    ],
)
def test_a_gang_that_no_leaf_pod_or_site_ever_holds_is_told_so(reach: str, pods: int, lacks: str) -> None:
    one = Hall(
        [
            bay("a", 1, leaf="l0", pod="p", site="s"),
            bay("b", 1, leaf="l0", pod="p", site="s"),
            bay("c", 1, leaf="l1", pod="p", site="s"),
            bay("d", 1, site="s"),
            bay("e", 1, site="t"),
        ]
    )
    shape = Shape(pods=pods, milli=1000, reach=reach)
    assert one.could_ever(shape) == lacks
    if lacks == "topology":
        rows = range(5)[:pods]
        with pytest.raises(Misplaced, match=f"topology: its pods must all be within one {reach}"):
            one.place("a", shape, [Spot(row, (0,)) for row in [*rows[:-1], 3]])


def test_where_the_network_is_not_known_a_node_is_its_own_leaf_and_a_leaf_its_own_pod() -> None:
    one = Hall(
        [
            bay("a", 2),
            bay("b", 2),
            bay("c", 2, leaf="l0"),
            bay("d", 2, leaf="l0"),
            bay("e", leaf="l1", pod="p"),
        ]
    )
    leaf, pod = one.domain("leaf").tolist(), one.domain("pod").tolist()
    assert (len(set(leaf)), leaf[2]) == (4, leaf[3])
    assert (len(set(pod)), pod[2]) == (4, pod[3])
    assert one.could_ever(Shape(pods=2, milli=1000, reach="leaf")) == ""
    assert one.could_ever(Shape(pods=3, milli=2000, reach="pod", apart=True)) == "topology"


@pytest.mark.parametrize(
    ("reach", "near"), [("rack", ""), ("", "node"), ("leaf", "pod"), ("pod", "pod")]
)  # fmt: skip
def test_a_reach_that_is_none_or_no_wider_than_near_is_refused(reach: str, near: str) -> None:
    with pytest.raises(ValueError, match=r"reach of the network|no narrower"):
        Shape(pods=2, reach=reach, near=near)


def test_a_share_goes_where_it_is_tightest_and_a_gang_fills_row_by_row() -> None:
    one = hall(2, 2)
    one.place("a", Shape(milli=400), [Spot(0, (1,))])
    assert one.devices_for(0, Shape(milli=500)) == (1,)
    assert one.devices_for(0, Shape(milli=700)) == (0,)
    assert one.room(Shape(pods=9, milli=300)).tolist() == [5, 6]
    assert one.spots(Shape(pods=3, milli=1000), [0, 1]) == (Spot(0, (0,)), Spot(1, (0,)), Spot(1, (1,)))
    assert one.spots(Shape(pods=4, milli=1000), [0, 1]) is None


def test_a_refusal_survives_pickling() -> None:
    wrong = Misplaced("r", "n", "gpu_milli", "why")
    assert str(pickle.loads(pickle.dumps(wrong))) == str(wrong)


@st.composite
def halls(draw: st.DrawFn) -> Hall:
    count = draw(st.integers(1, 5))
    breakers = {"r": draw(st.integers(0, 900)), "s": draw(st.one_of(st.none(), st.integers(0, 900)))}
    bays = []
    for number in range(count):
        rack = draw(st.sampled_from(["", "r", "s"]))
        bays.append(
            bay(
                f"n{number}",
                draw(st.integers(0, 4)),
                model=draw(st.sampled_from(["A", "B"])),
                cpu_milli=draw(st.one_of(st.none(), st.integers(0, 6000))),
                memory_mib=draw(st.one_of(st.none(), st.integers(0, 50))),
                watts=breakers[rack] if rack else draw(st.one_of(st.none(), st.integers(0, 500))),
                rack=rack,
            )
        )
    return Hall(bays)


shapes = st.builds(
    Shape,
    pods=st.integers(1, 3),
    milli=st.one_of(st.just(0), st.integers(1, 999), st.integers(1, 4).map(lambda count: count * 1000)),
    cpu_milli=st.integers(0, 3000),
    memory_mib=st.integers(0, 20),
    watts=st.sampled_from([0, 0, 100, 250]),
    models=st.sampled_from([(), ("A",), ("A", "B")]),
    apart=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(one=halls(), asked=st.lists(st.tuples(shapes, st.booleans()), max_size=25))
def test_no_accelerator_is_given_twice_and_every_column_is_what_a_recount_says(
    one: Hall, asked: list[tuple[Shape, bool]]
) -> None:
    for number, (shape, leaves) in enumerate(asked):
        spots = one.spots(shape, range(len(one)))
        assert (spots is not None) or int(one.room_together(shape).sum()) < shape.pods or shape.apart
        if spots is not None:
            one.place(str(number), shape, spots)
        if leaves and one.held:
            one.remove(next(iter(one.held)))
        assert_adds_up(one)
    for run_id in list(one.held):
        one.remove(run_id)
    assert (one.spare == one.devices * 1000).all()


@settings(max_examples=60, deadline=None)
@given(one=halls(), shape=shapes)
def test_fits_says_where_one_pod_can_be_placed(one: Hall, shape: Shape) -> None:
    alone = replace(shape, pods=1, apart=False)
    for row, fits in enumerate(one.fits(alone).tolist()):
        copy = one.copy()
        try:
            copy.place("x", alone, [copy.spot(row, alone)])
            placed = True
        except Misplaced:
            placed = False
        assert placed == fits == one.holds(row, alone)


def test_equal_gangs_have_one_shape() -> None:
    assert gang("a1", 500).shape == gang("b2", 500).shape
    assert hash(gang("a1", 500).shape) == hash(gang("b2", 500).shape)
    assert np.array_equal(hall(3, 1).devices, [3, 1])
