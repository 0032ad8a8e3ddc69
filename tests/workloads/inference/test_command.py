"""A command as a replica: told where to listen, ready when it answers, ended with all that it started."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from baseai.workloads.inference.command import NeverReady, until_ready
from tests.workloads.inference.hosted import Hosted, hosted, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sessions and /proc are Linux's")

SERVER = """
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() > BORN + float(os.environ.get("WARMS_S", "0"))
        body = json.dumps({"pid": os.getpid(), **{n: os.environ.get(n) for n in os.environ["SAYS"].split()}}).encode()
        self.send_response(200 if ready else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

BORN = time.monotonic()
host = sys.argv[1] if len(sys.argv) > 1 else os.environ["HOST"]
server = ThreadingHTTPServer((host, int(os.environ["PORT"])), Handler)
print("up", flush=True)
server.serve_forever()
"""
COMMAND = f"commands: ['{sys.executable} -S server.py']\n"


def says(replica: Hosted, path: str = "/") -> dict[str, object]:
    found: dict[str, object] = httpx.get(replica.url + path).json()
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_a_command_is_told_where_to_listen_and_stops_when_asked(tmp_path: Path) -> None:
    write(tmp_path, "server.py", SERVER)
    write(tmp_path, "weights/a.bin", "weights")
    env = {"SAYS": "HOST PORT BASEAI_PORT BASEAI_MODEL PYTHONPATH", "PYTHONPATH": "/the/agent/s/own"}
    with hosted(tmp_path, COMMAND + "model: weights\n", env=env) as replica:
        ready = replica.ready()
        port = str(ready["port"])
        told = says(replica)
        assert (told["HOST"], told["PORT"], told["BASEAI_PORT"]) == ("127.0.0.1", port, port)
        assert told["BASEAI_MODEL"] == str(tmp_path / "work" / "weights")
        assert told["PYTHONPATH"] is None  # what the host was started with is not the tenant's
        assert (ready["models"], ready["bytes"]) == (["shop"], 7)
        replica.ask()
        assert replica.ended() == 0
        assert not lives(int(str(told["pid"])))


def test_a_command_finds_its_token_and_is_ready_though_it_refuses_whoever_shows_none(tmp_path: Path) -> None:
    answers = """
    def do_GET(self):
        known = self.headers["authorization"] == "Bearer " + os.environ["BASEAI_REPLICA_TOKEN"]
        self.send_response(200 if known else 401)
        self.send_header("content-length", "0")
        self.end_headers()
"""
    write(tmp_path, "server.py", SERVER.replace("    def log_message", answers + "    def log_message"))
    with hosted(tmp_path, COMMAND, token="rpl_secret") as replica:
        assert httpx.get(replica.url).status_code == 401
        assert httpx.get(replica.url, headers={"authorization": "Bearer rpl_secret"}).status_code == 200
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert b"rpl_secret" not in line.read_bytes(), "everybody can read a command line"


def test_the_tenant_s_own_path_of_python_reaches_its_command(tmp_path: Path) -> None:
    write(tmp_path, "server.py", SERVER)
    with hosted(tmp_path, COMMAND, env={"SAYS": "PYTHONPATH"}, python_path="lib") as replica:
        assert says(replica)["PYTHONPATH"] == "lib"


def test_it_is_ready_when_it_answers_and_not_when_it_runs(tmp_path: Path) -> None:
    write(tmp_path, "server.py", SERVER)
    with hosted(
        tmp_path, COMMAND + "probes: {ready: /health}", env={"SAYS": "X", "WARMS_S": "0.7"}
    ) as replica:
        assert replica.ready()["warm_up_s"] > 0.7


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        pytest.param("echo no shoes >&2; exit 3", 3, "no shoes", id="its own code and its own last words"),
        pytest.param("true", 1, "ended by itself before it answered with 0", id="0 is no end for a server"),
        pytest.param("exit 64", 1, "ended by itself before it answered with 64", id="64 is ours"),
        pytest.param("kill -9 $$", 137, "", id="killed"),
    ],
)
def test_its_end_is_the_replica_s(tmp_path: Path, command: str, code: int, line: str) -> None:
    with hosted(tmp_path, f"commands: ['{command}']") as replica:
        assert replica.ended() == code
        assert line in replica.log()
        assert replica.told("ready") is None


def test_a_command_that_dies_later_ends_the_replica(tmp_path: Path) -> None:
    write(tmp_path, "server.py", SERVER)
    with hosted(tmp_path, COMMAND, env={"SAYS": "X"}) as replica:
        os.kill(int(str(says(replica)["pid"])), signal.SIGKILL)
        assert replica.ended() == 137


def test_what_a_command_started_ends_with_it_and_a_deaf_one_is_killed(tmp_path: Path) -> None:
    write(tmp_path, "server.py", SERVER)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    write(tmp_path, "deaf.py", deaf)
    text = f"commands: ['{sys.executable} -S deaf.py & echo pid $!', 'exec {sys.executable} -S server.py']"
    with hosted(tmp_path, text, env={"SAYS": "X"}, stop_grace_s=3.0) as replica:
        replica.ready()
        deaf_pid = int(replica.log().partition("pid ")[2].split()[0])
        began_s = time.monotonic()
        replica.ask()
        assert replica.ended() == 0
        assert time.monotonic() - began_s < 8.0
        assert "was killed" in replica.log()
        assert not lives(deaf_pid)


def test_a_port_that_is_taken_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with hosted(tmp_path, f"commands: [sleep 60]\nport: {port}") as replica:
            assert replica.ended() == 1  # tried again: another replica of the service may be leaving it
            assert replica.last_line().startswith(f"port {port} of this node cannot be had")
            assert "listen at $PORT" in replica.last_line()


def test_a_stop_before_it_answers_ends_it(tmp_path: Path) -> None:
    with hosted(tmp_path, "commands: ['echo up; exec sleep 60']") as replica:
        while "up" not in replica.log():
            time.sleep(0.02)
        replica.ask()
        assert replica.ended() == 143


def test_one_that_listens_inside_alone_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, "server.py", SERVER)
    text = f"commands: ['{sys.executable} -S server.py 127.0.0.1']"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(
                ("192.0.2.1", 9)
            )  # sends nothing: the kernel says which of its addresses it would use
        except OSError:
            pytest.skip("this machine has no other address")
        address = outward.getsockname()[0]
    with hosted(tmp_path, text, env={"SAYS": "X"}, address=address) as replica:
        deadline_s = time.monotonic() + 20
        while "let it listen at $HOST" not in replica.log():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert replica.told("ready") is None


async def _hint(path: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the log says of a program that is asked at `path` and does not get ready."""
    server = await asyncio.start_server(_fails, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(NeverReady):
            await until_ready("127.0.0.1", port, path, most_s=0.5, hint_s=0.1)
    return capsys.readouterr().err


async def _fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    silent = b"/silent" in await reader.readline()
    writer.write(b"" if silent else b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    writer.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/health", "after 0.1 s 500 is the answer to GET /health at 127.0.0.1:", id="it fails"),
        pytest.param("/silent", "after 0.1 s nobody answers to GET /silent at 127.0.0.1:", id="it is silent"),
    ],
)
def test_one_that_does_not_get_ready_hears_once_what_is_waited_for(
    path: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = asyncio.run(_hint(path, capsys))
    assert told.count(said) == 1
    assert "`probes.ready`" in told
