"""The queue in PostgreSQL: the snapshot a decision is made on, and the plan written down.

Each gang is written in a transaction of its own; one that went stale is refused by the exclusion constraint, or
by the run's state, alone. Committing a plan twice is the same as once.
"""

import logging
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from baseai.fleet.fabric.mount import Mount
from baseai.fleet.fabric.postgres import load_mounts
from baseai.ground.identity import NodeId, RunId, TenantId, mint
from baseai.scheduling.booked.postgres.rows import load_calendar_no, load_claims, unchanged
from baseai.scheduling.fleet import Fleet, fleet_of
from baseai.scheduling.plan import Grant, Plan, Wait
from baseai.scheduling.preemption.postgres import ask_to_make_room, load_saved
from baseai.scheduling.queue_tree import QueueTree, weighed
from baseai.scheduling.queues.postgres import load_tree, load_usage
from baseai.scheduling.record import Record, promised_in, wait_of, wait_record, why_record
from baseai.scheduling.snapshot import UNTRIED, LeaseRow, NodeRow, Snapshot, WaitingRun, snapshot_of
from baseai.truth.history import record
from baseai.truth.session import Overlap, Scope, Session, Truth, TruthUnavailable, fetch_all, fetch_one
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.demand import Demand, ModelsMatching, UnknownAccelerator, demand_of
from baseai.workloads.spec import RunSpec

log = logging.getLogger(__name__)

SCHEDULER = Scope(tenant_id=None, actor="scheduler")
PORTS = range(20_000, 28_000)  # rendezvous ports; below the usual ephemeral range
# A silent node keeps its leases and receives none; it may be back in a moment.
WHILE_SILENT: Mapping[str, str] = {"ready": "cordoned", "burn_in": "onboarding", "verifying": "repairing"}
USAGE_KEPT = timedelta(minutes=10)  # what queues had is read from all leases of weeks, so not in every cycle
NODE_SHARE_RATIO = 0.9  # of a node's memory that runs may ask for; the rest is the system's and ours
Row = dict[str, Any]

NODES = """
SELECT n.*, n.seen_at > now() - interval '10 seconds' AS speaks, coalesce((SELECT jsonb_object_agg(model, usable)
  FROM (SELECT model, count(*) AS usable FROM accelerators a WHERE a.node_id = n.node_id AND a.state = 'in_service'
  GROUP BY model) m), '{}') AS models
FROM nodes n WHERE n.state <> 'retired' OR EXISTS
  (SELECT FROM leases l WHERE l.node_id = n.node_id AND l.state <> 'released')
"""
LEASES = """
SELECT l.*, r.kind, r.queue, r.priority, r.spot, r.enqueued_at,
  coalesce((r.spec->>'min_runtime_s')::integer, 0) AS min_runtime_s,
  a.stop AND a.reason = 'preempted' AS makes_room,
  (SELECT count(*) FROM lease_accelerators la WHERE la.lease_id = l.lease_id) AS held
FROM leases l JOIN attempts a USING (run_id, attempt_no) JOIN runs r ON r.run_id = l.run_id WHERE l.state <> 'released'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A grant that was not written, and why: it is decided again on the next snapshot."""

    run_id: RunId
    why: str


