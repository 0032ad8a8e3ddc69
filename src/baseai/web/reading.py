"""A reading, shown: one field's newest value in a unit that people read, or the reason why there is none.

Invariant: a number is shown only where the state is VALUE and it is fresh; each carries its unit, its origin and where
it came from. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from baseai.ground.quantity import shown_s
from baseai.telemetry.field import Field, Kind, Origin
from baseai.telemetry.sample import origin_of, state_of
from baseai.telemetry.store import Latest
from baseai.web import phrase
from baseai.web.heatmap import STALE_AFTER_MS
from baseai.web.language import Language
from baseai.web.plot import reasons_of

GIB = 2**30
WH_J = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownReading:
    """One field as a row of a table."""

    name: str
    label: str
    text: str | None  # None where there is no value
    unit: str
    state: str  # of phrase.READING_STATES
    origin: Origin
    source: str


def readings_of(
    latest: Latest, sources: Mapping[str, str], language: Language, *, now_ms: int
) -> list[ShownReading]:
    """Every field of the one thing in `latest`; none where nothing was ever heard of it."""
    if not latest.keys:
        return []
    is_old = int(latest.ts_ms[0]) < now_ms - STALE_AFTER_MS
    found = []
    for place, field in enumerate(latest.family.fields):
        code = int(latest.codes[0, place])
        state = state_of(code).name.lower()
        text, unit = shown_value(field, float(latest.values[0, place]), language)
        found.append(
            ShownReading(
                name=field.name,
                label=phrase.field(language, latest.family.name, field.name),
                text=text if state == "value" else None,
                unit=unit,
                state="stale" if is_old and state == "value" else state,
                origin=origin_of(code),
                source=sources.get(field.name, ""),
            )
        )
    return found


def shown_value(field: Field, value: float, language: Language) -> tuple[str, str]:
    """A field's value for people, and the unit it is shown in; a dash for NaN."""
    if value != value:
        return "–", field.unit
    if field.name == "throttle_bits":
        reasons = [phrase.of(language, phrase.THROTTLES, each.name) for each in reasons_of(int(value))]
        return ", ".join(reasons) or language.say("nothing"), ""
    if field.name == "row_remap":
        return remap_words(int(value), language), ""
    if field.name == "uptime_s":
        return shown_s(value), ""
    if field.unit == "B":
        return language.number(value / GIB, 2 if value < 10 * GIB else 1), "GiB"
    if field.unit == "B/s":
        return (
            (language.number(value / 1e9, 2), "GB/s")
            if value >= 1e9
            else (language.number(value / 1e6, 1), "MB/s")
        )
    if field.unit == "bit/s":
        return language.number(value / 1e9, 1), "Gbit/s"
    if field.unit == "J":
        return (
            (language.number(value / WH_J / 1000, 3), "kWh")
            if value >= 3.6e6
            else (language.number(value / WH_J, 2), "Wh")
        )
    if field.unit == "ms" and field.kind is Kind.COUNTER:
        return language.number(value / 1000, 1), "s"
    return language.number(value, 1 if field.kind is Kind.GAUGE and field.unit else 2), field.unit


def bytes_shown(count: float | None, language: Language) -> str:
    """Bytes as GiB or TiB; a dash for what is not known."""
    if count is None:
        return "–"
    return (
        f"{language.number(count / GIB, 1)} GiB"
        if count < 1024 * GIB
        else f"{language.number(count / GIB / 1024, 2)} TiB"
    )


def volume_shown(count: int, language: Language) -> str:
    """How large files or traffic are, from bytes to gigabytes."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{language.number(count / factor, 1)} {unit}"
    return f"{language.number(count)} B"


def scaled(value: float | None, unit: str, language: Language) -> str:
    """Watts or watt-hours with the prefix that fits; a dash for what is not known."""
    if value is None:
        return "–"
    for factor, prefix in ((1e6, "M"), (1e4, "k")):
        if value >= factor:
            return f"{language.number(value / (1e6 if prefix == 'M' else 1e3), 2)} {prefix}{unit}"
    return f"{language.number(value, 0 if value >= 100 else 2)} {unit}"


def remap_words(code: int, language: Language) -> str:
    """`row_remap` in words: how many rows were replaced, and whether one waits or failed."""
    words = [language.number(code >> 2)]
    if code & 1:
        words.append(language.say("one waits for a reset"))
    if code & 2:
        words.append(language.say("one has failed"))
    return ", ".join(words)
