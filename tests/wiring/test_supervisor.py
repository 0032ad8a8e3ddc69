"""Children are ended in an order in which nobody misses what they still need."""

import socket
import subprocess
import sys
from pathlib import Path

from baseai.settings import PlatformSettings
from baseai.wiring.household import Household
from baseai.wiring.supervisor import Child, Supervisor

WAITS = """
import pathlib, signal, sys
def end(*_):
    with pathlib.Path(sys.argv[1]).open("a") as file: file.write(sys.argv[2] + " ")
    raise SystemExit
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, end)
print("ready", flush=True)
signal.pause()
"""


def test_samples_are_taken_in_until_nobody_sends_any_and_the_truth_ends_last(tmp_path: Path) -> None:
    household = Household(data=tmp_path / "data")
    household.make()
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    supervisor = Supervisor(PlatformSettings(data=tmp_path, gateways=1), household, sockets, lambda _: None)
    supervisor._gateway = gate = socket.create_server(("127.0.0.1", 0))
    ended = tmp_path / "ended"
    started = []
    for name in ("postgres", "metrics", "server", "controller", "agent", "gateway-1"):
        command = [sys.executable, "-c", WAITS, str(ended), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        supervisor.children[name] = Child(name, lambda process=process: process, process=process)  # type: ignore[misc]
        started.append(process)
    supervisor.end()
    assert ended.read_text().split() == ["gateway-1", "agent", "controller", "server", "metrics", "postgres"]
    assert [process.returncode for process in started] == [0] * 6
    assert gate.fileno() == -1  # no connection waits for a gateway that is gone
    assert not sockets.exists()
