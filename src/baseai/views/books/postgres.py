"""The books for pages: a month's movements, and the steps from a sum down to postings, rated lines, leases, serials.

Invariant: nothing is reckoned that the books do not hold; every sum is of the very rows that a list shows for the same
question. All is read in the asker's scope, so a tenant's question has that tenant's rows as its only answer.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from baseai.finance.period import Period
from baseai.ground.fault import NotFound
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.views.books.asked import Asked

Row = dict[str, Any]
POSTINGS_A_PAGE = 100
USES_SHOWN = 200  # of one lease

# What counts moves money; what is reserved, freed or timed out does not.
COUNTS = "t.kind IN ('posted', 'post')"
# First by what stands in the row itself, then joined: groups are few, rows are many.
MOVEMENTS = f"""
WITH grouped AS MATERIALIZED (
  SELECT debit_account, credit_account, currency, node_id, sum(amount_micros)::bigint AS micros, count(*) AS transfers
  FROM transfers t WHERE period = %(period)s AND {COUNTS} GROUP BY 1, 2, 3, 4
)
SELECT g.debit_account, g.credit_account, g.currency, COALESCE(n.simulated, false) AS simulated,
  sum(g.micros)::bigint AS micros, sum(g.transfers)::bigint AS transfers
FROM grouped g LEFT JOIN nodes n USING (node_id) GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - pieces are constants of this file
# Since the first accelerator was installed or the first account opened; no look at all transfers.
MONTHS = """
SELECT to_char(month, 'YYYY-MM') AS period FROM generate_series(
  date_trunc('month', LEAST((SELECT min(opened_at) FROM accounts), (SELECT min(installed_at) FROM accelerators), now())
    AT TIME ZONE 'America/Sao_Paulo'),
  date_trunc('month', now() AT TIME ZONE 'America/Sao_Paulo'), interval '1 month') month ORDER BY month DESC LIMIT 120
"""
PLACES = """
SELECT DISTINCT n.site_id, a.model, n.simulated FROM accelerators a JOIN nodes n USING (node_id) ORDER BY 1, 2
"""
# Of the last business day before the month was over, or before today; days the bank was silent have no rate.
RATE = """
SELECT sell, day, bulletin_at FROM fx_rates WHERE currency = 'USD' AND sell IS NOT NULL
  AND day < LEAST(%(until)s, now() AT TIME ZONE 'America/Sao_Paulo')::date ORDER BY day DESC LIMIT 1
"""
# The page first, then names for it: estimates of what row security lets through are poor, and joins would follow them.
POSTINGS = """
WITH page AS MATERIALIZED (
  SELECT * FROM transfers t WHERE {where} ORDER BY t.effective_at DESC, t.transfer_id DESC LIMIT %(limit)s)
SELECT t.*, a.serial, r.name AS run, w.name AS tenant, n.name AS node,
  EXISTS (SELECT FROM rated_lines x WHERE x.rated_id = 'rl_' || substr(t.transfer_id, 4)) AS rated,
  COALESCE(n.simulated, false) AS simulated
FROM page t LEFT JOIN accelerators a USING (accelerator_no) LEFT JOIN runs r ON r.run_id = t.run_id
  LEFT JOIN tenants w ON w.tenant_id = t.tenant_id LEFT JOIN nodes n ON n.node_id = t.node_id
ORDER BY t.effective_at DESC, t.transfer_id DESC
"""
SUMS = """
SELECT t.currency, {sides}, count(*) AS transfers, COALESCE(sum(t.micro_seconds), 0)::bigint AS us
FROM transfers t WHERE {where} GROUP BY t.currency ORDER BY t.currency
"""
AFTER = """(%(after)s::text IS NULL OR (t.effective_at, t.transfer_id) < (
  SELECT effective_at, transfer_id FROM transfers WHERE transfer_id = %(after)s))"""
