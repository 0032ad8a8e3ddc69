"""The meter and the books on PostgreSQL. A shell: rows become values, the pure rooms decide, rows are written.

Invariant: what is claimed and what is written stand in one transaction, so a crash at any place loses nothing
and repeats nothing. Time is the database's `now()`, never this process's.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import LiteralString

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from baseai.finance.account import Balance
from baseai.finance.cost import BookedSum, By, CostRow, UsedSum, cost_rows
from baseai.finance.meter import ObservedLease, UsageLine, usage_of
from baseai.finance.posting import Booked, HourOfUse, Unpriced, is_settled, postings_of, settled_until
from baseai.finance.rate import Rates
from baseai.finance.transfer import Kind, Transfer, TrialBalance, check_resolution
from baseai.ground.fault import Conflict
from baseai.truth.session import PLATFORM, Overlap, Scope, Session, Truth, fetch_all
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.reason import VERDICTS, Reason
from baseai.workloads.run import ENDED

__all__ = ["Recomputed", "Metering", "Meter", "Posting", "PostgresBooks", "costs_in", "load_transfers"]

LEASES_A_TRANSACTION = 500
RUNS_A_TRANSACTION = 50
LANES = 2  # while one transaction is being written, the next is being reckoned
ROWS_A_STATEMENT = 5_000
POSTING_LOCK = 0x706F7374  # "post"

UNBILLABLE = sorted(reason.value for reason, verdict in VERDICTS.items() if not verdict.billable)
UNBILLED_KINDS = [BURN_IN]  # of runs: those that are our own
RUN_ENDED = sorted(state.value for state in ENDED)

log = logging.getLogger(__name__)

# ---- the meter ------------------------------------------------------------------------------------------------

# The end of what was observed inside the lease; LEAST passes over nulls.
SEEN = "LEAST(l.observed_until, l.ends_at, l.released_at)"
LEASE_ENDED = "(l.state = 'released' AND (a.state = 'ended' OR r.state = ANY(%(run_ended)s)))"
DUE = f"""
SELECT l.lease_id, l.run_id, l.attempt_no, l.tenant_id, l.project_id, l.node_id, n.site_id, l.model,
  l.granted_at, l.ends_at, l.released_at, l.observed_from, l.observed_until, l.metered_until,
  CASE WHEN a.state = 'ended' THEN a.reason END AS reason, r.kind,
  {LEASE_ENDED} AS ended, now() AS now,
  (SELECT array_agg(d.accelerator_no ORDER BY d.accelerator_no) FROM lease_accelerators d
    WHERE d.lease_id = l.lease_id) AS accelerator_nos
FROM leases l JOIN attempts a USING (run_id, attempt_no) JOIN runs r USING (run_id) JOIN nodes n USING (node_id)
WHERE l.observed_until IS NOT NULL AND (l.metered_until IS NULL OR l.metered_until < {SEEN})
  AND ({LEASE_ENDED} OR l.observed_from IS NOT NULL
    AND date_trunc('hour', LEAST({SEEN} - interval '1 microsecond', now()), 'UTC')
      > GREATEST(l.observed_from, l.granted_at, l.metered_until))
  AND (%(lease_id)s::text IS NULL OR l.lease_id = %(lease_id)s)
