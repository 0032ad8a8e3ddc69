"""Posting in PostgreSQL: hours of use that are settled and priced become transfers.

Invariant: what is written equals what `postings_of` says of the same hours, at whatever time and in whatever pieces.
An hour that is posted for the first time, which is nearly every one, is rated and written by one statement without
passing through this process; what is learnt later of an hour passes through `postings_of`. One copy posts a run at a
time, so that what it reads of the books is still so when it writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.rows import DictRow

from baseai.finance.account import (
    ACCUMULATED_DEPRECIATION,
    PAYABLE_COLOCATION,
    PAYABLE_ENERGY,
    REVENUE_ON_DEMAND,
)
from baseai.finance.period import Calendar
from baseai.finance.postgres.books import guarded, insert_transfers, load_calendar
from baseai.finance.postgres.metering import Due
from baseai.finance.postgres.observed import LEASE_ENDED, RUN_ENDED, SEEN, UNBILLABLE
from baseai.finance.posting import (
    HOUR,
    Booked,
    HourOfUse,
    Unpriced,
    is_settled,
    key_parts,
    postings_of,
    settled_until,
)
from baseai.finance.rate import HourlyCostRate, HourlyPrice, Rates
from baseai.finance.transfer import Transfer
from baseai.ground.money import charge
from baseai.truth.session import Session, fetch_all

POSTING_LOCK = 0x706F7374  # "post"
EVER = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
HOUR_US = HOUR.seconds * 1_000_000

# Compares the time in the books with the time metered; a run whose costs are zero is looked at once more.
UNPOSTED = """
SELECT u.run_id FROM (SELECT run_id, sum(micro_seconds) AS us FROM usage_lines GROUP BY run_id) u
LEFT JOIN (
  SELECT run_id, sum(CASE WHEN debit_account = 'cost:depreciation' THEN micro_seconds ELSE -micro_seconds END) AS us
  FROM transfers WHERE run_id IS NOT NULL AND 'cost:depreciation' IN (debit_account, credit_account) GROUP BY run_id
) t USING (run_id)
WHERE t.us IS DISTINCT FROM u.us
"""
FREE = """
SELECT run_id FROM unnest(%(run_ids)s::text[]) AS due (run_id)
WHERE pg_try_advisory_xact_lock(%(lock)s, hashtext(run_id))
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
# The hours that are due, over all accelerators of a run that share model and site.
CELLS = """
SELECT u.run_id, u.hour, u.model, u.site_id
FROM unnest(%(run_ids)s::text[], %(since)s::timestamptz[]) AS due (run_id, since)
JOIN usage_lines u ON u.run_id = due.run_id AND u.hour >= due.since
GROUP BY u.run_id, u.hour, u.model, u.site_id ORDER BY u.run_id, u.hour, u.model, u.site_id
"""
# A run's time on one accelerator within one hour, over all its attempts; a card stays in its node for an hour.
USED = """
SELECT u.run_id, min(u.tenant_id) AS tenant_id, min(u.project_id) AS project_id, u.accelerator_no,
  min(u.node_id) AS node_id, min(u.site_id) AS site_id, min(u.model) AS model, u.hour,
  max(u.to_at) AS until_at, sum(u.micro_seconds)::bigint AS used_us,
  COALESCE(sum(u.micro_seconds) FILTER (
    WHERE u.billable AND (a.state = 'ended' AND a.reason = ANY(%(unbillable)s)) IS NOT TRUE), 0)::bigint AS billable_us
"""
GROUPED = "GROUP BY u.run_id, u.accelerator_no, u.hour"
NOTE = """(SELECT string_agg(DISTINCT format('attempt %%s: %%s', a.attempt_no, a.reason), ', ')
  FROM usage_lines u JOIN attempts a USING (run_id, attempt_no)
  WHERE u.run_id = h.run_id AND u.accelerator_no = h.accelerator_no AND u.hour = h.hour
    AND a.state = 'ended' AND a.reason = ANY(%(unbillable)s))"""
