"""The ledger as doors show it: balances, months and audits, with amounts in whole currency units.

Invariant: nothing is reckoned here; every figure is the books' own, in another unit.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from baseai.finance.account import Balance
from baseai.finance.audit import Audit, blocks
from baseai.finance.period import Closed, Finding, Period, PeriodState, period_named
from baseai.finance.postgres import Auditor, Closing, Meter, PeriodCheck, PostgresBooks
from baseai.finance.postgres.revenue import lines_astray
from baseai.finance.trial_balance import digest_of
from baseai.ground.clock import now_utc
from baseai.ground.fault import NotFound
from baseai.ground.money import MICRO
from baseai.truth.session import Scope, Truth


class Ledger:
    """The books, their months and their audits."""

    def __init__(
        self,
        truth: Truth,
        meter: Meter,
        checks: Sequence[PeriodCheck] = (),
        bring_in: Callable[[Period], Awaitable[Sequence[Finding]]] | None = None,
    ) -> None:
        """bring_in: what is still to be booked of a month that is over; it answers what it could not."""
        self._truth = truth
        self._meter = meter
        self._bring_in = bring_in
        self._closing = Closing(truth, checks)
        self._auditor = Auditor(truth)

    async def balance(self, account: str, at: datetime | None, scope: Scope) -> dict[str, Any]:
        """Raises NotFound for an account on which nothing stands."""
        at = at or now_utc()
        found = await PostgresBooks(self._truth, scope).balance(account, at)
        if not found:
            raise NotFound("account with a transfer", account)
        return {"at": at, "account": account, "balances": [_line(row) for row in found]}

    async def trial_balance(self, scope: Scope, at: datetime | None = None) -> dict[str, Any]:
        found = await PostgresBooks(self._truth, scope).trial_balance(at or now_utc())
        micros = sum(abs(difference) for difference in found.difference_micros().values())
        return {
            "at": found.at,
            "balances": [_line(row) for row in found.balances],
            "difference": Decimal(micros) / MICRO,
            "digest": digest_of(found.balances),
        }

    async def periods(self, scope: Scope) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._closing.periods(scope)]

    async def close(self, period: str, scope: Scope) -> dict[str, Any]:
        """Bring in what is still to be booked of a month, check it and close it. Raises Refused when it is none."""
        month = period_named(period)
        state = (await PostgresBooks(self._truth).calendar()).state(month)
        if self._bring_in is not None and state is not PeriodState.CLOSED and now_utc() >= month.ends_at():
            against = await self._bring_in(month)
            if against:
                return {"period": period, "state": state.value, "findings": _findings(against)}
        done = await self._closing.close(month, scope)
        if isinstance(done, Closed):
            return {
                "period": str(done.period),
                "state": "closed",
                "digest": done.digest,
                "transfers": done.transfers,
                "closed_at": done.closed_at,
                "findings": [],
            }
        return {"period": str(done.period), "state": done.state.value, "findings": _findings(done.findings)}

    async def check(self) -> dict[str, Any]:
        """Add everything up again from the first transfer, and rate all usage again; what differs."""
        audit = await self._auditor.audit()
        again = await self._meter.recompute()
        late = [
            Finding(
                check="rated",
                sentence=f"{one.transfer_id} over {one.amount_micros} micro-{one.currency} is missing: usage that is"
                " settled and not posted, or posted otherwise than it is rated",
            )
            for one in again.missing[:20]
        ]
        async with self._truth.transaction() as session:
            astray = await lines_astray(session)
        return _audited(audit, (*audit.findings, *late, *astray))

    async def nightly(self) -> dict[str, Any] | None:
        """Free what timed out and, once a night, check everything; None when the night's check is done already."""
        await PostgresBooks(self._truth).expire(now_utc())
        return await self.check() if await self._auditor.is_due() else None

    async def newest_check(self) -> dict[str, Any]:
        """The newest audit, and what stands against publishing anything from the books now. Raises NotFound."""
        newest = await self._auditor.newest()
        if newest is None:
            raise NotFound("audit of the books; run", "baseai books check")
        return _audited(newest, blocks(newest, now=now_utc()))


def _line(row: Balance) -> dict[str, Any]:
    return {
        "account": row.account,
        "currency": row.currency,
        "debits": Decimal(row.debits_micros) / MICRO,
        "credits": Decimal(row.credits_micros) / MICRO,
        "balance": Decimal(row.balance_micros()) / MICRO,
        "pending": Decimal(row.pending_debits_micros - row.pending_credits_micros) / MICRO,
    }


def _findings(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"check": one.check, "sentence": one.sentence} for one in findings]


def _audited(audit: Audit, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "ran_at": audit.ran_at,
        "took_s": audit.took_s,
        "transfers": audit.transfers,
        "digest": audit.digest,
        "findings": _findings(findings),
    }
