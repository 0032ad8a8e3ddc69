"""A stage is a whole platform in one process: real rooms and tables, a clock the test moves, and nodes that are played.

The database's own clock is moved, by a `now()` that its tables were made with, so that hours pass in a moment and
everything that reads the time reads the same. A played node does what an agent would: it starts what it is ordered to,
saves and ends it when it is told so, and reports.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from baseai.engine.order import NodeReport, Order, Sighting
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.ground.identity import NodeId, RunId, mint
from baseai.scheduling.plan import Plan
from baseai.truth.embedded import Embedded
from baseai.truth.migrate import migrate
from baseai.truth.session import Scope, Truth, fetch_all
from baseai.wiring.household import Household
from baseai.wiring.rooms import Rooms
from baseai.workloads.burn import KIND as BURN_IN

MODEL = "H100-SXM"
DAWN = datetime(2026, 3, 2, 6, tzinfo=UTC)
SAVE_S = 20.0  # what a run takes to save
SOUND = {"bf16": 720_000.0, "fp8": 1_300_000.0}  # GFLOP/s of an accelerator that is as it should be
SOON = timedelta(seconds=2)  # the controller is rung when something moves
LONGEST = timedelta(minutes=2)  # it looks also when nothing does
NEAR, KEPT = timedelta(seconds=100), timedelta(seconds=10)  # before what begins the calendar is kept so often
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.stands (at timestamptz NOT NULL);
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM clock.stands';
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM clock.stands';
GRANT USAGE ON SCHEMA clock TO baseai_service;
GRANT SELECT ON clock.stands TO baseai_service;
"""


@asynccontextmanager
async def stage(embedded: Embedded, folder: Path) -> AsyncIterator["Stage"]:
    """A stage at dawn, with nothing on it. Its tables are made by the real migrations."""
    name = mint("db").lower()
    admin = f"host={embedded.sockets} user=postgres dbname=postgres"
    dsn = f"host={embedded.sockets} user=postgres dbname={name}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        # What stands before pg_catalog hides its now().
        connection.execute(f"ALTER DATABASE {name} SET search_path = public, clock, pg_catalog")  # type: ignore[arg-type]
    try:
        with psycopg.connect(dsn, autocommit=True) as clock:
            clock.execute(CLOCK)
            clock.execute("INSERT INTO clock.stands VALUES (%s)", (DAWN,))
            migrate(dsn)
            truth = Truth(dsn, connections_max=4)
            await truth.open()
            try:
                household = Household(data=folder / "home")
                household.make()
                yield Stage(Rooms(truth, household), clock)
            finally:
                await truth.close()
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


@dataclass(slots=True)
class Process:
    """What a played node runs for one lease."""

    order: Order
    since: datetime
    told_at: datetime | None = None  # to end


@dataclass(slots=True)
class Machine:
    """A node of eight accelerators, played."""

    node_id: NodeId
    processes: dict[str, Process] = field(default_factory=dict)  # by lease


@dataclass(slots=True)
class Work:
    """What a run has to do, and how far it was when it saved last."""

    needs: timedelta
    saved: timedelta = timedelta()


