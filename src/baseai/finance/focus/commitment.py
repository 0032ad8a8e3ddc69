"""Contracts as rows of ContractCommitment: accelerators held ready, and least spends of a month.

Invariant: a commitment of accelerators is one row for the length of its contract, in accelerator-hours; a least spend
is one row for the month that is exported, in money. Charges name the same ids.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from baseai.finance.contract import Commitment, Contract
from baseai.finance.focus.cell import Cells, decimal_cell, instant_cell, micros_cell, object_cell
from baseai.finance.focus.rule import Dataset, columns_of
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.period import Period

HOURS_UNIT = "Accelerator-Hours"
RESERVED_TYPE = "Reserved Capacity"
MINIMUM_TYPE = "Least Spend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A contract, and when it was made and last touched."""

    contract: Contract
    made_at: datetime
    updated_at: datetime


def commitment_id(contract: Contract, commitment: Commitment) -> str:
    """`con_…/H100-SXM@sp4`; without a site where any will do."""
    at = "" if commitment.site_id is None else f"@{commitment.site_id}"
    return f"{contract.contract_id}/{commitment.model}{at}"


def minimum_id(contract: Contract, period: str) -> str:
    return f"{contract.contract_id}/minimum/{period}"


def sku_of(meter: str, model: str | None) -> str:
    """What is sold, whatever its price: `accelerator_time/H100-SXM`."""
    return meter if model is None else f"{meter}/{model}"


def commitment_rows(
    agreed: Iterable[Agreed], issuer: Issuer, period: Period, *, now: datetime
) -> Iterable[Cells]:
    """The rows of every contract that holds for some of `period`."""
    for one in agreed:
        contract = one.contract
        ends_at = contract.ends_at
        if contract.from_at >= period.ends_at() or (ends_at is not None and ends_at <= period.starts_at()):
            continue
        for commitment in contract.commitments:
            yield _cells({**_common(one, issuer, period, now), **_reserved(contract, commitment)})
        if contract.minimum_micros is not None:
            yield _cells({**_common(one, issuer, period, now), **_minimum(contract, period)})


def _common(one: Agreed, issuer: Issuer, period: Period, now: datetime) -> Cells:
    contract = one.contract
    negotiated = contract.list_id is not None or contract.discount_ratio > 0
    return {
        "BillingCurrency": contract.currency,
        "ContractCommitmentCreated": instant_cell(one.made_at),
        "ContractCommitmentLastUpdated": instant_cell(max(one.made_at, one.updated_at)),
        "ContractCommitmentLifecycleStatus": _status(contract, now),
        "ContractCommitmentOfferCategory": "Negotiated" if negotiated else "Public",
        "ContractCommitmentPaymentInterval": "Monthly",
        "ContractCommitmentPaymentModel": "No Upfront",
        "ContractCommitmentPaymentUpfrontPercentage": "0",
        "ContractId": contract.contract_id,
        "ContractPeriodStart": instant_cell(contract.from_at),
        # One without an end holds until somebody ends it: as far as is known, to the end of this month.
        "ContractPeriodEnd": instant_cell(contract.ends_at or period.ends_at()),
        "InvoiceIssuerName": issuer.name,
        "PricingCurrency": contract.currency,
        "ServiceProviderName": issuer.brand,
    }


def _reserved(contract: Contract, commitment: Commitment) -> Cells:
    assert contract.until_at is not None
    end = contract.ends_at or contract.until_at
    seconds = Decimal(int((end - contract.from_at).total_seconds()))
    rules: list[dict[str, object]] = [
        {"Dimension": "BillingAccountId", "Operator": "In", "Values": [contract.tenant_id]},
        {
            "Dimension": "SkuId",
            "Operator": "In",
            "Values": [sku_of("accelerator_time", commitment.model)],
        },
    ]
    if commitment.site_id is not None:
        rules.append({"Dimension": "RegionId", "Operator": "In", "Values": [commitment.site_id]})
    return {
        "ContractCommitmentApplicability": _scope(contract, rules),
        "ContractCommitmentBenefitCategory": "Availability",
        "ContractCommitmentCategory": "Usage",
        "ContractCommitmentDescription": f"{commitment.count} × {commitment.model} held ready day and night",
        "ContractCommitmentDurationType": _months(contract.months or 1),
        "ContractCommitmentFulfillmentInterval": "Hourly",
        "ContractCommitmentId": commitment_id(contract, commitment),
        "ContractCommitmentModel": "Continuous",
        "ContractCommitmentPeriodStart": instant_cell(contract.from_at),
        "ContractCommitmentPeriodEnd": instant_cell(end),
        "ContractCommitmentQuantity": decimal_cell(
            (commitment.count * seconds / 3600).quantize(Decimal("0.000001"))
        ),
        "ContractCommitmentType": RESERVED_TYPE,
        "ContractCommitmentUnit": HOURS_UNIT,
    }


def _minimum(contract: Contract, period: Period) -> Cells:
    assert contract.minimum_micros is not None
    ends = [at for at in (contract.ends_at, period.ends_at()) if at is not None]
    cost = micros_cell(contract.minimum_micros)
    return {
        "ContractCommitmentApplicability": _scope(
            contract, [{"Dimension": "BillingAccountId", "Operator": "In", "Values": [contract.tenant_id]}]
        ),
        "ContractCommitmentBenefitCategory": "Discount",
        "ContractCommitmentDiscountPercentage": decimal_cell(contract.discount_ratio),
        "ContractCommitmentCategory": "Spend",
        "ContractCommitmentCost": cost,
        "PricingCurrencyContractCommitmentCost": cost,
        "ContractCommitmentDescription": "least spend of a month, trued up at its end",
        "ContractCommitmentDurationType": _months(1),
        "ContractCommitmentFulfillmentInterval": "Monthly",
        "ContractCommitmentId": minimum_id(contract, str(period)),
        "ContractCommitmentModel": "Discontinuous",
        "ContractCommitmentPeriodStart": instant_cell(max(contract.from_at, period.starts_at())),
        "ContractCommitmentPeriodEnd": instant_cell(min(ends)),
        "ContractCommitmentType": MINIMUM_TYPE,
    }


def _scope(contract: Contract, rules: list[dict[str, object]]) -> str:
    if contract.project_id is not None:
        rules = [*rules, {"Dimension": "SubAccountId", "Operator": "In", "Values": [contract.project_id]}]
    return object_cell({"InclusionOperator": "And", "Inclusions": rules})


def _months(count: int) -> str:
    return "1 Month" if count == 1 else f"{count} Months"


def _status(contract: Contract, now: datetime) -> str:
    if now < contract.from_at:
        return "Pending"
    if contract.ended_at is not None and contract.ended_at <= now:
        return "Canceled"
    return "Expired" if contract.until_at is not None and contract.until_at <= now else "Active"


def _cells(said: Cells) -> Cells:
    return {column: said.get(column, "") for column in columns_of(Dataset.CONTRACT_COMMITMENT)}
