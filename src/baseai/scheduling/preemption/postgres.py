"""Preemptions in PostgreSQL: who was asked to make room, for whom, and what that took; and who saved when.

Invariant: asking twice is the same as once. The attempt ends by its node's word, after it was given time to save; it
counts as nobody's failure, and the run waits again at the place it had.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from baseai.ground.identity import RunId
from baseai.scheduling.preemption.loss import Loss, sentence_of
from baseai.truth.history import record
from baseai.truth.session import Session, fetch_all, fetch_one
from baseai.workloads.burn import KIND as BURN_IN

Row = Mapping[str, Any]

# What was lost is what its leases were observed to run after its last checkpoint, or at all where it has none.
_NOTE_LOSS = """
UPDATE preemptions p SET stopped_at = now(), saved_step = s.step, saved_at = s.committed_at,
  lost_accelerator_s = CASE WHEN r.kind = %(test)s OR %(finished)s THEN 0 ELSE coalesce((
    SELECT sum(extract(epoch FROM greatest(interval '0', l.observed_until - greatest(l.observed_from, s.committed_at)))
      * (SELECT count(*) FROM lease_accelerators la WHERE la.lease_id = l.lease_id))
    FROM leases l WHERE l.run_id = p.run_id AND l.attempt_no = p.attempt_no), 0) END
FROM runs r LEFT JOIN LATERAL (SELECT step, committed_at FROM checkpoints c WHERE c.run_id = r.run_id
  ORDER BY committed_at DESC LIMIT 1) s ON true
WHERE p.run_id = %(run)s AND p.attempt_no = %(attempt)s AND r.run_id = p.run_id
RETURNING p.*, r.kind,
  (SELECT o.name FROM runs o WHERE o.run_id = p.for_run AND o.tenant_id = p.tenant_id) AS for_name
"""


async def ask_to_make_room(
    session: Session,
    run_id: RunId,
    *,
    for_run: RunId | None,
    lost_accelerator_s: float | None,
    actor: str = "scheduler",
    sentence: str = "another run starts where it stands",
) -> bool:
    """Ask the attempt that lives to save and end; False where there is none, or it was told to end before.

    for_run: None where it makes room for what is reserved. lost_accelerator_s: what it would have lost at once, as it
    was decided; None where nobody reckoned it, or it keeps nothing.
    """
    attempt = await fetch_one(
        session,
        "UPDATE attempts SET stop = true, reason = 'preempted' WHERE run_id = %s AND state <> 'ended' AND NOT stop"
        " RETURNING *",
        (run_id,),
    )
    if attempt is None:
        return False
    await session.execute(
        "INSERT INTO preemptions (run_id, attempt_no, tenant_id, project_id, for_run, decided_accelerator_s)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            run_id,
            attempt["attempt_no"],
            attempt["tenant_id"],
            attempt["project_id"],
            for_run,
            lost_accelerator_s,
        ),
    )
    await session.execute(
        "UPDATE nodes SET desired_version = desired_version + 1 WHERE node_id IN"
        " (SELECT node_id FROM leases WHERE run_id = %s AND attempt_no = %s AND state <> 'released')",
        (run_id, attempt["attempt_no"]),
    )
    await record(
        session, "run", run_id, "evict", actor=actor, tenant_id=attempt["tenant_id"],
        project_id=attempt["project_id"], reason="preempted", sentence=sentence,
    )  # fmt: skip
    return True


async def note_loss(session: Session, run_id: str, attempt_no: int, *, finished: bool) -> str | None:
    """Write down what the attempt lost, now that it is over; the sentence for its run. None where nobody asked it.

    finished: it came to its own end meanwhile, so that nothing was lost.
    """
    row = await fetch_one(
        session,
        _NOTE_LOSS,
        {"run": run_id, "attempt": attempt_no, "test": BURN_IN, "finished": finished},
    )
    if row is None or row["kind"] == BURN_IN:
        return None
    return sentence_of(
        Loss(
            for_reservation=row["for_run"] is None,
            for_name=row["for_name"],
            saved_step=row["saved_step"],
            saved=row["saved_at"] is not None,
            lost_accelerator_s=float(row["lost_accelerator_s"]),
        )
    )


async def load_saved(session: Session, *, since: datetime | None = None) -> dict[RunId, datetime]:
    """When each run whose attempt lives saved last. O(such runs), by index.

    since: only those of which a checkpoint was written down from then on; ask a minute back, for what was late.
    """
    if since is None:
        rows = await fetch_all(
            session,
            "SELECT a.run_id, s.committed_at FROM attempts a CROSS JOIN LATERAL (SELECT committed_at FROM checkpoints c"
            " WHERE c.run_id = a.run_id ORDER BY committed_at DESC LIMIT 1) s WHERE a.state <> 'ended'",
        )
    else:
        rows = await fetch_all(
            session,
            "SELECT run_id, max(committed_at) AS committed_at FROM checkpoints WHERE recorded_at >= %s GROUP BY run_id",
            (since,),
        )
    return {RunId(row["run_id"]): row["committed_at"] for row in rows}
