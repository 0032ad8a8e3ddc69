"""Runs before the door: what is refused creates nothing, another tenant's is not there, what repeats is once."""

import asyncio
from typing import Any

import pytest

from tests.api.platform import HELLO, Platform, digest_of

pytestmark = pytest.mark.anyio


async def created(platform: Platform) -> int:
    return len(await platform.rows("SELECT FROM runs")) + len(
        await platform.rows("SELECT FROM events WHERE subject_kind = 'run'")
    )


# ---- what is refused


async def test_a_wrong_spec_names_file_line_column_key_and_fix_and_creates_nothing(
    platform: Platform,
) -> None:
    answer = await platform.submit("type: task\ncomands: [true]\nnodes: many\n")
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    places = [(one["file"], one["line"], one["column"], one["key"]) for one in errors]
    assert ("run.yaml", 2, 1, "comands") in places
    assert ("run.yaml", 3, 8, "nodes") in places
    assert any("did you mean `commands`" in one["message"] + one["fix"] for one in errors)
    assert all(one["fix"] for one in errors)
    assert await created(platform) == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('resources: {gpu: "cpu-slot:8"}', "4 accelerators on each node instead of 8"),
        ("nodes: 3", "1 node instead of 3"),
        ("resources: {memory: 500GB}", "of memory on each node instead of 500 GiB"),
        ("site: SP4", "any site instead of SP4"),
    ],
)
async def test_a_run_that_never_fits_is_told_the_largest_that_would(
    platform: Platform, lines: str, said: str
) -> None:
    answer = await platform.submit(HELLO.format(name="big") + lines)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert "can never start here" in detail
    assert f"The largest request that fits: {said}" in detail or said in detail
    assert await created(platform) == 0


async def test_an_accelerator_that_is_not_here_is_said_with_what_is(platform: Platform) -> None:
    answer = await platform.submit(HELLO.format(name="big") + "resources: {gpu: H100:8}")
    assert answer.status_code == 422
    assert "The fleet has cpu-slot" in answer.json()["detail"]
    answer = await platform.submit(HELLO.format(name="big") + "resources: {gpu: H1000:8}")
    assert answer.status_code == 422
    assert "H1000" in answer.text
    assert await created(platform) == 0


async def test_an_image_is_refused_where_no_node_has_a_container_runtime(platform: Platform) -> None:
    answer = await platform.submit(HELLO.format(name="boxed") + "image: alpine:3")
    assert answer.status_code == 422
    assert "container runtime" in answer.json()["detail"]
    assert await created(platform) == 0


async def test_a_missing_secret_and_a_missing_file_are_named(platform: Platform) -> None:
    answer = await platform.submit(HELLO.format(name="x") + "secrets: [HF_TOKEN]")
    assert (
        answer.json()["detail"]
        == "there is no secret HF_TOKEN: set it first with `baseai secret set HF_TOKEN`"
    )
    lost = {"path": "main.py", "digest": "0" * 64, "bytes": 1}
    answer = await platform.submit(HELLO.format(name="x"), files=[lost])
    assert answer.status_code == 422
    assert "the file main.py was not uploaded" in answer.json()["detail"]
    assert await created(platform) == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b"])
async def test_a_file_stays_in_its_runs_folder(platform: Platform, path: str) -> None:
    await platform.ask("PUT", f"/files/{digest_of(b'x')}", key="alpha", content=b"x")
    answer = await platform.submit(
        HELLO.format(name="x"), files=[{"path": path, "digest": digest_of(b"x"), "bytes": 1}]
    )
    assert answer.status_code == 422, answer.text
    assert "outside the run's folder" in answer.json()["detail"]


async def test_a_file_of_another_tenant_is_not_there(platform: Platform) -> None:
    await platform.ask("PUT", f"/files/{digest_of(b'x')}", key="beta", content=b"x")
    assert (await platform.ask("HEAD", f"/files/{digest_of(b'x')}", key="beta")).status_code == 200
    assert (await platform.ask("HEAD", f"/files/{digest_of(b'x')}", key="alpha")).status_code == 404
    answer = await platform.submit(
        HELLO.format(name="x"), files=[{"path": "x", "digest": digest_of(b"x"), "bytes": 1}]
    )
    assert answer.status_code == 422


async def test_a_dry_run_tells_what_would_be_and_creates_nothing(platform: Platform) -> None:
    spec = HELLO.format(name="maybe") + "resources: {cpu: 2}"
    answer = await platform.ask("POST", "/runs?dry_run=true", key="alpha", json={"spec": spec})
    assert answer.status_code == 200
    assert await created(platform) == 0
    real = (await platform.submit(spec)).json()
    same = ("gpu", "nodes", "kind", "name", "priority", "tenant", "project", "state")
    assert {key: answer.json()[key] for key in same} == {key: real[key] for key in same}
    assert real["gpu"] == "cpu-slot:2"


