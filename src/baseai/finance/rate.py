"""A rate is what one hour of one accelerator sells for, and what it costs us to own and run.

Invariant: a rate is a Decimal per accelerator-hour with its currency and where it comes from; finance never
looks prices up itself. `Rates` is the question it asks; wiring answers it from the catalogue.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyPrice:
    """The list price of one accelerator-hour on demand."""

    per_hour: Decimal
    currency: str  # ISO 4217
    source: str  # the price list and its date

    def __post_init__(self) -> None:
        if self.per_hour < 0:
            raise ValueError(f"a price of {self.per_hour} an hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyCostRate:
    """What one accelerator-hour costs us, by where the money goes."""

    depreciation: Decimal  # straight line: (purchase − residual) ÷ useful hours
    energy: Decimal  # power × PUE × tariff
    colocation: Decimal  # space and power contracted at the site
    currency: str  # ISO 4217
    basis: str  # the assumptions in a sentence, with their date

    def __post_init__(self) -> None:
        if min(self.depreciation, self.energy, self.colocation) < 0:
            raise ValueError(f"a negative cost rate: {self}")

    def total(self) -> Decimal:
        return self.depreciation + self.energy + self.colocation


class Rates(Protocol):
    """What finance needs of the price list and of the cost assumptions.

    The same question must get the same answer for ever: a new price has a later `at`, it replaces nothing.
    None means that no figure is known; the time stays metered and unposted until there is one.
    """

    def price(self, model: str, at: datetime) -> HourlyPrice | None: ...

    def hourly_cost(self, model: str, site_id: str, at: datetime) -> HourlyCostRate | None: ...
