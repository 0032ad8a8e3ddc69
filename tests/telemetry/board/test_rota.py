"""A poll asks as little as brings everything, reports first; what may wait takes turns."""

from pathlib import Path

import pytest

from baseai.telemetry.board.resource import Address
from baseai.telemetry.board.rota import rota_of
from baseai.telemetry.board.survey import surveyed
from baseai.telemetry.field import ACCELERATOR, Kind
from tests.telemetry.board.trees import FIRST, GPU_0, R, excerpt, look_around, poll, rota_for, told, values
from tests.telemetry.redfish_server import Tree, tree_of

BASEBOARD = f"{R}/Systems/HGX_Baseboard_0"
REPORTS = f"{R}/TelemetryService/MetricReports"


def test_gb300_in_nine_asks(shared: Path) -> None:
    rota = rota_for(tree_of(shared / "fixtures/redfish/supermicro-gb300"))
    assert set(rota.asks(0)) == {
        f"{REPORTS}/HGX_PlatformEnvironmentMetrics_0",  # temperatures
        f"{REPORTS}/HGX_MemoryMetrics_0",  # replaced rows
        *(f"{BASEBOARD}/Processors/GPU_{number}?$expand=*($levels=1)" for number in range(4)),
        f"{R}/Chassis/Chassis_0/Sensors?$expand=*($levels=1)",  # power, inlet, fans
        f"{R}/Chassis/Chassis_0/ThermalSubsystem",
        f"{R}/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors?$expand=*($levels=1)",
    }
    assert len(rota.asks(0)) <= 12


def test_without_reports_sensors_are_expanded() -> None:
    tree = excerpt("gb300")
    del tree[R]["TelemetryService"]
    rota = rota_for(tree)
    assert f"{R}/Chassis/HGX_GPU_0/Sensors?$expand=*($levels=1)" in rota.asks(0)
    first, _ = told(rota, poll(rota, tree)).rows["accelerator"]
    assert values(first)["temp_c"] == 32.9375


def test_without_expansion_single_resources_are_asked_and_say_the_same() -> None:
    tree = excerpt("gb300")
    tree[R]["ProtocolFeaturesSupported"]["ExpandQuery"] = {"ExpandAll": False, "Levels": False}
    rota = rota_for(tree)
    assert not any("?" in ask for ask in rota.asks(0))
    first, _ = told(rota, poll(rota, tree)).rows["accelerator"]
    whole = rota_for(excerpt("gb300"))
    same, _ = told(whole, poll(whole, excerpt("gb300"))).rows["accelerator"]
    assert values(first).keys() == values(same).keys()


def test_equal_trees_give_equal_rotas() -> None:
    assert rota_for(excerpt("gb300")) == rota_for(excerpt("gb300"))


def test_an_ask_that_brings_nothing_of_its_own_is_left_out() -> None:
    """Utilisation stands in a report too, but each accelerator must be asked for its clock anyway."""
    rota = rota_for(excerpt("gb300"))
    assert f"{REPORTS}/HGX_ProcessorGPMMetrics_0" not in rota.asks(0)
    assert rota.brings[Address(f"{GPU_0}/ProcessorMetrics", "/Oem/Nvidia/SMActivityPercent")].startswith(
        GPU_0
    )


def test_a_counter_is_read_at_one_address_for_good() -> None:
    """The same energy stands in three places, copied at different times: to change between them looks like a reset."""
    tree = excerpt("gb300")
    rota = rota_for(tree)
    for formula in rota.survey.accelerators[0].formulas:
        if ACCELERATOR[formula.field].kind is Kind.COUNTER:
            assert [len(part.spots) for part in formula.parts] == [1] * len(formula.parts)
    silent = {GPU_0: "it said 500"}
    first, _ = told(rota, poll(rota, tree, silent=silent)).rows["accelerator"]
    assert "energy_j" not in values(first)  # though the report quotes its sensor, 102 kJ behind
    assert values(first)["power_w"] == 232.168  # a level may be read wherever it stands


def with_ports(tree: Tree) -> Tree:
    for gpu in (0, 1):
        path = f"{BASEBOARD}/Processors/GPU_{gpu}"
        port = f"{path}/Ports/NVLink_0"
        tree[path]["Ports"] = {"@odata.id": f"{path}/Ports"}
        tree[f"{path}/Ports"] = {"@odata.id": f"{path}/Ports", "Members": [{"@odata.id": port}]}
        link = {"@odata.id": f"{port}/Metrics"}
        tree[port] = {"@odata.id": port, "@odata.type": "#Port", "PortProtocol": "NVLink", "Metrics": link}
        tree[f"{port}/Metrics"] = {
            "@odata.id": f"{port}/Metrics",
            "@odata.type": "#PortMetrics",
            "RXErrors": gpu + 4,
        }
    return tree


def test_links_and_logs_take_turns() -> None:
    tree = with_ports(excerpt("gb300"))
    rota = rota_for(tree)
    assert len(rota.asks(0)) == len(rota.asks(1)) == len(rota.each) + 1
    assert rota.asks(0)[-1] != rota.asks(1)[-1]
    errors = []
    for number in range(4):
        rows = told(rota, poll(rota, tree, number=number)).rows["accelerator"]
        errors.append([values(row).get("link_err") for row in rows])
    assert errors == [[4.0, None], [None, 5.0]] * 2


def test_what_is_not_in_turn_is_no_trouble() -> None:
    tree = with_ports(excerpt("gb300"))
    rota = rota_for(tree)
    assert told(rota, poll(rota, tree)).troubles == ()


def test_the_log_of_a_server_is_read_in_turn() -> None:
    assert rota_for(excerpt("rackmount1")).turns == (f"{R}/Systems/437XR1138R2/LogServices/Log1/Entries",)


@pytest.mark.parametrize(
    ("silent", "fields"),
    [
        pytest.param(GPU_0, {"energy_j", "clock_mhz", "util_pct"}, id="the accelerator itself"),
        pytest.param(
            f"{REPORTS}/HGX_PlatformEnvironmentMetrics_0", {"temp_c"}, id="the report of temperatures"
        ),
    ],
)
def test_an_ask_without_an_answer_is_told_with_every_field_it_costs(silent: str, fields: set[str]) -> None:
    tree = excerpt("gb300")
    rota = rota_for(tree)
    out = told(rota, poll(rota, tree, silent={silent: "no answer within 10 s"}))
    first = out.rows["accelerator"][0]
    assert fields.isdisjoint(values(first))
    missed = {
        each.field for each in out.troubles if each.key == FIRST and each.sentence == "no answer within 10 s"
    }
    assert missed >= fields


def test_a_survey_of_nothing_has_nothing_to_ask() -> None:
    seen = look_around({R: {"@odata.id": R}})
    assert rota_of(surveyed(seen), seen).asks(0) == ()
