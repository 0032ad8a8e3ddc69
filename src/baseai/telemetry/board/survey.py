"""A survey is what one management controller was found to have: accelerators, the machine, and the parts to watch.

Invariant: it is made once from what `wishes` asks for, and remembered. What was promised by a link and is not there is
said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baseai.telemetry.board.accelerator import FoundAccelerator, accelerators
from baseai.telemetry.board.formula import Formula
from baseai.telemetry.board.listing import main_chassis, members
from baseai.telemetry.board.machine import machine
from baseai.telemetry.board.resource import ROOT, Resource, Seen, at, link, number, plain, text
from baseai.telemetry.board.unit import Unit, units_of, units_of_accelerators

ALIKE_MAX = 3  # complaints of one kind told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One controller."""

    service: str  # its own UUID; what ids of events are made of
    product: str
    equipment: str  # what it is where it has no computer system, as a power shelf; empty for a node
    accelerators: tuple[FoundAccelerator, ...]
    node: tuple[Formula, ...]
    units: tuple[Unit, ...]
    stream: str  # where events may be listened to; empty where they cannot
    logs: tuple[str, ...]  # collections of log entries
    complaints: tuple[tuple[str, str], ...]  # where, and what is wrong there


def surveyed(seen: Seen) -> Survey:
    """The controller as `wishes` showed it."""
    main = main_chassis(seen)
    found = accelerators(seen)
    node, fans = machine(seen, main)
    systems = members(seen, link(seen[ROOT], "/Systems"))
    return Survey(
        service=text(seen[ROOT], "/UUID") or text(seen[ROOT], "/ServiceIdentification"),
        product=" ".join(filter(None, (text(seen[ROOT], "/Vendor"), text(seen[ROOT], "/Product")))),
        equipment="" if systems else _equipment(seen, main),
        accelerators=found,
        node=node,
        units=(*units_of(seen, main, fans), *units_of_accelerators(found)),
        stream=_stream(seen[link(seen[ROOT], "/EventService")]),
        logs=tuple(_logs(seen, systems)),
        complaints=tuple(_complaints(seen)),
    )


def _equipment(seen: Seen, main: Sequence[str]) -> str:
    """A name for what is no node: the serial of its chassis, or the chassis' own name."""
    serials = [text(seen[path], "/SerialNumber") or path.rpartition("/")[2] for path in main]
    return serials[0] if serials else text(seen[ROOT], "/UUID") or "equipment"


def _stream(events: Resource) -> str:
    """Where to listen, to events alone where the service can leave metric reports out."""
    path = plain(text(events, "/ServerSentEventUri"))
    if not path or at(events, "/ServiceEnabled") is False:
        return ""
    can_choose = at(events, "/SSEFilterPropertiesSupported/EventFormatType") is True
    return f"{path}?$filter=EventFormatType eq Event" if can_choose else path


def _logs(seen: Seen, systems: Sequence[str]) -> Iterator[str]:
    for system in systems:
        for service in members(seen, link(seen[system], "/LogServices")):
            if entries := link(seen[service], "/Entries"):
                yield entries


def _complaints(seen: Seen) -> Iterator[tuple[str, str]]:
    """What was promised and not there, and what was odd."""
    answered = {plain(ask) for ask in seen.brought}
    alike: dict[tuple[str, str], list[str]] = {}
    for ask, why in seen.silent.items():
        if plain(ask) not in answered:
            parent, _, name = plain(ask).rpartition("/")
            alike.setdefault((parent, why), []).append(name)
    for (parent, why), names in alike.items():
        names = list(dict.fromkeys(names))
        if len(names) <= ALIKE_MAX:
            yield from ((f"{parent}/{name}", why) for name in names)
        else:
            yield (
                parent,
                f"{len(names)} of what it lists gave no answer ({why}): {', '.join(names[:ALIKE_MAX])}, …",
            )
    yield from seen.odd.items()
    for path, resource in seen.resources.items():
        count = number(at(resource, "/Members@odata.count")).value
        listed = at(resource, "/Members")
        more = isinstance(resource.get("Members@odata.nextLink") or resource.get("@odata.nextLink"), str)
        if count is not None and isinstance(listed, list) and len(listed) < count and not more:
            yield path, f"says that it has {count:g} members and lists {len(listed)}"
