"""The Redfish collector asks one management controller: it looks around once, and then asks the fewest it can.

Invariant: whatever the controller answers, a poll ends before the next is due, keeps what could be read and says what
could not. A controller is given time, and one that does not answer is not asked on.
Outside thing touched: by its session, the network.
"""

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import datetime

from baseai.ground.clock import now_utc
from baseai.telemetry.board.alarm import (
    Look,
    looked,
    merged,
    newest,
    turned,
    witnesses_of,
    witnesses_of_log,
)
from baseai.telemetry.board.event_stream import EventStream
from baseai.telemetry.board.readout import readout
from baseai.telemetry.board.resource import ROOT, Ask, Seen, at
from baseai.telemetry.board.rota import Rota, rota_of
from baseai.telemetry.board.survey import surveyed
from baseai.telemetry.board.wish import unasked
from baseai.telemetry.collector import Collected, Rank, SourceFailed
from baseai.telemetry.field import ACCELERATOR, NODE
from baseai.telemetry.redfish.session import (
    REQUESTS_AT_ONCE,
    BoardSettings,
    NoAnswer,
    Session,
    WrongCredentials,
)
from baseai.telemetry.sample import Row, Trouble
from baseai.telemetry.witness import Witness

log = logging.getLogger(__name__)

DEAD_AFTER = 2  # asks in a row without an answer: the rest of the poll is not tried
TRIES = 3  # of an ask of a survey
ASKS_MAX = 3_000  # of a survey
SURVEY_LIVES_S = 6 * 3600.0
SURVEY_AGAIN_S = (
    600.0  # where some of it did not answer, as while the second controller of a baseboard starts
)
GONE_POLLS = 3  # in which something that was found is refused, before it is looked for anew
STREAM_PAUSES_S = (1.0, 300.0)  # between connections, doubled up to the second
WITNESSES_KEPT = 1_000


