"""The eyes are what pages show of measurements: the map of the fleet, a node, an accelerator, a run; now and live.

Invariant: whatever is asked is asked within the visitor's rights; a store, a use or a verdict that is away leaves a
page whole, and is told there. Streams send what changed, never more than the visitor may see.
"""

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from baseai.ground.fault import Fault, NotFound
from baseai.telemetry.field import ACCELERATOR, HARMFUL, NODE, Family, Origin, State, Throttle
from baseai.telemetry.store import StoreAway
from baseai.tenancy.role import Deed
from baseai.web import phrase
from baseai.web.doors import Row, WebDoors
from baseai.web.heatmap import ASPECTS, FIRST, HEALTHS, Aspect, Cells, Shown, packed, packed_changes
from baseai.web.language import Language
from baseai.web.lookout import Lookout, Sight
from baseai.web.panel import Panels, held_of
from baseai.web.plot import BESIDE_MAX, FIRST_LOOKBACK, LOOKBACKS, Lookback
from baseai.web.summary import summaries_by_node, summary_of
from baseai.web.visit import Visit

Facts = dict[str, Any]
Asked = Callable[[], Awaitable[Facts]]
USE_KEPT_S = 10.0  # what a run used is not counted anew within this time
USES_KEPT = 256
PARTS_MAX = 12  # leases of one run that are counted apart, the newest
TABLES_EVERY_S = 5.0
RUN_EVERY_S = 10.0  # charts of a run are drawn anew no more often


def aspect_of(name: str | None) -> Aspect:
    """The aspect a map was asked for, or the first."""
    return ASPECTS.get(name or FIRST) or ASPECTS[FIRST]


def lookback_of(name: str | None) -> Lookback:
    """How far back a page was asked to look, or the first."""
    return LOOKBACKS.get(name or FIRST_LOOKBACK) or LOOKBACKS[FIRST_LOOKBACK]


def map_words(language: Language) -> dict[str, Any]:
    """All that the map says, in the reader's language, with how each aspect is coloured."""
    states = [
        *(state.name.lower() for state in State),
        *("never",) * (Shown.STALE - len(State)),
        "stale",
        "never",
    ]
    return {
        "lang": language.tag,
        "aspects": {
            each.name: {
                "label": phrase.of(language, phrase.ASPECTS, each.name), "how": each.how.value, "unit": each.unit,
                "low": each.low, "high": each.high, "scale": each.scale, "warn": each.warn, "bad": each.bad,
            }
            for each in ASPECTS.values()
        },
        "states": [language.say(phrase.READING_STATES[state].word) for state in states],
        "healths": [language.say(phrase.HEALTHS[health].word) for health in HEALTHS] + [language.say("not judged yet")],
        "throttles": {
            str(each.value): phrase.of(language, phrase.THROTTLES, each.name) for each in Throttle
        },
        "harmful": int(HARMFUL),
        "origins": [phrase.of(language, phrase.ORIGINS, each.name.lower()) for each in Origin],
        "free": language.say("free"),
        "held": language.say("leased"),
        "unslowed": language.say("not slowed down"),
        "benign": language.say("slowed down, as is normal"),
        "harmed": language.say("slowed down for a harmful reason"),
        "marked": language.say("marked"),
    }  # fmt: skip


def plot_words(language: Language, zone: str) -> dict[str, Any]:
    """All that charts say beside what the server tells of each."""
    states = [state.name.lower() for state in State]
    return {
        "lang": language.tag,
        "zone": zone,
        "states": [language.say(phrase.READING_STATES[state].word) for state in states],
        "time": language.say("time"),
        "slowed": language.say("Slowed down by:"),
    }


