"""Lines of issued invoices as rows of InvoiceDetail, and the month they belong to as a row of BillingPeriod.

Invariant: one row for each line, lines that come to nothing too; a draft has no rows. What an invoice names as the one
that it adds to or gives back from is its reference, itself where there is none.
"""

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from baseai.finance.focus.cell import Cells, decimal_cell, instant_cell, object_cell
from baseai.finance.focus.charge import CATEGORIES, METERS, detail_id
from baseai.finance.focus.commitment import sku_of
from baseai.finance.focus.rule import Dataset, columns_of
from baseai.finance.invoices.invoice import Invoice, InvoiceLine
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.period import ZONE, Period, PeriodState


def detail_rows(invoice: Invoice) -> list[Cells]:
    """The rows of an issued invoice."""
    assert invoice.invoice_id is not None
    assert invoice.due_on is not None
    period = Period(*map(int, invoice.period.split("-")))
    due = datetime(invoice.due_on.year, invoice.due_on.month, invoice.due_on.day, tzinfo=ZoneInfo(ZONE))
    issued = instant_cell(invoice.issued_at)
    rows = []
    for line in invoice.lines:
        cost = decimal_cell(Decimal(line.cents) / 100)
        detail = detail_id(invoice.invoice_id, line.line_no)
        rows.append(
            _cells(
                Dataset.INVOICE_DETAIL,
                {
                    "BilledCost": cost,
                    "BillingAccountId": invoice.customer.tenant_id,
                    "BillingCurrency": invoice.currency,
                    "BillingPeriodStart": instant_cell(period.starts_at()),
                    "BillingPeriodEnd": instant_cell(period.ends_at()),
                    "ChargeCategory": CATEGORIES.get(line.category, "Usage"),
                    "InvoiceDetailCreated": issued,
                    "InvoiceDetailDescription": _described(line),
                    "InvoiceDetailGrain": _grain(line),
                    "InvoiceDetailId": detail,
                    "InvoiceDetailLastUpdated": issued,
                    "InvoiceId": invoice.invoice_id,
                    "InvoiceIssueDate": issued,
                    "InvoiceIssueStatus": "Issued",
                    "InvoiceIssuerName": invoice.issuer.name,
                    "PaymentCurrency": invoice.currency,
                    "PaymentCurrencyBilledCost": cost,
                    "PaymentCurrencyInvoiceDetailId": detail,
                    "PaymentDueDate": instant_cell(due),
                    "PaymentTerms": f"Net {invoice.issuer.days_to_pay}",
                    "ReferenceInvoiceId": invoice.corrects or invoice.invoice_id,
                },
            )
        )
    return rows


def period_row(period: Period, state: PeriodState, issuer: Issuer, *, updated_at: datetime | None) -> Cells:
    """The row of a month. updated_at: when something of it last changed; None: nothing did since it began."""
    starts = period.starts_at()
    return _cells(
        Dataset.BILLING_PERIOD,
        {
            "BillingPeriodCreated": instant_cell(starts),
            "BillingPeriodStart": instant_cell(starts),
            "BillingPeriodEnd": instant_cell(period.ends_at()),
            "BillingPeriodLastUpdated": instant_cell(max(starts, updated_at or starts)),
            "BillingPeriodStatus": "Closed" if state is PeriodState.CLOSED else "Open",
            "InvoiceIssuerName": issuer.name,
        },
    )


def _described(line: InvoiceLine) -> str:
    what = line.model or line.meter.replace("_", " ")
    parts = (what, line.category.value.replace("_", " "), f"at {line.site_id}" if line.site_id else "")
    back = ", taken back" if line.takes_back else ""
    return " ".join(filter(None, parts)) + f" of {line.of_period}{back}"


def _grain(line: InvoiceLine) -> str:
    said: dict[str, object] = {
        "ServiceName": METERS[line.meter][2],
        "x_Category": line.category.value,
        "x_MonthOfUse": line.of_period,
        "x_TakesBack": line.takes_back,
    }
    if line.contract_id:
        said["ContractId"] = line.contract_id
    if line.site_id:
        said["RegionId"] = line.site_id
    if line.price_id:
        said |= {"SkuId": sku_of(line.meter, line.model), "SkuPriceId": line.price_id}
    if line.unit_price is not None:
        said["x_UnitPrice"] = f"{line.unit_price:f}"
    return object_cell(said)


def _cells(dataset: Dataset, said: Cells) -> Cells:
    return {column: said.get(column, "") for column in columns_of(dataset)}
