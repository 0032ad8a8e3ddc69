"""A witness is one event about a device or its node, as somebody saw it: a Xid, a kernel line, a word of the BMC.

Invariant: its id was made when it was seen, so that telling it twice is the same as once. What follows from it is
health's to say; nobody changes one once made.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from baseai.telemetry.intake import plain

AHEAD_MAX = timedelta(minutes=1)  # an event further in the future is put at the present
CODE_MAX = 2**31 - 1
SENTENCE_MAX = 1000
PAYLOAD_MAX = 200  # values of one event, and characters of each
PAYLOAD_DEPTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One event, at an instant by the server's clock."""

    event_id: str
    at: datetime
    kind: str  # xid, sxid, afid, kernel, redfish, device_lost, ...
    key: str | None  # serial of the accelerator it is about; None: the node
    code: int | None
    severity: str  # info, warning or critical
    sentence: str
    payload: Mapping[str, Any] = field(default_factory=dict)


def judged(witness: Witness, *, shift: timedelta, now: datetime) -> Witness | str:
    """An event as it may be kept, its instant moved to the server's clock; or why it never will be.

    Only a witness without a name of its own is refused: whatever else is wrong with one is mended, for what it tells
    may matter. Text is made printable and bounded, a code that is none goes into the sentence, NaN becomes None.
    """
    if not witness.event_id or witness.event_id != plain(witness.event_id):
        return "event_id: it needs a name, of at most 200 characters that can be printed"
    if not witness.kind.strip():
        return "kind: it is empty"
    try:
        at = min(witness.at + shift, now) if witness.at + shift > now + AHEAD_MAX else witness.at + shift
    except OverflowError:
        at = now
    sentence = plain(witness.sentence, SENTENCE_MAX)
    code = witness.code
    if code is not None and not 0 <= code <= CODE_MAX:
        sentence, code = f"{sentence} (its code cannot be)".strip(), None
    payload = _plain_payload(dict(witness.payload), PAYLOAD_DEPTH)
    return replace(
        witness,
        at=at,
        kind=plain(witness.kind),
        key=None if witness.key is None else plain(witness.key),
        code=code,
        sentence=sentence,
        payload=payload if isinstance(payload, dict) else {},
    )


def _plain_payload(value: Any, depth: int) -> Any:
    """What any store of JSON can hold of it."""
    if depth == 0:
        return None
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, Mapping):
        return {
            plain(str(k)): _plain_payload(each, depth - 1) for k, each in list(value.items())[:PAYLOAD_MAX]
        }
    return [_plain_payload(each, depth - 1) for each in list(value)[:PAYLOAD_MAX]]
