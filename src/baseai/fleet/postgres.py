"""Sites, nodes and accelerators in PostgreSQL: joining, facts, sightings and moves of the lifecycle."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from baseai.catalog.accelerator import CPU_SLOT
from baseai.fleet.fabric.mount import Mount
from baseai.fleet.machine import MachineFacts
from baseai.fleet.node import TRANSITIONS, NodeEvent, NodeState, moved
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import NodeId, mint
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

Row = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Admission(Protocol):
    """What joining needs of tenancy: a token spent and a key made, in the same transaction as the node."""

    async def spend_join_token(self, session: Session, text: str) -> str: ...
    async def insert_node_key(self, session: Session, node_id: NodeId, name: str) -> str: ...


class Mounting(Protocol):
    """What joining needs of the cabling: to take over what a node says of where it hangs."""

    async def heed(self, session: Session, node_id: NodeId, said: Mount, *, joining: bool) -> None: ...


class Fleet:
    """The machines. `unplaceable(model)` says why a model cannot stand in a node of ours, or None."""

    def __init__(
        self,
        truth: Truth,
        admission: Admission,
        unplaceable: Callable[[str], str | None],
        mounting: Mounting | None = None,
    ) -> None:
        self._truth = truth
        self._mounting = mounting
        self._admission = admission
        self._unplaceable = unplaceable

    async def join(self, token: str, facts: MachineFacts) -> tuple[NodeId, str]:
        """Admit a node: its id and the key it speaks with. The token is spent only if all of it succeeds.

        A known name is taken back by a node that has fallen silent (its folder was lost, say); the name of a
        node that speaks is refused. Raises NotAdmitted, Conflict, Refused.
        """
        if not _NAME.fullmatch(facts.name):
            raise Refused(
                f"{facts.name[:80]!r} is not a name of a node: use 1 to 100 of A-Z, a-z, 0-9, . _ and -"
            )
        self._check(facts)
        scope = Scope(tenant_id=None, actor=f"node {facts.name}")
        async with self._truth.transaction(scope) as session:
            site = await self._admission.spend_join_token(session, token)
            await session.execute("INSERT INTO sites (site_id) VALUES (%s) ON CONFLICT DO NOTHING", (site,))
            known = await fetch_one(
                session,
                "SELECT node_id, state, seen_at > now() - interval '10 seconds' AS speaks FROM nodes WHERE name = %s"
                " FOR UPDATE",
                (facts.name,),
            )
            if known is not None and known["speaks"]:
                raise Conflict(
                    f"a node named {facts.name} is here already and answers: choose another --name"
                )
            if known is not None and known["state"] == NodeState.RETIRED:
                raise Conflict(f"the node {facts.name} was retired: choose another --name")
            node_id = NodeId(known["node_id"]) if known else NodeId(mint("nod"))
            if known is None:
                made = await session.execute(
                    "INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib,"
                    " disk_mib, boot_id, protocol) VALUES (%s, %s, %s, %s, 'onboarding', %s, %s, %s, %s, %s, %s)"
                    " ON CONFLICT (name) DO NOTHING",
                    (node_id, facts.name, site, facts.address, facts.isolation, facts.cores, facts.memory_mib,
                     facts.disk_mib, facts.boot_id, facts.protocol),
                )  # fmt: skip
                if made.rowcount == 0:
                    raise Conflict(
                        f"another node takes the name {facts.name} at this moment: choose another --name"
                    )
            key = await self._admission.insert_node_key(session, node_id, facts.name)
            await session.execute("UPDATE join_tokens SET node_id = %s WHERE used_at = now()", (node_id,))
            await record(session, "node", node_id, "joined", actor=scope.actor, to_state="onboarding")
            await self._write_facts(session, node_id, facts, scope.actor)
            if self._mounting is not None:
                await self._mounting.heed(session, node_id, facts.mount, joining=True)
            if known is None:
                real = sorted({device.model for device in facts.devices} - {CPU_SLOT})
                event = NodeEvent.BURN if real else NodeEvent.ADMIT
                why = f"{', '.join(real)} to be tested" if real else "CPU slots need no burning in"
                await self._move(session, node_id, event, scope.actor, why)
        return node_id, key

    async def learn(self, node_id: NodeId, facts: MachineFacts) -> None:
        """Take over what a node says of itself as its agent starts. Raises Refused, Conflict."""
        self._check(facts)
        actor = f"node {facts.name}"
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await self._write_facts(session, node_id, facts, actor)
            if self._mounting is not None:
                await self._mounting.heed(session, node_id, facts.mount, joining=False)

    async def steer(self, name: str, event: NodeEvent, *, actor: str, reason: str | None) -> Row:
        """Move a node through its lifecycle at an operator's word. Raises NotFound, Conflict."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            node = await self._node(session, name)
            if event is NodeEvent.RETIRE:
                held = await fetch_one(
                    session,
                    "SELECT count(*) AS leases FROM leases WHERE node_id = %s AND state <> 'released'",
                    (node["node_id"],),
                )
                if held and held["leases"]:
                    raise Conflict(f"{node['name']} still holds {held['leases']} leases: drain it first")
            await self._move(session, NodeId(node["node_id"]), event, actor, reason)
            if event is NodeEvent.RETIRE:
                await session.execute(
                    "UPDATE api_keys SET revoked_at = now() WHERE node_id = %s AND revoked_at IS NULL",
                    (node["node_id"],),
                )
            return await self._node(session, name)

    async def _move(
        self, session: Session, node_id: NodeId, event: NodeEvent, actor: str, reason: str | None
    ) -> None:
        row = await fetch_one(
            session, "SELECT name, state FROM nodes WHERE node_id = %s FOR UPDATE", (node_id,)
        )
        if row is None:
            raise NotFound("node", node_id)
        target = moved(NodeState(row["state"]), event)
        if target is None:
            can = ", ".join(each.value for state, each in TRANSITIONS if state.value == row["state"])
            raise Conflict(
                f"{row['name']} is {row['state']}, and a node in that state cannot {event.value}; it can {can}"
            )
        await session.execute(
            "UPDATE nodes SET state = %s, desired_version = desired_version + 1 WHERE node_id = %s AND state = %s",
            (target.value, node_id, row["state"]),
        )
        await record(
            session, "node", node_id, event.value, actor=actor, from_state=row["state"], to_state=target.value,
            sentence=reason,
        )  # fmt: skip

    async def _write_facts(self, session: Session, node_id: NodeId, facts: MachineFacts, actor: str) -> None:
        await session.execute(
            "UPDATE nodes SET address = %s, isolation = %s, container_runtime = %s, cores = %s, memory_mib = %s,"
            " disk_mib = %s, boot_id = %s, version = %s, protocol = %s, seen_at = now() WHERE node_id = %s",
            (facts.address, facts.isolation, facts.container_runtime, facts.cores, facts.memory_mib,
             facts.disk_mib, facts.boot_id, facts.version, facts.protocol, node_id),
        )  # fmt: skip
        installed = {
            row["serial"]: row
            for row in await fetch_all(
                session,
                "SELECT serial, node_id, state FROM accelerators WHERE node_id = %s OR serial = ANY(%s)",
                (node_id, [device.serial for device in facts.devices]),
            )
        }
        await session.execute(
            "UPDATE accelerators a SET device_index = d.index, uuid = d.uuid, pci = d.pci"
            " FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[]) AS d (serial, index, uuid, pci)"
            " WHERE a.serial = d.serial AND a.node_id = %s"
            " AND (a.device_index, a.uuid, a.pci) IS DISTINCT FROM (d.index, d.uuid, d.pci)",
            (
                [device.serial for device in facts.devices],
                [device.index for device in facts.devices],
                [device.uuid for device in facts.devices],
                [device.pci for device in facts.devices],
                node_id,
            ),
        )
        for device in facts.devices:
            row = installed.pop(device.serial, None)
            if row is not None and row["node_id"] != node_id:
                raise Conflict(f"the accelerator {device.serial} stands in another node already")
            if row is None:
                made = await session.execute(
                    "INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, memory_mib, uuid,"
                    " pci, state) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'in_service')"
                    " ON CONFLICT (serial) DO NOTHING",
                    (mint("acc"), node_id, device.model, device.serial, device.index, device.memory_mib,
                     device.uuid, device.pci),
                )  # fmt: skip
                if made.rowcount == 0:  # joined by another, a moment ago
                    raise Conflict(f"the accelerator {device.serial} stands in another node already")
            elif row["state"] == "failed":
                await self._move_accelerator(
                    session, device.serial, "failed", "in_service", actor, "seen again"
                )
        for serial, row in installed.items():
            if row["state"] == "in_service":
                await self._move_accelerator(session, serial, "in_service", "failed", actor, "no longer seen")

    async def _move_accelerator(
        self, session: Session, serial: str, before: str, after: str, actor: str, why: str
    ) -> None:
        await session.execute(
            "UPDATE accelerators SET state = %s WHERE serial = %s AND state = %s", (after, serial, before)
        )
        await record(
            session, "accelerator", serial, why.replace(" ", "_"), actor=actor, from_state=before, to_state=after,
            sentence=f"its node: {why}",
        )  # fmt: skip

    async def _node(self, session: Session, name: str) -> Row:
        row = await fetch_one(
            session, "SELECT * FROM nodes WHERE name = %s OR node_id = %s FOR UPDATE", (name, name)
        )
        if row is None:
            raise NotFound("node", name)
        return dict(row)

    def _check(self, facts: MachineFacts) -> None:
        wrong: Sequence[str] = sorted(
            {
                sentence
                for device in facts.devices
                if (sentence := self._unplaceable(device.model)) is not None
            }
        )
        if wrong:
            raise Refused(f"the node {facts.name} cannot join: {'; '.join(wrong)}")
