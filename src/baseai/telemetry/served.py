"""The metric store behind a unix socket: one process owns it, the others ask it frame by frame.

Invariant: an append is answered only after the store has it safe. Writes are done one after another in a thread of
their own, questions in others, sealing and expiring in yet another: nothing waits for the loop, and one that asks
cannot hold up one that writes. A question that cannot be answered ends that question and nothing else.
"""

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from baseai.ground.fault import Fault, Refused
from baseai.telemetry.field import FAMILIES
from baseai.telemetry.frame import (
    HEAD,
    Frame,
    aggregate_frame,
    batch_in,
    latest_frame,
    lengths,
    places_in,
    series_frame,
)
from baseai.telemetry.sample import Batch
from baseai.telemetry.store import Appended, By, MetricStore, Retention

ROLLUP_EVERY_S = 60.0
EXPIRE_EVERY_S = 3_600.0
WATCH_MAX_S = 30.0
ASKERS_MAX = 64  # connections; more wait in the socket's queue
READERS = 3

log = logging.getLogger(__name__)


class ServedStore:
    """One store, asked by other processes over `path`. Use `served` to open it."""

    def __init__(self, store: MetricStore, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._writer = ThreadPoolExecutor(1, "write")
        self._readers = ThreadPoolExecutor(READERS, "read")
        self._keeper = ThreadPoolExecutor(1, "keep")
        self._coming: list[tuple[Batch, asyncio.Future[Appended]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._appended = 0
        self._changed = asyncio.Condition()
        self._asking: set[asyncio.Task[None]] = set()
        self._expired_s = 0.0

    # ---- asked

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its asker goes."""
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            while True:
                frame = await read_frame(reader)
                if frame is None:
                    return
                writer.write(await self._answer(frame))
                await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError) as wrong:
            log.info("an asker went in the middle: %s", wrong)
        except asyncio.CancelledError:
            pass
        finally:
            self._asking.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, frame: Frame) -> bytes:
        try:
            return (await self._done(frame)).to_bytes()
        except (KeyError, TypeError, ValueError, Refused) as wrong:
            what = f"no {wrong}" if isinstance(wrong, KeyError) else str(wrong)
            return Frame(words={"refused": what}).to_bytes()
        except Exception as bug:  # one question's failure is told to its asker and is not the store's end
            if not isinstance(bug, Fault):
                log.exception("the store failed at %s", frame.words.get("ask"))
            return Frame(words={"away": str(bug) or type(bug).__name__}).to_bytes()

    async def _done(self, frame: Frame) -> Frame:
        words = frame.words
        ask = words["ask"]
        if ask == "append":
            appended = await self._append(batch_in(frame))
            return Frame(words={"rows": appended.rows, "repeated": appended.repeated})
        if ask == "place":
            places = places_in(words["places"])
            await self._in(self._writer, lambda: self._store.place(FAMILIES[words["of"]], places))
            return Frame(words={})
        if ask == "changes":
            return Frame(words={"appended": await self._watch(words["since"], words["wait_s"])})
        answer: Frame = await self._in(self._readers, lambda: _asked(self._store, ask, words))
        return answer

    async def _append(self, batch: Batch) -> Appended:
        """Keep a batch together with all that come meanwhile: they wait for the disk once."""
        done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._coming.append((batch, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        while self._coming:
            some, self._coming = self._coming, []
            told = await self._in(
                self._writer, functools.partial(_kept, self._store, [one for one, _ in some])
            )
            for (_, done), appended in zip(some, told, strict=True):
                if done.done():  # its asker is gone
                    continue
                if isinstance(appended, Appended):
                    done.set_result(appended)
                else:
                    done.set_exception(appended)
            if any(isinstance(appended, Appended) and not appended.repeated for appended in told):
                async with self._changed:
                    self._appended += 1
                    self._changed.notify_all()

    async def _watch(self, since: int, wait_s: float) -> int:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(0.0, wait_s), WATCH_MAX_S)), self._changed:
                await self._changed.wait_for(lambda: self._appended != since)
        return self._appended

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    # ---- keeping house

    async def keep(self) -> None:
        """Seal, roll up and expire, for ever."""
        while True:
            await self._in(self._keeper, self._keep_once)
            await asyncio.sleep(ROLLUP_EVERY_S)

    def _keep_once(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        began = time.monotonic()
        try:
            self._store.rollup(now_ms=now_ms)
            if began - self._expired_s > EXPIRE_EVERY_S or not self._expired_s:
                gone = self._store.expire(now_ms=now_ms, retention=self._retention)
                self._expired_s = began
                if gone:
                    log.info("%d parts were old enough to go", gone)
        except Exception:  # a full disk now is no reason to stop answering; the next round tries again
            log.exception("the store could not be kept in order")
        took_s = time.monotonic() - began
        if took_s > 5:
            log.info("keeping the store in order took %.1f s", took_s)

    async def close(self) -> None:
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        for threads in (self._readers, self._writer, self._keeper):
            await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(self._store.close)


def _kept(store: MetricStore, batches: Sequence[Batch]) -> Sequence[Appended | Exception]:
    """What became of each batch. They are kept together, or one by one when one of them cannot be."""
    try:
        return store.append_all(batches)
    except Exception as wrong:  # it goes to whoever sent the batch
        if len(batches) == 1:
            if not isinstance(wrong, Fault):
                log.exception("the store failed at batch %s", batches[0].batch_id)
            return [wrong]
    return [one for batch in batches for one in _kept(store, [batch])]


def _asked(store: MetricStore, ask: str, words: Mapping[str, Any]) -> Frame:
    if ask == "ping":
        return Frame(words={})
    family = FAMILIES[words["of"]]
    if ask == "latest":
        return latest_frame(store.latest(family, words["keys"]))
    if ask == "sources":
        return Frame(words={"sources": dict(store.sources(family, words["key"]))})
    if ask == "range":
        return series_frame(
            store.range(
                family,
                words["key"],
                words["fields"],
                from_ms=words["from_ms"],
                until_ms=words["until_ms"],
                points_max=words["points_max"],
            )
        )
    if ask == "aggregate":
        return aggregate_frame(
            store.aggregate(
                family,
                words["field"],
                from_ms=words["from_ms"],
                until_ms=words["until_ms"],
                by=By(words["by"]),
                keys=words["keys"],
                points_max=words["points_max"],
            )
        )
    raise ValueError(f"the store is not asked to {ask}")


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, None at the end. Raises ValueError for one that is none, IncompleteReadError for half of one."""
    try:
        head = await reader.readexactly(HEAD.size)
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    words, columns = lengths(head)
    return Frame.from_parts(await reader.readexactly(words), await reader.readexactly(columns))


@asynccontextmanager
async def served(
    store: MetricStore, path: Path, *, retention: Retention | None = None
) -> AsyncIterator[ServedStore]:
    """Answer for `store` on a unix socket at `path`, of this account alone, until left; then close the store."""
    behind = ServedStore(store, retention or Retention())
    coming = path.with_name(f".{path.name}.{os.getpid()}")
    coming.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(behind.answer, str(coming), backlog=ASKERS_MAX)
    finally:
        os.umask(before)
    os.replace(coming, path)  # whoever looks finds a socket that answers
    keeping = asyncio.create_task(behind.keep())
    try:
        yield behind
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        server.close()
        await behind.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)
