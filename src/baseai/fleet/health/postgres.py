"""Health in PostgreSQL: taking witnesses, judging all that is known every tick, and doing what the playbook says.

Every step may be killed between any two statements and run beside another copy of itself: evidence has ids derived
from what was found, each move of a node or repair names the state it expects, and what was half done is due again at
the next tick. Samples are asked for before any transaction; while they cannot be asked, no metric is judged, and the
record says so.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from baseai.fleet.health.evidence import (
    CEASED,
    EXPIRED,
    REPAIRED,
    Evidence,
    Finding,
    Subject,
    finding_of,
    gather,
)
from baseai.fleet.health.playbook import Begin, Case, Crowd, Drop, GiveUp, Hold, Move, Steer, Tell, course
from baseai.fleet.health.repair import (
    OPEN,
    Repair,
    RepairEvent,
    RepairState,
    Step,
    instructions,
)
from baseai.fleet.health.repair import moved as repair_moved
from baseai.fleet.health.rule import Policy
from baseai.fleet.health.scan import Memory, Scanned, scan
from baseai.fleet.health.verdict import Sign, Verdict, node_verdict, verdicts_of, weigh
from baseai.fleet.node import Health, NodeEvent, NodeState, moved
from baseai.ground.fault import Conflict, NotFound
from baseai.ground.identity import NodeId, mint
from baseai.telemetry.field import ACCELERATOR, FAMILIES, State
from baseai.telemetry.store import AskedStore, Latest, StoreAway
from baseai.telemetry.witness import Witness
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

log = logging.getLogger(__name__)

ACTOR = "health"
JUDGE_LOCK = 0x6A756467  # "judg"
HEALTH = Scope(tenant_id=None, actor=ACTOR)
SHOWN_DAYS = 30
WITNESSES_A_TICK = 5_000
# Ends of an attempt's processes that the run does not explain: they count against the node, never against a tenant.
UNEXPLAINED = ("process_lost", "worker_lost", "node_lost", "start_failed")
RAW = (
    "ecc_ce",
    "ecc_ue",
    "row_remap",
    "link_err",
    "temp_c",
    "throttle_bits",
)  # kept before and after a repair
REPAIR_WITNESS = "repair"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one tick came to."""

    new: int  # pieces of evidence
    moves: tuple[Move, ...]
    unjudged: str | None  # why no metric was judged


