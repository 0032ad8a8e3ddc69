"""An agent measures its node for real, through outages and its own death, and nothing is lost or doubled."""

import signal
import sys
import time
from collections.abc import Callable

import pytest

from baseai.api.schemas import Launch
from tests.agent.peer import AgentProcess, Peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

Join = Callable[..., AgentProcess]
Make = Callable[..., Launch]


def test_an_agent_tells_of_its_node_and_slots(peer: Peer, join: Join) -> None:
    join(sample_every_s=0.5, rack="r1", leaf="l1")
    peer.until(lambda: len(peer.values("accelerator", "util_pct")) == 4, "utilisation of four slots")
    assert [peer.facts[0][part] for part in ("rack", "leaf", "pod")] == ["r1", "l1", None]
    devices = {each["serial"] for each in peer.facts[0]["devices"]}
    assert set(peer.values("accelerator", "util_pct")) == devices
    assert set(peer.values("accelerator", "mem_used_b")) == devices
    (memory,) = peer.values("node", "mem_total_b").values()
    assert memory[0][1] > 2**28
    assert peer.values("node", "accel_seen")["node_1"][-1][1] == 4.0
    host = peer.collector("host")
    assert host is not None
    assert host.state == "ok"
    assert host.took_ms is not None
    peer.until(lambda: len(peer.values("node", "uptime_s")["node_1"]) > 5, "six ticks")
    ticks = [at % 500 for at, _ in peer.values("node", "uptime_s")["node_1"][1:]]
    assert ticks.count(0) >= len(ticks) / 2  # one that begins a second late is an instant of its own


def test_a_run_shorter_than_a_tick_gets_a_sample_at_its_start_and_end(
    peer: Peer, join: Join, launch: Make
) -> None:
    join(sample_every_s=30)
    peer.until(lambda: peer.samples, "the first tick")
    peer.want(
        launch("lease_1", "python3 -c 'import time; t = time.time() + 1.5\nwhile time.time() < t: pass'")
    )
    started, ended = peer.started("lease_1").at.timestamp(), peer.exited("lease_1").at.timestamp()
    serial = peer.facts[0]["devices"][0]["serial"]
    points = peer.until(
        lambda: [each for each in peer.values("accelerator", "energy_j")[serial] if each[0] >= ended * 1000],
        "a sample at the end",
    )
    points = peer.values("accelerator", "energy_j")[serial]
    near = [min(abs(at / 1000 - edge) for at, _ in points) for edge in (started, ended)]
    assert max(near) < 1.0
    during = [value for at, value in points if at / 1000 > started - 1.0]
    watts_s = during[-1] - during[0]
    assert (
        watts_s > 1.0
    )  # a second and a half of one core at the catalogue's watts, less what is lost at the edges
    assert peer.values("accelerator", "util_pct")[serial][-1][1] > 50


def test_ticks_measured_while_the_server_is_away_come_later_and_once(peer: Peer, join: Join) -> None:
    agent = join(sample_every_s=0.5)
    peer.until(lambda: peer.samples, "the first tick")
    peer.close()
    away_ms = time.time() * 1000
    time.sleep(2.5)
    agent.send(signal.SIGKILL)
    join(token=None, sample_every_s=0.5)
    time.sleep(0.5)
    peer.open()
    back_ms = time.time() * 1000

    def missed() -> list[int]:
        return [at for at, _ in peer.values("node", "uptime_s")["node_1"] if away_ms + 500 < at < back_ms]

    peer.until(lambda: len(missed()) >= 4, "what was measured meanwhile")
    peer.until(lambda: peer.values("node", "uptime_s")["node_1"][-1][0] > back_ms, "what is measured now")
    instants = [at for at, _ in peer.values("node", "uptime_s")["node_1"]]
    assert len(instants) == len(set(instants))


def test_a_server_that_takes_no_samples_is_left_in_peace(peer: Peer, join: Join, launch: Make) -> None:
    peer.takes_samples = False
    agent = join(sample_every_s=0.5)
    peer.want(launch("lease_1", "sleep 1.5"))
    peer.exited("lease_1")
    assert agent.log.read_text().count("takes no samples yet") == 1
    assert list((agent.folder / "samples").glob("*.log"))
