"""A translation turns what a source said of one device, in its own terms, into the fields of an accelerator.

Invariant: whatever cannot be believed comes out as a state with a trouble, never as a value; nothing is derived from
fewer readings than it needs. It knows only its arguments: what must be remembered between two ticks goes in and out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from baseai.telemetry.field import ACCELERATOR, Kind, State, remap_code
from baseai.telemetry.mapping import JOINED, Dialect, How, MappingRow, Term, ranks_of, throttle_of
from baseai.telemetry.part import UNKNOWN, Part, is_board_size
from baseai.telemetry.sample import Reading, Trouble

Numbers = Mapping[
    str, float
]  # dimension ("" for none, else a link, a die, a code) → number, in the vendor's unit

ROUNDING_RATIO = 1e-6  # a ratio of 1.0000001 is 1
PAUSE_MAX_MS = 86_400_000  # counters away for longer than a day are not paused, they are gone

AMD = (Dialect.AMD_EXPORTER, Dialect.AMD_SMI)

# What sources print for "no reading".
INT64_BLANK = 2.0**63 - 4096  # DCGM and NVML: 2^63 - 16 and the fifteen above; a float cannot tell them apart
INT32_BLANK = (2.0**31 - 16, 2.0**31 - 1)
FP64_BLANK = (2.0**47, 2.0**47 + 15)
AMD_BLANK = (2.0**32 - 1, 2.0**64 - 1)
UINT16_BLANK = 65_535.0

NEVER_ZERO = frozenset({"temp_c", "power_w", "mem_total_b"})  # of a device that answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a source said of one device at one tick.

    numbers: the text of a mapping row's term → its numbers. A term that is missing was not said.
    """

    key: str  # of the device, for troubles
    at_ms: int
    numbers: Mapping[str, Numbers]
    part: Part = UNKNOWN
    source: str = ""  # collector or exporter, for troubles
    whole: bool = True  # False when the text was cut: what is missing may have been lost
    notes: Mapping[str, str] = field(default_factory=dict)  # term → how it was put together from parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What the next tick of the same device needs of this one."""

    at_ms: int
    numbers: Mapping[str, Numbers]
    profiled: Mapping[str, int]  # term of the profiler → when it last gave a number
    throttled_ms: float | None = None  # of residency, since first seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """The fields of one device, what could not be taken over, and what to hand in next time."""

    fields: Mapping[str, Reading]  # all of ACCELERATOR
    troubles: tuple[Trouble, ...]
    codes: tuple[int, ...]  # every fault code that is new since the tick before, lowest first
    remembered: Remembered


def translated(dialect: Dialect | str, said: Said, before: Remembered | None = None) -> Translated:
    """Every field of one device. `before` is what the translation of the tick before gave back; None at first.

    A field that no row of the dialect fills is UNSUPPORTED; one that a row could fill and did not is ABSENT.
    Raises ValueError for a dialect nobody speaks.
    """
    work = _Translation(Dialect(dialect), said, before)
    ranks = ranks_of(dialect)
    fields = {
        name: work.reading(name, ranks[name]) if name in ranks else UNSUPPORTED[Dialect(dialect)]
        for name in ACCELERATOR.names
    }
    work.compare_memory(fields)
    return Translated(
        fields=fields,
        troubles=tuple(work.troubles),
        codes=tuple(sorted(work.codes)),
        remembered=work.remembered(),
    )


def number_of(value: float) -> Numbers:
    """One number without a dimension, as a collector that calls a library has it."""
    return {"": float(value)}


UNSUPPORTED: Mapping[Dialect, Reading] = {
    dialect: Reading(value=None, state=State.UNSUPPORTED, source=f"{dialect} cannot say it")
    for dialect in Dialect
}


