"""A figure of the economics walked down: the transfers it is the sum of, or the hours with their serials and leases."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from baseai.finance.bucket import NATURE
from baseai.finance.costs.margin import CostNature, EconomicsBy
from baseai.finance.period import Period
from baseai.ground.fault import Refused
from baseai.ground.money import MICRO
from baseai.truth.session import Truth, fetch_all

ROWS_MOST = 500
TIMES = ("installed", "available", "sold", "occupied")
FIGURES = ("revenue", *(one.value for one in CostNature), *TIMES)

# An accelerator's serial, and of a run's time the lease that it had it by.
TRANSFERS = """
SELECT t.transfer_id AS id, t.effective_at AS at, t.sign * t.amount_micros AS micros, t.currency, t.micro_seconds,
  t.debit_account, t.credit_account, t.tenant_id, t.run_id, t.site_id, t.model, a.serial, t.note, t.price_id,
  (SELECT min(u.lease_id) FROM usage_lines u WHERE u.run_id = t.run_id AND u.accelerator_no = t.accelerator_no
    AND u.hour = date_trunc('hour', t.effective_at, 'UTC')) AS lease_id
FROM (
  SELECT x.*, side.account,
    CASE WHEN (side.account LIKE 'revenue:%%') = (side.account = x.credit_account) THEN 1 ELSE -1 END AS sign
  FROM transfers x CROSS JOIN LATERAL unnest(ARRAY[x.debit_account, x.credit_account]) AS side (account)
  WHERE x.period = %(period)s AND x.kind IN ('posted', 'post') AND side.account LIKE %(account)s
) t LEFT JOIN accelerators a USING (accelerator_no) LEFT JOIN nodes n ON n.node_id = t.node_id
WHERE COALESCE(n.simulated, false) = %(simulated)s AND {whose} AND t.transfer_id > %(after)s
ORDER BY t.transfer_id LIMIT %(limit)s
"""
HOURS = """
SELECT b.hour AS at,
  b.accelerator_no || '@' || to_char(b.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') || ':' || b.bucket AS id,
  b.micro_seconds, b.bucket, a.serial, a.model, n.site_id,
  (SELECT string_agg(d.lease_id, ', ' ORDER BY d.lease_id) FROM lease_accelerators d
    WHERE d.accelerator_no = b.accelerator_no AND d.during && tstzrange(b.hour, b.hour + interval '1 hour')) AS lease_id
FROM time_buckets b JOIN accelerators a USING (accelerator_no) JOIN nodes n USING (node_id)
WHERE b.replaced_at IS NULL AND b.hour >= %(since)s AND b.hour < %(until)s AND b.bucket = ANY(%(buckets)s)
  AND n.simulated = %(simulated)s AND {whose}
  AND b.accelerator_no || '@' || to_char(b.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') || ':' || b.bucket > %(after)s
ORDER BY 2 LIMIT %(limit)s
"""
WHOSE = {
    EconomicsBy.MODEL: "{t}.model IS NOT DISTINCT FROM %(subject)s",
    EconomicsBy.SITE: "{n}.site_id IS NOT DISTINCT FROM %(subject)s",
    EconomicsBy.ROUND: "COALESCE({r}) IS NOT DISTINCT FROM %(subject)s",
    EconomicsBy.PLACE: "{t}.model || '@' || {n}.site_id IS NOT DISTINCT FROM %(subject)s",
    EconomicsBy.CUSTOMER: "t.tenant_id IS NOT DISTINCT FROM %(subject)s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """One transfer, or one accelerator's hour in one bucket, that a figure is made of."""

    id: str
    at: datetime
    amount: Decimal | None  # in `currency`; None of hours
    currency: str | None
    micro_seconds: int | None
    what: str  # accounts of a transfer, or the bucket
    tenant_id: str | None
    run_id: str | None
    lease_id: str | None
    serial: str | None
    model: str | None
    site_id: str | None
    price_id: str | None
    note: str | None


async def load_walked(
    truth: Truth,
    period: Period,
    figure: str,
    *,
    by: EconomicsBy = EconomicsBy.ALL,
    subject: str | None = None,
    simulated: bool = False,
    after: str = "",
    limit: int = 100,
) -> tuple[tuple[Walked, ...], str | None]:
    """A page of what is behind one figure of one row, and where the next page begins.

    Raises Refused for an unknown figure. What is reckoned and not posted yet has no transfer: its hours stand under
    `installed`.
    """
    if figure not in FIGURES:
        raise Refused(f"{figure!r} is no figure of the economics; there are {', '.join(FIGURES)}")
    if figure in TIMES and by is EconomicsBy.CUSTOMER:
        raise Refused(
            f"{figure} time of a customer is that of its transfers: walk down revenue or depreciation"
        )
    most = max(1, min(limit, ROWS_MOST))
    given: dict[str, Any] = {
        "period": str(period),
        "since": period.starts_at(),
        "until": period.ends_at(),
        "subject": subject,
        "simulated": simulated,
        "after": after,
        "limit": most + 1,
    }
    if figure in TIMES:
        whose = "true" if by is EconomicsBy.ALL else WHOSE[by].format(t="a", n="n", r="a.round_id")
        query = HOURS.format(whose=whose)
        given["buckets"] = [
            bucket.value
            for bucket, nature in NATURE.items()
            if figure == "installed"
            or (figure == "available" and nature.available)
            or (figure == "sold" and nature.sold)
            or (figure == "occupied" and nature.used)
        ]
    else:
        whose = (
            "true" if by is EconomicsBy.ALL else WHOSE[by].format(t="t", n="t", r="t.round_id, a.round_id")
        )
        query = TRANSFERS.format(whose=whose)
        given["account"] = "revenue:%" if figure == "revenue" else f"cost:{figure}"
    async with truth.transaction() as session:
        rows = [_walked(row) for row in await fetch_all(session, query, given)]
    return tuple(rows[:most]), rows[most - 1].id if len(rows) > most else None


def _walked(row: Mapping[str, Any]) -> Walked:
    micros = row.get("micros")
    return Walked(
        id=row["id"],
        at=row["at"],
        amount=None if micros is None else Decimal(micros) / MICRO,
        currency=row.get("currency"),
        micro_seconds=row["micro_seconds"],
        what=row.get("bucket") or f"{row.get('debit_account')} ← {row.get('credit_account')}",
        tenant_id=row.get("tenant_id"),
        run_id=row.get("run_id"),
        lease_id=row["lease_id"],
        serial=row["serial"],
        model=row["model"],
        site_id=row["site_id"],
        price_id=row.get("price_id"),
        note=row.get("note"),
    )
