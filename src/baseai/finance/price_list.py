"""A price list says what each meter costs, by accelerator model, site and term, from an instant to another.

Invariant: for one list, meter, model, site, term and length, prices follow each other without gap or overlap, so
that at any instant at most one holds. What has been rated with is never edited: a new price closes the old one.
A price for a site beats the one for any site. Peaks are hours of a named zone's wall clock.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from baseai.finance.measure import ACCELERATOR_TIME, JOB, MEASURES, MONTH

DAY_MINUTES = 24 * 60
HOUR = timedelta(hours=1)


class Term(StrEnum):
    """On which terms accelerators are had."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"
    SPOT = "spot"  # what nobody else wants now
    RESEARCH = "research"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """What a priced unit costs from a volume of the month on, until the next tier's."""

    from_volume: Decimal  # in priced units: accelerator-hours of the month
    rate: Decimal

    def __post_init__(self) -> None:
        if self.from_volume < 0 or self.rate < 0:
            raise ValueError(f"a tier of {self.rate} from {self.from_volume} on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Hours of some weekdays in which the price is multiplied."""

    zone: str  # IANA: America/Sao_Paulo
    weekdays: frozenset[int]  # ISO: 1 Monday … 7 Sunday
    from_minute: int  # of the local day
    until_minute: int  # exclusive; 1440 is midnight
    factor: Decimal

    def __post_init__(self) -> None:
        if not 0 <= self.from_minute < self.until_minute <= DAY_MINUTES:
            raise ValueError(
                f"a peak from minute {self.from_minute} to {self.until_minute}; midnight parts two peaks"
            )
        if not self.weekdays or not self.weekdays <= set(range(1, 8)):
            raise ValueError(f"weekdays {sorted(self.weekdays)} are not among 1 to 7")
        if self.factor < 0:
            raise ValueError(f"a peak factor of {self.factor}")

    def holds(self, at: datetime) -> bool:
        local = at.astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        return local.isoweekday() in self.weekdays and self.from_minute <= minute < self.until_minute

    def bounds(self, from_at: datetime, until_at: datetime) -> list[datetime]:
        """Every instant of the span at which it may begin or end, in UTC; some where it does not are harmless."""
        zone = ZoneInfo(self.zone)
        day = from_at.astimezone(zone).date() - timedelta(days=1)
        last = until_at.astimezone(zone).date() + timedelta(days=1)
        found = []
        while day <= last:
            midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
            for minute in (self.from_minute, self.until_minute):
                wall = midnight + timedelta(
                    minutes=minute
                )  # of the wall clock: zoneinfo adds without looking
                found += [wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)]
            first = midnight.astimezone(UTC)
            if (
                midnight.utcoffset() != (midnight + timedelta(days=1)).utcoffset()
            ):  # clocks are put on or back
                found += [first + HOUR * n for n in range(26)]
            day += timedelta(days=1)
        return [at for at in found if from_at < at < until_at]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One row of a list."""

    price_id: str
    list_id: str
    term: Term
    currency: str  # ISO 4217
    tiers: tuple[Tier, ...]  # the first from 0 on
    valid_from: datetime
    valid_until: datetime | None = None  # exclusive; None: until further notice
    meter: str = ACCELERATOR_TIME
    unit: str = "accelerator_hour"  # what the rate is for: the meter's own priced unit, a job, or a month
    model: str | None = None  # None where the meter knows no accelerator
    site_id: str | None = None  # None: at any site
    months: int | None = None  # of a reserved price: for contracts at least so long; None: for any
    peaks: tuple[Peak, ...] = ()
    source: str = ""  # who set it, or where it comes from

    def __post_init__(self) -> None:
        if self.meter not in MEASURES:
            raise ValueError(f"{self.price_id}: no meter {self.meter!r}; there are {', '.join(MEASURES)}")
        units = (MEASURES[self.meter].priced_per, JOB, MONTH)
        if self.unit not in units:
            raise ValueError(
                f"{self.price_id}: {self.meter} is priced per {', '.join(units)}, not per {self.unit!r}"
            )
        if len(self.currency) != 3 or not self.currency.isupper():
            raise ValueError(f"{self.price_id}: {self.currency!r} is not an ISO 4217 code")
        if not self.tiers or self.tiers[0].from_volume != 0:
            raise ValueError(f"{self.price_id}: the first tier starts at volume 0")
        if any(a.from_volume >= b.from_volume for a, b in itertools.pairwise(self.tiers)):
            raise ValueError(f"{self.price_id}: tiers do not rise")
        if (len(self.tiers) > 1 or self.peaks) and self.unit in (JOB, MONTH):
            raise ValueError(f"{self.price_id}: a price per {self.unit} has neither tiers nor peaks")
        if (len(self.tiers) > 1 or self.peaks) and self.term is Term.RESERVED:
            raise ValueError(
                f"{self.price_id}: what is reserved is paid day and night, without tiers or peaks"
            )
        if self.valid_from.tzinfo is None or (self.valid_until is not None and not self.valid_until.tzinfo):
            raise ValueError(f"{self.price_id}: an instant names no zone")
        if self.valid_until is not None and self.valid_until <= self.valid_from:
            raise ValueError(f"{self.price_id} ends before it begins")
        if self.months is not None and (self.term is not Term.RESERVED or self.months <= 0):
            raise ValueError(f"{self.price_id}: only a reserved price is for a number of months")

    def holds(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)

    def band(self, at: datetime) -> int:
        """0 off the peak, else which peak holds, from 1; the first that does."""
        return next((no for no, peak in enumerate(self.peaks, 1) if peak.holds(at)), 0)

    def rate(self, *, tier: int = 0, band: int = 0) -> Decimal:
        """Per unit, peak in it, before any discount."""
        rate = self.tiers[tier].rate
        return rate if band == 0 else rate * self.peaks[band - 1].factor


Line = tuple[str, str, str | None, str | None, Term, int | None]


def line_of(price: Price) -> Line:
    """What its successor shares with it."""
    return (price.list_id, price.meter, price.model, price.site_id, price.term, price.months)


def price_faults(prices: Iterable[Price]) -> tuple[str, ...]:
    """Every gap and overlap, each naming both records; and every line whose currency changes half way."""
    lines: dict[Line, list[Price]] = defaultdict(list)
    for price in prices:
        lines[line_of(price)].append(price)
    faults = []
    for line in lines.values():
        ordered = sorted(line, key=lambda price: (price.valid_from, price.price_id))
        for before, after in itertools.pairwise(ordered):
            names = f"{before.price_id} and {after.price_id}"
            if before.valid_until is None or before.valid_until > after.valid_from:
                faults.append(f"{names} overlap from {after.valid_from.isoformat()} on")
            elif before.valid_until < after.valid_from:
                faults.append(
                    f"a gap between {names}: no price from {before.valid_until.isoformat()}"
                    f" to {after.valid_from.isoformat()}"
                )
    return tuple(faults)


class PriceBook:
    """All prices of all lists, to be asked. Raises ValueError when a list has a gap or an overlap."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self.prices = tuple(prices)
        faults = price_faults(self.prices)
        if faults:
            raise ValueError("; ".join(faults))
        self._lines: dict[tuple[str, str, str | None, Term], list[Price]] = defaultdict(list)
        for price in self.prices:
            self._lines[price.list_id, price.meter, price.model, price.term].append(price)

    def candidates(
        self, lists: Sequence[str], *, meter: str, model: str | None, term: Term
    ) -> tuple[Price, ...]:
        """Every price that may ever answer such a question."""
        return tuple(price for name in lists for price in self._lines.get((name, meter, model, term), ()))

    def price(
        self,
        lists: Sequence[str],
        *,
        meter: str,
        model: str | None,
        site_id: str | None,
        term: Term,
        at: datetime,
        months: int | None = None,
    ) -> Price | None:
        """The price that holds: of the first list that knows one, for the site before any, for the longest term.

        months: the length of a reserved contract.
        """
        for name in lists:
            held = [
                price
                for price in self._lines.get((name, meter, model, term), ())
                if price.holds(at)
                and price.site_id in (None, site_id)
                and (price.months is None or (months is not None and price.months <= months))
            ]
            if held:
                return max(held, key=lambda price: (price.site_id is not None, price.months or 0))
        return None
