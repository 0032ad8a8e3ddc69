"""The desk of health in PostgreSQL: where events are handed in, and where people and agents see and settle things.

Every call may come twice and beside others: an event is known by its id, and a repair moves only from the state that
was seen. What follows from an event is the judge's to say, at its next tick.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from baseai.fleet.health.evidence import REPAIRED, Evidence, Subject
from baseai.fleet.health.repair import OPEN, RepairEvent, RepairState, Step
from baseai.fleet.health.repair import moved as repair_moved
from baseai.fleet.health.rule import Policy
from baseai.fleet.health.verdict import Sign, Verdict, verdicts_of, weigh
from baseai.fleet.node import Health
from baseai.ground.fault import Conflict, NotFound
from baseai.ground.identity import NodeId
from baseai.telemetry.witness import Witness
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

HEALTH = Scope(tenant_id=None, actor="health")
SHOWN_DAYS = 30
REPAIR_WITNESS = "repair"  # by which an agent says what came of an order
Row = dict[str, Any]


class HealthDesk:
    """What doors ask of health."""

    def __init__(self, truth: Truth, policy: Policy) -> None:
        self._truth = truth
        self._policy = policy

    async def witness(self, node_id: NodeId, witnesses: Sequence[Witness]) -> Sequence[str]:
        """Keep events; the ids that are safe, new or repeated. What came of an ordered repair is settled at once."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=f"node {node_id}")) as session:
            for each in witnesses:
                await session.execute(
                    "INSERT INTO witnesses (event_id, node_id, serial, at, kind, code, severity, sentence, payload)"
                    " SELECT %(id)s, %(node)s, a.serial, %(at)s, %(kind)s, %(code)s, %(severity)s,"
                    # A device that nobody knows here: the event is kept, as the node's, and says which it named.
                    " %(sentence)s || CASE WHEN a.serial IS NULL AND %(key)s::text IS NOT NULL"
                    " THEN ' (of ' || %(key)s || ', which is no accelerator of this node)' ELSE '' END, %(payload)s"
                    " FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT serial FROM accelerators WHERE node_id = %(node)s"
                    " AND (serial = %(key)s OR uuid = %(key)s OR lower(pci) = lower(%(key)s)) LIMIT 1) AS a ON true"
                    " ON CONFLICT DO NOTHING",
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
        await move_repair(session, self._policy, dict(row), event, actor="agent", outcome=witness.sentence)

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
            await move_repair(session, self._policy, dict(row), event, actor=actor, outcome=reason)
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
        verdicts = verdicts_of(weigh(self._policy, [evidence_in(row) for row in kept], state["at"]))
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


async def move_repair(
    session: Session, policy: Policy, row: Row, event: RepairEvent, *, actor: str, outcome: str | None
) -> None:
    """Move a repair as its table says; one that is done answers the evidence from before it. Writes both events."""
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
            (REPAIRED, row["node_id"], list(row["evidence_ids"]), row["drains"], _mild(policy)),
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


def _mild(policy: Policy) -> list[str]:
    """Rules that ask for nothing: a repair does not answer them, nor need it."""
    return [rule_id for rule_id, rule in policy.rules.items() if rule.action.rank == 0]


def evidence_in(row: Mapping[str, Any]) -> Evidence:
    """The evidence of one row."""
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
