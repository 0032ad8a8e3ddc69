"""An event of this process that somebody waits for, a while at most."""

import asyncio
import contextlib


async def set_or_after(event: asyncio.Event, wait_s: float) -> None:
    """Wait for an event, `wait_s` at most. (`wait_for` of Python 3.11 may lose a cancellation that comes with it.)"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await event.wait()
