"""Cells from PostgreSQL: a month's time, transfers, activity and month lines, in one snapshot.

Invariant: closed hours are summed as they stand, open ones reckoned as they are asked for; simulated accelerators and
real ones are never in one sum. Nothing is written.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from baseai.catalog.bounds import Case
from baseai.finance.bucket import Bucket
from baseai.finance.costs.cells import ActivityCell, BookedCell, Cells, MonthCell, OpenCell, TimeCell
from baseai.finance.costs.margin import CostNature, EnergyPart
from baseai.finance.costs.month import (
    BookedLine,
    CountedEnergy,
    Demand,
    MonthLine,
    Stay,
    Whose,
    lines_of,
)
from baseai.finance.costs.postgres.neighbours import Neighbours
from baseai.finance.costs.postgres.standing import HASHED
from baseai.finance.costs.terms import CostTerms
from baseai.finance.period import Period, PeriodState
from baseai.truth.session import Session, fetch_all, fetch_one

HOUR = timedelta(hours=1)
OPEN_ACCELERATORS_MAX = 4_096  # beyond that hours that are not closed are left out
MICROSECOND = timedelta(microseconds=1)
MJ_A_KWH = Decimal(3_600_000_000)
NATURES = {f"cost:{one.value}": one for one in CostNature}
HOURLY = ("cost:depreciation", "cost:energy", "cost:colocation")

STATE = "SELECT now() AS now, (SELECT closed_until FROM time_mark) AS closed_until"
WHOSE = """
SELECT a.accelerator_no, a.node_id, n.site_id, a.model, a.round_id
FROM accelerators a JOIN nodes n USING (node_id) WHERE n.simulated = %(simulated)s
"""
BUCKETS = """
SELECT accelerator_no, bucket, width_bucket(hour, %(cuts)s::timestamptz[]) AS epoch, min(hour) AS at,
  sum(micro_seconds)::bigint AS us
FROM time_buckets WHERE replaced_at IS NULL AND hour >= %(since)s AND hour < %(closed_until)s GROUP BY 1, 2, 3
"""
# What of the hours' standard costs is posted, of runs and of standing time alike.
POSTED = """
SELECT accelerator_no, hour,
  sum(CASE WHEN debit_account = 'cost:depreciation' THEN micro_seconds ELSE -micro_seconds END)::bigint AS us
FROM transfers WHERE hour >= %(since)s AND hour < %(until)s AND kind IN ('posted', 'post')
  AND 'cost:depreciation' IN (debit_account, credit_account) GROUP BY 1, 2
"""
UNPOSTED = f"""
SELECT i.accelerator_no, width_bucket(i.hour, %(cuts)s::timestamptz[]) AS epoch, min(i.hour) AS at,
  sum(i.us - COALESCE(p.us, 0))::bigint AS us
FROM (SELECT accelerator_no, hour, sum(micro_seconds)::bigint AS us FROM time_buckets
  WHERE replaced_at IS NULL AND hour >= %(since)s AND hour < %(closed_until)s GROUP BY 1, 2) i
LEFT JOIN ({POSTED}) p USING (accelerator_no, hour)
WHERE i.us > COALESCE(p.us, 0) GROUP BY 1, 2
"""  # noqa: S608 - pieces are constants of this file
# First by what stands in the row itself, then joined: groups are few, rows are many.
BOOKED = """
WITH grouped AS MATERIALIZED (
  SELECT debit_account, credit_account, currency, tenant_id, model, site_id, round_id, node_id, accelerator_no,
    hour IS NOT NULL AS hourly, unit_price, min(effective_at) AS at, count(*) AS transfers,
    sum(amount_micros)::bigint AS micros, COALESCE(sum(micro_seconds), 0)::bigint AS us
  FROM transfers WHERE period = %(period)s AND kind IN ('posted', 'post')
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
)
SELECT CASE WHEN s.account LIKE 'revenue:%%' THEN NULL ELSE s.account END AS account, g.currency, g.tenant_id, g.model,
  g.site_id, COALESCE(g.round_id, a.round_id) AS round_id, g.hourly AND s.account = ANY(%(hourly)s) AS by_hour,
  min(g.at) AS at, sum(g.transfers)::bigint AS transfers, sum(s.sign * g.micros)::bigint AS amount_micros,
  sum(s.sign * g.us)::bigint AS micro_seconds