class RedfishCollector:
    """What one management controller tells of its node. It looks around once and then asks the fewest it can."""

    rank = Rank.BOARD
    quick = False

    def __init__(self, settings: BoardSettings, *, chance: Callable[[], float]) -> None:
        """`chance` spreads reconnections: a number from 0 to 1."""
        self.session = Session(settings)
        self.name = f"redfish {self.session.url}"
        self.interval_s = settings.every_s
        self.timeout_s = settings.every_s * 0.98
        self._budget_s = settings.every_s * 0.9  # own bound below the caller's, so that what was read is kept
        self._chance = chance
        self._seen = Seen()  # of the survey under way
        self._tries: Counter[Ask] = Counter()
        self._survey_due_s = 0.0
        self._surveyed_s = 0.0
        self._refusals = 0  # polls in a row in which something that was found is not there
        self._is_patchy = False  # whether the survey under way lacks something that may answer later
        self.rota: Rota | None = None
        self._polls = 0
        self._look: Look | None = None
        self._newest: dict[str, Ask] = {}  # log → the ask for its newest entries
        self._whole_logs: set[str] = set()  # logs that cannot skip entries
        self._told: deque[str] = deque(maxlen=10_000)  # ids of log entries that were told
        self._witnesses: deque[Witness] = deque(maxlen=WITNESSES_KEPT)  # not taken along yet
        self._lost = 0  # of those that were too many
        self._stream = EventStream()
        self._stream_trouble: str | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def collect(self, now: datetime) -> Collected:
        """One poll, after a look around where that is due. Raises SourceFailed when nothing was answered."""
        until_s = asyncio.get_running_loop().time() + self._budget_s
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=self.name)
        try:
            return await self._collected(now, until_s)
        except WrongCredentials as wrong:
            raise SourceFailed(self.name, str(wrong)) from None

    async def close(self) -> None:
        """End the stream, the session and the connections."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        else:
            await self.session.close()

    # ---- polls ------------------------------------------------------------------------------------------------

    async def _collected(self, now: datetime, until_s: float) -> Collected:
        loop = asyncio.get_running_loop()
        rows: dict[str, tuple[Row, ...]] = {}
        troubles: list[Trouble] = []
        was_known = self.rota is not None
        if self.rota is not None:
            troubles += await self._poll(self.rota, now, until_s, rows)
        if self.rota is None or loop.time() >= self._survey_due_s:
            try:
                troubles += await self._look_around(until_s)
            except SourceFailed as failed:
                if not was_known:
                    raise
                troubles.append(self._trouble(failed.why))  # what was polled is kept
        enough_s = self._budget_s / 2  # a first poll that is cut short would look like a failure
        if self.rota is not None and not was_known and until_s - loop.time() > enough_s:
            troubles += await self._poll(self.rota, now, until_s, rows)
        if self._stream_trouble is not None:
            troubles.append(self._trouble(self._stream_trouble))
        if self._lost:
            troubles.append(self._trouble(f"{self._lost} events were too many at once and are lost"))
            self._lost = 0
        witnesses = tuple(self._witnesses)
        self._witnesses.clear()
        return Collected(rows=rows, witnesses=witnesses, troubles=tuple(troubles))

    def _trouble(self, sentence: str) -> Trouble:
        return Trouble(source=self.name, key=None, field=None, sentence=sentence)

    def _tell(self, witnesses: Iterable[Witness]) -> None:
        """Keep witnesses until an answer takes them along: a poll that fails loses none."""
        for each in witnesses:
            self._lost += len(self._witnesses) == WITNESSES_KEPT
            self._witnesses.append(each)

    async def _poll(
        self, rota: Rota, now: datetime, until_s: float, rows: dict[str, tuple[Row, ...]]
    ) -> tuple[Trouble, ...]:
        """Ask the rota once, fill `rows`, and tell what is news. Raises SourceFailed when nothing was answered."""
        seen = Seen()
        asks = [self._newest.get(ask, ask) for ask in rota.asks(self._polls)]
        failed = await self._ask_all(asks, seen, until_s, remember=True)
        for ask, none in failed.items():
            seen.miss(ask, str(none))
        self._refusals = self._refusals + 1 if any(none.is_lasting for none in failed.values()) else 0
        if self._refusals >= GONE_POLLS:
            self._survey_due_s = min(self._survey_due_s, self._surveyed_s + SURVEY_AGAIN_S)
        self._polls += 1
        if not seen.brought:
            raise SourceFailed(
                self.name, next(iter(seen.silent.values()), "it has nothing that is read here")
            )
        out = readout(rota, seen, ts_ms=round(now.timestamp() * 1000), source=self.name)
        rows[ACCELERATOR.name] = tuple(out.rows[ACCELERATOR.name])
        if not rota.survey.equipment:  # a shelf that feeds many nodes is not this node
            rows[NODE.name] = tuple(out.rows[NODE.name])
        look = looked(rota.survey, seen)
        self._tell(turned(rota.survey, self._look, look, at_instant=now))
        self._look = merged(self._look, look)
        for path in rota.survey.logs:
            self._tell(self._news_of(path, rota, seen, now))
        return out.troubles

    def _news_of(self, path: str, rota: Rota, seen: Seen, now: datetime) -> list[Witness]:
        """Entries of a log that were not told before. Of one too long for one answer the end is asked for next."""
        ask = self._newest.get(path, path)
        if ask != path and ask in seen.silent:
            self._whole_logs.add(path)  # it cannot skip entries: what one answer holds is all there is
        if path not in seen:
            self._newest[path] = path if path in self._whole_logs else ask
            return []
        self._newest[path] = path if path in self._whole_logs else newest(path, seen[path])
        fresh = [
            each
            for each in witnesses_of_log(rota.survey, seen[path], read_at=now)
            if each.event_id not in self._told
        ]
        self._told.extend(each.event_id for each in fresh)
        return fresh

    async def _look_around(self, until_s: float) -> list[Trouble]:
        """Go on with the survey as far as time allows; it may take several polls."""
        loop = asyncio.get_running_loop()
        while asks := unasked(self._seen):
            failed = await self._ask_all(asks, self._seen, until_s)
            for ask, none in failed.items():
                self._tries[ask] += none.is_tried
                if none.is_lasting or self._tries[ask] >= TRIES:
                    self._seen.miss(ask, str(none))
                    self._is_patchy = self._is_patchy or not none.is_lasting
            if ROOT not in self._seen:
                self._seen, self._tries = Seen(), Counter()
                raise SourceFailed(self.name, str(failed.get(ROOT, "no answer")))
            if len(self._seen.brought) + len(self._seen.silent) > ASKS_MAX:
                break
            if any(none.is_dead or not none.is_tried for none in failed.values()) or loop.time() >= until_s:
                sentence = f"still looking around: {len(self._seen.brought)} answers so far"
                return [self._trouble(sentence)]
        return self._settle(loop.time())

    def _settle(self, now_s: float) -> list[Trouble]:
        """The survey is complete: from now on only the rota is asked."""
        survey = surveyed(self._seen)
        self.rota = rota_of(survey, self._seen)
        self._surveyed_s, self._refusals = now_s, 0
        self._survey_due_s = now_s + (SURVEY_AGAIN_S if self._is_patchy else SURVEY_LIVES_S)
        count = len(self._seen.brought)
        self._seen, self._tries, self._is_patchy = Seen(), Counter(), False
        log.info(
            "%s: %d accelerators, %d parts to watch; %d asks a poll, found with %d",
            self.name,
            len(survey.accelerators),
            len(survey.units),
            len(self.rota.asks(0)),
            count,
        )
        if not self.rota.asks(0):
            raise SourceFailed(self.name, "it answers and has nothing that is read here")
        return [
            Trouble(source=f"{self.name} {where}", key=None, field=None, sentence=why)
            for where, why in survey.complaints
        ]

    async def _ask_all(
        self, asks: Iterable[Ask], seen: Seen, until_s: float, *, remember: bool = False
    ) -> dict[Ask, NoAnswer]:
        """Ask two at a time until all is answered, time is up or nobody is there; what failed, and how."""
        left = deque(asks)
        failed: dict[Ask, NoAnswer] = {}
        dead = 0
        wrong: WrongCredentials | None = None

        async def ask_on() -> None:
            nonlocal dead, wrong
            while left and dead < DEAD_AFTER and wrong is None:
                ask = left.popleft()
                try:
                    async with asyncio.timeout_at(until_s):
                        seen.take(ask, await self.session.fetch(ask, remember=remember))
                    dead = 0
                except TimeoutError:
                    failed[ask] = NoAnswer("no answer before the next poll is due", is_dead=True)
                    dead = DEAD_AFTER
                except NoAnswer as none:
                    failed[ask] = none
                    dead = dead + 1 if none.is_dead else 0
                except WrongCredentials as refused:
                    wrong = refused

        async with asyncio.TaskGroup() as group:
            for _ in range(REQUESTS_AT_ONCE):
                group.create_task(ask_on())
        if wrong is not None:
            raise wrong
        why = "not asked, because what was asked before it got no answer"
        return failed | {ask: NoAnswer(why, is_tried=False) for ask in left}

    # ---- events -----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Listen to events for as long as the agent lives; then end the session."""
        pause_s = STREAM_PAUSES_S[0]
        try:
            while True:
                path = self.rota.survey.stream if self.rota is not None else ""
                if path:
                    heard = await self._listen(path)
                    pause_s = STREAM_PAUSES_S[0] if heard else min(pause_s * 2, STREAM_PAUSES_S[1])
                await asyncio.sleep(pause_s * (0.5 + self._chance() / 2))
        finally:
            await self.session.close()

    async def _listen(self, path: str) -> bool:
        """One connection to the event stream, to its end. Whether anything was heard."""
        heard = False
        self._stream.reconnected()
        try:
            async with self.session.listening(path, self._stream.last_id) as chunks:
                self._stream_trouble = None
                async for chunk in chunks:
                    heard = True
                    for event in self._stream.fed(chunk):
                        self._take_event(event.data)
        except (NoAnswer, WrongCredentials) as none:
            self._stream_trouble = f"events of {path} are not heard: {none}"
        return heard

    def _take_event(self, text: str) -> None:
        assert self.rota is not None
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._stream_trouble = f"an event is no JSON object: {text[:40]!r}"
            return
        if not isinstance(at(message, "/Events"), list):
            return  # a metric report, or a sign of life
        self._tell(witnesses_of(self.rota.survey, message, received_at=now_utc()))
