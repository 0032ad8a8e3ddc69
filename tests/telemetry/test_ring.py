"""The ring: the newest rows of every thing, whatever order they come in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.ring import LONG_AGO, Ring
from baseai.telemetry.rows import Rows

SLOTS = 4


def rows(*places: tuple[int, int]) -> Rows:
    """Rows by thing and instant, in order; their one field says both."""
    places = tuple(sorted(places))
    things = np.array([thing for thing, _ in places], dtype=np.int32)
    at_ms = np.array([at for _, at in places], dtype=np.int64)
    few = np.zeros(len(places), dtype=np.int32)
    return Rows(
        things=things,
        at_ms=at_ms,
        boots=few,
        patterns=few,
        values=(things * 1000 + at_ms)[None].astype(float),
    )


def instants(ring: Ring, thing: int) -> list[int]:
    found = ring.of_thing(thing, 0, 10**9)
    assert found.values[0].tolist() == (thing * 1000 + found.at_ms).tolist()
    return found.at_ms.tolist()


def test_the_oldest_row_leaves_and_raises_the_horizon() -> None:
    ring = Ring(1, SLOTS)
    ring.reach(2)
    ring.put(rows(*((0, at) for at in range(1, 7))))
    assert instants(ring, 0) == [3, 4, 5, 6]
    assert ring.horizon_ms[:2].tolist() == [2, LONG_AGO]
    assert ring.newest(np.array([0], np.int32)).at_ms.tolist() == [6]


def test_growing_keeps_what_is_there() -> None:
    ring = Ring(1, SLOTS)
    ring.reach(1)
    ring.put(rows((0, 1), (0, 2)))
    ring.reach(5_000)
    ring.put(rows((0, 3), (4_999, 1)))
    assert instants(ring, 0) == [1, 2, 3]
    assert instants(ring, 4_999) == [1]


@given(st.lists(st.sets(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=8), max_size=8))
def test_above_its_horizon_it_holds_every_row_once_in_order(lots: list[set[tuple[int, int]]]) -> None:
    ring = Ring(1, SLOTS)
    ring.reach(3)
    put: set[tuple[int, int]] = set()
    for lot in lots:
        ring.put(rows(*(lot - put)))
        put |= lot
        for thing in range(3):
            horizon = int(ring.horizon_ms[thing])
            every = sorted(at for each, at in put if each == thing)
            assert [at for at in instants(ring, thing) if at > horizon] == [
                at for at in every if at > horizon
            ]
            if every:
                assert ring.newest(np.array([thing], np.int32)).at_ms[0] == every[-1] == ring.newest_ms[thing]
    things = np.array([0, 1, 2], dtype=np.int32)
    since = int(ring.horizon_ms[things].max()) + 1
    column = ring.column(0, things, since, 31)
    expected = sorted(place for place in put if place[1] >= since)
    assert list(zip(column.things.tolist(), column.at_ms.tolist(), strict=True)) == expected
    asked = np.array([at for _, at in expected], dtype=np.int64)
    assert ring.holds(column.things, asked).all()
    assert not ring.holds(column.things, asked + 100).any()
