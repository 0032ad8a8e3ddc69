"""The time ledger on PostgreSQL. A shell: rows become facts, `reckoned` decides, rows of the next revision are written.

Invariant: an hour is closed with all its accelerators in one transaction, and counted anew in one as well, so a crash
at any place leaves each hour as it was or as it shall be; an hour that comes out the same gets no row. Time is the
database's.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from baseai.finance.bucket import HOUR, Bucket, Interval
from baseai.finance.claim import ACCELERATOR_CLAIMS, NODE_CLAIMS, Hold, LeaseFacts, Move, Setback, Terms
from baseai.finance.hours.facts import AcceleratorFacts, Facts, Hours, Pool, reckoned
from baseai.ground.clock import hour_of
from baseai.truth.session import Session, Truth, fetch_all, fetch_one
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.reason import VERDICTS, Reason

__all__ = ["Closing", "TimeLedger", "load_facts"]

GRACE = timedelta(minutes=2)  # for reports that are on their way when an hour ends
ACCELERATOR_HOURS_A_TRANSACTION = 20_000
LATE_A_TRANSACTION = 1_000
OURS = ["health", "platform"]  # actors that move nodes for what they saw; anybody else is a person
CLOSED = "closed"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What one round of closing did."""

    closed: int  # hours
    revised: int  # hours of one accelerator that came out otherwise
    closed_until: datetime | None


# ---- reading facts --------------------------------------------------------------------------------------------

# When an accelerator stood in its node: until it or the node was retired.
LIVES = """
SELECT a.accelerator_no, a.serial, a.state, a.model, a.installed_at, a.node_id, n.site_id, n.state AS node_state,
  n.simulated, (SELECT min(e.at) FROM events e WHERE e.from_state IS NOT NULL AND e.to_state = 'retired'
    AND (e.subject_kind = 'accelerator' AND e.subject_id = a.serial
      OR e.subject_kind = 'node' AND e.subject_id = a.node_id)) AS gone_at
FROM accelerators a JOIN nodes n USING (node_id)
"""
ACCELERATORS = f"""
SELECT * FROM ({LIVES}) l WHERE installed_at < %(until)s AND (gone_at IS NULL OR gone_at > %(since)s)
  AND (%(numbers)s::bigint[] IS NULL OR accelerator_no = ANY(%(numbers)s)) ORDER BY accelerator_no
"""  # noqa: S608 - pieces are constants of this file
MOVES = """
SELECT subject_kind, subject_id, at, from_state, to_state, actor = ANY(%(ours)s) AS by_fault FROM events
WHERE subject_kind = %(kind)s AND subject_id = ANY(%(subjects)s) AND from_state IS NOT NULL
  AND to_state = ANY(%(states)s) AND at < %(until)s ORDER BY at, event_no
"""
LEASES = """
SELECT d.accelerator_no, l.run_id, l.attempt_no, r.kind, r.spec -> 'spot' = 'true' AS spot,
  jsonb_typeof(r.spec -> 'reservation') = 'string' AS reserved,
  l.granted_at, LEAST(l.released_at, l.ends_at) AS until_at, l.observed_from, l.observed_until,
  CASE WHEN a.state = 'ended' THEN a.reason END AS reason
FROM lease_accelerators d JOIN leases l USING (lease_id) JOIN attempts a USING (run_id, attempt_no)
  JOIN runs r USING (run_id)
WHERE d.accelerator_no = ANY(%(numbers)s) AND d.during && tstzrange(%(since)s, %(until)s)
ORDER BY l.granted_at, l.lease_id
"""
SAVED = """
SELECT run_id, attempt_no, array_agg(committed_at ORDER BY committed_at) AS saved_at FROM checkpoints
WHERE run_id = ANY(%(run_ids)s) GROUP BY run_id, attempt_no
"""
SETBACKS = """
SELECT subject_id AS run_id, at, event, reason FROM events
WHERE subject_kind = 'run' AND subject_id = ANY(%(run_ids)s)
  AND (event = 'recover' OR event = 'begin' AND from_state = 'recovering') ORDER BY at, event_no
"""
FRAGMENTED = """
SELECT model, site_id, from_at, COALESCE(until_at, seen_at) AS until_at FROM fragmentations
WHERE from_at < %(until)s AND COALESCE(until_at, seen_at) > %(since)s ORDER BY from_at
"""


