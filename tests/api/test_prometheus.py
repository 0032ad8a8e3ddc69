"""What people run today fits: a Prometheus reads `/metrics` and writes to us."""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cramjam
import httpx
import pytest

from baseai.ground.clock import now_utc
from baseai.telemetry.field import ACCELERATOR, NODE, Kind
from tests.api.platform import Platform
from tests.api.test_telemetry import asked, samples, send

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
UUID = "GPU-6f1a3c5e-0000-1111-2222-333344445555"


# ---- a remote write request, byte by byte


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def part(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def series(name: str, labels: Mapping[str, str], *points: tuple[float, int]) -> bytes:
    told = sorted({"__name__": name, **labels}.items())
    body = b"".join(part(1, part(1, key.encode()) + part(2, value.encode())) for key, value in told)
    for value, at_ms in points:
        body += part(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at_ms))
    return part(1, body)


def packed(*all_series: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(b"".join(all_series)))


async def write(platform: Platform, body: bytes, *, key: str = "operator") -> httpx.Response:
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    return await platform.ask("POST", "/write", key=key, content=body, headers=headers)


def dcgm(name: str, value: float, at_ms: int, uuid: str = UUID) -> bytes:
    return series(
        name,
        {"UUID": uuid, "gpu": "0", "Hostname": "one", "modelName": "NVIDIA H100 80GB HBM3"},
        (value, at_ms),
    )


@pytest.fixture
async def gpu(measured: Platform) -> Platform:
    """A node with one H100, known to its exporter by UUID."""
    device = {"serial": "1650001", "model": "H100-SXM", "index": 0, "memory_mib": 81559, "uuid": UUID}
    _, measured.keys["gpu"] = await measured.join("gpu", devices=[device])
    return measured


async def latest(platform: Platform) -> dict[str, Any]:
    [item] = (await asked(platform, "/telemetry/latest"))["items"]
    assert item["key"] == "1650001"
    return {name: told["value"] for name, told in item["fields"].items() if told["state"] == "value"}


async def test_known_names_become_fields_under_the_serial(gpu: Platform) -> None:
    now = round(now_utc().timestamp() * 1000)
    answer = await write(gpu, packed(
        dcgm("DCGM_FI_DEV_GPU_TEMP", 41, now), dcgm("DCGM_FI_DEV_POWER_USAGE", 512.5, now),
        dcgm("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 9_000_000, now),
        series("go_goroutines", {"job": "dcgm"}, (7, now)),
    ))  # fmt: skip
    assert answer.json() == {
        "samples": 4,
        "rows_kept": 1,
        "rows_refused": 0,
        "samples_unknown": 1,
        "devices_unknown": [],
    }
    told = await latest(gpu)
    assert (told["temp_c"], told["power_w"], told["energy_j"]) == (41, 512.5, 9000)


async def test_a_tick_that_comes_in_two_bodies_is_one(gpu: Platform) -> None:
    now = round(now_utc().timestamp() * 1000)
    await write(gpu, packed(dcgm("DCGM_FI_DEV_GPU_TEMP", 41, now)))
    await write(gpu, packed(dcgm("DCGM_FI_DEV_POWER_USAGE", 512.5, now)))
    told = await latest(gpu)
    assert (told["temp_c"], told["power_w"]) == (41, 512.5)


async def test_a_body_that_is_sent_again_is_kept_once(gpu: Platform) -> None:
    now = round(now_utc().timestamp() * 1000)
    body = packed(dcgm("DCGM_FI_DEV_GPU_TEMP", 41, now - 1000), dcgm("DCGM_FI_DEV_GPU_TEMP", 42, now))
    for _ in range(3):
        assert (await write(gpu, body)).status_code == 200
    found = await asked(gpu, "/telemetry/range", key="1650001", field="temp_c")
    assert found["fields"]["temp_c"]["values"] == [41, 42]


async def test_a_node_writes_of_its_own_devices_and_others_are_counted(gpu: Platform) -> None:
    now = round(now_utc().timestamp() * 1000)
    body = packed(dcgm("DCGM_FI_DEV_GPU_TEMP", 41, now))
    assert (await write(gpu, body, key="node")).json()["devices_unknown"] == [UUID]
    assert (await write(gpu, body, key="gpu")).json()["rows_kept"] == 1
    for key in ("alpha", "viewer", "finance"):
        assert (await write(gpu, body, key=key)).status_code == 403


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(b"\xff" * 12, "not a WriteRequest", id="no length"),
        pytest.param(varint(100 * 1024**2) + b"x", "more than 64 MiB", id="a bomb"),
        pytest.param(b"\x05hello", "not snappy", id="no snappy"),
        pytest.param(packed(b"\x0a\x50abc"), "cut", id="half a message"),
        pytest.param(packed(b"\x0f\x0f\x0f"), "not a WriteRequest", id="no protobuf"),
    ],
)
async def test_a_body_that_is_none_is_refused_for_good(gpu: Platform, body: bytes, told: str) -> None:
    answer = await write(gpu, body)
    assert answer.status_code == 422, "a sender repeats what gets a 5xx"
    assert told in answer.json()["detail"]


