"""The facts of a node are what its agent says of it when it joins and whenever it starts.

Invariant: nothing is guessed: a device is listed under a model of the catalogue only when its product name says
so, and left out, with a word in the agent's log, when it does not.
Outside things touched: the machine, `nvidia-smi`, `amd-smi`.
"""

import contextlib
import csv
import io
import json
import logging
import os
import platform
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from baseai import __version__
from baseai.agent.environment import CPU_SLOT
from baseai.agent.roster import pci_of
from baseai.api.schemas import Device, NodeFacts
from baseai.ground.identity import derived

log = logging.getLogger(__name__)

PROBE_WAIT_S = 20.0
# First match wins, so the narrower name stands first. Names on the right are the catalogue's.
PRODUCTS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("NVL",), None),  # two cards with a bridge: no model of the catalogue
    (("H200",), "H200"),
    (("H100", "PCI"), "H100-PCIe"),
    (("H100",), "H100-SXM"),
    (("A100", "40G"), "A100-40GB"),
    (("A100",), "A100-80GB"),
    (("L40S",), "L40S"),
    (("MI300X",), "MI300X"),
    (("MI350X",), "MI350X"),
)


def model_of(product: str) -> str | None:
    """The catalogue's model of a driver's product name, or None: an unknown device is not leased."""
    plain = product.upper()
    for words, model in PRODUCTS:
        if all(word in plain for word in words):
            return model
    return None


def nvidia_devices(table: str) -> list[Device]:
    """Devices out of `nvidia-smi --query-gpu=index,serial,uuid,name,memory.total,pci.bus_id`, plain csv."""
    devices = []
    for row in csv.reader(io.StringIO(table), skipinitialspace=True):
        if len(row) != 6:
            continue
        index, serial, uuid, product, memory, bus = (field.strip() for field in row)
        model = model_of(product)
        if model is None or not index.isdigit():
            log.warning("accelerator %r is not in the catalogue and is not offered", product)
            continue
        known = serial if serial.isalnum() and serial not in ("0", "NA") else uuid
        memory_mib = int(memory) if memory.isdigit() else 0
        devices.append(
            Device(
                serial=known,
                model=model,
                index=int(index),
                memory_mib=memory_mib,
                uuid=uuid or None,
                pci=pci_of(bus),
            )
        )
    return devices


def amd_devices(text: str) -> list[Device]:
    """Devices out of `amd-smi static --asic --bus --vram --json`."""
    devices = []
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        found = json.loads(text)
        entries = found.get("gpu_data", []) if isinstance(found, dict) else found
        for entry in entries:
            asic = entry.get("asic", {})
            product = str(asic.get("market_name", ""))
            model = model_of(product)
            if model is None:
                log.warning("accelerator %r is not in the catalogue and is not offered", product)
                continue
            size = entry.get("vram", {}).get("size", {})
            memory_mib = int(size.get("value", 0)) if isinstance(size, dict) else 0
            serial = str(asic.get("asic_serial") or f"amd-{entry['gpu']}")
            bus = entry.get("bus", {})
            devices.append(
                Device(
                    serial=serial,
                    model=model,
                    index=int(entry["gpu"]),
                    memory_mib=memory_mib,
                    uuid=str(asic["asic_uuid"]) if asic.get("asic_uuid") else None,
                    pci=pci_of(str(bus.get("bdf", ""))) if isinstance(bus, dict) else None,
                )
            )
    return devices


def observe_devices() -> list[Device]:
    """The accelerators the drivers of this machine know; empty where there is no driver's program."""
    query = ["--query-gpu=index,serial,uuid,name,memory.total,pci.bus_id", "--format=csv,noheader,nounits"]
    return told_apart(
        [
            *nvidia_devices(_said_by("nvidia-smi", *query)),
            *amd_devices(_said_by("amd-smi", "static", "--asic", "--bus", "--vram", "--json")),
        ]
    )


def told_apart(devices: Sequence[Device]) -> list[Device]:
    """The devices, each by a serial of its own: those that share one (two on a board that has one) go by their UUID.

    Where that does not tell them apart either, their place on the bus or their index is added.
    """
    counts = Counter(device.serial for device in devices)
    renamed = [
        device
        if counts[device.serial] == 1
        else device.model_copy(update={"serial": device.uuid or device.serial})
        for device in devices
    ]
    counts = Counter(device.serial for device in renamed)
    return [
        device
        if counts[device.serial] == 1
        else device.model_copy(update={"serial": f"{device.serial}/{device.pci or device.index}"})
        for device in renamed
    ]


def _said_by(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        said = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=PROBE_WAIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("%s gave no answer and its devices are not offered: %s", program, error)
        return ""
    return said.stdout


def allowed_cores() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_slots(*, machine_id: str, node: str, count: int, memory_mib: int) -> list[Device]:
    """The node's CPU slots. The same machine, node name and index make the same serial for ever."""
    share_mib = memory_mib // max(1, count)
    return [
        Device(
            serial=derived("slot", machine_id, node, index), model=CPU_SLOT, index=index, memory_mib=share_mib
        )
        for index in range(count)
    ]


def machine_id() -> str:
    """What names this machine across restarts; its host name where the system keeps nothing better."""
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            text = Path(place).read_text().strip()
            if text:
                return text
    return platform.node()


def boot_id() -> str:
    """What changes with every start of the machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    import psutil

    return f"booted-{int(psutil.boot_time())}"


def own_address(url: str) -> str:
    """The address by which this machine reaches the server: what other nodes of the site reach it by."""
    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 443))  # sends nothing
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def observe_facts(
    *,
    folder: Path,
    url: str,
    name: str | None,
    address: str | None,
    site: str,
    slots: int | None,
    isolation: Literal["none", "user", "container"],
    devices: Sequence[Device] | None = None,
) -> NodeFacts:
    """This node as it is now. `slots`: how many CPU slots it offers, by default all cores it may use."""
    import psutil

    node = name or platform.node() or "node"
    memory_mib = psutil.virtual_memory().total // (1024 * 1024)
    cores = allowed_cores()
    count = len(cores) if slots is None else slots
    found = observe_devices() if devices is None else list(devices)
    return NodeFacts(
        name=node,
        address=address or own_address(url),
        site=site,
        isolation=isolation,
        container_runtime=None,  # runs are plain processes here, whatever else is installed
        cores=len(cores),
        memory_mib=memory_mib,
        disk_mib=shutil.disk_usage(folder).total // (1024 * 1024),
        devices=[*found, *cpu_slots(machine_id=machine_id(), node=node, count=count, memory_mib=memory_mib)],
        boot_id=boot_id(),
        version=__version__,
    )
