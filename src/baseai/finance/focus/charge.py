"""A charge is a rated line as a row of Cost and Usage, billed in the currency of its invoice where it has one.

Invariant: charges of an invoice's line, with one more for what rounding to cents took or gave, come to that line to the
last digit. Time that nobody pays is no charge. A charge whose use belongs to an earlier month is a correction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

from baseai.finance.contract import Contract
from baseai.finance.exchange import ExchangeRate
from baseai.finance.focus.cell import (
    DIGITS,
    Cells,
    decimal_cell,
    instant_cell,
    micros_cell,
    object_cell,
    price_of,
    product,
    quantity_of,
)
from baseai.finance.focus.commitment import (
    HOURS_UNIT,
    RESERVED_TYPE,
    commitment_id,
    minimum_id,
    sku_of,
)
from baseai.finance.focus.rule import Dataset, columns_of
from baseai.finance.invoices.billed import Billed
from baseai.finance.invoices.drafting import UNPRICED, priced_quantity, unit_of
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.measure import ACCELERATOR_TIME, MEASURES
from baseai.finance.period import Period, period_of
from baseai.finance.rated import Category, RatedLine

CUSTOM = (
    "x_Category",
    "x_RatedLine",
    "x_Run",
    "x_Lease",
    "x_AcceleratorSerial",
    "x_Node",
    "x_Round",
    "x_TakesBack",
)
COLUMNS = (*columns_of(Dataset.COST_AND_USAGE), *CUSTOM)

UNITS: Mapping[str, str] = {
    "accelerator_hour": HOURS_UNIT,
    "million_tokens": "1000000 Tokens",
    "thousand_requests": "1000 Requests",
    "gib_hour": "GiB-Hours",
    "kwh": "kWh",
    "job": "Runs",
    "month": "Months",
}
METERS: Mapping[
    str, tuple[str, str, str, str]
] = {  # category, subcategory, service, what the meter is called
    "accelerator_time": ("Compute", "Virtual Machines", "Accelerators", "Accelerator Time"),
    "tokens_in": ("AI and Machine Learning", "Generative AI", "Inference", "Input Tokens"),
    "tokens_out": ("AI and Machine Learning", "Generative AI", "Inference", "Output Tokens"),
    "requests": ("AI and Machine Learning", "Generative AI", "Inference", "Requests"),
    "storage": ("Storage", "Other (Storage)", "Storage", "Stored Volume"),
    "energy": ("Other", "Other (Other)", "Energy", "Energy"),
}
CATEGORIES: Mapping[Category, str] = {Category.MINIMUM: "Adjustment", Category.CREDIT: "Credit"}
COMMITTED = frozenset({Category.RESERVED, Category.COMMITMENT})
DESCRIBED: Mapping[Category, str] = {
    Category.ON_DEMAND: "on demand",
    Category.RESERVED: "within a commitment",
    Category.SPOT: "spot",
    Category.RESEARCH: "research tariff",
    Category.JOB: "price per run",
    Category.PERIOD: "price per month",
    Category.COMMITMENT: "reserved and not used",
    Category.MINIMUM: "true-up to the least spend of a month",
    Category.CREDIT: "credit for availability below what was promised",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose charge it is, as people call it."""

    tenant_id: str
    tenant: str
    legal_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One rated line, whose it is, and on which invoice it stands."""

    billed: Billed
    account: Account
    project: str | None  # its name
    currency: str  # in which it is billed
    worth_micros: int  # in that currency
    rate: ExchangeRate | None = None  # where it is priced in another
    invoice_id: str | None = None
    line_no: int | None = None


def category_of(line: RatedLine) -> str:
    """What kind of charge it is: a month's price is bought, whatever use it is for costs nothing more."""
    if line.category is Category.PERIOD and line.usage_id is None:
        return "Purchase"
    return CATEGORIES.get(line.category, "Usage")


def detail_id(invoice_id: str, line_no: int) -> str:
    """`A-000123/4`."""
    return f"{invoice_id}/{line_no}"


