"""The time ledger on a real database: hours closed once, counted anew when facts come late, and nothing silent."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from baseai.finance.bucket import Bucket
from baseai.finance.hours.postgres import TimeLedger
from baseai.truth.session import Truth, fetch_all, fetch_one
from tests.finance.site import lease, over, seeded

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000


async def site(truth: Truth) -> datetime:
    """Four slots that were installed six hours before this one, on a node that is ready."""
    start = await seeded(truth)
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET installed_at = %s", (start,))
        await session.execute(
            "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor)"
            " VALUES (%s, 'node', 'nod_1', 'admit', 'onboarding', 'ready', 'platform')",
            (start,),
        )
    return start


async def told(truth: Truth, start: datetime, accelerator_no: int = 1) -> list[Mapping[str, float]]:
    """The buckets of one accelerator in hours, hour by hour, as they stand."""
    async with truth.transaction() as session:
        rows = await fetch_all(
            session,
            "SELECT hour, bucket, micro_seconds FROM time_buckets WHERE replaced_at IS NULL AND accelerator_no = %s"
            " ORDER BY hour, bucket",
            (accelerator_no,),
        )
    hours: dict[int, dict[str, float]] = {}
    for row in rows:
        hours.setdefault((row["hour"] - start) // HOUR, {})[row["bucket"]] = row["micro_seconds"] / HOUR_US
    assert sorted(hours) == list(range(len(hours)))
    return list(hours.values())


async def one(truth: Truth, query: str) -> Any:
    async with truth.transaction() as session:
        row = await fetch_one(session, query)
    assert row is not None
    return next(iter(row.values()))


IDLE = {"idle": 1.0}


async def test_hours_that_are_over_are_closed_once(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 1.5 * HOUR), ended="finished", run_state="succeeded")
    ledger = TimeLedger(truth)
    assert (await ledger.close()).closed in (5, 6)  # the hour before this one may be in its grace
    assert (await told(truth, start))[:5] == [IDLE, {"idle": 0.5, "on_demand": 0.5}, IDLE, IDLE, IDLE]
    assert (await told(truth, start, 2))[:5] == [IDLE] * 5
    rows = await one(truth, "SELECT count(*) FROM time_buckets")
    again = await ledger.close()
    assert (again.closed, again.revised) == (0, 0)
    assert await one(truth, "SELECT count(*) FROM time_buckets") == rows
    assert await one(truth, "SELECT count(*) FROM late_facts") == 0


async def test_a_verdict_that_comes_late_gives_its_hours_a_revision_with_the_reason(truth: Truth) -> None:
    start = await site(truth)
    lease_id = await lease(truth, "run_1", (start + 0.5 * HOUR, start + 2.5 * HOUR))
    ledger = TimeLedger(truth)
    await ledger.close()
    assert (await told(truth, start))[:3] == [
        {"idle": 0.5, "on_demand": 0.5},
        {"on_demand": 1.0},
        {"on_demand": 0.5, "start_up": 0.5},
    ]
    await over(truth, lease_id, start + 3.25 * HOUR, "node_lost", run_state="failed")
    done = await ledger.close()
    assert done.revised >= 4
    assert (await told(truth, start))[:4] == [
        {"idle": 0.5, "lost": 0.5},
        {"lost": 1.0},
        {"lost": 1.0},
        {"idle": 0.75, "lost": 0.25},
    ]
    async with truth.transaction() as session:
        rows = await fetch_all(
            session,
            "SELECT bucket, revision, reason, replaced_at IS NULL AS stands FROM time_buckets"
            " WHERE accelerator_no = 1 AND hour = %s ORDER BY revision",
            (start + HOUR,),
        )
    assert [(row["bucket"], row["revision"], row["stands"]) for row in rows] == [
        ("on_demand", 1, False),
        ("lost", 2, True),
    ]
    assert "run_1" in rows[1]["reason"]
    assert await one(truth, "SELECT max(revision) FROM time_buckets WHERE accelerator_no = 2") == 1


async def test_what_was_seen_late_is_sold_after_all(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + HOUR, start + 1.25 * HOUR))
    ledger = TimeLedger(truth)
    await ledger.close()
    assert (await told(truth, start))[2] == {"start_up": 1.0}  # its node was silent
    async with truth.transaction() as session:
        await session.execute("UPDATE leases SET observed_until = %s", (start + 3 * HOUR,))
    await ledger.close()
    assert (await told(truth, start))[1:4] == [{"on_demand": 1.0}, {"on_demand": 1.0}, {"start_up": 1.0}]


async def test_an_accelerator_that_was_there_earlier_than_was_known(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute(
            "UPDATE accelerators SET installed_at = %s WHERE accelerator_no = 1", (start + 2 * HOUR,)
        )
    ledger = TimeLedger(truth)
    await ledger.close()
    assert await one(truth, "SELECT count(*) FROM time_buckets WHERE accelerator_no = 1") in (3, 4)
    async with truth.transaction() as session:
        await session.execute(
            "UPDATE accelerators SET installed_at = %s WHERE accelerator_no = 1", (start + 0.75 * HOUR,)
        )
    assert (await ledger.close()).revised == 2
    assert (await told(truth, start))[:3] == [{"idle": 0.25}, IDLE, IDLE]


async def test_rows_are_never_edited_or_deleted(truth: Truth) -> None:
    await site(truth)
    await TimeLedger(truth).close()
    for deed in (
        "UPDATE time_buckets SET micro_seconds = 1",
        "DELETE FROM time_buckets",
        "UPDATE time_buckets SET replaced_at = now(), bucket = 'lost'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with truth.transaction() as session:
                await session.execute(deed)  # type: ignore[call-overload]


async def test_two_copies_close_each_hour_once(truth: Truth) -> None:
    start = await site(truth)
    await lease(truth, "run_1", (start + 0.5 * HOUR, start + 2.5 * HOUR), accelerator_nos=(1, 2, 3))
    done = await asyncio.gather(*(TimeLedger(truth).close() for _ in range(3)))
    assert sum(one.closed for one in done) in (5, 6)
    assert await one(truth, "SELECT max(revision) FROM time_buckets") == 1


async def test_states_and_fragmentation_are_read_from_history(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor) VALUES"
            " (%(a)s, 'node', 'nod_1', 'joined', NULL, 'onboarding', 'node n1'),"  # a rejoin moves nothing
            " (%(b)s, 'node', 'nod_1', 'cordon', 'ready', 'cordoned', 'health'),"
            " (%(c)s, 'node', 'nod_1', 'uncordon', 'cordoned', 'ready', 'key ops'),"
            " (%(c)s, 'accelerator', 's2', 'no_longer_seen', 'in_service', 'failed', 'node n1')",
            {"a": start + 0.1 * HOUR, "b": start + HOUR, "c": start + 2 * HOUR},
        )
        await session.execute(
            "INSERT INTO fragmentations (model, site_id, from_at, seen_at, until_at) VALUES"
            " ('cpu-slot', 'local', %s, %s, %s), ('H100', 'local', %s, %s, NULL)",
            (start + 2.5 * HOUR, start + 3 * HOUR, start + 3 * HOUR, start, start + 4 * HOUR),
        )
    await TimeLedger(truth).close()
    assert (await told(truth, start))[:4] == [IDLE, {"failed": 1.0}, {"fragmented": 0.5, "idle": 0.5}, IDLE]
    assert (await told(truth, start, 2))[2:4] == [{"failed": 1.0}] * 2


async def test_the_database_knows_every_bucket(truth: Truth) -> None:
    start = await site(truth)
    async with truth.transaction() as session:
        for number, bucket in enumerate(Bucket):
            await session.execute(
                "INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision)"
                " VALUES (%s, 1, %s, 1, 1)",
                (start - (number + 1) * HOUR, bucket.value),
            )
    with pytest.raises(psycopg.errors.CheckViolation):
        async with truth.transaction() as session:
            await session.execute(
                "INSERT INTO time_buckets (hour, accelerator_no, bucket, micro_seconds, revision)"
                " VALUES (%s, 2, 'forgotten', 1, 1)",
                (start,),
            )