FROM grouped g CROSS JOIN LATERAL (
  SELECT side.account, CASE WHEN (side.account LIKE 'revenue:%%') = (side.account = g.credit_account) THEN 1 ELSE -1 END
    AS sign
  FROM unnest(ARRAY[g.debit_account, g.credit_account]) AS side (account)
  WHERE side.account LIKE 'revenue:%%' OR side.account LIKE 'cost:%%') s
LEFT JOIN accelerators a USING (accelerator_no) LEFT JOIN nodes n ON n.node_id = g.node_id
WHERE COALESCE(n.simulated, false) = %(simulated)s
GROUP BY 1, 2, 3, 4, 5, 6, 7, g.unit_price
"""
USES = """
SELECT u.accelerator_no, u.tenant_id, u.energy_origin, width_bucket(u.hour, %(cuts)s::timestamptz[]) AS epoch,
  min(u.hour) AS at, COALESCE(sum(u.energy_mj), 0)::bigint AS mj,
  COALESCE(sum(u.seen_ms) FILTER (WHERE u.energy_mj IS NOT NULL), 0)::bigint AS known_ms,
  COALESCE(sum(u.seen_ms) FILTER (WHERE u.util_pct IS NOT NULL), 0)::bigint AS seen_ms,
  COALESCE(sum(u.seen_ms * u.util_pct), 0)::double precision AS busy
FROM uses u JOIN use_hours h ON h.accelerator_no = u.accelerator_no AND h.hour = u.hour AND h.revision = u.revision
WHERE u.hour >= %(since)s AND u.hour < %(until)s GROUP BY 1, 2, 3, 4
"""
LINES = """
SELECT entry_id,
  sum(CASE WHEN debit_account LIKE 'cost:%%' THEN amount_micros ELSE -amount_micros END)::bigint AS micros,
  count(*) AS transfers, min(currency) AS currency, min(tenant_id) AS tenant_id, min(accelerator_no) AS accelerator_no,
  min(node_id) AS node_id, min(site_id) AS site_id, min(model) AS model, min(round_id) AS round_id
FROM transfers WHERE entry_id LIKE %(entries)s AND hour IS NULL GROUP BY entry_id
"""
COLLECTED = """
SELECT tenant_id, currency,
  sum(CASE WHEN credit_account LIKE 'revenue:%%' THEN amount_micros ELSE -amount_micros END)::bigint AS micros
FROM transfers t LEFT JOIN nodes n USING (node_id)
WHERE period = %(period)s AND kind IN ('posted', 'post') AND t.tenant_id IS NOT NULL
  AND (credit_account LIKE 'revenue:%%' OR debit_account LIKE 'revenue:%%')
  AND COALESCE(n.simulated, false) = %(simulated)s GROUP BY 1, 2
"""
FAILING = """
SELECT sentence FROM checks WHERE passed_at IS NULL AND hour >= %(since)s AND hour < %(until)s ORDER BY hour, site_id
"""


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What a month's economics and its lines are made of."""

    now: datetime
    until_at: datetime
    state: PeriodState
    complete: bool  # the month is over and all of its hours are closed
    cells: Cells
    energy: tuple[EnergyPart, ...]
    lines: Mapping[str, MonthLine]  # in the usual case, by key
    booked_lines: Mapping[str, BookedLine]
    gone: Mapping[str, MonthLine]
    withheld: tuple[str, ...]
    assumption_ids: tuple[str, ...]


