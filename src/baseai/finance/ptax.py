"""PTAX is the central bank's rate of the dollar: what one dollar sold for when a business day closed, in reais.

Invariant: a rate is one that was published, with the time of its bulletin; between two days nothing is ever
interpolated. A day without a bulletin is only known as one when the bank was asked and had none; a day that nobody
asked about is an error, not a holiday.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from baseai.finance.exchange import ExchangeRate
from baseai.ground.fault import Fault

DAYS_BACK_MOST = 15  # no run of holidays is longer; beyond it something is wrong
SATURDAY = 6
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulletin:
    """What the bank said about one day; without a rate when it said nothing."""

    day: date
    sell: Decimal | None  # reais per dollar
    bulletin_at: datetime | None  # when it was published
    fetched_at: datetime
    digest: str  # of the answer it was read from

    def __post_init__(self) -> None:
        if (self.sell is None) != (self.bulletin_at is None):
            raise ValueError(f"PTAX of {self.day}: rate and time of the bulletin come together")
        if self.sell is not None and self.sell <= 0:
            raise ValueError(f"PTAX of {self.day} is {self.sell}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The rate that holds for a day, and why it is that one."""

    asked: date
    bulletin: Bulletin
    sell: Decimal

    @property
    def rate(self) -> ExchangeRate:
        """As the books take it."""
        return ExchangeRate(base="USD", quote="BRL", rate=self.sell, source="ptax", on=self.bulletin.day)

    @property
    def note(self) -> str:
        """`PTAX 5.3349 of Friday 2026-11-20, bulletin of 13:09; for Monday 2026-11-23`."""
        at = self.bulletin.bulletin_at
        when = f", bulletin of {at:%H:%M}" if at is not None else ""
        day = self.bulletin.day
        return f"PTAX {self.sell} of {_named(day)}{when}; for {_named(self.asked)}"


class RateUnknown(Fault):
    """Nobody asked the bank about a business day that an exchange needs."""

    retryable = True

    def __init__(self, asked: date, missing: date) -> None:
        super().__init__(asked, missing)
        self.asked = asked
        self.missing = missing

    def __str__(self) -> str:
        return (
            f"no PTAX for {self.asked}: the bulletin of {self.missing} is not known and none is made up;"
            f" `baseai fx fetch --from {self.missing}` asks the central bank"
        )


class BankAway(Fault):
    """The central bank's service gave no answer that can be read; nothing was kept."""

    retryable = True

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return (
            f"the central bank's PTAX service did not answer ({self.why}); nothing was kept, try again later"
        )


def exchange(bulletins: Iterable[Bulletin], asked: date) -> Exchange:
    """The closing sell rate of the last business day before `asked`. Raises RateUnknown."""
    known = {bulletin.day: bulletin for bulletin in bulletins}
    day = asked - DAY
    for _ in range(DAYS_BACK_MOST):
        bulletin = known.get(day)
        if bulletin is None and day.isoweekday() < SATURDAY:
            raise RateUnknown(asked, day)
        if bulletin is not None and bulletin.sell is not None:
            return Exchange(asked=asked, bulletin=bulletin, sell=bulletin.sell)
        day -= DAY
    raise RateUnknown(asked, day)


def _named(day: date) -> str:
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"{names[day.weekday()]} {day}"