class Stage:
    """See the head of this file."""

    def __init__(self, rooms: Rooms, clock: psycopg.Connection) -> None:
        self.rooms = rooms
        self.at = DAWN
        self.machines: dict[str, Machine] = {}
        self.work: dict[str, Work] = {}  # by run
        self.names: dict[str, str] = {}  # of runs, by id
        self.begins: list[datetime] = []  # near which the controller looks often
        self.plan = Plan(grants=(), waits=())  # of the last look
        self._clock = clock

    # ---- the clock

    def move(self, by: timedelta) -> None:
        self.at += by
        self._clock.execute("UPDATE clock.stands SET at = %s", (self.at,))

    def clock(self, text: str) -> datetime:
        """`1:30` is an hour and a half after dawn."""
        hours, minutes = text.split(":")
        return DAWN + timedelta(hours=int(hours), minutes=int(minutes))

    def told(self, at: datetime) -> str:
        """The other way round, the minute in which that is."""
        minutes = int((at - DAWN).total_seconds()) // 60
        return f"{minutes // 60}:{minutes % 60:02}"

    async def until(self, text: str) -> AsyncIterator[None]:
        """Let the platform live to that time, and until nothing moves; yields after every look of its controller."""
        end, moved = self.clock(text), True
        while moved or self.at < end:
            step = SOON if moved else min(self._next(), end) - self.at
            self.move(max(timedelta(seconds=1), step))
            moved = await self.look()
            yield

    def _next(self) -> datetime:
        """When something happens by itself."""
        found = [self.at + LONGEST]
        for begin in self.begins:
            near = begin - NEAR
            if near < self.at + KEPT and self.at < begin:
                found.append(self.at + KEPT)
            found += [each for each in (near, begin) if each > self.at]
        for machine in self.machines.values():
            found += [self._ends(process) for process in machine.processes.values()]
        return min(found)

    async def look(self) -> bool:
        """What nodes report, and one round of everything that the controller does; whether anything moved."""
        moved = 0
        for machine in self.machines.values():
            moved += await self._report(machine)
        await self.rooms.engine.watch()
        moved += await self.rooms.engine.settle()
        kept = await self.rooms.upkeep.step()
        moved += kept.moves + kept.asked + await self.rooms.proving.step()
        self.plan, stale = await self.rooms.scheduler.tick()
        assert not stale
        return bool(moved or self.plan.grants or self.plan.evictions)

    # ---- what an operator and tenants do

    async def join(self, name: str) -> NodeId:
        token, _ = await self.rooms.tenancy.make_join_token("local", actor="ana")
        facts = MachineFacts(
            name=name, address="127.0.0.1", isolation="user", container_runtime=None, cores=96, memory_mib=1 << 20,
            disk_mib=1 << 22, boot_id="b", version="", protocol=1,
            devices=tuple(
                DeviceFacts(serial=f"{name}-{index}", model=MODEL, index=index, memory_mib=81_559)
                for index in range(8)
            ),
        )  # fmt: skip
        node_id, _ = await self.rooms.fleet.join(token, facts)
        await self.write("UPDATE nodes SET simulated = true WHERE node_id = %s", node_id)
        self.machines[name] = Machine(node_id)
        return node_id

    async def submit(self, tenant: str, text: str, needs: timedelta) -> str:
        """A run that is done after it has held its accelerators that long."""
        scope = Scope(tenant_id=None, actor="ana")
        project = await self.rooms.tenancy.project(scope, tenant, None)
        spec = self.rooms.admission.read(text, "run.yaml")
        run_id = RunId(mint("run"))
        await self.rooms.admission.check(run_id, project[0], spec)
        await self.rooms.runs.submit(scope, project, run_id, spec, (), submitted_by=tenant)
        self.names[run_id] = spec.name
        self.work[run_id] = Work(needs=needs)
        return run_id

    async def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        async with self.rooms.truth.transaction() as session:
            return await fetch_all(session, query, params)

    async def write(self, query: str, *params: object) -> None:
        async with self.rooms.truth.transaction() as session:
            await session.execute(query, params)  # type: ignore[arg-type]

    # ---- the nodes

    def _ends(self, process: Process) -> datetime:
        """When the process will be gone."""
        if process.told_at is not None:
            return process.told_at + timedelta(seconds=SAVE_S)
        work = self.work.get(process.order.run_id)
        needs = timedelta(minutes=3) if work is None else work.needs - work.saved  # a test of a node
        return process.since + needs

    async def _report(self, machine: Machine) -> int:
        """What the node saw since it spoke last; how many processes started or ended."""
        orders = {order.lease_id: order for order in (await self.rooms.engine.orders(machine.node_id)).orders}
        sightings: list[Sighting] = []
        gone = []
        for lease_id, order in orders.items():
            process = machine.processes.get(lease_id)
            if process is None:
                if not order.stop:
                    machine.processes[lease_id] = Process(order, self.at)
                    sightings.append(self._sighting(order, "started"))
                continue
            if order.stop and process.told_at is None:
                process.order, process.told_at = order, self.at
        for lease_id, process in list(machine.processes.items()):
            if self._ends(process) > self.at:
                continue
            del machine.processes[lease_id]
            sightings += self._last_words(process)
            gone.append(lease_id)
        alive = tuple((lease_id, 7) for lease_id in machine.processes)
        await self.rooms.engine.take(
            machine.node_id,
            NodeReport(
                boot_id="b", sent_at=self.at, sightings=tuple(sightings), gone=tuple(gone), alive=alive
            ),
        )
        return len(sightings)

    def _last_words(self, process: Process) -> list[Sighting]:
        """A run that was told to end has saved; one that has done its work has not to."""
        order = process.order
        work = self.work.get(order.run_id)
        if process.told_at is not None:
            words = []
            if work is not None and order.node_rank == 0:
                work.saved += self.at - process.since
                words.append(self._sighting(order, "progress", payload=_checkpoint(work)))
            return [*words, self._sighting(order, "exited", exit_code=143, reason=order.stop_reason)]
        words = [self._sighting(order, "exited", exit_code=0, reason="finished")]
        if order.kind == BURN_IN:
            words.insert(0, self._sighting(order, "progress", payload=_figures(order)))
        return words

    def _sighting(self, order: Order, kind: str, **said: Any) -> Sighting:
        return Sighting(
            event_id=mint("obs"), at=self.at, kind=kind, lease_id=order.lease_id, attempt_no=order.attempt_no,
            pid=7, **said,
        )  # fmt: skip


def _checkpoint(work: Work) -> Mapping[str, Any]:
    """One step a second."""
    return {
        "kind": "checkpoint", "step": round(work.saved.total_seconds()), "path": "p", "digest": "d", "bytes": 1,
        "save_s": SAVE_S, "stall_ms": 1,
    }  # fmt: skip


def _figures(order: Order) -> Mapping[str, Any]:
    """What a sound node measures."""
    figures = [
        {"test": test, "variant": variant, "accelerator_id": device.accelerator_id, "value": value}
        for device in order.devices
        for variant, speed in SOUND.items()
        for test, value in (("gemm", speed), ("gemm_wrong", 0.0))
    ]
    return {"kind": "result", "profile": "standard", "software": {}, "figures": figures}
