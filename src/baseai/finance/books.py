"""The books are all transfers, and what may be done to them and asked of them.

Invariant: a group is written whole or not at all; the same group again changes nothing; no row is ever changed. Any
keeper (memory, PostgreSQL) lets the same groups in, because `admitted` decides for all of them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from baseai.finance.account import Balance
from baseai.finance.chart import Chart
from baseai.finance.exchange import check_exchanges
from baseai.finance.period import Calendar
from baseai.finance.transfer import Transfer, check_resolution, check_reversal
from baseai.finance.trial_balance import TrialBalance
from baseai.ground.fault import Conflict, Fault


class Books(Protocol):
    """What may be done to the books, and asked of them."""

    async def post(self, transfers: Sequence[Transfer]) -> int:
        """Write all of them or none; how many were new.

        The same transfer again is harmless. Raises Conflict when an id is known with another body, when a pending
        transfer that is named is unknown or resolved already, when its resolution does not fit it, or when what is
        reversed is reversed already; PeriodClosed, Overdrawn, UnknownAccount, DimensionMissing, WrongCurrency. A
        limit is looked at once, after all of them.
        """

    async def expire(self, now: datetime) -> int:
        """Free every reservation that timed out at or before `now`; how many."""

    async def calendar(self) -> Calendar:
        """How far the books are closed."""

    async def balance(self, account: str, at: datetime) -> tuple[Balance, ...]:
        """The account in each of its currencies, of what took effect at or before `at`."""

    async def trial_balance(self, at: datetime) -> TrialBalance:
        """All accounts, of what took effect at or before `at`."""


def another_body(transfer_id: str) -> Conflict:
    return Conflict(f"{transfer_id} stands in the books with another body")


def admitted(
    transfers: Sequence[Transfer],
    *,
    chart: Chart,
    calendar: Calendar,
    known: Mapping[str, Transfer],
    answered: Mapping[str, str],
) -> tuple[Transfer, ...]:
    """Those of a group that are new, when all of it may be written. Raises what `Books.post` raises.

    known: every transfer in the books that the group repeats, resolves or reverses.
    answered: for each of these that is resolved or reversed already, by which transfer.
    """
    fresh: dict[str, Transfer] = {}
    for transfer in transfers:
        before = known.get(transfer.transfer_id) or fresh.get(transfer.transfer_id)
        if before is not None and before != transfer:
            raise another_body(transfer.transfer_id)
        if before is None:
            fresh[transfer.transfer_id] = transfer
    taken = dict(answered)
    for transfer in fresh.values():
        chart.check(transfer)
        calendar.check(transfer.transfer_id, booked_in=transfer.booked_in, effective_at=transfer.effective_at)
        named = transfer.pending_id or transfer.reverses_id
        if named is None:
            continue
        original = known.get(named) or fresh.get(named)
        if transfer.pending_id is not None:
            check_resolution(transfer, original)
        else:
            check_reversal(transfer, original)
        if taken.setdefault(named, transfer.transfer_id) != transfer.transfer_id:
            done = "resolved" if transfer.pending_id is not None else "reversed"
            raise Conflict(f"{named} is {done} already; {transfer.transfer_id} comes too late")
    check_exchanges(fresh.values())
    return tuple(fresh.values())


async def post_apart(books: Books, transfers: Sequence[Transfer]) -> Mapping[str, Fault]:
    """Write each entry for itself: what was refused, by entry_id, and why. The others stand."""
    entries: dict[str, list[Transfer]] = {}
    for transfer in transfers:
        entries.setdefault(transfer.entry_id, []).append(transfer)
    refused: dict[str, Fault] = {}
    for entry_id, group in entries.items():
        try:
            await books.post(group)
        except Fault as wrong:
            if wrong.retryable:
                raise
            refused[entry_id] = wrong
    return refused
