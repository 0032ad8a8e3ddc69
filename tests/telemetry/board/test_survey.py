"""Every saved tree becomes rows that were written down by hand, and every saved oddity is seen through."""

import json
from pathlib import Path
from typing import Any

import pytest

from baseai.telemetry.board.listing import main_chassis
from baseai.telemetry.board.survey import surveyed
from baseai.telemetry.field import ACCELERATOR, State
from tests.telemetry.board.trees import (
    FIRST,
    GPU_0,
    SECOND,
    R,
    excerpt,
    look_around,
    poll,
    rota_for,
    rows_of,
    states,
    told,
    values,
)
from tests.telemetry.redfish_server import RedfishServer, Tree, tree_of

THIRD, FOURTH = "GPU-db9492f2-3d21-53cf-7e00-309c81000466", "GPU-302d915f-9561-cc4b-a561-835f55f37bf6"

IDLE = {
    "util_pct": 0.0,
    "compute_pct": 0.0,
    "tensor_pct": 0.0,
    "membw_pct": 0.0,
    "clock_mhz": 2070.0,
    "clock_mem_mhz": 3996.0,
    "throttle_bits": 0.0,
    "throttle_ms": 0.0,
    "power_cap_w": 1400.0,
    "link_tx_bps": 0.0,
    "link_rx_bps": 0.0,
    "ecc_ce": 0.0,
    "ecc_ue": 0.0,
    "row_remap": 0.0,
}
FIRST_IS = IDLE | {
    "temp_c": 32.9375,  # not 54.0625, which is how far the throttle limit is away
    "temp_mem_c": 32.128906,
    "power_w": 231.939,
    "energy_j": 230235737.738,
    "pcie_tx_bps": 232168.0,  # 0.0017297863960266113 × 2^27: whole bytes
    "pcie_rx_bps": 240368.0,
}
SECOND_IS = IDLE | {
    "temp_c": 33.21875,
    "temp_mem_c": 33.046875,
    "power_w": 238.856,
    "energy_j": 235395667.739,
    "pcie_tx_bps": 218112.0,
    "pcie_rx_bps": 226304.0,
}
THIRD_IS = IDLE | {
    "temp_c": 32.84375,
    "temp_mem_c": 33.964844,
    "power_w": 242.524,
    "energy_j": 242104179.113,
    "pcie_tx_bps": 237805.0,
    "pcie_rx_bps": 247543.0,
}
FOURTH_IS = IDLE | {
    "temp_c": 33.3125,  # here EnvironmentMetrics does name the temperature's own sensor
    "temp_mem_c": 33.046875,
    "power_w": 241.175,
    "energy_j": 238969254.24,
    "pcie_tx_bps": 181941.0,
    "pcie_rx_bps": 190654.0,
}


def test_gb300(shared: Path) -> None:
    accelerators, node = rows_of(tree_of(shared / "fixtures/redfish/supermicro-gb300"))
    assert {key: values(row) for key, row in accelerators.items()} == {
        FIRST: FIRST_IS,
        SECOND: SECOND_IS,
        THIRD: THIRD_IS,
        FOURTH: FOURTH_IS,
    }
    # It says 0 MiB of memory, and saves one link of eighteen: unknown is not zero.
    assert states(accelerators[FIRST], State.UNSUPPORTED) == {"mem_used_b", "mem_total_b", "link_err"}
    assert values(node) == {
        "power_w": 1355.398772,
        "temp_inlet_c": 24.437,
        "fan_pct": pytest.approx(44.70588235),  # the fastest of eight; firmware writes percent into SpeedRPM
        "leak": 0.0,
    }
    assert states(node, State.UNSUPPORTED) == {"energy_j", "temp_cpu_c", "psu_ok", "psu_total"}


def test_the_excerpt_says_the_same() -> None:
    accelerators, node = rows_of(excerpt("gb300"))
    assert {key: values(row) for key, row in accelerators.items()} == {FIRST: FIRST_IS, SECOND: SECOND_IS}
    assert values(node)["power_w"] == 1355.398772


