"""The watch asks every collector of the node at its ticks and closes each tick into one row per thing.

Invariant: ticks lie on multiples of a collector's interval by the wall clock, so that collectors, and nodes, meet; no
collector waits for another longer than the grace of a tick; a failing one is asked ever more seldom and one lost answer
changes nothing. An answer that comes after its tick was closed is worked into the next one, not thrown away.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from baseai.agent.absence import MISSES, Absences
from baseai.agent.merge import Told, Voices, grouped, merged, samples_of, sound, without_draw
from baseai.agent.roster import Roster
from baseai.api.schemas import CollectorView, Samples
from baseai.api.schemas import Witness as WitnessOnWire
from baseai.ground.fault import Fault
from baseai.ground.identity import derived, mint
from baseai.telemetry.collector import Collected, Collector, NothingThere, Rank
from baseai.telemetry.field import ACCELERATOR, FAMILIES, NODE, PORT, Family
from baseai.telemetry.sample import Reading, Row, Trouble
from baseai.telemetry.witness import Witness

log = logging.getLogger(__name__)

GRACE_S = 2.0  # how long a tick stays open for answers, at most; less where ticks are short
GRACE_SHARE = 0.4
FAILING_AFTER = 2  # failures in a row
LONGEST_PAUSE_S = 300.0
OFF_PAUSE_S = 300.0  # how often a collector that found nothing looks again
TROUBLES_KEPT = 20
TROUBLE_LIVES_S = 600.0
CLOCK_SET_BACK_MS = 300_000
LATE_MS = 1000  # a tick that begins later than this is one of its own
LOOK_S = 1.0  # how long an extra look waits for its collectors


@dataclass(slots=True, kw_only=True)
class Health:
    """How one collector fares."""

    collector: Collector
    due_ms: int = 0  # wall clock
    state: str = "ok"  # ok, failing or off
    failures: int = 0
    last_ok_at: datetime | None = None
    took_ms: float | None = None
    sentence: str | None = "not asked yet"
    troubles: dict[str, float] = field(default_factory=dict)  # sentence → when it was told last
    task: "asyncio.Task[Collected | None] | None" = None

    def view(self, now_s: float) -> CollectorView:
        fresh = [text for text, at_s in self.troubles.items() if now_s - at_s < TROUBLE_LIVES_S]
        return CollectorView.model_validate(
            {
                "name": self.collector.name,
                "state": self.state,
                "interval_s": self.collector.interval_s,
                "last_ok_at": self.last_ok_at,
                "took_ms": self.took_ms,
                "failures": self.failures,
                "sentence": self.sentence,
                "troubles": fresh[::-1][:TROUBLES_KEPT],
            }
        )

    def tell(self, troubles: Sequence[Trouble], now_s: float) -> None:
        for each in troubles:
            sentence = trouble_sentence(each)
            self.troubles.pop(sentence, None)
            self.troubles[sentence] = now_s
        while len(self.troubles) > TROUBLES_KEPT:
            self.troubles.pop(next(iter(self.troubles)))


def trouble_sentence(trouble: Trouble) -> str:
    """Device and field first, then what was wrong and where."""
    what = " ".join(part for part in (trouble.key, trouble.field) if part)
    return (
        f"{what}: {trouble.sentence} ({trouble.source})" if what else f"{trouble.sentence} ({trouble.source})"
    )


def next_tick(now_ms: int, interval_s: float) -> int:
    """The first multiple of the interval after `now_ms`, in whole milliseconds since 1970."""
    interval_ms = max(1, round(interval_s * 1000))
    return (now_ms // interval_ms + 1) * interval_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass(slots=True, kw_only=True)
class _Answer:
    health: Health
    rows: Mapping[str, list[Row]]  # keys resolved


class Watch:
    """Asks until it is cancelled. `keep` gets the batches and witnesses of each closed tick."""

    def __init__(
        self,
        collectors: Sequence[Collector],
        *,
        roster: Roster,
        boot_id: str,
        node_id: str,
        keep: Callable[[Sequence[Samples], Sequence[WitnessOnWire]], None],
        own_rows: Callable[
            [int], Sequence[Row]
        ],  # ts_ms → rows of what the agent itself knows of accelerators
        chance: random.Random,
    ) -> None:
        self._healths = [Health(collector=each) for each in collectors]
        self._roster = roster
        self._boot_id = boot_id
        self._node_id = node_id
        self._keep = keep
        self._own_rows = own_rows
        self._chance = chance
        self._voices = Voices()
        self._absences = Absences(expected=roster.serials)
        self._late: list[_Answer] = []
        self._witnesses: list[Witness] = []
        self._closed: tuple[int, frozenset[tuple[str, str]]] = (0, frozenset())  # last tick, and keys it had
        self._looked_ms = 0
        self._look_for: set[str] = set()
        self._look = asyncio.Event()
        self._asking = asyncio.Lock()  # a tick and a look ask one after the other

    def views(self) -> list[CollectorView]:
        now_s = time.time()
        return [each.view(now_s) for each in self._healths]

    def look_at(self, serials: Collection[str]) -> None:
        """Ask once more, now: a lease on these devices has begun or ended."""
        self._look_for.update(serials)
        self._look.set()

    async def run(self) -> None:
        looking = asyncio.create_task(self._looks())
        try:
            now_ms = _now_ms()
            for each in self._healths:
                each.due_ms = (
                    now_ms  # the first time at once: what is there shows within a moment of the start
                )
            while self._healths:
                at_ms = min(each.due_ms for each in self._healths)
                await asyncio.sleep(max(0, at_ms - _now_ms()) / 1000)
                now_ms = _now_ms()
                if now_ms < at_ms - CLOCK_SET_BACK_MS:  # ticks follow the clock
                    for each in self._healths:
                        each.due_ms = next_tick(now_ms, each.collector.interval_s)
                    continue
                await self._tick(at_ms if now_ms - at_ms < LATE_MS else now_ms)
            await asyncio.Event().wait()
        finally:
            looking.cancel()
            for each in self._healths:
                if each.task is not None:
                    each.task.cancel()
                await each.collector.close()

    # ---- one tick ---------------------------------------------------------------------------------------------

    async def _tick(self, at_ms: int) -> None:
        async with self._asking:
            await self._ask_all(at_ms)

    async def _ask_all(self, at_ms: int) -> None:
        due = [each for each in self._healths if each.due_ms <= at_ms]
        ts_ms = at_ms
        if ts_ms <= self._closed[0] or ts_ms == self._looked_ms:
            ts_ms += 1  # the clock stepped back, and these instants are taken: each is kept once
        asked = []
        for each in due:
            each.due_ms = next_tick(at_ms, each.collector.interval_s)
            if each.task is None:  # else it still works on an earlier tick
                each.task = asyncio.create_task(self._ask(each, _instant(at_ms)))
                asked.append(each)
        shortest_s = min((each.collector.interval_s for each in self._healths), default=GRACE_S / GRACE_SHARE)
        awaited = [each.task for each in asked if each.failures < FAILING_AFTER and each.task is not None]
        if awaited:
            await asyncio.wait(awaited, timeout=min(GRACE_S, GRACE_SHARE * shortest_s))
        answers = []
        for each in asked:
            task = each.task
            assert task is not None
            if task.done():
                each.task = None
                answers += self._taken(each, task)
            else:
                task.add_done_callback(partial(self._came_late, each, ts_ms))
        self._close(ts_ms, answers)

    async def _ask(self, health: Health, now: datetime) -> Collected | None:
        """One question within its time. None when there is no answer; why stands in the health."""
        collector = health.collector
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(collector.timeout_s):
                collected = await collector.collect(now)
        except NothingThere as nothing:
            health.state, health.failures, health.sentence = "off", 0, str(nothing)
            health.due_ms = next_tick(_now_ms() + round(OFF_PAUSE_S * 1000), collector.interval_s)
            return None
        except TimeoutError:
            self._failed(health, f"gave no answer within {collector.timeout_s:g} s")
            return None
        except (Fault, OSError) as error:
            self._failed(health, str(error) or type(error).__name__)
            return None
        except Exception as bug:  # one collector's bug is not the others' loss
            log.exception("collector %s failed in a way nobody thought of", collector.name)
            self._failed(health, f"{type(bug).__name__}: {bug}")
            return None
        if health.state != "ok" and health.last_ok_at is not None:
            log.info("collector %s answers again", collector.name)
        health.state, health.failures, health.sentence = "ok", 0, None
        health.last_ok_at = now
        health.took_ms = round((time.monotonic() - began_s) * 1000, 1)
        return collected

    def _failed(self, health: Health, why: str) -> None:
        health.failures += 1
        health.sentence = why
        if health.failures < FAILING_AFTER:
            return
        if health.state != "failing":
            log.warning("collector %s fails: %s", health.collector.name, why)
        health.state = "failing"
        interval_s = health.collector.interval_s
        pause_s = min(LONGEST_PAUSE_S, interval_s * 2.0 ** min(health.failures - FAILING_AFTER + 1, 16))
        pause_ms = round(1000 * (pause_s * self._chance.uniform(0.5, 1.0) - interval_s / 2))
        health.due_ms = next_tick(_now_ms() + pause_ms, interval_s)

    def _taken(self, health: Health, task: "asyncio.Task[Collected | None]") -> list[_Answer]:
        """The answer with names resolved and impossible numbers blanked; empty when there was none."""
        if task.cancelled() or (collected := task.result()) is None:
            return []
        troubles = list(collected.troubles)
        rows: dict[str, list[Row]] = {}
        for name, said in collected.rows.items():
            family = FAMILIES[name]
            for row in said:
                whole, wrong = sound(family, row, health.collector.name)
                troubles += wrong
                key = self._key_of(family, row.key, collected.other_names.get(row.key, ()))
                if key is None:
                    sentence = "is not among this node's accelerators; its readings are not kept"
                    troubles.append(
                        Trouble(source=health.collector.name, key=row.key, field=None, sentence=sentence)
                    )
                    continue
                rows.setdefault(name, []).append(Row(key=key, ts_ms=whole.ts_ms, fields=whole.fields))
        self._witnesses += collected.witnesses
        health.tell(troubles, time.time())
        return [_Answer(health=health, rows=rows)]

    def _key_of(self, family: Family, key: str, other_names: Sequence[str]) -> str | None:
        if family is ACCELERATOR:
            return self._roster.serial_of(key, *other_names)
        return self._node_id if family is NODE else f"{self._node_id}/{key}"

    def _came_late(self, health: Health, ts_ms: int, task: "asyncio.Task[Collected | None]") -> None:
        """Of what others told of already it is worked into the next tick; the rest stands alone."""
        health.task = None
        for answer in self._taken(health, task):
            closed_ms, had = self._closed
            alone: dict[str, list[Row]] = {}
            again: dict[str, list[Row]] = {}
            for name, rows in answer.rows.items():
                for row in rows:
                    known = closed_ms != ts_ms or (name, row.key) in had
                    (again if known else alone).setdefault(name, []).append(row)
            if alone:
                self._store(ts_ms, [_Answer(health=health, rows=alone)], own=False)
            if again:
                self._late.append(_Answer(health=health, rows=again))

    def _close(self, ts_ms: int, answers: list[_Answer]) -> None:
        late, self._late = self._late, []
        present = {
            each.health.collector.name: {row.key for row in each.rows.get(ACCELERATOR.name, ())}
            for each in (*late, *answers)
        }
        lost, found = self._absences.note(present)
        at = _instant(ts_ms)
        for serial in lost:
            self._witnesses.append(self._witness_of(serial, at, "device_lost", ts_ms))
            log.warning("accelerator %s is no longer reported", serial)
        for serial in found:
            self._witnesses.append(self._witness_of(serial, at, "device_back", ts_ms))
        self._store(ts_ms, [*answers, *late], own=True)

    def _witness_of(self, serial: str, at: datetime, kind: str, ts_ms: int) -> Witness:
        is_lost = kind == "device_lost"
        sources = ", ".join(sorted(self._absences.seen_by.get(serial, ())))
        sentence = (
            f"missing {MISSES} times in a row from {sources}" if is_lost else f"reported again by {sources}"
        )
        return Witness(
            event_id=derived("wit", self._node_id, kind, serial, ts_ms),
            at=at,
            kind=kind,
            key=serial,
            code=None,
            severity="critical" if is_lost else "info",
            sentence=sentence,
        )

    # ---- looking once more ------------------------------------------------------------------------------------

    async def _looks(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            async with self._asking:
                serials, self._look_for = self._look_for, set()
                await self._look_once(serials)

    async def _look_once(self, serials: Collection[str]) -> None:
        at_ms = _now_ms()
        self._looked_ms = ts_ms = at_ms + (at_ms == self._closed[0])  # an instant is kept once
        asked = []
        for each in self._healths:
            if each.collector.quick and each.state == "ok" and each.task is None:
                each.task = asyncio.create_task(self._ask(each, _instant(at_ms)))
                asked.append((each, each.task))
        if asked:
            await asyncio.wait([task for _, task in asked], timeout=LOOK_S)
        answers = []
        for each, task in asked:
            if not task.done():
                task.add_done_callback(partial(self._came_late, each, ts_ms))
                continue
            each.task = None
            for answer in self._taken(each, task):
                rows = [row for row in answer.rows.get(ACCELERATOR.name, ()) if row.key in serials]
                answers.append(_Answer(health=each, rows={ACCELERATOR.name: rows}))
        self._store(ts_ms, answers, own=False)

    # ---- what is kept -----------------------------------------------------------------------------------------

    def _store(self, ts_ms: int, answers: Sequence[_Answer], *, own: bool) -> None:
        """Merge and hand over. `own`: with what the agent itself knows; that is a whole tick."""
        batches: list[Samples] = []
        keys: set[tuple[str, str]] = set()
        for family in (ACCELERATOR, NODE, PORT):
            told = [
                Told(
                    collector=each.health.collector.name,
                    rank=each.health.collector.rank,
                    rows=each.rows[family.name],
                )
                for each in answers
                if each.rows.get(family.name)
            ]
            if family is NODE and self._roster.has_boards:
                told = [each if each.rank is Rank.BOARD else without_draw(each) for each in told]
            if family is ACCELERATOR and (own or told):
                held = {row.key for each in told for row in each.rows}
                rows = [row for row in self._own_rows(ts_ms) if own or row.key in held]
                told.append(Told(collector="runs", rank=Rank.RUNS, rows=rows))
            elif family is NODE and own and answers:
                told.append(Told(collector="agent", rank=Rank.RUNS, rows=[self._count_row(ts_ms)]))
            closed = merged(family, told, ts_ms=ts_ms, voices=self._voices)
            keys |= {(family.name, row.key) for row in closed}
            for sources, rows_alike in grouped(closed):
                batches.append(
                    samples_of(
                        family, rows_alike, batch_id=mint("bat"), boot_id=self._boot_id, sources=sources
                    )
                )
        if own:
            self._closed = (ts_ms, frozenset(keys))
        witnesses, self._witnesses = self._witnesses, []
        if batches or witnesses:
            self._keep(batches, [self._on_wire(each) for each in witnesses])

    def _count_row(self, ts_ms: int) -> Row:
        fields = {
            "accel_seen": Reading(value=float(self._absences.seen()), source="agent"),
            "accel_expected": Reading(value=float(len(self._roster.serials)), source="agent"),
        }
        return Row(key=self._node_id, ts_ms=ts_ms, fields=fields)

    def _on_wire(self, witness: Witness) -> WitnessOnWire:
        key = self._roster.serial_of(witness.key) if witness.key else None
        payload = dict(witness.payload)
        if witness.key and key is None:
            payload["device"] = witness.key  # nobody here knows it: said, not guessed
        return WitnessOnWire.model_validate(
            {
                "event_id": witness.event_id,
                "at": witness.at,
                "kind": witness.kind,
                "key": key,
                "code": witness.code,
                "severity": witness.severity,
                "sentence": witness.sentence,
                "payload": payload,
            }
        )
