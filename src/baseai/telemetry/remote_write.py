"""What a Prometheus writes to a receiver: its body taken apart, and the parts of one tick put together again.

Invariant: a body that is not one is refused whole, a number that means "the series ended" is no number, and whoever
sends bytes cannot make us hold more than a bound. The sender cuts its queue anywhere and has several, so a device's
tick may come in several bodies: each gives a row with all that the tick has told so far, a millisecond after the one
before.

Format: Prometheus remote write 1.0: snappy (block) over a protobuf WriteRequest.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from baseai.ground.fault import Refused
from baseai.telemetry.exposition import Metric, Scrape
from baseai.telemetry.field import ACCELERATOR, State
from baseai.telemetry.intake import Sent
from baseai.telemetry.normalise import Identity, Normaliser, place_of
from baseai.telemetry.sample import Reading, Row, code_of
from baseai.telemetry.translation import Remembered

BODY_BYTES_MAX = 64 * 1024**2  # unpacked
SAMPLES_MAX = 500_000
STALE_BITS = 0x7FF0000000000002  # the NaN by which Prometheus says that a series ended
TICKS_KEPT = 4  # of each device: bodies of several queues overtake one another
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


@dataclass(slots=True, kw_only=True)
class _Tick:
    """What one tick of one device has told so far: every sample of a scrape has the same instant."""

    stamp_ms: int
    before: Mapping[str, Remembered]  # of the tick before
    after: Mapping[str, Remembered]
    told: dict[Metric, float]
    rows: int = 0  # that were made of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Rows of devices as their exporter calls them, and who they are."""

    rows: Sequence[tuple[Row, Identity]]
    samples_unknown: int


class Ticks:
    """Puts together what bodies tell of one tick. It remembers the newest ticks of each device and nothing more.

    Samples are put together before they become fields, for a field may take several of them.
    """

    def __init__(self) -> None:
        self._normaliser = Normaliser()
        self._device_of: dict[Metric, str | None] = {}
        self._newest: dict[str, list[_Tick]] = {}  # by device, oldest first

    def told(self, scrape: Scrape) -> Told:
        """A row for each tick of a device that the samples are of, with all that the tick has told until now."""
        touched: dict[tuple[str, int], dict[Metric, float]] = {}
        unknown = 0
        for place, (metric, value) in enumerate(zip(scrape.metrics, scrape.values, strict=True)):
            device = self._device(metric)
            if device is None:
                unknown += 1
            else:
                touched.setdefault((device, scrape.stamps_ms[place]), {})[metric] = value
        rows: list[tuple[Row, Identity]] = []
        for (device, stamp_ms), told in sorted(touched.items(), key=lambda item: item[0][1]):
            tick = self._tick(device, stamp_ms)
            tick.told |= told
            normalised = self._normaliser.normalise(
                Scrape(metrics=list(tick.told), values=list(tick.told.values())),
                at_ms=stamp_ms,
                source="remote write",
                before=tick.before,
            )
            tick.after = normalised.remembered
            rows += [
                (replace(row, ts_ms=stamp_ms + tick.rows), normalised.identities[row.key])
                for row in normalised.rows
            ]
            tick.rows += 1
        return Told(rows=rows, samples_unknown=unknown)

    def _device(self, metric: Metric) -> str | None:
        if metric not in self._device_of:
            if len(self._device_of) > METRICS_MAX:
                self._device_of.clear()
            place = place_of(metric)
            self._device_of[metric] = None if place is None else place.device
        return self._device_of[metric]

    def _tick(self, device: str, stamp_ms: int) -> _Tick:
        if device not in self._newest and len(self._newest) >= DEVICES_MAX:
            self._newest.clear()
        ticks = self._newest.setdefault(device, [])
        found = next((tick for tick in ticks if tick.stamp_ms == stamp_ms), None)
        if found is None:
            earlier = [tick.after for tick in ticks if tick.stamp_ms < stamp_ms]
            before = earlier[-1] if earlier else {}
            found = _Tick(stamp_ms=stamp_ms, before=before, after=before, told={})
            ticks.append(found)
            ticks.sort(key=lambda tick: tick.stamp_ms)
            del ticks[:-TICKS_KEPT]
        return found


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
