"""Orders and reports on a real PostgreSQL: harmless repeats, the fence, skewed clocks, silence, the end of a lease."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from baseai.engine.order import NodeReport, Sighting
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict
from baseai.ground.identity import NodeId, RunId, mint
from baseai.scheduling.decide import decide
from baseai.truth.session import Scope, Truth, fetch_all
from baseai.wiring.household import Household
from baseai.wiring.rooms import Rooms

pytestmark = pytest.mark.anyio
OPERATOR = Scope(tenant_id=None, actor="test")
SPEC = "type: task\nname: job\nnodes: {nodes}\ncommands: [sleep 1]\nretry: true\n"


class Yard:
    """A fleet of nodes of one CPU slot each, and runs on it."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.nodes: list[NodeId] = []

    async def join(self, name: str) -> NodeId:
        token, _ = await self.rooms.tenancy.make_join_token("local", actor="test")
        facts = MachineFacts(
            name=name, address="127.0.0.1", isolation="none", container_runtime=None, cores=1, memory_mib=4096,
            disk_mib=4096, boot_id="b", version="", protocol=1,
            devices=(DeviceFacts(serial=f"slot-{name}", model="cpu-slot", index=0, memory_mib=0),),
        )  # fmt: skip
        node_id, _ = await self.rooms.fleet.join(token, facts)
        self.nodes.append(node_id)
        return node_id

    async def submit(self, nodes: int = 1) -> str:
        project = await self.rooms.tenancy.project(OPERATOR, None, None)
        spec = self.rooms.admission.read(SPEC.format(nodes=nodes), "job.yaml")
        run_id = RunId(mint("run"))
        await self.rooms.runs.submit(OPERATOR, project, run_id, spec, (), submitted_by="test")
        await self.rooms.scheduler.tick()
        return run_id

    async def leases(self, run_id: str) -> list[dict[str, Any]]:
        return await self.rows(
            "SELECT * FROM leases WHERE run_id = %s ORDER BY attempt_no, node_rank", run_id
        )

    async def state(self, run_id: str) -> str:
        [row] = await self.rows("SELECT state FROM runs WHERE run_id = %s", run_id)
        return str(row["state"])

    async def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        async with self.rooms.truth.transaction() as session:
            return await fetch_all(session, query, params)

    async def write(self, query: str, *params: object) -> None:
        async with self.rooms.truth.transaction() as session:
            await session.execute(query, params)  # type: ignore[arg-type]

    async def report(
        self,
        lease: dict[str, Any],
        *kinds: str,
        gone: bool = False,
        skew: timedelta = timedelta(),
        **said: Any,
    ) -> Any:
        at = now_utc() + skew
        sightings = tuple(
            Sighting(
                event_id=f"{lease['lease_id']}-{kind}", at=at, kind=kind, lease_id=lease["lease_id"],
                attempt_no=lease["attempt_no"], pid=7, **(said if kind != "started" else {}),
            )
            for kind in kinds
        )  # fmt: skip
        return await self.rooms.engine.take(
            lease["node_id"],
            NodeReport(
                boot_id="b", sent_at=at, sightings=sightings, gone=(lease["lease_id"],) if gone else (),
                alive=() if gone else ((lease["lease_id"], 7),),
            ),
        )  # fmt: skip


@pytest.fixture
async def yard(truth: Truth, tmp_path: Path) -> Yard:
    household = Household(data=tmp_path / "home")
    household.make()
    rooms = Rooms(truth, household)
    await rooms.tenancy.make_tenant("acme", actor="test")
    return Yard(rooms)


async def test_a_run_goes_from_the_queue_to_its_end_by_what_its_node_reports(yard: Yard) -> None:
    await yard.join("one")
    run_id = await yard.submit()
    assert await yard.state(run_id) == "starting"
    [lease] = await yard.leases(run_id)
    orders = await yard.rooms.engine.orders(lease["node_id"])
    assert [order.run_id for order in orders.orders] == [run_id]
    await yard.report(lease, "started")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "running"
    await yard.report(lease, "exited", gone=True, exit_code=0, reason="finished")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "succeeded"
    assert (await yard.rooms.engine.orders(lease["node_id"])).orders == ()
    events = await yard.rows("SELECT event FROM events WHERE subject_id = %s ORDER BY event_no", run_id)
    assert [row["event"] for row in events] == ["submit", "grant", "begin", "stop", "succeed"]


async def test_a_report_taken_twice_is_taken_once(yard: Yard) -> None:
    await yard.join("one")
    run_id = await yard.submit()
    [lease] = await yard.leases(run_id)
    first = await yard.report(lease, "started")
    before = await yard.leases(run_id)
    again = await yard.report(lease, "started")
    assert first.accepted == again.accepted
    assert (await yard.leases(run_id))[0]["observed_from"] == before[0]["observed_from"]


