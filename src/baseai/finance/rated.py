"""A rated line is what one piece of use, or one term of a contract, comes to in money, and why.

Invariant: a line never changes; a mistake is set right by a second line that names the first in `corrects`.
Quantity × unit price is exact over the lines that share contract, price, tier, band and month: their amounts sum to
the total rounded once, however the use was cut. Rating makes lines; posting turns them into transfers.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class Category(StrEnum):
    """What a line is charged, or given back, for."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"  # used time within a commitment
    SPOT = "spot"
    RESEARCH = "research"
    JOB = "job"  # a price per run, on the first line of it
    PERIOD = "period"  # a price per month
    COMMITMENT = "commitment"  # take-or-pay: reserved and not used
    MINIMUM = "minimum"  # true-up to the spend that was agreed
    CREDIT = "credit"  # for availability below what was promised
    UNBILLED = "unbilled"  # time that nobody pays; its amount is nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """One amount with everything it may be summed by."""

    rated_id: str
    category: Category
    amount_micros: int  # negative for a credit or a correction
    currency: str  # ISO 4217
    meter: str  # what was measured, a name of usage_event.METERS
    quantity: int  # in the meter's own unit: accelerator time in µs; negative in a correction
    unit_price: (
        Decimal  # per priced unit of the meter (accelerator-hour, million tokens …), discount and peak in it
    )
    list_price: Decimal  # the same before discount
    period: str  # the month it is booked in, books' zone: `2026-11`; a late line goes to an open one
    effective_from: datetime
    effective_until: datetime  # exclusive
    recorded_at: datetime
    tenant_id: str
    project_id: str | None = None
    customer_id: str | None = None
    contract_id: str | None = None
    price_id: str | None = None
    tier: int = 0  # which volume tier of the price
    band: int = 0  # 0 off the peak, else which peak of the price, from 1
    usage_id: str | None = None  # the usage line or usage event behind it; None for terms of a contract
    corrects: str | None = None  # the rated_id that this one takes back
    run_id: str | None = None
    lease_id: str | None = None
    accelerator_no: int | None = None
    model: str | None = None
    node_id: str | None = None
    site_id: str | None = None
    round_id: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if len(self.currency) != 3 or not self.currency.isupper():
            raise ValueError(f"{self.rated_id}: {self.currency!r} is not an ISO 4217 code")
        if self.effective_from.tzinfo is None or self.effective_until.tzinfo is None:
            raise ValueError(f"{self.rated_id}: an instant names no zone")
        if self.effective_until < self.effective_from:
            raise ValueError(f"{self.rated_id} ends before it begins")
        if self.category is Category.UNBILLED and self.amount_micros:
            raise ValueError(f"{self.rated_id}: unbilled time with an amount")


def taken_back(line: RatedLine, *, period: str, recorded_at: datetime, note: str) -> RatedLine:
    """The line that takes another one back, booked in `period`, an open month; what it was for keeps its dates.

    Its tier, band and quantity go back too, so that volume and commitments are free again.
    Raises ValueError for a line that is itself one: a correction is not corrected, the use is rated anew.
    """
    if line.corrects is not None:
        raise ValueError(f"{line.rated_id} takes {line.corrects} back; rate its use anew instead")
    return replace(
        line,
        rated_id=f"{line.rated_id}-back",
        amount_micros=-line.amount_micros,
        quantity=-line.quantity,
        period=period,
        recorded_at=recorded_at,
        corrects=line.rated_id,
        note=note,
    )
