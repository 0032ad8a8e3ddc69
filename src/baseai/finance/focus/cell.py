"""A cell is one value of a FOCUS file as text: empty for nothing, exact decimals with a point, instants in UTC.

Invariant: a price is kept to eight digits after the point and a quantity to nine, so that their product has at most
seventeen and stands in the file exactly. Nothing else is rounded.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from baseai.ground.money import MICRO

PRICE_STEP = Decimal("0.00000001")
QUANTITY_STEP = Decimal("0.000000001")
DIGITS = 60

Cells = dict[str, str]


def decimal_cell(value: Decimal | None) -> str:
    if value is None:
        return ""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def micros_cell(micros: int) -> str:
    """An amount of micro-units in whole currency units."""
    return decimal_cell(Decimal(micros) / MICRO)


def instant_cell(at: datetime | None) -> str:
    """To the second: what ends within one ends with it, as it began."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def price_of(rate: Decimal) -> Decimal:
    with localcontext(prec=DIGITS):
        return rate.quantize(PRICE_STEP, ROUND_HALF_EVEN)


def quantity_of(quantity: Decimal) -> Decimal:
    with localcontext(prec=DIGITS):
        return quantity.quantize(QUANTITY_STEP, ROUND_HALF_EVEN)


def product(price: Decimal, quantity: Decimal) -> Decimal:
    with localcontext(prec=DIGITS):
        return price * quantity


def object_cell(pairs: Mapping[str, object]) -> str:
    """A JSON object. Decimals become JSON numbers with all their digits."""
    return _json(pairs)


def _json(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_json(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_json(one) for one in value) + "]"
    if isinstance(value, Decimal):
        return decimal_cell(value)
    return json.dumps(value, ensure_ascii=False)
