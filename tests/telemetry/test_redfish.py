"""One controller over the network: one session, two requests at once, and no ill of it costs more than itself."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from baseai.ground.fault import Refused
from baseai.telemetry.collector import Collected, SourceFailed
from baseai.telemetry.field import State
from baseai.telemetry.redfish.collector import RedfishCollector
from baseai.telemetry.redfish.session import BODY_BYTES_MAX, BoardSettings, checked_address
from tests.telemetry.board.trees import FIRST, GPU_0, SECOND, R, excerpt, states, values
from tests.telemetry.redfish_server import PASSWORD, SESSIONS, USER, Ill, RedfishServer, serving

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 6, 29, 8, 5, tzinfo=UTC)
LEAKS = f"{R}/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors"
DETECTOR = f"{LEAKS}/Chassis_0_LeakDetector_0_ColdPlate"
SENSORS = f"{R}/Chassis/Chassis_0/Sensors"

XID = {
    "EventId": "1",
    "EventTimestamp": "2026-06-29T08:04:30+00:00",
    "MessageId": "ResourceEvent.1.0.ResourceErrorsDetected",
    "MessageSeverity": "Critical",
    "Message": "GPU_0 has detected errors of type 'XID 79'",
    "OriginOfCondition": {"@odata.id": GPU_0},
}


@pytest.fixture
def server() -> Iterator[RedfishServer]:
    with serving(RedfishServer(tree=excerpt("gb300"))) as running:
        yield running


@asynccontextmanager
async def collecting(
    server: RedfishServer, *, password: str | None = PASSWORD, every_s: float = 20.0, answer_s: float = 5.0
) -> AsyncIterator[RedfishCollector]:
    settings = BoardSettings(
        url=server.url, user=USER if password else None, password=password, every_s=every_s, answer_s=answer_s
    )
    collector = RedfishCollector(settings, chance=lambda: 0.0)
    try:
        yield collector
    finally:
        await collector.close()


def first_of(collected: Collected) -> dict[str, float]:
    [row] = [each for each in collected.rows["accelerator"] if each.key == FIRST]
    return values(row)


async def until(holds: Callable[[], bool], wait_s: float = 5.0) -> bool:
    """Whether something comes to hold within a while."""
    for _ in range(round(wait_s / 0.02)):
        if holds():
            return True
        await asyncio.sleep(0.02)
    return False


async def heard(collector: RedfishCollector, count: int, wait_s: float = 10.0) -> Collected:
    """Polls until events have brought so many witnesses, all of them in one answer."""
    deadline_s = time.monotonic() + wait_s
    witnesses = []
    while True:
        collected = await collector.collect(NOW)
        witnesses += collected.witnesses
        if len(witnesses) >= count or time.monotonic() > deadline_s:
            return Collected(rows=collected.rows, witnesses=witnesses, troubles=collected.troubles)
        await asyncio.sleep(0.05)


async def test_a_first_look_brings_rows_and_later_polls_cost_seven_asks(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        first = await collector.collect(NOW)
        assert first_of(first)["power_w"] == 231.939
        assert values(first.rows["node"][0])["leak"] == 0.0
        assert [row.key for row in first.rows["node"]] == [""]
        for _ in range(3):
            server.reset_counts()
            await collector.collect(NOW)
            assert len([ask for ask in server.asked if "SSE" not in ask]) == 7


async def test_one_session_two_requests_at_once_and_nothing_left_behind(server: RedfishServer) -> None:
    server.ill = Ill(slow_s=0.02)  # so that requests do overlap
    async with collecting(server) as collector:
        for _ in range(4):
            await collector.collect(NOW)
        assert (server.sessions_made, server.most_sessions) == (1, 1)
        assert server.most_at_once == 2
        assert server.refused_busy == 0
    assert server.sessions == {}


async def test_the_event_stream_counts_as_one_of_the_two(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        await collector.collect(NOW)
        assert await until(lambda: server.streams == 1)
        server.ill = Ill(slow_s=0.02)
        await collector.collect(NOW)
        assert server.most_at_once == 2
    assert await until(lambda: server.streams == 0)


async def test_an_expired_session_is_replaced_by_one(server: RedfishServer) -> None:
    server.ill = Ill(slow_s=0.01)
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.expire()
        assert first_of(await collector.collect(NOW))["power_w"] == 231.939
        assert (server.sessions_made, server.most_sessions) == (2, 1)


async def test_without_sessions_each_request_carries_the_account(server: RedfishServer) -> None:
    server.has_sessions = False
    async with collecting(server) as collector:
        assert first_of(await collector.collect(NOW))["power_w"] == 231.939
        assert server.sessions_made == 0


async def test_a_controller_that_answers_anybody_is_asked_without_an_account(server: RedfishServer) -> None:
    server.needs_login = False
    async with collecting(server, password=None) as collector:
        assert first_of(await collector.collect(NOW))["power_w"] == 231.939
        assert server.sessions_made == 0


async def test_a_wrong_password_is_tried_once_and_said(
    server: RedfishServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Controllers lock an account that keeps trying."""
    caplog.set_level(logging.DEBUG)
    async with collecting(server, password="wrong-secret") as collector:
        for _ in range(3):
            with pytest.raises(SourceFailed, match="the account is not taken"):
                await collector.collect(NOW)
    assert server.logins_refused == 1
    assert "wrong-secret" not in caplog.text
    assert "wrong-secret" not in repr(BoardSettings(url="https://b", user=USER, password="wrong-secret"))


