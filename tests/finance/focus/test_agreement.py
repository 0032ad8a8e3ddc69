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
from baseai.finance.period import Calendar, period_named
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
        category = draw(st.sampled_from(sorted(set(Category) - {Category.UNBILLED})))
        currency = draw(st.sampled_from(["USD", "BRL"]))
        us = draw(st.integers(1, HOUR_US))
        price = draw(st.decimals(min_value=0, max_value=40, places=7))
        inside = {"contract_id": "con_alfa"} if category in UNDER_CONTRACT else {}
        micros = None
        if category is Category.CREDIT:
            micros = -draw(st.integers(1, 10**9))
        elif category in (Category.MINIMUM, Category.PERIOD):
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


def test_openmeter_2837_nothing_is_billed_beyond_the_month_of_its_use() -> None:
    lines = billed(full_month(), originals={"rl_old": "A-000000"})
    for draft in issue(lines):
        for line in draft.invoice.lines:
            period = period_named(line.of_period)
            assert period.starts_at() <= line.from_at <= line.until_at <= period.ends_at()
    report = checked(focus(issue(lines), lines))
    assert not [one for one in report.findings if "within" in one.rule_id]


def test_killbill_1952_a_large_invoice_knows_every_use_behind_it() -> None:
    lines = billed(
        [rated(f"{n:06d}", run_id=f"run_{n % 9}", accelerator_no=n % 200 + 1) for n in range(20_000)]
    )
    (draft,) = issue(lines)
    assert len(draft.line_nos) == len(lines)
    (line,) = draft.invoice.lines
    assert (line.quantity, len(line.behind)) == (20_000, 1_800)
    assert sum(one.micros for one in line.behind) == line.priced_micros


def test_a_months_price_is_bought_and_the_use_it_is_for_costs_nothing_more() -> None:
    lines = billed(full_month(), originals={"rl_old": "A-000000"})
    rows = [
        row
        for row in focus(issue(lines, currency="USD"), lines)[Dataset.COST_AND_USAGE]
        if row["x_Category"] == "period"
    ]
    told = [
        (
            row["ChargeCategory"],
            row["BilledCost"],
            row["PricingUnit"],
            row["PricingQuantity"],
            row["ConsumedQuantity"],
        )
        for row in rows
    ]
    assert told == [
        ("Usage", "0", "Months", "0", "1"),
        ("Purchase", "433.333333", "Months", "0.333333333", ""),
    ]


def _move(owed: dict[str, int], transfer: Transfer) -> None:
    if transfer.debit_account == RECEIVABLE:
        owed[transfer.currency] += transfer.amount_micros
    if transfer.credit_account == RECEIVABLE:
        owed[transfer.currency] -= transfer.amount_micros
