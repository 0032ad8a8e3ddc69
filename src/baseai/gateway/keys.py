"""Keys are who may call, as a gateway remembers it: asked once, good for a moment, and longer while nobody can say.

Invariant: a key that was revoked calls nothing 20 s later, an expired one nothing from that instant on; without an
answer from the database a key that was good stays good for five minutes, and one that is not known stays out. What is
remembered is the keyed hash, never the key. Changed by `Keys` alone, by what the database says.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol, TypeVar

from baseai.gateway.seams import Caller, Denied
from baseai.ground.fault import Fault
from baseai.tenancy.key import Holder, NotAdmitted, key_text, keyed_hash
from baseai.tenancy.key_scope import services_in
from baseai.tenancy.role import Deed, may

FRESH_S = 10.0  # no question is asked meanwhile
STALE_S = 20.0  # until then it is good while the question is asked beside it
ALONE_S = 300.0  # until then it is good while the database gives no answer
UNKNOWN_S = 2.0  # a key that nobody has is not asked for again meanwhile
QUIET_S = 2.0  # after a question without an answer nobody waits for another
ANSWER_WITHIN_S = 3.0
LOG_EVERY_S = 60.0  # that there is none
REMEMBERED_MOST = 20_000  # of each kind
ASKING_MOST = 64  # different keys that are asked for at once
ASKED_PER_S_MOST = (
    200  # keys that are not known, a second: a flood of them must not become one of the database
)

MALFORMED = Denied(
    status=401,
    code="invalid_api_key",
    sentence="no key was given; send it as `Authorization: Bearer bai_…`",
)
UNKNOWN = Denied(status=401, code="invalid_api_key", sentence=str(NotAdmitted()))
UNREACHABLE = Denied(
    status=503,
    code="keys_unreachable",
    sentence="nobody can say at the moment whose key this is; try again in a few seconds",
)

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Holders(Protocol):
    """Whose key it is, by whoever keeps keys."""

    async def holder(self, text: str) -> Holder:
        """Raises NotAdmitted for one that opens nothing, another Fault when nobody can say."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was said of one key, and when."""

    said: Caller | Denied
    at_s: float
    expires_at_s: float | None


