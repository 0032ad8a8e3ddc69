"""A language writes amounts, quantities and dates of documents as its readers do, and has the words around them.

Invariant: writing rounds nothing but what it is told to, and what is written can be read back: one sign before
everything, one mark of decimals. Portuguese of Brazil comes first; English is beside it for customers abroad.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from zoneinfo import ZoneInfo

from baseai.finance.invoices.invoice import Kind
from baseai.finance.period import ZONE
from baseai.finance.rated import Category
from baseai.ground.fault import Refused

NO_BREAK = "\N{NO-BREAK SPACE}"
SYMBOLS: Mapping[str, str] = MappingProxyType({"BRL": "R$", "USD": "US$"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How documents are written for one kind of reader."""

    tag: str  # BCP 47
    thousands: str
    point: str
    between: str  # a currency's symbol and the amount
    date_form: str
    words: Mapping[str, str]
    kinds: Mapping[Kind, str]
    categories: Mapping[Category, str]
    units: Mapping[str, str]

    def number(self, value: Decimal, *, places: int | None = None, least: int = 0) -> str:
        """`1.234.567,89`.

        places: digits after the mark, padded or rounded half to even; None: as many as it needs, and at least `least`.
        """
        text = f"{value:,.{places}f}" if places is not None else f"{value:,f}"
        whole, _, rest = text.partition(".")
        if places is None:
            rest = rest.rstrip("0").ljust(least, "0")
        return whole.replace(",", self.thousands) + (self.point + rest if rest else "")

    def money(self, cents: int, currency: str) -> str:
        """`R$ 1.234,56` with a no-break space; `-R$ 10,00`."""
        return self.amount(Decimal(cents) / 100, currency, places=2)

    def amount(self, value: Decimal, currency: str, *, places: int | None = None) -> str:
        """The same of an amount that has more digits than cents: as many as it needs, unless `places` says."""
        text = self.number(abs(value), places=places, least=2)
        sign = "-" if value < 0 and text.strip(f"0{self.point}{self.thousands}") else ""
        return f"{sign}{SYMBOLS.get(currency, currency)}{self.between}{text}"

    def percent(self, ratio: Decimal) -> str:
        """`12,5%`."""
        return self.number((ratio * 100).normalize()) + "%"

    def day(self, on: date) -> str:
        """`30/11/2026`."""
        return on.strftime(self.date_form)

    def instant(self, at: datetime) -> str:
        """A day and a time of 24 hours by the books' clock."""
        local = at.astimezone(ZoneInfo(ZONE))
        return f"{self.day(local.date())} {local:%H:%M}"

    def month(self, period: str) -> str:
        """`11/2026`."""
        year, _, month = period.partition("-")
        return f"{month}/{year}" if self.tag == "pt-BR" else period


PT_BR = Language(
    tag="pt-BR",
    thousands=".",
    point=",",
    between=NO_BREAK,
    date_form="%d/%m/%Y",
    kinds=MappingProxyType(
        {Kind.INVOICE: "Fatura", Kind.SUPPLEMENT: "Fatura complementar", Kind.CREDIT_NOTE: "Nota de crédito"}
    ),
    categories=MappingProxyType(
        {
            Category.ON_DEMAND: "sob demanda",
            Category.RESERVED: "reservado, usado",
            Category.SPOT: "spot",
            Category.RESEARCH: "tarifa de pesquisa",
            Category.JOB: "preço por execução",
            Category.PERIOD: "preço por mês",
            Category.COMMITMENT: "reservado, não usado",
            Category.MINIMUM: "complemento ao gasto mínimo",
            Category.CREDIT: "crédito por disponibilidade abaixo da prometida",
            Category.UNBILLED: "não cobrado",
        }
    ),
    units=MappingProxyType(
        {
            "accelerator_hour": "acelerador-hora",
            "million_tokens": "milhão de tokens",
            "thousand_requests": "mil requisições",
            "gib_hour": "GiB-hora",
            "kwh": "kWh",
            "job": "execução",
            "month": "mês",
        }
    ),
    words=MappingProxyType(
        {
            "draft": "PRÉVIA — sem número, nada é devido por este documento",
            "number": "Número",
            "from": "Emitente",
            "to": "Cliente",
            "tax_id": "CNPJ",
            "foreign_tax_id": "Identificação fiscal",
            "municipal_registration": "Inscrição municipal",
            "period": "Competência",
            "issued": "Emissão",
            "due": "Vencimento",
            "names": "Refere-se à fatura",
            "lines": "Itens",
            "line": "Item",
            "what": "Descrição",
            "quantity": "Quantidade",
            "unit": "Unidade",
            "unit_price": "Preço unitário",
            "value": "Valor",
            "total": "Total",
            "behind": "O que está por trás de cada item",
            "run": "Execução",
            "lease": "Concessão",
            "serial": "Série do acelerador",
            "exact": "Valor exato",
            "taken_back": "estorno",
            "of_month": "uso de",
            "at": "em",
            "contract": "contrato",
            "rate": "Câmbio PTAX (venda) de {day}, boletim das {time}: {rate} por US$ 1, para {asked}",
            "rounded": "Centavos por maior resto: a soma dos itens é o total; o que o arredondamento muda está na conta"
            " de arredondamento.",
            "none": "nenhuma execução: vem dos termos do contrato",
            "not_fiscal": "Este documento não é nota fiscal.",
        }
    ),
)

