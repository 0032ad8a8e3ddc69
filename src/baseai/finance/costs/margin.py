"""Economics are what the accelerators of a month earned, cost and left over, by model, site, customer or round.

Invariant: the definitions stand here and nowhere else, so that the terminal, the API and the pages tell the same. Costs
of all installed time are in them: what tenants used, what stood idle, and what belongs to no hour are the parts, and
their sum is the total. Depreciation is not in the contribution and always stands beside it, with capital recovery.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from baseai.catalog.bounds import Case
from baseai.finance.bucket import NATURE, Bucket
from baseai.finance.period import Period
from baseai.ground.money import MICRO, Money

HOUR_US = Decimal(3_600_000_000)
RATE_DIGITS = Decimal("0.000001")


class EconomicsBy(StrEnum):
    """What the rows are about."""

    ALL = "all"
    MODEL = "model"
    SITE = "site"
    CUSTOMER = "customer"  # a tenant; rows for idle time and for overhead stand beside them
    ROUND = "round"  # whose money bought the accelerators
    PLACE = "place"  # a model at a site, written MODEL@SITE


class CostNature(StrEnum):
    """Where money goes; the word after `cost:` in the chart of accounts."""

    ENERGY = "energy"
    DEMAND = "demand"  # the month's highest quarter of an hour, per kW
    COLOCATION = "colocation"
    NETWORK = "network"
    PAYMENT_FEES = "payment_fees"
    SUPPORT = "support"  # variable
    MAINTENANCE = "maintenance"
    DEPRECIATION = "depreciation"
    OTHER = "other"  # an account of the chart that is none of these


# Contribution margin = (revenue − these) ÷ revenue; what is not among them stands below it.
VARIABLE = frozenset(
    {
        CostNature.ENERGY,
        CostNature.DEMAND,
        CostNature.COLOCATION,
        CostNature.NETWORK,
        CostNature.PAYMENT_FEES,
        CostNature.SUPPORT,
    }
)


class Part(StrEnum):
    """Which part of the total a row is."""

    SUBJECT = "subject"  # a model, a site, a customer, a round, or everything
    IDLE = "idle"  # time that nobody used, where rows are by customer
    OVERHEAD = "overhead"  # what belongs to no hour of anybody


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeOf:
    """Accelerator time of a row, in µs."""

    installed_us: int = 0
    available_us: int = 0  # installed − maintenance − failed, and what nobody could have had
    sold_us: int = 0
    occupied_us: int = 0  # a tenant's processes ran
    open_us: int = 0  # of hours that are not closed: provisional

    def __add__(self, other: "TimeOf") -> "TimeOf":
        return TimeOf(
            installed_us=self.installed_us + other.installed_us,
            available_us=self.available_us + other.available_us,
            sold_us=self.sold_us + other.sold_us,
            occupied_us=self.occupied_us + other.occupied_us,
            open_us=self.open_us + other.open_us,
        )


def time_of(bucket: Bucket, micro_seconds: int, *, is_open: bool = False) -> TimeOf:
    """What `micro_seconds` µs in a bucket count as."""
    nature = NATURE[bucket]
    return TimeOf(
        installed_us=micro_seconds,
        available_us=micro_seconds if nature.available else 0,
        sold_us=micro_seconds if nature.sold else 0,
        occupied_us=micro_seconds if nature.used else 0,
        open_us=micro_seconds if is_open else 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """How busy accelerators were while they were occupied, as their own counters say."""

    active_us: Decimal  # Σ seen time × activity
    seen_us: int  # time that samples cover

    @property
    def ratio(self) -> float | None:
        return float(self.active_us / self.seen_us) if self.seen_us else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomicsRow:
    """One subject's time, revenue, costs by nature, and what is left.

    Every figure can be walked down by its name (`revenue`, a CostNature, `installed`, `available`, `sold`, `occupied`):
    `walked` in `finance.costs.postgres` answers the transfers, or the hours with their serials, that it is the sum of.
    """

    part: Part
    subject: str | None  # None for everything, idle time, overhead, or a subject that is not known
    label: str
    time: TimeOf
    revenue: Money
    costs: Mapping[CostNature, Money]  # in the case that was asked for
    cost_low: Money  # all of them when every assumption turns out low, and high
    cost_high: Money
    accruing: Money  # what of the costs is reckoned and not posted yet
    capital_recovery: (
        Money  # a year's worth for the time installed, at the discount rate, in the case asked for
    )
    activity: Activity | None = None
    transfers: int = 0  # how many stand behind revenue and costs

    @property
    def cost(self) -> Money:
        return _sum(self.costs.values(), self.revenue.currency)

    @property
    def variable_cost(self) -> Money:
        return _sum((one for nature, one in self.costs.items() if nature in VARIABLE), self.revenue.currency)

    @property
    def depreciation(self) -> Money:
        return self.costs.get(CostNature.DEPRECIATION, Money(currency=self.revenue.currency, micros=0))

    @property
    def contribution(self) -> Money:
        """Revenue less variable costs; neither depreciation nor maintenance is in it."""
        return self.revenue - self.variable_cost

    @property
    def result(self) -> Money:
        """What is left after every cost that is booked, depreciation too."""
        return self.revenue - self.cost

    @property
    def after_capital(self) -> Money:
        """What is left when capital is paid back with its return, in the place of depreciation."""
        return self.revenue - self.cost + self.depreciation - self.capital_recovery

    @property
    def contribution_ratio(self) -> float | None:
        """The contribution margin. None without revenue: nothing is a share of nothing."""
        if self.revenue.micros <= 0:
            return None
        return self.contribution.micros / self.revenue.micros

    @property
    def revenue_per_available_hour(self) -> Decimal | None:
        return per_hour(self.revenue, self.time.available_us)

    @property
    def revenue_per_sold_hour(self) -> Decimal | None:
        return per_hour(self.revenue, self.time.sold_us)

    @property
    def utilisation_ratio(self) -> float | None:
        """Sold ÷ available."""
        return _share(self.time.sold_us, self.time.available_us)

    @property
    def occupied_ratio(self) -> float | None:
        return _share(self.time.occupied_us, self.time.available_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyPart:
    """Energy of one origin. Measured, estimated and simulated figures are never added up."""

    origin: str  # measured, estimated, simulated
    kwh: Decimal
    accelerator_us: int  # the time it is known for


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """A month, or what there is of it."""

    period: Period
    by: EconomicsBy
    case: Case
    currency: str  # in which all rows are told
    until_at: datetime  # how far it reaches: the end of the month, or now
    rows: Sequence[EconomicsRow]
    total: EconomicsRow
    energy: Sequence[EnergyPart]
    assumptions: Sequence[str] = ()  # the ids of those that the costs rest on
    stale: Sequence[str] = ()  # those that nobody has looked at for half a year, in sentences
    exchange: Sequence[str] = ()  # by which rate what was changed into `currency`
    apart: Sequence[Money] = ()  # revenue in currencies for which no rate is known: it is in no row
    withheld: Sequence[str] = ()  # why figures must not be published
    basis: Sequence[str] = field(default_factory=tuple)


def per_hour(amount: Money, micro_seconds: int) -> Decimal | None:
    """Currency units an accelerator-hour, to six digits. None without time."""
    if micro_seconds <= 0:
        return None
    return (Decimal(amount.micros) / MICRO * HOUR_US / micro_seconds).quantize(RATE_DIGITS)


def _sum(amounts: Iterable[Money], currency: str) -> Money:
    return sum(amounts, Money(currency=currency, micros=0))


def _share(part_us: int, whole_us: int) -> float | None:
    return part_us / whole_us if whole_us else None
