"""What was agreed as doors show it: words become values, values become rows; the catalogue is the default price list.

Invariant: nothing is decided here. What cannot be is refused by the values themselves, and the refusal names it.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from baseai.catalog.catalog import Catalog
from baseai.finance.contract import Commitment, Contract, months_after
from baseai.finance.contracts.postgres import Agreements, Bulletins, Rater, UsageEvents
from baseai.finance.contracts.postgres.rated_rows import load_rated
from baseai.finance.customer import BRAZIL, Customer, plain_cnpj
from baseai.finance.measure import ACCELERATOR_TIME, MEASURES
from baseai.finance.period import period_named
from baseai.finance.postgres.books import load_calendar
from baseai.finance.price_list import Price, PriceBook, Term, Tier
from baseai.finance.price_sheet import peak_text, prices_in
from baseai.finance.ptax import Bulletin
from baseai.finance.ptax_http import CentralBank
from baseai.finance.rated import RatedLine
from baseai.finance.sla import Promise, Step
from baseai.finance.usage_event import UsageEvent
from baseai.ground.clock import now_utc
from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import derived, mint
from baseai.ground.money import MICRO
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_one

CATALOGUE = "catalogue"
Row = dict[str, Any]


def catalogue_prices(catalog: Catalog) -> tuple[Price, ...]:
    """The catalogue's prices on demand as a list of that name, each until the next of its model."""
    listed = sorted(catalog.prices.prices, key=lambda price: (price.model, price.effective_from))
    following = {
        (one.model, one.effective_from): other.effective_from
        for one, other in itertools.pairwise(listed)
        if one.model == other.model
    }
    return tuple(
        Price(
            price_id=derived("pri", CATALOGUE, price.model, price.effective_from.isoformat()),
            list_id=CATALOGUE,
            term=Term.ON_DEMAND,
            currency=price.currency,
            tiers=(Tier(from_volume=Decimal(0), rate=price.per_hour),),
            valid_from=price.effective_from,
            valid_until=following.get((price.model, price.effective_from)),
            model=price.model,
            source=f"catalogue of {price.effective_from:%Y-%m-%d}",
        )
        for price in listed
    )


