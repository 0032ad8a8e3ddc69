"""A gateway's process: the door to services, with what it must know of the database and tell it.

It goes on without the database: with the routes and keys that it knows, counting on disk what it serves.
"""

import asyncio
import contextlib
import logging
import random
import socket

from baseai.finance.contracts.postgres.events import record_events
from baseai.gateway.app import GatewayApp
from baseai.gateway.cache import MemoryCache
from baseai.gateway.door import Door, DoorSettings
from baseai.gateway.embedder import TenantEmbedder
from baseai.gateway.journal import Journal
from baseai.gateway.keys import Keys
from baseai.gateway.limits import SharedLimits
from baseai.gateway.postgres.quay import PostgresQuay
from baseai.gateway.redis import RedisAnswers
from baseai.gateway.server import ServerSettings, serve_gateway
from baseai.gateway.shipper import Shipper
from baseai.ground.identity import mint
from baseai.serving.postgres.routes import load_routes
from baseai.settings import PlatformSettings
from baseai.tenancy.postgres import Tenancy
from baseai.truth.migrate import migrate
from baseai.truth.session import Truth, TruthUnavailable
from baseai.wiring.household import Household

log = logging.getLogger(__name__)

CHANNEL = "baseai_serving"
ROUTES_EVERY_S = 5.0  # also when nothing was told; and a look at the database soon after it was away
ROUTES_AGAIN_S = 0.5


async def keep_gate(
    settings: PlatformSettings, dsn: str, household: Household, listening: socket.socket
) -> None:
    """Serve on `listening`, which other gateway processes may share, until told to end; then drain and ship."""
    await asyncio.to_thread(migrate, dsn)
    truth = Truth(dsn, connections_max=4)
    await truth.open()
    pepper = household.key("pepper")
    tenancy = Tenancy(truth, pepper=pepper, master=household.key("master"))
    journal = Journal(household.gateway, mint("gwy"))
    limits = SharedLimits(household.gateway / "limits")
    shared = RedisAnswers(settings.shared_cache) if settings.shared_cache else None
    keys, cache = Keys(tenancy, pepper=pepper), MemoryCache(shared)
    door = Door(
        keys=keys,
        limits=limits,
        cache=cache,
        journal=journal,
        chance=random.random,
        settings=DoorSettings(processes=settings.gateways),
    )
    app = GatewayApp(door)
    cache.embed_by(TenantEmbedder(app, keys, lambda: door.routes))
    shipper = Shipper(journal, door, PostgresQuay(truth, record_events))
    rung = asyncio.Event()
    beside = [
        asyncio.create_task(_hear(truth, rung)),
        asyncio.create_task(_follow(truth, household.key("replicas"), app, rung)),
        asyncio.create_task(shipper.run()),
    ]
    try:
        await serve_gateway(
            listening,
            app,
            ServerSettings(
                tls_cert=str(settings.tls_cert) if settings.tls_cert else None,
                tls_key=str(settings.tls_key) if settings.tls_key else None,
            ),
        )
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await shipper.close()
        limits.close()
        if shared is not None:
            await shared.close()
        await truth.close()


async def _hear(truth: Truth, rung: asyncio.Event) -> None:
    async for _ in truth.notices(CHANNEL):
        rung.set()


async def _follow(truth: Truth, replica_key: bytes, app: GatewayApp, rung: asyncio.Event) -> None:
    """Routes as they change. While the database is away the last ones stand, and /health says how old they are."""
    away = ""
    while True:
        rung.clear()
        wait_s = ROUTES_EVERY_S
        try:
            app.hold_routes(await load_routes(truth, replica_key))
            away = ""
        except TruthUnavailable as wrong:
            wait_s = ROUTES_AGAIN_S
            if str(wrong) != away:
                log.warning("routes stay as they are: %s", wrong)
            away = str(wrong)
        except Exception:  # one service's oddity must not end the door to all others
            log.exception("routes could not be read")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(rung.wait(), wait_s)
