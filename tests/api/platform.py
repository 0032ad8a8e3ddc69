"""A platform in one process: the application asked over ASGI, its node played by hand."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from baseai.api.app import create_api
from baseai.api.doors import Doors
from baseai.engine.log_folder import LogFolder
from baseai.engine.order import NodeReport, Sighting
from baseai.ground.clock import now_utc
from baseai.ground.identity import NodeId, mint
from baseai.tenancy.role import Role
from baseai.truth.session import Truth, fetch_all
from baseai.wiring.household import Household
from baseai.wiring.rooms import NoticeBell, Rooms

TENANTS = ("alpha", "beta")
HELLO = "type: task\nname: {name}\ncommands: [echo hello]\n"


def facts(name: str, slots: int = 4, **differing: Any) -> dict[str, Any]:
    """What a node of CPU slots says of itself."""
    return {
        "name": name, "address": "127.0.0.1", "isolation": "user", "cores": slots, "memory_mib": 8192,
        "disk_mib": 65536, "boot_id": f"boot-{name}", "version": "0",
        "devices": [{"serial": f"{name}/{n}", "model": "cpu-slot", "index": n} for n in range(slots)],
    } | differing  # fmt: skip


class Platform:
    """Everything behind the door, and everybody before it: `keys` by role, customers' as `alpha` and `beta`."""

    def __init__(self, truth: Truth, folder: Path, metrics: Path | None = None) -> None:
        self.truth = truth
        self.household = Household(data=folder / "data")
        self.household.make()
        self.rooms = Rooms(truth, self.household, metrics)
        self.app = create_api(
            Doors(
                tenancy=self.rooms.tenancy,
                fleet=self.rooms.fleet,
                runs=self.rooms.runs,
                engine=self.rooms.engine,
                views=self.rooms.views,
                money=self.rooms.money,
                agreements=self.rooms.agreements,
                costs=self.rooms.costing,
                documents=self.rooms.documents,
                time=self.rooms.time,
                telemetry=self.rooms.intake,
                metrics=self.rooms.metrics,
                uses=self.rooms.uses,
                admission=self.rooms.admission,
                bell=NoticeBell(),
                logs=LogFolder(self.household.run_logs),
                health=self._health,
                uploads=self.household.uploads,
                base_url="http://127.0.0.1:7800",
                services=self.rooms.services,
                service_views=self.rooms.service_views,
                gateway_url="http://127.0.0.1:7801",
                service_money=self.rooms.service_money,
                fleet_health=self.rooms.health,
                proving=self.rooms.proving,
                queues=self.rooms.queues,
                reservations=self.rooms.reservations,
                windows=self.rooms.windows,
                extensions=self.rooms.extensions,
                cabling=self.rooms.cabling,
                rated_watts=self.rooms.catalog.rated_watts(),
            )
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url="http://platform"
        )
        self.keys: dict[str, str] = {}
        self.node_id = NodeId("")

    async def _health(self) -> dict[str, Any]:
        return {}

    async def furnish(self) -> None:
        tenancy = self.rooms.tenancy
        for tenant in TENANTS:
            await tenancy.make_tenant(tenant, actor="test")
            self.keys[tenant] = (await tenancy.make_key(tenant, Role.CUSTOMER, actor="test", tenant=tenant))[
                "secret"
            ]
        for role in (Role.OPERATOR, Role.FINANCE, Role.INVESTOR, Role.VIEWER):
            self.keys[role.value] = (await tenancy.make_key(role.value, role, actor="test"))["secret"]
        self.node_id, self.keys["node"] = await self.join("one")

    async def close(self) -> None:
        await self.client.aclose()
        await self.rooms.metrics.close()

    async def join(self, name: str, **differing: Any) -> tuple[NodeId, str]:
        token = (await self.ask("POST", "/join-tokens", json={})).json()["token"]
        answer = await self.ask(
            "POST", "/agent/join", key=None, json={"token": token, "facts": facts(name, **differing)}
        )
        assert answer.status_code == 201, answer.text
        return NodeId(answer.json()["node_id"]), answer.json()["node_key"]

    # ---- asking

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "operator",
        headers: Mapping[str, str] | None = None,
        **said: Any,
    ) -> httpx.Response:
        """One request under /api/v1 by the holder of that name in `keys`, or with that very text; None: nobody."""
        shown = {} if key is None else {"Authorization": f"Bearer {self.keys.get(key, key)}"}
        return await self.client.request(
            method, f"/api/v1{path}", headers={**shown, **(headers or {})}, **said
        )

    async def submit(self, spec: str, *, key: str = "alpha", **said: Any) -> httpx.Response:
        return await self.ask("POST", "/runs", key=key, json={"spec": spec, "file": "run.yaml"} | said)

    async def submitted(self, name: str = "hello", *, key: str = "alpha") -> str:
        answer = await self.submit(HELLO.format(name=name), key=key)
        assert answer.status_code == 201, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self.truth.transaction() as session:
            return await fetch_all(session, query)

    # ---- what controller and node would do

    async def granted(self, run_id: str) -> str:
        """Let the run be placed and its processes be seen; its lease."""
        await self.rooms.scheduler.tick()
        [lease] = await self.rows(f"SELECT * FROM leases WHERE run_id = '{run_id}' AND state <> 'released'")
        await self.seen(lease, "started", pid=4711)
        await self.rooms.engine.settle()
        lease_id: str = lease["lease_id"]
        return lease_id

    async def finished(self, run_id: str, exit_code: int = 0) -> None:
        [lease] = await self.rows(f"SELECT * FROM leases WHERE run_id = '{run_id}' AND state <> 'released'")
        await self.seen(lease, "exited", gone=(lease["lease_id"],), exit_code=exit_code)
        await self.rooms.engine.settle()
        await self.rooms.meter.meter()
        await self.rooms.agreements.rater.rate()
        await self.rooms.meter.post()

    async def seen(
        self, lease: Mapping[str, Any], kind: str, *, gone: tuple[str, ...] = (), **told: Any
    ) -> None:
        sighting = Sighting(
            event_id=mint("evt"), at=now_utc(), kind=kind, lease_id=lease["lease_id"], attempt_no=lease["attempt_no"],
            **told,
        )  # fmt: skip
        await self.rooms.engine.take(
            lease["node_id"],
            NodeReport(boot_id="boot", sent_at=now_utc(), alive=(), gone=gone, sightings=(sighting,)),
        )


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
