"""The controller's process: loops that settle, schedule, watch, judge, test, meter, post. One of them leads at a time.

It holds an advisory lock of PostgreSQL while it leads; a second controller waits for it. Every loop may be
killed between any two statements: what it does is one transaction each, and level-triggered.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import psycopg
from psycopg import AsyncConnection

from baseai.ground.fault import Refused
from baseai.telemetry.store import StoreAway
from baseai.truth.migrate import migrate
from baseai.truth.session import Truth, TruthUnavailable
from baseai.wiring.household import Household
from baseai.wiring.rooms import Rooms

log = logging.getLogger(__name__)

LEADER_LOCK = 0x6C656164  # "lead"
LONGEST_REST_S = 2.0  # between looks when nothing is told
SCHEDULE_EVERY_S = 10.0  # a full look at the queue, also when nothing was told
BOOK_EVERY_S = 5.0
KEEP_TIME_EVERY_S = (
    60.0  # hours of accelerators: closed when they are over, counted anew when facts come late
)
KEEP_COSTS_EVERY_S = 30.0  # what stood idle, of hours that are closed
LOOK_AT_ALL_COSTS_EVERY_S = 6 * 3600.0  # every hour of the open months, rather than the last two days
AUDIT_EVERY_S = 60.0  # a look at reservations that timed out, and whether the books were checked this night
ATTRIBUTE_EVERY_S = 30.0  # hours of use: closed as their samples come in
JUDGE_EVERY_S = 10.0  # a tick of health, as often as things are measured
PROVE_EVERY_S = 10.0  # tests of nodes: what is due, what has ended
KEEP_EVERY_S = 3.0  # the calendar: what begins or ends, and who has to make way
SERVE_EVERY_S = 1.0  # services: as often as demand is told
PROVE_SOON_S = 1.0  # between two looks at them, when something was told


async def control(dsn: str, household: Household, metrics: Path) -> None:
    """Lead whenever nobody else does, for ever."""
    while True:
        try:
            await asyncio.to_thread(migrate, dsn)
            async with await AsyncConnection.connect(dsn, autocommit=True, connect_timeout=5) as leading:
                await leading.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK,))
                log.info("leading")
                await _lead(dsn, household, metrics, leading)
        except (TruthUnavailable, psycopg.OperationalError) as wrong:
            log.warning("%s", str(wrong).splitlines()[0])
            await asyncio.sleep(0.3)


async def _lead(dsn: str, household: Household, metrics: Path, leading: AsyncConnection) -> None:
    truth = Truth(dsn, connections_max=4)
    await truth.open()
    rung = asyncio.Event()
    listening = asyncio.create_task(_listen(truth, rung))
    beside: list[asyncio.Task[None]] = []
    nudge = asyncio.Event()
    try:
        rooms = Rooms(truth, household, metrics)
        beside = [
            asyncio.create_task(_attribute(rooms)),
            asyncio.create_task(_keep_time(rooms)),
            asyncio.create_task(_keep_costs(rooms)),
            asyncio.create_task(_prove(rooms, nudge)),
            asyncio.create_task(_judge(rooms)),
            asyncio.create_task(_audit(rooms)),
            asyncio.create_task(_keep(rooms)),
            asyncio.create_task(_serve(rooms)),
        ]
        scheduled = booked = 0.0
        told = True
        while True:
            rung.clear()
            await leading.execute("SELECT 1")  # the lock is held as long as this line is
            await rooms.engine.watch()
            moved = await rooms.engine.settle()
            if told or moved or time.monotonic() - scheduled > SCHEDULE_EVERY_S:
                scheduled = time.monotonic()
                plan, stale = await rooms.scheduler.tick()
                for refused in stale:
                    log.warning("the grant of %s was not written: %s", refused.run_id, refused.why)
                if plan.grants:
                    log.info("granted %d, waiting %d", len(plan.grants), len(plan.waits))
            if moved or told:
                nudge.set()
            if moved or time.monotonic() - booked > BOOK_EVERY_S:
                booked = time.monotonic()
                await rooms.meter.meter()
                await rooms.meter.post(lambda: _rate(rooms))
            told = True
            try:
                await asyncio.wait_for(rung.wait(), LONGEST_REST_S)
            except TimeoutError:
                told = False
    finally:
        listening.cancel()
        for task in beside:
            task.cancel()
        if beside:
            await asyncio.gather(*beside, return_exceptions=True)
            await rooms.metrics.close()
        await truth.close()


async def _rate(rooms: Rooms) -> None:
    """Contracts that contradict each other hold up what is billed, and nothing else."""
    try:
        await rooms.agreements.rater.rate()
    except Refused as wrong:
        log.error("nothing is rated: %s", wrong)


async def _judge(rooms: Rooms) -> None:
    """Beside the loop, for it asks the metric store as well: the health of everything, every tick."""
    unjudged = ""
    while True:
        began = time.monotonic()
        try:
            judged = await rooms.judge.tick(rooms.metrics)
            if (judged.unjudged or "") != unjudged:
                log.warning("no samples are judged: %s", judged.unjudged or "over, they are again")
            unjudged = judged.unjudged or ""
        except TruthUnavailable as wrong:
            log.warning("health is not judged: %s", wrong)
        except Exception:  # one oddity ends this tick and no other loop
            log.exception("health could not be judged")
        await asyncio.sleep(max(1.0, JUDGE_EVERY_S - (time.monotonic() - began)))


async def _prove(rooms: Rooms, nudge: asyncio.Event) -> None:
    """Beside the loop, for it asks the metric store as well: tests that are due, results, nodes that move on."""
    while True:
        nudge.clear()
        try:
            await rooms.proving.step()
        except TruthUnavailable as wrong:
            log.warning("nodes are not tested: %s", wrong)
        except Exception:  # one node's oddity ends this round and no other loop
            log.exception("nodes could not be tested")
        await asyncio.sleep(PROVE_SOON_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(nudge.wait(), PROVE_EVERY_S)


async def _keep(rooms: Rooms) -> None:
    """Beside the loop, so that nobody is asked late to make way: reservations and maintenance move on with time."""
    while True:
        try:
            kept = await rooms.upkeep.step()
            if kept.asked:
                log.info("asked %d runs to make way for what is booked", kept.asked)
        except TruthUnavailable as wrong:
            log.warning("the calendar is not kept: %s", wrong)
        except Exception:  # one oddity ends this step and no other loop
            log.exception("the calendar could not be kept")
        await asyncio.sleep(KEEP_EVERY_S)


async def _serve(rooms: Rooms) -> None:
    """Beside the loop, for demand comes every second: replicas that are wanted, versions that take over."""
    while True:
        began = time.monotonic()
        try:
            kept = await rooms.keeper.step()
            if kept.made or kept.drained:
                log.info("replicas made %d, drained %d", kept.made, kept.drained)
        except TruthUnavailable as wrong:
            log.warning("services are not kept: %s", wrong)
        except Exception:  # one service's oddity ends this step and no other loop
            log.exception("services could not be kept")
        await asyncio.sleep(max(0.1, SERVE_EVERY_S - (time.monotonic() - began)))


async def _attribute(rooms: Rooms) -> None:
    """Beside the loop, for it asks the metric store: whatever becomes of that, runs are scheduled and booked."""
    away = ""
    while True:
        try:
            done = await rooms.uses.attribute()
            away = ""
            if done.closed or done.corrected:
                log.info("hours of use closed %d, corrected %d", done.closed, done.corrected)
            for hour in done.astray:
                log.error("the uses of %s do not add up to its counter", hour)
            for hour in done.apart:
                log.error("the store's own sum of %s contradicts its samples", hour)
        except (StoreAway, TruthUnavailable) as wrong:
            if str(wrong) != away:
                log.warning("use is not attributed: %s", wrong)
            away = str(wrong)
        except Exception:  # one device's oddity ends this round and no other loop
            log.exception("use could not be attributed")
        await asyncio.sleep(ATTRIBUTE_EVERY_S)


async def _keep_time(rooms: Rooms) -> None:
    """Beside the loop, for a month may have to be counted: what every second of every accelerator was."""
    while True:
        try:
            done = await rooms.time.close()
            if done.closed or done.revised:
                log.info(
                    "hours of time closed %d, counted anew %d of single accelerators",
                    done.closed,
                    done.revised,
                )
            failing = set(done.failing)
            if await rooms.time.nightly_is_due():
                checked = await rooms.time.nightly()
                log.info("checked %d hours of time, %d do not add up", checked.hours, len(checked.failing))
                failing |= set(checked.failing)
            for sentence in sorted(failing):
                log.error("not shown to anybody until it adds up: %s", sentence)
        except TruthUnavailable as wrong:
            log.warning("time is not kept: %s", wrong)
        except Exception:  # one accelerator's oddity ends this round and no other loop
            log.exception("time could not be kept")
        await asyncio.sleep(KEEP_TIME_EVERY_S)


async def _keep_costs(rooms: Rooms) -> None:
    """Beside the loop: what stood idle costs what used time costs, and months that are over get what hours lack."""
    looked = 0.0
    while True:
        try:
            await rooms.costs.seed()
            everything = time.monotonic() - looked > LOOK_AT_ALL_COSTS_EVERY_S or looked == 0.0
            written = await rooms.costs.post(everything=everything)
            if everything:
                looked = time.monotonic()
            if written:
                log.info("costs of all time: %d transfers", written)
        except TruthUnavailable as wrong:
            log.warning("costs are not posted: %s", wrong)
        except Exception:  # one month's oddity ends this round and no other loop
            log.exception("costs could not be posted")
        await asyncio.sleep(KEEP_COSTS_EVERY_S)


async def _audit(rooms: Rooms) -> None:
    """Beside the loop, for it reads every transfer: reservations that timed out, and the books once a night."""
    while True:
        try:
            checked = await rooms.ledger.nightly()
            if checked is not None:
                log.info("the books: %d transfers, sha256 %s", checked["transfers"], checked["digest"])
                for finding in checked["findings"]:
                    log.error("nothing is published from the books: %s", finding["sentence"])
        except TruthUnavailable as wrong:
            log.warning("the books are not checked: %s", wrong)
        except Exception:  # the books can be asked from the terminal meanwhile
            log.exception("the books could not be checked")
        await asyncio.sleep(AUDIT_EVERY_S)


async def _listen(truth: Truth, rung: asyncio.Event) -> None:
    async for _ in truth.notices("baseai_tick"):
        rung.set()
