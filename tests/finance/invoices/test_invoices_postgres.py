"""Documents in the truth: issued once, numbered without a gap, settled in the books, agreeing with everything else."""

import asyncio
import csv
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from baseai.finance.contracts.postgres import Agreements
from baseai.finance.contracts.postgres.rated_rows import insert_lines
from baseai.finance.focus.check import check
from baseai.finance.focus.rule import Dataset
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.invoices.postgres import Invoices
from baseai.finance.period import Period, period_of
from baseai.finance.postgres import PostgresBooks
from baseai.finance.postgres.books import insert_transfers
from baseai.finance.postgres.revenue import post_lines
from baseai.finance.ptax import Bulletin, Exchange
from baseai.finance.rated import Category, RatedLine, taken_back
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_all
from baseai.wiring.documents import Documents
from baseai.wiring.household import Household
from tests.finance.paper import customer, rated
from tests.finance.site import seeded

pytestmark = pytest.mark.anyio


async def ptax(on: date) -> Exchange:
    bulletin = Bulletin(
        day=on - timedelta(days=1),
        sell=Decimal("5.3349"),
        bulletin_at=datetime(2026, 11, 30, 16, 9, tzinfo=UTC),
        fetched_at=datetime(2026, 11, 30, 17, tzinfo=UTC),
        digest="d",
    )
    return Exchange(asked=on, bulletin=bulletin, sell=Decimal("5.3349"))


def last_month() -> Period:
    return period_of(period_of(datetime.now(UTC)).starts_at() - timedelta(seconds=1))


def of(period: Period, name: str, **said: object) -> RatedLine:
    facts: dict[str, object] = {"run_id": None, "lease_id": None, "price": "2.187531", **said}
    line = rated(name, from_at=period.starts_at() + timedelta(hours=len(name)), **facts)  # type: ignore[arg-type]
    return replace(line, period=str(period))


async def month(truth: Truth, *lines: RatedLine, currency: str = "BRL", post: bool = True) -> Invoices:
    """A customer of tenant 1 whose lines are rated and in the books."""
    await seeded(truth)
    await Agreements(truth).add_customer(customer(currency), actor="test")
    await add(truth, *lines, post=post)
    return Invoices(truth, ptax, insert_transfers)


async def add(truth: Truth, *lines: RatedLine, post: bool = True) -> None:
    async with truth.transaction() as session:
        await insert_lines(session, list(lines))
    if post:
        async with truth.transaction() as session:
            await post_lines(session)


async def owed(truth: Truth) -> dict[str, int]:
    found = await PostgresBooks(truth).balance(
        "tenant:ten_1:receivable", datetime.now(UTC) + timedelta(days=400)
    )
    return {row.currency: row.balance_micros() for row in found}


async def test_an_invoice_is_issued_once_and_the_receivable_comes_to_its_cents(truth: Truth) -> None:
    period = last_month()
    invoices = await month(truth, of(period, "1"), of(period, "22", currency="BRL", price="1.234567"))
    (draft,) = await invoices.drafts("one", period, Issuer())
    assert (draft.number, draft.total_cents) == (None, 1290)
    (invoice,) = await invoices.issue("Alfa S.A.", period, Issuer(), actor="ana")
    assert (invoice.invoice_id, invoice.kind, invoice.total_cents) == ("A-000001", "invoice", 1290)
    assert await owed(truth) == {"BRL": 12_900_000, "USD": 0}
    assert await invoices.issue("one", period, Issuer(), actor="ana") == ()
    assert await invoices.find("A-000001") == invoice
    assert await invoices.all(customer_id="cus_1", period=str(period)) == (invoice,)


async def test_what_comes_later_supplements_and_what_is_taken_back_is_credited_by_name(truth: Truth) -> None:
    period = last_month()
    first = of(period, "1")
    invoices = await month(truth, first, of(period, "22"), currency="USD")
    await invoices.issue("one", period, Issuer(), actor="ana")
    back = taken_back(
        first, period=str(period), recorded_at=first.recorded_at, note="its attempt is not billable"
    )
    await add(truth, back, of(period, "333", price="4"))
    more, credit = await invoices.issue("one", period, Issuer(), actor="ana")
    assert (more.invoice_id, more.kind, more.corrects) == ("A-000002", "supplement", "A-000001")
    assert (credit.invoice_id, credit.kind, credit.corrects) == ("C-000001", "credit_note", "A-000001")
    assert (more.total_cents, credit.total_cents) == (400, -219)
    assert await owed(truth) == {"USD": (438 + 400 - 219) * 10_000}


