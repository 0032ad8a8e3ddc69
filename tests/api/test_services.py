"""Services over REST: applied, seen by whose they are, steered, told with what they were asked and what it cost."""

from datetime import timedelta
from decimal import Decimal

import pytest
from psycopg.types.json import Jsonb

from tests.api.platform import HELLO, Platform, digest_of
from tests.views.services import (
    CHAT,
    MAGIKA,
    add_replica,
    add_service,
    add_traffic,
    add_version,
    insert,
    whole_tens,
)

pytestmark = pytest.mark.anyio
SPEC = MAGIKA.format(name="magika")


async def owners(platform: Platform) -> dict[str, tuple[str, str]]:
    """Tenant and project by the tenant's name."""
    rows = await platform.rows(
        "SELECT t.name, tenant_id, project_id FROM tenants t JOIN projects p USING (tenant_id)"
    )
    return {row["name"]: (row["tenant_id"], row["project_id"]) for row in rows}


async def applied(
    platform: Platform, spec: str = SPEC, *, key: str = "alpha", **said: object
) -> dict[str, object]:
    answer = await platform.ask("POST", "/services", key=key, json={"spec": spec, "file": "s.yaml"} | said)
    assert answer.status_code == 201, answer.text
    made: dict[str, object] = answer.json()
    return made


# ---- applying


async def test_a_spec_makes_a_service_then_rolls_out_and_then_changes_nothing(platform: Platform) -> None:
    made = await applied(platform)
    assert (made["made"], made["rolling"], made["version_no"]) == (True, False, 1)
    again = await applied(platform)
    assert (again["made"], again["rolling"], again["version_no"]) == (False, False, 1)
    rolling = await applied(platform, SPEC + "concurrency: 2\n")
    assert (rolling["made"], rolling["rolling"], rolling["version_no"]) == (False, True, 2)
    detail = (await platform.ask("GET", "/services/magika", key="alpha")).json()
    assert [(one["version_no"], one["state"], one["share"]) for one in detail["versions"]] == [
        (2, "candidate", 0.0), (1, "current", 1.0),
    ]  # fmt: skip


async def test_a_request_with_one_idempotency_key_is_answered_the_same_again(platform: Platform) -> None:
    said = {"json": {"spec": SPEC, "file": "s.yaml"}, "headers": {"Idempotency-Key": "k1"}}
    first, second = [await platform.ask("POST", "/services", key="alpha", **said) for _ in range(2)]  # type: ignore[arg-type]
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"


async def test_a_dry_run_says_what_would_be_and_makes_nothing(platform: Platform) -> None:
    answer = await platform.ask(
        "POST", "/services?dry_run=true", key="alpha", json={"spec": SPEC, "file": "s.yaml"}
    )
    assert answer.status_code == 200
    shown = answer.json()["service"]
    assert (shown["name"], shown["engine"], shown["least"], shown["most"]) == ("magika", "onnx", 0, 4)
    assert (await platform.ask("GET", "/services?all=true", key="alpha")).json()["items"] == []


@pytest.mark.parametrize(
    ("path", "spec", "sentence"),
    [
        ("/services", HELLO.format(name="x"), "s.yaml is a task, not a service: submit it to /api/v1/runs"),
        ("/runs", SPEC, "s.yaml is a service, not a run: apply it at /api/v1/services"),
        ("/services", SPEC + "queue: nowhere\n", "there is no queue nowhere here"),
        ("/services", SPEC.replace("cpu: 1", "cpu: 64"), "64"),
    ],
)
async def test_what_cannot_be_served_is_refused_with_what_to_do(
    platform: Platform, path: str, spec: str, sentence: str
) -> None:
    answer = await platform.ask("POST", path, key="alpha", json={"spec": spec, "file": "s.yaml"})
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


async def test_a_file_that_was_not_brought_is_asked_for(platform: Platform) -> None:
    files = [{"path": "m.py", "digest": digest_of(b"x"), "bytes": 1, "mode": 0o644}]
    spec = "type: service\nname: own\nmodel: python:m.py:answer\nfiles: [m.py]\n"
    answer = await platform.ask(
        "POST", "/services", key="alpha", json={"spec": spec, "file": "s.yaml", "files": files}
    )
    assert answer.status_code == 422
    assert "m.py" in answer.json()["detail"]


# ---- seeing