@dataclass(slots=True)
class _Stays:
    """Installed µs by accelerator and epoch, with an instant of it."""

    us: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    at: dict[tuple[int, int], datetime] = field(default_factory=dict)

    def add(self, accelerator_no: int, epoch: int, at: datetime, us: int) -> None:
        self.us[accelerator_no, epoch] += us
        self.at[accelerator_no, epoch] = min(at, self.at.get((accelerator_no, epoch), at))


async def load_month(
    session: Session, beside: Neighbours, period: Period, terms: CostTerms, *, simulated: bool = False
) -> Loaded:
    """Everything of one month. Reads all of its transfers: a second for half a million of them."""
    await session.execute(HASHED)
    state = await fetch_one(session, STATE)
    assert state is not None
    now, since, ends_at = state["now"], period.starts_at(), period.ends_at()
    until = min(ends_at, now)
    closed_until = max(since, min(state["closed_until"] or since, ends_at))
    given: dict[str, Any] = {
        "since": since,
        "until": ends_at,
        "closed_until": closed_until,
        "period": str(period),
        "simulated": simulated,
        "cuts": _cuts(terms, since, ends_at),
        "hourly": list(HOURLY),
        "entries": f"month-{period}-%",
    }
    calendar = await beside.load_calendar(session)
    whose = {row["accelerator_no"]: Whose(**row) for row in await fetch_all(session, WHOSE, given)}
    stays, time, unposted = (
        _Stays(),
        dict[tuple[Any, ...], int](),
        dict[tuple[Any, ...], tuple[datetime, int]](),
    )
    for row in await fetch_all(session, BUCKETS, given):
        one = whose.get(row["accelerator_no"])
        if one is not None:
            stays.add(row["accelerator_no"], row["epoch"], row["at"], row["us"])
            key = (one.model, one.site_id, one.round_id, row["bucket"], False)
            time[key] = time.get(key, 0) + row["us"]
    for row in await fetch_all(session, UNPOSTED, given):
        one = whose.get(row["accelerator_no"])
        if one is not None:
            _add_unposted(unposted, one, row["epoch"], row["at"], row["us"])
    if closed_until < until and len(whose) <= OPEN_ACCELERATORS_MAX:
        posted = {
            (row["accelerator_no"], row["hour"]): row["us"]
            for row in await fetch_all(session, POSTED, {**given, "since": closed_until})
        }
        hours = await beside.open_hours(session, (closed_until, until))
        for (accelerator_no, hour), buckets in hours.items():
            one = whose.get(accelerator_no)
            if one is None:
                continue
            epoch = sum(1 for cut in given["cuts"] if cut <= hour)
            stays.add(accelerator_no, epoch, hour, sum(buckets.values()))
            for bucket, us in buckets.items():
                key = (one.model, one.site_id, one.round_id, bucket.value, True)
                time[key] = time.get(key, 0) + us
            left = sum(buckets.values()) - posted.get((accelerator_no, hour), 0)
            if left > 0:
                _add_unposted(unposted, one, epoch, hour, left)
    uses = await fetch_all(session, USES, given)
    collected = {
        (row["tenant_id"], row["currency"]): row["micros"]
        for row in await fetch_all(session, COLLECTED, given)
        if not simulated  # nobody pays for what is simulated, and nothing is collected
    }
    used_terms: dict[str, None] = {}
    by_case = {
        case: {
            line.key: line
            for line in _lines(
                whose, stays, uses, collected, terms, period, case, used_terms, simulated=simulated
            )
        }
        for case in Case
    }
    booked_rows = {
        row["entry_id"].removeprefix(f"month-{period}-"): row
        for row in await fetch_all(session, LINES, given)
    }
    booked_lines = {
        key: BookedLine(amount_micros=row["micros"], transfers=row["transfers"])
        for key, row in booked_rows.items()
        if simulated is False or row["accelerator_no"] in whose
    }
    usual = by_case[Case.DEFAULT]
    gone = {
        key: _gone(key, booked_rows[key])
        for key, held in booked_lines.items()
        if key not in usual and held.amount_micros and _mine(booked_rows[key], whose, simulated=simulated)
    }
    every = {**usual, **gone}
    month = [
        MonthCell(
            usual=line,
            low_micros=by_case[Case.LOW][key].amount_micros if key in by_case[Case.LOW] else 0,
            high_micros=by_case[Case.HIGH][key].amount_micros if key in by_case[Case.HIGH] else 0,
            booked_micros=booked_lines[key].amount_micros if key in booked_lines else 0,
        )
        for key, line in every.items()
    ]
    return Loaded(
        now=now,
        until_at=until,
        state=calendar.state(period),
        complete=closed_until >= ends_at,
        cells=Cells(
            time=[
                TimeCell(model=m, site_id=s, round_id=r, bucket=Bucket(b), micro_seconds=us, is_open=is_open)
                for (m, s, r, b, is_open), us in time.items()
            ],
            booked=[_booked(row) for row in await fetch_all(session, BOOKED, given)],
            unposted=[
                OpenCell(model=m, site_id=s, round_id=r, at=at, micro_seconds=us)
                for (m, s, r, _), (at, us) in unposted.items()
            ],
            activity=_activity(uses, whose),
            month=month,
            closed=calendar.state(period) is PeriodState.CLOSED,
        ),
        energy=_energy(uses, whose),
        lines=usual,
        booked_lines=booked_lines,
        gone=gone,
        withheld=tuple(row["sentence"] for row in await fetch_all(session, FAILING, given)),
        assumption_ids=tuple(used_terms),
    )


