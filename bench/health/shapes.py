"""Shapes of faults, and of what looks alike and is nothing: at which seconds which signals come.

Invariant: a shape names its right rules beforehand. Those kept back were written down with the rest, and are played
only to judge rules, never to settle them.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from baseai.telemetry.field import Throttle, remap_code
from bench.health.world import Machine, World, rows_of

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("BASEAI_SHARED") or ROOT.parent / "shared") / "fixtures"

Play = Callable[[World, Machine, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one fault looks like: at which seconds what happens, and which rules are right about it."""

    name: str
    right: frozenset[str]
    acts: tuple[tuple[float, Play], ...]
    drains: bool | None = True  # whether a node that has it may be drained; None: it may, and need not
    amd: bool = False  # on accelerators of AMD
    kept_back: bool = False


def lines(*texts: str) -> Play:
    """Kernel lines of one device; `PCI` and `GPU` stand for its address and number."""

    def play(world: World, machine: Machine, device: int) -> None:
        pci = world.pci[f"{machine.node_id}-{device}"]
        for text in texts:
            world.say(machine, text.replace("PCI", pci.removesuffix(".0")).replace("GPUN", str(device)))

    return play


def xid(code: int, text: str = "") -> Play:
    return lines(f"NVRM: Xid (PCI:PCI): {code}, pid=2024380, name=python, {text}")


def reads(family: str, rows: str = "one", **told: float) -> Play:
    """From now on the device (or all of its node) reads so; a counter by so much more."""

    def play(world: World, machine: Machine, device: int) -> None:
        every = rows_of(machine, family)
        for row in every if rows == "all" or len(every) == 1 else [every[device]]:
            for name, value in told.items():
                world.put(family, row, name, value)

    return play


def over(family: str) -> Play:
    def play(world: World, machine: Machine, device: int) -> None:
        for row in rows_of(machine, family):
            world.well(family, row)

    return play


def quiet(seconds: float) -> Play:
    """Of one device nothing is heard."""

    def play(world: World, machine: Machine, device: int) -> None:
        machine.quiet[device] = world.now + timedelta(seconds=seconds)

    return play


def silent(seconds: float) -> Play:
    """Of the whole node nothing is heard."""

    def play(world: World, machine: Machine, device: int) -> None:
        machine.silent_until = world.now + timedelta(seconds=seconds)

    return play


def dies(sentence: str = "its processes vanished without a recorded end") -> Play:
    return lambda world, machine, device: world.die(machine, sentence)


def bmc(text: str, severity: str) -> Play:
    return lambda world, machine, device: world.say(machine, text, kind="redfish", severity=severity)


def tested(text: str, severity: str) -> Play:
    return lambda world, machine, device: world.say(machine, text, kind="test", severity=severity)


def ras(severity: str) -> Play:
    return lambda world, machine, device: world.afid(machine, device, severity)


def shape(name: str, right: str, *acts: tuple[float, Play] | Play, **differing: bool | None) -> Shape:
    timed = tuple(act if isinstance(act, tuple) else (0.0, act) for act in acts)
    return Shape(name=name, right=frozenset(right.split()), acts=timed, **differing)  # type: ignore[arg-type]


def gsp_lines() -> tuple[str, ...]:
    """The saved lines of Xid 119, each with a device's address in place of the saved one's."""
    text = (SHARED / "health" / "dmesg_xid119_sample.log").read_text()
    saved = re.findall(r"NVRM: Xid \(PCI:0000:9b:00\): 119,.*", text)
    return tuple(line.replace("0000:9b:00", "PCI").replace("GPU4", "GPUGPUN") for line in saved)


SOFT = {"drains": False}
KEPT = {"kept_back": True}


