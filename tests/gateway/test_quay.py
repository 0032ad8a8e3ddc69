"""What a quay holds, in memory and on PostgreSQL alike; and what only PostgreSQL can: rows and usage events."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baseai.finance.contracts.postgres.events import record_events
from baseai.gateway.postgres.quay import PostgresQuay
from baseai.gateway.segment import Sums
from baseai.gateway.shipper import Marks, Quay
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict, Refused
from baseai.serving.demand import DemandSecond
from baseai.serving.latency import BUCKETS, bucket_of
from baseai.tenancy.postgres import Tenancy
from baseai.truth.session import PLATFORM, Truth, fetch_all
from tests.gateway.counted import MemoryQuay, told

pytestmark = pytest.mark.anyio

GATEWAY = "gw_1"


async def with_service(truth: Truth) -> dict[str, str]:
    """A tenant's service: the ids that a told request names."""
    tenancy = Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)
    await tenancy.make_tenant("a", actor="test")
    tenant_id, project_id = await tenancy.project(PLATFORM, "a", None)
    async with truth.transaction(PLATFORM) as session:
        await session.execute(
            "INSERT INTO services (service_id, tenant_id, project_id, name, model_name, made_by)"
            " VALUES ('svc_1', %s, %s, 'chat', 'gpt-ours', 'test')",
            (tenant_id, project_id),
        )
    return {"tenant_id": tenant_id, "project_id": project_id}


@pytest.fixture(params=["memory", "postgres"])
async def quay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Quay, dict[str, str]]]:
    if request.param == "memory":
        yield MemoryQuay(), {}
        return
    truth = Truth(request.getfixturevalue("dsn"), connections_max=4)
    await truth.open()
    yield PostgresQuay(truth, record_events), await with_service(truth)
    await truth.close()


def sums(*requests: dict[str, Any], **ids: str) -> Sums:
    made = Sums()
    for said in requests or ({},):
        made.add(told(at_s=now_utc().timestamp(), **ids, **said))
    return made


async def test_a_new_gateway_has_brought_nothing(quay: tuple[Quay, dict[str, str]]) -> None:
    assert await quay[0].marks(GATEWAY) == Marks(traffic_no=0, usage_no=0)


async def test_what_is_sent_twice_is_taken_in_once(quay: tuple[Quay, dict[str, str]]) -> None:
    here, ids = quay
    one = sums(**ids)
    for _ in range(2):
        await here.take_traffic(GATEWAY, 1, one.stretches)
    await here.take_traffic(GATEWAY, 3, one.stretches)  # the second one was empty
    await here.take_usage(GATEWAY, 1, 3, one.uses)
    with pytest.raises(Conflict):
        await here.take_usage(GATEWAY, 1, 3, one.uses)
    with pytest.raises(Conflict):
        await here.take_usage(GATEWAY, 3, 4, one.uses)
    assert await here.marks(GATEWAY) == Marks(traffic_no=3, usage_no=3)


# ---- PostgreSQL alone


@pytest.fixture
async def ids(truth: Truth) -> dict[str, str]:
    return await with_service(truth)


async def rows(truth: Truth, query: str) -> list[dict[str, Any]]:
    async with truth.transaction(PLATFORM) as session:
        return await fetch_all(session, query)


async def test_segments_of_one_stretch_add_up_in_one_row(truth: Truth, ids: dict[str, str]) -> None:
    quay = PostgresQuay(truth, record_events)
    one = sums({}, {"outcome": "lost", "status": 503, "first_byte_ms": None}, **ids)
    await quay.take_traffic(GATEWAY, 1, one.stretches)
    await quay.take_traffic(GATEWAY, 2, one.stretches)
    await quay.take_traffic(GATEWAY, 2, one.stretches)
    await quay.take_traffic("gw_2", 1, one.stretches)
    found = await rows(truth, "SELECT * FROM service_traffic ORDER BY gateway")
    assert [(row["gateway"], row["requests"], row["lost"], row["errors"]) for row in found] == [
        ("gw_1", 4, 2, 2),
        ("gw_2", 2, 1, 1),
    ]
    assert len(found[0]["latency"]) == BUCKETS
    assert (found[0]["latency"][bucket_of(20.0)], sum(found[0]["latency"])) == (2, 2)
    assert found[0]["from_at"].timestamp() == one.stretches[0].from_s


async def test_usage_becomes_events_of_the_model_and_the_replica(truth: Truth, ids: dict[str, str]) -> None:
    quay = PostgresQuay(truth, record_events)
    one = sums({}, {"cache": "hit"}, {"status": 422}, **ids)
    await quay.take_traffic(GATEWAY, 1, one.stretches)
    await quay.take_usage(GATEWAY, 1, 1, one.uses)
    found = await rows(truth, "SELECT * FROM usage_events ORDER BY meter")
    assert [(row["meter"], row["quantity"], row["model"], row["run_id"]) for row in found] == [
        ("requests", 2, "gpt-ours", "run_1"),
        ("tokens_in", 10, "gpt-ours", "run_1"),
        ("tokens_out", 3, "gpt-ours", "run_1"),
    ]


async def test_what_finance_refuses_moves_no_mark(truth: Truth, ids: dict[str, str]) -> None:
    quay = PostgresQuay(truth, record_events)
    old = Sums()
    old.add(told(**ids, at_s=datetime(2020, 1, 1, tzinfo=UTC).timestamp()))
    await quay.take_traffic(GATEWAY, 1, old.stretches)
    with pytest.raises(Refused, match="before its meter began"):
        await quay.take_usage(GATEWAY, 1, 1, old.uses)
    assert await quay.marks(GATEWAY) == Marks(traffic_no=1, usage_no=0)


async def test_requests_of_a_service_that_is_none_are_left_out(truth: Truth, ids: dict[str, str]) -> None:
    quay = PostgresQuay(truth, record_events)
    one = sums({}, {"service_id": "svc_gone"}, **ids)
    await quay.take_traffic(GATEWAY, 1, one.stretches)
    await quay.take_usage(GATEWAY, 1, 1, one.uses)
    assert {row["service_id"] for row in await rows(truth, "SELECT * FROM service_traffic")} == {"svc_1"}


async def test_demand_is_replaced_second_by_second_and_forgotten_after_ten_minutes(truth: Truth) -> None:
    quay = PostgresQuay(truth, record_events)
    now_s = int(now_utc().timestamp())
    old = DemandSecond(at_s=now_s - 700, concurrency=1.0, held=0, arrivals=1)
    new = DemandSecond(at_s=now_s, concurrency=2.0, held=0, arrivals=2)
    await quay.take_demand(GATEWAY, [("svc_1", old), ("svc_1", new)])
    await quay.take_demand(
        GATEWAY, [("svc_1", DemandSecond(at_s=now_s, concurrency=2.5, held=1, arrivals=3))]
    )
    [row] = await rows(truth, "SELECT * FROM service_demand")
    assert (row["concurrency"], row["held"], row["arrivals"]) == (2.5, 1, 3)
    assert row["at"] == datetime.fromtimestamp(0, UTC) + timedelta(seconds=now_s)
