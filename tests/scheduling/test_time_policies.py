"""What the time policies of our own promise: the short first, nobody for ever, and no preemption in vain."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.eviction import Stoppable, eviction_for
from baseai.scheduling.policy.lifetimes import Lifetimes
from baseai.scheduling.policy.needs import Needs
from baseai.scheduling.policy.registry import packing_named, timing_named
from baseai.scheduling.policy.seam import Moment, Move, Running, Start, Stop, Timing
from baseai.scheduling.policy.smith import Due, smith_order
from baseai.scheduling.policy.yardstick import Yardstick
from baseai.twin.neutral import Segment, Submission
from baseai.twin.replay import Costs, Replay
from tests.scheduling.halls import gang, hall

Jobs = Sequence[tuple[Gang, float]]


class Watched:
    """A policy that is held, turn by turn, to stop nobody whom it has just started, and nobody twice."""

    def __init__(self, inner: Timing) -> None:
        self._inner = inner
        self.needs_durations = inner.needs_durations

    def turn(self, moment: Moment) -> Iterator[Move]:
        stopped, started = set[str](), set[str]()
        for move in self._inner.turn(moment):
            if isinstance(move, Stop):
                assert move.run_id not in stopped | started
                stopped.add(move.run_id)
            elif isinstance(move, Start):
                assert move.run_id not in started
                started.add(move.run_id)
            yield move


def segments_of(policy: str, one: Hall, jobs: Jobs, restart_s: float = 0.0) -> list[Segment]:
    rng = np.random.default_rng(1)
    submissions = [Submission(gang=each, duration_s=seconds, by_model={}) for each, seconds in jobs]
    chosen = Watched(timing_named(policy)(one, rng, packing_named("best_fit")(one, rng)))
    costs = Costs(restart_s=restart_s)
    return Replay(submissions, one, chosen, costs=costs, durations_known=chosen.needs_durations).run()


def ran(
    policy: str, one: Hall, *jobs: tuple[Gang, float], restart_s: float = 0.0
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for segment in segments_of(policy, one, jobs, restart_s):
        found.setdefault(segment.run_id, []).append((segment.start_s, segment.end_s))
    return found


# ---------------------------------------------------------------------------------------------------------- pledge


def test_pledge_takes_the_shortest_first_and_preempts_nobody() -> None:
    assert ran("pledge", hall(1), (gang("a0"), 10), (gang("a1"), 5), (gang("a2", submit_s=1), 1)) == {
        "a1": [(0, 5)],
        "a2": [(5, 6)],
        "a0": [(6, 16)],
    }


def test_pledge_holds_a_place_for_the_first_that_finds_none_and_lets_pass_who_is_out_of_its_way() -> None:
    jobs = (
        (gang("a0"), 10),
        (gang("a1", 2000, submit_s=1), 5),
        (gang("a2", submit_s=2), 8),  # fits beside a0 and ends with it
        (gang("a3", submit_s=2), 9),  # would put off a1
    )
    assert ran("pledge", hall(2), *jobs) == {
        "a0": [(0, 10)],
        "a2": [(2, 10)],
        "a1": [(10, 15)],
        "a3": [(15, 24)],
    }


def test_a_large_gang_starts_however_many_small_ones_come() -> None:
    small = [(gang(f"s{number}", number=number, submit_s=5.0 * number), 10.0) for number in range(1, 200)]
    wide = (gang("wide", 1000, number=0, pods=4), 50.0)
    by_policy = {
        policy: dict.fromkeys(
            segment.run_id
            for segment in segments_of(
                policy, hall(2, 2), [(gang("s", number=500, submit_s=0), 10.0), wide, *small]
            )
        )
        for policy in ("pledge", "thrift", "gittins")
    }
    assert all("wide" in found for found in by_policy.values())
    start_s = ran("pledge", hall(2, 2), wide, *small)["wide"][0][0]
    assert start_s < 500


def test_a_deadline_goes_before_the_shorter() -> None:
    """Short ones keep coming; by length alone the long one would be last of all."""
    short = [(gang(f"s{number}", number=number, submit_s=9.0 * number), 10.0) for number in range(1, 60)]
    long = (gang("long", number=0, submit_s=1.0), 30.0)
    jobs = [(gang("first", number=1000), 10.0), long, *short]
    by_length = ran("sjf", hall(1), *jobs)["long"][0][0]
    pledged = ran("pledge", hall(1), *jobs)["long"][0][0]
    assert by_length > 590
    assert pledged < 200


@pytest.mark.parametrize(
    ("due", "order"),
    [
        pytest.param(
            [("a", 9, 99), ("b", 1, 99), ("c", 5, 99)], "bca", id="the shortest first where all may wait"
        ),
        pytest.param(
            [("a", 9, 0), ("b", 1, 99), ("c", 5, 99)], "abc", id="the longest first where it may not"
        ),
        pytest.param([("a", 9, 1), ("b", 1, 99), ("c", 5, 99)], "bac", id="as late as it may"),
        pytest.param(
            [("a", 9, 0), ("b", 1, 2), ("c", 5, 1)], "acb", id="by deadline where all cannot be kept"
        ),
    ],
)
def test_smith_gives_the_last_place_to_the_largest_that_may_wait_so_long(
    due: list[tuple[str, float, float]], order: str
) -> None:
    found = smith_order(
        (
            Due(deadline_s, number, lasts_s, lasts_s, gang(name, number=number))
            for number, (name, lasts_s, deadline_s) in enumerate(due)
        ),
        done_s=sum(lasts_s for _, lasts_s, _ in due),
    )
    assert "".join(each.run_id for each in found) == order


@pytest.mark.parametrize(
    ("came", "waits_s"),
    [
        pytest.param([(0, 4, 10), (0, 4, 10)], [0, 10], id="one after the other"),
        pytest.param(
            [(0, 4, 10), (0, 4, 10), (0, 2, 5)], [0, 10, 20], id="nobody is put before who came before"
        ),
        pytest.param(
            [(0, 3, 10), (0, 4, 10), (0, 1, 5), (0, 1, 5)], [0, 10, 0, 5], id="a hole is filled twice"
        ),
        pytest.param([(0, 4, 10), (6, 4, 10), (25, 4, 1)], [0, 4, 0], id="time goes by"),
        pytest.param([(0, 9, 10), (0, 1, 1)], [0, 10], id="larger than the pool takes all of it"),
    ],
)
def test_a_yardstick_serves_in_order_and_lets_pass_who_is_in_nobodys_way(
    came: list[tuple[float, int, float]], waits_s: list[float]
) -> None:
    yardstick = Yardstick(4)
    assert [yardstick.came(now_s, milli, lasts_s) for now_s, milli, lasts_s in came] == waits_s
    assert yardstick.wait_s(1.0) == max(waits_s)
    assert yardstick.wait_s(0.0) == min(waits_s)


# ---------------------------------------------------------------------------------------------------------- thrift


def test_thrift_stops_a_long_one_for_a_short_one_once_it_has_waited() -> None:
    long, short = (gang("a0"), 100_000.0), (gang("a1", submit_s=10), 50.0)
    assert ran("thrift", hall(1), long, short)["a1"] == [(10, 60)]
    patient = ran("thrift", hall(1), long, short, restart_s=300)
    assert patient["a1"] == [(10 + 25 * 300, 10 + 25 * 300 + 50)]
    assert patient["a0"][-1][1] == 100_000 + 50 + 300


def test_thrift_stops_nobody_who_is_worth_as_much() -> None:
    jobs = ((gang("a0"), 100.0), (gang("a1", submit_s=1), 90.0))
    assert ran("thrift", hall(1), *jobs)["a0"] == [(0, 100)]
    assert ran("srtf", hall(1), *jobs)["a0"] != [(0, 100)]


def test_thrift_gives_a_hole_that_nobody_fills_to_a_wide_gang() -> None:
    """Three of four nodes idle: stopping the one small and long gang is worth it, though it has less area left."""
    small, wide = (gang("a0", 1000), 1000.0), (gang("a1", 1000, pods=4, submit_s=1), 300.0)
    assert ran("thrift", hall(1, 1, 1, 1), small, wide)["a1"] == [(1, 301)]
    assert ran("srsf", hall(1, 1, 1, 1), small, wide)["a1"] == [(1000, 1300)]


def test_those_who_come_together_follow_each_other_where_one_was_stopped() -> None:
    long = (gang("a0"), 1e6)
    short = [(gang(f"a{number}", submit_s=10.0 * number), 50.0) for number in range(1, 6)]
    assert len(ran("thrift", hall(1), long, *short, restart_s=300)["a0"]) == 2


@st.composite
def halls_in_use(draw: st.DrawFn) -> tuple[Hall, list[Stoppable], Gang, float]:
    one = hall(*draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)), cpu_milli=8000)
    packing = packing_named("best_fit")(one, np.random.default_rng(1))
    stoppable = []
    shapes = st.builds(
        Shape, pods=st.integers(1, 3), milli=st.sampled_from((250, 600, 1000, 2000, 3000)),
        cpu_milli=st.sampled_from((0, 500, 3000)),
    )  # fmt: skip
    for number in range(draw(st.integers(0, 10))):
        each = Gang(run_id=f"r{number}", number=number, shape=draw(shapes))
        if (spots := packing.place(each, one)) is not None:
            one.place(each.run_id, each.shape, spots)
            running = Running(each, 0.0, tuple(spots), "", 0)
            stoppable.append(Stoppable(draw(st.floats(0.01, 10)), running))
    return one, stoppable, Gang(run_id="new", number=99, shape=draw(shapes)), draw(st.floats(0.01, 20))


@settings(max_examples=400, deadline=None)
@given(halls_in_use())
def test_an_eviction_is_worth_it_is_enough_and_has_nobody_too_many(
    case: tuple[Hall, list[Stoppable], Gang, float],
) -> None:
    one, stoppable, new, worth = case
    packing = packing_named("best_fit")(one, np.random.default_rng(1))
    before = one.free.tolist()
    victims = eviction_for(new, worth, stoppable, one, packing)
    assert one.free.tolist() == before
    if not victims:
        return
    worth_of = {each.running.gang.run_id: each.worth for each in stoppable}
    assert sum(worth_of[victim.gang.run_id] for victim in victims) < worth
    trial = one.copy()
    for victim in victims:
        trial.remove(victim.gang.run_id)
    assert packing.place(new, trial) is not None
    for victim in victims:
        without = trial.copy()
        without.place(victim.gang.run_id, victim.gang.shape, victim.spots)
        assert packing.place(new, without) is None


# --------------------------------------------------------------------------------------------------------- gittins


def test_gittins_learns_that_who_has_run_long_runs_on() -> None:
    """Ten short ones ended at 10 s; one that runs since 2,000 s makes room for a new one."""
    short = [(gang(f"s{number}", number=number, submit_s=20.0 * number), 10.0) for number in range(10)]
    long, new = (gang("long", number=20, submit_s=300), 9000.0), (gang("new", number=21, submit_s=2300), 10.0)
    found = ran("gittins", hall(1), *short, long, new)
    assert found["new"] == [(2300, 2310)]
    assert len(found["long"]) == 2


def test_lifetimes_of_a_heavy_tail_leave_the_more_the_longer_it_went_and_count_who_still_goes() -> None:
    seen = Lifetimes()
    for lasted_s in (5, 20, 50, 80, 90, 95, 300, 1500, 9000, 40_000):
        seen.ended(lasted_s)
    left_s = seen.left_s(())
    assert list(left_s[:6]) == sorted(left_s[:6])
    assert (seen.left_s([2000.0] * 10)[:3] > left_s[:3]).all()
    assert [seen.step_of(each) for each in (0, 99, 100, 499, 500, 1e12)] == [0, 0, 1, 1, 2, 9]


# -------------------------------------------------------------------------------------------------------- all ours


def test_needs_never_hide_who_fits() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        one = hall(*rng.integers(0, 4, size=3).tolist(), cpu_milli=4000)
        needs, shapes = Needs(), []
        for number in range(12):
            shape = Shape(
                milli=int(rng.choice((0, 300, 1000, 2000))), cpu_milli=int(rng.choice((0, 1500, 3000)))
            )
            shapes.append(shape)
            needs.join(shape)
            row = one.fits(shape).nonzero()[0]
            if number % 2 and len(row):
                one.place(f"r{number}", shape, [one.spot(int(row[0]), shape)])
        room = needs.finding_room(one)
        for shape in shapes:
            assert room[needs.number[shape]] == one.fits(shape).any()
        for shape in shapes:
            needs.leave(shape)
        assert not needs.finding_room(one).any()


@settings(max_examples=150, deadline=None)
@given(
    policy=st.sampled_from(("pledge", "thrift", "gittins")),
    nodes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    jobs=st.lists(
        st.tuples(
            st.integers(1, 3), st.sampled_from((250, 1000, 2000, 4000)), st.sampled_from((0.0, 1.0, 30.0)),
            st.sampled_from((1.0, 10.0, 700.0, 90_000.0)),
        ),
        max_size=14,
    ),
    restart_s=st.sampled_from((0.0, 2.0, 300.0)),
)  # fmt: skip
def test_everybody_ends_and_equal_inputs_give_equal_plans(
    policy: str, nodes: list[int], jobs: list[tuple[int, int, float, float]], restart_s: float
) -> None:
    one, asked, at_s = hall(*nodes), list[tuple[Gang, float]](), 0.0
    for pods, milli, gap_s, lasts_s in jobs:
        at_s += gap_s
        each = gang(f"a{len(asked)}", milli, pods=pods, submit_s=at_s)
        if not one.could_ever(each.shape):
            asked.append((each, lasts_s))
    first = segments_of(policy, one.copy(), asked, restart_s)
    assert first == segments_of(policy, one.copy(), asked, restart_s)
    assert {segment.run_id for segment in first} == {each.run_id for each, _ in asked}
    if policy == "pledge":
        assert len(first) == len(asked)
