"""The roster knows the accelerators of this node by every name that drivers, exporters and kernels give them.

Invariant: a name leads to one serial or to none; a name that leads to none is told, never guessed at.
"""

import re
from collections.abc import Iterable

from baseai.agent.environment import CPU_SLOT
from baseai.api.schemas import Device

_PCI = re.compile(r"(?:PCI:)?(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?", re.IGNORECASE)


def pci_of(text: str) -> str | None:
    """A bus address as sysfs writes it, `0000:9b:00.0`, of any of the ways it is written; None for other text."""
    found = _PCI.fullmatch(text.strip())
    if found is None:
        return None
    domain, bus, slot, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus.lower()}:{slot.lower()}.{function or '0'}"


def kind_of(model: str) -> str:
    """The word before the slash in names by number, as in `nvidia/3`."""
    if model == CPU_SLOT:
        return "cpu"
    if model.startswith("MI"):
        return "amd"
    return "tpu" if model.startswith("TPU") else "nvidia"


class Roster:
    """The devices of one node. `serials` in the order of the facts."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices = tuple(devices)
        self.serials = tuple(each.serial for each in self.devices)
        self.has_boards = any(each.model != CPU_SLOT for each in self.devices)  # that draw power of their own
        self._serial_of: dict[str, str] = {}
        for each in self.devices:
            names = [
                f"{kind_of(each.model)}/{each.index}",
                each.uuid,
                each.pci and pci_of(each.pci),
                each.serial,
            ]
            self._serial_of.update({name.lower(): each.serial for name in names if name})

    def serial_of(self, *names: str) -> str | None:
        """The serial of the device that the first known of these names means; None when nobody here knows one."""
        for name in names:
            found = self._serial_of.get(name.lower()) or self._serial_of.get(pci_of(name) or "")
            if found is not None:
                return found
        return None
