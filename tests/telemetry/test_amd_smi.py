"""AMD's driver library is asked in the terms of its table; what it calls N/A is no number."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from baseai.telemetry.amd_smi import AmdSmi
from baseai.telemetry.collector import NothingThere, SourceFailed
from baseai.telemetry.field import State, Throttle, remap_code
from baseai.telemetry.sample import Row

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=10)


class Driver:
    """Answers like the module amdsmi 7.0.2 with the given answers; the rest is not supported."""

    class AmdSmiException(Exception): ...

    class AmdSmiLibraryException(AmdSmiException):
        def get_error_code(self) -> int:
            return int(self.args[0])

    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT="hotspot", EDGE="edge", VRAM="vram")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")
    AmdSmiClkType = SimpleNamespace(GFX="gfx", MEM="mem")
    AmdSmiMemoryType = SimpleNamespace(VRAM="vram")
    AmdSmiGpuBlock = SimpleNamespace(XGMI_WAFL="xgmi")

    def __init__(self, *devices: dict[Any, Any]) -> None:
        self.devices = devices
        self.records: list[tuple[str, list[int]]] = []
        self.asked: list[str] = []

    def amdsmi_init(self) -> None: ...

    def amdsmi_shut_down(self) -> None: ...

    def amdsmi_get_processor_handles(self) -> list[int]:
        return list(range(len(self.devices)))

    def amdsmi_get_gpu_cper_entries(self, handle: int, mask: int, cursor: int = 0) -> Any:
        fresh = self.records[cursor:]
        entries = {place: {"error_severity": severity} for place, (severity, _) in enumerate(fresh)}
        return entries, len(self.records), [codes for _, codes in fresh], 0

    def amdsmi_get_afids_from_cper(self, records: list[list[int]]) -> tuple[list[int], int]:
        return records[0], len(records[0])

    def __getattr__(self, name: str) -> Any:
        def answer(handle: int, *arguments: Any) -> Any:
            self.asked.append(name)
            said = self.devices[handle].get((name, *arguments) if arguments else name)
            if isinstance(said, Exception):
                raise said
            if said is None:
                raise Driver.AmdSmiLibraryException(2)
            return said

        return answer


def mi300x(serial: str = "0x00AB") -> dict[Any, Any]:
    return {
        "amdsmi_get_gpu_asic_info": {"market_name": "AMD Instinct MI300X", "asic_serial": serial},
        "amdsmi_get_gpu_device_uuid": "a1ff74a1-0000-1000-8000-000000000000",
        "amdsmi_get_gpu_device_bdf": "0000:c1:00.0",
        "amdsmi_get_gpu_activity": {"gfx_activity": 93, "umc_activity": 55, "mm_activity": "N/A"},
        ("amdsmi_get_temp_metric", "hotspot", "current"): 71,
        ("amdsmi_get_temp_metric", "vram", "current"): 60,
        ("amdsmi_get_clock_info", "gfx"): {"clk": 2100},
        ("amdsmi_get_clock_info", "mem"): {"clk": "N/A"},
        "amdsmi_get_violation_status": {
            "per_ppt_pwr": 12, "per_socket_thrm": 0, "per_prochot_thrm": 0, "per_hbm_thrm": 1, "per_vr_thrm": 0,
        },
        ("amdsmi_get_gpu_memory_usage", "vram"): 100 * 2**30,
        ("amdsmi_get_gpu_memory_total", "vram"): 192 * 2**30,
        "amdsmi_get_power_info": {"socket_power": 650, "current_socket_power": "N/A", "power_limit": 750_000_000},
        "amdsmi_get_energy_count": {"energy_accumulator": 1_000_000_000, "counter_resolution": 15.259},
        "amdsmi_get_link_metrics": {"num_links": 2, "links": [{"read": 10, "write": 20}, {"read": 1, "write": 2}]},
        "amdsmi_get_gpu_total_ecc_count": {"correctable_count": 5, "uncorrectable_count": 0},
        "amdsmi_get_gpu_bad_page_info": [{"status": 0}, {"status": 0}, {"status": 1}],
    }  # fmt: skip


def value(row: Row, name: str) -> float | State:
    reading = row.fields[name]
    return reading.state if reading.value is None else reading.value


def test_what_the_library_says_becomes_si_units() -> None:
    driver = Driver(mi300x())
    source = AmdSmi(boot_id="boot", library=driver)
    source.observe(NOW)
    links = driver.devices[0]["amdsmi_get_link_metrics"]["links"]
    links[0]["write"] += 1000  # KB
    (row,) = source.observe(LATER).rows["accelerator"]
    assert (value(row, "util_pct"), value(row, "membw_pct")) == (93, 55)
    assert (value(row, "temp_c"), value(row, "temp_mem_c")) == (71, 60)
    assert value(row, "clock_mhz") == 2100
    assert value(row, "clock_mem_mhz") is State.ABSENT  # N/A
    assert value(row, "throttle_bits") == Throttle.POWER_CAP | Throttle.MEM_THERMAL
    assert value(row, "mem_used_b") == 100 * 2**30
    assert value(row, "power_w") == 650
    assert value(row, "energy_j") == pytest.approx(15_259)
    assert value(row, "link_tx_bps") == 1000 * 1000 / 10
    assert value(row, "row_remap") == remap_code(pending=True, failed=False, count=2)
    assert value(row, "ecc_ce") == 5
    assert value(row, "link_err") is State.UNSUPPORTED
    assert value(row, "fault_code") == 0


def test_error_records_since_the_look_before_are_witnesses() -> None:
    driver = Driver(mi300x())
    driver.records.append(("fatal", [30]))  # lay there before anybody looked
    source = AmdSmi(boot_id="boot", library=driver)
    assert source.observe(NOW).witnesses == []
    driver.records.append(("non_fatal_uncorrected", [24]))
    collected = source.observe(LATER)
    (witness,) = collected.witnesses
    assert (witness.kind, witness.code, witness.severity, witness.key) == ("afid", 24, "warning", "0x00AB")
    (row,) = collected.rows["accelerator"]
    assert value(row, "fault_code") == 24


def test_partitions_of_one_device_are_one_row() -> None:
    driver = Driver(mi300x(), mi300x(), mi300x("0x00CD"))
    rows = AmdSmi(boot_id="boot", library=driver).observe(NOW).rows["accelerator"]
    assert [row.key for row in rows] == ["0x00AB", "0x00CD"]


def test_a_call_that_is_not_supported_is_made_once() -> None:
    driver = Driver(mi300x())
    source = AmdSmi(boot_id="boot", library=driver)
    source.observe(NOW)
    driver.asked.clear()
    source.observe(LATER)
    assert "amdsmi_get_gpu_ecc_count" not in driver.asked


def test_a_driver_that_answers_nothing_has_failed() -> None:
    driver = Driver(mi300x())
    source = AmdSmi(boot_id="boot", library=driver)
    source.observe(NOW)
    for name in driver.devices[0]:
        driver.devices[0][name] = Driver.AmdSmiLibraryException(1)
    with pytest.raises(SourceFailed):
        source.observe(LATER)


def test_without_package_or_device_there_is_nothing() -> None:
    with pytest.raises(NothingThere):
        AmdSmi(boot_id="boot").observe(NOW)
    with pytest.raises(NothingThere, match="no device"):
        AmdSmi(boot_id="boot", library=Driver()).observe(NOW)
