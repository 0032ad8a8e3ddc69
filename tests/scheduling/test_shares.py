"""Whose turn it is: quotas first, then the least for its weight, and nobody for ever behind the others."""

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.policy.shares import AGEING_POINTS_PER_H, Shares, standing_h
from baseai.scheduling.queue_tree import HALF_LIFE_S, QueueTree
from tests.scheduling.queues import Fleet, SlowOrder, fleets, queue, tree, waiting

HOUR_S = 3600.0


def shares(of: QueueTree, *gangs: Gang, **rest: object) -> Shares:
    made = Shares(of, **rest)  # type: ignore[arg-type]
    for gang in gangs:
        made.join(gang)
    return made


def drawn(fleet: Fleet) -> Shares:
    return shares(fleet.tree, *fleet.gangs, held=fleet.held, usage_s=fleet.usage_s)


def numbers(of: Shares) -> list[int]:
    return [gang.number for gang in of.order(set())]


# ------------------------------------------------------------------------------------------------- within a queue


def test_an_hour_of_waiting_is_worth_two_points_of_priority() -> None:
    early, urgent = waiting(0, "a", priority=50), waiting(1, "a", priority=100, submit_s=25 * HOUR_S)
    assert AGEING_POINTS_PER_H == 2
    assert standing_h(early) == standing_h(urgent)
    later = waiting(2, "a", priority=100, submit_s=25 * HOUR_S + 1)
    assert numbers(shares(tree(), later, early, urgent)) == [0, 1, 2]


def test_an_hour_before_its_latest_start_a_deadline_counts_as_the_highest_priority() -> None:
    due = waiting(0, "a", priority=0, submit_s=80 * HOUR_S, deadline_s=100 * HOUR_S, lasts_most_s=9 * HOUR_S)
    assert standing_h(due) == standing_h(waiting(1, "a", priority=100, submit_s=90 * HOUR_S))
    far = waiting(2, "a", priority=0, deadline_s=1e9)
    assert standing_h(far) == standing_h(waiting(2, "a", priority=0))  # far enough away to change nothing


# ------------------------------------------------------------------------------------------------- among queues


def test_who_has_the_least_for_its_weight_goes_first() -> None:
    heavy = tree(queue("a", weight=3), queue("b"))
    made = shares(heavy, waiting(0, "a"), waiting(1, "b"), held={"a": {"A": 9}, "b": {"A": 4}})
    assert numbers(made) == [0, 1]  # 3 for each unit of weight against 4


def test_turns_are_interleaved_by_weight_in_one_cycle() -> None:
    gangs = [waiting(number, "a") for number in range(6)] + [waiting(number, "b") for number in range(6, 9)]
    order = numbers(shares(tree(queue("a", weight=20), queue("b", weight=10)), *gangs))
    assert Counter("ab"[number >= 6] for number in order[:6]) == {"a": 4, "b": 2}


def test_queues_are_compared_level_by_level() -> None:
    """x has had less than y as a whole, whatever a has had within x."""
    of = tree(queue("x"), queue("y"), queue("a", "x"), queue("b", "x"), queue("c", "y"))
    made = shares(of, waiting(0, "c"), waiting(1, "a"), waiting(2, "b"), held={"a": {"A": 8}, "c": {"A": 12}})
    assert numbers(made) == [2, 1, 0]


def test_a_quota_comes_before_any_share() -> None:
    of = tree(queue("a", quota={"A": 16}), queue("b", weight=100))
    made = shares(of, waiting(0, "b"), waiting(1, "a", 8), waiting(2, "a", 8), held={"a": {"A": 8}})
    assert numbers(made) == [1, 0, 2]  # the second of a would borrow, for the first has claimed the rest


