"""A run that has saved is moved aside where that lets one start that has room in all, and nowhere together."""

from typing import Any

import pytest

from baseai.scheduling.decide import decide
from baseai.scheduling.plan import WaitKind
from baseai.scheduling.snapshot import LeaseRow
from tests.scheduling.fleet import NOON, at, gang, lease, node, snapshot, wait_of

FULL = [lease(f"n{number}", 8, hours=99, run=f"full{number}", granted_at=at(-9)) for number in range(5)]


def half(on: str, run: str, **other: Any) -> LeaseRow:
    """A run on half of a node, which has saved a minute ago."""
    return lease(on, 4, hours=99, run=run, **({"granted_at": at(-9), "saved_at": at(-1 / 60)} | other))


@pytest.mark.parametrize(
    ("halves", "hours", "moved"),
    [
        pytest.param([half("n5", "one"), half("n6", "two")], 9, ("one",), id="the cheaper of two makes room"),
        pytest.param(
            [half("n5", "one", saved_at=None), half("n6", "two")], 9, ("two",), id="who never saved stays"
        ),
        pytest.param(
            [half("n5", "one", saved_at=at(-8)), half("n6", "two", saved_at=at(-8))],
            1,
            (),
            id="nobody moves where it does not pay",
        ),
        pytest.param(
            [half("n5", "one", min_runtime_s=99 * 3600), half("n6", "two", min_runtime_s=99 * 3600)],
            9,
            (),
            id="nor within his minimum runtime",
        ),
    ],
)
def test_who_moves(halves: list[LeaseRow], hours: float, moved: tuple[str, ...]) -> None:
    nodes = [node(f"n{number}") for number in range(7)]
    plan = decide(snapshot(nodes, [*FULL, *halves], [gang(1, 8, run="whole", hours=hours)]), NOON)
    assert tuple(eviction.run_id for eviction in plan.evictions) == moved
    assert wait_of(plan, "whole").kind is (WaitKind.CLEARING if moved else WaitKind.SHORT)


def test_a_small_fleet_has_no_moves_to_spend() -> None:
    nodes = [node("n5"), node("n6")]
    plan = decide(snapshot(nodes, [half("n5", "one"), half("n6", "two")], [gang(1, 8, hours=9)]), NOON)
    assert plan.evictions == ()
