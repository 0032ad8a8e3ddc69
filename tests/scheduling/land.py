"""A small land of real nodes, tenants and runs in PostgreSQL, in which time is moved by moving what is written."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from baseai.catalog.catalog import load_catalog
from baseai.engine.postgres import Engine, Places
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.fleet.postgres import Fleet
from baseai.ground.clock import now_utc
from baseai.ground.identity import NodeId, ProjectId, RunId, TenantId, mint
from baseai.scheduling.booked.postgres.extension import Extensions
from baseai.scheduling.booked.postgres.reservations import Reservations
from baseai.scheduling.booked.postgres.rows import load_claims
from baseai.scheduling.booked.postgres.upkeep import Upkeep
from baseai.scheduling.booked.postgres.windows import Windows
from baseai.scheduling.calendar import FutureClaim
from baseai.tenancy.postgres import Tenancy
from baseai.truth.session import Scope, Truth, fetch_all
from baseai.workloads.postgres import Runs
from baseai.workloads.spec import spec_of

OPERATOR = Scope(tenant_id=None, actor="test")
HOUR = timedelta(hours=1)
SITE = "local"


def unchecked(*_: object) -> None:
    """No recipe is looked at here."""


class Land:
    """Nodes of CPU slots at one site."""

    def __init__(self, truth: Truth, folder: Path) -> None:
        self.truth = truth
        catalog = load_catalog()
        self.tenancy = Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)
        self.fleet = Fleet(truth, self.tenancy, lambda _: None)
        self.runs = Runs(truth)
        places = Places(checkpoints=lambda run: str(folder / run), outputs=lambda run: str(folder / run))
        self.engine = Engine(truth, self.tenancy, places, replica_key=b"r" * 32)
        self.reservations = Reservations(truth, catalog.models_matching)
        self.windows = Windows(truth)
        self.extensions = Extensions(truth, catalog.models_matching)
        self.upkeep = Upkeep(truth)

    async def tenant(self, name: str) -> tuple[TenantId, ProjectId]:
        await self.tenancy.make_tenant(name, actor="test")
        return await self.tenancy.project(OPERATOR, name, None)

    async def join(self, name: str, slots: int = 1) -> NodeId:
        token, _ = await self.tenancy.make_join_token(SITE, actor="test")
        facts = MachineFacts(
            name=name, address="127.0.0.1", isolation="user", container_runtime=None, cores=slots, memory_mib=4096,
            disk_mib=4096, boot_id="b", version="", protocol=1,
            devices=tuple(
                DeviceFacts(serial=f"slot-{name}-{index}", model="cpu-slot", index=index, memory_mib=0)
                for index in range(slots)
            ),
        )  # fmt: skip
        node_id, _ = await self.fleet.join(token, facts)
        return node_id

    async def queue(self, project: tuple[TenantId, ProjectId], spec: str = "") -> str:
        """A run that waits."""
        text = f"type: task\nname: job\ncommands: [sleep 1]\n{spec}"
        run_id = RunId(mint("run"))
        read = spec_of(text, "job.yaml", unchecked)  # type: ignore[arg-type]
        await self.runs.submit(OPERATOR, project, run_id, read, (), submitted_by="test")
        return run_id

    async def run(
        self, project: tuple[TenantId, ProjectId], nodes: Sequence[str], slots: int = 1, spec: str = "",
        lasts: timedelta = 24 * HOUR,
    ) -> str:  # fmt: skip
        """A run that holds `slots` on each of these nodes, as the queue would have written it."""
        run_id = await self.queue(project, spec)
        await self.write("UPDATE runs SET state = 'starting', attempt_no = 1 WHERE run_id = %s", run_id)
        await self.write(
            "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
            " VALUES (%s, 1, %s, %s, %s, 20000, 'starting')", run_id, *project, len(nodes),
        )  # fmt: skip
        ends_at = now_utc() + lasts
        for rank, node_id in enumerate(nodes):
            lease_id = mint("lea")
            await self.write(
                "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model,"
                " state, ends_at) VALUES (%s, %s, %s, %s, 1, %s, %s, 'cpu-slot', 'granted', %s)",
                lease_id, *project, run_id, node_id, rank, ends_at,
            )  # fmt: skip
            await self.write(
                "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
                " SELECT l.lease_id, a.accelerator_no, l.tenant_id, l.project_id, tstzrange(l.granted_at, l.ends_at)"
                " FROM leases l JOIN accelerators a USING (node_id) WHERE l.lease_id = %s AND NOT EXISTS (SELECT FROM"
                " lease_accelerators h WHERE h.accelerator_no = a.accelerator_no AND h.during && tstzrange(now(),"
                " l.ends_at)) ORDER BY 2 LIMIT %s", lease_id, slots,
            )  # fmt: skip
        await self.write("UPDATE runs SET state = 'running' WHERE run_id = %s", run_id)
        return run_id

    async def release(self, run_id: str) -> None:
        """Its processes are gone."""
        await self.write(
            "UPDATE leases SET state = 'released', released_at = now() WHERE run_id = %s", run_id
        )

    async def reserve(
        self,
        project: tuple[TenantId, ProjectId],
        name: str,
        nodes: int = 1,
        slots: int = 1,
        *,
        in_h: float = 48.0,
        for_h: float = 2.0,
        take_or_pay: bool = True,
    ) -> dict[str, Any]:
        from_at = now_utc() + in_h * HOUR
        made = await self.reservations.reserve(
            Scope(tenant_id=project[0], actor="test"), project, name=name, gpu=f"cpu-slot:{slots}", nodes=nodes,
            site=SITE, from_at=from_at, until_at=from_at + for_h * HOUR, take_or_pay=take_or_pay,
        )  # fmt: skip
        return dict(made)

    async def plan(self, *nodes: str, in_h: float = 48.0, for_h: float = 2.0) -> dict[str, Any]:
        from_at = now_utc() + in_h * HOUR
        made = await self.windows.plan(
            nodes=nodes, site=None, from_at=from_at, until_at=from_at + for_h * HOUR, why="fans", actor="test"
        )
        return dict(made)

    async def pass_time(self, by: timedelta) -> None:
        """What was booked is so much nearer, or longer ago."""
        for table in ("reservations", "maintenances"):
            await self.write(f"UPDATE {table} SET from_at = from_at - %s, until_at = until_at - %s", by, by)

    async def move(self, node_id: str, event: NodeEvent) -> None:
        await self.fleet.steer(node_id, event, actor="test", reason=None)

    async def claims(self) -> tuple[FutureClaim, ...]:
        async with self.truth.transaction() as session:
            return await load_claims(session)

    async def stopping(self, run_id: str) -> bool:
        [row] = await self.rows("SELECT stop FROM attempts WHERE run_id = %s", run_id)
        return bool(row["stop"])

    async def node_state(self, node_id: str) -> str:
        [row] = await self.rows("SELECT state FROM nodes WHERE node_id = %s", node_id)
        return str(row["state"])

    async def ends_at(self, run_id: str) -> datetime:
        [row] = await self.rows("SELECT max(ends_at) AS ends_at FROM leases WHERE run_id = %s", run_id)
        at: datetime = row["ends_at"]
        return at

    async def events(self, subject: str) -> list[str]:
        rows = await self.rows("SELECT event FROM events WHERE subject_id = %s ORDER BY event_no", subject)
        return [row["event"] for row in rows]

    async def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        async with self.truth.transaction() as session:
            return await fetch_all(session, query, params)

    async def write(self, query: str, *params: object) -> None:
        async with self.truth.transaction() as session:
            await session.execute(query, params)  # type: ignore[arg-type]
