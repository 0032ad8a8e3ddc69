"""The metric store as another process asks it, over its unix socket.

Invariant: whatever keeps the store from answering (it starts again, hangs, is overfull) is StoreAway, within a bounded
time; asking again is harmless, for a batch is counted once by its id. Nothing is remembered here but idle connections.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from baseai.ground.fault import Refused
from baseai.telemetry.field import Family
from baseai.telemetry.frame import (
    HEAD,
    Frame,
    aggregate_in,
    batch_frame,
    latest_in,
    lengths,
    places_words,
    series_in,
)
from baseai.telemetry.sample import Batch
from baseai.telemetry.store import Aggregate, Appended, By, Latest, Place, Series, StoreAway

ANSWER_WITHIN_S = 20.0
WATCH_S = 25.0  # one long question after changes
CHANGES_EVERY_S = 0.5
CONNECTIONS_MAX = 16
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RemoteStore:
    """What AskedStore and FedStore promise, for one event loop."""

    def __init__(self, path: Path, *, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._path = path
        self._answer_within_s = answer_within_s
        self._idle: list[Line] = []
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self._watching: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Event] = set()

    async def close(self) -> None:
        """Let go of what is open."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        while self._idle:
            self._idle.pop()[1].close()

    # ---- fed

    async def append(self, batch: Batch) -> Appended:
        """Keep a batch: safe when this returns. Raises StoreAway, and then it may be safe or not: send it again."""
        frame = batch_frame(batch)
        words = (await self._ask("append", frame.words, frame.columns)).words
        return Appended(rows=words["rows"], repeated=words["repeated"])

    async def place(self, family: Family, places: Mapping[str, Place]) -> None:
        await self._ask("place", {"of": family.name, "places": places_words(places)})

    # ---- asked

    async def ping(self) -> None:
        """Raises StoreAway."""
        await self._ask("ping", {})

    async def latest(self, family: Family, keys: Sequence[str] | None = None) -> Latest:
        return latest_in(await self._ask("latest", {"of": family.name, "keys": _listed(keys)}))

    async def range(
        self,
        family: Family,
        key: str,
        fields: Sequence[str],
        *,
        from_ms: int,
        until_ms: int,
        points_max: int | None = None,
    ) -> Series:
        asked = {
            "of": family.name, "key": key, "fields": list(fields), "from_ms": from_ms, "until_ms": until_ms,
            "points_max": points_max,
        }  # fmt: skip
        return series_in(await self._ask("range", asked))

    async def aggregate(
        self,
        family: Family,
        field: str,
        *,
        from_ms: int,
        until_ms: int,
        by: By = By.FLEET,
        keys: Sequence[str] | None = None,
        points_max: int = 300,
    ) -> Aggregate:
        asked = {
            "of": family.name, "field": field, "from_ms": from_ms, "until_ms": until_ms, "by": by.value,
            "keys": _listed(keys), "points_max": points_max,
        }  # fmt: skip
        return aggregate_in(await self._ask("aggregate", asked))

    async def sources(self, family: Family, key: str) -> Mapping[str, str]:
        found: dict[str, str] = (await self._ask("sources", {"of": family.name, "key": key})).words["sources"]
        return found

    async def changes(self) -> AsyncIterator[None]:
        """Once for each moment in which something was appended, at most twice a second; for ever, over outages."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield
        finally:
            self._waiting.discard(event)

    async def _watch(self) -> None:
        """One question for all who wait here."""
        seen = -1
        while True:
            try:
                answer = await self._ask("changes", {"since": seen, "wait_s": WATCH_S}, within_s=WATCH_S + 5)
            except StoreAway:
                seen = -1
                await asyncio.sleep(1)
                continue
            if answer.words["appended"] != seen:
                # What was appended before anybody looked is no change; what came during an outage may be one.
                seen = answer.words["appended"]
                for event in self._waiting:
                    event.set()
            await asyncio.sleep(CHANGES_EVERY_S)

    # ---- the line

    async def _ask(
        self,
        ask: str,
        words: Mapping[str, Any],
        columns: Mapping[str, NDArray[Any]] | None = None,
        *,
        within_s: float | None = None,
    ) -> Frame:
        question = Frame(words={**words, "ask": ask}, columns=columns or {}).to_bytes()
        try:
            async with asyncio.timeout(within_s or self._answer_within_s), self._free:
                answer = await self._exchange(question)
        except TimeoutError as wrong:
            raise StoreAway(f"nothing within {within_s or self._answer_within_s:g} s") from wrong
        except (OSError, ValueError, asyncio.IncompleteReadError) as wrong:
            raise StoreAway(_why(wrong)) from wrong
        if "refused" in answer.words:
            raise Refused(answer.words["refused"])
        if "away" in answer.words:
            raise StoreAway(answer.words["away"])
        return answer

    async def _exchange(self, question: bytes) -> Frame:
        while (
            self._idle
        ):  # a line that lay idle may have been cut by a restart: then the next, then a fresh one
            line = self._idle.pop()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                return await self._over(line, question)
        return await self._over(await asyncio.open_unix_connection(str(self._path)), question)

    async def _over(self, line: Line, question: bytes) -> Frame:
        reader, writer = line
        try:
            writer.write(question)
            await writer.drain()
            words, columns = lengths(await reader.readexactly(HEAD.size))
            answer = Frame.from_parts(await reader.readexactly(words), await reader.readexactly(columns))
        except BaseException:  # also when given up: half an answer must not meet the next question
            writer.close()
            raise
        self._idle.append(line)
        return answer


def _listed(keys: Sequence[str] | None) -> list[str] | None:
    return None if keys is None else list(keys)


def _why(wrong: BaseException) -> str:
    if isinstance(wrong, (FileNotFoundError, ConnectionRefusedError)):
        return "it is being started"
    if isinstance(wrong, (asyncio.IncompleteReadError, ConnectionError)):
        return "it ended in the middle"
    return str(wrong) or type(wrong).__name__
