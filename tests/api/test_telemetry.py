"""What nodes measure goes in by the agents' door and comes out by the fleet's, each for whom it concerns."""

import asyncio
import gzip
import json
import zlib
from datetime import datetime, timedelta
from typing import Any

import pytest

from baseai.ground.clock import now_utc
from baseai.ground.identity import mint
from tests.api.platform import Platform

pytestmark = pytest.mark.anyio


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def samples(
    keys: list[str], values: dict[str, list[float | None]], *, at: datetime | None = None, **differing: Any
) -> dict[str, Any]:
    """One tick of the accelerators `keys`."""
    return {
        "batch_id": mint("bat"), "family": "accelerator", "boot_id": "boot", "keys": keys,
        "ts_ms": [ms(at or now_utc())] * len(keys), "values": values,
        "sources": {name: f"test {name}" for name in values},
    } | differing  # fmt: skip


def said(*batches: dict[str, Any], **differing: Any) -> dict[str, Any]:
    return {"sent_at": now_utc().isoformat(), "batches": list(batches)} | differing


async def send(platform: Platform, *batches: dict[str, Any], key: str = "node") -> dict[str, Any]:
    answer = await platform.ask("POST", "/agent/telemetry", key=key, json=said(*batches))
    assert answer.status_code == 200, answer.text
    kept: dict[str, Any] = answer.json()
    return kept


# ---- in


async def test_a_batch_is_accepted_once_it_is_safe_and_again_when_it_comes_again(measured: Platform) -> None:
    batch = samples(["one/0", "one/1"], {"temp_c": [40.0, 41.0]})
    for _ in range(2):
        assert await send(measured, batch) == {"accepted": [batch["batch_id"]], "refused": {}}


async def test_only_a_node_s_key_speaks_for_a_node(measured: Platform) -> None:
    for key, status in (("operator", 403), ("alpha", 403), (None, 401)):
        answer = await measured.ask("POST", "/agent/telemetry", key=key, json=said())
        assert answer.status_code == status


async def test_a_node_cannot_speak_of_another_s_devices(measured: Platform) -> None:
    _, measured.keys["two"] = await measured.join("two")
    kept = await send(measured, samples(["one/0", "two/0"], {"temp_c": [40.0, 90.0]}), key="two")
    [(row, why)] = kept["refused"].items()
    assert row.endswith("/one/0")
    assert why.startswith("which device?")
    stranger = samples(["one/0"], {"temp_c": [90.0]})
    assert (await send(measured, stranger, key="two"))["refused"][stranger["batch_id"]].startswith(
        "which device?"
    )


async def test_a_body_may_be_packed_and_is_bounded(measured: Platform) -> None:
    batch = samples(["one/0"], {"temp_c": [40.0]})
    packed = gzip.compress(json.dumps(said(batch)).encode())
    answer = await measured.ask(
        "POST", "/agent/telemetry", key="node", content=packed, headers={"Content-Encoding": "gzip"}
    )
    assert answer.json()["accepted"] == [batch["batch_id"]]
    flood = zlib.compressobj(9, wbits=31)
    bomb = b"".join(flood.compress(bytes(1024**2)) for _ in range(129)) + flood.flush()
    for content, coding, why in (
        (bomb, "gzip", "unpacks to more than"),
        (packed[:-9], "gzip", "the body is cut"),
        (b"{}", "gzip", "not gzip"),
        (packed, "br", "cannot be read"),
    ):
        answer = await measured.ask(
            "POST", "/agent/telemetry", key="node", content=content, headers={"Content-Encoding": coding}
        )
        assert answer.status_code == 422, answer.text
        assert why in answer.json()["detail"]


async def test_a_time_without_a_zone_is_refused(measured: Platform) -> None:
    answer = await measured.ask(
        "POST", "/agent/telemetry", key="node", json=said(sent_at="2026-11-26T10:00:00")
    )
    assert answer.status_code == 422
    assert "sent_at" in answer.json()["detail"]


async def test_without_the_store_nothing_is_accepted_and_the_node_is_told_to_come_again(
    platform: Platform,
) -> None:
    answer = await platform.ask(
        "POST", "/agent/telemetry", key="node", json=said(samples(["one/0"], {"temp_c": [1.0]}))
    )
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


# ---- out


