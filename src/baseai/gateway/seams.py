"""A seam is where the gateway's path of a request meets who may call, how much, what is known already, and the books.

Invariant: what stands on the path of every request answers at once, from memory; what has to ask the outside is a
second, awaited method, called only when the first one does not know. Nothing here raises on the path: an answer that
is no is a value. The path is `app`; keys, limits, cache and journal stand behind these Protocols.

Two clocks, always given: `now_s` is steady (monotonic, its zero means nothing), for waits, ages and buckets;
`wall_s` is seconds since 1970, for what is compared with instants of the database or written there.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from baseai.serving.demand import DemandSecond
from baseai.serving.route import Route, RoutedVersion

Headers = tuple[tuple[bytes, bytes], ...]  # names in lower case, as ASGI has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever shows a good key, as the path needs to know it."""

    key_id: str
    tenant_id: (
        str | None
    )  # None: a key of the platform itself, which may call every service by its id, `/s/…`
    project_id: str | None  # None: every project of the tenant
    services: frozenset[str] | None = None  # names; None: every service
    requests_per_minute: int | None = None  # of this key, beside what services limit
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """Why somebody is not let in."""

    status: (
        int  # 401 nobody is known by this key; 403 the key is good and not for this; 503 nobody can say now
    )
    code: str  # for programs: `invalid_api_key`, `key_may_not_call`, `keys_unreachable`
    sentence: str


class Keys(Protocol):
    """Who calls."""

    def known(self, authorization: bytes | None, *, wall_s: float) -> Caller | Denied | None:
        """From the value of the header `authorization`, out of memory; None when only `fetch` can tell.

        None is never given for an absent or malformed header: that is Denied at once.
        """

    async def fetch(self, authorization: bytes, *, wall_s: float) -> Caller | Denied:
        """The same with the database's word; concurrent askers for one key share one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request that is within all limits, and has been counted."""

    headers: Headers  # x-ratelimit-*, for the answer; empty where nothing is limited
    tokens: int  # counted beforehand
    buckets: tuple[object, ...] = ()  # what `settle` needs to find its way back; only limits look inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """A request that would be too many; it is counted nowhere."""

    retry_after_s: float
    headers: Headers  # x-ratelimit-*; retry-after is added by the path
    sentence: str  # which limit, how much it is, when to come back


class Limits(Protocol):
    """How much a caller may ask for."""

    def admit(self, caller: Caller | None, route: Route, *, tokens: int, now_s: float) -> Admitted | Limited:
        """Count one request of about `tokens` (0 where the protocol knows none) or refuse it.

        caller: None where the service asks for no key. Limits are those of the key and of `route.terms`.
        """

    def settle(self, admitted: Admitted, *, tokens: int | None, now_s: float) -> None:
        """Put what it really took in the place of what was counted beforehand. Called once for each admitted one.

        tokens: None when nothing was served, so that the request itself is given back as well.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of one version of a service."""

    route: Route
    version: RoutedVersion  # chosen before the cache is looked at: two versions never share an answer
    caller: Caller | None
    method: str
    path: str  # as the replica gets it, with the query
    content_type: bytes
    body: bytes
    cache_control: bytes  # of the request; empty when absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer, as the client shall get it, without what is of one request or connection only."""

    status: int
    headers: Headers  # content-type, cache-control and the like; no x-request-id, no content-length
    body: bytes
    tokens_in: int
    tokens_out: int
    run_id: str  # of the replica that gave it


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer that is known."""

    answer: Answer
    age_s: float
    status: bytes  # the value of Cache-Status (RFC 9211): `baseai; hit; ttl=42`
    headers: Headers = ()  # more for this answer: age, etag


@runtime_checkable
class Lead(Protocol):
    """The right and the duty to ask the replica, for oneself and for everybody who asks the same meanwhile.

    Exactly one of the two is called, once; until then others wait.
    """

    def keep(self, answer: Answer, *, now_s: float) -> bytes:
        """Give the answer to those who wait, and store it where it may be. Gives the value of Cache-Status."""

    def drop(self) -> bytes:
        """There is no answer to share: those who wait look again. Gives the value of Cache-Status."""


@runtime_checkable
class Follow(Protocol):
    """Somebody else is asking the same just now."""

    def answer(self) -> Awaitable[Kept | None]:
        """His answer (`baseai; fwd=miss; collapsed`), or None: look again. May be cancelled at any moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypass:
    """The cache has nothing to do with this request."""

    status: bytes  # `baseai; fwd=bypass`


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyKept:
    """The client wants only what is kept (`only-if-cached`), and nothing is: 504 by RFC 9111."""

    status: bytes


CacheView = Kept | Lead | Follow | Bypass | OnlyKept


class Cache(Protocol):
    """Answers that need not be asked for again."""

    def look(self, question: Question, *, now_s: float) -> CacheView | None:
        """Out of memory; None when only `fetch` can tell (a shared cache, a semantic one).

        Called only for services whose version has `terms.cache`, and never for streams.
        """

    async def fetch(self, question: Question, *, now_s: float) -> CacheView:
        """The same with an outside's word; when it is away, as if it knew nothing. May be cancelled."""


Outcome = Literal[
    "served",  # an answer of the replica below 500 went out whole, or a kept one did
    "failed",  # the replica answered 500 or above, or broke its answer off
    "lost",  # no replica gave a first byte: refused connections, the deadline, the holding queue's end
    "refused",  # the gateway said no before a replica was asked: limits, size, a full queue
    "gone",  # the client left before the end
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One request of a known service, as it ended. Requests that found no service are counted in /metrics alone."""

    service_id: str
    tenant_id: str
    project_id: str
    version_no: int
    key_id: str | None
    run_id: str | None  # of the replica whose answer it was
    request_id: str
    at_s: float  # wall clock, when it came
    status: int  # as the client got it; 499 when he had left before
    outcome: Outcome
    latency_ms: float  # until the last byte
    first_byte_ms: float | None  # of the answer's body or head, whichever went out first; None when none did
    tokens_in: int  # of what was served; 0 where the protocol knows none
    tokens_out: int
    bytes_in: int  # of bodies
    bytes_out: int
    cache: Literal["hit", "collapsed"] | None
    retries: int  # other replicas that were asked after the first
    slow: bool = False  # longer than the version's terms promise (`p99_ms`)


class Journal(Protocol):
    """Where usage and traffic are counted."""

    def ended(self, told: Told) -> None:
        """Count one request. At once, in memory; never raises."""


class DemandCount(Protocol):
    """What was asked for, second by second; the path counts, whoever ships it takes."""

    def taken(self, *, now_s: float, wall_s: float) -> Sequence[tuple[str, DemandSecond]]:
        """(service_id, second) of all seconds that are over and were not taken before, oldest first.

        Services with nothing under way and no arrival in a second are left out of it. At most 120 seconds are
        kept for whoever comes late.
        """
