"""What a service cost over a window, from the books' rows of its replicas."""

from decimal import Decimal
from typing import Any

import pytest

from baseai.views.services.cost import ReplicaMoney, ReplicaTime, cost_of

HOUR = 3_600_000_000
ANSWERED = {"answered": 2_000, "tokens_in": 100_000, "tokens_out": 400_000}


def money(run_id: str, revenue: str, cost: str | None, **facts: Any) -> ReplicaMoney:
    known: dict[str, Any] = {"currency": "USD", "accruing": False}
    return ReplicaMoney(
        run_id=run_id,
        revenue=Decimal(revenue),
        cost=None if cost is None else Decimal(cost),
        **(known | facts),
    )


def test_replicas_are_summed_and_shared_out() -> None:
    times = [ReplicaTime(run_id=run_id, all_us=HOUR, within_us=HOUR) for run_id in ("a", "b")]
    [row] = cost_of([money("a", "2", "0.5"), money("b", "4", "1.5", accruing=True)], times, ANSWERED)
    assert (row["revenue"], row["cost"], row["accelerator_hours"]) == (Decimal(6), Decimal(2), Decimal(2))
    assert (row["cost_per_1000_requests"], row["cost_per_million_tokens"]) == (Decimal(1), Decimal(4))
    assert (row["accruing"], row["estimated"], row["replicas"]) == (True, False, 2)


def test_a_replica_from_before_the_window_gives_a_part_which_is_an_estimate() -> None:
    times = [
        ReplicaTime(run_id="a", all_us=4 * HOUR, within_us=HOUR), ReplicaTime(run_id="gone", all_us=HOUR, within_us=0)
    ]  # fmt: skip
    [row] = cost_of(
        [money("a", "4", "1"), money("gone", "9", "9"), money("never", "1", "1")], times, ANSWERED
    )
    assert (row["revenue"], row["cost"], row["estimated"], row["replicas"]) == (
        Decimal(1),
        Decimal("0.25"),
        True,
        1,
    )


@pytest.mark.parametrize(("answered", "tokens"), [(0, 0), (10, 0)])
def test_where_nothing_was_answered_there_is_no_quotient(answered: int, tokens: int) -> None:
    times = [ReplicaTime(run_id="a", all_us=HOUR, within_us=HOUR)]
    [row] = cost_of(
        [money("a", "1", "1")], times, {"answered": answered, "tokens_in": tokens, "tokens_out": 0}
    )
    assert (row["cost_per_1000_requests"] is None) is (answered == 0)
    assert row["cost_per_million_tokens"] is None


def test_a_quotient_has_as_many_digits_as_say_something() -> None:
    times = [ReplicaTime(run_id="a", all_us=HOUR, within_us=HOUR)]
    answered = {"answered": 7, "tokens_in": 61, "tokens_out": 0}
    [row] = cost_of([money("a", "0.0001", "0.000003")], times, answered)
    assert (row["revenue_per_1000_requests"], row["cost_per_1000_requests"]) == (
        Decimal("0.01429"),
        Decimal("0.000429"),
    )
    assert row["revenue_per_million_tokens"] == Decimal("1.639")


def test_what_is_not_to_be_seen_is_not_summed() -> None:
    times = [ReplicaTime(run_id="a", all_us=HOUR, within_us=HOUR)]
    [row] = cost_of([money("a", "1", None)], times, ANSWERED)
    assert (row["cost"], row["cost_per_1000_requests"], row["revenue_per_1000_requests"]) == (
        None,
        None,
        Decimal("0.5"),
    )


def test_currencies_stand_apart() -> None:
    times = [ReplicaTime(run_id=run_id, all_us=HOUR, within_us=HOUR) for run_id in ("a", "b")]
    rows = cost_of([money("a", "1", "1"), money("b", "5", "5", currency="BRL")], times, ANSWERED)
    assert [(row["currency"], row["revenue"]) for row in rows] == [("BRL", Decimal(5)), ("USD", Decimal(1))]
