"""Lists and details as doors show them, in the asker's scope."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import NodeId, RunId, TenantId
from baseai.scheduling.plan import StartKind, Wait, WaitKind, Why
from baseai.scheduling.record import wait_record, why_record
from baseai.truth.session import Scope, Truth
from baseai.views.postgres import POINTS_MAX, Views
from baseai.workloads.spec import spec_of

pytestmark = pytest.mark.anyio

ALL = Scope(tenant_id=None, actor="test")
A, B = (Scope(tenant_id=tenant, actor="key") for tenant in ("ten_a", "ten_b"))
SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_a', 'a'), ('ten_b', 'b');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_a', 'ten_a', 'main'), ('prj_b', 'ten_b', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_1', 'n1', 'local', '127.0.0.1', 'ready', 'none', 2, 1024, 1024, 'b', 1),
         ('nod_2', 'n2', 'local', '127.0.0.1', 'cordoned', 'none', 2, 1024, 1024, 'b', 1);
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  SELECT 'acc_' || n || i, 'nod_' || n, 'cpu-slot', 's' || n || i, i, 'in_service'
  FROM generate_series(1, 2) n, generate_series(0, 1) i;
"""


def spec() -> Any:
    return Jsonb(
        spec_of("type: task\ncommands: [echo]\nresources: {cpu: 2}\n", "r.yaml", lambda *_: ()).to_json()
    )


@pytest.fixture
async def views(truth: Truth) -> Views:
    async with truth.transaction() as session:
        await session.execute(SEED)
        for number, tenant in enumerate("aabab"):
            await session.execute(
                "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by,"
                " submitted_at) VALUES (%s, %s, %s, %s, 'task', %s, %s, 'queued', 't',"
                " now() - make_interval(secs => %s))",
                (
                    f"run_{number}",
                    f"ten_{tenant}",
                    f"prj_{tenant}",
                    f"r{number}",
                    spec(),
                    50 + number % 2,
                    number // 2,
                ),
            )
    return Views(truth)


async def ids(views: Views, scope: Scope, **asked: Any) -> list[str]:
    return [row["run_id"] for row in (await views.runs(scope, **asked))[0]]


async def test_the_newest_come_first_and_each_asker_sees_its_own(views: Views) -> None:
    assert await ids(views, ALL) == ["run_1", "run_0", "run_3", "run_2", "run_4"]
    assert await ids(views, A) == ["run_1", "run_0", "run_3"]
    assert await ids(views, B) == ["run_2", "run_4"]
    with pytest.raises(NotFound):
        await views.run(B, "run_0")
    assert (await views.run(A, "run_0"))["run"]["gpu"] == "cpu-slot:2"


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_pages_break_anywhere_also_among_equal_instants(views: Views, limit: int) -> None:
    seen, cursor = [], None
    while True:
        rows, cursor = await views.runs(ALL, limit=limit, cursor=cursor)
        seen += [row["run_id"] for row in rows]
        if cursor is None:
            break
    assert seen == await ids(views, ALL)


@pytest.mark.parametrize("cursor", ["", "x", "2026|", "|run_1", "2026-13-01T00:00:00+00:00|run_1"])
async def test_a_cursor_comes_from_a_page(views: Views, cursor: str) -> None:
    with pytest.raises(Refused, match="is not a cursor"):
        await views.runs(ALL, cursor=cursor)


async def waits(truth: Truth, order: str) -> None:
    """The last cycle has put the runs of these numbers in this order."""
    async with truth.transaction() as session:
        for ahead, number in enumerate(order):
            owners = {tenant: sum("aabab"[int(one)] == tenant for one in order[:ahead]) for tenant in "ab"}
            wait = Wait(
                run_id=RunId(f"run_{number}"), position=ahead + 1, ahead=ahead, kind=WaitKind.SHORT, behind=None,
                explanation=None,
                owners_ahead=tuple((TenantId(f"ten_{each}"), count) for each, count in owners.items() if count),
            )  # fmt: skip
            await session.execute(
                "UPDATE runs SET wait = %s WHERE run_id = %s", (Jsonb(wait_record(wait)), wait.run_id)
            )


async def queued(views: Views, scope: Scope, **asked: Any) -> list[str]:
    return [row["run_id"] for row in (await views.queue(scope, **asked))[0]]


async def test_the_queue_is_in_the_order_of_the_last_cycle_then_whom_it_has_not_seen(
    views: Views, truth: Truth
) -> None:
    await waits(truth, "403")
    assert await queued(views, ALL) == ["run_4", "run_0", "run_3", "run_1", "run_2"]
    assert await queued(views, A) == ["run_0", "run_3", "run_1"]
    seen, cursor = [], None
    while True:
        rows, cursor = await views.queue(ALL, limit=2, cursor=cursor)
        seen += [row["run_id"] for row in rows]
        if cursor is None:
            break
    assert seen == await queued(views, ALL)
    with pytest.raises(Refused, match="is not a cursor"):
        await views.queue(ALL, cursor="soon|run_1")


async def test_operators_read_who_is_ahead_and_tenants_how_many(views: Views, truth: Truth) -> None:
    await waits(truth, "403")
    for rows in (
        (await views.queue(ALL))[0],
        (await views.runs(ALL))[0],
        [(await views.run(ALL, "run_3"))["run"]],
    ):
        [wait] = [row["wait"] for row in rows if row["run_id"] == "run_3"]
        assert wait["sentence"].endswith("Ahead of it: 1 of a, 1 of b.")
        assert [(owner["tenant"], owner["runs"]) for owner in wait["owners_ahead"]] == [("a", 1), ("b", 1)]
    for rows in ((await views.queue(A))[0], (await views.runs(A))[0], [(await views.run(A, "run_3"))["run"]]):
        [wait] = [row["wait"] for row in rows if row["run_id"] == "run_3"]
        assert (wait["own_ahead"], wait["others_ahead"], wait["owners_ahead"]) == (1, 1, [])
        assert "ten_b" not in str(wait)


