"""A metric store in this process behind its real socket, and samples to put into it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from baseai.ground.identity import mint
from baseai.telemetry.intake import Sent
from baseai.telemetry.memory import MemoryStore
from baseai.telemetry.remote import RemoteStore
from baseai.telemetry.served import served
from baseai.telemetry.store import MetricStore


@asynccontextmanager
async def remote(store: MetricStore | None = None) -> AsyncIterator[RemoteStore]:
    """A store asked over its socket."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-m-", dir="/tmp"))
    asked = RemoteStore(folder / "metrics.sock", answer_within_s=5)
    try:
        async with served(store or MemoryStore(), folder / "metrics.sock"):
            yield asked
            await asked.close()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def ticks(
    key: str,
    from_at: datetime,
    until_at: datetime,
    told: Mapping[str, Callable[[float], float | None]],
    *,
    every_s: float = 60.0,
    family: str = "accelerator",
    boot_id: str = "boot",
) -> Sent:
    """A batch of one thing: a row every so many seconds, each field a function of the seconds since the first."""
    count = int((until_at - from_at).total_seconds() // every_s) + 1
    seconds = [number * every_s for number in range(count)]
    return Sent(
        batch_id=mint("bat"),
        family=family,
        boot_id=boot_id,
        keys=[key] * count,
        ts_ms=[ms(from_at) + round(second * 1000) for second in seconds],
        values={name: [value(second) for second in seconds] for name, value in told.items()},
    )
