"""What a month of `month.py` comes to, reckoned the plain way: each second at its price, without the platform's rating.

Nothing here knows clauses, pieces, columns or SQL. It goes through what happened and adds up; where the platform says
something else, one of the two is wrong.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from baseai.ground.clock import hour_of
from baseai.workloads.reason import VERDICTS
from tests.scenarios.month import BEGIN, END, HOUR, MICROSECOND, Recorded, Run, Stay

HOUR_US = 3_600_000_000
SAO_PAULO = ZoneInfo("America/Sao_Paulo")
ON_DEMAND = {"H100-SXM": "3.85", "L40S": "0.87", "MI300X": "1.99"}
PEAKED = {("H100-SXM", "SP4"), ("L40S", "SP4"), ("L40S", "scala-rio")}
SPOT = {"H100-SXM": "1.35", "L40S": "0.31", "MI300X": "0.7"}
TIERS = {
    "H100-SXM": (("3.6", 0), ("3.1", 500), ("2.75", 2000)),
    "MI300X": (("1.9", 0), ("1.7", 1000)),
}
RESERVED, RESEARCH, TOKENS = Fraction("12.9"), Fraction("2.1"), Fraction("4.2")

Key = tuple[str, str, str, str]  # tenant, category, currency, month of use
Kind = tuple[object, ...]  # what shares one price: amounts of it add up before they are rounded, once


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """One accelerator for a while within one hour, billable."""

    tenant: str
    model: str
    site: str
    spot: bool
    from_at: datetime
    us: int

    @property
    def month(self) -> str:
        return f"{self.from_at.astimezone(SAO_PAULO):%Y-%m}"


def used_in(run: Run, *, billable: bool = True) -> Iterator[Used]:
    """Every accelerator and hour in which a run was seen; of attempts that are billed, or of the others."""
    if run.kind == "burn_in":
        return
    for stay in run.stays:
        if VERDICTS[stay.reason].billable is not billable:
            continue
        for node, serials in stay.places:
            at = stay.seen_from
            while at < stay.seen_until:
                until = min(hour_of(at) + HOUR, stay.seen_until)
                for _ in serials:
                    yield Used(
                        tenant=run.tenant, model=node.model, site=node.site, spot=run.spot, from_at=at,
                        us=(until - at) // MICROSECOND,
                    )  # fmt: skip
                at = until


def _price(used: Used) -> tuple[str, str, Fraction, Kind]:
    """Category, currency, rate an hour, and what it shares its rounding with."""
    agreed = used.from_at >= BEGIN
    where = (used.tenant, used.model, used.month)
    if used.spot:
        return "spot", "USD", Fraction(SPOT[used.model]) * (Fraction("0.95") if agreed else 1), where
    if agreed and (used.tenant, used.model, used.site) == ("gama", "H100-SXM", "SP4"):
        return "reserved", "BRL", RESERVED, where
    if agreed and used.tenant == "epsilon":
        return "research", "BRL", RESEARCH, where
    if (used.model, used.site) == ("H100-SXM", "DC2"):
        rate, kind = Fraction("3.45"), (*where, "DC2")
    else:
        local = used.from_at.astimezone(SAO_PAULO)
        peak = (used.model, used.site) in PEAKED and local.isoweekday() <= 5 and 9 <= local.hour < 18
        rate, kind = Fraction(ON_DEMAND[used.model]) * (Fraction("1.25") if peak else 1), (*where, peak)
    return "on_demand", "USD", rate * (Fraction("0.9") if agreed and used.tenant == "alfa" else 1), kind


def reckoned(month: Recorded) -> dict[Key, int]:
    """Micro-units by tenant, category, currency and month of use, of all use but what came late."""
    exact: dict[tuple[Key, Kind], Fraction] = defaultdict(Fraction)
    tiered: dict[tuple[str, str], int] = defaultdict(int)  # beta's: model, month → µs
    reserved_us = 0
    for run in month.runs:
        for used in used_in(run):
            if used.tenant == "beta" and used.from_at >= BEGIN:
                tiered[used.model, used.month] += used.us
                continue
            category, currency, rate, kind = _price(used)
            exact[(used.tenant, category, currency, used.month), kind] += rate * used.us / HOUR_US * 1_000_000
            reserved_us += used.us if category == "reserved" and used.month == "2026-10" else 0
    for (model, name), us in tiered.items():
        steps = TIERS[model]
        for number, (rate, volume) in enumerate(steps):
            top = steps[number + 1][1] * HOUR_US if number + 1 < len(steps) else us
            within = max(0, min(us, top) - volume * HOUR_US)
            amount = Fraction(rate) * within / HOUR_US * 1_000_000
            exact[("beta", "on_demand", "USD", name), (model, number)] += amount
    tokens = sum(event.quantity for event in month.events if event.event_id != month.correction.corrects)
    exact[("zeta", "on_demand", "BRL", "2026-10"), ("tokens",)] = TOKENS * (
        tokens + month.correction.quantity
    )
    owed: dict[Key, int] = defaultdict(int)
    for (key, _), amount in exact.items():
        owed[key] += round(amount)
    october = "2026-10"
    whole_us = month.committed() * ((END - BEGIN) // MICROSECOND)
    whole = round(RESERVED * whole_us / HOUR_US * 1_000_000)
    owed["gama", "commitment", "BRL", october] = whole - owed["gama", "reserved", "BRL", october]
    owed["beta", "minimum", "USD", october] = max(
        0, 60_000_000_000 - owed["beta", "on_demand", "USD", october]
    )
    share = Fraction("0.1") if available(month) < Fraction("0.98") else Fraction("0.05")
    owed["gama", "credit", "BRL", october] = -round(whole * share)
    return {key: micros for key, micros in owed.items() if micros}


def available(month: Recorded) -> Fraction:
    """What was there of gama's seats: one node of them was away from its fault to its return."""
    down = next(move.at for move in month.moves if move.to_state == "quarantined")
    node = next(move.subject for move in month.moves if move.to_state == "quarantined")
    up = next(
        move.at
        for move in month.moves
        if move.subject == node and move.to_state == "ready" and move.at > down
    )
    return 1 - Fraction(8 * ((up - down) // MICROSECOND), month.committed() * ((END - BEGIN) // MICROSECOND))


def installed_us(month: Recorded) -> dict[tuple[str, str], int]:
    """µs of October for which accelerators stood in their nodes, by site and model."""
    gone = {move.subject: move.at for move in month.moves if move.to_state == "retired"}
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for node in month.nodes:
        for one in node.accelerators:
            until = min(END, gone.get(one.serial, END))
            sums[node.site, node.model] += (until - max(BEGIN, one.installed_at)) // MICROSECOND
    return dict(sums)


def sold_us(month: Recorded) -> int:
    """µs of October that customers used and did not lose through us."""
    total = 0
    for run in month.runs:
        if run.kind == "burn_in":
            continue
        for stay in run.stays:
            until = _lost_from(stay)
            span = min(until, END) - max(stay.seen_from, BEGIN)
            total += max(0, span // MICROSECOND) * sum(len(serials) for _, serials in stay.places)
    return total


def _lost_from(stay: Stay) -> datetime:
    """From when on an attempt's work was lost through us: from its last checkpoint on, or all of it."""
    verdict = VERDICTS[stay.reason]
    if verdict.fault != "platform":
        return stay.seen_until
    if not verdict.billable:
        return stay.seen_from
    return max((at for at in stay.saved_at), default=stay.seen_from)
