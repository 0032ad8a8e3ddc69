"""Services on a real platform: from rest to many replicas and back, another version under load, kills on the way."""

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from baseai.tenancy.replica_token import replica_token
from tests.scenarios.platform import Platform, platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ECHO = """
import json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.say({"word": "%(word)s"})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(asked.get("sleep_s", 0))
        self.say({"word": "%(word)s", "asked": asked, "pid": os.getpid()})

    def say(self, answer):
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Echo).serve_forever()
"""
SPEC = """
type: service
name: echo
commands:
  - exec python -c "$ECHO"
env:
  ECHO: {echo}
replicas: {replicas}
protocol: json
concurrency: 4
scaling: {{target: 4, stable_window: 6s, panic_window: 2s, to_zero_after: 1s}}
resources: {{cpu: 1}}
rollout: {{shares: [0.5, 1], bake: 2s}}
"""


def spec(word: str = "first", replicas: str = "0..3") -> str:
    return SPEC.format(echo=json.dumps(ECHO % {"word": word}), replicas=replicas)


@dataclass
class Clients:
    """Threads that ask one after the other, as clients do: a torn connection is opened again, once for a request."""

    url: str
    key: str
    count: int
    words: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    asked: int = 0
    last_lost_s: float = 0.0
    _over: bool = False

    def run(self, number: int) -> None:
        place = urlsplit(self.url)
        line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        mine = 0
        while not self._over:
            mine += 1
            body = {"n": f"{number}-{mine}", "sleep_s": 0.02}
            self.asked += 1
            for once_more in (True, False):
                try:
                    headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
                    line.request("POST", "/json/echo", json.dumps(body), headers)
                    answer = line.getresponse()
                    said = answer.read()
                    if answer.status != 200:
                        self.lost.append(f"{answer.status} {said[:200]!r}")
                        self.last_lost_s = time.monotonic()
                    elif json.loads(said)["asked"] != body:
                        self.wrong.append(f"{body} was answered {said!r}")
                    else:
                        self.words[json.loads(said)["word"]] += 1
                    break
                except (OSError, http.client.HTTPException) as wrong:
                    line.close()
                    if not once_more:
                        self.lost.append(repr(wrong))
                        self.last_lost_s = time.monotonic()
            time.sleep(0.01)
        line.close()

    @contextmanager
    def at_work(self) -> Iterator["Clients"]:
        threads = [threading.Thread(target=self.run, args=(number,)) for number in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over = True
            for thread in threads:
                thread.join()


class Served(Platform):
    """A platform with a customer."""

    key = ""

    @property
    def gateway(self) -> str:
        return str(json.loads((self.data / "platform.json").read_text())["gateway_url"])

    def apply(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("POST", "/services", {"spec": text, "file": "echo.yaml"})
        return answer

    def service(self) -> dict[str, Any]:
        detail: dict[str, Any] = self.ask("GET", "/services/echo")
        return detail

    def until(self, query: str, expected: Any, within_s: float = 60.0) -> None:
        """The database says so."""
        deadline = time.monotonic() + within_s
        while (found := self.sql(query)) != expected:
            assert time.monotonic() < deadline, f"{query}: {found}, not {expected}\n{self.logs()}"
            time.sleep(0.2)

    def call(
        self, body: dict[str, Any], *, patience_s: float = 30.0
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        place = urlsplit(self.gateway)
        line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=patience_s)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        with closing(line):
            line.request("POST", "/json/echo", json.dumps(body), headers)
            answer = line.getresponse()
            said = json.loads(answer.read())
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, said

    def clients(self, count: int) -> Clients:
        return Clients(self.gateway, self.key, count)


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    with platform("--cpu-slots", "4", "--gateways", "2", "--node-name", "one") as running:
        served = Served(running.data, running.process)
        served.key = served.ask("POST", "/keys", {"name": "ana", "role": "customer", "tenant": "base"})[
            "secret"
        ]
        yield served


READY = "SELECT count(*)::int FROM replicas WHERE state = 'ready'"


def test_a_service_at_rest_holds_the_first_request_and_answers_it(home: Served) -> None:
    home.apply(spec())
    time.sleep(1.5)
    assert home.sql("SELECT state, (SELECT count(*) FROM leases)::int FROM services") == [("idle", 0)]
    status, headers, said = home.call({"n": 1})
    assert (status, said["asked"]) == (200, {"n": 1})
    assert headers["x-baseai-version"] == "1"
    [(run_id, kind)] = home.sql("SELECT run_id, kind FROM runs")
    assert (headers["x-baseai-replica"], kind) == (run_id, "service")


def test_replicas_follow_demand_and_go_with_it_and_nobody_notices(home: Served) -> None:
    with home.clients(24).at_work() as clients:
        began = time.monotonic()
        home.until(READY, [(3,)])
        grown_s = time.monotonic() - began
        time.sleep(2)
    assert clients.wrong == []
    assert clients.lost == []
    assert grown_s < 45
    home.until("SELECT state, wanted FROM services", [("idle", 0)])
    home.until("SELECT count(*)::int FROM leases WHERE state <> 'released'", [(0,)])


def test_another_version_takes_over_and_not_one_request_is_lost(home: Served) -> None:
    home.call({"n": 1})
    with home.clients(4).at_work() as clients:
        home.apply(spec("second"))
        home.until("SELECT version_no, candidate_no FROM services", [(2, None)], 90)
        home.until("SELECT count(*)::int FROM replicas WHERE version_no = 1 AND state <> 'gone'", [(0,)])
        time.sleep(1)
    assert clients.wrong == []
    assert clients.lost == []
    assert set(clients.words) == {"first", "second"}
    assert home.call({"n": 1})[2]["word"] == "second"
    assert [version["state"] for version in sorted(home.service()["versions"], key=lambda one: one["version_no"])] == [
        "retired", "current",
    ]  # fmt: skip


def test_a_version_that_does_not_start_leaves_the_old_one_where_it_is(home: Served) -> None:
    home.call({"n": 1})
    with home.clients(2).at_work() as clients:
        home.apply(SPEC.format(echo='"raise SystemExit(3)"', replicas="0..3"))
        home.until(
            "SELECT state FROM service_versions ORDER BY version_no",
            [("retired",), ("current",), ("rolled_back",)],
            120,
        )
    assert (clients.wrong, clients.lost) == ([], [])
    assert set(clients.words) == {"second"}
    [(sentence,)] = home.sql("SELECT sentence FROM service_versions WHERE version_no = 3")
    assert "ended before" in sentence


def test_killing_a_replica_and_a_gateway_under_load_loses_next_to_nothing(home: Served) -> None:
    home.ask("POST", "/services/echo/scale", {"least": 2, "most": 2})
    home.until(READY, [(2,)])
    with home.clients(4).at_work() as clients:
        time.sleep(1)
        [(_, pid)] = home.sql(
            "SELECT r.run_id, l.pid FROM replicas r JOIN leases l USING (run_id) WHERE r.state = 'ready'"
            " AND l.state = 'active' LIMIT 1"
        )
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        time.sleep(2)
        home.kill("gateway-1")
        home.until(READY, [(2,)])
        time.sleep(2)
    assert clients.wrong == []
    assert len(clients.lost) <= max(1, clients.asked // 1000), clients.lost
    assert clients.last_lost_s - killed_s < 10


def test_what_was_served_is_metered_and_what_it_cost_is_told(home: Served) -> None:
    """The books of all the above: requests are usage, replicas are leases, nothing twice."""
    home.ask("POST", "/services/echo/stop", {})
    home.until("SELECT count(*)::int FROM leases WHERE state <> 'released'", [(0,)])
    home.until("SELECT count(*)::int FROM replicas WHERE state <> 'gone'", [(0,)])
    for run_id in (
        row[0] for row in home.sql("SELECT DISTINCT run_id FROM leases WHERE observed_from IS NOT NULL")
    ):
        home.check_metered(run_id)
    home.check_books()
    home.until(
        "SELECT (SELECT sum(quantity) FROM usage_events WHERE meter = 'requests')::bigint"
        " = (SELECT sum(requests - errors) FROM service_traffic)::bigint",
        [(True,)],
        100,
    )


def test_a_replica_answers_the_gateway_and_nobody_who_finds_its_port(home: Served) -> None:
    """Neither without a key nor with a good one; and what opens it lies nowhere, save the key that it follows from."""
    home.apply(
        "type: service\nname: kinds\nmodel: pkg:magika:models/standard_v3_3/model.onnx\nresources: {cpu: 1}\n"
    )
    found = (
        "SELECT run_id, address, port FROM replicas JOIN services USING (service_id)"
        " WHERE name = 'kinds' AND replicas.state = 'ready'"
    )
    home.until(f"SELECT count(*)::int FROM ({found}) AS ready", [(1,)])
    [(run_id, address, port)] = home.sql(found)
    place = urlsplit(home.gateway)
    good = {"authorization": f"Bearer {home.key}"}

    def asked(host: str | None, at: int | None, headers: dict[str, str]) -> int:
        with closing(http.client.HTTPConnection(host or "", at, timeout=30)) as line:
            line.request("GET", "/v2/models/kinds", headers=headers)
            return line.getresponse().status

    deadline = time.monotonic() + 10
    while asked(place.hostname, place.port, good) != 200:
        assert time.monotonic() < deadline, "the gateway has a replica and does not get through to it"
        time.sleep(0.1)
    assert [asked(address, port, headers) for headers in ({}, good)] == [401, 401]
    token = replica_token((home.data / "keys" / "replicas").read_bytes(), run_id)
    assert asked(address, port, {"authorization": f"Bearer {token}"}) == 200
    assert token not in json.dumps(home.run(run_id))
    for path in home.data.rglob("*"):
        with suppress(FileNotFoundError):
            assert not path.is_file() or token.encode() not in path.read_bytes(), path
    home.ask("POST", "/services/kinds/stop", {})