async def test_the_sign_of_an_ended_series_is_no_number(gpu: Platform) -> None:
    stale = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
    answer = await write(
        gpu, packed(dcgm("DCGM_FI_DEV_GPU_TEMP", stale, round(now_utc().timestamp() * 1000)))
    )
    assert answer.json()["samples"] == 0


# ---- /metrics


async def text(platform: Platform, *, key: str = "viewer", accept: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {platform.keys[key]}", "Accept": accept}
    return await platform.client.get("/metrics", headers=headers)


async def test_metrics_tell_what_is_known_and_nothing_else(measured: Platform) -> None:
    run_id = await measured.submitted()
    await measured.granted(run_id)
    [serial] = [
        row["serial"]
        for row in await measured.rows(
            "SELECT serial FROM lease_accelerators JOIN accelerators USING (accelerator_no)"
        )
    ]
    await send(
        measured,
        samples(
            [serial],
            {"util_pct": [12.5], "energy_j": [1e6], "temp_c": [None]},
            codes={"util_pct": [16], "energy_j": [0], "temp_c": [3]},
        ),
    )
    answer = await text(measured)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    labels = f'serial="{serial}",model="cpu-slot",node="one",site="local",run="{run_id}"'
    assert f'baseai_accelerator_util_pct{{{labels},origin="estimated"}} 12.5' in lines
    assert f'baseai_accelerator_energy_j_total{{{labels},origin="measured"}} 1000000' in lines
    assert "temp_c" not in answer.text, "what is blank has no line"
    assert 'baseai_runs{state="running"} 1' in lines
    assert "baseai_metric_store_up{} 1" in lines
    assert 'baseai_accelerators{model="cpu-slot",site="local",held="true"} 1' in lines
    assert 'baseai_collector_ok{node="one",collector="intake"} 1' in lines


async def test_metrics_are_read_by_the_format_s_own_parsers(measured: Platform) -> None:
    await send(measured, samples(["one/0"], {"util_pct": [1.0], "energy_j": [5.0]}))
    plain, open_metrics = (
        await text(measured),
        await text(measured, accept="application/openmetrics-text; version=1.0.0"),
    )
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.text.endswith("# EOF\n")
    assert "# TYPE baseai_accelerator_energy_j counter" in open_metrics.text
    assert "# TYPE baseai_accelerator_energy_j_total counter" in plain.text
    line = re.compile(r'[a-z_0-9]+\{([a-z_]+="(\\.|[^"\\])*"(,[a-z_]+="(\\.|[^"\\])*")*)?\} -?[0-9.e+-]+$')
    for each in plain.text.splitlines():
        assert each.startswith("# ") or line.match(each), each


async def test_metrics_are_for_those_who_may_see_the_fleet(measured: Platform) -> None:
    assert (await measured.client.get("/metrics")).status_code == 401
    assert (await text(measured, key="alpha")).status_code == 403


async def test_metrics_go_on_without_the_store(platform: Platform) -> None:
    answer = await text(platform)
    assert answer.status_code == 200
    assert "baseai_metric_store_up{} 0" in answer.text


def test_the_dashboard_asks_for_what_is_told() -> None:
    source = (ROOT / "src" / "baseai" / "api" / "prometheus.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"(baseai_[a-z_]+)"', source))
    told = names | {f"{name}_total" for name in names}
    for family in (ACCELERATOR, NODE):
        told |= {
            f"baseai_{family.name}_{one.name}{'_total' if one.kind is Kind.COUNTER else ''}"
            for one in family.fields
        }
    dashboard = json.loads((ROOT / "docs" / "grafana" / "fleet.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"baseai_[a-z0-9_]+", target["expr"])
    }
    assert len(asked) > 15
    assert asked - told == set()
