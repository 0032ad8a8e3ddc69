"""A cell is the part of a month's figures that shares every dimension; economics are cells added up by one of them.

Invariant: every cell is in exactly one row, whatever the rows are by, so rows add up to the total and nobody's cost is
nobody's. Costs that are booked are the books' own amounts; only in another case than the usual one are they told at
that case's rates, for the same time and the same transfers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from baseai.catalog.bounds import Case
from baseai.finance.bucket import Bucket
from baseai.finance.costs.margin import (
    HOUR_US,
    Activity,
    CostNature,
    EconomicsBy,
    EconomicsRow,
    Part,
    TimeOf,
    time_of,
)
from baseai.finance.costs.month import MonthLine
from baseai.finance.costs.terms import CostTerms, Terms
from baseai.ground.money import MICRO, Money

Key = tuple[Part, str | None]
Convert = Callable[
    [int, str], int | None
]  # micro-units of a currency in the report's; None where no rate is known
NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeCell:
    """Time of accelerators that share model, site and round, in one bucket."""

    model: str
    site_id: str
    round_id: str | None
    bucket: Bucket
    micro_seconds: int
    is_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedCell:
    """Transfers that share account and every dimension, and the rate where they have one."""

    nature: CostNature | None  # None: revenue
    currency: str
    amount_micros: int  # what it adds to revenue or to costs
    micro_seconds: int
    transfers: int
    at: datetime  # the first of them took effect
    by_hour: bool  # at an hour's standard rate, rather than a line of the month
    tenant_id: str | None = None
    model: str | None = None
    site_id: str | None = None
    round_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCell:
    """Installed time whose hourly costs are not posted yet."""

    model: str
    site_id: str
    round_id: str | None
    at: datetime
    micro_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCell:
    """How busy accelerators were, from their own counters."""

    model: str
    site_id: str
    round_id: str | None
    tenant_id: str
    active_us: Decimal
    seen_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthCell:
    """What a month line comes to in each case, and how much of it is booked."""

    usual: MonthLine
    low_micros: int
    high_micros: int
    booked_micros: int

    def at(self, case: Case) -> int:
        return {
            Case.LOW: self.low_micros,
            Case.DEFAULT: self.usual.amount_micros,
            Case.HIGH: self.high_micros,
        }[case]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Everything a month's economics are made of."""

    time: Sequence[TimeCell]
    booked: Sequence[BookedCell]
    unposted: Sequence[OpenCell]
    activity: Sequence[ActivityCell]
    month: Sequence[MonthCell]
    closed: bool  # the month takes no more: what is not booked in it is booked in another one


@dataclass(slots=True)
class _Row:
    time: TimeOf
    revenue: int = 0
    costs: dict[Case, dict[CostNature, Decimal]] | None = None
    accruing: Decimal = NOTHING
    recovery: dict[Case, Decimal] | None = None
    active_us: Decimal = NOTHING
    seen_us: int = 0
    transfers: int = 0

    def cost(self, case: Case, nature: CostNature, micros: Decimal) -> None:
        self.costs = self.costs or {one: {} for one in Case}
        of_case = self.costs[case]
        of_case[nature] = of_case.get(nature, NOTHING) + micros

    def recover(self, case: Case, micros: Decimal) -> None:
        self.recovery = self.recovery or dict.fromkeys(Case, NOTHING)
        self.recovery[case] += micros


