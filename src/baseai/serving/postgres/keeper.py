"""The keeper brings about what is wanted of services: replicas that are made and drained, versions that take over.

Every step is level-triggered and may be killed between any two statements: it looks at what there is, decides by pure
functions, and writes; a replica's run has its id before it is submitted.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import ProjectId, RunId, TenantId, derived, mint
from baseai.serving.autoscale import Remembered, ReplicasSeen, Wanted, desired, looks_back_s
from baseai.serving.crew import Member, changes_of, wanted_of
from baseai.serving.demand import DemandSecond
from baseai.serving.postgres.services import RunsShelf, move_service, promote, roll_back
from baseai.serving.rollout import Advance, Answered, Candidate, Promote, RollBack, next_step
from baseai.serving.state import LIVE, REPLICA_MOVES, ReplicaEvent, ReplicaState, ServiceState, service_event
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.reason import Reason
from baseai.workloads.run import ENDED, RunState
from baseai.workloads.service import Rollout, Service
from baseai.workloads.spec import RunSpec
from baseai.workloads.upload import Upload

log = logging.getLogger(__name__)

ACTOR = "platform"
SCOPE = Scope(tenant_id=None, actor=ACTOR)
SPARED_S = 2.0  # from the word that a replica is spared until its run is asked to end: gateways have heard it by then
LEASE_AHEAD_S = 900.0  # so long before its lease ends a replica is replaced
WARM_UP_S = 10.0  # of a replica, until one was seen
TRIED_AGAIN_S = (5.0, 300.0)  # after a start that failed; doubled with each
KEPT_DEMAND = timedelta(minutes=10)
Row = dict[str, Any]

SERVICES = """
SELECT s.*, now() AS now FROM services s WHERE s.state <> 'stopped'
  OR EXISTS (SELECT FROM replicas p WHERE p.service_id = s.service_id AND p.state <> 'gone')
  OR EXISTS (SELECT FROM runs r WHERE r.service_id = s.service_id
    AND r.state NOT IN ('succeeded', 'failed', 'cancelled'))
ORDER BY s.service_id
"""
VERSIONS = """
SELECT v.* FROM service_versions v JOIN services s USING (service_id)
WHERE s.service_id = %(id)s AND (v.version_no IN (s.version_no, s.candidate_no) OR v.state IN ('current', 'candidate'))
"""
# The replica's own word where it listens, of the attempt that is under way.
REPLICAS = """
SELECT p.*, r.state AS run_state, r.attempt_no AS run_attempt_no, r.reason AS run_reason, r.sentence AS run_sentence,
  r.stop_reason, r.ended_at, l.ends_at, l.lease_id, n.address AS node_address, told.body AS told
FROM replicas p JOIN runs r USING (run_id)
LEFT JOIN leases l ON l.run_id = r.run_id AND l.attempt_no = r.attempt_no AND l.state <> 'released'
LEFT JOIN nodes n ON n.node_id = l.node_id
LEFT JOIN LATERAL (SELECT body FROM observations o WHERE o.lease_id = l.lease_id AND o.kind = 'progress'
  AND o.body->>'kind' = 'ready' ORDER BY o.at DESC LIMIT 1) told ON true
WHERE p.service_id = %(id)s AND p.state <> 'gone' ORDER BY p.made_at, p.run_id
"""
UNLISTED = """
INSERT INTO replicas (run_id, service_id, version_no, tenant_id, project_id)
SELECT r.run_id, r.service_id, r.version_no, r.tenant_id, r.project_id FROM runs r
WHERE r.service_id = %(id)s AND NOT EXISTS (SELECT FROM replicas p WHERE p.run_id = r.run_id) ON CONFLICT DO NOTHING
"""
DEMAND = """
SELECT extract(epoch FROM at)::float8 AS at_s, concurrency, held, arrivals FROM service_demand
WHERE service_id = %(id)s AND at > now() - make_interval(secs => %(back_s)s)
"""
ANSWERED = """
SELECT version_no, sum(requests - refused)::bigint AS requests, sum(errors)::bigint AS errors, sum(slow)::bigint AS slow
FROM service_traffic WHERE service_id = %(id)s AND from_at >= %(since)s GROUP BY version_no
"""
# Of each version, its replicas that ended since one of them last answered.
FAILED = """
SELECT count(*) AS failed, max(r.ended_at) AS last_at,
  (array_agg(coalesce(r.sentence, r.reason) ORDER BY r.ended_at DESC))[1] AS sentence