def shapes() -> dict[str, list[Shape]]:
    """By cause; those kept back were written down with the rest and are played only once the rules are settled."""
    gsp = gsp_lines()
    return {
        "faulty_gpu": [
            shape("off the bus", "xid.79 devices_missing", xid(79, "GPU has fallen off the bus."), quiet(9e9),
                  reads("node", accel_seen=7)),
            shape("controller halted", "xid.62", xid(62, "0a24 00000000 00000000")),
            shape("timed out", "xid.46", xid(46, "GPU timeout")),
            shape("context switch", "xid.109", xid(109, "Ch 00000012, errorString CTX SWITCH TIMEOUT")),
            shape("not initialised", "xid.143", xid(143, "GPU Initialization Error")),
            shape("gone without a Xid", "devices_missing device_silent", quiet(9e9), reads("node", accel_seen=7)),
            shape("fatal time-out", "xid.158", xid(158, "GPU Fatal Timeout"), **KEPT),
            shape("the driver asks", "recovery.1",
                  xid(154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset"
                  " Required)"), **KEPT),
            shape("only counters say it", "xid.79", reads("accelerator", fault_code=79), **KEPT),
        ],
        "gpu_hbm3": [
            shape("contained, row replaced", "xid.48", xid(48, "DBE"), xid(63, "Row Remapper"), xid(94, "Contained"),
                  reads("accelerator", row_remap=remap_code(pending=True, failed=False, count=1)), drains=None),
            shape("row not replaced", "xid.48 xid.64 remap_failed", xid(48, "DBE"), (3.0, xid(64, "Failed to remap")),
                  reads("accelerator", row_remap=remap_code(pending=False, failed=True, count=1))),
            shape("not contained", "xid.95 ecc_uncorrected", xid(95, "Uncontained"), reads("accelerator", ecc_ue=2)),
            shape("counted, not logged", "ecc_uncorrected", reads("accelerator", ecc_ue=1)),
            shape("AMD, uncorrected", "afid.non_fatal_uncorrected ecc_uncorrected", ras("warning"),
                  reads("accelerator", ecc_ue=1), amd=True),
            shape("with its detail", "xid.171 xid.48", xid(48, "DBE"), xid(171, "DRAM"), **KEPT),
            shape("only the flag", "remap_failed",
                  reads("accelerator", row_remap=remap_code(pending=False, failed=True, count=9)), **KEPT),
            shape("AMD, fatal", "afid.fatal", ras("critical"), amd=True, **KEPT),
        ],
        "software_bug": [
            shape("index out of bounds", "xid.13", xid(13, "Graphics SM Warp Exception"), (2.0, xid(43, "Ch 1")),
                  **SOFT),
            shape("page fault", "xid.31", xid(31, "MMU Fault: ENGINE GRAPHICS"), (1.0, xid(45, "Ch 2")), dies(),
                  **SOFT),
            shape("nobody says why", "run_died", dies(), **SOFT),
            shape("broken stream", "xid.32", xid(32, "PBDMA"), **SOFT, **KEPT),
            shape("class error", "xid.69", xid(69, "Class Error"), dies(), **SOFT, **KEPT),
        ],
        "network_switch_or_cable": [
            shape("port down", "port_down", reads("port", up=0, rate_bps=1e10), drains=None),
            shape("flapping", "port_flaps port_downed", reads("port", link_downed=1), (30.0,
                  reads("port", link_downed=1)),
                  (60.0, reads("port", link_downed=1)), drains=None),
            shape("symbol errors", "port_symbols", reads("port", symbol_err=40), drains=None),
            shape("damaged packets", "port_errors", reads("port", rx_err=200), drains=None, **KEPT),
            shape("half the width", "port_slow", reads("port", rate_bps=2e11), drains=None, **KEPT),
        ],
        "host_maintenance_unplanned": [
            shape("switched off", "node_silent", silent(900), dies("the node was lost"), **SOFT),
            shape("started anew", "node_silent", silent(400), (410.0, over("node")), **SOFT, **KEPT),
        ],
        "gpu_sram": [
            shape("escaped", "xid.140", xid(140, "Unrecovered ECC")),
            shape("not contained", "xid.95", xid(95, "Uncontained: SRAM")),
            shape("with its detail", "xid.172", xid(172, "SRAM"), **KEPT),
        ],
        "gpu_system_processor": [
            shape("saved lines", "xid.119", *[(6.0 * n, lines(line)) for n, line in enumerate(gsp)]),
            shape("failed", "xid.120", xid(120, "GSP task panic")),
            shape("and the driver asks", "xid.119 recovery.2", lines(gsp[0]),
                  xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"), **KEPT),
        ],
        "nic": [
            shape("firmware", "kernel.nic port_down", lines("mlx5_core 0000:17:00.0: poll_health: device's health"
                  " compromised - reached miss count"), reads("port", up=0, rate_bps=1e10)),
            shape("queue stuck", "kernel.nic", lines("NETDEV WATCHDOG: eth2 (mlx5_core): transmit queue 5 timed out"),
                  **KEPT),
        ],
        "nccl_watchdog_timeout": [shape("time-out", "run_died", dies("ncclSystemError: watchdog"), **SOFT)],
        "silent_data_corruption": [
            shape("a test computes wrong", "test_wrong", tested("wrong results in 3 of 4,096 products", "critical")),
        ],
        "gpu_thermal_interface_or_sensor": [
            shape("one hot device", "temp_outlier temp_critical", reads("accelerator", temp_c=91)),
            shape("the hardware brakes", "thermal_brake",
                  reads("accelerator", throttle_bits=int(Throttle.THERMAL_HW), clock_mhz=900), drains=None),
            shape("hot memory", "hbm_critical", reads("accelerator", temp_mem_c=112), drains=None, **KEPT),
        ],
        "ssd": [
            shape("controller down", "kernel.disk",
                  lines("nvme nvme3: controller is down; will reset: CSTS=0xffffffff")),
            shape("file system", "kernel.disk", lines("EXT4-fs error (device nvme0n1p2): ext4_find_entry:1463"),
                  **KEPT),
        ],
        "power_supply": [
            shape("one of six", "psu_lost bmc.psu", reads("node", psu_ok=5),
                  bmc("Power supply PSU.Slot.2 has failed.", "warning"), **SOFT),
            shape("brake", "power_brake", reads("accelerator", "all", throttle_bits=int(Throttle.POWER_BRAKE)),
                  drains=None, **KEPT),
        ],
        "server_chassis": [
            shape("critical", "bmc.other", bmc("The system board is in a critical state.", "critical")),
            shape("leak", "leak bmc.leak", reads("node", leak=1), **KEPT),
        ],
        "io_expansion_board": [
            shape("PCIe", "kernel.pcie",
                  lines("pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received: 0000:00:01.0")),
        ],
        "dependency": [shape("a service was away", "run_died", dies("connection refused"), **SOFT)],
        "cpu": [shape("machine check", "kernel.mce",
              lines("mce: [Hardware Error]: CPU 3: Machine Check Exception: Uncorrected"))],
        "system_memory": [
            shape("EDAC", "kernel.mce", lines("EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1")),
            shape("the board says it", "bmc.memory", bmc("DIMM_A3 has an uncorrectable error.", "critical"), **KEPT),
        ],
    }  # fmt: skip


def look_alikes() -> list[Shape]:
    """What happens every day on healthy nodes. Nothing of it may drain one."""
    hot = {"temp_c": 87.0, "temp_mem_c": 96.0}
    return [
        shape("a run's errors, a hundred lines", "", *[(1.5 * n, xid(13, "Graphics Exception")) for n in range(100)],
              **SOFT),
        shape("page faults, again and again", "", *[(40.0 * n, xid(31, "MMU Fault")) for n in range(4)], **SOFT),
        shape("cleaned up after a cancel", "", xid(45, "Ch 1"), **SOFT),
        shape("stopped processing", "", xid(43, "Ch 7"), (1.0, xid(45, "Ch 7")), **SOFT),
        shape("a row replaced", "", xid(63, "Row Remapper"),
              reads("accelerator", row_remap=remap_code(pending=True, failed=False, count=1)), **SOFT),
        shape("contained", "", xid(94, "Contained"), dies(), **SOFT),
        shape("many corrected errors", "", xid(92, "High single-bit"), reads("accelerator", ecc_ce=300), **SOFT),
        shape("the driver asks for nothing", "", xid(154, "GPU recovery action changed from 0x1 to 0x0 (None)"),
              **SOFT),
        shape("one lost probe", "", quiet(15), **SOFT),
        shape("three lost probes", "", quiet(35), **SOFT),
        shape("the exporter is away", "", silent(45), **SOFT),
        shape("a planned reboot", "", silent(600), (601.0, reads("accelerator", "all", ecc_ue=-1, link_err=-1)),
              **SOFT),
        shape("counters begin anew", "", reads("accelerator", "all", ecc_ue=-1, ecc_ce=-1, link_err=-1), **SOFT),
        shape("a spike", "", reads("accelerator", temp_c=99), (9.0, over("accelerator")), **SOFT),
        shape("a hot room", "", reads("accelerator", "all", **hot), reads("node", temp_inlet_c=30), **SOFT),
        shape("the power limit", "", reads("accelerator", "all", throttle_bits=int(Throttle.POWER_CAP)), **SOFT),
        shape("software slows it", "", reads("accelerator", throttle_bits=int(Throttle.THERMAL_SW)), **SOFT),
        shape("one flap", "", reads("port", link_downed=1), **SOFT),
        shape("corrected by the processor", "", lines("mce: [Hardware Error]: Corrected error, no action required."),
              **SOFT),
        shape("corrected on PCIe", "", lines("pcieport 0000:00:01.0: AER: Corrected error received: 0000:1b:00.0"),
              **SOFT),
        shape("a word of the board", "", bmc("The firmware was updated.", "info"), **SOFT),
        shape("kills its own runs", "", *[(20.0 * n, dies("ended by SIGKILL from outside")) for n in range(6)], **SOFT),
        shape("idle devices of a run", "", reads("accelerator", clock_mhz=345, util_pct=0, mem_used_b=0), **SOFT),
        shape("a switch corrects", "", lines("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 11012, Non-fatal, Link 30"),
              **SOFT),
        shape("a link recovers", "", lines("NVRM: Xid (PCI:PCI): 149, NETIR_LINK_EVT Nonfatal XC0 i0 Link 13"), **SOFT),
        shape("AMD, corrected", "", ras("info"), amd=True, **SOFT),
        shape("a sticky code", "", reads("accelerator", fault_code=13), **SOFT),
        shape("few link errors", "", reads("accelerator", link_err=12), **SOFT),
    ]  # fmt: skip
