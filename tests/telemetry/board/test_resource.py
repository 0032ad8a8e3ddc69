"""What a controller says is taken as far as it can be, and complained of where it should not be so."""

from typing import Any

import pytest

from baseai.telemetry.board.resource import (
    MISSING,
    Address,
    Seen,
    at,
    flag,
    instant,
    links,
    number,
    plain,
    seconds,
)
from baseai.telemetry.field import State


@pytest.mark.parametrize(
    ("raw", "value", "state", "complains"),
    [
        pytest.param(231.939, 231.939, State.VALUE, False, id="a number"),
        pytest.param(
            "953.769000", 953.769, State.VALUE, False, id="a number as text, as all reports write it"
        ),
        pytest.param("5500", 5500.0, State.VALUE, False, id="a number as text where the schema wants one"),
        pytest.param(None, None, State.BLANK, False, id="null: a sensor without a reading"),
        pytest.param("nan", None, State.BLANK, False, id="nan as text"),
        pytest.param(float("nan"), None, State.BLANK, False, id="nan"),
        pytest.param("N/A", None, State.BLANK, False, id="a sign for nothing"),
        pytest.param(4294967295, None, State.BLANK, False, id="all bits set is no number"),
        pytest.param(2**63 - 1, None, State.BLANK, False, id="nor is the largest integer"),
        pytest.param(MISSING, None, State.ABSENT, False, id="no such property"),
        pytest.param("hot", None, State.BLANK, True, id="a word"),
        pytest.param([12], None, State.BLANK, True, id="a list"),
        pytest.param({"Reading": 12}, None, State.BLANK, True, id="an object"),
        pytest.param(True, None, State.BLANK, True, id="true is not 1"),
        pytest.param("1e999", None, State.BLANK, False, id="without end"),
    ],
)
def test_number(raw: object, value: float | None, state: State, complains: bool) -> None:
    taken = number(raw)
    assert (taken.value, taken.state, taken.why is not None) == (value, state, complains)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param("PT0S", 0.0, id="none at all"),
        pytest.param("PT3H15M45S", 11_745.0, id="hours, minutes, seconds"),
        pytest.param("P6DT23H36M51.224568128S", 603_411.224568128, id="days, and nanoseconds"),
        pytest.param("PT1M", 60.0, id="a minute is not a month"),
        pytest.param("P2W", 1_209_600.0, id="weeks"),
        pytest.param(12.5, 12.5, id="a plain number of seconds"),
        pytest.param("P1Y", None, id="a year has no length"),
        pytest.param("PT", None, id="nothing but the letters"),
        pytest.param("PT-3S", None, id="no time runs backwards"),
    ],
)
def test_seconds(raw: object, value: float | None) -> None:
    taken = seconds(raw)
    assert taken.value == (pytest.approx(value) if value is not None else None)
    assert (taken.why is None) is (value is not None)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param(True, 1.0, id="true"),
        pytest.param("false", 0.0, id="as text, as reports write it"),
        pytest.param(7, None, id="neither"),
        pytest.param(None, None, id="null"),
    ],
)
def test_flag(raw: object, value: float | None) -> None:
    assert flag(raw).value == value


def test_paths_are_written_one_way() -> None:
    assert (
        plain("/redfish/v1/Chassis/1U/?$expand=*")
        == plain("/redfish/v1/Chassis/1U#/Status")
        == "/redfish/v1/Chassis/1U"
    )
    assert plain("https://pdu.example/redfish/v1/Outlets/A4") == ""  # not this service's


@pytest.mark.parametrize(
    ("members", "found"),
    [
        pytest.param(
            [{"@odata.id": "/redfish/v1/A"}, {"@odata.id": 7}, "B", None],
            ("/redfish/v1/A",),
            id="odd ones out",
        ),
        pytest.param({"@odata.id": "/redfish/v1/A"}, ("/redfish/v1/A",), id="one instead of a list"),
        pytest.param("A", (), id="a word instead of a list"),
        pytest.param(None, (), id="null"),
    ],
)
def test_links(members: object, found: tuple[str, ...]) -> None:
    assert links({"Members": members}, "/Members") == found


def test_a_pointer_leads_through_lists_and_to_nothing() -> None:
    resource = {"Fans": [{"Reading": 45}], "Odd/name": 1}
    assert at(resource, "/Fans/0/Reading") == 45
    assert at(resource, "/Odd~1name") == 1
    for nowhere in ("/Fans/1", "/Fans/x", "/Fans/0/Reading/more", "/None"):
        assert at(resource, nowhere) is MISSING


def test_an_instant_names_its_zone() -> None:
    assert instant("2026-06-29T08:05:27.513+00:00") is not None
    assert [instant(raw) for raw in ("2026-06-29T08:05:27", "yesterday", 7, None)] == [None] * 4


def report(*lines: dict[str, Any]) -> Seen:
    seen = Seen()
    seen.take("/redfish/v1/R", {"@odata.type": "#MetricReport", "MetricValues": list(lines)})
    return seen


def line(value: object, *, stamp: str = "2026-06-29T08:05:27+00:00", stale: bool = False) -> dict[str, Any]:
    name = "/redfish/v1/Chassis/C/Sensors/S"
    oem = {"Nvidia": {"MetricValueStale": stale}}
    return {"MetricProperty": name, "MetricValue": value, "Timestamp": stamp, "Oem": oem}


SENSOR = Address("/redfish/v1/Chassis/C/Sensors/S", "/Reading")


def test_a_report_quotes_a_sensors_reading() -> None:
    assert report(line("24.437000")).raw(SENSOR) == "24.437000"


def test_of_several_lines_the_newest_counts() -> None:
    old, new = line("1", stamp="2026-06-29T08:00:00+00:00"), line("2")
    assert report(new, old).raw(SENSOR) == report(old, new).raw(SENSOR) == "2"


def test_a_value_called_stale_counts_while_it_is_young() -> None:
    other = {"MetricProperty": "/redfish/v1/X", "MetricValue": "1", "Timestamp": "2026-06-29T08:05:27+00:00"}
    young = report(other, line("3", stamp="2026-06-29T08:05:26+00:00", stale=True))
    old = report(other, line("3", stamp="2026-06-29T07:05:27+00:00", stale=True))
    assert young.raw(SENSOR) == "3"
    assert old.raw(SENSOR) is MISSING
    assert old.too_old(SENSOR) == "3600 s older than the report it stands in"


def test_a_line_that_names_nothing_is_odd_and_the_rest_is_kept() -> None:
    seen = report({"MetricValue": "1"}, {"MetricProperty": 7}, "what", line("4"))  # type: ignore[arg-type]
    assert seen.raw(SENSOR) == "4"
    assert len(seen.odd) == 3


def test_an_excerpt_is_not_the_sensor() -> None:
    """`FanSpeedsPercent` lists excerpts under the sensors' own names: they would hide the sensors."""
    seen = Seen()
    seen.take("/redfish/v1/E", {"Fans": [{"@odata.id": SENSOR.path, "SpeedRPM": 40.0}]})
    assert SENSOR.path not in seen


def test_an_expanded_resource_is_seen_with_what_it_was_asked_for() -> None:
    seen = Seen()
    sensor = {"@odata.id": SENSOR.path, "@odata.type": "#Sensor.v1_7_0.Sensor", "Reading": 5}
    seen.take("/redfish/v1/Chassis/C/Sensors?$expand=*($levels=1)", {"Members": [sensor]})
    assert seen.raw(SENSOR) == 5
    assert seen.brought["/redfish/v1/Chassis/C/Sensors?$expand=*($levels=1)"] >= {SENSOR.path}
