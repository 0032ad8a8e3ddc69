"""At no instant is more promised than there is, and whoever is refused hears what would do."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.calendar import Calendar
from baseai.scheduling.oversold import Admitted, Behind, Oversold, admit, admit_window, behind
from baseai.scheduling.reservation import Reservation
from tests.scheduling.bookings import HOUR, booked, hold, holds, reserved, spot, window


@pytest.mark.parametrize(
    ("asked", "calendar"),
    [
        pytest.param(reserved("x", 2, 8, 10, 20), booked(a=8, b=8), id="all there is"),
        pytest.param(
            reserved("x", 1, 8, 20, 30),
            booked(reserved("y", 1, 8, 10, 20), a=8),
            id="one ends as another begins",
        ),
        pytest.param(
            reserved("x", 1, 4, 10, 20), booked(reserved("y", 1, 4, 10, 20), a=8), id="side by side"
        ),
        pytest.param(reserved("x", 1, 8, 10, 20), booked(spot("s", "a", 8), a=8), id="spot makes way"),
        pytest.param(
            reserved("x", 1, 8, 10, 20),
            booked(holds("r", "a", 8, 24, firm_until_h=9), a=8),
            id="so does added time",
        ),
        pytest.param(
            reserved("x", 1, 8, 10, 20), booked(holds("r", "a", 8, 10), a=8), id="a run that ends by then"
        ),
        pytest.param(
            reserved("x", 1, 8, 10, 20),
            booked(reserved("y", 1, 8, 0, 30), holds("r", "a", 8, 24, of="y"), a=8, b=8),
            id="a run on its own reservation counts once",
        ),
        pytest.param(
            reserved("x", 1, 8, 12, 20),
            booked(window("w", "a", 10, 12), a=8),
            id="from the end of maintenance",
        ),
    ],
)
def test_what_fits_is_admitted(asked: Reservation, calendar: Calendar) -> None:
    assert admit(asked, calendar, now_s=0.0) == Admitted()


@pytest.mark.parametrize(
    ("asked", "calendar", "short", "span_h", "other_starts_h", "nodes_most"),
    [
        pytest.param(
            reserved("x", 3, 8, 10, 20), booked(a=8, b=8), 8, (10, 20), (None, None), 2, id="never so much"
        ),
        pytest.param(
            reserved("x", 1, 8, 10, 20), booked(a=4, b=4), 8, (10, 20), (None, None), 0, id="not on one node"
        ),
        pytest.param(
            reserved("x", 2, 8, 10, 20), booked(reserved("y", 1, 8, 15, 40), a=8, b=8), 8, (15, 20), (5, 40), 1,
            id="another comes in between",
        ),
        pytest.param(
            reserved("x", 1, 8, 10, 20), booked(window("w", "a", 12, 13), a=8), 8, (12, 13), (2, 13), 0,
            id="maintenance in between",
        ),
        pytest.param(
            reserved("x", 1, 8, 10, 20), booked(holds("r", "a", 1, 11), a=8), 8, (10, 11), (None, 11), 0,
            id="a run that need not go",
        ),
        pytest.param(
            reserved("x", 1, 8, 10, 20), booked(reserved("y", 1, 8, 5, 10.5), a=8), 8, (10, 10.5), (None, 10.5), 0,
            id="no start in the past is offered",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_would(
    asked: Reservation,
    calendar: Calendar,
    short: int,
    span_h: tuple[float, float],
    other_starts_h: tuple[float | None, float | None],
    nodes_most: int,
) -> None:
    found = admit(asked, calendar, now_s=0.0)
    assert isinstance(found, Oversold)
    assert (found.accelerators_short, found.nodes_most) == (short, nodes_most)
    assert (found.from_s / HOUR, found.until_s / HOUR) == span_h
    starts = [None if at is None else at / HOUR for at in (found.earlier_s, found.later_s)]
    assert tuple(starts) == other_starts_h


def test_no_window_takes_what_is_reserved_or_a_node_that_another_has() -> None:
    calendar = booked(reserved("x", 1, 8, 10, 20), window("w", "c", 1, 2), a=8, b=8, c=4)
    assert admit_window(window("v", "a", 12, 13), calendar) == Admitted()
    assert admit_window(window("v", "ab", 12, 13), calendar) == Behind(
        kind="reservation", name="x", from_s=10 * HOUR, tenant_id="acme"
    )
    assert admit_window(window("v", "ab", 20, 21), calendar) == Admitted()
    assert admit_window(window("v", "c", 1.5, 3), calendar) == Behind(
        kind="maintenance", name="w", from_s=1 * HOUR
    )
    assert admit_window(window("v", "c", 2, 3), calendar) == Admitted()


@pytest.mark.parametrize(
    ("until_h", "expected"),
    [
        pytest.param(9, None, id="nothing is booked so soon"),
        pytest.param(10.5, Behind(kind="maintenance", name="w", from_s=10 * HOUR), id="its node goes down"),
        pytest.param(
            30, Behind(kind="maintenance", name="w", from_s=10 * HOUR), id="the first of them is named"
        ),
    ],
)
def test_added_time_ends_at_maintenance(until_h: float, expected: Behind | None) -> None:
    calendar = booked(holds("r", "a", 8, 5), window("w", "a", 10, 12), reserved("x", 1, 8, 20, 24), a=8)
    assert behind("r", until_h * HOUR, calendar) == expected


def test_added_time_ends_where_a_reservation_needs_the_node() -> None:
    calendar = booked(holds("r", "a", 8, 5), hold("x", 1, 8, 20, 24), a=8)
    assert behind("r", 20 * HOUR, calendar) is None
    assert behind("r", 20.1 * HOUR, calendar) == Behind(
        kind="reservation", name="x", from_s=20 * HOUR, tenant_id="acme"
    )
    roomy = booked(holds("r", "a", 8, 5), hold("x", 1, 8, 20, 24), a=8, b=8)
    assert behind("r", 30 * HOUR, roomy) is None


# ------------------------------------------------------------------------------------------ over generated bookings

SIZES = (1, 2, 4, 8)
SPANS = st.tuples(st.integers(0, 8), st.integers(1, 6)).map(lambda span: (span[0], span[0] + span[1]))
ASKED = st.tuples(st.integers(1, 3), st.sampled_from(SIZES), SPANS)


def fits_at(calendar: Calendar, at_h: float) -> bool:
    """By trying every order and node: whether the reserved pods find room at one instant."""
    at_s = at_h * HOUR
    away = {name for one in calendar.windows if one.from_s <= at_s < one.until_s for name in one.node_ids}
    room = {bay.node_id: bay.accelerators for bay in calendar.bays if bay.node_id not in away}
    for one in calendar.holdings:
        if one.node_id in room and min(one.ends_s, one.firm_until_s) > at_s:
            room[one.node_id] -= one.accelerators
    needs = [
        (one.name, one.accelerators)
        for one in calendar.reservations
        if one.from_s <= at_s < one.until_s
        for _ in range(one.nodes)
    ]
    return _placeable(needs, room, frozenset())


def _placeable(needs: list[tuple[str, int]], room: dict[str, int], used: frozenset[tuple[str, str]]) -> bool:
    if not needs:
        return True
    (name, size), *rest = needs
    return any(
        _placeable(rest, {**room, node_id: left - size}, used | {(name, node_id)})
        for node_id, left in room.items()
        if left >= size and (name, node_id) not in used
    )


@settings(max_examples=300, deadline=None)
@given(
    asked=st.lists(ASKED, min_size=1, max_size=5),
    down=st.lists(st.tuples(st.sampled_from("abc"), SPANS), max_size=2),
    firm=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(1, 8)), max_size=2),
)
def test_never_oversold(
    asked: list[tuple[int, int, tuple[int, int]]],
    down: list[tuple[str, tuple[int, int]]],
    firm: list[tuple[str, int, int]],
) -> None:
    entries: list[object] = [
        holds(f"r{number}", name, count, until) for number, (name, count, until) in enumerate(firm)
    ]
    for number, (nodes, size, (from_h, until_h)) in enumerate(asked):
        one = reserved(f"x{number}", nodes, size, from_h, until_h)
        if admit(one, booked(*entries, a=8, b=8, c=4), now_s=0.0) == Admitted():
            entries.append(one)
    for number, (name, (from_h, until_h)) in enumerate(down):
        planned = window(f"w{number}", name, from_h, until_h)
        if admit_window(planned, booked(*entries, a=8, b=8, c=4)) == Admitted():
            entries.append(planned)
    for at_h in range(15):
        assert fits_at(booked(*entries, a=8, b=8, c=4), at_h)


@settings(max_examples=300, deadline=None)
@given(asked=st.lists(ASKED, min_size=1, max_size=4))
def test_what_would_fit_is_not_refused(asked: list[tuple[int, int, tuple[int, int]]]) -> None:
    """Sizes that divide each other, on equal nodes, in any order of asking."""
    wanted = [reserved(f"x{number}", *facts[:2], *facts[2]) for number, facts in enumerate(asked)]
    calendar = booked(*wanted, a=8, b=8, c=8)
    if all(fits_at(calendar, at_h) for at_h in range(15)):
        for order in list(permutations(wanted))[:6]:
            taken: list[object] = []
            for one in order:
                assert admit(one, booked(*taken, a=8, b=8, c=8), now_s=0.0) == Admitted()
                taken.append(one)


@settings(max_examples=200, deadline=None)
@given(taken=st.lists(ASKED, max_size=3), asked=ASKED)
def test_what_is_offered_instead_is_there(
    taken: list[tuple[int, int, tuple[int, int]]], asked: tuple[int, int, tuple[int, int]]
) -> None:
    entries: list[object] = []
    for number, facts in enumerate(taken):
        one = reserved(f"y{number}", *facts[:2], *facts[2])
        if admit(one, booked(*entries, a=8, b=4), now_s=0.0) == Admitted():
            entries.append(one)
    calendar = booked(*entries, a=8, b=4)
    nodes, size, (from_h, until_h) = asked
    found = admit(reserved("x", nodes, size, from_h, until_h), calendar, now_s=0.0)
    if isinstance(found, Oversold):
        for at_s in (found.earlier_s, found.later_s):
            if at_s is not None:
                moved = reserved("x", nodes, size, at_s / HOUR, at_s / HOUR + until_h - from_h)
                assert admit(moved, calendar, now_s=0.0) == Admitted()
        if found.nodes_most:
            assert admit(reserved("x", found.nodes_most, size, from_h, until_h), calendar, 0.0) == Admitted()
        assert admit(reserved("x", found.nodes_most + 1, size, from_h, until_h), calendar, 0.0) != Admitted()
