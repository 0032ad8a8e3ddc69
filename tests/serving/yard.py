"""A small platform without processes: nodes of CPU slots whose agents are played by hand, and services on them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from baseai.engine.order import NodeReport, Sighting
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.ground.clock import now_utc
from baseai.serving.postgres.services import Applied
from baseai.truth.session import Scope, Truth, fetch_all
from baseai.wiring.household import Household
from baseai.wiring.rooms import Rooms
from baseai.workloads.service import Rollout, Scaling, Service
from baseai.workloads.spec import Resources, Retry, RunSpec

OPERATOR = Scope(tenant_id=None, actor="test")
WORK = Service(
    engine="command",
    model=None,
    model_name="echo",
    protocol="json",
    commands=("serve",),
    scaling=Scaling(least=1, most=4),
)


def spec_of_service(name: str = "echo", work: Service = WORK, **said: Any) -> RunSpec:
    spec = RunSpec(
        name=name, work=work, nodes=1, resources=Resources(gpu=(), cpu=None, memory_mib=None, disk_mib=None), env=(),
        files=(), secrets=(), working_dir=None, image=None, queue="default", priority=50, max_duration_s=30 * 86_400,
        min_runtime_s=0, retry=Retry(on_events=("interruption",), max_attempts=1, duration_s=None), cost_center=None,
        data_residency=(), site=None,
    )  # fmt: skip
    return replace(spec, **said)


def scaled(least: int, most: int, **said: Any) -> Service:
    return replace(WORK, scaling=Scaling(least=least, most=most, **said))


def at_once(work: Service = WORK) -> Service:
    """A rollout of one step that does not bake."""
    return replace(work, rollout=Rollout(shares=(1.0,), bake_s=0.0))


class Yard:
    """What the tests do to it and see of it."""

    def __init__(self, truth: Truth, folder: Path) -> None:
        household = Household(data=folder)
        household.make()
        self.rooms = Rooms(truth, household)
        self.port = 9_000
        self.told = 0

    async def begin(self, slots: int = 8) -> None:
        await self.rooms.tenancy.make_tenant("base", actor="test")
        token, _ = await self.rooms.tenancy.make_join_token("local", actor="test")
        facts = MachineFacts(
            name="n1", address="127.0.0.1", isolation="none", container_runtime=None, cores=slots, memory_mib=65536,
            disk_mib=65536, boot_id="b", version="", protocol=1,
            devices=tuple(
                DeviceFacts(serial=f"slot-{no}", model="cpu-slot", index=no, memory_mib=0) for no in range(slots)
            ),
        )  # fmt: skip
        self.node_id, _ = await self.rooms.fleet.join(token, facts)
        for state, event in (("onboarding", NodeEvent.BURN), ("burn_in", NodeEvent.ADMIT)):
            [row] = await self.rows("SELECT state FROM nodes")
            if row["state"] == state:
                await self.rooms.fleet.steer("n1", event, actor="test", reason=None)

    async def apply(self, spec: RunSpec) -> Applied:
        project = await self.rooms.tenancy.project(OPERATOR, None, None)
        return await self.rooms.services.apply(OPERATOR, project, spec, (), by="test")

    async def turn(self) -> None:
        """What the platform's loops do in a second, with agents that start and end at once what they are told."""
        await self.rooms.keeper.step()
        await self.rooms.scheduler.tick()
        await self.report()
        await self.rooms.engine.settle()
        await self.rooms.keeper.step()

    async def report(self, *, answers: bool = True, exit_code: int | None = None) -> None:
        """The node reports: everything it was ordered runs, tells where it listens, or ends."""
        orders = (await self.rooms.engine.orders(self.node_id)).orders
        sightings, alive, gone = [], [], []
        for order in orders:
            key = f"{order.lease_id}-"
            kinds: list[tuple[str, dict[str, Any]]] = [("started", {})]
            if order.stop or exit_code is not None:
                kinds.append(("exited", {"exit_code": exit_code or 0, "reason": order.stop_reason}))
                gone.append(order.lease_id)
            else:
                alive.append((order.lease_id, 7))
                if answers:
                    self.port += 1
                    ready = {
                        "kind": "ready",
                        "port": self.port,
                        "address": "127.0.0.1",
                        "digest": "d",
                        "bytes": 3,
                    }
                    kinds.append(("progress", {"payload": ready}))
            for kind, said in kinds:
                sightings.append(
                    Sighting(
                        event_id=key + kind, at=now_utc(), kind=kind, lease_id=order.lease_id,
                        attempt_no=order.attempt_no, pid=7, **said,
                    )
                )  # fmt: skip
        taken = await self.rooms.engine.take(
            self.node_id,
            NodeReport(
                boot_id="b",
                sent_at=now_utc(),
                alive=tuple(alive),
                gone=tuple(gone),
                sightings=tuple(sightings),
            ),
        )
        assert not taken.refused

    async def ask(self, service_id: str, concurrency: float, *, held: int = 0, seconds: int = 3) -> None:
        """Gateways tell of the last seconds."""
        async with self.rooms.truth.transaction() as session:
            await session.execute("DELETE FROM service_demand")
            for ago in range(seconds):
                await session.execute(
                    "INSERT INTO service_demand VALUES (%s, 'g', date_trunc('second', now()) - %s, %s, %s, %s)",
                    (service_id, timedelta(seconds=ago), concurrency, held, int(concurrency)),
                )

    async def age(self, column: str, seconds: float) -> None:
        """Live replicas, as if that had been so long ago."""
        async with self.rooms.truth.transaction() as session:
            await session.execute(
                f"UPDATE replicas SET {column} = {column} - make_interval(secs => %s) WHERE state <> 'gone'",  # type: ignore[arg-type]
                (seconds,),
            )

    async def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        async with self.rooms.truth.transaction() as session:
            return await fetch_all(session, query, params)

    async def replicas(self) -> list[tuple[int, str]]:
        """(version, state) of those that are not gone."""
        return [
            (row["version_no"], row["state"])
            for row in await self.rows(
                "SELECT version_no, state FROM replicas WHERE state <> 'gone' ORDER BY version_no, state, run_id"
            )
        ]

    async def service(self) -> dict[str, Any]:
        [row] = await self.rows("SELECT * FROM services ORDER BY made_at DESC LIMIT 1")
        return row