FROM replicas p JOIN runs r USING (run_id)
WHERE p.service_id = %(id)s AND p.version_no = %(no)s AND p.ready_at IS NULL AND r.state = 'failed'
  AND p.made_at > coalesce((SELECT max(ready_at) FROM replicas a WHERE a.service_id = p.service_id
    AND a.version_no = p.version_no), '-infinity')
"""
WARMED = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ready_at - made_at))::float8 AS warm_up_s
FROM (SELECT ready_at, made_at FROM replicas WHERE service_id = %(id)s AND ready_at IS NOT NULL
  ORDER BY ready_at DESC LIMIT 5) last
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one step did."""

    services: int = 0  # that were looked at
    made: int = 0  # replicas
    drained: int = 0


@dataclass(slots=True)
class _Seen:
    """One service as the step sees it."""

    row: Row
    now: datetime
    specs: dict[int, RunSpec]
    files: dict[int, list[Row]]
    began: dict[int, datetime]  # when each version came
    replicas: list[Row]

    @property
    def service_id(self) -> str:
        return str(self.row["service_id"])

    def work(self, version_no: int) -> Service:
        work = self.specs[version_no].work
        assert isinstance(work, Service)
        return work

    def members(self) -> list[Member]:
        return [
            Member(
                run_id=each["run_id"],
                version_no=each["version_no"],
                state=ReplicaState(each["state"]),
                made_s=each["made_at"].timestamp(),
                leaving=each["ends_at"] is not None
                and (each["ends_at"] - self.now).total_seconds() < LEASE_AHEAD_S
                and each["ends_at"] - each["made_at"] > timedelta(seconds=2 * LEASE_AHEAD_S),
            )
            for each in self.replicas
        ]


