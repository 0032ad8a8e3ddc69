"""A month on paper: rated lines that are easy to reckon with, their documents, and what FOCUS says of them."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from baseai.finance.contract import Contract
from baseai.finance.customer import Customer
from baseai.finance.exchange import ExchangeRate
from baseai.finance.focus.cell import Cells
from baseai.finance.focus.charge import COLUMNS, Account, Charge, charge_cells, rounding_cells
from baseai.finance.focus.check import Report, check
from baseai.finance.focus.commitment import Agreed, commitment_rows
from baseai.finance.focus.invoice_detail import detail_rows, period_row
from baseai.finance.focus.rule import Dataset, columns_of
from baseai.finance.invoices.billed import Billed, in_order, worths
from baseai.finance.invoices.drafting import Bill, Draft, drafts_of, issued
from baseai.finance.invoices.invoice import Conversion, Kind
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.period import Period, PeriodState
from baseai.finance.price_list import Term
from baseai.finance.rated import Category, RatedLine
from tests.finance.agreed import HOUR_US, MICROSECOND, NOVEMBER, contract

MONTH = Period(2026, 11)
ISSUED_AT = datetime(2026, 12, 1, 12, tzinfo=UTC)
ISSUER = Issuer(
    name="Base A.I Infraestrutura S.A.",
    cnpj="11222333000181",
    municipal_registration="12345678",
    city_code="3550308",
    address=("Av. Paulista 1000", "São Paulo SP 01310-100"),
)
PTAX = Conversion(
    rate=ExchangeRate(base="USD", quote="BRL", rate=Decimal("5.3349"), source="ptax", on=date(2026, 11, 30)),
    bulletin_at=datetime(2026, 11, 30, 16, 9, tzinfo=UTC),
    asked_on=date(2026, 12, 1),
)
RESERVED = contract("alfa", count=2, minimum_micros=1_000_000_000, discount="0.125")
ON_DEMAND = contract("beta", term=Term.ON_DEMAND, until_at=None)
CONTRACTS = {one.contract_id: one for one in (RESERVED, ON_DEMAND)}


def customer(currency: str = "BRL", country: str = "BR", tax_id: str = "12ABC34501DE35") -> Customer:
    return Customer(
        customer_id="cus_1",
        tenant_id="ten_1",
        legal_name="Alfa S.A.",
        country=country,
        tax_id=tax_id,
        currency=currency,
    )


def rated(
    name: str,
    category: Category = Category.ON_DEMAND,
    *,
    micros: int | None = None,
    us: int = HOUR_US,
    price: str = "2",
    currency: str = "USD",
    from_at: datetime = NOVEMBER,
    **said: Any,
) -> RatedLine:
    """One hour of one accelerator at so much, unless said otherwise."""
    amount = round(Decimal(price) * us / 3600) if micros is None else micros
    unpriced = category in (Category.MINIMUM, Category.CREDIT)
    facts: dict[str, Any] = {
        "project_id": "prj_1",
        "price_id": None if unpriced else f"p_{category.value}_{currency}",
        "run_id": "run_1",
        "lease_id": "lea_1",
        "accelerator_no": 1,
        "model": "h100",
        "node_id": "nod_1",
        "site_id": "sp4",
        "usage_id": f"use_{name}",
    }
    if unpriced or category is Category.COMMITMENT:
        none = ("run_id", "lease_id", "accelerator_no", "node_id", "usage_id")
        facts |= dict.fromkeys(none)
    return RatedLine(
        rated_id=f"rl_{name}",
        category=category,
        amount_micros=amount,
        currency=currency,
        meter="accelerator_time",
        quantity=0 if unpriced else us,
        unit_price=Decimal(0) if unpriced else Decimal(price),
        list_price=Decimal(0) if unpriced else Decimal(price),
        period=str(MONTH),
        effective_from=from_at,
        effective_until=from_at + max(0, us) * MICROSECOND,
        recorded_at=from_at + timedelta(hours=1),
        tenant_id="ten_1",
        customer_id="cus_1",
        **{**facts, **said},
    )


def billed(lines: Iterable[RatedLine], *, originals: Mapping[str, str] | None = None) -> list[Billed]:
    names = {one.contract_id: one.name for one in CONTRACTS.values()}
    return [
        Billed(
            line=line,
            serial=None if line.accelerator_no is None else f"SN{line.accelerator_no:04d}",
            run=None if line.run_id is None else f"train-{line.run_id[-1]}",
            contract=names.get(line.contract_id or ""),
            original=(originals or {}).get(line.corrects or ""),
        )
        for line in lines
    ]


def issue(
    lines: Sequence[Billed], *, currency: str = "BRL", first: str | None = None, number: int = 1
) -> list[Draft]:
    """The documents, numbered."""
    bill = Bill(
        issuer=ISSUER,
        customer=customer(currency),
        period=str(MONTH),
        billed=lines,
        first=first,
        conversion=PTAX,
    )
    numbers = {"A": number, "C": number}
    made = []
    for draft in drafts_of(bill):
        series = "C" if draft.invoice.kind is Kind.CREDIT_NOTE else "A"
        made.append(issued(draft, series=series, number=numbers[series], issued_at=ISSUED_AT))
        numbers[series] += 1
    return made


def focus(
    drafts: Sequence[Draft],
    lines: Sequence[Billed],
    *,
    unbilled: Sequence[Billed] = (),
    contracts: Mapping[str, Contract] = CONTRACTS,
) -> dict[Dataset, list[Cells]]:
    """The rows of the four files."""
    account = Account(tenant_id="ten_1", tenant="alfa", legal_name="Alfa S.A.")
    rows: dict[Dataset, list[Cells]] = {dataset: [] for dataset in Dataset}
    rows[Dataset.BILLING_PERIOD].append(period_row(MONTH, PeriodState.CLOSED, ISSUER, updated_at=ISSUED_AT))
    agreed = [Agreed(contract=one, made_at=NOVEMBER, updated_at=NOVEMBER) for one in contracts.values()]
    rows[Dataset.CONTRACT_COMMITMENT] += commitment_rows(agreed, ISSUER, MONTH, now=ISSUED_AT)
    charges = rows[Dataset.COST_AND_USAGE]
    for draft in drafts:
        invoice = draft.invoice
        rows[Dataset.INVOICE_DETAIL] += detail_rows(invoice)
        own = in_order([one for one in lines if one.line.rated_id in draft.line_nos])
        rate = None if invoice.conversion is None else invoice.conversion.rate
        for one, worth in zip(own, worths(own, currency=invoice.currency, rate=rate), strict=True):
            charge = Charge(
                billed=one,
                account=account,
                project="main",
                currency=invoice.currency,
                worth_micros=worth,
                rate=rate,
                invoice_id=invoice.invoice_id,
                line_no=draft.line_nos[one.line.rated_id],
            )
            charges.append(charge_cells(charge, ISSUER, MONTH, contracts))
        charges += [
            rounding_cells(
                account=account,
                issuer=ISSUER,
                period=MONTH,
                currency=invoice.currency,
                micros=line.cents * 10_000 - line.micros,
                invoice_id=str(invoice.invoice_id),
                line_no=line.line_no,
            )
            for line in invoice.lines
            if line.cents * 10_000 != line.micros
        ]
    charges += [
        charge_cells(
            Charge(
                billed=one,
                account=account,
                project="main",
                currency=one.line.currency,
                worth_micros=one.line.amount_micros,
            ),
            ISSUER,
            MONTH,
            contracts,
        )
        for one in unbilled
    ]
    return rows


def heading(dataset: Dataset) -> Sequence[str]:
    return COLUMNS if dataset is Dataset.COST_AND_USAGE else columns_of(dataset)


def text_of(dataset: Dataset, rows: Iterable[Mapping[str, str]], columns: Sequence[str] | None = None) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns or heading(dataset), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def checked(rows: Mapping[Dataset, Sequence[Mapping[str, str]]]) -> Report:
    return check(
        {dataset: text_of(dataset, some).splitlines(keepends=True) for dataset, some in rows.items()}
    )


def full_month() -> list[RatedLine]:
    """One of each kind of line, in both currencies, with a correction of an earlier month."""
    inside = {"contract_id": "con_alfa"}
    return [
        rated("1", us=HOUR_US, price="2.187531"),
        rated("2", us=1_234_567_891, price="2.187531", from_at=NOVEMBER + timedelta(hours=1), accelerator_no=2),
        rated("3", Category.RESERVED, price="1.5", **inside),
        rated("4", Category.COMMITMENT, us=7 * HOUR_US, price="1.5", site_id=None, **inside),
        rated("5", Category.SPOT, price="0.7333333", run_id="run_2", lease_id="lea_2"),
        rated("6", Category.RESEARCH, currency="BRL", price="4.1"),
        rated("7", Category.MINIMUM, micros=123_456_789, **inside),
        rated("8", Category.CREDIT, micros=-5_555_555, note="available 0.99 of the month; events 1, 2", **inside),
        rated("9", Category.JOB, micros=3_000_000, price="3", run_id="run_3"),
        rated("a", micros=-2_000_000, us=-HOUR_US, price="2", from_at=NOVEMBER - timedelta(days=2), corrects="rl_old",
              note="its attempt is not billable"),
        rated("b", us=HOUR_US, price="0.000001"),
        rated("c", Category.PERIOD, micros=0, us=HOUR_US, price="1300"),
        rated("d", Category.PERIOD, micros=433_333_333, us=240 * HOUR_US, price="1300", run_id=None, lease_id=None,
              accelerator_no=None, node_id=None, usage_id=None),
    ]  # fmt: skip