def test_without_a_quota_of_its_own_a_queue_draws_on_the_one_above() -> None:
    of = tree(queue("x", quota={"A": 8}), queue("a", "x"), queue("b", "x", quota={"A": 0}), queue("c"))
    made = shares(of, waiting(0, "c"), waiting(1, "b", 4), waiting(2, "a", 4))
    assert numbers(made) == [2, 0, 1]
    assert made.in_quota(waiting(3, "a", 8), "A")
    assert not made.in_quota(waiting(3, "a", 9), "A")
    assert not made.in_quota(waiting(3, "b"), "A")  # it said that it draws on nobody's


def test_of_a_shared_quota_is_left_what_nobody_below_it_holds() -> None:
    of = tree(queue("x", quota={"A": 8}), queue("a", "x"), queue("b", "x"), queue("c"))
    made = shares(of, held={"a": {"A": 5}, "b": {"A": 2}, "c": {"A": 3}})
    assert [made.guaranteed_milli(name, "A") for name in "abc"] == [6000, 3000, 0]
    assert [made.left_milli(name, "A") for name in "abc"] == [1000, 1000, -3000]
    assert made.guaranteed_milli("a", "B") == 0


def test_spot_comes_last_and_takes_no_part_of_a_quota() -> None:
    of = tree(queue("a", quota={"A": 8}), queue("b"))
    spot = waiting(0, "a", 8, spot=True)
    made = shares(of, spot, waiting(1, "a", 8), waiting(2, "b"), spot={"a": {"A": 8}})
    assert numbers(made) == [1, 2, 0]
    assert not made.in_quota(spot, "A")
    assert made.in_quota(waiting(1, "a", 8), "A")


def test_margin_decides_among_those_who_have_had_about_as_much() -> None:
    of = tree(queue("a"), queue("b"))
    poor, rich = waiting(0, "a", margin=1.0), waiting(1, "b", margin=2.0)
    assert numbers(shares(of, poor, rich, held={"a": {"A": 102}, "b": {"A": 104}})) == [1, 0]
    assert numbers(shares(of, poor, rich, held={"a": {"A": 102}, "b": {"A": 120}})) == [0, 1]


def test_models_count_by_what_they_are_worth() -> None:
    made = shares(
        tree(queue("a"), queue("b")),
        waiting(0, "a"),
        waiting(1, "b"),
        held={"a": {"A": 10}, "b": {"B": 4}},
        worth={"B": 4.0},
    )
    assert numbers(made) == [0, 1]
    assert (made.ratio_of("a"), made.ratio_of("b")) == (10.0, 16.0)


# ------------------------------------------------------------------------------------------------- limits


def test_who_is_beyond_a_limit_does_not_come_and_learns_which_it_is() -> None:
    of = tree(queue("x", limit={"A": 8}), queue("a", "x"), queue("b"))
    made = shares(of, waiting(0, "a", 4), waiting(1, "b", 99), held={"a": {"A": 6}})
    assert numbers(made) == [1]
    assert made.limiting(waiting(0, "a", 4), "A") == "x"
    assert made.limiting(waiting(0, "a", 4), "B") is None


def test_a_limit_counts_spot_as_well() -> None:
    made = shares(
        tree(queue("a", limit={"A": 4})), waiting(0, "a", 3, spot=True), waiting(1, "a", 3, spot=True)
    )
    came = []
    for gang in made.order(set()):
        came.append(gang.number)
        made.leave(gang)
        made.started(gang, "A")
    assert came == [0]
    assert made.limiting(waiting(2, "a", 2), "A") == "a"


def test_a_gang_that_another_model_would_do_for_is_not_barred_by_the_limit_on_one() -> None:
    made = shares(tree(queue("a", limit={"A": 4})), waiting(0, "a", 8, models=("A", "B")))
    assert numbers(made) == [0]


# ------------------------------------------------------------------------------------------------- one cycle


def test_what_is_looked_at_counts_until_the_cycle_ends() -> None:
    of = tree(queue("a", quota={"A": 8}))
    first, second = waiting(0, "a", 8), waiting(1, "a", 8)
    made = shares(of, first, second)
    walk = made.order(set())
    assert next(walk) is first
    assert made.in_quota(first, "A")
    assert not made.in_quota(second, "A")  # the first claims it, started or not
    made.forgo(first)
    assert made.in_quota(second, "A")
    walk.close()
    assert made.in_quota(first, "A")
    assert numbers(made) == [0, 1]


