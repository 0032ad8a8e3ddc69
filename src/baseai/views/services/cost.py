"""What a service cost over a window: the money of its replicas, which are runs, shared out over what it answered.

Invariant: money comes from the books' own rows of each run; a run that was there before or after the window as well
gives the part that its time in it is of all its time, and then the sum is an estimate. Nothing asked: no quotient.
Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from baseai.ground.money import MICRO

Row = dict[str, Any]
HOUR_US = 3_600_000_000
DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMoney:
    """What the books say of one replica, over all its life."""

    run_id: str
    currency: str
    revenue: Decimal
    cost: Decimal | None  # None for whom it is not to see
    accruing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaTime:
    """Accelerator time of one replica that was observed, in microseconds."""

    run_id: str
    all_us: int
    within_us: int


def cost_of(
    money: Sequence[ReplicaMoney], times: Sequence[ReplicaTime], answered: Mapping[str, Any]
) -> list[Row]:
    """One row a currency. `answered`: the window's answered, tokens_in and tokens_out."""
    time_of = {time.run_id: time for time in times}
    sums: dict[str, Row] = {}
    for each in money:
        time = time_of.get(each.run_id)
        if time is None or time.within_us == 0:
            continue
        part = Decimal(time.within_us) / Decimal(time.all_us)
        row = sums.setdefault(
            each.currency,
            {
                "currency": each.currency, "revenue": Decimal(0), "cost": Decimal(0), "replicas": 0,
                "accruing": False, "estimated": False, "within_us": 0,
            },
        )  # fmt: skip
        row["revenue"] += each.revenue * part
        row["cost"] = None if each.cost is None or row["cost"] is None else row["cost"] + each.cost * part
        row["replicas"] += 1
        row["within_us"] += time.within_us
        row["accruing"] |= each.accruing
        row["estimated"] |= part < 1
    return [_told(row, answered) for _, row in sorted(sums.items())]


def _told(row: Row, answered: Mapping[str, Any]) -> Row:
    requests, tokens = answered["answered"], answered["tokens_in"] + answered["tokens_out"]
    told = {name: value for name, value in row.items() if name != "within_us"}
    told["accelerator_hours"] = (Decimal(row["within_us"]) / HOUR_US).quantize(Decimal("0.000001"))
    for name in ("revenue", "cost"):
        amount = row[name]
        told[name] = _fine(amount)
        told[f"{name}_per_1000_requests"] = _per(amount, requests, 1_000)
        told[f"{name}_per_million_tokens"] = _per(amount, tokens, 1_000_000)
    return told | {"requests": requests, "tokens": tokens}


def _per(amount: Decimal | None, count: int, unit: int) -> Decimal | None:
    """A quotient to DIGITS significant digits, and no finer than a micro-unit."""
    if amount is None or not count:
        return None
    quotient = amount * unit / count
    return _fine(Context(prec=DIGITS).plus(quotient))


def _fine(amount: Decimal | None) -> Decimal | None:
    """To a micro-unit, as everything that is shown; postings are exact, a part of them is not."""
    return None if amount is None else (amount * MICRO).to_integral_value() / MICRO
