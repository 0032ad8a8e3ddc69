"""The compute of an engine: the threads in which a model works, so that the server's loop never waits for it.

Invariant: at most `threads` computations run at once, in the order in which they came; one whose request has gone
before its turn is never started. Each engine makes one when it is loaded and closes it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Answer = TypeVar("Answer")


class Compute:
    """See above."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="compute")

    async def run(self, work: Callable[..., Answer], *given: object) -> Answer:
        """What `work` gives back, computed in a thread. Cancelled before its turn, it is not computed."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def close(self) -> None:
        """End the threads once they have done what they have begun."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
