"""The books in PostgreSQL, seen in a scope: a tenant sees the transfers of its own use.

Invariant: what is looked at and what is written stand in one transaction, and whatever another writer may do between
the two is refused by the database: ids and resolutions by unique indexes, limits, months and accounts by `keep_books`.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import psycopg
from psycopg.errors import CheckViolation, UniqueViolation
from psycopg.rows import DictRow

from baseai.finance.account import Balance
from baseai.finance.books import admitted, another_body
from baseai.finance.chart import Overdrawn, UnknownAccount, WrongCurrency, load_chart
from baseai.finance.period import Calendar, PeriodClosed, PeriodState, period_named, period_of
from baseai.finance.transfer import Kind, Transfer, timeouts_of
from baseai.finance.trial_balance import TrialBalance
from baseai.ground.fault import Conflict, Fault
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all

ROWS_A_STATEMENT = 5_000
GUARDS: dict[str, type[Fault]] = {  # the names that keep_books gives to what it refuses
    "period_open": PeriodClosed,
    "account_known": UnknownAccount,
    "account_currency": WrongCurrency,
    "account_limit": Overdrawn,
}

COLUMNS = tuple(field.name for field in fields(Transfer))
SHOWN = ", ".join(COLUMNS)
TYPES = """transfer_id text, entry_id text, debit_account text, credit_account text, amount_micros bigint,
  currency text, effective_at timestamptz, period text, kind text, pending_id text, timeout_at timestamptz,
  reverses_id text, tenant_id text, project_id text, customer_id text, contract_id text, price_id text, run_id text,
  accelerator_no bigint, node_id text, site_id text, round_id text, model text, hour timestamptz, micro_seconds bigint,
  unit_price numeric, fx_rate numeric, fx_source text, fx_on date, note text"""
INSERT = f"""
INSERT INTO transfers ({SHOWN}) SELECT {SHOWN} FROM json_to_recordset(%s::json) AS given ({TYPES})
ON CONFLICT (transfer_id) DO NOTHING
"""  # noqa: S608 - pieces are constants of this file
KNOWN = f"SELECT {SHOWN} FROM transfers WHERE transfer_id = ANY(%s)"  # noqa: S608 - columns are our own
ANSWERED = """
SELECT pending_id AS named, transfer_id FROM transfers WHERE pending_id = ANY(%(named)s)
UNION ALL SELECT reverses_id, transfer_id FROM transfers WHERE reverses_id = ANY(%(named)s)
"""
CALENDAR = "SELECT max(period) AS period, state FROM periods WHERE state <> 'open' GROUP BY state"
TIMED_OUT = f"""
SELECT {SHOWN} FROM transfers t WHERE timeout_at <= %s
  AND NOT EXISTS (SELECT FROM transfers x WHERE x.pending_id = t.transfer_id)
ORDER BY timeout_at, transfer_id LIMIT {ROWS_A_STATEMENT}
"""  # noqa: S608 - pieces are constants of this file
BALANCES = """
WITH counted AS (
  SELECT debit_account, credit_account, currency, amount_micros, kind = 'pending' AS pending FROM transfers t
  WHERE {counts} AND {accounts} AND (kind IN ('posted', 'post') OR kind = 'pending' AND NOT EXISTS (
    SELECT FROM transfers x WHERE x.pending_id = t.transfer_id AND {x_counts}))
), sides AS (
  SELECT debit_account AS account, currency, pending, sum(amount_micros) AS debits, 0::numeric AS credits
  FROM counted GROUP BY 1, 2, 3
  UNION ALL SELECT credit_account, currency, pending, 0, sum(amount_micros) FROM counted GROUP BY 1, 2, 3
)
SELECT account, currency, COALESCE(sum(debits) FILTER (WHERE NOT pending), 0)::bigint AS debits_micros,
  COALESCE(sum(credits) FILTER (WHERE NOT pending), 0)::bigint AS credits_micros,
  COALESCE(sum(debits) FILTER (WHERE pending), 0)::bigint AS pending_debits_micros,
  COALESCE(sum(credits) FILTER (WHERE pending), 0)::bigint AS pending_credits_micros
