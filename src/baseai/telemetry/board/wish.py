"""A wish is one more ask that a survey needs, as far as can be known from what was seen.

Invariant: wishes are a function of what was seen alone, so that a survey can stop and go on, and a test can run it over
a folder. Nothing is wished for that no reader reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from baseai.telemetry.board.listing import MEMBERS_MAX, main_chassis, members, processors
from baseai.telemetry.board.resource import ROOT, Ask, Seen, at, link, links, number, plain, text

PORTS_LEVELS = 2  # a port's metrics stand one level below it


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What the service says it can put into one answer."""

    sign: str  # `*`, `.` or empty where it cannot
    levels_max: int = 1

    def of(self, path: str, levels: int = 1) -> Ask:
        """The ask that brings the resource with what stands so many levels below it."""
        if not self.sign:
            return path
        return f"{path}?$expand={self.sign}($levels={min(levels, self.levels_max)})"


def unasked(seen: Seen) -> tuple[Ask, ...]:
    """What to ask next; nothing when all there is has been seen. Ask, take the answers, and ask this again."""
    return tuple(dict.fromkeys(ask for ask in wishes(seen) if not seen.asked(ask)))


def wishes(seen: Seen) -> Iterator[Ask]:
    """Every ask that a survey needs, as far as it can be known from what was seen."""
    yield ROOT
    if ROOT not in seen:
        return
    yield from _collection(seen, link(seen[ROOT], "/Systems"))
    yield from _collection(seen, link(seen[ROOT], "/Chassis"))
    telemetry = link(seen[ROOT], "/TelemetryService")
    reports = link(seen[telemetry], "/MetricReports")
    yield from filter(None, (telemetry, reports, link(seen[ROOT], "/EventService")))
    yield from _next_page(seen, reports)
    yield from members(seen, reports)
    for system in members(seen, link(seen[ROOT], "/Systems")):
        yield from _collection(seen, link(seen[system], "/Processors"))
        yield from _collection(seen, link(seen[system], "/LogServices"))
    for path in processors(seen, "GPU"):
        yield from _wishes_of_accelerator(seen, path)
    for path in processors(seen, "CPU"):
        yield from _one(seen, link(seen[path], "/EnvironmentMetrics"))
    for path in main_chassis(seen):
        yield from _wishes_of_chassis(seen, path)


def expansion_of(seen: Seen) -> Expansion:
    """What the service root advertises. With `*` also what a resource links to, which brings a processor's memory."""
    offered = at(seen[ROOT], "/ProtocolFeaturesSupported/ExpandQuery")
    if at(offered, "/Levels") is not True:
        return Expansion(sign="")
    sign = "*" if at(offered, "/ExpandAll") is True else "." if at(offered, "/NoLinks") is True else ""
    levels = number(at(offered, "/MaxLevels")).value
    return Expansion(sign=sign, levels_max=int(levels) if levels else 1)


def _one(seen: Seen, path: str) -> Iterator[Ask]:
    if path and path not in seen:
        yield path


def _collection(seen: Seen, path: str) -> Iterator[Ask]:
    """A collection with its members: in one answer where that works, one by one where it does not."""
    if not path:
        return
    whole = expansion_of(seen).of(path)
    yield whole
    if whole in seen.silent:
        yield path
    yield from _next_page(seen, path)
    for member in members(seen, path):
        yield from _one(seen, member)


def _next_page(seen: Seen, path: str) -> Iterator[Ask]:
    following = text(seen[path], "/Members@odata.nextLink")
    if plain(following) == path and path and len(members(seen, path)) < MEMBERS_MAX:
        yield following


def _wishes_of_accelerator(seen: Seen, path: str) -> Iterator[Ask]:
    expansion = expansion_of(seen)
    if expansion.sign:
        yield expansion.of(path)
    for pointer in ("/Metrics", "/EnvironmentMetrics", "/MemorySummary/Metrics"):
        yield from _one(seen, link(seen[path], pointer))
    for memory in links(seen[path], "/Links/Memory"):
        yield from _one(seen, memory)
        yield from _one(seen, link(seen[memory], "/Metrics"))
        yield from _one(seen, link(seen[memory], "/EnvironmentMetrics"))
    for chassis in links(seen[path], "/Links/Chassis"):
        yield from _one(seen, chassis)
        yield from _collection(seen, link(seen[chassis], "/Sensors"))
    ports = link(seen[path], "/Ports")
    if ports and expansion.sign and expansion.levels_max >= PORTS_LEVELS:
        yield expansion.of(
            ports, PORTS_LEVELS
        )  # one by one they would be a hundred asks a machine: not worth it


def _wishes_of_chassis(seen: Seen, path: str) -> Iterator[Ask]:
    chassis = seen[path]
    yield from _one(seen, link(chassis, "/EnvironmentMetrics"))
    yield from _collection(seen, link(chassis, "/Sensors"))
    power, thermal = link(chassis, "/PowerSubsystem"), link(chassis, "/ThermalSubsystem")
    yield from _one(seen, power)
    yield from _collection(seen, link(seen[power], "/PowerSupplies"))
    yield from _one(seen, thermal)
    yield from _collection(seen, link(seen[thermal], "/Fans"))
    yield from _one(seen, link(seen[thermal], "/ThermalMetrics"))
    leaks = link(seen[thermal], "/LeakDetection")
    yield from _one(seen, leaks)
    yield from _collection(seen, link(seen[leaks], "/LeakDetectors"))
    if not power or power in seen.silent:  # the deprecated pair is all that older controllers have
        yield from _one(seen, link(chassis, "/Power"))
    if not thermal or thermal in seen.silent:
        yield from _one(seen, link(chassis, "/Thermal"))
