"""What each policy that comes along is known for, on halls small enough to see it."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.ground.fault import Refused
from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy.line import Line
from baseai.scheduling.policy.registry import PACKING, TIMING, packing_named, timing_named
from baseai.twin.neutral import Segment, Submission
from baseai.twin.replay import Costs, Replay
from tests.scheduling.halls import bay, gang, hall
from tests.scheduling.test_hall import halls, shapes


def placed(policy: str, one: Hall, asked: Gang) -> list[tuple[str, tuple[int, ...]]] | None:
    """Node and devices of each pod."""
    spots = packing_named(policy)(one, np.random.default_rng(1)).place(asked, one)
    return None if spots is None else [(one.node_ids[spot.row], spot.devices) for spot in spots]


def timeline(
    policy: str, one: Hall, *asked: tuple[Gang, float], restart_s: float = 0.0, packing: str = "first_fit"
) -> dict[str, list[tuple[float, float]]]:
    """(gang, its seconds) → when each ran."""
    rng = np.random.default_rng(1)
    submissions = [Submission(gang=each, duration_s=seconds, by_model={}) for each, seconds in asked]
    chosen = timing_named(policy)(one, rng, packing_named(packing)(one, rng))
    segments: Sequence[Segment] = Replay(submissions, one, chosen, costs=Costs(restart_s=restart_s)).run()
    found: dict[str, list[tuple[float, float]]] = {}
    for segment in segments:
        found.setdefault(segment.run_id, []).append((segment.start_s, segment.end_s))
    return found


def test_first_fit_takes_the_lowest_node_and_best_fit_the_tightest() -> None:
    one = hall(8, 2, 4, cpu_milli=8000)
    assert placed("first_fit", one, gang("a", 2000)) == [("n0", (0, 1))]
    assert placed("best_fit", one, gang("a", 2000)) == [("n1", (0, 1))]
    assert placed("first_fit", one, gang("a", 4000, pods=3)) == [
        ("n0", (0, 1, 2, 3)),
        ("n0", (4, 5, 6, 7)),
        ("n2", (0, 1, 2, 3)),
    ]
    assert placed("first_fit", one, gang("a", 4000, pods=4)) is None


def test_fgd_spares_the_devices_that_what_usually_comes_can_use() -> None:
    one = hall(2, 2)
    fgd = packing_named("fgd")(one, np.random.default_rng(1))
    for number in range(4):  # two thirds of what comes takes 600
        asked = gang(f"g{number}", 600)
        spots = fgd.place(asked, one)
        assert spots is not None
        one.place(asked.run_id, asked.shape, spots)
    assert one.free.tolist() == [[400, 400], [400, 400]]
    one.remove("g2")
    [spot] = fgd.place(gang("g5", 400), one) or [None]
    assert spot == Spot(0, (0,))  # beside a 600, not on the device that is whole


def test_fgd_breaks_ties_by_the_lowest_node() -> None:
    assert placed("fgd", hall(8, 8, 8), gang("a", 1000)) == [("n0", (0,))]


def test_a_gang_that_keeps_to_one_model_takes_the_preferred_that_holds_it() -> None:
    one = Hall([bay("a", 1, model="K80"), bay("b", 2, model="V100"), bay("c", 1, model="K80")])
    asked = gang("g", 1000, pods=2, models=("K80", "V100"), one_model=True)
    for policy in PACKING:
        found = placed(policy, one, asked)
        assert found is not None
        assert {node for node, _ in found} in ({"a", "c"}, {"b"})
    assert placed("first_fit", one, asked) == [("a", (0,)), ("c", (0,))]


def test_leaf_best_fit_keeps_a_gang_under_one_switch_and_else_in_one_pod() -> None:
    one = Hall(
        [bay(f"n{number}", 8, leaf=f"l{number // 2}", pod=f"p{number // 4}") for number in range(8)]
        + [bay("n8", 8, leaf="l4", pod="p1")]
    )
    assert placed("leaf_best_fit", one, gang("a", 8000)) == [("n8", tuple(range(8)))]
    two = placed("leaf_best_fit", one, gang("a", 8000, pods=2))
    assert two is not None
    assert [node for node, _ in two] == ["n0", "n1"]
    four = placed("leaf_best_fit", one, gang("a", 8000, pods=4))
    assert four is not None
    assert {node for node, _ in four} == {"n0", "n1", "n2", "n3"}


def test_fifo_lets_the_head_hold_up_everybody() -> None:
    ran = timeline("fifo", hall(2), (gang("a0", 1000), 10), (gang("a1", 2000), 5), (gang("a2", 1000), 5))
    assert ran == {"a0": [(0, 10)], "a1": [(10, 15)], "a2": [(15, 20)]}


def test_easy_lets_pass_who_does_not_put_off_the_head() -> None:
    ran = timeline(
        "easy",
        hall(2),
        (gang("a0", 1000), 10),
        (gang("a1", 2000), 5),
        (gang("a2", 1000), 20),
        (gang("a3", 1000), 10),
    )
    assert ran == {"a0": [(0, 10)], "a3": [(0, 10)], "a1": [(10, 15)], "a2": [(15, 35)]}


def test_easy_lets_a_long_one_pass_beside_the_reservation() -> None:
    one = hall(2, 1)  # the head needs both of n0; n1 is free for as long as anybody likes
    ran = timeline(
        "easy",
        one,
        (gang("a0", 1000), 10),
        (gang("a1", 2000), 5),
        (gang("a2", 1000), 99),
        packing="first_fit",
    )
    assert ran["a1"] == [(10, 15)]
    ran = timeline("easy", hall(1, 2), (gang("a0", 1000), 10), (gang("a1", 2000), 5), (gang("a2", 1000), 99))
    assert ran["a1"] == [(0, 5)]


def test_sjf_takes_the_shortest_that_fits() -> None:
    ran = timeline("sjf", hall(1), (gang("a0"), 10), (gang("a1"), 5), (gang("a2", submit_s=1), 1))
    assert ran == {"a1": [(0, 5)], "a2": [(5, 6)], "a0": [(6, 16)]}


def test_srtf_preempts_for_whoever_has_less_left_and_pays_the_restart() -> None:
    asked = ((gang("a0"), 10.0), (gang("a1", submit_s=4), 3.0), (gang("a2", submit_s=5), 3.0))
    assert timeline("srtf", hall(1), *asked) == {"a1": [(4, 7)], "a2": [(7, 10)], "a0": [(0, 4), (10, 16)]}
    assert timeline("srtf", hall(1), *asked, restart_s=2)["a0"] == [(0, 4), (10, 18)]


def test_srsf_counts_the_accelerators_too() -> None:
    wide = (gang("a0", 4000), 4.0)  # 16 accelerator-seconds
    long = (gang("a1", 1000), 10.0)  # 10
    assert timeline("srtf", hall(4), wide, long)["a0"] == [(0, 4)]
    assert timeline("srsf", hall(4), wide, long)["a1"] == [(0, 10)]


def test_nobody_is_stopped_without_need() -> None:
    one = hall(1, 1, 1)
    ran = timeline(
        "srtf", one, (gang("a0"), 10), (gang("a1"), 11), (gang("a2"), 12), (gang("a3", submit_s=1), 1)
    )
    assert [len(ran[name]) for name in ("a0", "a1", "a2", "a3")] == [1, 1, 2, 1]


@pytest.mark.parametrize("policy", ["easy", "sjf", "srtf", "srsf"])
def test_who_decides_by_durations_says_so_when_they_are_hidden(policy: str) -> None:
    one, rng = hall(2), np.random.default_rng(1)
    chosen = timing_named(policy)(one, rng, packing_named("first_fit")(one, rng))
    assert chosen.needs_durations
    jobs = [
        Submission(gang=gang(f"a{number}", milli), duration_s=5, by_model={})
        for number, milli in enumerate((1000, 2000, 1000))
    ]
    with pytest.raises(Refused, match="not to be known"):
        Replay(jobs, one, chosen, durations_known=False).run()


def test_a_name_that_is_none_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(Refused, match="first_fit, best_fit"):
        packing_named("worst_fit")
    with pytest.raises(Refused, match="fifo, easy"):
        timing_named("first_fit")
    assert all(timing_named(name) for name in TIMING)


def test_a_line_asks_a_hopeless_shape_once() -> None:
    line, hopeless = Line(), set[Shape]()
    for number in range(5):
        line.join(gang(f"g{number}", 1000 if number % 2 else 2000), key=-number)
    asked = []
    for _, each in line.but(hopeless):
        asked.append(each.run_id)
        hopeless.add(each.shape)
    assert asked == ["g4", "g3"]
    line.leave(gang("g4", 2000))
    assert (len(line), line.first()) == (4, gang("g3", 1000))


@settings(max_examples=120, deadline=None)
@given(one=halls(), asked=st.lists(shapes, max_size=12), policy=st.sampled_from(sorted(PACKING)))
def test_packing_refuses_nobody_who_fits_and_equal_halls_get_equal_answers(
    one: Hall, asked: list[Shape], policy: str
) -> None:
    other = one.copy()
    first = packing_named(policy)(one, np.random.default_rng(7))
    again = packing_named(policy)(other, np.random.default_rng(7))
    for number, shape in enumerate(asked):
        each = Gang(run_id=str(number), number=number, shape=shape)
        spots = first.place(each, one)
        assert spots == again.place(each, other)
        if spots is None:
            assert shape.pods > 1 or not one.fits(shape).any()
        else:
            one.place(each.run_id, shape, spots)
            other.place(each.run_id, shape, spots)