class PostgresHealth:
    """Witnesses, evidence, verdicts and repairs. `judge` belongs to one controller, which alone remembers readings."""

    def __init__(self, truth: Truth, policy: Policy) -> None:
        self._truth = truth
        self._policy = policy
        self._memory: dict[str, Memory] = {}
        self._latest: dict[str, Latest] = {}

    # ---- taking in

    async def witness(self, node_id: NodeId, witnesses: Sequence[Witness]) -> Sequence[str]:
        """Keep events; the ids that are safe, new or repeated. What came of an ordered repair is settled at once."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=f"node {node_id}")) as session:
            for each in witnesses:
                await session.execute(
                    "INSERT INTO witnesses (event_id, node_id, serial, at, kind, code, severity, sentence, payload)"
                    " VALUES (%(id)s, %(node)s, (SELECT serial FROM accelerators WHERE node_id = %(node)s"
                    " AND (serial = %(key)s OR uuid = %(key)s OR lower(pci) = lower(%(key)s)) LIMIT 1),"
                    " %(at)s, %(kind)s, %(code)s, %(severity)s, %(sentence)s, %(payload)s) ON CONFLICT DO NOTHING",
                    {"id": each.event_id, "node": node_id, "key": each.key, "at": each.at, "kind": each.kind,
                     "code": each.code, "severity": each.severity, "sentence": each.sentence,
                     "payload": Jsonb(dict(each.payload))},
                )  # fmt: skip
                if each.kind == REPAIR_WITNESS:
                    await self._hear_of_repair(session, node_id, each)
        return [each.event_id for each in witnesses]

    async def _hear_of_repair(self, session: Session, node_id: NodeId, witness: Witness) -> None:
        row = await fetch_one(
            session,
            "SELECT * FROM repairs WHERE repair_id = %s AND node_id = %s AND state = 'ordered' FOR UPDATE",
            (str(witness.payload.get("repair_id", "")), node_id),
        )
        if row is None:
            return  # told before, or given up meanwhile
        event = RepairEvent.FINISH if witness.payload.get("ok") is True else RepairEvent.FAIL
        await self._move_repair(session, dict(row), event, actor="agent", outcome=witness.sentence)

    # ---- judging

    async def judge(self, store: AskedStore | None) -> Judged:
        """One tick: read, find, weigh, decide, do. Doing it twice is the same as once."""
        latest, unjudged = await _newest(store)
        # One judges at a time, from the evidence to the last move: what another did meanwhile is then known.
        async with self._truth.transaction(HEALTH) as alone:
            await alone.execute("SELECT pg_advisory_xact_lock(%s)", (JUDGE_LOCK,))
            return await self._judge(latest, unjudged)

    async def _judge(self, latest: Mapping[str, Latest], unjudged: str | None) -> Judged:
        now = await self._now()
        known = await self._evidence(now)
        scans = await self._scan(latest, known, now)
        found = [each for scanned in scans.values() for each in scanned.found]
        ceased = [each for scanned in scans.values() for each in scanned.ceased]
        known, new = await self._write_down(now, known, found, ceased, unjudged)
        self._memory.update({name: scanned.memory for name, scanned in scans.items()})
        self._latest.update(latest)
        verdicts = verdicts_of(weigh(self._policy, known, now))
        await self._tell_verdicts(verdicts, now)
        moves = course(*await self._cases(verdicts, now), limits=self._policy.limits, now=now)
        done = [move for move in moves if await self._do(move)]
        await self._tell_held({move.node_id: move.why for move in moves if isinstance(move, Hold)})
        await self._read_after(now)
        return Judged(new=new, moves=tuple(done), unjudged=unjudged)

    async def _scan(
        self, latest: Mapping[str, Latest], known: Sequence[Evidence], now: datetime
    ) -> dict[str, Scanned]:
        if not latest:
            return {}
        groups = await self._groups()
        standing: dict[str, set[str]] = {}
        for each in known:
            if each.ended_at is None:
                standing.setdefault(each.rule_id, set()).add(each.subject.key)
        return {
            name: scan(
                self._policy,
                self._memory.get(name, Memory()),
                rows,
                standing=standing,
                groups=groups,
                now_ms=int(now.timestamp() * 1000),
            )
            for name, rows in latest.items()
        }

    async def _now(self) -> datetime:
        async with self._truth.transaction(HEALTH) as session:
            row = await fetch_one(session, "SELECT now() AS at")
        assert row is not None
        at: datetime = row["at"]
        return at

    async def _evidence(self, now: datetime) -> list[Evidence]:
        """What stands, what a repair ended and may come back, and what ended a moment ago."""
        pooled = sorted({rule_id for pool in self._policy.pools for rule_id in pool.of})
        async with self._truth.transaction(HEALTH) as session:
            rows = await fetch_all(
                session,
                "SELECT * FROM evidence e WHERE ended_at IS NULL OR ended_at > %(moment)s OR (ended_at > %(month)s"
                " AND ended_by = %(repaired)s AND rule_id = ANY(%(pooled)s) AND EXISTS (SELECT FROM evidence s"
                " WHERE s.node_id = e.node_id AND s.ended_at IS NULL))",
                {
                    "moment": now - timedelta(minutes=2),
                    "month": now - timedelta(days=SHOWN_DAYS),
                    "repaired": REPAIRED,
                    "pooled": pooled,
                },
            )
        return [_evidence(row) for row in rows]

    async def _groups(self) -> dict[str, str]:
        """Serial → the attempt that holds it."""
        async with self._truth.transaction(HEALTH) as session:
            rows = await fetch_all(
                session,
                "SELECT a.serial, l.run_id || '/' || l.attempt_no AS attempt FROM leases l JOIN lease_accelerators"
                " USING (lease_id) JOIN accelerators a USING (accelerator_no) WHERE l.state = 'active'",
            )
        return {row["serial"]: row["attempt"] for row in rows}

    async def _write_down(
        self,
        now: datetime,
        known: list[Evidence],
        found: list[Finding],
        ceased: Sequence[tuple[str, str]],
        unjudged: str | None,
    ) -> tuple[list[Evidence], int]:
        """New evidence, what it grew by, and what ended: in one transaction with the witnesses it was made of."""
        async with self._truth.transaction(HEALTH) as session:
            state = await fetch_one(
                session,
                "SELECT deaths_until, tests_until FROM judgements WHERE name = 'health' FOR UPDATE",
            )
            assert state is not None
            found = await self._in_service(session, found)
            found += await self._heard(session)
            found += await self._missing(session, now)
            deaths, until = await self._deaths(session, state["deaths_until"])
            tested, last_test = await self._tested(session, state["tests_until"])
            found += tested
            gathered = gather(self._policy, [*found, *deaths], known)
            for each in gathered.new:
                await self._insert(session, each)
            for each in gathered.grown:
                await session.execute(
                    "UPDATE evidence SET last_at = %s, witnesses = %s, before = %s, after = %s, held_by = %s"
                    " WHERE evidence_id = %s",
                    (
                        each.last_at,
                        list(each.witnesses),
                        each.before,
                        each.after,
                        each.tenant_id,
                        each.evidence_id,
                    ),
                )
            by_id = {each.evidence_id: each for each in (*known, *gathered.grown, *gathered.new)}
            for evidence_id, how in self._over(by_id.values(), ceased, now):
                by_id[evidence_id] = replace(by_id[evidence_id], ended_at=now, ended_by=how)
                await session.execute(
                    "UPDATE evidence SET ended_at = %s, ended_by = %s WHERE evidence_id = %s AND ended_at IS NULL",
                    (now, how, evidence_id),
                )
            await session.execute(
                "UPDATE judgements SET judged_at = CASE WHEN %(why)s::text IS NULL THEN now() ELSE judged_at END,"
                " unjudged = %(why)s, deaths_until = %(until)s, tests_until = %(tests)s WHERE name = 'health'",
                {"why": unjudged, "until": until, "tests": last_test},
            )
        return list(by_id.values()), len(gathered.new)

    async def _in_service(self, session: Session, found: Sequence[Finding]) -> list[Finding]:
        """Findings about what still stands where it was measured: samples outlive devices. With their holders."""
        if not found:
            return []
        nodes = await fetch_all(
            session,
            "SELECT node_id FROM nodes WHERE node_id = ANY(%s) AND state NOT IN ('rma', 'retired')",
            (list({each.subject.node_id for each in found}),),
        )
        serials = await fetch_all(
            session,
            "SELECT serial FROM accelerators WHERE serial = ANY(%s) AND state IN ('in_service', 'failed')",
            (list({each.subject.serial for each in found if each.subject.serial}),),
        )
        alive = {row["node_id"] for row in nodes}
        present: set[str | None] = {row["serial"] for row in serials} | {None}
        return [
            replace(each, tenant_id=await self._holder(session, each.subject.serial, each.at))
            for each in found
            if each.subject.node_id in alive and each.subject.serial in present
        ]

    async def _heard(self, session: Session) -> list[Finding]:
        """What witnesses said that nobody has judged yet."""
        rows = await fetch_all(
            session,
            "UPDATE witnesses SET judged = true WHERE event_id IN (SELECT event_id FROM witnesses WHERE NOT judged"
            " ORDER BY witness_no LIMIT %s FOR UPDATE) RETURNING *",
            (WITNESSES_A_TICK,),
        )
        found = []
        for row in rows:
            witness = Witness(
                event_id=row["event_id"], at=row["at"], kind=row["kind"], key=row["serial"], code=row["code"],
                severity=row["severity"], sentence=row["sentence"], payload=row["payload"],
            )  # fmt: skip
            holder = await self._holder(session, row["serial"], row["at"])
            finding = finding_of(self._policy, witness, NodeId(row["node_id"]), tenant_id=holder)
            if finding is not None:
                found.append(finding)
        return found

    async def _holder(self, session: Session, serial: str | None, at: datetime) -> str | None:
        """The tenant under whose lease an accelerator was at that instant."""
        if serial is None:
            return None
        row = await fetch_one(
            session,
            "SELECT la.tenant_id FROM lease_accelerators la JOIN accelerators a USING (accelerator_no)"
            " WHERE a.serial = %s AND la.during @> %s::timestamptz LIMIT 1",
            (serial, at),
        )
        return row["tenant_id"] if row else None

    async def _missing(self, session: Session, now: datetime) -> list[Finding]:
        """Accelerators that their node's agent no longer found when it started."""
        rows = await fetch_all(
            session,
            "SELECT a.serial, a.node_id FROM accelerators a JOIN nodes n USING (node_id) WHERE a.state = 'failed'"
            " AND a.model <> 'cpu-slot' AND n.state NOT IN ('rma', 'retired') AND NOT EXISTS (SELECT FROM evidence e"
            " WHERE e.serial = a.serial AND e.rule_id = 'device_lost' AND (e.ended_at IS NULL OR e.at > (SELECT"
            " max(v.at) FROM events v WHERE v.subject_id = a.serial AND v.event = 'no_longer_seen')))",
        )
        return [
            Finding(
                rule_id="device_lost",
                subject=Subject(node_id=NodeId(row["node_id"]), serial=row["serial"]),
                at=now,
                witness="agent",
                sentence="its node no longer finds it",
            )
            for row in rows
        ]

    async def _deaths(self, session: Session, since: datetime) -> tuple[list[Finding], datetime]:
        """Blame: attempts whose processes ended since, and nobody says why, by node; and up to when they are read."""
        rows = await fetch_all(
            session,
            "SELECT l.*, r.name, now() - interval '1 minute' AS until FROM leases l JOIN runs r USING (run_id)"
            " WHERE l.released_at > %s - interval '1 minute' AND l.exit_reason = ANY(%s) AND r.kind <> 'burn_in'",
            (since, list(UNEXPLAINED)),
        )
        last = max([since, *(row["released_at"] for row in rows)])
        return [
            Finding(
                rule_id="run_died",
                subject=Subject(node_id=NodeId(row["node_id"])),
                at=row["released_at"],
                witness="runs",
                sentence=f"run {row['name']} attempt {row['attempt_no']}: {row['exit_sentence'] or row['exit_reason']}",
                tenant_id=row["tenant_id"],
            )
            for row in rows
        ], last

    async def _tested(self, session: Session, since: int) -> tuple[list[Finding], int]:
        """Tests of nodes that failed since, as history tells of them, and up to which event it is read."""
        rows = await fetch_all(
            session,
            "SELECT event_no, subject_id, at, sentence FROM events WHERE event_no > %s AND subject_kind = 'node'"
            " AND event = 'burn_in_failed' ORDER BY event_no",
            (since,),
        )
        found = []
        for row in rows:
            witness = Witness(
                event_id=f"burn-in-{row['event_no']}", at=row["at"], kind="test", key=None, code=None,
                severity="warning", sentence=row["sentence"] or "a burn-in failed", payload={"source": "burn-in"},
            )  # fmt: skip
            finding = finding_of(self._policy, witness, NodeId(row["subject_id"]))
            if finding is not None:
                found.append(finding)
        return found, max([since, *(row["event_no"] for row in rows)])

    async def _insert(self, session: Session, each: Evidence) -> None:
        fresh = await fetch_one(
            session,
            "INSERT INTO evidence (evidence_id, rule_id, node_id, serial, part, at, last_at, witnesses, sentence, code,"
            " before, after, held_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING evidence_id",
            (each.evidence_id, each.rule_id, each.subject.node_id, each.subject.serial, each.subject.part, each.at,
             each.last_at, list(each.witnesses), each.sentence, each.code, each.before, each.after, each.tenant_id),
        )  # fmt: skip
        if fresh is not None and self._policy.rule(each.rule_id).action.rank > 0:
            await record(
                session, each.subject.kind, each.subject.name, "evidence", actor=ACTOR, reason=each.rule_id,
                sentence=_with_counter(each),
            )  # fmt: skip

    def _over(
        self, known: Iterable[Evidence], ceased: Sequence[tuple[str, str]], now: datetime
    ) -> list[tuple[str, str]]:
        gone = set(ceased)
        over = []
        for each in known:
            if each.ended_at is not None:
                continue
            if (each.rule_id, each.subject.key) in gone:
                over.append((each.evidence_id, CEASED))
            elif not each.stands(self._policy.rule(each.rule_id), now):
                over.append((each.evidence_id, EXPIRED))
        return over

    # ---- verdicts

    async def _tell_verdicts(self, verdicts: Mapping[Subject, Verdict], now: datetime) -> None:
        """Write verdicts that changed beside nodes and accelerators, and an event for each."""
        async with self._truth.transaction(HEALTH) as session:
            rows = await fetch_all(
                session,
                "SELECT 'node' AS kind, node_id AS name, health FROM nodes WHERE health <> 'healthy'"
                " UNION ALL SELECT 'accelerator', serial, health FROM accelerators WHERE health <> 'healthy'",
            )
            told = {(row["kind"], row["name"]): Health(row["health"]) for row in rows}
            wanted = {
                (subject.kind, subject.name): verdict
                for subject, verdict in verdicts.items()
                if verdict.health is not Health.HEALTHY
            }
            for kind, name in sorted(told.keys() | wanted.keys()):
                before, verdict = told.get((kind, name), Health.HEALTHY), wanted.get((kind, name))
                if before is not (verdict.health if verdict else Health.HEALTHY):
                    await self._tell_verdict(session, kind, name, before, verdict, now)

    async def _tell_verdict(
        self, session: Session, kind: str, name: str, before: Health, verdict: Verdict | None, now: datetime
    ) -> None:
        worst = verdict.worst if verdict else None
        health = verdict.health if verdict else Health.HEALTHY
        sentence = f"{worst.rule_id}: {worst.sentence}" if worst else "nothing stands against it any more"
        if kind == "node":
            await session.execute("UPDATE nodes SET health = %s WHERE node_id = %s", (health.value, name))
            await session.execute(
                "INSERT INTO node_health (node_id, since, sentence) VALUES (%s, %s, %s) ON CONFLICT (node_id)"
                " DO UPDATE SET since = excluded.since, sentence = excluded.sentence",
                (name, now, sentence),
            )
        else:
            await session.execute(
                "UPDATE accelerators SET health = %s WHERE serial = %s", (health.value, name)
            )
        await record(
            session, kind, name, health.value, actor=ACTOR, sentence=sentence, reason=f"was {before.value}"
        )

    async def _tell_held(self, held: Mapping[NodeId, str]) -> None:
        async with self._truth.transaction(HEALTH) as session:
            await session.execute(
                "UPDATE node_health SET held = NULL WHERE held IS NOT NULL AND NOT node_id = ANY(%s)",
                (list(held),),
            )
            for node_id, why in held.items():
                changed = await session.execute(
                    "UPDATE node_health SET held = %s WHERE node_id = %s AND held IS NULL", (why, node_id)
                )
                if changed.rowcount:
                    await record(session, "node", node_id, "held", actor=ACTOR, sentence=why)

    # ---- what is done

    async def _cases(self, verdicts: dict[Subject, Verdict], now: datetime) -> tuple[list[Case], Crowd]:
        """Every node that is not simply well, and how many each tenant and site have."""
        ill = [subject.node_id for subject in verdicts]
        async with self._truth.transaction(HEALTH) as session:
            nodes = await fetch_all(
                session,
                "SELECT n.node_id, n.site_id, n.state, n.repair_steps, n.chassis_shared, m.actor, m.at AS since,"
                " (SELECT count(*) FROM events r WHERE r.subject_id = n.node_id AND r.from_state = 'verifying'"
                " AND r.to_state = 'repairing' AND r.event_no > coalesce((SELECT max(event_no) FROM events a"
                " WHERE a.subject_id = n.node_id AND a.to_state = 'ready'), 0)) AS returns"
                " FROM nodes n LEFT JOIN LATERAL (SELECT actor, at FROM events e WHERE e.subject_id = n.node_id"
                " AND e.to_state IS NOT NULL ORDER BY event_no DESC LIMIT 1) m ON true"
                " WHERE n.node_id = ANY(%s) OR n.state IN ('cordoned', 'draining', 'repairing')",
                (ill,),
            )
            ids = [row["node_id"] for row in nodes]
            leases = await fetch_all(
                session,
                "SELECT node_id, tenant_id, count(*) AS held FROM leases WHERE node_id = ANY(%s)"
                " AND state <> 'released' GROUP BY 1, 2",
                (ids,),
            )
            repairs = await fetch_all(
                session,
                "SELECT * FROM repairs WHERE node_id = ANY(%s) AND (ended_at IS NULL OR ended_at > %s)",
                (ids, now - timedelta(days=self._policy.limits.again_days)),
            )
            crowd = await self._crowd(session)
        held: dict[str, list[Row]] = {}
        for row in leases:
            held.setdefault(row["node_id"], []).append(dict(row))
        kept: dict[str, list[Repair]] = {}
        for row in repairs:
            kept.setdefault(row["node_id"], []).append(_repair(row))
        cases = [
            Case(
                node_id=NodeId(row["node_id"]),
                site=row["site_id"],
                state=NodeState(row["state"]),
                leases=sum(lease["held"] for lease in held.get(row["node_id"], ())),
                tenants=frozenset(lease["tenant_id"] for lease in held.get(row["node_id"], ())),
                verdict=node_verdict(verdicts, NodeId(row["node_id"])),
                ours=row["actor"] == ACTOR,
                since=row["since"] or now,
                repairs=tuple(each for each in kept.get(row["node_id"], ()) if each.state in OPEN),
                history=tuple(each for each in kept.get(row["node_id"], ()) if each.state not in OPEN),
                able=frozenset(Step(step) for step in row["repair_steps"] if step in list(Step)),
                shared_chassis=row["chassis_shared"],
                returns=row["returns"],
            )
            for row in nodes
        ]
        return cases, crowd

    async def _crowd(self, session: Session) -> Crowd:
        tenants = await fetch_all(
            session,
            "SELECT l.tenant_id, count(DISTINCT l.node_id) AS nodes, count(DISTINCT l.node_id)"
            " FILTER (WHERE n.state = 'draining' AND n.health = 'faulty') AS taken"
            " FROM leases l JOIN nodes n USING (node_id) WHERE l.state <> 'released' GROUP BY 1",
        )
        sites = await fetch_all(
            session,
            "SELECT site_id, count(*) AS nodes, count(*) FILTER (WHERE state IN ('cordoned', 'draining')"
            " AND health <> 'healthy') AS taken FROM nodes WHERE state NOT IN ('rma', 'retired') GROUP BY 1",
        )
        return Crowd(
            tenant_nodes={row["tenant_id"]: row["nodes"] for row in tenants},
            site_nodes={row["site_id"]: row["nodes"] for row in sites},
            tenant_taken={row["tenant_id"]: row["taken"] for row in tenants},
            site_taken={row["site_id"]: row["taken"] for row in sites},
        )

    async def _do(self, move: Move) -> bool:
        """Carry one move out, in a transaction of its own; False where somebody was first."""
        async with self._truth.transaction(HEALTH) as session:
            match move:
                case Steer(node_id=node_id, event=event, sentence=sentence):
                    return await self._steer(session, node_id, event, sentence)
                case Begin(node_id=node_id):
                    return await self._begin(session, move)
                case Tell(repair_id=repair_id):
                    return await self._settle(session, repair_id, RepairEvent.ORDER, actor=ACTOR)
                case GiveUp(repair_id=repair_id, sentence=sentence):
                    return await self._settle(
                        session, repair_id, RepairEvent.FAIL, actor=ACTOR, outcome=sentence
                    )
                case Drop(repair_id=repair_id, sentence=sentence):
                    return await self._settle(
                        session, repair_id, RepairEvent.DISMISS, actor=ACTOR, outcome=sentence
                    )
                case Hold():
                    return False

    async def _steer(self, session: Session, node_id: NodeId, event: NodeEvent, sentence: str) -> bool:
        row = await fetch_one(session, "SELECT state FROM nodes WHERE node_id = %s FOR UPDATE", (node_id,))
        target = moved(NodeState(row["state"]), event) if row else None
        if row is None or target is None:
            return False
        if event is NodeEvent.REPAIR and target is NodeState.REPAIRING:
            left = await fetch_one(
                session,
                "SELECT FROM leases WHERE node_id = %s AND state <> 'released' LIMIT 1",
                (node_id,),
            )
            if left is not None and row["state"] == NodeState.DRAINING:
                return False
        await session.execute(
            "UPDATE nodes SET state = %s, desired_version = desired_version + 1 WHERE node_id = %s AND state = %s",
            (target.value, node_id, row["state"]),
        )
        await record(
            session, "node", node_id, event.value, actor=ACTOR, from_state=row["state"], to_state=target.value,
            sentence=sentence,
        )  # fmt: skip
        log.warning("node %s: %s, for %s", node_id, event.value, sentence)
        return True

    async def _begin(self, session: Session, move: Begin) -> bool:
        remedy, node_id = move.remedy, move.node_id
        node = await fetch_one(session, "SELECT name FROM nodes WHERE node_id = %s FOR UPDATE", (node_id,))
        busy = await fetch_one(
            session,
            "SELECT FROM repairs WHERE node_id = %s AND ended_at IS NULL AND (rule_id = %s OR (drains AND %s))",
            (node_id, remedy.rule_id, remedy.drains),
        )
        if node is None or busy is not None:
            return False
        devices = await fetch_all(
            session,
            "SELECT serial, device_index FROM accelerators WHERE serial = ANY(%s) ORDER BY device_index",
            (list(remedy.serials),),
        )
        shown = [f"device {row['device_index']} (serial {row['serial']})" for row in devices]
        repair_id = mint("rep")
        state = RepairState.PROPOSED if remedy.needs_approval else RepairState.APPROVED
        await session.execute(
            "INSERT INTO repairs (repair_id, node_id, serials, step, state, by_agent, needs_approval, drains, rule_id,"
            " sentence, instructions, evidence_ids, before)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (repair_id, node_id, list(remedy.serials), remedy.step.value, state.value, remedy.by_agent,
             remedy.needs_approval, remedy.drains, remedy.rule_id, remedy.sentence,
             instructions(remedy.step, node=node["name"], devices=shown, says=remedy.sentence),
             list(remedy.evidence_ids), Jsonb(self._raw(remedy.serials))),
        )  # fmt: skip
        await record(
            session, "repair", repair_id, "open", actor=ACTOR, to_state=state.value, reason=remedy.rule_id,
            sentence=f"{remedy.step.value} {node['name']}: {remedy.sentence}",
        )  # fmt: skip
        await record(
            session, "node", node_id, "repair_opened", actor=ACTOR, reason=remedy.rule_id,
            sentence=f"{remedy.step.value} ({repair_id}): {remedy.sentence}",
        )  # fmt: skip
        return True

    async def _read_after(self, now: datetime) -> None:
        """The raw counters after a repair, once something was measured since."""
        async with self._truth.transaction(HEALTH) as session:
            for row in await fetch_all(
                session,
                "SELECT repair_id, serials, ended_at FROM repairs WHERE after IS NULL AND ended_at > %s",
                (now - timedelta(hours=1),),
            ):
                raw = self._raw(row["serials"], since=row["ended_at"])
                if raw:
                    await session.execute(
                        "UPDATE repairs SET after = %s WHERE repair_id = %s", (Jsonb(raw), row["repair_id"])
                    )

    def _raw(self, serials: Sequence[str], *, since: datetime | None = None) -> dict[str, dict[str, float]]:
        """The raw counters of accelerators as they were last read, where that was after `since`."""
        latest = self._latest.get(ACCELERATOR.name)
        if latest is None:
            return {}
        least_ms = since.timestamp() * 1000 if since else 0
        places = {key: place for place, key in enumerate(latest.keys)}
        read: dict[str, dict[str, float]] = {}
        for serial in serials:
            place = places.get(serial)
            if place is None or latest.ts_ms[place] <= least_ms:
                continue
            columns = {name: ACCELERATOR.index[name] for name in RAW}
            read[serial] = {
                name: float(latest.values[place, column])
                for name, column in columns.items()
                if latest.codes[place, column] & 15 == State.VALUE
            }
        return read

    async def _settle(
        self,
        session: Session,
        repair_id: str,
        event: RepairEvent,
        *,
        actor: str,
        outcome: str | None = None,
    ) -> bool:
        row = await fetch_one(session, "SELECT * FROM repairs WHERE repair_id = %s FOR UPDATE", (repair_id,))
        if row is None or repair_moved(RepairState(row["state"]), event) is None:
            return False
        await self._move_repair(session, dict(row), event, actor=actor, outcome=outcome)
        return True

    async def _move_repair(
        self, session: Session, row: Row, event: RepairEvent, *, actor: str, outcome: str | None
    ) -> None:
        target = repair_moved(RepairState(row["state"]), event)
        assert target is not None
        over = target not in OPEN
        await session.execute(
            "UPDATE repairs SET state = %(to)s, outcome = coalesce(%(outcome)s, outcome),"
            " approved_by = CASE WHEN %(to)s = 'approved' THEN %(actor)s ELSE approved_by END,"
            " approved_at = CASE WHEN %(to)s = 'approved' THEN now() ELSE approved_at END,"
            " ordered_at = CASE WHEN %(to)s = 'ordered' THEN now() ELSE ordered_at END,"
            " ended_at = CASE WHEN %(over)s THEN now() END, ended_by = CASE WHEN %(over)s THEN %(actor)s END"
            " WHERE repair_id = %(id)s AND state = %(from)s",
            {
                "to": target.value, "from": row["state"], "outcome": outcome, "actor": actor, "over": over,
                "id": row["repair_id"],
            },
        )  # fmt: skip
        if target is RepairState.DONE:
            # What speaks against the node from before the repair is answered by it; the tests have the last word.
            await session.execute(
                "UPDATE evidence SET ended_at = now(), ended_by = %s WHERE node_id = %s AND ended_at IS NULL"
                " AND (evidence_id = ANY(%s) OR (%s AND last_at <= now() AND NOT rule_id = ANY(%s)))",
                (REPAIRED, row["node_id"], list(row["evidence_ids"]), row["drains"], self._mild()),
            )
        await session.execute(
            "UPDATE nodes SET desired_version = desired_version + 1 WHERE node_id = %s", (row["node_id"],)
        )
        sentence = f"{row['step']}: {outcome}" if outcome else row["step"]
        for kind, subject in (("repair", row["repair_id"]), ("node", row["node_id"])):
            await record(
                session, kind, subject, event.value if kind == "repair" else f"repair_{target.value}", actor=actor,
                from_state=row["state"] if kind == "repair" else None,
                to_state=target.value if kind == "repair" else None,
                reason=row["rule_id"], sentence=sentence if kind == "repair" else f"{sentence} ({row['repair_id']})",
            )  # fmt: skip

    def _mild(self) -> list[str]:
        """Rules that ask for nothing: a repair does not answer them, nor need it."""
        return [rule_id for rule_id, rule in self._policy.rules.items() if rule.action.rank == 0]

    # ---- doors

    async def orders(self, node_id: str) -> list[Row]:
        """What the node's agent shall carry out now: repair_id, step, devices."""
        async with self._truth.transaction(HEALTH) as session:
            rows = await fetch_all(
                session, "SELECT * FROM repairs WHERE node_id = %s AND state = 'ordered'", (node_id,)
            )
            devices = await fetch_all(
                session,
                "SELECT serial, model, device_index AS index, uuid, pci FROM accelerators WHERE node_id = %s"
                " AND model <> 'cpu-slot' ORDER BY device_index",
                (node_id,),
            )
        return [
            {
                "repair_id": row["repair_id"],
                "step": row["step"],
                "devices": [
                    dict(each) for each in devices if not row["serials"] or each["serial"] in row["serials"]
                ],
            }
            for row in rows
        ]

    async def learn_steps(self, node_id: NodeId, steps: Sequence[str]) -> None:
        """What the node's agent says it may carry out."""
        known = sorted({step for step in steps if step in list(Step)})
        async with self._truth.transaction(HEALTH) as session:
            await session.execute(
                "UPDATE nodes SET repair_steps = %s WHERE node_id = %s AND repair_steps <> %s",
                (known, node_id, known),
            )

    async def nodes_health(self, scope: Scope) -> list[Row]:
        return await self._told(scope, None)

    async def health_of(self, scope: Scope, node: str) -> Row:
        found = await self._told(scope, node)
        if not found:
            raise NotFound("node", node)
        return found[0]

    async def repairs(self, scope: Scope, *, everything: bool = False) -> list[Row]:
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                "SELECT r.*, n.name AS node FROM repairs r JOIN nodes n USING (node_id) WHERE r.ended_at IS NULL"
                " OR (%s AND r.ended_at > now() - make_interval(days => %s)) ORDER BY r.opened_at, r.repair_id",
                (everything, SHOWN_DAYS),
            )
        return [_repair_view(row) for row in rows]

    async def settle_repair(self, repair_id: str, verb: str, *, actor: str, reason: str | None) -> Row:
        """A person's word about a repair. Raises NotFound, Conflict."""
        event = {
            "approve": RepairEvent.APPROVE,
            "done": RepairEvent.FINISH,
            "failed": RepairEvent.FAIL,
            "dismiss": RepairEvent.DISMISS,
        }.get(verb)
        if event is None:
            raise NotFound("verb", f"{verb}: a repair is told to approve, done, failed or dismiss")
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            row = await fetch_one(
                session, "SELECT * FROM repairs WHERE repair_id = %s FOR UPDATE", (repair_id,)
            )
            if row is None:
                raise NotFound("repair", repair_id)
            state = RepairState(row["state"])
            if repair_moved(state, event) is None:
                raise Conflict(f"{repair_id} is {state.value}, and a repair in that state cannot {verb}")
            if state is RepairState.ORDERED:
                raise Conflict(f"{repair_id} was told to the node's agent, which will say what came of it")
            await self._move_repair(session, dict(row), event, actor=actor, outcome=reason)
            after = await fetch_one(
                session,
                "SELECT r.*, n.name AS node FROM repairs r JOIN nodes n USING (node_id) WHERE repair_id = %s",
                (repair_id,),
            )
        assert after is not None
        return _repair_view(after)

    async def acknowledge(self, evidence_id: str, *, actor: str) -> Row:
        """A person sees to it: it asks for nothing by itself any more. Raises NotFound, Conflict."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            row = await fetch_one(
                session, "SELECT * FROM evidence WHERE evidence_id = %s FOR UPDATE", (evidence_id,)
            )
            if row is None:
                raise NotFound("evidence", evidence_id)
            if row["ended_at"] is not None:
                raise Conflict(f"{evidence_id} ended already: {row['ended_by']}")
            await session.execute(
                "UPDATE evidence SET acknowledged_by = %s WHERE evidence_id = %s AND acknowledged_by IS NULL",
                (actor, evidence_id),
            )
            await record(
                session, "node", row["node_id"], "acknowledged", actor=actor, reason=row["rule_id"],
                sentence=row["sentence"],
            )  # fmt: skip
        return self._evidence_view({**row, "acknowledged_by": row["acknowledged_by"] or actor})

    async def clear(
        self, node: str, *, actor: str, reason: str | None, evidence_id: str | None = None
    ) -> int:
        """A person's word that evidence no longer holds. Raises NotFound."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            known = await fetch_one(
                session, "SELECT node_id FROM nodes WHERE name = %s OR node_id = %s", (node, node)
            )
            if known is None:
                raise NotFound("node", node)
            ended = await fetch_all(
                session,
                "UPDATE evidence SET ended_at = now(), ended_by = %s WHERE node_id = %s AND ended_at IS NULL"
                " AND (%s::text IS NULL OR evidence_id = %s) RETURNING rule_id",
                (f"cleared by {actor}", known["node_id"], evidence_id, evidence_id),
            )
            if evidence_id is not None and not ended:
                raise NotFound("evidence that stands", evidence_id)
            if ended:
                rules = ", ".join(sorted({row["rule_id"] for row in ended}))
                await record(
                    session, "node", known["node_id"], "cleared", actor=actor,
                    sentence=f"{rules}: {reason}" if reason else rules,
                )  # fmt: skip
        return len(ended)

    async def _told(self, scope: Scope, node: str | None) -> list[Row]:
        """Nodes with their health: of all what stands, of one the last month as well."""
        since = f"{SHOWN_DAYS} days" if node is not None else "0"
        async with self._truth.transaction(scope) as session:
            nodes = await fetch_all(
                session,
                "SELECT n.node_id, n.name AS node, n.state, n.health, h.since, h.sentence, h.held FROM nodes n"
                " LEFT JOIN node_health h USING (node_id) WHERE CASE WHEN %(node)s::text IS NULL"
                " THEN n.state <> 'retired' ELSE n.name = %(node)s OR n.node_id = %(node)s END ORDER BY n.name",
                {"node": node},
            )
            ids = [row["node_id"] for row in nodes]
            kept = await fetch_all(
                session,
                "SELECT * FROM evidence WHERE node_id = ANY(%s) AND (ended_at IS NULL"
                " OR ended_at > now() - %s::interval) ORDER BY ended_at IS NOT NULL, last_at DESC, evidence_id",
                (ids, since),
            )
            repairs = await fetch_all(
                session,
                "SELECT r.*, n.name AS node FROM repairs r JOIN nodes n USING (node_id) WHERE r.node_id = ANY(%s)"
                " AND (r.ended_at IS NULL OR r.ended_at > now() - %s::interval)"
                " ORDER BY r.ended_at IS NOT NULL, r.opened_at DESC",
                (ids, since),
            )
            state = await fetch_one(session, "SELECT *, now() AS at FROM judgements WHERE name = 'health'")
        assert state is not None
        verdicts = verdicts_of(weigh(self._policy, [_evidence(row) for row in kept], state["at"]))
        by_node: dict[str, list[Row]] = {}
        for row in kept:
            by_node.setdefault(row["node_id"], []).append(dict(row))
        return [
            {
                **row,
                "sentence": row["sentence"] if row["health"] != Health.HEALTHY else None,
                "judged_at": state["judged_at"],
                "unjudged": state["unjudged"],
                "verdicts": [
                    _verdict_view(verdict)
                    for subject, verdict in verdicts.items()
                    if subject.node_id == row["node_id"] and subject.serial is not None
                ],
                "evidence": [self._evidence_view(each) for each in by_node.get(row["node_id"], ())],
                "repairs": [_repair_view(each) for each in repairs if each["node_id"] == row["node_id"]],
            }
            for row in nodes
        ]

    def _evidence_view(self, row: Mapping[str, Any]) -> Row:
        rule = self._policy.rule(row["rule_id"])
        return {
            **row,
            "rule": row["rule_id"],
            "subject_kind": "node" if row["serial"] is None else "accelerator",
            "subject": row["serial"] or row["node_id"],
            "severity": rule.severity.value,
            "action": rule.action.value,
        }


