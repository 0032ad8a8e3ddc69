"""The TPU runtime is asked over real gRPC; its silence is neither a failure nor a zero."""

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from baseai.telemetry.collector import NothingThere, SourceFailed
from baseai.telemetry.field import State
from baseai.telemetry.tpu import Tpu
from baseai.telemetry.tpu_message import GET_METRIC, DeviceNumber, numbers_in, request_of

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
Answer = Callable[[bytes, grpc.ServicerContext], bytes]


def inner(number: int, message: bytes) -> bytes:
    return bytes([number << 3 | 2, len(message)]) + message


def gauge(device: int, value: float | int) -> bytes:
    """A Metric of one device, as protoc's own code writes it."""
    said = b"\x09" + struct.pack("<d", value) if isinstance(value, float) else b"\x10" + varint(value)
    attribute = inner(1, b"device_id") + inner(2, (b"\x18" + varint(device)) if device else b"")
    return inner(1, attribute) + inner(3, said)


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def response(metric: str, *metrics: bytes) -> bytes:
    body = inner(1, metric.encode()) + b"".join(inner(3, each) for each in metrics)
    return b"\x0a" + varint(len(body)) + body


@pytest.fixture
def runtime() -> Iterator[Callable[[Answer], str]]:
    servers: list[grpc.Server] = []

    def serve(answer: Answer) -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        method = grpc.unary_unary_rpc_method_handler(answer)
        service, _, name = GET_METRIC.strip("/").partition("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(None).wait()


SAID = {
    "tpu.runtime.tensorcore.dutycycle.percent": (87.5, 0.0),
    "tpu.runtime.hbm.memory.usage.bytes": (9_000_000_000, 1024),
    "tpu.runtime.hbm.memory.total.bytes": (17_179_869_184, 17_179_869_184),
}


def test_each_chip_has_a_row(runtime: Callable[[Answer], str]) -> None:
    def answer(asked: bytes, context: grpc.ServicerContext) -> bytes:
        metric = asked[2:].decode()
        if metric not in SAID:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such metric")
        return response(metric, *(gauge(device, value) for device, value in enumerate(SAID[metric])))

    collected = Tpu(addresses=[runtime(answer)], pci=None).observe(NOW)
    first, second = collected.rows["accelerator"]
    assert (first.key, second.key) == ("tpu/0", "tpu/1")
    assert first.fields["util_pct"].value == 87.5
    assert first.fields["mem_used_b"].value == 9e9
    assert second.fields["util_pct"].value == 0.0
    assert second.fields["mem_total_b"].value == 17_179_869_184
    assert first.fields["power_w"].state is State.UNSUPPORTED
    assert first.fields["membw_pct"].state is State.ABSENT
    assert any(
        "tpu.runtime.hbm.utilization.percent: not_found" in each.sentence for each in collected.troubles
    )


def test_no_workload_is_no_row_and_no_failure() -> None:
    collected = Tpu(addresses=["127.0.0.1:9"], pci=None).observe(NOW)
    assert collected.rows["accelerator"] == []


def test_garbage_is_a_failure(runtime: Callable[[Answer], str]) -> None:
    with pytest.raises(SourceFailed):
        Tpu(addresses=[runtime(lambda asked, context: b"\x0a\xff")], pci=None).observe(NOW)


def test_a_node_without_chips_has_nothing_there(tmp_path: Path) -> None:
    adapter = tmp_path / "0000:00:05.0"
    adapter.mkdir()
    (adapter / "vendor").write_text("0x1ae0\n")
    (adapter / "class").write_text("0x020000\n")  # Google's network adapter
    with pytest.raises(NothingThere, match="no TPU"):
        Tpu(pci=tmp_path).observe(NOW)


def test_a_request_is_the_name_under_number_one() -> None:
    assert request_of("abc") == b"\x0a\x03abc"


def test_a_chip_may_be_named_within_a_list() -> None:
    ordinal = inner(1, inner(1, b"device_ordinal") + inner(2, inner(1, b"3")))
    metric = inner(1, inner(1, b"core") + inner(2, inner(6, ordinal))) + inner(3, b"\x10\x07")
    assert numbers_in(response("x", metric)) == (DeviceNumber(device=3, value=7.0),)
