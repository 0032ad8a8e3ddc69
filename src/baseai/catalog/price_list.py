"""A price list says what an accelerator-hour costs a customer on demand, from an instant on.

Invariant: at any instant at most one price holds for a model, the latest that has taken effect; a price that
has taken effect is never edited, because usage was rated with it. Prices change by a new table in
`data/price_list.toml` with a later `effective_from`.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from baseai.catalog.sheet import Sheet
from baseai.catalog.source import Source
from baseai.ground.fault import NotFound

__all__ = ["Price", "PriceList", "price_list_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one hour of one accelerator costs on demand, from `effective_from` until a later price."""

    model: str
    per_hour: Decimal
    currency: str  # ISO 4217
    effective_from: datetime
    source: Source  # where the level was taken from


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Every on-demand price that ever held or will hold, oldest first."""

    prices: tuple[Price, ...]

    def price(self, model: str, at: datetime) -> Price:
        """The price that holds at an instant. Raises NotFound when none has taken effect yet."""
        if at.tzinfo is None:
            raise ValueError(f"{at} names no zone")
        held = [price for price in self.prices if price.model == model and price.effective_from <= at]
        if not held:
            raise NotFound("on-demand price", f"for {model} at {at.isoformat()}")
        return held[-1]


def price_list_in(sheet: Sheet, *, models: frozenset[str]) -> PriceList:
    """The price list of a sheet. Raises BrokenSheet, also for a model outside `models` or a price twice."""
    prices: list[Price] = []
    for entry in sheet.entries("prices"):
        entry.only("effective_from", "currency", "per_hour")
        effective_from = entry.instant("effective_from")
        currency = entry.plain("currency")
        if len(currency) != 3 or not currency.isupper():
            raise entry.broken("currency", f"{currency!r} is not an ISO 4217 code")
        table = entry.table("per_hour")
        for model in table.values:
            if model not in models:
                raise table.broken(model, "is not in the catalogue")
            if any(price.model == model and price.effective_from == effective_from for price in prices):
                raise table.broken(model, f"has a second price from {effective_from.isoformat()} on")
            if table.decimal(model) <= 0:
                raise table.broken(model, "is not a positive price")
            prices.append(
                Price(
                    model=model,
                    per_hour=table.decimal(model),
                    currency=currency,
                    effective_from=effective_from,
                    source=table.source(model),
                )
            )
    return PriceList(prices=tuple(sorted(prices, key=lambda price: price.effective_from)))