def charge_cells(charge: Charge, issuer: Issuer, period: Period, contracts: Mapping[str, Contract]) -> Cells:
    """The row of a charge, its cells by column."""
    line = charge.billed.line
    category, subcategory, service, meter = METERS[line.meter]
    cells: Cells = {
        **_frame(charge, issuer, period),
        "ChargeCategory": category_of(line),
        "ChargeClass": "Correction" if period_of(line.effective_from) != period else "",
        "ChargeDescription": _description(line),
        "ChargeFrequency": _frequency(line.category),
        "ChargePeriodStart": instant_cell(line.effective_from),
        "ChargePeriodEnd": instant_cell(line.effective_until),
        "PricingCurrency": line.currency,
        "PricingCurrencyEffectiveCost": micros_cell(line.amount_micros),
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "ServiceName": service,
        "RegionId": line.site_id or "",
        "RegionName": line.site_id or "",
        "SubAccountId": line.project_id or "",
        "SubAccountName": (charge.project or line.project_id or "") if line.project_id else "",
        "SubAccountType": "Project" if line.project_id else "",
        "x_Category": line.category.value,
        "x_RatedLine": line.rated_id,
        "x_Run": line.run_id or "",
        "x_Lease": line.lease_id or "",
        "x_AcceleratorSerial": charge.billed.serial or "",
        "x_Node": line.node_id or "",
        "x_Round": line.round_id or "",
        "x_TakesBack": line.corrects or "",
    }
    cells |= _priced(charge) if line.category not in UNPRICED and line.price_id else _unpriced(charge)
    if cells.get("SkuPriceId"):
        cells["SkuMeter"] = meter
    contract = contracts.get(line.contract_id or "")
    cells |= _resource(charge)
    if contract is not None:
        cells |= _committed(charge, contract, period, cells)
    return {column: cells.get(column, "") for column in COLUMNS}


def rounding_cells(
    *,
    account: Account,
    issuer: Issuer,
    period: Period,
    currency: str,
    micros: int,
    invoice_id: str,
    line_no: int,
) -> Cells:
    """The row of what rounding a line of an invoice to cents took (negative) or gave."""
    category, subcategory, service, _ = METERS[ACCELERATOR_TIME]
    cost = micros_cell(micros)
    cells = {
        **_account_cells(account, issuer, period, currency),
        "ChargeCategory": "Adjustment",
        "ChargeDescription": f"rounding of line {line_no} of invoice {invoice_id} to cents",
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": instant_cell(period.starts_at()),
        "ChargePeriodEnd": instant_cell(period.ends_at()),
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "ContractedCost": cost,
        "PricingCurrency": currency,
        "PricingCurrencyEffectiveCost": cost,
        "InvoiceId": invoice_id,
        "InvoiceDetailId": detail_id(invoice_id, line_no),
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "ServiceName": service,
        "x_Category": "rounding",
    }
    return {column: cells.get(column, "") for column in COLUMNS}


@lru_cache(maxsize=1024)
def _account_cells(account: Account, issuer: Issuer, period: Period, currency: str) -> Cells:
    return {
        "BillingAccountId": account.tenant_id,
        "BillingAccountName": account.legal_name or account.tenant,
        "BillingAccountType": "Tenant",
        "BillingCurrency": currency,
        "BillingPeriodStart": instant_cell(period.starts_at()),
        "BillingPeriodEnd": instant_cell(period.ends_at()),
        "HostProviderName": issuer.brand,
        "InvoiceIssuerName": issuer.name,
        "ServiceProviderName": issuer.brand,
    }


def _frame(charge: Charge, issuer: Issuer, period: Period) -> Cells:
    billed = micros_cell(charge.worth_micros)
    cells = {
        **_account_cells(charge.account, issuer, period, charge.currency),
        "BilledCost": billed,
        "EffectiveCost": billed,
    }
    if charge.invoice_id is not None and charge.line_no is not None:
        cells["InvoiceId"] = charge.invoice_id
        cells["InvoiceDetailId"] = detail_id(charge.invoice_id, charge.line_no)
    return cells


def _unpriced(charge: Charge) -> Cells:
    billed = micros_cell(charge.worth_micros)
    return {"ListCost": billed, "ContractedCost": billed}


