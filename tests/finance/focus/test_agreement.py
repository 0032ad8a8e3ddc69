"""Invoices, FOCUS files and the books say the same, to the cent and to the micro-unit, whatever a month was made of."""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.finance.books import admitted
from baseai.finance.cents import MICROS_PER_CENT
from baseai.finance.chart import load_chart
from baseai.finance.focus.rule import Dataset
from baseai.finance.invoices.drafting import settlement_of
from baseai.finance.period import Calendar
from baseai.finance.rated import Category, RatedLine
from baseai.finance.transfer import Transfer
from tests.finance.agreed import HOUR_US, NOVEMBER
from tests.finance.paper import billed, checked, focus, full_month, issue, rated

RECEIVABLE = "tenant:ten_1:receivable"
UNDER_CONTRACT = (Category.RESERVED, Category.COMMITMENT, Category.MINIMUM)


@st.composite
def months(draw: st.DrawFn) -> list[RatedLine]:
    """Lines of one or two currencies, with odd prices, parts of hours, credits and corrections."""
    lines = []
    for n in range(draw(st.integers(1, 25))):
        category = draw(st.sampled_from(sorted(set(Category) - {Category.UNBILLED, Category.PERIOD})))
        currency = draw(st.sampled_from(["USD", "BRL"]))
        us = draw(st.integers(1, HOUR_US))
        price = draw(st.decimals(min_value=0, max_value=40, places=7))
        inside = {"contract_id": "con_alfa"} if category in UNDER_CONTRACT else {}
        micros = None
        if category is Category.CREDIT:
            micros = -draw(st.integers(1, 10**9))
        elif category is Category.MINIMUM:
            micros = draw(st.integers(1, 10**9))
        line = rated(
            f"{n:02d}", category, us=us, price=f"{price:f}", currency=currency, micros=micros,
            from_at=NOVEMBER + timedelta(hours=n), **inside,
        )  # fmt: skip
        lines.append(line)
    return lines


@pytest.mark.parametrize("currency", ["BRL", "USD"])
def test_a_full_month_passes_the_check_in_either_currency(currency: str) -> None:
    lines = billed(full_month(), originals={"rl_old": "A-000000"})
    report = checked(focus(issue(lines, currency=currency), lines))
    assert [str(one) for one in report.findings if one.must] == []
    assert report.rows["CostAndUsage.csv"] > len(lines) - 1


@settings(max_examples=150, deadline=None)
@given(lines=months(), currency=st.sampled_from(["BRL", "USD"]))
def test_any_month_passes_and_agrees(lines: list[RatedLine], currency: str) -> None:
    taken = billed(lines)
    drafts = issue(taken, currency=currency)
    rows = focus(drafts, taken)
    report = checked(rows)
    assert [str(one) for one in report.findings if one.must] == []

    (invoice,) = [draft.invoice for draft in drafts]
    charges = rows[Dataset.COST_AND_USAGE]
    assert sum(Decimal(row["BilledCost"]) for row in charges) == Decimal(invoice.total_cents) / 100
    details = rows[Dataset.INVOICE_DETAIL]
    assert sum(Decimal(row["BilledCost"]) for row in details) == Decimal(invoice.total_cents) / 100

    owed: dict[str, int] = defaultdict(int)
    for line in lines:  # what posting has made of them
        owed[line.currency] += line.amount_micros
    settlement = settlement_of(invoice)
    assert admitted(settlement, chart=load_chart(), calendar=Calendar(), known={}, answered={}) == settlement
    for transfer in settlement:
        _move(owed, transfer)
    assert owed.pop(currency, 0) == invoice.total_cents * MICROS_PER_CENT
    assert not any(owed.values())


def _move(owed: dict[str, int], transfer: Transfer) -> None:
    if transfer.debit_account == RECEIVABLE:
        owed[transfer.currency] += transfer.amount_micros
    if transfer.credit_account == RECEIVABLE:
        owed[transfer.currency] -= transfer.amount_micros