FROM sides GROUP BY account, currency ORDER BY account COLLATE "C", currency COLLATE "C"
"""
AT = {"counts": "effective_at <= %(at)s", "x_counts": "x.effective_at <= %(at)s"}
ALL_ACCOUNTS = BALANCES.format(accounts="true", **AT)
ONE_ACCOUNT = BALANCES.format(accounts="%(account)s IN (debit_account, credit_account)", **AT)
THROUGH = BALANCES.format(accounts="true", counts="period <= %(through)s", x_counts="x.period <= %(through)s")


class PostgresBooks:
    """The books of the truth."""

    def __init__(self, truth: Truth, scope: Scope = PLATFORM) -> None:
        self._truth = truth
        self._scope = scope

    async def post(self, transfers: Sequence[Transfer]) -> int:
        async with self._truth.transaction(self._scope) as session:
            return await insert_transfers(session, transfers)

    async def expire(self, now: datetime) -> int:
        freed = 0
        while True:
            async with self._truth.transaction(self._scope) as session:
                rows = await fetch_all(session, TIMED_OUT, (now,))
                late = [transfer_of_row(row) for row in rows]
                freed += await insert_transfers(session, timeouts_of(late, await load_calendar(session)))
            if len(late) < ROWS_A_STATEMENT:
                return freed

    async def calendar(self) -> Calendar:
        async with self._truth.transaction(self._scope) as session:
            return await load_calendar(session)

    async def balance(self, account: str, at: datetime) -> tuple[Balance, ...]:
        async with self._truth.transaction(self._scope) as session:
            rows = await fetch_all(session, ONE_ACCOUNT, {"at": at, "account": account})
        return tuple(Balance(**row) for row in rows if row["account"] == account)

    async def trial_balance(self, at: datetime) -> TrialBalance:
        async with self._truth.transaction(self._scope) as session:
            rows = await fetch_all(session, ALL_ACCOUNTS, {"at": at})
        return TrialBalance(at=at, balances=tuple(Balance(**row) for row in rows))


async def insert_transfers(session: Session, transfers: Sequence[Transfer]) -> int:
    """Write what is new; refuse what contradicts the books. Whatever is wrong rolls the caller's transaction back."""
    if not transfers:
        return 0
    named = sorted({name for one in transfers if (name := one.pending_id or one.reverses_id) is not None})
    known = await load_by_id(session, sorted({one.transfer_id for one in transfers} | set(named)))
    answered = await fetch_all(session, ANSWERED, {"named": named}) if named else []
    fresh = admitted(
        transfers,
        chart=load_chart(),
        calendar=await load_calendar(session),
        known=known,
        answered={row["named"]: row["transfer_id"] for row in answered},
    )
    # A pending transfer goes in before what resolves it, whatever the order in which they came.
    ordered = sorted(fresh, key=lambda one: (one.pending_id or one.reverses_id) is not None)
    for first in range(0, len(ordered), ROWS_A_STATEMENT):
        some = ordered[first : first + ROWS_A_STATEMENT]
        async with guarded():
            done = await session.execute(INSERT, (json.dumps([_row(one) for one in some], default=str),))
        if done.rowcount < len(
            some
        ):  # another copy wrote one of them a moment ago, or it is another tenant's
            stored = await load_by_id(session, [one.transfer_id for one in some])
            for one in some:
                if stored.get(one.transfer_id) != one:
                    raise another_body(one.transfer_id)
    return len(fresh)


@asynccontextmanager
async def guarded() -> AsyncIterator[None]:
    """What the database refuses of an insert, as the faults that `Books.post` names."""
    try:
        yield
    except UniqueViolation as wrong:  # what another copy resolved or reversed a moment ago
        raise Conflict(wrong.diag.message_detail or str(wrong)) from wrong
    except CheckViolation as wrong:
        kind = GUARDS.get(wrong.diag.constraint_name or "")
        if kind is None:
            raise
        raise kind(f"{wrong.diag.message_primary}; nothing of this group is posted") from wrong
    except psycopg.errors.NumericValueOutOfRange as wrong:
        raise Conflict(f"the sums of an account would leave 64 bits: {wrong}") from wrong


async def load_calendar(session: Session) -> Calendar:
    found = {row["state"]: period_named(row["period"]) for row in await fetch_all(session, CALENDAR)}
    return Calendar(
        closed_through=found.get(PeriodState.CLOSED.value), closing=found.get(PeriodState.CLOSING.value)
    )


async def load_by_id(session: Session, transfer_ids: Sequence[str]) -> dict[str, Transfer]:
    rows = await fetch_all(session, KNOWN, (list(transfer_ids),))
    return {row["transfer_id"]: transfer_of_row(row) for row in rows}


_facts = attrgetter(*COLUMNS)


def _row(transfer: Transfer) -> dict[str, Any]:
    return {**dict(zip(COLUMNS, _facts(transfer), strict=True)), "period": str(transfer.booked_in)}


def transfer_of_row(row: DictRow) -> Transfer:
    booked_in = period_named(row["period"])
    period = None if booked_in == period_of(row["effective_at"]) else booked_in
    return Transfer(**{**row, "kind": Kind(row["kind"]), "period": period})


NEWEST = f"""
SELECT {SHOWN} FROM transfers
WHERE (%(run_id)s::text IS NULL OR run_id = %(run_id)s)
  AND (%(account)s::text IS NULL OR %(account)s IN (debit_account, credit_account))
  AND (%(after)s::text IS NULL OR (effective_at, transfer_id) < (
    SELECT effective_at, transfer_id FROM transfers WHERE transfer_id = %(after)s))
ORDER BY effective_at DESC, transfer_id DESC LIMIT %(limit)s
"""  # noqa: S608 - pieces are constants of this file


async def load_transfers(
    truth: Truth,
    scope: Scope = PLATFORM,
    *,
    run_id: str | None = None,
    account: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> tuple[Transfer, ...]:
    """The newest transfers first; `after` is the last transfer_id of the page before."""
    params = {"run_id": run_id, "account": account, "after": after, "limit": limit}
    async with truth.transaction(scope) as session:
        rows = await fetch_all(session, NEWEST, params)
    return tuple(transfer_of_row(row) for row in rows)
