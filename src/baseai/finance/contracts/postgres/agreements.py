"""Customers, contracts and prices in the truth: added, ended or closed, never edited.

Invariant: the pure rules name what contradicts what; the database's exclusion constraints refuse the same of a writer
that came between reading and writing. A write is one transaction, whole or not at all.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.errors import ExclusionViolation, ForeignKeyViolation, UniqueViolation
from psycopg.rows import DictRow

from baseai.finance.contract import Commitment, Contract, contract_faults
from baseai.finance.contracts.postgres.seats import load_seat_events
from baseai.finance.customer import Customer
from baseai.finance.price_list import Peak, Price, Term, Tier, line_of, price_faults
from baseai.finance.sla import HealthEvent, Promise, Step
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all, fetch_one

CUSTOMERS = """
SELECT customer_id, tenant_id, legal_name, country, tax_id, currency FROM customers ORDER BY legal_name, customer_id
"""
CONTRACTS = """
SELECT c.contract_id, c.name, c.customer_id, c.tenant_id, c.project_id, c.term, c.currency, c.from_at, c.until_at,
  c.ended_at, c.list_id, c.discount_ratio, c.minimum_micros, c.promise,
  (SELECT jsonb_agg(jsonb_build_array(m.model, m.site_id, m.accelerators) ORDER BY m.model, m.site_id)
    FROM commitments m WHERE m.contract_id = c.contract_id) AS commitments
FROM contracts c WHERE %(tenant_id)s::text IS NULL OR c.tenant_id = %(tenant_id)s ORDER BY c.from_at, c.name
"""
PRICES = """
SELECT price_id, list_id, meter, unit, term, model, site_id, months, currency, tiers, peaks,
  lower(valid) AS valid_from, upper(valid) AS valid_until, source
