"""What has to be kept free: what is booked and stands, less what its own runs hold already."""

import pytest

from baseai.scheduling.calendar import FutureClaim, claims_of
from baseai.scheduling.gang import WHOLE
from baseai.scheduling.maintenance import MaintenanceState, Window
from baseai.scheduling.reservation import Reservation, ReservationState
from tests.scheduling.bookings import HOUR, MODEL, SITE, hold, reserved, window


def pods(claims: tuple[FutureClaim, ...]) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """(name, pods, accelerators of each, nodes) of what reservations claim."""
    return [
        (claim.name, claim.pods_left, claim.shape.milli // WHOLE, claim.node_ids)
        for claim in claims
        if claim.shape
    ]


@pytest.mark.parametrize(
    ("reservation", "used", "at_h", "expected"),
    [
        pytest.param(reserved("x", 2, 8, 10, 20), {}, 1, [("x", 2, 8, ())], id="long before it begins"),
        pytest.param(reserved("x", 2, 8, 10, 20), {}, 19, [("x", 2, 8, ())], id="to its last hour"),
        pytest.param(
            reserved("x", 2, 8, 10, 20), {"a": 8}, 11, [("x", 1, 8, ())], id="what its runs hold is theirs"
        ),
        pytest.param(
            reserved("x", 2, 8, 10, 20),
            {"a": 6},
            11,
            [("x", 1, 8, ()), ("x", 1, 2, ("a",))],
            id="a part of a pod",
        ),
        pytest.param(reserved("x", 2, 8, 10, 20), {"a": 8, "b": 8}, 11, [], id="all in use"),
        pytest.param(reserved("x", 2, 8, 10, 20), {}, 20, [], id="over"),
        pytest.param(hold("x", 2, 8, 10, 20), {}, 10.6, [], id="a hold that nobody used frees all"),
        pytest.param(
            hold("x", 2, 8, 10, 20, state=ReservationState.CANCELLED), {}, 1, [], id="one that was called off"
        ),
    ],
)
def test_what_a_reservation_claims(
    reservation: Reservation,
    used: dict[str, int],
    at_h: float,
    expected: list[tuple[str, int, int, tuple[str, ...]]],
) -> None:
    assert pods(claims_of([reservation], [], {"res-x": used}, at_h * HOUR)) == expected


def test_a_reservation_claims_a_shape_at_its_site_on_nodes_apart() -> None:
    [claim] = claims_of([reserved("x", 2, 8, 10, 20)], [], {}, 0)
    assert claim.shape is not None
    assert (claim.shape.models, claim.shape.sites, claim.shape.apart) == ((MODEL,), (SITE,), True)
    assert (claim.from_s, claim.until_s) == (10 * HOUR, 20 * HOUR)


@pytest.mark.parametrize(
    ("planned", "at_h", "nodes"),
    [
        pytest.param(window("w", "ab", 10, 12), 8.9, [], id="before its notice"),
        pytest.param(window("w", "ba", 10, 12), 9.0, ["a", "b"], id="from its notice on"),
        pytest.param(
            window("w", "ab", 10, 12, state=MaintenanceState.IN_PROGRESS), 11, ["a", "b"], id="during"
        ),
        pytest.param(window("w", "ab", 10, 12, state=MaintenanceState.VERIFYING), 11, [], id="done early"),
        pytest.param(window("w", "ab", 10, 12), 12, [], id="over"),
        pytest.param(window("w", "", 10, 12), 9.5, [], id="a site without nodes"),
    ],
)
def test_what_a_window_claims(planned: Window, at_h: float, nodes: list[str]) -> None:
    assert [list(claim.node_ids) for claim in claims_of([], [planned], {}, at_h * HOUR)] == (
        [nodes] if nodes else []
    )


@pytest.mark.parametrize(
    ("at_h", "spot_may", "own_may"),
    [
        pytest.param(9.0, True, False, id="well before, spot runs use it"),
        pytest.param(9.9, False, False, id="shortly before, those who leave are not followed by others"),
        pytest.param(10.01, False, True, id="as it begins it is empty, for its own runs"),
        pytest.param(10.2, True, True, id="what is not used is resold"),
        pytest.param(20.0, True, False, id="after its end nothing is its own"),
    ],
)
def test_who_may_start_on_what_is_reserved(at_h: float, spot_may: bool, own_may: bool) -> None:
    [claim] = claims_of([reserved("x", 1, 8, 10, 20)], [], {}, 0)
    assert claim.lets_spot_on(at_h * HOUR) is spot_may
    assert claim.lets_own_on("acme", "x", at_h * HOUR) is own_may
    assert not claim.lets_own_on("rival", "x", at_h * HOUR)


def test_spot_does_not_start_where_its_least_would_be_cut_short() -> None:
    [claim] = claims_of([reserved("x", 1, 8, 10, 20)], [], {}, 0)
    assert claim.lets_spot_on(9 * HOUR, least_s=0.8 * HOUR)
    assert not claim.lets_spot_on(9 * HOUR, least_s=0.9 * HOUR)


def test_nobody_starts_on_a_node_that_goes_down() -> None:
    [claim] = claims_of([], [window("w", "a", 10, 12)], {}, 9.5 * HOUR)
    assert not claim.lets_spot_on(9.5 * HOUR)
    assert not claim.lets_own_on("acme", "w", 10.5 * HOUR)
