"""One gateway process as the platform runs it, over routes that a bench gives it instead of a database.

    python bench/serving/our_gateway.py DESCRIPTOR '{"ports": […], "folder": …, "balance": …, "cached": …, …}'

Everything on a request's path is the platform's own: keys, limits, cache, balancing, metering, the journal on disk and
its shipper. Only where those ask the database, memory answers: one key, one service, and a quay that takes all that is
shipped and forgets it.
"""

import asyncio
import json
import os
import random
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baseai.gateway.app import GatewayApp
from baseai.gateway.cache import MemoryCache
from baseai.gateway.door import Door, DoorSettings
from baseai.gateway.journal import Journal
from baseai.gateway.keys import Keys
from baseai.gateway.limits import SharedLimits
from baseai.gateway.server import serve_gateway
from baseai.gateway.shipper import Marks, Shipper
from baseai.gateway.traffic import Stretch
from baseai.gateway.usage import Use
from baseai.ground.identity import KeyId, ProjectId, TenantId
from baseai.serving.demand import DemandSecond
from baseai.serving.route import Backend, Route, RoutedVersion, Routes, routes_of
from baseai.tenancy.key import Holder, NotAdmitted
from baseai.tenancy.role import Role
from baseai.workloads.service import CacheTerms, RateLimit, Scaling, Service

KEY = "bai_benchbenchbenchbenchbenchbenchbe"
SERVICE = "svc_bench"
SHIPPED = "shipped"  # in the front's folder: requests in each usage that was taken in, a line each


class OneKey:
    """The holder of the bench's key."""

    async def holder(self, text: str) -> Holder:
        if text != KEY:
            raise NotAdmitted
        return Holder(
            key_id=KeyId("key_bench"),
            name="bench",
            role=Role.CUSTOMER,
            tenant_id=TenantId("ten_bench"),
            project_id=ProjectId("prj_bench"),
            node_id=None,
            requests_per_minute=100_000_000,  # limits are counted, and never reached
            tokens_per_minute=100_000_000_000,
        )


class OpenSea:
    """A quay that takes everything, and of usage writes down how many requests it was of."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / SHIPPED

    async def take_demand(self, gateway: str, seconds: Sequence[tuple[str, DemandSecond]]) -> None: ...

    async def marks(self, gateway: str) -> Marks:
        return Marks(traffic_no=0, usage_no=0)

    async def take_traffic(self, gateway: str, no: int, stretches: Sequence[Stretch]) -> None: ...

    async def take_usage(self, gateway: str, first_no: int, last_no: int, uses: Sequence[Use]) -> None:
        with self._file.open("a") as file:
            file.write(f"{sum(use.requests for use in uses)}\n")


def routes(told: dict[str, Any]) -> Routes:
    """One service, its replicas the given ports of the loopback."""
    count = len(told["ports"])
    terms = Service(
        engine="command",
        model=None,
        model_name="mock",
        protocol=told.get("protocol", "openai"),
        scaling=Scaling(least=count, most=count),
        concurrency=told.get("concurrency", 256),
        cache=CacheTerms() if told["cached"] else None,
        balance=told["balance"],
        rate_limits=(RateLimit(per="service", every_s=60.0, requests=100_000_000),),
        queue_most=2000,
    )
    backends = tuple(
        Backend(run_id=f"run_{number}", version_no=1, address="127.0.0.1", port=port, draining=False)
        for number, port in enumerate(told["ports"])
    )
    version = RoutedVersion(version_no=1, share=1.0, digest="bench", terms=terms)
    return routes_of(
        [
            Route(
                service_id=SERVICE,
                tenant_id="ten_bench",
                project_id="prj_bench",
                name="mock",
                state="serving",
                versions=(version,),
                backends=backends,
            )
        ]
    )


async def serve(listening: socket.socket, told: dict[str, Any]) -> None:
    """Until SIGTERM, then drain."""
    folder = Path(told["folder"])
    journal = Journal(folder / "journal", f"gtw_{os.getpid()}")
    limits = SharedLimits(folder / "limits")
    door = Door(
        keys=Keys(OneKey(), pepper=b"p" * 32),
        limits=limits,
        cache=MemoryCache() if told["cached"] else None,
        journal=journal,
        chance=random.Random(os.getpid()).random,
        settings=DoorSettings(processes=told["processes"]),
    )
    app = GatewayApp(door)
    app.hold_routes(routes(told))
    shipper = Shipper(journal, door, OpenSea(folder))
    shipping = asyncio.create_task(shipper.run())
    await serve_gateway(listening, app)
    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    await shipper.close()
    limits.close()


def main() -> None:
    import uvloop

    listening = socket.socket(fileno=int(sys.argv[1]))
    uvloop.run(serve(listening, json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
