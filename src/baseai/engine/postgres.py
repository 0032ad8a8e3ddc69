"""Orders, reports and attempts in PostgreSQL: what nodes are told, what they tell, what follows.

All of it runs on short transactions; the decision what follows is `judge`'s. Instants of a node's clock are moved
to the database's clock by the report's own `sent_at`, then clipped to the lease.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from psycopg.types.json import Jsonb

from baseai.engine.attempt import Judgement, Part, Retry, judge
from baseai.engine.order import NodeReport, Order, OrderedDevice, OrderedFile, Orders, Sighting, Taken
from baseai.fleet.lease import LeaseState, clipped
from baseai.fleet.node import SILENT_AFTER_S, NodeState
from baseai.ground.fault import Conflict, NotFound
from baseai.scheduling.preemption.postgres import note_loss
from baseai.tenancy.replica_token import replica_token
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.burn import BurnIn
from baseai.workloads.model import model_source_of
from baseai.workloads.reason import Reason
from baseai.workloads.run import RunEvent, RunState, moved
from baseai.workloads.service import Service
from baseai.workloads.spec import RunSpec
from baseai.workloads.task import Task
from baseai.workloads.train import Train

log = logging.getLogger(__name__)

STOP_GRACE_S = 20.0
YIELD_GRACE_S = 2.0  # of what yields: it keeps nothing, and somebody waits for its accelerators
WORKER_RESTARTS_MAX = 100  # by the launcher itself, within one attempt
INTERRUPTIONS_MAX = 50  # attempts lost to the platform; a bound, not a budget
CHECKPOINT_GRACE_MAX_S = 600.0  # what a run may take for its last checkpoint when it goes on elsewhere
DRAIN_GRACE_MAX_S = 300.0  # what a replica may take beyond that for the requests under way
LEAVING = (
    NodeState.DRAINING,
    NodeState.REPAIRING,
    NodeState.QUARANTINED,
    NodeState.RMA,
)  # nothing stays there
SAVES_FIRST = (Reason.DRAINED, Reason.PREEMPTED)  # why a run is asked for a last checkpoint: it goes on later
CONTROLLER = Scope(tenant_id=None, actor="controller")
Row = dict[str, Any]


class SecretBox(Protocol):
    def open_secrets(self, rows: Sequence[Row]) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where runs keep what outlives an attempt."""

    checkpoints: Callable[[str], str]  # run id → folder
    outputs: Callable[[str], str]


