"""A written document is an invoice in words: every cell as its reader sees it, whatever it is printed on.

Invariant: paper and page say the same, because both print this; nothing is reckoned here.
"""

from dataclasses import dataclass
from decimal import Decimal

from baseai.finance.customer import BRAZIL, shown_cnpj
from baseai.finance.invoices.invoice import Invoice, InvoiceLine
from baseai.finance.invoices.language import Language
from baseai.ground.money import MICRO


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBehind:
    run: str
    lease: str
    serial: str
    quantity: str
    exact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLine:
    line_no: str
    what: str
    note: str
    quantity: str
    unit: str
    unit_price: str
    amount: str
    exact: str  # before it was rounded to cents
    behind: tuple[WrittenBehind, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One document in one language."""

    language: Language
    title: str  # `Fatura A-000001`
    banner: str | None  # what a reader must see first: that it is a draft
    issuer: tuple[str, ...]  # lines
    customer: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]  # number, month, days, by name
    lines: tuple[WrittenLine, ...]
    total: str
    notes: tuple[str, ...]


def written(invoice: Invoice, language: Language) -> Written:
    """The invoice in words."""
    words = language.words
    name = language.kinds[invoice.kind]
    facts = [
        (words["number"], invoice.invoice_id or "—"),
        (words["period"], language.month(invoice.period)),
        (words["issued"], language.instant(invoice.issued_at) if invoice.issued_at else "—"),
        (words["due"], language.day(invoice.due_on) if invoice.due_on else "—"),
    ]
    if invoice.corrects is not None:
        facts.append((words["names"], invoice.corrects))
    return Written(
        language=language,
        title=name if invoice.invoice_id is None else f"{name} {invoice.invoice_id}",
        banner=words["draft"] if invoice.invoice_id is None else None,
        issuer=_issuer(invoice, language),
        customer=_customer(invoice, language),
        facts=tuple(facts),
        lines=tuple(_line(line, invoice.currency, language) for line in invoice.lines),
        total=language.money(invoice.total_cents, invoice.currency),
        notes=(*_rate(invoice, language), words["rounded"], words["not_fiscal"]),
    )


def _issuer(invoice: Invoice, language: Language) -> tuple[str, ...]:
    issuer, words = invoice.issuer, language.words
    said = [issuer.name]
    if issuer.cnpj is not None:
        said.append(f"{words['tax_id']} {shown_cnpj(issuer.cnpj)}")
    if issuer.municipal_registration is not None:
        said.append(f"{words['municipal_registration']} {issuer.municipal_registration}")
    return (*said, *issuer.address)


def _customer(invoice: Invoice, language: Language) -> tuple[str, ...]:
    customer, words = invoice.customer, language.words
    if customer.country == BRAZIL:
        tax_id = f"{words['tax_id']} {shown_cnpj(customer.tax_id)}"
    else:
        tax_id = f"{words['foreign_tax_id']} ({customer.country}) {customer.tax_id}"
    return customer.legal_name, tax_id


def _line(line: InvoiceLine, currency: str, language: Language) -> WrittenLine:
    words = language.words
    parts = [line.model or line.meter.replace("_", " "), language.categories[line.category]]
    if line.site_id is not None:
        parts.append(f"{words['at']} {line.site_id}")
    said = [f"{words['of_month']} {language.month(line.of_period)}"]
    if line.contract is not None:
        said.append(f"{words['contract']} {line.contract}")
    if line.takes_back:
        said.insert(0, words["taken_back"])
    return WrittenLine(
        line_no=str(line.line_no),
        what=f"{' '.join(parts)}; {', '.join(said)}",
        note=line.note or "",
        quantity="" if line.quantity is None else language.number(line.quantity),
        unit="" if line.quantity is None else language.units[line.unit],
        unit_price="" if line.unit_price is None else language.amount(line.unit_price, line.currency),
        amount=language.money(line.cents, currency),
        exact=language.amount(Decimal(line.micros) / MICRO, currency, places=6),
        behind=tuple(
            WrittenBehind(
                run=one.run or one.run_id or "",
                lease=one.lease_id or "",
                serial=one.serial or "",
                quantity=language.number(one.quantity),
                exact=language.amount(Decimal(one.micros) / MICRO, line.currency, places=6),
            )
            for one in line.behind
        ),
    )


def _rate(invoice: Invoice, language: Language) -> tuple[str, ...]:
    conversion = invoice.conversion
    if conversion is None:
        return ()
    at = conversion.bulletin_at
    time = "—" if at is None else language.instant(at).rpartition(" ")[2]
    rate = language.amount(conversion.rate.rate, "BRL")
    return (
        language.words["rate"].format(
            day=language.day(conversion.rate.on),
            time=time,
            rate=rate,
            asked=language.day(conversion.asked_on),
        ),
    )
