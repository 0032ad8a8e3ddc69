"""A session is how one management controller is asked: let in once, two requests at a time, bounded answers.

Invariant: a controller sees one session of ours and never more than two requests at once, the event stream counted.
Credentials travel over TLS or to this machine alone, are tried once, and stand in no log.
Outside thing touched: the network, to one management controller.
"""

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from baseai.ground.fault import Refused
from baseai.telemetry.board.resource import ROOT, Ask, Resource

log = logging.getLogger(__name__)

SESSIONS = f"{ROOT}/SessionService/Sessions"
REQUESTS_AT_ONCE = 2
CONNECT_S = 5.0
BODY_BYTES_MAX = 8 * 1024 * 1024
BUSY_WAIT_MAX_S = 3.0  # a controller that asks for more patience is asked again at the next poll
ETAG_USES = 20  # in a row, before an answer is fetched whole again to hold its ETag against
REFUSED_PAUSE_S = 300.0  # after a wrong password: controllers lock accounts that keep trying
STREAM_IDLE_S = 900.0  # a stream without a byte for so long is taken for lost
LEAVE_S = 3.0  # for ending the session when the agent leaves


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


class Session:
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
