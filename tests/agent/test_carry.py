"""What was measured reaches the server once: the fresh first, the rest in time, through the deaths of both."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from baseai.agent.carry import UNKNOWN_PAUSE_S, Carrier
from baseai.agent.link import ServerAway, ServerRefused
from baseai.agent.sample_spool import SampleSpool
from baseai.api.schemas import CollectorView, Kept, Measured
from tests.agent.keeper import lines_of
from tests.agent.peer import SRC
from tests.agent.test_sample_spool import batch, witness

pytestmark = pytest.mark.anyio


class Server:
    """A server's answers in memory. `poison`: ids for which it refuses the whole message."""

    def __init__(self, *, poison: Sequence[str] = (), rows_max: int = 1_000_000) -> None:
        self.sent: list[list[str]] = []
        self.measured: list[Measured] = []
        self.poison = poison
        self.rows_max = rows_max
        self.fault: Exception | None = None
        self.refuses: dict[str, str] = {}

    async def send_measured(self, measured: Measured) -> Kept:
        if self.fault is not None:
            raise self.fault
        ids = [each.batch_id for each in measured.batches] + [each.event_id for each in measured.witnesses]
        if any(each in self.poison for each in ids):
            raise ServerRefused("http://x", 422, "what is this?")
        if sum(len(each.keys) for each in measured.batches) > self.rows_max:
            raise ServerRefused("http://x", 413, "too large")
        self.sent.append(ids)
        self.measured.append(measured)
        return Kept(accepted=[each for each in ids if each not in self.refuses], refused=self.refuses)


def carrier(spool: SampleSpool, server: Server, rows: int = 6) -> Carrier:
    views = [CollectorView(name="host", state="ok", interval_s=10)]
    return Carrier(
        spool=spool, way=server, views=lambda: list(views), chance=random.Random(1), rows_a_message=rows
    )


def spooled(path: Path, *numbers: int) -> SampleSpool:
    SampleSpool(path).add([batch(number) for number in numbers])
    return SampleSpool(path)


async def test_a_message_carries_what_is_fresh_and_then_the_oldest(tmp_path: Path) -> None:
    spool, server = spooled(tmp_path, 1, 2, 3, 4), Server()
    spool.add([batch(9)], [witness(7)])
    assert await carrier(spool, server).send_once() == 0.0
    assert server.sent == [["bat_9", "bat_1", "bat_2", "wit_7"]]
    assert len(spool) == 2
    spool_view = server.measured[0].collectors[-1]
    assert (spool_view.name, spool_view.state, spool_view.sentence) == ("spool", "ok", "2 batches wait")


async def test_an_outage_keeps_everything_and_asks_ever_more_seldom(tmp_path: Path) -> None:
    spool, server = spooled(tmp_path, 1), Server()
    server.fault = ServerAway("http://x", "refused")
    carries = carrier(spool, server)
    waits = [await carries.send_once() for _ in range(6)]
    assert waits[5] > 3 * waits[0] > 0
    assert len(spool) == 1
    server.fault = None
    assert await carries.send_once() == 0.0
    assert len(spool) == 0


async def test_what_is_refused_is_told_and_forgotten(tmp_path: Path) -> None:
    spool, server = spooled(tmp_path, 1, 2), Server()
    server.refuses = {"bat_1": "S0 is not a device of this node"}
    carries = carrier(spool, server)
    await carries.send_once()
    assert len(spool) == 0
    await carries.send_once()
    assert "bat_1" in server.measured[-1].collectors[-1].troubles[0]


async def test_one_poisoned_batch_holds_up_no_other(tmp_path: Path) -> None:
    spool, server = spooled(tmp_path, *range(1, 10)), Server(poison=["bat_4"])
    carries = carrier(spool, server, rows=100)
    for _ in range(20):
        await carries.send_once()
    assert len(spool) == 0
    assert sorted(each for ids in server.sent for each in ids) == sorted(
        f"bat_{number}" for number in range(1, 10) if number != 4
    )
    assert any("bat_4: 422" in each for each in server.measured[-1].collectors[-1].troubles)


async def test_messages_shrink_to_what_the_server_takes(tmp_path: Path) -> None:
    spool, server = spooled(tmp_path, *range(1, 10)), Server(rows_max=4)
    carries = carrier(spool, server, rows=100)
    for _ in range(20):
        await carries.send_once()
    assert len(spool) == 0
    assert server.measured[-1].collectors[-1].troubles == []


async def test_an_older_server_is_asked_again_much_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool, server = spooled(tmp_path, 1), Server()
    server.fault = ServerRefused("http://x", 404, "")
    carries = carrier(spool, server)
    assert [await carries.send_once() for _ in range(3)] == [UNKNOWN_PAUSE_S] * 3
    assert caplog.text.count("takes no samples yet") == 1
    assert len(spool) == 1


def test_kill_9_of_node_and_server_in_a_loop_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    commands = {"server": str(port), "node": f"http://127.0.0.1:{port}"}

    def start(role: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.agent.keeper", role, str(tmp_path), commands[role]],
            env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{SRC.parent}"},
            stderr=subprocess.DEVNULL,
        )

    running = {role: start(role) for role in commands}
    try:
        deadline_s = time.monotonic() + 60
        while not lines_of(tmp_path / "kept") and time.monotonic() < deadline_s:
            time.sleep(0.05)
        for _ in range(10):
            time.sleep(chance.uniform(0.1, 1.5))
            role = chance.choice(("node", "server"))
            running[role].send_signal(signal.SIGKILL)
            running[role].wait()
            running[role] = start(role)
        time.sleep(1.0)
        (tmp_path / "enough").touch()
        assert running["node"].wait(60) == 0
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    measured, kept = lines_of(tmp_path / "measured"), lines_of(tmp_path / "kept")
    assert len(measured) > 50
    assert set(measured) - set(kept) == set()  # what was safe in the spool is at the server
    assert len(kept) == len(set(kept))
