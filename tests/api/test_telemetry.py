"""What nodes measure goes in by the agents' door and comes out by the fleet's, each for whom it concerns."""

import gzip
import json
import zlib
from datetime import datetime
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