def test_a_serial_of_a_board_names_two_accelerators() -> None:
    """GPU_0 and GPU_1 of a GB300 board share the serial 1653125034241: by it, one of them would be lost."""
    found = surveyed(look_around(excerpt("gb300"))).accelerators
    assert {each.serial for each in found} == {"1653125034241"}
    assert [each.key for each in found] == [FIRST, SECOND]


def test_a_mirror_under_another_system_is_the_same_accelerator() -> None:
    tree = excerpt("gb300")
    host, copy = f"{R}/Systems/System_0", f"{R}/Systems/System_0/Processors/GPU_0"
    tree[f"{R}/Systems"]["Members"].insert(0, {"@odata.id": host})
    tree[host] = {"@odata.id": host, "Processors": {"@odata.id": f"{host}/Processors"}}
    tree[f"{host}/Processors"] = {"Members": [{"@odata.id": copy}]}
    tree[copy] = {
        name: tree[GPU_0][name]
        for name in ("UUID", "SerialNumber", "ProcessorType", "Manufacturer", "Status", "Id")
    }
    accelerators, _ = rows_of(tree)
    assert values(accelerators[FIRST]) == FIRST_IS
    assert len(accelerators) == 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        pytest.param(
            {"UUID": "ffd6582a-64de-b17e-ad24-af5a28aed641"}, FIRST, id="a UUID as drivers write it"
        ),
        pytest.param(
            {"UUID": "GPU-FFD6582A-64DE-B17E-AD24-AF5A28AED641"}, FIRST, id="with its prefix, in capitals"
        ),
        pytest.param({"UUID": None}, "1653125034241", id="without a UUID its serial"),
        pytest.param(
            {"UUID": "NA", "SerialNumber": "N/A"}, GPU_0, id="without either its path: resolved by nobody"
        ),
        pytest.param(
            {"Manufacturer": "AMD", "SerialNumber": "0x1A"}, "0x1A", id="other vendors' drivers say serials"
        ),
    ],
)
def test_the_name_of_an_accelerator(changes: dict[str, Any], key: str) -> None:
    tree = excerpt("gb300")
    tree[GPU_0] |= changes
    tree[f"{R}/Systems/HGX_Baseboard_0/Processors"]["Members"] = [{"@odata.id": GPU_0}]
    assert [each.key for each in surveyed(look_around(tree)).accelerators] == [key]


def test_rackmount(shared: Path) -> None:
    accelerators, node = rows_of(tree_of(shared / "fixtures/redfish/dmtf-public-rackmount1"))
    assert accelerators == {}
    assert values(node) == RACKMOUNT


RACKMOUNT = {
    "power_w": 374.0,
    "energy_j": 325_675 * 3.6e6,
    "temp_inlet_c": 24.8,
    "temp_cpu_c": 37.0,
    "fan_pct": 45.0,
    "psu_ok": 1.0,  # one bay is empty; the other has a warning, and works
    "psu_total": 1.0,
}


def test_the_excerpt_of_it_says_the_same() -> None:
    _, node = rows_of(excerpt("rackmount1"))
    assert values(node) == RACKMOUNT


def test_an_older_controller_has_only_power_and_thermal() -> None:
    tree = excerpt("rackmount1")
    chassis = tree[f"{R}/Chassis/1U"]
    for name in ("PowerSubsystem", "ThermalSubsystem", "EnvironmentMetrics", "Sensors"):
        del chassis[name]
    _, node = rows_of(tree)
    assert values(node) == {
        "power_w": 344.0,
        "temp_inlet_c": 25.0,
        "temp_cpu_c": 41.0,  # CPU 2 is disabled
        "psu_ok": 1.0,
        "psu_total": 1.0,
    }
    assert "fan_pct" in states(node, State.UNSUPPORTED)  # revolutions are no percentage


