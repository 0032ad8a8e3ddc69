"""An agent asks its node's management controller for real, and leaves no session behind when it goes."""

import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.agent.peer import AgentProcess, Peer
from tests.telemetry.board.trees import R, excerpt
from tests.telemetry.redfish_server import PASSWORD, USER, RedfishServer, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

DETECTOR = (
    f"{R}/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors/Chassis_0_LeakDetector_0_ColdPlate"
)


@pytest.fixture
def server() -> Iterator[RedfishServer]:
    with serving(RedfishServer(tree=excerpt("gb300"))) as running:
        yield running


def test_power_and_leaks_reach_the_platform_and_the_session_ends_with_the_agent(
    peer: Peer, join: Callable[..., AgentProcess], server: RedfishServer
) -> None:
    agent = join(sample_every_s=1, redfish=[server.url], redfish_account=[USER, PASSWORD], redfish_every_s=2)
    peer.until(lambda: peer.values("node", "power_w").get("node_1"), "the node's power")
    assert {watts for _, watts in peer.values("node", "power_w")["node_1"]} == {1355.398772}
    peer.until(lambda: peer.values("node", "cpu_pct"), "what the operating system says beside it")
    board = peer.until(lambda: peer.collector(f"redfish {server.url}"), "how the collector fares")
    assert board.state == "ok"
    # This machine has no GB300: whose readings they are is said, and nobody else gets them.
    assert any("is not among this node's accelerators" in each for each in board.troubles)
    server.leak(DETECTOR)
    leaks = peer.until(
        lambda: [
            each
            for measured in list(peer.measured)
            for each in measured.witnesses
            if each.payload.get("what") == "leak"
        ],
        "the leak",
    )
    assert (leaks[0].kind, leaks[0].severity, leaks[0].key) == ("redfish", "critical", None)
    assert server.most_sessions == 1
    assert agent.send(signal.SIGTERM) == 0
    assert server.sessions == {}
    log = agent.log.read_text()
    assert PASSWORD not in log
    assert "token-1" not in log
