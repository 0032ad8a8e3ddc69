"""Documents in PostgreSQL: drafted from rated lines that no document asks for yet, issued, found again.

Invariant: number, document, the rated lines it asks for and its settlement in the books are one transaction, and one
copy issues at a time: a crash at any place issues nothing, and asking twice issues nothing twice.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.rows import DictRow

from baseai.finance.contracts.postgres.rated_rows import COLUMNS
from baseai.finance.customer import Customer
from baseai.finance.invoices.billed import Billed
from baseai.finance.invoices.drafting import Bill, Draft, drafts_of, issued, settlement_of
from baseai.finance.invoices.invoice import Conversion, Invoice, Kind, digest_of, document_of, invoice_from
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.period import ZONE, Period
from baseai.finance.ptax import Exchange
from baseai.finance.rated import Category, RatedLine
from baseai.finance.transfer import Transfer
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all, fetch_one

ISSUING_LOCK = 0x696E766F  # "invo"
CUSTOMER = """
SELECT c.customer_id, c.tenant_id, c.legal_name, c.country, c.tax_id, c.currency FROM customers c
JOIN tenants t USING (tenant_id)
WHERE %(name)s IN (c.customer_id, c.tenant_id, t.name, c.legal_name, c.tax_id) ORDER BY 1 LIMIT 2
"""
SHOWN = ", ".join(f"r.{name.strip()}" for name in COLUMNS.split(","))
UNBILLED = f"""
SELECT {SHOWN}, r.recorded_at, a.serial, n.name AS run, c.name AS contract, o.invoice_id AS original
FROM rated_lines r LEFT JOIN accelerators a USING (accelerator_no) LEFT JOIN runs n ON n.run_id = r.run_id
LEFT JOIN contracts c ON c.contract_id = r.contract_id LEFT JOIN invoiced_lines o ON o.rated_id = r.corrects
WHERE r.tenant_id = %(tenant_id)s AND r.period = %(period)s AND r.category <> 'unbilled'
  AND NOT EXISTS (SELECT FROM invoiced_lines i WHERE i.rated_id = r.rated_id)
ORDER BY r.rated_id
"""  # noqa: S608 - pieces are constants of this file
FIRST = """
SELECT invoice_id FROM invoices WHERE customer_id = %s AND period = %s AND kind = 'invoice' ORDER BY number LIMIT 1
"""
UNPOSTED = """
SELECT u.rated_id FROM unposted u JOIN rated_lines r USING (rated_id)
WHERE r.tenant_id = %(tenant_id)s AND r.period = %(period)s ORDER BY 1 LIMIT 1
"""
NEXT = """
INSERT INTO invoice_series AS s VALUES (%s, 1)
ON CONFLICT (series) DO UPDATE SET last_number = s.last_number + 1 RETURNING last_number
"""
INSERT = """
INSERT INTO invoices (invoice_id, series, number, kind, tenant_id, customer_id, period, currency, total_cents,
  issued_at, issued_by, due_on, corrects, document, digest)
VALUES (%(invoice_id)s, %(series)s, %(number)s, %(kind)s, %(tenant_id)s, %(customer_id)s, %(period)s, %(currency)s,
  %(total_cents)s, %(issued_at)s, %(issued_by)s, %(due_on)s, %(corrects)s, %(document)s, %(digest)s)
