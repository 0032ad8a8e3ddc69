"""The process that owns the metric store: it alone writes samples, and answers the others over a unix socket."""

import asyncio
import logging
from pathlib import Path

from baseai.telemetry.served import served
from baseai.telemetry.store import Retention
from baseai.wiring.household import Household

log = logging.getLogger(__name__)


async def keep_metrics(household: Household, socket: Path) -> None:
    """Keep the store until told to end."""
    from baseai.telemetry.duckdb import DuckStore

    # What a killed predecessor left in its journal is taken in first: nobody is answered before.
    store = await asyncio.to_thread(DuckStore, household.metrics)
    async with served(store, socket, retention=Retention()):
        log.info("answering at %s", socket)
        await asyncio.Event().wait()
