"""Energy of cores: measured by the processors' own counters where there are any, else estimated from time at work.

Invariant: what is measured, and what is a share or an estimate of it, is said with every reading. An estimate is a
function of the busy time since the node was started, so that it only rises, survives the agent and begins again with
the node. A measured counter that wraps is carried on; the shares of cores add up to the whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MICRO = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One counter of the processors at an instant."""

    name: str  # unique on the node: package-0, dram of package-0
    micro_j: int
    wraps_at_micro_j: int  # the counter begins again at 0 beyond this


@dataclass(slots=True, kw_only=True)
class Meter:
    """Energy of the node's processors since its start, or since it was first looked at, and each core's share."""

    boot_id: str
    last: dict[str, int] = field(default_factory=dict)  # by zone, µJ
    total_j: float = 0.0
    core_j: dict[int, float] = field(default_factory=dict)
    busy_s: dict[int, float] = field(default_factory=dict)  # by core, at the last look

    def advance(self, zones: Sequence[Zone], busy_s: Mapping[int, float]) -> float:
        """Take up a look at all zones; how many joules were drawn since the one before.

        busy_s: by core, since the node was started. Cores share the difference by their part of the busy time, evenly
        when none was busy. A zone seen for the first time adds nothing yet.
        """
        drawn_j = 0.0
        for zone in zones:
            before = self.last.get(zone.name)
            self.last[zone.name] = zone.micro_j
            if before is not None:
                step = zone.micro_j - before
                drawn_j += (step if step >= 0 else step + zone.wraps_at_micro_j) / MICRO
        worked = {core: max(0.0, now - self.busy_s.get(core, now)) for core, now in busy_s.items()}
        whole_s = sum(worked.values())
        for core, part_s in worked.items():
            share = part_s / whole_s if whole_s > 0 else 1 / len(worked)
            self.core_j[core] = self.core_j.get(core, 0.0) + drawn_j * share
        self.busy_s = dict(busy_s)
        self.total_j += drawn_j
        return drawn_j

    def to_record(self) -> dict[str, object]:
        return {
            "boot_id": self.boot_id,
            "last": self.last,
            "total_j": self.total_j,
            "core_j": {str(core): joules for core, joules in self.core_j.items()},
            "busy_s": {str(core): seconds for core, seconds in self.busy_s.items()},
        }


def meter_of(record: Mapping[str, object] | None, boot_id: str) -> Meter:
    """The meter as it was last written down, or a new one: after a start of the node counters begin again."""
    if record is None or record.get("boot_id") != boot_id:
        return Meter(boot_id=boot_id)
    try:
        return Meter(
            boot_id=boot_id,
            last={str(name): int(value) for name, value in _items(record, "last")},
            total_j=float(str(record["total_j"])),
            core_j={int(core): float(value) for core, value in _items(record, "core_j")},
            busy_s={int(core): float(value) for core, value in _items(record, "busy_s")},
        )
    except (KeyError, ValueError, TypeError):
        return Meter(boot_id=boot_id)


def _items(record: Mapping[str, object], name: str) -> Sequence[tuple[str, int | float]]:
    found = record[name]
    if not isinstance(found, dict):
        raise TypeError(name)
    return list(found.items())
