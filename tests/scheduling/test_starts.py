"""What a waiting run is told of its start is kept, and has one fate."""

import numpy as np
import pytest

from baseai.scheduling.gang import Gang, Shape
from baseai.scheduling.starts.said import FRONT, SUMMED_MOST, Fate, Pool, Said, Starts
from tests.scheduling.halls import gang

NOON_S = 1_800_000_000.0
ONE = Shape(milli=1000)
FOUR = {"A": Pool(milli=4000)}


def starts(*lasted_s: float, seed: int = 1) -> Starts:
    found = Starts(np.random.default_rng(seed))
    for each in lasted_s:
        found.ended(ONE, each)
    return found


def busy(count: int = 4, model: str = "A", served_s: float = 0.0) -> dict[str, list[tuple[Shape, float]]]:
    """So many of one accelerator each that started then."""
    return {model: [(ONE, NOON_S - served_s)] * count}


def of_a(run_id: str) -> Gang:
    return gang(run_id, models=("A",))


def fates(one: Starts) -> list[tuple[str, Fate | None]]:
    return [(said.run_id, said.fate) for said in one.unwritten()]


def test_who_waits_is_told_an_interval_about_the_likely_start() -> None:
    one = starts(*[100.0] * 20)
    told = one.cycle(NOON_S, FOUR, busy(), [of_a("r1")])["r1"]
    assert (told.likely_at - told.asked_at).total_seconds() == pytest.approx(100)
    assert told.asked_at <= told.earliest_at <= told.likely_at <= told.latest_at
    assert (told.held_ratio, told.outcomes) == (None, 0)


@pytest.mark.parametrize(
    ("starts_after_s", "fate"),
    [
        pytest.param(100.0, Fate.HELD, id="within"),
        pytest.param(0.0, Fate.HELD, id="at once, where that was said to be possible"),
        pytest.param(100_000.0, Fate.LATE, id="after the latest"),
    ],
)
def test_a_start_is_held_against_the_first_that_was_said(starts_after_s: float, fate: Fate) -> None:
    one = starts(*[100.0] * 20)
    one.cycle(NOON_S, FOUR, busy(), [of_a("r1")])
    one.started("r1", NOON_S + starts_after_s)
    said = one.unwritten()
    assert [(each.fate, each.started_s) for each in said] == [
        (None, None),
        (fate, NOON_S + starts_after_s),
    ]
    told = one.cycle(NOON_S + 1, FOUR, busy(), [of_a("r2")])["r2"]
    assert (told.held_ratio, told.outcomes) == (float(fate is Fate.HELD), 1)


def test_a_start_before_the_earliest_is_early() -> None:
    one = starts(*[100_000.0] * 20)
    one.cycle(NOON_S, FOUR, busy(), [of_a("r1")])
    one.started("r1", NOON_S + 1)
    assert fates(one)[-1] == ("r1", Fate.EARLY)


def test_who_waits_beyond_the_latest_is_late_once_and_is_told_anew() -> None:
    one = starts(*[100.0] * 20)
    before = one.cycle(NOON_S, FOUR, busy(), [of_a("r1")])["r1"]
    for after_s in (5_000.0, 5_010.0):
        anew = one.cycle(NOON_S + after_s, FOUR, busy(), [of_a("r1")])["r1"]
    one.started("r1", NOON_S + 6_000)
    assert fates(one) == [("r1", None), ("r1", Fate.LATE), ("r1", Fate.LATE)]  # and when it started
    assert anew.latest_at > before.latest_at
    assert (anew.held_ratio, anew.outcomes) == (0.0, 1)


def test_who_leaves_without_starting_says_nothing() -> None:
    one = starts(*[100.0] * 20)
    one.cycle(NOON_S, FOUR, busy(), [of_a("r1"), of_a("r2")])
    assert [said.run_id for said in one.missing([of_a("r2")])] == ["r1"]
    one.gone("r1", NOON_S + 9)
    assert fates(one)[-1] == ("r1", Fate.GONE)
    assert one.cycle(NOON_S + 10, FOUR, busy(), [of_a("r3")])["r3"].outcomes == 0
    one.started("r1", NOON_S + 11)  # late news of a run that nobody waits for
    assert [said.fate for said in one.unwritten()] == [None]  # of r3, which was just told


