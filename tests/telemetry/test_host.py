"""This machine says what it is and does, and where its energy comes from."""

import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from baseai.telemetry.collector import Collected
from baseai.telemetry.field import FAMILIES, Origin
from baseai.telemetry.host import Slots, ThisNode
from baseai.telemetry.sample import Reading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and /sys are Linux's")

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def host(folder: Path, count: int = len(CORES), powercap: Path | None = None) -> ThisNode:
    return ThisNode(
        folder=folder,
        boot_id="boot",
        slots=Slots(cores=CORES, count=count),
        watts_per_core=6.0,
        watts_source="a test",
        powercap=powercap or folder / "none",
    )


def look(source: ThisNode) -> Collected:
    return source.observe(datetime.now(UTC))


def slots(collected: Collected) -> Mapping[str, Mapping[str, Reading]]:
    return {row.key: row.fields for row in collected.rows["accelerator"]}


def burn(core: int, seconds: float) -> None:
    os.sched_setaffinity(0, {core})
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


def zone(powercap: Path, name: str, micro_j: int, label: str) -> None:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{micro_j}\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")


def test_the_node_is_as_psutil_and_the_disk_say(tmp_path: Path) -> None:
    (row,) = look(host(tmp_path)).rows["node"]
    node = {name: each.value for name, each in row.fields.items()}
    assert row.key == ""
    assert node["mem_total_b"] == psutil.virtual_memory().total
    assert 0 < (node["mem_used_b"] or 0) < (node["mem_total_b"] or 0)
    assert abs((node["uptime_s"] or 0) - (time.time() - psutil.boot_time())) < 60
    assert (node["disk_total_b"] or 0) >= (node["disk_used_b"] or 0) > 0
    assert set(node) <= set(FAMILIES["node"].names)


def test_a_busy_core_shows_on_its_slot_and_in_its_energy(tmp_path: Path) -> None:
    source = host(tmp_path)
    before = slots(look(source))
    time.sleep(0.6)
    look(source)
    worker = multiprocessing.get_context("spawn").Process(target=burn, args=(CORES[0], 1.5))
    worker.start()
    worker.join()
    after = slots(look(source))
    busy = after["cpu/0"]
    assert (busy["util_pct"].value or 0) > 40
    assert busy["energy_j"].origin is Origin.ESTIMATED
    assert "6 W a core at work (a test)" in busy["energy_j"].source
    drawn_j = (busy["energy_j"].value or 0) - (before["cpu/0"]["energy_j"].value or 0)
    assert drawn_j > 0.9 * 1.2 * 6.0
    assert busy["power_w"].value == pytest.approx((busy["util_pct"].value or 0) / 100 * 6.0)


def test_the_first_look_has_no_rate_and_a_hasty_second_one_neither(tmp_path: Path) -> None:
    source = host(tmp_path)
    assert "util_pct" not in slots(look(source))["cpu/0"]
    assert "util_pct" not in slots(look(source))["cpu/0"]


def test_estimated_energy_outlives_the_agent(tmp_path: Path) -> None:
    first = slots(look(host(tmp_path)))["cpu/0"]["energy_j"].value or 0
    second = slots(look(host(tmp_path)))["cpu/0"]["energy_j"].value or 0
    assert second >= first > 0


def test_slots_that_share_a_core_share_its_energy(tmp_path: Path) -> None:
    alone = slots(look(host(tmp_path)))["cpu/0"]["energy_j"].value or 0
    shared = slots(look(host(tmp_path, count=3 * len(CORES))))
    assert len(shared) == 3 * len(CORES)
    assert shared["cpu/0"]["energy_j"].value == pytest.approx(alone / 3, rel=0.05)
    assert shared["cpu/0"]["energy_j"].value == pytest.approx(
        shared[f"cpu/{len(CORES)}"]["energy_j"].value, rel=1e-9
    )


def test_counters_of_the_processors_are_measured_and_split(tmp_path: Path) -> None:
    powercap = tmp_path / "powercap"
    zone(powercap, "intel-rapl:0", 1_000_000, "package-0")
    zone(powercap, "intel-rapl:0:0", 500_000, "core")  # lies within the package
    zone(powercap, "intel-rapl:0:1", 2_000_000, "dram")
    source = host(tmp_path, powercap=powercap)
    look(source)
    time.sleep(0.6)
    zone(powercap, "intel-rapl:0", 31_000_000, "package-0")
    zone(powercap, "intel-rapl:0:1", 12_000_000, "dram")
    collected = look(source)
    (node,) = collected.rows["node"]
    assert node.fields["energy_j"].value == 40.0
    assert node.fields["energy_j"].origin is Origin.MEASURED
    assert 40 / 5 < (node.fields["power_w"].value or 0) < 40 / 0.5
    shares = [each["energy_j"] for each in slots(collected).values()]
    assert {each.origin for each in shares} == {Origin.ESTIMATED}
    assert "split over cores" in shares[0].source
    assert sum(each.value or 0 for each in shares) == pytest.approx(40.0)
    again = host(tmp_path, powercap=powercap)
    assert look(again).rows["node"][0].fields["energy_j"].value == 40.0


def test_a_counter_that_cannot_be_read_is_told_and_the_estimate_stands_in(tmp_path: Path) -> None:
    powercap = tmp_path / "powercap"
    zone(powercap, "intel-rapl:0", 1_000_000, "package-0")
    (powercap / "intel-rapl:0" / "energy_uj").write_text("not for you\n")
    collected = look(host(tmp_path, powercap=powercap))
    (trouble,) = collected.troubles
    assert trouble.field == "energy_j"
    assert "intel-rapl:0 (package-0)" in trouble.sentence
    assert collected.rows["node"][0].fields["energy_j"].origin is Origin.ESTIMATED


def test_ethernet_ports_that_are_hardware_have_rows(tmp_path: Path) -> None:
    network = tmp_path / "net"
    real = next((name for name in psutil.net_io_counters(pernic=True) if name != "lo"), None)
    if real is None:
        pytest.skip("this machine has loopback alone")
    (network / real / "device").mkdir(parents=True)
    (network / real / "operstate").write_text("up\n")
    (network / real / "speed").write_text("25000\n")
    source = ThisNode(folder=tmp_path, boot_id="boot", slots=Slots(cores=CORES, count=0), network=network)
    collected = look(source)
    (port,) = collected.rows["port"]
    assert port.key == f"{real}/1"
    assert (port.fields["up"].value, port.fields["rate_bps"].value) == (1.0, 25e9)
    assert collected.rows["node"][0].fields["net_rx_b"].value == port.fields["rx_b"].value
    assert collected.rows["accelerator"] == []
