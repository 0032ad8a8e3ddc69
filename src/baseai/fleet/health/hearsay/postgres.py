"""What is told of nodes otherwise than by samples, from PostgreSQL: witnesses, lost devices, runs that died, tests.

Everything here is read in the judge's own transaction, which also notes up to where it was read: told once, found once.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from baseai.fleet.health.evidence import Finding, Subject, finding_of
from baseai.fleet.health.rule import Policy
from baseai.ground.identity import NodeId
from baseai.telemetry.witness import Witness
from baseai.truth.session import Session, fetch_all, fetch_one

WITNESSES_A_TICK = 5_000
# Ends of an attempt's processes that the run does not explain: they count against the node, never against a tenant.
UNEXPLAINED = ("process_lost", "worker_lost", "node_lost", "start_failed")
Row = dict[str, Any]


class Hearsay:
    """What others say, as findings."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def in_service(self, session: Session, found: Sequence[Finding]) -> list[Finding]:
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

    async def heard(self, session: Session) -> list[Finding]:
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

    async def missing(self, session: Session, now: datetime) -> list[Finding]:
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

    async def deaths(self, session: Session, since: datetime) -> tuple[list[Finding], datetime]:
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

    async def tested(self, session: Session, since: int) -> tuple[list[Finding], int]:
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