HOURS = f"""
SELECT h.*, x.round_id, CASE WHEN h.billable_us < h.used_us THEN {NOTE} END AS note FROM (
  {USED} FROM unnest(%(run_ids)s::text[], %(since)s::timestamptz[]) AS due (run_id, since)
  JOIN usage_lines u ON u.run_id = due.run_id AND u.hour >= due.since
  JOIN attempts a ON a.run_id = u.run_id AND a.attempt_no = u.attempt_no {GROUPED}
) h JOIN accelerators x USING (accelerator_no)
WHERE %(everything)s OR (h.run_id, h.hour, h.accelerator_no) IN (SELECT run_id, hour, accelerator_no FROM transfers
  WHERE run_id = ANY(%(run_ids)s) AND hour IS NOT NULL AND accelerator_no IS NOT NULL)
ORDER BY run_id, hour, accelerator_no
"""  # noqa: S608 - pieces are constants of this file
# Of these runs, those of which anything stands in the books: hardly any, when an hour is posted the first time.
TOUCHED = """
SELECT due.run_id FROM unnest(%(run_ids)s::text[]) AS due (run_id)
CROSS JOIN LATERAL (SELECT FROM transfers t WHERE t.run_id = due.run_id LIMIT 1) t
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
  CROSS JOIN LATERAL (SELECT * FROM transfers t WHERE t.run_id = due.run_id AND t.hour >= due.since
    AND t.kind IN ('posted', 'post') AND t.micro_seconds IS NOT NULL AND t.unit_price IS NOT NULL OFFSET 0) t
  CROSS JOIN LATERAL unnest(ARRAY[t.debit_account, t.credit_account]) AS raised
  WHERE raised LIKE 'cost:%%' OR raised LIKE 'revenue:%%'
) moved GROUP BY run_id, accelerator_no, hour, account
"""
# The four transfers of an hour, one branch each: a list of VALUES beside each row would be set up anew for each row.
KIND = """
SELECT 'tr_' || n.key || '-{suffix}', 'use_' || n.key, {debit}, {credit}, n.{rate}_micros, n.{currency},
  n.until_at - interval '1 microsecond', n.period, n.tenant_id, n.project_id, n.run_id, n.accelerator_no, n.node_id,
  n.site_id, n.round_id, n.model, n.hour, n.{us}, n.{rate}, {note}
FROM named n WHERE n.{rate}_micros > 0
"""
REVENUE_NOTE = f"CASE WHEN n.billable_us < n.used_us THEN {NOTE.replace('h.', 'n.')} END"
KINDS = [
    KIND.format(
        suffix=cost, debit=f"'cost:{cost}'", credit=f"'{other}'", rate=cost, currency="cost_currency", us="used_us",
        note="NULL",
    )
    for cost, other in (
        ("colocation", PAYABLE_COLOCATION),
        ("depreciation", ACCUMULATED_DEPRECIATION),
        ("energy", PAYABLE_ENERGY),
    )
] + [
    KIND.format(
        suffix="on_demand", debit="'tenant:' || n.tenant_id || ':receivable'", credit=f"'{REVENUE_ON_DEMAND}'",
        rate="price", currency="price_currency", us="billable_us", note=REVENUE_NOTE,
    )
]  # fmt: skip
# An amount of a whole hour is reckoned once by `charge` and given; one of part of an hour is reckoned by the function
# of the same name in the database. Rows come nearly in order of their ids, which the index thanks.
WRITE_HEAD = f"""
WITH cells AS MATERIALIZED (
  SELECT * FROM unnest(%(run_id)s::text[], %(hour)s::timestamptz[], %(model)s::text[], %(site_id)s::text[],
    %(stem)s::text[], %(stamp)s::text[], %(period)s::text[], %(price)s::numeric[], %(price_currency)s::text[],
    %(cost_currency)s::text[], %(depreciation)s::numeric[], %(energy)s::numeric[], %(colocation)s::numeric[],
    %(whole_price)s::bigint[], %(whole_depreciation)s::bigint[], %(whole_energy)s::bigint[],
    %(whole_colocation)s::bigint[])
  AS c (run_id, hour, model, site_id, stem, stamp, period, price, price_currency, cost_currency, depreciation, energy,
    colocation, whole_price, whole_depreciation, whole_energy, whole_colocation)
), hours AS MATERIALIZED (
  {USED} FROM usage_lines u JOIN attempts a USING (run_id, attempt_no)
  WHERE u.run_id = ANY(%(run_ids)s) {GROUPED}
), named AS MATERIALIZED (
  SELECT h.*, x.round_id, c.stem || h.accelerator_no || c.stamp AS key, c.period, c.price, c.price_currency,
    c.cost_currency, c.depreciation, c.energy, c.colocation,
    CASE h.billable_us WHEN {HOUR_US} THEN c.whole_price ELSE charge(c.price, h.billable_us) END AS price_micros,
    CASE h.used_us WHEN {HOUR_US} THEN c.whole_depreciation ELSE charge(c.depreciation, h.used_us) END
      AS depreciation_micros,
    CASE h.used_us WHEN {HOUR_US} THEN c.whole_energy ELSE charge(c.energy, h.used_us) END AS energy_micros,
    CASE h.used_us WHEN {HOUR_US} THEN c.whole_colocation ELSE charge(c.colocation, h.used_us) END
      AS colocation_micros
  FROM hours h JOIN cells c USING (run_id, hour, model, site_id) JOIN accelerators x USING (accelerator_no)
  -- NOT IN is looked up in a hash whatever the planner believes of how many hours are booked already.
  WHERE (h.run_id, h.hour, h.accelerator_no) NOT IN (SELECT run_id, hour, accelerator_no FROM transfers
    WHERE run_id = ANY(%(touched)s) AND hour IS NOT NULL AND accelerator_no IS NOT NULL)
)
INSERT INTO transfers (transfer_id, entry_id, debit_account, credit_account, amount_micros, currency, effective_at,
  period, tenant_id, project_id, run_id, accelerator_no, node_id, site_id, round_id, model, hour, micro_seconds,
  unit_price, note)
"""  # noqa: S608 - pieces are constants of this file
WRITE = WRITE_HEAD + " UNION ALL ".join(KINDS)
WRITE_COSTS = WRITE_HEAD + " UNION ALL ".join(KINDS[:-1])  # where rated lines are what is charged


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


