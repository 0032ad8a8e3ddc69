"""A listing is which things a controller has: members of collections, processors, the chassis that are the machine.

Invariant: what is listed may not be there, and what is there twice under two systems is listed twice; whoever asks
says which it wants. Listings are bounded, however much a controller lists.
"""

from baseai.telemetry.board.resource import ROOT, Seen, link, links, text

# Chassis that are parts of a machine rather than the machine.
PART_TYPES = frozenset(
    {
        "Component", "Module", "Zone", "Card", "Cartridge", "Expansion", "Drawer", "HeatExchanger", "StorageEnclosure",
    }
)  # fmt: skip
MEMBERS_MAX = 512  # of one collection


def members(seen: Seen, path: str) -> tuple[str, ...]:
    return links(seen[path], "/Members")[:MEMBERS_MAX] if path in seen else ()


def processors(seen: Seen, kind: str) -> tuple[str, ...]:
    """Processors of a kind that are there, under whatever system, in the order of their listing."""
    found = []
    for system in members(seen, link(seen[ROOT], "/Systems")):
        for path in members(seen, link(seen[system], "/Processors")):
            if text(seen[path], "/ProcessorType") == kind and text(seen[path], "/Status/State") != "Absent":
                found.append(path)
    return tuple(dict.fromkeys(found))


def main_chassis(seen: Seen) -> tuple[str, ...]:
    """The chassis that are the machine: in none, and no mere part; those of a computer system first."""
    found = [path for path in members(seen, link(seen[ROOT], "/Chassis")) if path in seen]
    main = [
        path
        for path in found
        if not link(seen[path], "/Links/ContainedBy") and text(seen[path], "/ChassisType") not in PART_TYPES
    ]
    return tuple(sorted(main or found, key=lambda path: not links(seen[path], "/Links/ComputerSystems")))
