"""Joining, coming back, and being steered, on a real PostgreSQL."""

from dataclasses import replace

import pytest

from baseai.fleet.machine import DeviceFacts, MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.fleet.postgres import Fleet
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import NodeId
from baseai.tenancy.key import NotAdmitted
from baseai.tenancy.postgres import Tenancy
from baseai.truth.session import Scope, Truth, fetch_all

pytestmark = pytest.mark.anyio


def machine(name: str = "one", *serials: str) -> MachineFacts:
    return MachineFacts(
        name=name, address="127.0.0.1", isolation="user", container_runtime=None, cores=8, memory_mib=1024,
        disk_mib=1024, boot_id="boot", version="1", protocol=1,
        devices=tuple(
            DeviceFacts(serial=serial, model="cpu-slot", index=index, memory_mib=0)
            for index, serial in enumerate(serials or (f"{name}/0", f"{name}/1"))
        ),
    )  # fmt: skip


class Yard:
    """A fleet, and the tokens that admit to it."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.tenancy = Tenancy(truth, pepper=b"p" * 32, master=b"m" * 32)
        self.fleet = Fleet(
            truth, self.tenancy, lambda model: None if model == "cpu-slot" else f"no {model} here"
        )

    async def join(self, facts: MachineFacts) -> tuple[NodeId, str]:
        token, _ = await self.tenancy.make_join_token("local", actor="test")
        return await self.fleet.join(token, facts)

    async def steer(self, name: str, event: str, reason: str | None = None) -> str:
        return str((await self.fleet.steer(name, NodeEvent(event), actor="op", reason=reason))["state"])

    async def rows(self, query: str) -> list[dict[str, object]]:
        async with self.truth.transaction(Scope(tenant_id=None, actor="test")) as session:
            return await fetch_all(session, query)

    async def silence(self, name: str) -> None:
        await self.rows(
            f"UPDATE nodes SET seen_at = now() - interval '1 minute' WHERE name = '{name}' RETURNING 1"
        )

    async def accelerators(self, node_id: NodeId) -> dict[object, object]:
        rows = await self.rows(f"SELECT serial, state FROM accelerators WHERE node_id = '{node_id}'")
        return {row["serial"]: row["state"] for row in rows}


@pytest.fixture
def yard(truth: Truth) -> Yard:
    return Yard(truth)


async def test_a_node_that_joins_is_ready_with_all_its_accelerators(yard: Yard) -> None:
    node_id, key = await yard.join(machine())
    assert (await yard.tenancy.holder(key)).node_id == node_id
    assert await yard.accelerators(node_id) == {"one/0": "in_service", "one/1": "in_service"}
    moves = await yard.rows(
        f"SELECT event, to_state FROM events WHERE subject_id = '{node_id}' ORDER BY event_no"
    )
    assert [(row["event"], row["to_state"]) for row in moves] == [
        ("joined", "onboarding"),
        ("admit", "ready"),
    ]


async def test_the_name_of_a_node_that_answers_is_taken(yard: Yard) -> None:
    await yard.join(machine())
    with pytest.raises(Conflict, match="a node named one is here already and answers"):
        await yard.join(machine())


async def test_a_silent_node_comes_back_as_itself_and_its_old_key_is_dead(yard: Yard) -> None:
    node_id, old = await yard.join(machine())
    await yard.steer("one", "cordon", "fan")
    await yard.silence("one")
    again, new = await yard.join(machine())
    assert again == node_id
    assert (await yard.tenancy.holder(new)).node_id == node_id
    with pytest.raises(NotAdmitted):
        await yard.tenancy.holder(old)
    [row] = await yard.rows("SELECT state FROM nodes")
    assert row["state"] == "cordoned", "coming back lifts no operator's word"


async def test_a_retired_name_is_gone(yard: Yard) -> None:
    _, key = await yard.join(machine())
    assert await yard.steer("one", "retire") == "retired"
    with pytest.raises(NotAdmitted):
        await yard.tenancy.holder(key)
    await yard.silence("one")
    with pytest.raises(Conflict, match="was retired"):
        await yard.join(machine())


async def test_an_accelerator_that_is_no_longer_seen_has_failed_until_it_is_back(yard: Yard) -> None:
    node_id, _ = await yard.join(machine())
    await yard.fleet.learn(node_id, machine("one", "one/0"))
    assert await yard.accelerators(node_id) == {"one/0": "in_service", "one/1": "failed"}
    await yard.fleet.learn(node_id, machine())
    assert await yard.accelerators(node_id) == {"one/0": "in_service", "one/1": "in_service"}
    events = await yard.rows("SELECT event FROM events WHERE subject_id = 'one/1' ORDER BY event_no")
    assert [row["event"] for row in events] == ["no_longer_seen", "seen_again"]


async def test_an_accelerator_stands_in_one_node(yard: Yard) -> None:
    await yard.join(machine())
    with pytest.raises(Conflict, match="one/0 stands in another node already"):
        await yard.join(machine("two", "one/0"))
    assert [row["name"] for row in await yard.rows("SELECT name FROM nodes")] == ["one"]


async def test_a_model_that_cannot_stand_here_is_refused(yard: Yard) -> None:
    facts = machine()
    strange = replace(facts, devices=(replace(facts.devices[0], model="warp-core"),))
    with pytest.raises(Refused, match="the node one cannot join: no warp-core here"):
        await yard.join(strange)
    node_id, _ = await yard.join(facts)
    with pytest.raises(Refused, match="no warp-core here"):
        await yard.fleet.learn(node_id, strange)


async def test_a_move_keeps_who_and_why(yard: Yard) -> None:
    node_id, _ = await yard.join(machine())
    [before] = await yard.rows("SELECT desired_version FROM nodes")
    assert await yard.steer("one", "cordon", "fan replaced") == "cordoned"
    [after] = await yard.rows("SELECT desired_version FROM nodes")
    assert after["desired_version"] == before["desired_version"] + 1  # type: ignore[operator]
    [event] = await yard.rows("SELECT * FROM events WHERE event = 'cordon'")
    assert (event["subject_id"], event["actor"], event["sentence"], event["from_state"], event["to_state"]) == (
        node_id, "op", "fan replaced", "ready", "cordoned",
    )  # fmt: skip


async def test_a_move_that_is_none_is_refused_and_leaves_no_event(yard: Yard) -> None:
    await yard.join(machine())
    wrong = "one is ready, and a node in that state cannot uncordon; it can cordon, drain, quarantine, retire"
    with pytest.raises(Conflict, match=wrong):
        await yard.steer("one", "uncordon")
    with pytest.raises(NotFound):
        await yard.steer("none", "cordon")
    assert await yard.rows("SELECT FROM events WHERE event = 'uncordon'") == []


async def test_a_node_that_holds_leases_is_not_retired(yard: Yard) -> None:
    node_id, key = await yard.join(machine())
    await yard.tenancy.make_tenant("a", actor="test")
    await yard.rows(
        "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
        " SELECT 'run_1', tenant_id, project_id, 'r', 'task', '{}', 50, 'queued', 't' FROM projects RETURNING 1"
    )
    await yard.rows(
        "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
        " SELECT 'run_1', 1, tenant_id, project_id, 1, 20000, 'starting' FROM projects RETURNING 1"
    )
    await yard.rows(
        "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,"
        " ends_at)"
        f" SELECT 'lea_1', tenant_id, project_id, 'run_1', 1, '{node_id}', 0, 'cpu-slot', 'granted',"
        " now() + interval '1 h' FROM projects RETURNING 1"
    )
    with pytest.raises(Conflict, match="one still holds 1 leases: drain it first"):
        await yard.steer("one", "retire")
    assert (await yard.tenancy.holder(key)).node_id == node_id
