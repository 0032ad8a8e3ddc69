"""An absence is an accelerator that its sources used to report and do not any more.

Invariant: only a source that answered, and had reported the device before, can miss it: one that fails says nothing of
devices. A device is lost after `MISSES` misses in a row; one lost probe changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

MISSES = 3


@dataclass(slots=True, kw_only=True)
class Absences:
    """What is known of the devices of one node, tick by tick."""

    expected: Collection[str]  # serials
    seen_by: dict[str, set[str]] = field(default_factory=dict)  # serial → collectors that reported it
    missed: dict[str, int] = field(default_factory=dict)  # serial → misses in a row

    def note(self, answers: Mapping[str, Collection[str]]) -> tuple[list[str], list[str]]:
        """Take up one tick: collector → serials in its answer. Returns serials lost, and found again, by this tick."""
        lost, found = [], []
        for serial in self.expected:
            sources = {name for name, serials in answers.items() if serial in serials}
            known = self.seen_by.setdefault(serial, set())
            if sources:
                known |= sources
                if self.missed.pop(serial, 0) >= MISSES:
                    found.append(serial)
            elif known & answers.keys():
                self.missed[serial] = self.missed.get(serial, 0) + 1
                if self.missed[serial] == MISSES:
                    lost.append(serial)
        return lost, found

    def seen(self) -> int:
        """How many are there, as far as is known."""
        return sum(
            1 for each in self.expected if self.seen_by.get(each) and self.missed.get(each, 0) < MISSES
        )
