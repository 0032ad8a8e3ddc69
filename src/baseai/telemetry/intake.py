"""Taking in is how a batch that came over the wire becomes one the store may keep: judged field by field.

Invariant: a node speaks only of its own devices; a number that cannot be is blank, never a value; what is not taken
is told with the device and the field, and the rest is kept. A clock that is off is corrected, and said.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import ACCELERATOR, FAMILIES, NODE, Family, State
from baseai.telemetry.sample import Batch, Trouble

CLOCK_OFF_MS = 5_000  # a node's clock may be off by so much before its instants are moved
AHEAD_MAX_MS = 60_000  # an instant further in the future is none
AGE_MAX_MS = 30 * 86_400_000  # nor one so long ago: no spool is that old
ROWS_MAX = 200_000
TEXT_MAX = 200
TROUBLES_MAX = 20  # told of one batch; what is wrong with many rows is wrong in one way

WHICH_DEVICE = "which device? no accelerator of this node has that serial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A batch as it came, nothing of it believed yet. Shapes as in `Batch`, columns by field."""

    batch_id: str
    family: str
    boot_id: str
    keys: Sequence[str]
    ts_ms: Sequence[int]
    values: Mapping[str, Sequence[float | None]]
    codes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    odd: Mapping[tuple[str, int], str] = field(
        default_factory=dict
    )  # (field, row) → what came in place of a number


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorState:
    """How one collector of a node fares, in its own words."""

    name: str
    state: str  # ok, failing or off
    interval_s: float
    last_ok_at: datetime | None = None
    took_ms: float | None = None
    failures: int = 0
    sentence: str | None = None
    troubles: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a node sent at once."""

    sent_at: datetime  # by its clock
    batches: Sequence[Sent] = ()
    collectors: Sequence[CollectorState] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What became of it, by the ids of batches (and `batch/key` for single rows)."""

    accepted: Sequence[str]
    refused: Mapping[str, str]  # id → why it will never be taken


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """One batch, judged. `batch` is None when nothing of it can be kept; `refused` then says why."""

    batch: Batch | None
    refused: str | None = None
    rows_refused: Mapping[str, str] = field(default_factory=dict)  # key → why
    troubles: Sequence[Trouble] = ()


def clock_shift_ms(sent_at: datetime, now: datetime) -> int:
    """By how much instants of a node are to be moved: 0 while its clock is good enough."""
    off_ms = round((now - sent_at).total_seconds() * 1000)
    return off_ms if abs(off_ms) > CLOCK_OFF_MS else 0


def clock_sentence(shift_ms: int) -> str | None:
    """The same for a person, None while there is nothing to say."""
    if shift_ms == 0:
        return None
    return f"clock is {abs(shift_ms) / 1000:.0f} s {'behind' if shift_ms > 0 else 'ahead'}: its instants are moved"


def plain(text: str, most: int = TEXT_MAX) -> str:
    """Text of others as it may be kept anywhere: bounded, on one line, without what no store can hold."""
    return "".join(char if char.isprintable() else " " for char in text[:most])


def taken_in(
    sent: Sent, *, node_id: str, site: str, serials: Collection[str], shift_ms: int, now_ms: int
) -> TakenIn:
    """Judge one batch of the node `node_id`, whose accelerators are `serials`. O(rows × fields)."""
    family = FAMILIES.get(sent.family)
    if family is None:
        return TakenIn(batch=None, refused=f"{sent.family[:80]!r} is no family: {', '.join(FAMILIES)}")
    misshapen = _misshapen(sent)
    if misshapen is not None:
        return TakenIn(batch=None, refused=misshapen)
    keys, refused = _keys(sent.keys, family, node_id, serials)
    ts_ms = np.asarray(sent.ts_ms, np.int64) + shift_ms
    believable = (ts_ms > now_ms - AGE_MAX_MS) & (ts_ms <= now_ms + AHEAD_MAX_MS)
    for place in np.flatnonzero(~believable).tolist():
        refused.setdefault(sent.keys[place], f"the instant {ts_ms[place]} ms is not of these days")
    rows = np.array(
        [place for place, key in enumerate(keys) if key is not None and believable[place]], np.int64
    )
    if len(rows) == 0:
        why = next(iter(refused.values()), "it has no rows")
        return TakenIn(batch=None, refused=why, rows_refused=refused)
    troubles = [
        Trouble(source=f"batch {sent.batch_id}", key=None, field=name, sentence=_unknown(name, family))
        for name in sent.values
        if name not in family.index
    ]
    values, codes, blanked = _columns(sent, family, rows)
    troubles += blanked
    places = {int(place): row for row, place in enumerate(rows)}
    for (name, place), text in sent.odd.items():
        if name in family.index and place in places:
            codes[places[place], family.index[name]] = State.BLANK
            values[places[place], family.index[name]] = np.nan
            sentence = f"{plain(text)[:40]} is no number"
            troubles.append(
                Trouble(source=f"batch {sent.batch_id}", key=sent.keys[place], field=name, sentence=sentence)
            )
    return TakenIn(
        batch=Batch(
            batch_id=sent.batch_id,
            family=family,
            node_id=node_id,
            site=site,
            boot_id=sent.boot_id,
            keys=tuple(str(keys[place]) for place in rows),
            ts_ms=ts_ms[rows],
            values=values,
            codes=codes,
            sources={name: plain(text) for name, text in sent.sources.items() if name in family.index},
        ),
        rows_refused=refused,
        troubles=troubles[:TROUBLES_MAX],
    )


