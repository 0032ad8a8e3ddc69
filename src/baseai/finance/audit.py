"""An audit adds the books up again from their first row and holds the sum against everything that claims to know it.

Invariant: it reads rows and believes no sum; what it finds blocks publication until a later audit finds nothing. It
changes nothing: a mistake in the books is set right by transfers, a mistake elsewhere where it arose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from baseai.finance.account import Balance
from baseai.finance.chart import Chart, Limit, past_limit
from baseai.finance.period import Finding, Period
from baseai.finance.trial_balance import Fold, TrialBalance, differences_of, digest_of

STALE_AFTER = timedelta(hours=36)  # nightly, and one night may be missed
SHOWN = 5  # accounts that a finding names


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a closed month came to when it was closed."""

    period: Period
    digest: str
    transfers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One recomputation from the first row on."""

    ran_at: datetime
    took_s: float
    transfers: int
    digest: str  # of the trial balance over all of them
    findings: tuple[Finding, ...]


class Genesis:
    """All rows so far, folded by the month in which they are booked."""

    def __init__(self) -> None:
        self._folds: dict[Period, Fold] = {}

    def fold(self, period: Period) -> Fold:
        """Where rows that are booked in `period` go."""
        return self._folds.setdefault(period, Fold())

    def rows(self, through: Period | None = None) -> int:
        return sum(fold.rows for month, fold in self._folds.items() if through is None or month <= through)

    def balances(self, through: Period | None = None) -> tuple[Balance, ...]:
        """Of everything booked in `through` or before; of everything without it."""
        whole = Fold()
        for month, fold in self._folds.items():
            if through is None or month <= through:
                whole.merge(fold)
        return whole.balances()


def findings_of(
    genesis: Genesis,
    *,
    chart: Chart,
    summed: Sequence[Balance],
    limited: Sequence[Balance],
    checkpoints: Iterable[Checkpoint],
    at: datetime,
) -> tuple[Finding, ...]:
    """Everything in which the rows and what was claimed about them differ.

    summed: what the database adds up by itself. limited: the running sums by which it keeps limits.
    """
    folded = genesis.balances()
    found = [*_imbalances(TrialBalance(at=at, balances=folded)), *_strangers(folded, chart)]
    if apart := differences_of(folded, summed):
        found.append(
            Finding(
                check="sums", sentence=f"the database adds up otherwise than its rows do: {_named(apart)}"
            )
        )
    found += _limits(folded, limited, chart)
    for kept in checkpoints:
        now, rows = digest_of(genesis.balances(kept.period)), genesis.rows(kept.period)
        if (now, rows) != (kept.digest, kept.transfers):
            sentence = (
                f"{kept.period} was closed with {kept.transfers} transfers as {kept.digest[:16]}… and comes to"
                f" {now[:16]}… with {rows} now: somebody changed closed rows; compare with a backup"
            )
            found.append(Finding(check="checkpoint", sentence=sentence))
    return tuple(found)


def blocks(newest: Audit | None, *, now: datetime) -> tuple[Finding, ...]:
    """Why nothing may be published from the books, by the newest audit; nothing when it may."""
    if newest is None:
        return (Finding(check="audit", sentence="the books were never recomputed; run: baseai books check"),)
    if now - newest.ran_at > STALE_AFTER:
        sentence = (
            f"the books were last recomputed at {newest.ran_at:%Y-%m-%d %H:%M} UTC; run: baseai books check"
        )
        return (*newest.findings, Finding(check="audit", sentence=sentence))
    return newest.findings


def _imbalances(trial: TrialBalance) -> list[Finding]:
    differences: Mapping[str, int] = trial.difference_micros()
    return [
        Finding(check="balance", sentence=f"debits and credits of {name} differ by {micros} micro-units")
        for name, micros in sorted(differences.items())
        if micros
    ]


def _strangers(folded: Sequence[Balance], chart: Chart) -> list[Finding]:
    names = sorted({row.account for row in folded if chart.find(row.account) is None})
    return [
        Finding(
            check="chart", sentence=f"the chart of accounts has no account {name}, and transfers stand on it"
        )
        for name in names
    ]


def _limits(folded: Sequence[Balance], limited: Sequence[Balance], chart: Chart) -> list[Finding]:
    bound = [
        row
        for row in folded
        if (line := chart.find(row.account)) is not None and line.limit is not Limit.NONE
    ]
    found = [
        Finding(check="limit", sentence=f"{row.account} is past its limit by {past} micro-{row.currency}")
        for row in bound
        if (past := past_limit(row, _limit(chart, row.account))) > 0
    ]
    if apart := differences_of(bound, limited):
        found.append(
            Finding(check="limit", sentence=f"running sums are not those of the rows: {_named(apart)}")
        )
    return found


def _limit(chart: Chart, account: str) -> Limit:
    line = chart.find(account)
    return Limit.NONE if line is None else line.limit


def _named(keys: Sequence[tuple[str, str]]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(f"{account} in {currency}" for account, currency in keys[:SHOWN]) + more
