"""A row rule finds the fault of one rule in one row, and says it as a sentence.

Invariant: numbers are compared exactly. What a rule must remember of earlier rows, it remembers itself, so that it is
made anew for each file. An empty cell is nothing, and most rules ask nothing of it.
"""

import json
import re
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from decimal import Decimal, localcontext
from functools import lru_cache

from baseai.finance.focus.rule import Row, Rule, RuleKind

DECIMAL = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
STAND_INS = frozenset({"null", "none", "n/a", "na", "not applicable", "-"})
CELLS_KEPT = 65_536  # most cells of a month stand in many rows
DIGITS = 200  # more than any product of two columns has
# ISO 4217; a standard of its own, so that this list stands here and not in the table.
CURRENCIES = frozenset(
    re.findall(
        "[A-Z]{3}",
        """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
        CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
        HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
        LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP
        PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT
        TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG""",
    )
)

RowRule = Callable[[Row], str | None]
ASKED_OF_NOTHING = frozenset(
    {RuleKind.NOT_NULL, RuleKind.EQUAL, RuleKind.UNIQUE}
)  # also where a cell is empty


def row_rule(rule: Rule, known: Container[str] | None) -> RowRule | None:
    """What finds the rule's fault in a row; None for a rule that is not about single rows.

    known: the values that a reference may have; None where what it refers to is not delivered.
    """
    column, value, values = rule.column, rule.value, frozenset(rule.values)
    told = rule.text
    match rule.kind:
        case RuleKind.TYPE:
            fits = TYPES[value]
            return lambda row: None if not row[column] or fits(row[column]) else f"{row[column]!r}; {told}"
        case RuleKind.NOT_NULL:
            return lambda row: None if row[column] else f"there is nothing; {told}"
        case RuleKind.NULL:
            return lambda row: f"{row[column]!r}; {told}" if row[column] else None
        case RuleKind.ALLOWED:
            return lambda row: (
                f"{row[column]!r}; {told}" if row[column] and row[column] not in values else None
            )
        case RuleKind.NOT_IN:
            return lambda row: f"{row[column]!r}; {told}" if row[column] in values else None
        case RuleKind.EQUAL:
            return lambda row: (
                None
                if _same(row[column], row.get(value, ""))
                else f"{row[column]!r} and {value} {row.get(value)!r}; {told}"
            )
        case RuleKind.IS_NUMBER | RuleKind.NON_NEGATIVE | RuleKind.RATIO:
            return _bounded(rule)
        case RuleKind.AT_LEAST | RuleKind.AT_MOST | RuleKind.BEFORE:
            return _ordered(rule)
        case RuleKind.PRODUCT:
            return _product(rule)
        case RuleKind.UNIQUE:
            return _unique(rule)
        case RuleKind.ONE_PARENT:
            return _one_parent(rule)
        case RuleKind.REFERENCE:
            return None if known is None else _reference(rule, known)
    return None


@lru_cache(maxsize=CELLS_KEPT)
def decimal_of(text: str) -> Decimal | None:
    """The number that a cell holds, exactly; None when it holds none as the standard writes it."""
    return Decimal(text) if DECIMAL.fullmatch(text) else None


@lru_cache(maxsize=CELLS_KEPT)
def _is_instant(text: str) -> bool:
    if not INSTANT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_object(text: str) -> bool:
    return isinstance(_json(text), dict)


def _is_key_value(text: str) -> bool:
    found = _json(text)
    return isinstance(found, dict) and not any(isinstance(one, (dict, list)) for one in found.values())


@lru_cache(maxsize=CELLS_KEPT)
def _json(text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError:
        return None


TYPES: Mapping[str, Callable[[str], bool]] = {
    "string": lambda text: bool(text.strip()) and text.strip().lower() not in STAND_INS,
    "decimal": lambda text: decimal_of(text) is not None,
    "datetime": _is_instant,
    "json": _is_object,
    "key_value": _is_key_value,
    "currency": lambda text: text in CURRENCIES,
}


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    a, b = decimal_of(one), decimal_of(other)
    return a is not None and b is not None and a == b


def _bounded(rule: Rule) -> RowRule:
    least = Decimal(rule.value) if rule.kind is RuleKind.IS_NUMBER else Decimal(0)
    most = {RuleKind.IS_NUMBER: least, RuleKind.RATIO: Decimal(1)}.get(rule.kind)

    def wrong(row: Row) -> str | None:
        found = decimal_of(row[rule.column])
        if found is None or (least <= found and (most is None or found <= most)):
            return None
        return f"{row[rule.column]}; {rule.text}"

    return wrong


def _ordered(rule: Rule) -> RowRule:
    def wrong(row: Row) -> str | None:
        one, other = row[rule.column], row.get(rule.value, "")
        if not (_is_instant(one) and _is_instant(other)):
            return None  # what is no instant is found by its type
        right = {
            RuleKind.AT_LEAST: one >= other,
            RuleKind.AT_MOST: one <= other,
            RuleKind.BEFORE: one < other,
        }[rule.kind]
        return None if right else f"{one}, and {rule.value} is {other}; {rule.text}"

    return wrong


def _product(rule: Rule) -> RowRule:
    price, quantity = rule.values

    def wrong(row: Row) -> str | None:
        a, b, cost = (decimal_of(row.get(name, "")) for name in (price, quantity, rule.column))
        if a is None or b is None or cost is None:
            return None
        with localcontext(prec=DIGITS):
            exact = a * b
        return None if exact == cost else f"{cost} is not {a} × {b} = {exact:f}; {rule.text}"

    return wrong


def _unique(rule: Rule) -> RowRule:
    seen: set[tuple[str, ...]] = set()

    def wrong(row: Row) -> str | None:
        key = tuple(row.get(name, "") for name in rule.values)
        if key in seen:
            return f"{' / '.join(key)} stands twice; {rule.text}"
        seen.add(key)
        return None

    return wrong


def _one_parent(rule: Rule) -> RowRule:
    parents: dict[str, str] = {}

    def wrong(row: Row) -> str | None:
        child, parent = row[rule.column], row.get(rule.value, "")
        if not child or not parent:
            return None
        known = parents.setdefault(child, parent)
        return (
            None if known == parent else f"{child!r} has {rule.value} {known!r} and {parent!r}; {rule.text}"
        )

    return wrong


def _reference(rule: Rule, known: Container[str]) -> RowRule:
    return lambda row: (
        f"{row[rule.column]!r} stands not in {rule.value}; {rule.text}"
        if row[rule.column] and row[rule.column] not in known
        else None
    )