class Keeper:
    """The platform's loop over services."""

    def __init__(self, truth: Truth, runs: RunsShelf) -> None:
        self._truth = truth
        self._runs = runs
        self._remembered: dict[str, Remembered] = {}
        self._tidied: datetime | None = None

    async def step(self) -> Kept:
        """Look at every service once. One that cannot be kept is logged, and keeps no other from it."""
        async with self._truth.transaction(SCOPE) as session:
            rows = await fetch_all(session, SERVICES)
        done = Kept(services=len(rows))
        for row in rows:
            try:
                made, drained = await self._keep(row)
            except (Refused, Conflict, NotFound) as wrong:
                log.warning("the service %s is not kept: %s", row["name"], wrong)
                continue
            done = replace(done, made=done.made + made, drained=done.drained + drained)
        living = {row["service_id"] for row in rows}
        self._remembered = {name: one for name, one in self._remembered.items() if name in living}
        if rows:
            await self._tidy(rows[0]["now"])
        return done

    async def _keep(self, row: Row) -> tuple[int, int]:
        async with self._truth.transaction(SCOPE) as session:
            locked = await fetch_one(
                session,
                "SELECT *, now() AS now FROM services WHERE service_id = %s FOR UPDATE SKIP LOCKED",
                (row["service_id"],),
            )
            if locked is None:
                return 0, 0
            seen = await self._look(session, dict(locked))
            for replica in seen.replicas:
                await _follow(session, seen, replica)
            wanted = await self._decide(session, seen)
            changes = changes_of(seen.members(), wanted)
            for run_id in changes.drain:
                await _drain(session, next(each for each in seen.replicas if each["run_id"] == run_id))
        # Outside the transaction: submitting and stopping have one of their own, and are found again if we die here.
        made = 0
        for version_no, count in changes.make.items():
            for _ in range(count):
                await self._start(seen, version_no)
                made += 1
        for replica in seen.replicas:
            await self._end_drained(seen, replica)
        return made, len(changes.drain)

    # ---- looking

    async def _look(self, session: Session, row: Row) -> _Seen:
        key = {"id": row["service_id"]}
        await session.execute(UNLISTED, key)
        specs: dict[int, RunSpec] = {}
        files: dict[int, list[Row]] = {}
        began: dict[int, datetime] = {}
        for version in await fetch_all(session, VERSIONS, key):
            specs[version["version_no"]] = RunSpec.from_json(version["spec"])
            files[version["version_no"]] = version["files"]
            began[version["version_no"]] = version["made_at"]
        replicas = [dict(each) for each in await fetch_all(session, REPLICAS, key)]
        return _Seen(row=row, now=row["now"], specs=specs, files=files, began=began, replicas=replicas)

    # ---- deciding

    async def _decide(self, session: Session, seen: _Seen) -> Mapping[int, int]:
        row, service_id = seen.row, seen.service_id
        if row["state"] == ServiceState.STOPPED:
            return {}
        current = row["version_no"]
        scaling = seen.work(current).scaling
        ready = sum(each["state"] == ReplicaState.READY for each in seen.replicas)
        warmed = await fetch_one(session, WARMED, {"id": service_id})
        members = seen.members()
        live = [each for each in members if each.state in LIVE]
        answering = [each for each in live if each.state is ReplicaState.READY]
        leaving = sum(each.leaving for each in answering)
        # While a version takes over there are replicas of both: what is beyond the number wanted is there twice.
        counted = len(live) if row["candidate_no"] is None else min(len(live), max(1, row["wanted"]))
        answer = min(len(answering), counted)
        demand = await fetch_all(
            session, DEMAND, {"id": service_id, "back_s": looks_back_s(scaling) + KEPT_DEMAND.seconds / 10}
        )
        wanted = desired(
            scaling,
            [DemandSecond(**second) for second in demand],
            ReplicasSeen(
                ready=answer,
                starting=counted - answer,
                leaving=min(leaving, answer),
                warm_up_s=(warmed or {}).get("warm_up_s") or WARM_UP_S,
            ),
            now_s=seen.now.timestamp(),
            remembered=self._remembered.get(service_id),
        )
        self._remembered[service_id] = wanted.remembered
        share, next_share = await self._roll(session, seen, wanted.replicas)
        candidate = seen.row["candidate_no"]
        counts = wanted_of(
            wanted.replicas,
            current=seen.row["version_no"],
            candidate=candidate,
            share=share,
            next_share=next_share,
        )
        held = await self._hold_back(session, seen, counts)
        await self._note(session, seen, wanted, ready=ready, failing=held.failing, sentence=held.sentence)
        return held.counts

    async def _roll(self, session: Session, seen: _Seen, wanted: int) -> tuple[float, float]:
        """Carry a rollout one step on; the candidate's share, and the one it is made ready for."""
        row, candidate = seen.row, seen.row["candidate_no"]
        if candidate is None:
            return 0.0, 0.0
        work, share = seen.work(candidate), float(row["candidate_share"])
        rollout, following = work.rollout, _following(work.rollout, share)
        failed = await _failed(session, seen.service_id, candidate)
        answered = await _answered(session, seen.service_id, row["step_at"])
        # Of the old version since the rollout began: in the last step it answers next to nothing.
        before = await _answered(session, seen.service_id, seen.began[candidate])
        ready = sum(
            each["state"] == ReplicaState.READY and each["version_no"] == candidate for each in seen.replicas
        )
        at_rest = wanted == 0 and ready > 0
        step = next_step(
            # Of a service at rest nobody asks anything, so that there is nothing to wait for once it answers.
            replace(rollout, shares=(1.0,), bake_s=0.0) if at_rest else rollout,
            Candidate(
                share=1.0 if at_rest else share,
                step_at_s=row["step_at"].timestamp(),
                ready=ready,
                failed_starts=failed["failed"],
                failed_why=failed["sentence"],
            ),
            new=answered.get(candidate, Answered()),
            old=before.get(row["version_no"], Answered()),
            wanted=wanted,
            now_s=seen.now.timestamp(),
            p99_ms=work.p99_ms,
        )
        if isinstance(step, Advance):
            await session.execute(
                "UPDATE services SET candidate_share = %s, step_at = now() WHERE service_id = %s",
                (step.share, seen.service_id),
            )
            return step.share, _following(rollout, step.share)
        if isinstance(step, Promote):
            await promote(session, row, actor=ACTOR, sentence="it answered as well as the one before")
        elif isinstance(step, RollBack):
            await roll_back(session, row, actor=ACTOR, sentence=step.sentence)
        else:
            return share, following
        settled = await fetch_one(
            session, "SELECT *, now() AS now FROM services WHERE service_id = %s", (seen.service_id,)
        )
        assert settled is not None
        seen.row = dict(settled)
        return 0.0, 0.0

    async def _hold_back(self, session: Session, seen: _Seen, counts: Mapping[int, int]) -> "_Held":
        """The counts, less what is not tried again yet: whose last replicas ended before they answered."""
        held = dict(counts)
        failing, sentence = False, None
        for version_no in counts:
            failed = await _failed(session, seen.service_id, version_no)
            if not failed["failed"]:
                continue
            pause_s = min(TRIED_AGAIN_S[1], TRIED_AGAIN_S[0] * 2.0 ** min(16, failed["failed"] - 1))
            left_s = pause_s - (seen.now - failed["last_at"]).total_seconds()
            live = sum(
                each["version_no"] == version_no and ReplicaState(each["state"]) in LIVE
                for each in seen.replicas
            )
            # One at a time while it is not known whether any will answer.
            held[version_no] = min(counts[version_no], max(live, 0 if left_s > 0 else 1))
            if version_no == seen.row["version_no"]:
                failing, sentence = True, failed["sentence"]
        return _Held(counts=held, failing=failing, sentence=sentence)

    async def _note(
        self,
        session: Session,
        seen: _Seen,
        wanted: Wanted,
        *,
        ready: int,
        failing: bool,
        sentence: str | None,
    ) -> None:
        row = seen.row
        if wanted.replicas != row["wanted"] or row["wanted_why"] is None:
            await session.execute(
                "UPDATE services SET wanted = %s, wanted_why = %s WHERE service_id = %s",
                (wanted.replicas, wanted.why, seen.service_id),
            )
            await session.execute(
                "INSERT INTO service_scalings (service_id, tenant_id, project_id, at, wanted, had, ready, demand,"
                " panic, why) VALUES (%s, %s, %s, now(), %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (seen.service_id, row["tenant_id"], row["project_id"], wanted.replicas, row["wanted"], ready,
                 wanted.demand, wanted.panic, wanted.why),
            )  # fmt: skip
        if row["sentence"] != sentence:
            await session.execute(
                "UPDATE services SET sentence = %s WHERE service_id = %s", (sentence, seen.service_id)
            )
        state = ServiceState(row["state"])
        for _ in range(2):  # a service at rest wakes before it serves
            event = service_event(state, wanted=wanted.replicas, ready=ready, failing=failing)
            if event is None:
                break
            await move_service(
                session, {**row, "state": state.value}, event, actor=ACTOR, sentence=sentence or wanted.why
            )
            moved = await fetch_one(
                session, "SELECT state FROM services WHERE service_id = %s", (seen.service_id,)
            )
            assert moved is not None
            state = ServiceState(moved["state"])

    # ---- doing

    async def _start(self, seen: _Seen, version_no: int) -> None:
        row, spec = seen.row, seen.specs[version_no]
        run_id = RunId(mint("run"))
        named = replace(spec, name=f"{spec.name[:55].rstrip('-')}-{run_id[-6:]}")
        await self._runs.submit(
            Scope(tenant_id=row["tenant_id"], actor=ACTOR),
            (TenantId(row["tenant_id"]), ProjectId(row["project_id"])),
            run_id,
            named,
            [Upload(**file) for file in seen.files[version_no]],
            submitted_by=f"service {row['name']}",
            service=(seen.service_id, version_no),
        )
        async with self._truth.transaction(SCOPE) as session:
            await session.execute(UNLISTED, {"id": seen.service_id})

    async def _end_drained(self, seen: _Seen, replica: Row) -> None:
        if replica["state"] != ReplicaState.DRAINING or replica["draining_at"] is None:
            return
        spared = (seen.now - replica["draining_at"]).total_seconds() >= SPARED_S or replica["port"] is None
        if not spared or replica["stop_reason"] is not None or RunState(replica["run_state"]) in ENDED:
            return
        try:
            await self._runs.ask_to_stop(SCOPE, replica["run_id"], Reason.SCALED_IN, why=replica["why"])
        except Conflict:
            return  # it ended meanwhile

    async def _tidy(self, now: datetime) -> None:
        if self._tidied is not None and now - self._tidied < KEPT_DEMAND / 10:
            return
        self._tidied = now
        async with self._truth.transaction(SCOPE) as session:
            await session.execute("DELETE FROM service_demand WHERE at < now() - %s", (KEPT_DEMAND,))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    counts: Mapping[int, int]
    failing: bool
    sentence: str | None