def rows_of(
    cells: Cells,
    by: EconomicsBy,
    case: Case,
    terms: CostTerms,
    convert: Convert,
    *,
    currency: str,
    labels: Mapping[str, str],
) -> tuple[EconomicsRow, ...]:
    """One row a subject, the largest revenue first; idle time and overhead last. Linear in cells."""
    rows: dict[Key, _Row] = {}

    def row(key: Key) -> _Row:
        return rows.setdefault(key, _Row(time=TimeOf()))

    for time in cells.time:
        key = _key(by, time.model, time.site_id, time.round_id, None, hourly=True)
        told = time_of(time.bucket, time.micro_seconds, is_open=time.is_open)
        if by is EconomicsBy.CUSTOMER and told.occupied_us:
            continue  # a customer's time is told by its own transfers
        row(key).time += told
    for booked in cells.booked:
        _add_booked(row, booked, by, terms, convert)
    if not cells.closed:
        for open_cell in cells.unposted:
            _add_open(row, open_cell, by, terms, convert)
    for line in cells.month:
        _add_month(row, line, by, convert, closed=cells.closed)
    for one in cells.activity:
        found = row(_key(by, one.model, one.site_id, one.round_id, one.tenant_id, hourly=True))
        found.active_us += one.active_us
        found.seen_us += one.seen_us
    shown = [_shown(key, found, case, currency, labels) for key, found in rows.items()]
    order = list(Part)
    return tuple(
        sorted(shown, key=lambda one: (order.index(one.part), -one.revenue.micros, one.subject or ""))
    )


def _add_booked(
    row: Callable[[Key], _Row], cell: BookedCell, by: EconomicsBy, terms: CostTerms, convert: Convert
) -> None:
    key = _key(by, cell.model, cell.site_id, cell.round_id, cell.tenant_id, hourly=cell.by_hour)
    micros = convert(cell.amount_micros, cell.currency)
    found = row(key)
    found.transfers += cell.transfers
    if cell.nature is None:
        found.revenue += micros or 0
        if by is EconomicsBy.CUSTOMER:
            found.time += TimeOf(sold_us=cell.micro_seconds)
        return
    if micros is None:
        return
    known = {case: _terms(terms, cell.model, cell.site_id, cell.at, case, None) for case in Case}
    for case in Case:
        found.cost(case, cell.nature, micros * _stretch(cell, known[case], known[Case.DEFAULT]))
    if cell.nature is CostNature.DEPRECIATION and cell.by_hour:
        if by is EconomicsBy.CUSTOMER and cell.tenant_id is not None:
            found.time += TimeOf(occupied_us=cell.micro_seconds)
        _recover(found, cell.model, cell.site_id, cell.round_id, cell.at, cell.micro_seconds, terms, convert)


def _add_open(
    row: Callable[[Key], _Row], cell: OpenCell, by: EconomicsBy, terms: CostTerms, convert: Convert
) -> None:
    found = row(_key(by, cell.model, cell.site_id, cell.round_id, None, hourly=True))
    hours = Decimal(cell.micro_seconds) / HOUR_US
    for case in Case:
        known = terms.find(cell.model, cell.site_id, cell.at, case)
        if known is None:
            continue
        for nature, rate in (
            (CostNature.DEPRECIATION, known.ownership.depreciation_per_hour()),
            (CostNature.ENERGY, known.energy_per_hour(cell.at)),
            (CostNature.COLOCATION, known.colocation_per_hour()),
        ):
            micros = _converted(rate * hours, convert)
            found.cost(case, nature, micros)
            if case is Case.DEFAULT:
                found.accruing += micros
    _recover(found, cell.model, cell.site_id, cell.round_id, cell.at, cell.micro_seconds, terms, convert)


def _add_month(
    row: Callable[[Key], _Row], cell: MonthCell, by: EconomicsBy, convert: Convert, *, closed: bool
) -> None:
    line = cell.usual
    whose = line.whose
    tenant = whose.tenant_id if line.nature in (CostNature.ENERGY, CostNature.PAYMENT_FEES) else None
    found = row(_key(by, whose.model, whose.site_id, whose.round_id, tenant, hourly=False))
    # What is booked is among the booked cells already; here stands what is left, and what another case makes of it.
    left = 0 if closed else line.amount_micros - cell.booked_micros
    for case in Case:
        micros = convert(left + cell.at(case) - line.amount_micros, line.currency) or 0
        found.cost(case, line.nature, Decimal(micros))
    found.accruing += convert(left, line.currency) or 0


