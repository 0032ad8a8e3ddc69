"""Queues over REST: operators set them, everybody sees what is theirs to use, and a run names one that is there."""

import pytest

from tests.api.platform import HELLO, Platform

pytestmark = pytest.mark.anyio


async def names(platform: Platform, key: str) -> list[tuple[str, str | None]]:
    items = (await platform.ask("GET", "/queues", key=key)).json()["items"]
    return [(one["name"], one["tenant"]) for one in items]


async def test_an_operator_sets_a_queue_bit_by_bit_and_removes_it(platform: Platform) -> None:
    made = await platform.ask("PUT", "/queues/lab", json={"quota": {"cpu-slot": 2}, "weight": 3})
    assert made.status_code == 200
    changed = await platform.ask("PUT", "/queues/lab", json={"limit": {"cpu-slot": 3}})
    assert (changed.json()["weight"], changed.json()["parent"]) == (3.0, "root")
    [slots] = changed.json()["models"]
    assert (slots["model"], slots["quota"], slots["limit"], slots["held"]) == ("cpu-slot", 2, 3, 0)
    shown = await platform.ask("GET", "/queues/lab", key="alpha")
    assert shown.json() == changed.json()
    assert (await platform.ask("DELETE", "/queues/lab")).status_code == 204
    assert (await platform.ask("GET", "/queues/lab")).status_code == 404


async def test_each_sees_the_queues_that_are_theirs_to_use(platform: Platform) -> None:
    await platform.ask("PUT", "/queues/pool", json={})
    await platform.ask("PUT", "/queues/alphas", json={"tenant": "alpha"})
    assert await names(platform, "operator") == [
        ("alphas", "alpha"), ("pool", None), ("default", "alpha"), ("default", "beta"),
    ]  # fmt: skip
    assert await names(platform, "alpha") == [("alphas", "alpha"), ("pool", None), ("default", "alpha")]
    assert await names(platform, "beta") == [("pool", None), ("default", "beta")]
    assert await names(platform, "investor") == [("pool", None)]
    assert (await platform.ask("GET", "/queues/alphas", key="beta")).status_code == 404
    assert (await platform.ask("GET", "/queues/alphas", key="viewer")).status_code == 404


async def test_what_is_held_is_seen_in_the_queue_and_above_it(platform: Platform) -> None:
    await platform.ask("PUT", "/queues/lab", json={})
    await platform.ask("PUT", "/queues/vision", json={"parent": "lab"})
    spec = HELLO.format(name="held") + "queue: vision\n"
    await platform.granted((await platform.submit(spec)).json()["run_id"])
    waiting = await platform.submit(spec)
    assert waiting.status_code == 201
    for name in ("vision", "lab"):
        shown = (await platform.ask("GET", f"/queues/{name}", key="beta")).json()
        assert (shown["waiting"], shown["running"]) == (1, 1)
        assert [(one["model"], one["held"]) for one in shown["models"]] == [("cpu-slot", 1)]
    held = await platform.ask("DELETE", "/queues/vision")
    assert held.status_code == 409
    assert "2 runs wait or run in vision" in held.json()["detail"]


@pytest.mark.parametrize("dry_run", ["false", "true"])
@pytest.mark.parametrize(
    ("queue", "sentence"),
    [
        ("pol", "queue: there is no queue pol here; did you mean pool?"),
        ("betas", "queue: there is no queue betas here; there are default, pool"),
    ],
)
async def test_a_run_that_names_no_queue_of_its_tenant_is_refused(
    platform: Platform, queue: str, sentence: str, dry_run: str
) -> None:
    await platform.ask("PUT", "/queues/pool", json={})
    await platform.ask("PUT", "/queues/betas", json={"tenant": "beta"})
    spec = HELLO.format(name="x") + f"queue: {queue}\n"
    refused = await platform.ask(
        "POST", f"/runs?dry_run={dry_run}", key="alpha", json={"spec": spec, "file": "run.yaml"}
    )
    assert refused.status_code == 422
    assert refused.json()["detail"] == sentence
    assert await platform.rows("SELECT run_id FROM runs") == []


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("Lab", {}, "'Lab' is not a name of a queue"),
        ("default", {}, "default is there by itself"),
        ("lab", {"quota": {"cpu-slots": 1}}, "no accelerator model cpu-slots; did you mean cpu-slot?"),
        ("lab", {"quota": {"cpu-slot": -1}}, "quota of -1 cpu-slot"),
        ("lab", {"weight": 0}, "weight 0"),
        ("lab", {"shared": True, "tenant": "alpha"}, "cannot be everybody's and one tenant's"),
    ],
)
async def test_what_would_not_be_sound_is_refused_with_what_to_say(
    platform: Platform, name: str, body: dict[str, object], sentence: str
) -> None:
    refused = await platform.ask("PUT", f"/queues/{name}", json=body)
    assert refused.status_code == 422
    assert sentence in refused.json()["detail"]