def _priced(charge: Charge) -> Cells:
    line = charge.billed.line
    quantity = quantity_of(priced_quantity(line) or Decimal(0))
    listed, agreed = price_of(line.list_price), price_of(line.unit_price)
    ours, theirs = (price_of(_exchanged(rate, charge)) for rate in (listed, agreed))
    cells = {
        "ListUnitPrice": decimal_cell(ours),
        "ContractedUnitPrice": decimal_cell(theirs),
        "PricingCurrencyListUnitPrice": decimal_cell(listed),
        "PricingCurrencyContractedUnitPrice": decimal_cell(agreed),
        "PricingQuantity": decimal_cell(quantity),
        "PricingUnit": UNITS[unit_of(line)],
        "ListCost": decimal_cell(product(ours, quantity)),
        "ContractedCost": decimal_cell(product(theirs, quantity)),
        "PricingCategory": _pricing(line.category),
        "SkuId": sku_of(line.meter, line.model),
        "SkuPriceId": line.price_id or "",
        "SkuPriceDetails": object_cell({"x_Model": line.model}) if line.model else "",
    }
    if line.category is not Category.COMMITMENT and category_of(line) == "Usage":
        measure = MEASURES[line.meter]
        cells["ConsumedQuantity"] = decimal_cell(quantity_of(measure.priced(line.quantity)))
        cells["ConsumedUnit"] = UNITS[measure.priced_per]
    if line.meter == ACCELERATOR_TIME:
        cells["CommitmentProgramEligibilityDetails"] = object_cell(
            {"CommitmentPrograms": [{"ProgramType": RESERVED_TYPE}]}
        )
    return cells


def _exchanged(rate: Decimal, charge: Charge) -> Decimal:
    """A price in the currency in which it is billed."""
    by = charge.rate
    if by is None or charge.billed.line.currency == charge.currency:
        return rate
    if by.base == charge.billed.line.currency:
        return product(rate, by.rate)
    with localcontext(prec=DIGITS):
        return rate / by.rate


def _committed(charge: Charge, contract: Contract, period: Period, cells: Cells) -> Cells:
    line = charge.billed.line
    if line.category is Category.MINIMUM:
        return {
            "ContractApplied": _applied(
                charge, contract, minimum_id(contract, str(period_of(line.effective_from))), None
            )
        }
    commitment = contract.committed(line.model, line.site_id)
    if line.category not in COMMITTED or commitment is None:
        return {}
    named = commitment_id(contract, commitment)
    quantity = quantity_of(priced_quantity(line) or Decimal(0))
    unused = line.category is Category.COMMITMENT
    status = "Unused" if unused else "Used"
    found = {
        "CommitmentDiscountId": named,
        "CommitmentDiscountName": contract.name,
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountType": RESERVED_TYPE,
        "CommitmentDiscountStatus": status,
        "CapacityReservationId": named,
        "CapacityReservationStatus": status,
        "ContractApplied": _applied(charge, contract, named, quantity),
    }
    if cells.get("SkuPriceId"):
        found |= {"CommitmentDiscountQuantity": decimal_cell(quantity), "CommitmentDiscountUnit": HOURS_UNIT}
    if unused:
        found |= {"ResourceId": named, "ResourceType": RESERVED_TYPE}
    return found


def _applied(charge: Charge, contract: Contract, named: str, quantity: Decimal | None) -> str:
    element: dict[str, object] = {"ContractId": contract.contract_id, "ContractCommitmentId": named}
    if quantity is None:
        element["ContractCommitmentAppliedCost"] = Decimal(charge.worth_micros) / 1_000_000
    else:
        element |= {
            "ContractCommitmentAppliedQuantity": quantity,
            "ContractCommitmentAppliedUnit": HOURS_UNIT,
        }
    return object_cell({"Elements": [element]})


def _resource(charge: Charge) -> Cells:
    serial = charge.billed.serial
    return {} if serial is None else {"ResourceId": f"accelerator/{serial}", "ResourceType": "Accelerator"}


def _pricing(category: Category) -> str:
    if category in COMMITTED:
        return "Committed"
    return "Dynamic" if category is Category.SPOT else "Standard"


def _frequency(category: Category) -> str:
    if category in (Category.COMMITMENT, Category.PERIOD):
        return "Recurring"
    return "One-Time" if category in UNPRICED else "Usage-Based"


def _description(line: RatedLine) -> str:
    what = " ".join(filter(None, (line.model or line.meter.replace("_", " "), DESCRIBED[line.category])))
    at = f" at {line.site_id}" if line.site_id else ""
    back = f"; takes back {line.corrects}" if line.corrects else ""
    return f"{what}{at}{back}"
