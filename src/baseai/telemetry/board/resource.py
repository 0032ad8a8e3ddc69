"""A resource is one JSON object that a management controller keeps at a path; nothing in it is believed unread.

Invariant: what is read of a resource is a value or a word that says why there is none, never an exception: numbers come
as text, null, `nan`, lists or not at all, and links lead nowhere. Paths are written without query, fragment and slash
at the end. A `Seen` only grows: it is filled once for a survey and anew for each poll.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from baseai.telemetry.field import State

Resource = Mapping[str, Any]
Ask = str  # what one request asks for: a path, with `?$expand=…` behind it where more is wanted

ROOT = "/redfish/v1"
STALE_AFTER = timedelta(
    seconds=60
)  # a value its service calls stale is let pass while it is younger than this
LINES_MAX = 20_000  # of one report

# Signs for "no reading": integers of firmware that stand where a number should be.
_BLANKS = frozenset({2.0**32 - 1, 2.0**63 - 1, 2.0**64 - 1, *(float(2**31 - 16 + n) for n in range(4))})
_NOTHING = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown", "unavailable", "-"})
_DURATION = re.compile(
    r"P(?:(?P<w>\d+(?:\.\d+)?)W)?(?:(?P<d>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+(?:\.\d+)?)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_DURATION_S = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}


class _Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()  # no such property; null is something else


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One property: the path of its resource and a JSON pointer within it."""

    path: str
    pointer: str = ""

    def below(self, more: str) -> "Address":
        return Address(self.path, self.pointer + more)

    def __str__(self) -> str:
        return f"{self.path}#{self.pointer}" if self.pointer else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A number as far as it could be taken over. `why` is a complaint, for what should not be so."""

    value: float | None
    state: State
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A value that a report quotes from a resource."""

    raw: object
    too_old: str | None = None  # how old, where it is too old to be used


def plain(path: str) -> str:
    """A path as this room writes it. Of an address of another service nothing is left."""
    path = path.partition("#")[0].partition("?")[0].rstrip("/")
    return path if path.startswith(ROOT) else ""


def at(resource: object, pointer: str) -> object:
    """What stands at a JSON pointer, or MISSING."""
    for name in pointer.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(resource, Mapping) and name in resource:
            resource = resource[name]
        elif isinstance(resource, list) and name.isdigit() and int(name) < len(resource):
            resource = resource[int(name)]
        else:
            return MISSING
    return resource


def link(resource: object, pointer: str) -> str:
    """The path that a link at the pointer leads to; empty where there is none."""
    found = at(resource, pointer)
    target = at(found, "/@odata.id")
    return plain(target) if isinstance(target, str) else ""


def links(resource: object, pointer: str) -> tuple[str, ...]:
    """The paths that a list of links, or one link, leads to."""
    found = at(resource, pointer)
    one = link(resource, pointer)
    if not isinstance(found, list):
        return (one,) if one else ()
    return tuple(path for each in found if (path := link(each, "")))


def text(resource: object, pointer: str) -> str:
    """A word; empty where there is none, or a sign for none."""
    found = at(resource, pointer)
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return ""
    word = str(found).strip()
    return "" if word.lower() in _NOTHING or word.lower() == "redacted" else word


def number(raw: object) -> Taken:
    """A number, whether as a number or as text."""
    if raw is MISSING:
        return Taken(value=None, state=State.ABSENT)
    if raw is None:
        return Taken(value=None, state=State.BLANK)
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return Taken(value=None, state=State.BLANK, why=f"is {shown(raw)} and not a number")
    if isinstance(raw, str) and raw.strip().lower() in _NOTHING:
        return Taken(value=None, state=State.BLANK)
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return Taken(value=None, state=State.BLANK, why=f"is {shown(raw)} and not a number")
    if not math.isfinite(value) or value in _BLANKS:
        return Taken(value=None, state=State.BLANK)
    return Taken(value=value, state=State.VALUE)


def seconds(raw: object) -> Taken:
    """A length of time in ISO 8601, as `P6DT23H36M51.2S`, in seconds; or a plain number of seconds."""
    if not isinstance(raw, str) or not raw.strip().upper().startswith("P"):
        return number(raw)
    found = _DURATION.fullmatch(raw.strip().upper())
    parts = {name: part for name, part in found.groupdict().items() if part} if found else {}
    if not parts:
        return Taken(value=None, state=State.BLANK, why=f"is {shown(raw)} and not a length of time")
    return Taken(
        value=sum(float(part) * _DURATION_S[name] for name, part in parts.items()), state=State.VALUE
    )


def flag(raw: object) -> Taken:
    """True or false, also as text, as 1 or 0."""
    word = str(raw).strip().lower() if isinstance(raw, (bool, str)) else ""
    if word in ("true", "false"):
        return Taken(value=float(word == "true"), state=State.VALUE)
    taken = number(raw)
    if taken.value is not None and taken.value not in (0.0, 1.0):
        return Taken(value=None, state=State.BLANK, why=f"is {shown(raw)} and neither true nor false")
    return taken


