"""Closing a month in PostgreSQL: begin, check, and close with a checkpoint of its balances.

Invariant: whoever posts holds a shared lock on the month until the commit, and closing takes it alone, so the
checkpoint holds every transfer of the month and no other comes after it. Closing again answers what the first one did.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from baseai.finance.account import Balance
from baseai.finance.period import (
    Closed,
    Finding,
    NotClosed,
    Period,
    PeriodState,
    may_begin,
    period_named,
)
from baseai.finance.postgres.books import THROUGH, load_calendar
from baseai.finance.postgres.observed import SEEN
from baseai.finance.postgres.revenue import waiting_lines
from baseai.finance.trial_balance import TrialBalance, digest_of
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

# What must hold before a month is closed; answers what stands against it.
PeriodCheck = Callable[[Period], Awaitable[Sequence[Finding]]]

OLDEST = """
SELECT min(period) AS oldest FROM transfers
WHERE period > COALESCE((SELECT max(period) FROM periods WHERE state = 'closed'), '')
"""
KEPT = "SELECT digest, transfers, taken_at FROM book_checkpoints WHERE period = %s"
OPENED = "INSERT INTO periods (period, state) VALUES (%s, 'open') ON CONFLICT DO NOTHING"
BEGUN = """
UPDATE periods SET state = 'closing', began_at = now(), began_by = %(actor)s
WHERE period = %(period)s AND state = 'open'
"""
CLOSED = """
UPDATE periods SET state = 'closed', closed_at = now(), closed_by = %(actor)s
WHERE period = %(period)s AND state = 'closing'
"""
UNMETERED = f"""
SELECT l.lease_id FROM leases l
WHERE l.observed_until IS NOT NULL AND l.observed_from IS NOT NULL
  AND GREATEST(l.observed_from, l.granted_at, l.metered_until) < LEAST({SEEN}, %(ends_at)s)
ORDER BY l.lease_id LIMIT 6
"""  # noqa: S608 - pieces are constants of this file
# By hour of use, so that usage of a month that was posted in a later one counts as posted.
UNPOSTED = """
SELECT u.run_id FROM (
  SELECT run_id, sum(micro_seconds) AS us FROM usage_lines
  WHERE hour >= %(starts_at)s AND hour < %(ends_at)s GROUP BY run_id) u
LEFT JOIN (
  SELECT run_id, sum(CASE WHEN debit_account = 'cost:depreciation' THEN micro_seconds ELSE -micro_seconds END) AS us
  FROM transfers WHERE run_id IS NOT NULL AND hour >= %(starts_at)s AND hour < %(ends_at)s
    AND 'cost:depreciation' IN (debit_account, credit_account) GROUP BY run_id
) t USING (run_id) WHERE t.us IS DISTINCT FROM u.us ORDER BY u.run_id LIMIT 6
"""
OVERDUE = """
SELECT transfer_id FROM transfers t WHERE timeout_at < %(ends_at)s AND timeout_at <= now()
  AND NOT EXISTS (SELECT FROM transfers x WHERE x.pending_id = t.transfer_id) ORDER BY transfer_id LIMIT 6
