"""A month's cost is what no hour carries: the month's length, its highest demand, what collecting took, the meter.

Invariant: hours are booked at standard rates; a month's line brings one nature of one accelerator, site or customer
from there to what it really came to, so that standard and line together are the bill. It is reckoned the same at any
time of the month and booked once the month is over; what is learnt later is one more transfer over the difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from baseai.finance.account import ACCUMULATED_DEPRECIATION
from baseai.finance.costs.margin import HOUR_US, CostNature
from baseai.finance.costs.terms import USD, Terms
from baseai.finance.period import Calendar, Period
from baseai.finance.transfer import Transfer
from baseai.ground.money import MICRO

MICROSECOND = timedelta(microseconds=1)
MONTHS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """What a line is for. Any of them may be missing."""

    accelerator_no: int | None = None
    node_id: str | None = None
    site_id: str | None = None
    model: str | None = None
    round_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthLine:
    """One nature of one owner: what the month adds to its hours; negative where the hours were too dear."""

    nature: CostNature
    whose: Whose
    amount_micros: int
    currency: str
    basis: str

    @property
    def key(self) -> str:
        """Names the line within its month, for ever."""
        whose = self.whose
        place = [
            f"a{whose.accelerator_no}" if whose.accelerator_no is not None else "",
            whose.site_id if whose.accelerator_no is None and whose.site_id else "",
            whose.tenant_id or "",
            "" if self.currency == USD else self.currency,
        ]
        return "-".join([self.nature.value, *(one for one in place if one)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """How long one accelerator was installed under the same terms, and what its hours come to at standard rates."""

    whose: Whose
    micro_seconds: int
    terms: Terms  # with what is known of its round
    standard: Terms  # without: what hours are booked at


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedEnergy:
    """What an accelerator's own counter said while somebody, or nobody, held it, at one price."""

    whose: Whose  # with the tenant that held it
    kwh: Decimal
    micro_seconds: int  # the time that it is known for
    price_per_kwh: Decimal  # of the counter's: host, hall and tariff in it
    standard_per_hour: Decimal  # what its hours are booked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The highest demand of a site in a month, in kW at the meter."""

    site_id: str
    kilowatts: Decimal
    measured: bool  # of quarters of an hour; otherwise what is installed draws by rating
    rate_per_kw_month: Decimal


def lines_of(
    stays: Iterable[Stay],
    counted: Iterable[CountedEnergy],
    demands: Iterable[Demand],
    collected: Mapping[tuple[str, str], int],
    *,
    fee_ratio: Decimal,
    month_us: int,
) -> tuple[MonthLine, ...]:
    """What the month adds, by nature and owner.

    collected: revenue in micro-units by (tenant, currency). month_us: the length of the month, of which stays are a
    share; a rate a month is for all of it, however long it is.
    """
    sums: dict[tuple[CostNature, Whose, str], Decimal] = {}
    basis: dict[tuple[CostNature, Whose, str], str] = {}

    def add(nature: CostNature, whose: Whose, amount: Decimal, why: str, currency: str = USD) -> None:
        key = nature, whose, currency
        sums[key] = sums.get(key, Decimal(0)) + amount
        basis.setdefault(key, why)

    for stay in stays:
        terms, standard, hours = stay.terms, stay.standard, Decimal(stay.micro_seconds) / HOUR_US
        share = Decimal(stay.micro_seconds) / month_us
        contracted = terms.kilowatts * terms.colocation_per_kw_month * share
        add(
            CostNature.COLOCATION,
            stay.whose,
            contracted - standard.colocation_per_hour() * hours,
            "the month's own length",
        )
        add(
            CostNature.NETWORK,
            stay.whose,
            terms.kilowatts * terms.network_per_kw_month * share,
            "bandwidth by contracted power",
        )
        add(CostNature.SUPPORT, stay.whose, terms.support_per_hour() * hours, "share of the landed price")
        add(
            CostNature.MAINTENANCE,
            stay.whose,
            terms.maintenance_per_hour() * hours,
            "share of the landed price",
        )
        add(
            CostNature.DEPRECIATION,
            stay.whose,
            (terms.ownership.depreciation_per_hour() - standard.ownership.depreciation_per_hour()) * hours,
            "what its round really paid, against the standard",
        )
    for energy in counted:
        hours = Decimal(energy.micro_seconds) / HOUR_US
        add(
            CostNature.ENERGY,
            energy.whose,
            energy.kwh * energy.price_per_kwh - energy.standard_per_hour * hours,
            "measured energy, against the rating that its hours are booked at",
        )
    for demand in demands:
        how = "highest quarter of an hour, measured" if demand.measured else "power installed, rated"
        add(
            CostNature.DEMAND,
            Whose(site_id=demand.site_id),
            demand.kilowatts * demand.rate_per_kw_month,
            f"{demand.kilowatts.normalize():f} kW: {how}",
        )
    for (tenant_id, currency), micros in collected.items():
        add(
            CostNature.PAYMENT_FEES,
            Whose(tenant_id=tenant_id),
            Decimal(max(0, micros)) / MICRO * fee_ratio,
            "share of revenue",
            currency,
        )
    return tuple(
        MonthLine(
            nature=nature,
            whose=whose,
            amount_micros=rounded,
            currency=currency,
            basis=basis[nature, whose, currency],
        )
        for (nature, whose, currency), amount in sums.items()
        if (rounded := int((amount * MICRO).to_integral_value(ROUND_HALF_EVEN)))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedLine:
    """What the books hold of one month line."""

    amount_micros: int
    transfers: int


def month_postings(
    lines: Sequence[MonthLine],
    booked: Mapping[str, BookedLine],
    period: Period,
    gone: Mapping[str, MonthLine],
    *,
    calendar: Calendar,
) -> tuple[Transfer, ...]:
    """The transfers that bring the books from `booked` (by key) to `lines`, in the month that is open.

    gone: lines that are booked and that the month no longer has, with an amount of nothing.
    """
    effective_at = period.ends_at() - MICROSECOND
    month = calendar.booking_of(effective_at)
    transfers = []
    for line in [*lines, *gone.values()]:
        before = booked.get(line.key)
        amount = line.amount_micros - (before.amount_micros if before else 0)
        if amount == 0:
            continue
        account = f"cost:{line.nature.value}"
        other = (
            ACCUMULATED_DEPRECIATION
            if line.nature is CostNature.DEPRECIATION
            else f"payable:{line.nature.value}"
        )
        stem = f"month-{period}-{line.key}"
        transfers.append(
            Transfer(
                transfer_id=f"tr_{stem}" + (f"-{before.transfers}" if before else ""),
                entry_id=stem,
                debit_account=account if amount > 0 else other,
                credit_account=other if amount > 0 else account,
                amount_micros=abs(amount),
                currency=line.currency,
                effective_at=effective_at,
                period=None if month == period else month,
                tenant_id=line.whose.tenant_id,
                accelerator_no=line.whose.accelerator_no,
                node_id=line.whose.node_id,
                site_id=line.whose.site_id,
                model=line.whose.model,
                round_id=line.whose.round_id,
                note=line.basis,
            )
        )
    return tuple(transfers)


def highest_quarter(demands_kw: Mapping[int, Decimal]) -> Decimal | None:
    """The highest mean of a quarter of an hour, by its number since the month began.

    None when nothing was measured.
    """
    return max(demands_kw.values(), default=None)
