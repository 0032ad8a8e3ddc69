"""Claims on the future: whom they concern, and what they leave to those who outlive their beginning."""

import pytest

from baseai.scheduling.calendar import LEAVING_S, RESALE_AFTER_S, FutureClaim
from baseai.scheduling.gang import WHOLE, Gang, Shape, Terms
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.outlook import free_now
from baseai.scheduling.policy.claim import Claim, beside, claimed
from tests.scheduling.halls import bay

FROM_S, UNTIL_S = 10_000.0, 20_000.0


def entry(kind: str = "reservation", pods: int = 1, **rest: object) -> FutureClaim:
    shape = None if kind == "maintenance" else Shape(pods=pods, milli=4 * WHOLE, apart=True)
    usual: dict[str, object] = {
        "name": "exam", "kind": kind, "from_s": FROM_S, "until_s": UNTIL_S, "shape": shape, "node_ids": (),
        "pods_left": pods, "tenant_id": "acme",
    }  # fmt: skip
    return FutureClaim(**(usual | rest))  # type: ignore[arg-type]


def run(count: int = 1, pods: int = 1, **terms: object) -> Gang:
    shape = Shape(pods=pods, milli=count * WHOLE, apart=pods > 1)
    return Gang(run_id="r", number=0, shape=shape, terms=Terms(**terms))  # type: ignore[arg-type]


def hall() -> Hall:
    return Hall([bay(name, 4) for name in "abc"])


def of(future: FutureClaim, one: Hall, *before: Claim) -> Claim:
    return claimed(future, future.from_s, free_now(one), list(before), one)


@pytest.mark.parametrize(
    ("future", "gang", "now_s", "expected"),
    [
        pytest.param(entry(), run(), 0.0, True, id="an ordinary run keeps clear of a reservation"),
        pytest.param(entry("maintenance"), run(), 0.0, True, id="and of maintenance"),
        pytest.param(entry(), run(spot=True), 0.0, False, id="a spot run need not yet: it makes way in time"),
        pytest.param(
            entry(), run(spot=True), FROM_S - LEAVING_S, True, id="nor does it start while others leave"
        ),
        pytest.param(
            entry(),
            run(spot=True, min_runtime_s=FROM_S),
            0.0,
            True,
            id="nor where it would go before it is of use",
        ),
        pytest.param(entry(), run(spot=True), FROM_S + 1.0, True, id="what has begun is empty for its own"),
        pytest.param(
            entry(), run(spot=True), FROM_S + RESALE_AFTER_S, False, id="and is resold to spot after a while"
        ),
        pytest.param(
            entry("maintenance"), run(spot=True), 0.0, True, id="spot keeps clear of maintenance as others do"
        ),
        pytest.param(
            entry(), run(owner="acme", reservation="exam"), FROM_S, False, id="its own run stands on it"
        ),
        pytest.param(
            entry(),
            run(owner="acme", reservation="exam"),
            FROM_S - 1.0,
            True,
            id="but not before it begins",
        ),
        pytest.param(
            entry(),
            run(owner="globex", reservation="exam"),
            FROM_S,
            True,
            id="another's of that name is not it",
        ),
        pytest.param(
            entry("maintenance"),
            run(owner="acme", reservation="exam"),
            FROM_S,
            True,
            id="nobody has maintenance for himself",
        ),
    ],
)
def test_whom_a_claim_concerns(future: FutureClaim, gang: Gang, now_s: float, expected: bool) -> None:
    assert of(future, hall()).concerns(gang, now_s) is expected


def test_who_waits_ahead_is_kept_clear_of_by_all_spot_as_well() -> None:
    one = hall()
    claim = Claim("big", "run", FROM_S, UNTIL_S, Shape(milli=WHOLE), [0], free_now(one))
    assert claim.concerns(run(), 0.0)
    assert claim.concerns(run(spot=True), 0.0)


@pytest.mark.parametrize(
    ("count", "on", "expected"),
    [
        pytest.param(4, "c", True, id="beside it there is room"),
        pytest.param(1, "a", False, id="where it stands there is none"),
        pytest.param(1, "b", False, id="nor on its other node"),
    ],
)
def test_what_a_reservation_lets_stand(count: int, on: str, expected: bool) -> None:
    one = hall()
    claim = of(entry(pods=2), one)
    assert [one.node_ids[row] for row in claim.rows] == ["a", "b"]
    row = one.node_ids.index(on)
    assert claim.lets("r", run(count).shape, (Spot(row),), one) is expected


def test_maintenance_lets_nobody_onto_its_nodes() -> None:
    one = hall()
    claim = of(entry("maintenance", node_ids=("b",)), one)
    assert [claim.lets("r", run().shape, (Spot(row),), one) for row in range(3)] == [True, False, True]


def test_who_starts_beside_a_claim_takes_its_part_of_what_is_left() -> None:
    one = hall()
    claim = of(entry(pods=2), one)
    claim.give("r", run(3).shape, (Spot(2),), one)
    assert claim.lets("s", run(1).shape, (Spot(2),), one)
    assert not claim.lets("s", run(2).shape, (Spot(2),), one)


def test_claims_of_one_instant_do_not_count_on_the_same_nodes() -> None:
    one = hall()
    window = of(entry("maintenance", node_ids=("a",)), one)
    first = of(entry(), one, window)
    second = of(entry(name="other"), one, window, first)
    third = of(entry(name="third"), one, window, first, second)
    assert [claim.rows for claim in (window, first, second, third)] == [[0], [1], [2], []], (
        "as far as there is room"
    )


def test_a_claim_that_is_over_by_then_holds_nothing() -> None:
    one = hall()
    window = of(entry("maintenance", node_ids=("a", "b")), one)
    free = free_now(one)
    beside([window], UNTIL_S, free, one)
    assert free.open.all()
    beside([window], FROM_S, free, one)
    assert free.open.tolist() == [False, False, True]


def test_tenants_are_kept_apart_at_the_beginning_as_well() -> None:
    one = Hall([bay("a", 4, shared=False), bay("b", 4)])
    own = Shape(milli=2 * WHOLE, tenant="acme")
    claim = claimed(entry(shape=own), FROM_S, free_now(one), [], one)
    assert claim.rows == [0]
    beside_it = (Spot(0),)
    assert claim.lets("r", Shape(milli=WHOLE, tenant="acme"), beside_it, one)
    assert not claim.lets("r", Shape(milli=WHOLE, tenant="globex"), beside_it, one)


def test_watts_are_left_by_breaker_and_not_by_row() -> None:
    """Each pod would fit by itself, and both together draw too much."""
    one = Hall([bay(name, 4, rack="r", watts=5000) for name in "ab"])
    claim = claimed(entry(shape=Shape(milli=2 * WHOLE, watts=4000)), FROM_S, free_now(one), [], one)
    both = Shape(pods=2, milli=WHOLE, watts=1000, apart=True)
    assert claim.lets("r", Shape(milli=WHOLE, watts=1000), (Spot(0),), one)
    assert not claim.lets("r", both, (Spot(0), Spot(1)), one)
