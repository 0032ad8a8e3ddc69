"""A month is what its page says of it: a statement by account, tables in the order asked for, what time went to.

Invariant: nothing is reckoned here that finance defines: revenue, margins and ratios are `Economics`, as every door
tells them; this only signs, sums and sorts rows of the books for a page. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from baseai.finance.bucket import NATURE, Bucket
from baseai.finance.costs.margin import EconomicsRow, Part
from baseai.finance.hours.sum import TimeReport
from baseai.ground.money import MICRO

Row = Mapping[str, Any]
HOUR_US = Decimal(3_600_000_000)
CAPITAL = "cost:depreciation"  # stands last among costs, for it is in no contribution
SORTS = (
    "label", "installed", "available", "sold", "revenue", "per_available", "per_sold", "contribution", "ratio",
    "capital", "utilisation",
)  # fmt: skip


def hours(us: int) -> Decimal:
    return Decimal(us) / HOUR_US


def side_of(row: Row) -> tuple[str, str, int] | None:
    """(nature, account, signed micros) of a movement in or out of revenue or cost; None for any other."""
    for account, sign in ((row["credit_account"], 1), (row["debit_account"], -1)):
        if account.startswith("revenue:"):
            return "revenue", account, sign * row["micros"]
    for account, sign in ((row["debit_account"], 1), (row["credit_account"], -1)):
        if account.startswith("cost:"):
            return "cost", account, sign * row["micros"]
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a month's statement: an account with what moved on it."""

    account: str
    nature: str
    currency: str
    micros: int  # revenue and cost each count up
    transfers: int

    @property
    def amount(self) -> Decimal:
        return Decimal(self.micros) / MICRO


def statement_of(movements: Iterable[Row]) -> list[Entry]:
    """Revenue and cost of a month by account and currency, revenue first."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in movements:
        side = side_of(row)
        if side is not None:
            nature, account, micros = side
            sums[nature, account, row["currency"]][0] += micros
            sums[nature, account, row["currency"]][1] += row["transfers"]
    order = {"revenue": 0, "cost": 1}
    return [
        Entry(account=account, nature=nature, currency=currency, micros=micros, transfers=transfers)
        for (nature, account, currency), (micros, transfers) in sorted(
            sums.items(), key=lambda item: (order[item[0][0]], item[0][1] == CAPITAL, item[0][1:])
        )
    ]


def totals_of(entries: Iterable[Entry], nature: str) -> list[tuple[str, Decimal]]:
    """What the entries of a nature come to in each currency."""
    sums: dict[str, int] = defaultdict(int)
    for entry in entries:
        if entry.nature == nature:
            sums[entry.currency] += entry.micros
    return [(currency, Decimal(micros) / MICRO) for currency, micros in sorted(sums.items())]


def ordered(rows: Sequence[EconomicsRow], sort: str, *, falling: bool) -> list[EconomicsRow]:
    """By one of SORTS; what is not known comes last either way, idle time and overhead after all subjects."""
    keyed = [(row, _key(row, sort)) for row in rows if row.part is Part.SUBJECT]
    known = sorted((row for row, key in keyed if key is not None), key=lambda row: row.label)
    known.sort(key=lambda row: _key(row, sort), reverse=falling)
    return [
        *known,
        *(row for row, key in keyed if key is None),
        *(row for row in rows if row.part is not Part.SUBJECT),
    ]


def _key(row: EconomicsRow, sort: str) -> Any:
    return {
        "label": row.label, "installed": row.time.installed_us, "available": row.time.available_us,
        "sold": row.time.sold_us, "revenue": row.revenue.micros, "per_available": row.revenue_per_available_hour,
        "per_sold": row.revenue_per_sold_hour, "contribution": row.contribution.micros,
        "ratio": row.contribution_ratio, "capital": row.capital_recovery.micros, "utilisation": row.utilisation_ratio,
    }[sort]  # fmt: skip


def sort_of(text: str | None) -> tuple[str, bool]:
    """`revenue` rises, `-revenue` falls; anything else is the order that a table has by itself."""
    name = (text or "").removeprefix("-")
    return (name, (text or "").startswith("-")) if name in SORTS else ("revenue", True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRow:
    """How much of what was installed was in one bucket."""

    bucket: Bucket
    us: int
    ratio: float

    @property
    def hours(self) -> Decimal:
        return hours(self.us)

    @property
    def sold(self) -> bool:
        return NATURE[self.bucket].sold

    @property
    def available(self) -> bool:
        return NATURE[self.bucket].available


def buckets_of(report: TimeReport) -> list[BucketRow]:
    """Of a report's whole span, the first bucket first; their sum is installed time."""
    sums: dict[Bucket, int] = defaultdict(int)
    for one in report.sums:
        sums[one.bucket] += one.micro_seconds
    return [
        BucketRow(bucket=bucket, us=sums[bucket], ratio=sums[bucket] / report.installed_us)
        for bucket in Bucket
        if sums[bucket]
    ]
