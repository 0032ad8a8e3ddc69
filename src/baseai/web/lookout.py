"""A lookout asks for the newest rows of the fleet once per tick, for everybody who has a page open.

Invariant: however many browsers watch, one subscription and at most one question per tick reach the store, and the
fleet's inventory is read at most every few seconds; a store that is away is told, and what it said last is shown as
old, never as now.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from baseai.telemetry.field import ACCELERATOR
from baseai.telemetry.store import AskedStore, Latest, StoreAway
from baseai.truth.session import Scope
from baseai.web.doors import Health, Row, Views
from baseai.web.floorplan import Floorplan, floorplan_of
from baseai.web.heatmap import Aspect, Cells, Seen, cells_of, seen_of

PLAN_KEPT_S = 5.0  # who holds what, and which nodes are healthy, is at most this old on a map
ASK_AT_LEAST_EVERY_S = 15.0  # so that what falls silent is seen to
AWAY_WAIT_S = 1.0


class Sight:
    """The fleet at one tick. Cells of an aspect are worked out once, whoever asks."""

    def __init__(self, plan: Floorplan, latest: Latest | None, now_ms: int) -> None:
        self.plan = plan
        self.latest = latest
        self.away = latest is None
        self.seen: Seen = seen_of(plan, latest, now_ms=now_ms)
        self._cells: dict[str, Cells] = {}

    def cells(self, aspect: Aspect) -> Cells:
        if aspect.name not in self._cells:
            self._cells[aspect.name] = cells_of(aspect, self.plan, self.seen)
        return self._cells[aspect.name]


class Lookout:
    """The newest rows, shared."""

    def __init__(self, eyes: AskedStore | None, views: Views, health: Health | None) -> None:
        self._eyes = eyes
        self._views = views
        self._health = health
        self._tick = 0
        self._listening: set[asyncio.Event] = set()
        self._pump: asyncio.Task[None] | None = None
        self._latest: tuple[int, float, Latest | None] | None = None
        self._plans: dict[tuple[str | None, bool], tuple[float, Floorplan]] = {}
        self._sights: dict[tuple[str | None, bool], tuple[str, Latest | None, float, Sight]] = {}
        self._asking = asyncio.Lock()
        self._planning = asyncio.Lock()

    async def beats(self) -> AsyncGenerator[None, None]:
        """When to ask again: at each tick of the store, and every ASK_AT_LEAST_EVERY_S; for ever."""
        event = asyncio.Event()
        self._listening.add(event)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._listen())
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), ASK_AT_LEAST_EVERY_S)
                event.clear()
                yield
        finally:
            self._listening.discard(event)
            if not self._listening and self._pump is not None:
                self._pump.cancel()
                self._pump = None

    async def _listen(self) -> None:
        while self._eyes is not None:
            with suppress(StoreAway):
                async for _ in self._eyes.changes():
                    self._ring()
            self._ring()  # it went away: what is shown must not look like now
            await asyncio.sleep(AWAY_WAIT_S)

    def _ring(self) -> None:
        self._tick += 1
        for event in self._listening:
            event.set()

    async def sight(self, scope: Scope, *, names_holders: bool) -> Sight:
        """The whole fleet now, as the holder of `scope` may see it."""
        who = (scope.tenant_id, names_holders)
        plan = await self._plan(scope, who)
        latest = await self._ask()
        kept, now_s = self._sights.get(who), time.time()
        if kept and kept[0] == plan.version and kept[1] is latest and now_s - kept[2] < PLAN_KEPT_S:
            return kept[3]
        sight = Sight(plan, latest, round(now_s * 1000))
        self._sights[who] = (plan.version, latest, now_s, sight)
        return sight

    async def _plan(self, scope: Scope, who: tuple[str | None, bool]) -> Floorplan:
        async with self._planning:
            kept = self._plans.get(who)
            if kept is None or time.monotonic() - kept[0] > PLAN_KEPT_S:
                rows = await self._judged(scope, await self._views.installed(scope))
                kept = (time.monotonic(), floorplan_of(rows, names_holders=who[1]))
                self._plans[who] = kept
            return kept[1]

    async def _judged(self, scope: Scope, rows: Sequence[Row]) -> Sequence[Row]:
        """The same rows, each with the verdict about its accelerator where it is worse than its node's."""
        if self._health is None:
            return rows
        verdicts = {
            verdict["subject"]: verdict["health"]
            for node in await self._health.nodes_health(scope)
            for verdict in node["verdicts"]
        }
        return [{**row, "health": verdicts.get(row["serial"], row["health"])} for row in rows]

    async def _ask(self) -> Latest | None:
        if self._eyes is None:
            return None
        async with self._asking:
            now_s = time.monotonic()
            # Without listeners nobody tells of ticks, so what is kept ages by the clock.
            fresh = 2.0 if self._pump is None else ASK_AT_LEAST_EVERY_S
            if self._latest is None or self._latest[0] != self._tick or now_s - self._latest[1] > fresh:
                tick = self._tick
                try:
                    found: Latest | None = await self._eyes.latest(ACCELERATOR)
                except StoreAway:
                    found = None
                self._latest = (tick, now_s, found)
            return self._latest[2]