class Desk:
    """Customers, contracts, prices, rates of exchange and told usage."""

    def __init__(self, truth: Truth, catalog: Catalog, bank: CentralBank | None = None) -> None:
        self._truth = truth
        self._catalog = catalog
        self._agreements = Agreements(truth)
        self._bulletins = Bulletins(truth)
        self._bank = bank or CentralBank()
        self._listed = catalogue_prices(catalog)
        self.rater = Rater(truth, load_calendar, lambda: self._listed)

    async def customers(self, scope: Scope) -> list[Row]:
        return [asdict(one) for one in await self._agreements.customers(scope)]

    async def add_customer(self, said: Mapping[str, Any], *, actor: str) -> Row:
        country, tax_id = said["country"], said["tax_id"]
        tenant_id = await self._tenant_id(said["tenant"])
        try:
            customer = Customer(
                customer_id=mint("cus"),
                tenant_id=tenant_id,
                legal_name=said["legal_name"],
                country=country,
                tax_id=plain_cnpj(tax_id) if country == BRAZIL else tax_id.strip(),
                currency=said["currency"],
            )
        except ValueError as wrong:
            raise Refused(f"customer {said['legal_name']}: {_after_id(wrong)}") from wrong
        return asdict(await self._agreements.add_customer(customer, actor=actor))

    async def contracts(self, scope: Scope) -> list[Row]:
        return [_contract_row(one) for one in await self._agreements.contracts(scope)]

    async def add_contract(self, said: Mapping[str, Any], *, actor: str) -> Row:
        tenant_id = await self._tenant_id(said["tenant"])
        customer = next(
            (one for one in await self._agreements.customers() if one.tenant_id == tenant_id), None
        )
        if customer is None:
            raise Refused(
                f"tenant {said['tenant']} has no customer yet; add who pays with `baseai customer add`"
            )
        for one in said["commitments"]:
            self._catalog.accelerator(one["model"])
        if said["months"] is not None and said["until_at"] is not None:
            raise Refused("a contract lasts a number of months or until an instant, not both")
        try:
            until_at = said["until_at"]
            if said["months"] is not None:
                until_at = months_after(said["from_at"], said["months"])
            minimum = said["minimum"]
            contract = Contract(
                contract_id=mint("con"),
                name=said["name"],
                customer_id=customer.customer_id,
                tenant_id=tenant_id,
                project_id=await self._project_id(tenant_id, said["project"]),
                term=Term(said["term"]),
                currency=said["currency"],
                from_at=said["from_at"].astimezone(UTC),
                until_at=until_at.astimezone(UTC) if until_at is not None else None,
                list_id=said["list"],
                discount_ratio=said["discount"],
                minimum_micros=None if minimum is None else int(minimum * MICRO),
                commitments=tuple(
                    Commitment(model=one["model"], count=one["count"], site_id=one["site"])
                    for one in said["commitments"]
                ),
                promise=Promise(
                    steps=tuple(
                        Step(below_ratio=step["below"], credit_ratio=step["credit"])
                        for step in said["promise"]
                    )
                )
                if said["promise"]
                else None,
            )
        except ValueError as wrong:
            raise Refused(f"contract {said['name']}: {_after_id(wrong)}") from wrong
        return _contract_row(await self._agreements.add_contract(contract, actor=actor))

    async def end_contract(self, name: str, at: datetime | None, *, reason: str, actor: str) -> Row:
        ended = await self._agreements.end_contract(name, at or now_utc(), reason=reason, actor=actor)
        return _contract_row(ended)

    async def seat_events(self, scope: Scope, name: str, since: datetime | None) -> list[Row]:
        return [
            {"event_id": one.event_id, "subject": one.subject, "turn": one.turn.value, "at": one.at}
            for one in await self._agreements.seat_events(name, scope)
            if since is None or one.at >= since
        ]

    async def close_contract(self, name: str, period: str) -> list[Row]:
        return [_rated_row(line) for line in await self.rater.close_month(name, period_named(period))]

    async def prices(self, list_id: str | None) -> list[Row]:
        listed = self._listed if list_id in (None, CATALOGUE) else ()
        return [_price_row(price) for price in (*await self._agreements.prices(list_id), *listed)]

    async def add_prices(self, list_id: str, text: str, file: str, *, actor: str) -> int:
        if list_id == CATALOGUE:
            raise Refused("the catalogue's prices come with the software; give the list another name")
        prices = prices_in(text, list_id=list_id, file=file, source=f"{file}, by {actor}")
        for price in prices:
            if price.meter == ACCELERATOR_TIME and price.model is not None:
                self._catalog.accelerator(price.model)
        return await self._agreements.add_prices(prices, actor=actor)

    async def price_book(self) -> PriceBook:
        """Every price, the catalogue's among them, to be asked."""
        return PriceBook([*await self._agreements.prices(), *self._listed])

    async def follow(self, prices: Sequence[Price], *, actor: str) -> int:
        """Add prices that close the open ones they follow; how many were new. Raises Conflict, Refused."""
        if any(price.list_id == CATALOGUE for price in prices):
            raise Refused("the catalogue's prices come with the software; give the list another name")
        return await self._agreements.add_prices(prices, actor=actor)

    async def bulletins(self, from_on: date, until_on: date) -> list[Row]:
        return [_bulletin_row(one) for one in await self._bulletins.between(from_on, until_on)]

    async def fetch_bulletins(self, from_on: date, until_on: date) -> list[Row]:
        told = await self._bank.bulletins(from_on, until_on, now=now_utc())
        await self._bulletins.keep(told)
        return [_bulletin_row(one) for one in told]

    async def exchange(self, on: date) -> Row:
        found = await self._bulletins.exchange(on)
        return {
            "asked": on,
            "sell": found.sell,
            "day": found.bulletin.day,
            "bulletin_at": found.bulletin.bulletin_at,
            "note": found.note,
        }

    async def record_usage(self, events: Sequence[Mapping[str, Any]]) -> Row:
        taken = await UsageEvents(self._truth).record([UsageEvent(**event) for event in events])
        return asdict(taken)

    async def rated_lines(
        self,
        scope: Scope,
        *,
        period: str | None,
        contract: str | None,
        run_id: str | None,
        limit: int,
        cursor: str | None,
    ) -> tuple[list[Row], str | None]:
        most = min(max(1, limit), 500)
        contract_id = None
        if contract is not None:
            known = await self._agreements.contracts(scope)
            contract_id = next((c.contract_id for c in known if contract in (c.name, c.contract_id)), None)
            if contract_id is None:
                raise NotFound("contract", contract)
        found = await load_rated(
            self._truth,
            scope,
            period=period,
            contract_id=contract_id,
            run_id=run_id,
            after=cursor,
            limit=most + 1,
        )
        shown = found[:most]
        return [_rated_row(line) for line in shown], shown[-1].rated_id if len(found) > most else None

    async def _tenant_id(self, name: str) -> str:
        async with self._truth.transaction(PLATFORM) as session:
            row = await fetch_one(
                session, "SELECT tenant_id FROM tenants WHERE name = %s OR tenant_id = %s", (name, name)
            )
        if row is None:
            raise NotFound("tenant", name)
        return str(row["tenant_id"])

    async def _project_id(self, tenant_id: str, name: str | None) -> str | None:
        if name is None:
            return None
        query = "SELECT project_id FROM projects WHERE tenant_id = %s AND (name = %s OR project_id = %s)"
        async with self._truth.transaction(PLATFORM) as session:
            row = await fetch_one(session, query, (tenant_id, name, name))
        if row is None:
            raise NotFound("project", name)
        return str(row["project_id"])


