"""Batching puts items of several requests together, so that one computation answers them all.

Invariant: each item is computed once and gets its own answer or its own error; no batch is larger than `most`, save
that of one item that is larger by itself; a lone item on an idle engine does not wait. One batch is computed at a time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from baseai.workloads.inference.engine import Gather, Together
from baseai.workloads.service import Batching

Compute = Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]
Item = tuple[Any, int, asyncio.Future[Any]]


class WrongCount(ValueError):
    """A batch came back with another number of answers than it had items."""

    def __init__(self, items: int, answers: int | None) -> None:
        count = "no list" if answers is None else f"{answers} answers"
        super().__init__(
            f"{items} inputs came back as {count}; give a list with one answer for each input, in order"
        )


def gather_of(batching: Batching) -> Gather:
    """What an engine asks for its batches by these terms."""

    def gather(compute: Compute, size: Callable[[Any], int]) -> Together:
        return Batches(compute, size, most=batching.most, wait_s=batching.wait_ms / 1000).answer

    return gather


class Batches:
    """The items of one engine that wait, and the batch that is being computed. Belongs to one event loop."""

    def __init__(self, compute: Compute, size: Callable[[Any], int], *, most: int, wait_s: float) -> None:
        self._compute = compute
        self._size = size
        self._most = most
        self._wait_s = wait_s
        self._waiting: deque[Item] = deque()
        self._rows = 0  # of what waits
        self._filled = asyncio.Event()  # a whole batch waits
        self._worker: asyncio.Task[None] | None = None

    async def answer(self, item: Any) -> Any:
        """The item's answer. Whoever stops waiting for it takes it out of batches that have not begun."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        entry = (item, max(1, self._size(item)), future)
        self._waiting.append(entry)
        self._rows += entry[1]
        if self._rows >= self._most:
            self._filled.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())
        try:
            return await future
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._rows -= entry[1]
            raise

    async def _work(self) -> None:
        """Compute until nothing waits. Only the first batch after a rest begins at once."""
        rested = True
        while self._waiting:
            if self._rows < self._most and not (rested and len(self._waiting) == 1):
                self._filled.clear()
                try:
                    await asyncio.wait_for(self._filled.wait(), self._wait_s)
                except TimeoutError:
                    pass
            rested = False
            batch = self._next()
            if batch:
                await self._answer(batch)

    def _next(self) -> list[Item]:
        batch: list[Item] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0][1] <= self._most):
            entry = self._waiting.popleft()
            self._rows -= entry[1]
            if not entry[2].done():
                batch.append(entry)
                rows += entry[1]
        return batch

    async def _answer(self, batch: Sequence[Item]) -> None:
        try:
            answers = await self._compute([item for item, _, _ in batch])
            if len(answers) != len(batch):
                raise WrongCount(len(batch), len(answers))
        except Exception as wrong:  # noqa: BLE001  each item is told its own
            if len(batch) == 1:
                _settle(batch[0][2], wrong)
                return
            for entry in batch:  # by itself, so that one bad item spoils no other's answer
                if not entry[2].done():
                    await self._answer([entry])
            return
        for (_, _, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _settle(future: asyncio.Future[Any], wrong: Exception) -> None:
    if not future.done():
        future.set_exception(wrong)
