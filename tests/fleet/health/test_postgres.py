"""Health on a real PostgreSQL and a real metric store behind its socket: from a reading to a repaired node."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from baseai.fleet.health.desk.postgres import HealthDesk
from baseai.fleet.health.playbook import Begin, Steer, Tell
from baseai.fleet.health.postgres import Judged, PostgresJudge
from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.fleet.postgres import Fleet
from baseai.ground.clock import now_utc
from baseai.ground.fault import Conflict, NotFound
from baseai.ground.identity import NodeId, mint
from baseai.telemetry.field import ACCELERATOR, NODE, Family, State
from baseai.telemetry.memory import MemoryStore
from baseai.telemetry.remote import RemoteStore
from baseai.telemetry.sample import Batch, code_of
from baseai.telemetry.store import Place
from baseai.telemetry.witness import Witness
from baseai.tenancy.postgres import Tenancy
from baseai.truth.session import Scope, Truth, fetch_all
from tests.fleet.health.ward import POLICY, WELL
from tests.telemetry.near import remote

pytestmark = pytest.mark.anyio
OPERATOR = Scope(tenant_id=None, actor="ana")


class Yard:
    """A fleet of nodes with eight accelerators, judged tick by tick."""

    def __init__(self, truth: Truth, store: MemoryStore, asked: RemoteStore) -> None:
        self.truth = truth
        self.store = store
        self.asked = asked
        self.tenancy = Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)
        self.fleet = Fleet(truth, self.tenancy, lambda model: None)
        self.health = HealthDesk(truth, POLICY)
        self.judging = PostgresJudge(truth, POLICY)

    async def join(self, name: str, count: int = 8) -> NodeId:
        token, _ = await self.tenancy.make_join_token("local", actor="test")
        node_id, _ = await self.fleet.join(token, machine(name, count))
        if await self.state(node_id) != "ready":
            await self.fleet.steer(name, NodeEvent.ADMIT, actor="test", reason=None)
        places = {f"{name}/{n}": Place(node_id=node_id, site="local", model="H100-SXM") for n in range(count)}
        self.store.place(ACCELERATOR, places)
        self.store.place(NODE, {node_id: Place(node_id=node_id, site="local")})
        return node_id

    def read(
        self, node_id: NodeId, name: str, changed: Mapping[str, Mapping[str, float]] | None = None
    ) -> None:
        """One tick of the node, at this instant."""
        at_ms = round(now_utc().timestamp() * 1000)
        keys = [f"{name}/{n}" for n in range(8)]
        self.store.append(batch(ACCELERATOR, node_id, keys, at_ms, changed or {}))
        self.store.append(batch(NODE, node_id, [node_id], at_ms, changed or {}))

    async def judge(self, store: RemoteStore | None = None) -> Judged:
        return await self.judging.tick(store or self.asked)

    async def say(self, node_id: NodeId, kind: str, key: str | None, **told: Any) -> str:
        event_id = told.pop("event_id", mint("wit"))
        witness = Witness(
            event_id=event_id, at=told.pop("at", now_utc()), kind=kind, key=key, code=told.pop("code", None),
            severity=told.pop("severity", "critical"), sentence=told.pop("sentence", ""), payload=told,
        )  # fmt: skip
        assert await self.health.witness(node_id, [witness]) == [event_id]
        return str(event_id)

    async def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        async with self.truth.transaction() as session:
            return await fetch_all(session, query, params)

    async def write(self, query: str, *params: object) -> None:
        async with self.truth.transaction() as session:
            await session.execute(query, params)  # type: ignore[arg-type]

    async def state(self, node_id: NodeId) -> str:
        [row] = await self.rows("SELECT state FROM nodes WHERE node_id = %s", node_id)
        return str(row["state"])

    async def lease(self, node_id: NodeId, serial: str, run: str = "run_1", tenant: str = "acme") -> None:
        """Let a run hold one accelerator of the node."""
        if not await self.rows("SELECT FROM tenants WHERE name = %s", tenant):
            await self.tenancy.make_tenant(tenant, actor="test")
        [project] = await self.rows(
            "SELECT tenant_id, project_id FROM projects JOIN tenants t USING (tenant_id) WHERE t.name = %s LIMIT 1",
            tenant,
        )
        ids = (project["tenant_id"], project["project_id"])
        await self.write(
            "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
            " VALUES (%s, %s, %s, %s, 'task', '{}', 50, 'running', 't')", run, *ids, run,
        )  # fmt: skip
        await self.write(
            "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
            " VALUES (%s, 1, %s, %s, 1, 20000, 'running')", run, *ids,
        )  # fmt: skip
        await self.write(
            "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,"
            " granted_at, ends_at) VALUES (%s, %s, %s, %s, 1, %s, 0, 'H100-SXM', 'active', now() - interval '1 h',"
            " now() + interval '1 h')", f"lea_{run}", *ids, run, node_id,
        )  # fmt: skip
        await self.write(
            "INSERT INTO lease_accelerators SELECT %s, accelerator_no, %s, %s, tstzrange(now() - interval '1 h',"
            " now() + interval '1 h') FROM accelerators WHERE serial = %s", f"lea_{run}", *ids, serial,
        )  # fmt: skip

    async def release(self, run: str = "run_1", reason: str = "finished", *, ago_s: float = 0.0) -> None:
        await self.write(
            "UPDATE leases SET state = 'released', released_at = now() - make_interval(secs => %s), exit_reason = %s"
            " WHERE run_id = %s", ago_s, reason, run,
        )  # fmt: skip


def machine(name: str, count: int) -> MachineFacts:
    return MachineFacts(
        name=name, address="127.0.0.1", isolation="user", container_runtime=None, cores=8, memory_mib=1024,
        disk_mib=1024, boot_id="boot", version="1", protocol=1,
        devices=tuple(
            DeviceFacts(serial=f"{name}/{n}", model="H100-SXM", index=n, memory_mib=81_559, uuid=f"GPU-{name}-{n}",
                        pci=f"0000:{16 + n:02x}:00.0")
            for n in range(count)
        ),
    )  # fmt: skip


def batch(
    family: Family, node_id: NodeId, keys: list[str], at_ms: int, changed: Mapping[str, Mapping[str, float]]
) -> Batch:
    values = np.full((len(keys), len(family.fields)), np.nan)
    codes = np.full(values.shape, code_of(State.ABSENT), np.uint8)
    for row, key in enumerate(keys):
        for name, value in {**WELL[family.name], **changed.get(key, {})}.items():
            values[row, family.index[name]], codes[row, family.index[name]] = value, code_of(State.VALUE)
    return Batch(
        batch_id=mint("bat"), family=family, node_id=node_id, site="local", boot_id="boot", keys=tuple(keys),
        ts_ms=np.full(len(keys), at_ms, np.int64), values=values, codes=codes,
    )  # fmt: skip


@pytest.fixture
async def yard(truth: Truth) -> AsyncIterator[Yard]:
    store = MemoryStore()
    async with remote(store) as asked:
        yield Yard(truth, store, asked)


async def test_from_a_lost_device_to_a_tested_node(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.health.learn_steps(node_id, ["reboot", "reset", "paint it red"])
    await yard.lease(node_id, "gpu-07/3")
    yard.read(node_id, "gpu-07")
    assert (await yard.judge()).moves == ()
    await yard.say(
        node_id, "xid", "0000:13:00.0", code=79, sentence="NVRM: Xid (PCI:0000:13:00): 79, GPU has fallen off"
    )
    judged = await yard.judge()
    assert [type(move) for move in judged.moves] == [Steer, Begin]
    assert await yard.state(node_id) == "draining"
    told = await yard.health.health_of(OPERATOR, "gpu-07")
    assert told["health"] == "faulty"
    [verdict] = told["verdicts"]
    assert (verdict["subject"], verdict["health"], verdict["rules"]) == ("gpu-07/3", "faulty", ["xid.79"])
    [evidence] = told["evidence"]
    assert (evidence["rule"], evidence["action"], evidence["witnesses"]) == ("xid.79", "reboot", ["kernel"])
    [repair] = told["repairs"]
    assert (repair["step"], repair["state"], repair["by_agent"]) == ("reboot", "approved", True)
    assert (await yard.judge()).moves == (), "it waits for its leases"
    assert await yard.health.orders(node_id) == []
    await yard.release()
    assert [type(move) for move in (await yard.judge()).moves] == [Steer]
    assert await yard.state(node_id) == "repairing"
    assert [type(move) for move in (await yard.judge()).moves] == [Tell]
    [order] = await yard.health.orders(node_id)
    assert (order["step"], [each["serial"] for each in order["devices"]]) == ("reboot", ["gpu-07/3"])
    await yard.say(
        node_id, "repair", None, repair_id=order["repair_id"], ok=True, sentence="booted anew in 214 s"
    )
    assert await yard.health.orders(node_id) == []
    assert [type(move) for move in (await yard.judge()).moves] == [Steer]
    assert await yard.state(node_id) == "verifying"
    told = await yard.health.health_of(OPERATOR, "gpu-07")
    assert told["health"] == "healthy"
    assert told["evidence"][0]["ended_by"] == "repaired"
    assert told["repairs"][0]["outcome"] == "booted anew in 214 s"
    moves = await yard.rows(
        "SELECT event, actor FROM events WHERE subject_id = %s AND to_state IS NOT NULL ORDER BY event_no",
        node_id,
    )
    assert [row["event"] for row in moves][-3:] == ["drain", "repair", "verify"]
    assert {row["actor"] for row in moves[-3:]} == {"health"}


async def test_the_raw_counter_before_and_after_is_kept(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    yard.read(node_id, "gpu-07", {"gpu-07/3": {"ecc_ue": 2}})
    await yard.judge()
    yard.read(node_id, "gpu-07", {"gpu-07/3": {"ecc_ue": 5}})
    await yard.judge()
    [evidence] = (await yard.health.health_of(OPERATOR, node_id))["evidence"]
    assert (evidence["rule"], evidence["before"], evidence["after"]) == ("ecc_uncorrected", 2, 5)
    [event] = await yard.rows("SELECT sentence FROM events WHERE event = 'evidence'")
    assert event["sentence"].endswith("(before 2, after 5)")
    await yard.judge()
    [repair] = await yard.health.repairs(OPERATOR)
    assert repair["before"]["gpu-07/3"]["ecc_ue"] == 5
    assert "device 3 (serial gpu-07/3)" in repair["instructions"]
    await yard.health.settle_repair(repair["repair_id"], "done", actor="ana", reason="reset by hand")
    yard.read(node_id, "gpu-07", {"gpu-07/3": {"ecc_ue": 0}})
    await yard.judge()
    [repair] = await yard.health.repairs(OPERATOR, everything=True)
    assert (repair["after"]["gpu-07/3"]["ecc_ue"], repair["ended_by"]) == (0, "ana")


async def test_two_witnesses_count_once(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    yard.read(node_id, "gpu-07")
    await yard.judge()
    yard.read(node_id, "gpu-07", {"gpu-07/1": {"fault_code": 94}})
    await yard.say(node_id, "xid", "GPU-gpu-07-1", code=94)
    assert (await yard.judge()).new == 1
    [evidence] = (await yard.health.health_of(OPERATOR, node_id))["evidence"]
    assert evidence["witnesses"] == ["kernel", "metrics"]
    assert evidence["subject"] == "gpu-07/1"


async def test_while_the_store_is_away_no_metric_is_judged_and_that_is_said(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    yard.read(node_id, "gpu-07")
    assert (await yard.judge()).unjudged is None
    async with remote() as gone:
        pass
    judged = await yard.judge(gone)
    assert judged.unjudged is not None
    assert judged.moves == ()
    told = await yard.health.health_of(OPERATOR, node_id)
    assert told["unjudged"] == judged.unjudged
    assert told["judged_at"] is not None
    assert await yard.state(node_id) == "ready"


async def test_a_witness_told_twice_is_told_once(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    event_id = await yard.say(node_id, "xid", "gpu-07/0", code=13)
    await yard.judge()
    await yard.say(node_id, "xid", "gpu-07/0", code=13, event_id=event_id)
    assert (await yard.judge()).new == 0
    assert len(await yard.rows("SELECT FROM witnesses")) == 1


async def test_three_tenants_that_err_on_one_device(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    for number, tenant in enumerate(("acme", "bolt", "cora")):
        await yard.lease(node_id, f"gpu-07/{number}", f"run_{tenant}", tenant)
        await yard.write(
            "UPDATE lease_accelerators SET accelerator_no = (SELECT accelerator_no FROM accelerators WHERE serial ="
            " 'gpu-07/0'), during = tstzrange(now() - make_interval(hours => %s), now() - make_interval(hours => %s))"
            " WHERE lease_id = %s", 9 - number, 8 - number, f"lea_run_{tenant}",
        )  # fmt: skip
        at = now_utc() - timedelta(hours=9 - number) + timedelta(minutes=5)
        await yard.say(node_id, "xid", "gpu-07/0", code=31, at=at)
        await yard.judge()
        assert await yard.state(node_id) == ("cordoned" if number == 2 else "ready")


async def test_what_was_cleared_lets_the_node_go_back(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.say(node_id, "xid", "gpu-07/0", code=74)
    await yard.judge()
    assert await yard.state(node_id) == "cordoned"
    assert await yard.health.clear("gpu-07", actor="ana", reason="cable replaced") == 1
    await yard.judge()
    assert await yard.state(node_id) == "ready"
    [row] = await yard.rows("SELECT ended_by FROM evidence")
    assert row["ended_by"] == "cleared by ana"
    with pytest.raises(NotFound):
        await yard.health.clear("nobody", actor="ana", reason=None)


async def test_an_operators_cordon_is_not_lifted(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.fleet.steer("gpu-07", NodeEvent.CORDON, actor="ana", reason="painting")
    await yard.judge()
    assert await yard.state(node_id) == "cordoned"


async def test_what_somebody_sees_to_asks_for_nothing(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.say(node_id, "xid", "gpu-07/0", code=74)
    await yard.judge()
    [evidence] = (await yard.health.health_of(OPERATOR, node_id))["evidence"]
    seen = await yard.health.acknowledge(evidence["evidence_id"], actor="ana")
    assert seen["acknowledged_by"] == "ana"
    await yard.judge()
    assert await yard.state(node_id) == "ready"


async def test_runs_that_die_without_a_word_are_counted_by_node(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    ends = (
        ("acme", "process_lost"),
        ("acme", "command_failed"),
        ("bolt", "process_lost"),
        ("acme", "node_lost"),
    )
    await yard.write("UPDATE judgements SET deaths_until = now() - interval '1 day'")
    for number, (tenant, why) in enumerate(ends):
        await yard.lease(node_id, f"gpu-07/{number}", f"run_{number}", tenant)
        await yard.release(f"run_{number}", why, ago_s=1000 * (4 - number))
    assert (await yard.judge()).new == 3, "a command that failed is its tenant's"
    assert await yard.state(node_id) == "cordoned"
    assert (await yard.health.health_of(OPERATOR, node_id))["sentence"].startswith("lemon: ")
    assert (await yard.judge()).new == 0


async def test_a_node_that_went_down_under_many_is_one_incident(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    for number, tenant in enumerate(("acme", "bolt", "cora", "acme", "bolt")):
        await yard.lease(node_id, f"gpu-07/{number}", f"run_{number}", tenant)
        await yard.release(f"run_{number}", "node_lost")
    assert (await yard.judge()).new == 1
    assert await yard.state(node_id) == "ready"


async def test_a_failed_test_is_evidence_and_its_repair_is_opened(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.fleet.steer("gpu-07", NodeEvent.DRAIN, actor="ana", reason=None)
    await yard.fleet.steer("gpu-07", NodeEvent.REPAIR, actor="ana", reason=None)
    await yard.judge()
    assert await yard.health.repairs(OPERATOR) == [], "what an operator repairs by hand is hers"
    await yard.write(
        "INSERT INTO events (subject_kind, subject_id, event, actor, sentence) VALUES ('node', %s, 'burn_in_failed',"
        " 'platform', 'gemm bf16 of acc_1: 3 products came out wrong')", node_id,
    )  # fmt: skip
    await yard.judge()
    [repair] = await yard.health.repairs(OPERATOR)
    assert (repair["rule"], repair["step"]) == ("test_wrong", "rma")
    assert (await yard.judge()).new == 0
    await yard.health.settle_repair(repair["repair_id"], "done", actor="ana", reason="replaced")
    await yard.judge()
    assert await yard.state(node_id) == "verifying"


async def test_a_device_that_its_node_no_longer_finds(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.fleet.learn(node_id, machine("gpu-07", 7))
    assert (await yard.judge()).new == 1
    assert (await yard.judge()).new == 0
    await yard.write(
        "UPDATE evidence SET at = at - interval '1 minute', last_at = last_at - interval '1 minute'"
    )
    await yard.judge()
    assert await yard.state(node_id) == "draining"


async def test_of_one_tenants_nodes_one_is_drained_and_the_other_waits(yard: Yard) -> None:
    nodes = [await yard.join(f"gpu-{number}") for number in range(12)]
    for number in (0, 1):
        await yard.lease(nodes[number], f"gpu-{number}/0", f"run_{number}", "acme")
        await yard.say(nodes[number], "xid", f"gpu-{number}/0", code=95)
    await yard.judge()
    states = sorted([await yard.state(nodes[0]), await yard.state(nodes[1])])
    assert states == ["draining", "ready"], "a tenth of twelve nodes is one"
    told = [await yard.health.health_of(OPERATOR, node) for node in nodes[:2]]
    assert sorted(str(each["held"]) for each in told)[0].startswith(
        "1 nodes of site local are held back already"
    )


async def test_a_repair_is_settled_once_and_only_as_its_table_says(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.say(node_id, "xid", "gpu-07/0", code=64)
    await yard.judge()
    [repair] = await yard.health.repairs(OPERATOR)
    assert (repair["step"], repair["state"], repair["by_agent"]) == ("rma", "approved", False)
    with pytest.raises(Conflict, match="is approved, and a repair in that state cannot approve"):
        await yard.health.settle_repair(repair["repair_id"], "approve", actor="ana", reason=None)
    with pytest.raises(NotFound, match="a repair is told to approve, done, failed or dismiss"):
        await yard.health.settle_repair(repair["repair_id"], "explode", actor="ana", reason=None)
    with pytest.raises(NotFound):
        await yard.health.settle_repair("rep_none", "done", actor="ana", reason=None)
    await yard.health.settle_repair(repair["repair_id"], "done", actor="ana", reason="replaced")
    with pytest.raises(Conflict):
        await yard.health.settle_repair(repair["repair_id"], "done", actor="ana", reason=None)
    [evidence] = await yard.rows("SELECT ended_by FROM evidence")
    assert evidence["ended_by"] == "repaired"


async def test_a_ticket_takes_nothing_away_and_is_opened_once(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.say(
        node_id, "redfish", None, sentence="Power supply PSU.Slot.2 has failed.", severity="warning"
    )
    await yard.judge()
    await yard.judge()
    assert await yard.state(node_id) == "ready"
    [repair] = await yard.health.repairs(OPERATOR)
    assert (repair["step"], repair["drains"]) == ("inspect", False)
    await yard.health.settle_repair(repair["repair_id"], "done", actor="ana", reason="swapped")
    await yard.judge()
    assert await yard.health.repairs(OPERATOR) == []


async def test_a_controller_that_starts_anew_goes_on_where_the_other_died(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.say(node_id, "xid", "gpu-07/0", code=95)
    await yard.judge()
    assert await yard.state(node_id) == "draining"
    yard.judging = PostgresJudge(yard.truth, POLICY)
    yard.read(node_id, "gpu-07", {"gpu-07/0": {"ecc_ue": 3, "fault_code": 95}})
    judged = await yard.judge()
    assert judged.new == 0, "what was there before it came is no news"
    assert await yard.state(node_id) == "repairing"
    assert len(await yard.health.repairs(OPERATOR)) == 1


async def test_two_that_judge_at_once_open_one_repair(yard: Yard) -> None:
    node_id = await yard.join("gpu-07")
    await yard.lease(node_id, "gpu-07/0")
    await yard.say(node_id, "xid", "gpu-07/0", code=95)
    other = PostgresJudge(yard.truth, POLICY)
    await asyncio.gather(yard.judge(), other.tick(None))
    assert await yard.state(node_id) == "draining"
    assert len(await yard.health.repairs(OPERATOR)) == 1
    assert len(await yard.rows("SELECT FROM evidence")) == 1
    assert len(await yard.rows("SELECT FROM events WHERE event = 'drain'")) == 1
