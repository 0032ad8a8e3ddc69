"""The cache gives an answer that is known, or sees to it that equal questions are asked once (RFC 9111, RFC 9211).

Invariant: an answer is given for the same question to the same version of the same service only, while it is fresh and
the client takes it; what is kept is a whole answer of status 200 that nobody forbade to keep. Where another store is
shared between gateways it is asked second, and its absence is a miss. Changed by what replicas answer.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

from baseai.gateway.answers import Answers
from baseai.gateway.collapse import Flight, Flights
from baseai.gateway.directives import AskedOf, asked_by, told_by
from baseai.gateway.nearness import Nearest, Vector, framed
from baseai.gateway.sameness import same_as
from baseai.gateway.seams import Answer, Bypass, CacheView, Headers, Kept, OnlyKept, Question
from baseai.serving.route import Route

BYPASS = Bypass(status=b"baseai; fwd=bypass")
ONLY_KEPT = OnlyKept(status=b"baseai; detail=only-if-cached")
SAME_FOR_ALL = frozenset({400, 404, 413, 415, 422})  # a bad question is as bad for everybody who asks it
FOR_ONE = frozenset({b"set-cookie", b"vary", b"content-encoding"})
READ_REMEMBERED = 50_000
WRITES_MOST = 256  # to a shared store, under way at once; what is beyond is not written


@dataclass(frozen=True, slots=True)
class Found:
    """What a shared store had."""

    answer: Answer
    age_s: float
    ttl_s: float


class SharedAnswers(Protocol):
    """A store that several gateways share."""

    async def get(self, key: bytes) -> Found | None:
        """The answer, or None: unknown, too old, or the store gives no answer just now."""

    async def put(self, key: bytes, answer: Answer, ttl_s: float) -> None:
        """Keep it for so long, if the store answers."""


class Embeds(Protocol):
    """Who turns texts into vectors."""

    async def vector(self, route: Route, text: str) -> Vector | None:
        """Of length 1; None when nobody can just now."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the cache sees it."""

    question: Question
    key: bytes
    wants: AskedOf


class MemoryCache:
    """Answers in this process, and where one is given, in a store that others share."""

    def __init__(self, shared: SharedAnswers | None = None) -> None:
        self._shared = shared
        self._embeds: Embeds | None = None
        self._nearest = Nearest()
        self._answers = Answers()
        self._flights: Flights[Answer] = Flights()
        self._read: OrderedDict[bytes, bytes | None] = (
            OrderedDict()
        )  # digest of a request → what it is the same as
        self._writes: set[asyncio.Task[None]] = set()

    def embed_by(self, embeds: Embeds) -> None:
        """From now on let near texts be answered alike where the terms say how near."""
        self._embeds = embeds

    def look(self, question: Question, *, now_s: float) -> CacheView | None:
        """Out of memory; None when somebody else has to be asked. About 3 µs for a request that was seen before."""
        asked = self._asked(question)
        if asked is None:
            return BYPASS
        view = self._known(asked, now_s)
        if view is not None:
            return view
        elsewhere = self._shared is not None or self._compares(asked)
        if elsewhere and not asked.wants.fresh_only and asked.key not in self._flights:
            return None
        return self._missed(asked, b"miss")

    async def fetch(self, question: Question, *, now_s: float) -> CacheView:
        """The same, with the shared store asked, then for a text that means about the same."""
        asked = self._asked(question)
        if asked is None:
            return BYPASS
        found = None if self._shared is None else await self._shared.get(asked.key)
        if found is None:
            return self._known(asked, now_s) or await self._near(asked, now_s)
        since_s, until_s = now_s - found.age_s, now_s + found.ttl_s
        terms = asked.question.version.terms.cache
        assert terms is not None
        self._answers.put(
            asked.question.route.service_id,
            asked.key,
            found.answer,
            since_s=since_s,
            until_s=until_s,
            most=terms.most_bytes,
        )
        if _taken(asked.wants, found.age_s):
            return _kept(found.answer, age_s=found.age_s, ttl_s=found.ttl_s)
        return self._missed(asked, b"request")

    def _asked(self, question: Question) -> Asked | None:
        """None for a question that the cache has nothing to do with."""
        if question.method != "POST":
            return None
        wants = asked_by(question.cache_control)
        if wants.keeps_out and not wants.kept_only:
            return None
        said = blake2b(question.path.encode() + b"\0" + question.content_type + b"\0", digest_size=16)
        said.update(question.body)
        digest = said.digest()
        try:
            same = self._read[digest]
        except KeyError:
            same = self._read[digest] = same_as(question.path, question.content_type, question.body)
            if len(self._read) > READ_REMEMBERED:
                self._read.popitem(last=False)
        if same is None:
            return None
        return Asked(question, _digest_of(question, same), wants)

    def _known(self, asked: Asked, now_s: float) -> CacheView | None:
        service_id = asked.question.route.service_id
        found = self._answers.get(service_id, asked.key, now_s=now_s)
        if found is None:
            return None
        age_s = now_s - found.since_s
        if _taken(asked.wants, age_s):
            return _kept(found.answer, age_s=age_s, ttl_s=found.until_s - now_s)
        return self._missed(asked, b"request")

    def _compares(self, asked: Asked) -> bool:
        terms = asked.question.version.terms.cache
        return self._embeds is not None and terms is not None and terms.semantic is not None

    async def _near(self, asked: Asked, now_s: float) -> CacheView:
        """The answer to a text that is near enough; else as any miss, whose answer is remembered with its text."""
        question, terms = asked.question, asked.question.version.terms.cache
        if self._embeds is None or terms is None or terms.semantic is None:
            return self._missed(asked, b"miss")
        around = framed(question.path, question.content_type, question.body)
        vector = None if around is None else await self._embeds.vector(question.route, around.text)
        if around is None or vector is None:
            return self._known(asked, now_s) or self._missed(asked, b"miss")
        frame = _digest_of(question, around.frame)
        for key in self._nearest.near(frame, vector, least=terms.semantic):
            found = self._answers.get(question.route.service_id, key, now_s=now_s)
            if found is None:
                self._nearest.forget(frame, key)
            elif _taken(asked.wants, age_s := now_s - found.since_s):
                kept = _kept(found.answer, age_s=age_s, ttl_s=found.until_s - now_s)
                return replace(kept, status=kept.status + b"; detail=semantic") if key != asked.key else kept
        view = self._missed(asked, b"miss")
        if isinstance(view, _Lead):
            view.near = frame, vector
        return view

    def _missed(self, asked: Asked, why: bytes) -> CacheView:
        if asked.wants.kept_only:
            return ONLY_KEPT
        if asked.wants.fresh_only or asked.wants.max_age_s is not None:
            return _Lead(self, asked, self._flights.alone(), why)
        flight = self._flights.lead(asked.key)
        if flight is None:
            return _Follow(self._flights.follow(asked.key))
        return _Lead(self, asked, flight, why)

    def _keep(self, asked: Asked, answer: Answer, ttl_s: float, now_s: float) -> bool:
        """Whether there was room for it."""
        terms = asked.question.version.terms.cache
        assert terms is not None
        if not self._answers.put(
            asked.question.route.service_id,
            asked.key,
            answer,
            since_s=now_s,
            until_s=now_s + ttl_s,
            most=terms.most_bytes,
        ):
            return False
        if self._shared is not None and len(self._writes) < WRITES_MOST:
            write = asyncio.get_running_loop().create_task(self._shared.put(asked.key, answer, ttl_s))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
        return True


