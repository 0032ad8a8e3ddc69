"""Cents arise on the invoice line and nowhere else; what they differ by from the books goes to the rounding account.

Invariant: the lines of an invoice sum to its total, and the total is the exact sum rounded once, half to even. The
remainder is given to the lines that lost most (largest remainder), so no line is a cent or more away from its worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from baseai.finance.transfer import Transfer
from baseai.ground.identity import derived

MICROS_PER_CENT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactLine:
    """What one line of an invoice comes to before it is rounded."""

    line_id: str
    amount_micros: int  # negative for a credit


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """Whom the cents are asked of, and in which currency."""

    invoice_id: str
    tenant_id: str
    receivable: str  # the account that the exact amounts stand on
    currency: str  # ISO 4217
    issued_at: datetime


def cents_of(lines: Sequence[ExactLine], invoice: Invoiced) -> tuple[Mapping[str, int], Transfer | None]:
    """The cents of each line, by line_id, and the transfer that brings the receivable to their sum.

    The transfer is None when the micro-units came to whole cents. Of equal remainders the smaller line_id gets the
    cent, so the order of `lines` does not matter. Raises ValueError when a line_id stands twice.
    """
    if len({line.line_id for line in lines}) < len(lines):
        raise ValueError(f"{invoice.invoice_id}: a line stands twice")
    exact_micros = sum(line.amount_micros for line in lines)
    total_cents = _half_even(exact_micros)
    cents = {line.line_id: line.amount_micros // MICROS_PER_CENT for line in lines}
    left = total_cents - sum(cents.values())  # 0 … number of lines with a remainder
    by_remainder = sorted(lines, key=lambda line: (-(line.amount_micros % MICROS_PER_CENT), line.line_id))
    for line in by_remainder[:left]:
        cents[line.line_id] += 1
    return cents, _rounding(total_cents * MICROS_PER_CENT - exact_micros, invoice)


def _half_even(micros: int) -> int:
    cents, rest = divmod(micros, MICROS_PER_CENT)
    twice = 2 * rest
    return cents + (twice > MICROS_PER_CENT or (twice == MICROS_PER_CENT and cents % 2 == 1))


def _rounding(difference_micros: int, invoice: Invoiced) -> Transfer | None:
    if difference_micros == 0:
        return None
    rounding = f"rounding:{invoice.currency}"
    debit, credit = invoice.receivable, rounding
    if difference_micros < 0:
        debit, credit = credit, debit
    return Transfer(
        transfer_id=derived("tr", "rounding", invoice.invoice_id),
        entry_id=derived("entry", "rounding", invoice.invoice_id),
        debit_account=debit,
        credit_account=credit,
        amount_micros=abs(difference_micros),
        currency=invoice.currency,
        effective_at=invoice.issued_at,
        tenant_id=invoice.tenant_id,
        note=f"cents of {invoice.invoice_id}",
    )