async def test_each_lists_the_services_of_its_tenant(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        await add_service(session, *of["alpha"], "magika")
        await add_service(session, *of["beta"], "magika")
        await add_service(session, *of["beta"], "old", state="stopped", stopped_at="now")
    seen = {
        key: [
            (one["tenant"], one["name"])
            for one in (await platform.ask("GET", "/services", key=key)).json()["items"]
        ]
        for key in ("alpha", "beta", "operator")
    }
    assert seen == {
        "alpha": [("alpha", "magika")],
        "beta": [("beta", "magika")],
        "operator": [("beta", "magika"), ("alpha", "magika")],
    }
    everything = (await platform.ask("GET", "/services?all=true", key="beta")).json()["items"]
    assert {one["name"] for one in everything} == {"magika", "old"}
    assert (await platform.ask("GET", "/services", key="viewer")).status_code == 403


async def test_a_list_is_walked_page_by_page(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        for name in ("a", "b", "c"):
            await add_service(session, *of["alpha"], name)
    seen, cursor = [], None
    for _ in range(3):
        page = (
            await platform.ask(
                "GET", "/services", key="alpha", params={"limit": 1} | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        seen += [one["name"] for one in page["items"]]
        cursor = page["next"]
    assert (sorted(seen), cursor) == (["a", "b", "c"], None)
    assert (await platform.ask("GET", "/services?cursor=x", key="alpha")).status_code == 422


async def test_a_service_is_told_with_its_versions_replicas_and_decisions(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        service_id = await add_service(
            session, *of["alpha"], candidate_no=2, candidate_share=0.1, step_at="now", wanted=3
        )
        await add_version(session, service_id, *of["alpha"], 2, state="candidate")
        await add_replica(session, service_id, "run_0001", ready_at="now")
        await add_replica(session, service_id, "run_0002", version_no=2, state="starting")
        await add_replica(
            session, service_id, "run_0003", state="gone", gone_at="now", why="fewer are wanted"
        )
        await insert(
            session, "service_scalings", service_id=service_id, tenant_id=of["alpha"][0], project_id=of["alpha"][1],
            at="now", wanted=3, had=1, ready=1, demand=11.5, panic=True, why="11.5 requests under way, 4 a replica",
        )  # fmt: skip
    detail = (await platform.ask("GET", "/services/magika", key="alpha")).json()
    shown = detail["service"]
    assert (shown["state"], shown["ready"], shown["replicas"], shown["wanted"]) == ("serving", 1, 2, 3)
    assert shown["url"] == f"http://127.0.0.1:7801/s/{service_id}"
    assert [(one["version_no"], one["share"]) for one in detail["versions"]] == [(2, 0.1), (1, 0.9)]
    assert [(one["run_id"], one["state"], one["why"]) for one in detail["replicas"]][-1] == (
        "run_0003", "gone", "fewer are wanted",
    )  # fmt: skip
    assert {one["run_id"] for one in detail["replicas"][:2]} == {"run_0001", "run_0002"}
    assert [(one["wanted"], one["panic"]) for one in detail["scalings"]] == [(3, True)]
    assert "curl http://127.0.0.1:7801/v2/models/magika" in detail["examples"][0]["curl"]
    assert detail["slo"]["state"] == "unmeasured"


async def test_a_replica_in_the_list_of_runs_says_whose_it_is(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        service_id = await add_service(session, *of["alpha"])
        await add_replica(session, service_id, "run_0001")
    await platform.submitted("other")
    runs = (await platform.ask("GET", "/runs", key="alpha")).json()["items"]
    assert {run["name"]: (run["service"], run["version_no"]) for run in runs} == {
        "magika-0001": ("magika", 1),
        "other": (None, None),
    }


async def test_of_two_tenants_services_of_one_name_an_operator_says_which(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        first = await add_service(session, *of["alpha"])
        await add_service(session, *of["beta"])
    asked = await platform.ask("GET", "/services/magika")
    assert asked.status_code == 422
    assert "say which by its id" in asked.json()["detail"]
    found = (await platform.ask("GET", f"/services/{first}")).json()
    assert found["service"]["tenant"] == "alpha"
    assert (
        f"curl http://127.0.0.1:7801/s/{first}/v2/models/magika" in found["examples"][0]["curl"]
    )  # no tenant's key
    assert (await platform.ask("GET", f"/services/{first}", key="beta")).status_code == 404


# ---- what was asked


async def test_traffic_is_summed_over_gateways_and_versions(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        service_id = await add_service(session, *of["alpha"], candidate_no=2, candidate_share=0.5)
        await add_version(session, service_id, *of["alpha"], 2, state="candidate")
        [now] = await (await session.execute("SELECT now() AS now")).fetchall()
        at = whole_tens(now["now"]) - timedelta(seconds=60)
        await add_traffic(session, service_id, at, (10.0, 90), (400.0, 10), slow=10, cache_hits=20)
        await add_traffic(
            session, service_id, at, (10.0, 100), version_no=2, gateway="g2", errors=2, tokens_out=50
        )
    told = (await platform.ask("GET", "/services/magika/traffic", key="alpha")).json()
    [point] = [one for one in told["points"] if one["requests"]]
    assert (point["requests"], point["requests_per_s"], told["step_s"]) == (200, 20.0, 10)
    assert (point["error_ratio"], point["cache_hit_ratio"], point["slow_ratio"]) == (0.01, 0.1, 0.05)
    assert point["p50_ms"] == pytest.approx(10.0, rel=0.1)
    assert point["p99_ms"] == pytest.approx(400.0, rel=0.1)
    assert told["total"]["requests"] == 200
    assert told["total"]["requests_per_s"] == pytest.approx(200 / 900)
    quiet = told["points"][0]
    assert (quiet["requests"], quiet["p99_ms"], quiet["error_ratio"]) == (0, None, None)
    detail = (await platform.ask("GET", "/services/magika", key="alpha")).json()
    assert (detail["slo"]["state"], detail["slo"]["burn"]) == ("missed", 5.0)


async def test_replicas_are_told_as_they_stood(platform: Platform) -> None:
    of = await owners(platform)
    async with platform.truth.transaction() as session:
        service_id = await add_service(session, *of["alpha"])
        [row] = await (await session.execute("SELECT now() AS now")).fetchall()
        now = row["now"]
        await add_replica(session, service_id, "run_0001", ready_at=now - timedelta(seconds=600))
        await add_replica(
            session, service_id, "run_0002", state="gone", ready_at=now - timedelta(seconds=500),
            draining_at=now - timedelta(seconds=300), gone_at=now - timedelta(seconds=290),
        )  # fmt: skip
        for ago_s, wanted in ((2_000, 1), (510, 2), (310, 1)):
            await insert(
                session, "service_scalings", service_id=service_id, tenant_id=of["alpha"][0], project_id=of["alpha"][1],
                at=now - timedelta(seconds=ago_s), wanted=wanted, had=1, ready=1, demand=1.0, panic=False, why="w",
            )  # fmt: skip
        await insert(
            session, "service_demand", service_id=service_id, gateway="g1", at=now - timedelta(seconds=400),
            concurrency=3.5, held=0, arrivals=3,
        )  # fmt: skip
        await insert(
            session, "service_demand", service_id=service_id, gateway="g2", at=now - timedelta(seconds=400),
            concurrency=1.5, held=0, arrivals=3,
        )  # fmt: skip
    points = (await platform.ask("GET", "/services/magika/traffic", key="alpha")).json()["points"]
    course = [(one["wanted"], one["ready"]) for one in points]
    assert (course[0], course[-1]) == ((1, 0), (1, 1))
    assert list(dict.fromkeys(course)) == [(1, 0), (1, 1), (2, 1), (2, 2), (1, 2)]
    assert [one["concurrency"] for one in points if one["concurrency"]] == [0.5]  # of ten seconds one


async def test_a_window_that_is_none_is_refused_with_those_there_are(platform: Platform) -> None:
    await applied(platform)
    for path in ("traffic", "cost"):
        answer = await platform.ask("GET", f"/services/magika/{path}?window=1y", key="alpha")
        assert answer.status_code == 422
        assert "15m, 1h, 6h, 24h, 7d" in answer.json()["detail"]


async def test_a_service_costs_what_its_replicas_do(platform: Platform) -> None:
    of = await owners(platform)
    run_id = await platform.submitted("replica")
    lease = await platform.granted(run_id)
    async with platform.truth.transaction() as session:
        service_id = await add_service(session, *of["alpha"])
        await session.execute(
            "UPDATE runs SET service_id = %s, version_no = 1 WHERE run_id = %s", (service_id, run_id)
        )
        await session.execute(
            "UPDATE leases SET observed_from = now() - interval '30 min', observed_until = now(),"
            " granted_at = now() - interval '30 min' WHERE lease_id = %s",
            (lease,),
        )
        [now] = await (await session.execute("SELECT now() AS now")).fetchall()
        at = whole_tens(now["now"]) - timedelta(seconds=60)
        await add_traffic(session, service_id, at, (10.0, 500), tokens_in=1_000, tokens_out=3_000)
    whole = (await platform.ask("GET", f"/services/{service_id}/cost?window=1h")).json()["items"][0]
    [run] = (await platform.ask("GET", f"/cost?by=run&subject={run_id}")).json()["items"]
    assert Decimal(whole["cost"]) == pytest.approx(Decimal(run["cost"]), rel=Decimal("0.01"))
    assert (whole["estimated"], whole["accruing"], whole["requests"], whole["tokens"]) == (
        False,
        True,
        500,
        4_000,
    )
    assert Decimal(whole["cost_per_1000_requests"]) == pytest.approx(
        2 * Decimal(whole["cost"]), abs=Decimal("1e-5")
    )
    part = (await platform.ask("GET", f"/services/{service_id}/cost?window=15m")).json()["items"][0]
    assert part["estimated"]
    assert Decimal(part["accelerator_hours"]) == pytest.approx(Decimal("0.25"), abs=Decimal("0.001"))
    own = (await platform.ask("GET", "/services/magika/cost?window=1h", key="alpha")).json()["items"][0]
    assert (own["cost"], own["cost_per_1000_requests"]) == (None, None)
    assert Decimal(own["revenue"]) > 0


# ---- steering


async def test_bounds_are_changed_without_a_rollout(platform: Platform) -> None:
    await applied(platform)
    answer = await platform.ask("POST", "/services/magika/scale", key="alpha", json={"least": 1, "most": 2})
    shown = answer.json()
    assert (shown["service"]["least"], shown["service"]["most"], len(shown["versions"])) == (1, 2, 1)
    wrong = await platform.ask("POST", "/services/magika/scale", key="alpha", json={"least": 3})
    assert (wrong.status_code, "no range" in wrong.json()["detail"]) == (422, True)
    assert (await platform.ask("POST", "/services/magika/scale", key="alpha", json={})).status_code == 422


async def test_a_rollout_is_promoted_or_taken_back_by_hand(platform: Platform) -> None:
    await applied(platform)
    assert (await platform.ask("POST", "/services/magika/promote", key="alpha")).status_code == 409
    await applied(platform, SPEC + "concurrency: 2\n")
    back = (await platform.ask("POST", "/services/magika/rollback", key="alpha")).json()
    assert [(one["version_no"], one["state"]) for one in back["versions"]] == [
        (2, "rolled_back"),
        (1, "current"),
    ]
    await applied(platform, SPEC + "concurrency: 3\n")
    done = (await platform.ask("POST", "/services/magika/promote", key="alpha")).json()
    assert [(one["version_no"], one["state"]) for one in done["versions"]][:1] == [(3, "current")]


async def test_a_stopped_service_leaves_its_name_free(platform: Platform) -> None:
    first = await applied(platform)
    stopped = await platform.ask("POST", "/services/magika/stop", key="alpha")
    assert stopped.json()["service"]["state"] == "stopped"
    assert (await platform.ask("POST", "/services/magika/stop", key="alpha")).status_code == 409
    again = await applied(platform)
    assert again["made"]
    assert again["service"] != first["service"]


@pytest.mark.parametrize("verb", ["scale", "promote", "rollback", "stop"])
async def test_another_tenants_service_is_not_there_to_steer(platform: Platform, verb: str) -> None:
    await applied(platform)
    answer = await platform.ask("POST", f"/services/magika/{verb}", key="beta", json={"most": 2})
    assert answer.status_code == 404
    assert (
        await platform.ask("POST", f"/services/magika/{verb}", key="finance", json={"most": 2})
    ).status_code == 403


# ---- models


async def test_models_are_listed_with_their_origin_and_who_serves_them(platform: Platform) -> None:
    of = await owners(platform)
    run_id = await platform.submitted("train")
    async with platform.truth.transaction() as session:
        service_id = await add_service(session, *of["alpha"], "chat", text=CHAT)
        await add_replica(session, service_id, "run_0001", model_digest="d" * 64)
        await insert(
            session, "models", model_id="mdl_1", tenant_id=of["alpha"][0], project_id=of["alpha"][1], name="chat",
            digest="d" * 64, source="run:train", origin_run_id=run_id, bytes=42, license="MIT", engine="chat",
            evaluation=Jsonb({"kind": "result", "step": 40, "sample": "def", "bits_per_byte": 1.82}),
        )  # fmt: skip
    [one] = (await platform.ask("GET", "/models", key="alpha")).json()["items"]
    assert (one["origin_run"], one["served_by"], one["bytes"], one["license"]) == (
        "train",
        ["chat"],
        42,
        "MIT",
    )
    assert one["evaluation"] == {"bits_per_byte": 1.82}  # of the model, and not of its training
    assert (await platform.ask("GET", "/models", key="beta")).json()["items"] == []