class PostgresQueue:
    """What scheduling needs of the record of nodes, runs and leases."""

    def __init__(
        self,
        truth: Truth,
        models_matching: ModelsMatching,
        country_of: Callable[[str], str],
        *,
        watts: Mapping[str, int],
        worth: Callable[[], Mapping[str, float]],
    ) -> None:
        """watts: of one accelerator of each model at work. worth: US$ an accelerator-hour of each model, today."""
        self._truth = truth
        self._models_matching = models_matching
        self._country_of = country_of
        self._watts = watts
        self._worth = worth
        self._demands: dict[RunId, Demand] = {}  # of those that wait: a spec never changes
        self._told: dict[RunId, Record] = {}  # what is written of each wait
        self._fleet: Fleet | None = None
        self._usage: tuple[QueueTree, Mapping[str, Mapping[str, float]], datetime] | None = None
        self._calendar_no: int | None = None  # of what was booked when the last snapshot was taken

    def demand(self, row: Row) -> Demand:
        return demand_of(
            RunSpec.from_json(row["spec"]),
            RunId(row["run_id"]),
            TenantId(row["tenant_id"]),
            self._models_matching,
        )

    async def snapshot(self) -> tuple[Snapshot, datetime]:
        """The fleet, its leases, the queue and what was agreed about them, at the database's `now`."""
        async with self._truth.transaction(SCHEDULER) as session:
            now = await fetch_one(session, "SELECT now() AS at")
            assert now is not None
            nodes = await self._nodes(session)
            saved = await load_saved(session)
            leases = [_lease(row, saved.get(row["run_id"])) for row in await fetch_all(session, LEASES)]
            waiting = await fetch_all(session, "SELECT * FROM runs WHERE state = 'queued'")
            tree = await load_tree(session)
            usage, usage_at = await self._usage_of(session, tree, now["at"])
            self._calendar_no = await load_calendar_no(session)
            calendar = await load_claims(session)
        worth = self._worth()
        self._forget({RunId(row["run_id"]) for row in waiting})
        snapshot = snapshot_of(
            nodes,
            leases,
            [run for row in waiting if (run := self._waiting(row)) is not None],
            tree=tree,
            usage_s={leaf: weighed(amounts, worth) for leaf, amounts in usage.items()},
            usage_at_s=usage_at.timestamp(),
            calendar=calendar,
            watts=self._watts,
            worth=worth,
        )
        return snapshot, now["at"]

    async def _usage_of(
        self, session: Session, tree: QueueTree, now: datetime
    ) -> tuple[Mapping[str, Mapping[str, float]], datetime]:
        """What queues had lately, and when that was read: whoever keeps shares goes on from there by himself."""
        if self._usage is None or self._usage[0] != tree or now - self._usage[2] > USAGE_KEPT:
            self._usage = tree, await load_usage(session, now, tree), now
        return self._usage[1:]

    async def fleet(self) -> Fleet:
        """All nodes with nothing on them, to say whether a run could ever start."""
        async with self._truth.transaction(SCHEDULER) as session:
            nodes = tuple(await self._nodes(session))
        if self._fleet is None or self._fleet.nodes != nodes:
            self._fleet = fleet_of(nodes, self._watts)
        return self._fleet

    async def _nodes(self, session: Session) -> list[NodeRow]:
        mounts = await load_mounts(session)
        rows = await fetch_all(session, NODES)
        return [self._node(row, mounts.get(row["node_id"], Mount())) for row in rows]

    def _waiting(self, row: Row) -> WaitingRun | None:
        """The run as the queue knows it; None for one that asks for what the catalogue has lost since."""
        run_id = RunId(row["run_id"])
        try:
            demand = self._demands.get(run_id)
            if demand is None:
                demand = self._demands[run_id] = self.demand(row)
        except UnknownAccelerator as unknown:
            log.warning("%s waits unseen: %s", run_id, unknown)
            return None
        promised = promised_in(row["wait"] or {})
        return WaitingRun(demand=demand, enqueued_at=row["enqueued_at"], **promised)

    def _forget(self, still: Container[RunId]) -> None:
        """Of runs that do not wait any more nothing is kept."""
        for kept in (self._demands, self._told):
            for run_id in [run_id for run_id in kept if run_id not in still]:
                del kept[run_id]

    async def commit(self, plan: Plan) -> Sequence[Refused]:
        """Write each gang's leases, and each wait's reason. The runs whose grant went stale come back."""
        stale = []
        for grant in plan.grants:
            try:
                async with self._truth.transaction(SCHEDULER) as session:
                    why = await self._grant(session, grant)
            except (
                Overlap,
                TruthUnavailable,
            ) as wrong:  # a deadlock is the latter; what is lost is asked for again
                why = str(wrong)
            if why is not None:
                stale.append(Refused(run_id=grant.run_id, why=why))
            self._told.pop(grant.run_id, None)
        for eviction in plan.evictions:
            async with self._truth.transaction(SCHEDULER) as session:
                await ask_to_make_room(
                    session,
                    eviction.run_id,
                    for_run=eviction.for_run,
                    lost_accelerator_s=eviction.lost_accelerator_s,
                )
        await self._tell(plan.waits)
        return stale

    async def _tell(self, waits: Sequence[Wait]) -> None:
        """Write why each run waits, where that is new."""
        news = {}
        for wait in waits:
            record = wait_record(self._with_explanation(wait))
            if self._told.get(wait.run_id) != record:
                news[wait.run_id] = record
        if not news:
            return
        async with self._truth.transaction(SCHEDULER) as session:
            await session.execute(
                "UPDATE runs r SET wait = v.wait FROM unnest(%s::text[], %s::jsonb[]) AS v (run_id, wait)"
                " WHERE r.run_id = v.run_id AND r.state = 'queued' AND r.wait IS DISTINCT FROM v.wait",
                (list(news), [Jsonb(record) for record in news.values()]),
            )
        self._told.update(news)

    def _with_explanation(self, wait: Wait) -> Wait:
        """The wait, with what was last said of it where this cycle had no time to work it out."""
        told = self._told.get(wait.run_id)
        if wait.explanation is not None or told is None or told["code"] != wait.kind.value:
            return wait
        return replace(wait, explanation=wait_of(wait.run_id, told).explanation)

    async def _grant(self, session: Session, grant: Grant) -> str | None:
        if self._calendar_no is not None and not await unchanged(session, self._calendar_no):
            return "more was booked of the future meanwhile"
        run = await fetch_one(
            session,
            "UPDATE runs SET state = 'starting', reason = 'granted', sentence = NULL, attempt_no = attempt_no + 1,"
            " wait = NULL WHERE run_id = %s AND state = 'queued' RETURNING *",
            (grant.run_id,),
        )
        if run is None:
            return "it left the queue meanwhile"
        ready = await fetch_all(
            session,
            "SELECT node_id FROM nodes WHERE node_id = ANY(%s) AND state = ANY(%s) ORDER BY node_id FOR SHARE",
            (
                [node_id for node_id, _, _ in grant.places],
                ["ready", *UNTRIED] if run["kind"] == BURN_IN else ["ready"],
            ),
        )
        if len(ready) != len(grant.places):
            raise Overlap("a node of it left the state ready meanwhile")
        demand = self.demand(dict(run))
        port = await self._free_port(session, grant, run["attempt_no"])
        await session.execute(
            "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state, why)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'starting', %s)",
            (run["run_id"], run["attempt_no"], run["tenant_id"], run["project_id"], len(grant.places), port,
             None if grant.why is None else Jsonb(why_record(grant.why, [node_id for node_id, _, _ in grant.places]))),
        )  # fmt: skip
        for rank, (node_id, model, count) in enumerate(grant.places):
            lease_id = mint("lea")
            await session.execute(
                "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model,"
                " state, ends_at, memory_mib, disk_mib, cores) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'granted',"
                " greatest(%s, now() + interval '1 second'), %s, %s, %s)",
                (lease_id, run["tenant_id"], run["project_id"], run["run_id"], run["attempt_no"], node_id, rank, model,
                 grant.ends_at, demand.memory_mib, demand.disk_mib, demand.cpu_milli // 1000),
            )  # fmt: skip
            leased = await session.execute(
                "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
                " SELECT l.lease_id, a.accelerator_no, l.tenant_id, l.project_id, tstzrange(l.granted_at, l.ends_at)"
                " FROM leases l, accelerators a WHERE l.lease_id = %s AND a.node_id = l.node_id AND a.model = l.model"
                " AND a.state = 'in_service' AND NOT EXISTS (SELECT FROM lease_accelerators h"
                " WHERE h.accelerator_no = a.accelerator_no AND h.during && tstzrange(l.granted_at, l.ends_at))"
                " ORDER BY a.accelerator_no LIMIT %s",
                (lease_id, count),
            )
            if leased.rowcount != count:
                raise Overlap(f"{count} {model} were free on {node_id}, {leased.rowcount} still are")
            await record(
                session, "lease", lease_id, "grant", actor="scheduler", tenant_id=run["tenant_id"],
                project_id=run["project_id"], to_state="granted", sentence=f"{count} {model} on {node_id}",
            )  # fmt: skip
        await session.execute(
            "UPDATE nodes SET desired_version = desired_version + 1 WHERE node_id = ANY(%s)",
            (sorted(node_id for node_id, _, _ in grant.places),),
        )
        await record(
            session, "run", run["run_id"], "grant", actor="scheduler", tenant_id=run["tenant_id"],
            project_id=run["project_id"], from_state="queued", to_state="starting", reason="granted",
            sentence=f"attempt {run['attempt_no']}",
        )  # fmt: skip
        return None

    async def _free_port(self, session: Session, grant: Grant, attempt_no: int) -> int:
        """A rendezvous port that no other attempt on the first node holds; spread, so that strangers rarely hit it."""
        first = grant.places[0][0]
        taken = {
            row["rendezvous_port"]
            for row in await fetch_all(
                session,
                "SELECT a.rendezvous_port FROM leases l JOIN attempts a USING (run_id, attempt_no)"
                " WHERE l.node_id = %s AND l.state <> 'released'",
                (first,),
            )
        }
        start = zlib.crc32(f"{grant.run_id}/{attempt_no}".encode()) % len(PORTS)
        # A launcher may take the port above as well.
        return next(
            port
            for offset in range(0, len(PORTS), 2)
            if (port := PORTS[(start // 2 * 2 + offset) % len(PORTS)]) not in taken
        )

    def _node(self, row: Row, mount: Mount) -> NodeRow:
        slots = row["models"].get("cpu-slot", 0)
        return NodeRow(
            node_id=NodeId(row["node_id"]),
            site=row["site_id"],
            country=self._country_of(row["site_id"]),
            state=str(row["state"] if row["speaks"] else WHILE_SILENT.get(row["state"], row["state"])),
            isolation=row["isolation"],
            has_container_runtime=row["container_runtime"] is not None,
            memory_mib=int(row["memory_mib"] * NODE_SHARE_RATIO),
            disk_mib=row["disk_mib"],
            cpu_milli=max(0, row["cores"] - slots) * 1000,
            accelerators=tuple(sorted(row["models"].items())),
            rack=mount.rack or "",
            watts=mount.watts,
            leaf=mount.leaf or "",
            pod=mount.pod or "",
            simulated=row["simulated"],
        )


def _lease(row: Row, saved_at: datetime | None) -> LeaseRow:
    return LeaseRow(
        run_id=RunId(row["run_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        node_id=NodeId(row["node_id"]),
        model=row["model"],
        count=row["held"],
        memory_mib=row["memory_mib"],
        disk_mib=row["disk_mib"],
        cpu_milli=row["cores"] * 1000,
        ends_at=row["ends_at"],
        yields=row["kind"] == BURN_IN or row["makes_room"],
        enqueued_at=row["enqueued_at"],
        granted_at=row["granted_at"],
        saved_at=saved_at,
        queue=row["queue"],
        priority=row["priority"],
        spot=row["spot"],
        min_runtime_s=row["min_runtime_s"],
    )
