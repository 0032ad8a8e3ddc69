"""The rater writes what was used as rated lines: usage lines, usage events, and verdicts that take lines back.

Invariant: whatever waits in `unrated` is claimed by deleting it in the transaction that writes its lines, so that a
crash at any place rates nothing twice and loses nothing. One copy rates at a time, because volume goes on where it
ended. What has no price yet goes back to the end of the queue.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from baseai.finance.clause import Clauses
from baseai.finance.contract import Contract
from baseai.finance.contracts.postgres.agreements import find_contract, load_contracts, load_prices
from baseai.finance.contracts.postgres.months import months_due, unrated_in
from baseai.finance.contracts.postgres.rated_rows import (
    insert_lines,
    so_far_of,
    standing_of_attempts,
    standing_of_usage,
    write_pieces,
)
from baseai.finance.contracts.postgres.seats import kept_of
from baseai.finance.counted import EPOCH, HOUR, HOUR_US, Counted
from baseai.finance.measure import JOB
from baseai.finance.meter import MICROSECOND
from baseai.finance.month_end import credit_line, month_lines
from baseai.finance.period import Calendar, Finding, Period, period_of
from baseai.finance.price_list import Price, PriceBook
from baseai.finance.rated import RatedLine, taken_back
from baseai.finance.rating import NotRated, Rating, Unrated, rate_columns
from baseai.finance.use import Market, MeteredUse, UseColumns, columns_of
from baseai.ground.fault import Refused
from baseai.truth.session import Session, Truth, fetch_all
from baseai.workloads.reason import VERDICTS

RATING_LOCK = 0x72617465  # "rate"
USES_A_TRANSACTION = 100_000
AGAIN_AFTER = "1 minute"  # what had no price is tried again
UNBILLABLE = sorted(reason.value for reason, verdict in VERDICTS.items() if not verdict.billable)

log = logging.getLogger(__name__)

# By the row's own place: nothing but the one rater removes rows, and a join with a LIMIT is planned badly.
CLAIM_LINES = f"""
WITH claimed AS (
  DELETE FROM unrated WHERE ctid = ANY(ARRAY(SELECT ctid FROM unrated WHERE kind = 'line'
    AND (tried_at IS NULL OR tried_at < now() - interval '{AGAIN_AFTER}') LIMIT %(limit)s)) RETURNING usage_id)
SELECT u.line_id, u.run_id, u.tenant_id, u.project_id, u.model, u.site_id, r.spec -> 'spot' = 'true' AS spot,
  (EXTRACT(epoch FROM u.from_at) * 1000000)::bigint AS from_us, u.micro_seconds,
  u.billable AND (a.state = 'ended' AND a.reason = ANY(%(unbillable)s)) IS NOT TRUE AS billable
FROM claimed JOIN usage_lines u ON u.line_id = claimed.usage_id
JOIN runs r ON r.run_id = u.run_id JOIN attempts a ON a.run_id = u.run_id AND a.attempt_no = u.attempt_no
ORDER BY u.line_id COLLATE "C" -- of what was used at one time, so that equal batches have equal lines
"""  # noqa: S608 - pieces are constants of this file
CLAIM_EVENTS = f"""
WITH claimed AS (
  DELETE FROM unrated WHERE ctid = ANY(ARRAY(SELECT q.ctid FROM unrated q JOIN usage_events e USING (usage_id)
    WHERE q.kind = 'event' AND (tried_at IS NULL OR tried_at < now() - interval '{AGAIN_AFTER}')
    ORDER BY e.recorded_at, e.corrects NULLS FIRST LIMIT %(limit)s)) RETURNING usage_id)
SELECT e.*, EXISTS (SELECT FROM usage_events c WHERE c.corrects = e.usage_id) AS superseded
FROM claimed JOIN usage_events e USING (usage_id) ORDER BY e.from_at, e.usage_id
"""  # noqa: S608 - pieces are constants of this file
CLAIM_VERDICTS = "DELETE FROM unrated WHERE kind = 'verdict' RETURNING usage_id"
AGAIN = """
INSERT INTO unrated (usage_id, kind, tried_at) SELECT usage_id, %s, now() FROM unnest(%s::text[]) AS again (usage_id)
"""
TOTALS = """
SELECT payer, price_id, month, tier, band, quantity FROM rated_totals WHERE month = ANY(%(months)s)
"""
HELD = """
SELECT contract_id, model, site_id, (EXTRACT(epoch FROM date_trunc('hour', effective_from, 'UTC')) * 1000000)::bigint
  AS hour_us, sum(quantity)::bigint AS quantity
FROM rated_lines WHERE category = 'reserved' AND contract_id = ANY(%(contracts)s)
  AND effective_from >= %(from_at)s AND effective_from < %(until_at)s GROUP BY 1, 2, 3, 4