@dataclass(slots=True, kw_only=True)
class PostedSome:
    """What one transaction of posting did, or would do."""

    transfers: int = 0
    looked_at: frozenset[str] = frozenset()  # the runs that no other copy was posting
    left: Due = field(default_factory=Due)  # those of them that are due again
    unpriced: dict[Unpriced, None] = field(default_factory=dict)


async def post_some(session: Session, due: Due, rates: Rates, *, bills: bool) -> PostedSome:
    """Post the due hours of these runs; those that another copy is posting are passed over."""
    free = await fetch_all(session, FREE, {"run_ids": list(due), "lock": POSTING_LOCK})
    some = Due({row["run_id"]: due[row["run_id"]] for row in free})
    done = PostedSome(looked_at=frozenset(some))
    if not some:
        return done
    until = await _settled_until(session, some)
    calendar = await load_calendar(session)
    touched = [row["run_id"] for row in await fetch_all(session, TOUCHED, {"run_ids": list(some)})]
    if touched:
        again = Due({run_id: some[run_id] for run_id in touched})
        corrections = await _pure_postings(
            session, again, rates, until, calendar, done, everything=False, bills=bills
        )
        done.transfers += await insert_transfers(session, corrections)
    priced = [
        cell
        for row in await fetch_all(session, CELLS, _spans(some))
        if (cell := _cell(row, rates, until, calendar, done)) is not None
    ]
    if priced:
        async with guarded():
            given = {name: [cell[name] for cell in priced] for name in priced[0]}
            given |= {"run_ids": list(some), "touched": touched, "unbillable": UNBILLABLE}
            done.transfers += (await session.execute(WRITE if bills else WRITE_COSTS, given)).rowcount
    return done


