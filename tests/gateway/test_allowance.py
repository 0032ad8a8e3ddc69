"""Allowances: never more than the amount and what flows back, however requests fall and whatever they really take."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.gateway.allowance import SECOND_NS, Allowance, given_back, level, taken

MINUTE_NS = 60 * SECOND_NS


def test_no_allowance_of_nothing() -> None:
    for wrong in ((0, SECOND_NS), (1, 0)):
        with pytest.raises(ValueError, match="is no allowance"):
            Allowance(*wrong)


def test_all_of_it_may_be_asked_for_at_once_and_one_more_waits_for_one() -> None:
    ten_a_second = Allowance(10, SECOND_NS)
    full_at_ns = 0
    for _ in range(10):
        assert ten_a_second.wait_ns(level(full_at_ns, 0, 5), ten_a_second.cost_ns(1)) == 0
        full_at_ns = taken(full_at_ns, ten_a_second.cost_ns(1), 5)
    level_ns = level(full_at_ns, 0, 5)
    assert (ten_a_second.left(level_ns), ten_a_second.wait_ns(level_ns, ten_a_second.cost_ns(1))) == (
        0,
        SECOND_NS // 10,
    )


def test_more_than_there_is_goes_when_nothing_else_is_taken() -> None:
    allowance = Allowance(100, MINUTE_NS)
    assert allowance.wait_ns(0, allowance.cost_ns(1000)) == 0
    assert allowance.wait_ns(1, allowance.cost_ns(1000)) == 1
    assert allowance.debt_ns(1000) == 10 * MINUTE_NS


@dataclass
class Bucket:
    """A bucket as gateways keep it, and what was admitted of it and when."""

    allowance: Allowance
    full_at_ns: int = 0
    held_ns: int = 0
    admitted: list[tuple[int, int]] = field(default_factory=list)

    def most_in_any_window(self) -> float:
        """The largest ratio of what was taken in a window to what it may give."""
        worst = 0.0
        for first in range(len(self.admitted)):
            total = 0
            for at_ns, count in self.admitted[first:]:
                total += count
                window_ns = at_ns - self.admitted[first][0]
                may = self.allowance.amount + window_ns * self.allowance.amount / self.allowance.every_ns
                worst = max(worst, total / may)
        return worst


allowances = st.builds(Allowance, st.integers(1, 50), st.integers(1, 10**6))
steps = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 60)), max_size=60)


@given(allowances, steps)
def test_no_window_holds_more_than_the_amount_and_what_flows_back(
    allowance: Allowance, steps: list[tuple[int, int]]
) -> None:
    bucket, now_ns = Bucket(allowance), 0
    for wait_ns, count in steps:
        now_ns += wait_ns
        count = min(count, allowance.amount)
        cost_ns = allowance.cost_ns(count)
        if allowance.wait_ns(level(bucket.full_at_ns, 0, now_ns), cost_ns) == 0:
            bucket.full_at_ns = taken(bucket.full_at_ns, cost_ns, now_ns)
            bucket.admitted.append((now_ns, count))
    assert bucket.most_in_any_window() <= 1 + 1e-9


@given(
    allowances,
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 60), st.floats(0, 1)), max_size=60),
    st.data(),
)
def test_so_it_is_when_less_is_taken_than_was_held_and_it_is_said_late(
    allowance: Allowance, steps: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    """Held by estimate, settled in any order at any later time by what was really taken."""
    bucket, now_ns = Bucket(allowance), 0
    under_way: list[tuple[int, int, int]] = []  # when, estimate, really

    def settle(which: int) -> None:
        at_ns, estimate, really = under_way.pop(which)
        bucket.held_ns -= allowance.cost_ns(estimate)
        bucket.full_at_ns = taken(bucket.full_at_ns, allowance.debt_ns(really), at_ns)

    for wait_ns, estimate, share in steps:
        now_ns += wait_ns
        while under_way and data.draw(st.booleans()):
            settle(data.draw(st.integers(0, len(under_way) - 1)))
        cost_ns = allowance.cost_ns(estimate)
        if allowance.wait_ns(level(bucket.full_at_ns, bucket.held_ns, now_ns), cost_ns) == 0:
            really = int(min(estimate, allowance.amount) * share)
            bucket.held_ns += cost_ns
            bucket.admitted.append((now_ns, really))
            under_way.append((now_ns, estimate, really))
    assert bucket.most_in_any_window() <= 1 + 1e-9


@given(allowances, st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), max_size=60), st.data())
def test_so_it_is_when_requests_are_given_back(
    allowance: Allowance, steps: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """Those that were given back count as never made."""
    bucket, now_ns = Bucket(allowance), 0
    cost_ns = allowance.cost_ns(1)
    open_: list[int] = []
    for wait_ns, fails in steps:
        now_ns += wait_ns
        while open_ and data.draw(st.booleans()):
            bucket.full_at_ns = given_back(bucket.full_at_ns, cost_ns, open_.pop(), now_ns)
        if allowance.wait_ns(level(bucket.full_at_ns, 0, now_ns), cost_ns) == 0:
            bucket.full_at_ns = taken(bucket.full_at_ns, cost_ns, now_ns)
            if fails:
                open_.append(now_ns)
            else:
                bucket.admitted.append((now_ns, 1))
    assert bucket.most_in_any_window() <= 1 + 1e-9