def test_who_starts_is_counted_once() -> None:
    of = tree(queue("a", quota={"A": 8}), queue("b"))
    first = waiting(0, "a", 4)
    made = shares(of, first, waiting(1, "a", 4), waiting(2, "b", 4))
    order = []
    for gang in made.order(set()):
        order.append(gang.number)
        if gang is first:
            made.leave(gang)
            made.started(gang, "A")
            assert made.ratio_of("a") == 4.0
    assert order == [0, 1, 2]
    assert made.ratio_of("a") == 4.0
    made.stopped(first, "A")
    assert made.ratio_of("a") == 0.0


def test_no_gang_of_a_hopeless_shape_comes_any_more() -> None:
    gangs = [waiting(number, "ab"[number % 2], 1 + number % 3) for number in range(12)]
    made = shares(tree(), *gangs)
    hopeless: set[Shape] = set()
    order = []
    for gang in made.order(hopeless):
        order.append(gang.shape)
        hopeless.add(gang.shape)
    assert len(order) == len(set(order)) == 3


def test_who_leaves_meanwhile_does_not_come() -> None:
    gangs = [waiting(number, "ab"[number % 2]) for number in range(6)]
    made = shares(tree(), *gangs)
    order = []
    for gang in made.order(set()):
        order.append(gang.number)
        if gang.number == 0:
            made.leave(gangs[1])
            made.leave(gangs[4])
    assert sorted(order) == [0, 2, 3, 5]


def test_a_queue_that_has_others_below_it_is_one_more_of_them_to_whom_waits_in_it() -> None:
    of = tree(queue("x", quota={"A": 8}), queue("a", "x"))
    made = shares(of, waiting(0, "x", 2), waiting(1, "a", 2), held={"x": {"A": 5}})
    assert numbers(made) == [1, 0]  # 5 more of x are held by x itself: of 8 one is left for the second
    assert made.ratio_of("x") == 5.0


# ------------------------------------------------------------------------------------------------- usage


def test_usage_runs_on_in_closed_form() -> None:
    """In steps or at once, the mean of what was held approaches what is held, by half every half-life."""
    at_once = shares(tree(), held={"a": {"A": 8}})
    in_steps = shares(tree(), held={"a": {"A": 8}})
    at_once.reckon(HALF_LIFE_S)
    for hour in range(24 * 7 + 1):
        in_steps.reckon(hour * HOUR_S)
    assert at_once.ratio_of("a") == pytest.approx(8 + 4)
    assert in_steps.ratio_of("a") == pytest.approx(8 + 4)
    at_once.reckon(0.0)  # time does not run back
    assert at_once.ratio_of("a") == pytest.approx(8 + 4)


def test_decayed_usage_makes_up_for_the_past() -> None:
    """Who used much lately goes second, until it is forgotten."""
    made = shares(
        tree(queue("a"), queue("b")),
        waiting(0, "a"),
        waiting(1, "b"),
        held={"b": {"A": 1}},
        usage_s={"a": 64 * HALF_LIFE_S},
    )
    assert numbers(made) == [1, 0]
    made.reckon(20 * HALF_LIFE_S)
    assert numbers(made) == [0, 1]


