"""Books held in this process: for the twin, and for tests; they keep the same contract as PostgreSQL's."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from baseai.finance.account import Balance
from baseai.finance.books import admitted
from baseai.finance.chart import Chart, Limit, load_chart
from baseai.finance.period import Calendar
from baseai.finance.transfer import Kind, Transfer, timeouts_of
from baseai.finance.trial_balance import TrialBalance, balances_of


class MemoryBooks:
    """The transfers of one world, in the order in which they were written."""

    def __init__(self, chart: Chart | None = None, calendar: Calendar | None = None) -> None:
        self._chart = chart or load_chart()
        self._calendar = calendar or Calendar()
        self._transfers: dict[str, Transfer] = {}
        self._answered: dict[str, str] = {}  # what is resolved or reversed → by which transfer
        self._limited: dict[tuple[str, str], list[int]] = {}  # sums of accounts with a limit alone

    def __iter__(self) -> Iterator[Transfer]:
        return iter(tuple(self._transfers.values()))

    async def post(self, transfers: Sequence[Transfer]) -> int:
        fresh = admitted(
            transfers,
            chart=self._chart,
            calendar=self._calendar,
            known=self._transfers,
            answered=self._answered,
        )
        limited = self._limited_after(fresh)
        self._chart.check_limits(_balance(key, sums) for key, sums in limited.items())
        self._limited |= limited
        for one in fresh:
            self._transfers[one.transfer_id] = one
            if named := one.pending_id or one.reverses_id:
                self._answered[named] = one.transfer_id
        return len(fresh)

    async def expire(self, now: datetime) -> int:
        late = [
            one
            for one in self._transfers.values()
            if one.kind is Kind.PENDING
            and one.timeout_at is not None
            and one.timeout_at <= now
            and one.transfer_id not in self._answered
        ]
        return await self.post(timeouts_of(late, self._calendar))

    async def calendar(self) -> Calendar:
        return self._calendar

    async def balance(self, account: str, at: datetime) -> tuple[Balance, ...]:
        return tuple(row for row in balances_of(self, at=at) if row.account == account)

    async def trial_balance(self, at: datetime) -> TrialBalance:
        return TrialBalance(at=at, balances=balances_of(self, at=at))

    def close(self, calendar: Calendar) -> None:
        """From now on the books are closed as far as `calendar` says."""
        self._calendar = calendar

    def _limited_after(self, fresh: Sequence[Transfer]) -> dict[tuple[str, str], list[int]]:
        """The sums of the accounts with a limit that `fresh` moves, with it."""
        new = {one.transfer_id: one for one in fresh}
        sums: dict[tuple[str, str], list[int]] = {}
        for transfer in fresh:
            for side, account in enumerate((transfer.debit_account, transfer.credit_account)):
                line = self._chart.find(account)
                if line is None or line.limit is Limit.NONE:
                    continue
                key = (account, transfer.currency)
                row = sums.setdefault(key, list(self._limited.get(key, (0, 0, 0, 0))))
                if transfer.counts():
                    row[side] += transfer.amount_micros
                if transfer.kind is Kind.PENDING:
                    row[side + 2] += transfer.amount_micros
                elif transfer.pending_id is not None:
                    freed = self._transfers.get(transfer.pending_id) or new[transfer.pending_id]
                    row[side + 2] -= freed.amount_micros
        return sums


def _balance(key: tuple[str, str], sums: Sequence[int]) -> Balance:
    return Balance(
        account=key[0],
        currency=key[1],
        debits_micros=sums[0],
        credits_micros=sums[1],
        pending_debits_micros=sums[2],
        pending_credits_micros=sums[3],
    )
