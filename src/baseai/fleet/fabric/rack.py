"""A rack is where nodes stand under one breaker: how much power it lets through, and how much of that runs may draw.

Invariant: what runs may draw is whole watts, never more than the derated breaker less what is drawn without them.
An operator sets racks; nothing else changes one.
"""

from dataclasses import dataclass
from decimal import Decimal

from baseai.ground.fault import Refused
from baseai.ground.identity import SiteId

DERATING = Decimal("0.8")  # of a breaker that may be loaded for hours: the usual limit for continuous loads
WATTS_MOST = 10_000_000  # no rack is fed by more; what is written so is a slip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rack:
    """One rack and its breaker."""

    rack_id: str
    site: SiteId
    breaker_watts: int
    derating: Decimal = DERATING  # 0 to 1: the part of the breaker that may be drawn all the time
    base_watts: int = 0  # drawn by hosts, switches and fans while no accelerator works

    @property
    def load_watts(self) -> int:
        """What runs may draw together."""
        return int(self.breaker_watts * self.derating) - self.base_watts


def checked(rack: Rack) -> Rack:
    """The rack, if there can be one like it. Raises Refused with what to change."""
    if not 0 < rack.breaker_watts <= WATTS_MOST:
        raise Refused(
            f"rack {rack.rack_id}: a breaker of {rack.breaker_watts} W is none; write watts, above 0 and at most"
            f" {WATTS_MOST}"
        )
    if not 0 < rack.derating <= 1:
        raise Refused(f"rack {rack.rack_id}: derating {rack.derating} is not above 0 and at most 1")
    if rack.base_watts < 0:
        raise Refused(f"rack {rack.rack_id}: base watts {rack.base_watts} are below 0")
    if rack.load_watts <= 0:
        raise Refused(
            f"rack {rack.rack_id}: {rack.base_watts} W are drawn without any run, and the breaker lets"
            f" {int(rack.breaker_watts * rack.derating)} W through; give it a larger breaker or less beside it"
        )
    return rack
