"""A measure is one thing that is metered: what it is counted in, and the larger unit that a price is for.

Invariant: quantities are whole numbers of the counted unit and never change their unit; a price or an event in
another unit is refused, because a price per hour taken for one per minute is wrong sixtyfold and looks right.
A new meter is a row of `MEASURES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

ACCELERATOR_TIME = "accelerator_time"

# What a price may be for instead of a quantity of its meter.
JOB = "job"
MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How one meter counts and how it is priced."""

    meter: str
    counted_in: str
    priced_per: str
    counted_per_priced: int

    def priced(self, quantity: int) -> Decimal:
        """The quantity in priced units: 1.5 accelerator-hours."""
        return Decimal(quantity) / self.counted_per_priced


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.meter: measure
        for measure in (
            Measure(
                meter=ACCELERATOR_TIME,
                counted_in="us",
                priced_per="accelerator_hour",
                counted_per_priced=3_600_000_000,
            ),
            Measure(
                meter="tokens_in",
                counted_in="tokens",
                priced_per="million_tokens",
                counted_per_priced=1_000_000,
            ),
            Measure(
                meter="tokens_out",
                counted_in="tokens",
                priced_per="million_tokens",
                counted_per_priced=1_000_000,
            ),
            Measure(
                meter="requests",
                counted_in="requests",
                priced_per="thousand_requests",
                counted_per_priced=1_000,
            ),
            Measure(
                meter="storage", counted_in="mib_s", priced_per="gib_hour", counted_per_priced=1024 * 3600
            ),
            Measure(meter="energy", counted_in="ws", priced_per="kwh", counted_per_priced=3_600_000),
        )
    }
)


def micros_per_counted(rate: Decimal, measure: Measure) -> Fraction:
    """Micro-units for one counted unit at `rate` currency units per priced unit, exactly."""
    return Fraction(rate) * 1_000_000 / measure.counted_per_priced