FROM prices WHERE %(list_id)s::text IS NULL OR list_id = %(list_id)s
ORDER BY list_id, meter, model, site_id, term, months, lower(valid)
"""


class Agreements:
    """What was agreed with customers, and what things cost."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    # ---- customers --------------------------------------------------------------------------------------------

    async def add_customer(self, customer: Customer, *, actor: str) -> Customer:
        """Raises NotFound for a tenant that is none, Conflict when the tenant has a customer already."""
        async with self._truth.transaction() as session:
            try:
                await session.execute(
                    "INSERT INTO customers (customer_id, tenant_id, legal_name, country, tax_id, currency, added_by)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    (
                        customer.customer_id,
                        customer.tenant_id,
                        customer.legal_name,
                        customer.country,
                        customer.tax_id,
                        customer.currency,
                        actor,
                    ),
                )
            except UniqueViolation as wrong:
                raise Conflict(
                    f"tenant {customer.tenant_id} has a customer already; a customer is not edited"
                ) from wrong
            except ForeignKeyViolation as wrong:
                raise NotFound("tenant", customer.tenant_id) from wrong
        return customer

    async def customers(self, scope: Scope = PLATFORM) -> tuple[Customer, ...]:
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(session, CUSTOMERS)
        return tuple(Customer(**row) for row in rows)

    # ---- contracts --------------------------------------------------------------------------------------------

    async def add_contract(self, contract: Contract, *, actor: str) -> Contract:
        """Raises Conflict, naming both, when it overlaps another one; NotFound for a customer that is none."""
        async with self._truth.transaction() as session:
            await _lock(session, "contracts", contract.tenant_id)
            known = await load_contracts(session, contract.tenant_id)
            faults = contract_faults([*known, contract])
            if faults:
                raise Conflict("; ".join(faults))
            row = _contract_row(contract) | {"made_by": actor}
            try:
                await session.execute(
                    "INSERT INTO contracts (contract_id, name, customer_id, tenant_id, project_id, term, currency,"
                    " from_at, until_at, list_id, discount_ratio, minimum_micros, promise, made_by) VALUES"
                    " (%(contract_id)s, %(name)s, %(customer_id)s, %(tenant_id)s, %(project_id)s, %(term)s,"
                    " %(currency)s, %(from_at)s, %(until_at)s, %(list_id)s, %(discount_ratio)s, %(minimum_micros)s,"
                    " %(promise)s, %(made_by)s)",
                    row,
                )
                for one in contract.commitments:
                    await session.execute(
                        "INSERT INTO commitments (contract_id, tenant_id, project_id, model, site_id, accelerators,"
                        " during) VALUES (%s, %s, %s, %s, %s, %s, tstzrange(%s, %s))",
                        (
                            contract.contract_id,
                            contract.tenant_id,
                            contract.project_id,
                            one.model,
                            one.site_id,
                            one.count,
                            contract.from_at,
                            contract.until_at,
                        ),
                    )
            except (UniqueViolation, ExclusionViolation) as wrong:
                raise Conflict(
                    f"contract {contract.name} contradicts another one: {wrong.diag.message_detail}"
                ) from wrong
            except ForeignKeyViolation as wrong:
                raise NotFound("customer", contract.customer_id) from wrong
        return contract

    async def end_contract(self, name: str, at: datetime, *, reason: str, actor: str) -> Contract:
        """End it at an instant, once. Raises NotFound, Conflict when it is ended, Refused for a time outside it."""
        async with self._truth.transaction() as session:
            contract = await find_contract(session, name)
            if contract.ended_at is not None:
                raise Conflict(f"contract {contract.name} was ended at {contract.ended_at.isoformat()}")
            if at <= contract.from_at or (contract.until_at is not None and at >= contract.until_at):
                raise Refused(f"contract {contract.name} does not hold at {at.isoformat()}")
            done = await session.execute(
                "UPDATE contracts SET ended_at = %s, ended_by = %s, ended_for = %s"
                " WHERE contract_id = %s AND ended_at IS NULL",
                (at, actor, reason, contract.contract_id),
            )
            if done.rowcount == 0:
                raise Conflict(f"somebody else ended contract {contract.name} a moment ago")
            await session.execute(
                "UPDATE commitments SET during = tstzrange(lower(during), %s) WHERE contract_id = %s",
                (at, contract.contract_id),
            )
            return await find_contract(session, name)

    async def contracts(self, scope: Scope = PLATFORM) -> tuple[Contract, ...]:
        async with self._truth.transaction(scope) as session:
            return await load_contracts(session)

    async def seat_events(self, name: str, scope: Scope = PLATFORM) -> tuple[HealthEvent, ...]:
        """What befell a contract's seats. Raises NotFound, also for a contract that the scope may not see."""
        async with self._truth.transaction(scope) as session:
            contract = await find_contract(session, name)
        async with self._truth.transaction() as session:  # nodes belong to nobody's scope
            return await load_seat_events(session, contract)

    # ---- prices -----------------------------------------------------------------------------------------------

    async def add_prices(self, prices: Sequence[Price], *, actor: str) -> int:
        """Add rows to lists; how many were new. One that follows an open one closes it where it begins.

        All or nothing. Raises Conflict naming both records of every gap and overlap that it would make.
        """
        async with self._truth.transaction() as session:
            await _lock(session, "prices", "all")
            known = {price.price_id: price for price in await load_prices(session)}
            fresh = [price for price in prices if price.price_id not in known]
            closed = _closed_by(fresh, list(known.values()))
            after = [closed.get(price.price_id, price) for price in [*known.values(), *fresh]]
            faults = price_faults(after)
            if faults:
                raise Conflict("; ".join(faults))
            for list_id in sorted({price.list_id for price in fresh}):
                await session.execute(
                    "INSERT INTO price_lists (list_id, made_by) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    (list_id, actor),
                )
            try:
                for price in closed.values():
                    if price.price_id in known:
                        await session.execute(
                            "UPDATE prices SET valid = tstzrange(lower(valid), %s) WHERE price_id = %s",
                            (price.valid_until, price.price_id),
                        )
                for price in fresh:
                    await session.execute(
                        "INSERT INTO prices (price_id, list_id, meter, unit, term, model, site_id, months, currency,"
                        " tiers, peaks, valid, source, added_by) VALUES (%(price_id)s, %(list_id)s, %(meter)s,"
                        " %(unit)s, %(term)s, %(model)s, %(site_id)s, %(months)s, %(currency)s, %(tiers)s,"
                        " %(peaks)s, tstzrange(%(valid_from)s, %(valid_until)s), %(source)s, %(added_by)s)",
                        _price_row(closed.get(price.price_id, price)) | {"added_by": actor},
                    )
            except ExclusionViolation as wrong:
                raise Conflict(f"a price overlaps another one: {wrong.diag.message_detail}") from wrong
        return len(fresh)

    async def prices(self, list_id: str | None = None) -> tuple[Price, ...]:
        async with self._truth.transaction() as session:
            return await load_prices(session, list_id)


