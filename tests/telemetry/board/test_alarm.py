"""Conditions begin and end once; events keep their ids; an Xid is found however it is written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from baseai.fleet.health.evidence import finding_of
from baseai.fleet.health.rule import shipped_policy
from baseai.ground.identity import NodeId
from baseai.telemetry.board.alarm import looked, merged, turned, witnesses_of, witnesses_of_log, xid_of
from baseai.telemetry.board.survey import Survey, surveyed
from baseai.telemetry.witness import Witness
from tests.telemetry.board.trees import FIRST, GPU_0, SECOND, R, excerpt, look_around
from tests.telemetry.redfish_server import RedfishServer, Tree

NOW = datetime(2026, 6, 29, 8, 5, tzinfo=UTC)
DETECTOR = (
    f"{R}/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors/Chassis_0_LeakDetector_0_ColdPlate"
)
SUPPLY = f"{R}/Chassis/1U/PowerSubsystem/PowerSupplies/Bay1"


def survey_of(tree: Tree) -> Survey:
    return surveyed(look_around(tree))


def told(tree: Tree) -> set[tuple[str, str, str | None]]:
    """What a first look at the tree tells: what, severity, whom."""
    survey = survey_of(tree)
    witnesses = turned(survey, None, looked(survey, look_around(tree)), at_instant=NOW)
    return {(each.payload["what"], each.severity, each.key) for each in witnesses}


def changed(name: str, path: str, **properties: Any) -> Tree:
    tree = excerpt(name)
    for pointer, value in properties.items():
        RedfishServer(tree=tree).put(path, "/" + pointer.replace("__", "/"), value)
    return tree


def test_a_healthy_machine_tells_nothing() -> None:
    assert told(excerpt("gb300")) == set()


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        pytest.param(
            changed("gb300", DETECTOR, DetectorState="Critical"), ("leak", "critical", None), id="a leak"
        ),
        pytest.param(
            changed("gb300", DETECTOR, DetectorState="LeakDetected"),
            ("leak", "critical", None),
            id="in other words",
        ),
        pytest.param(
            changed("gb300", DETECTOR, DetectorState=None, Status__Health="Critical"),
            ("leak", "critical", None),
            id="a detector with a health alone",
        ),
        pytest.param(
            changed("gb300", GPU_0, Status__Health="Critical"),
            ("accelerator", "critical", FIRST),
            id="a sick device",
        ),
        pytest.param(
            changed("gb300", GPU_0, Status__Health="Warning"),
            ("accelerator", "warning", FIRST),
            id="an ailing device",
        ),
        pytest.param(
            changed("gb300", GPU_0, Status__State="UnavailableOffline"),
            ("device_lost", "critical", FIRST),
            id="lost",
        ),
        pytest.param(
            changed(
                "gb300", f"{R}/Chassis/Chassis_0/Sensors/Chassis_0_Front_IO_Temp_0", Status__Health="Critical"
            ),
            ("thermal", "critical", None),
            id="a sensor calls itself critical",
        ),
        pytest.param(
            changed("gb300", f"{R}/Chassis/Chassis_0/Sensors/Chassis_0_Front_IO_Temp_0", Reading=43.5),
            ("thermal", "critical", None),
            id="a sensor is over its limit of 43 °C and calls itself well",
        ),
        pytest.param(
            changed("gb300", f"{R}/Chassis/Chassis_0/ThermalSubsystem", Status__Health="Critical"),
            ("thermal", "critical", None),
            id="the cooling as a whole",
        ),
    ],
)
def test_a_condition(tree: Tree, expected: tuple[str, str, str | None]) -> None:
    assert told(tree) == {expected}


def test_supplies() -> None:
    """The saved server has one supply of two, and that one has a warning."""
    saved = {("supply", "warning", None), ("redundancy", "warning", None)}
    assert told(excerpt("rackmount1")) == saved
    lost = changed("rackmount1", SUPPLY, LineInputStatus="LossOfInput", Status__Health="Critical")
    assert told(lost) == {
        ("supply_input", "critical", None),
        ("supply", "critical", None),
        ("redundancy", "warning", None),
    }
    weak = changed("rackmount1", SUPPLY, LineInputStatus="OutOfRange", Status__Health="OK")
    assert told(weak) == {("supply_input", "warning", None), ("redundancy", "warning", None)}
    fan = changed("rackmount1", f"{R}/Chassis/1U/ThermalSubsystem/Fans/Bay1", Status__Health="Critical")
    assert told(fan) == saved | {("fan", "critical", None)}


def test_an_alarm_is_raised_once_and_ended_once() -> None:
    tree = excerpt("gb300")
    survey = survey_of(tree)
    server = RedfishServer(tree=tree)
    before = looked(survey, look_around(tree))
    server.leak(DETECTOR)
    leaking = looked(survey, look_around(tree))
    [raised] = turned(survey, before, leaking, at_instant=NOW)
    assert (raised.severity, raised.kind, raised.payload["resource"]) == ("critical", "redfish", DETECTOR)
    assert turned(survey, leaking, looked(survey, look_around(tree)), at_instant=NOW) == ()
    server.put(DETECTOR, "/DetectorState", "OK")
    server.put(DETECTOR, "/Status/Health", "OK")
    [ended] = turned(
        survey, leaking, looked(survey, look_around(tree)), at_instant=NOW + timedelta(minutes=1)
    )
    assert (ended.kind, ended.severity, ended.payload["what"]) == ("redfish_ended", "info", "leak")
    again = turned(survey, before, leaking, at_instant=NOW + timedelta(minutes=2))
    assert again[0].event_id != raised.event_id  # it came back: that is news


def test_a_detector_that_does_not_answer_ends_nothing() -> None:
    tree = changed("gb300", DETECTOR, DetectorState="LeakDetected")
    survey = survey_of(tree)
    leaking = looked(survey, look_around(tree))
    mute = looked(
        survey,
        look_around(tree, silent={DETECTOR: "it said 500", DETECTOR.rpartition("/")[0]: "it said 500"}),
    )
    assert turned(survey, leaking, mute, at_instant=NOW) == ()
    known = merged(leaking, mute)
    assert turned(survey, known, leaking, at_instant=NOW) == ()  # it is back and still leaks: nothing new


def test_what_gets_worse_is_told_again() -> None:
    tree = changed("gb300", GPU_0, Status__Health="Warning")
    survey = survey_of(tree)
    warned = looked(survey, look_around(tree))
    RedfishServer(tree=tree).put(GPU_0, "/Status/Health", "Critical")
    [worse] = turned(survey, warned, looked(survey, look_around(tree)), at_instant=NOW)
    assert (worse.severity, worse.key) == ("critical", FIRST)


def test_more_fatal_errors_are_told_and_old_ones_are_not() -> None:
    tree = changed("gb300", f"{GPU_0}/ProcessorMetrics", PCIeErrors__FatalErrorCount=2)
    survey = survey_of(tree)
    first = looked(survey, look_around(tree))
    assert turned(survey, None, first, at_instant=NOW) == ()
    RedfishServer(tree=tree).put(f"{GPU_0}/ProcessorMetrics", "/PCIeErrors/FatalErrorCount", 3)
    [more] = turned(survey, first, looked(survey, look_around(tree)), at_instant=NOW)
    assert (more.key, more.severity, more.payload["word"]) == (FIRST, "critical", "3")


def rule_of(witness: Witness) -> str | None:
    finding = finding_of(shipped_policy(), witness, NodeId("node_1"))
    return finding.rule_id if finding is not None else None


@pytest.mark.parametrize(
    ("tree", "rule"),
    [
        pytest.param(changed("gb300", DETECTOR, DetectorState="LeakDetected"), "bmc.leak", id="a leak"),
        pytest.param(
            changed("gb300", GPU_0, Status__State="Absent"), None, id="absent at the survey: not there at all"
        ),
        pytest.param(changed("gb300", GPU_0, Status__Health="Critical"), "bmc.other", id="a sick device"),
        pytest.param(changed("gb300", GPU_0, Status__Health="Warning"), "bmc.notice", id="an ailing one"),
    ],
)
def test_what_health_makes_of_a_condition(tree: Tree, rule: str | None) -> None:
    survey = survey_of(tree)
    witnesses = turned(survey, None, looked(survey, look_around(tree)), at_instant=NOW)
    assert [rule_of(each) for each in witnesses] == ([rule] if rule else [])


def test_health_opens_a_ticket_for_a_supply_and_none_for_its_return() -> None:
    tree = changed("rackmount1", SUPPLY, LineInputStatus="LossOfInput", Status__Health="Critical")
    survey = survey_of(tree)
    lost = looked(survey, look_around(tree))
    assert {rule_of(each) for each in turned(survey, None, lost, at_instant=NOW)} == {"bmc.psu"}
    server = RedfishServer(tree=tree)
    server.put(SUPPLY, "/LineInputStatus", "Normal")
    server.put(SUPPLY, "/Status/Health", "OK")
    back = turned(survey, lost, looked(survey, look_around(tree)), at_instant=NOW)
    assert [(each.kind, rule_of(each)) for each in back] == [("redfish_ended", None)] * 2


# ---- events -----------------------------------------------------------------------------------------------------


def event(**facts: Any) -> dict[str, Any]:
    return {
        "EventId": "5023",
        "EventTimestamp": "2026-06-29T08:04:30+00:00",
        "MessageId": "ResourceEvent.1.0.ResourceErrorsDetected",
        "MessageSeverity": "Critical",
        "Message": "The resource property GPU_0 Driver Event Message has detected errors of type 'XID 79'.",
        "OriginOfCondition": {"@odata.id": GPU_0},
        **facts,
    }


def heard(*events: object, at: datetime = NOW) -> tuple[Witness, ...]:
    return witnesses_of(survey_of(excerpt("gb300")), {"Id": "1", "Events": list(events)}, received_at=at)


def test_an_event_with_an_xid_is_about_its_device() -> None:
    [witness] = heard(event())
    assert (witness.kind, witness.code, witness.key, witness.severity) == ("xid", 79, FIRST, "critical")
    assert witness.payload["source"] == "redfish"  # and so a second one beside the kernel's
    assert witness.at == datetime(2026, 6, 29, 8, 4, 30, tzinfo=UTC)


def test_the_same_event_told_again_is_the_same_witness() -> None:
    assert heard(event())[0].event_id == heard(event(), at=NOW + timedelta(minutes=9))[0].event_id
    assert heard(event())[0].event_id != heard(event(EventId="5024"))[0].event_id


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        pytest.param(
            {"OriginOfCondition": {"@odata.id": f"{GPU_0}/Ports/NVLink_3"}}, FIRST, id="below the device"
        ),
        pytest.param(
            {"OriginOfCondition": {"@odata.id": f"{R}/Chassis/HGX_GPU_1"}}, SECOND, id="its chassis"
        ),
        pytest.param({"OriginOfCondition": GPU_0}, FIRST, id="a path instead of a link"),
        pytest.param({"OriginOfCondition": None}, FIRST, id="named in the sentence"),
        pytest.param(
            {"OriginOfCondition": None, "Message": "XID 79 on GPU_10"}, None, id="GPU_10 is not GPU_1"
        ),
        pytest.param(
            {"OriginOfCondition": {"@odata.id": f"{R}/Chassis/PDB_0"}, "Message": "hot"}, None, id="the node"
        ),
    ],
)
def test_whom_an_event_is_about(facts: dict[str, Any], key: str | None) -> None:
    assert [each.key for each in heard(event(**facts))] == [key]


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        pytest.param("1970-01-01T00:00:10+00:00", NOW, id="a clock that was never set"),
        pytest.param("2026-06-29T08:04:30", NOW, id="an instant without a zone"),
        pytest.param(
            "2026-06-29T05:04:30-03:00", datetime(2026, 6, 29, 8, 4, 30, tzinfo=UTC), id="another zone"
        ),
        pytest.param(None, NOW, id="none"),
    ],
)
def test_the_instant_of_an_event(stamp: str | None, at: datetime) -> None:
    assert [each.at for each in heard(event(EventTimestamp=stamp))] == [at]


@pytest.mark.parametrize(
    "ignored",
    [
        pytest.param(event(MessageSeverity="OK", Message="A session was opened."), id="good news"),
        pytest.param("what", id="no object"),
        pytest.param({}, id="empty"),
    ],
)
def test_what_is_not_told_on(ignored: object) -> None:
    assert heard(ignored) == ()


def test_a_leak_is_critical_whatever_the_event_calls_it() -> None:
    [witness] = heard(
        event(MessageSeverity="Warning", Message="Leakage detected by Chassis_0_LeakDetector_0")
    )
    assert (witness.severity, witness.payload["what"]) == ("critical", "leak")


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        pytest.param("GPU_0 has detected errors of type 'XID 79'", ("xid", 79), id="as firmware writes it"),
        pytest.param(
            "NVRM: Xid (PCI:0000:3b:00): 94, pid=1, Contained", ("xid", 94), id="as the kernel writes it"
        ),
        pytest.param("SXid (PCI:0000:c1:00.0): 12028, Non-fatal", ("sxid", 12_028), id="a switch's"),
        pytest.param("Xid: 145", ("xid", 145), id="with a colon"),
        pytest.param("the pixid 3 is fine", None, id="within a word"),
        pytest.param("no number after Xid here", None, id="without a number"),
    ],
)
def test_xid(sentence: str, found: tuple[str, int] | None) -> None:
    assert xid_of(sentence) == found


# ---- logs -------------------------------------------------------------------------------------------------------


def test_old_entries_of_a_log_are_history() -> None:
    tree = excerpt("rackmount1")
    survey = survey_of(tree)
    log = tree[f"{R}/Systems/437XR1138R2/LogServices/Log1/Entries"]
    assert witnesses_of_log(survey, log, read_at=NOW) == ()
    at_the_time = datetime(2012, 3, 7, 15, 0, tzinfo=UTC)
    found = witnesses_of_log(survey, log, read_at=at_the_time)
    assert [(each.severity, each.sentence) for each in found] == [
        ("critical", "Temperature threshold exceeded")
    ] * 2
    assert len({each.event_id for each in found}) == 2