async def missing_of(
    session: Session, run_ids: Sequence[str], rates: Rates, *, bills: bool = True
) -> Sequence[Transfer]:
    """What the pure rules would still write for these runs, from the first line on. Writes nothing."""
    some = Due(dict.fromkeys(run_ids))
    until = await _settled_until(session, some)
    calendar = await load_calendar(session)
    return await _pure_postings(
        session, some, rates, until, calendar, PostedSome(), everything=True, bills=bills
    )


async def unposted_runs(session: Session) -> Sequence[str]:
    """The runs whose time in the books is not the time metered."""
    return [row["run_id"] for row in await fetch_all(session, UNPOSTED)]


def _spans(due: Due) -> dict[str, Any]:
    return {
        "run_ids": list(due),
        "since": [since or EVER for since in due.values()],
        "unbillable": UNBILLABLE,
    }


async def _settled_until(session: Session, due: Due) -> dict[str, datetime | None]:
    return {
        row["run_id"]: settled_until(
            now=row["now"], run_ended=row["ended"], open_since=row["open_since"] or ()
        )
        for row in await fetch_all(session, RUNS, {"run_ids": list(due), "run_ended": RUN_ENDED})
    }


async def _pure_postings(
    session: Session,
    due: Due,
    rates: Rates,
    until: dict[str, datetime | None],
    calendar: Calendar,
    done: PostedSome,
    *,
    everything: bool,
    bills: bool,
) -> list[Transfer]:
    """By `postings_of`: of hours that stand in the books already, or of every hour."""
    booked: dict[tuple[str, int, datetime], dict[str, Booked]] = {}
    for row in await fetch_all(session, BOOKED, _spans(due)):
        key = (row.pop("run_id"), row.pop("accelerator_no"), row.pop("hour"))
        account = row.pop("account")
        booked.setdefault(key, {})[account] = Booked(**row)
    if not booked and not everything:
        return []
    transfers: list[Transfer] = []
    for row in await fetch_all(session, HOURS, {**_spans(due), "everything": everything}):
        if not is_settled(row["hour"], until[row["run_id"]]):
            continue
        use = HourOfUse(**row)
        key = (use.run_id, use.accelerator_no, use.hour)
        found = postings_of(use, rates, booked.get(key), calendar=calendar, bills=bills)
        if isinstance(found, Unpriced):
            done.unpriced[found] = None
            done.left.earlier(use.run_id, use.hour)
        else:
            transfers += found
    return transfers


def _cell(
    row: DictRow,
    rates: Rates,
    until: dict[str, datetime | None],
    calendar: Calendar,
    done: PostedSome,
) -> dict[str, Any] | None:
    """The hour with its rates; None when it is not settled or not priced, which leaves its run due."""
    run_id, hour, model, site_id = row["run_id"], row["hour"], row["model"], row["site_id"]
    if not is_settled(hour, until[run_id]):
        done.left.earlier(run_id, hour)
        return None
    price = rates.price(model, hour)
    cost = rates.hourly_cost(model, site_id, hour)
    if price is None or cost is None:
        missing = "price" if price is None else "cost"
        done.unpriced[Unpriced(model=model, site_id=site_id, hour=hour, missing=missing)] = None
        done.left.earlier(run_id, hour)
        return None
    stem, stamp = key_parts(run_id, hour)
    return {
        **row,
        "stem": stem,
        "stamp": stamp,
        "period": str(calendar.booking_of(hour)),
        **_rated(price, cost),
    }


def _rated(price: HourlyPrice, cost: HourlyCostRate) -> dict[str, Any]:
    return {
        "price": price.per_hour,
        "price_currency": price.currency,
        "cost_currency": cost.currency,
        "depreciation": cost.depreciation,
        "energy": cost.energy,
        "colocation": cost.colocation,
        "whole_price": _whole(price.per_hour, price.currency),
        "whole_depreciation": _whole(cost.depreciation, cost.currency),
        "whole_energy": _whole(cost.energy, cost.currency),
        "whole_colocation": _whole(cost.colocation, cost.currency),
    }


def _whole(rate: Decimal, currency: str) -> int:
    return charge(rate, micro_seconds=HOUR_US, currency=currency).micros
