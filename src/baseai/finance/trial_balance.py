"""A trial balance is every account with what was debited and credited to it, and a hash by which to compare it.

Invariant: the sums of both sides agree in each currency, posted and pending each, or the books are wrong. The
canonical form is the same text for the same balances, whoever adds them up: equal hashes mean equal books.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from baseai.finance.account import Balance
from baseai.finance.period import Period
from baseai.finance.transfer import Kind, Transfer

CANONICAL = "baseai trial balance 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalance:
    """Every account with what was debited and credited to it."""

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

    def digest(self) -> str:
        return digest_of(self.balances)


def canonical(balances: Iterable[Balance]) -> str:
    """The text that is hashed: a head, then a line for each account and currency that holds anything.

    Fields are parted by tabs, lines end with a line feed and stand in order of account and currency by code point;
    amounts are whole micro-units: debits, credits, pending debits, pending credits.
    """
    lines = [
        f"{row.account}\t{row.currency}\t{row.debits_micros}\t{row.credits_micros}"
        f"\t{row.pending_debits_micros}\t{row.pending_credits_micros}\n"
        for row in sorted(balances)
        if row.debits_micros or row.credits_micros or row.pending_debits_micros or row.pending_credits_micros
    ]
    return CANONICAL + "\n" + "".join(lines)


def digest_of(balances: Iterable[Balance]) -> str:
    """SHA-256 of the canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(balances).encode()).hexdigest()


def balances_of(transfers: Iterable[Transfer], *, at: datetime) -> tuple[Balance, ...]:
    """The balance of every account from the transfers alone, in order of account and currency.

    `transfers` are all there are, in any order; those that take effect after `at` do not count.
    """
    fold = Fold()
    for transfer in transfers:
        if transfer.effective_at <= at:
            fold.add(transfer)
    return fold.balances()


def closing_balances_of(transfers: Iterable[Transfer], *, through: Period) -> tuple[Balance, ...]:
    """The same of what is booked in `through` or before, whenever it took effect."""
    fold = Fold()
    for transfer in transfers:
        if transfer.booked_in <= through:
            fold.add(transfer)
    return fold.balances()


class Fold:
    """Sums that grow row by row, in any order of rows; exact, for they are integers."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[tuple[str, str], list[int]] = {}
        self._pending: dict[str, tuple[str, str, str, int]] = {}
        self._resolved: set[str] = set()

    def add(self, transfer: Transfer) -> None:
        self.add_row(
            transfer.transfer_id,
            transfer.debit_account,
            transfer.credit_account,
            transfer.currency,
            transfer.amount_micros,
            transfer.kind,
            transfer.pending_id,
        )

    def add_row(
        self,
        transfer_id: str,
        debit: str,
        credit: str,
        currency: str,
        micros: int,
        kind: str,
        named: str | None,
    ) -> None:
        """One transfer by its bare facts, for whoever adds up millions."""
        self.rows += 1
        if named is not None:
            self._resolved.add(named)
        if kind == Kind.PENDING:
            self._pending[transfer_id] = (debit, credit, currency, micros)
        elif kind in (Kind.POSTED, Kind.POST):
            self._move(debit, credit, currency, micros, self._sums, 0)

    def merge(self, other: "Fold") -> None:
        """Add everything that `other` has seen; the same transfer must not be in both."""
        self.rows += other.rows
        self._pending |= other._pending
        self._resolved |= other._resolved
        for key, row in other._sums.items():
            held = self._sums.setdefault(key, [0, 0, 0, 0])
            for column, micros in enumerate(row):
                held[column] += micros

    def balances(self) -> tuple[Balance, ...]:
        sums = {key: list(row) for key, row in self._sums.items()}
        for transfer_id, (debit, credit, currency, micros) in self._pending.items():
            if transfer_id not in self._resolved:
                self._move(debit, credit, currency, micros, sums, 2)
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

    @staticmethod
    def _move(
        debit: str,
        credit: str,
        currency: str,
        micros: int,
        sums: dict[tuple[str, str], list[int]],
        first: int,
    ) -> None:
        for account, column in ((debit, first), (credit, first + 1)):
            row = sums.get((account, currency))
            if row is None:
                row = sums[account, currency] = [0, 0, 0, 0]
            row[column] += micros


def differences_of(ours: Sequence[Balance], theirs: Sequence[Balance]) -> Sequence[tuple[str, str]]:
    """The accounts and currencies in which two balances of the same books are not the same."""
    one = {(row.account, row.currency): row for row in ours}
    other = {(row.account, row.currency): row for row in theirs}
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