def _misshapen(sent: Sent) -> str | None:
    rows = len(sent.keys)
    for what, text in (("batch_id", sent.batch_id), ("boot_id", sent.boot_id)):
        if not text or text != plain(text):
            return (
                f"{what}: {plain(text)[:40]!r} is no name: at most {TEXT_MAX} characters that can be printed"
            )
    if rows > ROWS_MAX:
        return f"{rows} rows at once are more than {ROWS_MAX}"
    if len(sent.ts_ms) != rows:
        return f"{rows} keys and {len(sent.ts_ms)} instants"
    if any(abs(at) >= 1 << 60 for at in sent.ts_ms):
        return "an instant is beyond all time"
    for what, columns in (("values", sent.values), ("codes", sent.codes)):
        for name, column in columns.items():
            if len(column) != rows:
                return f"{what} of {name[:80]}: {rows} expected, {len(column)} came"
    return None


def _keys(
    keys: Sequence[str], family: Family, node_id: str, serials: Collection[str]
) -> tuple[list[str | None], dict[str, str]]:
    """The keys as they are kept, None for a row that is not, and why not."""
    kept: list[str | None] = []
    refused: dict[str, str] = {}
    for key in keys:
        if family is ACCELERATOR:
            known = key if key in serials else None
            why = WHICH_DEVICE
        elif family is NODE:
            known, why = node_id, ""
        else:
            _, *port = key.rsplit("/", 2)
            known = "/".join((node_id, *port)) if len(port) == 2 and all(port) and key == plain(key) else None
            why = "which port? its key is node/device/port"
        if known is None:
            refused.setdefault(key, why)
        kept.append(known)
    return kept, refused


def _columns(
    sent: Sent, family: Family, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.uint8], list[Trouble]]:
    shape = (len(rows), len(family.fields))
    values = np.full(shape, np.nan)
    codes = np.full(shape, int(State.ABSENT), np.uint8)
    troubles: list[Trouble] = []
    for column, each in enumerate(family.fields):
        given = sent.values.get(each.name)
        told = sent.codes.get(each.name)
        if given is None and told is None:
            continue
        numbers = (
            np.full(len(rows), np.nan)
            if given is None
            else np.array([given[place] for place in rows], np.float64)
        )
        code = (
            np.array([told[place] & 0xFF for place in rows], np.uint8)
            if told is not None
            else np.where(np.isnan(numbers), int(State.ABSENT), int(State.VALUE)).astype(np.uint8)
        )
        state, origin = code & 15, code & 0xF0
        # A code that means nothing here, or promises a value that did not come, is absent.
        state[(state > max(State)) | (origin > 0x20) | ((state == State.VALUE) & np.isnan(numbers))] = (
            State.ABSENT
        )
        is_value = state == State.VALUE
        cannot_be = is_value & ~((numbers >= each.low) & (numbers <= each.high) & np.isfinite(numbers))
        for place in np.flatnonzero(cannot_be)[:TROUBLES_MAX].tolist():
            troubles.append(
                Trouble(
                    source=f"batch {sent.batch_id}",
                    key=sent.keys[rows[place]],
                    field=each.name,
                    sentence=f"{numbers[place]:g} {each.unit} cannot be".replace("  ", " "),
                )
            )
        state[cannot_be] = State.BLANK
        values[:, column] = np.where(state == State.VALUE, numbers, np.nan)
        codes[:, column] = state | np.where(origin > 0x20, 0, origin).astype(np.uint8)
    return values, codes, troubles


def _unknown(name: str, family: Family) -> str:
    near = difflib.get_close_matches(name, family.names, n=1)
    return f"{name[:80]!r} is not known and was dropped" + (f"; the nearest is {near[0]}" if near else "")