async def test_a_word_about_an_older_attempt_is_refused_for_good(yard: Yard) -> None:
    await yard.join("one")
    run_id = await yard.submit()
    [old] = await yard.leases(run_id)
    await yard.report(old, "started")
    await yard.report(old, "exited", gone=True, exit_code=-9, reason="process_lost")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "queued"
    await yard.rooms.scheduler.tick()
    _, new = await yard.leases(run_id)
    assert new["attempt_no"] == 2
    taken = await yard.rooms.engine.take(
        old["node_id"],
        NodeReport(
            boot_id="b", sent_at=now_utc(), alive=(), gone=(),
            sightings=(
                Sighting(
                    event_id="late", at=now_utc(), kind="progress", lease_id=old["lease_id"], attempt_no=1,
                    payload={"kind": "checkpoint", "step": 9, "path": "x", "digest": "d", "bytes": 1, "save_s": 0.1,
                             "stall_ms": 1},
                ),
            ),
        ),
    )  # fmt: skip
    assert taken.accepted == ()
    assert "attempt 1 is over" in taken.refused["late"]
    assert await yard.rows("SELECT * FROM checkpoints") == []


@pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(hours=3)], ids=["behind", "ahead"])
async def test_time_is_counted_by_the_database_whatever_the_nodes_clock_says(
    yard: Yard, skew: timedelta
) -> None:
    await yard.join("one")
    run_id = await yard.submit()
    [lease] = await yard.leases(run_id)
    await yard.report(lease, "started", skew=skew)
    await yard.report(lease, "exited", gone=True, skew=skew, exit_code=0, reason="finished")
    [lease] = await yard.leases(run_id)
    assert lease["granted_at"] <= lease["observed_from"] < lease["observed_until"] <= lease["released_at"]
    assert lease["observed_until"] - lease["observed_from"] < timedelta(seconds=10)


async def test_a_silent_node_keeps_its_leases_and_nobody_else_gets_the_run(yard: Yard) -> None:
    one = await yard.join("one")
    run_id = await yard.submit()
    [lease] = await yard.leases(run_id)
    await yard.report(lease, "started")
    await yard.rooms.engine.settle()
    await yard.join("two")
    await yard.write("UPDATE nodes SET seen_at = now() - interval '1 hour' WHERE node_id = %s", one)
    await yard.rooms.engine.watch()
    await yard.rooms.engine.settle()
    await yard.rooms.scheduler.tick()
    [lease] = await yard.leases(run_id)
    assert lease["state"] == "unconfirmed"
    assert await yard.state(run_id) == "running"
    await yard.report(lease)
    [lease] = await yard.leases(run_id)
    assert lease["state"] == "active"


async def test_a_lease_ends_at_its_end_also_when_its_node_never_speaks_again(yard: Yard) -> None:
    one = await yard.join("one")
    run_id = await yard.submit()
    [lease] = await yard.leases(run_id)
    await yard.report(lease, "started")
    await yard.write("UPDATE nodes SET seen_at = now() - interval '1 hour' WHERE node_id = %s", one)
    await yard.write(
        "UPDATE leases SET granted_at = now() - interval '2 hours', ends_at = now() - interval '1 minute'"
        " WHERE run_id = %s",
        run_id,
    )
    await yard.rooms.engine.watch()
    await yard.rooms.engine.settle()
    [lease] = await yard.leases(run_id)
    assert (lease["state"], lease["exit_reason"]) == ("released", "lease_ended")
    assert lease["released_at"] == lease["ends_at"]
    assert await yard.state(run_id) == "failed"


async def test_declaring_a_node_dead_frees_its_run_and_a_node_that_speaks_is_not_dead(yard: Yard) -> None:
    one = await yard.join("one")
    run_id = await yard.submit()
    [lease] = await yard.leases(run_id)
    await yard.report(lease, "started")
    await yard.rooms.engine.settle()
    with pytest.raises(Conflict, match="drain it instead"):
        await yard.rooms.engine.declare_dead(one, actor="test")
    await yard.write("UPDATE nodes SET seen_at = now() - interval '1 hour' WHERE node_id = %s", one)
    await yard.rooms.engine.declare_dead(one, actor="test")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "queued"
    await yard.join("two")
    await yard.rooms.scheduler.tick()
    assert [lease["attempt_no"] for lease in await yard.leases(run_id)] == [1, 2]


async def test_a_gang_that_loses_one_node_is_stopped_on_the_other(yard: Yard) -> None:
    await yard.join("one")
    await yard.join("two")
    run_id = await yard.submit(nodes=2)
    first, second = await yard.leases(run_id)
    for lease in (first, second):
        await yard.report(lease, "started")
    await yard.rooms.engine.settle()
    await yard.report(second, "exited", gone=True, exit_code=-9, reason="process_lost")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "recovering"
    [order] = (await yard.rooms.engine.orders(first["node_id"])).orders
    assert (order.stop, order.stop_reason) == (True, "peer_failed")
    await yard.report(first, "exited", gone=True, exit_code=143, reason="peer_failed")
    await yard.rooms.engine.settle()
    assert await yard.state(run_id) == "queued"


async def test_a_grant_on_a_node_that_was_cordoned_meanwhile_is_not_written(yard: Yard) -> None:
    await yard.join("one")
    project = await yard.rooms.tenancy.project(OPERATOR, None, None)
    spec = yard.rooms.admission.read(SPEC.format(nodes=1), "job.yaml")
    run_id = RunId(mint("run"))
    await yard.rooms.runs.submit(OPERATOR, project, run_id, spec, (), submitted_by="test")
    snapshot, now = await yard.rooms.queue.snapshot()
    await yard.rooms.fleet.steer("one", NodeEvent.CORDON, actor="test", reason=None)
    [stale] = await yard.rooms.queue.commit(decide(snapshot, now))
    assert "left the state ready" in stale.why
    assert await yard.state(run_id) == "queued"
    assert await yard.leases(run_id) == []
