"""The judge in PostgreSQL: every tick all that is known is weighed, and what the playbook says is done.

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

from baseai.fleet.health.desk.postgres import HEALTH, SHOWN_DAYS, evidence_in, move_repair
from baseai.fleet.health.evidence import (
    CEASED,
    EXPIRED,
    REPAIRED,
    Evidence,
    Finding,
    Subject,
    gather,
)
from baseai.fleet.health.hearsay.postgres import Hearsay
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
from baseai.fleet.health.verdict import Verdict, node_verdict, verdicts_of, weigh
from baseai.fleet.node import Health, NodeEvent, NodeState, moved
from baseai.ground.identity import NodeId, mint
from baseai.telemetry.field import ACCELERATOR, FAMILIES, State
from baseai.telemetry.store import AskedStore, Latest, StoreAway
from baseai.truth.history import record
from baseai.truth.session import Session, Truth, fetch_all, fetch_one

log = logging.getLogger(__name__)

ACTOR = "health"
JUDGE_LOCK = 0x6A756467  # "judg"
# Kept of each accelerator before and after its repair.
RAW = ("ecc_ce", "ecc_ue", "row_remap", "link_err", "temp_c", "throttle_bits")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one tick came to."""

    new: int  # pieces of evidence
    moves: tuple[Move, ...]
    unjudged: str | None  # why no metric was judged


class PostgresJudge:
    """The tick that judges. It belongs to one controller, which alone remembers readings."""

    def __init__(self, truth: Truth, policy: Policy) -> None:
        self._truth = truth
        self._policy = policy
        self._hearsay = Hearsay(policy)
        self._memory: dict[str, Memory] = {}
        self._latest: dict[str, Latest] = {}

    async def tick(self, store: AskedStore | None) -> Judged:
        """Read, find, weigh, decide, do. Doing it twice is the same as once."""
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
        return [evidence_in(row) for row in rows]

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
            found = await self._hearsay.in_service(session, found)
            found += await self._hearsay.heard(session)
            found += await self._hearsay.missing(session, now)
            deaths, until = await self._hearsay.deaths(session, state["deaths_until"])
            tested, last_test = await self._hearsay.tested(session, state["tests_until"])
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
        await move_repair(session, self._policy, dict(row), event, actor=actor, outcome=outcome)
        return True


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