"""
CLAIM = """
INSERT INTO invoiced_lines (rated_id, invoice_id, line_no, tenant_id)
SELECT rated_id, %s, line_no, %s FROM unnest(%s::text[], %s::int[]) AS claimed (rated_id, line_no)
"""
LISTED = """
SELECT document FROM invoices WHERE (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
  AND (%(period)s::text IS NULL OR period = %(period)s)
  AND (%(after)s::text IS NULL OR (issued_at, invoice_id) <
    (SELECT issued_at, invoice_id FROM invoices WHERE invoice_id = %(after)s))
ORDER BY issued_at DESC, invoice_id DESC LIMIT %(limit)s
"""

Rate = Callable[[date], Awaitable[Exchange]]
Post = Callable[[Session, Sequence[Transfer]], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Everything about one customer and month that documents are made of."""

    customer: Customer
    billed: tuple[Billed, ...]
    first: str | None


class Invoices:
    """Documents of customers.

    rate: the rate of exchange that holds on a day; raises RateUnknown. post: writes a group of transfers, all or none.
    """

    def __init__(self, truth: Truth, rate: Rate, post: Post) -> None:
        self._truth = truth
        self._rate = rate
        self._post = post

    async def customer(self, name: str, scope: Scope = PLATFORM) -> Customer:
        """By id, tenant, legal name or tax id. Raises NotFound, Refused where two have the name."""
        async with self._truth.transaction(scope) as session:
            return await _customer(session, name)

    async def drafts(
        self, name: str, period: Period, issuer: Issuer, scope: Scope = PLATFORM
    ) -> tuple[Invoice, ...]:
        """What would be issued now, without numbers. Raises NotFound, RateUnknown."""
        async with self._truth.transaction(scope) as session:
            found = await _found(session, await _customer(session, name), period)
        made = await self._made(found, period, issuer, now_utc())
        return tuple(draft.invoice for draft in made)

    async def issue(self, name: str, period: Period, issuer: Issuer, *, actor: str) -> tuple[Invoice, ...]:
        """Issue what is to be billed of a month that is over; nothing when everything is billed already.

        Raises NotFound, RateUnknown, Conflict while rated lines of the month are not in the books yet, Refused while
        the month runs.
        """
        customer = await self.customer(name)
        now = now_utc()
        if now < period.ends_at():
            raise Refused(
                f"{period} is not over: an invoice can be issued from {period.ends_at():%Y-%m-%d %H:%M} UTC on;"
                " until then it is a draft"
            )
        conversion = None
        async with self._truth.transaction() as session:
            found = await _found(session, customer, period)
        if _is_foreign(found):
            conversion = await self._conversion(now)  # outside of the transaction that issues
        async with self._truth.transaction() as session:
            await session.execute("SELECT pg_advisory_xact_lock(%s)", (ISSUING_LOCK,))
            asked = {"tenant_id": customer.tenant_id, "period": str(period)}
            waiting = await fetch_one(session, UNPOSTED, asked)
            if waiting is not None:
                raise Conflict(
                    f"rated line {waiting['rated_id']} of {period} is not in the books yet; it will be in a moment"
                )
            found = await _found(session, customer, period)
            if _is_foreign(found) and conversion is None:
                raise Conflict(f"something was rated for {customer.legal_name} meanwhile; ask again")
            drafts = await asyncio.to_thread(drafts_of, _bill(found, period, issuer, conversion))
            return tuple([await self._write(session, draft, now=now, actor=actor) for draft in drafts])

    async def find(self, invoice_id: str, scope: Scope = PLATFORM) -> Invoice:
        """Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session, "SELECT document FROM invoices WHERE invoice_id = %s", (invoice_id,)
            )
        if row is None:
            raise NotFound("invoice", invoice_id)
        return invoice_from(row["document"])

    async def all(
        self,
        scope: Scope = PLATFORM,
        *,
        customer_id: str | None = None,
        period: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Invoice, ...]:
        """The newest first; `after` is the last invoice_id of the page before."""
        asked = {"customer_id": customer_id, "period": period, "after": after, "limit": limit}
        async with self._truth.transaction(scope) as session:
            return tuple(invoice_from(row["document"]) for row in await fetch_all(session, LISTED, asked))

    async def _write(self, session: Session, draft: Draft, *, now: datetime, actor: str) -> Invoice:
        issuer = draft.invoice.issuer
        series = issuer.credit_series if draft.invoice.kind is Kind.CREDIT_NOTE else issuer.series
        row = await fetch_one(session, NEXT, (series,))
        assert row is not None
        invoice = issued(draft, series=series, number=row["last_number"], issued_at=now).invoice
        document = document_of(invoice)
        await session.execute(
            INSERT,
            {
                "invoice_id": invoice.invoice_id,
                "series": series,
                "number": invoice.number,
                "kind": invoice.kind.value,
                "tenant_id": invoice.customer.tenant_id,
                "customer_id": invoice.customer.customer_id,
                "period": invoice.period,
                "currency": invoice.currency,
                "total_cents": invoice.total_cents,
                "issued_at": now,
                "issued_by": actor,
                "due_on": invoice.due_on,
                "corrects": invoice.corrects,
                "document": json.dumps(document),
                "digest": digest_of(document),
            },
        )
        columns = (list(draft.line_nos.keys()), list(draft.line_nos.values()))
        await session.execute(CLAIM, (invoice.invoice_id, invoice.customer.tenant_id, *columns))
        await self._post(session, settlement_of(invoice))
        return invoice

    async def _made(self, found: _Found, period: Period, issuer: Issuer, now: datetime) -> tuple[Draft, ...]:
        conversion = await self._conversion(now) if _is_foreign(found) else None
        return await asyncio.to_thread(drafts_of, _bill(found, period, issuer, conversion))

    async def _conversion(self, now: datetime) -> Conversion:
        asked_on = now.astimezone(ZoneInfo(ZONE)).date()
        exchange = await self._rate(asked_on)
        return Conversion(rate=exchange.rate, bulletin_at=exchange.bulletin.bulletin_at, asked_on=asked_on)


def billed_of(row: DictRow) -> Billed:
    """A row of rated_lines with serial, run, contract and original beside it."""
    facts: dict[str, Any] = dict(row)
    beside = {name: facts.pop(name) for name in ("serial", "run", "contract", "original")}
    return Billed(line=RatedLine(**{**facts, "category": Category(facts["category"])}), **beside)


def _bill(found: _Found, period: Period, issuer: Issuer, conversion: Conversion | None) -> Bill:
    return Bill(
        issuer=issuer,
        customer=found.customer,
        period=str(period),
        billed=found.billed,
        first=found.first,
        conversion=conversion,
    )


def _is_foreign(found: _Found) -> bool:
    return any(one.line.currency != found.customer.currency for one in found.billed)


async def _customer(session: Session, name: str) -> Customer:
    rows = await fetch_all(session, CUSTOMER, {"name": name})
    if not rows:
        raise NotFound("customer", name)
    if len(rows) > 1:
        raise Refused(f"more than one customer is called {name!r}; name it by its id")
    return Customer(**rows[0])


async def _found(session: Session, customer: Customer, period: Period) -> _Found:
    rows = await fetch_all(session, UNBILLED, {"tenant_id": customer.tenant_id, "period": str(period)})
    first = await fetch_one(session, FIRST, (customer.customer_id, str(period)))
    return _Found(
        customer=customer,
        billed=await asyncio.to_thread(lambda: tuple(map(billed_of, rows))),
        first=None if first is None else first["invoice_id"],
    )
