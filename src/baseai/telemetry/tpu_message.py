"""The messages of the TPU runtime's metric service, as far as they are needed, to and from protobuf's wire form.

Invariant: fields nobody knows are passed over, as protobuf asks; bytes that are no message are a ValueError.
Source: service `tpu.monitoring.runtime.RuntimeMetricService` as in tpu-info 0.14 (field numbers only):
    MetricRequest{1 name}   MetricResponse{1 TPUMetric{1 name, 3 Metric{1 Attribute, 3 Gauge, 4 Counter}}}
    Attribute{1 key, 2 value}   value{1 text, 3 int, 6 list{1 Attribute}}   Gauge, Counter{1 double, 2 int}
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

GET_METRIC = "/tpu.monitoring.runtime.RuntimeMetricService/GetRuntimeMetric"
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNumber:
    """One number of one device."""

    device: int
    value: float


def request_of(metric: str) -> bytes:
    """A MetricRequest."""
    name = metric.encode()
    return bytes([1 << 3 | BYTES]) + _varint(len(name)) + name


def numbers_in(answer: bytes) -> tuple[DeviceNumber, ...]:
    """The numbers of a MetricResponse, in its order. Raises ValueError for bytes that are none."""
    found = []
    for metric in _all(_message(answer, 1), 3):
        device = _device(_message(metric, 1))
        measure = _message(metric, 3) or _message(metric, 4)
        value = _number(measure)
        if device is not None and value is not None:
            found.append(DeviceNumber(device=device, value=value))
    return tuple(found)


def _device(attribute: bytes) -> int | None:
    """The number of the device: the attribute itself, or one of its list that is so called."""
    key = _message(attribute, 1).decode(errors="replace")
    value = _message(attribute, 2)
    fields = dict(_fields(value))
    if isinstance(number := fields.get(3), int):
        return number
    if isinstance(text := fields.get(1), bytes) and text.isdigit():
        return int(text)
    for inner in _all(_message(value, 6), 1):
        if _message(inner, 1) in (b"device_ordinal", b"device_id", b"chip_id"):
            return _device(inner)
    return 0 if key and value == b"" else None  # 0 is not written


def _number(measure: bytes) -> float | None:
    fields: Mapping[int, Value] = dict(_fields(measure))
    if isinstance(double := fields.get(1), bytes):
        return float(struct.unpack("<d", double)[0])
    if isinstance(whole := fields.get(2), int):
        return float(whole - (1 << 64) if whole >= 1 << 63 else whole)
    return None


def _fields(message: bytes) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            number, at = _read_varint(message, at)
            yield tag >> 3, number
            continue
        if kind == BYTES:
            length, at = _read_varint(message, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"no such kind of field: {kind}")
        if at + length > len(message):
            raise ValueError("the message is cut short")
        yield tag >> 3, message[at : at + length]
        at += length


def _all(message: bytes, number: int) -> Iterator[bytes]:
    return (value for field, value in _fields(message) if field == number and isinstance(value, bytes))


def _message(message: bytes, number: int) -> bytes:
    """The last inner message of that number; empty where there is none."""
    found = tuple(_all(message, number))
    return found[-1] if found else b""


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("the message is cut short")
        number |= (message[at] & 127) << shift
        shift += 7
        at += 1
        if message[at - 1] < 128:
            return number, at
