"""Whom to stop for a gang: who may be, that it is enough and no more, and that it comes to an end."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape, Terms
from baseai.scheduling.hall import Bay, Hall, Spot, Spots
from baseai.scheduling.policy.reclaim import DEARER, Entitlement, Reclaimed, objective_of, reclaim
from baseai.scheduling.policy.stakes import Candidate, Class, Quotas, Stakes
from tests.scheduling.halls import hall

NOW_S = 1000.0
HOUR_S = 3600.0


def run(
    run_id: str,
    spots: Sequence[Spot],
    *,
    milli: int = 1000,
    since_s: float = 0.0,
    saved_s: float | None = None,
    rate: float = 1.0,
    **terms: object,
) -> Candidate:
    """One that runs on these spots. Numbered by the digits of its id."""
    shape = Shape(pods=len(spots), milli=milli)
    number = int("".join(sign for sign in run_id if sign.isdigit()) or 0)
    one = Gang(run_id=run_id, number=number, shape=shape, terms=Terms(**terms))  # type: ignore[arg-type]
    return Candidate(gang=one, spots=tuple(spots), since_s=since_s, saved_s=saved_s, rate=rate)


def on(row: int, *devices: int) -> list[Spot]:
    return [Spot(row, devices or (0,))]


def asks(milli: int = 1000, *, pods: int = 1, reach: str = "", **terms: object) -> Gang:
    """The gang that waits."""
    return Gang(
        run_id="new", number=999, shape=Shape(pods=pods, milli=milli, reach=reach), terms=Terms(**terms)
    )  # type: ignore[arg-type]


def anywhere(gang: Gang) -> Callable[[Hall], Spots | None]:
    """Its place in a hall: the first rows that have room."""
    return lambda one: one.spots(gang.shape, range(len(one)))


def stopped(
    gang: Gang,
    one: Hall,
    *running: Candidate,
    quotas: Quotas | None = None,
    left: int | None = None,
    places: Callable[[Hall], Spots | None] | None = None,
    now_s: float = NOW_S,
) -> set[str] | None:
    for each in running:
        one.place(each.gang.run_id, each.gang.shape, each.spots)
    found = reclaim(
        gang, Entitlement(left_milli=left), Stakes(one, running, quotas), one, places or anywhere(gang), now_s
    )
    return None if found is None else {victim.run_id for victim in found.victims}


def test_a_spot_run_gives_way_before_any_other_however_dear() -> None:
    spot = run("r1", on(0, 0), spot=True, rate=9.0)
    junior = run("r2", on(0, 1), priority=10, saved_s=NOW_S)
    assert stopped(asks(priority=90), hall(2), spot, junior) == {"r1"}


def test_the_cheapest_is_who_lost_the_least_accelerator_time_at_its_rate() -> None:
    late, dear, early = (
        run("r1", on(0, 0), spot=True, saved_s=900.0),
        run("r2", on(1, 0), spot=True, saved_s=940.0, rate=3.0),
        run("r3", on(2, 0), spot=True),
    )
    assert stopped(asks(), hall(1, 1, 1), late, dear, early) == {"r1"}


def test_one_who_has_just_saved_costs_less_than_one_who_has_just_started_costs_the_same() -> None:
    saved, fresh = (
        run("r1", on(0, 0), spot=True, saved_s=NOW_S),
        run("r2", on(0, 1), spot=True, since_s=NOW_S),
    )
    assert saved.cost(NOW_S) == fresh.cost(NOW_S) > 0, "being stopped is never for nothing"


def test_two_small_ones_are_cheaper_than_a_large_one_that_saved_long_ago() -> None:
    large = run("r1", on(0, 0, 1), milli=2000, spot=True)
    small = [run(f"r{no}", on(1, no - 2), spot=True, saved_s=900.0) for no in (2, 3)]
    assert stopped(asks(2000), hall(2, 2), large, *small) == {"r2", "r3"}


def test_a_gang_that_spans_nodes_is_stopped_whole_and_counts_once() -> None:
    wide = run("r1", [*on(0), *on(1)], spot=True, saved_s=960.0)
    single = [run(f"r{no}", on(no), spot=True, saved_s=950.0) for no in (2, 3)]
    assert stopped(asks(pods=2), hall(1, 1, 1, 1), wide, *single) == {"r1"}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        pytest.param({"priority": 51, "queue": "a"}, {"r1"}, id="a junior of the same queue gives way"),
        pytest.param({"priority": 50, "queue": "a"}, None, id="an equal does not"),
        pytest.param(
            {"priority": 90, "queue": "b"}, None, id="nor does anybody of another queue within its quota"
        ),
        pytest.param({"priority": 90, "queue": "a", "spot": True}, None, id="and nobody does for a spot run"),
    ],
)
def test_priority_counts_within_one_queue(terms: dict[str, object], expected: set[str] | None) -> None:
    assert stopped(asks(**terms), hall(1), run("r1", on(0), queue="a")) == expected


def test_what_is_borrowed_is_what_a_queue_started_last_of_least_priority() -> None:
    first, second = run("r1", on(0, 0), queue="b"), run("r2", on(0, 1), queue="b", since_s=500.0)
    urgent = run("r3", on(0, 2), queue="b", priority=90, since_s=800.0)
    quotas = {("a", ""): 2000, ("b", ""): 2000}
    assert stopped(asks(queue="a"), hall(3), first, second, urgent, quotas=quotas, left=2000) == {"r2"}
    nobody = stopped(asks(2000, queue="a"), hall(3), first, second, urgent, quotas=quotas, left=2000)
    assert nobody is None, "one is borrowed; the others are within the quota of their queue"


def test_a_run_that_reaches_beyond_the_quota_is_borrowed_whole() -> None:
    wide = run("r1", [*on(0), *on(1)], queue="b")
    assert stopped(asks(queue="a"), hall(1, 1), wide, quotas={("b", ""): 1000}, left=1000) == {"r1"}


def test_quotas_may_be_of_one_model() -> None:
    one = Hall([Bay(node_id="n0", model="A", devices=1), Bay(node_id="n1", model="B", devices=1)])
    on_a, on_b = run("r1", on(0), queue="b"), run("r2", on(1), queue="b")
    assert stopped(asks(queue="a"), one, on_a, on_b, quotas={("b", "B"): 0}, left=1000) == {"r2"}


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        pytest.param(0, {"spot"}, id="who would borrow stops a spot run"),
        pytest.param(1000, {"spot"}, id="and so does who would not"),
    ],
)
def test_who_would_borrow_takes_from_nobody_but_spot(left: int, expected: set[str]) -> None:
    running = (run("spot", on(0), spot=True), run("r2", on(1), queue="b", saved_s=NOW_S))
    quotas = {("b", ""): 0}
    assert stopped(asks(queue="a"), hall(1, 1), *running, quotas=quotas, left=left) == expected
    alone = stopped(asks(queue="a"), hall(1), run("r2", on(0), queue="b"), quotas=quotas, left=left)
    assert alone == ({"r2"} if left else None)


def test_a_full_queue_makes_room_for_its_urgent_run_from_its_own() -> None:
    """Another queue's borrowed run may then go as well, but only once its own have given back what it would borrow."""
    own = run("r1", on(0), queue="a", priority=10)
    quotas = {("a", ""): 1000, ("b", ""): 0}
    assert stopped(asks(queue="a", priority=90), hall(1), own, quotas=quotas, left=0) == {"r1"}
    both = stopped(
        asks(2000, queue="a", priority=90), hall(2), run("r1", on(0, 0), queue="a", priority=10),
        run("r2", on(0, 1), queue="b"), quotas=quotas, left=0,
    )  # fmt: skip
    assert both is None, "it would still borrow one"
    elsewhere = stopped(
        asks(queue="a", priority=90), hall(1, 2), run("r1", [*on(1, 0)], queue="a", priority=10),
        run("r2", on(0), queue="b", saved_s=NOW_S), run("r3", on(1, 1), queue="c"), quotas=quotas, left=0,
    )  # fmt: skip
    assert elsewhere == {"r1"}