EN = Language(
    tag="en",
    thousands=",",
    point=".",
    between="",
    date_form="%Y-%m-%d",
    kinds=MappingProxyType(
        {Kind.INVOICE: "Invoice", Kind.SUPPLEMENT: "Supplementary invoice", Kind.CREDIT_NOTE: "Credit note"}
    ),
    categories=MappingProxyType(
        {
            Category.ON_DEMAND: "on demand",
            Category.RESERVED: "reserved, used",
            Category.SPOT: "spot",
            Category.RESEARCH: "research tariff",
            Category.JOB: "price per run",
            Category.PERIOD: "price per month",
            Category.COMMITMENT: "reserved, not used",
            Category.MINIMUM: "true-up to the least spend",
            Category.CREDIT: "credit for availability below what was promised",
            Category.UNBILLED: "not charged",
        }
    ),
    units=MappingProxyType(
        {
            "accelerator_hour": "accelerator-hour",
            "million_tokens": "million tokens",
            "thousand_requests": "thousand requests",
            "gib_hour": "GiB-hour",
            "kwh": "kWh",
            "job": "run",
            "month": "month",
        }
    ),
    words=MappingProxyType(
        {
            "draft": "DRAFT — without a number, nobody owes anything by it",
            "number": "Number",
            "from": "From",
            "to": "To",
            "tax_id": "CNPJ",
            "foreign_tax_id": "Tax id",
            "municipal_registration": "Municipal registration",
            "period": "Period",
            "issued": "Issued",
            "due": "Due",
            "names": "Refers to invoice",
            "lines": "Lines",
            "line": "Line",
            "what": "Description",
            "quantity": "Quantity",
            "unit": "Unit",
            "unit_price": "Unit price",
            "value": "Amount",
            "total": "Total",
            "behind": "What is behind each line",
            "run": "Run",
            "lease": "Lease",
            "serial": "Accelerator serial",
            "exact": "Exact amount",
            "taken_back": "taken back",
            "of_month": "use of",
            "at": "at",
            "contract": "contract",
            "rate": "PTAX (sell) of {day}, bulletin of {time}: {rate} for US$1, for {asked}",
            "rounded": "Cents by largest remainder: lines sum to the total; what rounding changes stands on the"
            " rounding account.",
            "none": "no run: it comes from the terms of the contract",
            "not_fiscal": "This document is not a fiscal invoice (nota fiscal).",
        }
    ),
)

LANGUAGES: Mapping[str, Language] = MappingProxyType({"pt-BR": PT_BR, "en": EN})


def language_named(tag: str) -> Language:
    """Raises Refused for a language in which nothing is written."""
    found = LANGUAGES.get(tag)
    if found is None:
        raise Refused(f"documents are not written in {tag!r}; there are {', '.join(LANGUAGES)}")
    return found
