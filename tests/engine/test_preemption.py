"""A run that makes room, on a real PostgreSQL: it is given time to save, keeps its turn, and its loss is on record."""

from datetime import timedelta
from typing import Any

import pytest

from baseai.engine.postgres import CHECKPOINT_GRACE_MAX_S, STOP_GRACE_S
from baseai.ground.clock import now_utc
from baseai.ground.identity import RunId
from baseai.scheduling.preemption.postgres import ask_to_make_room, load_saved
from baseai.truth.session import Scope, fetch_all
from tests.engine.test_postgres import OPERATOR, Yard, yard

__all__ = ["yard"]  # a fixture
pytestmark = pytest.mark.anyio


async def running(one: Yard) -> tuple[str, dict[str, Any]]:
    run_id = await one.submit()
    [lease] = await one.leases(run_id)
    await one.report(lease, "started")
    await one.rooms.engine.settle()
    return run_id, lease


async def saved(one: Yard, run_id: str, step: int, *, ago_s: float = 0.0, save_s: float = 1.0) -> None:
    """A checkpoint that was committed some seconds ago."""
    await one.write(
        "INSERT INTO checkpoints (event_id, run_id, tenant_id, project_id, attempt_no, step, path, digest, bytes,"
        " save_s, stall_ms, committed_at) SELECT run_id || %s, run_id, tenant_id, project_id, attempt_no, %s, 'p',"
        " 'd', 1, %s, 1, now() - %s FROM runs WHERE run_id = %s",
        str(step), step, save_s, timedelta(seconds=ago_s), run_id,
    )  # fmt: skip


async def asked(one: Yard, run_id: str, for_run: str | None, lost: float | None = 8.0) -> bool:
    async with one.rooms.truth.transaction() as session:
        return await ask_to_make_room(
            session,
            RunId(run_id),
            for_run=None if for_run is None else RunId(for_run),
            lost_accelerator_s=lost,
        )


async def gone(one: Yard, lease: dict[str, Any]) -> None:
    await one.report(lease, "exited", gone=True, exit_code=143, reason="preempted")
    await one.rooms.engine.settle()


async def test_it_is_given_time_for_a_checkpoint(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    await saved(yard, run_id, 10, save_s=30.0)
    other = await yard.submit()
    assert await asked(yard, run_id, other)
    [order] = (await yard.rooms.engine.orders(lease["node_id"])).orders
    assert (order.stop, order.stop_reason) == (True, "preempted")
    assert order.stop_grace_s == 2 * 30.0 + STOP_GRACE_S < CHECKPOINT_GRACE_MAX_S


async def test_it_waits_again_at_the_place_it_had_and_nothing_counts_against_it(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    before = await yard.rows("SELECT enqueued_at FROM runs WHERE run_id = %s", run_id)
    other = await yard.submit()
    await asked(yard, run_id, other)
    await yard.report(lease, "exited", exit_code=143, reason="preempted")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "preempted"
    await gone(yard, lease)
    [run] = await yard.rows("SELECT state, errors, interruptions FROM runs WHERE run_id = %s", run_id)
    assert run == {"state": "queued", "errors": 0, "interruptions": 0}
    assert await yard.rows("SELECT enqueued_at FROM runs WHERE run_id = %s", run_id) == before
    await yard.rooms.scheduler.tick()
    assert (await yard.state(run_id), await yard.state(other)) == ("queued", "starting")


async def test_what_it_lost_and_for_whom_is_told(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    await yard.write(
        "UPDATE leases SET observed_from = observed_from - interval '1 hour' WHERE run_id = %s", run_id
    )
    await saved(yard, run_id, 1200, ago_s=90.0)
    other = await yard.submit()
    await asked(yard, run_id, other)
    await gone(yard, lease)
    [row] = await yard.rows("SELECT * FROM preemptions WHERE run_id = %s", run_id)
    assert (row["attempt_no"], row["for_run"], row["saved_step"]) == (1, other, 1200)
    assert row["decided_accelerator_s"] == 8.0
    assert 90.0 <= row["lost_accelerator_s"] < 100.0
    [run] = await yard.rows("SELECT sentence, reason FROM runs WHERE run_id = %s", run_id)
    [name] = await yard.rows("SELECT name FROM runs WHERE run_id = %s", other)
    assert run["reason"] == "preempted"
    assert run["sentence"].startswith(
        f"made room for run {name['name']} and goes on from its checkpoint at step 1,200: 9"
    )


async def test_a_run_of_somebody_else_is_not_named(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    other = await yard.submit()
    await yard.rooms.tenancy.make_tenant("globex", actor="test")
    [globex] = await yard.rows("SELECT tenant_id FROM tenants WHERE name = 'globex'")
    await yard.write("UPDATE runs SET tenant_id = %s WHERE run_id = %s", globex["tenant_id"], other)
    await asked(yard, run_id, other)
    await gone(yard, lease)
    [run] = await yard.rows("SELECT sentence FROM runs WHERE run_id = %s", run_id)
    assert run["sentence"].startswith("made room for another run and starts anew:")
    scope = Scope(tenant_id=globex["tenant_id"], actor="test")
    async with yard.rooms.truth.transaction(scope) as session:
        assert await fetch_all(session, "SELECT * FROM preemptions") == []


async def test_a_run_makes_room_for_what_is_reserved(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    await asked(yard, run_id, None, lost=None)
    await gone(yard, lease)
    detail = await yard.rooms.views.run(OPERATOR, run_id)
    [told] = detail["preemptions"]
    assert (told["for_kind"], told["for_run"], told["resumed_step"]) == ("reservation", None, None)
    assert detail["run"]["sentence"].startswith("made room for a reservation and starts anew:")


async def test_asking_twice_is_once_and_who_ends_by_itself_has_lost_nothing(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    other = await yard.submit()
    assert await asked(yard, run_id, other)
    assert not await asked(yard, run_id, other)
    await yard.report(lease, "exited", gone=True, exit_code=0, reason="finished")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "succeeded"
    [row] = await yard.rows("SELECT lost_accelerator_s FROM preemptions WHERE run_id = %s", run_id)
    assert row["lost_accelerator_s"] == 0.0
    assert not await asked(yard, run_id, other), "nothing of it lives"


async def test_a_tenant_pays_for_what_it_used_before_it_made_room(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    await asked(yard, run_id, await yard.submit())
    await gone(yard, lease)
    await yard.rooms.meter.meter()
    lines = await yard.rows("SELECT billable FROM usage_lines WHERE run_id = %s", run_id)
    assert {line["billable"] for line in lines} == {True}


async def test_who_saved_when_is_known_of_those_who_run(yard: Yard) -> None:
    await yard.join("one")
    run_id, lease = await running(yard)
    await saved(yard, run_id, 10, ago_s=50.0)
    await saved(yard, run_id, 20, ago_s=20.0)
    async with yard.rooms.truth.transaction() as session:
        found = await load_saved(session)
        assert found.keys() == {run_id}
        assert 15 < (now_utc() - found[RunId(run_id)]).total_seconds() < 40
        assert await load_saved(session, since=now_utc() - timedelta(minutes=1)) == found
        assert await load_saved(session, since=now_utc() + timedelta(minutes=1)) == {}
    await yard.report(lease, "exited", gone=True, exit_code=0, reason="finished")
    await yard.rooms.engine.settle()
    async with yard.rooms.truth.transaction() as session:
        assert await load_saved(session) == {}