class Keys:
    """Who calls. `pepper`: that of the platform's keys, 32 bytes."""

    def __init__(self, holders: Holders, *, pepper: bytes) -> None:
        self._holders = holders
        self._pepper = pepper
        self._known: OrderedDict[bytes, Remembered] = OrderedDict()  # by keyed hash, as all of these
        self._unknown: OrderedDict[bytes, float] = OrderedDict()  # until when it is not asked for
        self._asking: dict[bytes, asyncio.Task[Caller | Denied]] = {}
        self._lent: dict[bytes, Caller] = {}  # keyed hashes of what this process calls itself with
        self._behalf: dict[Caller, bytes] = {}
        self._quiet_until_s = 0.0
        self._logged_at_s = 0.0
        self._second = 0
        self._asked_in_second = 0

    def known(self, authorization: bytes | None, *, wall_s: float) -> Caller | Denied | None:
        """From the value of the header `authorization`, out of memory; None when only `fetch` can tell. About 2 µs."""
        text = _key_in(authorization)
        if text is None:
            return MALFORMED
        return self._remembered(keyed_hash(text, self._pepper), text, wall_s)

    async def fetch(self, authorization: bytes, *, wall_s: float) -> Caller | Denied:
        """The same with the database's word; concurrent askers for one key share one question."""
        text = _key_in(authorization)
        if text is None:
            return MALFORMED
        mark = keyed_hash(text, self._pepper)
        known = self._remembered(mark, text, wall_s)
        if known is not None:
            return known
        asking = self._asking.get(mark)
        if asking is None:
            if mark not in self._known and (wall_s < self._quiet_until_s or not self._may_ask(wall_s)):
                return UNREACHABLE
            asking = self._ask(mark, text, wall_s)
        return await asyncio.shield(asking)

    def on_behalf(self, caller: Caller) -> bytes:
        """The value of `authorization` by which this process asks itself as `caller`; no other process takes it."""
        authorization = self._behalf.get(caller)
        if authorization is None:
            if len(self._behalf) >= REMEMBERED_MOST:
                self._behalf.clear()
                self._lent.clear()
            text = key_text("gwy", secrets.token_bytes(32))
            authorization = self._behalf[caller] = b"Bearer " + text.encode()
            self._lent[keyed_hash(text, self._pepper)] = caller
        return authorization

    def _remembered(self, mark: bytes, text: str, wall_s: float) -> Caller | Denied | None:
        entry = self._known.get(mark)
        if entry is None:
            if mark in self._lent:
                return self._lent[mark]
            return UNKNOWN if self._unknown.get(mark, 0.0) > wall_s else None
        if entry.expires_at_s is not None and entry.expires_at_s <= wall_s:
            return UNKNOWN
        age_s = abs(wall_s - entry.at_s)  # a clock that was set back makes nothing younger
        if age_s < FRESH_S:
            return entry.said
        if age_s < STALE_S or (age_s < ALONE_S and wall_s < self._quiet_until_s):
            if mark not in self._asking and wall_s >= self._quiet_until_s:
                self._ask(mark, text, wall_s)
            return entry.said
        return None

    def _may_ask(self, wall_s: float) -> bool:
        if int(wall_s) != self._second:
            self._second, self._asked_in_second = int(wall_s), 0
        self._asked_in_second += 1
        return self._asked_in_second <= ASKED_PER_S_MOST and len(self._asking) < ASKING_MOST

    def _ask(self, mark: bytes, text: str, wall_s: float) -> asyncio.Task[Caller | Denied]:
        task = asyncio.get_running_loop().create_task(self._answer(mark, text, wall_s))
        self._asking[mark] = task
        task.add_done_callback(lambda _: self._asking.pop(mark, None))
        return task

    async def _answer(self, mark: bytes, text: str, wall_s: float) -> Caller | Denied:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                holder = await self._holders.holder(text)
        except NotAdmitted:
            self._known.pop(mark, None)
            _remember(self._unknown, mark, wall_s + UNKNOWN_S)
            return UNKNOWN
        except (Fault, TimeoutError) as away:
            if abs(wall_s - self._logged_at_s) >= LOG_EVERY_S:
                log.warning("nobody says whose keys are shown: %s", away or "no answer in time")
                self._logged_at_s = wall_s
            self._quiet_until_s = max(self._quiet_until_s, wall_s + QUIET_S)
            entry = self._known.get(mark)
            return entry.said if entry is not None and wall_s - entry.at_s < ALONE_S else UNREACHABLE
        expires_at_s = holder.expires_at.timestamp() if holder.expires_at is not None else None
        said = caller_of(holder)
        self._unknown.pop(mark, None)
        _remember(self._known, mark, Remembered(said, wall_s, expires_at_s))
        return said


def caller_of(holder: Holder) -> Caller | Denied:
    """Who calls by this key; Denied where its role calls nothing."""
    if not may(holder.role, Deed.CALL_MODELS):
        return Denied(
            status=403,
            code="key_may_not_call",
            sentence=f"a key of the role {holder.role.value} may not {Deed.CALL_MODELS.value}",
        )
    return Caller(
        key_id=holder.key_id,
        tenant_id=holder.tenant_id,
        project_id=holder.project_id,
        services=services_in(holder.scopes),
        requests_per_minute=holder.requests_per_minute,
        tokens_per_minute=holder.tokens_per_minute,
    )


def _key_in(authorization: bytes | None) -> str | None:
    kind, _, text = (authorization or b"").partition(b" ")
    text = text.strip()
    return text.decode("ascii") if kind.lower() == b"bearer" and text and text.isascii() else None


def _remember(kept: "OrderedDict[bytes, Value]", mark: bytes, value: Value) -> None:
    kept[mark] = value
    kept.move_to_end(mark)
    if len(kept) > REMEMBERED_MOST:
        kept.popitem(last=False)
