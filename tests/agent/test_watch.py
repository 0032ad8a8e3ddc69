"""The watch asks in time, waits for nobody, and makes one row of whatever answered."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from baseai.agent.apart import Apart
from baseai.agent.roster import Roster
from baseai.agent.watch import FAILING_AFTER, Watch, next_tick
from baseai.api.schemas import CollectorView, Device, Samples, Witness
from baseai.telemetry import witness as told
from baseai.telemetry.collector import Collected, Collector, NothingThere, Rank, SourceFailed
from baseai.telemetry.sample import Reading, Row, Trouble

pytestmark = pytest.mark.anyio

SERIALS = ("S0", "S1")
EVERY_S = 0.1


class Scripted:
    """A collector that does what its script says; the last line stands for ever."""

    timeout_s = 0.08

    def __init__(
        self, name: str, *script: Collected | Exception | float, rank: int = Rank.DRIVER, quick: bool = False
    ) -> None:
        self.name = name
        self.interval_s = EVERY_S
        self.rank = rank
        self.quick = quick
        self.script = list(script)
        self.asked_at: list[float] = []

    async def collect(self, now: datetime) -> Collected:
        self.asked_at.append(now.timestamp())
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, float):  # seconds until it answers
            await asyncio.sleep(said)
            return temperatures(41.0)
        if isinstance(said, Exception):
            raise said
        return said

    async def close(self) -> None: ...


def temperatures(*of: float, key: str = "GPU-{}") -> Collected:
    rows = [
        Row(key=key.format(place), ts_ms=0, fields={"temp_c": Reading(value=value, source="test")})
        for place, value in enumerate(of)
    ]
    return Collected(rows={"accelerator": rows})


class Kept:
    """What a watch handed over."""

    def __init__(self) -> None:
        self.batches: list[Samples] = []
        self.witnesses: list[Witness] = []
        self.views: Callable[[], list[CollectorView]] = list

    def keep(self, batches: Sequence[Samples], witnesses: Sequence[Witness]) -> None:
        self.batches += batches
        self.witnesses += witnesses

    def points(self, key: str, field: str = "temp_c") -> list[tuple[int, float | None]]:
        return [
            (at, value)
            for batch in self.batches
            if field in batch.values
            for place, (at, value) in enumerate(zip(batch.ts_ms, batch.values[field], strict=True))
            if batch.keys[place] == key
        ]

    def view(self, name: str) -> CollectorView:
        return next(each for each in self.views() if each.name == name)


@asynccontextmanager
async def watching(*collectors: Collector) -> AsyncIterator[tuple[Kept, Watch]]:
    kept = Kept()
    watch = Watch(
        collectors,
        roster=Roster(
            Device(
                serial=serial, model="H100-SXM", index=place, uuid=f"GPU-{place}", pci=f"0000:0{place}:00.0"
            )
            for place, serial in enumerate(SERIALS)
        ),
        boot_id="boot",
        node_id="node_1",
        keep=kept.keep,
        own_rows=lambda ts_ms: [],
        chance=random.Random(1),
    )
    kept.views = watch.views
    task = asyncio.create_task(watch.run())
    try:
        yield kept, watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object], what: str, wait_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline_s, f"waited {wait_s:g} s for {what}"
        await asyncio.sleep(0.01)


def test_a_tick_is_the_next_multiple_of_the_interval() -> None:
    assert next_tick(1_000_000, 10.0) == 1_010_000
    assert next_tick(1_009_999, 10.0) == 1_010_000
    assert next_tick(1_795_733_115_200, 0.1) == 1_795_733_115_300


async def test_ticks_lie_on_the_wall_clock_and_each_instant_is_kept_once() -> None:
    async with watching(Scripted("nvml", temperatures(40, 41))) as (kept, _):
        await until(lambda: len(kept.points("S0")) > 5, "six ticks")
    instants = [at for at, _ in kept.points("S0")]
    assert len(set(instants)) == len(instants)
    ticks = [at % 100 for at in instants[1:]]  # the first is as soon as it starts
    assert ticks.count(0) >= len(ticks) / 2  # one that begins a second late is an instant of its own


async def test_a_hanging_collector_holds_up_nobody() -> None:
    stuck = Scripted("stuck", 60.0)
    async with watching(stuck, Scripted("nvml", temperatures(40, 41))) as (kept, _):
        await until(lambda: kept.view("stuck").state == "failing", "the stuck one to fail")
        before = len(kept.points("S0"))
        await until(lambda: len(kept.points("S0")) > before + 5, "ticks of the other")
        assert "gave no answer within 0.08 s" in (kept.view("stuck").sentence or "")
        assert kept.view("nvml").state == "ok"


async def test_a_source_stuck_in_a_library_is_not_asked_again_and_ends_with_the_process() -> None:
    calls = []

    class Stuck:
        name = "nvml"

        def observe(self, now: datetime) -> Collected:
            calls.append(now)
            time.sleep(1.0)
            return temperatures(40, 41)

    apart = Apart(Stuck(), interval_s=EVERY_S, timeout_s=0.05, rank=Rank.DRIVER)
    async with watching(apart) as (kept, _):
        await until(lambda: kept.view("nvml").failures >= 2, "two failures")
        assert len(calls) == 1
        assert "is not asked again until it does" in (kept.view("nvml").sentence or "")
        await until(lambda: len(calls) > 1, "it to be asked again once it has answered")


async def test_one_lost_answer_changes_nothing_and_more_are_asked_ever_more_seldom() -> None:
    away = SourceFailed("nvml", "the driver is gone")
    flaky = Scripted("nvml", temperatures(40, 41), away, temperatures(40, 41), away)
    async with watching(flaky) as (kept, _):
        await until(lambda: kept.view("nvml").failures == 1, "one failure")
        assert kept.view("nvml").state == "ok"
        await until(lambda: kept.view("nvml").failures >= FAILING_AFTER + 3, "several failures")
    assert kept.view("nvml").state == "failing"
    assert kept.view("nvml").last_ok_at is not None
    pauses = [later - earlier for earlier, later in zip(flaky.asked_at, flaky.asked_at[1:], strict=False)]
    assert max(pauses[:2]) < 2.5 * EVERY_S  # after the first failure as before
    assert pauses[-1] > 3 * EVERY_S


async def test_what_is_not_there_is_off_and_says_why() -> None:
    async with watching(Scripted("nvml", NothingThere("no driver of NVIDIA"))) as (kept, _):
        await until(lambda: kept.view("nvml").state == "off", "it to be off")
        assert kept.view("nvml").sentence == "no driver of NVIDIA"
        await asyncio.sleep(3 * EVERY_S)
    assert kept.view("nvml").failures == 0
    assert kept.batches == []


async def test_a_bug_in_one_collector_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async with watching(Scripted("broken", KeyError("x")), Scripted("nvml", temperatures(40, 41))) as (
        kept,
        _,
    ):
        await until(lambda: kept.view("broken").state == "failing", "the broken one to fail")
        await until(lambda: len(kept.points("S0")) > 3, "ticks of the other")
    assert "KeyError" in (kept.view("broken").sentence or "")
    assert "nobody thought of" in caplog.text


async def test_two_collectors_make_one_row() -> None:
    power = [Row(key="0000:00:00.0", ts_ms=0, fields={"power_w": Reading(value=300.0, source="dcgm")})]
    exporter = Scripted("dcgm", Collected(rows={"accelerator": power}), rank=Rank.EXPORTER)
    async with watching(exporter, Scripted("nvml", temperatures(40))) as (kept, _):
        await until(lambda: len(kept.points("S0")) > 2, "three ticks")
    assert [at for at, _ in kept.points("S0")] == [at for at, _ in kept.points("S0", "power_w")]
    assert kept.batches[0].sources == {"temp_c": "test", "power_w": "dcgm"}


async def test_the_draw_of_processors_is_not_that_of_a_node_with_accelerators() -> None:
    def draw(watts: float) -> Collected:
        fields = {"power_w": Reading(value=watts), "cpu_pct": Reading(value=50.0)}
        return Collected(rows={"node": [Row(key="", ts_ms=0, fields=fields)]})

    async with watching(Scripted("host", draw(12))) as (kept, _):
        await until(lambda: kept.points("node_1", "cpu_pct"), "a tick of the host")
    assert kept.points("node_1", "power_w") == []
    board = Scripted("redfish", draw(5400), rank=Rank.BOARD)
    async with watching(Scripted("host", draw(12)), board) as (kept, _):
        await until(lambda: kept.points("node_1", "power_w"), "a tick of the board")
    assert {watts for _, watts in kept.points("node_1", "power_w")} == {5400}


async def test_a_late_answer_is_worked_into_the_next_tick() -> None:
    late = Scripted("late", 0.06)  # beyond the grace of 0.04 s, within its own time
    async with watching(late, Scripted("nvml", temperatures(40, 41))) as (kept, _):
        await until(lambda: len(kept.points("S0")) > 8, "ticks")
    instants = [at for at, _ in kept.points("S0")]
    assert len(set(instants)) == len(instants)  # nothing is told twice of one instant
    assert kept.view("late").state == "ok"


async def test_a_late_answer_of_what_nobody_else_told_stands_at_its_own_tick() -> None:
    async with watching(Scripted("late", 0.06)) as (kept, _):
        await until(lambda: len(kept.points("S0")) > 3, "ticks")
    ticks = [at % 100 for at, _ in kept.points("S0")[1:]]
    assert ticks.count(0) >= len(ticks) / 2


async def test_a_device_nobody_knows_is_told_and_the_rest_is_kept() -> None:
    async with watching(Scripted("nvml", temperatures(40, 41, 42))) as (kept, _):
        await until(lambda: kept.points("S1"), "a tick")
        (trouble,) = kept.view("nvml").troubles
    assert trouble == "GPU-2: is not among this node's accelerators; its readings are not kept (nvml)"


async def test_a_number_that_cannot_be_names_device_and_field() -> None:
    async with watching(Scripted("nvml", temperatures(40, 7200))) as (kept, _):
        await until(lambda: kept.points("S1"), "a tick")
        (trouble,) = kept.view("nvml").troubles
    assert trouble.startswith("GPU-1 temp_c: 7200 °C cannot be")
    assert {value for _, value in kept.points("S1")} == {None}
    assert {value for _, value in kept.points("S0")} == {40}


async def test_troubles_are_bounded_and_the_newest_come_first() -> None:
    def troubled(number: int) -> Collected:
        trouble = Trouble(source="x", key="GPU-0", field="temp_c", sentence=f"number {number}")
        return Collected(troubles=[trouble])

    async with watching(Scripted("x", *(troubled(number) for number in range(30)))) as (kept, _):
        await until(lambda: "number 29" in str(kept.view("x").troubles[:1]), "the last one")
        assert len(kept.view("x").troubles) == 20


async def test_a_lost_device_is_a_witness_after_three_misses() -> None:
    script = [
        temperatures(40, 41),
        *[temperatures(40)] * 2,
        temperatures(40, 41),
        temperatures(40),
    ]  # the last stays
    async with watching(Scripted("nvml", *script)) as (kept, _):
        await until(lambda: kept.witnesses, "a witness")
        counts = [value for _, value in kept.points("node_1", "accel_seen")]
    (lost,) = kept.witnesses
    assert (lost.kind, lost.key, lost.severity) == ("device_lost", "S1", "critical")
    assert "nvml" in lost.sentence
    assert counts[-1] == 1
    assert set(counts[:-1]) == {2}


async def test_a_lease_is_looked_at_between_the_ticks() -> None:
    quick = Scripted("nvml", temperatures(40, 41), quick=True)
    slow = Scripted("redfish", temperatures(50, 51), rank=Rank.BOARD)
    quick.interval_s = slow.interval_s = 30.0
    async with watching(quick, slow) as (kept, watch):
        await until(lambda: kept.points("S0"), "the first tick")
        asked_s = time.time()
        watch.look_at(["S1"])
        await until(lambda: len(kept.points("S1")) > 1, "a look")
        await asyncio.sleep(0.05)
    assert len(kept.points("S0")) == 1  # only what was leased
    assert abs(kept.points("S1")[-1][0] / 1000 - asked_s) < 0.5
    assert (len(quick.asked_at), len(slow.asked_at)) == (2, 1)


async def test_a_witness_goes_under_the_serial_and_an_unknown_device_stays_named() -> None:
    def xid(place: int, key: str) -> told.Witness:
        return told.Witness(
            event_id=f"wit_{place}",
            at=datetime(2026, 11, 20, tzinfo=UTC),
            kind="xid",
            key=key,
            code=79,
            severity="critical",
            sentence="",
        )

    seen = Collected(witnesses=[xid(0, "PCI:0000:01:00"), xid(1, "PCI:0000:77:00")])
    async with watching(Scripted("kernel_log", seen, Collected())) as (kept, _):
        await until(lambda: len(kept.witnesses) == 2, "two witnesses")
    known, unknown = kept.witnesses
    assert known.key == "S1"
    assert (unknown.key, unknown.payload["device"]) == (None, "PCI:0000:77:00")
