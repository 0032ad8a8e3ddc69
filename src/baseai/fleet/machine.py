"""A machine is what a node is made of, in its own words: address, cores, memory, devices.

Invariant: these are claims of the node, taken over as it joins and as its agent starts; the truth keeps its own ids
for what they name. Nobody changes a value once made.
"""

from dataclasses import dataclass, field

from baseai.fleet.fabric.mount import Mount


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    serial: str
    model: str
    index: int
    memory_mib: int
    uuid: str | None = None  # by which its driver and exporters name it
    pci: str | None = None  # its bus address


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What a node says of itself."""

    name: str
    address: str
    isolation: str
    container_runtime: str | None
    cores: int
    memory_mib: int
    disk_mib: int
    devices: tuple[DeviceFacts, ...]
    boot_id: str
    version: str
    protocol: int
    mount: Mount = field(default_factory=Mount)  # where it hangs, as far as it was told
