"""Costs as doors show them: economics, assumptions, suggested prices; values become rows.

Invariant: nothing is decided here: margins are those of `finance.costs.margin`, prices those of the rules of yield, and
a suggestion becomes a price only through the desk that keeps price lists.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from baseai.catalog.bounds import Bounds, Case
from baseai.finance.clause import DEFAULT_LISTS
from baseai.finance.costs.assumed import Assumed, quantities
from baseai.finance.costs.margin import CostNature, Economics, EconomicsBy, EconomicsRow, Part
from baseai.finance.costs.postgres import CostKeeper, load_walked
from baseai.finance.costs.postgres.suggestions import Suggestions
from baseai.finance.costs.suggestion import Kept, Selling, Suggested, suggest, yield_rules
from baseai.finance.costs.terms import HOURS_PER_MONTH, USD, Terms
from baseai.finance.measure import ACCELERATOR_TIME
from baseai.finance.period import Period, period_named, period_of
from baseai.finance.price_list import Price, PriceBook, Term, Tier
from baseai.ground.clock import hour_of, now_utc
from baseai.ground.fault import Conflict, Refused
from baseai.ground.identity import derived, mint
from baseai.truth.session import Scope, Truth
from baseai.wiring.agreements import Desk

Row = dict[str, Any]
HOUR_US = 3_600_000_000
TERMS = (Term.ON_DEMAND, Term.RESERVED, Term.SPOT)
CURRENCIES = ("USD", "BRL")

_Choice = TypeVar("_Choice", bound=StrEnum)


class Costing:
    """Costs and yield."""

    def __init__(self, truth: Truth, keeper: CostKeeper, desk: Desk) -> None:
        self._truth = truth
        self._keeper = keeper
        self._desk = desk
        self._suggestions = Suggestions(truth)

    async def economics(
        self, period: str | None, *, by: str, case: str, currency: str, simulated: bool, taxes: str | None
    ) -> Row:
        if currency not in CURRENCIES:
            raise Refused(f"currency={currency} is not known; it is one of {', '.join(CURRENCIES)}")
        found = await self._keeper.economics(
            _month(period),
            by=_chosen(EconomicsBy, "by", by),
            case=_chosen(Case, "case", case),
            currency=currency,
            simulated=simulated,
            taxes=taxes,
        )
        return _economics_row(found)

    async def behind(
        self,
        period: str | None,
        figure: str,
        *,
        by: str,
        subject: str | None,
        simulated: bool,
        limit: int,
        cursor: str | None,
    ) -> tuple[list[Row], str | None]:
        rows, more = await load_walked(
            self._truth,
            _month(period),
            figure,
            by=_chosen(EconomicsBy, "by", by),
            subject=subject,
            simulated=simulated,
            after=cursor or "",
            limit=limit,
        )
        return [
            {
                "id": one.id,
                "at": one.at,
                "amount": one.amount,
                "currency": one.currency,
                "micro_seconds": one.micro_seconds,
                "what": one.what,
                "tenant_id": one.tenant_id,
                "run_id": one.run_id,
                "lease_id": one.lease_id,
                "serial": one.serial,
                "model": one.model,
                "site": one.site_id,
                "price_id": one.price_id,
                "note": one.note,
            }
            for one in rows
        ], more

    # ---- assumptions ------------------------------------------------------------------------------------------

    async def assumptions(self, *, stale: bool, every: bool) -> list[Row]:
        now = now_utc()
        held = await self._keeper.refresh()
        holding = {one.assumption_id for one in held.now(now)}
        return [
            _assumption_row(one, now, holds=one.assumption_id in holding)
            for one in sorted(held.versions, key=lambda one: (one.subject, one.name, one.valid_from))
            if (every or one.assumption_id in holding) and (not stale or one.stale(now.date()))
        ]

    async def record(self, said: Mapping[str, Any], scope: Scope) -> Row:
        now = now_utc()
        quantity = quantities().get(said["name"])
        try:
            version = Assumed(
                assumption_id=mint("asm"),
                subject=said["subject"],
                name=said["name"],
                bounds=Bounds(low=said["low"], default=said["default"], high=said["high"]),
                unit=quantity.unit if quantity is not None else "",
                currency=said["currency"],
                source=said["source"],
                source_on=said["source_on"] or now.date(),
                mark=said["mark"],
                valid_from=said["valid_from"] or now,
                recorded_by=scope.actor,
            )
        except ValueError as wrong:
            raise Refused(str(wrong)) from wrong
        if version.source_on > now.date():
            raise Refused(
                f"{version.name} of {version.subject}: its source is of {version.source_on}, a day to come"
            )
        return _assumption_row(
            await self._keeper.record(version, scope), now, holds=version.valid_from <= now
        )

    # ---- yield ------------------------------------------------------------------------------------------------

    async def suggest(self, scope: Scope) -> Row:
        """Reckon what the rules would make of every price of this month, and keep it as proposals."""
        now = now_utc()
        month = await self._keeper.economics(period_of(now), by=EconomicsBy.PLACE)
        book = await self._desk.price_book()
        waiting = await self._suggestions.waiting()
        suggested, kept = [], []
        for row in month.rows:
            if row.part is not Part.SUBJECT or row.subject is None:
                continue
            model, _, site_id = row.subject.partition("@")
            terms = self._keeper.terms.find(model, site_id, now)
            if terms is None:
                kept.append(f"{row.subject}: what it costs is not known")
                continue
            for term in TERMS:
                selling = self._selling(
                    row,
                    (model, site_id, term),
                    book,
                    terms,
                    now,
                    waiting.get(model, Decimal(0)),
                )
                if isinstance(selling, str):
                    kept.append(f"{row.subject} {term.value}: {selling}")
                    continue
                found = suggest(selling, yield_rules())
                if isinstance(found, Kept):
                    kept.append(f"{row.subject} {term.value}: {found.sentence}")
                else:
                    suggested.append(found)
        return {"items": await self._proposed(suggested, scope), "kept": kept}

    async def suggestions(self, state: str | None) -> list[Row]:
        return [_suggestion_row(row) for row in await self._suggestions.list(state)]

    async def apply(self, suggestion_id: str, list_id: str, scope: Scope) -> Row:
        """Raises NotFound, Conflict when it is settled or the price is another one by now, Refused."""
        row = await self._suggestions.find(suggestion_id)
        if row["state"] != "proposed":
            raise Conflict(f"{suggestion_id} is {row['state']} already; look at `baseai price suggest` again")
        now = now_utc()
        begins = hour_of(now) + timedelta(hours=1)
        term = Term(row["term"])
        current = price_held(await self._desk.price_book(), row["model"], row["site_id"], term, now)
        rate_now = Decimal(0) if current is None else current.tiers[0].rate
        if rate_now != row["now_rate"]:
            raise Conflict(
                f"{suggestion_id} was made for a price of {row['now_rate']} and it is {rate_now} by now;"
                " `baseai price suggest` reckons it anew"
            )
        price = Price(
            price_id=derived("pri", list_id, suggestion_id),
            list_id=list_id,
            term=term,
            currency=row["currency"],
            tiers=_tiers(current, row["rate"]),
            peaks=() if current is None else current.peaks,
            valid_from=begins,
            model=row["model"],
            site_id=row["site_id"],
            source=f"suggestion {suggestion_id}, applied by {scope.actor}",
        )
        await self._desk.follow([price], actor=scope.actor)
        return _suggestion_row(
            await self._suggestions.settle(
                suggestion_id, "applied", scope, price_id=price.price_id, list_id=list_id
            )
        )

    async def decline(self, suggestion_id: str, scope: Scope) -> Row:
        await self._suggestions.find(suggestion_id)
        return _suggestion_row(await self._suggestions.settle(suggestion_id, "declined", scope))

    async def _proposed(self, suggested: Sequence[Suggested], scope: Scope) -> list[Row]:
        return [_suggestion_row(row) for row in await self._suggestions.propose(suggested, scope)]

    def _selling(
        self,
        row: EconomicsRow,
        line: tuple[str, str, Term],
        book: PriceBook,
        terms: Terms,
        now: datetime,
        waiting: Decimal,
    ) -> Selling | str:
        """How a line of the lists sells, or why its price is not to be moved."""
        model, site_id, term = line
        listed = price_held(book, model, site_id, Term.ON_DEMAND, now)
        current = price_held(book, model, site_id, term, now)
        before = price_held(book, model, site_id, term, period_of(now).starts_at())
        if listed is None:
            return "it has no price on demand"
        if listed.currency != USD or (current is not None and current.currency != USD):
            return "its price is not in USD, in which costs are reckoned"
        if current is None and term is not Term.SPOT:
            return "there is no price to move"
        cost, earned = self._variable_cost(terms, now), row.revenue_per_sold_hour
        return Selling(
            model=model,
            site_id=site_id,
            term=term,
            currency=USD,
            rate=None if current is None else current.tiers[0].rate,
            month_rate=None if before is None else before.tiers[0].rate,
            list_rate=listed.tiers[0].rate,
            variable_cost=cost,
            utilisation_ratio=None if row.utilisation_ratio is None else Decimal(str(row.utilisation_ratio)),
            waiting_ratio=waiting,
            contribution_ratio=1 - cost / earned if earned else None,
        )

    def _variable_cost(self, terms: Terms, now: datetime) -> Decimal:
        """US$ that an accelerator-hour costs while it is sold, without owning it; collecting takes its share on top."""
        per_kw_month = terms.network_per_kw_month + terms.demand_per_kw_month * terms.pue_ratio
        spent = (
            terms.energy_per_hour(now)
            + terms.colocation_per_hour()
            + terms.kilowatts * per_kw_month / HOURS_PER_MONTH
            + terms.support_per_hour()
        )
        fee = self._keeper.terms.assumptions.find("payment_fee_ratio", now)
        return spent / (1 - (fee.bounds.default if fee is not None else Decimal(0)))


def price_held(book: PriceBook, model: str, site_id: str | None, term: Term, at: datetime) -> Price | None:
    return book.price(DEFAULT_LISTS, meter=ACCELERATOR_TIME, model=model, site_id=site_id, term=term, at=at)


def _tiers(current: Price | None, rate: Decimal) -> tuple[Tier, ...]:
    """The tiers of the price now, each in its ratio to the first."""
    if current is None or not current.tiers[0].rate:
        return (Tier(from_volume=Decimal(0), rate=rate),)
    first = current.tiers[0].rate
    return tuple(
        Tier(from_volume=tier.from_volume, rate=(rate * tier.rate / first).quantize(Decimal("0.000001")))
        for tier in current.tiers
    )


def _month(text: str | None) -> Period:
    return period_named(text) if text else period_of(now_utc())


def _chosen(kind: type[_Choice], name: str, text: str) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        raise Refused(f"{name}={text} is not known; it is one of {', '.join(kind)}") from None


def _hours(micro_seconds: int) -> Decimal:
    return (Decimal(micro_seconds) / HOUR_US).quantize(Decimal("0.000001"))


def _economics_row(found: Economics) -> Row:
    return {
        "period": str(found.period),
        "by": found.by.value,
        "case": found.case.value,
        "currency": found.currency,
        "until_at": found.until_at,
        "rows": [_row(one) for one in found.rows],
        "total": _row(found.total),
        "energy": [
            {
                "origin": one.origin,
                "kwh": one.kwh.quantize(Decimal("0.000001")),
                "accelerator_hours": _hours(one.accelerator_us),
            }
            for one in found.energy
        ],
        "assumptions": list(found.assumptions),
        "stale": list(found.stale),
        "exchange": list(found.exchange),
        "apart": {one.currency: one.amount() for one in found.apart},
        "withheld": list(found.withheld),
        "basis": list(found.basis),
    }


def _row(one: EconomicsRow) -> Row:
    return {
        "part": one.part.value,
        "subject": one.subject,
        "label": one.label,
        "installed_hours": _hours(one.time.installed_us),
        "available_hours": _hours(one.time.available_us),
        "sold_hours": _hours(one.time.sold_us),
        "occupied_hours": _hours(one.time.occupied_us),
        "utilisation_ratio": one.utilisation_ratio,
        "occupied_ratio": one.occupied_ratio,
        "active_ratio": None if one.activity is None else one.activity.ratio,
        "revenue": one.revenue.amount(),
        "revenue_per_available_hour": one.revenue_per_available_hour,
        "revenue_per_sold_hour": one.revenue_per_sold_hour,
        "costs": {nature.value: one.costs[nature].amount() for nature in CostNature if nature in one.costs},
        "cost": one.cost.amount(),
        "cost_low": one.cost_low.amount(),
        "cost_high": one.cost_high.amount(),
        "accruing": one.accruing.amount(),
        "contribution": one.contribution.amount(),
        "contribution_ratio": one.contribution_ratio,
        "depreciation": one.depreciation.amount(),
        "result": one.result.amount(),
        "capital_recovery": one.capital_recovery.amount(),
        "after_capital": one.after_capital.amount(),
        "transfers": one.transfers,
    }


def _assumption_row(one: Assumed, now: datetime, *, holds: bool) -> Row:
    return {
        "assumption_id": one.assumption_id,
        "subject": one.subject,
        "name": one.name,
        "low": one.bounds.low,
        "default": one.bounds.default,
        "high": one.bounds.high,
        "unit": one.unit,
        "currency": one.currency,
        "source": one.source,
        "source_on": one.source_on,
        "mark": one.mark,
        "valid_from": one.valid_from,
        "recorded_by": one.recorded_by,
        "stale": one.stale(now.date()),
        "holds": holds,
    }


def _suggestion_row(row: Mapping[str, Any]) -> Row:
    return {**row, "site": row["site_id"], "now_rate": row["now_rate"] or None}
