"""A question to the metric store as it comes over the wire, checked: family, fields, time, points.

Invariant: what cannot be asked is refused with the part that is wrong and the nearest that is known; what is answered
is bounded, in time, in things and in points.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from baseai.ground.clock import instant, now_utc
from baseai.ground.fault import Refused
from baseai.ground.quantity import duration_s
from baseai.telemetry.field import FAMILIES, Family
from baseai.telemetry.store import By

POINTS_MAX = 5_000
RAW_SPAN_MAX = timedelta(days=2)  # of one thing, every sample: 17,280 of them at one each ten seconds
KEYS_MAX = 1_000
CELLS_MAX = 2_000_000  # of a JSON answer; Arrow has no such bound
AGO = re.compile(r"(?:\d+(?:\.\d+)?[wdhms])+")


@dataclass(frozen=True, slots=True, kw_only=True)
class During:
    """A time that is asked about."""

    from_at: datetime
    until_at: datetime

    @property
    def from_ms(self) -> int:
        return round(self.from_at.timestamp() * 1000)

    @property
    def until_ms(self) -> int:
        return round(self.until_at.timestamp() * 1000)


def family_of(name: str) -> Family:
    return FAMILIES[_known("family", name, FAMILIES)]


def fields_of(family: Family, names: Sequence[str] | None) -> tuple[str, ...]:
    """The fields asked for, each once, all without `names`. Several may stand in one, with commas between."""
    asked = [one for given in names or () for one in given.split(",") if one]
    return tuple(dict.fromkeys(_known("field", name, family.names) for name in asked)) or family.names


def field_of(family: Family, name: str) -> str:
    return _known("field", name, family.names)


def by_of(name: str) -> By:
    return By(_known("way to break down", name, tuple(By)))


def keys_of(keys: Sequence[str] | None) -> list[str] | None:
    """The keys asked for; None for all."""
    if keys and len(keys) > KEYS_MAX:
        raise Refused(
            f"at most {KEYS_MAX} keys are asked for at once, not {len(keys)}; leave them out for all"
        )
    return list(keys) if keys else None


def points_of(points: int | None) -> int | None:
    if points is not None and not 1 <= points <= POINTS_MAX:
        raise Refused(f"points: an answer has 1 to {POINTS_MAX} of them, not {points}")
    return points


def during(from_: str | None, until: str | None, *, default: timedelta = timedelta(hours=1)) -> During:
    """From one instant to another. Each is RFC 3339, or how long ago: `15m`, `1d`; without them the last hour."""
    now = now_utc()
    end = _at("until", until, now) if until else now
    begin = _at("from", from_, now) if from_ else end - default
    if begin >= end:
        raise Refused(f"from {begin.isoformat()} is not before until {end.isoformat()}")
    return During(from_at=begin, until_at=end)


def _at(which: str, text: str, now: datetime) -> datetime:
    if text == "now":
        return now
    try:
        return (
            now - timedelta(seconds=duration_s(text))
            if AGO.fullmatch(text)
            else instant(text.replace(" ", "+"))
        )
    except (ValueError, OverflowError):
        raise Refused(
            f"{which}: {text[:60]!r} is no time; write 2026-11-20T10:00:00Z, or how long ago, like 15m or 1d"
        ) from None


def _known(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f": it is one of {', '.join(names)}"
    raise Refused(f"{name[:60]!r} is no {what}{hint}")
