"""Rated lines as rows: written, summed, listed.

Invariant: a line is inserted once and never changed; its share of a running total is added in the same transaction.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from psycopg.rows import DictRow

from baseai.finance.contract import Contract
from baseai.finance.counted import Total, counted_of
from baseai.finance.month_end import MonthSoFar
from baseai.finance.period import Period
from baseai.finance.rated import Category, RatedLine
from baseai.finance.rating import Rating, category_of
from baseai.finance.use import UseColumns
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all

ADD_TOTALS = """
INSERT INTO rated_totals (payer, price_id, month, tier, band, quantity)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::bigint[])
ON CONFLICT (payer, price_id, month, tier, band) DO UPDATE SET quantity = rated_totals.quantity + EXCLUDED.quantity
"""
# The pieces of usage lines travel as a few numbers; what they share with their line or their clause is joined to them.
STAGE = """
CREATE TEMP TABLE fresh_pieces (usage_id text, part integer, from_us bigint, quantity bigint, clause integer,
  tier integer, amount_micros bigint, billable boolean) ON COMMIT DROP;
CREATE TEMP TABLE fresh_clauses (clause integer, tier integer, category text, currency text, unit_price numeric,
  list_price numeric, period text, customer_id text, contract_id text, price_id text, band integer,
  PRIMARY KEY (clause, tier)) ON COMMIT DROP
"""
WRITE = """
INSERT INTO rated_lines (rated_id, category, amount_micros, currency, meter, quantity, unit_price, list_price, period,
  effective_from, effective_until, tenant_id, project_id, customer_id, contract_id, price_id, tier, band, usage_id,
  run_id, lease_id, accelerator_no, model, node_id, site_id, round_id, note)
SELECT 'rl_' || substr(p.usage_id, 5) || '-' || p.part, CASE WHEN p.billable THEN c.category ELSE 'unbilled' END,
  p.amount_micros, c.currency, 'accelerator_time', p.quantity, c.unit_price, c.list_price, c.period,
  CASE WHEN p.quantity = u.micro_seconds THEN u.from_at ELSE b.at END,
  CASE WHEN p.quantity = u.micro_seconds THEN u.to_at ELSE b.at + p.quantity * interval '1 microsecond' END,
  u.tenant_id, u.project_id, c.customer_id, c.contract_id, c.price_id, p.tier, c.band, u.line_id, u.run_id, u.lease_id,
  u.accelerator_no, u.model, u.node_id, u.site_id, x.round_id,
  CASE WHEN NOT p.billable THEN COALESCE(u.reason, a.reason) END
FROM fresh_pieces p JOIN usage_lines u ON u.line_id = p.usage_id
JOIN fresh_clauses c ON c.clause = p.clause AND c.tier = p.tier
JOIN accelerators x ON x.accelerator_no = u.accelerator_no
JOIN attempts a ON a.run_id = u.run_id AND a.attempt_no = u.attempt_no
CROSS JOIN LATERAL (SELECT timestamptz '1970-01-01 00:00:00+00' + p.from_us * interval '1 microsecond' AS at) b
"""
COLUMNS = (
    "rated_id, category, amount_micros, currency, meter, quantity, unit_price, list_price, period, effective_from,"
    " effective_until, tenant_id, project_id, customer_id, contract_id, price_id, tier, band, usage_id, corrects,"
    " run_id, lease_id, accelerator_no, model, node_id, site_id, round_id, note"
)
INSERT = f"""
INSERT INTO rated_lines ({COLUMNS})
SELECT {COLUMNS} FROM json_populate_recordset(NULL::rated_lines, %s::json) ON CONFLICT (rated_id) DO NOTHING
"""  # noqa: S608 - pieces are constants of this file
STANDING = f"""
SELECT {COLUMNS}, recorded_at FROM rated_lines r WHERE {{which}} AND corrects IS NULL
  AND NOT EXISTS (SELECT FROM rated_lines b WHERE b.corrects = r.rated_id)
"""  # noqa: S608 - pieces are constants of this file
# Ids of lines begin with their use's, so a range of the key finds them; `.` follows `-`.
OF_USAGE = STANDING.format(
    which="""EXISTS (SELECT FROM unnest(%(usage_ids)s::text[]) AS used (usage_id) WHERE
  r.rated_id >= 'rl_' || substr(used.usage_id, 5) || '-' AND r.rated_id < 'rl_' || substr(used.usage_id, 5) || '.')"""
)
OF_ATTEMPT = STANDING.format(
    which="""category <> 'unbilled' AND EXISTS (SELECT FROM attempts a JOIN usage_lines u USING (run_id, attempt_no)
  WHERE a.run_id = r.run_id AND u.line_id = r.usage_id AND a.state = 'ended' AND a.reason = ANY(%(unbillable)s)
    AND a.run_id || ':' || a.attempt_no = ANY(%(attempts)s))
  AND run_id IN (SELECT split_part(attempt, ':', 1) FROM unnest(%(attempts)s::text[]) AS judged (attempt))"""
)
SO_FAR = """
SELECT category, usage_id IS NULL AS terms, model, site_id, price_id, sum(quantity)::bigint AS quantity,
  sum(amount_micros)::bigint AS micros
FROM rated_lines WHERE contract_id = %(contract_id)s AND effective_from >= %(from_at)s AND effective_from < %(until_at)s
GROUP BY 1, 2, 3, 4, 5
"""
NEWEST = f"""
SELECT {COLUMNS}, recorded_at FROM rated_lines
WHERE (%(period)s::text IS NULL OR period = %(period)s)
  AND (%(contract_id)s::text IS NULL OR contract_id = %(contract_id)s)
  AND (%(run_id)s::text IS NULL OR run_id = %(run_id)s)
  AND (%(after)s::text IS NULL OR (effective_from, rated_id) <
    (SELECT effective_from, rated_id FROM rated_lines WHERE rated_id = %(after)s))