"""
PERIODS = """
SELECT p.period, p.state, p.began_at, p.began_by, p.closed_at, p.closed_by, c.digest, c.transfers
FROM periods p LEFT JOIN book_checkpoints c USING (period) ORDER BY p.period DESC
"""


class Closing:
    """Closes months, each after the one before it."""

    def __init__(self, truth: Truth, checks: Sequence[PeriodCheck] = ()) -> None:
        self._truth = truth
        self._checks = checks

    async def close(self, period: Period, scope: Scope) -> Closed | NotClosed:
        """Close `period`, or say what stands against it; then it takes no more late facts and is tried again."""
        async with self._truth.transaction(scope) as session:
            if (kept := await _kept(session, period)) is not None:
                return kept
            against = await self._begin(session, period, scope)
        if against is not None:
            return against
        found = [finding for check in self._checks for finding in await check(period)]
        async with self._truth.transaction(scope) as session:
            await session.execute("SELECT pg_advisory_xact_lock(period_lock(%s))", (str(period),))
            if (kept := await _kept(session, period)) is not None:
                return kept
            found += await _unfinished(session, period)
            balances = await _balances(session, period)
            found += [
                Finding(
                    check="balance", sentence=f"debits and credits of {name} differ by {micros} micro-units"
                )
                for name, micros in TrialBalance(at=period.ends_at(), balances=balances)
                .difference_micros()
                .items()
                if micros
            ]
            if found:
                return NotClosed(period=period, state=PeriodState.CLOSING, findings=tuple(found))
            return await _close(session, period, balances, scope)

    async def periods(self, scope: Scope) -> Sequence[Mapping[str, object]]:
        """Every month that was ever begun, the newest first."""
        async with self._truth.transaction(scope) as session:
            return await fetch_all(session, PERIODS)

    async def _begin(self, session: Session, period: Period, scope: Scope) -> NotClosed | None:
        row = await fetch_one(session, "SELECT now() AS now")
        oldest = await fetch_one(session, OLDEST)
        assert row is not None
        assert oldest is not None
        calendar = await load_calendar(session)
        against = may_begin(
            period,
            calendar,
            now=row["now"],
            oldest=None if oldest["oldest"] is None else period_named(oldest["oldest"]),
        )
        if against:
            return NotClosed(period=period, state=calendar.state(period), findings=against)
        await session.execute(OPENED, (str(period),))
        begun = await session.execute(BEGUN, {"period": str(period), "actor": scope.actor})
        if begun.rowcount:
            await record(
                session,
                "period",
                str(period),
                "begin",
                actor=scope.actor,
                from_state="open",
                to_state="closing",
            )
        return None


async def _kept(session: Session, period: Period) -> Closed | None:
    row = await fetch_one(session, KEPT, (str(period),))
    if row is None:
        return None
    return Closed(period=period, digest=row["digest"], transfers=row["transfers"], closed_at=row["taken_at"])


async def _unfinished(session: Session, period: Period) -> list[Finding]:
    """What of the month is observed and not metered, metered and not posted, or reserved beyond its time."""
    span = {"starts_at": period.starts_at(), "ends_at": period.ends_at()}
    found = []
    for check, query, sentence in (
        ("metered", UNMETERED, "observed time that is not metered yet, of lease"),
        ("posted", UNPOSTED, "metered time that is not rated and posted, of run"),
        ("timeouts", OVERDUE, "reservations that have timed out and are not freed:"),
    ):
        names = [next(iter(row.values())) for row in await fetch_all(session, query, span)]
        if names:
            shown = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
            found.append(Finding(check=check, sentence=f"{period} has {sentence} {shown}"))
    if names := await waiting_lines(session, period):
        shown = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
        found.append(
            Finding(check="posted", sentence=f"{period} has rated lines that are not posted: {shown}")
        )
    return found


async def _balances(session: Session, period: Period) -> tuple[Balance, ...]:
    rows = await fetch_all(session, THROUGH, {"through": str(period)})
    return tuple(Balance(**row) for row in rows)


async def _close(session: Session, period: Period, balances: Sequence[Balance], scope: Scope) -> Closed:
    digest = digest_of(balances)
    row = await fetch_one(
        session,
        "INSERT INTO book_checkpoints (period, digest, transfers, balances)"
        " SELECT %(period)s, %(digest)s, count(*), %(balances)s FROM transfers WHERE period <= %(period)s"
        " RETURNING transfers, taken_at",
        {
            "period": str(period),
            "digest": digest,
            "balances": json.dumps([asdict(balance) for balance in balances]),
        },
    )
    assert row is not None
    await session.execute(CLOSED, {"period": str(period), "actor": scope.actor})
    await record(
        session, "period", str(period), "close", actor=scope.actor, from_state="closing", to_state="closed",
        sentence=f"{row['transfers']} transfers, trial balance {digest}",
    )  # fmt: skip
    return Closed(period=period, digest=digest, transfers=row["transfers"], closed_at=row["taken_at"])
