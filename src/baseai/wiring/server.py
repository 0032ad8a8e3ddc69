"""The server's process: REST and pages over one port."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from baseai.api.app import create_api
from baseai.api.doors import Doors
from baseai.engine.log_folder import LogFolder
from baseai.settings import PlatformSettings
from baseai.telemetry.store import StoreAway
from baseai.tenancy.role import Role
from baseai.truth.migrate import migrate
from baseai.truth.session import Truth, fetch_one
from baseai.views.books.postgres import BookViews
from baseai.web.doors import Books, Serving, WebDoors, WebSettings
from baseai.web.pages import router
from baseai.wiring.household import Household
from baseai.wiring.playground import Playground
from baseai.wiring.rooms import BellNews, BrowserGate, NoticeBell, Rooms

log = logging.getLogger(__name__)

FIRST_TENANT = "base"  # so that a fresh platform takes a run at once


async def serve(
    settings: PlatformSettings, dsn: str, household: Household, metrics: Path, listening: socket.socket
) -> None:
    """Serve on `listening` until told to end."""
    await asyncio.to_thread(migrate, dsn)
    truth = Truth(dsn, connections_max=16)
    await truth.open()
    rooms = Rooms(truth, household, metrics)
    await _furnish(rooms, household)
    bell = NoticeBell()
    playground = None
    if settings.gateway_url is not None:
        playground = Playground(rooms.tenancy, settings.gateway_url, ca_file=settings.tls_cert)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ringing = asyncio.create_task(bell.listen(truth, "baseai_desired", "baseai_run", "baseai_serving"))
        yield
        ringing.cancel()

    async def health() -> dict[str, Any]:
        async with truth.transaction() as session:
            row = await fetch_one(session, "SELECT current_setting('server_version') AS version")
        return {
            "database": f"PostgreSQL {row['version'] if row else '?'}",
            "metrics": await _metrics_state(rooms),
            "demo": settings.demo,
        }

    app = create_api(
        Doors(
            tenancy=rooms.tenancy,
            fleet=rooms.fleet,
            runs=rooms.runs,
            engine=rooms.engine,
            views=rooms.views,
            money=rooms.money,
            agreements=rooms.agreements,
            costs=rooms.costing,
            documents=rooms.documents,
            time=rooms.time,
            telemetry=rooms.intake,
            metrics=rooms.metrics,
            uses=rooms.uses,
            admission=rooms.admission,
            bell=bell,
            logs=LogFolder(household.run_logs),
            health=health,
            uploads=household.uploads,
            base_url=settings.shown_url,
            queues=rooms.queues,
            proving=rooms.proving,
            reservations=rooms.reservations,
            windows=rooms.windows,
            extensions=rooms.extensions,
            cabling=rooms.cabling,
            rated_watts=rooms.catalog.rated_watts(),
            services=rooms.services,
            service_views=rooms.service_views,
            service_money=rooms.service_money,
            gateway_url=settings.shown_gateway_url,
            fleet_health=rooms.health,
            demo=settings.demo,
        )
    )
    app.include_router(
        router(
            WebDoors(
                views=rooms.views,
                money=rooms.money,
                gate=BrowserGate(rooms.tenancy),
                news=BellNews(bell),
                eyes=rooms.metrics,
                uses=rooms.uses,
                settings=WebSettings(demo=settings.demo),
                proving=rooms.proving,
                health=rooms.health,
                queues=rooms.queues,
                serving=Serving(
                    views=rooms.service_views,
                    money=rooms.service_money,
                    calls=playground,
                    gateway_url=settings.shown_gateway_url,
                ),
                books=Books(
                    ledger=rooms.ledger,
                    time=rooms.time,
                    costs=rooms.costs,
                    postings=BookViews(rooms.truth),
                    invoices=rooms.documents,
                ),
            )
        )
    )
    app.router.lifespan_context = lifespan
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
            ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
    )
    await server.serve(sockets=[listening])
    if playground is not None:
        await playground.close()
    await rooms.metrics.close()
    await truth.close()


async def _metrics_state(rooms: Rooms) -> str:
    """Whether samples can be kept; the platform is well without it, and says so."""
    try:
        async with asyncio.timeout(1):
            await rooms.metrics.ping()
    except (StoreAway, TimeoutError) as away:
        return str(away) or "the metric store gave no answer"
    return "ready"


async def _furnish(rooms: Rooms, household: Household) -> None:
    """What a fresh platform starts with: a tenant, the operator's key, a token for this machine's agent. Repeatable."""
    async with rooms.truth.transaction() as session:
        known = await fetch_one(session, "SELECT FROM platform WHERE name = 'furnished'")
    if known is not None:
        return
    if not await rooms.tenancy.tenants_exist():
        await rooms.tenancy.make_tenant(FIRST_TENANT, actor="platform")
    await rooms.tenancy.ensure_key("operator", Role.OPERATOR, household.text("operator", "bai"))
    await rooms.tenancy.ensure_join_token(household.text("join", "join"), "local")
    async with rooms.truth.transaction() as session:
        await session.execute("INSERT INTO platform VALUES ('furnished', 'true') ON CONFLICT DO NOTHING")
