"""The books follow the usage lines; what is learnt later is one more transfer over the difference."""

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.finance.account import is_cost, is_revenue
from baseai.finance.posting import Booked, Unpriced, is_settled, postings_of, settled_until
from baseai.finance.transfer import Transfer
from tests.finance.leased import HOUR_US, TEN, FlatRates, after, used

RATES = FlatRates()


def moved(transfers: tuple[Transfer, ...] | Unpriced) -> dict[tuple[str, str], int]:
    assert not isinstance(transfers, Unpriced)
    return {(t.debit_account, t.credit_account): t.amount_micros for t in transfers}


def booked_by(transfers: list[Transfer]) -> dict[str, Booked]:
    """What the books hold after these transfers, by revenue or cost account."""
    books: dict[str, Booked] = {}
    for t in transfers:
        account = next(a for a in (t.debit_account, t.credit_account) if is_cost(a) or is_revenue(a))
        raises = (account == t.credit_account) if is_revenue(account) else (account == t.debit_account)
        before = books.get(account)
        assert t.micro_seconds is not None
        assert t.unit_price is not None
        books[account] = Booked(
            amount_micros=(before.amount_micros if before else 0)
            + (t.amount_micros if raises else -t.amount_micros),
            micro_seconds=(before.micro_seconds if before else 0)
            + (t.micro_seconds if raises else -t.micro_seconds),
            transfers=(before.transfers if before else 0) + 1,
            first_id=before.first_id if before else t.transfer_id,
            unit_price=before.unit_price if before else t.unit_price,
            currency=t.currency,
        )
    return books


def test_half_an_hour_is_half_the_price_and_half_the_cost() -> None:
    assert moved(postings_of(used(HOUR_US // 2), RATES)) == {
        ("tenant:ten_1:receivable", "revenue:on_demand"): 1_000_000,
        ("cost:depreciation", "asset:accumulated_depreciation"): 300_000,
        ("cost:energy", "payable:energy"): 75_000,
        ("cost:colocation", "payable:colocation"): 25_000,
    }


def test_time_that_is_not_billable_costs_and_earns_nothing() -> None:
    accounts = moved(postings_of(used(billable_us=0), RATES))
    assert len(accounts) == 3
    assert not any("revenue" in credit for _, credit in accounts)


def test_what_rounds_to_nothing_makes_no_row() -> None:
    assert postings_of(used(1), FlatRates(price_per_hour=Decimal("0.001"))) == ()


def test_a_model_without_a_rate_stays_unposted() -> None:
    assert postings_of(used(model="unknown"), RATES) == Unpriced(
        model="unknown", site_id="local", hour=TEN, missing="price"
    )


def test_an_hour_judged_not_billable_after_it_was_posted_is_credited_by_name() -> None:
    first = postings_of(used(), RATES)
    assert isinstance(first, tuple)
    credit = postings_of(used(billable_us=0, note="attempt 1: node_lost"), RATES, booked_by(list(first)))
    assert isinstance(credit, tuple)
    (row,) = credit
    assert (row.debit_account, row.credit_account) == ("revenue:on_demand", "tenant:ten_1:receivable")
    assert (row.amount_micros, row.micro_seconds) == (2_000_000, HOUR_US)
    assert row.entry_id == first[0].entry_id
    assert row.note == f"credit to {first[0].transfer_id}: attempt 1: node_lost"


def test_a_correction_keeps_the_price_of_the_first_transfer() -> None:
    first = postings_of(used(HOUR_US // 2), RATES)
    assert isinstance(first, tuple)
    dearer = FlatRates(price_per_hour=Decimal(9))
    more = moved(postings_of(used(HOUR_US), dearer, booked_by(list(first))))
    assert more["tenant:ten_1:receivable", "revenue:on_demand"] == 1_000_000


@given(st.lists(st.tuples(st.integers(1, HOUR_US), st.integers(0, HOUR_US)), min_size=1, max_size=6))
def test_the_books_end_where_posting_once_would_have_brought_them(looks: list[tuple[int, int]]) -> None:
    written: list[Transfer] = []
    for us, billable_us in looks:
        use = used(us, billable_us=min(us, billable_us))
        found = postings_of(use, RATES, booked_by(written))
        assert isinstance(found, tuple)
        written += found
        assert postings_of(use, RATES, booked_by(written)) == ()  # twice is the same as once
    once = postings_of(use, RATES)
    assert isinstance(once, tuple)
    held = {account: b.amount_micros for account, b in booked_by(written).items() if b.amount_micros}
    assert held == {account: b.amount_micros for account, b in booked_by(list(once)).items()}
    assert len({t.transfer_id for t in written}) == len(written)


@pytest.mark.parametrize(
    ("run_ended", "open_since", "expected"),
    [
        pytest.param(True, [], True, id="a run that has ended is settled in the middle of the hour"),
        pytest.param(False, [], False, id="a run between two attempts waits for the hour to be over"),
        pytest.param(True, [after(0.2)], False, id="a lease that is still open holds its hour back"),
        pytest.param(False, [after(1)], False, id="metered past the hour, but by the clock it is not over"),
    ],
)
def test_settled(run_ended: bool, open_since: list[datetime], expected: bool) -> None:
    until = settled_until(now=after(0.5), run_ended=run_ended, open_since=open_since)
    assert is_settled(TEN, until) is expected


def test_an_hour_is_settled_when_it_is_over_and_metered() -> None:
    assert is_settled(TEN, settled_until(now=after(1), run_ended=False, open_since=[after(1)]))
