"""Redfish is how a server's management controller is asked: one session, few asks, nothing believed.

Invariant: a controller sees one session of ours and never more than two requests at once, the event stream counted; it
is given time, and asked less once it does not answer. Credentials travel over TLS or to this machine alone and stand in
no log. Whatever it answers, a poll keeps what could be read and says what could not.
Outside thing touched: the network, to one management controller.
"""

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused
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
from baseai.telemetry.board.resource import ROOT, Ask, Resource, Seen, at
from baseai.telemetry.board.rota import Rota, rota_of
from baseai.telemetry.board.survey import surveyed, unasked
from baseai.telemetry.collector import Collected, Rank, SourceFailed
from baseai.telemetry.field import ACCELERATOR, NODE
from baseai.telemetry.sample import Row, Trouble
from baseai.telemetry.witness import Witness

log = logging.getLogger(__name__)

SESSIONS = f"{ROOT}/SessionService/Sessions"
REQUESTS_AT_ONCE = 2
CONNECT_S = 5.0
BODY_BYTES_MAX = 8 * 1024 * 1024
BUSY_WAIT_MAX_S = 3.0  # a controller that asks for more patience is asked again at the next poll
DEAD_AFTER = 2  # asks in a row without an answer: the rest of the poll is not tried
ETAG_USES = 20  # in a row, before an answer is fetched whole again to hold its ETag against
TRIES = 3  # of an ask of a survey
ASKS_MAX = 3_000  # of a survey
SURVEY_LIVES_S = 6 * 3600.0
SURVEY_AGAIN_S = (
    600.0  # where some of it did not answer, as while the second controller of a baseboard starts
)
GONE_POLLS = 3  # in which something that was found is refused, before it is looked for anew
REFUSED_PAUSE_S = 300.0  # after a wrong password: controllers lock accounts that keep trying
STREAM_IDLE_S = 900.0  # a stream without a byte for so long is taken for lost
STREAM_PAUSES_S = (1.0, 300.0)  # between connections, doubled up to the second
LEAVE_S = 3.0  # for ending the session when the agent leaves
EVENTS_KEPT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSettings:
    """One management controller to ask."""

    url: str  # https://10.0.0.7; http:// only to this machine
    user: str | None = None  # an account that may read; None: it answers anybody
    password: str | None = field(default=None, repr=False)  # of that account; shown nowhere
    ca_file: Path | None = None  # certificate that signs the controller's
    verify: bool = True  # off: anybody on the way can read the password
    every_s: float = 30.0  # how often it is asked
    answer_s: float = 10.0  # how long one answer may take


class NoAnswer(Exception):
    """One ask brought nothing; it is caught here and becomes a trouble.

    `is_dead`: not even a refusal came. `is_lasting`: asking again will not help. `is_tried`: it was sent at all.
    """

    def __init__(
        self, why: str, *, is_dead: bool = False, is_lasting: bool = False, is_tried: bool = True
    ) -> None:
        super().__init__(why)
        self.is_dead = is_dead
        self.is_lasting = is_lasting
        self.is_tried = is_tried


class WrongCredentials(Exception):
    """The controller does not take the account; it is caught here and ends a poll."""


@dataclass(slots=True)
class Remembered:
    """The last answer to an ask with its ETag, which is believed once it was seen to change with the answer.

    Firmware with one ETag for ever would otherwise freeze every reading.
    """

    etag: str
    answer: Resource
    is_believed: bool = False
    is_lie: bool = False
    uses: int = 0  # since it was last held against a whole answer