async def load_facts(
    session: Session, window: tuple[datetime, datetime], numbers: Sequence[int] | None = None
) -> Facts:
    """What is known of these accelerators, or of all, in a window."""
    since, until = window
    spanned = {"since": since, "until": until}
    rows = await fetch_all(session, ACCELERATORS, {**spanned, "numbers": numbers and list(numbers)})
    found = [row["accelerator_no"] for row in rows]
    node_moves = await _load_moves(session, "node", {row["node_id"] for row in rows}, NODE_CLAIMS, until)
    moves = await _load_moves(
        session, "accelerator", {row["serial"] for row in rows}, ACCELERATOR_CLAIMS, until
    )
    leases = await _load_leases(session, found, spanned)
    fragmented: dict[Pool, list[Interval]] = defaultdict(list)
    for row in await fetch_all(session, FRAGMENTED, spanned):
        fragmented[row["model"], row["site_id"]].append(
            Interval(from_at=row["from_at"], until_at=row["until_at"])
        )
    return Facts(
        window=window,
        accelerators=[
            AcceleratorFacts(
                accelerator_no=row["accelerator_no"],
                pool=(row["model"], row["site_id"]),
                installed=Interval(from_at=row["installed_at"], until_at=row["gone_at"]),
                state=row["state"],
                moves=moves.get(row["serial"], ()),
                node_state=row["node_state"],
                node_moves=node_moves.get(row["node_id"], ()),
                leases=leases.get(row["accelerator_no"], ()),
            )
            for row in rows
        ],
        fragmented=fragmented,
        holds=await _load_holds(session, spanned),
    )


async def _load_moves(
    session: Session, kind: str, subjects: Iterable[str], states: Iterable[str], until: datetime
) -> Mapping[str, Sequence[Move]]:
    params = {
        "kind": kind,
        "subjects": sorted(subjects),
        "states": [str(state) for state in states],
        "until": until,
        "ours": OURS,
    }
    moves: dict[str, list[Move]] = defaultdict(list)
    for row in await fetch_all(session, MOVES, params):
        moves[row["subject_id"]].append(
            Move(
                at=row["at"],
                from_state=row["from_state"],
                to_state=row["to_state"],
                by_fault=row["by_fault"],
            )
        )
    return moves


async def _load_leases(
    session: Session, numbers: Sequence[int], spanned: Mapping[str, datetime]
) -> Mapping[int, Sequence[LeaseFacts]]:
    rows = await fetch_all(session, LEASES, {**spanned, "numbers": list(numbers)})
    run_ids = sorted({row["run_id"] for row in rows})
    saved = {
        (row["run_id"], row["attempt_no"]): tuple(row["saved_at"])
        for row in await fetch_all(session, SAVED, {"run_ids": run_ids})
    }
    setbacks: dict[str, list[Setback]] = defaultdict(list)
    for row in await fetch_all(session, SETBACKS, {"run_ids": run_ids}):
        of_run = setbacks[row["run_id"]]
        if row["event"] == "recover":
            if row["reason"] in VERDICTS and VERDICTS[Reason(row["reason"])].fault == "platform":
                of_run.append(Setback(at=row["at"]))
        elif of_run and of_run[-1].resumed_at is None:
            of_run[-1] = Setback(at=of_run[-1].at, resumed_at=row["at"])
    leases: dict[int, list[LeaseFacts]] = defaultdict(list)
    for row in rows:
        until_at = row["until_at"]
        leases[row["accelerator_no"]].append(
            LeaseFacts(
                terms=_terms(row),
                granted_at=row["granted_at"],
                until_at=until_at,
                observed_from=row["observed_from"],
                observed_until=row["observed_until"],
                verdict=VERDICTS[Reason(row["reason"])] if row["reason"] in VERDICTS else None,
                saved_at=saved.get((row["run_id"], row["attempt_no"]), ()),
                setbacks=tuple(
                    setback
                    for setback in setbacks.get(row["run_id"], ())
                    if row["granted_at"] <= setback.at < until_at
                ),
            )
        )
    return leases


def _terms(row: Mapping[str, Any]) -> Terms:
    if row["kind"] == BURN_IN:
        return Terms.HOUSE
    if row["spot"]:
        return Terms.SPOT
    return Terms.RESERVED if row["reserved"] else Terms.ON_DEMAND


async def _load_holds(session: Session, spanned: Mapping[str, datetime]) -> Mapping[Pool, Sequence[Hold]]:
    return {}


# ---- closing hours --------------------------------------------------------------------------------------------

STANDING = """
SELECT hour, accelerator_no, bucket, micro_seconds, revision, replaced_at IS NULL AS stands FROM time_buckets
WHERE accelerator_no = ANY(%(numbers)s) AND hour >= %(since)s AND hour < %(until)s
"""
REPLACE = """
UPDATE time_buckets b SET replaced_at = now() FROM unnest(%s::bigint[], %s::timestamptz[]) AS old (accelerator_no, hour)
WHERE b.accelerator_no = old.accelerator_no AND b.hour = old.hour AND b.replaced_at IS NULL
"""
WRITE = """
INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision, reason)
SELECT * FROM unnest(%s::timestamptz[], %s::bigint[], %s::text[], %s::bigint[], %s::integer[], %s::text[])
"""
LATE = "SELECT * FROM late_facts ORDER BY late_no LIMIT %s"