TRANSFER = POSTINGS.format(where="t.transfer_id = %(transfer_id)s")
RELATED = """
SELECT transfer_id, kind, debit_account, credit_account, amount_micros, currency, pending_id, reverses_id, effective_at
FROM transfers WHERE transfer_id = ANY(%(named)s) OR pending_id = %(own)s OR reverses_id = %(own)s
  OR entry_id = %(entry)s AND transfer_id <> %(own)s ORDER BY effective_at, transfer_id LIMIT 50
"""
LINE = """
SELECT x.*, a.serial, r.name AS run, w.name AS tenant, n.name AS node, c.name AS contract, c.term,
  k.legal_name AS customer, p.list_id, p.tiers, p.peaks, p.source AS price_source, p.unit AS price_unit,
  COALESCE(n.simulated, false) AS simulated,
  (SELECT b.rated_id FROM rated_lines b WHERE b.corrects = x.rated_id) AS corrected_by,
  (SELECT t.transfer_id FROM transfers t WHERE t.transfer_id = 'tr_' || substr(x.rated_id, 4)) AS transfer_id
FROM rated_lines x LEFT JOIN accelerators a USING (accelerator_no) LEFT JOIN runs r ON r.run_id = x.run_id
  LEFT JOIN tenants w ON w.tenant_id = x.tenant_id LEFT JOIN nodes n ON n.node_id = x.node_id
  LEFT JOIN contracts c ON c.contract_id = x.contract_id LEFT JOIN customers k ON k.customer_id = x.customer_id
  LEFT JOIN prices p ON p.price_id = x.price_id
WHERE x.rated_id = %s
"""
BILL = """
SELECT x.*, a.serial, r.name AS run FROM rated_lines x LEFT JOIN accelerators a USING (accelerator_no)
  LEFT JOIN runs r ON r.run_id = x.run_id
WHERE x.period = %(period)s AND (%(run)s::text IS NULL OR x.run_id = %(run)s)
  AND (%(category)s::text IS NULL OR x.category = %(category)s) AND (%(after)s::text IS NULL
  OR (x.effective_from, x.rated_id) < (SELECT effective_from, rated_id FROM rated_lines WHERE rated_id = %(after)s))
ORDER BY x.effective_from DESC, x.rated_id DESC LIMIT %(limit)s
"""
BILLED = """
SELECT x.currency, x.category, x.run_id, r.name AS run, sum(x.amount_micros)::bigint AS micros,
  COALESCE(sum(x.quantity) FILTER (WHERE x.meter = 'accelerator_time'), 0)::bigint AS us, count(*) AS lines
FROM rated_lines x LEFT JOIN runs r ON r.run_id = x.run_id WHERE x.period = %(period)s
GROUP BY 1, 2, 3, 4 ORDER BY micros DESC, x.run_id LIMIT 200
"""
INVOICES = """
SELECT invoice_id, kind, series, number, period, currency, total_cents, issued_at, due_on FROM invoices
WHERE tenant_id = %s ORDER BY issued_at DESC, invoice_id LIMIT 100
"""
LEASE = """
SELECT l.*, r.name AS run, w.name AS tenant, n.name AS node, n.site_id AS site, n.simulated, t.state AS attempt_state,
  t.reason AS attempt_reason
FROM leases l JOIN runs r USING (run_id) JOIN tenants w ON w.tenant_id = l.tenant_id JOIN nodes n USING (node_id)
  JOIN attempts t ON t.run_id = l.run_id AND t.attempt_no = l.attempt_no
WHERE l.lease_id = %s
"""
HELD = """
SELECT a.serial, a.accelerator_no, lower(d.during) AS from_at, upper(d.during) AS until_at
FROM lease_accelerators d JOIN accelerators a USING (accelerator_no) WHERE d.lease_id = %s ORDER BY a.serial
"""
USED = """
SELECT u.line_id, u.from_at, u.to_at, u.micro_seconds, u.billable, u.reason, a.serial,
  COALESCE((SELECT array_agg(x.rated_id ORDER BY x.rated_id) FROM rated_lines x
    WHERE x.rated_id >= 'rl_' || substr(u.line_id, 5) || '-' AND x.rated_id < 'rl_' || substr(u.line_id, 5) || '.'),
    '{{}}') AS rated_ids
FROM usage_lines u JOIN accelerators a USING (accelerator_no) WHERE u.{which} ORDER BY u.from_at, a.serial LIMIT %s
"""
ACCELERATOR = """
SELECT a.accelerator_no, a.serial, a.model, a.round_id, a.installed_at, n.name AS node, n.node_id, n.site_id AS site,
  n.simulated
FROM accelerators a JOIN nodes n USING (node_id) WHERE a.serial = %s
"""
BEHIND_LEASE = """
SELECT l.lease_id, l.run_id, r.name AS run, w.name AS tenant, l.state, t.reason, r.kind, lower(d.during) AS from_at,
  upper(d.during) AS until_at
FROM lease_accelerators d JOIN leases l USING (lease_id) JOIN runs r ON r.run_id = l.run_id
  JOIN tenants w ON w.tenant_id = l.tenant_id JOIN attempts t ON t.run_id = l.run_id AND t.attempt_no = l.attempt_no
WHERE d.accelerator_no = %(no)s AND d.during && tstzrange(%(since)s, %(until)s) ORDER BY 8
"""
BEHIND_MOVE = """
SELECT at, subject_kind, subject_id, from_state, to_state, reason, actor, sentence FROM events
WHERE from_state IS NOT NULL AND to_state IS NOT NULL AND at < %(until)s AND (subject_kind = 'accelerator'
  AND subject_id = %(serial)s OR subject_kind = 'node' AND subject_id = %(node_id)s) ORDER BY at DESC LIMIT 200
"""
STANDING = """
SELECT a.serial, a.model, n.site_id AS site, n.name AS node, n.simulated
FROM accelerators a JOIN nodes n USING (node_id)
"""


