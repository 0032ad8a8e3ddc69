"""The chart says which accounts there are: each pattern with its nature, currencies, limit and dimensions.

Invariant: an account that fits no line does not exist, and a transfer on it is refused by name. The most literal
line that fits an account is its line. The chart changes by an edit of `chart.csv` and a migration that brings the
database's copy along; the two are held equal by a test. Nothing changes it while a process runs.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from importlib.resources import files

from baseai.finance.account import Balance
from baseai.finance.transfer import Transfer
from baseai.ground.fault import Conflict, Refused

HOLE = re.compile(r"\{([a-z]+)\}")


class Nature(StrEnum):
    """Debits raise assets and costs; credits raise the others."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    REVENUE = "revenue"
    COST = "cost"


class Limit(StrEnum):
    """Which side of an account may not outgrow the other. What is pending counts against, never in favour."""

    NONE = "none"
    DEBITS = "debits"  # no more may be debited than was credited: a customer's prepayment
    CREDITS = "credits"  # no more may be credited than was debited


class CurrencyRule(StrEnum):
    ANY = "any"  # in each currency apart
    OWN = "own"  # in the one that its name ends with


# What a transfer says beside its amount, by the word of the chart.
DIMENSIONS: Mapping[str, str] = {
    "tenant": "tenant_id",
    "customer": "customer_id",
    "run": "run_id",
    "accelerator": "accelerator_no",
    "site": "site_id",
    "round": "round_id",
}


class UnknownAccount(Refused):
    """A transfer on an account that the chart does not have."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class DimensionMissing(Refused):
    """A transfer that does not say what its account must be summed by."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class WrongCurrency(Refused):
    """An amount in a currency that its account does not take, or a pair that has none in common."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class Overdrawn(Conflict):
    """A transfer that would take an account past its limit."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class BrokenChart(Refused):
    """The chart contradicts itself."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartLine:
    """One kind of account."""

    pattern: str  # the account's name; a hole like {tenant} stands for one part of it
    nature: Nature
    currency: CurrencyRule
    limit: Limit
    dimensions: tuple[str, ...]  # keys of DIMENSIONS
    meaning: str

    def matcher(self) -> str:
        """The pattern as a regular expression that Python and PostgreSQL read alike."""
        parts = HOLE.split(self.pattern)
        return (
            "^" + "".join("[^:]+" if index % 2 else re.escape(part) for index, part in enumerate(parts)) + "$"
        )

    def literal(self) -> int:
        """How much of the pattern stands as it is: of two lines that fit, the more literal one holds."""
        return len(HOLE.sub("", self.pattern))


@dataclass(frozen=True, kw_only=True)
class Chart:
    """All lines."""

    lines: Sequence[ChartLine]
    _known: dict[str, ChartLine] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _matchers(self) -> Sequence[tuple[re.Pattern[str], ChartLine]]:
        ordered = sorted(self.lines, key=lambda line: (-line.literal(), line.pattern))
        return [(re.compile(line.matcher()), line) for line in ordered]

    def find(self, account: str) -> ChartLine | None:
        """The line of `account`."""
        known = self._known.get(account)
        if known is None:
            known = next((line for matcher, line in self._matchers if matcher.match(account)), None)
            if known is not None:
                self._known[account] = known
        return known

    def check(self, transfer: Transfer) -> None:
        """Raises UnknownAccount, WrongCurrency or DimensionMissing, by name, when the transfer does not fit."""
        for account in (transfer.debit_account, transfer.credit_account):
            line = self.find(account)
            if line is None:
                raise UnknownAccount(
                    f"{transfer.transfer_id}: the chart of accounts has no account {account}; add a line to"
                    " finance/chart.csv or correct the name"
                )
            if line.currency is CurrencyRule.OWN and account.rpartition(":")[2] != transfer.currency:
                raise WrongCurrency(f"{transfer.transfer_id}: {account} takes no {transfer.currency}")
            for dimension in line.dimensions:
                if getattr(transfer, DIMENSIONS[dimension]) is None:
                    raise DimensionMissing(
                        f"{transfer.transfer_id}: {account} needs the {dimension} of what it is for"
                    )

    def check_limits(self, balances: Iterable[Balance]) -> None:
        """Raises Overdrawn when one of the balances is past its account's limit."""
        for held in balances:
            line = self.find(held.account)
            if line is not None and (past := past_limit(held, line.limit)) > 0:
                raise Overdrawn(overdrawn_sentence(held.account, held.currency, past))


def past_limit(held: Balance, limit: Limit) -> int:
    """By how many micro-units the account is past its limit; nothing or less when it is not."""
    if limit is Limit.DEBITS:
        return held.debits_micros + held.pending_debits_micros - held.credits_micros
    if limit is Limit.CREDITS:
        return held.credits_micros + held.pending_credits_micros - held.debits_micros
    return 0


def overdrawn_sentence(account: str, currency: str, past_micros: int) -> str:
    return f"{account} would be overdrawn by {past_micros} micro-{currency}; nothing of this group is posted"


def chart_of(text: str) -> Chart:
    """The chart that CSV text describes. Raises BrokenChart, which names line and column."""
    lines: list[ChartLine] = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            line = ChartLine(
                pattern=row["account"],
                nature=Nature(row["nature"]),
                currency=CurrencyRule(row["currency"]),
                limit=Limit(row["limit"]),
                dimensions=tuple(row["dimensions"].split()),
                meaning=row["meaning"],
            )
        except (KeyError, ValueError, AttributeError) as wrong:
            raise BrokenChart(f"chart of accounts, line {number}: {wrong}") from wrong
        if unknown := [name for name in line.dimensions if name not in DIMENSIONS]:
            raise BrokenChart(
                f"chart of accounts, line {number}: {', '.join(unknown)} is no dimension; known are"
                f" {', '.join(DIMENSIONS)}"
            )
        if any(line.pattern == other.pattern for other in lines):
            raise BrokenChart(f"chart of accounts, line {number}: {line.pattern} stands twice")
        lines.append(line)
    return Chart(lines=tuple(lines))


@cache
def load_chart() -> Chart:
    """The chart that is shipped."""
    return chart_of(files("baseai.finance").joinpath("chart.csv").read_text(encoding="utf-8"))
