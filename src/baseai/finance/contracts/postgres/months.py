"""Which months of which contracts have an end to be reckoned, and what of a month's use has no rated line yet.

Invariant: it reads and never writes. A month is asked about again when use of it was rated after it had been closed.
"""

from collections.abc import Sequence

from baseai.finance.period import ZONE, Finding, Period, period_named
from baseai.truth.session import Session, fetch_all

NAMED_MOST = 5
# The month itself, the one before it, and every earlier one of which use was rated into either.
DUE = f"""
WITH late AS (
  SELECT DISTINCT contract_id, to_char(effective_from AT TIME ZONE '{ZONE}', 'YYYY-MM') AS month FROM rated_lines
  WHERE usage_id IS NOT NULL AND contract_id IS NOT NULL AND period = ANY(%(months)s)
)
SELECT c.name, m.month FROM contracts c CROSS JOIN LATERAL (
  SELECT unnest(%(months)s) AS month UNION SELECT month FROM late l WHERE l.contract_id = c.contract_id) m
WHERE m.month <= %(last)s AND to_char(c.from_at AT TIME ZONE '{ZONE}', 'YYYY-MM') <= m.month
  AND (upper(c.during) IS NULL OR to_char((upper(c.during) - interval '1 microsecond') AT TIME ZONE '{ZONE}', 'YYYY-MM')
    >= m.month)
ORDER BY m.month, c.from_at, c.name
"""  # noqa: S608 - the zone is our own
UNRATED = """
SELECT q.usage_id FROM unrated q LEFT JOIN usage_lines u ON u.line_id = q.usage_id
LEFT JOIN usage_events e ON e.usage_id = q.usage_id
WHERE COALESCE(u.from_at, e.from_at) < %(ends_at)s OR q.kind = 'verdict' ORDER BY q.usage_id LIMIT %(limit)s
"""


async def months_due(session: Session, period: Period) -> list[tuple[str, Period]]:
    """(contract by name, month) of every end that closing `period` needs, the oldest month first."""
    asked = {"months": [str(period.before()), str(period)], "last": str(period)}
    return [(row["name"], period_named(row["month"])) for row in await fetch_all(session, DUE, asked)]


async def unrated_in(session: Session, period: Period) -> Sequence[Finding]:
    """What was used up to the end of the month and is not rated, or turned out not to be billable and is not judged."""
    asked = {"ends_at": period.ends_at(), "limit": NAMED_MOST + 1}
    names = [row["usage_id"] for row in await fetch_all(session, UNRATED, asked)]
    if not names:
        return ()
    shown = ", ".join(names[:NAMED_MOST]) + (" and more" if len(names) > NAMED_MOST else "")
    return (
        Finding(
            check="rated",
            sentence=f"{period} has use that is not rated: {shown}; a price is missing, or it is being rated just now",
        ),
    )
