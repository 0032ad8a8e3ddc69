"""The queue over REST: all of it for operators, for a tenant its own runs and nobody else's name."""

from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from baseai.ground.clock import now_utc
from baseai.ground.identity import RunId, TenantId
from baseai.scheduling.plan import Obstacle, StartEstimate, Wait, WaitKind
from baseai.scheduling.record import wait_record
from baseai.truth.session import fetch_all
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio

ALL_SLOTS = "type: task\nname: all\ncommands: [echo]\nresources: {cpu: 4}\nmax_duration: 1h\n"


async def lined_up(platform: Platform, *keys: str) -> list[str]:
    """One run of each of these tenants in this order, as a cycle would have written it; each behind the one before."""
    run_ids = [await platform.submitted(f"run-{number}", key=key) for number, key in enumerate(keys)]
    now = now_utc()
    async with platform.truth.transaction() as session:
        rows = await fetch_all(session, "SELECT run_id, tenant_id FROM runs")
        owner = {row["run_id"]: TenantId(row["tenant_id"]) for row in rows}
        for ahead, run_id in enumerate(run_ids):
            before = [owner[each] for each in run_ids[:ahead]]
            wait = Wait(
                run_id=RunId(run_id), position=ahead + 1, ahead=ahead, explanation=None,
                kind=WaitKind.HELD if ahead else WaitKind.SHORT, behind=run_ids[ahead - 1] if ahead else None,
                obstacle=Obstacle.RUN, behind_tenant=before[-1] if ahead else None,
                owners_ahead=tuple((each, before.count(each)) for each in dict.fromkeys(before)),
                estimate=StartEstimate(
                    asked_at=now, earliest_at=now, likely_at=now + timedelta(minutes=9),
                    latest_at=now + timedelta(hours=1), held_ratio=0.79, outcomes=412,
                ),
            )  # fmt: skip
            await session.execute(
                "UPDATE runs SET wait = %s WHERE run_id = %s", (Jsonb(wait_record(wait)), run_id)
            )
    return run_ids


async def test_the_queue_in_pages_with_reasons_and_estimates(platform: Platform) -> None:
    run_ids = await lined_up(platform, "alpha", "beta", "alpha")
    first = (await platform.ask("GET", "/queue?limit=2")).json()
    rest = (await platform.ask("GET", f"/queue?limit=2&cursor={first['next']}")).json()
    items = first["items"] + rest["items"]
    assert [item["run_id"] for item in items] == run_ids
    assert (first["waiting"], rest["next"]) == (3, None)
    assert items[2]["wait"]["sentence"].startswith(
        "Waiting, number 3 in the queue. Ahead of it: 1 of alpha, 1 of beta. It fits now, but would put off"
    )
    assert items[2]["wait"]["estimate"]["sentence"].endswith("79 % of the last 412 such intervals held.")
    assert first["models"] == [{"model": "cpu-slot", "total": 4, "free": 4}]
    assert first["accuracy"] == []
    wrong = await platform.ask("GET", "/queue?cursor=tomorrow")
    assert wrong.status_code == 422
    assert "is not a cursor" in wrong.json()["detail"]


async def test_a_tenant_sees_its_own_with_their_place_among_all(platform: Platform) -> None:
    run_ids = await lined_up(platform, "alpha", "beta", "beta", "alpha")
    answer = await platform.ask("GET", "/queue", key="alpha")
    items = answer.json()["items"]
    assert [(item["run_id"], item["wait"]["position"]) for item in items] == [
        (run_ids[0], 1),
        (run_ids[3], 4),
    ]
    last = items[1]["wait"]
    assert (last["own_ahead"], last["others_ahead"], last["owners_ahead"]) == (1, 2, [])
    assert last["behind"] == {"kind": "run", "name": None}
    detail = await platform.ask("GET", f"/runs/{run_ids[3]}", key="alpha")
    listed = await platform.ask("GET", "/runs", key="alpha")
    for text in (answer.text, detail.text, listed.text):
        assert "beta" not in text
        assert run_ids[1] not in text
        assert run_ids[2] not in text


@pytest.mark.parametrize("key", ["viewer", "investor", "node"])
async def test_who_may_not_see_runs_sees_no_queue(platform: Platform, key: str) -> None:
    assert (await platform.ask("GET", "/queue", key=key)).status_code == 403


async def test_a_real_cycle_says_why_one_started_there_and_when_the_other_will(platform: Platform) -> None:
    started = await platform.submitted("first", key="alpha")
    await platform.granted(started)
    waits = (await platform.submit(ALL_SLOTS, key="beta")).json()["run_id"]
    await platform.rooms.scheduler.tick()
    first = (await platform.ask("GET", f"/runs/{started}", key="alpha")).json()["run"]
    assert first["why"]["kind"] == "in_turn"
    assert first["why"]["sentence"].startswith("In its turn on one: ")
    [item] = (await platform.ask("GET", "/queue", key="beta")).json()["items"]
    assert (item["run_id"], item["wait"]["position"], item["wait"]["code"]) == (waits, 1, "short")
    estimate = item["wait"]["estimate"]
    assert estimate["earliest_at"] <= estimate["likely_at"] <= estimate["latest_at"]
    assert estimate["outcomes"] == 0
    await platform.finished(started)
    await platform.granted(waits)
    await platform.rooms.scheduler.tick()
    [accuracy] = (await platform.ask("GET", "/queue", key="beta")).json()["accuracy"]
    assert (accuracy["models"], accuracy["outcomes"]) == (["cpu-slot"], 1)
