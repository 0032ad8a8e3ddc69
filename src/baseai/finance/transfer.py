"""A transfer moves an amount from the account it credits to the account it debits.

Invariant: it balances by construction (one amount, two accounts, one currency) and never changes; a mistake
is set right by another transfer. A pending transfer only reserves, and one later row, `post` or `void`, names
it and resolves it, once. Whoever holds the books adds rows; nobody updates them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from baseai.finance.account import Balance
from baseai.ground.fault import Conflict


class Kind(StrEnum):
    """How a transfer counts."""

    POSTED = "posted"  # at once
    PENDING = "pending"  # reserved
    POST = "post"  # makes a pending one real, in full or in part; what is left over is freed
    VOID = "void"  # frees a pending one


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
    kind: Kind = Kind.POSTED
    pending_id: str | None = None  # the transfer that a post or void resolves
    tenant_id: str | None = None
    project_id: str | None = None
    run_id: str | None = None
    accelerator_no: int | None = None
    node_id: str | None = None
    site_id: str | None = None
    model: str | None = None
    hour: datetime | None = None
    micro_seconds: int | None = None  # the accelerator time that the amount stands for
    unit_price: Decimal | None = None  # per accelerator-hour
    note: str | None = None

    def __post_init__(self) -> None:
        if self.amount_micros <= 0:
            raise ValueError(f"{self.transfer_id}: an amount of {self.amount_micros} micro-units")
        if self.debit_account == self.credit_account:
            raise ValueError(f"{self.transfer_id}: {self.debit_account} on both sides")
        if len(self.currency) != 3 or not self.currency.isupper():
            raise ValueError(f"{self.transfer_id}: {self.currency!r} is not an ISO 4217 code")
        if (self.kind in (Kind.POST, Kind.VOID)) != (self.pending_id is not None):
            raise ValueError(f"{self.transfer_id}: post and void, and only they, name a pending transfer")
        if self.effective_at.tzinfo is None:
            raise ValueError(f"{self.transfer_id}: {self.effective_at} names no zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalance:
    """Every account with what was debited and credited to it; the sums agree, or the books are wrong."""

    at: datetime
    balances: tuple[Balance, ...]  # by account, then currency

    def difference_micros(self) -> dict[str, int]:
        """Debits less credits per currency, posted and pending each: every value is zero in sound books."""
        differences: dict[str, int] = {}
        for row in self.balances:
            posted = row.debits_micros - row.credits_micros
            pending = row.pending_debits_micros - row.pending_credits_micros
            for name, difference in ((row.currency, posted), (f"{row.currency} pending", pending)):
                differences[name] = differences.get(name, 0) + difference
        return differences

    def is_balanced(self) -> bool:
        return not any(self.difference_micros().values())


class Books(Protocol):
    """What may be done to the books, and asked of them."""

    async def post(self, transfers: Sequence[Transfer]) -> int:
        """Write all of them or none; how many were new.

        The same transfer again is harmless. Raises Conflict when an id is known with another body, when a
        pending transfer that is named is unknown or resolved already, or when its resolution does not fit it.
        """

    async def balance(self, account: str, at: datetime) -> tuple[Balance, ...]:
        """The account in each of its currencies, of what took effect at or before `at`."""

    async def trial_balance(self, at: datetime) -> TrialBalance:
        """All accounts, of what took effect at or before `at`."""


def check_resolution(resolution: Transfer, pending: Transfer | None) -> None:
    """Raises Conflict when `resolution`, a post or void, cannot resolve `pending`."""
    if pending is None or pending.kind is not Kind.PENDING:
        raise Conflict(
            f"{resolution.transfer_id} names {resolution.pending_id}, which is no pending transfer"
        )
    same = (pending.debit_account, pending.credit_account, pending.currency)
    if (resolution.debit_account, resolution.credit_account, resolution.currency) != same:
        raise Conflict(
            f"{resolution.transfer_id} does not move between the accounts of {pending.transfer_id}"
        )
    if resolution.kind is Kind.VOID and resolution.amount_micros != pending.amount_micros:
        raise Conflict(
            f"{resolution.transfer_id} voids {pending.transfer_id} in part; a void frees all of it"
        )
    if resolution.amount_micros > pending.amount_micros:
        raise Conflict(f"{resolution.transfer_id} posts more than {pending.transfer_id} reserved")
    if resolution.effective_at < pending.effective_at:
        raise Conflict(
            f"{resolution.transfer_id} takes effect before {pending.transfer_id}, which it resolves"
        )


def balances_of(transfers: Iterable[Transfer], *, at: datetime) -> tuple[Balance, ...]:
    """The balance of every account from the transfers alone, in order of account and currency.

    `transfers` are all there are, in any order; those that take effect after `at` do not count.
    """
    in_effect = [transfer for transfer in transfers if transfer.effective_at <= at]
    resolved = {transfer.pending_id for transfer in in_effect if transfer.pending_id is not None}
    sums: dict[tuple[str, str], list[int]] = {}
    for transfer in in_effect:
        counts = transfer.kind in (Kind.POSTED, Kind.POST)
        reserves = transfer.kind is Kind.PENDING and transfer.transfer_id not in resolved
        if not counts and not reserves:
            continue
        for account, column in ((transfer.debit_account, 0), (transfer.credit_account, 1)):
            row = sums.setdefault((account, transfer.currency), [0, 0, 0, 0])
            row[column + 2 * reserves] += transfer.amount_micros
    return tuple(
        Balance(
            account=account,
            currency=currency,
            debits_micros=row[0],
            credits_micros=row[1],
            pending_debits_micros=row[2],
            pending_credits_micros=row[3],
        )
        for (account, currency), row in sorted(sums.items())
    )