async def test_lago_api_2915_what_is_given_back_is_given_back_once(truth: Truth) -> None:
    """A credit note is asked for again, and what it took back is rated anew: neither counts twice."""
    period = last_month()
    first = of(period, "1", price="4")
    invoices = await month(truth, first, currency="USD")
    await invoices.issue("one", period, Issuer(), actor="ana")
    back = taken_back(first, period=str(period), recorded_at=first.recorded_at, note="corrected by use_2")
    await add(truth, back)
    (credit,) = await invoices.issue("one", period, Issuer(), actor="ana")
    assert (credit.total_cents, await owed(truth)) == (-400, {"USD": 0})
    assert await invoices.issue("one", period, Issuer(), actor="ana") == ()
    await add(truth, of(period, "22", price="3"))
    (anew,) = await invoices.issue("one", period, Issuer(), actor="ana")
    assert (anew.kind, anew.corrects, await owed(truth)) == ("supplement", "A-000001", {"USD": 3_000_000})
    with pytest.raises(psycopg.errors.UniqueViolation):
        await add(truth, replace(back, rated_id="rl_1-back-again"), post=False)


async def test_numbers_have_no_gap_beside_any_number_of_writers(truth: Truth) -> None:
    period = last_month()
    invoices = await month(truth, of(period, "1"), currency="USD")
    done = await asyncio.gather(*(invoices.issue("one", period, Issuer(), actor=str(n)) for n in range(8)))
    assert sorted(len(made) for made in done) == [0] * 7 + [1]
    async with truth.transaction() as session:
        rows = await fetch_all(session, "SELECT number FROM invoices ORDER BY 1")
    assert [row["number"] for row in rows] == [1]


async def test_the_database_refuses_a_gap_and_any_change(truth: Truth) -> None:
    period = last_month()
    invoices = await month(truth, of(period, "1"), currency="USD")
    await invoices.issue("one", period, Issuer(), actor="ana")
    copied = (
        "INSERT INTO invoices SELECT 'A-000003', series, 3, kind, tenant_id, customer_id, period, currency,"
        " total_cents, issued_at, issued_by, due_on, corrects, document, digest FROM invoices"
    )
    with pytest.raises(psycopg.errors.CheckViolation, match="gap"):
        async with truth.transaction() as session:
            await session.execute(copied)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with truth.transaction() as session:
            await session.execute("UPDATE invoices SET total_cents = 0")


async def test_what_cannot_be_issued_says_why(truth: Truth) -> None:
    now = period_of(datetime.now(UTC))
    invoices = await month(truth, of(last_month(), "1"), post=False)
    with pytest.raises(Refused, match="is not over"):
        await invoices.issue("one", now, Issuer(), actor="ana")
    with pytest.raises(Conflict, match=r"rl_1 of .* is not in the books yet"):
        await invoices.issue("one", last_month(), Issuer(), actor="ana")
    with pytest.raises(NotFound, match="nobody"):
        await invoices.issue("nobody", last_month(), Issuer(), actor="ana")
    with pytest.raises(NotFound):
        await invoices.find("A-000001")


async def test_another_tenant_sees_nothing_of_it(truth: Truth) -> None:
    invoices = await month(truth, of(last_month(), "1"), currency="USD")
    await invoices.issue("one", last_month(), Issuer(), actor="ana")
    other = Scope(tenant_id="ten_2", actor="test")
    assert await invoices.all(other) == ()
    with pytest.raises(NotFound):
        await invoices.find("A-000001", other)


async def test_invoice_export_and_trial_balance_agree(truth: Truth, tmp_path: Path) -> None:
    """A month in both currencies with credits: each sum of the files is one of the books."""
    period = last_month()
    lines = [
        of(period, "1"),
        of(period, "22", currency="BRL", price="1.234567"),
        of(period, "333", category=Category.SPOT, price="0.7333333"),
        of(period, "4444", category=Category.CREDIT, micros=-1_234_567),
    ]
    invoices = await month(truth, *lines)
    (invoice,) = await invoices.issue("one", period, Issuer(), actor="ana")
    household = Household(data=tmp_path / "data")
    household.make()
    folder = tmp_path / "focus"
    folder.mkdir()
    await Documents(truth, household).export_focus(PLATFORM, str(period), folder)
    report = check({one: (folder / one.file).read_text().splitlines(keepends=True) for one in Dataset})
    assert [str(one) for one in report.findings] == []
    with (folder / "CostAndUsage.csv").open(newline="") as file:
        charges = list(csv.DictReader(file))
    billed = sum(Decimal(row["BilledCost"]) for row in charges)
    assert billed == Decimal(invoice.total_cents) / 100
    books = await PostgresBooks(truth).trial_balance(datetime.now(UTC) + timedelta(days=1))
    revenue = {
        (row.account.partition(":")[2], row.currency): -row.balance_micros()
        for row in books.balances
        if row.account.startswith("revenue:")
    }
    told: dict[tuple[str, str], int] = {}
    for row in charges:
        if row["x_Category"] != "rounding":
            key = (row["x_Category"], row["PricingCurrency"])
            told[key] = told.get(key, 0) + int(Decimal(row["PricingCurrencyEffectiveCost"]) * 1_000_000)
    assert told == revenue
    rounding = sum(Decimal(row["BilledCost"]) for row in charges if row["x_Category"] == "rounding")
    (held,) = [row for row in books.balances if row.account == "rounding:BRL"]
    assert rounding * 1_000_000 == -held.balance_micros()
    assert await owed(truth) == {"BRL": invoice.total_cents * 10_000, "USD": 0}
    assert books.is_balanced()