def test_what_is_shown_is_made_anew_after_a_while_and_the_first_stands() -> None:
    one = starts(*[1000.0] * 20)
    first = one.cycle(NOON_S, FOUR, busy(), [of_a("r1")])["r1"]
    assert one.cycle(NOON_S + 200, FOUR, busy(), [of_a("r1")])["r1"] is first
    anew = one.cycle(NOON_S + 301, FOUR, busy(), [of_a("r1")])["r1"]
    assert (anew.likely_at - anew.asked_at).total_seconds() == pytest.approx(699, abs=1)
    assert len(one.unwritten()) == 1


def test_only_those_who_may_be_on_the_same_models_wait_for_each_other() -> None:
    one = starts(*[100.0] * 20)
    ahead = [gang(f"r{number}", models=("B",)) for number in range(8)]
    told = {}
    for _ in range(5):
        told = one.cycle(NOON_S, FOUR | {"B": Pool(milli=1000)}, busy(), [*ahead, of_a("r9")])
    assert (told["r9"].likely_at - told["r9"].asked_at).total_seconds() == pytest.approx(100)


def test_what_is_free_and_does_not_let_it_start_is_no_room_for_it() -> None:
    one = starts(*[100.0] * 20)
    told = one.cycle(NOON_S, {"A": Pool(milli=16_000)}, busy(8), [gang("r1", 8000, models=("A",))])["r1"]
    assert (told.likely_at - told.asked_at).total_seconds() == pytest.approx(100)


def test_nothing_is_said_of_a_model_that_is_not_there() -> None:
    assert starts(100.0).cycle(NOON_S, {"B": Pool(milli=8000)}, {}, [of_a("r1")]) == {}


def test_simulated_nodes_have_a_share_of_their_own() -> None:
    one = starts(*[100.0] * 20)
    one.cycle(NOON_S, {"A": Pool(milli=4000, simulated=True)}, busy(), [of_a("r1")])
    one.started("r1", NOON_S + 100)
    assert [said.simulated for said in one.unwritten()] == [True, True]
    assert one.cycle(NOON_S, FOUR, busy(), [of_a("r2")])["r2"].outcomes == 0


def test_a_long_queue_is_told_over_some_cycles_the_first_first() -> None:
    one = starts(*[100.0] * 20)
    queue = [of_a(f"r{number}") for number in range(2 * FRONT)]
    told = [set(one.cycle(NOON_S + cycle, FOUR, busy(), queue)) for cycle in range(80)]
    assert {"r0", "r1"} <= told[0]
    assert "r2" not in told[0]
    assert len(told[0]) < SUMMED_MOST + 10
    assert told[-1] == {each.run_id for each in queue}
    last = one.cycle(NOON_S + 81, FOUR, busy(), queue)
    assert last["r10"].likely_at < last["r100"].likely_at < last[f"r{2 * FRONT - 1}"].likely_at


def test_a_thousand_that_run_are_spoken_for_by_a_few() -> None:
    """What a run of 1,000 accelerators waits for is the same, whoever is drawn."""
    one = starts(*[100.0] * 20)
    pool = {"A": Pool(milli=1000 * 1000)}
    told = one.cycle(NOON_S, pool, busy(1000), [gang("r1", 1_000_000, models=("A",))])["r1"]
    assert (told.likely_at - told.asked_at).total_seconds() == pytest.approx(100)


def test_told_what_is_on_record_a_new_one_says_what_the_old_one_says() -> None:
    old, record = starts(*[100.0] * 20), list[Said]()
    for number in range(30):
        old.cycle(NOON_S + 60 * number, FOUR, busy(), [of_a(f"r{number}")])
        if number % 3:
            old.started(f"r{number}", NOON_S + 60 * number + 40 * (number % 4))
        record += old.unwritten()
    new = starts(*[100.0] * 20)
    settled = [said for said in record if said.fate is not None]
    unsettled = [
        said for said in record if said.fate is None and said.run_id not in {e.run_id for e in settled}
    ]
    for said in (*settled, *unsettled):
        new.remember(said)
    open_ids = [{said.run_id for said in each.missing([])} for each in (old, new)]
    assert open_ids[0] == open_ids[1] != set()
    told = [
        each.cycle(NOON_S + 1860, FOUR, busy(served_s=-1860), [of_a("r99")])["r99"] for each in (old, new)
    ]
    assert told[0] == told[1]
