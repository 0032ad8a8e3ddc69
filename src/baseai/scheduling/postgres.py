"""The queue in PostgreSQL: the snapshot a decision is made on, and the plan written down.

Each gang is written in a transaction of its own; one that went stale is refused by the exclusion constraint, or
by the run's state, alone. Committing a plan twice is the same as once.
"""

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from baseai.ground.identity import NodeId, RunId, TenantId, mint
from baseai.scheduling.plan import Grant, Plan, Wait
from baseai.scheduling.preemption.postgres import ask_to_make_room
from baseai.scheduling.sentence import change_phrase, sentence
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
NODE_SHARE_RATIO = 0.9  # of a node's memory that runs may ask for; the rest is the system's and ours
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A grant that was not written, and why: it is decided again on the next snapshot."""

    run_id: RunId
    why: str


class PostgresQueue:
    """What scheduling needs of the record of nodes, runs and leases."""

    def __init__(
        self, truth: Truth, models_matching: ModelsMatching, country_of: Callable[[str], str]
    ) -> None:
        self._truth = truth
        self._models_matching = models_matching
        self._country_of = country_of

    def demand(self, row: Row) -> Demand:
        return demand_of(
            RunSpec.from_json(row["spec"]),
            RunId(row["run_id"]),
            TenantId(row["tenant_id"]),
            self._models_matching,
        )

    async def snapshot(self, *, with_queue: bool = True) -> tuple[Snapshot, datetime]:
        """The fleet, its leases and the queue at the database's `now`."""
        async with self._truth.transaction(SCHEDULER) as session:
            now = await fetch_one(session, "SELECT now() AS at")
            nodes = await fetch_all(
                session,
                "SELECT n.*, n.seen_at > now() - interval '10 seconds' AS speaks, coalesce((SELECT jsonb_object_agg("
                "model, usable) FROM (SELECT model, count(*) AS usable FROM accelerators a WHERE a.node_id = n.node_id"
                " AND a.state = 'in_service' GROUP BY model) m), '{}') AS models"
                " FROM nodes n WHERE n.state <> 'retired' OR EXISTS"
                " (SELECT FROM leases l WHERE l.node_id = n.node_id AND l.state <> 'released')",
            )
            leases = await fetch_all(
                session,
                "SELECT l.*, r.kind, (SELECT count(*) FROM lease_accelerators la WHERE la.lease_id = l.lease_id)"
                " AS held FROM leases l JOIN runs r USING (run_id) WHERE l.state <> 'released'",
            )
            waiting: Sequence[Row] = []
            if with_queue:
                waiting = await fetch_all(session, "SELECT * FROM runs WHERE state = 'queued'")
        assert now is not None
        snapshot = snapshot_of(
            [self._node(row) for row in nodes],
            [_lease(row) for row in leases],
            [run for row in waiting if (run := self._waiting(row)) is not None],
        )
        return snapshot, now["at"]

    def _waiting(self, row: Row) -> WaitingRun | None:
        """The run as the queue knows it; None for one that asks for what the catalogue has lost since."""
        try:
            return WaitingRun(demand=self.demand(row), enqueued_at=row["enqueued_at"])
        except UnknownAccelerator as unknown:
            log.warning("%s waits unseen: %s", row["run_id"], unknown)
            return None

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
        for eviction in plan.evictions:
            async with self._truth.transaction(SCHEDULER) as session:
                await ask_to_make_room(
                    session,
                    eviction.run_id,
                    for_run=eviction.for_run,
                    lost_accelerator_s=eviction.lost_accelerator_s,
                )
        if plan.waits:
            async with self._truth.transaction(SCHEDULER) as session:
                for wait in plan.waits:
                    await session.execute(
                        "UPDATE runs SET wait = %(wait)s WHERE run_id = %(run)s AND state = 'queued'"
                        " AND wait IS DISTINCT FROM %(wait)s",
                        {"wait": Jsonb(wait_json(wait)), "run": wait.run_id},
                    )
        return stale

    async def _grant(self, session: Session, grant: Grant) -> str | None:
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
            "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'starting')",
            (run["run_id"], run["attempt_no"], run["tenant_id"], run["project_id"], len(grant.places), port),
        )
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

    def _node(self, row: Row) -> NodeRow:
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
        )


def _lease(row: Row) -> LeaseRow:
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
        yields=row["kind"] == BURN_IN,
    )


def wait_json(wait: Wait) -> dict[str, Any]:
    """A wait as it is stored with the run and shown by every door."""
    why = wait.explanation
    return {
        "position": wait.position,
        "ahead": wait.ahead,
        "code": wait.kind.value,
        "behind": wait.behind,
        "sentence": sentence(wait),
        "failing": {} if why is None else {name.value: count for name, count in why.nodes_failing},
        "change": None if why is None or why.change is None else change_phrase(why.change),
        "earliest_at": None if why is None or why.earliest_at is None else why.earliest_at.isoformat(),
        "latest_at": None if why is None or why.latest_at is None else why.latest_at.isoformat(),
    }
