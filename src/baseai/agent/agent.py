"""The agent of one node: it fetches what shall run, lets `reconcile` decide, does it, and reports what it saw.

Invariant: a run is never stopped because the server is away, only at its lease's end; every end is written to the
spool before it is reported; and the loop holds no fact that a new agent could not read from the node folder.
Outside things touched: the clock, the node folder, processes (through `Launcher`), the server (through `Link`).
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from baseai.agent.carry import Carrier
from baseai.agent.environment import CPU_SLOT, OURS
from baseai.agent.event import set_or_after
from baseai.agent.files import fetch_into_cache, is_disk_full, lay
from baseai.agent.folder import AttemptFolder, Born, Declined, LaunchRecord, NodeFolder, NodeIdentity
from baseai.agent.link import KeyRevoked, Link, ServerAway, ServerRefused, TokenUsed
from baseai.agent.mend import Mending
from baseai.agent.outcome import Asked, out_of_memory, outcome_of
from baseai.agent.process import Launcher, NotStarted, TreeUse
from baseai.agent.reconcile import (
    Ask,
    Decline,
    Extend,
    Kill,
    Phase,
    Process,
    Start,
    Tidy,
    Wanted,
    notice_of,
    reconcile,
)
from baseai.agent.roster import Roster, kind_of
from baseai.agent.sample_spool import SampleSpool
from baseai.agent.spool import Spool
from baseai.agent.stream import Splice, piece_at, splice_over
from baseai.agent.watch import Watch
from baseai.api.schemas import (
    LOG_CHUNK_BYTES,
    Alive,
    Desired,
    FileRef,
    Join,
    Launch,
    NodeFacts,
    Observation,
    Report,
    Samples,
    Witness,
)
from baseai.ground.clock import instant, now_utc
from baseai.ground.fault import Fault, Refused
from baseai.ground.identity import LeaseId, derived
from baseai.telemetry.collector import Collector
from baseai.telemetry.sample import Reading, Row
from baseai.workloads.reason import Reason

log = logging.getLogger(__name__)

LONG_POLL_S = 25.0
HEARTBEAT_S = 2.0
TICK_S = 0.5
POLL_EXIT_S = 0.2  # where the kernel has no process descriptors
MEMORY_LOOK_S = 2.0
MEMORY_NEAR_RATIO = 0.7  # beyond this share of the limit every tick looks
LOG_LOOK_S = 0.3
LOG_CHUNKS_A_TURN = 8
OBSERVATIONS_A_REPORT = 500
PROGRESS_READ_BYTES = 256 * 1024
FLUSH_S = 5.0
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
SAY_REVOKED_S = 60.0
SAME_END_S = 1.0  # two tellings of one lease's end differ by the way they took
ADOPT_WAIT_S = 5.0
FILE_TRIES = 6
STREAM = "output"
BLIND_PAUSE_S = 10.0  # before what measures is started again after a bug
MIB = 1024 * 1024
SHARE_OF_MACHINE = "agent: main memory divided by the slots"
SHARE_OF_RUN = "agent: memory of the run's processes divided by its slots"


@dataclass(slots=True, kw_only=True)
class Tended:
    """One attempt in this agent's care. Everything here is on disk as well, or can be seen again."""

    folder: AttemptFolder
    record: LaunchRecord
    phase: Phase
    ends_s: float
    born: Born | None = None
    asked: Asked | None = None
    asked_s: float | None = None
    killed_s: float | None = None
    settled: bool = False
    end_event: str | None = None  # the id of the observation that says how it ended
    end_taken: bool = False
    fetching: asyncio.Task[None] | None = None
    watch_fd: int | None = None
    use: TreeUse | None = None
    serials: tuple[str, ...] = ()  # of the leased devices, as far as this agent was told
    sent_to: int | None = 0  # where the server wants the log to go on; None until it was asked
    log_done: bool = False
    splices: list[Splice] = field(default_factory=list)
    stop_grace_s: float = 20.0

    def is_asked(self) -> bool:
        return self.asked is not None

    def observed(self) -> Process:
        return Process(
            lease_id=self.record.lease_id,
            attempt_no=self.record.attempt_no,
            phase=self.phase,
            devices=frozenset(self.record.devices),
            ends_s=self.ends_s,
            notice_s=self.record.notice_s,
            stop_grace_s=self.stop_grace_s,
            asked_s=self.asked_s,
            killed_s=self.killed_s,
            settled=self.settled,
        )


