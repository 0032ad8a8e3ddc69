"""A source that blocks is asked apart: in one thread of its own, so that it can hang without holding up anybody.

Invariant: a source has one thread at most. While that is stuck in a call no second call is made, and the thread does
not keep the process from ending.
"""

import asyncio
import queue
import threading
import time
from datetime import datetime

from baseai.telemetry.collector import Collected, Source, SourceFailed


class Apart:
    """A collector made of a blocking source."""

    def __init__(
        self, source: Source, *, interval_s: float, timeout_s: float, rank: int, quick: bool = False
    ) -> None:
        self.name = source.name
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.rank = rank
        self.quick = quick
        self._source = source
        self._asked: queue.SimpleQueue[tuple[datetime, asyncio.Future[Collected]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since_s: float | None = None

    async def collect(self, now: datetime) -> Collected:
        """Raises SourceFailed at once while an earlier call is still stuck, else what the source raises."""
        if self._busy_since_s is not None:
            stuck_s = time.monotonic() - self._busy_since_s
            raise SourceFailed(
                self.name, f"has not answered for {stuck_s:.0f} s and is not asked again until it does"
            )
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"source {self.name}", daemon=True)
            self._thread.start()
        self._busy_since_s = time.monotonic()
        answer: asyncio.Future[Collected] = asyncio.get_running_loop().create_future()
        self._asked.put((now, answer))
        return await answer

    async def close(self) -> None:
        """Nothing to let go of: the thread ends with the process."""

    def _serve(self) -> None:
        while True:
            now, answer = self._asked.get()
            try:
                said: Collected | BaseException = self._source.observe(now)
            except Exception as error:  # noqa: BLE001 - it is raised again where the question was asked
                said = error
            self._busy_since_s = None
            try:
                answer.get_loop().call_soon_threadsafe(_settle, answer, said)
            except RuntimeError:
                return  # the loop has ended meanwhile


def _settle(answer: asyncio.Future[Collected], said: Collected | BaseException) -> None:
    if answer.done():
        return  # nobody waits any more: the time was up
    if isinstance(said, BaseException):
        answer.set_exception(said)
    else:
        answer.set_result(said)
