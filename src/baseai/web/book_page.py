"""The pages of the books: what each reads within the visitor's scope, and what it says of it.

Invariant: each figure links to the rows that it is the sum of. What a month came to is read once for everybody who
asks at the same time, and says of which instant it is.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Any

from baseai.finance.bucket import HOUR, NATURE, Bucket, BucketSpan
from baseai.finance.costs.margin import (
    VARIABLE,
    Economics,
    EconomicsBy,
)
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport
from baseai.finance.period import Period, period_named, period_of
from baseai.ground.clock import hour_of, now_utc
from baseai.ground.fault import NotFound, Refused
from baseai.tenancy.role import Deed
from baseai.views.books.asked import Asked
from baseai.web import book_word
from baseai.web.doors import Books, Row
from baseai.web.month import (
    SORTS,
    address,
    area_of,
    buckets_of,
    day_span,
    days_of,
    hours,
    named_of,
    ordered,
    picked_of,
    sort_of,
    statement_of,
)
from baseai.web.strip import Stretch, strip
from baseai.web.visit import Visit

Facts = dict[str, Any]
CURRENCIES = ("USD", "BRL")  # in which sums over currencies may be told
KEPT_S = 5.0  # what an open month came to is not asked for again within this time
PATIENCE_S = 0.5  # how long a visitor waits for a fresher reading, where there is an older one
SHOWN_S = 900.0  # and older than this it is not shown
CLOSED_KEPT_S = 900.0
MONTHS_KEPT = 24
BY = (EconomicsBy.MODEL, EconomicsBy.SITE, EconomicsBy.CUSTOMER, EconomicsBy.ROUND)
# The figures that are hours, and which buckets each is the sum of.
HOURS_OF: Mapping[str, frozenset[Bucket]] = MappingProxyType(
    {
        "installed": frozenset(Bucket),
        "available": frozenset(bucket for bucket in Bucket if NATURE[bucket].available),
        "sold": frozenset(bucket for bucket in Bucket if NATURE[bucket].sold),
        "occupied": frozenset(bucket for bucket in Bucket if NATURE[bucket].used),
        **{bucket.value: frozenset({bucket}) for bucket in Bucket},
    }
)
SUBJECT: Mapping[EconomicsBy, str] = MappingProxyType(
    {
        EconomicsBy.MODEL: "model",
        EconomicsBy.SITE: "site",
        EconomicsBy.CUSTOMER: "tenant",
        EconomicsBy.ROUND: "round",
    }
)


class BookPages:
    """What the pages of the books show."""

    def __init__(self, books: Books, *, kept_s: float = KEPT_S) -> None:
        self.books = books
        self._kept_s = kept_s
        self._readings: dict[tuple[str, str, bool], asyncio.Task[Facts]] = {}
        self._kept: dict[tuple[str, str, bool], tuple[float, Facts]] = {}

    # ---- a month

    async def month(self, visit: Visit, query: Mapping[str, str]) -> Facts:
        """Raises Refused for a month, a day or a place that is none."""
        period, now = _period(query), now_utc()
        places = await self.books.postings.places(visit.scope)
        simulated = _simulated(query, places)
        model, site = query.get("model") or None, query.get("site") or None
        day = _day(query.get("day"))
        currency = query.get("currency") or CURRENCIES[0]
        if currency not in CURRENCIES:
            raise Refused(f"currency={currency} is not one in which sums are told: {', '.join(CURRENCIES)}")
        whole, report = await asyncio.gather(
            self._whole(visit, period, currency, simulated=simulated),
            self._told(period, day, model, site, simulated=simulated),
        )
        picked = {
            "month": str(period),
            "model": model or "",
            "site": site or "",
            "currency": currency if currency != CURRENCIES[0] else "",
            "simulated": "1" if simulated else "",
        }
        sort, falling = sort_of(query.get("sort"))
        names = visit.may(Deed.SEE_CUSTOMERS)
        economics: Mapping[EconomicsBy, Economics] = whole["economics"]
        findings = whole["findings"]
        return {
            "period": period, "months": whole["months"], "at": whole["at"],
            "standing_row": _standing(period, whole["periods"], now),
            "audit": whole["audit"], "findings": findings, "stands": places, "model": model, "site": site, "day": day,
            "simulated": simulated, "has_simulated": {row["simulated"] for row in places} == {True, False},
            "total": picked_of(economics, model, site), "all": economics[EconomicsBy.ALL],
            "tables": [(by, ordered(named_of(economics[by].rows, by, names, visit.language), sort, falling=falling))
                       for by in BY],
            "sort": sort, "falling": falling, "sorts": SORTS, "picked": picked, "names": names,
            "statement": whole["statement"], "rate": whole["rate"], "currency": currency, "currencies": CURRENCIES,
            "withheld_money": bool(findings or economics[EconomicsBy.ALL].withheld) and not names,
            "report": report, "buckets": buckets_of(report),
            "area": area_of(report, period, day, visit.language, picked),
            "address": lambda **changes: address("/books", picked | {"sort": query.get("sort") or ""} | changes),
            "to_hours": lambda figure, **more: address(
                "/books/hours", picked | {"figure": figure} | more
            ),
            "to_postings": lambda nature, **more: address(
                "/books/postings", picked | {"nature": nature} | more
            ),
            "subject_of": SUBJECT, "variable": VARIABLE, "hours": hours,
        }  # fmt: skip

    async def _whole(self, visit: Visit, period: Period, currency: str, *, simulated: bool) -> Facts:
        """What does not depend on what is picked, with the instant it is of. It is for those who see all tenants.

        A closed month does not change. An open one is read again, and shown as it was before where that takes longer
        than people wait: half a million transfers take two seconds. Whoever asks meanwhile waits for that reading.
        """
        key = (str(period), currency, simulated)
        kept = self._kept.get(key)
        age_s = float("inf") if kept is None else time.monotonic() - kept[0]
        if kept is not None and age_s < (CLOSED_KEPT_S if kept[1]["closed"] else self._kept_s):
            return kept[1]
        reading = self._readings.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read(visit, key, period))
            self._readings[key] = reading
            reading.add_done_callback(lambda _: self._readings.pop(key, None))
        if kept is not None and age_s < SHOWN_S:
            await asyncio.wait({reading}, timeout=PATIENCE_S)
            if not reading.done():
                return kept[1]
        return await asyncio.shield(reading)

    async def _read(self, visit: Visit, key: tuple[str, str, bool], period: Period) -> Facts:
        _, currency, simulated = key
        ledger, postings = self.books.ledger, self.books.postings
        movements, months, periods, rate, economics = await asyncio.gather(
            postings.movements(visit.scope, period),
            postings.months(visit.scope),
            ledger.periods(visit.scope),
            postings.rate(visit.scope, period),
            self.books.costs.economics_by(
                period, (EconomicsBy.ALL, EconomicsBy.PLACE, *BY), currency=currency, simulated=simulated
            ),
        )
        try:
            audit = await ledger.newest_check()
        except NotFound:
            audit = None
        whole = {
            "at": now_utc(),
            "closed": any(row["period"] == str(period) and row["state"] == "closed" for row in periods),
            "months": months,
            "periods": periods,
            "rate": rate,
            "audit": audit,
            "findings": [_never_checked()] if audit is None else audit["findings"],
            "statement": statement_of(row for row in movements if row["simulated"] is simulated),
            "economics": economics,
        }
        if len(self._kept) >= MONTHS_KEPT:
            del self._kept[min(self._kept, key=lambda old: self._kept[old][0])]
        self._kept[key] = (time.monotonic(), whole)
        return whole

    async def _told(
        self, period: Period, day: date | None, model: str | None, site: str | None, *, simulated: bool
    ) -> TimeReport:
        """The steps that are drawn: days of the month, or hours of one day."""
        since, until = _span(period, day)
        if since >= until:
            raise Refused(f"{day or period} has not begun")
        return await self.books.time.told(
            since, until, by=TimeBy.BUCKET, pace=Pace.HOUR if day else Pace.DAY, simulated=simulated,
            model=model, site=site,
        )  # fmt: skip

    # ---- down

    async def postings(self, visit: Visit, asked: Asked, after: str | None) -> Facts:
        (rows, more), sums = await asyncio.gather(
            self.books.postings.postings(visit.scope, asked, after=after),
            self.books.postings.posted_sums(visit.scope, asked),
        )
        return {"rows": rows, "more": more, "sums": sums, "asked": asked, "after": after}

    async def account(self, visit: Visit, name: str, query: Mapping[str, str]) -> Facts:
        """Raises NotFound for an account on which nothing ever stood."""
        month = query.get("month") or None
        asked = Asked(account=name, period=month)
        facts = await self.postings(visit, asked, query.get("after"))
        if not facts["rows"] and not await self.books.postings.posted_sums(visit.scope, Asked(account=name)):
            raise NotFound("account with a transfer", name)
        months = await self.books.postings.months(visit.scope)
        return {**facts, "account": name, "months": months, "month": month}

    async def lease(self, visit: Visit, lease_id: str) -> Facts:
        return {**await self.books.postings.lease(visit.scope, lease_id)}

    async def hours(self, visit: Visit, query: Mapping[str, str]) -> Facts:
        """Whose hours a figure is the sum of. Raises Refused for a figure that is none."""
        period, figure = _period(query), query.get("figure") or "sold"
        if figure not in HOURS_OF:
            raise Refused(f"figure={figure} is not known; it is one of {', '.join(HOURS_OF)}")
        model, site = query.get("model") or None, query.get("site") or None
        simulated = query.get("simulated") == "1"
        since, until = _span(period, None)
        standing, report = await asyncio.gather(
            self.books.postings.standing(visit.scope),
            self.books.time.told(
                since, until, by=TimeBy.ACCELERATOR, pace=None, simulated=simulated, model=model, site=site
            ),
        )
        sums: dict[str, int] = defaultdict(int)
        for one in report.sums:
            if one.bucket in HOURS_OF[figure]:
                sums[one.subject or ""] += one.micro_seconds
        rows = [
            {**standing[serial], "us": us}
            for serial, us in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        ]
        return {
            "period": period, "figure": figure, "buckets": [one for one in Bucket if one in HOURS_OF[figure]],
            "rows": rows, "total_us": sum(row["us"] for row in rows), "model": model, "site": site,
            "simulated": simulated, "hours": hours,
            "back": address("/books", {"month": str(period), "model": model or "", "site": site or "",
                                        "simulated": "1" if simulated else ""}),
        }  # fmt: skip

    async def accelerator(self, visit: Visit, serial: str, query: Mapping[str, str]) -> Facts:
        """One accelerator's days of a month, or with `day` the stretches of that day. Raises NotFound, Refused."""
        found = await self.books.postings.accelerator(visit.scope, serial)
        day = _day(query.get("day"))
        period = Period(day.year, day.month) if day else _period(query)
        if day is None:
            since, until = _span(period, None)
            report = await self.books.time.told(
                since,
                until,
                by=TimeBy.ACCELERATOR,
                pace=Pace.DAY,
                simulated=found["simulated"],
                serial=serial,
            )
            return {"accelerator": found, "period": period, "day": None, **days_of(report), "hours": hours}
        since, until = day_span(day)
        stretches, behind = await asyncio.gather(
            self.books.time.stretches(found["accelerator_no"], since, until),
            self.books.postings.behind(visit.scope, found, since, until),
        )
        pieces = [_piece(one, behind, visit) for one in stretches]
        sums: dict[Bucket, int] = defaultdict(int)
        for one in stretches:
            sums[one.bucket] += one.micro_seconds
        language = visit.language
        drawn = [
            Stretch(
                name=one.bucket.value,
                label=f"{book_word.of(language, book_word.BUCKETS, one.bucket.value)}"
                f" {one.from_at.astimezone(language.zone):%H:%M:%S}–{one.until_at.astimezone(language.zone):%H:%M:%S}",
                from_at=one.from_at,
                until_at=one.until_at,
                link=f"/books/leases/{piece['lease']['lease_id']}" if piece["lease"] and piece["opens"] else None,
            )
            for one, piece in zip(stretches, pieces, strict=True)
        ]  # fmt: skip
        picture = strip(
            drawn,
            since,
            until,
            title=language.say("The day %(day)s of %(serial)s", day=day.isoformat(), serial=serial),
        )
        return {
            "accelerator": found, "period": period, "day": day, "pieces": pieces, "strip": picture,
            "sums": [(bucket, sums[bucket]) for bucket in Bucket if sums[bucket]],
            "installed_us": sum(sums.values()), "hours": hours,
            "before": day - timedelta(days=1), "following": day + timedelta(days=1), "until": until,
        }  # fmt: skip

    async def bill(self, visit: Visit, query: Mapping[str, str]) -> Facts:
        """A customer's own month: what is charged, by run and category, each line, and documents."""
        period = _period(query)
        (sums, lines, more), months, invoices = await asyncio.gather(
            self.books.postings.bill(
                visit.scope, period, run=query.get("run") or None, category=query.get("category") or None,
                after=query.get("after"),
            ),
            self.books.postings.months(visit.scope),
            self.books.postings.invoices(visit.scope),
        )  # fmt: skip
        totals: dict[str, int] = defaultdict(int)
        for row in sums:
            totals[row["currency"]] += row["micros"]
        return {
            "period": period, "months": months, "sums": sums, "lines": lines, "more": more, "invoices": invoices,
            "totals": sorted(totals.items()), "run": query.get("run"), "category": query.get("category"),
            "hours": hours,
        }  # fmt: skip