def _closed_by(fresh: Sequence[Price], known: Sequence[Price]) -> dict[str, Price]:
    """Open prices that a later one of the same line follows, each ending where that begins."""
    closed = {}
    for price in [*known, *fresh]:
        if price.valid_until is not None:
            continue
        later = [
            other.valid_from
            for other in fresh
            if line_of(other) == line_of(price) and other.valid_from > price.valid_from
        ]
        if later:
            closed[price.price_id] = replace(price, valid_until=min(later))
    return closed


async def _lock(session: Session, what: str, whose: str) -> None:
    """One writer at a time, so that what was read still holds when it is written."""
    await session.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{what} {whose}",))


async def find_contract(session: Session, name: str) -> Contract:
    """By name or id. Raises NotFound."""
    row = await fetch_one(
        session, "SELECT tenant_id FROM contracts WHERE name = %s OR contract_id = %s", (name, name)
    )
    for contract in await load_contracts(session, row["tenant_id"]) if row else ():
        if name in (contract.name, contract.contract_id):
            return contract
    raise NotFound("contract", name)


async def load_contracts(session: Session, tenant_id: str | None = None) -> tuple[Contract, ...]:
    return tuple(_contract(row) for row in await fetch_all(session, CONTRACTS, {"tenant_id": tenant_id}))


async def load_prices(session: Session, list_id: str | None = None) -> tuple[Price, ...]:
    return tuple(_price(row) for row in await fetch_all(session, PRICES, {"list_id": list_id}))


def _contract(row: DictRow) -> Contract:
    steps = row["promise"]
    said = {key: value for key, value in row.items() if key not in ("commitments", "promise", "term")}
    return Contract(
        **said,
        term=Term(row["term"]),
        commitments=tuple(
            Commitment(model=model, site_id=site_id, count=count)
            for model, site_id, count in row["commitments"] or ()
        ),
        promise=None
        if steps is None
        else Promise(
            steps=tuple(
                Step(below_ratio=Decimal(below), credit_ratio=Decimal(credit)) for below, credit in steps
            )
        ),
    )


def _contract_row(contract: Contract) -> dict[str, Any]:
    steps = contract.promise.steps if contract.promise is not None else None
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
        "list_id": contract.list_id,
        "discount_ratio": contract.discount_ratio,
        "minimum_micros": contract.minimum_micros,
        "promise": None
        if steps is None
        else json.dumps([[str(step.below_ratio), str(step.credit_ratio)] for step in steps]),
    }


def _price(row: DictRow) -> Price:
    said = {key: value for key, value in row.items() if key not in ("tiers", "peaks", "term")}
    return Price(
        **said,
        term=Term(row["term"]),
        tiers=tuple(Tier(from_volume=Decimal(volume), rate=Decimal(rate)) for volume, rate in row["tiers"]),
        peaks=tuple(
            Peak(
                zone=zone,
                weekdays=frozenset(weekdays),
                from_minute=first,
                until_minute=last,
                factor=Decimal(factor),
            )
            for zone, weekdays, first, last, factor in row["peaks"]
        ),
    )


def _price_row(price: Price) -> dict[str, Any]:
    return {
        "price_id": price.price_id,
        "list_id": price.list_id,
        "meter": price.meter,
        "unit": price.unit,
        "term": price.term.value,
        "model": price.model,
        "site_id": price.site_id,
        "months": price.months,
        "currency": price.currency,
        "tiers": json.dumps([[str(tier.from_volume), str(tier.rate)] for tier in price.tiers]),
        "peaks": json.dumps(
            [
                [peak.zone, sorted(peak.weekdays), peak.from_minute, peak.until_minute, str(peak.factor)]
                for peak in price.peaks
            ]
        ),
        "valid_from": price.valid_from,
        "valid_until": price.valid_until,
        "source": price.source,
    }