"""
JOBS = "SELECT DISTINCT run_id FROM rated_lines WHERE category = 'job' AND run_id = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedBatch:
    """What one round of rating did."""

    uses: int
    lines: int
    taken_back: int = 0
    unrated: tuple[Unrated, ...] = ()


class Rater:
    """Rates what was measured, for the platform's own loop.

    calendar: how far the books are closed, as the books say. default_prices: what the catalogue lists.
    """

    def __init__(
        self,
        truth: Truth,
        calendar: Callable[[Session], Awaitable[Calendar]],
        default_prices: Callable[[], Sequence[Price]] = tuple,
    ) -> None:
        self._truth = truth
        self._calendar = calendar
        self._default_prices = default_prices

    async def rate(self) -> RatedBatch:
        """All that waits. Harmless beside another copy: one rates, the other passes.

        Raises Refused when contracts or price lists contradict themselves; then everything waits.
        """
        uses = lines = back = 0
        unrated: dict[Unrated, None] = {}
        for one_round in (self._rate_lines, self._rate_events):
            while True:
                done = await one_round(USES_A_TRANSACTION)
                uses, lines, back = uses + done.uses, lines + done.lines, back + done.taken_back
                unrated.update(dict.fromkeys(done.unrated))
                if done.uses < USES_A_TRANSACTION:
                    break
        back += await self._judge()
        for error in unrated:
            log.warning("%s: %d uses wait", error.sentence, len(error.usage_ids))
        return RatedBatch(uses=uses, lines=lines, taken_back=back, unrated=tuple(unrated))

    async def close_month(self, name: str, period: Period) -> tuple[RatedLine, ...]:
        """Write what a contract still owes of a month: unused commitments, prices per month, least spend, credits.

        Asked again it writes nothing, or the difference. Raises NotFound, Refused while the month runs or has no price.
        """
        async with self._truth.transaction() as session:
            await session.execute("SELECT pg_advisory_xact_lock(%s)", (RATING_LOCK,))
            (clock,) = await fetch_all(session, "SELECT now() AS now")
            contract = await find_contract(session, name)
            if clock["now"] < period.ends_at() and (
                contract.ends_at is None or clock["now"] < contract.ends_at
            ):
                raise Refused(
                    f"{period} is not over for contract {contract.name}; its end is at {period.ends_at()}"
                )
            calendar = await self._calendar(session)
            clauses = Clauses([contract], await self._prices(session), calendar)
            sums = await so_far_of(session, contract, period)
            found = month_lines(contract, period, clauses, sums, calendar=calendar, recorded_at=clock["now"])
            if isinstance(found, NotRated):
                raise Refused("; ".join(error.sentence for error in found.errors))
            await insert_lines(session, found)
            lines = list(found)
            if contract.promise is not None and contract.commitments:
                kept = await kept_of(session, contract, period)
                sums = await so_far_of(session, contract, period)
                credit = credit_line(
                    contract, period, kept, sums, calendar=calendar, recorded_at=clock["now"]
                )
                if credit is not None:
                    await insert_lines(session, [credit])
                    lines.append(credit)
        return tuple(lines)

    async def close_months(self, period: Period) -> tuple[Finding, ...]:
        """The same for every contract that holds in the month, and for earlier months that were used late.

        What cannot be written is said by the name of the contract, and holds up no other.
        """
        async with self._truth.transaction() as session:
            due = await months_due(session, period)
        found = []
        for name, month in due:
            try:
                await self.close_month(name, month)
            except Refused as wrong:
                found.append(Finding(check="contract", sentence=f"{name} of {month}: {wrong}"))
        return tuple(found)

    async def against(self, period: Period) -> Sequence[Finding]:
        """What of the month's use stands against closing it: what nobody has rated."""
        async with self._truth.transaction() as session:
            return await unrated_in(session, period)

    async def _prices(self, session: Session) -> PriceBook:
        try:
            return PriceBook([*self._default_prices(), *await load_prices(session)])
        except ValueError as wrong:
            raise Refused(f"nothing is rated while price lists contradict themselves: {wrong}") from wrong

    async def _rate_lines(self, limit: int) -> RatedBatch:
        async with self._truth.transaction() as session:
            if not await _alone(session):
                return RatedBatch(uses=0, lines=0)
            rows = await fetch_all(session, CLAIM_LINES, {"limit": limit, "unbillable": UNBILLABLE})
            if not rows:
                return RatedBatch(uses=0, lines=0)
            columns = _columns(rows)
            rating = await self._rated(session, columns)
            lines = await write_pieces(session, columns, rating)
            await _again(session, "line", rating.errors)
        return RatedBatch(uses=len(rows), lines=lines, unrated=rating.errors)

    async def _rate_events(self, limit: int) -> RatedBatch:
        async with self._truth.transaction() as session:
            if not await _alone(session):
                return RatedBatch(uses=0, lines=0)
            rows = await fetch_all(session, CLAIM_EVENTS, {"limit": limit})
            if not rows:
                return RatedBatch(uses=0, lines=0)
            calendar = await self._calendar(session)
            (clock,) = await fetch_all(session, "SELECT now() AS now")
            corrected = {row["corrects"]: row["usage_id"] for row in rows if row["corrects"] is not None}
            back = [
                taken_back(
                    line,
                    period=str(calendar.booking_of(line.effective_from)),
                    recorded_at=clock["now"],
                    note=f"corrected by {corrected[line.usage_id]}",
                )
                for line in await standing_of_usage(session, list(corrected))
            ]
            await insert_lines(session, back)
            uses = [_use(row) for row in rows if row["quantity"] > 0 and not row["superseded"]]
            rating = await self._rated(session, columns_of(uses))
            lines = list(replace(rating, uses=uses).lines(recorded_at=clock["now"]))
            await insert_lines(session, lines)
            await _again(session, "event", rating.errors)
        return RatedBatch(uses=len(rows), lines=len(lines), taken_back=len(back), unrated=rating.errors)

    async def _judge(self) -> int:
        """Take back what was rated of attempts that turned out not to be billable."""
        async with self._truth.transaction() as session:
            if not await _alone(session):
                return 0
            rows = await fetch_all(session, CLAIM_VERDICTS)
            if not rows:
                return 0
            attempts = [row["usage_id"] for row in rows]
            calendar = await self._calendar(session)
            (clock,) = await fetch_all(session, "SELECT now() AS now")
            back = [
                taken_back(
                    line,
                    period=str(calendar.booking_of(line.effective_from)),
                    recorded_at=clock["now"],
                    note="its attempt is not billable",
                )
                for line in await standing_of_attempts(session, attempts, UNBILLABLE)
            ]
            await insert_lines(session, back)
        return len(back)

    async def _rated(self, session: Session, columns: UseColumns) -> Rating:
        contracts, prices = await load_contracts(session), await self._prices(session)
        by_job = any(price.unit == JOB for price in prices.prices)
        found = rate_columns(
            columns,
            contracts,
            prices,
            calendar=await self._calendar(session),
            counted=await _counted(session, columns, contracts, by_job=by_job),
            whole=False,
        )
        if isinstance(found, NotRated):
            raise Refused("; ".join(error.sentence for error in found.errors))
        return found