ORDER BY l.lease_id LIMIT %(limit)s FOR NO KEY UPDATE OF l SKIP LOCKED
"""  # noqa: S608 - pieces are constants of this file

LINE_COLUMNS = tuple(field.name for field in fields(UsageLine))
LINE_TYPES = """line_id text, lease_id text, run_id text, attempt_no integer, tenant_id text, project_id text,
  accelerator_no bigint, node_id text, site_id text, model text, hour timestamptz, from_at timestamptz,
  to_at timestamptz, micro_seconds bigint, billable boolean, reason text"""
INSERT_LINES = f"""
INSERT INTO usage_lines ({", ".join(LINE_COLUMNS)})
SELECT {", ".join(LINE_COLUMNS)} FROM json_to_recordset(%s::json) AS fresh ({LINE_TYPES})
ON CONFLICT (line_id) DO NOTHING
"""  # noqa: S608 - pieces are constants of this file


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """What one round of metering did."""

    lines: int
    leases: int
    refused: tuple[str, ...] = ()  # leases whose time overlaps what is metered already: somebody must look


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What one round of posting did."""

    transfers: int
    waiting: int  # runs with usage that is not settled or not priced yet
    unpriced: tuple[Unpriced, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """The books against the usage lines."""

    runs: int
    missing: tuple[
        Transfer, ...
    ]  # what would still have to be written: nothing, or the books are wrong or late


class Meter:
    """Measures and books the use of leases, for the platform's own loop.

    It keeps in mind which runs may have something to post; after a start it asks the usage lines once.
    """

    def __init__(self, truth: Truth, rates: Rates) -> None:
        self._truth = truth
        self._rates = rates
        self._due: dict[str, datetime | None] = {}  # run → first hour to look at; None: all of them
        self._looked = False
        self._refused: set[str] = set()

    async def meter(self) -> Metering:
        """Write the lines that became final. Cheap when there are none; harmless beside another copy."""
        lines = leases = 0
        while True:
            try:
                found, written = await self._meter_some(LEASES_A_TRANSACTION)
            except Overlap:
                return await self._meter_one_by_one(lines=lines, leases=leases)
            lines, leases = lines + written, leases + found
            if found < LEASES_A_TRANSACTION:
                return Metering(lines=lines, leases=leases)

    async def post(self) -> Posting:
        """Write the transfers of every hour that is settled. Harmless beside another copy: one posts, one passes."""
        if not self._looked:
            for run_id in await self._unposted_runs():
                self._due[run_id] = None
            self._looked = True
        due = sorted(self._due)
        chunks = iter(
            [due[first : first + RUNS_A_TRANSACTION] for first in range(0, len(due), RUNS_A_TRANSACTION)]
        )
        written, unpriced = 0, dict[Unpriced, None]()

        async def lane() -> None:
            nonlocal written
            for run_ids in chunks:
                transfers, missing = await self._post_some(run_ids)
                written += transfers
                unpriced.update(dict.fromkeys(missing))

        ends = await asyncio.gather(*(lane() for _ in range(min(LANES, len(due)))), return_exceptions=True)
        for wrong in ends:  # each lane stops by itself; what it had not committed stays due
            if wrong is not None:
                raise wrong
        for gap in unpriced:
            log.warning("no %s known for %s at %s: its usage waits", gap.missing, gap.model, gap.hour)
        return Posting(transfers=written, waiting=len(self._due), unpriced=tuple(unpriced))

    async def _post_some(self, run_ids: Sequence[str]) -> tuple[int, list[Unpriced]]:
        """Post these runs in one transaction; those that another copy is posting stay due."""
        async with self._truth.transaction() as session:
            free = await fetch_all(session, FREE, {"run_ids": run_ids, "lock": POSTING_LOCK})
            some = {row["run_id"]: self._due[row["run_id"]] for row in free}
            if not some:
                return 0, []
            transfers, left, missing = await _postings(session, some, self._rates)
            written = await _insert_transfers(session, transfers)
        # Only now, after the commit, is it safe to forget them.
        for run_id in some:
            if run_id in left:
                self._due[run_id] = left[run_id]
            else:
                del self._due[run_id]
        return written, missing

    async def recompute(self) -> Recomputed:
        """Rate all settled usage again from the first line on and compare with the books. Writes nothing."""
        async with self._truth.transaction() as session:
            rows = await fetch_all(session, "SELECT DISTINCT run_id FROM usage_lines ORDER BY run_id")
        run_ids: list[str] = [row["run_id"] for row in rows]
        missing: list[Transfer] = []
        for first in range(0, len(run_ids), RUNS_A_TRANSACTION):
            some: dict[str, datetime | None] = dict.fromkeys(run_ids[first : first + RUNS_A_TRANSACTION])
            async with self._truth.transaction() as session:
                missing += (await _postings(session, some, self._rates))[0]
        return Recomputed(runs=len(run_ids), missing=tuple(missing))

    async def _meter_some(self, limit: int, lease_id: str | None = None) -> tuple[int, int]:
        due: dict[str, datetime | None] = {}
        async with self._truth.transaction() as session:
            params = {"limit": limit, "run_ended": RUN_ENDED, "lease_id": lease_id}
            rows = await fetch_all(session, DUE, params)
            lines: list[UsageLine] = []
            marks: list[tuple[str, datetime]] = []
            for row in rows:
                lease = _lease(row)
                metered = usage_of(lease, now=row["now"])
                lines += metered.lines
                if metered.metered_until is not None:
                    marks.append((lease.lease_id, metered.metered_until))
                if metered.lines:
                    since = None if lease.billable is False else min(line.hour for line in metered.lines)
                    _earlier(due, lease.run_id, since)
            written = await _insert(session, INSERT_LINES, lines)
            if marks:
                await session.execute(
                    "UPDATE leases l SET metered_until = m.until FROM unnest(%s::text[], %s::timestamptz[])"
                    " AS m (lease_id, until) WHERE l.lease_id = m.lease_id",
                    ([lease_id for lease_id, _ in marks], [until for _, until in marks]),
                )
        for run_id, since in due.items():
            _earlier(self._due, run_id, since)
        return len(rows), written

    async def _meter_one_by_one(self, *, lines: int, leases: int) -> Metering:
        """One lease contradicts what is metered; keep it from holding up the others."""
        everything = {"limit": None, "run_ended": RUN_ENDED, "lease_id": None}
        async with self._truth.transaction() as session:
            due = await fetch_all(session, DUE, everything)
        refused = []
        for lease_id in [row["lease_id"] for row in due]:
            try:
                found, written = await self._meter_some(1, lease_id)
            except Overlap as wrong:
                refused.append(lease_id)
                if lease_id not in self._refused:
                    log.error("usage of %s overlaps what is metered already: %s", lease_id, wrong.detail)
                self._refused.add(lease_id)
            else:
                leases, lines = leases + found, lines + written
        return Metering(lines=lines, leases=leases, refused=tuple(refused))

    async def _unposted_runs(self) -> list[str]:
        async with self._truth.transaction() as session:
            return [row["run_id"] for row in await fetch_all(session, UNPOSTED)]


def _earlier(due: dict[str, datetime | None], run_id: str, since: datetime | None) -> None:
    known = due.get(run_id, since)
    due[run_id] = None if since is None or known is None else min(since, known)


def _lease(row: DictRow) -> ObservedLease:
    reason = row["reason"]
    return ObservedLease(
        lease_id=row["lease_id"],
        run_id=row["run_id"],
        attempt_no=row["attempt_no"],
        tenant_id=row["tenant_id"],
        project_id=row["project_id"],
        node_id=row["node_id"],
        site_id=row["site_id"],
        model=row["model"],
        accelerator_nos=tuple(row["accelerator_nos"] or ()),
        granted_at=row["granted_at"],
        ends_at=row["ends_at"],
        released_at=row["released_at"],
        observed_from=row["observed_from"],
        observed_until=row["observed_until"],
        ended=row["ended"],
        billable=VERDICTS[Reason(reason)].billable if reason in VERDICTS else None,
        unbilled_for=row["kind"] if row["kind"] in UNBILLED_KINDS else None,
        reason=reason,
        metered_until=row["metered_until"],
    )


# ---- posting --------------------------------------------------------------------------------------------------

# Compares the time in the books with the time metered; a run whose costs are zero is looked at once more.
UNPOSTED = """
SELECT u.run_id FROM (SELECT run_id, sum(micro_seconds) AS us FROM usage_lines GROUP BY run_id) u
LEFT JOIN (
  SELECT run_id, sum(CASE WHEN debit_account = 'cost:depreciation' THEN micro_seconds ELSE -micro_seconds END) AS us
  FROM transfers WHERE run_id IS NOT NULL AND 'cost:depreciation' IN (debit_account, credit_account) GROUP BY run_id
) t USING (run_id)
WHERE t.us IS DISTINCT FROM u.us
"""
RUNS = f"""
SELECT r.run_id, r.state = ANY(%(run_ended)s) AS ended, now() AS now,
  array_agg(COALESCE(l.metered_until, l.granted_at)) FILTER (
    WHERE NOT {LEASE_ENDED} OR (l.observed_until IS NOT NULL AND (l.metered_until IS NULL OR l.metered_until < {SEEN}))
  ) AS open_since
FROM runs r LEFT JOIN leases l ON l.run_id = r.run_id
LEFT JOIN attempts a ON a.run_id = l.run_id AND a.attempt_no = l.attempt_no
WHERE r.run_id = ANY(%(run_ids)s) GROUP BY r.run_id
"""  # noqa: S608 - pieces are constants of this file
HOURS = """
SELECT u.run_id, u.tenant_id, u.project_id, u.accelerator_no, u.node_id, u.site_id, u.model, u.hour,
  max(u.to_at) AS until_at, sum(u.micro_seconds)::bigint AS used_us,
  COALESCE(sum(u.micro_seconds) FILTER (
    WHERE u.billable AND (a.state = 'ended' AND a.reason = ANY(%(unbillable)s)) IS NOT TRUE), 0)::bigint AS billable_us,
  string_agg(DISTINCT format('attempt %%s: %%s', a.attempt_no, a.reason), ', ')
    FILTER (WHERE a.state = 'ended' AND a.reason = ANY(%(unbillable)s)) AS note
FROM unnest(%(run_ids)s::text[], %(since)s::timestamptz[]) AS due (run_id, since)
JOIN usage_lines u ON u.run_id = due.run_id AND u.hour >= due.since
JOIN attempts a ON a.run_id = u.run_id AND a.attempt_no = u.attempt_no
GROUP BY u.run_id, u.tenant_id, u.project_id, u.accelerator_no, u.node_id, u.site_id, u.model, u.hour
ORDER BY u.run_id, u.hour, u.accelerator_no
"""
# What raises an account counts up, what lowers it counts down, whichever side it stands on.
BOOKED = """
SELECT run_id, accelerator_no, hour, account, min(currency) AS currency, count(*) AS transfers,
  sum(sign * amount_micros)::bigint AS amount_micros, sum(sign * micro_seconds)::bigint AS micro_seconds,
  (array_agg(transfer_id ORDER BY recorded_at, transfer_id))[1] AS first_id,
  (array_agg(unit_price ORDER BY recorded_at, transfer_id))[1] AS unit_price
FROM (
  SELECT t.*, raised AS account, CASE
    WHEN raised LIKE 'cost:%%' AND raised = debit_account OR raised LIKE 'revenue:%%' AND raised = credit_account
    THEN 1 ELSE -1 END AS sign
  FROM unnest(%(run_ids)s::text[], %(since)s::timestamptz[]) AS due (run_id, since)
  JOIN transfers t ON t.run_id = due.run_id AND t.hour >= due.since AND t.kind = 'posted'
  CROSS JOIN LATERAL unnest(ARRAY[t.debit_account, t.credit_account]) AS raised
  WHERE raised LIKE 'cost:%%' OR raised LIKE 'revenue:%%'
) moved GROUP BY run_id, accelerator_no, hour, account
"""
# One copy posts a run at a time, so that what it reads of the books is still so when it writes.
FREE = """
SELECT run_id FROM unnest(%(run_ids)s::text[]) AS due (run_id)
WHERE pg_try_advisory_xact_lock(%(lock)s, hashtext(run_id))
"""
EVER = datetime.fromisoformat("0001-01-01T00:00:00+00:00")


async def _postings(
    session: Session, due: dict[str, datetime | None], rates: Rates
) -> tuple[list[Transfer], dict[str, datetime | None], list[Unpriced]]:
    """The transfers of the due runs, the runs that are due again and since when, and what had no rate."""
    run_ids = list(due)
    until: dict[str, datetime | None] = {}
    for row in await fetch_all(session, RUNS, {"run_ids": run_ids, "run_ended": RUN_ENDED}):
        until[row["run_id"]] = settled_until(
            now=row["now"], run_ended=row["ended"], open_since=row["open_since"] or ()
        )
    spans = {"run_ids": run_ids, "since": [since or EVER for since in due.values()], "unbillable": UNBILLABLE}
    booked: dict[tuple[str, int, datetime], dict[str, Booked]] = {}
    for row in await fetch_all(session, BOOKED, spans):
        key = (row["run_id"], row["accelerator_no"], row["hour"])
        booked.setdefault(key, {})[row["account"]] = Booked(
            amount_micros=row["amount_micros"],
            micro_seconds=row["micro_seconds"],
            transfers=row["transfers"],
            first_id=row["first_id"],
            unit_price=row["unit_price"],
            currency=row["currency"],
        )
    transfers: list[Transfer] = []
    left: dict[str, datetime | None] = {}
    unpriced: list[Unpriced] = []
    for row in await fetch_all(session, HOURS, spans):
        if not is_settled(row["hour"], until[row["run_id"]]):
            _earlier(left, row["run_id"], row["hour"])
            continue
        use = HourOfUse(**row)
        found = postings_of(use, rates, booked.get((use.run_id, use.accelerator_no, use.hour)))
        if isinstance(found, Unpriced):
            unpriced.append(found)
            _earlier(left, use.run_id, use.hour)
        else:
            transfers += found
    return transfers, left, unpriced


# ---- the books ------------------------------------------------------------------------------------------------

TRANSFER_COLUMNS = tuple(field.name for field in fields(Transfer))
TRANSFER_TYPES = """transfer_id text, entry_id text, debit_account text, credit_account text, amount_micros bigint,
  currency text, effective_at timestamptz, kind text, pending_id text, tenant_id text, project_id text, run_id text,
  accelerator_no bigint, node_id text, site_id text, model text, hour timestamptz, micro_seconds bigint,
  unit_price numeric, note text"""
INSERT_TRANSFERS = f"""
INSERT INTO transfers ({", ".join(TRANSFER_COLUMNS)})
SELECT {", ".join(TRANSFER_COLUMNS)} FROM json_to_recordset(%s::json) AS fresh ({TRANSFER_TYPES})
ON CONFLICT (transfer_id) DO NOTHING
"""  # noqa: S608 - pieces are constants of this file
BALANCES = """
WITH counted AS (
  SELECT debit_account, credit_account, currency, amount_micros, kind = 'pending' AS pending FROM transfers t
  WHERE effective_at <= %(at)s AND {accounts} AND (kind IN ('posted', 'post') OR kind = 'pending' AND NOT EXISTS (
    SELECT FROM transfers x WHERE x.pending_id = t.transfer_id AND x.effective_at <= %(at)s))
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
ALL_ACCOUNTS = BALANCES.format(accounts="true")
ONE_ACCOUNT = BALANCES.format(accounts="%(account)s IN (debit_account, credit_account)")


class PostgresBooks:
    """The books of the truth, seen in a scope: a tenant sees the transfers of its own use."""

    def __init__(self, truth: Truth, scope: Scope = PLATFORM) -> None:
        self._truth = truth
        self._scope = scope

    async def post(self, transfers: Sequence[Transfer]) -> int:
        async with self._truth.transaction(self._scope) as session:
            return await _insert_transfers(session, transfers)

    async def balance(self, account: str, at: datetime) -> tuple[Balance, ...]:
        async with self._truth.transaction(self._scope) as session:
            rows = await fetch_all(session, ONE_ACCOUNT, {"at": at, "account": account})
        return tuple(Balance(**row) for row in rows if row["account"] == account)

    async def trial_balance(self, at: datetime) -> TrialBalance:
        async with self._truth.transaction(self._scope) as session:
            rows = await fetch_all(session, ALL_ACCOUNTS, {"at": at})
        return TrialBalance(at=at, balances=tuple(Balance(**row) for row in rows))


async def _insert_transfers(session: Session, transfers: Sequence[Transfer]) -> int:
    """Write what is new; refuse what contradicts the books. Whatever is wrong rolls the caller's transaction back."""
    bodies: dict[str, Transfer] = {}
    for transfer in transfers:
        if bodies.setdefault(transfer.transfer_id, transfer) != transfer:
            raise Conflict(f"{transfer.transfer_id} stands in the books with another body")
    resolutions = [transfer for transfer in bodies.values() if transfer.pending_id is not None]
    # A pending transfer goes in before what resolves it, whatever the order in which they came.
    written = await _insert_new(session, [t for t in bodies.values() if t.pending_id is None])
    if not resolutions:
        return written
    named = sorted({transfer.pending_id for transfer in resolutions if transfer.pending_id is not None})
    pending = await _load_by_id(session, named)
    query = "SELECT pending_id, transfer_id FROM transfers WHERE pending_id = ANY(%s)"
    resolved = {row["pending_id"]: row["transfer_id"] for row in await fetch_all(session, query, (named,))}
    for transfer in resolutions:
        assert transfer.pending_id is not None
        first = resolved.setdefault(transfer.pending_id, transfer.transfer_id)
        if first != transfer.transfer_id:
            raise Conflict(
                f"{transfer.pending_id} is resolved already; {transfer.transfer_id} comes too late"
            )
        check_resolution(transfer, pending.get(transfer.pending_id))
    return written + await _insert_new(session, resolutions)


async def _insert_new(session: Session, transfers: Sequence[Transfer]) -> int:
    written = 0
    for first in range(0, len(transfers), ROWS_A_STATEMENT):
        some = transfers[first : first + ROWS_A_STATEMENT]
        fresh = await _insert(session, INSERT_TRANSFERS, some)
        written += fresh
        if fresh < len(some):
            stored = await _load_by_id(session, [transfer.transfer_id for transfer in some])
            for transfer in some:
                # Absent means hidden from this scope: another tenant's.
                if stored.get(transfer.transfer_id) != transfer:
                    raise Conflict(f"{transfer.transfer_id} stands in the books with another body")
    return written


async def _insert(session: Session, query: LiteralString, rows: Sequence[UsageLine | Transfer]) -> int:
    """Insert by a statement that takes its rows as JSON; how many were new."""
    columns = LINE_COLUMNS if query is INSERT_LINES else TRANSFER_COLUMNS
    facts = attrgetter(*columns)
    written = 0
    for first in range(0, len(rows), ROWS_A_STATEMENT):
        some = [dict(zip(columns, facts(row), strict=True)) for row in rows[first : first + ROWS_A_STATEMENT]]
        try:
            done = await session.execute(query, (json.dumps(some, default=str),))
        except UniqueViolation as wrong:  # a pending transfer that another copy resolved a moment ago
            raise Conflict(wrong.diag.message_detail or str(wrong)) from wrong
        written += done.rowcount
    return written


async def _load_by_id(session: Session, transfer_ids: Sequence[str]) -> dict[str, Transfer]:
    columns = ", ".join(TRANSFER_COLUMNS)
    query = f"SELECT {columns} FROM transfers WHERE transfer_id = ANY(%s)"  # noqa: S608 - columns are our own
    return {
        row["transfer_id"]: _transfer(row) for row in await fetch_all(session, query, (list(transfer_ids),))
    }


def _transfer(row: DictRow) -> Transfer:
    return Transfer(**{**row, "kind": Kind(row["kind"])})


# ---- reading --------------------------------------------------------------------------------------------------

NEWEST = f"""
SELECT {", ".join(TRANSFER_COLUMNS)}, recorded_at FROM transfers
WHERE (%(run_id)s::text IS NULL OR run_id = %(run_id)s)
  AND (%(after)s::text IS NULL OR (effective_at, transfer_id) < (
    SELECT effective_at, transfer_id FROM transfers WHERE transfer_id = %(after)s))
ORDER BY effective_at DESC, transfer_id DESC LIMIT %(limit)s
"""  # noqa: S608 - pieces are constants of this file


async def load_transfers(
    truth: Truth,
    scope: Scope = PLATFORM,
    *,
    run_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> tuple[Transfer, ...]:
    """The newest transfers first; `after` is the last transfer_id of the page before."""
    async with truth.transaction(scope) as session:
        rows = await fetch_all(session, NEWEST, {"run_id": run_id, "after": after, "limit": limit})
    return tuple(_transfer({name: row[name] for name in TRANSFER_COLUMNS}) for row in rows)


SUBJECT = {
    By.RUN: ("{0}.run_id", "{0}.run_id"),
    By.NODE: ("{0}.node_id", "{0}.node_id"),
    By.TENANT: ("{0}.tenant_id", "{0}.tenant_id"),
    # Outside they go by their id, inside by their number.
    By.ACCELERATOR: (
        "(SELECT accelerator_id FROM accelerators x WHERE x.accelerator_no = {0}.accelerator_no)",
        "{0}.accelerator_no",
    ),
}
NAMED = {
    By.RUN: "{0}.run_id = %(subject)s",
    By.NODE: "{0}.node_id = %(subject)s",
    By.TENANT: "{0}.tenant_id = %(subject)s",
    By.ACCELERATOR: "{0}.accelerator_no = (SELECT accelerator_no FROM accelerators WHERE accelerator_id = %(subject)s)",
}
# Time in the books, time in usage lines that are not posted yet, and observed time that is not metered yet, in
# one statement: an hour that is posted meanwhile is seen on one side only.
SUMS = """
WITH posted AS (
  SELECT DISTINCT t.run_id, t.accelerator_no, t.hour FROM transfers t
  WHERE t.run_id IS NOT NULL AND t.hour IS NOT NULL AND {where_t}
), used AS (
  SELECT {grouped_u} AS grouped, {shown_u} AS subject, u.model, u.site_id, u.hour, u.micro_seconds AS us,
    p.run_id IS NULL AS open,
    u.billable AND (a.state = 'ended' AND a.reason = ANY(%(unbillable)s)) IS NOT TRUE AS billable
  FROM usage_lines u JOIN attempts a USING (run_id, attempt_no)
  LEFT JOIN posted p ON p.run_id = u.run_id AND p.accelerator_no = u.accelerator_no AND p.hour = u.hour
  WHERE {where_u}
  UNION ALL
  SELECT {grouped_l}, {shown_l}, l.model, l.site_id, date_trunc('hour', l.from_at, 'UTC'),
    (EXTRACT(epoch FROM l.seen - l.from_at) * 1000000)::bigint, true,
    (l.verdict = ANY(%(unbillable)s)) IS NOT TRUE AND l.kind <> ALL(%(unbilled_kinds)s)
  FROM (
    SELECT l.run_id, r.kind, l.node_id, l.tenant_id, l.model, n.site_id, d.accelerator_no, {seen} AS seen,
      CASE WHEN a.state = 'ended' THEN a.reason END AS verdict,
      GREATEST(l.observed_from, l.granted_at, l.metered_until) AS from_at
    FROM leases l JOIN attempts a USING (run_id, attempt_no) JOIN runs r USING (run_id) JOIN nodes n USING (node_id)
    JOIN lease_accelerators d USING (lease_id)
    WHERE l.observed_from IS NOT NULL AND l.observed_until IS NOT NULL
      AND (l.metered_until IS NULL OR l.metered_until < {seen})
  ) l WHERE l.seen > l.from_at AND {where_l}
)
SELECT {shown_t} AS subject, t.currency, NULL AS model, NULL AS site_id, NULL::timestamptz AS hour,
  sum(CASE WHEN t.credit_account LIKE 'revenue:%%' THEN t.amount_micros
           WHEN t.debit_account LIKE 'revenue:%%' THEN -t.amount_micros ELSE 0 END)::bigint AS revenue_micros,
  sum(CASE WHEN t.debit_account LIKE 'cost:%%' THEN t.amount_micros
           WHEN t.credit_account LIKE 'cost:%%' THEN -t.amount_micros ELSE 0 END)::bigint AS cost_micros,
  0::bigint AS used_us, 0::bigint AS open_us, 0::bigint AS open_billable_us
FROM transfers t WHERE t.kind IN ('posted', 'post') AND t.run_id IS NOT NULL AND {where_t}
GROUP BY {grouped_t}, t.currency
UNION ALL
SELECT max(subject), NULL, model, site_id, CASE WHEN open THEN hour ELSE date_trunc('hour', now(), 'UTC') END, 0, 0,
  sum(us)::bigint, COALESCE(sum(us) FILTER (WHERE open), 0)::bigint,
  COALESCE(sum(us) FILTER (WHERE open AND billable), 0)::bigint
FROM used GROUP BY grouped, model, site_id, CASE WHEN open THEN hour ELSE date_trunc('hour', now(), 'UTC') END
"""


async def costs_in(
    truth: Truth, rates: Rates, scope: Scope = PLATFORM, *, by: By, subject: str | None = None
) -> tuple[CostRow, ...]:
    """Hours, revenue, cost and contribution by run, node, accelerator or tenant; of one `subject`, or of all.

    An accelerator is named by its accelerator_id. What the scope may not see counts as if it were not there.
    """
    shown, grouped = SUBJECT[by]
    pieces = {"seen": SEEN}
    for alias in "tul":  # transfers, usage lines, leases
        pieces[f"where_{alias}"] = "true" if subject is None else NAMED[by].format(alias)
        pieces[f"shown_{alias}"] = shown.format(alias)
        pieces[f"grouped_{alias}"] = grouped.format(alias)
    params = {"subject": subject, "unbillable": UNBILLABLE, "unbilled_kinds": UNBILLED_KINDS}
    async with truth.transaction(scope) as session:
        rows = await fetch_all(session, SUMS.format(**pieces), params)
    booked = [
        BookedSum(
            subject=row["subject"],
            currency=row["currency"],
            revenue_micros=row["revenue_micros"],
            cost_micros=row["cost_micros"],
        )
        for row in rows
        if row["currency"] is not None
    ]
    used = [
        UsedSum(
            subject=row["subject"],
            model=row["model"],
            site_id=row["site_id"],
            hour=row["hour"],
            used_us=row["used_us"],
            open_us=row["open_us"],
            open_billable_us=row["open_billable_us"],
        )
        for row in rows
        if row["currency"] is None
    ]
    return cost_rows(booked, used, rates)
