"""A mount is where one node hangs: its rack, and the leaf and pod of the network above it.

Invariant: over the whole fleet a leaf is under one pod and at one site, a pod at one site, and a rack at the site of
its nodes. What is not known is None, and then the node shares it with nobody. An operator mounts nodes; a node may say
where it hangs as its agent starts, and that counts for what nobody has said.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Part = Literal["rack", "leaf", "pod"]
PARTS: tuple[Part, ...] = ("rack", "leaf", "pod")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Where a node hangs. `watts`: what the runs of its rack may draw together, None where no breaker is known."""

    rack: str | None = None
    leaf: str | None = None
    pod: str | None = None
    watts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """One node as it would hang."""

    name: str
    site: str
    mount: Mount

    def has(self, what: Part | Literal["site"]) -> str | None:
        mount = self.mount
        return {"rack": mount.rack, "leaf": mount.leaf, "pod": mount.pod, "site": self.site}[what]


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One part of a mount that cannot be, and what to do."""

    node: str
    part: Part
    message: str
    fix: str


def misfits(fleet: Iterable[Hung], racks: Mapping[str, str], changed: Iterable[str]) -> tuple[Misfit, ...]:
    """What cannot be of a fleet that hangs so. Only the nodes that were changed are blamed, in the order of names.

    racks: the site of each rack there is. changed: names of nodes. O(nodes log nodes).
    """
    blamed = frozenset(changed)
    # Those that stay as they are come first, so that the changed are measured against them.
    ordered = sorted(fleet, key=lambda one: (one.name in blamed, one.name))
    found = [misfit for one in ordered if one.name in blamed and (misfit := _of_rack(one, racks)) is not None]
    uppers: tuple[tuple[Part, Part | Literal["site"]], ...] = (
        ("leaf", "pod"),
        ("leaf", "site"),
        ("pod", "site"),
    )
    for part, upper in uppers:
        first: dict[str, Hung] = {}
        for one in ordered:
            name = one.has(part)
            other = one if name is None else first.setdefault(name, one)
            if one.name in blamed and other.has(upper) != one.has(upper):
                message = (
                    f"{part} {name} would be under {upper} {one.has(upper) or 'unknown'} for {one.name}"
                    f" and under {other.has(upper) or 'unknown'} for {other.name}"
                )
                fix = "hang both alike, or give one another name"
                found.append(Misfit(node=one.name, part=part, message=message, fix=fix))
    return tuple(sorted(found, key=lambda one: (one.node, PARTS.index(one.part))))


def _of_rack(one: Hung, racks: Mapping[str, str]) -> Misfit | None:
    rack = one.mount.rack
    if rack is None or racks.get(rack) == one.site:
        return None
    if rack in racks:
        message, fix = (
            f"rack {rack} stands at {racks[rack]}, and {one.name} at {one.site}",
            "name one of its own site",
        )
    else:
        near = difflib.get_close_matches(rack, racks, n=1)
        message = f"there is no rack {rack}" + (f"; did you mean {near[0]}?" if near else "")
        fix = f"`baseai rack set {rack} --site {one.site} --breaker-watts N` makes it"
    return Misfit(node=one.name, part="rack", message=message, fix=fix)