async def test_a_dry_run_asks_for_secrets_and_not_yet_for_files(platform: Platform) -> None:
    files = [{"path": "main.py", "digest": "0" * 64, "bytes": 1}]
    asked = {"spec": HELLO.format(name="x"), "files": files}
    assert (await platform.ask("POST", "/runs?dry_run=true", key="alpha", json=asked)).status_code == 200
    asked["spec"] += "secrets: [A]"
    assert (await platform.ask("POST", "/runs?dry_run=true", key="alpha", json=asked)).status_code == 422


# ---- another tenant's


async def test_another_tenants_run_is_not_there(platform: Platform) -> None:
    run_id = await platform.submitted("mine", key="alpha")
    await platform.granted(run_id)
    paths = ["", "/points", "/logs"]
    for name in (run_id, "mine"):
        for path in paths:
            theirs = await platform.ask("GET", f"/runs/{name}{path}", key="beta")
            never = await platform.ask("GET", f"/runs/{name[::-1]}{path}", key="beta")
            assert theirs.status_code == never.status_code == 404
            assert theirs.json()["detail"] == f"no run {name}"
        assert (await platform.ask("POST", f"/runs/{name}/stop", key="beta")).status_code == 404
        assert (await platform.ask("GET", f"/cost?by=run&subject={name}", key="beta")).status_code == 404
    assert (await platform.ask("GET", "/runs?all=true", key="beta")).json()["items"] == []
    assert (await platform.ask("GET", "/cost", key="beta")).json()["items"] == []
    assert (await platform.ask("GET", f"/events?subject={run_id}", key="beta")).json()["items"] == []
    assert run_id not in (await platform.ask("GET", "/events", key="beta")).text
    [seen] = (await platform.ask("GET", "/runs", key="alpha")).json()["items"]
    assert seen["run_id"] == run_id
    assert seen["state"] == "running"


async def test_two_tenants_may_use_one_name(platform: Platform) -> None:
    first, second = (
        await platform.submitted("same", key="alpha"),
        await platform.submitted("same", key="beta"),
    )
    assert (await platform.ask("GET", "/runs/same", key="alpha")).json()["run"]["run_id"] == first
    assert (await platform.ask("GET", "/runs/same", key="beta")).json()["run"]["run_id"] == second


# ---- stopping


async def test_the_reason_of_a_stop_stands_in_the_event(platform: Platform) -> None:
    queued = await platform.submitted("early")
    answer = await platform.ask("POST", f"/runs/{queued}/stop", key="alpha", json={"reason": "wrong data"})
    assert answer.json()["state"] == "cancelled"
    events = (await platform.ask("GET", f"/events?subject={queued}", key="alpha")).json()["items"]
    assert {key: events[0][key] for key in ("event", "reason", "sentence", "actor")} == {
        "event": "cancel", "reason": "stopped_by_user", "sentence": "wrong data", "actor": "alpha",
    }  # fmt: skip
    running = await platform.submitted("late")
    await platform.granted(running)
    assert (
        await platform.ask("POST", f"/runs/{running}/stop", json={"reason": "maintenance"})
    ).status_code == 200
    events = (await platform.ask("GET", f"/events?subject={running}")).json()["items"]
    assert events[0]["sentence"] == "maintenance"
    assert events[0]["reason"] == "stopped_by_operator"


async def test_what_has_ended_cannot_be_stopped(platform: Platform) -> None:
    run_id = await platform.submitted()
    await platform.granted(run_id)
    await platform.finished(run_id)
    answer = await platform.ask("POST", f"/runs/{run_id}/stop", key="alpha")
    assert (answer.status_code, answer.json()["detail"]) == (409, "hello has succeeded already")


# ---- once


async def test_a_repeated_request_gets_the_first_answer(platform: Platform) -> None:
    async def submit(name: str) -> Any:
        headers = {"Idempotency-Key": "once"}
        return await platform.ask(
            "POST", "/runs", key="alpha", json={"spec": HELLO.format(name=name)}, headers=headers
        )

    first, again = await submit("one"), await submit("one")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await submit("two")
    assert other.status_code == 422
    assert len(await platform.rows("SELECT FROM runs")) == 1


async def test_requests_that_race_with_one_key_do_it_once(platform: Platform) -> None:
    said = {"json": {"spec": HELLO.format(name="raced")}, "headers": {"Idempotency-Key": "race"}}
    answers = await asyncio.gather(*(platform.ask("POST", "/runs", key="alpha", **said) for _ in range(5)))
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(await platform.rows("SELECT FROM runs")) == 1


async def test_what_failed_is_not_remembered(platform: Platform) -> None:
    said = {"json": {"spec": HELLO.format(name="x") + "secrets: [A]"}, "headers": {"Idempotency-Key": "k"}}
    assert (await platform.ask("POST", "/runs", key="alpha", **said)).status_code == 422
    await platform.ask("PUT", "/secrets/A", key="alpha", json={"value": "v"})
    assert (await platform.ask("POST", "/runs", key="alpha", **said)).status_code == 201


