"""What a node measured, as its agent sends it: shapes from the wire become values, and back."""

import asyncio
import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused
from baseai.ground.identity import NodeId
from baseai.telemetry.intake import CollectorState, Measurement, Sent, clock_shift_ms
from baseai.telemetry.witness import Witness, judged

UNPACKED_BYTES_MAX = 128 * 1024**2
ODD_SHOWN = 40  # characters
BIG_BYTES = 256 * 1024  # a body of so many is read beside the loop


Odd = Mapping[int, Mapping[tuple[str, int], str]]  # batch → (field, row) → what came in place of a number


async def measured_in(request: Request) -> tuple[wire.Measured, Odd]:
    """The body of a request, packed with gzip or not, and what of its values were no numbers: those are None in it.

    Raises Refused, and RequestValidationError for whatever else is wrong with it.
    """
    body = await request.body()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("gzip", "identity"):
        raise Refused(f"a body in {coding[:40]!r} cannot be read: send it as gzip, or as it is")
    if len(body) > BIG_BYTES:
        return await asyncio.to_thread(_read, body, coding == "gzip")
    return _read(body, coding == "gzip")


def _read(body: bytes, packed: bool) -> tuple[wire.Measured, Odd]:
    text = unpacked(body) if packed else body
    try:
        return wire.Measured.model_validate_json(text), {}
    except ValidationError as wrong:
        errors = wrong.errors()
        if all(_is_value(error["loc"]) for error in errors):
            return _without(json.loads(text), errors)
        raise RequestValidationError(
            [{**error, "loc": ("body", *error["loc"])} for error in wrong.errors(include_input=False)]
        ) from wrong


def _is_value(loc: Sequence[int | str]) -> bool:
    """Whether this is the place of one number, `batches.0.values.temp_c.7`."""
    return len(loc) == 5 and loc[0] == "batches" and loc[2] == "values"


def _without(said: Any, errors: Sequence[Any]) -> tuple[wire.Measured, Odd]:
    """The rest of a message is kept where single values are no numbers."""
    odd: dict[int, dict[tuple[str, int], str]] = {}
    for error in errors:
        _, batch, _, name, row = error["loc"]
        odd.setdefault(batch, {})[name, row] = repr(error["input"])[:ODD_SHOWN]
        said["batches"][batch]["values"][name][row] = None
    return wire.Measured.model_validate(said), odd


def unpacked(body: bytes) -> bytes:
    """What gzip packed, bounded. Raises Refused."""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(body, UNPACKED_BYTES_MAX)
    except zlib.error as wrong:
        raise Refused(f"the body is not gzip: {wrong}") from wrong
    if unpacking.unconsumed_tail:
        raise Refused(f"the body unpacks to more than {UNPACKED_BYTES_MAX // 1024**2} MiB")
    if not unpacking.eof:
        raise Refused("the body is cut: gzip says that more was to come")
    return found


async def kept(doors: Doors, node_id: NodeId, measured: wire.Measured, odd: Odd) -> wire.Kept:
    """Hand it on: events to health, batches to telemetry. Raises StoreAway; the events are safe even then."""
    accepted: list[str] = []
    refused: dict[str, str] = {}
    if measured.witnesses and doors.fleet_health is not None:
        now = now_utc()
        shift = timedelta(milliseconds=clock_shift_ms(measured.sent_at, now))
        seen: list[Witness] = []
        for one in measured.witnesses:
            found = judged(Witness(**one.model_dump()), shift=shift, now=now)
            if isinstance(found, Witness):
                seen.append(found)
            else:
                refused[one.event_id] = found
        accepted += await doors.fleet_health.witness(node_id, seen)
    received = await doors.telemetry.take(
        node_id,
        Measurement(
            sent_at=measured.sent_at,
            batches=[
                Sent(
                    batch_id=one.batch_id,
                    family=one.family,
                    boot_id=one.boot_id,
                    keys=one.keys,
                    ts_ms=one.ts_ms,
                    values=one.values,
                    codes=one.codes,
                    sources=one.sources,
                    odd=odd.get(place, {}),
                )
                for place, one in enumerate(measured.batches)
            ],
            collectors=[CollectorState(**one.model_dump()) for one in measured.collectors],
        ),
    )
    return wire.Kept(accepted=[*accepted, *received.accepted], refused={**refused, **received.refused})
