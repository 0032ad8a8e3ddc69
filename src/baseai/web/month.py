"""A month is what its page says of it: a statement by account, tables in the order asked for, what time went to.

Invariant: nothing is reckoned here that finance defines: revenue, margins and ratios are `Economics`, as every door
tells them; this only signs, sums and sorts rows of the books for a page. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from baseai.finance.bucket import HOUR, NATURE, Bucket
from baseai.finance.costs.margin import Economics, EconomicsBy, EconomicsRow, Part
from baseai.finance.hours.sum import TimeReport
from baseai.finance.period import ZONE, Period
from baseai.ground.clock import hour_of
from baseai.ground.money import MICRO
from baseai.web import book_word
from baseai.web.area import AreaWords, Layer, stacked
from baseai.web.language import Language
from baseai.web.phrase import N_

Row = Mapping[str, Any]
Facts = dict[str, Any]
BOOKS_ZONE = ZoneInfo(ZONE)
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


def address(path: str, query: Mapping[str, Any]) -> str:
    """A page's address with what of the query says anything."""
    kept = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(kept)}" if kept else path


def day_span(day: date) -> tuple[datetime, datetime]:
    """A day of the books' zone."""
    since = datetime(day.year, day.month, day.day, tzinfo=BOOKS_ZONE)
    return since, since + timedelta(days=1)


def named_of(
    rows: Sequence[EconomicsRow], by: EconomicsBy, names: bool, language: Language
) -> Sequence[EconomicsRow]:
    """Rows by customer without their names for whoever may not know them: numbered by revenue."""
    if by is not EconomicsBy.CUSTOMER or names:
        return rows
    ranked = sorted(rows, key=lambda row: -row.revenue.micros)
    numbers = {
        id(row): number for number, row in enumerate((one for one in ranked if one.part is Part.SUBJECT), 1)
    }
    return [
        replace(row, subject=None, label=language.say("customer %(number)s", number=numbers[id(row)]))
        if row.part is Part.SUBJECT
        else row
        for row in ranked
    ]


def picked_of(
    economics: Mapping[EconomicsBy, Economics], model: str | None, site: str | None
) -> EconomicsRow | None:
    """The row that the head of the page tells: everything, or a model, a site, or a model at a site."""
    if not model and not site:
        return economics[EconomicsBy.ALL].total
    by, name = EconomicsBy.PLACE, f"{model}@{site}"
    if not site:
        by, name = EconomicsBy.MODEL, model or ""
    elif not model:
        by, name = EconomicsBy.SITE, site
    return next((row for row in economics[by].rows if row.subject == name), None)


def area_of(
    report: TimeReport, period: Period, day: date | None, language: Language, picked: Mapping[str, str]
) -> Facts:
    """The buckets over days of the month or hours of the day: a picture, and the same as a table."""
    starts = _starts(period, day)
    sums: dict[tuple[datetime, Bucket], int] = defaultdict(int)
    for one in report.sums:
        if one.start_at is not None:
            sums[one.start_at, one.bucket] += one.micro_seconds
    seen = {start for start, _ in sums}
    shown = [bucket for bucket in Bucket if any(sums.get((start, bucket)) for start in starts)]
    layers = [
        Layer(
            name=bucket.value,
            label=book_word.of(language, book_word.BUCKETS, bucket.value),
            values=[float(hours(sums[start, bucket])) if start in seen else None for start in starts],
        )
        for bucket in shown
    ]
    labels = [f"{start.astimezone(BOOKS_ZONE):{'%H' if day else '%d'}}" for start in starts]
    links = [
        address("/books", {**picked, "day": f"{start.astimezone(BOOKS_ZONE):%Y-%m-%d}"})
        if day is None and start in seen
        else None
        for start in starts
    ]
    titles = (N_("What accelerators were, day by day"), N_("What accelerators were, hour by hour"))
    words = AreaWords(
        title=language.say(titles[day is not None]),
        description=language.say(
            "%(hours)s accelerator-hours installed in all; the table beside it says the same.",
            hours=language.number(hours(sum(sums.values())), 2),
        ),
        x_axis=language.say("hour of the day") if day else language.say("day of the month"),
        y_axis=language.say("accelerator-hours"),
        number=lambda value: language.number(value, 2),
    )
    rows = []
    for place, start in enumerate(starts):
        values = [sums.get((start, bucket), 0) for bucket in shown]
        if start in seen:
            rows.append((labels[place], links[place], values, sum(values)))
    return {"svg": stacked(labels, layers, words=words, links=links), "shown": shown, "rows": rows}


def _starts(period: Period, day: date | None) -> list[datetime]:
    """The steps of a picture as the time ledger names them."""
    if day:
        since, until = day_span(day)
        first = hour_of(since)
        return [first + number * HOUR for number in range((until - since) // HOUR)]
    since = period.starts_at().astimezone(BOOKS_ZONE)
    days = (period.ends_at() - period.starts_at()) // timedelta(days=1)
    return [since + timedelta(days=number) for number in range(days)]


def days_of(report: TimeReport) -> Facts:
    sums: dict[date, dict[Bucket, int]] = defaultdict(dict)
    for one in report.sums:
        assert one.start_at is not None
        sums[one.start_at.astimezone(BOOKS_ZONE).date()][one.bucket] = one.micro_seconds
    return {
        "shown": [bucket for bucket in Bucket if any(bucket in of_day for of_day in sums.values())],
        "days": sorted(sums.items()),
        "installed_us": report.installed_us,
    }
