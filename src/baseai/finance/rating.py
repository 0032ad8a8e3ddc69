"""Rating turns metered uses into rated lines: each cut where its price changes, each piece with its amount.

Invariant: equal uses under equal contracts and prices come to equal sums, however the uses are cut or batched;
amounts are made of whole micro-units and Decimal rates, never of floats. A batch is rated whole or refused, or, when
the caller says so, without what could not be rated; nothing is guessed. What was counted before is an argument, so that
a batch goes on where the last one ended.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from baseai.finance.clause import DEFAULT_LISTS, Clause, Clauses, Market, committed_us
from baseai.finance.contract import Contract, contract_faults
from baseai.finance.measure import ACCELERATOR_TIME, JOB, MEASURES, MONTH, micros_per_counted
from baseai.finance.meter import MICROSECOND
from baseai.finance.period import Calendar, period_of
from baseai.finance.piece import Ints, Pieces, cut_at, joined, rounded, running, within
from baseai.finance.price_list import PriceBook, Term
from baseai.finance.rated import Category, RatedLine
from baseai.finance.use import MeteredUse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000
FOREVER = np.iinfo(np.int64).max

# Payer, price, month, tier, band: what shares one running total.
Total = tuple[str, str, str, int, int]
# Contract, model, hour in µs since 1970 → site → µs within the commitment.
Held = tuple[str, str | None, int]

BY_TERM: Mapping[Term, Category] = {
    Term.ON_DEMAND: Category.ON_DEMAND,
    Term.RESERVED: Category.RESERVED,
    Term.SPOT: Category.SPOT,
    Term.RESEARCH: Category.RESEARCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What earlier batches have used up of tiers, commitments and prices per run."""

    quantities: Mapping[Total, int] = field(default_factory=dict)
    held: Mapping[Held, Mapping[str | None, int]] = field(default_factory=dict)
    jobs: frozenset[str] = frozenset()  # runs whose price per run is charged


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrated:
    """Why some uses have no amount."""

    rule: str
    sentence: str  # names the records
    usage_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRated:
    """Nothing of the batch was rated."""

    errors: tuple[Unrated, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A rated batch as columns, by use and then by time."""

    uses: Sequence[MeteredUse]
    clauses: Sequence[Clause]
    pieces: Pieces
    amount_micros: Ints
    errors: tuple[Unrated, ...] = ()  # uses that were left out, when the caller takes parts

    def __len__(self) -> int:
        return len(self.pieces)

    def sums(self) -> dict[str, int]:
        """Micro-units by currency."""
        found: dict[str, int] = {}
        for no, clause in enumerate(self.clauses):
            rows = self.pieces.clause == no
            if rows.any():
                found[clause.currency] = found.get(clause.currency, 0) + int(self.amount_micros[rows].sum())
        return found

    def lines(self, *, recorded_at: datetime) -> Iterator[RatedLine]:
        """Row by row. An id follows from the use and the piece's place in it, so a repeat has the same."""
        columns = (self.pieces.use, self.pieces.from_us, self.pieces.quantity, self.pieces.clause)
        rows = zip(
            *(column.tolist() for column in (*columns, self.pieces.tier, self.amount_micros)), strict=True
        )
        prices = {
            (no, tier): (clause.unit_price(tier), clause.list_price(tier))
            for no, clause in enumerate(self.clauses)
            for tier in range(len(clause.price.tiers) if clause.price else 1)
        }
        before, part = -1, 0
        for place, from_us, quantity, clause_no, tier, amount in rows:
            use, clause = self.uses[place], self.clauses[clause_no]
            part = part + 1 if place == before else 0
            before = place
            from_at, until_at = use.from_at, use.until_at
            if quantity != use.quantity and use.meter == ACCELERATOR_TIME:
                from_at = EPOCH + from_us * MICROSECOND
                until_at = from_at + quantity * MICROSECOND
            unit_price, list_price = prices[clause_no, tier]
            contract, price = clause.contract, clause.price
            yield RatedLine(
                rated_id=f"rl_{use.usage_id.partition('_')[2] or use.usage_id}-{part}",
                category=_category(use, clause),
                amount_micros=amount,
                currency=clause.currency,
                meter=use.meter,
                quantity=quantity,
                unit_price=unit_price,
                list_price=list_price,
                period=clause.booked_in,
                effective_from=from_at,
                effective_until=until_at,
                recorded_at=recorded_at,
                tenant_id=use.tenant_id,
                project_id=use.project_id,
                customer_id=None if contract is None else contract.customer_id,
                contract_id=None if contract is None else contract.contract_id,
                price_id=None if price is None else price.price_id,
                tier=tier,
                band=clause.band,
                usage_id=use.usage_id,
                run_id=use.run_id,
                lease_id=use.lease_id,
                accelerator_no=use.accelerator_no,
                model=use.model,
                node_id=use.node_id,
                site_id=use.site_id,
                round_id=use.round_id,
                note=None if use.billable else use.reason,
            )


def rate(
    uses: Sequence[MeteredUse],
    contracts: Sequence[Contract],
    prices: PriceBook,
    *,
    calendar: Calendar,
    counted: Counted | None = None,
    lists: tuple[str, ...] = DEFAULT_LISTS,
    whole: bool = True,
) -> Rating | NotRated:
    """The amounts of `uses`, in the order in which they were given.

    calendar: says in which month a late use is booked. counted: what earlier batches used up. lists: the default price
    lists, the first that knows a price counts. whole: refuse all when one cannot be rated; otherwise the rest is rated.
    Volume is taken in order of time within a batch, and batch after batch. O(n log n).
    """
    counted = counted or Counted()
    faults = contract_faults(contracts)
    if faults:
        return NotRated(
            errors=tuple(Unrated(rule="one_contract", sentence=fault, usage_ids=()) for fault in faults)
        )
    if not uses:
        none = np.zeros(0, np.int64)
        return Rating(
            uses=uses, clauses=(), pieces=Pieces(use=none, from_us=none, quantity=none, clause=none, tier=none),
            amount_micros=none,
        )  # fmt: skip
    table = _Table(Clauses(contracts, prices, calendar, lists))
    pieces, reserved, billable = _cut(uses, table)
    free = pieces.where(~billable)
    paid, held = pieces.where(billable), reserved[billable]
    within_it, over = _hold(paid, held, table.clauses, counted)
    priced = joined([within_it, over])
    errors = _errors(priced, uses, table.clauses)
    if errors:
        if whole:
            return NotRated(errors=errors)
        bad = {usage_id for error in errors for usage_id in error.usage_ids}
        kept = rate(
            [use for use in uses if use.usage_id not in bad], contracts, prices, calendar=calendar,
            counted=counted, lists=lists,
        )  # fmt: skip
        assert isinstance(kept, Rating)
        return Rating(
            uses=kept.uses, clauses=kept.clauses, pieces=kept.pieces, amount_micros=kept.amount_micros,
            errors=errors,
        )  # fmt: skip
    priced = _tiered(priced, uses, table.clauses, counted)
    amounts = _amounts(priced, uses, table.clauses, counted)
    pieces = joined([priced, free])
    amounts = np.concatenate([amounts, np.zeros(len(free), np.int64)])
    order = np.lexsort((pieces.from_us, pieces.tier, pieces.use))
    return Rating(uses=uses, clauses=table.clauses, pieces=pieces.where(order), amount_micros=amounts[order])


class _Table:
    """The clauses of a batch, each once, by number."""

    def __init__(self, clauses: Clauses) -> None:
        self.answers = clauses
        self.clauses: list[Clause] = []

    def add(self, clause: Clause) -> int:
        self.clauses.append(clause)
        return len(self.clauses) - 1


def _cut(uses: Sequence[MeteredUse], table: _Table) -> tuple[Pieces, Ints, NDArray[np.bool_]]:
    """Uses cut at every instant that matters; for each piece the clause of its commitment or −1; whether it is paid."""
    numbers: dict[tuple[object, ...], int] = {}
    markets: list[Market] = []
    market_nos = []
    for use in uses:
        key = (use.tenant_id, use.project_id, use.meter, use.model, use.site_id, use.spot)
        no = numbers.get(key)
        if no is None:
            no = numbers[key] = len(markets)
            markets.append(
                Market(
                    tenant_id=use.tenant_id, project_id=use.project_id, meter=use.meter, model=use.model,
                    site_id=use.site_id, spot=use.spot,
                )
            )  # fmt: skip
        market_nos.append(no)
    market = np.array(market_nos, np.int64)
    from_us = np.array([(use.from_at - EPOCH) // MICROSECOND for use in uses], np.int64)
    quantity = np.array([use.quantity for use in uses], np.int64)
    paid = np.array([use.billable for use in uses], np.bool_)
    until_us = from_us + np.where(
        np.array([m.meter == ACCELERATOR_TIME for m in markets])[market], quantity, 1
    )
    span = (EPOCH + int(from_us.min()) * MICROSECOND, EPOCH + int(until_us.max()) * MICROSECOND)
    order = np.argsort(market, kind="stable")
    ends = np.searchsorted(market[order], np.arange(len(markets) + 1))
    found: list[Pieces] = []
    reserved: list[Ints] = []
    for no, asked in enumerate(markets):
        rows = order[ends[no] : ends[no + 1]]
        none = np.zeros(len(rows), np.int64)
        some = Pieces(use=rows, from_us=from_us[rows], quantity=quantity[rows], clause=none, tier=none)
        cuts = np.array([(at - EPOCH) // MICROSECOND for at in table.answers.bounds(asked, *span)], np.int64)
        if asked.meter == ACCELERATOR_TIME:
            some = cut_at(some, cuts)
        stretch = np.searchsorted(cuts, some.from_us, side="right")
        known, first, inverse = np.unique(stretch, return_index=True, return_inverse=True)
        ordinary_nos, reserved_nos = np.zeros(len(known), np.int64), np.full(len(known), -1, np.int64)
        for place, row in enumerate(first):
            at = EPOCH + int(some.from_us[row]) * MICROSECOND
            ordinary_nos[place] = table.add(table.answers.ordinary(asked, at))
            clause = table.answers.reserved(asked, at)
            if clause is not None:
                reserved_nos[place] = table.add(clause)
        found.append(some.with_clause(ordinary_nos[inverse]))
        reserved.append(reserved_nos[inverse])
    pieces = joined(found)
    return pieces, np.concatenate(reserved), paid[pieces.use]


def _hold(
    pieces: Pieces, reserved: Ints, clauses: Sequence[Clause], counted: Counted
) -> tuple[Pieces, Pieces]:
    """What is within commitments, hour by hour, under their clauses; and what is over, under its own."""
    rows = reserved >= 0
    if not rows.any():
        return pieces.where(rows), pieces
    some, clause_nos = pieces.where(rows), reserved[rows]
    names: dict[tuple[str, str, str | None], int] = {}
    name_of = np.full(len(clauses), -1, np.int64)
    for no in np.unique(clause_nos).tolist():
        contract, commitment = clauses[no].agreed()
        name = (contract.contract_id, commitment.model, commitment.site_id)
        name_of[no] = names.setdefault(name, len(names))
    hour = some.from_us // HOUR_US
    groups, first, group = np.unique(
        np.stack([name_of[clause_nos], hour]), axis=1, return_index=True, return_inverse=True
    )
    group = group.reshape(-1)
    start, ready = np.zeros(groups.shape[1], np.int64), np.zeros(groups.shape[1], np.int64)
    for place, row in enumerate(first):
        clause = clauses[clause_nos[row]]
        contract, commitment = clause.agreed()
        hour_us = int(hour[row]) * HOUR_US
        sites = counted.held.get((contract.contract_id, commitment.model, hour_us), {})
        start[place] = sum(us for site, us in sites.items() if commitment.site_id in (None, site))
        hour_at = EPOCH + hour_us * MICROSECOND
        ready[place] = committed_us(clause, hour_at, hour_at + HOUR)
    before, after = running(some, group, start)
    nothing, end, most = np.zeros(len(some), np.int64), ready[group], np.full(len(some), FOREVER)
    held = within(some.with_clause(clause_nos), before, after, nothing, end, timed=True)
    over = within(some, before, after, end, most, timed=True)
    return held, joined([pieces.where(~rows), over])


def _errors(pieces: Pieces, uses: Sequence[MeteredUse], clauses: Sequence[Clause]) -> tuple[Unrated, ...]:
    errors: dict[tuple[str, str], dict[str, None]] = {}
    for no in np.unique(pieces.clause).tolist():
        wrong = clauses[no].wrong()
        if wrong is not None:
            named = errors.setdefault(wrong, {})
            named.update(
                dict.fromkeys(uses[use].usage_id for use in pieces.use[pieces.clause == no].tolist())
            )
    return tuple(
        Unrated(rule=rule, sentence=sentence, usage_ids=tuple(ids))
        for (rule, sentence), ids in errors.items()
    )


def _tiered(
    pieces: Pieces, uses: Sequence[MeteredUse], clauses: Sequence[Clause], counted: Counted
) -> Pieces:
    """Pieces of prices with volume tiers, cut where the month's volume reaches the next."""
    group_of = np.full(max(1, len(clauses)), -1, np.int64)
    groups: dict[tuple[str, str, str], int] = {}
    tiers = []
    for no, clause in enumerate(clauses):
        if clause.price is not None and len(clause.price.tiers) > 1:
            key = (clause.payer, clause.price.price_id, clause.period)
            if key not in groups:
                groups[key] = len(groups)
                tiers.append(clause.price)
            group_of[no] = groups[key]
    if not groups:
        return pieces
    start = np.zeros(len(groups), np.int64)
    for (payer, price_id, period, _, _), quantity in counted.quantities.items():
        place = groups.get((payer, price_id, period))
        if place is not None:
            start[place] += quantity
    group = group_of[pieces.clause]
    some, group = pieces.where(group >= 0), group[group >= 0]
    rest = pieces.where(group_of[pieces.clause] < 0)
    before, after = running(some, group, start)
    found = [rest]
    for tier in range(max(len(price.tiers) for price in tiers)):
        low, high = np.full(len(tiers), FOREVER), np.full(len(tiers), FOREVER)
        for place, price in enumerate(tiers):
            per = MEASURES[price.meter].counted_per_priced
            if tier < len(price.tiers):
                low[place] = int(price.tiers[tier].from_volume * per) if tier else -FOREVER
            if tier + 1 < len(price.tiers):
                high[place] = int(price.tiers[tier + 1].from_volume * per)
        for timed in (True, False):
            of_kind = np.array([(price.meter == ACCELERATOR_TIME) is timed for price in tiers])[group]
            part = within(
                some.where(of_kind), before[of_kind], after[of_kind], low[group][of_kind],
                high[group][of_kind], timed=timed,
            )  # fmt: skip
            found.append(
                Pieces(
                    use=part.use, from_us=part.from_us, quantity=part.quantity, clause=part.clause,
                    tier=np.full(len(part), tier, np.int64),
                )
            )  # fmt: skip
    return joined(found)


def _amounts(pieces: Pieces, uses: Sequence[MeteredUse], clauses: Sequence[Clause], counted: Counted) -> Ints:
    """Micro-units of each piece: the rounded running total of its price after it, less the one before it."""
    totals: dict[Total, int] = {}
    rates: list[Fraction] = []
    start: list[int] = []
    pairs, inverse = np.unique(np.stack([pieces.clause, pieces.tier]), axis=1, return_inverse=True)
    key_of = np.zeros(pairs.shape[1], np.int64)
    per_job = np.zeros(pairs.shape[1], np.bool_)
    for place, (no, tier) in enumerate(pairs.T.tolist()):
        clause = clauses[no]
        assert clause.price is not None
        key = (clause.payer, clause.price.price_id, clause.period, tier, clause.band)
        if key not in totals:
            totals[key] = len(totals)
            by_quantity = clause.price.unit not in (JOB, MONTH)
            measure = MEASURES[clause.price.meter]
            rates.append(micros_per_counted(clause.unit_price(tier), measure) if by_quantity else Fraction(0))
            start.append(counted.quantities.get(key, 0))
        key_of[place] = totals[key]
        per_job[place] = clause.price.unit == JOB
    inverse = inverse.reshape(-1)
    group = key_of[inverse]
    before, after = running(pieces, group, np.array(start, np.int64))
    amounts = rounded(rates, group, after) - rounded(rates, group, before)
    seen = set(counted.jobs)
    rows = np.flatnonzero(per_job[inverse])
    for row in rows[np.lexsort((pieces.use[rows], pieces.from_us[rows]))].tolist():
        run_id = uses[pieces.use[row]].run_id
        if run_id is not None and run_id not in seen:
            seen.add(run_id)
            fee = Fraction(clauses[pieces.clause[row]].unit_price(0)) * 1_000_000
            amounts[row] = round(fee)  # of a Fraction: half to even
    return amounts


def _category(use: MeteredUse, clause: Clause) -> Category:
    if not use.billable:
        return Category.UNBILLED
    if clause.commitment is not None:
        return Category.RESERVED
    unit = None if clause.price is None else clause.price.unit
    return {JOB: Category.JOB, MONTH: Category.PERIOD}.get(unit or "", BY_TERM[clause.term])


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
