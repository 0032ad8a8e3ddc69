"""Drafting makes the documents that a customer's rated lines of a month call for; issuing settles them in the books.

Invariant: equal lines give equal documents, in whatever order they come. Each rated line stands behind exactly one
line of one document. The settlement brings the receivable to the document's total and nothing else: what is exchanged
goes through the conversion account at the day's rate, what rounding takes or gives goes to the rounding account.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from baseai.finance.account import receivable
from baseai.finance.cents import ExactLine, Invoiced, cents_of
from baseai.finance.customer import Customer
from baseai.finance.exchange import CONVERSION, exchange, exchanged
from baseai.finance.invoices.billed import Billed, in_order, worths
from baseai.finance.invoices.invoice import Behind, Conversion, Invoice, InvoiceLine, Kind
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.measure import JOB, MEASURES, MONTH
from baseai.finance.period import ZONE, period_of
from baseai.finance.rated import Category, RatedLine
from baseai.finance.transfer import Transfer
from baseai.ground.identity import derived

UNPRICED = frozenset({Category.MINIMUM, Category.CREDIT})  # an amount, and no quantity at a price
FINE = Decimal("0.000000001")  # quantities are shown to a thousand-millionth of a priced unit
LINE_ORDER = tuple(Category)

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What is to be billed to whom, as far as it is known before any number is taken."""

    issuer: Issuer
    customer: Customer
    period: str
    billed: Sequence[Billed]  # everything rated of the month that no document asks for yet
    first: str | None = None  # the invoice that the customer has of this month already
    conversion: Conversion | None = None  # None where everything is in the customer's currency


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A document without a number, and which of its lines each rated line stands behind."""

    invoice: Invoice
    line_nos: Mapping[str, int]  # by rated_id


def drafts_of(bill: Bill) -> tuple[Draft, ...]:
    """One document for what is new, and one for each invoice of which something is taken back.

    Raises ValueError for a line in another currency than the customer's when there is no conversion.
    """
    groups: dict[str | None, list[Billed]] = defaultdict(list)
    for one in bill.billed:
        if one.line.category is not Category.UNBILLED:
            groups[one.original].append(one)
    return tuple(
        _draft(bill, groups[original], original) for original in sorted(groups, key=lambda name: name or "")
    )


def issued(draft: Draft, *, series: str, number: int, issued_at: datetime) -> Draft:
    """The document with its number, its date and the day on which it is due."""
    local = issued_at.astimezone(ZoneInfo(ZONE)).date()
    invoice = replace(
        draft.invoice,
        series=series,
        number=number,
        issued_at=issued_at,
        due_on=local + timedelta(days=draft.invoice.issuer.days_to_pay),
    )
    return replace(draft, invoice=invoice)


def settlement_of(invoice: Invoice) -> tuple[Transfer, ...]:
    """The transfers by which the books come to ask what the issued document asks."""
    assert invoice.invoice_id is not None
    assert invoice.issued_at is not None
    asked = Invoiced(
        invoice_id=invoice.invoice_id,
        tenant_id=invoice.customer.tenant_id,
        receivable=receivable(invoice.customer.tenant_id),
        currency=invoice.currency,
        issued_at=invoice.issued_at,
    )
    priced: dict[str, int] = defaultdict(int)
    for line in invoice.lines:
        priced[line.currency] += line.priced_micros
    transfers = [
        row
        for currency, micros in sorted(priced.items())
        if currency != invoice.currency and micros
        for row in _exchange(invoice, asked, micros, currency)
    ]
    _, rounding = cents_of(_exact(invoice.lines), asked)
    return (*transfers, rounding) if rounding is not None else tuple(transfers)


def priced_quantity(line: RatedLine) -> Decimal | None:
    """How much of what its price is for a line holds; None where an amount has no quantity."""
    if line.category in UNPRICED:
        return None
    if line.category is Category.JOB:
        return Decimal((line.amount_micros > 0) - (line.amount_micros < 0))
    if line.category is Category.PERIOD:
        return (
            (Decimal(line.amount_micros) / 1_000_000 / line.unit_price).quantize(FINE)
            if line.unit_price
            else Decimal(0)
        )
    return MEASURES[line.meter].priced(line.quantity).quantize(FINE)


def unit_of(line: RatedLine) -> str:
    """What its price is for."""
    return {Category.JOB: JOB, Category.PERIOD: MONTH}.get(line.category, MEASURES[line.meter].priced_per)


def _draft(bill: Bill, billed: Sequence[Billed], original: str | None) -> Draft:
    ordered = in_order(billed)
    rate = None if bill.conversion is None else bill.conversion.rate
    worth = dict(
        zip(
            (one.line.rated_id for one in ordered),
            worths(ordered, currency=bill.customer.currency, rate=rate),
            strict=True,
        )
    )
    groups: dict[Key, list[Billed]] = defaultdict(list)
    for one in ordered:
        groups[_key(one)].append(one)
    lines, line_nos = [], {}
    for line_no, key in enumerate(sorted(groups, key=_sorted_by), start=1):
        members = groups[key]
        lines.append(_line(line_no, members, sum(worth[one.line.rated_id] for one in members)))
        line_nos.update({one.line.rated_id: line_no for one in members})
    asked = Invoiced(
        invoice_id="draft",
        tenant_id=bill.customer.tenant_id,
        receivable=receivable(bill.customer.tenant_id),
        currency=bill.customer.currency,
        issued_at=ordered[0].line.recorded_at,  # nothing is posted by a draft
    )
    cents, _ = cents_of(_exact(lines), asked)
    lines = [replace(line, cents=cents[_line_id(line)]) for line in lines]
    names = original or bill.first
    total = sum(line.cents for line in lines)
    kind = Kind.CREDIT_NOTE if total < 0 else Kind.INVOICE if names is None else Kind.SUPPLEMENT
    foreign = any(line.currency != bill.customer.currency for line in lines)
    return Draft(
        invoice=Invoice(
            kind=kind,
            issuer=bill.issuer,
            customer=bill.customer,
            period=bill.period,
            currency=bill.customer.currency,
            lines=tuple(lines),
            conversion=bill.conversion if foreign else None,
            corrects=names,
        ),
        line_nos=line_nos,
    )


def _key(one: Billed) -> Key:
    line = one.line
    unpriced = line.category in UNPRICED
    return (
        LINE_ORDER.index(line.category),
        line.currency,
        str(period_of(line.effective_from)),
        line.corrects is not None,
        line.contract_id,
        line.meter,
        line.model,
        line.site_id,
        line.price_id,
        None if unpriced else f"{line.unit_price:f}",
        line.rated_id if unpriced else None,
    )


def _sorted_by(key: Key) -> tuple[tuple[bool, str], ...]:
    head, *rest = key
    return (False, f"{head:03d}"), *((part is None, str(part)) for part in rest)


def _line(line_no: int, members: Sequence[Billed], micros: int) -> InvoiceLine:
    first = members[0]
    line = first.line
    quantities = [priced_quantity(one.line) for one in members]
    quantity = None if quantities[0] is None else sum((q for q in quantities if q is not None), Decimal(0))
    notes = {one.line.note for one in members}
    return InvoiceLine(
        line_no=line_no,
        category=line.category,
        meter=line.meter,
        unit=unit_of(line),
        quantity=quantity,
        unit_price=None if quantity is None else line.unit_price,
        currency=line.currency,
        priced_micros=sum(one.line.amount_micros for one in members),
        micros=micros,
        cents=0,
        of_period=str(period_of(line.effective_from)),
        from_at=min(one.line.effective_from for one in members),
        until_at=max(one.line.effective_until for one in members),
        takes_back=line.corrects is not None,
        model=line.model,
        site_id=line.site_id,
        contract_id=line.contract_id,
        contract=first.contract,
        price_id=line.price_id,
        note=notes.pop() if len(notes) == 1 else None,
        behind=_behind(members),
    )


def _behind(members: Sequence[Billed]) -> tuple[Behind, ...]:
    sums: dict[tuple[str | None, ...], tuple[Decimal, int]] = {}
    for one in members:
        line = one.line
        if line.run_id is None and line.lease_id is None and one.serial is None:
            continue
        key = (line.run_id, one.run, line.lease_id, one.serial)
        quantity, micros = sums.get(key, (Decimal(0), 0))
        sums[key] = (quantity + (priced_quantity(line) or Decimal(0)), micros + line.amount_micros)
    return tuple(
        Behind(run_id=run_id, run=run, lease_id=lease_id, serial=serial, quantity=quantity, micros=micros)
        for (run_id, run, lease_id, serial), (quantity, micros) in sorted(
            sums.items(), key=lambda pair: tuple(part or "" for part in pair[0])
        )
    )


def _line_id(line: InvoiceLine) -> str:
    return f"{line.line_no:06d}"


def _exact(lines: Sequence[InvoiceLine]) -> list[ExactLine]:
    return [ExactLine(line_id=_line_id(line), amount_micros=line.micros) for line in lines]


def _exchange(invoice: Invoice, asked: Invoiced, micros: int, currency: str) -> list[Transfer]:
    """Take what is owed in `currency` out of the receivable, and put its worth in."""
    assert invoice.conversion is not None
    rate = invoice.conversion.rate
    worth, _ = exchanged(abs(micros), currency, rate)
    rows: list[Transfer] = []
    taken = 0
    if worth:
        given = Transfer(
            transfer_id=derived("tr", "exchange", asked.invoice_id, currency),
            entry_id=derived("entry", "exchange", asked.invoice_id, currency),
            debit_account=asked.receivable,
            credit_account=CONVERSION + rate.source,
            amount_micros=worth if micros > 0 else -micros,
            currency=invoice.currency if micros > 0 else currency,
            effective_at=asked.issued_at,
            tenant_id=asked.tenant_id,
            customer_id=invoice.customer.customer_id,
            note=f"exchange of {asked.invoice_id}",
        )
        rows += exchange(given, rate, into=asked.receivable)
        taken = rows[1].amount_micros if micros > 0 else micros
    left = micros - taken  # less than what one micro-unit of the dearer currency is worth
    return [*rows, _rest(asked, left, currency)] if left else rows


def _rest(asked: Invoiced, micros: int, currency: str) -> Transfer:
    debit, credit = f"rounding:{currency}", asked.receivable
    if micros < 0:
        debit, credit = credit, debit
    return Transfer(
        transfer_id=derived("tr", "exchange rest", asked.invoice_id, currency),
        entry_id=derived("entry", "exchange", asked.invoice_id, currency),
        debit_account=debit,
        credit_account=credit,
        amount_micros=abs(micros),
        currency=currency,
        effective_at=asked.issued_at,
        tenant_id=asked.tenant_id,
        note=f"what no exchange of {asked.invoice_id} can reach",
    )
