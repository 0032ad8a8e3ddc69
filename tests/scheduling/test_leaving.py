"""Who stands on what is booked is asked in time, nobody without need, and what is promised finds room."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.scheduling.calendar import Calendar, Holding, claims_of
from baseai.scheduling.leaving import HORIZON_S, Leave, make_way
from baseai.scheduling.lot import Lot
from baseai.scheduling.oversold import Admitted, admit
from baseai.scheduling.reservation import ReservationState
from tests.scheduling.bookings import HOUR, MODEL, SITE, booked, hold, holds, reserved, spot, window


def leaving(calendar: Calendar, now_h: float, wanted: dict[str, int] | None = None) -> tuple[Leave, ...]:
    used: dict[str, dict[str, int]] = {}
    for one in calendar.holdings:
        if one.reservation_id is not None:
            used.setdefault(one.reservation_id, {})[one.node_id] = one.accelerators
    claims = claims_of(calendar.reservations, calendar.windows, used, now_h * HOUR)
    by_id = {f"res-{name}": pods for name, pods in (wanted or {}).items()}
    return make_way(claims, calendar.holdings, calendar.bays, by_id, now_h * HOUR)


def names(leaves: tuple[Leave, ...]) -> list[str]:
    return sorted(leave.run_id for leave in leaves)


ACTIVE = ReservationState.ACTIVE


@pytest.mark.parametrize(
    ("calendar", "now_h", "expected"),
    [
        pytest.param(booked(hold("x", 1, 8, 10, 20), spot("s", "a", 8), a=8), 9.8, ["s"], id="spot makes way"),
        pytest.param(booked(hold("x", 1, 8, 10, 20), spot("s", "a", 8), a=8), 9.7, [], id="not long ahead"),
        pytest.param(
            booked(hold("x", 1, 8, 10, 20), spot("s", "a", 8), a=8, b=8), 9.8, [], id="not where another node is free"
        ),
        pytest.param(
            booked(hold("x", 1, 8, 10, 20), spot("s", "a", 8, 9.9), a=8), 9.8, [], id="not one that ends by itself"
        ),
        pytest.param(
            booked(hold("x", 1, 8, 10, 20), holds("r", "a", 8, 12, firm_until_h=9), a=8), 9.8, ["r"],
            id="added time makes way",
        ),
        pytest.param(
            booked(hold("x", 1, 4, 10, 20), holds("r", "a", 4, 12), spot("s", "a", 2), a=8), 9.8, ["s"],
            id="who was promised its time stays",
        ),
        pytest.param(
            booked(hold("x", 1, 4, 10, 20), spot("s", "a", 2), spot("t", "a", 4), spot("u", "a", 2), a=8), 9.8, ["t"],
            id="as few as it takes",
        ),
        pytest.param(
            booked(
                hold("x", 2, 8, 10, 20), spot("g", "a", 8), spot("g", "b", 8), spot("s", "c", 8), spot("t", "d", 8),
                a=8, b=8, c=8, d=8,
            ),
            9.8, ["s", "t"], id="the less is stopped in all",
        ),
        pytest.param(
            booked(hold("x", 1, 8, 10, 20), hold("y", 1, 8, 10.2, 20), spot("g", "a", 8), spot("g", "b", 8), a=8, b=8),
            9.8, ["g"], id="a gang that goes frees all its nodes",
        ),
        pytest.param(booked(window("w", "a", 10, 12), holds("r", "a", 8, 24), a=8), 9.8, ["r"], id="maintenance"),
        pytest.param(booked(window("w", "a", 10, 12), holds("r", "a", 8, 9.9), a=8), 9.8, [], id="gone by then"),
        pytest.param(booked(window("w", "a", 10, 12), spot("s", "b", 8), a=8, b=8), 9.8, [], id="another node"),
        pytest.param(
            booked(hold("x", 1, 8, 10, 20, state=ACTIVE), spot("s", "a", 8), a=8), 11, [],
            id="a forfeited hold asks nobody",
        ),
    ],
)  # fmt: skip
def test_who_leaves(calendar: Calendar, now_h: float, expected: list[str]) -> None:
    assert names(leaving(calendar, now_h)) == expected


def test_each_is_asked_so_early_that_it_can_save() -> None:
    calendar = booked(
        hold("x", 2, 8, 10, 20),
        spot("quick", "a", 8, grace_s=30),
        spot("slow", "b", 8, grace_s=600),
        a=8,
        b=8,
    )
    asked = {leave.run_id: (leave.by_s - leave.ask_at_s, leave.by_s) for leave in leaving(calendar, 9.8)}
    assert asked == {"slow": (600, 10 * HOUR), "quick": (30, 10 * HOUR)}


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        pytest.param(0, [], id="what nobody of its own waits for stays resold"),
        pytest.param(1, ["s"], id="who comes gets his own at once"),
        pytest.param(2, ["s", "t"], id="and all of it"),
    ],
)
def test_resale_ends_when_its_own_runs_come(waiting: int, expected: list[str]) -> None:
    calendar = booked(
        reserved("x", 2, 8, 10, 20, state=ACTIVE), spot("s", "a", 8), spot("t", "b", 8), a=8, b=8
    )
    found = leaving(calendar, 12, {"x": waiting})
    assert names(found) == expected
    assert all(leave.ask_at_s == 12 * HOUR for leave in found)


def test_own_runs_never_make_way_for_their_reservation() -> None:
    own = holds("own", "a", 8, 24, of="x")
    calendar = booked(reserved("x", 2, 8, 10, 20, state=ACTIVE), own, spot("s", "b", 8), a=8, b=8)
    assert names(leaving(calendar, 12, {"x": 1})) == ["s"]


# ------------------------------------------------------------------------------------------ over generated bookings

STAND = st.tuples(
    st.sampled_from("abc"), st.sampled_from((1, 2, 4, 8)), st.booleans(), st.sampled_from((30, 600))
)
ASKED = st.tuples(st.integers(1, 3), st.sampled_from((1, 2, 4, 8)), st.sampled_from((9.0, 9.05, 10.0)))
NODES = {"a": 8, "b": 8, "c": 4}


@st.composite
def halls(draw: st.DrawFn) -> Calendar:
    """A fleet full of spot, extended and firm runs, and reservations that were admitted beside the firm ones."""
    left = dict(NODES)
    holdings: list[Holding] = []
    for number, (node_id, size, extended, grace_s) in enumerate(draw(st.lists(STAND, max_size=8))):
        if left[node_id] >= size:
            left[node_id] -= size
            until_h = draw(st.sampled_from((9.2, 24.0)))
            firm_h = draw(st.sampled_from((0.0, 8.0, until_h))) if extended else 0.0
            name = f"r{number}" if firm_h else f"s{number % 3}"  # spot runs may be gangs
            grace_s = 600 if name == "s0" else grace_s if firm_h else 30  # one for a gang
            holdings.append(holds(name, node_id, size, until_h, firm_until_h=firm_h, grace_s=grace_s))
    taken: list[object] = [*holdings]
    for number, (nodes, size, from_h) in enumerate(draw(st.lists(ASKED, max_size=4))):
        one = reserved(f"x{number}", nodes, size, from_h, from_h + 4)
        if admit(one, booked(*taken, **NODES), now_s=0.0) == Admitted():
            taken.append(one)
    return booked(*taken, **NODES)


def short_at(calendar: Calendar, at_s: float, gone: set[str]) -> int:
    """Accelerators that are promised at an instant and not free then, once these runs are gone."""
    still = [
        holds(one.run_id, one.node_id, one.accelerators, one.ends_s / HOUR)
        for one in calendar.holdings
        if one.run_id not in gone
    ]
    return Lot(replace(calendar, holdings=still), SITE, MODEL).short(at_s)


@settings(max_examples=400, deadline=None)
@given(calendar=halls())
def test_everybody_makes_way_in_time(calendar: Calendar) -> None:
    now_h = 9.0 - 600 / HOUR
    leaves = leaving(calendar, now_h)
    grace_of = {one.run_id: one.grace_s for one in calendar.holdings}
    for leave in leaves:
        assert leave.by_s - leave.ask_at_s >= min(grace_of[leave.run_id], leave.by_s - now_h * HOUR)
    for at_s in sorted(
        {one.from_s for one in calendar.reservations if one.from_s <= now_h * HOUR + HORIZON_S}
    ):
        gone = {leave.run_id for leave in leaves if leave.by_s <= at_s}
        assert short_at(calendar, at_s, gone) == 0


@settings(max_examples=400, deadline=None)
@given(calendar=halls())
def test_only_who_may_be_asked_is_asked(calendar: Calendar) -> None:
    for leave in leaving(calendar, 9.0):
        assert all(one.firm_until_s <= leave.by_s for one in calendar.holdings if one.run_id == leave.run_id)


@settings(max_examples=400, deadline=None)
@given(calendar=halls(), waiting=st.integers(1, 3))
def test_resale_never_keeps_a_reservations_own_run_waiting(calendar: Calendar, waiting: int) -> None:
    """Hours into its time, whatever spot stands on it: those asked now free all that is waited for."""
    now_h = 12.5
    if not calendar.reservations:
        return
    first = calendar.reservations[0]
    wanted = min(waiting, first.nodes)
    leaves = leaving(calendar, now_h, {first.name: wanted})
    assert all(leave.ask_at_s == now_h * HOUR for leave in leaves)
    gone = {leave.run_id for leave in leaves}
    waits_for = replace(first, nodes=wanted)
    assert short_at(replace(calendar, reservations=[waits_for]), now_h * HOUR, gone) == 0
