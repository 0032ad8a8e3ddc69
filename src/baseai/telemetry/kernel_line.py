"""A kernel line is one message of the kernel about hardware: which device, which code, how grave.

Invariant: only lines that speak of hardware in trouble are taken up, and they are taken up whole: what follows from one
is health's to say. A line about a device names it by its bus address.
"""

import re
from dataclasses import dataclass

_PCI = r"(?:PCI:)?((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?)"
_XID = re.compile(rf"NVRM: Xid \({_PCI}[^)]*\): (\d+),\s*(.*)", re.IGNORECASE)
_SXID = re.compile(rf"nvidia-nvswitch\d*: SXid \({_PCI}\): (\d+),\s*(.*)", re.IGNORECASE)
_PID = re.compile(r"pid='?(\d+)'?(?:, name=([^,]*))?")
_AMDGPU = re.compile(rf"amdgpu {_PCI}: (.*)", re.IGNORECASE)
_AMD_TROUBLE = re.compile(
    r"hardware errors?|GPU reset|ring \S+ timeout|RAS|uncorrectable|bad page|poison|fatal", re.IGNORECASE
)
_AFID = re.compile(r"\bAFID[:= ]+(\d+)", re.IGNORECASE)
_ADDRESS = re.compile(r"\b([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b", re.IGNORECASE)
_HARDWARE = re.compile(
    r"\[Hardware Error\]|machine check|\bmce: |\bEDAC\b|\bAER: |PCIe Bus Error|multi-bit error|memory error"
    r"|nvme\S* .*(controller is down|timeout|not ready|removing)|I/O error, dev|critical medium error"
    r"|EXT4-fs error|XFS .*(corruption|I/O error)|remounting filesystem read-only"
    r"|mlx5_core .*(health|fatal|timeout)|NETDEV WATCHDOG|(bnxt|ice|ena)\S* .*(firmware|timed out)"
    r"|(soft|hard) lockup|Kernel panic|rcu.*stall|fabric ?manager.*(fail|fatal|exit)|fallen off the bus",
    re.IGNORECASE,
)
SEVERITY_OF_PRIORITY = ("critical", "critical", "critical", "critical", "warning", "info", "info", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLine:
    """One message that is about hardware in trouble."""

    kind: str  # xid, sxid, afid or kernel
    device: str | None  # bus address as the line writes it
    code: int | None
    severity: str  # info, warning or critical
    sentence: str
    pid: int | None = None
    process: str | None = None


def kernel_line_of(message: str, *, priority: int | None = None) -> KernelLine | None:
    """What the message says, or None when it is not about hardware in trouble.

    message: without the kernel's time stamp. priority: 0 emergency to 7 debug, as /dev/kmsg has it.
    """
    severity = SEVERITY_OF_PRIORITY[priority & 7] if priority is not None else "warning"
    if found := _XID.search(message):
        who = _PID.search(found[3])
        return KernelLine(
            kind="xid",
            device=found[1],
            code=int(found[2]),
            severity="critical",
            sentence=message.strip(),
            pid=int(who[1]) if who else None,
            process=who[2] if who else None,
        )
    if found := _SXID.search(message):
        grave = "warning" if "non-fatal" in found[3].lower() else "critical"
        return KernelLine(
            kind="sxid", device=found[1], code=int(found[2]), severity=grave, sentence=message.strip()
        )
    if (found := _AMDGPU.search(message)) and _AMD_TROUBLE.search(found[2]):
        afid = _AFID.search(found[2])
        return KernelLine(
            kind="afid" if afid else "kernel",
            device=found[1],
            code=int(afid[1]) if afid else None,
            severity=severity,
            sentence=message.strip(),
        )
    if _HARDWARE.search(message):
        address = _ADDRESS.search(message)
        return KernelLine(
            kind="kernel",
            device=address[1] if address else None,
            code=None,
            severity=severity,
            sentence=message.strip(),
        )
    return None
