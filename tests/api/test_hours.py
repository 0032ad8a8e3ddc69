"""What the accelerators were, over REST: exact sums, who may see them, and what is asked wrongly."""

from decimal import Decimal
from typing import Any

import pytest

from baseai.finance.bucket import NATURE
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio

HOUR_US = 3_600_000_000


async def told(platform: Platform, **asked: Any) -> dict[str, Any]:
    answer = await platform.ask("GET", "/time", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def installed_earlier(platform: Platform, hours: int) -> None:
    async with platform.truth.transaction() as session:
        await session.execute(
            "UPDATE accelerators SET installed_at = date_trunc('hour', now(), 'UTC') - %s * interval '1 hour'",
            (hours,),
        )


async def test_the_run_of_this_hour_is_told_before_the_hour_is_over(platform: Platform) -> None:
    run_id = await platform.submitted()
    await platform.granted(run_id)
    await platform.finished(run_id)
    found = await told(platform)
    buckets = {row["bucket"]: row["micro_seconds"] for row in found["items"]}
    [metered] = await platform.rows("SELECT sum(micro_seconds)::bigint AS us FROM usage_lines")
    assert buckets["on_demand"] == metered["us"]
    assert sum(buckets.values()) == found["installed_us"]
    assert found["provisional"] is True
    assert sum(Decimal(row["share_ratio"]) for row in found["items"]) == pytest.approx(1)


async def test_what_is_free_and_fits_nobody_is_fragmented(platform: Platform) -> None:
    await platform.join("two", slots=4)
    for name, cpu in (("a", 3), ("b", 3), ("c", 2)):
        spec = f"type: task\nname: {name}\ncommands: [echo hello]\nresources: {{cpu: {cpu}}}\n"
        assert (await platform.submit(spec)).status_code == 201
    await platform.rooms.scheduler.tick()
    await platform.rooms.scheduler.tick()  # what was asked first holds by now
    await platform.rooms.scheduler.tick()
    found = {row["bucket"]: row for row in (await told(platform))["items"]}
    assert found["fragmented"]["micro_seconds"] > 0
    [interval] = await platform.rows("SELECT * FROM fragmentations")
    assert (interval["model"], interval["site_id"], interval["until_at"]) == ("cpu-slot", "local", None)
    [waiting] = await platform.rows("SELECT run_id FROM runs WHERE state = 'queued'")
    assert (await platform.ask("POST", f"/runs/{waiting['run_id']}/stop")).status_code == 200
    await platform.rooms.engine.settle()
    await platform.rooms.scheduler.tick()
    [interval] = await platform.rows("SELECT * FROM fragmentations")
    assert interval["until_at"] is not None


async def test_every_way_to_tell_it_sums_to_installed_time(platform: Platform) -> None:
    await installed_earlier(platform, 30)
    done = await platform.rooms.time.close()
    assert done.closed in (29, 30)
    assert done.closed_until is not None
    [first] = await platform.rows("SELECT min(hour) AS at FROM time_buckets")
    span = {"from": first["at"].isoformat(), "to": done.closed_until.isoformat()}
    labels = {"bucket": None, "site": "local", "model": "cpu-slot", "node": "one"}
    for by, label in labels.items():
        for step in (None, "hour", "day"):
            found = await told(platform, **span, by=by, **({"step": step} if step else {}))
            assert found["installed_us"] == done.closed * 4 * HOUR_US
            assert sum(row["micro_seconds"] for row in found["items"]) == found["installed_us"]
            assert Decimal(found["installed_hours"]) == done.closed * 4
            assert found["provisional"] is False
            assert {row["label"] for row in found["items"]} == {label}
            if step == "hour":
                assert len(found["items"]) == done.closed
            for row in found["items"]:
                nature = NATURE[row["bucket"]]
                assert (row["used"], row["sold"], row["available"]) == (
                    nature.used,
                    nature.sold,
                    nature.available,
                )


async def test_an_hour_that_does_not_add_up_is_not_shown_and_says_why(platform: Platform) -> None:
    await installed_earlier(platform, 3)
    await platform.rooms.time.close()
    async with platform.truth.transaction() as session:
        await session.execute(
            "INSERT INTO checks (name, hour, site_id, sentence) SELECT 'time', min(hour), 'local', 'it does not add up'"
            " FROM time_buckets"
        )
    since = (await platform.rows("SELECT min(hour) AS at FROM time_buckets"))[0]["at"]
    found = await told(platform, **{"from": since.isoformat(), "step": "hour"})
    assert [(one["site"], one["sentence"]) for one in found["withheld"]] == [("local", "it does not add up")]
    assert min(row["start_at"] for row in found["items"]) > found["withheld"][0]["hour"]


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        pytest.param({"by": "rack"}, "by=rack is not known; it is one of bucket, site, model, node", id="by"),
        pytest.param({"step": "week"}, "step=week is not known", id="step"),
        pytest.param({"from": "yesterday"}, "from=yesterday is neither a day", id="no instant"),
        pytest.param({"from": "2026-11-01T03:00:00"}, "names no zone", id="no zone"),
        pytest.param({"from": "2026-11-01T03:30:00Z"}, "not the start of an hour", id="half an hour"),
        pytest.param({"from": "2026-11-02", "to": "2026-11-01"}, "is not after", id="backwards"),
        pytest.param(
            {"from": "2020-01-01", "to": "2026-11-01", "step": "hour"}, "more than 1000 steps", id="too long"
        ),
    ],
)
async def test_asked_wrongly(platform: Platform, asked: dict[str, str], wrong: str) -> None:
    answer = await platform.ask("GET", "/time", params=asked)
    assert answer.status_code == 422
    assert wrong in answer.json()["detail"]


async def test_who_may_see_it(platform: Platform) -> None:
    statuses = {
        holder: (await platform.ask("GET", "/time", key=holder)).status_code
        for holder in ("operator", "finance", "investor", "viewer", "alpha", "node")
    }
    assert statuses == {
        "operator": 200, "finance": 200, "investor": 200, "viewer": 403, "alpha": 403, "node": 403
    }  # fmt: skip