class Pool:
    """One model, so many accelerators, time in hours: whoever comes first and fits starts."""

    def __init__(self, of: QueueTree, accelerators: int, seed: int = 1) -> None:
        self.shares = Shares(of)
        self.free = accelerators
        self.rng = random.Random(seed)
        self.number = 0
        self.hour = 0
        self.running: list[tuple[int, Gang]] = []
        self.held_h: Counter[str] = Counter()  # accelerator-hours by queue
        self.started_h: dict[int, int] = {}

    def submit(self, queue: str, count: int = 1, **terms: object) -> Gang:
        gang = waiting(self.number, queue, count, submit_s=self.hour * HOUR_S, **terms)
        self.number += 1
        self.shares.join(gang)
        return gang

    def pass_hour(self) -> None:
        self.hour += 1
        self.shares.reckon(self.hour * HOUR_S)
        for _, gang in self.running:
            self.held_h[gang.terms.queue] += gang.shape.devices
        for _, gang in [one for one in self.running if one[0] <= self.hour]:
            self.shares.stopped(gang, "A")
            self.free += gang.shape.devices
        self.running = [one for one in self.running if one[0] > self.hour]
        hopeless: set[Shape] = set()
        for gang in self.shares.order(hopeless):
            if gang.shape.devices > self.free:
                hopeless.add(gang.shape)
                continue
            self.free -= gang.shape.devices
            self.shares.leave(gang)
            self.shares.started(gang, "A")
            self.started_h[gang.number] = self.hour
            self.running.append((self.hour + self.rng.randint(1, 6), gang))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_saturation_queues_get_what_their_weights_say(seed: int) -> None:
    of = tree(
        queue("x", weight=3),
        queue("a", "x", weight=2),
        queue("b", "x"),
        queue("c", weight=1),
        queue("d", weight=2),
    )
    pool = Pool(of, 60, seed)
    for _ in range(400):
        for name in "abcd":
            for _ in range(30):
                pool.submit(name, pool.rng.randint(1, 2))
        pool.pass_hour()
    total = pool.held_h.total()
    got = {name: pool.held_h[name] / total for name in "abcd"}
    assert got == pytest.approx({"a": 1 / 3, "b": 1 / 6, "c": 1 / 6, "d": 1 / 3}, abs=0.02)


def test_who_was_away_catches_up_and_then_shares_evenly() -> None:
    pool = Pool(tree(queue("a", half_life_s=24 * HOUR_S), queue("b", half_life_s=24 * HOUR_S)), 40)
    for _ in range(100):
        for _ in range(20):
            pool.submit("a")
        pool.pass_hour()
    had = Counter(pool.held_h)
    first_day = Counter[str]()
    for hour in range(600):
        for _ in range(20):
            pool.submit("a")
            pool.submit("b")
        pool.pass_hour()
        if hour == 23:
            first_day = pool.held_h - had
        if hour == 400:
            had = Counter(pool.held_h)
    assert first_day["b"] > 2 * first_day["a"]
    last = pool.held_h - had
    assert last["a"] / last["b"] == pytest.approx(1.0, abs=0.03)


def test_a_guarantee_holds_under_saturation_by_who_is_heavier() -> None:
    pool = Pool(tree(queue("a", quota={"A": 20}, weight=0.01), queue("b", weight=100)), 40)
    for _ in range(200):
        for _ in range(20):
            pool.submit("a")
            pool.submit("b", 2)
        pool.pass_hour()
    assert pool.held_h["a"] / (200 * 20) == pytest.approx(1.0, abs=0.05)


# ------------------------------------------------------------------------------------------------- drawn


@settings(max_examples=2000, deadline=None)
@given(fleets())
def test_the_order_is_that_of_the_definition_and_whole(fleet: Fleet) -> None:
    """In-quota before borrowers before spot, then the least for its weight, level by level; nobody beyond a limit."""
    slow = SlowOrder(fleet).all()
    assert [rank for rank, _ in slow] == sorted(rank for rank, _ in slow)
    assert [gang.run_id for gang in drawn(fleet).order(set())] == [run_id for _, run_id in slow]
    came = {run_id for _, run_id in slow}
    made = drawn(fleet)
    for gang in fleet.gangs:
        assert (gang.run_id in came) == any(made.within_limit(gang, model) for model in gang.shape.models)


