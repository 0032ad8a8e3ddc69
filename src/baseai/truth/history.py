"""History is the rows of `events`: who did what to which thing, when and why. Each move of a state writes one.

Invariant: a row is written in the transaction of the deed it tells of, and never changed.
"""

from baseai.truth.session import Session


async def record(
    session: Session,
    subject_kind: str,
    subject_id: str,
    event: str,
    *,
    actor: str,
    tenant_id: str | None = None,
    project_id: str | None = None,
    from_state: str | None = None,
    to_state: str | None = None,
    reason: str | None = None,
    sentence: str | None = None,
) -> None:
    """Write one event in the caller's transaction."""
    await session.execute(
        "INSERT INTO events (tenant_id, project_id, subject_kind, subject_id, event, from_state, to_state, reason,"
        " actor, sentence) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            tenant_id,
            project_id,
            subject_kind,
            subject_id,
            event,
            from_state,
            to_state,
            reason,
            actor,
            sentence,
        ),
    )