def test_nobody_is_stopped_within_its_minimum_runtime() -> None:
    young = run("r1", on(0), spot=True, since_s=500.0, min_runtime_s=600.0)
    assert stopped(asks(), hall(1), young) is None
    assert stopped(asks(), hall(1), young, now_s=1100.0) == {"r1"}


def test_capacity_that_would_come_free_outside_the_domain_is_left_alone() -> None:
    """Two of the cheapest stand under different leaves, and the gang must be under one."""
    one = Hall([Bay(node_id=f"n{row}", devices=1, leaf="left" if row < 2 else "right") for row in range(4)])
    dear = [run(f"r{row}", on(row), spot=True, saved_s=200.0 + row) for row in (0, 1)]
    cheap = run("r2", on(2), spot=True, saved_s=990.0)
    stays = run("r3", on(3), queue="b")
    new = asks(pods=2, reach="leaf")
    for each in (*dear, cheap, stays):
        one.place(each.gang.run_id, each.gang.shape, each.spots)

    running = Stakes(one, [*dear, cheap, stays])
    found = reclaim(new, Entitlement(), running, one, anywhere(new), NOW_S)
    assert found is not None
    assert {victim.run_id for victim in found.victims} == {"r0", "r1"}
    running.drop("r1")
    running.put(run("r1", on(1), queue="b"))
    assert reclaim(new, Entitlement(), running, one, anywhere(new), NOW_S) is None


