"""Builders for the money tests: leases with what was seen of them, and rates that are easy to reckon with."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from baseai.finance.meter import ObservedLease
from baseai.finance.period import Period
from baseai.finance.posting import HourOfUse
from baseai.finance.rate import HourlyCostRate, HourlyPrice
from baseai.finance.transfer import Kind, Transfer

TEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
HOUR_US = 3_600_000_000


def after(hours: float = 0, *, us: int = 0) -> datetime:
    """So many hours after ten o'clock."""
    return TEN + timedelta(hours=hours, microseconds=us)


def leased(
    *,
    seen: tuple[datetime, datetime] | None,
    granted_at: datetime = TEN,
    ends_at: datetime | None = None,
    released_at: datetime | None = None,
    ended: bool = False,
    billable: bool | None = None,
    metered_until: datetime | None = None,
    accelerator_nos: tuple[int, ...] = (1,),
    lease_id: str = "lea_1",
) -> ObservedLease:
    return ObservedLease(
        lease_id=lease_id,
        run_id="run_1",
        attempt_no=1,
        tenant_id="ten_1",
        project_id="prj_1",
        node_id="nod_1",
        site_id="local",
        model="cpu-slot",
        accelerator_nos=accelerator_nos,
        granted_at=granted_at,
        ends_at=ends_at or granted_at + timedelta(hours=24),
        released_at=released_at,
        observed_from=seen[0] if seen else None,
        observed_until=seen[1] if seen else None,
        ended=ended,
        billable=billable,
        metered_until=metered_until,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRates:
    """The same price and cost for everything, always; a model named "unknown" has neither."""

    price_per_hour: Decimal = Decimal("2.00")
    depreciation: Decimal = Decimal("0.60")
    energy: Decimal = Decimal("0.15")
    colocation: Decimal = Decimal("0.05")

    def price(self, model: str, at: datetime) -> HourlyPrice | None:
        if model == "unknown":
            return None
        return HourlyPrice(per_hour=self.price_per_hour, currency="USD", source="test")

    def hourly_cost(self, model: str, site_id: str, at: datetime) -> HourlyCostRate | None:
        if model == "unknown":
            return None
        return HourlyCostRate(
            depreciation=self.depreciation,
            energy=self.energy,
            colocation=self.colocation,
            currency="USD",
            basis="flat",
        )


def used(
    us: int = HOUR_US, *, billable_us: int | None = None, model: str = "cpu-slot", note: str | None = None
) -> HourOfUse:
    return HourOfUse(
        run_id="run_1",
        tenant_id="ten_1",
        project_id="prj_1",
        accelerator_no=1,
        node_id="nod_1",
        site_id="local",
        model=model,
        hour=TEN,
        until_at=TEN + timedelta(microseconds=us),
        used_us=us,
        billable_us=us if billable_us is None else billable_us,
        note=note,
    )


def transfer(
    transfer_id: str = "tr_1",
    amount_micros: int = 100,
    *,
    kind: Kind = Kind.POSTED,
    pending_id: str | None = None,
    debit: str = "cost:energy",
    credit: str = "payable:energy",
    currency: str = "USD",
    effective_at: datetime = TEN,
    entry_id: str = "entry_1",
    period: Period | None = None,
    timeout_at: datetime | None = None,
    reverses_id: str | None = None,
) -> Transfer:
    return Transfer(
        transfer_id=transfer_id,
        entry_id=entry_id,
        debit_account=debit,
        credit_account=credit,
        amount_micros=amount_micros,
        currency=currency,
        effective_at=effective_at,
        period=period,
        kind=kind,
        pending_id=pending_id,
        timeout_at=timeout_at,
        reverses_id=reverses_id,
        tenant_id="ten_1",
        project_id="prj_1",
        run_id="run_1",
        accelerator_no=1,
        site_id="local",
    )