class Engine:
    """What nodes are told and tell."""

    def __init__(self, truth: Truth, secrets: SecretBox, places: Places, *, replica_key: bytes) -> None:
        self._truth = truth
        self._secrets = secrets
        self._places = places
        self._replica_key = replica_key  # the gateways' own: of what they show replicas

    # ---- towards the nodes

    async def desired_version(self, node_id: str) -> int:
        async with self._truth.transaction(CONTROLLER) as session:
            row = await fetch_one(session, "SELECT desired_version FROM nodes WHERE node_id = %s", (node_id,))
        if row is None:
            raise NotFound("node", node_id)
        return int(row["desired_version"])

    async def orders(self, node_id: str) -> Orders:
        """All that the node shall run, as one consistent picture."""
        async with self._truth.transaction(CONTROLLER) as session:
            node = await fetch_one(
                session,
                # A question may be answered long after its asker fell silent: only reports say that a node lives.
                "SELECT desired_version, state FROM nodes WHERE node_id = %s",
                (node_id,),
            )
            if node is None:
                raise NotFound("node", node_id)
            rows = await fetch_all(
                session,
                "SELECT l.*, extract(epoch FROM l.ends_at - now())::float8 AS ends_in_s, a.nodes, a.rendezvous_port,"
                " a.stop, a.reason AS attempt_reason, r.name, r.kind, r.spec, r.files, r.service_id, r.version_no,"
                " r.started_at AS run_started_at"
                " FROM leases l JOIN attempts a USING (run_id, attempt_no) JOIN runs r USING (run_id)"
                " WHERE l.node_id = %s AND l.state <> 'released' ORDER BY l.granted_at, l.lease_id",
                (node_id,),
            )
            orders = [await self._order(session, row) for row in rows]
        return Orders(
            version=node["desired_version"], node_id=node_id, node_state=node["state"], orders=tuple(orders)
        )

    async def _order(self, session: Session, row: Row) -> Order:
        spec = RunSpec.from_json(row["spec"])
        grace_s = YIELD_GRACE_S if isinstance(spec.work, BurnIn) else STOP_GRACE_S
        if isinstance(spec.work, Service):
            # The requests under way are answered first; of a short run that may not be all its time.
            grace_s += min(spec.work.timeout_s, DRAIN_GRACE_MAX_S, spec.max_duration_s / 4)
        stop_grace_s = grace_s
        if row["stop"] and row["attempt_reason"] in SAVES_FIRST and not isinstance(spec.work, BurnIn):
            stop_grace_s = max(grace_s, await _checkpoint_grace_s(session, row["run_id"]))
        devices = await fetch_all(
            session,
            "SELECT c.accelerator_id, c.model, c.device_index FROM lease_accelerators JOIN accelerators c"
            " USING (accelerator_no) WHERE lease_id = %s ORDER BY accelerator_no",
            (row["lease_id"],),
        )
        peers = await fetch_all(
            session,
            "SELECT n.address FROM leases JOIN nodes n USING (node_id) WHERE run_id = %s AND attempt_no = %s"
            " ORDER BY node_rank",
            (row["run_id"], row["attempt_no"]),
        )
        sealed = await fetch_all(
            session,
            "SELECT name, project_id, ciphertext FROM secrets WHERE project_id = %s AND name = ANY(%s)",
            (row["project_id"], list(spec.secrets)),
        )
        train = None
        if isinstance(spec.work, Train):
            train = {
                **spec.work.to_json(),
                "workers": spec.work.workers or len(devices),
                "max_restarts": WORKER_RESTARTS_MAX,
                "seed": spec.work.config.get("seed", 0),
                "grace_s": CHECKPOINT_GRACE_MAX_S,  # how long it really has, its agent says
            }
        return Order(
            lease_id=row["lease_id"],
            run_id=row["run_id"],
            run_name=row["name"],
            tenant_id=row["tenant_id"],
            attempt_no=row["attempt_no"],
            kind=row["kind"],
            commands=spec.work.commands if isinstance(spec.work, Task) else (),
            train=train,
            burn_in=spec.work.to_json() if isinstance(spec.work, BurnIn) else None,
            service=await self._replica(session, row, spec.work) if isinstance(spec.work, Service) else None,
            env=dict(spec.env),
            secrets=self._secrets.open_secrets(sealed),
            files=tuple(OrderedFile(**file) for file in row["files"]),
            working_dir=spec.working_dir,
            image=spec.image,
            devices=tuple(
                OrderedDevice(
                    accelerator_id=device["accelerator_id"],
                    model=device["model"],
                    index=device["device_index"],
                )
                for device in devices
            ),
            memory_mib=row["memory_mib"] or None,
            node_rank=row["node_rank"],
            nodes=row["nodes"],
            addresses=tuple(peer["address"] for peer in peers),
            rendezvous_port=row["rendezvous_port"],
            checkpoint_folder=self._places.checkpoints(row["run_id"]),
            output_folder=self._places.outputs(row["run_id"]),
            run_started_at=row["run_started_at"],
            ends_at=row["ends_at"],
            ends_in_s=row["ends_in_s"] - grace_s,
            stop=row["stop"],
            stop_reason=row["attempt_reason"] if row["stop"] else None,
            stop_grace_s=stop_grace_s,
        )

    async def _replica(self, session: Session, row: Row, work: Service) -> Row:
        """A replica's part of its order, with where the run of `run:NAME` keeps what it made."""
        asked: Row = {
            "terms": work.to_json(),
            "service_id": row["service_id"],
            "version_no": row["version_no"],
            "token": replica_token(self._replica_key, row["run_id"]),
        }
        source = None if work.model is None else model_source_of(work.model)
        if source is None or source.kind != "run":
            return asked
        made = await fetch_one(
            session,
            "SELECT run_id, state, spec FROM runs WHERE project_id = %(project)s AND %(name)s IN (run_id, name)"
            " AND kind IN ('train', 'task')"
            " ORDER BY run_id = %(name)s DESC, state = 'succeeded' DESC, submitted_at DESC LIMIT 1",
            {"project": row["project_id"], "name": source.place},
        )
        if made is None:
            return asked
        asked["model_run_id"] = made["run_id"]
        trained = RunSpec.from_json(made["spec"]).work
        if made["state"] == "succeeded":
            asked["model_path"] = self._places.outputs(made["run_id"])
        elif isinstance(trained, Train):
            asked["model_checkpoints"] = {
                "folder": self._places.checkpoints(made["run_id"]),
                "recipe": trained.recipe,
                "config": dict(trained.config),
            }
        return asked

    # ---- from the nodes

    async def take(self, node_id: str, report: NodeReport) -> Taken:
        """Write down what a node saw. Taking a report twice is the same as once.

        Sightings of a lease that is not this node's, or of an attempt that is over, are refused for good.
        """
        accepted: list[str] = []
        refused: dict[str, str] = {}
        async with self._truth.transaction(Scope(tenant_id=None, actor=f"node {node_id}")) as session:
            node = await fetch_one(
                session,
                "UPDATE nodes SET seen_at = now(), boot_id = %s WHERE node_id = %s"
                " RETURNING desired_version, now() - %s AS skew, now() AS at",
                (report.boot_id, node_id, report.sent_at),
            )
            if node is None:
                raise NotFound("node", node_id)
            leases = {
                row["lease_id"]: row
                for row in await fetch_all(
                    session,
                    "SELECT l.*, r.attempt_no AS run_attempt_no FROM leases l JOIN runs r USING (run_id)"
                    " WHERE l.node_id = %s AND (l.state <> 'released' OR l.lease_id = ANY(%s)) ORDER BY lease_id"
                    " FOR UPDATE OF l",
                    (node_id, [sighting.lease_id for sighting in report.sightings]),
                )
            }
            for sighting in report.sightings:
                lease = leases.get(sighting.lease_id)
                why = _unwanted(lease, sighting)
                if why is not None:
                    refused[sighting.event_id] = why
                    continue
                assert lease is not None
                at = clipped(
                    sighting.at + node["skew"], granted_at=lease["granted_at"], ends_at=lease["ends_at"]
                )
                await self._note(session, lease, sighting, min(at, node["at"]))
                accepted.append(sighting.event_id)
            for lease_id, pid in report.alive:
                if lease_id in leases:
                    await self._confirm(session, lease_id, pid)
            for lease_id in report.gone:
                if lease_id in leases:
                    await self._release(session, lease_id, node["at"])
            version = await fetch_one(
                session, "SELECT desired_version FROM nodes WHERE node_id = %s", (node_id,)
            )
        assert version is not None
        return Taken(
            accepted=tuple(accepted), refused=refused, desired_version=int(version["desired_version"])
        )

    async def _note(self, session: Session, lease: Row, sighting: Sighting, at: datetime) -> None:
        if sighting.kind == "progress":
            await self._note_progress(session, lease, sighting, at)
            return
        fresh = await fetch_one(
            session,
            "INSERT INTO observations (event_id, lease_id, node_id, at, kind, body) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING event_id",
            (
                sighting.event_id,
                lease["lease_id"],
                lease["node_id"],
                at,
                sighting.kind,
                Jsonb(
                    {
                        "pid": sighting.pid,
                        "exit_code": sighting.exit_code,
                        "reason": sighting.reason,
                        "sentence": sighting.sentence,
                    }
                ),
            ),
        )
        if fresh is None:
            return
        if sighting.kind == "started":
            await session.execute(
                "UPDATE leases SET observed_from = coalesce(observed_from, %s),"
                " observed_until = greatest(observed_until, %s), pid = %s,"
                " state = CASE WHEN state IN ('granted', 'unconfirmed') THEN 'active' ELSE state END"
                " WHERE lease_id = %s",
                (at, at, sighting.pid, lease["lease_id"]),
            )
        elif sighting.kind in ("exited", "not_started"):
            reason = sighting.reason or ("finished" if sighting.exit_code == 0 else "command_failed")
            await session.execute(
                "UPDATE leases SET observed_until = CASE WHEN observed_from IS NULL THEN NULL"
                " ELSE greatest(observed_from + interval '1 microsecond', least(%s, ends_at)) END,"
                " exit_code = %s, exit_reason = coalesce(exit_reason, %s),"
                " exit_sentence = coalesce(exit_sentence, %s) WHERE lease_id = %s",
                (at, sighting.exit_code, reason, sighting.sentence, lease["lease_id"]),
            )

    async def _note_progress(self, session: Session, lease: Row, sighting: Sighting, at: datetime) -> None:
        body = sighting.payload
        where = (
            sighting.event_id,
            lease["run_id"],
            lease["tenant_id"],
            lease["project_id"],
            lease["attempt_no"],
        )
        kind = body.get("kind")
        if kind == "step":
            fresh = await fetch_one(
                session,
                "INSERT INTO run_points (event_id, run_id, tenant_id, project_id, attempt_no, restart, step, at, loss,"
                " tokens_per_s, step_ms, sync_ratio, goodput_ratio)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING RETURNING event_id",
                (*where, body.get("restart", 0), body["step"], at, body.get("loss"), body.get("tokens_per_s"),
                 body.get("step_ms"), body.get("sync_ratio"), body.get("goodput_ratio")),
            )  # fmt: skip
        elif kind == "checkpoint":
            # The fence: the attempt was checked in _unwanted; an older one gets no row and is never resumed from.
            fresh = await fetch_one(
                session,
                "INSERT INTO checkpoints (event_id, run_id, tenant_id, project_id, attempt_no, step, path, digest,"
                " bytes, save_s, stall_ms, committed_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING RETURNING event_id",
                (*where, body["step"], body["path"], body["digest"], body["bytes"], body["save_s"],
                 body["stall_ms"], at),
            )  # fmt: skip
        else:
            fresh = await fetch_one(
                session,
                "INSERT INTO observations (event_id, lease_id, node_id, at, kind, body)"
                " VALUES (%s, %s, %s, %s, 'progress', %s) ON CONFLICT DO NOTHING RETURNING event_id",
                (sighting.event_id, lease["lease_id"], lease["node_id"], at, Jsonb(body)),
            )
        if fresh is None:
            return
        run = await fetch_one(
            session,
            "UPDATE runs SET progress = CASE WHEN %s IN ('step', 'started', 'stage') THEN progress || %s ELSE progress"
            " END,"
            " result = CASE WHEN %s = 'result' THEN %s ELSE result END,"
            " restarts = restarts + (CASE WHEN %s = 'restart' THEN 1 ELSE 0 END) WHERE run_id = %s RETURNING *",
            (kind, Jsonb(body), kind, Jsonb(body), kind, lease["run_id"]),
        )
        assert run is not None
        if kind == "restart":
            await move_run(
                session, run, RunEvent.RECOVER, Reason.WORKER_LOST, actor="agent", sentence=body.get("reason")
            )
        elif kind in ("step", "started") and run["state"] == "recovering" and not await _halted(session, run):
            await move_run(session, run, RunEvent.BEGIN, Reason.RECOVERED, actor="agent", sentence=None)

    async def _confirm(self, session: Session, lease_id: str, pid: int) -> None:
        await session.execute(
            "UPDATE leases SET observed_until = CASE WHEN exit_reason IS NULL AND observed_from IS NOT NULL"
            " THEN greatest(observed_until, least(now(), ends_at)) ELSE observed_until END,"
            " state = CASE WHEN state = 'unconfirmed' AND observed_from IS NOT NULL THEN 'active' ELSE state END,"
            " pid = %s WHERE lease_id = %s AND state <> 'released'",
            (pid, lease_id),
        )

    async def _release(self, session: Session, lease_id: str, at: datetime) -> None:
        """End a lease whose processes are gone: the accelerators are free from this instant."""
        row = await fetch_one(
            session,
            "UPDATE leases SET state = 'released', released_at = least(%(at)s, ends_at),"
            " exit_reason = coalesce(exit_reason,"
            " CASE WHEN ends_at <= %(at)s THEN 'lease_ended' ELSE 'process_lost' END)"
            " WHERE lease_id = %(lease)s AND state <> 'released' RETURNING *",
            {"at": at, "lease": lease_id},
        )
        if row is None:
            return
        await session.execute(
            "UPDATE lease_accelerators SET during = tstzrange(lower(during),"
            " greatest(least(%s, upper(during)), lower(during) + interval '1 microsecond')) WHERE lease_id = %s",
            (at, lease_id),
        )
        await _bump(session, [row["node_id"]])
        await record(
            session, "lease", lease_id, "release", actor="agent", tenant_id=row["tenant_id"],
            project_id=row["project_id"], to_state=LeaseState.RELEASED.value, reason=row["exit_reason"],
            sentence=row["exit_sentence"],
        )  # fmt: skip

    async def log_place(self, node_id: str, lease_id: str) -> tuple[str, int, int]:
        """Run, attempt and node rank whose log a lease of this node writes. Raises NotFound."""
        async with self._truth.transaction(CONTROLLER) as session:
            row = await fetch_one(
                session,
                "SELECT run_id, attempt_no, node_rank FROM leases WHERE lease_id = %s AND node_id = %s",
                (lease_id, node_id),
            )
        if row is None:
            raise NotFound("lease", lease_id)
        return row["run_id"], row["attempt_no"], row["node_rank"]

    # ---- what follows

    async def settle(self) -> int:
        """Judge every attempt that is not over and carry the judgement out; how many runs moved."""
        async with self._truth.transaction(CONTROLLER) as session:
            live = await fetch_all(
                session, "SELECT run_id FROM attempts WHERE state <> 'ended' ORDER BY granted_at"
            )
        changed = 0
        for row in live:
            async with self._truth.transaction(CONTROLLER) as session:
                changed += await self._settle_run(session, row["run_id"])
        return changed

    async def _settle_run(self, session: Session, run_id: str) -> int:
        run = await fetch_one(
            session, "SELECT * FROM runs WHERE run_id = %s FOR UPDATE SKIP LOCKED", (run_id,)
        )
        if run is None:
            return 0
        attempt = await fetch_one(
            session, "SELECT * FROM attempts WHERE run_id = %s AND state <> 'ended'", (run_id,)
        )
        if attempt is None:
            return 0
        leases = await fetch_all(
            session,
            "SELECT * FROM leases WHERE run_id = %s AND attempt_no = %s ORDER BY node_rank",
            (run_id, attempt["attempt_no"]),
        )
        spec = RunSpec.from_json(run["spec"])
        judgement = judge(
            RunState(run["state"]),
            [_part(lease, attempt["reason"] if attempt["stop"] else None) for lease in leases],
            stop=Reason(run["stop_reason"]) if run["stop_reason"] else None,
            halted=attempt["stop"],
            drained=await _drained(session, leases),
            retry=_retry(spec, run, await _now(session)),
            errors=run["errors"],
            interruptions=run["interruptions"],
        )
        if judgement.idle:
            return 0
        await self._carry_out(session, run, attempt, leases, judgement)
        return 1

    async def _carry_out(
        self, session: Session, run: Row, attempt: Row, leases: Sequence[Row], judgement: Judgement
    ) -> None:
        reason = judgement.reason or Reason.STARTED
        if judgement.over and attempt["reason"] == Reason.PREEMPTED:
            lost = await note_loss(
                session, run["run_id"], attempt["attempt_no"], finished=reason is Reason.FINISHED
            )
            if lost is not None and reason is Reason.PREEMPTED:
                judgement = replace(judgement, sentence=lost)
        for event in judgement.moves:
            told = Reason.STARTED if event is RunEvent.BEGIN else reason
            run = await move_run(session, run, event, told, actor="controller", sentence=judgement.sentence)
        if RunEvent.BEGIN in judgement.moves:
            await session.execute(
                "UPDATE attempts SET state = 'running', started_at = %s WHERE run_id = %s AND attempt_no = %s"
                " AND state = 'starting'",
                (min(lease["observed_from"] for lease in leases), run["run_id"], attempt["attempt_no"]),
            )
        if judgement.halt is not None:
            await session.execute(
                "UPDATE attempts SET stop = true, reason = %s WHERE run_id = %s AND attempt_no = %s",
                (judgement.halt.value, run["run_id"], attempt["attempt_no"]),
            )
            await _bump(session, [lease["node_id"] for lease in leases])
        if judgement.over:
            await session.execute(
                "UPDATE attempts SET state = 'ended', reason = %s, sentence = %s, ended_at = now()"
                " WHERE run_id = %s AND attempt_no = %s",
                (reason.value, judgement.sentence, run["run_id"], attempt["attempt_no"]),
            )
            if judgement.counts is not None:
                column = {"error": "errors", "interruption": "interruptions"}[judgement.counts]
                await session.execute(
                    f"UPDATE runs SET {column} = {column} + 1 WHERE run_id = %s",  # noqa: S608
                    (run["run_id"],),
                )

    async def watch(self) -> None:
        """Lose sight of silent nodes' leases, and end those whose time is over."""
        async with self._truth.transaction(CONTROLLER) as session:
            await session.execute(
                "UPDATE leases l SET state = 'unconfirmed' FROM nodes n WHERE n.node_id = l.node_id"
                " AND l.state IN ('granted', 'active') AND n.seen_at < now() - %s",
                (timedelta(seconds=SILENT_AFTER_S),),
            )
            over = await fetch_all(
                session,
                "SELECT lease_id FROM leases WHERE state <> 'released' AND ends_at <= now() FOR UPDATE",
            )
            for row in over:
                await self._release(session, row["lease_id"], await _now(session))

    async def declare_dead(self, node_id: str, *, actor: str, reason: str | None = None) -> int:
        """An operator's word that a silent node's processes are gone: its leases end now.

        Raises Conflict if it speaks.
        """
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            node = await fetch_one(
                session,
                "SELECT node_id, name, seen_at > now() - %s AS speaks FROM nodes WHERE node_id = %s OR name = %s",
                (timedelta(seconds=SILENT_AFTER_S), node_id, node_id),
            )
            if node is None:
                raise NotFound("node", node_id)
            if node["speaks"]:
                raise Conflict(f"{node['name']} answers: drain it instead")
            held = await fetch_all(
                session,
                "UPDATE leases SET exit_reason = coalesce(exit_reason, 'node_lost') WHERE node_id = %s"
                " AND state <> 'released' RETURNING lease_id",
                (node["node_id"],),
            )
            for row in held:
                await self._release(session, row["lease_id"], await _now(session))
            await record(session, "node", node["node_id"], "declared_dead", actor=actor, sentence=reason)
        return len(held)


