"""A transfer moves an amount from the account it credits to the account it debits.

Invariant: it balances by construction (one amount, two accounts, one currency) and never changes. A mistake is set
right by another transfer that names it, once. A pending transfer only reserves, and one later row, `post`, `void` or
`timeout`, names it and resolves it, once. Whoever holds the books adds rows; nobody updates them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from baseai.finance.period import Calendar, Period, period_of
from baseai.ground.fault import Conflict


class Kind(StrEnum):
    """How a transfer counts."""

    POSTED = "posted"  # at once
    PENDING = "pending"  # reserved
    POST = "post"  # makes a pending one real, in full or in part; what is left over is freed
    VOID = "void"  # frees a pending one
    TIMEOUT = "timeout"  # frees a pending one whose time is over


RESOLVING = frozenset({Kind.POST, Kind.VOID, Kind.TIMEOUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One row of the books. What it was for stands beside it, so that any sum can be walked back."""

    transfer_id: str
    entry_id: str  # transfers of one occasion share it
    debit_account: str
    credit_account: str
    amount_micros: int
    currency: str  # ISO 4217
    effective_at: datetime  # when what is paid for had happened; the books know when it was written down
    period: Period | None = None  # a later month in which it is booked; None: that of effective_at
    kind: Kind = Kind.POSTED
    pending_id: str | None = None  # the transfer that a post, void or timeout resolves
    timeout_at: datetime | None = None  # of a pending one: when it frees itself
    reverses_id: str | None = None  # the transfer that this one takes back in full
    tenant_id: str | None = None
    project_id: str | None = None
    customer_id: str | None = None
    contract_id: str | None = None
    price_id: str | None = None
    run_id: str | None = None
    accelerator_no: int | None = None
    node_id: str | None = None
    site_id: str | None = None
    round_id: str | None = None
    model: str | None = None
    hour: datetime | None = None
    micro_seconds: int | None = None  # the accelerator time that the amount stands for
    unit_price: Decimal | None = None  # per accelerator-hour
    fx_rate: Decimal | None = (
        None  # of a conversion: units of the dearer currency's counterpart for one of it
    )
    fx_source: str | None = None
    fx_on: date | None = None  # the day of the rate
    note: str | None = None

    def __post_init__(self) -> None:
        if self.amount_micros <= 0:
            raise ValueError(f"{self.transfer_id}: an amount of {self.amount_micros} micro-units")
        if self.debit_account == self.credit_account:
            raise ValueError(f"{self.transfer_id}: {self.debit_account} on both sides")
        if len(self.currency) != 3 or not self.currency.isupper():
            raise ValueError(f"{self.transfer_id}: {self.currency!r} is not an ISO 4217 code")
        if (self.kind in RESOLVING) != (self.pending_id is not None):
            raise ValueError(
                f"{self.transfer_id}: post, void and timeout, and only they, name a pending transfer"
            )
        if self.effective_at.tzinfo is None:
            raise ValueError(f"{self.transfer_id}: {self.effective_at} names no zone")
        if self.period is not None and self.period <= period_of(self.effective_at):
            raise ValueError(
                f"{self.transfer_id}: {self.period} is not after the month in which it took effect"
            )
        if self.timeout_at is not None and (
            self.kind is not Kind.PENDING or self.timeout_at <= self.effective_at
        ):
            raise ValueError(
                f"{self.transfer_id}: only a pending transfer times out, and after it took effect"
            )
        if self.reverses_id is not None and self.kind is not Kind.POSTED:
            raise ValueError(f"{self.transfer_id}: a reversal is posted at once")
        if len({self.fx_rate is None, self.fx_source is None, self.fx_on is None}) != 1:
            raise ValueError(f"{self.transfer_id}: a conversion has rate, source and day, or none of them")

    @property
    def booked_in(self) -> Period:
        """The month whose balances it changes."""
        return self.period or period_of(self.effective_at)

    def counts(self) -> bool:
        """Whether it moves money, rather than reserving or freeing it."""
        return self.kind in (Kind.POSTED, Kind.POST)


def booked(transfer: Transfer, calendar: Calendar) -> Transfer:
    """The transfer in the month that takes it now: a late fact goes to an open one and keeps its date."""
    month = calendar.booking_of(transfer.effective_at)
    return replace(transfer, period=None if month == period_of(transfer.effective_at) else month)


def reversal_of(original: Transfer, *, transfer_id: str, effective_at: datetime, note: str) -> Transfer:
    """The transfer that takes `original` back in full and says why; its dimensions are the original's."""
    return replace(
        original,
        transfer_id=transfer_id,
        debit_account=original.credit_account,
        credit_account=original.debit_account,
        effective_at=effective_at,
        period=None,
        kind=Kind.POSTED,
        pending_id=None,
        reverses_id=original.transfer_id,
        note=note,
    )


def timeouts_of(pending: Iterable[Transfer], calendar: Calendar) -> Sequence[Transfer]:
    """The rows that free what has timed out. `pending` are those whose time is over and that nothing resolved."""
    freed = []
    for one in pending:
        assert one.timeout_at is not None
        row = replace(
            one,
            transfer_id=f"{one.transfer_id}-timeout",
            effective_at=one.timeout_at,
            period=None,
            kind=Kind.TIMEOUT,
            pending_id=one.transfer_id,
            timeout_at=None,
        )
        freed.append(booked(row, calendar))
    return freed


def check_resolution(resolution: Transfer, pending: Transfer | None) -> None:
    """Raises Conflict when `resolution`, a post, void or timeout, cannot resolve `pending`."""
    own, named = resolution.transfer_id, resolution.pending_id
    if pending is None or pending.kind is not Kind.PENDING:
        raise Conflict(f"{own} names {named}, which is no pending transfer")
    if _sides(resolution) != _sides(pending):
        raise Conflict(f"{own} does not move between the accounts of {named}")
    if resolution.kind is not Kind.POST and resolution.amount_micros != pending.amount_micros:
        raise Conflict(f"{own} frees {named} in part; a {resolution.kind.value} frees all of it")
    if resolution.amount_micros > pending.amount_micros:
        raise Conflict(f"{own} posts more than {named} reserved")
    if resolution.effective_at < pending.effective_at:
        raise Conflict(f"{own} takes effect before {named}, which it resolves")
    if resolution.kind is Kind.TIMEOUT:
        if resolution.effective_at != pending.timeout_at:
            raise Conflict(f"{own} takes effect at another time than that at which {named} times out")
    elif pending.timeout_at is not None and resolution.effective_at >= pending.timeout_at:
        raise Conflict(
            f"{own} comes too late: {named} timed out at {pending.timeout_at:%Y-%m-%d %H:%M:%S} UTC"
        )


def check_reversal(reversal: Transfer, original: Transfer | None) -> None:
    """Raises Conflict when `reversal` does not take `original` back, all of it and nothing else."""
    own, named = reversal.transfer_id, reversal.reverses_id
    if original is None or not original.counts():
        raise Conflict(f"{own} reverses {named}, which is no posted transfer")
    debit, credit, currency = _sides(original)
    if _sides(reversal) != (credit, debit, currency) or reversal.amount_micros != original.amount_micros:
        raise Conflict(f"{own} does not take back what {named} moved")
    if reversal.effective_at < original.effective_at:
        raise Conflict(f"{own} takes effect before {named}, which it reverses")


def _sides(transfer: Transfer) -> tuple[str, str, str]:
    return transfer.debit_account, transfer.credit_account, transfer.currency
