"""The books as beancount text: every posted transfer a transaction, every balance asserted at the end.

Invariant: whoever runs beancount over the text gets our trial balance or an error, for the text ends with an assertion
of each account in each currency. Names follow from the chart alone and no two accounts share one; the account as we
call it stands beside each. What is only reserved is no transaction.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

from baseai.finance.account import Balance
from baseai.finance.chart import Chart, Nature
from baseai.finance.period import ZONE
from baseai.finance.transfer import Transfer
from baseai.ground.money import MICRO

ROOTS: Mapping[Nature, str] = MappingProxyType(
    {
        Nature.ASSET: "Assets",
        Nature.LIABILITY: "Liabilities",
        Nature.EQUITY: "Equity",
        Nature.REVENUE: "Income",
        Nature.COST: "Expenses",
    }
)
OPENED_ON = date(1970, 1, 1)  # before anything; when an account was first used shows from its transactions
SAID = (
    "period",
    "tenant_id",
    "customer_id",
    "contract_id",
    "run_id",
    "accelerator_no",
    "site_id",
    "round_id",
)


class Journal:
    """The text, part by part: `opening`, then an `entry` for each transfer by day, then `closing`."""

    def __init__(self, chart: Chart, balances: Sequence[Balance]) -> None:
        self._balances = [row for row in sorted(balances) if row.debits_micros or row.credits_micros]
        self._names = names_of(chart, sorted({row.account for row in self._balances}))
        self._last = OPENED_ON

    def opening(self, title: str) -> Iterator[str]:
        yield f'option "title" {_quoted(title)}\n'
        for currency in sorted({row.currency for row in self._balances}):
            yield f'option "operating_currency" "{currency}"\n'
        yield "\n"
        for account, name in self._names.items():
            currencies = ",".join(row.currency for row in self._balances if row.account == account)
            yield f"{OPENED_ON} open {name} {currencies}\n  account: {_quoted(account)}\n"
        yield "\n"

    def entry(self, transfer: Transfer) -> str:
        """One transaction; nothing for a transfer that moves no money. They may come in any order."""
        if not transfer.counts():
            return ""
        on = transfer.effective_at.astimezone(ZoneInfo(ZONE)).date()
        self._last = max(self._last, on)
        lines = [f"{on} * {_quoted(transfer.note or '')}", f"  transfer: {_quoted(transfer.transfer_id)}"]
        lines.append(f"  entry: {_quoted(transfer.entry_id)}")
        for name in SAID:
            value = transfer.booked_in if name == "period" else getattr(transfer, name)
            if value is not None:
                lines.append(f"  {name.removesuffix('_id').replace('_', '-')}: {_quoted(str(value))}")
        amount = amount_of(transfer.amount_micros)
        lines.append(f"  {self._names[transfer.debit_account]}  {amount} {transfer.currency}")
        lines.append(f"  {self._names[transfer.credit_account]}  -{amount} {transfer.currency}")
        return "\n".join(lines) + "\n\n"

    def closing(self) -> Iterator[str]:
        """The assertions; beancount looks at them as the day begins, so they stand on the day after the last."""
        on = self._last + timedelta(days=1)
        for row in self._balances:
            name = self._names[row.account]
            yield f"{on} balance {name}  {amount_of(row.balance_micros())} {row.currency}\n"


def names_of(chart: Chart, accounts: Iterable[str]) -> dict[str, str]:
    """What beancount calls each account. Raises ValueError for one that the chart does not have."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for account in accounts:
        line = chart.find(account)
        if line is None:
            raise ValueError(f"{account} is in no line of the chart")
        name = ":".join([ROOTS[line.nature], *map(_component, account.split(":"))])
        while name in taken:  # two of ours that differ in a mark that beancount does not have
            name += "-x"
        taken.add(name)
        names[account] = name
    return names


def amount_of(micros: int) -> str:
    """Six digits after the point."""
    whole, rest = divmod(abs(micros), MICRO)
    return f"{'-' if micros < 0 else ''}{whole}.{rest:06d}"


def _component(part: str) -> str:
    text = re.sub(r"[^A-Za-z0-9-]", "-", part)
    text = text[:1].upper() + text[1:]
    return text if text[:1].isalnum() else f"X{text}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