def _after_id(wrong: ValueError) -> str:
    """What a value says of itself, without the id that was made for it a moment ago."""
    head, colon, rest = str(wrong).partition(": ")
    return rest if colon and " " not in head else str(wrong)


def _contract_row(contract: Contract) -> Row:
    minimum = contract.minimum_micros
    return {
        "contract_id": contract.contract_id,
        "name": contract.name,
        "customer_id": contract.customer_id,
        "tenant_id": contract.tenant_id,
        "project_id": contract.project_id,
        "term": contract.term.value,
        "currency": contract.currency,
        "from_at": contract.from_at,
        "until_at": contract.until_at,
        "ended_at": contract.ended_at,
        "list": contract.list_id,
        "discount": contract.discount_ratio,
        "minimum": None if minimum is None else Decimal(minimum) / MICRO,
        "commitments": [
            {"model": one.model, "count": one.count, "site": one.site_id} for one in contract.commitments
        ],
        "promise": [
            {"below": step.below_ratio, "credit": step.credit_ratio}
            for step in (contract.promise.steps if contract.promise is not None else ())
        ],
    }


def _price_row(price: Price) -> Row:
    return {
        "price_id": price.price_id,
        "list": price.list_id,
        "meter": price.meter,
        "model": price.model,
        "site": price.site_id,
        "term": price.term.value,
        "months": price.months,
        "unit": price.unit,
        "currency": price.currency,
        "tiers": [{"from_volume": tier.from_volume, "rate": tier.rate} for tier in price.tiers],
        "peaks": [peak_text(peak) for peak in price.peaks],
        "valid_from": price.valid_from,
        "valid_until": price.valid_until,
        "source": price.source,
    }


def _bulletin_row(bulletin: Bulletin) -> Row:
    return {
        "day": bulletin.day,
        "sell": bulletin.sell,
        "bulletin_at": bulletin.bulletin_at,
        "fetched_at": bulletin.fetched_at,
    }


def _rated_row(line: RatedLine) -> Row:
    measure = MEASURES[line.meter]
    return {
        **asdict(line),
        "category": line.category.value,
        "amount": Decimal(line.amount_micros) / MICRO,
        "quantity": measure.priced(line.quantity),
        "unit": measure.priced_per,
    }