class Eyes:
    """What is measured, as pages show it."""

    def __init__(self, doors: WebDoors) -> None:
        self._doors = doors
        self.lookout = Lookout(doors.eyes, doors.views, doors.health)
        self.panels = Panels(doors.eyes)
        self._plans: dict[str, bytes] = {}
        self._uses: dict[tuple[str | None, str], tuple[float, Row | None]] = {}

    async def sight(self, visit: Visit) -> Sight:
        return await self.lookout.sight(visit.scope, names_holders=visit.may(Deed.SEE_RUNS))

    # ---- the fleet

    async def fleet(self, visit: Visit, node_ids: Collection[str]) -> Facts:
        """The fleet in one line, and each of the nodes."""
        sight = await self.sight(visit)
        return {
            "away": sight.away,
            "sum": summary_of(sight.plan, sight.seen),
            "sums": summaries_by_node(sight.plan, sight.seen, node_ids),
        }

    async def plan(self, visit: Visit) -> bytes:
        """The floorplan as JSON in gzip. Worked out once per version."""
        sight = await self.sight(visit)
        version = sight.plan.version
        if version not in self._plans:
            if len(self._plans) > 3:
                self._plans.clear()
            told = json.dumps(sight.plan.to_json(), separators=(",", ":"), ensure_ascii=False)
            self._plans[version] = await asyncio.to_thread(gzip.compress, told.encode(), 3)
        return self._plans[version]

    async def cells(self, visit: Visit, aspect: Aspect) -> tuple[bytes, str]:
        """Every cell of an aspect, and the version of the plan they stand in."""
        sight = await self.sight(visit)
        return packed(sight.cells(aspect)), sight.plan.version

    async def cells_told(self, visit: Visit, aspect: Aspect) -> AsyncGenerator[str, None]:
        """Events `cells` (base64: all of them first, then those that changed), `plan` when it is another, `away`."""
        sent: tuple[str, Cells] | None = None
        was_away: bool | None = None
        async with aclosing(self.lookout.beats()) as beats:
            while True:
                try:
                    sight = await self.sight(visit)
                except Fault as fault:
                    if not fault.retryable:
                        raise
                else:
                    cells = sight.cells(aspect)
                    if sent is None or sent[0] != sight.plan.version:
                        if sent is not None:
                            yield _told("plan", sight.plan.version)
                        yield _told("cells", _text(packed(cells)))
                    elif changes := packed_changes(sent[1], cells):
                        yield _told("cells", _text(changes))
                    if was_away != sight.away:
                        was_away = sight.away
                        yield _told("away", str(int(sight.away)))
                    sent = (sight.plan.version, cells)
                await anext(beats)

    # ---- an accelerator

    async def accelerator(self, visit: Visit, serial: str, back: Lookback) -> Facts:
        """The whole page. Raises NotFound."""
        now = await self.accelerator_now(visit, serial)
        figures = await self._figures(visit, now["accelerator"]["node_id"])
        return {
            **now,
            "charts": await self.panels.charts(ACCELERATOR, serial, back, visit.language),
            "beside": None,
            "figures": [each for each in figures if each["serial"] == serial],
            "back": back,
            "lookbacks": tuple(LOOKBACKS),
        }

    async def accelerator_now(self, visit: Visit, serial: str) -> Facts:
        """What of its page changes from minute to minute. Raises NotFound."""
        row = await self._doors.views.accelerator(visit.scope, serial)
        return {
            "accelerator": row,
            "readings": await self.panels.readings(ACCELERATOR, serial, visit.language),
            "health": _about(await self._health(visit, row["node_id"]), serial),
        }

    async def accelerator_series(self, visit: Visit, serial: str, back: Lookback) -> Facts:
        """Raises NotFound, StoreAway."""
        row = await self._doors.views.accelerator(visit.scope, serial)
        health = await self._health(visit, row["node_id"])
        evidence = (_about(health, serial) or {}).get("evidence", ())
        return await self.panels.series(ACCELERATOR, serial, back, visit.language, evidence)

    # ---- a node

    async def node(self, visit: Visit, node_id: str, serials: Sequence[str], back: Lookback) -> Facts:
        """The charts of its page, and what seldom changes."""
        return {
            "charts": await self.panels.charts(NODE, node_id, back, visit.language),
            "beside": await self.panels.beside_charts(serials, back, visit.language),
            "each_max": BESIDE_MAX,
            "figures": await self._figures(visit, node_id),
            "back": back,
            "lookbacks": tuple(LOOKBACKS),
        }

    async def node_now(self, visit: Visit, node_id: str, serials: Sequence[str]) -> Facts:
        """What of its page changes from minute to minute."""
        sight = await self.sight(visit)
        return {
            "readings": await self.panels.readings(NODE, node_id, visit.language),
            "ports": await self.panels.ports(node_id, visit.language),
            "now_of": {serial: _now_of(sight, serial) for serial in serials},
            "collectors": await self._collectors(visit, node_id),
            "health": await self._health(visit, node_id),
        }

    async def node_series(self, visit: Visit, node_id: str, serials: Sequence[str], back: Lookback) -> Facts:
        """Raises StoreAway."""
        told = await self.panels.series(NODE, node_id, back, visit.language)
        each = await self.panels.beside_series(serials, back)
        return {**told, "plots": {**each["plots"], **told["plots"]}}

    async def _collectors(self, visit: Visit, node_id: str) -> Sequence[Row]:
        return () if self._doors.uses is None else await self._doors.uses.collectors(visit.scope, node_id)

    async def _figures(self, visit: Visit, node_id: str) -> Sequence[Row]:
        """The newest figures of each accelerator's tests; none where nobody tests."""
        if self._doors.proving is None:
            return ()
        try:
            found: Sequence[Row] = (await self._doors.proving.figures_of(visit.scope, node_id))["figures"]
        except NotFound:
            return ()
        return found

    async def _health(self, visit: Visit, node_id: str) -> Row | None:
        """What is known against a node; None where nobody judges."""
        if self._doors.health is None:
            return None
        try:
            return await self._doors.health.health_of(visit.scope, node_id)
        except NotFound:
            return None

    # ---- a run

    async def use_of_run(self, visit: Visit, run_id: str, leases: Sequence[Row]) -> Row | None:
        """What a run had of its accelerators, and `parts` by lease; None where nobody counts or can tell it now."""
        if self._doors.uses is None:
            return None
        key = (visit.scope.tenant_id, run_id)
        kept = self._uses.get(key)
        if kept is None or time.monotonic() - kept[0] > USE_KEPT_S:
            if len(self._uses) >= USES_KEPT:
                self._uses.clear()
            kept = self._uses[key] = (time.monotonic(), await self._counted(visit, run_id, leases))
        return kept[1]

    async def _counted(self, visit: Visit, run_id: str, leases: Sequence[Row]) -> Row | None:
        assert self._doors.uses is not None
        try:
            total = await self._doors.uses.use_of_run(visit.scope, run_id)
            parts = [
                (await self._doors.uses.uses(
                    visit.scope, by="lease", subject=lease["lease_id"], from_at=lease["granted_at"],
                    until_at=lease["released_at"],
                ), lease)
                for lease in leases[-PARTS_MAX:]
            ]  # fmt: skip
        except (StoreAway, NotFound):
            return None
        return {**total, "parts": [{**row, "lease": lease} for rows, lease in parts for row in rows]}

    async def run_series(self, visit: Visit, run_id: str) -> Facts:
        """Raises NotFound, also for another tenant's; StoreAway."""
        detail = await self._doors.views.run(visit.scope, run_id)
        return await self.panels.run_series(held_of(detail["leases"]), visit.language)

    # ---- live

    async def slow_beats(self) -> AsyncGenerator[None, None]:
        """When tables are worth another look: at ticks, but not at each of a busy fleet."""
        async with aclosing(self.lookout.beats()) as beats:
            async for _ in beats:
                yield
                await asyncio.sleep(TABLES_EVERY_S)

    async def series_told(
        self, family: Family, key: str, back: Lookback, ask: Asked
    ) -> AsyncGenerator[str, None]:
        """Event `series`: the whole of what a page draws, whenever a newer row of the thing has come."""
        newest: int | None = None
        drawn_s = float("-inf")
        async with aclosing(self.lookout.beats()) as beats:
            while True:
                await anext(beats)
                if time.monotonic() - drawn_s < back.every_s:
                    continue
                seen = await self.panels.seen_at(family, key)
                if seen is None or seen == newest:
                    continue
                try:
                    told = await ask()
                except Fault as fault:
                    if not fault.retryable:
                        return
                    continue
                newest, drawn_s = seen, time.monotonic()
                yield _told("series", json.dumps(told, separators=(",", ":")))

    async def run_told(self, ask: Asked) -> AsyncGenerator[str, None]:
        """Event `series` of a run, every RUN_EVERY_S while samples come."""
        drawn_s = time.monotonic()
        async with aclosing(self.lookout.beats()) as beats:
            while True:
                await anext(beats)
                if time.monotonic() - drawn_s < RUN_EVERY_S:
                    continue
                drawn_s = time.monotonic()
                try:
                    told = await ask()
                except Fault as fault:
                    if not fault.retryable:
                        return
                    continue
                yield _told("series", json.dumps(told, separators=(",", ":")))


