"""Lists and details for doors, read from PostgreSQL in the asker's scope.

Each answer is a mapping with the fields of the shape of the same name in the doors' schemas. Pages of a list are
walked by a cursor over (submitted or happened, id), so that a row is neither lost nor repeated while others arrive.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from baseai.fleet.node import SILENT_AFTER_S
from baseai.ground.fault import NotFound, Refused
from baseai.scheduling.record import for_tenant, named, why_named
from baseai.scheduling.starts.said import OUTCOMES_KEPT
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.views.page import cursor_of, limit_of, page_of
from baseai.workloads.spec import RunSpec

Row = dict[str, Any]
QUEUE_SHOWN = 100  # of the queue on one page
UNSEEN = 999_999_999  # the place of those that no cycle has looked at yet
LEASES_SHOWN = 30  # of one accelerator
POINTS_MAX = 400  # of a curve on a page: more are thinned, the first and the last kept

_RUN = """
SELECT r.*, t.name AS tenant, p.name AS project,
  (SELECT coalesce(array_agg(n.name ORDER BY l.node_rank), '{}') FROM leases l JOIN nodes n USING (node_id)
    WHERE l.run_id = r.run_id AND l.attempt_no = r.attempt_no) AS node_names,
  (SELECT coalesce(bool_or(n.simulated), false) FROM leases l JOIN nodes n USING (node_id)
    WHERE l.run_id = r.run_id) AS simulated,
  a.why, b.name AS next_best, s.name AS service
FROM runs r JOIN tenants t USING (tenant_id) JOIN projects p USING (project_id)
  LEFT JOIN services s ON s.service_id = r.service_id
  LEFT JOIN attempts a ON a.run_id = r.run_id AND a.attempt_no = r.attempt_no
  LEFT JOIN nodes b ON b.node_id = a.why->>'next_best'
"""
# Another tenant's run is hidden from a tenant, and its name with it.
_PREEMPTIONS = """
SELECT p.attempt_no, p.asked_at, p.stopped_at,
  CASE WHEN p.for_run IS NULL THEN 'reservation' ELSE 'run' END AS for_kind,
  f.name AS for_run, p.saved_step, p.lost_accelerator_s,
  (SELECT min(step) FROM run_points q WHERE q.run_id = p.run_id AND q.attempt_no = p.attempt_no + 1) AS resumed_step
FROM preemptions p LEFT JOIN runs f ON f.run_id = p.for_run WHERE p.run_id = %s ORDER BY p.attempt_no DESC LIMIT 20
"""
# What a burn-in holds is free: it yields to whoever asks.
_ROOM = """
SELECT a.model, count(*) AS total, count(*) FILTER (WHERE h.accelerator_no IS NULL
  AND n.seen_at > now() - make_interval(secs => %s)) AS free
FROM accelerators a JOIN nodes n USING (node_id) LEFT JOIN (SELECT DISTINCT accelerator_no
  FROM leases l JOIN lease_accelerators USING (lease_id) JOIN runs r ON r.run_id = l.run_id
  WHERE l.state <> 'released' AND r.kind <> 'burn_in') h USING (accelerator_no)
WHERE a.state = 'in_service' AND n.state = 'ready' GROUP BY a.model ORDER BY a.model
"""
# Of each set of models the first estimates that were settled last: as many as a run is told of.
_ACCURACY = """
SELECT models, simulated, count(*) AS outcomes, avg((fate = 'held')::int)::float8 AS held_ratio,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(extract(epoch FROM started_at - likely_at))::float8)
    FILTER (WHERE started_at IS NOT NULL) AS median_error_s, min(settled_at) AS from_at
FROM (SELECT *, row_number() OVER (PARTITION BY models, simulated ORDER BY settled_at DESC) AS place
  FROM start_estimates WHERE fate IN ('held', 'early', 'late')) settled
