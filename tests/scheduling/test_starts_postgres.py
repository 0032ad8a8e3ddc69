"""Estimates of starts beside a real record: what a controller learned, the next one knows."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from psycopg.types.json import Jsonb

from baseai.scheduling.decide import decide_on
from baseai.scheduling.gang import Shape
from baseai.scheduling.standing import Standing
from baseai.scheduling.starts.postgres import PostgresStarts
from baseai.scheduling.starts.said import Pool
from baseai.truth.session import Scope, Truth, fetch_all
from baseai.workloads.spec import spec_of
from tests.scheduling import fleet
from tests.scheduling.halls import gang

pytestmark = pytest.mark.anyio

SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_a', 'a'), ('ten_b', 'b');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_a', 'ten_a', 'main'), ('prj_b', 'ten_b', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_1', 'n1', 'local', '127.0.0.1', 'ready', 'none', 2, 1024, 1024, 'b', 1);
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  VALUES ('acc_1', 'nod_1', 'A', 's1', 0, 'in_service');
"""
SPEC = Jsonb(
    spec_of("type: task\ncommands: [echo]\nresources: {cpu: 2}\n", "r.yaml", lambda *_: ()).to_json()
)
ONE, POOLS = Shape(milli=1000), {"A": Pool(milli=1000)}


async def seeded(truth: Truth) -> datetime:
    """A fleet of one accelerator, on which ten attempts of 100 s have ended. Returns the record's now."""
    async with truth.transaction() as session:
        await session.execute(SEED)
        now: datetime = (await fetch_all(session, "SELECT now() AS at"))[0]["at"]
        for number in range(10):
            await submit(session, f"run_old{number}")
            await granted(
                session, f"run_old{number}", now - timedelta(seconds=2000 - 150 * number), lasts_s=100
            )
    return now


async def submit(session: Any, run_id: str, tenant: str = "a") -> None:
    await session.execute(
        "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
        f" VALUES (%s, 'ten_{tenant}', 'prj_{tenant}', %s, 'task', %s, 50, 'queued', 't')",
        (run_id, run_id, SPEC),
    )


async def granted(session: Any, run_id: str, at: datetime, lasts_s: float | None = None) -> None:
    """As the scheduler and the engine write it; without `lasts_s` it goes on."""
    ended_at = None if lasts_s is None else at + timedelta(seconds=lasts_s)
    await session.execute("UPDATE runs SET state = 'starting' WHERE run_id = %s", (run_id,))
    await session.execute(
        "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state, reason,"
        " granted_at, ended_at) SELECT run_id, 1, tenant_id, project_id, 1, 20000, %s, 'finished', %s, %s FROM runs"
        " WHERE run_id = %s",
        ("running" if ended_at is None else "ended", at, ended_at, run_id),
    )
    if ended_at is None:
        return
    await session.execute(
        "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,"
        " granted_at, ends_at) SELECT 'lea_' || run_id, tenant_id, project_id, run_id, 1, 'nod_1', 0, 'A', 'released',"
        " %s, %s FROM runs WHERE run_id = %s",
        (at, ended_at, run_id),
    )
    await session.execute(
        "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
        " SELECT lease_id, accelerator_no, tenant_id, project_id, tstzrange(%s, %s) FROM leases, accelerators"
        " WHERE run_id = %s",
        (at, ended_at, run_id),
    )


def live(truth: Truth) -> PostgresStarts:
    return PostgresStarts(truth, np.random.default_rng(1))


async def test_the_plan_of_a_cycle_is_told(truth: Truth) -> None:
    now = await seeded(truth)
    async with truth.transaction() as session:
        await submit(session, "run_1")
    queue = [fleet.gang(1, 8, run="run_1", hours=9)]
    held = fleet.lease("a", 8, hours=9, granted_at=now)
    found = fleet.snapshot([fleet.node("a")], [replace(held, ends_at=now + timedelta(hours=9))], queue)
    standing = Standing("best_fit")
    standing.take_in(found, now.timestamp())
    plan = await live(truth).tell(decide_on(standing, now), standing, found, now)
    [wait] = plan.waits
    assert wait.estimate is not None
    assert (wait.estimate.likely_at - now).total_seconds() == pytest.approx(100, rel=0.01)
    assert await kept(truth) == [("run_1", None, False)]


