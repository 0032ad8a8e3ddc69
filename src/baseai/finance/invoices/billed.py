"""A billed line is a rated line as a document takes it up: with the serial and the run behind it, and its worth in the
currency of the document.

Invariant: worths in another currency add up to the exchanged sum of all amounts, to the micro-unit: each is the
exchanged running total after it less the one before it, in the order of rated ids. Whoever reckons again from the same
lines and the same rate gets the same worths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from baseai.finance.exchange import ExchangeRate, exchanged
from baseai.finance.rated import RatedLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """One rated line and what people call what is behind it."""

    line: RatedLine
    serial: str | None = None
    run: str | None = None  # its name
    contract: str | None = None  # its name
    original: str | None = None  # the invoice that asked for what this line takes back


def in_order(billed: Sequence[Billed]) -> list[Billed]:
    """The order in which amounts are exchanged."""
    return sorted(billed, key=lambda one: one.line.rated_id)


def worths(billed: Sequence[Billed], *, currency: str, rate: ExchangeRate | None) -> list[int]:
    """What each line is worth in `currency`, in micro-units. `billed` stands in order.

    Raises ValueError for another currency without a rate.
    """
    running = Running(currency=currency, rate=rate)
    return [running.worth(one.line.amount_micros, one.line.currency) for one in billed]


class Running:
    """Running totals of one document, each other currency apart; for whoever sees lines one by one."""

    def __init__(self, *, currency: str, rate: ExchangeRate | None) -> None:
        self._currency = currency
        self._rate = rate
        self._totals: dict[str, tuple[int, int]] = {}

    def worth(self, micros: int, currency: str) -> int:
        """What the next line comes to."""
        if currency == self._currency:
            return micros
        if self._rate is None:
            raise ValueError(f"{currency} on a document in {self._currency}, and no rate")
        priced, worth = self._totals.get(currency, (0, 0))
        after, _ = exchanged(priced + micros, currency, self._rate)
        self._totals[currency] = (priced + micros, after)
        return after - worth