class BookViews:
    """What pages of the books read."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def months(self, scope: Scope) -> list[str]:
        """Every month since there was anything, the newest first."""
        async with self._truth.transaction(scope) as session:
            return [row["period"] for row in await fetch_all(session, MONTHS)]

    async def places(self, scope: Scope) -> list[Row]:
        """Which models stand at which sites: site_id, model, simulated."""
        async with self._truth.transaction(scope) as session:
            return await fetch_all(session, PLACES)

    async def movements(self, scope: Scope, period: Period) -> list[Row]:
        """What was booked in a month between each two accounts, by currency and whether it is simulated.

        micros and transfers are sums.
        """
        async with self._truth.transaction(scope) as session:
            return await fetch_all(session, MOVEMENTS, {"period": str(period)})

    async def rate(self, scope: Scope, period: Period) -> Row | None:
        """Reais for a dollar: sell, day, bulletin_at. None where no bulletin is known."""
        async with self._truth.transaction(scope) as session:
            return await fetch_one(session, RATE, {"until": period.ends_at()})

    async def postings(
        self, scope: Scope, asked: Asked, *, after: str | None = None, limit: int = POSTINGS_A_PAGE
    ) -> tuple[list[Row], str | None]:
        """Transfers that moved money, the newest first, and the cursor of the next page."""
        where, given = _where(asked)
        query = POSTINGS.format(where=f"{where} AND {AFTER}")
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(session, query, {**given, "after": after, "limit": limit + 1})
        return rows[:limit], rows[limit - 1]["transfer_id"] if len(rows) > limit else None

    async def posted_sums(self, scope: Scope, asked: Asked) -> list[Row]:
        """Of the same transfers, by currency: micros debited and credited, to the account where one is asked for."""
        where, given = _where(asked)
        sides = (
            "sum(t.amount_micros) FILTER (WHERE t.debit_account = %(account)s)::bigint AS debits,"
            " sum(t.amount_micros) FILTER (WHERE t.credit_account = %(account)s)::bigint AS credits"
            if asked.account
            else "sum(t.amount_micros) FILTER (WHERE t.debit_account LIKE %(side)s)::bigint AS debits,"
            " sum(t.amount_micros) FILTER (WHERE t.credit_account LIKE %(side)s)::bigint AS credits"
        )
        query = SUMS.format(sides=sides, where=where)
        async with self._truth.transaction(scope) as session:
            return await fetch_all(session, query, given)

    async def transfer(self, scope: Scope, transfer_id: str) -> Row:
        """One transfer, what it names or is named by, and the use behind it. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            found = await fetch_one(session, TRANSFER, {"transfer_id": transfer_id, "limit": 1})
            if found is None:
                raise NotFound("transfer", transfer_id)
            named = [name for name in (found["pending_id"], found["reverses_id"]) if name]
            related = await fetch_all(
                session, RELATED, {"named": named, "own": transfer_id, "entry": found["entry_id"]}
            )
            uses = []
            if found["run_id"] and found["hour"] and found["accelerator_no"]:
                uses = await _uses(session, found)
        return {"transfer": found, "related": related, "uses": uses}

    async def line(self, scope: Scope, rated_id: str) -> Row:
        """One rated line with contract, price, and the use behind it. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            found = await fetch_one(session, LINE, (rated_id,))
            if found is None:
                raise NotFound("rated line", rated_id)
            uses = (
                await fetch_all(session, USED.format(which="line_id = %s"), (found["usage_id"], 1))
                if found["usage_id"]
                else []
            )
            event = await fetch_one(
                session,
                "SELECT source, event_id, meter, quantity, unit, from_at, until_at, recorded_at FROM usage_events"
                " WHERE usage_id = %s",
                (found["usage_id"],),
            )
        return {"line": found, "uses": uses, "event": event}

    async def bill(
        self, scope: Scope, period: Period, *, run: str | None = None, category: str | None = None,
        after: str | None = None, limit: int = POSTINGS_A_PAGE,
    ) -> tuple[list[Row], list[Row], str | None]:  # fmt: skip
        """What a month's rated lines sum to by run and category, a page of the lines, and the next page's cursor."""
        given = {"period": str(period), "run": run, "category": category, "after": after, "limit": limit + 1}
        async with self._truth.transaction(scope) as session:
            sums = await fetch_all(session, BILLED, given)
            rows = await fetch_all(session, BILL, given)
        return sums, rows[:limit], rows[limit - 1]["rated_id"] if len(rows) > limit else None

    async def invoices(self, scope: Scope) -> list[Row]:
        """The newest documents of the asker's tenant."""
        async with self._truth.transaction(scope) as session:
            return await fetch_all(session, INVOICES, (scope.tenant_id,))

    async def lease(self, scope: Scope, lease_id: str) -> Row:
        """One lease: its run, its accelerators by serial, the use that was metered of it. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            found = await fetch_one(session, LEASE, (lease_id,))
            if found is None:
                raise NotFound("lease", lease_id)
            held = await fetch_all(session, HELD, (lease_id,))
            uses = await fetch_all(session, USED.format(which="lease_id = %s"), (lease_id, USES_SHOWN + 1))
        return {"lease": found, "held": held, "uses": uses[:USES_SHOWN], "more": len(uses) > USES_SHOWN}

    async def accelerator(self, scope: Scope, serial: str) -> Row:
        """Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            found = await fetch_one(session, ACCELERATOR, (serial,))
        if found is None:
            raise NotFound("accelerator", serial)
        return found

    async def behind(self, scope: Scope, found: Mapping[str, Any], since: datetime, until: datetime) -> Row:
        """What stood behind an accelerator's time: its leases in a span; moves of it and its node before its end."""
        given = {
            "no": found["accelerator_no"], "serial": found["serial"], "node_id": found["node_id"],
            "since": since, "until": until,
        }  # fmt: skip
        async with self._truth.transaction(scope) as session:
            return {
                "leases": await fetch_all(session, BEHIND_LEASE, given),
                "moves": await fetch_all(session, BEHIND_MOVE, given),
            }

    async def standing(self, scope: Scope) -> dict[str, Row]:
        """Every accelerator by its serial: model, site, node, simulated."""
        async with self._truth.transaction(scope) as session:
            return {row["serial"]: row for row in await fetch_all(session, STANDING)}