async def test_a_resource_that_is_refused_for_ever_costs_no_second_session(server: RedfishServer) -> None:
    server.ills[DETECTOR.rpartition("/")[0]] = Ill(status=401)
    async with collecting(server) as collector:
        for _ in range(2):
            collected = await collector.collect(NOW)
        assert first_of(collected)["power_w"] == 231.939
        assert server.most_sessions == 1


# ---- ills -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ill", "sentence"),
    [
        pytest.param(Ill(status=500), "it said 500", id="an error"),
        pytest.param(Ill(body=b"<html>Service restarting</html>"), "no JSON", id="garbage"),
        pytest.param(Ill(body=b'{"Members": [{"@odata.id":'), "no JSON", id="half a JSON object"),
        pytest.param(Ill(body=b"[1, 2]"), "a list and not an object", id="another kind of JSON"),
        pytest.param(Ill(body=b"[" * 100_000), "no JSON", id="nested without end"),
        pytest.param(Ill(body=b"\xff\xfe\x00"), "no JSON", id="no text"),
        pytest.param(Ill(body=b" " * (BODY_BYTES_MAX + 1)), "longer than 8 MiB", id="without end"),
        pytest.param(Ill(hangs=True), "no answer within 0.5 s", id="no answer"),
        pytest.param(Ill(slow_s=5.0), "no answer within 0.5 s", id="too slow"),
    ],
)
async def test_an_ill_ask_is_told_and_the_rest_is_kept(
    server: RedfishServer, ill: Ill, sentence: str
) -> None:
    async with collecting(server, answer_s=0.5) as collector:
        await collector.collect(NOW)
        server.ills[GPU_0] = ill
        collected = await collector.collect(NOW)
        first, second = collected.rows["accelerator"]
        assert values(first)["temp_c"] == 32.9375  # a report has it
        assert first.fields["energy_j"].state is State.ABSENT
        assert values(second)["power_w"] == 238.856
        assert values(collected.rows["node"][0])["power_w"] == 1355.398772
        told = {(each.key, each.field) for each in collected.troubles if sentence in each.sentence}
        assert {(FIRST, "energy_j"), (FIRST, "clock_mhz"), (FIRST, "util_pct")} <= told
        assert all(key != SECOND for key, _ in told)
        del server.ills[GPU_0]
        again = await collector.collect(NOW)
        assert first_of(again)["energy_j"] == 230235737.738
        assert again.troubles == ()


async def test_a_controller_that_hangs_is_given_up_quickly_and_comes_back(server: RedfishServer) -> None:
    async with collecting(server, answer_s=0.3) as collector:
        await collector.collect(NOW)
        server.ill = Ill(hangs=True)
        began_s = time.monotonic()
        with pytest.raises(SourceFailed, match=r"no answer within 0\.3 s"):
            await collector.collect(NOW)
        assert time.monotonic() - began_s < 3  # and not seven times 0.3 s and more
        server.ill = None
        assert first_of(await collector.collect(NOW))["power_w"] == 231.939


async def test_a_controller_that_hangs_halfway_keeps_what_it_said(server: RedfishServer) -> None:
    async with collecting(server, answer_s=0.3) as collector:
        await collector.collect(NOW)
        for path in (SENSORS, LEAKS, f"{R}/Chassis/Chassis_0/ThermalSubsystem"):
            server.ills[path] = Ill(hangs=True)
        collected = await collector.collect(NOW)
        assert first_of(collected)["power_w"] == 231.939
        node = collected.rows["node"][0]
        assert states(node, State.ABSENT) >= {"power_w", "fan_pct", "leak"}  # unknown, not zero