def test_hgx_b200(shared: Path) -> None:
    tree = tree_of(shared / "fixtures/redfish/hgx-b200-supermicro")
    accelerators, node = rows_of(tree)
    first = f"{R}/Systems/HGX_Baseboard_0/Processors/GPU_SXM_1"
    assert values(accelerators[first]) == {
        "util_pct": 17.23828125,
        "compute_pct": 3.125,
        "tensor_pct": 1.32421875,
        "clock_mhz": 1965.0,
        "throttle_bits": 0.0,
        "throttle_ms": 0.0,
        "mem_total_b": 183_359 * 2.0**20,
        "pcie_tx_bps": 82_018_914.0,
        "pcie_rx_bps": 19_006_526.0,
        "link_tx_bps": 0.0,
        "link_rx_bps": 0.0,
        "ecc_ce": 0.0,
        "ecc_ue": 0.0,
    }
    assert len(accelerators) == 2
    assert values(node) == {}
    places = dict(surveyed(look_around(tree)).complaints)
    assert places[f"{R}/Systems/HGX_Baseboard_0/Processors"] == "says that it has 9 members and lists 3"
    assert places[f"{R}/Chassis"] == "it said 404"


def test_dell(shared: Path) -> None:
    accelerators, node = rows_of(tree_of(shared / "fixtures/redfish/dell-idrac-overlay"))
    assert (accelerators, values(node)) == ({}, {"temp_inlet_c": 23.0})


@pytest.mark.parametrize(
    ("folder", "power_w"),
    [
        pytest.param("powershelf-delta", 1749.0, id="delta"),
        pytest.param("powershelf-liteon", 4252.0, id="liteon"),
    ],
)
def test_a_power_shelf_is_equipment_and_no_node(shared: Path, folder: str, power_w: float) -> None:
    tree = tree_of(shared / "fixtures/redfish" / folder)
    accelerators, row = rows_of(tree)
    assert (accelerators, row.key) == ({}, "PowerShelf_0")
    assert values(row) == {"power_w": power_w, "psu_ok": 6.0, "psu_total": 6.0}
    assert surveyed(look_around(tree)).equipment == "PowerShelf_0"


def test_loose_processor_metrics(shared: Path) -> None:
    """Metrics of another machine, with errors that are not zero, hung under a processor of ours."""
    tree = excerpt("gb300")
    loose = shared / "fixtures/redfish/loose-lambda"
    tree[f"{GPU_0}/ProcessorMetrics"] = json.loads((loose / "processor_metrics_full.json").read_text())
    accelerators, _ = rows_of(tree)
    row = values(accelerators[FIRST])
    assert row["util_pct"] == 45.2  # BandwidthPercent: the utilisation where nothing better is said
    assert row["clock_mhz"] == 1980.0
    assert (row["ecc_ce"], row["ecc_ue"]) == (15.0, 2.0)
    assert "throttle_ms" in states(accelerators[FIRST], State.UNSUPPORTED)


def test_links_are_counted_when_all_of_them_answer(shared: Path) -> None:
    tree = excerpt("gb300")
    file = shared / "fixtures/redfish/loose-lambda/gb300_gpu_ports_expanded.json"
    ports = json.loads(file.read_text().replace("/GPU_1/Ports", "/GPU_0/Ports"))
    tree[GPU_0]["Ports"] = {"@odata.id": f"{GPU_0}/Ports"}
    tree[f"{GPU_0}/Ports"] = ports
    for port, errors in ((1, 5), (17, 2)):
        ports["Members"][port]["Metrics"]["RXErrors"] = errors
    accelerators, _ = rows_of(tree)
    assert values(accelerators[FIRST])["link_err"] == 7.0
    del ports["Members"][3]["Metrics"]
    accelerators, _ = rows_of(tree)
    assert "link_err" in states(accelerators[FIRST], State.UNSUPPORTED)


@pytest.mark.parametrize(
    "name", ["thermal_subsystem", "thermal_subsystem_buggy", "thermal_subsystem_buggy_oem"]
)
def test_a_thermal_subsystem_that_lacks_its_members(shared: Path, name: str) -> None:
    tree = excerpt("gb300")
    file = shared / f"fixtures/redfish/loose-lambda/{name}.json"
    tree[f"{R}/Chassis/Chassis_0/ThermalSubsystem"] = json.loads(file.read_text())
    _, node = rows_of(tree)
    assert values(node)["power_w"] == 1355.398772
    # The second points at the detectors of a chassis that does not exist.
    assert values(node).get("leak") == (None if name == "thermal_subsystem_buggy" else 0.0)