async def move_run(
    session: Session, run: Row, event: RunEvent, reason: Reason, *, actor: str, sentence: str | None
) -> Row:
    """Move a run and write the event; the row as it is afterwards. A move that comes too late changes nothing."""
    target = moved(RunState(run["state"]), event)
    if target is None:
        return run
    after = await fetch_one(
        session,
        "UPDATE runs SET state = %(to)s, reason = %(reason)s, sentence = %(sentence)s,"
        " started_at = CASE WHEN %(to)s = 'running' THEN coalesce(started_at, now()) ELSE started_at END,"
        " ended_at = CASE WHEN %(to)s IN ('succeeded', 'failed', 'cancelled') THEN now() ELSE ended_at END,"
        " wait = CASE WHEN %(to)s = 'queued' THEN wait ELSE NULL END"
        " WHERE run_id = %(run)s AND state = %(from)s RETURNING *",
        {
            "to": target.value,
            "from": run["state"],
            "reason": reason.value,
            "sentence": sentence,
            "run": run["run_id"],
        },
    )
    if after is None:
        return run
    await record(
        session, "run", run["run_id"], event.value, actor=actor, tenant_id=run["tenant_id"],
        project_id=run["project_id"], from_state=run["state"], to_state=target.value, reason=reason.value,
        sentence=sentence,
    )  # fmt: skip
    return dict(after)