def test_nobody_is_stopped_where_some_other_check_refuses_the_place() -> None:
    assert stopped(asks(), hall(1), run("r1", on(0), spot=True), places=lambda _: None) is None


def test_columns_follow_who_comes_and_goes() -> None:
    one = hall(4)
    running = Stakes(one)
    for number in range(200):
        running.put(run(f"r{number}", on(0, number % 4), queue=f"q{number % 3}"))
        if number >= 4:
            running.drop(f"r{number - 4}")
    running.save("r199", 700.0)
    kept = Stakes(one, running)
    assert len(running) == 4
    assert sum(running.costs(NOW_S)) == pytest.approx(sum(each.cost(NOW_S) for each in kept))
    assert sorted(running.costs(NOW_S)[running.milli > 0]) == sorted(kept.costs(NOW_S)[kept.milli > 0])
    assert running["r199"].lost_s(NOW_S) == 300.0


# ------------------------------------------------------------------------------------------------ generated halls


class Case(NamedTuple):
    hall: Hall
    running: tuple[Candidate, ...]
    quotas: Quotas
    gang: Gang


QUEUES = ("a", "b", "c")
TERMS = st.tuples(st.sampled_from(QUEUES), st.sampled_from((10, 50, 90)), st.booleans())
RUNS = st.tuples(
    TERMS,
    st.sampled_from((250, 500, 1000, 1000, 2000)),
    st.sampled_from((1, 1, 1, 2)),
    st.sampled_from((0, 300, 600, 900)),  # since
    st.sampled_from((None, 100, 650, 999)),  # saved
    st.sampled_from((0.0, 200.0)),  # minimum runtime
    st.sampled_from((1.0, 2.5)),  # rate
)
QUOTAS = st.tuples(*(st.sampled_from((None, 0, 1000, 2000, 4000)) for _ in QUEUES))


