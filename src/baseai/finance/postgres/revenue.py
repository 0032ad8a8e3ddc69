"""Revenue in PostgreSQL: rated lines become transfers, one each, by one statement for each batch.

Invariant: what waits to be posted is claimed by deleting it in the transaction that writes its transfer, so a crash at
any place bills nothing twice and loses nothing. A line that takes another back is a transfer the other way. Hours that
were billed by the list, before lines were rated, are not billed again.
"""

from baseai.finance.account import REVENUE_ON_DEMAND
from baseai.finance.period import Finding, Period
from baseai.finance.postgres.books import guarded, load_calendar
from baseai.truth.session import Session, fetch_all

LINES_A_TRANSACTION = 20_000

# Claimed by the row's own place, which its lock holds: a join is planned as if the table were as empty as it mostly is,
# and takes the square of a backlog. OFFSET 0 keeps look-ups by key for the same reason.
# Only what a line's accounts are made of is decided here: who owes, and for which category.
WRITE = f"""
WITH claimed AS MATERIALIZED (
  DELETE FROM unposted WHERE ctid = ANY(ARRAY(SELECT ctid FROM unposted ORDER BY rated_id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED)) RETURNING rated_id
), lines AS MATERIALIZED (
  SELECT r.* FROM claimed CROSS JOIN LATERAL (
    SELECT * FROM rated_lines x WHERE x.rated_id = claimed.rated_id OFFSET 0) r
), written AS (
  INSERT INTO transfers (transfer_id, entry_id, debit_account, credit_account, amount_micros, currency, effective_at,
    period, tenant_id, project_id, customer_id, contract_id, price_id, run_id, accelerator_no, node_id, site_id,
    round_id, model, micro_seconds, unit_price, note)
  SELECT 'tr_' || substr(l.rated_id, 4), COALESCE('use_' || substr(l.usage_id, 5), 'entry_' || substr(l.rated_id, 4)),
    CASE WHEN l.amount_micros > 0 THEN 'tenant:' || l.tenant_id || ':receivable' ELSE 'revenue:' || l.category END,
    CASE WHEN l.amount_micros > 0 THEN 'revenue:' || l.category ELSE 'tenant:' || l.tenant_id || ':receivable' END,
    abs(l.amount_micros), l.currency, GREATEST(l.effective_from, l.effective_until - interval '1 microsecond'),
    CASE WHEN l.period <= %(closed)s THEN %(open)s ELSE l.period END, l.tenant_id, l.project_id, l.customer_id,
    l.contract_id, l.price_id, l.run_id, l.accelerator_no, l.node_id, l.site_id, l.round_id, l.model,
    CASE WHEN l.meter = 'accelerator_time' THEN abs(l.quantity) END, l.unit_price,
    COALESCE(l.note, 'takes back ' || 'tr_' || substr(l.corrects, 4))
  FROM lines l
  WHERE NOT EXISTS (SELECT FROM transfers t WHERE t.credit_account = '{REVENUE_ON_DEMAND}' AND t.hour IS NOT NULL
    AND t.run_id = l.run_id AND t.accelerator_no = l.accelerator_no
    AND t.hour = date_trunc('hour', l.effective_from, 'UTC'))
  RETURNING 1
)
SELECT (SELECT count(*) FROM claimed) AS claimed, (SELECT count(*) FROM written) AS written
"""  # noqa: S608 - pieces are constants of this file
WAITING = """
SELECT u.rated_id FROM unposted u JOIN rated_lines r USING (rated_id) WHERE r.period <= %s ORDER BY 1 LIMIT 6
"""
ASTRAY = f"""
SELECT r.rated_id FROM rated_lines r LEFT JOIN transfers t ON t.transfer_id = 'tr_' || substr(r.rated_id, 4)
WHERE r.amount_micros <> 0 AND NOT EXISTS (SELECT FROM unposted u WHERE u.rated_id = r.rated_id)
  AND (t.transfer_id IS NULL AND NOT EXISTS (SELECT FROM transfers x WHERE x.run_id = r.run_id
      AND x.accelerator_no = r.accelerator_no AND x.hour = date_trunc('hour', r.effective_from, 'UTC')
      AND x.credit_account = '{REVENUE_ON_DEMAND}')
    OR t.amount_micros <> abs(r.amount_micros) OR t.currency <> r.currency
    OR (r.amount_micros > 0) <> (t.credit_account LIKE 'revenue:%%'))
ORDER BY r.rated_id LIMIT 20
"""  # noqa: S608 - pieces are constants of this file


async def post_lines(session: Session) -> tuple[int, bool]:
    """Post a batch of rated lines: how many transfers were written, and whether more lines wait."""
    calendar = await load_calendar(session)
    closed = calendar.closed_through
    first = None if closed is None else closed.next()
    if first is not None and first == calendar.closing:
        first = first.next()
    given = {
        "limit": LINES_A_TRANSACTION,
        "closed": "" if closed is None else str(closed),
        "open": None if first is None else str(first),
    }
    async with guarded():
        (row,) = await fetch_all(session, WRITE, given)
    return row["written"], row["claimed"] == LINES_A_TRANSACTION


async def waiting_lines(session: Session, period: Period) -> list[str]:
    """Some rated lines of the month, or of one before it, that are not posted."""
    return [row["rated_id"] for row in await fetch_all(session, WAITING, (str(period),))]


async def lines_astray(session: Session) -> list[Finding]:
    """Rated lines that were posted otherwise than they say, or not at all."""
    return [
        Finding(
            check="rated",
            sentence=f"rated line {row['rated_id']} does not stand in the books as it was rated",
        )
        for row in await fetch_all(session, ASTRAY)
    ]
