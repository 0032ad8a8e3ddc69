"""A replay carries out what a policy chooses, charges what it costs, and refuses what cannot be."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.hall import Hall, Misplaced, Spot
from baseai.scheduling.policy.registry import PACKING, TIMING, packing_named, timing_named
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start, Stop, Wake
from baseai.twin.bound import jct_bound_s, makespan_bound_s
from baseai.twin.neutral import Outage, Submission, decision_lines
from baseai.twin.outcome import outcome_of
from baseai.twin.replay import BadMove, Costs, Replay, Stranded, pack
from tests.scheduling.halls import assert_adds_up, bay, gang, hall
from tests.scheduling.test_hall import shapes
from tests.twin.counted import assert_feasible


def submission(each: Gang, seconds: float | None = 10.0, **by_model: float) -> Submission:
    return Submission(gang=each, duration_s=seconds, by_model=by_model)


class Script:
    """Plays moves by the instant at which it is asked."""

    needs_durations = False

    def __init__(self, *turns: tuple[float, Sequence[Move]]) -> None:
        self.turns = dict(turns)
        self.asked: list[tuple[float, list[str], list[str]]] = []

    def turn(self, moment: Moment) -> Iterable[Move]:
        self.asked.append(
            (moment.now_s, [each.run_id for each in moment.arrived], [each.run_id for each in moment.ended])
        )
        return self.turns.get(moment.now_s, ())


def replay(script: Script, one: Hall, *jobs: Submission, **rest: object) -> Replay:
    return Replay(jobs, one, script, **rest)  # type: ignore[arg-type]


SPOT = (Spot(0, (0,)),)


def test_a_turn_comes_with_every_arrival_end_and_wish_to_be_woken() -> None:
    script = Script((0, [Wake(3)]), (3, [Start("a0", SPOT)]), (13, [Start("a1", SPOT)]))
    replay(script, hall(1), submission(gang("a0")), submission(gang("a1", submit_s=5))).run()
    assert script.asked == [(0, ["a0"], []), (3, [], []), (5, ["a1"], []), (13, [], ["a0"]), (23, [], ["a1"])]


def test_a_stop_loses_nothing_but_the_restart() -> None:
    script = Script((0, [Start("a0", SPOT), Wake(4)]), (4, [Stop("a0"), Wake(6)]), (6, [Start("a0", SPOT)]))
    one = replay(script, hall(1), submission(gang("a0")), costs=Costs(restart_s=5))
    assert [(each.start_s, each.end_s) for each in one.run()] == [(0, 4), (6, 17)]
    assert one.preemptions == 1


def test_a_stop_within_the_restart_gains_nothing_and_pays_it_again() -> None:
    again = [Stop("a0"), Start("a0", SPOT)]
    script = Script((0, [Start("a0", SPOT), Wake(4)]), (4, [*again, Wake(6)]), (6, again))
    one = replay(script, hall(1), submission(gang("a0")), costs=Costs(restart_s=5))
    assert [(each.start_s, each.end_s) for each in one.run()] == [(0, 4), (4, 6), (6, 17)]


def test_who_is_stopped_at_once_never_ran() -> None:
    script = Script((0, [Start("a0", SPOT), Stop("a0"), Wake(1)]), (1, [Start("a0", SPOT)]))
    one = replay(script, hall(1), submission(gang("a0")), costs=Costs(restart_s=5))
    assert [(each.start_s, each.end_s) for each in one.run()] == [(1, 11)]
    assert one.preemptions == 0


def test_a_failing_node_takes_its_gangs_back_to_the_last_checkpoint() -> None:
    script = Script((0, [Start("a0", SPOT)]), (7, []), (9, [Start("a0", SPOT)]))
    costs = Costs(restart_s=2, checkpoint_s=3)
    one = replay(script, hall(1, 1), submission(gang("a0")), costs=costs, outages=[Outage("n0", 7, 9)])
    assert [(each.start_s, each.end_s) for each in one.run()] == [(0, 7), (9, 15)]  # 6 of 10 were kept
    assert one.work_lost_s == pytest.approx(1.0)
    assert (7, ["a0"], []) in script.asked  # it is in the queue again


def test_a_node_that_is_away_takes_nobody() -> None:
    script = Script((0, [Start("a0", SPOT)]))
    with pytest.raises(Misplaced, match="n0: node"):
        replay(script, hall(1), submission(gang("a0")), outages=[Outage("n0", 0, 5)]).run()
    fifo = timing_named("fifo")(
        one := hall(1), np.random.default_rng(1), packing_named("first_fit")(one, np.random.default_rng(1))
    )
    [segment] = Replay([submission(gang("a0"))], one, fifo, outages=[Outage("n0", 0, 5)]).run()
    assert segment.start_s == 5


def test_a_gang_is_as_fast_as_its_model() -> None:
    one = Hall([bay("n0", 1, model="A"), bay("n1", 1, model="B")])
    script = Script((0, [Start("a0", SPOT), Wake(5)]), (5, [Stop("a0"), Start("a0", (Spot(1, (0,)),))]))
    segments = replay(script, one, submission(gang("a0", one_model=True), None, A=10, B=40)).run()
    assert [(each.start_s, each.end_s) for each in segments] == [(0, 5), (5, 25)]


@pytest.mark.parametrize(
    ("moves", "why"),
    [
        pytest.param([Start("z9", SPOT)], "does not wait", id="who was never submitted"),
        pytest.param([Start("a0", SPOT), Start("a0", SPOT)], "does not wait", id="who runs already"),
        pytest.param([Stop("a0")], "does not run", id="who waits is stopped"),
        pytest.param([Wake(0)], "not later", id="woken at once"),
        pytest.param(["start a0"], "no move", id="a word"),
    ],
)
def test_a_move_that_cannot_be_is_refused(moves: Sequence[Move], why: str) -> None:
    with pytest.raises(BadMove, match=why):
        replay(Script((0, moves)), hall(1), submission(gang("a0"))).run()


def test_a_placement_that_cannot_be_is_refused_with_run_node_and_resource() -> None:
    script = Script((0, [Start("a0", SPOT), Start("a1", SPOT)]))
    with pytest.raises(
        Misplaced, match="run a1 cannot be placed on n0: gpu_milli: device 0 has 0 milli left"
    ):
        replay(script, hall(1), submission(gang("a0")), submission(gang("a1"))).run()
    wrong_model = Script((0, [Start("a0", (Spot(1, (0,)),))]))
    one = Hall([bay("n0", 1, model="A"), bay("n1", 1, model="B")])
    with pytest.raises(Misplaced, match="n1: duration_by_model: it cannot run on B"):
        replay(wrong_model, one, submission(gang("a0"), None, A=10)).run()


def test_a_policy_that_forgets_somebody_is_told_whom() -> None:
    with pytest.raises(Stranded, match="2 waiting for ever, run a1 first"):
        replay(
            Script((0, [Start("a0", SPOT)])),
            hall(1),
            *(submission(gang(f"a{number}")) for number in range(3)),
        ).run()


def test_a_turn_has_an_end() -> None:
    class Restless:
        needs_durations = False

        def turn(self, moment: Moment) -> Iterator[Move]:
            while True:
                yield Start("a0", SPOT)
                yield Stop("a0")

    with pytest.raises(BadMove, match="moves in one turn"):
        Replay([submission(gang("a0"))], hall(1), Restless()).run()  # type: ignore[arg-type]


def test_a_policy_sees_what_is_left_and_no_duration_that_is_hidden() -> None:
    seen: list[tuple[float | None, float]] = []

    class Looking(Script):
        def turn(self, moment: Moment) -> Iterable[Move]:
            for each in [*moment.waiting.values(), *(running.gang for running in moment.running.values())]:
                seen.append((moment.left_s(each, ""), moment.served_s(each)))
            return super().turn(moment)

    turns: tuple[tuple[float, Sequence[Move]], ...] = (
        (0, [Start("a0", SPOT), Wake(4)]),
        (4, [Stop("a0"), Wake(6)]),
        (6, [Start("a0", SPOT)]),
    )
    replay(Looking(*turns), hall(1), submission(gang("a0")), costs=Costs(restart_s=5)).run()
    assert seen == [(10, 0), (6, 4), (6, 4)]
    seen.clear()
    replay(Looking(*turns), hall(1), submission(gang("a0")), durations_known=False).run()
    assert seen == [(None, 0), (None, 4), (None, 4)]


# ---------------------------------------------------------------------------------- what holds of every policy


@st.composite
def cases(draw: st.DrawFn) -> tuple[Hall, list[Submission]]:
    one = Hall(
        [
            bay(
                f"n{number}",
                draw(st.integers(1, 4)),
                model=draw(st.sampled_from("AB")),
                cpu_milli=draw(st.integers(1000, 6000)),
            )
            for number in range(draw(st.integers(1, 4)))
        ]
    )
    found: list[Submission] = []
    at_s = 0.0
    for number in range(draw(st.integers(1, 14))):
        shape = draw(shapes)
        shape = Shape(
            pods=shape.pods,
            milli=shape.milli,
            cpu_milli=shape.cpu_milli,
            models=shape.models if shape.milli else (),
        )
        if one.could_ever(shape):
            continue
        at_s += draw(st.sampled_from([0.0, 0.5, 3.0]))
        each = Gang(run_id=f"r{number}", number=len(found), shape=shape, submit_s=at_s)
        found.append(submission(each, draw(st.sampled_from([0.0, 0.25, 1.0, 7.5, 40.0]))))
    return one, found


@settings(max_examples=200, deadline=None)
@given(
    case=cases(),
    policy=st.sampled_from(sorted(TIMING)),
    packing=st.sampled_from(sorted(PACKING)),
    restart_s=st.sampled_from([0.0, 2.0]),
)
def test_no_policy_gives_an_accelerator_twice_splits_a_gang_or_answers_differently(
    case: tuple[Hall, list[Submission]], policy: str, packing: str, restart_s: float
) -> None:
    one, jobs = case
    hashes = []
    for _ in range(2):
        again, rng = one.copy(), np.random.default_rng(3)
        chosen = timing_named(policy)(again, rng, packing_named(packing)(again, rng))
        segments = Replay(jobs, again, chosen, costs=Costs(restart_s=restart_s)).run()
        hashes.append(hashlib.sha256("".join(decision_lines(segments, again)).encode()).hexdigest())
        assert not again.held
        assert_adds_up(again)
    assert_feasible(one, jobs, segments, restart_s)
    assert hashes[0] == hashes[1]
    if jobs:
        outcome = outcome_of(jobs, segments, one)
        assert outcome.makespan_s >= makespan_bound_s(jobs, one) - 1e-6
        assert outcome.jct_mean_s >= jct_bound_s(jobs, one) - 1e-6


@settings(max_examples=60, deadline=None)
@given(case=cases(), policy=st.sampled_from(sorted(PACKING)))
def test_packing_places_whole_gangs_for_ever(case: tuple[Hall, list[Submission]], policy: str) -> None:
    one, jobs = case
    chosen: Packing = packing_named(policy)(one, np.random.default_rng(3))
    segments = pack(jobs, one, chosen)
    assert_adds_up(one)
    assert [segment.run_id for segment in segments] == list(one.held)
    assert all(math.isinf(segment.end_s) for segment in segments)


@settings(max_examples=60, deadline=None)
@given(
    case=cases(),
    policy=st.sampled_from(sorted(TIMING)),
    outages=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 9)), max_size=3),
)
def test_everybody_ends_in_spite_of_failures(
    case: tuple[Hall, list[Submission]], policy: str, outages: list[tuple[int, int, int]]
) -> None:
    one, jobs = case
    away = {
        one.node_ids[number % len(one)]: Outage(
            one.node_ids[number % len(one)], float(down), float(down + length)
        )
        for number, down, length in outages
    }
    rng = np.random.default_rng(3)
    chosen = timing_named(policy)(one, rng, packing_named("best_fit")(one, rng))
    segments = Replay(
        jobs, one, chosen, outages=list(away.values()), costs=Costs(restart_s=1.0, checkpoint_s=2.0)
    ).run()
    assert {segment.run_id for segment in segments} == {each.gang.run_id for each in jobs}
    for segment in segments:
        for spot in segment.spots:
            if outage := away.get(one.node_ids[spot.row]):
                assert segment.end_s <= outage.down_s or segment.start_s >= outage.up_s
    assert_adds_up(one)
