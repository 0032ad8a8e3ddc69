"""Queues on a real PostgreSQL: set as a sound tree or not at all, used by whom they are for, usage read from leases."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from baseai.ground.fault import Conflict, Fault, NotFound, Refused
from baseai.ground.identity import ProjectId, TenantId
from baseai.scheduling.queue_tree import Spell, decayed_accelerator_s, leaf_of
from baseai.scheduling.queues.postgres import PostgresQueues, load_held, load_tree, load_usage
from baseai.scheduling.queues.setting import Setting
from baseai.truth.session import PLATFORM, Scope, Truth, fetch_all, fetch_one

pytestmark = pytest.mark.anyio

HOUR_S = 3600.0
SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_a', 'alpha'), ('ten_b', 'beta');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_a', 'ten_a', 'main'), ('prj_v', 'ten_a', 'vision'),
  ('prj_b', 'ten_b', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_1', 'one', 'local', '-', 'ready', 'user', 8, 1, 1, '-', 1);
"""


class Desk:
    """Queues, with runs that hold and held accelerators."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.queues = PostgresQueues(truth, ("A100", "H100-SXM"))
        self.runs = 0
        self.devices = 0

    async def seed(self) -> None:
        async with self.truth.transaction() as session:
            await session.execute(SEED)

    async def set(self, name: str, **said: Any) -> None:
        await self.queues.set(name, Setting(**said), actor="ana")

    async def refusal(self, name: str, **said: Any) -> str:
        with pytest.raises(Fault) as refused:
            await self.set(name, **said)
        return str(refused.value)

    async def run(
        self,
        queue: str | None,
        *,
        tenant: str = "a",
        state: str = "queued",
        kind: str = "task",
        spot: bool = False,
    ) -> str:
        self.runs += 1
        run_id = f"run_{self.runs}"
        spec = {"spot": spot} | ({} if queue is None else {"queue": queue})
        async with self.truth.transaction() as session:
            await session.execute(
                "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
                " VALUES (%s, %s, %s, %s, %s, %s, 50, %s, 'x')",
                (run_id, f"ten_{tenant}", f"prj_{tenant}", f"run-{self.runs}", kind, Jsonb(spec), state),
            )
        return run_id

    async def lease(
        self, queue: str | None, count: int, *, ago_h: float, until_h: float | None = None, model: str = "A100",
        tenant: str = "a", **run: Any,
    ) -> Spell:  # fmt: skip
        """A lease granted so many hours ago, which still stands or ended so many hours ago; as a hold from now."""
        run_id = await self.run(queue, tenant=tenant, state="running", **run)
        now = await self.now()
        granted_at = now - timedelta(hours=ago_h)
        released_at = None if until_h is None else now - timedelta(hours=until_h)
        async with self.truth.transaction() as session:
            await session.execute(
                "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
                " VALUES (%s, 1, %s, %s, 1, 1, 'running')",
                (run_id, f"ten_{tenant}", f"prj_{tenant}"),
            )
            await session.execute(
                "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model,"
                " state, granted_at, ends_at, released_at) VALUES (%s, %s, %s, %s, 1, 'nod_1', 0, %s, %s, %s, %s, %s)",
                (f"lea_{run_id}", f"ten_{tenant}", f"prj_{tenant}", run_id, model,
                 "active" if released_at is None else "released", granted_at, now + timedelta(days=900), released_at),
            )  # fmt: skip
            for _ in range(count):
                self.devices += 1
                made = await fetch_one(
                    session,
                    "INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)"
                    " VALUES (%s, 'nod_1', %s, %s, 0, 'in_service') RETURNING accelerator_no",
                    (f"acc_{self.devices}", model, f"s{self.devices}"),
                )
                assert made is not None
                await session.execute(
                    "INSERT INTO lease_accelerators VALUES (%s, %s, %s, %s, tstzrange(%s, %s))",
                    (f"lea_{run_id}", made["accelerator_no"], f"ten_{tenant}", f"prj_{tenant}", granted_at,
                     now + timedelta(days=900)),
                )  # fmt: skip
        until_s = 1e9 if until_h is None else -until_h * HOUR_S
        return Spell(-ago_h * HOUR_S, until_s, count)

    async def now(self) -> datetime:
        async with self.truth.transaction() as session:
            row = await fetch_one(session, "SELECT now() AS at")
        assert row is not None
        at: datetime = row["at"]
        return at

    async def seen(self, tenant: str | None, **rest: Any) -> dict[tuple[str, str | None], Mapping[str, Any]]:
        scope = Scope(tenant_id=tenant and f"ten_{tenant}", actor="x")
        return {(row["name"], row["tenant"]): row for row in await self.queues.queues(scope, **rest)}

    async def events(self) -> list[tuple[str, str, str | None]]:
        async with self.truth.transaction(PLATFORM) as session:
            rows = await fetch_all(
                session,
                "SELECT subject_id, event, sentence FROM events WHERE subject_kind = 'queue' ORDER BY event_no",
            )
        return [(row["subject_id"], row["event"], row["sentence"]) for row in rows]


@pytest.fixture
async def desk(truth: Truth) -> Desk:
    made = Desk(truth)
    await made.seed()
    return made


# ------------------------------------------------------------------------------------------------- setting


async def test_a_queue_is_made_changed_in_part_and_removed_and_each_move_is_told(desk: Desk) -> None:
    await desk.set("lab", quota={"H100-SXM": 16}, limit={"H100-SXM": 64})
    await desk.set("vision", parent="lab", weight=2, tenant="alpha", project="vision", quota={"H100-SXM": 8})
    await desk.set("vision", weight=3)
    await desk.set("vision", weight=3.0)  # said twice, told once
    await desk.set("vision", shared=True, parent="root", quota={})
    async with desk.truth.transaction() as session:
        tree = await load_tree(session)
    vision = tree.by_name["vision"]
    assert (vision.parent, vision.weight, vision.tenant, vision.project, vision.quota) == (
        "root",
        3.0,
        None,
        None,
        {},
    )
    assert tree.by_name["lab"].limit == {"H100-SXM": 64}
    await desk.queues.remove("vision", actor="ana")
    assert await desk.events() == [
        ("lab", "made", "below root, weight 1, quota 16 H100-SXM, limit 64 H100-SXM, for everybody"),
        ("vision", "made", "below lab, weight 2, quota 8 H100-SXM, for ten_a prj_v"),
        ("vision", "set", "weight 3"),
        ("vision", "set", "below root, quota none, for everybody"),
        ("vision", "removed", None),
    ]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        pytest.param({"parent": "labs"}, "a hangs below labs, and there is no such queue", id="a parent that is there"),
        pytest.param({"parent": "a"}, "queues hang in a circle: a below a", id="no circle"),
        pytest.param({"parent": "lab", "quota": {"A100": 9}}, r"a \(9\) come to 9 A100, and lab above", id="quota"),
        pytest.param({"quota": {"H100-SMX": 1}}, "no accelerator model H100-SMX; did you mean H100-SXM?", id="model"),
        pytest.param({"weight": -1}, "weight -1: give it one above 0", id="weight"),
        pytest.param({"quota": {"A100": 2}, "limit": {"A100": 1}}, "guaranteed 2 A100 and may hold 1", id="limit"),
        pytest.param({"tenant": "gamma"}, "no tenant gamma", id="tenant"),
        pytest.param({"project": "main"}, "a project is of a tenant", id="a project of nobody"),
        pytest.param({"tenant": "beta", "project": "vision"}, "no project vision", id="another's project"),
    ],
)  # fmt: skip
async def test_what_is_not_sound_is_refused_and_nothing_is_changed(
    desk: Desk, said: Mapping[str, Any], sentence: str
) -> None:
    await desk.set("lab", quota={"A100": 8})
    before = await desk.events()
    with pytest.raises((Refused, NotFound), match=sentence):
        await desk.set("a", **said)
    assert await desk.events() == before
    assert ("a", None) not in await desk.seen(None)


async def test_default_and_root_are_there_by_themselves(desk: Desk) -> None:
    for name in ("default", "root"):
        assert "is there by itself and cannot be set" in await desk.refusal(name, weight=2)
        with pytest.raises(NotFound):
            await desk.queues.remove(name, actor="ana")


async def test_two_changes_that_are_sound_alone_and_not_together_are_not_both_made(desk: Desk) -> None:
    await desk.set("lab", quota={"A100": 8})
    outcomes = await asyncio.gather(
        desk.set("a", parent="lab", quota={"A100": 5}),
        desk.set("b", parent="lab", quota={"A100": 5}),
        return_exceptions=True,
    )
    [refused] = [one for one in outcomes if one is not None]
    assert "add up to 10 A100, and lab above is guaranteed 8" in str(refused)


async def test_a_queue_in_which_somebody_is_stays(desk: Desk) -> None:
    await desk.set("lab")
    await desk.set("a", parent="lab")
    await desk.run("a")
    with pytest.raises(Conflict, match="queues hang below lab: a"):
        await desk.queues.remove("lab", actor="ana")
    with pytest.raises(Conflict, match="1 runs wait or run in a, run-1 among them"):
        await desk.queues.remove("a", actor="ana")
    with pytest.raises(NotFound, match="no queue aa; did you mean a"):
        await desk.queues.remove("aa", actor="ana")


# ------------------------------------------------------------------------------------------------- usage


async def test_usage_is_the_closed_form_over_leases(desk: Desk) -> None:
    """By leaf, model and half-life; spot, tests and what was ten half-lives ago left out."""
    await desk.set("lab", half_life_s=2 * HOUR_S)
    await desk.set("a", parent="lab")
    await desk.set("b", half_life_s=48 * HOUR_S)
    quick = [
        await desk.lease("a", 2, ago_h=5, until_h=1),
        await desk.lease("a", 1, ago_h=3),
        await desk.lease("a", 4, ago_h=8000, until_h=7000),
    ]
    other = await desk.lease("a", 3, ago_h=2, model="H100-SXM")
    slow = [await desk.lease("b", 2, ago_h=100, until_h=50), await desk.lease("b", 1, ago_h=9000)]
    own = await desk.lease("default", 1, ago_h=10, until_h=2)
    older = await desk.lease(None, 1, ago_h=10, until_h=2)
    await desk.lease("b", 5, ago_h=10, spot=True)
    await desk.lease("b", 5, ago_h=10, kind="burn_in")
    gone = await desk.lease("gone", 1, ago_h=1)
    async with desk.truth.transaction() as session:
        usage = await load_usage(session, await desk.now(), await load_tree(session))
        held, spot = await load_held(session)

    week_s = 7 * 24 * HOUR_S
    expected = {
        ("a", "A100"): decayed_accelerator_s(quick, 0.0, 2 * HOUR_S),
        ("a", "H100-SXM"): decayed_accelerator_s([other], 0.0, 2 * HOUR_S),
        ("b", "A100"): decayed_accelerator_s(slow, 0.0, 48 * HOUR_S),
        (leaf_of("ten_a", "default"), "A100"): decayed_accelerator_s([own, older], 0.0, week_s),
        ("gone", "A100"): decayed_accelerator_s([gone], 0.0, week_s),
    }
    found = {(leaf, model): amount for leaf, models in usage.items() for model, amount in models.items()}
    assert found == {key: pytest.approx(amount, rel=2e-3) for key, amount in expected.items()}
    assert held == {"a": {"A100": 1, "H100-SXM": 3}, "b": {"A100": 1}, "gone": {"A100": 1}}
    assert spot == {"b": {"A100": 5}}


# ------------------------------------------------------------------------------------------------- who sees and uses


async def test_everybody_sees_shared_queues_and_their_own_and_what_is_in_them(desk: Desk) -> None:
    await desk.set("lab", quota={"A100": 16}, limit={"A100": 32})
    await desk.set("pool", parent="lab")
    await desk.set("alphas", parent="lab", tenant="alpha")
    await desk.set("betas", parent="lab", tenant="beta")
    await desk.lease("alphas", 4, ago_h=24)
    await desk.lease("betas", 2, ago_h=1, tenant="b", spot=True)
    await desk.run("betas", tenant="b")
    everything = await desk.seen(None)
    assert everything.keys() == {
        ("lab", None), ("pool", None), ("alphas", "alpha"), ("betas", "beta"), ("default", "alpha"),
        ("default", "beta"),
    }  # fmt: skip
    lab = everything["lab", None]
    assert (lab["below"], lab["waiting"], lab["running"]) == (["alphas", "betas", "pool"], 1, 2)
    [a100] = lab["models"]
    assert (a100["quota"], a100["limit"], a100["held"], a100["spot"]) == (16, 32, 4, 2)
    assert a100["usage_accelerator_h"] == pytest.approx(4 * 24, rel=0.06)
    alphas = await desk.seen("a")
    assert alphas.keys() == {("lab", None), ("pool", None), ("alphas", "alpha"), ("default", "alpha")}
    assert alphas["lab", None]["below"] == ["alphas", "pool"]
    assert (await desk.seen(None, shared_alone=True)).keys() == {("lab", None), ("pool", None)}
    async with desk.truth.transaction(Scope(tenant_id="ten_a", actor="x")) as session:
        rows = await fetch_all(session, "SELECT name FROM queues ORDER BY name")
    assert [row["name"] for row in rows] == ["alphas", "lab", "pool"]


async def test_a_promise_of_more_than_there_is_is_told(desk: Desk) -> None:
    await desk.lease("default", 8, ago_h=1)
    await desk.set("lab", quota={"A100": 8})
    assert (await desk.seen(None))["lab", None]["note"] is None
    await desk.set("pool", quota={"A100": 1, "H100-SXM": 2})
    assert (await desk.seen(None))["pool", None]["note"] == (
        "the quotas of all queues come to 9 A100, of which 8 are in service and 2 H100-SXM, of which 0 are in service"
    )


async def test_of_the_defaults_of_all_tenants_none_is_the_one_that_is_meant(desk: Desk) -> None:
    with pytest.raises(Refused, match="every tenant has a default of its own"):
        await desk.queues.queue(PLATFORM, "default")
    assert (await desk.queues.queue(Scope(tenant_id="ten_a", actor="x"), "default"))["tenant"] == "alpha"


async def test_no_tenant_writes_a_queue(desk: Desk) -> None:
    await desk.set("pool")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with desk.truth.transaction(Scope(tenant_id="ten_a", actor="x")) as session:
            await session.execute("UPDATE queues SET weight = 100")


@pytest.mark.parametrize(
    ("queue", "sentence"),
    [
        pytest.param("default", None, id="one's default"),
        pytest.param("pool", None, id="a shared one"),
        pytest.param("alphas", None, id="one's own"),
        pytest.param("seers", "no queue seers here", id="another project's"),
        pytest.param("betas", "no queue betas here", id="another tenant's"),
        pytest.param("alpha", "no queue alpha here; did you mean alphas?", id="a slip"),
        pytest.param(
            "lab", "wait in the queues below lab, not in lab itself: name one of alphas, pool", id="no leaf"
        ),
    ],
)
async def test_a_run_may_wait_in_a_leaf_that_is_there_and_ones_own(
    desk: Desk, queue: str, sentence: str | None
) -> None:
    await desk.set("lab")
    await desk.set("pool", parent="lab")
    await desk.set("alphas", parent="lab", tenant="alpha")
    await desk.set("seers", parent="lab", tenant="alpha", project="vision")
    await desk.set("betas", parent="lab", tenant="beta")
    asked = desk.queues.refuse_missing(
        Scope(tenant_id="ten_a", actor="x"), (TenantId("ten_a"), ProjectId("prj_a")), queue
    )
    if sentence is None:
        await asked
    else:
        with pytest.raises(Refused, match=sentence):
            await asked
