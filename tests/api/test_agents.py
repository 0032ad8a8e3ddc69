"""The agents' door: a node reads its own orders and writes its own observations, and nothing else."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.api.platform import HELLO, Platform, digest_of, facts

pytestmark = pytest.mark.anyio


async def join(platform: Platform, token: str, name: str, **differing: Any) -> Any:
    return await platform.ask(
        "POST", "/agent/join", key=None, json={"token": token, "facts": facts(name, **differing)}
    )


async def token_of(platform: Platform) -> str:
    answer = await platform.ask("POST", "/join-tokens", json={"site": "local"})
    token: str = answer.json()["token"]
    return token


# ---- joining


async def test_a_join_token_works_once(platform: Platform) -> None:
    token = await token_of(platform)
    assert (await join(platform, token, "two")).status_code == 201
    again = await join(platform, token, "three")
    assert again.status_code == 409
    assert "used before" in again.json()["detail"]
    assert (await join(platform, "join_wrong", "three")).status_code == 401


async def test_a_join_token_used_by_many_at_once_admits_one(platform: Platform) -> None:
    token = await token_of(platform)
    answers = await asyncio.gather(*(join(platform, token, f"racer-{number}") for number in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert len(await platform.rows("SELECT FROM nodes WHERE name LIKE 'racer-%'")) == 1


async def test_a_name_wanted_by_many_at_once_goes_to_one(platform: Platform) -> None:
    tokens = [await token_of(platform) for _ in range(4)]
    answers = await asyncio.gather(*(join(platform, token, "wanted") for token in tokens))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert (
        len(await platform.rows("SELECT FROM join_tokens WHERE used_at IS NOT NULL")) == 2
    )  # the first node's, and one


async def test_a_join_that_fails_leaves_the_token_unspent(platform: Platform) -> None:
    token = await token_of(platform)
    stranger = [{"serial": "s", "model": "warp-core", "index": 0}]
    refused = await join(platform, token, "two", devices=stranger)
    assert refused.status_code == 422
    assert "warp-core" in refused.json()["detail"]
    leased_only = await join(
        platform, token, "two", devices=[{"serial": "t", "model": "tpu-v5e", "index": 0}]
    )
    assert leased_only.status_code == 422
    stolen = await join(
        platform, token, "two", devices=[{"serial": "one/0", "model": "cpu-slot", "index": 0}]
    )
    assert stolen.status_code == 409
    assert (await join(platform, token, "two")).status_code == 201


async def test_a_token_that_is_too_old_is_not_admitted(platform: Platform) -> None:
    token = await token_of(platform)
    await platform.rows(
        "UPDATE join_tokens SET expires_at = now() - interval '1 s' WHERE used_at IS NULL RETURNING 1"
    )
    assert (await join(platform, token, "two")).status_code == 401


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 101, "é", "a/b"])
async def test_a_node_needs_a_name_that_a_path_can_hold(platform: Platform, name: str) -> None:
    token = await token_of(platform)
    assert (await join(platform, token, name)).status_code == 422


# ---- keys


async def test_a_nodes_key_opens_nothing_of_peoples(platform: Platform) -> None:
    for path in ("/me", "/offers", "/runs", "/nodes", "/secrets"):
        assert (await platform.ask("GET", path, key="node")).status_code == 403, path
    assert (await platform.ask("POST", "/sign-in-links", key="node")).status_code == 403


async def test_a_node_sees_no_lease_log_or_file_of_another(platform: Platform) -> None:
    content = b"print(1)"
    await platform.ask("PUT", f"/files/{digest_of(content)}", key="alpha", content=content)
    mount = {"path": "main.py", "digest": digest_of(content), "bytes": len(content)}
    run_id = (await platform.submit(HELLO.format(name="x"), files=[mount])).json()["run_id"]
    lease_id = await platform.granted(run_id)
    _, other = await platform.join("two")
    own = (await platform.ask("GET", "/agent/desired?wait_s=0", key="node")).json()["launches"]
    assert [launch["lease_id"] for launch in own] == [lease_id]
    assert (await platform.ask("GET", "/agent/desired?wait_s=0", key=other)).json()["launches"] == []
    for key, status in (("node", 200), (other, 404)):
        assert (
            await platform.ask("POST", f"/agent/logs/{lease_id}/out", key=key, content=b"x")
        ).status_code == status
        assert (
            await platform.ask("GET", f"/agent/files/{digest_of(content)}", key=key)
        ).status_code == status
    seen = {"event_id": "evt_x", "at": datetime.now(UTC).isoformat(), "kind": "exited", "lease_id": lease_id,
            "attempt_no": 1, "exit_code": 0}  # fmt: skip
    report = {"boot_id": "b", "sent_at": datetime.now(UTC).isoformat(), "seen_version": 1}
    answer = await platform.ask(
        "POST", "/agent/report", key=other, json=report | {"observations": [seen], "gone": [lease_id]}
    )
    assert answer.json()["refused"] == {"evt_x": "this node holds no such lease"}
    [lease] = await platform.rows(f"SELECT * FROM leases WHERE lease_id = '{lease_id}'")
    assert (lease["state"], lease["exit_reason"]) == ("active", None)


async def test_a_retired_nodes_key_is_dead(platform: Platform) -> None:
    assert (await platform.ask("GET", "/agent/desired?wait_s=0", key="node")).status_code == 200
    assert (await platform.ask("POST", "/nodes/one/retire", json={"reason": "sold"})).json()[
        "state"
    ] == "retired"
    assert (await platform.ask("GET", "/agent/desired?wait_s=0", key="node")).status_code == 401


async def test_a_piece_of_a_log_is_bounded(platform: Platform) -> None:
    run_id = await platform.submitted()
    lease_id = await platform.granted(run_id)
    answer = await platform.ask(
        "POST", f"/agent/logs/{lease_id}/out", key="node", content=b"x" * (256 * 1024 + 1)
    )
    assert answer.status_code == 422


async def test_an_agent_of_a_far_version_is_told_so(platform: Platform) -> None:
    report = {"boot_id": "b", "sent_at": datetime.now(UTC).isoformat(), "seen_version": 1, "protocol": 9}
    answer = await platform.ask("POST", "/agent/report", key="node", json=report)
    assert answer.status_code == 422
    assert "protocol 9" in answer.json()["detail"]


async def test_the_reason_for_declaring_a_node_dead_stands_in_the_event(platform: Platform) -> None:
    run_id = await platform.submitted()
    await platform.granted(run_id)
    await platform.rows("UPDATE nodes SET seen_at = now() - interval '1 minute' RETURNING 1")
    answer = await platform.ask("POST", "/nodes/one/declare-dead", json={"reason": "burnt"})
    assert answer.json() == {"released": 1}
    [event] = await platform.rows("SELECT * FROM events WHERE event = 'declared_dead'")
    assert (event["subject_id"], event["actor"], event["sentence"]) == (platform.node_id, "operator", "burnt")


async def test_only_a_run_that_names_a_secret_receives_it(platform: Platform) -> None:
    await platform.ask("PUT", "/secrets/TOKEN", key="alpha", json={"value": "s3cret-value"})
    with_it = (await platform.submit(HELLO.format(name="with") + "secrets: [TOKEN]")).json()["run_id"]
    without = await platform.submitted("without")
    for run_id in (with_it, without):
        await platform.granted(run_id)
    launches = (await platform.ask("GET", "/agent/desired?wait_s=0", key="node")).json()["launches"]
    assert {launch["run_name"]: launch["secrets"] for launch in launches} == {
        "with": {"TOKEN": "s3cret-value"}, "without": {},
    }  # fmt: skip
    for table in ("secrets", "events", "runs", "observations", "idempotency"):
        assert "s3cret-value" not in str(await platform.rows(f"SELECT * FROM {table}")), table
    for path in ("/secrets", "/events", f"/runs/{with_it}"):
        assert "s3cret-value" not in (await platform.ask("GET", path, key="alpha")).text
