"""Standing time is what an accelerator was installed for and no run used: it costs what used time costs.

Invariant: for each accelerator and hour, what runs were charged with and what stood add up to the installed time at
that hour's rates, whatever came late: the first transfer fixes the rate, and what is learnt afterwards is one more
transfer over the difference. Standing time is never negative, and owned hardware never stands for nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from baseai.finance.account import (
    ACCUMULATED_DEPRECIATION,
    COST_COLOCATION,
    COST_DEPRECIATION,
    COST_ENERGY,
    PAYABLE_COLOCATION,
    PAYABLE_ENERGY,
)
from baseai.finance.meter import MICROSECOND
from baseai.finance.period import Calendar, period_of
from baseai.finance.posting import HOUR, Booked, Unpriced
from baseai.finance.rate import HourlyCostRate
from baseai.finance.transfer import Transfer
from baseai.ground.money import charge


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingHour:
    """One accelerator in one hour that is over."""

    accelerator_no: int
    node_id: str
    site_id: str
    model: str
    round_id: str | None
    hour: datetime
    installed_us: int  # what its buckets sum to
    used_us: int  # what usage lines say, of all runs

    @property
    def standing_us(self) -> int:
        return max(0, self.installed_us - self.used_us)


def standing_postings(
    stood: StandingHour,
    cost: HourlyCostRate | None,
    booked: Mapping[str, Booked] | None = None,
    *,
    calendar: Calendar | None = None,
) -> tuple[Transfer, ...] | Unpriced:
    """The transfers that bring the books from `booked` (by account) to what stood, in the month that is open.

    What stood comes to the hour's cost of all installed time less that of the used time, so that no fraction is lost
    between them. Equal arguments give equal transfers with equal ids.
    """
    booked = booked or {}
    if cost is None:
        return Unpriced(model=stood.model, site_id=stood.site_id, hour=stood.hour, missing="cost")
    own, month = period_of(stood.hour), (calendar or Calendar()).booking_of(stood.hour)
    stem = f"stood-{stood.accelerator_no}-{stood.hour:%Y%m%d%H}"
    transfers = []
    for account, other, rate in (
        (COST_DEPRECIATION, ACCUMULATED_DEPRECIATION, cost.depreciation),
        (COST_ENERGY, PAYABLE_ENERGY, cost.energy),
        (COST_COLOCATION, PAYABLE_COLOCATION, cost.colocation),
    ):
        before = booked.get(account)
        per_hour = rate if before is None else before.unit_price
        currency = cost.currency if before is None else before.currency
        used_us = min(stood.used_us, stood.installed_us)
        wanted = (
            charge(per_hour, micro_seconds=stood.installed_us, currency=currency).micros
            - charge(per_hour, micro_seconds=used_us, currency=currency).micros
        )
        amount = wanted - (0 if before is None else before.amount_micros)
        if amount == 0:
            continue
        transfer_id = f"tr_{stem}-{account.partition(':')[2]}"
        note = None
        if before is not None:
            transfer_id += f"-{before.transfers}"
            note = f"{'more' if amount > 0 else 'less'} stood than {before.first_id} said"
        span_us = stood.standing_us - (0 if before is None else before.micro_seconds)
        transfers.append(
            Transfer(
                transfer_id=transfer_id,
                entry_id=stem,
                debit_account=account if amount > 0 else other,
                credit_account=other if amount > 0 else account,
                amount_micros=abs(amount),
                currency=currency,
                effective_at=stood.hour + HOUR - MICROSECOND,
                period=None if month == own else month,
                accelerator_no=stood.accelerator_no,
                node_id=stood.node_id,
                site_id=stood.site_id,
                round_id=stood.round_id,
                model=stood.model,
                hour=stood.hour,
                micro_seconds=abs(span_us),
                unit_price=per_hour,
                note=note,
            )
        )
    return tuple(transfers)
