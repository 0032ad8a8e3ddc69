"""The calendar as it lies in PostgreSQL, read as one picture: what is installed, booked and held, and who waits for it.

Seconds are those since 1970. Whatever adds to what is booked takes `take_turns` first, so that two who ask at once are
weighed one after the other, each against all that the other was promised. A grant asks `unchanged`: what was decided
before a promise is not written after it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from baseai.fleet.node import NodeState
from baseai.scheduling.calendar import LEAVING_S, Bay, Calendar, FutureClaim, Holding, Used, claims_of
from baseai.scheduling.maintenance import MaintenanceState, Window
from baseai.scheduling.reservation import Reservation, ReservationKind, ReservationState
from baseai.truth.session import Scope, Session, fetch_all, fetch_one
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.run import ENDED

CALENDAR = Scope(tenant_id=None, actor="calendar")
LOCK = 0x63616C65  # "cale"
STOP_S = 20.0  # what every run has to stop, beside what its checkpoints take
LATE_S = 10.0  # what passes between two looks at who has to leave, and until its node hears of it
# Never to serve again, or nobody knows when.
AWAY = (NodeState.ONBOARDING, NodeState.QUARANTINED, NodeState.RMA, NodeState.RETIRED)
Row = Mapping[str, Any]

BAYS = """
SELECT n.node_id, n.site_id, a.model, count(*)::int AS accelerators FROM nodes n JOIN accelerators a USING (node_id)
WHERE a.state = 'in_service' AND n.state <> ALL(%s) GROUP BY 1, 2, 3 ORDER BY 1, 3
"""
# The slowest of a run's late checkpoints says what it needs to save, as where a node is drained.
HOLDINGS = """
SELECT l.run_id, l.node_id, l.model, l.granted_at, l.ends_at, l.firm_until, r.kind, r.tenant_id, a.stop,
  r.spec->>'reservation' AS reservation, coalesce((r.spec->>'spot')::boolean, false) AS spot,
  (SELECT count(*) FROM lease_accelerators la WHERE la.lease_id = l.lease_id)::int AS accelerators,
  (SELECT max(save_s) FROM (SELECT save_s FROM checkpoints c WHERE c.run_id = l.run_id
    ORDER BY committed_at DESC LIMIT 5) late) AS save_s
FROM leases l JOIN attempts a USING (run_id, attempt_no) JOIN runs r USING (run_id)
WHERE l.state <> 'released' ORDER BY l.lease_id
"""
WINDOWS = """
SELECT m.*, coalesce((SELECT array_agg(n.node_id ORDER BY n.node_id) FROM nodes n WHERE n.state <> 'retired' AND (
    n.site_id = m.site_id OR EXISTS (SELECT FROM maintenance_nodes w
      WHERE w.maintenance_id = m.maintenance_id AND w.node_id = n.node_id))), '{}') AS node_ids
FROM maintenances m WHERE m.ended_at IS NULL ORDER BY m.from_at, m.maintenance_id
"""
OWN = """
SELECT v.reservation_id, l.node_id, count(*)::int AS accelerators FROM reservations v
JOIN runs r ON r.tenant_id = v.tenant_id AND r.spec->>'reservation' = v.name AND r.state <> ALL(%s)
JOIN leases l ON l.run_id = r.run_id AND l.model = v.model AND l.state <> 'released'
JOIN nodes n ON n.node_id = l.node_id AND n.site_id = v.site_id JOIN lease_accelerators la USING (lease_id)
WHERE v.ended_at IS NULL AND v.from_at <= now() GROUP BY 1, 2
"""
WANTED = """
SELECT v.reservation_id, sum((r.spec->>'nodes')::int)::int AS pods FROM runs r JOIN reservations v
  ON v.tenant_id = r.tenant_id AND v.name = r.spec->>'reservation' AND v.ended_at IS NULL
WHERE r.state = 'queued' GROUP BY 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """The calendar at one instant."""

    now_s: float
    calendar: Calendar
    used: Used
    wanted: Mapping[str, int]  # by reservation: pods that runs of its own wait for

    @property
    def claims(self) -> tuple[FutureClaim, ...]:
        return claims_of(self.calendar.reservations, self.calendar.windows, self.used, self.now_s)