def checked_address(url: str) -> str:
    """The controller's address without a path. Raises Refused when a password would travel in the clear."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise Refused(f"{url!r} is no address of a management controller; write it like https://10.0.0.7")
    if parts.username is not None or parts.password is not None:
        raise Refused("a management controller's user and password do not belong into its address")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Refused(f"{url} would send a password unprotected; use https://")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


class Board:
    """One controller over HTTP: a session, two requests at once, bounded answers."""

    def __init__(self, settings: BoardSettings) -> None:
        self.url = checked_address(settings.url)
        self._settings = settings
        self._http = httpx.AsyncClient(
            base_url=self.url,
            verify=_trust(settings) if self.url.startswith("https") else False,
            timeout=httpx.Timeout(settings.answer_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=REQUESTS_AT_ONCE, max_keepalive_connections=REQUESTS_AT_ONCE),
            follow_redirects=False,  # a token goes to the controller it is of, nowhere else
            trust_env=False,
            headers={"accept": "application/json", "odata-version": "4.0"},
        )
        self._free = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._door = asyncio.Lock()  # one login at a time
        self._token: str | None = None
        self._session: str = ""  # where the session is ended
        self._is_basic = False
        self._is_trusted = False  # something was answered with this account
        self._refused_until_s = 0.0
        self._remembered: dict[Ask, Remembered] = {}
        self.requests = 0  # since the start, for whoever counts

    async def fetch(self, ask: Ask, *, remember: bool = False) -> Resource:
        """The answer to an ask. `remember`: keep it by its ETag, so that the same need not travel twice.

        Raises NoAnswer, WrongCredentials.
        """
        async with self._free:
            try:
                async with asyncio.timeout(self._settings.answer_s + CONNECT_S):
                    return await self._fetched(ask, remember=remember)
            except TimeoutError:
                raise NoAnswer(f"no answer within {self._settings.answer_s:g} s", is_dead=True) from None
            except httpx.TimeoutException:
                raise NoAnswer(f"no answer within {self._settings.answer_s:g} s", is_dead=True) from None
            except httpx.HTTPError as error:
                raise NoAnswer(str(error) or type(error).__name__, is_dead=True) from None

    @contextlib.asynccontextmanager
    async def listening(self, path: str, last_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an event stream, one of the two requests while it lasts. Raises as `fetch` does."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        timeout = httpx.Timeout(STREAM_IDLE_S, connect=CONNECT_S)
        async with self._free:
            try:
                for is_last in (False, True):
                    token = await self._entered()
                    self.requests += 1
                    async with self._http.stream(
                        "GET", path, headers=headers | self._credentials(), timeout=timeout
                    ) as answer:
                        if answer.status_code == 401 and not is_last:
                            await self._expired(token)
                            continue
                        if answer.status_code != 200:
                            raise _refusal(answer.status_code)
                        yield answer.aiter_bytes()
                        return
            except httpx.HTTPError as error:
                raise NoAnswer(str(error) or type(error).__name__, is_dead=True) from None

    async def close(self) -> None:
        """End the session and the connections. What does not answer is left behind."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._log_out()
        except TimeoutError:
            log.info("the session at %s could not be ended and will time out there", self.url)
        finally:
            await self._http.aclose()

    # ---- one request ------------------------------------------------------------------------------------------

    async def _fetched(self, ask: Ask, *, remember: bool) -> Resource:
        token = await self._entered()
        status, headers, body = await self._sent(ask)
        if status == 401 and self._settings.user is not None:
            await self._expired(token)
            await self._entered()
            status, headers, body = await self._sent(ask)
            if status == 401 and not self._is_trusted:
                raise WrongCredentials("the account is not taken")
        if status in (429, 503):
            await asyncio.sleep(_patience(headers))
            status, headers, body = await self._sent(ask)
        if status == 304 and ask in self._remembered:
            self._remembered[ask].uses += 1
            return self._remembered[ask].answer
        if status != 200:
            raise _refusal(status)
        self._is_trusted = True
        resource = _resource(body)
        if remember and (etag := headers.get("etag")):
            self._remember(ask, etag, resource)
        return resource

    def _remember(self, ask: Ask, etag: str, answer: Resource) -> None:
        old = self._remembered.get(ask)
        if old is None:
            self._remembered[ask] = Remembered(etag=etag, answer=answer)
            return
        has_changed = answer != old.answer
        old.is_lie = old.is_lie or (has_changed and etag == old.etag)
        old.is_believed = old.is_believed or (has_changed and etag != old.etag)
        old.etag, old.answer, old.uses = etag, answer, 0

    async def _sent(self, ask: Ask) -> tuple[int, httpx.Headers, bytes]:
        headers = self._credentials()
        known = self._remembered.get(ask)
        if known is not None and known.is_believed and not known.is_lie and known.uses < ETAG_USES:
            headers["if-none-match"] = known.etag
        self.requests += 1
        where = f"{ROOT}/" if ask == ROOT else ask  # without the slash some send one elsewhere
        async with self._http.stream("GET", where, headers=headers) as answer:
            chunks, size = [], 0
            async for chunk in answer.aiter_bytes():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise NoAnswer(f"the answer is longer than {BODY_BYTES_MAX >> 20} MiB", is_lasting=True)
                chunks.append(chunk)
            return answer.status_code, answer.headers, b"".join(chunks)

    # ---- the session ------------------------------------------------------------------------------------------

    def _credentials(self) -> dict[str, str]:
        if self._token is not None:
            return {"x-auth-token": self._token}
        if self._is_basic:
            pair = f"{self._settings.user}:{self._settings.password}".encode()
            return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}

    async def _entered(self) -> str | None:
        """Be let in, if that is needed and not so already; the token in use."""
        if not self._is_in():
            async with self._door:
                if not self._is_in():
                    await self._log_in()
        return self._token

    def _is_in(self) -> bool:
        return self._settings.user is None or self._is_basic or self._token is not None

    async def _expired(self, token: str | None) -> None:
        """A token was refused. Whoever comes second finds that the first has a new one already."""
        async with self._door:
            if self._is_basic:
                raise self._refused()
            if token is not None and self._token == token:
                await self._log_out()  # it may live on there, refused only for one resource

    async def _log_out(self) -> None:
        if self._token is not None and self._session:
            with contextlib.suppress(httpx.HTTPError):
                self.requests += 1
                await self._http.delete(self._session, headers=self._credentials())
        self._token, self._session = None, ""

    def _refused(self) -> WrongCredentials:
        self._refused_until_s = asyncio.get_running_loop().time() + REFUSED_PAUSE_S
        return WrongCredentials("the account is not taken")

    async def _log_in(self) -> None:
        wait_s = self._refused_until_s - asyncio.get_running_loop().time()
        if wait_s > 0:
            raise WrongCredentials(f"the account is not taken; it is tried again in {wait_s:.0f} s")
        self.requests += 1
        facts = {"UserName": self._settings.user, "Password": self._settings.password}
        answer = await self._http.post(SESSIONS, json=facts)
        token = answer.headers.get("x-auth-token")
        if answer.status_code in (200, 201, 204) and token:
            self._token = token
            place = urlsplit(answer.headers.get("location", "")).path
            self._session = place if place.startswith(f"{ROOT}/") else ""
        elif answer.status_code in (404, 405, 501):
            self._is_basic = True  # it has no sessions: each request carries the account
        elif answer.status_code in (400, 401, 403):
            raise self._refused()
        else:
            raise NoAnswer(f"no session: it said {answer.status_code}", is_dead=answer.status_code >= 500)


