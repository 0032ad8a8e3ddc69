"""Merging makes one row of what several collectors said of one thing at one tick, field by field.

Invariant: a value beats a state that says why there is none, what is measured beats what is estimated, and then the
collector of the lower rank counts; each field keeps its source. A counter stays with the collector that spoke of it
first: two counters of one thing begin at different numbers, and the step between them would be charged to somebody.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from baseai.api.schemas import Samples
from baseai.telemetry.field import Family, Kind, Origin, State
from baseai.telemetry.sample import Reading, Row, Trouble, code_of

ABSENT = Reading(value=None, state=State.ABSENT)
# Which word says most.
_TELLING = (State.VALUE, State.PAUSED, State.BLANK, State.UNSUPPORTED, State.ABSENT)
DRAW = frozenset({"power_w", "energy_j"})
_PLAIN = (State.VALUE, State.ABSENT)  # what the wire says without a code


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The rows of one family that one collector told, with keys resolved."""

    collector: str
    rank: int
    rows: Sequence[Row]


@dataclass(slots=True)
class Voices:
    """Which collector speaks of each counter of each thing, for as long as this agent lives."""

    of: dict[tuple[str, str, str], str] = field(default_factory=dict)  # (family, key, field) → collector


def without_draw(told: Told) -> Told:
    """The same without the node's draw: where accelerators stand, what its processors draw is not what it draws."""
    rows = [
        Row(
            key=row.key,
            ts_ms=row.ts_ms,
            fields={name: reading for name, reading in row.fields.items() if name not in DRAW},
        )
        for row in told.rows
    ]
    return Told(collector=told.collector, rank=told.rank, rows=rows)


def merged(family: Family, told: Iterable[Told], *, ts_ms: int, voices: Voices) -> tuple[Row, ...]:
    """One row per key, at `ts_ms`, in the order in which keys first appear. Fields outside the family are left out."""
    words: dict[str, dict[str, list[_Word]]] = {}
    for each in told:
        for row in each.rows:
            of_row = words.setdefault(row.key, {})
            for name, reading in row.fields.items():
                if name in family.index:
                    of_row.setdefault(name, []).append(_Word(each.rank, each.collector, reading))
    rows = []
    for key, of_row in words.items():
        fields = {
            name: _best(
                spoken, (family.name, key, name) if family[name].kind is Kind.COUNTER else None, voices
            )
            for name, spoken in of_row.items()
        }
        if fields:
            rows.append(Row(key=key, ts_ms=ts_ms, fields=fields))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class _Word:
    rank: int
    collector: str
    reading: Reading

    @property
    def weight(self) -> tuple[int, int, int]:
        """The least counts most: a value, measured, of the lower rank."""
        return _TELLING.index(self.reading.state), int(self.reading.origin), self.rank


def _best(spoken: list[_Word], counter: tuple[str, str, str] | None, voices: Voices) -> Reading:
    best = min(spoken, key=lambda word: word.weight)
    if counter is None or best.reading.state is not State.VALUE:
        return best.reading
    voice = voices.of.setdefault(counter, best.collector)
    own = [word for word in spoken if word.collector == voice]
    return min(own, key=lambda word: word.weight).reading if own else ABSENT


def grouped(rows: Sequence[Row]) -> list[tuple[dict[str, str], list[Row]]]:
    """Rows together whose fields come from the same sources, with field → source: one batch names each source once."""
    groups: list[tuple[dict[str, str], list[Row]]] = []
    for row in rows:
        sources = {name: reading.source for name, reading in row.fields.items() if reading.source}
        for known, members in groups:
            if all(known.get(name, source) == source for name, source in sources.items()):
                known.update(sources)
                members.append(row)
                break
        else:
            groups.append((sources, [row]))
    return groups


def samples_of(
    family: Family, rows: Sequence[Row], *, batch_id: str, boot_id: str, sources: Mapping[str, str]
) -> Samples:
    """Rows as one batch on the wire. A field of which no row says anything is left out: it is absent."""
    values: dict[str, list[float | None]] = {}
    codes: dict[str, list[int]] = {}
    for name in family.names:
        readings = [row.fields.get(name, ABSENT) for row in rows]
        if all(each.state is State.ABSENT for each in readings):
            continue
        values[name] = [each.value for each in readings]
        if any(each.state not in _PLAIN or each.origin is not Origin.MEASURED for each in readings):
            codes[name] = [code_of(each.state, each.origin) for each in readings]
    return Samples(
        batch_id=batch_id,
        family=family.name,
        boot_id=boot_id,
        keys=[row.key for row in rows],
        ts_ms=[row.ts_ms for row in rows],
        values=values,
        codes=codes,
        sources=dict(sources),
    )


def sound(family: Family, row: Row, source: str) -> tuple[Row, list[Trouble]]:
    """The row without numbers that cannot be: such a field is blank, and a trouble says what was read."""
    fields: dict[str, Reading] = {}
    troubles: list[Trouble] = []
    for name, reading in row.fields.items():
        if name not in family.index:
            sentence = f"the family {family.name} has no field {name}"
            troubles.append(Trouble(source=source, key=row.key or None, field=name, sentence=sentence))
            continue
        known, value = family[name], reading.value
        if value is not None and not (math.isfinite(value) and known.low <= value <= known.high):
            sentence = f"{value:g} {known.unit} cannot be: it is not within {known.low:g} and {known.high:g}"
            troubles.append(Trouble(source=source, key=row.key or None, field=name, sentence=sentence))
            reading = Reading(value=None, state=State.BLANK, source=reading.source, origin=reading.origin)
        fields[name] = reading
    return (Row(key=row.key, ts_ms=row.ts_ms, fields=fields) if troubles else row), troubles
