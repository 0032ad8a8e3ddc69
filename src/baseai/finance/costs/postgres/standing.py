"""Standing time in PostgreSQL: the hours that are closed, against what runs used of them and what is booked already.

An hour of which nothing stands in the books yet, which is nearly every one, is written by one statement without passing
through this process; what is learnt later of an hour passes through `standing_postings`, and both come to the same.

Invariant: level-triggered: whatever happened meanwhile, an hour ends up with what it should have. One copy posts at a
time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from baseai.finance.account import ACCUMULATED_DEPRECIATION, PAYABLE_COLOCATION, PAYABLE_ENERGY
from baseai.finance.costs.postgres.neighbours import Neighbours
from baseai.finance.costs.standing import StandingHour, standing_postings
from baseai.finance.posting import HOUR, Booked, Unpriced
from baseai.finance.rate import HourlyCostRate
from baseai.finance.transfer import Transfer
from baseai.truth.session import Session, fetch_all

STANDING_LOCK = 0x7374616E  # "stan"
HOURS_A_TRANSACTION = 4_000
DAY_AT_ONCE = timedelta(hours=24)
# Sums of many rows are joined to sums of many rows, of which the planner believes that they are few.
HASHED = "SET LOCAL enable_nestloop = off"
CELL = ("hour", "model", "site_id", "period", "currency", "depreciation", "energy", "colocation")

Rate = Callable[[str, str, datetime], HourlyCostRate | None]

# Hours whose standing time in the books is not what they stood. Of a whole hour used, nothing stands and nothing is
# booked. Summed in one pass: joined, three sums of hours are planned as if each were a row while a month is fresh, and
# take the square of it.
APART = """
WITH told AS (
  SELECT accelerator_no, hour, micro_seconds AS installed_us, 0::bigint AS used_us, 0::bigint AS stood_us
  FROM time_buckets WHERE replaced_at IS NULL AND hour >= %(since)s AND hour < %(until)s
  UNION ALL
  SELECT accelerator_no, hour, 0, micro_seconds, 0 FROM usage_lines WHERE hour >= %(since)s AND hour < %(until)s
  UNION ALL
  SELECT accelerator_no, hour, 0, 0, CASE WHEN debit_account LIKE 'cost:%%' THEN micro_seconds ELSE -micro_seconds END
  FROM transfers WHERE run_id IS NULL AND hour >= %(since)s AND hour < %(until)s
    AND 'cost:depreciation' IN (debit_account, credit_account)
), i AS MATERIALIZED (
  SELECT accelerator_no, hour, sum(installed_us)::bigint AS installed_us, sum(used_us)::bigint AS used_us FROM told
  WHERE (accelerator_no, hour) > (%(after_no)s::bigint, %(after_hour)s::timestamptz) GROUP BY 1, 2
  HAVING sum(installed_us) > 0 AND GREATEST(sum(installed_us) - sum(used_us), 0) <> sum(stood_us)
  ORDER BY 1, 2 LIMIT %(limit)s
)
SELECT i.accelerator_no, a.node_id, n.site_id, a.model, a.round_id, i.hour, i.installed_us, i.used_us
FROM i JOIN accelerators a USING (accelerator_no) JOIN nodes n USING (node_id) ORDER BY i.accelerator_no, i.hour
"""
BOOKED = """
SELECT accelerator_no, hour, account, min(currency) AS currency, count(*) AS transfers,
  sum(sign * amount_micros)::bigint AS amount_micros, sum(sign * micro_seconds)::bigint AS micro_seconds,
  (array_agg(transfer_id ORDER BY recorded_at, transfer_id))[1] AS first_id,
  (array_agg(unit_price ORDER BY recorded_at, transfer_id))[1] AS unit_price
FROM (
  SELECT t.*, CASE WHEN t.debit_account LIKE 'cost:%%' THEN t.debit_account ELSE t.credit_account END AS account,
    CASE WHEN t.debit_account LIKE 'cost:%%' THEN 1 ELSE -1 END AS sign
  FROM unnest(%(nos)s::bigint[], %(hours)s::timestamptz[]) AS due (accelerator_no, hour)
  JOIN transfers t ON t.hour = due.hour AND t.accelerator_no = due.accelerator_no AND t.run_id IS NULL
  WHERE t.micro_seconds IS NOT NULL AND t.unit_price IS NOT NULL
) moved GROUP BY 1, 2, 3
"""
PLACES = """
SELECT DISTINCT a.model, n.site_id FROM accelerators a JOIN nodes n USING (node_id) ORDER BY 1, 2
"""
KIND = """
SELECT 'tr_' || k.stem || '-{nature}', k.stem, 'cost:{nature}', '{other}', k.{nature}_micros, k.currency,
  k.hour + interval '1 hour' - interval '1 microsecond', k.period, k.accelerator_no, k.node_id, k.site_id, k.round_id,
  k.model, k.hour, k.us, k.{nature} FROM known k WHERE k.{nature}_micros > 0