@settings(max_examples=2000, deadline=None)
@given(fleets(), st.randoms(use_true_random=False))
def test_equal_inputs_give_equal_orders(fleet: Fleet, rng: random.Random) -> None:
    """However they came: joined in another order, held by starting, after other cycles, with others that left."""
    once = numbers(drawn(fleet))
    shuffled = list(fleet.gangs)
    rng.shuffle(shuffled)
    other = shares(fleet.tree, usage_s=dict(reversed(fleet.usage_s.items())))
    gone = waiting(99, "a", 3)
    other.join(gone)
    for name, amounts in sorted(fleet.held.items(), reverse=True):
        other.started(waiting(100, name, amounts["A"]), "A")
    for gang in shuffled:
        other.join(gang)
    for count, _ in enumerate(other.order(set())):
        if count == 2:
            break
    other.leave(gone)
    assert numbers(other) == once
    assert numbers(other) == once


@settings(max_examples=2000, deadline=None)
@given(fleets(), st.integers(1, 30), st.randoms(use_true_random=False))
def test_limits_are_never_exceeded_and_books_stay_true(fleet: Fleet, room: int, rng: random.Random) -> None:
    """Who comes and fits starts, some end again: no queue ever holds more than its limit, and all is counted."""
    made = shares(fleet.tree, *fleet.gangs)
    held: Counter[tuple[str, str]] = Counter()
    running: list[tuple[Gang, str]] = []
    hopeless: set[Shape] = set()
    for gang in made.order(hopeless):
        models = [model for model in gang.shape.models if made.within_limit(gang, model)]
        assert models
        count = gang.shape.devices
        if count > room:
            hopeless.add(gang.shape)
            continue
        room -= count
        made.leave(gang)
        made.started(gang, models[0])
        running.append((gang, models[0]))
        for one in fleet.tree.path(gang.terms.queue):
            held[one.name, models[0]] += count
            assert held[one.name, models[0]] <= one.limit.get(models[0], math.inf)
    left = []
    for gang, model in running:
        if rng.random() < 0.7:
            made.stopped(gang, model)
        else:
            left.append(gang)
    for name in {gang.terms.queue for gang in fleet.gangs}:
        leaf = fleet.tree.path(name)[-1]
        firm = sum(gang.shape.devices for gang in left if gang.terms.queue == name and not gang.terms.spot)
        assert made.ratio_of(name) * leaf.weight == pytest.approx(firm)


@settings(max_examples=2000, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.booleans()), min_size=1, max_size=12),
    st.sampled_from((0.01, 1.0, 100.0)),
    st.integers(4, 8),
)
def test_nobody_waits_for_ever_under_finite_load(
    wanted: Sequence[tuple[int, int, bool]], weight: float, accelerators: int
) -> None:
    """Whatever the weights, quotas and spots are: every gang starts, and no later than all the others together last."""
    of = tree(
        queue("x", weight=weight, quota={"A": 2}), queue("a", "x"), queue("b", "x", weight=0.5), queue("c")
    )
    pool = Pool(of, accelerators)
    gangs = [pool.submit(("a", "b", "c", "d", "x")[leaf], count, spot=spot) for leaf, count, spot in wanted]
    for _ in range(6 * len(gangs) + 1):
        pool.pass_hour()
    assert pool.started_h.keys() == {gang.number for gang in gangs}


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from((0.5, 1.0, 4.0)), min_size=2, max_size=4), st.integers(1, 4), st.data())
def test_who_has_nothing_is_served_next_however_many_the_others_send(
    weights: Sequence[float], backlog: int, data: st.DataObject
) -> None:
    """Without a past, a queue that holds nothing comes before all that hold more than one accelerator's worth."""
    names = [f"q{number}" for number in range(len(weights))]
    of = tree(*(queue(name, weight=weight) for name, weight in zip(names, weights, strict=True)))
    held = {name: {"A": data.draw(st.integers(9, 40))} for name in names[1:]}
    gangs = [waiting(number, name) for number, name in enumerate(names[1:] * backlog)]
    late = waiting(99, names[0], submit_s=1e6, priority=0, margin=-5.0)
    assert numbers(shares(of, *gangs, late, held=held))[0] == 99
