"""Answers in Redis or Valkey, for all gateways of an installation: what one kept, the others give.

Invariant: without an answer from the store within `WITHIN_S` there is none, and nobody asks again for a second: an
outage costs misses, never errors. How much is kept is the store's own `maxmemory`; each answer ends by itself. The
names of entries are digests; answers lie there as they are, so the store is as private as the platform's database.
"""

import asyncio
import contextlib
import json
import logging
import time

from baseai.gateway.cache import Found
from baseai.gateway.seams import Answer

PREFIX = b"baseai:answer:1:"  # 1: of this layout
WITHIN_S = 0.25
QUIET_S = 1.0
LOG_EVERY_S = 60.0

log = logging.getLogger(__name__)


class RedisAnswers:
    """A store at `url`, `redis://[user:password@]host[:port][/db]` (`rediss://` with TLS, `unix://` for a socket).

    Raises ValueError for another address, ImportError without the extra `redis`. Connects when it is first asked.
    """

    def __init__(self, url: str) -> None:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        self._redis = Redis.from_url(
            url, socket_timeout=WITHIN_S, socket_connect_timeout=WITHIN_S, max_connections=32, protocol=2
        )
        self._away = (RedisError, OSError, TimeoutError)
        self._quiet_until_s = 0.0
        self._logged_at_s: float | None = None

    async def get(self, key: bytes) -> Found | None:
        """The answer, or None: unknown, too old, or the store gives no answer just now. May be cancelled."""
        if time.monotonic() < self._quiet_until_s:
            return None
        try:
            async with asyncio.timeout(WITHIN_S):
                kept = await self._redis.get(PREFIX + key)
        except self._away as wrong:
            self._be_quiet(wrong)
            return None
        return found_in(kept, wall_s=time.time()) if isinstance(kept, bytes) else None

    async def put(self, key: bytes, answer: Answer, ttl_s: float) -> None:
        """Keep it for so long, if the store answers."""
        if time.monotonic() < self._quiet_until_s:
            return
        now_s = time.time()
        kept = bytes_of(answer, since_s=now_s, until_s=now_s + ttl_s)
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._redis.set(PREFIX + key, kept, px=max(1, int(ttl_s * 1000)))
        except self._away as wrong:
            self._be_quiet(wrong)

    async def close(self) -> None:
        with contextlib.suppress(*self._away):
            await self._redis.aclose()

    def _be_quiet(self, wrong: BaseException) -> None:
        now_s = time.monotonic()
        if self._logged_at_s is None or now_s - self._logged_at_s >= LOG_EVERY_S:
            log.warning("the shared cache gives no answer, all is asked of replicas: %s", wrong or "too late")
            self._logged_at_s = now_s
        self._quiet_until_s = now_s + QUIET_S


def bytes_of(answer: Answer, *, since_s: float, until_s: float) -> bytes:
    """A line of JSON, then the body."""
    head = {
        "since_s": since_s,
        "until_s": until_s,
        "status": answer.status,
        "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers],
        "tokens": [answer.tokens_in, answer.tokens_out],
        "run_id": answer.run_id,
    }
    return json.dumps(head).encode() + b"\n" + answer.body


def found_in(kept: bytes, *, wall_s: float) -> Found | None:
    """What `bytes_of` made, while it is fresh; None for anything else."""
    line, _, body = kept.partition(b"\n")
    try:
        head = json.loads(line)
        answer = Answer(
            status=int(head["status"]),
            headers=tuple(
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]
            ),
            body=body,
            tokens_in=int(head["tokens"][0]),
            tokens_out=int(head["tokens"][1]),
            run_id=str(head["run_id"]),
        )
        since_s, until_s = float(head["since_s"]), float(head["until_s"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    if until_s <= wall_s:
        return None
    return Found(answer=answer, age_s=max(0.0, wall_s - since_s), ttl_s=until_s - wall_s)