def _recover(
    found: _Row,
    model: str | None,
    site_id: str | None,
    round_id: str | None,
    at: datetime,
    micro_seconds: int,
    terms: CostTerms,
    convert: Convert,
) -> None:
    for case in Case:
        known = _terms(terms, model, site_id, at, case, round_id)
        if known is not None:
            hours = Decimal(micro_seconds) / HOUR_US
            found.recover(case, _converted(known.recovery_per_hour() * hours, convert))


def _terms(
    terms: CostTerms, model: str | None, site_id: str | None, at: datetime, case: Case, round_id: str | None
) -> Terms | None:
    return None if model is None or site_id is None else terms.find(model, site_id, at, case, round_id)


def _stretch(cell: BookedCell, of_case: Terms | None, usual: Terms | None) -> Decimal:
    """By how much a booked amount is more or less in another case: the ratio of the two rates."""
    if of_case is None or usual is None or of_case is usual or not cell.by_hour:
        return Decimal(1)
    rates = {
        CostNature.DEPRECIATION: lambda known: known.ownership.depreciation_per_hour(),
        CostNature.ENERGY: lambda known: known.energy_per_hour(cell.at),
        CostNature.COLOCATION: lambda known: known.colocation_per_hour(),
    }
    rate = rates.get(cell.nature) if cell.nature is not None else None
    if rate is None or not (whole := rate(usual)):
        return Decimal(1)
    return Decimal(rate(of_case)) / Decimal(whole)


def _key(
    by: EconomicsBy,
    model: str | None,
    site_id: str | None,
    round_id: str | None,
    tenant_id: str | None,
    *,
    hourly: bool,
) -> Key:
    if by is EconomicsBy.ALL:
        return Part.SUBJECT, None
    if by is EconomicsBy.CUSTOMER:
        if tenant_id is not None:
            return Part.SUBJECT, tenant_id
        return (Part.IDLE if hourly else Part.OVERHEAD), None
    place = f"{model}@{site_id}" if model and site_id else None
    subject = {
        EconomicsBy.MODEL: model,
        EconomicsBy.SITE: site_id,
        EconomicsBy.ROUND: round_id,
        EconomicsBy.PLACE: place,
    }[by]
    if subject is None and (by is not EconomicsBy.ROUND or model is None):
        return Part.OVERHEAD, None
    return Part.SUBJECT, subject


def _converted(amount_usd: Decimal, convert: Convert) -> Decimal:
    """Micro-units of the report's currency, not rounded yet."""
    unit = convert(MICRO, "USD")
    return NOTHING if unit is None else amount_usd * unit


def _shown(key: Key, found: _Row, case: Case, currency: str, labels: Mapping[str, str]) -> EconomicsRow:
    part, subject = key
    costs = found.costs or {one: {} for one in Case}

    def money(micros: Decimal) -> Money:
        return Money(currency=currency, micros=int(micros.to_integral_value(ROUND_HALF_EVEN)))

    return EconomicsRow(
        part=part,
        subject=subject,
        label=labels.get(subject or "", subject or ""),
        time=found.time,
        revenue=Money(currency=currency, micros=found.revenue),
        costs={nature: money(micros) for nature, micros in sorted(costs[case].items())},
        cost_low=money(sum(costs[Case.LOW].values(), NOTHING)),
        cost_high=money(sum(costs[Case.HIGH].values(), NOTHING)),
        accruing=money(found.accruing),
        capital_recovery=money((found.recovery or {}).get(case, NOTHING)),
        activity=Activity(active_us=found.active_us, seen_us=found.seen_us) if found.seen_us else None,
        transfers=found.transfers,
    )


def apart_of(
    booked: Iterable[BookedCell], convert: Convert
) -> tuple[tuple[BookedCell, ...], tuple[Money, ...]]:
    """Cells whose currency has a rate, and what the others come to, by currency."""
    kept: list[BookedCell] = []
    apart: dict[str, int] = {}
    for cell in booked:
        if convert(MICRO, cell.currency) is None:
            if cell.nature is None:
                apart[cell.currency] = apart.get(cell.currency, 0) + cell.amount_micros
        else:
            kept.append(cell)
    return tuple(kept), tuple(Money(currency=name, micros=micros) for name, micros in sorted(apart.items()))
