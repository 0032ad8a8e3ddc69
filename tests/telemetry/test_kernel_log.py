"""The kernel's log bears witness: every line about hardware, under an id that stays, and none twice."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baseai.telemetry.collector import NothingThere
from baseai.telemetry.kernel_line import KernelLine, kernel_line_of
from baseai.telemetry.kernel_log import KMSG, KernelLog

AGES_S = 1e9
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
XID_79 = "NVRM: Xid (PCI:0000:91:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        pytest.param(XID_79, ("xid", "0000:91:00", 79, "critical"), id="a Xid"),
        pytest.param(
            "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
            ("sxid", "0000:06:00.0", 20034, "critical"),
            id="a SXid",
        ),
        pytest.param(
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 46 egress non-posted PRIV error",
            ("sxid", "0000:05:00.0", 12028, "warning"),
            id="a SXid that is not fatal",
        ),
        pytest.param(
            "amdgpu 0000:c1:00.0: amdgpu: 2 uncorrectable hardware errors detected in umc block",
            ("kernel", "0000:c1:00.0", None, "critical"),
            id="AMD's memory",
        ),
        pytest.param(
            "pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received: 0000:01:00.0",
            ("kernel", "0000:00:01.0", None, "critical"),
            id="a PCIe link",
        ),
        pytest.param("amdgpu 0000:c1:00.0: amdgpu: SMU is initialized successfully!", None, id="good news"),
        pytest.param("NVRM: loading NVIDIA UNIX x86_64 Kernel Module 570.86", None, id="a driver's greeting"),
        pytest.param("eth0: link up", None, id="something else"),
    ],
)
def test_a_line(message: str, seen: tuple[str, str | None, int | None, str] | None) -> None:
    line = kernel_line_of(message, priority=3)
    assert (line and (line.kind, line.device, line.code, line.severity)) == seen


def test_a_xid_names_the_process_it_hit() -> None:
    line = kernel_line_of(
        "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting"
    )
    assert isinstance(line, KernelLine)
    assert (line.pid, line.process) == (2024380, "nvidia-smi")


def test_the_saved_log_has_five_xids_of_one_device(shared: Path) -> None:
    path = shared / "fixtures/health/dmesg_xid119_sample.log"
    log = KernelLog(boot_id="boot", path=path, first_look_s=AGES_S)
    collected = log.observe(NOW)
    xids = [each for each in collected.witnesses if each.kind == "xid"]
    assert [(each.key, each.code) for each in xids] == [("0000:9b:00", 119)] * 5
    assert [each.payload["pid"] for each in xids] == [2024380, 2024380, 2024380, 1263500, 1240590]
    assert xids[0].at.strftime("%M:%S") == "24:18"
    assert log.observe(NOW).witnesses == []
    again = KernelLog(boot_id="boot", path=path, first_look_s=AGES_S).observe(NOW)
    assert [each.event_id for each in again.witnesses] == [each.event_id for each in collected.witnesses]


def test_a_log_is_followed_line_by_whole_line_and_over_its_rotation(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(f"[ 12.5] {XID_79}\n[ 13.0] {XID_79[:30]}")
    log = KernelLog(boot_id="boot", path=path, first_look_s=AGES_S)
    assert len(log.observe(NOW).witnesses) == 1
    with path.open("a") as file:
        file.write(f"{XID_79[30:]}\n")
    assert len(log.observe(NOW).witnesses) == 1
    path.rename(tmp_path / "kern.log.1")
    path.write_text(f"[ 99.0] {XID_79}\n")
    assert len(log.observe(NOW).witnesses) == 1


def test_the_same_line_twice_is_two_events(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(f"{XID_79}\n{XID_79}\n")
    first, second = KernelLog(boot_id="boot", path=path, first_look_s=AGES_S).observe(NOW).witnesses
    assert first.event_id != second.event_id


def test_a_log_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(NothingThere):
        KernelLog(boot_id="boot", path=tmp_path / "none").observe(NOW)


def test_what_happened_long_before_the_first_look_is_not_news(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(f"[Fri Nov 20 01:00:00 2026] {XID_79}\n")
    assert KernelLog(boot_id="boot", path=path).observe(NOW).witnesses == []


@pytest.mark.skipif(not os.access(KMSG, os.R_OK), reason="the kernel's log may not be read here")
def test_the_kernel_itself_is_read_once_and_by_the_next_agent_from_there(tmp_path: Path) -> None:
    place = tmp_path / "kernel_log.json"
    first = KernelLog(boot_id="boot", record=place, first_look_s=AGES_S)
    first.observe(datetime.now(UTC))
    assert not place.exists()  # not before what was told is in safe hands
    assert first.observe(datetime.now(UTC)).witnesses == []
    assert json.loads(place.read_text())["read_to"] > 0
    assert KernelLog(boot_id="boot", record=place).observe(datetime.now(UTC)).witnesses == []
