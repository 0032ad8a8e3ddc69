"""A journal is the batches and places that a store has acknowledged, in order, as bytes: its write-ahead log.

Invariant: each record carries its number, its length and its checksum; what follows the first record that is torn or
does not add up was never acknowledged. Numbers rise by one.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from baseai.telemetry.field import FAMILIES
from baseai.telemetry.sample import Batch
from baseai.telemetry.store import Place

MARK = 0x31_4A_41_42  # "BAJ1"
HEAD = struct.Struct("<IIQI")  # mark, length of what follows, number, checksum of what follows
WORDS = struct.Struct("<I")
RECORD_MAX = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Where things of one family stand."""

    family: str
    places: Mapping[str, Place]


def record_of(entry: Batch | Told, number: int) -> bytes:
    """One record. A batch takes its arrays as they are: 9 bytes a value and its code."""
    if isinstance(entry, Batch):
        words: dict[str, object] = {
            "batch": entry.batch_id, "family": entry.family.name, "node": entry.node_id, "site": entry.site,
            "boot": entry.boot_id, "keys": entry.keys, "sources": dict(entry.sources),
        }  # fmt: skip
        columns = (
            np.ascontiguousarray(entry.ts_ms, dtype="<i8").tobytes()
            + np.ascontiguousarray(entry.values, dtype="<f8").tobytes()
            + np.ascontiguousarray(entry.codes).tobytes()
        )
    else:
        words = {
            "family": entry.family,
            "places": {key: asdict(place) for key, place in entry.places.items()},
        }
        columns = b""
    text = json.dumps(words, ensure_ascii=False, separators=(",", ":")).encode()
    body = WORDS.pack(len(text)) + text + columns
    return HEAD.pack(MARK, len(body), number, zlib.crc32(body)) + body


def entries_in(data: bytes | memoryview) -> Iterator[tuple[int, Batch | Told, int]]:
    """Number, entry, and where its record ends, up to the first record that is torn or harmed."""
    start, view = 0, memoryview(data)
    while start + HEAD.size <= len(view):
        mark, length, number, checksum = HEAD.unpack_from(view, start)
        end = start + HEAD.size + length
        if mark != MARK or length > RECORD_MAX or end > len(view):
            return
        body = view[start + HEAD.size : end]
        if zlib.crc32(body) != checksum:
            return
        entry = _entry_in(body)
        if entry is not None:
            yield number, entry, end
        start = end


def _entry_in(body: memoryview) -> Batch | Told | None:
    """The entry of one record whose checksum is right; None of a family that this version does not know."""
    (length,) = WORDS.unpack_from(body)
    words = json.loads(bytes(body[WORDS.size : WORDS.size + length]))
    family = FAMILIES.get(words["family"])
    if family is None:
        return None
    if "places" in words:
        return Told(
            family=family.name, places={key: Place(**place) for key, place in words["places"].items()}
        )
    rows, columns = len(words["keys"]), body[WORDS.size + length :]
    fields = (len(columns) - 8 * rows) // (9 * rows) if rows else len(family.fields)
    cut = (8 * rows, 8 * rows * (1 + fields))
    values = np.full((rows, len(family.fields)), np.nan)
    codes = np.full(
        (rows, len(family.fields)), 1, dtype=np.uint8
    )  # a field younger than the record is absent
    values[:, :fields] = np.frombuffer(columns[cut[0] : cut[1]], dtype="<f8").reshape(rows, fields)
    codes[:, :fields] = np.frombuffer(columns[cut[1] :], dtype=np.uint8).reshape(rows, fields)
    return Batch(
        batch_id=words["batch"], family=family, node_id=words["node"], site=words["site"], boot_id=words["boot"],
        keys=tuple(words["keys"]), ts_ms=np.frombuffer(columns[: cut[0]], dtype="<i8").astype(np.int64),
        values=values, codes=codes, sources=words["sources"],
    )  # fmt: skip