async def _newest(store: AskedStore | None) -> tuple[dict[str, Latest], str | None]:
    """The newest row of everything, by family; or why nothing could be asked."""
    if store is None:
        return {}, "nothing is measured here"
    try:
        return {name: await store.latest(family) for name, family in FAMILIES.items()}, None
    except StoreAway as away:
        return {}, str(away)


def _with_counter(each: Evidence) -> str:
    if each.before is None or each.after is None or each.before == each.after:
        return each.sentence
    return f"{each.sentence} (before {each.before:.10g}, after {each.after:.10g})"


def _verdict_view(verdict: Verdict) -> Row:
    worst: Sign | None = verdict.worst
    return {
        "subject_kind": verdict.subject.kind,
        "subject": verdict.subject.name,
        "health": verdict.health.value,
        "action": worst.action.value if worst else None,
        "rules": [sign.rule_id for sign in verdict.signs],
        "since": worst.since if worst else None,
        "sentence": worst.sentence if worst else None,
    }


def _repair_view(row: Mapping[str, Any]) -> Row:
    return {**row, "rule": row["rule_id"]}


def _evidence(row: Mapping[str, Any]) -> Evidence:
    return Evidence(
        evidence_id=row["evidence_id"],
        rule_id=row["rule_id"],
        subject=Subject(node_id=NodeId(row["node_id"]), serial=row["serial"], part=row["part"]),
        at=row["at"],
        last_at=row["last_at"],
        witnesses=tuple(row["witnesses"]),
        sentence=row["sentence"],
        code=row["code"],
        before=row["before"],
        after=row["after"],
        tenant_id=row["held_by"],
        ended_at=row["ended_at"],
        ended_by=row["ended_by"],
        acknowledged_by=row["acknowledged_by"],
    )


def _repair(row: Mapping[str, Any]) -> Repair:
    return Repair(
        repair_id=row["repair_id"],
        node_id=NodeId(row["node_id"]),
        serials=tuple(row["serials"]),
        step=Step(row["step"]),
        state=RepairState(row["state"]),
        by_agent=row["by_agent"],
        rule_id=row["rule_id"],
        opened_at=row["opened_at"],
        drains=row["drains"],
        ordered_at=row["ordered_at"],
        ended_at=row["ended_at"],
    )
