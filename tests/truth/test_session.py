"""The truth keeps tenants apart, refuses overlaps and illegal moves, and keeps history as it was."""

import psycopg
import pytest

from baseai.truth.session import Overlap, Scope, Truth, fetch_all, fetch_one

pytestmark = pytest.mark.anyio

SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_a', 'a'), ('ten_b', 'b');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_a', 'ten_a', 'main'), ('prj_b', 'ten_b', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_1', 'n1', 'local', '127.0.0.1', 'ready', 'none', 2, 1024, 1024, 'b', 1);
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  VALUES ('acc_1', 'nod_1', 'cpu-slot', 's1', 0, 'in_service');
INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)
  VALUES ('run_a', 'ten_a', 'prj_a', 'a', 'task', '{}', 50, 'queued', 'test'),
         ('run_b', 'ten_b', 'prj_b', 'b', 'task', '{}', 50, 'queued', 'test');
INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)
  VALUES ('run_a', 1, 'ten_a', 'prj_a', 1, 29400, 'starting');
INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state, ends_at)
  VALUES ('lea_1', 'ten_a', 'prj_a', 'run_a', 1, 'nod_1', 0, 'cpu-slot', 'granted', now() + interval '1 day'),
         ('lea_2', 'ten_a', 'prj_a', 'run_a', 1, 'nod_1', 1, 'cpu-slot', 'granted', now() + interval '1 day');
"""
DEVICE = """
INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)
SELECT %s, accelerator_no, 'ten_a', 'prj_a', tstzrange(now(), now() + interval '1 hour') FROM accelerators
"""


@pytest.fixture
async def seeded(truth: Truth) -> Truth:
    async with truth.transaction() as session:
        await session.execute(SEED)
    return truth


async def test_a_tenant_sees_only_its_own_rows_even_without_a_where(seeded: Truth) -> None:
    async with seeded.transaction(Scope(tenant_id="ten_a", actor="key")) as session:
        assert [row["run_id"] for row in await fetch_all(session, "SELECT run_id FROM runs")] == ["run_a"]
        touched = await session.execute("UPDATE runs SET sentence = 'mine'")
        assert touched.rowcount == 1


async def test_a_tenant_cannot_write_a_row_of_another(seeded: Truth) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with seeded.transaction(Scope(tenant_id="ten_a", actor="key")) as session:
            await session.execute(
                "INSERT INTO events (tenant_id, subject_kind, subject_id, event, actor)"
                " VALUES ('ten_b', 'run', 'x', 'y', 'z')"
            )


async def test_a_transaction_without_a_scope_sees_nothing(seeded: Truth) -> None:
    async with seeded.transaction() as session:
        await session.execute("SELECT set_config('baseai.tenant', '', true)")
        assert await fetch_one(session, "SELECT run_id FROM runs") is None


async def test_two_leases_of_one_accelerator_never_overlap(seeded: Truth) -> None:
    async with seeded.transaction() as session:
        await session.execute(DEVICE, ("lea_1",))
    with pytest.raises(Overlap, match="accelerator is already leased"):
        async with seeded.transaction() as session:
            await session.execute(DEVICE, ("lea_2",))


async def test_a_move_that_is_not_in_the_table_is_refused(seeded: Truth) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="a run does not move from queued to succeeded"):
        async with seeded.transaction() as session:
            await session.execute("UPDATE runs SET state = 'succeeded' WHERE run_id = 'run_a'")


@pytest.mark.parametrize(
    "statement", ["UPDATE events SET actor = 'me'", "DELETE FROM events", "TRUNCATE transfers"]
)
async def test_history_cannot_be_rewritten(seeded: Truth, statement: str) -> None:
    async with seeded.transaction() as session:
        await session.execute(
            "INSERT INTO events (subject_kind, subject_id, event, actor) VALUES ('run', 'run_a', 'submitted', 'test')"
        )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with seeded.transaction() as session:
            await session.execute(statement)  # type: ignore[arg-type]