def _following(rollout: Rollout, share: float) -> float:
    return next((step for step in rollout.shares if step > share), 1.0)


async def _failed(session: Session, service_id: str, version_no: int) -> Row:
    row = await fetch_one(session, FAILED, {"id": service_id, "no": version_no})
    assert row is not None
    return dict(row)


async def _answered(session: Session, service_id: str, since: datetime) -> dict[int, Answered]:
    rows = await fetch_all(session, ANSWERED, {"id": service_id, "since": since})
    return {
        row["version_no"]: Answered(
            requests=row["requests"],
            errors=min(row["errors"], row["requests"]),
            slow=min(row["slow"], row["requests"]),
        )
        for row in rows
    }


async def _follow(session: Session, seen: _Seen, replica: Row) -> None:
    """Move a replica to where its run is, and keep `replica` in step with the row."""
    state = ReplicaState(replica["state"])
    told, run_state = replica["told"], RunState(replica["run_state"])
    same = replica["attempt_no"] == replica["run_attempt_no"]
    if run_state in ENDED:
        drained = state is ReplicaState.DRAINING and replica["run_reason"] == Reason.SCALED_IN
        why = None if drained else replica["run_sentence"] or replica["run_reason"]
        await _move(session, replica, ReplicaEvent.END, why=why)
    elif state is ReplicaState.READY and (not same or run_state is not RunState.RUNNING):
        await _move(session, replica, ReplicaEvent.LOSE, why=None)
    elif state is ReplicaState.STARTING and told is not None and run_state is RunState.RUNNING:
        await _move(
            session,
            replica,
            ReplicaEvent.ANSWER,
            why=None,
            at=(told.get("address") or replica["node_address"], int(told["port"]), told.get("digest")),
        )
        await _register(session, seen, replica, told)