# ---- oddities, one by one ---------------------------------------------------------------------------------------

ENVIRONMENT = f"{GPU_0}/EnvironmentMetrics"


@pytest.mark.parametrize(
    ("path", "pointer", "raw", "field", "state"),
    [
        pytest.param(ENVIRONMENT, "/PowerLimitWatts/SetPoint", None, "power_cap_w", State.BLANK, id="null"),
        pytest.param(
            ENVIRONMENT,
            "/PowerLimitWatts/SetPoint",
            4294967295,
            "power_cap_w",
            State.BLANK,
            id="all bits set",
        ),
        pytest.param(ENVIRONMENT, "/EnergyJoules/Reading", "lots", "energy_j", State.BLANK, id="a word"),
        pytest.param(
            ENVIRONMENT, "/EnergyJoules", [1], "energy_j", State.ABSENT, id="a list where an object was"
        ),
        pytest.param(
            f"{GPU_0}/ProcessorMetrics", "/OperatingSpeedMHz", 99_999, "clock_mhz", State.BLANK, id="too fast"
        ),
        pytest.param(
            f"{GPU_0}/ProcessorMetrics",
            "/PowerLimitThrottleDuration",
            "P1Y",
            "throttle_ms",
            State.BLANK,
            id="a year",
        ),
        pytest.param(
            f"{GPU_0}/ProcessorMetrics",
            "/Oem/Nvidia/ThrottleReasons",
            7,
            "throttle_bits",
            State.BLANK,
            id="no words",
        ),
        pytest.param(
            f"{GPU_0}/ProcessorMetrics", "/Oem", None, "tensor_pct", State.ABSENT, id="a whole branch gone"
        ),
    ],
)
def test_a_field_that_cannot_be_read_is_named_and_the_rest_is_kept(
    path: str, pointer: str, raw: object, field: str, state: State
) -> None:
    tree = excerpt("gb300")
    rota = rota_for(tree)
    server = RedfishServer(tree=tree)
    server.put(path, pointer, raw)
    out = told(rota, poll(rota, tree))
    first, second = out.rows["accelerator"]
    assert first.fields[field].state is state
    assert values(second) == SECOND_IS
    if (
        raw not in (None, 4294967295) or state is State.ABSENT
    ):  # a null says by itself that there is no reading
        assert any(each.key == FIRST and each.field == field for each in out.troubles)


def test_numbers_as_text_are_numbers() -> None:
    tree = excerpt("gb300")
    tree[ENVIRONMENT]["PowerWatts"]["Reading"] = "231.939"
    accelerators, _ = rows_of(tree)
    assert values(accelerators[FIRST])["power_w"] == 231.939


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        pytest.param(["NA"], 0, id="none"),
        pytest.param(["Idle", "AppClock"], 0, id="harmless ones"),
        pytest.param(["SWPowerCap"], 1, id="at the power limit"),
        pytest.param(["SWPowerCap", "HWThermalSlowdown"], 5, id="two at once"),
        pytest.param(["HWPowerBrakeSlowdown"], 8, id="the board pulled the brake"),
        pytest.param(["SomethingNew"], 128, id="an unknown word is some reason"),
        pytest.param("SWThermalSlowdown", 2, id="a word instead of a list, as reports quote it"),
    ],
)
def test_throttle_reasons(words: object, bits: int) -> None:
    tree = excerpt("gb300")
    tree[f"{GPU_0}/ProcessorMetrics"]["Oem"]["Nvidia"]["ThrottleReasons"] = words
    accelerators, _ = rows_of(tree)
    assert values(accelerators[FIRST])["throttle_bits"] == bits


def test_throttled_time_is_the_sum_of_three_durations() -> None:
    tree = excerpt("gb300")
    metrics = tree[f"{GPU_0}/ProcessorMetrics"]
    metrics |= {"PowerLimitThrottleDuration": "PT1.5S", "ThermalLimitThrottleDuration": "PT1M"}
    metrics["Oem"]["Nvidia"]["HardwareViolationThrottleDuration"] = "PT0.25S"
    accelerators, _ = rows_of(tree)
    assert (
        values(accelerators[FIRST])["throttle_ms"] == 61_750.0
    )  # and not the week of GlobalSoftwareViolation