def instant(raw: object) -> datetime | None:
    """An instant with its zone, or None for anything else."""
    if not isinstance(raw, str):
        return None
    try:
        found = datetime.fromisoformat(raw.strip())
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def shown(raw: object) -> str:
    """A raw value in a sentence, cut short."""
    words = repr(raw)
    return words if len(words) <= 60 else f"{words[:57]}…"


@dataclass(slots=True)
class Seen:
    """What was seen of one controller: its resources, what reports quote, and what gave no usable answer."""

    resources: dict[str, Resource] = field(default_factory=dict)
    quotes: dict[Address, Quote] = field(default_factory=dict)
    silent: dict[Ask, str] = field(default_factory=dict)  # why there is no answer
    brought: dict[Ask, frozenset[str]] = field(default_factory=dict)  # the resources that an answer held
    quoted: dict[Ask, frozenset[Address]] = field(default_factory=dict)  # the values that a report held
    odd: dict[str, str] = field(default_factory=dict)  # where an answer was not as it should be, and how

    def take(self, ask: Ask, answer: Resource) -> None:
        """Keep an answer, with every whole resource and every quoted value within it."""
        path = plain(ask)
        held = {path}
        for inner, resource in _resources_in(answer):
            if inner != path:
                held.add(inner)
                self.resources[inner] = resource
        before, more = at(self[path], "/Members"), at(answer, "/Members")
        if "skip" in ask.partition("?")[2] and isinstance(before, list) and isinstance(more, list):
            answer = {**answer, "Members": [*before, *more]}  # a further page of one collection
        self.resources[path] = answer
        self.brought[ask] = frozenset(held)
        if isinstance(answer.get("MetricValues"), list):
            self.quoted[ask] = frozenset(self._take_report(path, answer["MetricValues"]))

    def miss(self, ask: Ask, why: str) -> None:
        self.silent[ask] = why

    def asked(self, ask: Ask) -> bool:
        return ask in self.brought or ask in self.silent

    def __contains__(self, path: str) -> bool:
        return path in self.resources

    def __getitem__(self, path: str) -> Resource:
        """The resource at a path, an empty one where none was seen."""
        return self.resources.get(path, {})

    def raw(self, address: Address) -> object:
        """What stands at an address, of the resource itself or as a report quotes it; MISSING where neither is."""
        found = (
            at(self.resources[address.path], address.pointer) if address.path in self.resources else MISSING
        )
        if found is MISSING:
            quote = self.quotes.get(address)
            found = quote.raw if quote is not None and quote.too_old is None else MISSING
        return found

    def too_old(self, address: Address) -> str | None:
        quote = self.quotes.get(address)
        return quote.too_old if quote is not None else None

    def _take_report(self, path: str, lines: list[object]) -> Iterator[Address]:
        """The newest line of an address counts: reports that append hold several."""
        stamps: dict[Address, datetime] = {}
        newest = max((when for line in lines if (when := instant(at(line, "/Timestamp")))), default=None)
        for place, line in enumerate(lines[:LINES_MAX]):
            name = at(line, "/MetricProperty")
            where, _, pointer = name.partition("#") if isinstance(name, str) else ("", "", "")
            address = Address(plain(where), pointer or "/Reading")
            if not address.path or (pointer and not pointer.startswith("/")):
                self.odd[f"{path}#/MetricValues/{place}"] = f"names {shown(name)}, which is no property"
                continue
            when = instant(at(line, "/Timestamp"))
            if when is not None and address in stamps and when < stamps[address]:
                continue
            if when is not None:
                stamps[address] = when
            raw = at(line, "/MetricValue")
            self.quotes[address] = Quote(raw=raw, too_old=_too_old(line, when, newest))
            yield address


def _too_old(line: object, when: datetime | None, newest: datetime | None) -> str | None:
    """How much older a line is than the report, if its service calls it stale and it is."""
    stale = at(line, "/Oem/Nvidia/MetricValueStale")
    if stale is not True or when is None or newest is None or newest - when <= STALE_AFTER:
        return None
    return f"{(newest - when).total_seconds():.0f} s older than the report it stands in"


def _resources_in(answer: object, depth: int = 0) -> Iterator[tuple[str, Resource]]:
    """Whole resources within an answer: those that say their type. Mere links and excerpts do not."""
    if depth > 12:
        return
    if isinstance(answer, Mapping):
        name = answer.get("@odata.id")
        if (
            isinstance(name, str)
            and "#" not in name
            and isinstance(answer.get("@odata.type"), str)
            and plain(name)
        ):
            yield plain(name), answer
        for each in answer.values():
            yield from _resources_in(each, depth + 1)
    elif isinstance(answer, list):
        for each in answer:
            yield from _resources_in(each, depth + 1)