@st.composite
def cases(draw: st.DrawFn, pods: Sequence[int] = (1, 1, 2, 3)) -> Case:
    """A hall with runs on it, as many as there is room for, and one that waits."""
    one = hall(*draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    running = []
    for number, (terms, milli, count, since_s, saved_s, least_s, rate) in enumerate(
        draw(st.lists(RUNS, max_size=9))
    ):
        queue, priority, spot = terms
        shape = Shape(pods=count, milli=milli)
        spots = one.spots(shape, range(len(one)))
        if spots is None:
            continue
        each = Gang(
            run_id=f"r{number}", number=number, shape=shape,
            terms=Terms(queue=queue, priority=priority, spot=spot, min_runtime_s=least_s),
        )  # fmt: skip
        one.place(each.run_id, shape, spots)
        running.append(Candidate(gang=each, spots=spots, since_s=since_s, saved_s=saved_s, rate=rate))
    quotas = {
        (queue, ""): quota for queue, quota in zip(QUEUES, draw(QUOTAS), strict=True) if quota is not None
    }
    queue, priority, _ = draw(TERMS)
    new = asks(
        draw(st.sampled_from((500, 1000, 2000, 3000))), pods=draw(st.sampled_from(pods)), queue=queue, priority=priority
    )  # fmt: skip
    return Case(one, tuple(running), quotas, new)


def any_model(_: Candidate) -> str:
    return ""


def answer(case: Case) -> Reclaimed | None:
    running = Stakes(case.hall, case.running, case.quotas)
    left = running.left_milli(case.gang.terms.queue)
    return reclaim(case.gang, Entitlement(left_milli=left), running, case.hall, anywhere(case.gang), NOW_S)


def held(case: Case, queue: str, without: set[str] = frozenset()) -> int:  # type: ignore[assignment]
    """What the paying runs of a queue hold."""
    return sum(
        each.gang.shape.milli_total
        for each in case.running
        if each.gang.terms.queue == queue and not each.gang.terms.spot and each.gang.run_id not in without
    )


@settings(max_examples=5000, deadline=None)
@given(cases())
def test_a_reclaim_keeps_every_rule(case: Case) -> None:
    before = case.hall.free.tolist()
    found = answer(case)
    assert case.hall.free.tolist() == before, "it was tried on a copy"
    if found is None:
        return
    by_id = {each.gang.run_id: each for each in case.running}
    victims = [by_id[victim.run_id] for victim in found.victims]
    gone = {victim.gang.run_id for victim in victims}
    assert victims, "who fits stops nobody"
    assert all(victim.since_s + victim.gang.terms.min_runtime_s <= NOW_S for victim in victims)

    trial = case.hall.copy()
    for run_id in gone:
        trial.remove(run_id)
    assert anywhere(case.gang)(trial) is not None, "what comes free is what fits"
    trial.place(case.gang.run_id, case.gang.shape, found.spots)

    new = Candidate(gang=case.gang, spots=found.spots, since_s=NOW_S)
    after = [*(each for each in case.running if each.gang.run_id not in gone), new]
    assert objective_of(after, case.quotas, any_model) > objective_of(case.running, case.quotas, any_model)

    own = case.gang.terms.queue
    for victim in victims:
        terms = victim.gang.terms
        if terms.spot:
            continue
        if terms.queue == own:
            assert terms.priority < case.gang.terms.priority
        else:
            quota = case.quotas[terms.queue, ""]
            later = {
                other.gang.run_id
                for other in victims
                if (other.gang.terms.priority, -other.since_s, -other.gang.number)
                < (terms.priority, -victim.since_s, -victim.gang.number)
            }
            assert held(case, terms.queue, without=later) > quota, (
                "it was beyond its quota when its turn came"
            )
    if any(not victim.gang.terms.spot for victim in victims) and (own, "") in case.quotas:
        assert held(case, own, without=gone) + case.gang.shape.milli_total <= case.quotas[own, ""]

    for victim in victims:  # nobody is stopped who is not needed: for the room, or for the quota
        spared = trial.copy()
        spared.remove(case.gang.run_id)
        spared.place(victim.gang.run_id, victim.gang.shape, victim.spots)
        rest = gone - {victim.gang.run_id}
        paid = any(not by_id[run_id].gang.terms.spot for run_id in rest)
        borrows = (own, "") in case.quotas and held(
            case, own, rest
        ) + case.gang.shape.milli_total > case.quotas[own, ""]
        assert anywhere(case.gang)(spared) is None or (paid and borrows) or victim.gang.terms.queue == own


def kinds(case: Case) -> dict[str, Class]:
    """Whom the rules let the gang stop, looked up one by one."""
    found: dict[str, Class] = {}
    new = case.gang.terms
    for each in case.running:
        terms = each.gang.terms
        if each.since_s + terms.min_runtime_s > NOW_S:
            continue
        if terms.spot:
            found[each.gang.run_id] = Class.SPOT
        elif terms.queue == new.queue:
            if terms.priority < new.priority:
                found[each.gang.run_id] = Class.JUNIOR
        elif each.gang.run_id in borrowed(case, terms.queue):
            found[each.gang.run_id] = Class.BORROWED
    return found


def borrowed(case: Case, queue: str) -> set[str]:
    left: float = case.quotas.get((queue, ""), math.inf)
    theirs = [each for each in case.running if each.gang.terms.queue == queue and not each.gang.terms.spot]
    beyond = set()
    for each in sorted(theirs, key=lambda each: (-each.gang.terms.priority, each.since_s)):
        if each.gang.shape.milli_total <= left:
            left -= each.gang.shape.milli_total
        else:
            beyond.add(each.gang.run_id)
    return beyond


def cheapest(case: Case) -> float | None:
    """The least weight of all choices there are, by trying every one; None where none is enough."""
    kind = kinds(case)
    by_id = {each.gang.run_id: each for each in case.running}
    own = case.gang.terms.queue
    quota = case.quotas.get((own, ""), math.inf)
    lacking = held(case, own) + case.gang.shape.milli_total - quota
    for most in Class:
        if most is Class.BORROWED and lacking > 0:
            continue
        may = sorted(run_id for run_id in kind if kind[run_id] <= most)
        weights = []
        for count in range(1, len(may) + 1):
            for choice in combinations(may, count):
                given_back = sum(
                    by_id[run_id].gang.shape.milli_total for run_id in choice if kind[run_id] == Class.JUNIOR
                )
                if most > Class.SPOT and given_back < lacking:
                    continue
                trial = case.hall.copy()
                for run_id in choice:
                    trial.remove(run_id)
                if anywhere(case.gang)(trial) is not None:
                    weights.append(
                        sum(by_id[run_id].cost(NOW_S) * DEARER ** kind[run_id] for run_id in choice)
                    )
        if weights:
            return min(weights)
    return None


@settings(max_examples=2000, deadline=None)
@given(cases(pods=(1,)))
def test_for_one_pod_nothing_cheaper_is_enough(case: Case) -> None:
    if anywhere(case.gang)(case.hall) is not None or any(each.gang.shape.pods > 1 for each in case.running):
        return
    found, best = answer(case), cheapest(case)
    assert (found is None) == (best is None)
    if found is not None and best is not None and not any(v.kind is Class.JUNIOR for v in found.victims):
        assert sum(v.cost * DEARER**v.kind for v in found.victims) == pytest.approx(best)


@settings(max_examples=1000, deadline=None)
@given(cases(pods=(2, 3)))
def test_a_gang_of_several_pods_is_refused_only_where_nothing_is_enough(case: Case) -> None:
    if anywhere(case.gang)(case.hall) is None:
        assert (answer(case) is None) == (cheapest(case) is None)


# -------------------------------------------------------------------------------------------------- cycle after cycle


class Yard:
    """Gangs that come, run, save at times, are stopped and come again, on a clock; nothing but reclaims stops them."""

    def __init__(self, case: Case, work_s: dict[str, float]) -> None:
        self.case, self.hall, self.now_s = case, case.hall, NOW_S
        self.running = Stakes(self.hall, case.running, case.quotas)
        self.waiting: dict[str, Gang] = {}
        self.left_s = work_s
        self.stopped: set[tuple[str, str]] = set()  # (by whom, who), since something ended last

    def cycle(self) -> None:
        """Whoever can start does, as long as anybody can."""
        while any(self.start(gang) for gang in sorted(self.waiting.values(), key=rank)):
            pass

    def start(self, gang: Gang) -> bool:
        before = objective_of(self.running, self.case.quotas, any_model)
        spots = anywhere(gang)(self.hall)
        if spots is None:
            left = self.running.left_milli(gang.terms.queue)
            found = reclaim(
                gang, Entitlement(left_milli=left), self.running, self.hall, anywhere(gang), self.now_s
            )
            if found is None:
                return False
            for victim in found.victims:
                assert (victim.run_id, gang.run_id) not in self.stopped, "two stopped each other"
                self.stopped.add((gang.run_id, victim.run_id))
                self.leave(victim.run_id)
            spots = found.spots
        del self.waiting[gang.run_id]
        self.hall.place(gang.run_id, gang.shape, spots)
        self.running.put(Candidate(gang=gang, spots=spots, since_s=self.now_s))
        assert objective_of(self.running, self.case.quotas, any_model) > before
        return True

    def leave(self, run_id: str) -> None:
        """Half of what it did in this attempt was saved."""
        self.hall.remove(run_id)
        one = self.running.drop(run_id)
        self.left_s[run_id] -= (self.now_s - one.since_s) / 2 if one.since_s >= NOW_S else 0.0
        self.waiting[run_id] = one.gang

    def end_next(self) -> None:
        """To the instant at which the next one has done its work."""
        ends = {
            each.gang.run_id: max(each.since_s, NOW_S) + self.left_s[each.gang.run_id]
            for each in self.running
        }
        first = min(ends, key=lambda run_id: (ends[run_id], run_id))
        self.now_s = max(self.now_s, ends[first])
        self.hall.remove(first)
        self.running.drop(first)
        self.stopped.clear()


def rank(gang: Gang) -> tuple[bool, int, int]:
    return gang.terms.spot, -gang.terms.priority, gang.number


@settings(max_examples=2000, deadline=None)
@given(
    cases(),
    st.lists(st.tuples(TERMS, st.sampled_from((500, 1000, 2000)), st.integers(1, 2)), max_size=8),
    st.data(),
)
def test_a_finite_load_comes_to_its_end_and_no_two_stop_each_other(
    case: Case, more: list[tuple[tuple[str, int, bool], int, int]], data: st.DataObject
) -> None:
    new = [case.gang]
    for number, ((queue, priority, spot), milli, pods) in enumerate(more, start=100):
        terms = Terms(queue=queue, priority=priority, spot=spot)
        new.append(Gang(run_id=f"r{number}", number=number, shape=Shape(pods=pods, milli=milli), terms=terms))
    new = [each for each in new if not case.hall.could_ever(each.shape)]
    every = [*(each.gang for each in case.running), *new]
    work_s = {each.run_id: 100.0 + 37.0 * (each.number % 7) for each in every}
    yard = Yard(case, work_s)
    for each in new:
        yard.waiting[each.run_id] = each
        if data.draw(st.booleans(), label="a cycle between"):
            yard.cycle()
    for _ in range(len(every)):  # each end is the end of one for good
        yard.cycle()
        yard.end_next()
    assert not yard.waiting
    assert len(yard.running) == 0
