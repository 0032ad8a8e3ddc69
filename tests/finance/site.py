"""A small world in PostgreSQL: two tenants, one node, some leases with what was seen of them."""

from datetime import datetime, timedelta

from baseai.finance.period import period_of
from baseai.truth.session import Truth, fetch_one

SIX_HOURS = timedelta(hours=6)
SEED = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_1', 'one'), ('ten_2', 'two');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_1', 'ten_1', 'main'), ('prj_2', 'ten_2', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_1', 'n1', 'local', '127.0.0.1', 'ready', 'none', 4, 1024, 1024, 'b', 1);
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  SELECT 'acc_' || i, 'nod_1', 'cpu-slot', 's' || i, i, 'in_service' FROM generate_series(1, 4) i;
"""


async def seeded(truth: Truth) -> datetime:
    """Fill the database; the start of six whole hours that are over and lie in one month of the books.

    They are the newest such hours by the database's clock: where a month began less than six hours ago, the last six
    of the month before.
    """
    async with truth.transaction() as session:
        await session.execute(SEED)
        row = await fetch_one(session, "SELECT date_trunc('hour', now(), 'UTC') AS hour")
    assert row is not None
    hour = row["hour"]
    assert isinstance(hour, datetime)
    began = period_of(hour).starts_at()
    return (hour if hour - SIX_HOURS >= began else began) - SIX_HOURS


async def lease(
    truth: Truth,
    run_id: str,
    seen: tuple[datetime, datetime],
    *,
    attempt_no: int = 1,
    tenant: int = 1,
    accelerator_nos: tuple[int, ...] = (1,),
    model: str = "cpu-slot",
    ended: str | None = None,
    run_state: str = "running",
) -> str:
    """One lease of one attempt as observed; `ended` is the reason of an attempt that is over."""
    lease_id = f"lea_{run_id}_{attempt_no}"
    end = seen[1] if ended else seen[0] + timedelta(hours=24)
    async with truth.transaction() as session:
        await session.execute(
            "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
            " VALUES (%s, %s, %s, %s, 'task', '{}', 50, %s, 'test') ON CONFLICT DO NOTHING",
            (run_id, f"ten_{tenant}", f"prj_{tenant}", run_id, run_state),
        )
        await session.execute(
            "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state, reason)"
            " VALUES (%s, %s, %s, %s, 1, 1, %s, %s)",
            (run_id, attempt_no, f"ten_{tenant}", f"prj_{tenant}", "ended" if ended else "running", ended),
        )
        await session.execute(
            "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state,"
            " granted_at, ends_at, released_at, observed_from, observed_until)"
            " VALUES (%s, %s, %s, %s, %s, 'nod_1', 0, %s, %s, %s, %s, %s, %s, %s)",
            (
                lease_id,
                f"ten_{tenant}",
                f"prj_{tenant}",
                run_id,
                attempt_no,
                model,
                "released" if ended else "active",
                seen[0],
                seen[0] + timedelta(hours=24),
                end if ended else None,
                *seen,
            ),
        )
        await session.execute(
            "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
            " SELECT %s, unnest(%s::bigint[]), %s, %s, tstzrange(%s, %s)",
            (lease_id, list(accelerator_nos), f"ten_{tenant}", f"prj_{tenant}", seen[0], end),
        )
    return lease_id


async def over(
    truth: Truth, lease_id: str, at: datetime, reason: str, *, run_state: str | None = None
) -> None:
    """The lease and its attempt end, as the engine writes it."""
    async with truth.transaction() as session:
        row = await fetch_one(
            session,
            "UPDATE leases SET state = 'released', observed_until = %s, released_at = %s"
            " WHERE lease_id = %s RETURNING *",
            (at, at, lease_id),
        )
        assert row is not None
        await session.execute(
            "UPDATE lease_accelerators SET during = tstzrange(lower(during), %s) WHERE lease_id = %s",
            (at, lease_id),
        )
        await session.execute(
            "UPDATE attempts SET state = 'ended', reason = %s WHERE run_id = %s AND attempt_no = %s",
            (reason, row["run_id"], row["attempt_no"]),
        )
        if run_state is not None:
            for state in ("stopping", run_state):
                await session.execute("UPDATE runs SET state = %s WHERE run_id = %s", (state, row["run_id"]))
