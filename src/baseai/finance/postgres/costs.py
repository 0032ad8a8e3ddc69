"""Cost reports from the truth: hours, revenue and cost of runs, nodes, accelerators and tenants.

Invariant: time in the books, time in usage lines that are not posted yet, and observed time that is not metered yet
are read in one statement, so an hour that is posted meanwhile is seen on one side only. Nothing is written.
"""

from collections.abc import Sequence

from baseai.finance.cost import BookedSum, By, CostRow, UsedSum, cost_rows
from baseai.finance.postgres.observed import SEEN, UNBILLABLE, UNBILLED_KINDS
from baseai.finance.rate import Rates
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_all

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
OF_RUNS = "{0}.run_id = ANY(%(runs)s)"
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
    truth: Truth, rates: Rates, scope: Scope = PLATFORM, *, by: By, subject: str | None = None,
    runs: Sequence[str] | None = None,
) -> tuple[CostRow, ...]:  # fmt: skip
    """Hours, revenue, cost and contribution by run, node, accelerator or tenant; of one `subject`, or of all.

    runs: only what these runs used. An accelerator is named by its accelerator_id. What the scope may not see counts as
    if it were not there.
    """
    shown, grouped = SUBJECT[by]
    pieces = {"seen": SEEN}
    for alias in "tul":  # transfers, usage lines, leases
        named = "true" if subject is None else NAMED[by].format(alias)
        pieces[f"where_{alias}"] = named if runs is None else f"{named} AND {OF_RUNS.format(alias)}"
        pieces[f"shown_{alias}"] = shown.format(alias)
        pieces[f"grouped_{alias}"] = grouped.format(alias)
    params = {
        "subject": subject,
        "runs": None if runs is None else list(runs),
        "unbillable": UNBILLABLE,
        "unbilled_kinds": UNBILLED_KINDS,
    }
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