async def asked(platform: Platform, path: str, *, who: str = "operator", **query: Any) -> Any:
    answer = await platform.ask("GET", path, key=who, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_latest_tells_value_state_and_origin(measured: Platform) -> None:
    await send(measured, samples(["one/0"], {"temp_c": [40.0], "power_w": [9000.0]}, codes={"util_pct": [2]}))
    found = await asked(measured, "/telemetry/latest", field="temp_c,power_w,util_pct,tensor_pct")
    [item] = found["items"]
    assert (item["key"], item["node_id"], item["model"]) == ("one/0", measured.node_id, "cpu-slot")
    assert item["fields"] == {
        "temp_c": {"value": 40.0, "state": "value", "origin": "measured"},
        "power_w": {"value": None, "state": "blank", "origin": "measured"},  # no board draws 9 kW
        "util_pct": {"value": None, "state": "unsupported", "origin": "measured"},
        "tensor_pct": {"value": None, "state": "absent", "origin": "measured"},
    }


async def test_a_range_and_an_aggregate_come_as_columns(measured: Platform) -> None:
    now = now_utc().replace(microsecond=0)
    for number in range(3):
        at = now - timedelta(seconds=30 - 10 * number)
        await send(measured, samples(["one/0", "one/1"], {"util_pct": [10.0 * number, None]}, at=at))
    series = await asked(measured, "/telemetry/range", key="one/0", field="util_pct")
    assert series["fields"]["util_pct"]["values"] == [0.0, 10.0, 20.0]
    assert (series["tier"], len(series["ts_ms"])) == ("raw", 3)
    fleet = await asked(measured, "/telemetry/aggregate", field="util_pct", points=1, **{"from": "1m"})
    [line] = fleet["groups"]
    assert (sum(line["count"]), fleet["unit"]) == (3, "%")
    sources = await asked(measured, "/telemetry/sources", key="one/0")
    assert sources == {"util_pct": "test util_pct"}


async def test_arrow_holds_the_same_with_gaps(measured: Platform) -> None:
    import nanoarrow

    await send(measured, samples(["one/0", "one/1"], {"temp_c": [40.0, None]}))
    for query, headers in (
        ({"format": "arrow"}, {}),
        ({}, {"Accept": "application/vnd.apache.arrow.stream"}),
    ):
        answer = await measured.ask(
            "GET", "/telemetry/latest", params={"field": "temp_c", **query}, headers=headers
        )
        assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
        rows = nanoarrow.ArrayStream.from_readable(answer.content).read_all().to_pylist()
        assert [(row["key"], row["temp_c"], row["temp_c_code"]) for row in rows] == [
            ("one/0", 40.0, 0),
            ("one/1", None, 1),
        ]
        assert rows[0]["ts"].tzinfo is not None
    for path, query in (("range", {"key": "one/0"}), ("aggregate", {"field": "temp_c"})):
        answer = await measured.ask("GET", f"/telemetry/{path}", params={"format": "arrow", **query})
        assert nanoarrow.ArrayStream.from_readable(answer.content).read_all().to_pylist()


@pytest.mark.parametrize(
    ("path", "query", "told"),
    [
        ("latest", {"field": "temp"}, "'temp' is no field; did you mean temp_c?"),
        ("latest", {"family": "gpu"}, "'gpu' is no family: it is one of accelerator, node, port"),
        ("aggregate", {"field": "temp_c", "by": "sites"}, "did you mean site?"),
        ("aggregate", {"field": "temp_c", "points": "0"}, "points: an answer has 1 to 5000"),
        ("range", {"key": "k", "from": "yesterday"}, "from: 'yesterday' is no time"),
        ("range", {"key": "k", "from": "2026-11-20T10:00:00"}, "from: '2026-11-20T10:00:00' is no time"),
        ("range", {"key": "k", "from": "1m", "until": "2m"}, "is not before until"),
        ("range", {"key": "k", "from": "9d"}, "points: every sample of more than 2 days is too many"),
        ("latest", {"format": "csv"}, "format: an answer comes as json or arrow"),
    ],
)
async def test_a_bad_question_is_told_what_is_wrong_with_it(
    measured: Platform, path: str, query: dict[str, str], told: str
) -> None:
    answer = await measured.ask("GET", f"/telemetry/{path}", params=query)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


async def test_the_fleet_is_not_a_customer_s_to_see(measured: Platform) -> None:
    for path in (
        "fields",
        "latest",
        "collectors",
        "range?key=one/0",
        "aggregate?field=temp_c",
        "sources?key=one/0",
    ):
        assert (await measured.ask("GET", f"/telemetry/{path}", key="alpha")).status_code == 403
        assert (await measured.ask("GET", f"/telemetry/{path}", key="viewer")).status_code == 200, path


async def held_for_30_s(platform: Platform, run_id: str) -> str:
    """Let the run have had its accelerator for half a minute; the serial."""
    await platform.granted(run_id)
    await platform.rows("UPDATE accelerators SET installed_at = now() - interval '1 hour' RETURNING 1")
    await platform.rows(
        "UPDATE leases SET granted_at = now() - interval '30 s', observed_from = now() - interval '30 s',"
        " observed_until = now() RETURNING 1"
    )
    [row] = await platform.rows(
        "SELECT serial FROM lease_accelerators JOIN accelerators USING (accelerator_no)"
    )
    await platform.rows(
        "UPDATE lease_accelerators SET during = tstzrange(now() - interval '30 s', upper(during)) RETURNING 1"
    )
    serial: str = row["serial"]
    return serial


async def test_a_run_s_samples_are_its_own_alone(measured: Platform) -> None:
    run_id = await measured.submitted()
    serial = await held_for_30_s(measured, run_id)
    await send(measured, samples([serial], {"util_pct": [1.0]}, at=now_utc() - timedelta(seconds=60)))
    for seconds in (20, 10):
        await send(
            measured,
            samples(
                [serial],
                {"util_pct": [float(seconds)], "energy_j": [1000.0 - seconds]},
                at=now_utc() - timedelta(seconds=seconds),
            ),
        )
    shown = await asked(measured, f"/runs/{run_id}/telemetry", who="alpha", field="util_pct")
    [span] = shown["items"]
    assert (span["serial"], span["fields"]["util_pct"]["values"]) == (serial, [20.0, 10.0])
    use = await asked(measured, f"/runs/{run_id}/use", who="alpha")
    assert use["energy_wh"] == pytest.approx(10 / 3600)
    assert use["open"]
    for path in ("telemetry", "use"):
        assert (await measured.ask("GET", f"/runs/{run_id}/{path}", key="beta")).status_code == 404
        assert (await measured.ask("GET", f"/runs/{run_id}/{path}", key="viewer")).status_code == 403


async def test_use_is_told_by_whom_it_concerns(measured: Platform) -> None:
    run_id = await measured.submitted()
    await held_for_30_s(measured, run_id)
    assert [row["subject"] for row in (await asked(measured, "/telemetry/use", who="alpha"))["items"]] == [
        run_id
    ]
    assert (await asked(measured, "/telemetry/use", who="beta"))["items"] == []
    assert (await measured.ask("GET", "/telemetry/use", key="viewer")).status_code == 403
    assert await asked(measured, "/telemetry/use", who="viewer", by="node")
    answer = await measured.ask("GET", "/telemetry/use", params={"by": "colour"})
    assert (
        "use is told by run, tenant, lease, round, node, accelerator, not by colour"
        in answer.json()["detail"]
    )


async def test_collectors_say_how_they_fare(measured: Platform) -> None:
    collector = {
        "name": "nvml",
        "state": "failing",
        "interval_s": 10.0,
        "failures": 3,
        "sentence": "no answer in 5 s",
    }
    await measured.ask("POST", "/agent/telemetry", key="node", json=said(collectors=[collector]))
    intake, nvml = (await asked(measured, "/telemetry/collectors", node="one"))["items"]
    assert (intake["name"], intake["state"]) == ("intake", "ok")
    assert (nvml["state"], nvml["failures"], nvml["sentence"]) == ("failing", 3, "no answer in 5 s")


async def test_without_the_store_questions_are_a_moment_too_early(platform: Platform) -> None:
    answer = await platform.ask("GET", "/telemetry/latest")
    assert (answer.status_code, answer.json()["title"]) == (503, "For a moment not available")


async def test_odd_events_neither_fail_the_message_nor_hold_up_what_comes_with_them(
    measured: Platform,
) -> None:
    def seen(event_id: str, **differing: Any) -> dict[str, Any]:
        return {"event_id": event_id, "at": now_utc().isoformat(), "kind": "kernel"} | differing

    batch = samples(["one/0"], {"temp_c": [40.0]})
    odd = [
        seen("evt_nul", sentence="a\x00b", payload={"x": "\x00"}),
        seen("evt_code", code=2**70),
        seen("evt_late", at="9999-12-31T23:59:59Z"),
        seen("evt_who", key="GPU-of-nobody", sentence="it fell"),
        seen("", sentence="nameless"),
    ]
    answer = await measured.ask("POST", "/agent/telemetry", key="node", json=said(batch, witnesses=odd))
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == ["evt_nul", "evt_code", "evt_late", "evt_who", batch["batch_id"]]
    assert answer.json()["refused"][""].startswith("event_id")
    [row] = await measured.rows("SELECT serial, sentence FROM witnesses WHERE event_id = 'evt_who'")
    assert row == {
        "serial": None,
        "sentence": "it fell (of GPU-of-nobody, which is no accelerator of this node)",
    }
    nan = json.dumps(said(witnesses=[seen("evt_nan", payload={"x": float("nan")})]))
    answer = await measured.ask("POST", "/agent/telemetry", key="node", content=nan)
    assert answer.json() == {"accepted": ["evt_nan"], "refused": {}}


async def test_what_is_no_number_is_blank_and_told_and_the_rest_kept(measured: Platform) -> None:
    odd = samples(["one/0", "one/1"], {"temp_c": ["fifty", 41.0], "power_w": [None, [7]]})  # type: ignore[list-item]
    fine = samples(["one/0"], {"clock_mhz": [1000.0]}, at=now_utc() + timedelta(seconds=1))
    assert (await send(measured, odd, fine)) == {
        "accepted": [odd["batch_id"], fine["batch_id"]],
        "refused": {},
    }
    one, two = (await asked(measured, "/telemetry/latest", key="one/0"))["items"] + (
        await asked(measured, "/telemetry/latest", key="one/1")
    )["items"]
    assert (two["fields"]["temp_c"]["value"], two["fields"]["power_w"]["state"]) == (41.0, "blank")
    assert one["fields"]["clock_mhz"]["value"] == 1000.0
    [intake] = (await asked(measured, "/telemetry/collectors", node="one"))["items"]
    assert intake["troubles"] == ["one/1 power_w: [7] is no number", "one/0 temp_c: 'fifty' is no number"]


async def test_a_message_that_tells_of_no_collector_ends_none(measured: Platform) -> None:
    host = {"name": "host", "state": "ok", "interval_s": 10.0}
    await measured.ask("POST", "/agent/telemetry", key="node", json=said(collectors=[host]))
    await send(measured, samples(["stranger"], {"temp_c": [40.0]}))
    intake, still = sorted(
        (await asked(measured, "/telemetry/collectors", node="one"))["items"],
        key=lambda one: one["name"] == "host",
    )
    assert still["name"] == "host"
    assert intake["troubles"] == ["stranger: which device? no accelerator of this node has that serial"]


async def test_what_was_wrong_with_a_batch_stays_to_be_seen(measured: Platform) -> None:
    """The next message, a few seconds later, has nothing wrong with it: a person would never see the last one."""
    await send(measured, samples(["one/0", "stranger"], {"temp_c": [900.0, 40.0]}))
    for _ in range(2):
        await send(measured, samples(["one/0"], {"temp_c": [40.0]}))
    [intake] = (await asked(measured, "/telemetry/collectors", node="one"))["items"]
    assert intake["state"] == "failing"
    assert intake["troubles"] == [
        "stranger: which device? no accelerator of this node has that serial",
        "one/0 temp_c: 900 °C cannot be",
    ]


async def test_two_messages_of_one_node_may_be_here_at_once(measured: Platform) -> None:
    batches = [samples(["one/0"], {"temp_c": [40.0 + n]}) for n in range(6)]
    answers = await asyncio.gather(
        *(
            measured.ask(
                "POST",
                "/agent/telemetry",
                key="node",
                content=json.dumps(
                    said(
                        batch,
                        collectors=[
                            {"name": f"c{n}", "state": "ok", "interval_s": float("inf"), "failures": 2**40}
                        ],
                    )
                ),
            )
            for n, batch in enumerate(batches)
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 6, [answer.text for answer in answers]
