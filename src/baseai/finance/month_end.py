"""A month's end adds what a contract owes beside its use: reserved time not used, prices per month, the least spend.

Invariant: lines bring what is booked to what the contract says, so asking twice adds nothing, and use that comes late
to a closed month changes the open one by exactly the difference. Used and unused reserved time together come to the
commitment at its price, to the micro-unit. A contract that holds for a part of the month owes that part.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from baseai.finance.clause import Clause, Clauses, committed_us
from baseai.finance.contract import Commitment, Contract
from baseai.finance.measure import ACCELERATOR_TIME, MEASURES, MONTH, micros_per_counted
from baseai.finance.meter import micro_seconds
from baseai.finance.period import Calendar, Period, period_of
from baseai.finance.rated import Category, RatedLine
from baseai.finance.rating import NotRated, Unrated
from baseai.finance.sla import Availability, credit_micros
from baseai.finance.use import Market
from baseai.ground.identity import derived

NAMED_MOST = 6  # events in a note; the contract's own list has them all

Amount = tuple[int, int]  # quantity, micro-units
Subject = tuple[str | None, str | None, str | None]  # model, site, price


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthSoFar:
    """What is rated of one contract for one month of use, wherever it was booked."""

    used_micros: int = 0  # all use under the contract
    held: Mapping[Subject, Amount] = field(default_factory=dict)  # reserved use by the site of the use
    booked: Mapping[tuple[Category, Subject], Amount] = field(default_factory=dict)  # of earlier month's ends


def so_far(lines: Iterable[RatedLine], contract: Contract, period: Period) -> MonthSoFar:
    """The same from lines, which may be of other contracts and months too."""
    used_micros = 0
    held: dict[Subject, Amount] = {}
    booked: dict[tuple[Category, Subject], Amount] = {}
    for line in lines:
        if line.contract_id != contract.contract_id or period_of(line.effective_from) != period:
            continue
        subject = (line.model, line.site_id, line.price_id)
        if line.usage_id is None:
            booked[line.category, subject] = _plus(booked.get((line.category, subject)), line)
            continue
        used_micros += line.amount_micros
        if line.category is Category.RESERVED:
            held[subject] = _plus(held.get(subject), line)
    return MonthSoFar(used_micros=used_micros, held=held, booked=booked)


def month_lines(
    contract: Contract,
    period: Period,
    clauses: Clauses,
    sums: MonthSoFar,
    *,
    calendar: Calendar,
    recorded_at: datetime,
) -> tuple[RatedLine, ...] | NotRated:
    """What is still to be booked for a month that is over, positive or negative; nothing twice."""
    start, end = _span(contract, period)
    if end <= start:
        return ()
    owed: list[tuple[Category, Subject, Amount, Clause | None]] = []
    for commitment in contract.commitments:
        for price_id, (clause, ready_us) in _ready(contract, commitment, clauses, start, end).items():
            wrong = clause.wrong()
            if wrong is not None:
                return NotRated(errors=(Unrated(rule=wrong[0], sentence=wrong[1], usage_ids=()),))
            assert clause.price is not None
            subject: Subject = (commitment.model, commitment.site_id, price_id)
            rate = Fraction(clause.unit_price(0))
            if clause.price.unit == MONTH:
                micros = round(rate * 1_000_000 * Fraction(ready_us, _length(period)))
                owed.append((Category.PERIOD, subject, (ready_us, micros), clause))
                continue
            used_us, used_micros = _held(contract, commitment, price_id, sums)
            full = round(micros_per_counted(clause.unit_price(0), MEASURES[ACCELERATOR_TIME]) * ready_us)
            owed.append((Category.COMMITMENT, subject, (ready_us - used_us, full - used_micros), clause))
    total = sums.used_micros + sum(micros for _, _, (_, micros), _ in owed)
    if contract.minimum_micros is not None:
        part = Fraction(micro_seconds(end - start), _length(period))
        least = round(contract.minimum_micros * part)
        owed.append((Category.MINIMUM, (None, None, None), (0, max(0, least - total)), None))
    lines = []
    for category, about, (quantity, micros), by in owed:
        had_quantity, had_micros = sums.booked.get((category, about), (0, 0))
        if micros != had_micros or (quantity != had_quantity and by is not None):
            lines.append(
                _line(
                    contract, period, category, about, (quantity - had_quantity, micros - had_micros), by,
                    had=(had_quantity, had_micros), calendar=calendar, recorded_at=recorded_at,
                )
            )  # fmt: skip
    return tuple(lines)


def credit_line(
    contract: Contract,
    period: Period,
    kept: Availability,
    sums: MonthSoFar,
    *,
    calendar: Calendar,
    recorded_at: datetime,
) -> RatedLine | None:
    """What comes back of a month's charge because less was available than promised; None when nothing more does.

    The charge is all use and all month's end lines of the contract but credits, so it comes after those are booked.
    """
    if contract.promise is None:
        return None
    charged = sums.used_micros + sum(
        micros for (category, _), (_, micros) in sums.booked.items() if category is not Category.CREDIT
    )
    nobody: Subject = (None, None, None)
    _, had = sums.booked.get((Category.CREDIT, nobody), (0, 0))
    wanted = -credit_micros(kept, contract.promise, charged_micros=charged)
    if wanted == had:
        return None
    return _line(
        contract, period, Category.CREDIT, nobody, (0, wanted - had), None, had=(0, had), calendar=calendar,
        recorded_at=recorded_at, note=_why(kept),
    )  # fmt: skip


def _why(kept: Availability) -> str:
    more = len(kept.event_ids) - NAMED_MOST
    named = ", ".join(kept.event_ids[:NAMED_MOST]) + (f" and {more} more" if more > 0 else "")
    return f"available {kept.ratio} of the month; events {named}"


def _span(contract: Contract, period: Period) -> tuple[datetime, datetime]:
    ends = [at for at in (period.ends_at(), contract.ends_at) if at is not None]
    return max(period.starts_at(), contract.from_at), min(ends)


def _length(period: Period) -> int:
    return micro_seconds(period.ends_at() - period.starts_at())


def _ready(
    contract: Contract, commitment: Commitment, clauses: Clauses, start: datetime, end: datetime
) -> dict[str | None, tuple[Clause, int]]:
    """By price: a clause of it, and the time that the commitment holds ready under it."""
    market = Market(
        tenant_id=contract.tenant_id,
        project_id=contract.project_id or "",
        meter=ACCELERATOR_TIME,
        model=commitment.model,
        site_id=commitment.site_id,
        spot=False,
    )
    found: dict[str | None, tuple[Clause, int]] = {}
    bounds = [start, *clauses.bounds(market, start, end), end]
    for from_at, until_at in itertools.pairwise(bounds):
        clause = clauses.committed(contract, commitment, from_at, market)
        price_id = None if clause.price is None else clause.price.price_id
        _, before = found.get(price_id, (clause, 0))
        found[price_id] = (clause, before + committed_us(clause, from_at, until_at))
    return found


def _held(contract: Contract, commitment: Commitment, price_id: str | None, sums: MonthSoFar) -> Amount:
    quantity = micros = 0
    for (model, site_id, price), (held_us, held_micros) in sums.held.items():
        if price == price_id and contract.committed(model, site_id) == commitment:
            quantity, micros = quantity + held_us, micros + held_micros
    return quantity, micros


def _line(
    contract: Contract,
    period: Period,
    category: Category,
    subject: Subject,
    change: Amount,
    clause: Clause | None,
    *,
    had: Amount,
    calendar: Calendar,
    recorded_at: datetime,
    note: str | None = None,
) -> RatedLine:
    start, end = _span(contract, period)
    model, site_id, price_id = subject
    return RatedLine(
        # What was booked before is in the id: the same difference asked for twice is the same line.
        rated_id=derived("rl", contract.contract_id, str(period), category.value, *subject, *had),
        category=category,
        amount_micros=change[1],
        currency=contract.currency,
        meter=ACCELERATOR_TIME,
        quantity=change[0],
        unit_price=clause.unit_price(0) if clause is not None else Decimal(0),
        list_price=clause.list_price(0) if clause is not None else Decimal(0),
        period=str(calendar.booking_of(start)),
        effective_from=start,
        effective_until=end,
        recorded_at=recorded_at,
        tenant_id=contract.tenant_id,
        project_id=contract.project_id,
        customer_id=contract.customer_id,
        contract_id=contract.contract_id,
        price_id=price_id,
        model=model,
        site_id=site_id,
        note=note,
    )


def _plus(before: Amount | None, line: RatedLine) -> Amount:
    quantity, micros = before or (0, 0)
    return quantity + line.quantity, micros + line.amount_micros