class Agent:
    """Runs until it is told to leave. Every public method belongs to the event loop's thread."""

    def __init__(
        self,
        *,
        folder: NodeFolder,
        link: Link,
        launcher: Launcher,
        observe_facts: Callable[[], NodeFacts],
        token: str | None,
        chance: random.Random,
        collectors: Sequence[Collector] = (),
        samples: SampleSpool | None = None,
        mends: bool = False,
    ) -> None:
        self._folder = folder
        self._link = link
        self._launcher = launcher
        self._observe_facts = observe_facts
        self._token = token
        self._chance = chance
        self._spool = Spool(folder.spool)
        self._collectors = collectors
        self._samples = samples  # None: this node measures nothing
        self._mends = mends and samples is not None  # what came of a repair travels with what is measured
        self._mending: Mending | None = None
        self._eyes: Watch | None = None
        self._carrier: Carrier | None = None
        self._roster = Roster(())
        self._tended: dict[LeaseId, Tended] = {}
        self._desired: dict[LeaseId, Wanted] | None = None
        self._released: frozenset[str] = frozenset()
        self._version = -1
        self._boot_id = ""
        self._joined = asyncio.Event()
        self._wake = asyncio.Event()  # something to reconcile
        self._news = asyncio.Event()  # something to report
        self._logs = asyncio.Event()  # something to ship
        self._leave = asyncio.Event()
        self._shutdown = False
        self._fault: Fault | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._revoked = False
        self._said_revoked_s = float("-inf")

    # ---- life -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tend this node until `leave` or `shut_down`. Raises the Fault that makes going on senseless."""
        facts = await asyncio.to_thread(self._observe_facts)
        self._boot_id = facts.boot_id
        self._roster = Roster(facts.devices)
        if self._mends:
            self._mending = Mending(
                self._folder.repairs, boot_id=facts.boot_id, tell=lambda seen: self._keep((), (seen,))
            )
        await self._adopt_all()
        loops = [
            asyncio.create_task(each, name=name)
            for name, each in {
                "supervise": self._supervise(),
                "listen": self._listen(facts),
                "report": self._report(),
                "logs": self._ship_logs(),
                "watch": self._measure(),
            }.items()
        ]
        leaving = asyncio.create_task(self._leave.wait())
        done, _ = await asyncio.wait([*loops, leaving], return_when=asyncio.FIRST_COMPLETED)
        if self._shutdown and self._fault is None and leaving in done:
            await self._flush()
        for task in [*loops, leaving, *self._tasks]:
            task.cancel()
        ends = await asyncio.gather(*loops, leaving, return_exceptions=True)
        await self._link.close()
        self._spool.close()
        if self._samples is not None:
            self._samples.close()
        if self._fault is not None:
            raise self._fault
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end

    def leave(self) -> None:
        """End this agent and leave its runs alive for the next one."""
        self._leave.set()

    def shut_down(self) -> None:
        """The node goes down: stop every run with its grace, report, then leave."""
        log.info("the node is shut down: %d runs are asked to stop", len(self._unended()))
        self._shutdown = True
        self._wake.set()

    async def _flush(self) -> None:
        """Deliver the last words, for a few seconds: what does not get out lies in the spool."""
        deadline_s = time.monotonic() + FLUSH_S
        while time.monotonic() < deadline_s and self._joined.is_set() and not self._revoked:
            if not len(self._spool) and all(each.log_done for each in self._tended.values()):
                return
            self._news.set()
            self._logs.set()
            await asyncio.sleep(0.05)

    def _unended(self) -> list[Tended]:
        return [each for each in self._tended.values() if each.phase != Phase.ENDED]

    # ---- adopting ---------------------------------------------------------------------------------------------

    async def _adopt_all(self) -> None:
        for folder in list(self._folder.attempts()):
            record = folder.launch()
            if record is None:
                folder.remove()  # its agent died before it had written what it was about to start
                continue
            await self._adopt(folder, record)
        if self._tended:
            log.info("adopted %d attempts, %d of them alive", len(self._tended), len(self._unended()))

    async def _adopt(self, folder: AttemptFolder, record: LaunchRecord) -> None:
        tended = Tended(
            folder=folder,
            record=record,
            phase=Phase.ENDED,
            ends_s=folder.end_of_lease() or time.monotonic(),
            stop_grace_s=record.stop_grace_s,
            splices=folder.splices(),
            sent_to=None,
        )
        stop = folder.stop()
        if stop is not None:
            tended.asked, tended.asked_s = stop
        if folder.settled():
            tended.settled = tended.end_taken = tended.log_done = True
            self._tended[record.lease_id] = tended
            return
        declined = folder.declined()
        if declined is not None:
            self._tended[record.lease_id] = tended
            self._say_declined(tended, declined)
            return
        alive = None
        if folder.end() is None and record.boot_id == self._boot_id:
            alive = await asyncio.to_thread(self._launcher.adopt, folder, ADOPT_WAIT_S)
        born = alive or folder.born()
        if born is None:
            await asyncio.to_thread(self._launcher.sweep, record.lease_id, None)
            folder.remove()  # nothing was ever started: it starts afresh if it is still wanted
            return
        self._tended[record.lease_id] = tended
        self._say_started(tended, born)
        if alive is not None:
            self._watch(tended)
        else:
            await self._end(tended)

    # ---- deciding and doing -----------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        look_s = 0.0
        while True:
            self._act()
            unended = self._unended()
            if self._shutdown and not unended:
                self._leave.set()
            alive = [each for each in unended if each.phase == Phase.ALIVE]
            now_s = time.monotonic()
            if alive and now_s >= look_s:
                look_s = now_s + (TICK_S if await self._look_at_memory(alive) else MEMORY_LOOK_S)
            for each in alive:
                self._relay_progress(each)
            blind = any(each.watch_fd is None for each in alive)
            for each in alive:
                if each.watch_fd is None and each.born and not self._launcher.lives(each.born, each.folder):
                    await self._end(each)
            wait_s = POLL_EXIT_S if blind else TICK_S if unended else LONGEST_WAIT_S
            await set_or_after(self._wake, wait_s)
            self._wake.clear()

    def _act(self) -> None:
        observed = {lease_id: each.observed() for lease_id, each in self._tended.items()}
        actions = reconcile(
            self._desired,
            observed,
            now_s=time.monotonic(),
            released=self._released,
            shutdown=self._shutdown,
        )
        for action in actions:
            match action:
                case Start(lease_id=lease_id):
                    self._start(lease_id)
                case Decline(lease_id=lease_id, reason=reason, sentence=sentence):
                    self._take_up(lease_id)
                    self._decline(self._tended[lease_id], reason, sentence)
                case Extend(lease_id=lease_id, ends_s=ends_s):
                    self._extend(self._tended[lease_id], ends_s)
                case Ask(lease_id=lease_id, reason=reason, sentence=sentence):
                    self._ask(self._tended[lease_id], Asked(reason=reason, sentence=sentence))
                case Kill(lease_id=lease_id, reason=reason, sentence=sentence):
                    self._kill(self._tended[lease_id], Asked(reason=reason, sentence=sentence))
                case Tidy(lease_id=lease_id):
                    tended = self._tended.pop(lease_id)
                    self._spool.forget(lease_id)
                    self._background(asyncio.to_thread(tended.folder.remove))

    def _extend(self, tended: Tended, ends_s: float) -> None:
        tended.ends_s = ends_s
        if tended.folder.path.exists():
            self._on_disk(tended, lambda folder: folder.record_end_of_lease(ends_s))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unexpected: %r", error, exc_info=error)

    def _on_disk(self, tended: Tended, write: Callable[[AttemptFolder], None]) -> None:
        """Write a record; a full disk costs the record, not the action it is about."""
        try:
            write(tended.folder)
        except OSError as error:
            log.warning("could not write a record of lease %s: %s", tended.record.lease_id, error)

    def _take_up(self, lease_id: LeaseId) -> Launch:
        assert self._desired is not None
        wanted = self._desired[lease_id]
        launch = wanted.launch
        folder = self._folder.attempt(launch.run_id, launch.attempt_no)
        lease_s = wanted.ends_s - time.monotonic()
        record = LaunchRecord(
            lease_id=lease_id,
            run_id=launch.run_id,
            attempt_no=launch.attempt_no,
            kind=launch.kind,
            devices=tuple(device.accelerator_id for device in launch.devices),
            memory_mib=launch.memory_mib,
            stop_grace_s=launch.stop_grace_s,
            notice_s=notice_of(launch.stop_grace_s, lease_s),
            boot_id=self._boot_id,
        )
        self._tended[lease_id] = Tended(
            folder=folder,
            record=record,
            phase=Phase.PREPARING,
            ends_s=wanted.ends_s,
            stop_grace_s=launch.stop_grace_s,
        )
        return launch

    def _start(self, lease_id: LeaseId) -> None:
        launch = self._take_up(lease_id)
        self._background(self._prepare_and_start(self._tended[lease_id], launch))

    async def _prepare_and_start(self, tended: Tended, launch: Launch) -> None:
        refusal = await self._prepare(tended, launch)
        if refusal is None and not tended.is_asked():
            try:
                answer = await asyncio.to_thread(self._launcher.start, launch, tended.folder)
            except Exception as error:
                log.exception("a start ended in a way nobody thought of")
                answer = NotStarted(reason=Reason.START_FAILED, sentence=f"could not start: {error}")
            if isinstance(answer, Born):
                self._say_started(tended, answer)
                self._watch(tended)
                if tended.is_asked():
                    self._launcher.ask(answer)
                return
            refusal = answer
        if tended.asked is not None:
            refusal = NotStarted(reason=tended.asked.reason, sentence=tended.asked.sentence)
        assert refusal is not None
        self._decline(tended, refusal.reason, refusal.sentence)

    async def _prepare(self, tended: Tended, launch: Launch) -> NotStarted | None:
        """Everything before the start: records and files. None when the command can be started."""
        if launch.image is not None:
            sentence = f"the run wants the image {launch.image}, and this node has no container runtime"
            return NotStarted(reason=Reason.START_FAILED, sentence=sentence)
        try:
            tended.folder.path.mkdir(parents=True, exist_ok=True)
            earlier = tended.folder.launch()
            if earlier is not None and earlier.lease_id != tended.record.lease_id:
                sentence = f"this attempt already runs here under the lease {earlier.lease_id}"
                return NotStarted(reason=Reason.START_FAILED, sentence=sentence)
            tended.folder.record_end_of_lease(tended.ends_s)
            tended.folder.record_launch(tended.record)
            if launch.files:
                tended.fetching = asyncio.create_task(self._lay_files(tended, launch))
                await tended.fetching
        except asyncio.CancelledError:
            if tended.asked is None:
                raise
        except OSError as error:
            if is_disk_full(error):
                sentence = f"the disk under {tended.folder.path} is full"
                return NotStarted(reason=Reason.DISK_FULL, sentence=sentence)
            return NotStarted(
                reason=Reason.START_FAILED, sentence=f"could not prepare the run's folder: {error}"
            )
        except Fault as fault:
            return NotStarted(reason=Reason.START_FAILED, sentence=f"could not get the run's files: {fault}")
        finally:
            tended.fetching = None
        return None

    async def _lay_files(self, tended: Tended, launch: Launch) -> None:
        tended.folder.work.mkdir(exist_ok=True)
        for file in launch.files:
            cached = await self._cached(file)
            await asyncio.to_thread(lay, cached, tended.folder.work, file)

    async def _cached(self, file: FileRef) -> Path:
        """The file in the cache; a server that is away for a moment is asked again."""
        for failures in range(1, FILE_TRIES):
            try:
                return await fetch_into_cache(self._folder.files, file, self._link.fetch_file)
            except ServerAway as fault:
                await self._bear(fault, failures)
        return await fetch_into_cache(self._folder.files, file, self._link.fetch_file)

    def _ask(self, tended: Tended, asked: Asked) -> None:
        log.info("lease %s is asked to stop: %s", tended.record.lease_id, asked.sentence)
        tended.asked, tended.asked_s = asked, time.monotonic()
        if self._desired and (wanted := self._desired.get(tended.record.lease_id)):
            tended.stop_grace_s = wanted.launch.stop_grace_s
        if tended.phase == Phase.PREPARING:
            if tended.fetching is not None:
                tended.fetching.cancel()
            return
        self._on_disk(tended, lambda folder: folder.record_stop(asked, asked_s=tended.asked_s or 0.0))
        assert tended.born is not None
        self._launcher.ask(tended.born)

    def _kill(self, tended: Tended, asked: Asked) -> None:
        """Kill now. The first reason stands; the sentence adds that it had to be killed."""
        first = tended.asked
        if tended.killed_s is None:
            sentence = asked.sentence if first is None else f"{first.sentence}; {asked.sentence}"
            tended.asked = Asked(reason=first.reason if first else asked.reason, sentence=sentence)
            log.info("lease %s is killed: %s", tended.record.lease_id, sentence)
        tended.killed_s = time.monotonic()
        tended.asked_s = tended.asked_s if tended.asked_s is not None else tended.killed_s
        if tended.phase == Phase.PREPARING:
            if tended.fetching is not None:
                tended.fetching.cancel()
            return
        now = tended.asked
        assert now is not None
        self._on_disk(tended, lambda folder: folder.record_stop(now, asked_s=tended.asked_s or 0.0))
        assert tended.born is not None
        self._launcher.kill(tended.born)

    # ---- seeing -----------------------------------------------------------------------------------------------

    def _watch(self, tended: Tended) -> None:
        """Hear of the end at once, by a descriptor of the shim; without one the supervision polls."""
        assert tended.born is not None
        tended.phase = Phase.ALIVE
        self._look_at(tended)
        lease_id = tended.record.lease_id
        with contextlib.suppress(OSError, AttributeError):
            fd = os.pidfd_open(tended.born.shim_pid)
            if not self._launcher.lives(tended.born, tended.folder):
                os.close(fd)
            else:
                tended.watch_fd = fd
                asyncio.get_running_loop().add_reader(fd, self._on_gone, lease_id)
        self._wake.set()
        self._logs.set()

    def _on_gone(self, lease_id: LeaseId) -> None:
        tended = self._tended[lease_id]
        if tended.watch_fd is not None:
            asyncio.get_running_loop().remove_reader(tended.watch_fd)
            os.close(tended.watch_fd)
            tended.watch_fd = None
            self._background(self._end(tended))

    async def _end(self, tended: Tended) -> None:
        """Write down how an attempt ended of which no process is left, or soon none."""
        if tended.end_event is not None:
            return
        tended.end_event = derived("obs", tended.record.lease_id, "exited")
        assert tended.born is not None
        self._launcher.reap(tended.born)
        end = tended.folder.end()
        if end is None and tended.record.boot_id == self._boot_id:
            await asyncio.to_thread(self._launcher.sweep, tended.record.lease_id, tended.born)
        asked = tended.asked
        if end is not None and end.lease_over and asked is None:
            asked = Asked(
                reason=Reason.LEASE_ENDED, sentence="the lease ended and the run was killed at its end"
            )
        outcome = outcome_of(
            end.exit_code if end else None,
            kind=tended.record.kind,
            asked=asked,
            last_line=tended.folder.last_line(),
        )
        self._relay_progress(tended, last=True)
        tended.phase = Phase.ENDED
        self._look_at(tended)
        log.info("lease %s ended: %s", tended.record.lease_id, outcome.sentence)
        self._see(
            tended,
            "exited",
            event_id=tended.end_event,
            at=end.ended_at if end else now_utc(),
            pid=tended.born.pid,
            exit_code=end.exit_code if end else None,
            reason=outcome.reason,
            sentence=outcome.sentence,
        )

    def _say_started(self, tended: Tended, born: Born) -> None:
        tended.born = born
        self._see(
            tended,
            "started",
            event_id=derived("obs", tended.record.lease_id, "started"),
            at=born.started_at,
            pid=born.pid,
        )

    def _decline(self, tended: Tended, reason: Reason, sentence: str) -> None:
        declined = Declined(reason=reason, sentence=sentence, at=now_utc())

        def write(folder: AttemptFolder) -> None:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.record_launch(tended.record)
            folder.record_declined(declined)

        self._on_disk(tended, write)
        self._say_declined(tended, declined)

    def _say_declined(self, tended: Tended, declined: Declined) -> None:
        log.info("lease %s did not start: %s", tended.record.lease_id, declined.sentence)
        tended.phase = Phase.ENDED
        tended.log_done = True  # nothing ran, so nothing was said
        tended.end_event = derived("obs", tended.record.lease_id, "not_started")
        self._see(
            tended,
            "not_started",
            event_id=tended.end_event,
            at=declined.at,
            reason=declined.reason,
            sentence=declined.sentence,
        )

    def _see(
        self,
        tended: Tended,
        kind: str,
        *,
        event_id: str,
        at: datetime,
        pid: int | None = None,
        exit_code: int | None = None,
        reason: Reason | None = None,
        sentence: str | None = None,
        payload: dict[str, object] | None = None,
    ) -> None:
        self._spool.add(
            [
                Observation.model_validate(
                    {
                        "event_id": event_id,
                        "at": at,
                        "kind": kind,
                        "lease_id": tended.record.lease_id,
                        "attempt_no": tended.record.attempt_no,
                        "pid": pid,
                        "exit_code": exit_code,
                        "reason": reason.value if reason else None,
                        "sentence": sentence,
                        "payload": payload or {},
                    }
                )
            ]
        )
        self._news.set()
        self._wake.set()
        self._logs.set()

    def _relay_progress(self, tended: Tended, *, last: bool = False) -> None:
        """Turn new lines of progress.jsonl into observations, each known by the offset at which it begins."""
        if tended.record.kind not in OURS:
            return
        lease_id = tended.record.lease_id
        more = True
        while more:
            begins = self._spool.read_to(lease_id)
            try:
                with tended.folder.progress.open("rb") as file:
                    file.seek(begins)
                    text = file.read(PROGRESS_READ_BYTES)
            except OSError:
                return
            more = last and len(text) == PROGRESS_READ_BYTES
            whole = text[: text.rfind(b"\n") + 1]
            if not whole:
                return
            observations = []
            offset = begins
            for line in whole.splitlines(keepends=True):
                if (seen := _progress_of(line, tended.record, offset)) is not None:
                    observations.append(seen)
                offset += len(line)
            self._spool.add(observations, read_to=offset, lease_id=lease_id)
            self._news.set()

    async def _look_at_memory(self, alive: list[Tended]) -> bool:
        """Measure every run; end those beyond their memory. True when one comes near its limit."""
        borns = {each.record.lease_id: each.born for each in alive if each.born is not None}
        uses = await asyncio.to_thread(self._launcher.use, borns)
        near = False
        for each in alive:
            each.use = uses.get(each.record.lease_id)
            limit_mib = each.record.memory_mib
            if each.use is None or limit_mib is None or each.phase != Phase.ALIVE:
                continue
            used_mib = each.use.memory_mib
            near = near or used_mib > MEMORY_NEAR_RATIO * limit_mib
            if used_mib > limit_mib and each.killed_s is None and each.asked is None:
                self._kill(
                    each, out_of_memory(used_mib=used_mib, limit_mib=limit_mib, largest=each.use.largest)
                )
        return near

    # ---- measuring --------------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        """Watch and carry. A bug in measuring is told and costs samples, never a run."""
        await self._joined.wait()
        samples = self._samples
        if samples is None:
            await asyncio.Event().wait()
            return
        identity = self._folder.identity()
        assert identity is not None
        watch = Watch(
            self._collectors,
            roster=self._roster,
            boot_id=self._boot_id,
            node_id=identity.node_id,
            keep=self._keep,
            own_rows=self._rows_of_slots,
            chance=self._chance,
        )
        carrier = Carrier(spool=samples, way=self._link, views=watch.views, chance=self._chance)
        self._eyes, self._carrier = watch, carrier
        await asyncio.gather(_again(watch.run, "watch"), _again(carrier.run, "carrier"))

    def _keep(self, batches: Sequence[Samples], witnesses: Sequence[Witness]) -> None:
        assert self._samples is not None
        self._samples.add(batches, witnesses)
        if self._carrier is not None:
            self._carrier.wake()

    def _rows_of_slots(self, ts_ms: int) -> list[Row]:
        """Memory of each CPU slot: its share of the machine's, and of what the run on it uses."""
        used_b: dict[str, float | None] = {}
        for each in self._tended.values():
            if each.phase == Phase.ALIVE:
                share = each.use.memory_mib * MIB / len(each.serials) if each.use and each.serials else None
                used_b.update(dict.fromkeys(each.serials, share))
        rows = []
        for device in self._roster.devices:
            if device.model == CPU_SLOT:
                fields = {
                    "mem_total_b": Reading(value=float(device.memory_mib) * MIB, source=SHARE_OF_MACHINE)
                }
                if (used := used_b.get(device.serial, 0.0)) is not None:
                    fields["mem_used_b"] = Reading(value=used, source=SHARE_OF_RUN)
                rows.append(Row(key=device.serial, ts_ms=ts_ms, fields=fields))
        return rows

    def _look_at(self, tended: Tended) -> None:
        """One more sample where a lease's use begins or ends, so that a short run gets what it used, exactly."""
        wanted = self._desired.get(tended.record.lease_id) if self._desired else None
        if wanted is not None and not tended.serials:
            names = [f"{kind_of(each.model)}/{each.index}" for each in wanted.launch.devices]
            found = (self._roster.serial_of(name) for name in names)
            tended.serials = tuple(serial for serial in found if serial)
        if self._eyes is not None and tended.serials:
            self._eyes.look_at(tended.serials)

    # ---- the server -------------------------------------------------------------------------------------------

    async def _listen(self, facts: NodeFacts) -> None:
        """Join if need be, say what this node is, then follow the desired state."""
        failures = 0
        told = False
        while True:
            try:
                if not self._joined.is_set():
                    await self._join(facts)
                if not told:
                    await self._link.tell_facts(facts)
                    told = True
                asked_s = time.monotonic()
                wait_s = LONG_POLL_S if self._desired is not None else 0.0
                desired = await self._link.fetch_desired(version=self._version, wait_s=wait_s)
                failures = 0
                repeated = desired.version == self._version
                self._take(desired)
                if repeated and time.monotonic() - asked_s < SHORTEST_WAIT_S:
                    await asyncio.sleep(SHORTEST_WAIT_S)
            except (Fault, ValueError) as fault:
                if isinstance(fault, (Refused, TokenUsed)) and not self._joined.is_set():
                    self._fault = fault
                    self._leave.set()
                    return
                failures += 1
                await self._bear(fault, failures)

    async def _join(self, facts: NodeFacts) -> None:
        identity = self._folder.identity()
        if identity is None:
            if self._token is None:
                raise Refused("this node has not joined yet; give a join token (an operator makes one)")
            try:
                joined = await self._link.join(Join(token=self._token, facts=facts))
            except KeyRevoked as fault:
                raise Refused(
                    f"{fault.url} does not know this join token; ask an operator for a new one"
                ) from None
            except ServerRefused as fault:
                raise Refused(f"this node cannot join: {fault.detail or fault.status}") from None
            identity = NodeIdentity(node_id=joined.node_id, node_key=joined.node_key, url=self._link.url)
            self._folder.record_identity(identity)
            log.info("joined %s as node %s", self._link.url, identity.node_id)
        self._link.use_key(identity.node_key)
        self._joined.set()

    def _take(self, desired: Desired) -> None:
        now_s = time.monotonic()
        fresh: dict[LeaseId, Wanted] = {}
        for launch in desired.launches:
            lease_id = LeaseId(launch.lease_id)
            ends_s = now_s + launch.ends_in_s
            known = self._tended.get(lease_id)
            before = self._desired.get(lease_id) if self._desired else None
            for said_s in (known.ends_s if known else None, before.ends_s if before else None):
                if said_s is not None and abs(said_s - ends_s) < SAME_END_S:
                    ends_s = said_s
                    break
            fresh[lease_id] = Wanted(launch=launch, ends_s=ends_s)
        self._desired = fresh
        for each in self._tended.values():
            if each.phase == Phase.ALIVE and not each.serials:
                self._look_at(each)  # adopted before its devices were known
        self._released = frozenset(desired.released)
        if self._mending is not None and desired.repairs:
            self._background(self._mending.carry_out(desired.repairs, busy=lambda: bool(self._unended())))
        self._version = desired.version
        self._wake.set()

    async def _report(self) -> None:
        failures = 0
        await self._joined.wait()
        self._news.set()  # the first report says at once that this agent is here
        while True:
            await set_or_after(self._news, HEARTBEAT_S)
            self._news.clear()
            try:
                await self._report_once()
                failures = 0
            except (Fault, ValueError) as fault:
                failures += 1
                await self._bear(fault, failures)

    async def _report_once(self) -> None:
        observations = self._spool.first(OBSERVATIONS_A_REPORT)
        answer = await self._link.report(
            Report(
                boot_id=self._boot_id,
                sent_at=now_utc(),
                seen_version=max(self._version, 0),
                alive=[_alive_of(each) for each in self._tended.values() if each.phase == Phase.ALIVE],
                observations=observations,
                gone=[
                    lease_id
                    for lease_id, each in self._tended.items()
                    if each.phase == Phase.ENDED and (self._desired is None or lease_id in self._desired)
                ],
            )
        )
        for event_id, why in answer.refused.items():
            log.warning("the server refused observation %s: %s", event_id, why)
        taken = {*answer.accepted, *answer.refused}
        self._spool.settle(taken)
        for each in self._tended.values():
            if each.end_event in taken:
                each.end_taken = True
                self._settle(each)
        if len(self._spool) and taken:
            self._news.set()

    def _settle(self, tended: Tended) -> None:
        if tended.end_taken and tended.log_done and not tended.settled:
            tended.settled = True
            self._on_disk(tended, AttemptFolder.record_settled)
            self._wake.set()

    async def _ship_logs(self) -> None:
        failures = 0
        await self._joined.wait()
        while True:
            try:
                more = False
                for tended in [each for each in self._tended.values() if not each.log_done and each.born]:
                    more = await self._ship(tended) or more
                failures = 0
            except (Fault, ValueError) as fault:
                failures += 1
                more = False
                await self._bear(fault, failures)
            if not more:
                wait_s = (
                    LOG_LOOK_S if any(not each.log_done for each in self._tended.values()) else LONGEST_WAIT_S
                )
                await set_or_after(self._logs, wait_s)
            self._logs.clear()

    async def _ship(self, tended: Tended) -> bool:
        """Send some of one log. True when there is more to send at once."""
        lease_id = tended.record.lease_id
        try:
            if tended.sent_to is None:
                tended.sent_to = await self._link.send_log(lease_id, STREAM, offset=0, chunk=b"")
            for _ in range(LOG_CHUNKS_A_TURN):
                ended = (
                    tended.phase == Phase.ENDED
                )  # read before the log: what is written later is not missed
                chunk = self._next_of_log(tended)
                if not chunk:
                    if ended:
                        tended.log_done = True
                        self._settle(tended)
                    return False
                tended.sent_to = await self._link.send_log(
                    lease_id, STREAM, offset=tended.sent_to, chunk=chunk
                )
        except ServerRefused as refused:
            log.warning("the server takes no log of lease %s: %s", lease_id, refused)
            tended.log_done = True
            self._settle(tended)
            return False
        return True

    def _next_of_log(self, tended: Tended) -> bytes:
        assert tended.sent_to is not None
        segments = tended.folder.segments()
        if not segments:
            return b""
        splice = splice_over(tended.sent_to, tended.splices, log_begins=segments[0][0])
        if splice is not None:
            tended.splices.append(splice)
            tended.folder.record_splices(tended.splices)
            self._see(
                tended,
                "log_truncated",
                event_id=derived("obs", tended.record.lease_id, "log_truncated", splice.at),
                at=now_utc(),
                sentence=splice.notice.strip(),
            )
        piece = piece_at(tended.sent_to, tended.splices)
        return piece.notice or tended.folder.log_bytes(piece.log_offset, LOG_CHUNK_BYTES)

    async def _bear(self, fault: Exception, failures: int) -> None:
        """Wait before the next try, longer each time and never in step with other agents."""
        self._revoked = isinstance(fault, KeyRevoked)
        if self._revoked:
            if time.monotonic() - self._said_revoked_s >= SAY_REVOKED_S:
                self._said_revoked_s = time.monotonic()
                log.error("%s; runs go on to the end of their leases", fault)
            wait_s = LONGEST_WAIT_S
        else:
            if failures in (1, 10) or not isinstance(fault, ServerAway):
                log.warning("%s", fault)
            wait_s = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2.0 ** min(failures - 1, 10))
        await asyncio.sleep(wait_s * self._chance.uniform(0.5, 1.0))


async def _again(run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Run for ever, also after a bug."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("the %s ended in a way nobody thought of; it is started again", name)
        await asyncio.sleep(BLIND_PAUSE_S)


def _alive_of(tended: Tended) -> Alive:
    assert tended.born is not None
    return Alive(
        lease_id=tended.record.lease_id,
        attempt_no=tended.record.attempt_no,
        pid=tended.born.pid,
        memory_mib=tended.use.memory_mib if tended.use else None,
        cpu_s=tended.use.cpu_s if tended.use else None,
    )


def _progress_of(line: bytes, record: LaunchRecord, offset: int) -> Observation | None:
    """The observation of one progress line; None for a line that is no JSON object."""
    try:
        payload = json.loads(line)
        at = instant(payload["at"])
    except (ValueError, KeyError, TypeError):
        return None
    return Observation(
        event_id=derived("obs", record.lease_id, "progress", offset),
        at=at,
        kind="progress",
        lease_id=record.lease_id,
        attempt_no=record.attempt_no,
        payload=payload,
    )