async def load_booked(session: Session) -> Booked:
    """All that is booked and stands now, by the database's clock. The scope must be the platform's own."""
    now_s, reservations, windows = await _planned(session)
    bays = await fetch_all(session, BAYS, ([state.value for state in AWAY],))
    site_of = {row["node_id"]: row["site_id"] for row in bays}
    holdings = [
        _holding(row, reservations, site_of.get(row["node_id"]), now_s)
        for row in await fetch_all(session, HOLDINGS)
    ]
    wanted = await fetch_all(session, WANTED) if reservations else []
    return Booked(
        now_s=now_s,
        calendar=Calendar(
            bays=[Bay(row["node_id"], row["site_id"], row["model"], row["accelerators"]) for row in bays],
            reservations=reservations,
            windows=windows,
            holdings=holdings,
        ),
        used=await _used(session) if reservations else {},
        wanted={row["reservation_id"]: row["pods"] for row in wanted},
    )


async def load_claims(session: Session) -> tuple[FutureClaim, ...]:
    """What a cycle of the scheduler has to keep free: cheap, for leases of reservations alone are counted."""
    now_s, reservations, windows = await _planned(session)
    return claims_of(reservations, windows, await _used(session) if reservations else {}, now_s)


async def take_turns(session: Session) -> None:
    """Wait for whoever else adds to the calendar, or grants leases, until the end of the transaction."""
    await session.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    await session.execute("UPDATE platform SET value = to_jsonb(value::bigint + 1) WHERE name = 'calendar'")


async def load_calendar_no(session: Session) -> int:
    """The number of times that something was added."""
    row = await fetch_one(session, "SELECT value::bigint AS number FROM platform WHERE name = 'calendar'")
    return 0 if row is None else int(row["number"])


async def unchanged(session: Session, calendar_no: int) -> bool:
    """Whether nothing was added since; and nothing will be until the end of the transaction."""
    await session.execute("SELECT pg_advisory_xact_lock_shared(%s)", (LOCK,))
    return await load_calendar_no(session) == calendar_no


async def _planned(session: Session) -> tuple[float, list[Reservation], list[Window]]:
    now = await fetch_one(session, "SELECT now() AS at")
    assert now is not None
    reservations = await fetch_all(
        session, "SELECT * FROM reservations WHERE ended_at IS NULL ORDER BY from_at, reservation_id"
    )
    windows = await fetch_all(session, WINDOWS)
    return (
        now["at"].timestamp(),
        [reservation_of(row) for row in reservations],
        [window_of(row) for row in windows],
    )


async def _used(session: Session) -> Used:
    used: dict[str, dict[str, int]] = defaultdict(dict)
    for row in await fetch_all(session, OWN, (sorted(state.value for state in ENDED),)):
        used[row["reservation_id"]][row["node_id"]] = row["accelerators"]
    return used


def reservation_of(row: Row) -> Reservation:
    return Reservation(
        reservation_id=row["reservation_id"],
        name=row["name"],
        tenant_id=row["tenant_id"],
        nodes=row["nodes"],
        accelerators=row["accelerators"],
        model=row["model"],
        site=row["site_id"],
        from_s=row["from_at"].timestamp(),
        until_s=row["until_at"].timestamp(),
        kind=ReservationKind(row["kind"]),
        forfeit_after_s=None if row["forfeit_after_s"] is None else float(row["forfeit_after_s"]),
        state=ReservationState(row["state"]),
        used=row["used_at"] is not None,
    )


def window_of(row: Row) -> Window:
    return Window(
        maintenance_id=row["maintenance_id"],
        node_ids=tuple(row["node_ids"]),
        site=row["site_id"],
        from_s=row["from_at"].timestamp(),
        until_s=row["until_at"].timestamp(),
        notice_s=float(row["notice_s"]),
        why=row["why"],
        state=MaintenanceState(row["state"]),
    )


def instant_of(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _holding(row: Row, reservations: Sequence[Reservation], site: str | None, now_s: float) -> Holding:
    gives_way = row["spot"] or row["kind"] == BURN_IN
    firm_until = row["granted_at"] if gives_way else row["firm_until"] or row["ends_at"]
    own = next(
        (
            one.reservation_id
            for one in reservations
            if (one.tenant_id, one.name) == (row["tenant_id"], row["reservation"])
            and (one.site, one.model) == (site, row["model"])
            and one.from_s <= now_s
        ),
        None,
    )
    return Holding(
        run_id=row["run_id"],
        node_id=row["node_id"],
        model=row["model"],
        accelerators=row["accelerators"],
        ends_s=row["ends_at"].timestamp(),
        firm_until_s=firm_until.timestamp(),
        grace_s=min(LEAVING_S, 2 * float(row["save_s"] or 0.0) + STOP_S) + LATE_S,
        going=row["stop"],
        reservation_id=own,
    )
