"""Usage events in the truth: an id is claimed and its event written by one statement of one transaction.

Invariant: a group is kept whole or not at all. So a try that failed has claimed nothing, and the next one is the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import DictRow

from baseai.finance.usage_event import UsageEvent, correction_wrong, event_wrong, usage_id_of
from baseai.ground.fault import Conflict, Refused
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all

COLUMNS = "source, event_id, tenant_id, project_id, meter, quantity, unit, from_at, until_at, run_id, model, site_id"
INSERT = f"""
INSERT INTO usage_events (usage_id, corrects, digest, {COLUMNS}) VALUES (%(usage_id)s, %(corrects)s, %(digest)s,
  %(source)s, %(event_id)s, %(tenant_id)s, %(project_id)s, %(meter)s, %(quantity)s, %(unit)s, %(from_at)s,
  %(until_at)s, %(run_id)s, %(model)s, %(site_id)s) ON CONFLICT DO NOTHING
"""  # noqa: S608 - pieces are constants of this file
KNOWN = f"""
SELECT {COLUMNS}, digest, usage_id, (SELECT c.event_id FROM usage_events c WHERE c.usage_id = e.corrects) AS corrects
FROM usage_events e WHERE usage_id = ANY(%s)
"""  # noqa: S608 - pieces are constants of this file
BEGAN = """
SELECT m.meter, t.tenant_id, GREATEST(m.began_at, t.created_at) AS began_at, now() AS now
FROM meters m, tenants t WHERE t.tenant_id = ANY(%s)
"""
NOW = "SELECT now() AS now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a group of events."""

    new: int
    repeated: int


class UsageEvents:
    """Takes in what was used."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def record(self, events: Sequence[UsageEvent], scope: Scope = PLATFORM) -> Recorded:
        """Keep all of them or none.

        Raises Conflict for a known id with another body or a second correction of one event, Refused for what is wrong
        in itself: a meter or unit that is none, older than the meter, of the future, a correction of the unknown.
        """
        async with self._truth.transaction(scope) as session:
            return await record_events(session, events)


async def record_events(session: Session, events: Sequence[UsageEvent]) -> Recorded:
    """The same inside the caller's transaction, which it rolls back by what it raises."""
    began = {
        (row["meter"], row["tenant_id"]): row
        for row in await fetch_all(session, BEGAN, (sorted({one.tenant_id for one in events}),))
    }
    (clock,) = await fetch_all(session, NOW)
    wrong = [
        why
        for one in events
        if (
            why := event_wrong(
                one,
                began_at=row["began_at"] if (row := began.get((one.meter, one.tenant_id))) else None,
                now=clock["now"],
            )
        )
    ]
    if wrong:
        raise Refused("; ".join(wrong) + "; nothing of this group is kept")
    named = {one.usage_id for one in events} | {
        usage_id_of(one.tenant_id, one.source, one.corrects) for one in events if one.corrects
    }
    known = {row["usage_id"]: row for row in await fetch_all(session, KNOWN, (sorted(named),))}
    bodies: dict[str, UsageEvent] = {}
    new = 0
    # What is corrected goes in before what corrects it, whatever the order in which they came.
    for one in sorted(events, key=lambda one: one.corrects is not None):
        twin = bodies.setdefault(one.usage_id, one)
        stored = known.get(one.usage_id)
        if twin.digest != one.digest or (stored is not None and stored["digest"] != one.digest):
            raise _contradicts(one)
        if stored is not None or twin is not one:
            continue
        corrects = None
        if one.corrects is not None:
            corrects = usage_id_of(one.tenant_id, one.source, one.corrects)
            row = known.get(corrects)
            why = correction_wrong(one, bodies.get(corrects) or (_event(row) if row else None))
            if why is not None:
                raise Refused(f"{why}; nothing of this group is kept")
        new += await _insert(session, one, corrects)
    return Recorded(new=new, repeated=len(events) - new)


async def _insert(session: Session, one: UsageEvent, corrects: str | None) -> int:
    row = {name: getattr(one, name) for name in COLUMNS.split(", ")}
    row |= {"usage_id": one.usage_id, "digest": one.digest, "corrects": corrects}
    done = await session.execute(INSERT, row)
    if done.rowcount:
        return 1
    for stored in await fetch_all(session, KNOWN, ([one.usage_id],)):
        if stored["digest"] == one.digest:
            return 0  # another copy wrote the same a moment ago
        raise _contradicts(one)
    raise Conflict(
        f"event {one.event_id} of {one.source} corrects {one.corrects}, which another one corrects; correct that one"
    )


def _contradicts(one: UsageEvent) -> Conflict:
    return Conflict(
        f"event {one.event_id} of {one.source} is known with another body; nothing of this group is kept."
        " A correction is an event with an id of its own that names this one"
    )


def _event(row: DictRow) -> UsageEvent:
    return UsageEvent(**{name: row[name] for name in (*COLUMNS.split(", "), "corrects")})
