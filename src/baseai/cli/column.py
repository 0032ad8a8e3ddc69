"""A column is one fact of many things, set so that an eye runs down it: text to the left, figures to the right.

Invariant: a table of equal values is the same text everywhere; only a terminal may shorten its last column.
Pure: lines come out, nothing is printed.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from baseai.ground.money import MICRO, Money, shown

GAP = "  "
ABSENT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A head and how the cells below it stand."""

    head: str
    right: bool = False


def plain(text: object) -> str:
    """Text of others as it may reach a terminal: on one line, without control characters."""
    spaced = str(text).translate({ord(char): " " for char in "\n\r\t"})
    return "".join(char for char in spaced if unicodedata.category(char) != "Cc")


def cells_wide(text: str) -> int:
    """How many terminal cells a text takes: wide characters two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None = None
) -> list[str]:
    """Head and rows as lines. `width`: cells of the terminal, None for as many as it takes."""
    clean = [[cell if cell.strip() else ABSENT for cell in map(plain, row)] for row in rows]
    widths = [
        max([cells_wide(column.head), *(cells_wide(row[i]) for row in clean)])
        for i, column in enumerate(columns)
    ]
    lines = []
    for row in [[column.head for column in columns], *clean]:
        parts = []
        for cell, column, wide in zip(row, columns, widths, strict=True):
            pad = " " * (wide - cells_wide(cell))
            parts.append(pad + cell if column.right else cell + pad)
        lines.append(_fitting(GAP.join(parts).rstrip(), width))
    return lines


def fact_lines(facts: Sequence[tuple[str, str]]) -> list[str]:
    """`name  value` lines of one thing, the values under each other; a fact without a value is left out."""
    known = [(name, plain(value).strip()) for name, value in facts if value.strip()]
    wide = max((cells_wide(name) for name, _ in known), default=0)
    return [f"{name}{' ' * (wide - cells_wide(name))}{GAP}{value}" for name, value in known]


def money_of(amount: Decimal, currency: str) -> Money:
    """An amount from the wire as money; anything finer than a micro-unit is a price, not an amount."""
    return Money(currency=currency, micros=int((amount * MICRO).to_integral_value()))


def money_text(amount: Decimal, currency: str = "USD") -> str:
    """As many digits as the amount needs, and at least two."""
    return shown(money_of(amount, currency))


def money_column(amounts: Sequence[Decimal | None], currency: str = "USD") -> list[str]:
    """One column of money: every amount with the digits that the finest needs, so that the points line up."""
    known = [money_text(amount, currency) for amount in amounts if amount is not None]
    digits = max((len(text.partition(".")[2]) for text in known), default=2)
    return [
        "" if amount is None else shown(money_of(amount, currency), least_digits=digits) for amount in amounts
    ]


def figure(number: object, *, digits: int = 4) -> str:
    """A measured number with four significant digits, or nothing when it is unknown."""
    if isinstance(number, bool) or not isinstance(number, (int, float, Decimal)):
        return ""
    return (
        f"{number:,}"
        if isinstance(number, int)
        else f"{float(number):,.{digits}g}"
        if abs(number) < 10**digits
        else f"{number:,.0f}"
    )


def age(since: datetime, now: datetime) -> str:
    """How long ago, in the two largest units that matter: `12s`, `4m05s`, `3h20m`, `2d04h`."""
    seconds = max(0, round((now - since).total_seconds()))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02d}h"


def instant_text(at: datetime | None) -> str:
    """An instant in UTC, to the second."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def bytes_text(count: float) -> str:
    """Bytes as people say them: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:.4g} TiB"


def _fitting(line: str, width: int | None) -> str:
    if width is None or cells_wide(line) <= width:
        return line
    kept = ""
    for char in line:
        if cells_wide(kept + char) > width - 1:
            break
        kept += char
    return kept + "…"
