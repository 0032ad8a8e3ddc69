"""A hold nobody uses is forfeited and frees all; what is paid for stands to its end."""

import pytest

from baseai.scheduling.reservation import Reservation, ReservationEvent, ReservationState, due, stands
from tests.scheduling.bookings import HOUR, hold, reserved

ACTIVE = ReservationState.ACTIVE


@pytest.mark.parametrize(
    ("reservation", "at_h", "event"),
    [
        pytest.param(hold("x", 1, 8, 10, 20), 9.9, None, id="before its time"),
        pytest.param(hold("x", 1, 8, 10, 20), 10.0, ReservationEvent.BEGIN, id="its time has come"),
        pytest.param(hold("x", 1, 8, 10, 20, state=ACTIVE), 10.4, None, id="a hold waits for its runs"),
        pytest.param(
            hold("x", 1, 8, 10, 20, state=ACTIVE), 10.5, ReservationEvent.FORFEIT, id="not for ever"
        ),
        pytest.param(
            hold("x", 1, 8, 10, 20, state=ACTIVE, used=True), 19.0, None, id="one that was used stays"
        ),
        pytest.param(reserved("x", 1, 8, 10, 20, state=ACTIVE), 19.0, None, id="one that is paid for stays"),
        pytest.param(
            reserved("x", 1, 8, 10, 20, state=ACTIVE), 20.0, ReservationEvent.COMPLETE, id="its end"
        ),
        pytest.param(
            hold("x", 1, 8, 10, 20), 30.0, ReservationEvent.BEGIN, id="late, it still goes step by step"
        ),
        pytest.param(
            hold("x", 1, 8, 10, 20, state=ReservationState.FORFEITED), 15.0, None, id="over is over"
        ),
    ],
)
def test_time_moves_a_reservation(
    reservation: Reservation, at_h: float, event: ReservationEvent | None
) -> None:
    assert due(reservation, at_h * HOUR) is event


def test_a_hold_that_is_due_to_be_forfeited_keeps_nothing_free_before_anybody_wrote_it_down() -> None:
    assert stands(hold("x", 1, 8, 10, 20), 10.4 * HOUR)
    assert not stands(hold("x", 1, 8, 10, 20), 10.5 * HOUR)


@pytest.mark.parametrize(
    ("held", "begun", "pods_left"),
    [
        pytest.param({}, [], 3, id="nothing is used"),
        pytest.param({"a": 8}, [], 2, id="a whole pod"),
        pytest.param({"a": 3}, [("a", 3)], 2, id="a part of one: the rest of it is still to be had there"),
        pytest.param({"a": 8, "b": 16}, [], 0, id="two pods on one node"),
        pytest.param({"a": 8, "b": 16, "c": 8}, [], 0, id="more than it is"),
    ],
)
def test_what_its_runs_hold_is_no_longer_to_be_had(
    held: dict[str, int], begun: list[tuple[str, int]], pods_left: int
) -> None:
    assert reserved("x", 3, 8, 0, 1).pods_left(held) == (begun, pods_left)


def test_a_hold_says_when_it_is_forfeited_and_what_is_paid_for_never_is() -> None:
    with pytest.raises(ValueError, match="forfeited"):
        reserved("x", 1, 8, 0, 1).__class__(
            reservation_id="r", name="x", tenant_id="t", nodes=1, accelerators=8, model="m", site="s", from_s=0.0,
            until_s=1.0, kind=hold("x", 1, 8, 0, 1).kind, forfeit_after_s=None,
        )  # fmt: skip
