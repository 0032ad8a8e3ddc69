"""The facts of a window, read from the truth: accelerators, moves, leases, checkpoints, fragmentation, holds.

Invariant: it reads and never writes, and what it reads of the time before an instant changes only by facts that come
late, which triggers of the migration `v0010_time` write down.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from baseai.finance.bucket import Interval
from baseai.finance.claim import ACCELERATOR_CLAIMS, NODE_CLAIMS, LeaseFacts, Move, Setback, Terms
from baseai.finance.held import HeldBy, Hold
from baseai.finance.hours.facts import AcceleratorFacts, Facts, Pool
from baseai.truth.session import Session, fetch_all
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.reason import VERDICTS, Reason

OURS = ["health", "platform"]  # actors that move nodes for what they saw; anybody else is a person

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
  AND (%(numbers)s::bigint[] IS NULL OR accelerator_no = ANY(%(numbers)s) OR model = ANY(%(models)s))
ORDER BY accelerator_no
"""  # noqa: S608 - pieces are constants of this file
MOVES = """
SELECT subject_kind, subject_id, at, from_state, to_state, actor = ANY(%(ours)s) AS by_fault FROM events
WHERE subject_kind = %(kind)s AND subject_id = ANY(%(subjects)s) AND from_state IS NOT NULL
  AND to_state = ANY(%(states)s) ORDER BY at, event_no
"""
LEASES = """
SELECT d.accelerator_no, l.run_id, l.attempt_no, l.tenant_id, l.project_id, r.kind, r.spec -> 'spot' = 'true' AS spot,
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
# What is kept for somebody: by a contract, and by a reservation in the calendar.
HOLDS = """
SELECT k.tenant_id, k.project_id, k.model, k.site_id, k.accelerators AS count, 'contract' AS by,
  lower(k.during * c.during) AS from_at, upper(k.during * c.during) AS until_at
FROM commitments k JOIN contracts c USING (contract_id)
WHERE k.during * c.during && tstzrange(%(since)s, %(until)s)
UNION ALL
SELECT tenant_id, NULL, model, site_id, nodes * accelerators, 'calendar', from_at, LEAST(until_at, ended_at)
FROM reservations WHERE from_at < %(until)s AND LEAST(until_at, ended_at) > GREATEST(from_at, %(since)s)
"""
RESEARCH = """
SELECT tenant_id, project_id, lower(during) AS from_at, upper(during) AS until_at FROM contracts
WHERE term = 'research' AND during && tstzrange(%(since)s, %(until)s)
"""


async def load_facts(
    session: Session, window: tuple[datetime, datetime], numbers: Sequence[int] | None = None
) -> Facts:
    """What is known of these accelerators, and of all whose model is held for somebody, in a window; or of all."""
    since, until = window
    spanned = {"since": since, "until": until}
    holds = await _load_holds(session, spanned)
    named = {"numbers": numbers and list(numbers), "models": sorted({hold.model for hold in holds})}
    rows = await fetch_all(session, ACCELERATORS, {**spanned, **named})
    found = [row["accelerator_no"] for row in rows]
    node_moves = await _load_moves(session, "node", {row["node_id"] for row in rows}, NODE_CLAIMS)
    moves = await _load_moves(session, "accelerator", {row["serial"] for row in rows}, ACCELERATOR_CLAIMS)
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
                model=row["model"],
                site_id=row["site_id"],
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
        holds=holds,
    )


async def _load_moves(
    session: Session, kind: str, subjects: Iterable[str], states: Iterable[str]
) -> Mapping[str, Sequence[Move]]:
    """All moves there are: what something was before its first one, only that one tells."""
    params = {
        "kind": kind,
        "subjects": sorted(subjects),
        "states": [str(state) for state in states],
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
    research = [
        ((row["tenant_id"], row["project_id"]), Interval(from_at=row["from_at"], until_at=row["until_at"]))
        for row in await fetch_all(session, RESEARCH, spanned)
    ]
    leases: dict[int, list[LeaseFacts]] = defaultdict(list)
    for row in rows:
        until_at = row["until_at"]
        leases[row["accelerator_no"]].append(
            LeaseFacts(
                terms=_terms(row),
                tenant_id=row["tenant_id"],
                project_id=row["project_id"],
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
                research=tuple(
                    interval
                    for (tenant_id, project_id), interval in research
                    if tenant_id == row["tenant_id"] and project_id in (None, row["project_id"])
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


async def _load_holds(session: Session, spanned: Mapping[str, datetime]) -> list[Hold]:
    return [
        Hold(
            tenant_id=row["tenant_id"],
            model=row["model"],
            site_id=row["site_id"],
            count=row["count"],
            project_id=row["project_id"],
            by=HeldBy(row["by"]),
            from_at=row["from_at"],
            until_at=row["until_at"],
        )
        for row in await fetch_all(session, HOLDS, spanned)
    ]