class TimeLedger:
    """What every accelerator was, hour by hour, for the platform's own loop."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def close(self) -> Closing:
        """Close every hour that is over, and count anew what late facts touch. Harmless twice and beside a copy."""
        closed = revised = 0
        while True:
            hours, until = await self._close_some()
            closed += hours
            if not hours:
                break
        while True:
            facts, changed = await self._revise_some()
            revised += changed
            if facts < LATE_A_TRANSACTION:
                return Closing(closed=closed, revised=revised, closed_until=until)

    async def _close_some(self) -> tuple[int, datetime | None]:
        async with self._truth.transaction() as session:
            mark = await _mark(session)
            since = mark["closed_until"]
            if since is None:
                first = await fetch_one(
                    session, "SELECT min(installed_at) AS at, count(*) AS n FROM accelerators"
                )
                if first is None or first["at"] is None:
                    return 0, None
                since = hour_of(first["at"])
            over = hour_of(mark["now"] - GRACE)
            if since >= over:
                return 0, mark["closed_until"]
            size = await fetch_one(session, "SELECT count(*) AS n FROM accelerators")
            assert size is not None
            hours = min(max(1, ACCELERATOR_HOURS_A_TRANSACTION // max(1, size["n"])), (over - since) // HOUR)
            until = since + hours * HOUR
            facts = await load_facts(session, (since, until))
            await _write(session, reckoned(facts), facts, keys=None, reason=CLOSED)
            await session.execute("UPDATE time_mark SET closed_until = %s", (until,))
            return hours, until

    async def _revise_some(self) -> tuple[int, int]:
        """How many late facts were looked at, and how many hours of accelerators came out otherwise."""
        async with self._truth.transaction() as session:
            mark = await _mark(session)
            late = await fetch_all(session, LATE, (LATE_A_TRANSACTION,))
            if not late:
                return 0, 0
            reasons: dict[tuple[int, datetime], str] = {}
            for row in late:
                hour = hour_of(row["from_at"])
                while hour < min(row["until_at"], mark["closed_until"] or hour):
                    reasons.setdefault((row["accelerator_no"], hour), row["reason"])
                    hour += HOUR
            changed = await _recount(session, reasons)
            await session.execute(
                "DELETE FROM late_facts WHERE late_no = ANY(%s)", ([row["late_no"] for row in late],)
            )
            return len(late), changed


async def _mark(session: Session) -> Mapping[str, Any]:
    """How far the hours are closed, held against every other closer until the transaction ends."""
    mark = await fetch_one(session, "SELECT closed_until, now() AS now FROM time_mark FOR UPDATE")
    assert mark is not None
    return mark


async def _recount(session: Session, reasons: Mapping[tuple[int, datetime], str]) -> int:
    """Count these hours of accelerators anew, day by day; how many came out otherwise."""
    days: dict[datetime, dict[tuple[int, datetime], str]] = defaultdict(dict)
    for (accelerator_no, hour), reason in reasons.items():
        days[hour.replace(hour=0)][accelerator_no, hour] = reason
    changed = 0
    for keys in days.values():
        window = (min(hour for _, hour in keys), max(hour for _, hour in keys) + HOUR)
        facts = await load_facts(session, window, sorted({number for number, _ in keys}))
        changed += await _write(session, reckoned(facts), facts, keys=keys, reason=None)
    return changed


async def _write(
    session: Session,
    hours: Hours,
    facts: Facts,
    *,
    keys: Mapping[tuple[int, datetime], str] | None,
    reason: str | None,
) -> int:
    """Write what differs from what stands as the next revision; of `keys` alone, each with its reason, if given."""
    numbers = sorted({one.accelerator_no for one in facts.accelerators} | {no for no, _ in keys or ()})
    since, until = facts.window
    stored = await fetch_all(session, STANDING, {"numbers": numbers, "since": since, "until": until})
    stands: dict[tuple[int, datetime], dict[str, int]] = defaultdict(dict)
    revisions: dict[tuple[int, datetime], int] = {}
    for row in stored:
        key = row["accelerator_no"], row["hour"]
        revisions[key] = max(revisions.get(key, 0), row["revision"])
        if row["stands"]:
            stands[key][row["bucket"]] = row["micro_seconds"]
    nothing: Mapping[Bucket, int] = {}
    fresh = {
        key: hours.get(key, nothing)
        for key in (keys if keys is not None else hours)
        if dict(hours.get(key, nothing)) != stands.get(key, {})
    }
    old = [key for key in fresh if key in stands]
    if old:
        await session.execute(REPLACE, ([no for no, _ in old], [hour for _, hour in old]))
    rows = [
        (hour, no, bucket.value, us, revisions.get((no, hour), 0) + 1, reason or (keys or {}).get((no, hour)))
        for (no, hour), sums in sorted(fresh.items())
        for bucket, us in sums.items()
    ]
    if rows:
        await session.execute(WRITE, [list(column) for column in zip(*rows, strict=True)])
    return len(fresh)
