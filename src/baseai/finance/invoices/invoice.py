"""An invoice asks a customer for what a month came to, in cents; a credit note gives back what an invoice asked for.

Invariant: lines sum to the total, cents arise here and nowhere else, and an issued document never changes. What takes
back a line that was invoiced stands on a document of its own that names the invoice; a second document of a month
names the first. Numbers of a series have no gap: whoever issues takes the next in the transaction that writes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from baseai.finance.customer import Customer
from baseai.finance.exchange import ExchangeRate
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.rated import Category


class Kind(StrEnum):
    INVOICE = "invoice"  # the first of a customer and a month
    SUPPLEMENT = "supplement"  # asks for more, and names what it adds to
    CREDIT_NOTE = "credit_note"  # gives back


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The rate by which lines in another currency became this document's."""

    rate: ExchangeRate
    bulletin_at: datetime | None  # when the central bank published it
    asked_on: date  # the day for which it was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """One run, lease and accelerator behind a line, with its share."""

    run_id: str | None
    run: str | None
    lease_id: str | None
    serial: str | None
    quantity: Decimal  # in priced units
    micros: int  # in the line's own currency


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """One line: everything that shares contract, price and month of use."""

    line_no: int  # from 1
    category: Category
    meter: str
    unit: str  # what the price is for: accelerator_hour, job, month …
    quantity: Decimal | None  # in that unit; None where an amount has none
    unit_price: Decimal | None
    currency: str  # of the price, ISO 4217
    priced_micros: int  # in that currency
    micros: int  # in the document's
    cents: int
    of_period: str  # the month of the use
    from_at: datetime
    until_at: datetime  # exclusive
    takes_back: bool = False
    model: str | None = None
    site_id: str | None = None
    contract_id: str | None = None
    contract: str | None = None
    price_id: str | None = None
    note: str | None = None
    behind: tuple[Behind, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """One document. Without a number it is a draft: nobody owes anything by it."""

    kind: Kind
    issuer: Issuer
    customer: Customer
    period: str  # the month that it is for, books' zone
    currency: str  # ISO 4217
    lines: tuple[InvoiceLine, ...]
    conversion: Conversion | None = None
    corrects: str | None = None  # the invoice_id that it names
    series: str | None = None
    number: int | None = None
    issued_at: datetime | None = None
    due_on: date | None = None

    @property
    def invoice_id(self) -> str | None:
        return None if self.series is None or self.number is None else invoice_id_of(self.series, self.number)

    @property
    def total_cents(self) -> int:
        return sum(line.cents for line in self.lines)


def invoice_id_of(series: str, number: int) -> str:
    """`A-000123`."""
    return f"{series}-{number:06d}"


def document_of(invoice: Invoice) -> dict[str, Any]:
    """The invoice as plain values that JSON has: decimals and instants as text."""
    return {**_plain(asdict(invoice)), "invoice_id": invoice.invoice_id, "total_cents": invoice.total_cents}


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document in canonical JSON, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def invoice_from(document: Mapping[str, Any]) -> Invoice:
    """The invoice that `document_of` gave."""
    said = {key: value for key, value in document.items() if key not in ("invoice_id", "total_cents")}
    issuer = dict(said["issuer"])
    issuer["address"] = tuple(issuer["address"])
    issuer["iss_ratio"] = _decimal(issuer["iss_ratio"])
    conversion = said["conversion"]
    return Invoice(
        **{
            **said,
            "kind": Kind(said["kind"]),
            "issuer": Issuer(**issuer),
            "customer": Customer(**said["customer"]),
            "lines": tuple(_line(line) for line in said["lines"]),
            "conversion": None if conversion is None else _conversion(conversion),
            "issued_at": _instant(said["issued_at"]),
            "due_on": None if said["due_on"] is None else date.fromisoformat(said["due_on"]),
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else value


def _line(said: Mapping[str, Any]) -> InvoiceLine:
    return InvoiceLine(
        **{
            **said,
            "category": Category(said["category"]),
            "quantity": _decimal(said["quantity"]),
            "unit_price": _decimal(said["unit_price"]),
            "from_at": _instant(said["from_at"]),
            "until_at": _instant(said["until_at"]),
            "behind": tuple(
                Behind(**{**one, "quantity": Decimal(one["quantity"])}) for one in said["behind"]
            ),
        }
    )


def _conversion(said: Mapping[str, Any]) -> Conversion:
    rate = said["rate"]
    return Conversion(
        rate=ExchangeRate(**{**rate, "rate": Decimal(rate["rate"]), "on": date.fromisoformat(rate["on"])}),
        bulletin_at=_instant(said["bulletin_at"]),
        asked_on=date.fromisoformat(said["asked_on"]),
    )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