"""
AMOUNT = "charge(c.{0}, i.us) - charge(c.{0}, LEAST(i.us, COALESCE(u.us, 0))) AS {0}_micros"
NATURES = (
    ("colocation", PAYABLE_COLOCATION),
    ("depreciation", ACCUMULATED_DEPRECIATION),
    ("energy", PAYABLE_ENERGY),
)
FIRST = f"""
WITH cells AS MATERIALIZED (
  SELECT * FROM unnest(%(hour)s::timestamptz[], %(model)s::text[], %(site_id)s::text[], %(period)s::text[],
    %(currency)s::text[], %(depreciation)s::numeric[], %(energy)s::numeric[], %(colocation)s::numeric[])
  AS c (hour, model, site_id, period, currency, depreciation, energy, colocation)
), installed AS MATERIALIZED (
  SELECT accelerator_no, hour, sum(micro_seconds)::bigint AS us FROM time_buckets
  WHERE replaced_at IS NULL AND hour >= %(since)s AND hour < %(until)s GROUP BY 1, 2
), used AS MATERIALIZED (
  SELECT accelerator_no, hour, sum(micro_seconds)::bigint AS us FROM usage_lines
  WHERE hour >= %(since)s AND hour < %(until)s GROUP BY 1, 2
), stood AS MATERIALIZED (
  SELECT DISTINCT accelerator_no, hour FROM transfers
  WHERE run_id IS NULL AND hour >= %(since)s AND hour < %(until)s AND accelerator_no IS NOT NULL
), known AS MATERIALIZED (
  SELECT 'stood-' || i.accelerator_no || '-' || to_char(i.hour AT TIME ZONE 'UTC', 'YYYYMMDDHH24') AS stem,
    i.accelerator_no, i.hour, a.node_id, a.round_id, c.model, c.site_id, c.period, c.currency, c.depreciation, c.energy,
    c.colocation, i.us - COALESCE(u.us, 0) AS us, {", ".join(AMOUNT.format(nature) for nature, _ in NATURES)}
  FROM installed i JOIN accelerators a USING (accelerator_no) JOIN nodes n USING (node_id)
  JOIN cells c ON c.hour = i.hour AND c.model = a.model AND c.site_id = n.site_id
  LEFT JOIN used u ON u.accelerator_no = i.accelerator_no AND u.hour = i.hour
  LEFT JOIN stood s ON s.accelerator_no = i.accelerator_no AND s.hour = i.hour
  WHERE s.hour IS NULL AND i.us > COALESCE(u.us, 0)
)
INSERT INTO transfers (transfer_id, entry_id, debit_account, credit_account, amount_micros, currency, effective_at,
  period, accelerator_no, node_id, site_id, round_id, model, hour, micro_seconds, unit_price)
{" UNION ALL ".join(KIND.format(nature=nature, other=other) for nature, other in NATURES)}
"""  # noqa: S608 - pieces are constants of this file


async def post_first(
    session: Session, beside: Neighbours, rate: Rate, since: datetime, until: datetime
) -> tuple[int, tuple[Unpriced, ...]]:
    """Write what stood in closed hours of which nothing is booked yet; how many transfers, and what has no cost."""
    await session.execute("SELECT pg_advisory_xact_lock(%s)", (STANDING_LOCK,))
    await session.execute(HASHED)
    calendar = await beside.load_calendar(session)
    cells: dict[str, list[Any]] = {name: [] for name in CELL}
    unpriced: dict[Unpriced, None] = {}
    for place in await fetch_all(session, PLACES):
        hour = since
        while hour < until:
            cost = rate(place["model"], place["site_id"], hour)
            if cost is None:
                unpriced[Unpriced(**place, hour=hour, missing="cost")] = None
                break
            row = (
                hour, place["model"], place["site_id"], str(calendar.booking_of(hour)), cost.currency,
                cost.depreciation, cost.energy, cost.colocation,
            )  # fmt: skip
            for name, value in zip(CELL, row, strict=True):
                cells[name].append(value)
            hour += HOUR
    async with beside.guarded():
        done = await session.execute(FIRST, {**cells, "since": since, "until": until})
    return done.rowcount, tuple(unpriced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """What one transaction did."""

    transfers: int
    unpriced: tuple[Unpriced, ...]
    next_after: tuple[int, datetime] | None  # where the next one goes on; None when all was looked at


async def post_standing(
    session: Session,
    beside: Neighbours,
    rate: Rate,
    since: datetime,
    until: datetime,
    after: tuple[int, datetime] | None = None,
) -> Stood:
    """Bring a batch of closed hours from `since` to `until`, whole UTC hours, to what stood in them."""
    await session.execute("SELECT pg_advisory_xact_lock(%s)", (STANDING_LOCK,))
    given = {
        "since": since,
        "until": until,
        "after_no": -1 if after is None else after[0],
        "after_hour": since if after is None else after[1],
        "limit": HOURS_A_TRANSACTION,
    }
    hours = [StandingHour(**row) for row in await fetch_all(session, APART, given)]
    if not hours:
        return Stood(transfers=0, unpriced=(), next_after=None)
    booked: dict[tuple[int, datetime], dict[str, Booked]] = {}
    keys = {"nos": [one.accelerator_no for one in hours], "hours": [one.hour for one in hours]}
    for row in await fetch_all(session, BOOKED, keys):
        key = (row.pop("accelerator_no"), row.pop("hour"))
        account = row.pop("account")
        booked.setdefault(key, {})[account] = Booked(**row)
    calendar = await beside.load_calendar(session)
    transfers: list[Transfer] = []
    unpriced: dict[Unpriced, None] = {}
    for one in hours:
        cost = rate(one.model, one.site_id, one.hour)
        found = standing_postings(one, cost, booked.get((one.accelerator_no, one.hour)), calendar=calendar)
        if isinstance(found, Unpriced):
            unpriced[found] = None
        else:
            transfers += found
    written = await beside.insert_transfers(session, transfers)
    last = hours[-1]
    more = len(hours) == HOURS_A_TRANSACTION
    return Stood(
        transfers=written,
        unpriced=tuple(unpriced),
        next_after=(last.accelerator_no, last.hour) if more else None,
    )
