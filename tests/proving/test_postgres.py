"""Burn-ins on a real PostgreSQL: a node's way from joining to ready, crashes in between, and who pays."""

from pathlib import Path
from typing import Any

import pytest

from baseai.engine.order import NodeReport, Sighting
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict, Refused
from baseai.ground.identity import NodeId, RunId, mint
from baseai.proving.postgres import Proving
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_all
from baseai.wiring.household import Household
from baseai.wiring.rooms import CatalogPeaks, Rooms

pytestmark = pytest.mark.anyio
OPERATOR = Scope(tenant_id=None, actor="test")
SOUND = {"fp32": 50_000.0, "bf16": 700_000.0}
WORK = "type: task\nname: customer\nresources: {{gpu: 'H100:{count}'}}\ncommands: [sleep 1]\n"


class Floor:
    """A fleet whose nodes are played by hand, and whose telemetry is away."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.proving = self.proving_of(rooms)

    @staticmethod
    def proving_of(rooms: Rooms) -> Proving:
        """A loop of its own, as a second controller would have."""
        return Proving(
            rooms.truth,
            runs=rooms.runs,
            house=rooms.tenancy,
            fleet=rooms.fleet,
            peaks=CatalogPeaks(rooms.catalog),
        )

    async def join(self, name: str, **models: int) -> NodeId:
        token, _ = await self.rooms.tenancy.make_join_token("local", actor="test")
        devices = [
            (model.replace("_", "-"), number) for model, count in models.items() for number in range(count)
        ]
        facts = MachineFacts(
            name=name, address="127.0.0.1", isolation="user", container_runtime=None, cores=8, memory_mib=65_536,
            disk_mib=65_536, boot_id="b", version="", protocol=1,
            devices=tuple(
                DeviceFacts(serial=f"{name}-{model}-{number}", model=model, index=number, memory_mib=0)
                for model, number in devices
            ),
        )  # fmt: skip
        node_id, _ = await self.rooms.fleet.join(token, facts)
        return node_id

    async def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        async with self.rooms.truth.transaction() as session:
            return await fetch_all(session, query, params)

    async def state(self, node_id: str) -> str:
        [row] = await self.rows("SELECT state FROM nodes WHERE node_id = %s", node_id)
        return str(row["state"])

    async def burn_ins(self, node_id: str) -> list[dict[str, Any]]:
        return await self.rows(
            "SELECT b.*, r.state FROM burn_ins b LEFT JOIN runs r USING (run_id) WHERE b.node_id = %s"
            " ORDER BY b.asked_at, b.model", node_id,
        )  # fmt: skip

    async def cycle(self) -> None:
        """What the controller does in one round."""
        await self.rooms.engine.settle()
        await self.proving.step()
        await self.rooms.scheduler.tick()

    async def report(
        self, lease: dict[str, Any], *sightings: tuple[str, dict[str, Any]], gone: bool = False
    ) -> None:
        at = now_utc()
        await self.rooms.engine.take(
            lease["node_id"],
            NodeReport(
                boot_id="b", sent_at=at, gone=(lease["lease_id"],) if gone else (),
                alive=() if gone else ((lease["lease_id"], 7),),
                sightings=tuple(
                    Sighting(
                        event_id=mint("obs"), at=at, kind=kind, lease_id=lease["lease_id"],
                        attempt_no=lease["attempt_no"], pid=7, **said,
                    )
                    for kind, said in sightings
                ),
            ),
        )  # fmt: skip

    async def lease_of(self, run_id: str) -> dict[str, Any]:
        [*_, lease] = await self.rows(
            "SELECT *, (SELECT array_agg(accelerator_id ORDER BY accelerator_no) FROM lease_accelerators"
            " JOIN accelerators USING (accelerator_no) WHERE lease_id = l.lease_id) AS accelerator_ids"
            " FROM leases l WHERE run_id = %s ORDER BY attempt_no", run_id,
        )  # fmt: skip
        return lease

    async def perform(self, run_id: str, gflops: dict[str, float] = SOUND, wrong_rows: int = 0) -> None:
        """Play the node that carries the test out and reports these figures of every accelerator."""
        lease = await self.lease_of(run_id)
        figures = [
            figure
            for accelerator_id in lease["accelerator_ids"]
            for number_format, value in gflops.items()
            for figure in (
                {"test": "gemm", "variant": number_format, "accelerator_id": accelerator_id, "value": value},
                {"test": "gemm_wrong", "variant": number_format, "accelerator_id": accelerator_id,
                 "value": wrong_rows},
            )
        ]  # fmt: skip
        result = {"kind": "result", "profile": "standard", "software": {"torch": "2"}, "figures": figures}
        await self.report(lease, ("started", {}), ("progress", {"payload": result}))
        await self.report(lease, ("exited", {"exit_code": 0, "reason": "finished"}))
        await self.report(lease, gone=True)
        await self.rooms.engine.settle()

    async def admitted(self, name: str, count: int = 2) -> NodeId:
        """A node that has passed its burn-in."""
        node_id = await self.join(name, H100_SXM=count)
        await self.cycle()
        [burn_in] = await self.burn_ins(node_id)
        await self.perform(burn_in["run_id"])
        await self.proving.step()
        await self.proving.step()
        assert await self.state(node_id) == "ready"
        return node_id

    async def submit(self, count: int) -> str:
        spec = self.rooms.admission.read(WORK.format(count=count), "work.yaml")
        run_id = RunId(mint("run"))
        project = await self.rooms.tenancy.project(OPERATOR, "acme", None)
        await self.rooms.admission.check(run_id, project[0], spec)
        await self.rooms.runs.submit(OPERATOR, project, run_id, spec, (), submitted_by="test")
        return run_id


@pytest.fixture
async def floor(truth: Truth, tmp_path: Path) -> Floor:
    household = Household(data=tmp_path / "home")
    household.make()
    rooms = Rooms(truth, household)
    await rooms.tenancy.make_tenant("acme", actor="test")
    return Floor(rooms)


async def test_a_new_node_is_ready_once_its_test_has_passed(floor: Floor) -> None:
    node_id = await floor.join("new", H100_SXM=2, cpu_slot=4)
    assert await floor.state(node_id) == "burn_in"
    customer = await floor.submit(1)  # let in, for the node will be ready soon
    await floor.cycle()
    [burn_in] = await floor.burn_ins(node_id)
    assert (burn_in["occasion"], burn_in["profile"], burn_in["model"], burn_in["state"]) == (
        "joining", "standard", "H100-SXM", "starting",
    )  # fmt: skip
    [order] = (await floor.rooms.engine.orders(node_id)).orders
    assert (order.kind, len(order.devices)) == ("burn_in", 2)
    await floor.perform(burn_in["run_id"])
    await floor.cycle()
    await floor.cycle()
    assert await floor.state(node_id) == "ready"
    [lease] = await floor.rows("SELECT node_id FROM leases WHERE run_id = %s", customer)
    assert lease["node_id"] == node_id
    found = await floor.proving.figures_of(PLATFORM, "new")
    gemm = {(one["variant"], one["device_index"]): one for one in found["figures"] if one["test"] == "gemm"}
    assert len(gemm) == 4
    assert gemm["bf16", 0]["ratio"] == pytest.approx(700 / 989, abs=0.005)
    assert {one["state"] for one in found["figures"] if one["test"] == "ecc"} == {"unsupported"}


@pytest.mark.parametrize(
    ("figures", "wrong_rows", "said"),
    [
        pytest.param({"fp32": 1_000.0}, 0, "of the data sheet's", id="far below the data sheet"),
        pytest.param(SOUND, 3, "3 rows came out wrong", id="wrong results"),
        pytest.param({}, 0, "without a figure", id="nothing measured"),
    ],
)
async def test_a_node_that_fails_is_repaired_with_the_figure_that_failed(
    floor: Floor, figures: dict[str, float], wrong_rows: int, said: str
) -> None:
    node_id = await floor.join("bad", H100_SXM=1)
    await floor.cycle()
    [burn_in] = await floor.burn_ins(node_id)
    await floor.perform(burn_in["run_id"], figures, wrong_rows)
    await floor.proving.step()
    assert await floor.state(node_id) == "repairing"
    [event] = await floor.rows(
        "SELECT * FROM events WHERE subject_id = %s AND to_state = 'repairing'", node_id
    )
    assert said in event["sentence"]
    await floor.rooms.fleet.steer("bad", NodeEvent.VERIFY, actor="test", reason="a board was replaced")
    await floor.cycle()
    [_, again] = await floor.burn_ins(node_id)
    assert (again["occasion"], again["verdict"]) == ("re_entry", None)
    await floor.perform(again["run_id"])
    await floor.cycle()
    assert await floor.state(node_id) == "ready"


async def test_a_node_of_slots_alone_is_ready_at_once(floor: Floor) -> None:
    node_id = await floor.join("laptop", cpu_slot=4)
    assert await floor.state(node_id) == "ready"
    await floor.cycle()
    assert await floor.burn_ins(node_id) == []


async def test_two_controllers_ask_once(floor: Floor) -> None:
    node_id = await floor.join("new", H100_SXM=1)
    for loop in (floor.proving, floor.proving_of(floor.rooms), floor.proving):
        await loop.step()
    assert len(await floor.burn_ins(node_id)) == 1


async def test_a_test_whose_asker_died_before_it_was_submitted_is_submitted(floor: Floor) -> None:
    node_id = await floor.join("new", H100_SXM=1)

    class Dying:
        async def house(self) -> Any:
            raise RuntimeError("killed here")

    dying = Proving(
        floor.rooms.truth, runs=floor.rooms.runs, house=Dying(), fleet=floor.rooms.fleet,
        peaks=CatalogPeaks(floor.rooms.catalog),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="killed"):
        await dying.step()
    [orphan] = await floor.burn_ins(node_id)
    assert orphan["state"] is None
    await floor.proving.step()
    [burn_in] = await floor.burn_ins(node_id)
    assert (burn_in["run_id"], burn_in["state"]) == (orphan["run_id"], "queued")


async def test_a_result_is_taken_once_and_a_node_moved_by_whoever_comes_next(floor: Floor) -> None:
    node_id = await floor.join("new", H100_SXM=2)
    await floor.cycle()
    [burn_in] = await floor.burn_ins(node_id)
    await floor.perform(burn_in["run_id"])
    assert await floor.proving._take() == 1  # and killed before the node was moved
    assert await floor.proving._take() == 0
    other = floor.proving_of(floor.rooms)
    await other.step()
    await floor.proving.step()
    assert await floor.state(node_id) == "ready"
    [count] = await floor.rows("SELECT count(*) AS figures FROM figures")
    assert count["figures"] == 2 * 4 + 2 * 5  # products and whether they are right, and vitals nobody saw


async def test_a_customer_takes_a_ready_node_from_its_test(floor: Floor) -> None:
    node_id = await floor.admitted("gpu")
    [asked] = await floor.proving.ask("gpu", "quick", actor="olga")
    await floor.cycle()
    lease = await floor.lease_of(asked["run_id"])
    await floor.report(lease, ("started", {}))
    await floor.rooms.engine.settle()
    [offer] = await floor.rooms.views.offers()
    assert offer["free"] == 2
    customer = await floor.submit(1)
    await floor.rooms.scheduler.tick()
    [order] = (await floor.rooms.engine.orders(node_id)).orders
    assert (order.stop, order.stop_reason, order.stop_grace_s) == (True, "preempted", 2.0)
    [wait] = await floor.rows("SELECT wait FROM runs WHERE run_id = %s", customer)
    assert wait["wait"]["code"] == "clearing"
    await floor.report(lease, ("exited", {"exit_code": 143, "reason": "preempted"}), gone=True)
    await floor.cycle()
    [run] = await floor.rows("SELECT state, interruptions FROM runs WHERE run_id = %s", asked["run_id"])
    assert run == {"state": "queued", "interruptions": 0}
    assert (await floor.lease_of(customer))["state"] == "granted"


async def test_nobody_pays_for_a_test(floor: Floor) -> None:
    node_id = await floor.admitted("gpu")
    [burn_in] = await floor.burn_ins(node_id)
    await floor.rooms.meter.meter()
    await floor.rooms.agreements.rater.rate()
    await floor.rooms.meter.post()
    lines = await floor.rows("SELECT * FROM usage_lines WHERE run_id = %s", burn_in["run_id"])
    assert {(line["billable"], line["reason"]) for line in lines} == {(False, "burn_in")}
    revenue = await floor.rows("SELECT * FROM transfers WHERE credit_account LIKE 'revenue:%%'")
    assert revenue == []
    assert await floor.rooms.money.cost("tenant", None, Scope(tenant_id="acme", actor="test")) == []


async def test_a_ready_node_that_errs_takes_nobody_new(floor: Floor) -> None:
    node_id = await floor.admitted("gpu")
    [asked] = await floor.proving.ask("gpu", "quick", actor="olga")
    await floor.cycle()
    await floor.perform(asked["run_id"], SOUND, wrong_rows=1)
    await floor.proving.step()
    assert await floor.state(node_id) == "cordoned"
    await floor.rooms.fleet.steer("gpu", NodeEvent.UNCORDON, actor="test", reason="seen, and known")
    await floor.proving.step()
    assert await floor.state(node_id) == "ready"  # an operator's word stands


async def test_a_test_that_was_stopped_leaves_the_node_to_its_operator(floor: Floor) -> None:
    node_id = await floor.join("new", H100_SXM=1)
    await floor.proving.step()
    [burn_in] = await floor.burn_ins(node_id)
    from baseai.workloads.reason import Reason

    await floor.rooms.runs.ask_to_stop(OPERATOR, burn_in["run_id"], Reason.STOPPED_BY_OPERATOR)
    for _ in range(3):
        await floor.cycle()
    assert (await floor.state(node_id), len(await floor.burn_ins(node_id))) == ("burn_in", 1)
    [again] = await floor.proving.ask("new", "quick", actor="olga")
    await floor.cycle()
    await floor.perform(again["run_id"])
    await floor.cycle()
    assert await floor.state(node_id) == "ready"


async def test_what_cannot_be_asked_is_said(floor: Floor) -> None:
    await floor.admitted("gpu")
    with pytest.raises(Refused, match="no profile 'gentle'"):
        await floor.proving.ask("gpu", "gentle", actor="olga")
    await floor.proving.ask("gpu", "quick", actor="olga")
    with pytest.raises(Conflict, match="under way"):
        await floor.proving.ask("gpu", "quick", actor="olga")
    await floor.rooms.fleet.steer("gpu", NodeEvent.DRAIN, actor="test", reason=None)
    with pytest.raises(Conflict, match="gpu is draining"):
        await floor.proving.ask("gpu", "quick", actor="olga")


async def test_the_house_is_nobody_s_customer(floor: Floor) -> None:
    await floor.admitted("gpu")
    tenancy = floor.rooms.tenancy
    assert [row["name"] for row in await tenancy.tenants(PLATFORM)] == ["acme"]
    with pytest.raises(Refused, match="platform's own"):
        await tenancy.make_tenant("house", actor="test")
    customer = Scope(tenant_id=(await tenancy.tenants(PLATFORM))[0]["tenant_id"], actor="test")
    assert (await floor.rooms.views.runs(customer, everything=True))[0] == []
    assert len((await floor.rooms.views.runs(PLATFORM, everything=True))[0]) == 1


async def test_a_loss_against_its_own_past_is_an_alert(floor: Floor) -> None:
    node_id = await floor.admitted("gpu", count=1)
    for bf16 in (700_000.0, 702_000.0, 698_000.0, 560_000.0):
        [asked] = await floor.proving.ask("gpu", "standard", actor="olga")
        await floor.cycle()
        await floor.perform(asked["run_id"], {"fp32": 50_000.0, "bf16": bf16})
        await floor.proving.step()
    assert await floor.state(node_id) == "ready"  # 57 % of the peak will still do
    found = await floor.proving.figures_of(PLATFORM, "gpu")
    figures = {(one["test"], one["variant"]): one for one in found["figures"]}
    bf16 = figures["gemm", "bf16"]
    assert bf16["own_ratio"] == pytest.approx(0.8)
    assert bf16["alert"] == "80% of its own median over 4 tests"
    assert figures["gemm", "fp32"]["alert"] is None


async def test_an_idle_ready_node_is_measured_again_and_not_while_it_is_in_use(floor: Floor) -> None:
    node_id = await floor.admitted("gpu")

    async def age(days: int) -> None:
        async with floor.rooms.truth.transaction() as session:
            await session.execute(
                "UPDATE burn_ins SET asked_at = asked_at - make_interval(days => %s)", (days,)
            )
            await session.execute(
                "UPDATE leases SET granted_at = granted_at - interval '1 day', released_at = released_at"
                " - interval '1 day' WHERE state = 'released'"
            )

    loop = floor.proving_of(floor.rooms)
    await loop.step()
    assert len(await floor.burn_ins(node_id)) == 1
    await age(8)
    await floor.proving_of(floor.rooms).step()
    [_, periodic] = await floor.burn_ins(node_id)
    assert (periodic["occasion"], periodic["profile"], periodic["state"]) == ("periodic", "quick", "queued")
    await floor.submit(2)
    await floor.rooms.scheduler.tick()  # the customer first
    await floor.proving.step()
    await floor.proving.step()
    [_, periodic] = await floor.burn_ins(node_id)
    assert (periodic["state"], periodic["verdict"]) == ("cancelled", "void")
    await floor.proving_of(floor.rooms).step()
    assert len(await floor.burn_ins(node_id)) == 2


async def test_a_node_that_leaves_takes_its_tests_along(floor: Floor) -> None:
    node_id = await floor.join("new", H100_SXM=1)
    await floor.proving.step()
    for event in (NodeEvent.REPAIR, NodeEvent.RETURN, NodeEvent.RETIRE):
        await floor.rooms.fleet.steer("new", event, actor="test", reason=None)
    await floor.cycle()
    await floor.cycle()
    [burn_in] = await floor.burn_ins(node_id)
    assert (burn_in["state"], burn_in["verdict"]) == ("cancelled", "void")
