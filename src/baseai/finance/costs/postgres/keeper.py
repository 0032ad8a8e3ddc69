"""The keeper of costs: assumptions as they stand, costs of all time posted, and what a month came to.

Invariant: what an hour is posted at is what the economics reckon for it, because both ask the same terms. Posting is
level-triggered and may be killed anywhere; a month is not closed before its costs are in the books.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from baseai.catalog.bounds import Case
from baseai.finance.costs.assumed import Assumed, Assumptions
from baseai.finance.costs.cells import Convert, apart_of, rows_of
from baseai.finance.costs.landed import scenario
from baseai.finance.costs.margin import Economics, EconomicsBy, EconomicsRow, Part, TimeOf
from baseai.finance.costs.month import month_postings
from baseai.finance.costs.postgres.assumptions import AssumptionRows
from baseai.finance.costs.postgres.cells import Loaded, load_month
from baseai.finance.costs.postgres.neighbours import Neighbours
from baseai.finance.costs.postgres.standing import (
    DAY_AT_ONCE,
    STANDING_LOCK,
    post_first,
    post_standing,
)
from baseai.finance.costs.tariff import tariff_calendars
from baseai.finance.costs.terms import USD, CostTerms
from baseai.finance.period import Finding, Period, PeriodState, period_of
from baseai.finance.posting import Unpriced
from baseai.finance.ptax import Exchange, RateUnknown
from baseai.finance.rate import HourlyCostRate
from baseai.ground.clock import now_utc
from baseai.ground.money import Money
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_all, fetch_one

log = logging.getLogger(__name__)

# A month has more groups than the usual memory of a query holds, and sorting them on disk takes three times as long.
GROUPS_IN_MEMORY = "SET LOCAL work_mem = '64MB'"
LOOK_BACK = timedelta(hours=48)  # how late usage may be without waiting for the nightly look at everything


class CostKeeper:
    """Costs of all time."""

    def __init__(
        self,
        truth: Truth,
        beside: Neighbours,
        first: Assumptions,
        hold: Callable[[CostTerms], None],
    ) -> None:
        """first: what holds before anything is read; hold: gets the terms whenever assumptions were read anew."""
        self._truth = truth
        self._beside = beside
        self._rows = AssumptionRows(truth, beside.load_calendar)
        self._first = first
        self._hold = hold
        self._told: set[tuple[str, str]] = set()
        self._over: set[Period] = set()  # months whose lines were booked; looked at again with everything
        self.terms = CostTerms(first, tariff_calendars())

    async def seed(self) -> int:
        """Write the first versions; harmless when they are there."""
        return await self._rows.seed(self._first.versions, now=now_utc())

    async def refresh(self) -> Assumptions:
        """Read the assumptions anew; they are few."""
        versions = await self._rows.all()
        if versions and versions != self.terms.assumptions.versions:
            self.terms = CostTerms(Assumptions(versions, self._first.country_of), tariff_calendars())
            self._hold(self.terms)
        return self.terms.assumptions

    async def record(self, version: Assumed, scope: Scope = PLATFORM) -> Assumed:
        """A new version of an assumption. Raises Conflict."""
        recorded = await self._rows.record(version, scope)
        await self.refresh()
        return recorded

    # ---- posting ----------------------------------------------------------------------------------------------

    async def post(self, *, everything: bool = False) -> int:
        """Post what stood in closed hours, and what months that are over add; how many transfers.

        everything: look at every hour of the open months, rather than at the newest.
        """
        await self.refresh()
        async with self._truth.transaction() as session:
            mark = await fetch_one(session, "SELECT closed_until FROM time_mark")
            first = await fetch_one(
                session, "SELECT min(hour) AS hour FROM time_buckets WHERE replaced_at IS NULL"
            )
            calendar = await self._beside.load_calendar(session)
        if mark is None or mark["closed_until"] is None or first is None or first["hour"] is None:
            return 0
        until = mark["closed_until"]
        opened = first["hour"]
        if calendar.closed_through is not None:
            opened = max(opened, calendar.closed_through.ends_at())
        since = opened if everything else max(opened, until - LOOK_BACK)
        written = await self._post_standing(since, until)
        month = period_of(opened)
        while month.ends_at() <= until:
            if calendar.state(month) is not PeriodState.CLOSED and (everything or month not in self._over):
                written += await self._post_month(month)
                self._over.add(month)
            month = month.next()
        return written

    async def _post_standing(self, since: datetime, until: datetime) -> int:
        written, after, day = 0, None, since
        while day < until:
            following = min(day + DAY_AT_ONCE, until)
            async with self._truth.transaction() as session:
                first, gaps = await post_first(session, self._beside, self._rate, day, following)
            written, day = written + first, following
            self._tell(gaps)
        while since < until:
            async with self._truth.transaction() as session:
                done = await post_standing(session, self._beside, self._rate, since, until, after)
            written, after = written + done.transfers, done.next_after
            self._tell(done.unpriced)
            if after is None:
                break
        return written

    def _tell(self, gaps: Sequence[Unpriced]) -> None:
        for gap in gaps:
            place = gap.model, gap.site_id
            if place not in self._told:
                log.warning("no cost known for %s at %s: what stands there waits", *place)
            self._told.add(place)

    async def _post_month(self, period: Period) -> int:
        written = 0
        for simulated in (False, True):
            async with self._truth.transaction() as session:
                await session.execute("SELECT pg_advisory_xact_lock(%s)", (STANDING_LOCK,))
                loaded = await load_month(session, self._beside, period, self.terms, simulated=simulated)
                if loaded.complete:
                    transfers = month_postings(
                        list(loaded.lines.values()),
                        loaded.booked_lines,
                        period,
                        loaded.gone,
                        calendar=await self._beside.load_calendar(session),
                    )
                    written += await self._beside.insert_transfers(session, transfers)
        return written

    def _rate(self, model: str, site_id: str, at: datetime) -> HourlyCostRate | None:
        return self.terms.hourly_cost(model, site_id, at)

    async def against(self, period: Period) -> tuple[Finding, ...]:
        """Post what is left of the month, and say what of its costs cannot be."""
        await self.refresh()
        await self._post_standing(period.starts_at(), period.ends_at())
        await self._post_month(period)
        async with self._truth.transaction() as session:
            loaded = await load_month(session, self._beside, period, self.terms)
        found = [
            f"{period}: costs of {cell.micro_seconds / 3_600_000_000:.3f} hours of {cell.model} at {cell.site_id} are"
            " not posted: record what is not assumed with `baseai cost record`, or wait until use is posted"
            for cell in loaded.cells.unposted
        ]
        found += [
            f"{period}: the line {cell.usual.key} of the month is not posted"
            for cell in loaded.cells.month
            if cell.booked_micros != cell.usual.amount_micros
        ]
        return tuple(Finding(check="costs", sentence=sentence) for sentence in found[:6])

    # ---- economics --------------------------------------------------------------------------------------------

    async def economics(
        self,
        period: Period,
        *,
        by: EconomicsBy = EconomicsBy.ALL,
        case: Case = Case.DEFAULT,
        currency: str = USD,
        simulated: bool = False,
        taxes: str | None = None,
    ) -> Economics:
        """What the month came to so far. taxes: a scenario of landed.csv, in the place of what is assumed.

        Raises NotFound for a scenario that there is not.
        """
        told = await self.economics_by(
            period, (by,), case=case, currency=currency, simulated=simulated, taxes=taxes
        )
        return told[by]

    async def economics_by(
        self,
        period: Period,
        bys: Sequence[EconomicsBy],
        *,
        case: Case = Case.DEFAULT,
        currency: str = USD,
        simulated: bool = False,
        taxes: str | None = None,
    ) -> Mapping[EconomicsBy, Economics]:
        """The same by several, read once and so of one instant."""
        await self.refresh()
        terms = self.terms
        if taxes is not None:
            multiplier = scenario(taxes).multiplier()
            terms = CostTerms(terms.assumptions, tariff_calendars(), landed_multiplier=multiplier)
        async with self._truth.transaction(snapshot=True) as session:
            await session.execute(GROUPS_IN_MEMORY)
            loaded = await load_month(session, self._beside, period, terms, simulated=simulated)
            labels = {
                row["tenant_id"]: row["name"]
                for row in await fetch_all(session, "SELECT tenant_id, name FROM tenants")
            }
        exchange, unknown = await self._exchange(min(period.ends_at(), loaded.now).date())
        convert = _converter(exchange, currency)
        return {
            by: _told(loaded, period, by, case, currency, terms, convert, labels, exchange, unknown)
            for by in bys
        }

    async def _exchange(self, on: date) -> tuple[Exchange | None, str]:
        try:
            return await self._beside.exchange(on), ""
        except RateUnknown as wrong:
            return None, str(wrong)


def _converter(exchange: Exchange | None, currency: str) -> Convert:
    def convert(micros: int, of: str) -> int | None:
        if of == currency:
            return micros
        if exchange is None or {of, currency} != {"USD", "BRL"}:
            return None
        amount = Decimal(micros) * exchange.sell if of == USD else Decimal(micros) / exchange.sell
        return int(amount.to_integral_value(ROUND_HALF_EVEN))

    return convert


def _told(
    loaded: Loaded,
    period: Period,
    by: EconomicsBy,
    case: Case,
    currency: str,
    terms: CostTerms,
    convert: Convert,
    labels: Mapping[str, str],
    exchange: Exchange | None,
    unknown: str,
) -> Economics:
    cells = loaded.cells
    booked, apart = apart_of(cells.booked, convert)
    kept = replace(cells, booked=booked)
    rows = rows_of(kept, by, case, terms, convert, currency=currency, labels=labels)
    whole = rows_of(kept, EconomicsBy.ALL, case, terms, convert, currency=currency, labels={})
    total = whole[0] if whole else _nothing(currency)
    today = loaded.now.date()
    used = set(loaded.assumption_ids)
    stale = [
        one.sentence(today)
        for one in terms.assumptions.now(loaded.until_at)
        if one.assumption_id in used and one.stale(today)
    ]
    changed = any(cell.currency != currency for cell in cells.booked)
    notes = [] if not changed else [exchange.note if exchange is not None else unknown]
    return Economics(
        period=period,
        by=by,
        case=case,
        currency=currency,
        until_at=loaded.until_at,
        rows=rows,
        total=total,
        energy=loaded.energy,
        assumptions=loaded.assumption_ids,
        stale=stale,
        exchange=notes,
        apart=apart,
        withheld=loaded.withheld,
        basis=_basis(loaded),
    )


def _basis(loaded: Loaded) -> tuple[str, ...]:
    demand = next((line.basis for line in loaded.lines.values() if line.nature.value == "demand"), None)
    measured = sum(part.accelerator_us for part in loaded.energy if part.origin == "measured")
    return tuple(
        one
        for one in (
            f"energy measured for {measured / 3_600_000_000:.2f} accelerator-hours, the rest by rating",
            f"demand charge: {demand}" if demand else "",
            "books closed" if loaded.state is PeriodState.CLOSED else "books open: figures may still move",
        )
        if one
    )


def _nothing(currency: str) -> EconomicsRow:
    none = Money(currency=currency, micros=0)
    return EconomicsRow(
        part=Part.SUBJECT,
        subject=None,
        label="",
        time=TimeOf(),
        revenue=none,
        costs={},
        cost_low=none,
        cost_high=none,
        accruing=none,
        capital_recovery=none,
    )
