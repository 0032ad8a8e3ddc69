"""A tree of queues that exists is sound, and what was used long ago counts less and less."""

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.queue_tree import (
    HALF_LIFE_S,
    ROOT,
    Queue,
    Spell,
    decayed_accelerator_s,
    leaf_of,
    weighed,
)
from tests.scheduling.queues import queue, tree

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("queues", "sentence"),
    [
        pytest.param([queue("a", "b"), queue("b", "a")], "in a circle: a below b below a", id="no circle"),
        pytest.param([queue("a", "a")], "in a circle: a below a", id="not below itself"),
        pytest.param([queue("a", "nobody")], "a hangs below nobody, and there is no such queue", id="no gap"),
        pytest.param([queue("a"), queue("a")], "two queues named a", id="a name stands once"),
        pytest.param(
            [Queue(name="top", parent=None), Queue(name=ROOT, parent=None)],
            "one root, named root: root and top cannot be it",
            id="one root",
        ),
        pytest.param(
            [
                queue("lab", quota={"H100": 16}),
                queue("a", "lab", quota={"H100": 12}),
                queue("b", "lab", quota={"H100": 8}),
            ],
            r"quotas of a \(12\) and b \(8\) add up to 20 H100, and lab above is guaranteed 16",
            id="what is below shares what is above",
        ),
        pytest.param(
            [queue("lab", quota={"H100": 8}), queue("team", "lab"), queue("a", "team", quota={"H100": 9})],
            r"quotas of team \(9\) come to 9 H100, and lab above is guaranteed 8",
            id="through a queue that says nothing",
        ),
        pytest.param(
            [queue("lab", limit={"H100": 8}), queue("a", "lab", quota={"H100": 9})],
            r"quotas of a \(9\) come to 9 H100, and lab above may hold 8",
            id="a limit bounds the guarantees below",
        ),
        pytest.param(
            [queue("t", tenant="ten_1"), queue("a", "t")],
            "below t, where not all who may wait in a may",
            id="a tenant's own",
        ),
    ],
)  # fmt: skip
def test_a_tree_that_is_not_sound_does_not_come_to_be(queues: Sequence[Queue], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tree(*queues)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param({"weight": 0.0}, "weight 0", id="a weight is above 0"),
        pytest.param({"weight": math.nan}, "weight nan", id="a weight is a number"),
        pytest.param({"half_life_s": 0.0}, "by half in 0 s", id="a half-life is above 0"),
        pytest.param({"quota": {"H100": -1}}, "quota of -1 H100", id="a quota is not negative"),
        pytest.param({"limit": {"H100": -1}}, "limit of -1 H100", id="a limit is not negative"),
        pytest.param(
            {"quota": {"H100": 9}, "limit": {"H100": 8}},
            "guaranteed 9 H100 and may hold 8",
            id="a limit is at least the quota",
        ),
    ],
)
def test_a_queue_that_contradicts_itself_does_not_come_to_be(
    fields: Mapping[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        queue("a", **fields)


def test_quotas_that_add_up_are_sound_whatever_models_they_name() -> None:
    tree(
        queue("lab", quota={"H100": 16, "A100": 4}, limit={"H100": 64}),
        queue("a", "lab", quota={"H100": 8}),
        queue("b", "lab", quota={"H100": 8, "L4": 99}),
    )


def test_a_run_waits_at_the_end_of_a_path_whatever_name_it_gives() -> None:
    of = tree(
        queue("lab", half_life_s=DAY_S), queue("a", "lab", weight=3, half_life_s=2 * DAY_S), queue("b", "lab")
    )
    assert [one.name for one in of.path("a")] == ["lab", "a"]
    [stranger] = of.path("nobody-knows")
    assert (stranger.name, stranger.parent, stranger.weight) == ("nobody-knows", ROOT, 1.0)
    assert [(one.name, one.weight) for one in of.path("lab")] == [
        ("lab", 1.0),
        ("lab/", 1.0),
    ]  # beside a and b
    assert [one.name for one in of.path(ROOT)] == ["root/"]
    assert [of.half_life_s(name) for name in ("a", "b", "lab", "nobody-knows")] == [
        2 * DAY_S, DAY_S, DAY_S, HALF_LIFE_S,
    ]  # fmt: skip


def test_every_tenant_has_a_default_of_its_own() -> None:
    assert leaf_of("ten_1", "default") != leaf_of("ten_2", "default")
    assert leaf_of("ten_1", "shared") == leaf_of("ten_2", "shared") == "shared"


# ------------------------------------------------------------------------------------------------- usage


def test_a_half_life_ago_counts_by_half() -> None:
    now_s, brief_s = 10 * DAY_S, 1.0
    lately = decayed_accelerator_s([Spell(now_s - brief_s, now_s, 8)], now_s, DAY_S)
    before = decayed_accelerator_s([Spell(now_s - DAY_S - brief_s, now_s - DAY_S, 8)], now_s, DAY_S)
    assert lately == pytest.approx(8.0, rel=1e-4)
    assert before == pytest.approx(lately / 2)


def test_who_always_held_eight_has_had_eight() -> None:
    for_ever = decayed_accelerator_s([Spell(0.0, 1e9, 8)], 1e9, DAY_S)
    assert for_ever * math.log(2) / DAY_S == pytest.approx(8.0)


def test_what_is_still_held_counts_up_to_now_and_the_future_not_at_all() -> None:
    ended, held_on = Spell(5.0, 10.0, 1), Spell(5.0, 99.0, 1)
    assert decayed_accelerator_s([held_on], 10.0, DAY_S) == decayed_accelerator_s([ended], 10.0, DAY_S)
    assert decayed_accelerator_s([Spell(20.0, 99.0, 1)], 10.0, DAY_S) == 0.0


def test_models_are_weighed_by_what_they_are_worth() -> None:
    assert weighed({"H100": 2.0, "L4": 10.0}, {"H100": 3.0}) == 16.0


spans = st.lists(
    st.tuples(st.floats(0, 900), st.floats(0, 200), st.integers(1, 64)).map(
        lambda one: Spell(one[0], one[0] + one[1], one[2])
    ),
    max_size=4,
)


@settings(max_examples=1000, deadline=None)
@given(spans, st.floats(10, 2000), st.floats(0, 300))
def test_the_closed_form_is_the_integral_and_time_only_takes_away(
    holds: list[Spell], half_life_s: float, later_s: float
) -> None:
    now_s, step_s = 1000.0, 5.0
    exact = decayed_accelerator_s(holds, now_s, half_life_s)
    middles = [step_s * (number + 0.5) for number in range(int(now_s / step_s))]
    counted = sum(
        2 ** ((at_s - now_s) / half_life_s) * hold.accelerators * overlap
        for hold in holds
        for at_s in middles
        if (overlap := min(hold.until_s, at_s + step_s / 2, now_s) - max(hold.from_s, at_s - step_s / 2)) > 0
    )
    assert exact == pytest.approx(counted, rel=0.2, abs=1e-6)
    assert exact <= sum(hold.accelerators * (min(hold.until_s, now_s) - hold.from_s) for hold in holds) + 1e-6
    ended = [Spell(hold.from_s, min(hold.until_s, now_s), hold.accelerators) for hold in holds]
    then = decayed_accelerator_s(ended, now_s + later_s, half_life_s)
    assert then == pytest.approx(exact * 2 ** (-later_s / half_life_s), rel=1e-6, abs=1e-9)


_drawn = st.lists(
    st.tuples(st.integers(-1, 5), st.one_of(st.none(), st.integers(0, 9)), st.one_of(st.none(), st.integers(0, 12))),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(_drawn)
def test_whoever_is_guaranteed_something_can_get_it(
    drawn: Sequence[tuple[int, int | None, int | None]],
) -> None:
    """Of a tree that comes to be: all guarantees used to the full at once break no limit and no quota above."""
    try:
        of = tree(
            *(
                queue(
                    f"q{number}",
                    ROOT if above < 0 else f"q{above}",
                    quota={} if quota is None else {"A": quota},
                    limit={} if limit is None else {"A": limit},
                )
                for number, (above, quota, limit) in enumerate(drawn)
            )
        )
    except ValueError:
        return

    def claimed(name: str) -> int:
        one = of.by_name[name]
        below = sum(claimed(each.name) for each in of.below(name))
        assert below <= one.quota.get("A", below)
        most = one.quota.get("A", below)
        assert most <= one.limit.get("A", most)
        return most

    claimed(ROOT)
    for name in of.by_name:
        assert of.path(name)[0].parent == ROOT