# ---- what an address asks for


def _period(query: Mapping[str, str]) -> Period:
    return period_named(query["month"]) if query.get("month") else period_of(now_utc())


def _day(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as wrong:
        raise Refused(f"day={text} is no day; write it like 2026-11-14") from wrong


def _simulated(query: Mapping[str, str], places: Iterable[Row]) -> bool:
    """As asked; by itself a fleet that is simulated as a whole is shown as such."""
    if query.get("simulated") in ("0", "1"):
        return query["simulated"] == "1"
    kinds = {row["simulated"] for row in places}
    return kinds == {True}


def _span(period: Period, day: date | None) -> tuple[datetime, datetime]:
    """The whole hours of a month or a day, up to the running one."""
    since, until = day_span(day) if day else (period.starts_at(), period.ends_at())
    return since, min(until, hour_of(now_utc()) + HOUR)


# ---- what is shown


def _standing(period: Period, periods: Iterable[Row], now: datetime) -> Row:
    for row in periods:
        if row["period"] == str(period):
            return row
    return {
        "state": "open",
        "digest": None,
        "closed_at": None,
        "closed_by": None,
        "began_at": None,
        "transfers": None,
    }


def _never_checked() -> Row:
    return {"check": "audit", "sentence": "the books were never recomputed; run: baseai books check"}


def _piece(one: BucketSpan, behind: Row, visit: Visit) -> Facts:
    """A stretch with the lease or the move behind it."""
    lease = next(
        (row for row in behind["leases"] if row["from_at"] <= one.from_at and one.from_at < row["until_at"]),
        None,
    )
    move = next((row for row in behind["moves"] if row["at"] <= one.from_at), None)
    leased = NATURE[one.bucket].used or one.bucket in (Bucket.START_UP, Bucket.LOST)
    opens = visit.may(Deed.SEE_CUSTOMERS)
    return {"span": one, "lease": lease if leased or one.bucket is Bucket.BURN_IN else None,
            "move": None if leased else move, "opens": opens}  # fmt: skip
