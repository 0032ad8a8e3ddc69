"""Keys at the gateway: asked once, remembered for a moment, good while nobody can say, and bounded under a flood."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from baseai.gateway.keys import ASKED_PER_S_MOST, MALFORMED, UNKNOWN, UNREACHABLE, Keys
from baseai.gateway.seams import Caller, Denied
from baseai.ground.identity import KeyId, TenantId
from baseai.tenancy.key import Holder, NotAdmitted
from baseai.tenancy.postgres import Tenancy
from baseai.tenancy.role import Role
from baseai.truth.session import Truth, TruthUnavailable

pytestmark = pytest.mark.anyio

PEPPER = b"p" * 32
NOON_S = 1_800_000_000.0
ANA = Holder(
    key_id=KeyId("key_ana"), name="ana", role=Role.CUSTOMER, tenant_id=TenantId("ten_a"), project_id=None, node_id=None
)  # fmt: skip
GOOD = b"Bearer bai_ana"


class Office:
    """Whoever keeps the keys; may be away, and may take its time."""

    def __init__(self, **holders: Holder) -> None:
        self.holders = {f"bai_{name}": holder for name, holder in holders.items()}
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []

    async def holder(self, text: str) -> Holder:
        self.asked.append(text)
        await self.gate.wait()
        if self.away:
            raise TruthUnavailable("gone")
        if text not in self.holders:
            raise NotAdmitted
        return self.holders[text]


def keys_of(office: Office) -> Keys:
    return Keys(office, pepper=PEPPER)


async def said(keys: Keys, authorization: bytes | None, wall_s: float) -> Caller | Denied:
    """As the path asks: memory first."""
    known = keys.known(authorization, wall_s=wall_s)
    if known is not None:
        return known
    assert authorization is not None
    return await keys.fetch(authorization, wall_s=wall_s)


@pytest.mark.parametrize("shown", [None, b"", b"Bearer", b"Bearer ", b"Basic eA==", "Bearer é".encode()])
async def test_what_is_no_key_is_refused_without_asking(shown: bytes | None) -> None:
    office = Office()
    assert keys_of(office).known(shown, wall_s=NOON_S) is MALFORMED
    assert office.asked == []


async def test_a_key_is_asked_for_once_and_then_known() -> None:
    office = Office(ana=ANA)
    keys = keys_of(office)
    assert keys.known(GOOD, wall_s=NOON_S) is None
    caller = await said(keys, GOOD, NOON_S)
    assert caller == Caller(key_id="key_ana", tenant_id="ten_a", project_id=None)
    assert keys.known(GOOD, wall_s=NOON_S + 9.9) == caller
    assert office.asked == ["bai_ana"]


async def test_many_who_ask_for_one_key_share_one_question_and_none_ends_it_for_the_others() -> None:
    office = Office(ana=ANA)
    office.gate.clear()
    keys = keys_of(office)
    asking = [asyncio.create_task(keys.fetch(GOOD, wall_s=NOON_S)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    office.gate.set()
    rest = await asyncio.gather(*asking[1:])
    assert {one.key_id for one in rest if isinstance(one, Caller)} == {"key_ana"}
    assert office.asked == ["bai_ana"]


async def test_an_older_one_is_good_while_it_is_asked_for_beside() -> None:
    office = Office(ana=ANA)
    keys = keys_of(office)
    await said(keys, GOOD, NOON_S)
    office.holders.clear()
    assert isinstance(keys.known(GOOD, wall_s=NOON_S + 11), Caller)
    await asyncio.sleep(0.01)
    assert keys.known(GOOD, wall_s=NOON_S + 11) is UNKNOWN  # revoked meanwhile


async def test_a_revoked_key_calls_nothing_after_twenty_seconds() -> None:
    office = Office(ana=ANA)
    keys = keys_of(office)
    await said(keys, GOOD, NOON_S)
    office.holders.clear()
    assert await said(keys, GOOD, NOON_S + 20) is UNKNOWN


async def test_an_expired_key_ends_at_its_instant_though_nobody_is_asked() -> None:
    ends = datetime.fromtimestamp(NOON_S + 5, UTC)
    keys = keys_of(Office(ana=replace(ANA, expires_at=ends)))
    assert isinstance(await said(keys, GOOD, NOON_S), Caller)
    assert isinstance(keys.known(GOOD, wall_s=NOON_S + 4.9), Caller)
    assert keys.known(GOOD, wall_s=NOON_S + 5) is UNKNOWN


async def test_an_unknown_key_is_asked_for_once_in_two_seconds() -> None:
    office = Office()
    keys = keys_of(office)
    for at_s in (0, 0.5, 1.9):
        assert await said(keys, b"Bearer bai_wrong", NOON_S + at_s) is UNKNOWN
    assert len(office.asked) == 1
    assert await said(keys, b"Bearer bai_wrong", NOON_S + 2) is UNKNOWN
    assert len(office.asked) == 2


async def test_a_flood_of_unknown_keys_is_none_of_the_database() -> None:
    office = Office(ana=ANA)
    keys = keys_of(office)
    await said(keys, GOOD, NOON_S)
    flood = [
        await said(keys, f"Bearer bai_{number}".encode(), NOON_S) for number in range(3 * ASKED_PER_S_MOST)
    ]
    assert len(office.asked) <= ASKED_PER_S_MOST + 1
    assert flood[-1] is UNREACHABLE
    assert isinstance(keys.known(GOOD, wall_s=NOON_S + 1), Caller)  # who is known is not touched by it


async def test_while_the_database_is_away_known_keys_stay_good_for_five_minutes() -> None:
    office = Office(ana=ANA)
    keys = keys_of(office)
    await said(keys, GOOD, NOON_S)
    office.away = True
    for at_s in (15, 60, 299):
        assert isinstance(await said(keys, GOOD, NOON_S + at_s), Caller)
    assert await said(keys, b"Bearer bai_new", NOON_S + 299) is UNREACHABLE
    assert await said(keys, GOOD, NOON_S + 301.5) is UNREACHABLE
    office.away = False
    assert isinstance(await said(keys, GOOD, NOON_S + 305), Caller)


async def test_nobody_waits_twice_for_a_database_that_is_away() -> None:
    office = Office(ana=ANA)
    keys = keys_of(office)
    await said(keys, GOOD, NOON_S)
    office.away = True
    await said(keys, GOOD, NOON_S + 60)
    asked = len(office.asked)
    assert isinstance(keys.known(GOOD, wall_s=NOON_S + 61), Caller)
    assert len(office.asked) == asked


@pytest.mark.parametrize("role", [Role.FINANCE, Role.INVESTOR, Role.VIEWER, Role.NODE])
async def test_a_role_that_calls_no_models_is_told_so(role: Role) -> None:
    denied = await said(keys_of(Office(ana=replace(ANA, role=role))), GOOD, NOON_S)
    assert isinstance(denied, Denied)
    assert (denied.status, denied.code) == (403, "key_may_not_call")


async def test_a_real_key_with_its_scopes_and_limits(truth: Truth) -> None:
    tenancy = Tenancy(truth, pepper=PEPPER, master=b"m" * 32)
    tenant = await tenancy.make_tenant("a", actor="test")
    made = await tenancy.make_key(
        "bot", Role.CUSTOMER, actor="test", tenant="a", scopes=["service:chat"], requests_per_minute=60,
        expires_in=timedelta(days=1),
    )  # fmt: skip
    keys = Keys(tenancy, pepper=PEPPER)
    now_s = datetime.now(UTC).timestamp()
    shown = f"Bearer {made['secret']}".encode()
    assert await said(keys, shown, now_s) == Caller(
        key_id=made["key_id"],
        tenant_id=tenant["tenant_id"],
        project_id=None,
        services=frozenset({"chat"}),
        requests_per_minute=60,
    )
    assert keys.known(shown, wall_s=now_s + 2 * 86_400) is UNKNOWN
    await tenancy.revoke_key(made["key_id"], actor="test")
    assert await said(keys, shown, now_s + 21) is UNKNOWN