async def _alone(session: Session) -> bool:
    (row,) = await fetch_all(session, "SELECT pg_try_advisory_xact_lock(%s) AS free", (RATING_LOCK,))
    return bool(row["free"])


def _columns(rows: Sequence[Mapping[str, Any]]) -> UseColumns:
    places: dict[tuple[object, ...], int] = {}
    market = [
        places.setdefault(
            (row["tenant_id"], row["project_id"], row["model"], row["site_id"], row["spot"]), len(places)
        )
        for row in rows
    ]
    return UseColumns(
        usage_ids=[str(row["line_id"]) for row in rows],
        run_ids=[str(row["run_id"]) for row in rows],
        markets=[
            Market(
                tenant_id=str(tenant_id),
                project_id=str(project_id),
                meter="accelerator_time",
                model=str(model),
                site_id=str(site_id),
                spot=bool(spot),
            )
            for tenant_id, project_id, model, site_id, spot in places
        ],
        market=np.array(market, np.int64),
        from_us=np.array([row["from_us"] for row in rows], np.int64),
        quantity=np.array([row["micro_seconds"] for row in rows], np.int64),
        billable=np.array([row["billable"] for row in rows], np.bool_),
    )


async def _counted(
    session: Session, columns: UseColumns, contracts: Sequence[Contract], *, by_job: bool
) -> Counted:
    if not len(columns):
        return Counted()
    first = EPOCH + int(columns.from_us.min()) * MICROSECOND
    last = EPOCH + int(columns.from_us.max()) * MICROSECOND
    totals = await fetch_all(session, TOTALS, {"months": _months(first, last)})
    reserved = [contract.contract_id for contract in contracts if contract.commitments]
    held: dict[tuple[str, str | None, int], dict[str | None, int]] = {}
    span = {"contracts": reserved, "from_at": first - HOUR, "until_at": last + HOUR}
    for row in await fetch_all(session, HELD, span) if reserved else ():
        key = (row["contract_id"], row["model"], row["hour_us"] // HOUR_US * HOUR_US)
        held.setdefault(key, {})[row["site_id"]] = row["quantity"]
    runs = sorted({run_id for run_id in columns.run_ids if run_id is not None}) if by_job else []
    return Counted(
        quantities={
            (row["payer"], row["price_id"], row["month"], row["tier"], row["band"]): row["quantity"]
            for row in totals
        },
        held=held,
        jobs=frozenset(row["run_id"] for row in (await fetch_all(session, JOBS, (runs,)) if runs else ())),
    )


def _months(first: datetime, last: datetime) -> list[str]:
    found, period = [], period_of(first)
    while period <= period_of(last):
        found.append(str(period))
        period = period.next()
    return found


async def _again(session: Session, kind: str, errors: Sequence[Unrated]) -> None:
    """Put back what could not be rated; it is tried again after a while, when there may be a price."""
    for error in errors:
        await session.execute(AGAIN, (kind, list(error.usage_ids)))


def _use(row: Mapping[str, Any]) -> MeteredUse:
    return MeteredUse(
        usage_id=row["usage_id"],
        tenant_id=row["tenant_id"],
        project_id=row["project_id"],
        from_at=row["from_at"],
        until_at=row["until_at"],
        quantity=row["quantity"],
        meter=row["meter"],
        run_id=row["run_id"],
        model=row["model"],
        site_id=row["site_id"],
    )
