"""Rating turns metered uses into rated lines: each cut where its price changes, each piece with its amount.

Invariant: equal uses under equal contracts and prices come to equal sums, however the uses are cut or batched;
amounts are made of whole micro-units and Decimal rates, never of floats. A batch is rated whole or refused, or, when
the caller says so, without what could not be rated; nothing is guessed. What was counted before is an argument, so that
a batch goes on where the last one ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction

import numpy as np

from baseai.finance.clause import DEFAULT_LISTS, Clause, Clauses, committed_us
from baseai.finance.contract import Contract, contract_faults
from baseai.finance.counted import EPOCH, HOUR, HOUR_US, Counted, Total
from baseai.finance.measure import ACCELERATOR_TIME, JOB, MEASURES, MONTH, micros_per_counted
from baseai.finance.meter import MICROSECOND
from baseai.finance.period import Calendar
from baseai.finance.piece import NO_PIECES, Ints, Pieces, cut_at, joined, rounded, running, within
from baseai.finance.price_list import PriceBook, Term
from baseai.finance.rated import Category, RatedLine
from baseai.finance.use import MeteredUse, UseColumns, columns_of

FOREVER = np.iinfo(np.int64).max

BY_TERM: Mapping[Term, Category] = {
    Term.ON_DEMAND: Category.ON_DEMAND,
    Term.RESERVED: Category.RESERVED,
    Term.SPOT: Category.SPOT,
    Term.RESEARCH: Category.RESEARCH,
}


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

    clauses: Sequence[Clause]
    pieces: Pieces
    amount_micros: Ints
    uses: Sequence[MeteredUse] = ()  # where the caller had them as values
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
                category=category_of(clause) if use.billable else Category.UNBILLED,
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
    found = rate_columns(
        columns_of(uses), contracts, prices, calendar=calendar, counted=counted, lists=lists, whole=whole
    )
    return found if isinstance(found, NotRated) else replace(found, uses=uses)


def rate_columns(
    uses: UseColumns,
    contracts: Sequence[Contract],
    prices: PriceBook,
    *,
    calendar: Calendar,
    counted: Counted | None = None,
    lists: tuple[str, ...] = DEFAULT_LISTS,
    whole: bool = True,
) -> Rating | NotRated:
    """The same of columns, where making a value of every use would take longer than rating it."""
    counted = counted or Counted()
    faults = contract_faults(contracts)
    if faults:
        return NotRated(
            errors=tuple(Unrated(rule="one_contract", sentence=fault, usage_ids=()) for fault in faults)
        )
    if not len(uses):
        return Rating(clauses=(), pieces=NO_PIECES, amount_micros=NO_PIECES.use)
    table = _Table(Clauses(contracts, prices, calendar, lists))
    pieces, reserved = _cut(uses, table)
    paid = uses.billable[pieces.use]
    free, some, held = pieces.where(~paid), pieces.where(paid), reserved[paid]
    priced = joined(_hold(some, held, table.clauses, counted))
    errors = _errors(priced, uses, table.clauses)
    if errors and whole:
        return NotRated(errors=errors)
    if errors:  # what is left out takes nothing of a commitment either
        named = {usage_id for error in errors for usage_id in error.usage_ids}
        bad = np.array([usage_id in named for usage_id in uses.usage_ids])
        kept = ~bad[some.use]
        free = free.where(~bad[free.use])
        priced = joined(_hold(some.where(kept), held[kept], table.clauses, counted))
    priced = _tiered(priced, table.clauses, counted)
    amounts = np.concatenate([_amounts(priced, uses, table.clauses, counted), np.zeros(len(free), np.int64)])
    pieces = joined([priced, free])
    order = np.lexsort((pieces.from_us, pieces.tier, pieces.use))
    return Rating(
        clauses=table.clauses, pieces=pieces.where(order), amount_micros=amounts[order], errors=errors
    )


class _Table:
    """The clauses of a batch, each once, by number."""

    def __init__(self, clauses: Clauses) -> None:
        self.answers = clauses
        self.clauses: list[Clause] = []

    def add(self, clause: Clause) -> int:
        self.clauses.append(clause)
        return len(self.clauses) - 1


def _cut(uses: UseColumns, table: _Table) -> tuple[Pieces, Ints]:
    """Uses cut at every instant that matters, and for each piece the clause of its commitment or −1."""
    markets, market, from_us, quantity = uses.markets, uses.market, uses.from_us, uses.quantity
    timed = np.array([one.meter == ACCELERATOR_TIME for one in markets])[market]
    until_us = from_us + np.where(timed, quantity, 1)
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
    return joined(found), np.concatenate(reserved)


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


def _errors(pieces: Pieces, uses: UseColumns, clauses: Sequence[Clause]) -> tuple[Unrated, ...]:
    errors: dict[tuple[str, str], dict[str, None]] = {}
    for no in np.unique(pieces.clause).tolist():
        wrong = clauses[no].wrong()
        if wrong is not None:
            named = errors.setdefault(wrong, {})
            named.update(
                dict.fromkeys(uses.usage_ids[use] for use in pieces.use[pieces.clause == no].tolist())
            )
    return tuple(
        Unrated(rule=rule, sentence=sentence, usage_ids=tuple(ids))
        for (rule, sentence), ids in errors.items()
    )


def _tiered(pieces: Pieces, clauses: Sequence[Clause], counted: Counted) -> Pieces:
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


def _amounts(pieces: Pieces, uses: UseColumns, clauses: Sequence[Clause], counted: Counted) -> Ints:
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
        run_id = uses.run_ids[pieces.use[row]]
        if run_id is not None and run_id not in seen:
            seen.add(run_id)
            fee = Fraction(clauses[pieces.clause[row]].unit_price(0)) * 1_000_000
            amounts[row] = round(fee)  # of a Fraction: half to even
    return amounts


def category_of(clause: Clause) -> Category:
    """What billable use under a clause is charged for."""
    if clause.commitment is not None:
        return Category.RESERVED
    unit = None if clause.price is None else clause.price.unit
    return {JOB: Category.JOB, MONTH: Category.PERIOD}.get(unit or "", BY_TERM[clause.term])
