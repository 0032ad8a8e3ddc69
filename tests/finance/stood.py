"""Builders for the tests of the time ledger: slots that have stood here for hours, and what is told of them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from baseai.truth.session import Truth, fetch_all, fetch_one
from tests.finance.site import seeded

HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000


async def site(truth: Truth) -> datetime:
    """Four slots that stand from the first of six hours that are over, on a node that is ready."""
    start = await seeded(truth)
    async with truth.transaction() as session:
        await session.execute("UPDATE accelerators SET installed_at = %s", (start,))
        await session.execute(
            "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor)"
            " VALUES (%s, 'node', 'nod_1', 'admit', 'onboarding', 'ready', 'platform')",
            (start,),
        )
    return start


async def hours_over(truth: Truth, start: datetime) -> int:
    """How many hours since `start` are over by the database's clock; the newest of them may be in its grace."""
    hours: int = (await one(truth, "SELECT now()") - start) // HOUR
    return hours


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
