"""A cost row is what one thing (a run, a node, an accelerator, a tenant) used, earned and cost.

Invariant: its money is the books' plus, flagged as accruing, an estimate for time that is observed and not
posted yet, at the rates that posting will use, so that it turns into transfers without a jump.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from baseai.finance.rate import Rates
from baseai.ground.money import Money, charge


class By(StrEnum):
    """What the rows of a cost report are about."""

    RUN = "run"
    NODE = "node"
    ACCELERATOR = "accelerator"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """Hours, revenue, cost and contribution of one subject in one currency."""

    subject: str
    accelerator_us: int
    revenue: Money
    cost: Money
    accruing: bool  # part of it is an estimate until posted
    basis: str = ""  # what the cost rests on

    def contribution(self) -> Money:
        return self.revenue - self.cost


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedSum:
    """What the books hold for a subject in one currency."""

    subject: str
    currency: str
    revenue_micros: int
    cost_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedSum:
    """Time of a subject on accelerators of one model at one site that started in one hour."""

    subject: str
    model: str
    site_id: str
    hour: datetime
    used_us: int
    open_us: int  # the part of it that is not posted
    open_billable_us: int


@dataclass(slots=True)
class _Sums:
    used_us: int = 0
    revenue_micros: dict[str, int] = field(default_factory=dict)
    cost_micros: dict[str, int] = field(default_factory=dict)
    accruing: bool = False
    basis: dict[str, None] = field(default_factory=dict)  # in order of first sight


def cost_rows(booked: Iterable[BookedSum], used: Iterable[UsedSum], rates: Rates) -> tuple[CostRow, ...]:
    """One row per subject and currency, by subject.

    Time without a known rate counts as time and adds no money; its row says so in `basis`. A subject with
    two currencies has its time in the first of them only, so that sums over rows count no hour twice.
    """
    subjects: dict[str, _Sums] = {}
    for row in booked:
        sums = subjects.setdefault(row.subject, _Sums())
        _add(sums.revenue_micros, row.currency, row.revenue_micros)
        _add(sums.cost_micros, row.currency, row.cost_micros)
    for time in used:
        sums = subjects.setdefault(time.subject, _Sums())
        sums.used_us += time.used_us
        price = rates.price(time.model, time.hour)
        cost = rates.hourly_cost(time.model, time.site_id, time.hour)
        sums.accruing |= time.open_us > 0
        if price is None or cost is None:
            sums.basis[f"{time.model}: no {'price' if price is None else 'cost'} known"] = None
            continue
        sums.basis[cost.basis] = None
        _add(
            sums.revenue_micros,
            price.currency,
            charge(price.per_hour, micro_seconds=time.open_billable_us, currency=price.currency).micros,
        )
        _add(
            sums.cost_micros,
            cost.currency,
            sum(
                charge(rate, micro_seconds=time.open_us, currency=cost.currency).micros
                for rate in (cost.depreciation, cost.energy, cost.colocation)
            ),
        )
    rows = []
    for subject, sums in sorted(subjects.items()):
        currencies = sorted({*sums.revenue_micros, *sums.cost_micros}) or ["USD"]
        for place, currency in enumerate(currencies):
            rows.append(
                CostRow(
                    subject=subject,
                    accelerator_us=sums.used_us if place == 0 else 0,
                    revenue=Money(currency=currency, micros=sums.revenue_micros.get(currency, 0)),
                    cost=Money(currency=currency, micros=sums.cost_micros.get(currency, 0)),
                    accruing=sums.accruing,
                    basis="; ".join(sums.basis),
                )
            )
    return tuple(rows)


def _add(sums: dict[str, int], currency: str, micros: int) -> None:
    sums[currency] = sums.get(currency, 0) + micros