ORDER BY effective_from DESC, rated_id DESC LIMIT %(limit)s
"""  # noqa: S608 - pieces are constants of this file


async def write_pieces(session: Session, uses: UseColumns, rating: Rating) -> int:
    """The lines of a rated batch of usage lines; how many. The same rows that `Rating.lines` would give."""
    if not len(rating):
        return 0
    pieces = rating.pieces
    begins = np.flatnonzero(np.diff(pieces.use, prepend=-1))
    part = np.arange(len(pieces)) - np.repeat(begins, np.diff(begins, append=len(pieces)))
    billable = uses.billable[pieces.use]
    columns = (
        [uses.usage_ids[place] for place in pieces.use.tolist()],
        part.tolist(),
        pieces.from_us.tolist(),
        pieces.quantity.tolist(),
        pieces.clause.tolist(),
        pieces.tier.tolist(),
        rating.amount_micros.tolist(),
        ["t" if one else "f" for one in billable.tolist()],
    )
    pairs = np.unique(np.stack([pieces.clause, pieces.tier]), axis=1).T.tolist()
    for statement in STAGE.split(";"):
        await session.execute(statement)
    async with session.cursor() as cursor:
        async with cursor.copy("COPY fresh_pieces FROM STDIN") as copy:
            rows = ("\t".join(map(str, row)) for row in zip(*columns, strict=True))
            await copy.write("\n".join([*rows, ""]))
        async with cursor.copy("COPY fresh_clauses FROM STDIN") as copy:
            for no, tier in pairs:
                await copy.write_row(_clause_row(rating, no, tier))
        await cursor.execute("ANALYZE fresh_pieces")  # or the join is planned as if there were few
        done = await cursor.execute(WRITE)
        written = done.rowcount
        await cursor.execute("DROP TABLE fresh_pieces, fresh_clauses")
    totals: dict[Total, int] = {}
    for no, tier in pairs:
        clause = rating.clauses[no]
        counts = (pieces.clause == no) & (pieces.tier == tier) & billable
        if clause.price is not None and counts.any():
            key = (clause.payer, clause.price.price_id, clause.period, tier, clause.band)
            totals[key] = totals.get(key, 0) + int(pieces.quantity[counts].sum())
    await _add(session, totals)
    return written


def _clause_row(rating: Rating, no: int, tier: int) -> tuple[Any, ...]:
    clause = rating.clauses[no]
    contract = clause.contract
    return (
        no,
        tier,
        category_of(clause).value,
        clause.currency,
        clause.unit_price(tier),
        clause.list_price(tier),
        clause.booked_in,
        None if contract is None else contract.customer_id,
        None if contract is None else contract.contract_id,
        None if clause.price is None else clause.price.price_id,
        clause.band,
    )


async def insert_lines(session: Session, lines: Sequence[RatedLine]) -> None:
    """Lines, and what they use up of running totals. Those that are known are left alone."""
    if not lines:
        return
    rows = [asdict(line) for line in lines]
    done = await session.execute(INSERT, (json.dumps(rows, default=str),))
    if done.rowcount not in (0, len(lines)):
        raise AssertionError("a group of rated lines was written in part before")
    if done.rowcount:
        await _add(session, dict(counted_of(lines).quantities))


async def standing_of_usage(session: Session, usage_ids: Sequence[str]) -> list[RatedLine]:
    """Lines of these uses that nothing took back."""
    return [_line(row) for row in await fetch_all(session, OF_USAGE, {"usage_ids": list(usage_ids)})]


async def standing_of_attempts(
    session: Session, attempts: Sequence[str], unbillable: Sequence[str]
) -> list[RatedLine]:
    """Lines of attempts (`run:number`) that ended for a reason that is not billable, and that nothing took back."""
    asked = {"attempts": list(attempts), "unbillable": list(unbillable)}
    return [_line(row) for row in await fetch_all(session, OF_ATTEMPT, asked)]


async def so_far_of(session: Session, contract: Contract, period: Period) -> MonthSoFar:
    """What is rated of a contract for a month of use."""
    asked = {"contract_id": contract.contract_id, "from_at": period.starts_at(), "until_at": period.ends_at()}
    used_micros = 0
    held, booked = {}, {}
    for row in await fetch_all(session, SO_FAR, asked):
        subject = (row["model"], row["site_id"], row["price_id"])
        amount = (row["quantity"], row["micros"])
        if row["terms"]:
            booked[Category(row["category"]), subject] = amount
            continue
        used_micros += row["micros"]
        if row["category"] == Category.RESERVED:
            held[subject] = amount
    return MonthSoFar(used_micros=used_micros, held=held, booked=booked)


async def load_rated(
    truth: Truth,
    scope: Scope = PLATFORM,
    *,
    period: str | None = None,
    contract_id: str | None = None,
    run_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> tuple[RatedLine, ...]:
    """Rated lines, the newest use first; `after` is the last rated_id of the page before."""
    asked = {"period": period, "contract_id": contract_id, "run_id": run_id, "after": after, "limit": limit}
    async with truth.transaction(scope) as session:
        return tuple(_line(row) for row in await fetch_all(session, NEWEST, asked))


async def _add(session: Session, totals: dict[Total, int]) -> None:
    if totals:
        columns = [
            list(column)
            for column in zip(*((*key, quantity) for key, quantity in totals.items()), strict=True)
        ]
        await session.execute(ADD_TOTALS, columns)


def _line(row: DictRow) -> RatedLine:
    return RatedLine(**{**row, "category": Category(row["category"])})