def _now_of(sight: Sight, serial: str) -> Mapping[str, float | None]:
    """What a line of a table shows of one accelerator; nothing where it is not in service."""
    place = sight.plan.place_of.get(serial)
    if place is None:
        return {}
    shown = {}
    for name in ("util_pct", "temp_c", "power_w", "mem_pct"):
        cells, aspect = sight.cells(ASPECTS[name]), ASPECTS[name]
        known = int(cells.codes[place]) & 15 == State.VALUE
        shown[name] = float(cells.numbers[place]) / aspect.scale + aspect.low if known else None
    return shown


def _about(health: Row | None, serial: str) -> Row | None:
    """What of a node's health is about one of its accelerators."""
    if health is None:
        return None
    own = [verdict for verdict in health["verdicts"] if verdict["subject"] == serial]
    return {
        "health": own[0]["health"] if own else "healthy",
        "sentence": own[0]["sentence"] if own else None,
        "judged_at": health["judged_at"],
        "evidence": [each for each in health["evidence"] if each["subject"] == serial],
        "repairs": [each for each in health["repairs"] if serial in each["serials"] or not each["serials"]],
    }


def _text(packed_cells: bytes) -> str:
    return base64.b64encode(packed_cells).decode()


def _told(event: str, data: str) -> str:
    return f"event: {event}\ndata: {data}\n\n"