async def _uses(session: Session, transfer: Row) -> list[Row]:
    which = "run_id = %s AND u.accelerator_no = %s AND u.hour = %s"
    return await fetch_all(
        session,
        USED.format(which=which),
        (transfer["run_id"], transfer["accelerator_no"], transfer["hour"], USES_SHOWN),
    )


CONDITIONS: Mapping[str, str] = {
    "period": "t.period = %(period)s",
    "account": "%(account)s IN (t.debit_account, t.credit_account)",
    "nature": "(t.debit_account LIKE %(side)s OR t.credit_account LIKE %(side)s)",
    "model": "COALESCE(t.model, '') = %(model)s",
    "site": "COALESCE(t.site_id, '') = %(site)s",
    "tenant": "COALESCE(t.tenant_id, '') = %(tenant)s",
    "round": """(t.round_id = %(round)s OR t.round_id IS NULL AND (t.accelerator_no IN (
      SELECT accelerator_no FROM accelerators WHERE COALESCE(round_id, '') = %(round)s)
    OR t.accelerator_no IS NULL AND %(round)s = ''))""",
    "run": "t.run_id = %(run)s",
    "serial": "t.accelerator_no = (SELECT accelerator_no FROM accelerators WHERE serial = %(serial)s)",
    "simulated": "COALESCE(t.node_id IN (SELECT node_id FROM nodes WHERE simulated), false) = %(simulated)s",
}


def _where(asked: Asked) -> tuple[str, Row]:
    given = {name: value for name, value in asdict(asked).items() if value is not None}
    where = " AND ".join([COUNTS, *(CONDITIONS[name] for name in given)])
    return where, {**given, "side": f"{asked.nature}:%" if asked.nature else "%"}


assert {field.name for field in fields(Asked)} == set(CONDITIONS)