async def test_why_it_is_where_it_is_names_other_nodes_to_those_alone_who_see_the_fleet(
    views: Views, truth: Truth
) -> None:
    await lease(truth)
    why = Why(
        kind=StartKind.IN_TURN, policy="lookahead", nodes_fitting=2, strands_milli=0.0, next_best=NodeId("nod_2"),
        next_best_strands_milli=500.0, leaves=None, leaves_fewest=None,
    )  # fmt: skip
    async with truth.transaction() as session:
        await session.execute("UPDATE attempts SET why = %s", (Jsonb(why_record(why, ["nod_1"])),))
    seen, own = [(await views.run(scope, "run_0"))["run"]["why"] for scope in (ALL, A)]
    assert seen["sentence"].startswith("In its turn on n1: of 2 nodes that fit it is the one")
    assert (seen["next_best"], own["next_best"]) == ("n2", None)
    assert "n2" not in str(own)


async def test_accuracy_is_told_of_all_and_names_nobody(views: Views, truth: Truth) -> None:
    async with truth.transaction() as session:
        for number, fate, late_s in ((0, "held", 10), (1, "held", 30), (2, "late", 500), (3, "gone", None)):
            await session.execute(
                "INSERT INTO start_estimates SELECT run_id, tenant_id, project_id, '{A}', false, at, at, at, at, %s,"
                " at, at + make_interval(secs => %s) FROM runs, (SELECT now() AS at) n WHERE run_id = %s",
                (fate, late_s, f"run_{number}"),
            )
    [row] = await views.accuracy()
    assert (row["models"], row["outcomes"], row["median_error_s"]) == (["A"], 3, 30)
    assert row["held_ratio"] == pytest.approx(2 / 3)


async def test_room_is_what_is_ready_and_free_of_it_what_speaks(views: Views, truth: Truth) -> None:
    await lease(truth)
    assert await views.room() == [{"model": "cpu-slot", "total": 2, "free": 1}]
    async with truth.transaction() as session:
        await session.execute("UPDATE nodes SET seen_at = now() - interval '1 minute'")
    assert await views.room() == [{"model": "cpu-slot", "total": 2, "free": 0}]


async def lease(truth: Truth) -> None:
    async with truth.transaction() as session:
        await session.execute("UPDATE runs SET state = 'starting', attempt_no = 1 WHERE run_id = 'run_0'")
        await session.execute(
            "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
            " VALUES ('run_0', 1, 'ten_a', 'prj_a', 1, 20000, 'starting')"
        )
        await session.execute(
            "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,"
            " ends_at) VALUES ('lea_1', 'ten_a', 'prj_a', 'run_0', 1, 'nod_1', 0, 'cpu-slot', 'granted',"
            " now() + interval '1 h')"
        )
        await session.execute(
            "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
            " SELECT 'lea_1', accelerator_no, 'ten_a', 'prj_a', tstzrange(now(), now() + interval '1 h')"
            " FROM accelerators WHERE serial = 's10'"
        )


async def test_how_much_is_free_is_no_secret_and_who_holds_it_is(views: Views, truth: Truth) -> None:
    await lease(truth)
    for scope, runs in ((A, ["r0"]), (B, []), (ALL, ["r0"])):
        first, _ = await views.nodes(scope)
        assert (first["models"], first["free"], first["runs"]) == ({"cpu-slot": 2}, {"cpu-slot": 1}, runs)
    assert [row["run_id"] for row in await views.accelerators(A, "nod_1")] == ["run_0", None]
    assert [row["run_id"] for row in await views.accelerators(B, "nod_1")] == [None, None]


async def test_only_ready_nodes_offer_and_only_those_that_speak_are_free(views: Views, truth: Truth) -> None:
    await lease(truth)
    [offer] = await views.offers()
    assert (offer["total"], offer["free"], offer["largest_single_node"]) == (2, 1, 2)
    async with truth.transaction() as session:
        await session.execute("UPDATE nodes SET seen_at = now() - interval '1 minute'")
    [offer] = await views.offers()
    assert (offer["total"], offer["free"]) == (2, 0)
    assert [node["reachable"] for node in await views.nodes(ALL)] == [False, False]


async def test_a_curve_keeps_the_last_word_on_each_step_and_its_ends(views: Views, truth: Truth) -> None:
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO run_points (event_id, run_id, tenant_id, project_id, attempt_no, restart, step, at, loss)"
            " SELECT 'e' || attempt || '-' || step, 'run_0', 'ten_a', 'prj_a', attempt, 0, step, now(), attempt"
            " FROM generate_series(1, 2) attempt, generate_series(0, 999) step WHERE attempt = 1 OR step >= 500"
        )
    curve = await views.points(A, "run_0")
    assert len(curve) <= POINTS_MAX + 1
    assert (curve[0]["step"], curve[-1]["step"]) == (0, 999)
    assert all(row["loss"] == (2 if row["step"] >= 500 else 1) for row in curve)
    assert [row["step"] for row in await views.points(A, "run_0", after_step=997)] == [998, 999]
    assert await views.points(B, "run_0") == []