def _cuts(terms: CostTerms, since: datetime, until: datetime) -> list[datetime]:
    """Instants at which a rate may change: those of the assumptions, and every hour where energy has a peak."""
    if any(one.name == "tariff_peak_per_kwh" for one in terms.assumptions.versions):
        return [since + HOUR * n for n in range((until - since) // HOUR)]
    # The hour in which a version begins goes with what held at its start.
    return sorted({change for change in terms.assumptions.changes if since < change < until})


def _add_unposted(
    sums: dict[tuple[Any, ...], tuple[datetime, int]], one: Whose, epoch: int, at: datetime, us: int
) -> None:
    key = (one.model, one.site_id, one.round_id, epoch)
    before = sums.get(key)
    sums[key] = (at, us) if before is None else (min(at, before[0]), us + before[1])


def _booked(row: Mapping[str, Any]) -> BookedCell:
    account = row["account"]
    return BookedCell(
        nature=None if account is None else NATURES.get(account, CostNature.OTHER),
        currency=row["currency"],
        amount_micros=row["amount_micros"],
        micro_seconds=row["micro_seconds"],
        transfers=row["transfers"],
        at=row["at"],
        by_hour=row["by_hour"],
        tenant_id=row["tenant_id"],
        model=row["model"],
        site_id=row["site_id"],
        round_id=row["round_id"],
    )


def _lines(
    whose: Mapping[int, Whose],
    stays: _Stays,
    uses: Sequence[Mapping[str, Any]],
    collected: Mapping[tuple[str, str], int],
    terms: CostTerms,
    period: Period,
    case: Case,
    used: dict[str, None],
    *,
    simulated: bool,
) -> tuple[MonthLine, ...]:
    month_us = (period.ends_at() - period.starts_at()) // MICROSECOND
    kilowatts: dict[str, Decimal] = defaultdict(Decimal)
    rate: dict[str, Decimal] = {}

    def stayed() -> Iterator[Stay]:
        for (accelerator_no, epoch), us in stays.us.items():
            one, at = whose[accelerator_no], stays.at[accelerator_no, epoch]
            assert one.model is not None
            assert one.site_id is not None
            own = terms.find(one.model, one.site_id, at, case, one.round_id)
            standard = terms.find(one.model, one.site_id, at, case)
            if own is None or standard is None:
                continue
            used.update(dict.fromkeys(own.assumption_ids))
            kilowatts[one.site_id] += own.kilowatts * own.pue_ratio * Decimal(us) / month_us
            rate[one.site_id] = max(own.demand_per_kw_month, rate.get(one.site_id, Decimal(0)))
            yield Stay(whose=one, micro_seconds=us, terms=own, standard=standard)

    counted = []
    wanted = "simulated" if simulated else "measured"
    for row in uses:
        found = whose.get(row["accelerator_no"])
        if found is None or row["energy_origin"] != wanted or not row["known_ms"]:
            continue
        assert found.model is not None
        assert found.site_id is not None
        known = terms.find(found.model, found.site_id, row["at"], case)
        if known is not None:
            counted.append(
                CountedEnergy(
                    whose=Whose(
                        accelerator_no=found.accelerator_no,
                        node_id=found.node_id,
                        site_id=found.site_id,
                        model=found.model,
                        round_id=found.round_id,
                        tenant_id=row["tenant_id"],
                    ),
                    kwh=Decimal(row["mj"]) / MJ_A_KWH,
                    micro_seconds=row["known_ms"] * 1000,
                    price_per_kwh=known.price_per_counted_kwh(row["at"]),
                    standard_per_hour=known.energy_per_hour(row["at"]),
                )
            )
    stayed_all = list(stayed())
    fee = terms.assumptions.find("payment_fee_ratio", period.starts_at())
    if fee is not None and collected:
        used[fee.assumption_id] = None
    return lines_of(
        stayed_all,
        counted,
        [
            Demand(
                site_id=site_id,
                kilowatts=kw.quantize(Decimal("0.001")),
                measured=False,
                rate_per_kw_month=rate[site_id],
            )
            for site_id, kw in sorted(kilowatts.items())
            if not simulated
        ],
        collected,
        fee_ratio=Decimal(0) if fee is None else fee.bounds.at(case),
        month_us=month_us,
    )


def _mine(row: Mapping[str, Any], whose: Mapping[int, Whose], *, simulated: bool) -> bool:
    number = row["accelerator_no"]
    return number in whose if number is not None else not simulated


def _gone(key: str, row: Mapping[str, Any]) -> MonthLine:
    nature = CostNature(key.partition("-")[0])
    return MonthLine(
        nature=nature,
        whose=Whose(
            accelerator_no=row["accelerator_no"],
            node_id=row["node_id"],
            site_id=row["site_id"],
            model=row["model"],
            round_id=row["round_id"],
            tenant_id=row["tenant_id"],
        ),
        amount_micros=0,
        currency=row["currency"],
        basis="the month does not have it after all",
    )


def _activity(uses: Sequence[Mapping[str, Any]], whose: Mapping[int, Whose]) -> list[ActivityCell]:
    cells = []
    for row in uses:
        one = whose.get(row["accelerator_no"])
        if one is not None and row["tenant_id"] is not None and row["seen_ms"]:
            assert one.model is not None
            assert one.site_id is not None
            cells.append(
                ActivityCell(
                    model=one.model,
                    site_id=one.site_id,
                    round_id=one.round_id,
                    tenant_id=row["tenant_id"],
                    active_us=Decimal(str(row["busy"])) * 10,  # % of ms
                    seen_us=row["seen_ms"] * 1000,
                )
            )
    return cells


def _energy(uses: Sequence[Mapping[str, Any]], whose: Mapping[int, Whose]) -> tuple[EnergyPart, ...]:
    sums: dict[str, tuple[int, int]] = {}
    for row in uses:
        if row["accelerator_no"] in whose and row["energy_origin"] is not None:
            mj, ms = sums.get(row["energy_origin"], (0, 0))
            sums[row["energy_origin"]] = (mj + row["mj"], ms + row["known_ms"])
    return tuple(
        EnergyPart(origin=origin, kwh=Decimal(mj) / MJ_A_KWH, accelerator_us=ms * 1000)
        for origin, (mj, ms) in sorted(sums.items())
    )
