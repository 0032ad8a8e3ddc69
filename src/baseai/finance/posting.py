"""Posting turns hours of use into transfers: revenue for billable time, cost for all time.

Invariant: for each run, accelerator, hour and account the books say what the usage lines say, at the rate of
that hour. The first transfer of an hour fixes its rate; whatever is learnt later (an attempt judged not
billable, time reported late) is one more transfer over the difference, which names the first. The books
therefore do not depend on when posting ran, only how many rows it took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from baseai.finance.account import (
    ACCUMULATED_DEPRECIATION,
    COST_COLOCATION,
    COST_DEPRECIATION,
    COST_ENERGY,
    PAYABLE_COLOCATION,
    PAYABLE_ENERGY,
    REVENUE_ON_DEMAND,
    is_revenue,
    receivable,
)
from baseai.finance.meter import MICROSECOND
from baseai.finance.period import Calendar, period_of
from baseai.finance.rate import Rates
from baseai.finance.transfer import Transfer
from baseai.ground.clock import hour_of
from baseai.ground.money import charge

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HourOfUse:
    """All metered time of one run on one accelerator within one hour, over all its attempts."""

    run_id: str
    tenant_id: str
    project_id: str
    accelerator_no: int
    node_id: str
    site_id: str
    model: str
    hour: datetime
    until_at: datetime  # the end of the last line
    used_us: int
    billable_us: int  # by the verdicts known now
    note: str | None = None  # why not all of it is billable
    round_id: str | None = None  # whose money bought the accelerator

    def __post_init__(self) -> None:
        if not 0 <= self.billable_us <= self.used_us:
            raise ValueError(f"{self.run_id}: {self.billable_us} billable of {self.used_us} µs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the books hold already for one hour of use and one revenue or cost account, credits taken off."""

    amount_micros: int
    micro_seconds: int
    transfers: int
    first_id: str
    unit_price: Decimal  # of the first transfer
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """There is no price or no cost known for this model at this hour: it stays unposted."""

    model: str
    site_id: str
    hour: datetime
    missing: str  # "price" or "cost"


def settled_until(*, now: datetime, run_ended: bool, open_since: Sequence[datetime]) -> datetime | None:
    """Up to where the usage of a run is complete; None when all of it is.

    open_since: for each lease that may still yield usage, how far it is metered, or when it was granted.
    """
    if run_ended and not open_since:
        return None
    return min([now, *open_since])


def is_settled(hour: datetime, until: datetime | None) -> bool:
    """Whether no further usage can arrive for this hour. `until` is an answer of settled_until."""
    return until is None or hour + HOUR <= until


def postings_of(
    use: HourOfUse,
    rates: Rates,
    booked: Mapping[str, Booked] | None = None,
    *,
    calendar: Calendar | None = None,
    bills: bool = True,
) -> tuple[Transfer, ...] | Unpriced:
    """The transfers that bring the books from `booked` (by account) to what `use` says, in the month that is open.

    bills: whether use is charged at its list price here; if rated lines are, only what was charged here already is
    corrected. At most one per account, none where the amount rounds to nothing. Equal arguments give equal transfers
    with equal ids, so writing them twice is the same as once.
    """
    booked = booked or {}
    own, month = period_of(use.hour), (calendar or Calendar()).booking_of(use.hour)
    price = rates.price(use.model, use.hour)
    if price is None:
        return Unpriced(model=use.model, site_id=use.site_id, hour=use.hour, missing="price")
    cost = rates.hourly_cost(use.model, use.site_id, use.hour)
    if cost is None:
        return Unpriced(model=use.model, site_id=use.site_id, hour=use.hour, missing="cost")
    wanted = (
        (REVENUE_ON_DEMAND, receivable(use.tenant_id), price.per_hour, price.currency, use.billable_us),
        (COST_DEPRECIATION, ACCUMULATED_DEPRECIATION, cost.depreciation, cost.currency, use.used_us),
        (COST_ENERGY, PAYABLE_ENERGY, cost.energy, cost.currency, use.used_us),
        (COST_COLOCATION, PAYABLE_COLOCATION, cost.colocation, cost.currency, use.used_us),
    )
    stem, stamp = key_parts(use.run_id, use.hour)
    key = f"{stem}{use.accelerator_no}{stamp}"
    transfers = []
    for account, other, rate, currency, total_us in wanted:
        before = booked.get(account)
        if before is None and is_revenue(account) and not bills:
            continue
        if before is None:
            amount, span_us, note = _charge(rate, total_us, currency), total_us, None
            if total_us < use.used_us and is_revenue(account):
                note = use.note
        else:
            rate, currency = before.unit_price, before.currency
            amount = _charge(rate, total_us, currency) - before.amount_micros
            span_us = total_us - before.micro_seconds
            note = f"{'credit' if amount < 0 else 'late usage'} to {before.first_id}"
            note += f": {use.note}" if use.note and amount < 0 else ""
        if amount == 0:
            continue
        raises, lowers = (other, account) if is_revenue(account) else (account, other)
        debit, credit = (raises, lowers) if amount > 0 else (lowers, raises)
        transfer_id = f"tr_{key}-{account.partition(':')[2]}"
        if before is not None:
            transfer_id += f"-{before.transfers}"
        transfers.append(
            Transfer(
                transfer_id=transfer_id,
                entry_id=f"use_{key}",
                debit_account=debit,
                credit_account=credit,
                amount_micros=abs(amount),
                currency=currency,
                effective_at=use.until_at
                - MICROSECOND,  # its last moment: the end belongs to what comes next
                period=None if month == own else month,
                tenant_id=use.tenant_id,
                project_id=use.project_id,
                run_id=use.run_id,
                accelerator_no=use.accelerator_no,
                node_id=use.node_id,
                site_id=use.site_id,
                round_id=use.round_id,
                model=use.model,
                hour=use.hour,
                micro_seconds=abs(span_us),
                unit_price=rate,
                note=note,
            )
        )
    return tuple(transfers)


def key_parts(run_id: str, hour: datetime) -> tuple[str, str]:
    """What stands before and after the accelerator's number in the ids of an hour: ids are made of facts."""
    return f"{run_id.replace('run_', '')}-", f"-{hour_of(hour):%Y%m%d%H}"


@lru_cache(maxsize=4096)  # most hours are used whole, so few different amounts arise
def _charge(rate: Decimal, span_us: int, currency: str) -> int:
    return charge(rate, micro_seconds=span_us, currency=currency).micros