class _Lead:
    """One asks for all."""

    __slots__ = ("_asked", "_cache", "_flight", "_why", "near")

    def __init__(self, cache: MemoryCache, asked: Asked, flight: Flight[Answer], why: bytes) -> None:
        self._cache = cache
        self._asked = asked
        self._flight = flight
        self._why = why
        self.near: tuple[bytes, Vector] | None = None  # the frame of its text, and the text's vector

    def keep(self, answer: Answer, *, now_s: float) -> bytes:
        """Give the answer to those who wait, and keep it where it may be."""
        ttl_s = keeping_s(self._asked.question, answer)
        stored = ttl_s is not None and self._cache._keep(self._asked, answer, ttl_s, now_s)
        if stored and self.near is not None:
            self._cache._nearest.add(*self.near, self._asked.key)
        shared = ttl_s is not None or (answer.status in SAME_FOR_ALL and _for_all(answer))
        self._cache._flights.land(self._flight, answer if shared else None)
        status = b"baseai; fwd=%s; fwd-status=%d" % (self._why, answer.status)
        return status + b"; stored; ttl=%d" % ttl_s if stored and ttl_s is not None else status

    def drop(self) -> bytes:
        """There is no answer to share."""
        self._cache._flights.land(self._flight, None)
        return b"baseai; fwd=" + self._why


class _Follow:
    """Somebody else is asking the same."""

    __slots__ = ("_landing",)

    def __init__(self, landing: Awaitable[Answer | None]) -> None:
        self._landing = landing

    async def answer(self) -> Kept | None:
        """What the one who leads brought."""
        answer = await self._landing
        if answer is None:
            return None
        status = b"baseai; fwd=miss; fwd-status=%d; collapsed" % answer.status
        return Kept(answer=answer, age_s=0.0, status=status)


def keeping_s(question: Question, answer: Answer) -> float | None:
    """For how long an answer may be kept; None when it may not."""
    terms = question.version.terms.cache
    if terms is None or answer.status != 200 or not _for_all(answer):
        return None
    allowed_s: float = terms.max_age_s
    for name, value in answer.headers:
        if name == b"cache-control" and (told_s := told_by(value)) is not None:
            allowed_s = min(allowed_s, told_s)
    return allowed_s if allowed_s > 0 else None


def _digest_of(question: Question, same: bytes) -> bytes:
    """The same for what is the same to one version of one service."""
    route = question.route
    whole = f"{route.tenant_id}\x1f{route.service_id}\x1f{question.version.digest}\x1f".encode()
    return blake2b(whole + same, digest_size=20).digest()


def _for_all(answer: Answer) -> bool:
    """Whether nothing in the answer's head is meant for one client alone."""
    return not any(name in FOR_ONE for name, _ in answer.headers)


def _taken(wants: AskedOf, age_s: float) -> bool:
    """Whether the client takes an answer of that age."""
    return not wants.fresh_only and (wants.max_age_s is None or age_s <= wants.max_age_s)


def _kept(answer: Answer, *, age_s: float, ttl_s: float) -> Kept:
    headers: Headers = ((b"age", b"%d" % age_s),)
    return Kept(answer=answer, age_s=age_s, status=b"baseai; hit; ttl=%d" % ttl_s, headers=headers)
