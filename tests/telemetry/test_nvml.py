"""NVIDIA's driver library is asked by its real names and constants; one lost device costs one row."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pynvml
import pytest

from baseai.telemetry.collector import Collected, NothingThere, SourceFailed
from baseai.telemetry.field import State, Throttle, remap_code
from baseai.telemetry.nvml import Nvml
from baseai.telemetry.sample import Row
from tests.telemetry.nvidia import Driver, h100

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def eyes(driver: Driver) -> Nvml:
    return Nvml(boot_id="boot", library=driver)


def values(row: Row) -> Mapping[str, float | State]:
    return {name: each.state if each.value is None else each.value for name, each in row.fields.items()}


def rows(collected: Collected) -> list[Mapping[str, float | State]]:
    return [values(row) for row in collected.rows["accelerator"]]


def test_what_the_library_says_becomes_si_units() -> None:
    source = eyes(Driver(h100()))
    source.observe(NOW)
    driver_later = source.observe(NOW + timedelta(seconds=10))
    (row,) = rows(driver_later)
    assert row["util_pct"] == 97
    assert row["temp_mem_c"] == 71
    assert (row["clock_mhz"], row["clock_mem_mhz"]) == (1980, 2619)
    assert row["throttle_bits"] == Throttle.POWER_CAP | Throttle.THERMAL_HW
    assert row["throttle_ms"] == 2000
    assert (row["mem_used_b"], row["mem_total_b"]) == (70_500_000_000, 85_520_809_984)
    assert (row["power_w"], row["power_cap_w"]) == (689.123, 700)
    assert row["energy_j"] == pytest.approx(9_876_543.21)
    assert (row["ecc_ce"], row["ecc_ue"]) == (3, 0)
    assert row["row_remap"] == remap_code(pending=True, failed=False, count=3)
    assert row["link_tx_bps"] == 0  # a counter that stood still
    assert row["link_rx_bps"] is State.UNSUPPORTED
    assert row["pcie_tx_bps"] is State.UNSUPPORTED
    assert row["fault_code"] == 0
    assert row["tensor_pct"] is State.UNSUPPORTED


def test_hopper_has_shares_of_time_between_two_looks() -> None:
    driver = Driver(h100())
    driver.gpm = {
        "NVML_GPM_METRIC_GRAPHICS_UTIL": 88.5,
        "NVML_GPM_METRIC_ANY_TENSOR_UTIL": 41.25,
        "NVML_GPM_METRIC_PCIE_TX_PER_SEC": 2.0,
    }
    source = eyes(driver)
    (first,) = rows(source.observe(NOW))
    (second,) = rows(source.observe(NOW + timedelta(seconds=10)))
    assert (first["util_pct"], first["tensor_pct"]) == (97, State.ABSENT)  # one sample is no share
    assert (second["util_pct"], second["tensor_pct"]) == (88.5, 41.25)
    assert second["pcie_tx_bps"] == 2 * 2**20


def test_what_is_not_supported_is_asked_once() -> None:
    driver = Driver(h100())
    source = eyes(driver)
    source.observe(NOW)
    assert "nvmlDeviceGetPcieThroughput" in driver.asked
    driver.asked.clear()
    source.observe(NOW)
    assert "nvmlDeviceGetPcieThroughput" not in driver.asked


def test_a_lost_device_costs_its_own_row() -> None:
    driver = Driver(h100(0), h100(1))
    source = eyes(driver)
    source.observe(NOW)
    lost = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    driver.devices[0] = dict.fromkeys(h100(), lost) | {"nvmlDeviceGetUUID": "GPU-0"}
    collected = source.observe(NOW)
    assert [row.key for row in collected.rows["accelerator"]] == ["GPU-1"]
    (trouble,) = [each for each in collected.troubles if each.field is None]
    assert trouble.key == "GPU-0"
    driver.devices[1] = driver.devices[0]
    with pytest.raises(SourceFailed):
        source.observe(NOW)


def test_a_xid_is_a_witness_and_the_fault_of_its_device() -> None:
    driver = Driver(h100(0), h100(1))
    source = eyes(driver)
    source.observe(NOW)
    driver.events.put((1, 79))
    deadline_s = time.monotonic() + 5
    collected = source.observe(NOW)
    while not collected.witnesses and time.monotonic() < deadline_s:
        time.sleep(0.02)
        collected = source.observe(NOW)
    (witness,) = collected.witnesses
    assert (witness.kind, witness.code, witness.key) == ("xid", 79, "GPU-1")
    assert [row["fault_code"] for row in rows(collected)] == [0, 79]
    assert [row["fault_code"] for row in rows(source.observe(NOW))] == [0, 0]


def test_what_the_driver_asks_for_is_told_when_it_changes() -> None:
    driver = Driver(h100())
    source = eyes(driver)
    assert source.observe(NOW).witnesses == []
    driver.devices[0]["fields"][pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION] = 4
    (witness,) = source.observe(NOW).witnesses
    assert (witness.kind, witness.code, witness.sentence) == (
        "recovery",
        4,
        "the driver asks for drain and reset",
    )
    assert source.observe(NOW).witnesses == []


def test_a_device_goes_by_all_its_names() -> None:
    assert eyes(Driver(h100(3))).observe(NOW).other_names == {
        "GPU-3": ("GPU-3", "00000000:03:00.0", "165492201233")
    }


def test_without_a_driver_there_is_nothing() -> None:
    with pytest.raises(NothingThere, match="NVIDIA"):
        Nvml(boot_id="boot").observe(NOW)  # the real library, on a machine that has none
    with pytest.raises(NothingThere, match="no device"):
        eyes(Driver()).observe(NOW)
