"""What a Prometheus writes to a receiver: its body taken apart, and the parts of one tick put together again.

Invariant: a body that is not one is refused whole, a number that means "the series ended" is no number, and whoever
sends bytes cannot make us hold more than a bound. The sender cuts its queue anywhere, so a device's tick may come in
several bodies: each gives a row with all that the tick has told so far, a millisecond after the one before.

Format: Prometheus remote write 1.0: snappy (block) over a protobuf WriteRequest.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from baseai.ground.fault import Refused
from baseai.telemetry.exposition import Metric, Scrape
from baseai.telemetry.field import ACCELERATOR, State
from baseai.telemetry.intake import Sent
from baseai.telemetry.sample import Reading, Row, code_of

BODY_BYTES_MAX = 64 * 1024**2  # unpacked
SAMPLES_MAX = 500_000
STALE_BITS = 0x7FF0000000000002  # the NaN by which Prometheus says that a series ended
TICK_MS = 5_000  # rows of one device within so long after the first are one tick
DEVICES_MAX = 200_000
METRICS_MAX = 500_000

ABSENT = Reading(value=None, state=State.ABSENT)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def unpacked(body: bytes) -> bytes:
    """The protobuf in a snappy block. Raises Refused."""
    import cramjam

    size, _ = _varint(body, 0)
    if size > BODY_BYTES_MAX:
        raise Refused(f"the body unpacks to more than {BODY_BYTES_MAX // 1024**2} MiB")
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as wrong:
        raise Refused(f"the body is not snappy: {wrong}") from wrong


class WriteReader:
    """Reads one WriteRequest after the other; keeps what a series' labels came to, for they come again and again."""

    def __init__(self) -> None:
        self._metrics: dict[bytes, Metric] = {}

    def read(self, body: bytes) -> Scrape:
        """All samples of a WriteRequest, each with its instant. Raises Refused for what is none."""
        if len(self._metrics) > METRICS_MAX:
            self._metrics = {}
        metrics: list[Metric] = []
        values: list[float] = []
        stamps_ms: dict[int, int] = {}
        for number, part in _parts(body):
            if number != 1 or not isinstance(part, bytes):  # metadata and what later versions add
                continue
            metric, samples = self._series(part)
            for value, at_ms in samples:
                if struct.unpack("<Q", struct.pack("<d", value))[0] == STALE_BITS:
                    continue
                stamps_ms[len(metrics)] = at_ms
                metrics.append(metric)
                values.append(value)
            if len(metrics) > SAMPLES_MAX:
                raise Refused(f"more than {SAMPLES_MAX} samples at once")
        return Scrape(metrics=metrics, values=values, stamps_ms=stamps_ms)

    def _series(self, body: bytes) -> tuple[Metric, list[tuple[float, int]]]:
        labels: list[bytes] = []
        samples: list[tuple[float, int]] = []
        for number, part in _parts(body):
            if number == 1 and isinstance(part, bytes):
                labels.append(part)
            elif number == 2 and isinstance(part, bytes):
                samples.append(_sample(part))
        written = b"".join(len(label).to_bytes(4, "big") + label for label in labels)
        metric = self._metrics.get(written)
        if metric is None:
            metric = self._metrics[written] = _metric(labels)
        return metric, samples


def _sample(body: bytes) -> tuple[float, int]:
    value, at_ms = 0.0, 0
    for number, word in _parts(body):
        if number == 1 and isinstance(word, float):
            value = word
        elif number == 2 and isinstance(word, int):
            at_ms = word - (1 << 64) if word >= 1 << 63 else word
    return value, at_ms


def _metric(written: Sequence[bytes]) -> Metric:
    labels: dict[str, str] = {}
    for label in written:
        told = {number: part for number, part in _parts(label) if isinstance(part, bytes)}
        labels[_text(told.get(1, b""))] = _text(told.get(2, b""))
    name = labels.pop("__name__", "")
    return Metric(name=name, labels=labels, folded={key.lower(): value for key, value in labels.items()})


def _parts(body: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Fields of one protobuf message: number and what stands in it. Raises Refused where it is cut or none."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            word, at = _varint(body, at)
            yield number, word
        elif kind == FIXED64 and at + 8 <= len(body):
            yield number, struct.unpack_from("<d", body, at)[0]
            at += 8
        elif kind == FIXED32 and at + 4 <= len(body):
            at += 4
        elif kind == BYTES:
            size, at = _varint(body, at)
            if at + size > len(body):
                raise Refused("the body is cut: a part is longer than what is left")
            yield number, body[at : at + size]
            at += size
        else:
            raise Refused("the body is not a WriteRequest")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while at < len(body) and shift < 64:
        byte = body[at]
        found |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return found, at
        shift += 7
    raise Refused("the body is not a WriteRequest")


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tick:
    """What one tick of one device has told so far."""

    first_ms: int
    next_ms: int  # of the row to come
    fields: Mapping[str, Reading]


class Ticks:
    """Puts together what bodies tell of one tick. It remembers the newest tick of each device and nothing more."""

    def __init__(self) -> None:
        self._newest: dict[str, _Tick] = {}

    def whole(self, row: Row) -> Row:
        """The row with all that its tick has told so far, at an instant of its own."""
        before = self._newest.get(row.key)
        if before is None or not before.first_ms <= row.ts_ms < before.first_ms + TICK_MS:
            if len(self._newest) > DEVICES_MAX:
                self._newest.clear()
            if before is None or row.ts_ms > before.first_ms:
                self._newest[row.key] = _Tick(first_ms=row.ts_ms, next_ms=row.ts_ms + 1, fields=row.fields)
            return row
        fields = {**before.fields}
        for name, reading in row.fields.items():
            old = fields.get(name)
            if reading.state is State.VALUE or old is None or old.state is not State.VALUE:
                fields[name] = reading
        at_ms = max(row.ts_ms, before.next_ms)
        self._newest[row.key] = replace(before, next_ms=at_ms + 1, fields=fields)
        return Row(key=row.key, ts_ms=at_ms, fields=fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one body, in samples and rows."""

    samples: int
    rows: int  # kept
    samples_unknown: int  # of metrics that no field takes
    devices_unknown: tuple[str, ...] = ()  # as their exporter calls them, the first few
    rows_refused: int = 0


def sent_of(rows: Sequence[Row], *, batch_id: str, boot_id: str) -> Sent:
    """Rows of one node's accelerators as a batch that is still to be judged."""
    names = sorted({name for row in rows for name in row.fields}, key=ACCELERATOR.names.index)
    read = {name: [row.fields.get(name, ABSENT) for row in rows] for name in names}
    return Sent(
        batch_id=batch_id,
        family=ACCELERATOR.name,
        boot_id=boot_id,
        keys=[row.key for row in rows],
        ts_ms=[row.ts_ms for row in rows],
        values={name: [reading.value for reading in column] for name, column in read.items()},
        codes={
            name: [code_of(reading.state, reading.origin) for reading in column]
            for name, column in read.items()
        },
        sources={
            name: next((one.source for one in column if one.value is not None), "")
            for name, column in read.items()
        },
    )
