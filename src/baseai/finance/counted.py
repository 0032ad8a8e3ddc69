"""What is counted of a price or a commitment is how much of its volume, its hours and its runs is used up.

Invariant: it follows from the rated lines alone, corrections taken off, so it can always be added up again. Volume
counts in the month of the use, in whatever month it was booked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from baseai.finance.period import period_of
from baseai.finance.rated import Category, RatedLine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000

# Payer, price, month, tier, band: what shares one running total.
Total = tuple[str, str, str, int, int]
# Contract, model, hour in µs since 1970 → site → µs within the commitment.
Held = tuple[str, str | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What earlier batches have used up of tiers, commitments and prices per run."""

    quantities: Mapping[Total, int] = field(default_factory=dict)
    held: Mapping[Held, Mapping[str | None, int]] = field(default_factory=dict)
    jobs: frozenset[str] = frozenset()  # runs whose price per run is charged


def counted_of(lines: Iterable[RatedLine]) -> Counted:
    """What rated lines have used up, corrections taken off."""
    quantities: dict[Total, int] = {}
    held: dict[Held, dict[str | None, int]] = {}
    jobs = set()
    for line in lines:
        if line.category in (Category.UNBILLED, Category.COMMITMENT, Category.MINIMUM, Category.CREDIT):
            continue
        if line.price_id is None or line.usage_id is None:
            continue
        key = (line.contract_id or line.tenant_id, line.price_id, month_of(line), line.tier, line.band)
        quantities[key] = quantities.get(key, 0) + line.quantity
        if line.category is Category.RESERVED and line.contract_id is not None:
            hour_us = (line.effective_from - EPOCH) // HOUR * HOUR_US
            sites = held.setdefault((line.contract_id, line.model, hour_us), {})
            sites[line.site_id] = sites.get(line.site_id, 0) + line.quantity
        if line.category is Category.JOB and line.run_id is not None:
            jobs.add(line.run_id)
    return Counted(quantities=quantities, held=held, jobs=frozenset(jobs))


def month_of(line: RatedLine) -> str:
    """The month in which a line's volume counts: that of the use, wherever it is booked."""
    return str(period_of(line.effective_from))