def _trust(settings: BoardSettings) -> ssl.SSLContext | bool:
    if not settings.verify:
        log.warning(
            "the certificate of the management controller %s is NOT verified: whoever stands between can read "
            "its password and tell false values; give its certificate with --redfish-ca-file instead",
            settings.url,
        )
        return False
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except OSError as error:
        raise Refused(f"the certificate file {settings.ca_file} cannot be used: {error}") from None


def _patience(headers: httpx.Headers) -> float:
    wanted = headers.get("retry-after", "")
    return min(float(wanted), BUSY_WAIT_MAX_S) if wanted.isdigit() else 1.0


def _refusal(status: int) -> NoAnswer:
    lasting = 400 <= status < 500 and status not in (401, 408, 429)
    return NoAnswer(f"it said {status}", is_lasting=lasting or status == 501)


def _resource(body: bytes) -> Resource:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        shown = body[:40].decode("utf-8", "replace")
        raise NoAnswer(f"the answer is no JSON: {len(body)} bytes, {shown!r}") from None
    if not isinstance(found, dict):
        raise NoAnswer(f"the answer is a {type(found).__name__} and not an object")
    return found


class RedfishCollector:
    """What one management controller tells of its node. It looks around once and then asks the fewest it can."""

    rank = Rank.BOARD
    quick = False

    def __init__(self, settings: BoardSettings, *, chance: Callable[[], float]) -> None:
        """`chance` spreads reconnections: a number from 0 to 1."""
        self.board = Board(settings)
        self.name = f"redfish {self.board.url}"
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
        self._events: deque[Witness] = deque(maxlen=EVENTS_KEPT)
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
            await self.board.close()

    # ---- polls ------------------------------------------------------------------------------------------------

    async def _collected(self, now: datetime, until_s: float) -> Collected:
        loop = asyncio.get_running_loop()
        rows: dict[str, tuple[Row, ...]] = {}
        witnesses: list[Witness] = []
        troubles: list[Trouble] = []
        was_asked = self.rota is not None
        if self.rota is not None:
            await self._poll(self.rota, now, until_s, rows, witnesses, troubles)
        if self.rota is None or loop.time() >= self._survey_due_s:
            troubles += await self._look_around(until_s)
        enough_s = self._budget_s / 2  # a first poll that is cut short would look like a failure
        if self.rota is not None and not was_asked and until_s - loop.time() > enough_s:
            await self._poll(self.rota, now, until_s, rows, witnesses, troubles)
        while self._events:
            witnesses.append(self._events.popleft())
        if self._stream_trouble is not None:
            troubles.append(Trouble(source=self.name, key=None, field=None, sentence=self._stream_trouble))
        return Collected(rows=rows, witnesses=tuple(witnesses), troubles=tuple(troubles))

    async def _poll(
        self,
        rota: Rota,
        now: datetime,
        until_s: float,
        rows: dict[str, tuple[Row, ...]],
        witnesses: list[Witness],
        troubles: list[Trouble],
    ) -> None:
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
        troubles += out.troubles
        look = looked(rota.survey, seen)
        witnesses += turned(rota.survey, self._look, look, at_instant=now)
        self._look = merged(self._look, look)
        for path in rota.survey.logs:
            witnesses += self._news_of(path, rota, seen, now)

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
                return [Trouble(source=self.name, key=None, field=None, sentence=sentence)]
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
                        seen.take(ask, await self.board.fetch(ask, remember=remember))
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
            await self.board.close()

    async def _listen(self, path: str) -> bool:
        """One connection to the event stream, to its end. Whether anything was heard."""
        heard = False
        self._stream.reconnected()
        try:
            async with self.board.listening(path, self._stream.last_id) as chunks:
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
        self._events.extend(witnesses_of(self.rota.survey, message, received_at=now_utc()))