async def _bump(session: Session, node_ids: Sequence[str]) -> None:
    await session.execute(
        "UPDATE nodes SET desired_version = desired_version + 1 WHERE node_id = ANY(%s)",
        (sorted(set(node_ids)),),
    )


async def _halted(session: Session, run: Row) -> bool:
    row = await fetch_one(
        session, "SELECT stop FROM attempts WHERE run_id = %s AND state <> 'ended'", (run["run_id"],)
    )
    return row is None or bool(row["stop"])


async def _checkpoint_grace_s(session: Session, run_id: str) -> float:
    """How long the run may take for its last checkpoint: twice its slowest of late, and a step."""
    row = await fetch_one(
        session,
        "SELECT max(save_s) AS slowest FROM (SELECT save_s FROM checkpoints WHERE run_id = %s"
        " ORDER BY committed_at DESC LIMIT 5) late",
        (run_id,),
    )
    slowest_s = float(row["slowest"] or 0.0) if row else 0.0
    return min(CHECKPOINT_GRACE_MAX_S, 2 * slowest_s + STOP_GRACE_S)


async def _drained(session: Session, leases: Sequence[Row]) -> bool:
    """Whether a node on which the attempt still holds a lease is being taken out of service."""
    row = await fetch_one(
        session,
        "SELECT FROM nodes WHERE node_id = ANY(%s) AND state = ANY(%s) LIMIT 1",
        (
            [lease["node_id"] for lease in leases if lease["state"] != "released"],
            [state.value for state in LEAVING],
        ),
    )
    return row is not None