class _Translation:
    """The work on one device."""

    def __init__(self, dialect: Dialect, said: Said, before: Remembered | None) -> None:
        self.dialect = dialect
        self.said = said
        self.before = before
        self.troubles: list[Trouble] = []
        self.codes: set[int] = set()
        self.throttled_ms = before.throttled_ms if before else None
        self.elapsed_ms = said.at_ms - before.at_ms if before else 0

    def reading(self, name: str, ranks: Sequence[Sequence[MappingRow]]) -> Reading:
        """The best rank that gives a value; else the state that says most about why none does."""
        best: Reading | None = None
        for rows in ranks:
            told = self._joined(name, rows) if rows[0].how in JOINED else self._single(name, rows[0])
            if told.state is State.VALUE or self._lost(rows[0]):
                return told  # a counter does not change over to another one halfway
            if best is None or WEIGHT[told.state] > WEIGHT[best.state]:
                best = told
        assert best is not None  # a rank without rows is never made
        return best

    def _single(self, name: str, row: MappingRow) -> Reading:
        """What one row says."""
        lost = self._lost(row)
        numbers = self._terms(name, row)
        if isinstance(numbers, State):
            state = lost or numbers
            return Reading(value=None, state=state, source=row.source)
        if lost is State.ABSENT:
            return Reading(value=None, state=lost, source=row.source)
        source = row.source + "".join(
            f"; {self.said.notes[term.text]}" for term in row.terms if term.text in self.said.notes
        )
        value = self._combined(row, numbers)
        if value is None:
            return Reading(value=None, state=State.ABSENT, source=source)
        return self._checked(name, value, source)

    def _joined(self, name: str, rows: Sequence[MappingRow]) -> Reading:
        """A word of bits put together from the rows that are there."""
        pending, failed, count, bits, found, worst = False, False, 0, 0, [], State.ABSENT
        for row in rows:
            numbers = self._terms(name, row)
            if isinstance(numbers, State):
                worst = max(worst, numbers, key=lambda state: WEIGHT[state])
                continue
            number = sum(sum(each.values()) for each in numbers.values())
            found += [term.text for term in row.terms if term.text in numbers]
            if row.how is How.FLAG and row.bit is not None:
                bits |= row.bit if number > 0 else 0
            elif row.how is How.COUNT:
                count += int(number)
            elif row.how is How.PENDING:
                pending = number > 0
            else:
                failed = number > 0
        if not found:
            return Reading(value=None, state=worst, source=rows[0].source)
        source = f"{self.dialect}: {', '.join(found)}"
        if name == "throttle_bits":
            return self._checked(name, bits, source)
        return self._checked(name, remap_code(pending=pending, failed=failed, count=count), source)

    def _terms(self, name: str, row: MappingRow) -> dict[str, Numbers] | State:
        """The numbers of a row's terms, or why they are not enough. BLANK: the source gave its sign for no reading."""
        found: dict[str, Numbers] = {}
        state = State.ABSENT
        for term in row.terms:
            numbers = self.said.numbers.get(term.text)
            if numbers and any(self._is_blank(name, number) for number in numbers.values()):
                numbers, state = None, State.BLANK
                if term.optional and ACCELERATOR[name].kind is Kind.COUNTER:
                    return state  # a sum with a hole would look like a reset
            if numbers:
                found[term.text] = numbers
            elif not term.optional:
                return self._why_missing(term, state)
        return found or self._why_missing(row.terms[0], state)

    def _why_missing(self, term: Term, state: State) -> State:
        """PAUSED where a profiler of somebody else has taken the counters."""
        if (
            "_prof_" in term.name.lower()
            and self.before
            and self.said.part.shares_profiler
            and self.said.whole
        ):
            seen_ms = self.before.profiled.get(term.text)
            if seen_ms is not None and 0 <= self.said.at_ms - seen_ms <= PAUSE_MAX_MS:
                return State.PAUSED
        return state

    def _lost(self, row: MappingRow) -> State | None:
        """ABSENT for a counter that has lost a term since the tick before: the rest would look like a reset."""
        if self.before is None or ACCELERATOR[row.field].kind is not Kind.COUNTER:
            return None
        for term in row.terms:
            if term.text in self.before.numbers and term.text not in self.said.numbers:
                return State.ABSENT
        return None

    def _combined(self, row: MappingRow, numbers: Mapping[str, Numbers]) -> float | None:
        """One number in the field's unit, or None when it takes an earlier reading that is not there."""
        match row.how:
            case How.SUM:
                return sum(sum(each.values()) for each in numbers.values()) * row.factor
            case How.MAX:
                return max(max(each.values()) for each in numbers.values()) * row.factor
            case How.BITS:
                word = next(iter(numbers.values()))
                return float(throttle_of(int(max(word.values()))))
            case How.RATE:
                return self._rate(row, numbers)
            case How.RESIDENCY:
                return self._residency(row, numbers)
            case How.RISEN:
                return self._risen(row, numbers)
            case How.APPEARED:
                return self._appeared(row, numbers)
            case _:
                raise ValueError(f"{row.field}: {row.how} is no way to combine terms")

    def _gained(self, text: str, now: Numbers) -> float | None:
        """What an accumulator gained since the tick before; None when it began anew or a part of it is missing."""
        before = self.before.numbers.get(text) if self.before else None
        if before is None or before.keys() != now.keys():
            return None
        gains = [now[dimension] - before[dimension] for dimension in now]
        return None if any(gain < 0 for gain in gains) else sum(gains)

    def _rate(self, row: MappingRow, numbers: Mapping[str, Numbers]) -> float | None:
        if self.elapsed_ms <= 0:
            return None
        gains = [self._gained(text, now) for text, now in numbers.items()]
        known = [gain for gain in gains if gain is not None]
        if len(known) < len(gains):
            return None
        return sum(known) * row.factor / (self.elapsed_ms / 1000)

    def _residency(self, row: MappingRow, numbers: Mapping[str, Numbers]) -> float | None:
        """Milliseconds slowed down since first seen; grows by the share of the firmware's ticks that reasons held."""
        if len(numbers) < 2:  # reasons without ticks, or ticks without reasons
            return None
        ticks_text = row.terms[-1].text
        ticks = self._gained(ticks_text, numbers[ticks_text])
        held = [self._gained(text, now) for text, now in numbers.items() if text != ticks_text]
        so_far = self.throttled_ms or 0.0
        if ticks and self.elapsed_ms > 0 and all(gain is not None for gain in held):
            share = min(1.0, sum(gain for gain in held if gain is not None) / ticks)
            so_far += share * self.elapsed_ms
        self.throttled_ms = so_far
        return so_far

    def _risen(self, row: MappingRow, numbers: Mapping[str, Numbers]) -> float | None:
        """The highest code whose count has risen, 0 for none. The first reading cannot tell new from old."""
        text, now = next(iter(numbers.items()))
        if self.before is None:
            return None
        before = self.before.numbers.get(text, {})
        risen = [int(code) for code, count in now.items() if code.isdigit() and count > before.get(code, 0)]
        return self._new_codes(risen)

    def _appeared(self, row: MappingRow, numbers: Mapping[str, Numbers]) -> float | None:
        """The highest code that was not there before, 0 for none. The first reading cannot tell new from old."""
        text, now = next(iter(numbers.items()))
        if self.before is None:
            return None
        before = set(self.before.numbers.get(text, {}).values())
        return self._new_codes([int(code) for code in now.values() if code > 0 and code not in before])

    def _new_codes(self, codes: Sequence[int]) -> float:
        new = {code for code in codes if code > 0}
        self.codes |= new
        return float(max(new, default=0))

    def _is_blank(self, name: str, number: float) -> bool:
        """Whether the number is the source's sign for "no reading"."""
        if math.isnan(number):
            return True
        if self.dialect in (Dialect.DCGM, Dialect.NVML):
            return (
                INT64_BLANK <= number <= 2.0**63
                or INT32_BLANK[0] <= number <= INT32_BLANK[1]
                or FP64_BLANK[0] <= number <= FP64_BLANK[1]
            )
        if self.dialect in AMD:
            return number in AMD_BLANK or (number == UINT16_BLANK and ACCELERATOR[name].high < UINT16_BLANK)
        return False

    def _checked(self, name: str, value: float, source: str) -> Reading:
        """The value where it can be, else BLANK or UNSUPPORTED; a trouble names what cannot be."""
        each = ACCELERATOR[name]
        if name == "temp_mem_c" and value == 0:
            if not self.said.part.has_hbm:
                return Reading(
                    value=None, state=State.UNSUPPORTED, source=f"{source}; 0 on a part without such a sensor"
                )
            return self._blank(name, source, "0 °C is no temperature of memory at work")
        if value == 0 and self.dialect in AMD and self._means_nothing(name):
            return Reading(
                value=None, state=State.UNSUPPORTED, source=f"{source}; 0 on a part that cannot say it"
            )
        if each.high < value <= each.high * (1 + ROUNDING_RATIO):
            value = each.high
        if not math.isfinite(value) or not each.low <= value <= each.high:
            unit = f" {each.unit}" if each.unit else ""
            return self._blank(
                name, source, f"{value:g}{unit} cannot be: {each.low:g} to {each.high:g} can; a wrong unit?"
            )
        return Reading(value=value, source=source)

    def _means_nothing(self, name: str) -> bool:
        """AMD prints 0 for what a part cannot say: whether 0 of this field is that."""
        return name in NEVER_ZERO or (name == "pcie_tx_bps" and not self.said.part.tells_pcie_bandwidth)

    def compare_memory(self, fields: dict[str, Reading]) -> None:
        """Memory in use is at most memory installed, and AMD's figures are in the unit they say."""
        used, total = fields["mem_used_b"], fields["mem_total_b"]
        if self.dialect is Dialect.AMD_EXPORTER and (wrong := self._other_unit("gpu_total_vram")):
            for name, reading in (("mem_total_b", total), ("mem_used_b", used)):
                if reading.value is not None:
                    fields[name] = self._blank(name, reading.source, wrong)
            return
        if used.value is not None and total.value is not None and used.value > total.value:
            fields["mem_used_b"] = self._blank(
                "mem_used_b", used.source, f"{used.value:g} B of {total.value:g} B are in use; a wrong unit?"
            )

    def _other_unit(self, text: str) -> str | None:
        """Why a total is not in MiB: no part is sold with so much, and in another unit one is."""
        number = sum(self.said.numbers.get(text, {}).values())
        if is_board_size(number * 2**20):
            return None
        for unit, factor in (("MB of 10^6 bytes", 1e6), ("bytes", 1.0)):
            if is_board_size(number * factor):
                return f"{number:g} is said to be MiB; no part has that, but one has as many {unit}"
        return None

    def _blank(self, name: str, source: str, why: str) -> Reading:
        self.troubles.append(
            Trouble(source=self.said.source or source, key=self.said.key, field=name, sentence=why)
        )
        return Reading(value=None, state=State.BLANK, source=source)

    def remembered(self) -> Remembered:
        """What was said now; where the text was cut, what was said before stands beside it."""
        numbers = dict(self.said.numbers)
        profiled = dict(self.before.profiled) if self.before else {}
        profiled |= {
            text: self.said.at_ms
            for text, held in numbers.items()
            if "_prof_" in text.lower()
            and not any(self._is_blank("util_pct", each) for each in held.values())
        }
        if self.before and not self.said.whole:
            numbers = dict(self.before.numbers) | numbers
        return Remembered(
            at_ms=self.said.at_ms, numbers=numbers, profiled=profiled, throttled_ms=self.throttled_ms
        )


WEIGHT: Mapping[State, int] = {  # which of several states says most about a field without a value
    State.ABSENT: 0,
    State.UNSUPPORTED: 1,
    State.BLANK: 2,
    State.PAUSED: 3,
    State.VALUE: 4,
}