async def test_a_poll_ends_before_the_next_one_is_due(server: RedfishServer) -> None:
    async with collecting(server, every_s=1.0, answer_s=5.0) as collector:
        await collector.collect(NOW)
        server.ills[GPU_0] = Ill(slow_s=3.0)
        began_s = time.monotonic()
        collected = await collector.collect(NOW)
        assert time.monotonic() - began_s < collector.timeout_s
        assert first_of(collected)["temp_c"] == 32.9375


async def test_a_busy_controller_is_asked_again_once(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.ills[GPU_0] = Ill(status=503, times=1)
        assert first_of(await collector.collect(NOW))["energy_j"] == 230235737.738


async def test_a_survey_that_takes_long_goes_on_with_the_next_poll(server: RedfishServer) -> None:
    server.ill = Ill(slow_s=0.15)
    async with collecting(server, every_s=2.0) as collector:
        said = []
        while collector.rota is None and len(said) < 20:
            said += [each.sentence for each in (await collector.collect(NOW)).troubles]
        assert any("still looking around" in sentence for sentence in said)
        assert first_of(await collector.collect(NOW))["power_w"] == 231.939
        assert server.asked.count(f"{R}/Systems/HGX_Baseboard_0") <= 2  # what was seen is not asked again


async def test_what_was_not_ready_at_first_is_looked_for_again(
    server: RedfishServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller of a baseboard starts minutes after the host's: until then its part of the tree says 500."""
    monkeypatch.setattr("baseai.telemetry.redfish.collector.SURVEY_AGAIN_S", 0.0)
    processors = f"{R}/Systems/HGX_Baseboard_0/Processors"
    server.ills[processors] = Ill(status=500)
    async with collecting(server) as collector:
        assert (await collector.collect(NOW)).rows["accelerator"] == ()
        del server.ills[processors]
        await collector.collect(NOW)
        assert first_of(await collector.collect(NOW))["power_w"] == 231.939


async def test_what_moved_is_looked_for_again(server: RedfishServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baseai.telemetry.redfish.collector.SURVEY_AGAIN_S", 0.0)
    async with collecting(server) as collector:
        await collector.collect(NOW)
        report = f"{R}/TelemetryService/MetricReports/HGX_PlatformEnvironmentMetrics_0"
        server.tree[f"{R}/TelemetryService/MetricReports"]["Members"] = []
        for name in [path for path in server.tree if path.startswith(f"{R}/TelemetryService/MetricReports/")]:
            del server.tree[name]
        assert "temp_c" not in first_of(await collector.collect(NOW))
        for _ in range(3):
            collected = await collector.collect(NOW)
        assert first_of(collected)["temp_c"] == 32.9375  # from its sensor now
        assert report not in server.asked[-7:]


async def test_nothing_there_is_a_failure_that_says_so() -> None:
    settings = BoardSettings(url="http://127.0.0.1:9", every_s=5.0)
    collector = RedfishCollector(settings, chance=lambda: 0.0)
    with pytest.raises(SourceFailed, match=r"redfish http://127\.0\.0\.1:9: "):
        await collector.collect(NOW)
    await collector.close()


async def test_a_service_with_nothing_to_read_says_so(server: RedfishServer) -> None:
    server.tree = {R: {"@odata.id": R}}
    async with collecting(server) as collector:
        with pytest.raises(SourceFailed, match="nothing that is read here"):
            await collector.collect(NOW)


# ---- ETags ------------------------------------------------------------------------------------------------------


async def test_what_did_not_change_does_not_travel_twice(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        for power_w in (300.0, 301.0, 301.0, 301.0, 302.0):
            server.put(f"{GPU_0}/EnvironmentMetrics", "/PowerWatts/Reading", power_w)
            assert first_of(await collector.collect(NOW))["power_w"] == power_w
        assert server.unchanged > 0


async def test_an_etag_that_never_changes_freezes_nothing(server: RedfishServer) -> None:
    server.etag_lies = True
    async with collecting(server) as collector:
        for power_w in (300.0, 301.0, 302.0, 303.0):
            server.put(f"{GPU_0}/EnvironmentMetrics", "/PowerWatts/Reading", power_w)
            assert first_of(await collector.collect(NOW))["power_w"] == power_w


# ---- conditions and events --------------------------------------------------------------------------------------


async def test_a_leak_is_told_once_and_its_end_once(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        assert (await collector.collect(NOW)).witnesses == ()
        server.leak(DETECTOR)
        leaking = await collector.collect(NOW)
        assert [(each.severity, each.payload["what"]) for each in leaking.witnesses] == [("critical", "leak")]
        assert values(leaking.rows["node"][0])["leak"] == 1.0
        assert (await collector.collect(NOW)).witnesses == ()
        server.put(DETECTOR, "/DetectorState", "OK")
        assert [each.payload["ended"] for each in (await collector.collect(NOW)).witnesses] == [True]


async def test_an_event_is_not_lost_with_the_poll_that_failed(server: RedfishServer) -> None:
    async with collecting(server, answer_s=0.3) as collector:
        await collector.collect(NOW)
        assert await until(lambda: server.streams == 1)
        server.tell(XID)
        await asyncio.sleep(0.3)
        server.ill = Ill(hangs=True)
        with pytest.raises(SourceFailed):
            await collector.collect(NOW)
        server.ill = None
        assert [each.code for each in (await collector.collect(NOW)).witnesses] == [79]


async def test_a_look_around_that_fails_costs_no_reading_and_no_leak(
    server: RedfishServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baseai.telemetry.redfish.collector.SURVEY_LIVES_S", 0.0)
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.leak(DETECTOR)
        server.ills[R] = Ill(status=500)
        collected = await collector.collect(NOW)
        assert first_of(collected)["power_w"] == 231.939
        assert [each.payload["what"] for each in collected.witnesses] == ["leak"]
        assert any("it said 500" in each.sentence for each in collected.troubles)


async def test_a_lost_supply_is_counted_and_told() -> None:
    with serving(RedfishServer(tree=excerpt("rackmount1"))) as server:
        async with collecting(server) as collector:
            await collector.collect(NOW)
            server.lose_supply(f"{R}/Chassis/1U/PowerSubsystem/PowerSupplies/Bay1")
            collected = await collector.collect(NOW)
            node = values(collected.rows["node"][0])
            assert (node["psu_ok"], node["psu_total"]) == (0.0, 1.0)
            told = {(each.payload["what"], each.severity) for each in collected.witnesses}
            assert {("supply", "critical"), ("supply_input", "critical")} <= told


@pytest.mark.parametrize("can_skip", [True, False], ids=["it can skip", "it cannot"])
async def test_of_a_long_log_the_end_is_read(can_skip: bool) -> None:
    entries = f"{R}/Systems/437XR1138R2/LogServices/Log1/Entries"
    with serving(RedfishServer(tree=excerpt("rackmount1"), page=5)) as server:
        del server.tree[entries]["@odata.nextLink"]
        server.tree[entries]["Members"] = [
            {
                "@odata.id": f"{entries}/{number}",
                "Id": str(number),
                "Severity": "Critical",
                "Created": "2026-06-29T08:00:00Z",
                "Message": f"entry {number}",
            }
            for number in range(12)
        ]
        if not can_skip:
            server.page = 0
            server.tree[entries]["Members@odata.count"] = 40
        async with collecting(server) as collector:
            told = []
            for _ in range(4):
                if not can_skip and told:
                    server.ills[entries] = Ill(status=400, times=1)
                told += [
                    each.sentence
                    for each in (await collector.collect(NOW)).witnesses
                    if "entry" in each.sentence
                ]
    expected = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11] if can_skip else range(12)
    assert told == [f"entry {number}" for number in expected]


async def test_a_collection_of_several_pages_is_read_to_its_end(server: RedfishServer) -> None:
    server.page = 2
    async with collecting(server) as collector:
        collected = await collector.collect(NOW)
        node = values(collected.rows["node"][0])
        assert (node["power_w"], node["temp_inlet_c"]) == (1355.398772, 24.437)
        assert first_of(collected)["temp_c"] == 32.9375


async def test_events_are_heard_between_polls(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.tell(XID)
        [witness] = (await heard(collector, 1)).witnesses
        assert (witness.kind, witness.code, witness.key) == ("xid", 79, FIRST)


async def test_a_lost_stream_is_taken_up_behind_the_last_event(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.tell(XID)
        [first] = (await heard(collector, 1)).witnesses
        server.cut_streams()
        server.tell(XID | {"EventId": "2", "Message": "GPU_1 XID 94", "OriginOfCondition": None})
        [second] = (await heard(collector, 1)).witnesses
        assert (first.code, second.code, second.key) == (79, 94, SECOND)
        assert server.last_event_ids[-1] == "1"


async def test_an_event_that_is_no_json_is_said_and_the_next_is_heard(server: RedfishServer) -> None:
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.tell_raw("{ half")
        server.tell(XID)
        collected = await heard(collector, 1)
        assert len(collected.witnesses) == 1
        assert any("no JSON" in each.sentence for each in collected.troubles)


async def test_a_controller_without_a_stream_is_polled_all_the_same(server: RedfishServer) -> None:
    server.tree[f"{R}/EventService"]["ServerSentEventUri"] = f"{R}/EventService/Nowhere"
    del server.tree[f"{R}/EventService"]["SSEFilterPropertiesSupported"]
    async with collecting(server) as collector:
        await collector.collect(NOW)
        server.tree[f"{R}/EventService"]["ServerSentEventUri"] = ""
        await asyncio.sleep(0.7)
        collected = await collector.collect(NOW)
        assert first_of(collected)["power_w"] == 231.939


# ---- what is really there ---------------------------------------------------------------------------------------


async def test_a_living_gb300_in_twelve_requests_at_most(shared: Path) -> None:
    from tests.telemetry.redfish_server import tree_of

    tree = tree_of(shared / "fixtures/redfish/supermicro-gb300")
    with serving(RedfishServer(tree=tree, is_moving=True)) as server:
        async with collecting(server) as collector:
            first = await collector.collect(NOW)
            await asyncio.sleep(0.3)
            server.reset_counts()
            second = await collector.collect(NOW)
            asked = [ask for ask in server.asked if "SSE" not in ask]
            assert len(asked) == 9
            for before, after in zip(first.rows["accelerator"], second.rows["accelerator"], strict=True):
                assert values(after)["energy_j"] > values(before)["energy_j"]
                assert {"power_w", "temp_c", "temp_mem_c", "clock_mhz", "util_pct"} <= values(after).keys()
            assert server.most_sessions == 1


# ---- TLS --------------------------------------------------------------------------------------------------------


def signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a controller")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem", folder / "key.pem"


async def test_a_certificate_is_verified_unless_that_is_turned_off(tmp_path: Path) -> None:
    cert, key = signed(tmp_path)
    with serving(RedfishServer(tree=excerpt("gb300")), tls=(cert, key)) as server:
        for known, is_read in (
            ({"ca_file": cert}, True),
            ({"verify": False}, True),
            ({}, False),
        ):
            settings = BoardSettings(url=server.url, user=USER, password=PASSWORD, every_s=20.0, **known)
            collector = RedfishCollector(settings, chance=lambda: 0.0)
            try:
                if is_read:
                    assert first_of(await collector.collect(NOW))["power_w"] == 231.939
                else:
                    made = server.sessions_made
                    with pytest.raises(SourceFailed, match="CERTIFICATE_VERIFY_FAILED"):
                        await collector.collect(NOW)
                    assert server.sessions_made == made  # the password never left
            finally:
                await collector.close()


# ---- addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("http://10.0.0.7", "unprotected", id="a password in the clear"),
        pytest.param("https://reader:secret@10.0.0.7", "do not belong", id="a password in the address"),
        pytest.param("10.0.0.7", "no address", id="no scheme"),
        pytest.param("ftp://10.0.0.7", "no address", id="another scheme"),
    ],
)
def test_an_address_that_is_refused(url: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        checked_address(url)
    if "secret" in url:
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        pytest.param("https://10.0.0.7/redfish/v1/", "https://10.0.0.7", id="with a path"),
        pytest.param("https://[fd00::7]:8443", "https://[fd00::7]:8443", id="IPv6 and a port"),
        pytest.param("http://127.0.0.1:8043", "http://127.0.0.1:8043", id="this machine"),
    ],
)
def test_an_address(url: str, address: str) -> None:
    assert checked_address(url) == address


def test_an_unverified_certificate_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    RedfishCollector(BoardSettings(url="https://10.0.0.7", verify=False), chance=lambda: 0.0)
    assert "NOT verified" in caplog.text


def test_a_certificate_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be used"):
        RedfishCollector(BoardSettings(url="https://10.0.0.7", ca_file=tmp_path / "none"), chance=lambda: 0.0)


def test_sessions_are_where_the_standard_has_them() -> None:
    assert SESSIONS == "/redfish/v1/SessionService/Sessions"