async def _now(session: Session) -> datetime:
    row = await fetch_one(session, "SELECT now() AS at")
    assert row is not None
    at: datetime = row["at"]
    return at


def _unwanted(lease: Mapping[str, Any] | None, sighting: Sighting) -> str | None:
    if lease is None:
        return "this node holds no such lease"
    if sighting.attempt_no != lease["attempt_no"] or lease["attempt_no"] < lease["run_attempt_no"]:
        return f"attempt {sighting.attempt_no} is over: attempt {lease['run_attempt_no']} holds the run"
    if lease["state"] == "released" and sighting.kind != "progress":
        return "the lease is released"
    return None


def _part(lease: Row, halt: str | None) -> Part:
    """A lease as judged. halt: why the attempt was told to end, where it was."""
    told = lease["exit_reason"]
    if halt == Reason.DRAINED and told == Reason.STOPPED_BY_OPERATOR:
        told = halt  # an agent of an older version, which does not know that reason
    return Part(
        node_rank=lease["node_rank"],
        started=lease["observed_from"] is not None,
        exit_reason=Reason(told) if told else None,
        exit_sentence=lease["exit_sentence"],
        released=lease["state"] == "released",
    )


def _retry(spec: RunSpec, run: Row, at: datetime) -> Retry:
    """The retry budget of a run, nothing once its duration has passed."""
    limit_s = spec.retry.duration_s
    if limit_s is not None and run["started_at"] and at - run["started_at"] > timedelta(seconds=limit_s):
        return Retry(errors_max=0, interruptions_max=0)
    return Retry(
        errors_max=spec.retry.max_attempts - 1 if "error" in spec.retry.on_events else 0,
        interruptions_max=INTERRUPTIONS_MAX if "interruption" in spec.retry.on_events else 0,
    )