async def _move(
    session: Session,
    replica: Row,
    event: ReplicaEvent,
    *,
    why: str | None,
    at: tuple[str, int, str | None] | None = None,
) -> None:
    after = REPLICA_MOVES[ReplicaState(replica["state"]), event]
    row = await fetch_one(
        session,
        "UPDATE replicas SET state = %(after)s, why = coalesce(%(why)s, why), attempt_no = %(attempt)s,"
        " address = CASE WHEN %(answers)s THEN %(address)s WHEN %(after)s = 'draining' THEN address END,"
        " port = CASE WHEN %(answers)s THEN %(port)s::integer WHEN %(after)s = 'draining' THEN port END,"
        " model_digest = coalesce(%(digest)s, model_digest),"
        " ready_at = CASE WHEN %(answers)s THEN coalesce(ready_at, now()) ELSE ready_at END,"
        " draining_at = CASE WHEN %(after)s = 'draining' THEN now() ELSE draining_at END,"
        " gone_at = CASE WHEN %(after)s = 'gone' THEN now() ELSE gone_at END"
        " WHERE run_id = %(run)s AND state = %(before)s RETURNING state, attempt_no, port, draining_at",
        {
            "after": after.value,
            "before": replica["state"],
            "why": why,
            "attempt": replica["run_attempt_no"],
            "answers": event is ReplicaEvent.ANSWER,
            "address": at[0] if at else None,
            "port": at[1] if at else None,
            "digest": at[2] if at else None,
            "run": replica["run_id"],
        },
    )
    if row is not None:
        replica.update(row)


async def _drain(session: Session, replica: Row) -> None:
    await _move(session, replica, ReplicaEvent.DRAIN, why="fewer are wanted, or another has taken its place")


async def _register(session: Session, seen: _Seen, replica: Row, told: Mapping[str, Any]) -> None:
    """The model that a replica told of, in the registry; known ones stay as they are."""
    if not told.get("digest"):
        return
    work = seen.work(replica["version_no"]) if replica["version_no"] in seen.specs else None
    if work is None or work.model is None:
        return
    origin = told.get("origin_run_id")
    run = (
        None
        if origin is None
        else await fetch_one(session, "SELECT run_id, result FROM runs WHERE run_id = %s", (origin,))
    )
    await session.execute(
        "INSERT INTO models (model_id, tenant_id, project_id, name, digest, source, origin_run_id, evaluation, bytes,"
        " license, engine) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            derived("mdl", replica["project_id"], told["digest"], work.model_name),
            replica["tenant_id"],
            replica["project_id"],
            work.model_name,
            told["digest"],
            work.model,
            run["run_id"] if run else None,
            Jsonb(run["result"] if run else {}),
            int(told.get("bytes") or 0),
            work.license,
            work.engine,
        ),
    )