async def kept(truth: Truth, scope: Scope | None = None) -> list[tuple[str, str | None, bool]]:
    scope = scope or Scope(tenant_id=None, actor="test")
    async with truth.transaction(scope) as session:
        rows = await fetch_all(session, "SELECT * FROM start_estimates ORDER BY run_id, asked_at")
    return [(row["run_id"], row["fate"], row["started_at"] is not None) for row in rows]


async def test_an_estimate_goes_by_the_lifetimes_on_record_and_its_outcome_is_written_once(
    truth: Truth,
) -> None:
    now = await seeded(truth)
    async with truth.transaction() as session:
        await submit(session, "run_1")
    one, queue = live(truth), [gang("run_1", models=("A",))]
    busy = {"A": [(ONE, now.timestamp())]}
    told = (await one.cycle(now, POOLS, busy, queue))["run_1"]
    assert (told.likely_at - now).total_seconds() == pytest.approx(100)
    assert await kept(truth) == [("run_1", None, False)]
    async with truth.transaction() as session:
        await granted(session, "run_1", now + timedelta(seconds=90))
    for _ in range(2):
        await one.cycle(now + timedelta(seconds=95), POOLS, busy, [])
    assert await kept(truth) == [("run_1", "held", True)]


async def test_a_controller_that_takes_over_loses_no_outcome_and_asks_nobody_twice(truth: Truth) -> None:
    now = await seeded(truth)
    async with truth.transaction() as session:
        for number in (1, 2, 3):
            await submit(session, f"run_{number}", "b" if number == 3 else "a")
    queue = [gang(f"run_{number}", models=("A",)) for number in (1, 2, 3)]
    busy = {"A": [(ONE, now.timestamp())]}
    first = live(truth)
    for after_s in (0, 1):
        await first.cycle(now + timedelta(seconds=after_s), POOLS, busy, queue)
    async with truth.transaction() as session:  # while nobody leads, one starts and one is cancelled
        await granted(session, "run_1", now + timedelta(seconds=100))
        await session.execute("UPDATE runs SET state = 'cancelled', ended_at = now() WHERE run_id = 'run_2'")
    second = live(truth)
    told = await second.cycle(now + timedelta(days=1), POOLS, busy, queue[2:])
    assert await kept(truth) == [("run_1", "held", True), ("run_2", "gone", False), ("run_3", "late", False)]
    assert (told["run_3"].held_ratio, told["run_3"].outcomes) == (0.5, 2)
    third = live(truth)
    await third.cycle(now + timedelta(days=2), POOLS, busy, queue[2:])
    assert len(await kept(truth)) == 3
    assert await kept(truth, Scope(tenant_id="ten_b", actor="key")) == [("run_3", "late", False)]


async def test_lifetimes_that_end_later_are_learned_once_each(truth: Truth) -> None:
    now = await seeded(truth)
    one, busy = live(truth), {"A": [(ONE, now.timestamp())]}
    queue = [gang("run_1", models=("A",))]
    async with truth.transaction() as session:
        await submit(session, "run_1")
    await one.cycle(now, POOLS, busy, queue)
    async with truth.transaction() as session:
        for number in range(40):
            run_id = f"run_new{number}"
            await submit(session, run_id)
            await granted(session, run_id, now + timedelta(seconds=20 * number), lasts_s=10)
    later = now + timedelta(seconds=800)
    told = (await one.cycle(later, POOLS, {"A": [(ONE, later.timestamp())]}, queue))["run_1"]
    assert (told.likely_at - later).total_seconds() == pytest.approx(10)  # now most last so long
