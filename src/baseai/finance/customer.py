"""A customer is the legal person that pays for a tenant.

Invariant: a customer has exactly one tax id, whose form and check digits are right for its country. A CNPJ may
carry letters in its first twelve places since July 2026; each place counts as its ASCII code less 48, modulo 11.
Whoever manages tenants adds customers; the tax id of one that exists is not edited.
"""

import re
from dataclasses import dataclass

BRAZIL = "BR"
BILLED_IN = ("BRL", "USD")

_FIRST = (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
_SECOND = (6, *_FIRST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Who is billed, where, and in which currency."""

    customer_id: str
    tenant_id: str
    legal_name: str
    country: str  # ISO 3166, two letters
    tax_id: str  # in Brazil a CNPJ without punctuation, elsewhere what the country calls it
    currency: str  # of its invoices

    def __post_init__(self) -> None:
        if not self.legal_name.strip():
            raise ValueError(f"{self.customer_id}: a customer has a legal name")
        if not re.fullmatch("[A-Z]{2}", self.country):
            raise ValueError(f"{self.customer_id}: country {self.country!r} is not two capital letters")
        if self.currency not in BILLED_IN:
            raise ValueError(f"{self.customer_id}: billed in {' or '.join(BILLED_IN)}, not {self.currency!r}")
        wrong = tax_id_wrong(self.country, self.tax_id)
        if wrong is not None:
            raise ValueError(f"{self.customer_id}: {wrong}")


def tax_id_wrong(country: str, tax_id: str) -> str | None:
    """What is wrong with a tax id that is written plainly; None when nothing is."""
    if country == BRAZIL:
        return cnpj_wrong(tax_id)
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9./ -]{2,29}", tax_id):
        return f"tax id {tax_id!r} has not 3 to 30 letters, digits, points, slashes, hyphens"
    return None


def plain_cnpj(text: str) -> str:
    """A CNPJ as people write it, `12.ABC.345/01DE-35`, without its punctuation and in capitals."""
    return re.sub(r"[.\-/\s]", "", text).upper()


def shown_cnpj(cnpj: str) -> str:
    """A plain CNPJ with its punctuation."""
    return f"{cnpj[:2]}.{cnpj[2:5]}.{cnpj[5:8]}/{cnpj[8:12]}-{cnpj[12:]}"


def cnpj_wrong(cnpj: str) -> str | None:
    """What is wrong with a plain CNPJ; None when form and check digits are right."""
    if not re.fullmatch("[A-Z0-9]{12}[0-9]{2}", cnpj):
        return f"CNPJ {cnpj!r} has not 12 letters or digits and 2 check digits"
    if not cnpj.strip("0"):
        return f"CNPJ {cnpj} is all zeros"
    due = check_digits(cnpj[:12])
    if cnpj[12:] != due:
        return f"CNPJ {shown_cnpj(cnpj)} ends in {cnpj[12:]}, its check digits are {due}"
    return None


def check_digits(first_twelve: str) -> str:
    """The two check digits of the first twelve places, by modulo 11."""
    values = [ord(char) - 48 for char in first_twelve]
    for weights in (_FIRST, _SECOND):
        rest = sum(value * weight for value, weight in zip(values, weights, strict=True)) % 11
        values.append(0 if rest < 2 else 11 - rest)
    return f"{values[-2]}{values[-1]}"
