"""Moving runs aside for a gang: only who may move does, each has its place, and it pays."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import Gang, Shape, Terms
from baseai.scheduling.hall import Bay, Hall, Spot, Spots
from baseai.scheduling.policy.consolidate import HORIZON_S, MARGIN, Budget, Moves, budget_of, consolidate
from baseai.scheduling.policy.stakes import Candidate, Stakes
from tests.scheduling.halls import hall

NOW_S = 10_000.0


def run(run_id: str, row: int, *devices: int, saved_s: float | None = 9_900.0, **rest: float) -> Candidate:
    """One that holds these accelerators of a node, and has saved a hundred seconds ago."""
    shape = Shape(milli=1000 * len(devices))
    terms = Terms(min_runtime_s=rest.pop("min_runtime_s", 0.0))
    one = Gang(run_id=run_id, number=int(run_id[1:]), shape=shape, terms=terms)
    return Candidate(
        gang=one, spots=(Spot(row, devices),), since_s=rest.pop("since_s", 0.0), saved_s=saved_s, **rest
    )


def new(devices: int, *, pods: int = 1, lasts_most_s: float | None = None) -> Gang:
    shape = Shape(milli=1000 * devices, pods=pods)
    return Gang(run_id="new", number=999, shape=shape, terms=Terms(lasts_most_s=lasts_most_s))


def tightest(gang: Gang, one: Hall) -> Spots | None:
    """Its place in a hall: the fullest rows that hold it."""
    return one.spots(gang.shape, one.spare.argsort(kind="stable").tolist())


def moves_for(
    gang: Gang, one: Hall, running: Sequence[Candidate], budget: Budget | None = None
) -> Moves | None:
    for each in running:
        one.place(each.gang.run_id, each.gang.shape, each.spots)
    return consolidate(gang, Stakes(one, running), one, tightest, NOW_S, budget or Budget(moves=9))


def moved(found: Moves | None) -> dict[str, int]:
    """Who moves, and to which node."""
    return {} if found is None else {each.run_id: each.spots[0].row for each in found.relocations}


def test_a_run_moves_aside_for_a_gang_that_fits_nowhere_else() -> None:
    found = moves_for(new(2), hall(2, 2), [run("r0", 0, 0), run("r1", 1, 1)])
    assert found is not None
    assert moved(found) == {"r0": 1}
    assert found.spots == (Spot(0, (0, 1)),)


def test_who_has_lost_the_least_since_it_saved_moves() -> None:
    assert moved(moves_for(new(2), hall(2, 2), [run("r0", 0, 0), run("r1", 1, 1, saved_s=9_990.0)])) == {
        "r1": 0
    }


def test_a_fleet_that_is_full_is_no_case_of_fragments() -> None:
    assert moves_for(new(2), hall(2, 1), [run("r0", 0, 0), run("r1", 1, 0)]) is None


@pytest.mark.parametrize(
    ("stays", "budget"),
    [
        pytest.param(run("r0", 0, 0, saved_s=None), None, id="one that never saved"),
        pytest.param(run("r0", 0, 0, since_s=9_000.0, min_runtime_s=2_000.0), None, id="one that is too young"),
        pytest.param(run("r0", 0, 0), Budget(moves=9, lately=frozenset({"r0"})), id="one that was moved lately"),
        pytest.param(run("r0", 0, 0), Budget(moves=0), id="anybody, once the budget is spent"),
    ],
)  # fmt: skip
def test_who_stays(stays: Candidate, budget: Budget | None) -> None:
    unsaved = run("r1", 1, 1, saved_s=None)
    assert moves_for(new(2), hall(2, 2), [stays, unsaved], budget) is None


def test_a_move_that_costs_more_than_is_gained_is_none() -> None:
    """Two accelerators for 100 s against 160 s of one: less than the margin asks for."""
    assert moves_for(new(2, lasts_most_s=100.0), hall(2, 2), [run("r0", 0, 0), run("r1", 1, 1)]) is None
    assert moves_for(new(2, lasts_most_s=400.0), hall(2, 2), [run("r0", 0, 0), run("r1", 1, 1)]) is not None


SITES = ((3, "here"), (3, "here"), (2, "there"))


def test_another_moves_where_the_cheapest_has_no_other_place() -> None:
    one = Hall([Bay(node_id=f"n{row}", devices=count, site=site) for row, (count, site) in enumerate(SITES)])
    bound = run("r0", 0, 0, 1, saved_s=NOW_S)
    bound = replace(bound, gang=replace(bound.gang, shape=replace(bound.gang.shape, sites=("here",))))
    assert moved(moves_for(new(3), one, [bound, run("r1", 1, 0, 1)])) == {"r1": 2}


def test_an_hour_sees_so_many_moves_for_a_hundred_accelerators_and_no_run_twice() -> None:
    told = [(NOW_S - 4_000, "old"), (NOW_S - 100, "a"), (NOW_S - 3_000, "b")]
    assert budget_of(told, 250, NOW_S) == Budget(moves=3, lately=frozenset({"a", "b"}))
    assert budget_of(told, 60, NOW_S).moves == 0


RUNS = st.tuples(
    st.sampled_from((250, 500, 1000, 1000, 2000)),
    st.sampled_from((1, 1, 1, 2)),
    st.sampled_from((None, 4_000, 9_000, 9_990)),  # saved
    st.sampled_from((0.0, 2_000.0)),  # minimum runtime
    st.sampled_from((0, 9_000)),  # since
    st.booleans(),  # it has ended since, so that its place is a hole
)


@settings(max_examples=3000, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4), st.lists(RUNS, min_size=2, max_size=12),
    st.sampled_from((500, 1000, 2000, 3000)), st.integers(1, 2), st.integers(0, 2),
    st.sampled_from((None, 60.0, 900.0)),
)  # fmt: skip
def test_all_are_placed_afterwards_it_pays_and_the_budget_is_kept(
    devices: list[int], runs: list[tuple[int, int, int | None, float, int, bool]], milli: int, pods: int, allowed: int,
    lasts_s: float | None,
) -> None:  # fmt: skip
    one = hall(*devices)
    running = []
    for number, (each_milli, count, saved_s, least_s, since_s, _) in enumerate(runs):
        shape = Shape(milli=each_milli, pods=count)
        each = Gang(run_id=f"r{number}", number=number, shape=shape, terms=Terms(min_runtime_s=least_s))
        spots = one.spots(shape, range(len(one)))
        if spots is not None:
            one.place(each.run_id, shape, spots)
            running.append(
                (Candidate(gang=each, spots=spots, since_s=since_s, saved_s=saved_s), runs[number][-1])
            )
    for each, ended in running:
        if ended:
            one.remove(each.gang.run_id)
    stands = {each.gang.run_id: each for each, ended in running if not ended}
    gang = Gang(
        run_id="new", number=999, shape=Shape(milli=milli, pods=pods), terms=Terms(lasts_most_s=lasts_s)
    )
    if tightest(gang, one) is not None:
        return
    before = one.free.tolist()
    budget = Budget(moves=allowed, lately=frozenset({"r1"}))
    found = consolidate(gang, Stakes(one, stands.values()), one, tightest, NOW_S, budget)
    assert one.free.tolist() == before, "it was tried on a copy"
    if found is None:
        return
    assert 1 <= len(found.relocations) <= allowed
    cost = 0.0
    for relocation in found.relocations:
        candidate = stands[relocation.run_id]
        assert candidate.saved_s is not None
        assert candidate.since_s + candidate.gang.terms.min_runtime_s <= NOW_S
        assert relocation.run_id != "r1"
        assert relocation.cost == pytest.approx(candidate.cost(NOW_S))
        cost += candidate.cost(NOW_S)
        one.remove(relocation.run_id)
    one.place("new", gang.shape, found.spots)
    for relocation in found.relocations:
        one.place(
            relocation.run_id, stands[relocation.run_id].gang.shape, relocation.spots
        )  # raises where it does not fit
    assert set(one.held) == {"new", *stands}
    lasts = HORIZON_S if lasts_s is None else lasts_s
    assert milli * pods / 1000 * lasts / 3600 > MARGIN * cost
    for relocation in found.relocations:  # nobody moved who need not
        spared = Hall(one.bays)
        gone = {each.run_id for each in found.relocations} - {relocation.run_id}
        for run_id, candidate in stands.items():
            if run_id not in gone:
                spared.place(run_id, candidate.gang.shape, candidate.spots)
        assert tightest(gang, spared) is None
