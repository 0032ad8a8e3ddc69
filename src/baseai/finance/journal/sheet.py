"""A sheet is transfers or rated lines as rows of text, for spreadsheets and programs: RFC 4180, a point for decimals.

Invariant: every field of the value is a column of its name, with amounts both in micro-units, as they are kept, and in
whole units, as they are read; empty is nothing.
"""

from dataclasses import fields
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from baseai.finance.rated import RatedLine
from baseai.finance.transfer import Transfer
from baseai.ground.money import MICRO

TRANSFER_COLUMNS = (*(field.name for field in fields(Transfer)), "amount")
RATED_COLUMNS = (*(field.name for field in fields(RatedLine)), "amount")


def transfer_cells(transfer: Transfer) -> dict[str, str]:
    cells = {field.name: _cell(getattr(transfer, field.name)) for field in fields(Transfer)}
    return cells | {"period": str(transfer.booked_in), "amount": _amount(transfer.amount_micros)}


def rated_cells(line: RatedLine) -> dict[str, str]:
    cells = {field.name: _cell(getattr(line, field.name)) for field in fields(RatedLine)}
    return cells | {"amount": _amount(line.amount_micros)}


def _amount(micros: int) -> str:
    return f"{Decimal(micros) / MICRO:f}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
