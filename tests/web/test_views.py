"""The pages over the real views: rows of a real PostgreSQL have what every page reads."""

import json
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from psycopg.types.json import Jsonb

from baseai.tenancy.role import Role
from baseai.truth.history import record
from baseai.truth.session import Truth
from baseai.views.postgres import Views
from baseai.web.pages import router
from baseai.web.visit import SESSION_COOKIE
from baseai.workloads.spec import spec_of
from tests.web.platform import RUN, Platform, holder

pytestmark = pytest.mark.anyio

FLEET = """
INSERT INTO tenants (tenant_id, name) VALUES ('ten_a', 'acme'), ('ten_b', 'beta');
INSERT INTO projects (project_id, tenant_id, name) VALUES ('prj_a', 'ten_a', 'main');
INSERT INTO sites (site_id) VALUES ('local');
INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib, boot_id, protocol)
  VALUES ('nod_a', 'node-a', 'local', '127.0.0.1', 'ready', 'none', 2, 8192, 99999, 'boot', 1);
INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)
  VALUES ('acc_0', 'nod_a', 'cpu-slot', 'slot-0', 0, 'in_service'),
    ('acc_1', 'nod_a', 'cpu-slot', 'slot-1', 1, 'in_service');
"""
STARTED = """
INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)
  VALUES (%(run)s, 1, 'ten_a', 'prj_a', 1, 29500, 'running');
INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model, state, ends_at,
  observed_from)
  VALUES ('lea_1', 'ten_a', 'prj_a', %(run)s, 1, 'nod_a', 0, 'cpu-slot', 'active', now() + interval '1 hour', now());
INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)
  SELECT 'lea_1', accelerator_no, 'ten_a', 'prj_a', tstzrange(now(), now() + interval '1 hour') FROM accelerators
  WHERE accelerator_id = 'acc_0';
INSERT INTO run_points (event_id, run_id, tenant_id, project_id, attempt_no, restart, step, at, loss,
  tokens_per_s, step_ms)
  SELECT 'evt_' || n, %(run)s, 'ten_a', 'prj_a', 1, 0, n, now(), 7.0 / n, 1000, 10 FROM generate_series(1, 50) n;
INSERT INTO checkpoints (event_id, run_id, tenant_id, project_id, attempt_no, step, path, digest, bytes, save_s,
  stall_ms, committed_at) VALUES ('evt_c', %(run)s, 'ten_a', 'prj_a', 1, 25, 'step-25', 'd', 1000, 0.1, 1.0, now());
"""
SUBMITTED = (
    "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by, attempt_no,"
    " wait) VALUES (%s, 'ten_a', 'prj_a', %s, 'task', %s, 50, %s, 'ada', %s, %s)"
)
WAIT = {
    "position": 1, "ahead": 0, "code": "never", "behind": None, "sentence": "Waiting.", "failing": {"model": 1},
    "change": None, "earliest_at": None, "latest_at": None,
}  # fmt: skip


async def seeded(truth: Truth) -> None:
    spec = spec_of("type: task\nname: hello\ncommands: [echo hi]\n", "hello.yaml", lambda *_: []).to_json()
    async with truth.transaction() as session:
        for statement in FLEET.split(";\n"):
            if statement.strip():
                await session.execute(statement)
        await session.execute(SUBMITTED, (RUN, "hello", Jsonb(spec), "running", 1, None))
        await session.execute(SUBMITTED, ("run_waiting", "later", Jsonb(spec), "queued", 0, Jsonb(WAIT)))
        for statement in STARTED.split(";\n"):
            if statement.strip():
                await session.execute(statement, {"run": RUN})
        await record(
            session,
            "run",
            RUN,
            "begin",
            actor="agent",
            tenant_id="ten_a",
            to_state="running",
            reason="started",
        )


async def test_every_page_reads_real_rows(truth: Truth) -> None:
    await seeded(truth)
    platform = Platform()
    app = FastAPI()
    app.include_router(router(replace(platform.doors(), views=Views(truth))))
    cookies = {SESSION_COOKIE: "ses_open"}
    headers = {"accept-language": "en"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://baseai.test", cookies=cookies, headers=headers
    ) as client:
        shown = {}
        for path in (
            "/fleet",
            "/nodes/node-a",
            "/queue",
            "/runs",
            f"/runs/{RUN}",
            "/runs/run_waiting",
            "/offers",
            "/accelerators/slot-0",
            "/fleet/plan",
        ):
            answer = await client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            shown[path] = answer.text
        assert (await client.get("/accelerators/slot-9")).status_code == 404
        platform.holder = holder(Role.CUSTOMER, "ten_b")
        assert (await client.get(f"/runs/{RUN}")).status_code == 404
        assert "hello" not in (await client.get("/runs")).text
    assert f'<a href="/runs/{RUN}">hello</a>' in shown["/fleet"]
    assert "<b>1</b> / 2" in shown["/fleet"]
    assert "slot-1" in shown["/nodes/node-a"]
    assert "without the model: 1" in shown["/queue"]
    assert f'<a href="/runs/{RUN}">hello</a>' in shown["/accelerators/slot-0"]
    plan = json.loads(shown["/fleet/plan"])
    assert (plan["serials"], plan["holder"]) == (["slot-0", "slot-1"], [2, 0])
    assert plan["holders"] == [[RUN, "hello", "acme"]]
    assert plan["blocks"] == [["local", "node-a", False, [["node-a", 2]]]]
    for part in ("slot-0", '<svg class="chart"', "step-25", "began to run", "its processes started"):
        assert part in shown[f"/runs/{RUN}"], part