WHERE place <= %s GROUP BY models, simulated ORDER BY count(*) DESC, models
"""


class Views:
    """What doors show."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    # ---- runs

    async def runs(
        self, scope: Scope, *, states: Sequence[str] = (), everything: bool = False, limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        """Newest first; without `states` those that have not ended and the last few that have."""
        at, after_id = cursor_of(cursor)
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                _RUN + " WHERE (%(states)s::text[] = '{}' OR r.state = ANY(%(states)s))"
                " AND (%(everything)s OR %(states)s::text[] <> '{}' OR r.ended_at IS NULL"
                " OR r.ended_at > now() - interval '1 day')"
                " AND (%(at)s::timestamptz IS NULL OR (r.submitted_at, r.run_id) < (%(at)s, %(id)s))"
                " ORDER BY r.submitted_at DESC, r.run_id DESC LIMIT %(limit)s",
                {
                    "states": list(states),
                    "everything": everything,
                    "at": at,
                    "id": after_id,
                    "limit": limit_of(limit) + 1,
                },
            )
            tenants = await _tenant_names(session, scope, rows)
        return page_of([_run(row, scope, tenants) for row in rows], limit, "submitted_at", "run_id")

    async def run(self, scope: Scope, run_id: str) -> Row:
        """One run with its leases, events, checkpoints and spec. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(session, _RUN + " WHERE r.run_id = %s", (run_id,))
            if row is None:
                raise NotFound("run", run_id)
            leases = await self._leases(session, run_id)
            events = await fetch_all(
                session,
                "SELECT * FROM events WHERE subject_id = %s OR subject_id = ANY(%s) ORDER BY event_no DESC LIMIT 200",
                (run_id, [lease["lease_id"] for lease in leases]),
            )
            checkpoints = await fetch_all(
                session,
                "SELECT * FROM checkpoints WHERE run_id = %s ORDER BY committed_at DESC LIMIT 20",
                (run_id,),
            )
            preemptions = await fetch_all(session, _PREEMPTIONS, (run_id,))
            tenants = await _tenant_names(session, scope, [row])
        return {
            "run": _run(row, scope, tenants),
            "leases": leases,
            "events": [_event(event) for event in reversed(events)],
            "checkpoints": checkpoints,
            "preemptions": preemptions,
            "spec": row["spec"],
        }

    async def _leases(self, session: Session, run_id: str) -> list[Row]:
        return await fetch_all(
            session,
            "SELECT l.*, n.name AS node, coalesce(array_agg(a.serial ORDER BY a.accelerator_no)"
            " FILTER (WHERE a.serial IS NOT NULL), '{}') AS accelerators"
            " FROM leases l JOIN nodes n USING (node_id) LEFT JOIN lease_accelerators la USING (lease_id)"
            " LEFT JOIN accelerators a USING (accelerator_no) WHERE l.run_id = %s"
            " GROUP BY l.lease_id, n.name ORDER BY l.attempt_no, l.node_rank",
            (run_id,),
        )

    async def run_counts(self, scope: Scope) -> dict[str, int]:
        """How many runs that have not ended are in which state."""
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                "SELECT state, count(*) AS runs FROM runs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
                " GROUP BY state",
            )
        return {"queued": 0, "running": 0, **{row["state"]: row["runs"] for row in rows}}

    async def points(self, scope: Scope, run_id: str, *, after_step: int = -1) -> list[Row]:
        """The curve of a run by step, the newest restart's word where steps were repeated; at most POINTS_MAX."""
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                "SELECT DISTINCT ON (step) step, at, loss, tokens_per_s, step_ms, sync_ratio, goodput_ratio"
                " FROM run_points WHERE run_id = %s AND step > %s"
                " ORDER BY step, attempt_no DESC, restart DESC, at DESC",
                (run_id, after_step),
            )
        stride = -(-len(rows) // POINTS_MAX) or 1
        return [row for number, row in enumerate(rows) if number % stride == 0 or number == len(rows) - 1]

    # ---- fleet

    async def nodes(self, scope: Scope) -> list[Row]:
        """Every node with its accelerators and the runs on it (those the asker may see)."""
        async with self._truth.transaction(scope) as session:
            nodes = await fetch_all(
                session,
                "SELECT *, seen_at > now() - make_interval(secs => %s) AS speaks FROM nodes ORDER BY name",
                (SILENT_AFTER_S,),
            )
            installed = await fetch_all(
                session,
                "SELECT node_id, model, count(*) AS total FROM accelerators WHERE state = 'in_service' GROUP BY 1, 2",
            )
            runs = await fetch_all(
                session,
                "SELECT l.node_id, r.name FROM leases l JOIN runs r USING (run_id) WHERE l.state <> 'released'"
                " ORDER BY l.granted_at",
            )
        # How much is free is no secret; who holds it is.
        async with self._truth.transaction() as session:
            held = await fetch_all(
                session,
                # What a burn-in holds is free: it yields to whoever asks.
                "SELECT l.node_id, l.model, count(*) AS held FROM leases l JOIN lease_accelerators USING (lease_id)"
                " JOIN runs r USING (run_id) WHERE l.state <> 'released'"
                " AND r.kind <> 'burn_in' GROUP BY 1, 2",
            )
        taken = {(row["node_id"], row["model"]): row["held"] for row in held}
        models: dict[str, dict[str, int]] = {}
        for row in installed:
            models.setdefault(row["node_id"], {})[row["model"]] = row["total"]
        return [
            {
                **node,
                "site": node["site_id"],
                "reachable": node["speaks"],
                "models": models.get(node["node_id"], {}),
                "free": {
                    model: max(0, total - taken.get((node["node_id"], model), 0))
                    for model, total in models.get(node["node_id"], {}).items()
                },
                "runs": [row["name"] for row in runs if row["node_id"] == node["node_id"]],
            }
            for node in nodes
        ]

    async def accelerators(self, scope: Scope, node_id: str) -> list[Row]:
        async with self._truth.transaction(scope) as session:
            return await fetch_all(
                session,
                "SELECT a.*, (SELECT l.run_id FROM lease_accelerators la JOIN leases l USING (lease_id)"
                " WHERE la.accelerator_no = a.accelerator_no AND l.state <> 'released' LIMIT 1) AS run_id"
                " FROM accelerators a WHERE node_id = %s ORDER BY device_index",
                (node_id,),
            )

    async def installed(self, scope: Scope) -> list[Row]:
        """Every accelerator in service, with its node and the run that holds it as far as the asker may know."""
        async with self._truth.transaction(scope) as session:
            return await fetch_all(
                session,
                "SELECT a.serial, a.model, a.device_index, a.node_id, n.name AS node, n.site_id AS site,"
                " coalesce(n.rack, '') AS rack, n.health, n.simulated, h.run_id, r.name AS run, t.name AS tenant"
                " FROM accelerators a JOIN nodes n USING (node_id) LEFT JOIN (SELECT DISTINCT ON (accelerator_no)"
                " accelerator_no, l.run_id FROM lease_accelerators JOIN leases l USING (lease_id)"
                " WHERE l.state <> 'released' ORDER BY accelerator_no, l.granted_at DESC) h USING (accelerator_no)"
                " LEFT JOIN runs r ON r.run_id = h.run_id LEFT JOIN tenants t ON t.tenant_id = r.tenant_id"
                " WHERE a.state = 'in_service'",
            )

    async def accelerator(self, scope: Scope, serial: str) -> Row:
        """One accelerator with its node and the LEASES_SHOWN newest leases that used it. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session,
                "SELECT a.*, n.name AS node, n.site_id AS site, n.health, n.state AS node_state, n.simulated"
                " FROM accelerators a JOIN nodes n USING (node_id) WHERE a.serial = %s",
                (serial,),
            )
            if row is None:
                raise NotFound("accelerator", serial)
            leases = await fetch_all(
                session,
                "SELECT l.*, r.name AS run, t.name AS tenant FROM lease_accelerators la JOIN leases l USING (lease_id)"
                " JOIN runs r ON r.run_id = l.run_id JOIN tenants t ON t.tenant_id = l.tenant_id"
                " WHERE la.accelerator_no = %s ORDER BY l.granted_at DESC, l.lease_id LIMIT %s",
                (row["accelerator_no"], LEASES_SHOWN),
            )
        held = next((lease["run_id"] for lease in leases if lease["state"] != "released"), None)
        return {**row, "leases": leases, "run_id": held}

    async def offers(self) -> list[Row]:
        """Totals by site and model over ready nodes that speak."""
        nodes = [
            node
            for node in await self.nodes(Scope(tenant_id=None, actor="offers"))
            if node["state"] == "ready"
        ]
        found: dict[tuple[str, str], Row] = {}
        for node in nodes:
            for model, total in node["models"].items():
                offer = found.setdefault(
                    (node["site"], model),
                    {"site": node["site"], "model": model, "total": 0, "free": 0, "largest_single_node": 0},
                )
                offer["total"] += total
                offer["free"] += node["free"][model] if node["reachable"] else 0
                offer["largest_single_node"] = max(offer["largest_single_node"], total)
        return [found[key] for key in sorted(found)]

    async def queue(
        self, scope: Scope, *, limit: int = QUEUE_SHOWN, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """What waits, each with its reason, in the order of the last cycle; what it has not seen yet comes last.

        The queue moves while it is read: who comes forward between two pages may be on neither.
        """
        place, after_id = _place(cursor)
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                f"SELECT * FROM (SELECT q.*, coalesce((wait->>'position')::int, {UNSEEN}) AS place FROM ({_RUN}"  # noqa: S608
                " WHERE r.state = 'queued') q) placed WHERE (place, run_id) > (%s, %s)"
                " ORDER BY place, run_id LIMIT %s",
                (place, after_id, limit_of(limit) + 1),
            )
            tenants = await _tenant_names(session, scope, rows)
        shown = rows[: limit_of(limit)]
        more = f"{shown[-1]['place']}|{shown[-1]['run_id']}" if len(rows) > len(shown) else None
        return [_run(row, scope, tenants) for row in shown], more

    async def room(self) -> list[Row]:
        """Of each model on ready nodes: how many there are, and how many are free on those that speak."""
        async with self._truth.transaction() as session:
            return await fetch_all(session, _ROOM, (SILENT_AFTER_S,))

    async def accuracy(self) -> list[Row]:
        """How good first estimates of starts were, by the models that were asked for, over all tenants."""
        async with self._truth.transaction() as session:
            return await fetch_all(session, _ACCURACY, (OUTCOMES_KEPT,))

    async def events(
        self, scope: Scope, *, subject: str | None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """Newest first."""
        if cursor is not None and not re.fullmatch("[0-9]{1,18}", cursor):
            raise Refused(f"{cursor[:80]!r} is not a cursor: take it from `next` of the page before")
        before = None if cursor is None else int(cursor)
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                "SELECT * FROM events WHERE (%(subject)s::text IS NULL OR subject_id = %(subject)s)"
                " AND (%(before)s::bigint IS NULL OR event_no < %(before)s) ORDER BY event_no DESC LIMIT %(limit)s",
                {"subject": subject, "before": before, "limit": limit_of(limit) + 1},
            )
        shown = rows[: limit_of(limit)]
        more = str(shown[-1]["event_no"]) if len(rows) > len(shown) else None
        return [_event(row) for row in shown], more


def _run(row: Mapping[str, Any], scope: Scope, tenants: Mapping[str, str]) -> Row:
    spec = RunSpec.from_json(row["spec"])
    # A burn-in's figures have a door of their own; in a list of runs they would be most of it.
    result = {name: value for name, value in row["result"].items() if name != "figures"}
    return {
        **row,
        "result": result,
        "gpu": spec.asked_text,
        "nodes": spec.nodes,
        "wait": _wait(row, scope, tenants) if row["wait"] and row["state"] == "queued" else None,
        "why": _why(row, scope) if row["why"] else None,
    }


def _wait(row: Mapping[str, Any], scope: Scope, tenants: Mapping[str, str]) -> Row:
    if scope.tenant_id is not None:
        return for_tenant(row["wait"], scope.tenant_id)
    return named(row["wait"], tenants)


def _why(row: Mapping[str, Any], scope: Scope) -> Row:
    on, why = row["node_names"], row["why"]
    return why_named(why, on, {why["next_best"]: row["next_best"]}, sees_fleet=scope.tenant_id is None)


async def _tenant_names(session: Session, scope: Scope, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By id, where the asker may know who waits ahead of whom and somebody does."""
    if scope.tenant_id is not None or not any(row["wait"] and row["state"] == "queued" for row in rows):
        return {}
    return {
        row["tenant_id"]: row["name"]
        for row in await fetch_all(session, "SELECT tenant_id, name FROM tenants")
    }


def _event(row: Mapping[str, Any]) -> Row:
    return {**row, "subject": row["subject_id"]}


def _place(text: str | None) -> tuple[int, str]:
    if text is None:
        return 0, ""
    place, _, key = text.partition("|")
    if not re.fullmatch("[0-9]{1,9}", place):
        raise Refused(f"{text[:80]!r} is not a cursor: take it from `next` of the page before")
    return int(place), key
