"""A tariff calendar says which hours of a site's wall clock are peak for its energy.

Invariant: peak is told by the local clock and energy by UTC, so an hour of UTC may be peak in part, and when clocks are
put on or back no kilowatt-hour is counted twice or lost. Calendars are data, in `tariff_calendars.csv`.
"""

import csv
import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files

from baseai.finance.price_list import Peak
from baseai.ground.clock import hour_of

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TariffCalendar:
    """The peak hours of one place."""

    subject: str  # country:BR, site:SP4
    peak: Peak

    def peak_ratio(self, hour: datetime) -> Decimal:
        """What share of a UTC hour is peak."""
        start = hour_of(hour)
        end = start + HOUR
        cuts = [start, *sorted(set(self.peak.bounds(start, end))), end]
        peak = sum(
            (until - since for since, until in itertools.pairwise(cuts) if self.peak.holds(since)),
            timedelta(0),
        )
        return Decimal(peak // timedelta(seconds=1)) / 3600


@cache
def tariff_calendars() -> Mapping[str, TariffCalendar]:
    """Those that are shipped, by subject."""
    text = files("baseai.finance.costs").joinpath("tariff_calendars.csv").read_text(encoding="utf-8")
    return {
        row["subject"]: TariffCalendar(
            subject=row["subject"],
            peak=Peak(
                zone=row["zone"],
                weekdays=_weekdays(row["weekdays"]),
                from_minute=_minute(row["from"]),
                until_minute=_minute(row["until"]),
                factor=Decimal(1),
            ),
        )
        for row in csv.DictReader(io.StringIO(text))
    }


def _weekdays(text: str) -> frozenset[int]:
    first, _, last = text.partition("-")
    return frozenset(range(int(first), int(last or first) + 1))


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
