"""A frame is one question to the metric store or its answer as it crosses to another process: words, then columns.

Invariant: what is read back equals what was written, NaN and dtype with it; a frame says its length first, and one that
is longer than any that is meant is refused unread. Layout: two uint32 (bytes of words, bytes of columns), the words as
JSON, the columns one after another as they lie in memory.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import FAMILIES
from baseai.telemetry.sample import Batch
from baseai.telemetry.store import Aggregate, By, Latest, Place, Series, Tier

HEAD = struct.Struct("<II")
WORDS_BYTES_MAX = 64 * 1024**2
COLUMNS_BYTES_MAX = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Words and columns of one message."""

    words: Mapping[str, Any]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        described = [[name, column.dtype.str, column.shape] for name, column in self.columns.items()]
        words = json.dumps({"words": self.words, "columns": described}, separators=(",", ":")).encode()
        parts = [
            np.ascontiguousarray(column).data.cast("B") for column in self.columns.values() if column.size
        ]
        size = sum(part.nbytes for part in parts)
        if len(words) > WORDS_BYTES_MAX or size > COLUMNS_BYTES_MAX:
            raise ValueError(f"a frame of {len(words)} + {size} bytes is too long")
        return b"".join([HEAD.pack(len(words), size), words, *parts])

    @staticmethod
    def from_parts(words: bytes, columns: bytes) -> "Frame":
        """The frame of its two parts. The columns share the memory of `columns`. Raises ValueError."""
        try:
            told = json.loads(words)
            found: dict[str, NDArray[Any]] = {}
            begin = 0
            for name, dtype, shape in told["columns"]:
                count = int(np.prod(shape, dtype=np.int64))
                found[name] = np.frombuffer(columns, np.dtype(dtype), count, begin).reshape(shape)
                begin += found[name].nbytes
            frame = Frame(words=told["words"], columns=found)
        except (KeyError, TypeError) as wrong:
            raise ValueError(f"this is no frame: {wrong!r}") from wrong
        if begin != len(columns):
            raise ValueError(f"columns of {begin} bytes were told and {len(columns)} came")
        return frame


def lengths(head: bytes) -> tuple[int, int]:
    """Bytes of words and of columns that follow `head`. Raises ValueError when no frame is so long."""
    words, columns = HEAD.unpack(head)
    if words > WORDS_BYTES_MAX or columns > COLUMNS_BYTES_MAX:
        raise ValueError(f"a frame of {words} + {columns} bytes is too long")
    return words, columns


# ---- the values that cross


def batch_frame(batch: Batch) -> Frame:
    words = {
        "batch_id": batch.batch_id,
        "family": batch.family.name,
        "node_id": batch.node_id,
        "site": batch.site,
        "boot_id": batch.boot_id,
        "keys": batch.keys,
        "sources": dict(batch.sources),
    }
    return Frame(words=words, columns={"ts_ms": batch.ts_ms, "values": batch.values, "codes": batch.codes})


def batch_in(frame: Frame) -> Batch:
    words = frame.words
    return Batch(
        batch_id=words["batch_id"],
        family=FAMILIES[words["family"]],
        node_id=words["node_id"],
        site=words["site"],
        boot_id=words["boot_id"],
        keys=tuple(words["keys"]),
        ts_ms=frame.columns["ts_ms"],
        values=frame.columns["values"],
        codes=frame.columns["codes"],
        sources=words["sources"],
    )


def places_words(places: Mapping[str, Place]) -> dict[str, list[str]]:
    return {key: [place.node_id, place.site, place.model, place.rack] for key, place in places.items()}


def places_in(words: Mapping[str, list[str]]) -> dict[str, Place]:
    return {
        key: Place(node_id=node_id, site=site, model=model, rack=rack)
        for key, (node_id, site, model, rack) in words.items()
    }


def latest_frame(latest: Latest) -> Frame:
    """Places are told once each: thousands of things stand in few."""
    number_of: dict[Place, int] = {}
    numbers = [number_of.setdefault(place, len(number_of)) for place in latest.places]
    words = {
        "family": latest.family.name,
        "keys": latest.keys,
        "places": [[place.node_id, place.site, place.model, place.rack] for place in number_of],
    }
    columns: dict[str, NDArray[Any]] = {
        "places": np.array(numbers, np.int32),
        "ts_ms": latest.ts_ms,
        "values": latest.values,
        "codes": latest.codes,
    }
    return Frame(words=words, columns=columns)


def latest_in(frame: Frame) -> Latest:
    places = [
        Place(node_id=node_id, site=site, model=model, rack=rack)
        for node_id, site, model, rack in frame.words["places"]
    ]
    return Latest(
        family=FAMILIES[frame.words["family"]],
        keys=tuple(frame.words["keys"]),
        places=tuple(places[number] for number in frame.columns["places"].tolist()),
        ts_ms=frame.columns["ts_ms"],
        values=frame.columns["values"],
        codes=frame.columns["codes"],
    )


def series_frame(series: Series) -> Frame:
    return Frame(
        words={"key": series.key, "fields": series.fields, "tier": series.tier.value},
        columns={
            "ts_ms": series.ts_ms,
            "values": series.values,
            "codes": series.codes,
            "boots": series.boots,
        },
    )


def series_in(frame: Frame) -> Series:
    return Series(
        key=frame.words["key"],
        fields=tuple(frame.words["fields"]),
        tier=Tier(frame.words["tier"]),
        ts_ms=frame.columns["ts_ms"],
        values=frame.columns["values"],
        codes=frame.columns["codes"],
        boots=frame.columns["boots"],
    )


_AGGREGATED = ("ts_ms", "low", "high", "total", "count", "last", "delta")


def aggregate_frame(aggregate: Aggregate) -> Frame:
    words = {
        "field": aggregate.field,
        "by": aggregate.by.value,
        "tier": aggregate.tier.value,
        "step_ms": aggregate.step_ms,
        "groups": aggregate.groups,
    }
    return Frame(words=words, columns={name: getattr(aggregate, name) for name in _AGGREGATED})


def aggregate_in(frame: Frame) -> Aggregate:
    words = frame.words
    return Aggregate(
        field=words["field"],
        by=By(words["by"]),
        tier=Tier(words["tier"]),
        step_ms=words["step_ms"],
        groups=tuple(words["groups"]),
        **{name: frame.columns[name] for name in _AGGREGATED},
    )
