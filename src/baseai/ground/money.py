"""Money is an integer of micro-units (10⁻⁶ of the currency) with its currency beside it.

Invariant: amounts of two currencies are never added. Rates and prices are Decimal; they become integer
micro-units in one place, `charge`, which rounds half to even. Cents arise later, on the invoice line only.
"""

from dataclasses import dataclass
from decimal import Decimal

MICRO = 1_000_000
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Money:
    """An amount that has happened; may be negative as a balance, never as a transfer."""

    currency: str  # ISO 4217
    micros: int

    def __post_init__(self) -> None:
        if len(self.currency) != 3 or not self.currency.isupper():
            raise ValueError(f"{self.currency!r} is not an ISO 4217 code")

    def __add__(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency} do not add")
        return Money(currency=self.currency, micros=self.micros + other.micros)

    def __neg__(self) -> "Money":
        return Money(currency=self.currency, micros=-self.micros)

    def __sub__(self, other: "Money") -> "Money":
        return self + -other

    def amount(self) -> Decimal:
        return Decimal(self.micros) / MICRO


def charge(rate_per_hour: Decimal, *, micro_seconds: int, currency: str) -> Money:
    """What `micro_seconds` µs at `rate_per_hour` currency units an hour come to, half to even.

    Exact however many digits the rate has; the function `charge` in the database gives the same.
    """
    if micro_seconds < 0:
        raise ValueError(f"{micro_seconds} µs is not a duration")
    numerator, denominator = rate_per_hour.as_integer_ratio()
    whole, rest = divmod(numerator * micro_seconds, denominator * SECONDS_PER_HOUR)
    twice = 2 * rest - denominator * SECONDS_PER_HOUR
    return Money(currency=currency, micros=whole + (twice > 0 or (twice == 0 and whole % 2 == 1)))


def shown(money: Money, *, least_digits: int = 2) -> str:
    """The amount with as many digits as it needs and at least `least_digits`, with a point: `0.000417`."""
    sign = "-" if money.micros < 0 else ""
    whole, micros = divmod(abs(money.micros), MICRO)
    fraction = f"{micros:06d}"
    kept = fraction.rstrip("0")
    return f"{sign}{whole:,}.{fraction[: max(least_digits, len(kept))]}"