async def test_two_keys_may_use_one_idempotency_key(platform: Platform) -> None:
    for key in ("alpha", "beta"):
        said = {"json": {"spec": HELLO.format(name=key)}, "headers": {"Idempotency-Key": "same"}}
        answer = await platform.ask("POST", "/runs", key=key, **said)
        assert answer.json()["name"] == key
        assert "idempotent-replayed" not in answer.headers


async def test_the_secret_of_a_key_is_not_kept_for_the_repeat(platform: Platform) -> None:
    said = {"json": {"name": "ci", "role": "viewer"}, "headers": {"Idempotency-Key": "k"}}
    first, again = await platform.ask("POST", "/keys", **said), await platform.ask("POST", "/keys", **said)
    assert first.json()["secret"]
    assert again.json() == first.json() | {"secret": None}
    assert first.json()["secret"] not in str(await platform.rows("SELECT * FROM idempotency"))


# ---- pages of a list


async def test_pages_show_every_run_once_while_new_ones_arrive(platform: Platform) -> None:
    there = [await platform.submitted(f"run-{number}") for number in range(7)]
    seen, cursor, arrived = [], None, 0
    while True:
        page = (
            await platform.ask("GET", "/runs", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        assert len(page["items"]) <= 2
        seen += [row["run_id"] for row in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
        await platform.submitted(f"late-{arrived}")
        arrived += 1
    assert seen == there[::-1]
    assert arrived == 3


async def test_pages_of_events_show_every_event_once(platform: Platform) -> None:
    for number in range(3):
        await platform.submitted(f"run-{number}")
    whole = (await platform.ask("GET", "/events?limit=500")).json()["items"]
    seen, cursor = [], None
    while True:
        page = (
            await platform.ask("GET", "/events", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        ).json()
        seen += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == whole
    assert len(whole) > 6


async def test_runs_may_be_asked_for_by_state(platform: Platform) -> None:
    queued, running = await platform.submitted("waits"), await platform.submitted("runs")
    await platform.rows(f"UPDATE runs SET state = 'starting' WHERE run_id = '{running}' RETURNING 1")
    listed = (await platform.ask("GET", "/runs?state=queued")).json()["items"]
    assert [row["run_id"] for row in listed] == [queued]
    listed = (await platform.ask("GET", "/runs?state=queued,starting")).json()["items"]
    assert [row["run_id"] for row in listed] == [running, queued]


# ---- money


async def test_a_customer_sees_what_it_pays_and_not_what_it_costs_us(platform: Platform) -> None:
    run_id = await platform.submitted()
    await platform.granted(run_id)
    await asyncio.sleep(0.05)
    await platform.finished(run_id)
    for path in (f"/runs/{run_id}", "/cost", "/cost?by=tenant", "/cost?by=node", "/cost?by=accelerator"):
        for key, hidden in (("alpha", True), ("operator", False)):
            told = (await platform.ask("GET", path, key=key)).json()
            rows = [told["money"]] if "money" in told else told["items"]
            assert rows, path
            for row in rows:
                assert float(row["accelerator_hours"]) > 0
                assert row["revenue"] is not None
                assert (row["cost"] is None, row["contribution"] is None) == (hidden, hidden), path
                assert bool(row["basis"]) is not hidden
    assert (await platform.ask("GET", "/books/transfers", key="alpha")).status_code == 403
    trial = (await platform.ask("GET", "/books/trial-balance", key="finance")).json()
    assert float(trial["difference"]) == 0
    assert trial["balances"]


async def test_the_money_of_a_run_that_has_not_started_is_nothing(platform: Platform) -> None:
    run_id = await platform.submitted()
    theirs = (await platform.ask("GET", f"/runs/{run_id}", key="alpha")).json()["money"]
    ours = (await platform.ask("GET", f"/runs/{run_id}")).json()["money"]
    assert (float(theirs["revenue"]), theirs["cost"], theirs["contribution"]) == (0, None, None)
    assert (float(ours["revenue"]), float(ours["cost"])) == (0, 0)


# ---- logs


async def test_a_log_is_read_on_from_where_it_was(platform: Platform) -> None:
    run_id = await platform.submitted()
    lease_id = await platform.granted(run_id)
    path = f"/agent/logs/{lease_id}/output"
    assert (await platform.ask("POST", path, key="node", content=b"one\ntwo\n")).json() == {"next_offset": 8}
    assert (await platform.ask("POST", path, key="node", content=b"one\ntwo\n")).json() == {"next_offset": 8}
    answer = await platform.ask("GET", f"/runs/{run_id}/logs", key="alpha")
    assert (answer.text, answer.headers["x-next-offset"], answer.headers["x-attempt"]) == (
        "one\ntwo\n",
        "8",
        "1",
    )
    answer = await platform.ask("GET", f"/runs/{run_id}/logs?offset=4", key="alpha")
    assert answer.text == "two\n"
    for wrong, status in (
        ("attempt=2", 404),
        ("attempt=0", 404),
        ("attempt=%C2%B2", 422),
        ("offset=-1", 422),
    ):
        assert (
            await platform.ask("GET", f"/runs/{run_id}/logs?{wrong}", key="alpha")
        ).status_code == status, wrong