def test_rows_replaced_and_waiting_are_one_code() -> None:
    tree = excerpt("gb300")
    memory = f"{R}/Systems/HGX_Baseboard_0/Memory/GPU_0_DRAM_0"
    tree[memory]["Oem"]["Nvidia"]["RowRemappingPending"] = True
    tree[f"{memory}/MemoryMetrics"]["Oem"]["Nvidia"]["RowRemapping"]["UncorrectableRowRemappingCount"] = 3
    report = tree[f"{R}/TelemetryService/MetricReports/HGX_MemoryMetrics_0"]
    [line] = [
        each
        for each in report["MetricValues"]
        if "GPU_0" in each["MetricProperty"]
        and each["MetricProperty"].endswith("/UncorrectableRowRemappingCount")
    ]
    line["MetricValue"] = "3"
    accelerators, _ = rows_of(tree)
    assert values(accelerators[FIRST])["row_remap"] == 1 | 3 << 2


def test_memory_in_use_is_a_share_of_what_is_installed() -> None:
    tree = excerpt("gb300")
    tree[GPU_0]["MemorySummary"]["TotalMemorySizeMiB"] = 1000
    tree[f"{GPU_0}/MemorySummary/MemoryMetrics"]["CapacityUtilizationPercent"] = 25
    accelerators, _ = rows_of(tree)
    row = values(accelerators[FIRST])
    assert (row["mem_total_b"], row["mem_used_b"]) == (1000 * 2.0**20, 250 * 2.0**20)


@pytest.mark.parametrize(
    "sensor",
    [
        pytest.param({"ReadingBasis": "Headroom"}, id="by its basis"),
        pytest.param(
            {"Description": "Thermal Limit(TLIMIT) Temperature", "ReadingBasis": None}, id="by its words"
        ),
        pytest.param(None, id="by the vendor's habit where the sensor cannot be asked"),
    ],
)
def test_headroom_is_never_a_temperature(sensor: dict[str, Any] | None) -> None:
    tree = excerpt("gb300")
    path = f"{R}/Chassis/HGX_GPU_0/Sensors/HGX_GPU_0_TEMP_1"
    del tree[f"{R}/Chassis/HGX_GPU_0/Sensors/HGX_GPU_0_TEMP_0"]
    if sensor is None:
        del tree[path]
    else:
        tree[path] |= sensor
    accelerators, _ = rows_of(tree)
    assert "temp_c" in states(accelerators[FIRST], State.UNSUPPORTED)


def test_every_field_of_the_family_is_accounted_for() -> None:
    accelerators, _ = rows_of(excerpt("gb300"))
    assert set(ACCELERATOR.names) - set(accelerators[FIRST].fields) == {"fault_code"}  # comes as an event


def test_the_machine_is_the_chassis_that_is_in_none() -> None:
    assert main_chassis(look_around(excerpt("gb300"))) == (f"{R}/Chassis/Chassis_0",)


def test_a_service_that_promises_an_expansion_and_does_not_keep_it_is_asked_one_by_one() -> None:
    """Some answer `$expand` with bare links."""
    tree = excerpt("gb300")
    server = RedfishServer(tree=tree)
    plainly: Tree = {path: server.found(path) for path in tree}

    class Lazy(RedfishServer):
        def found(self, path: str, expand: str = "") -> dict[str, Any]:
            return plainly[path]

    from baseai.telemetry.board.resource import Seen, plain
    from baseai.telemetry.board.wish import unasked

    lazy, seen = Lazy(tree=tree), Seen()
    while asks := unasked(seen):
        for ask in asks:
            if plain(ask) in plainly:
                seen.take(ask, lazy.found(plain(ask)))
            else:
                seen.miss(ask, "it said 404")
    assert [each.key for each in surveyed(seen).accelerators] == [FIRST, SECOND]
