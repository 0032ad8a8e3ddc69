"""A management controller on loopback: a saved tree that lives, with the manners and the ills of real ones.

    python -m tests.telemetry.redfish_server FOLDER --port 8043 --moving     to try things by hand

It serves a folder in the layout of DMTF's mockups (`redfish/v1/…/index.json`) or one JSON file of paths and resources:
sessions and basic authentication, `$expand`, ETags, an event stream, a limit of requests at once, beyond which it says
503, and, while it moves, metric reports made of the resources' present values. What shall go wrong is said per path in
`ills`.
"""

import argparse
import asyncio
import base64
import copy
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
USER, PASSWORD = "reader", "correct horse"

Tree = dict[str, dict[str, Any]]


def tree_of(source: Path) -> Tree:
    """The resources of a folder or a file by their paths."""
    if source.is_file():
        return json.loads(source.read_text(encoding="utf-8"))
    return {
        "/" + file.parent.relative_to(source).as_posix(): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(source.rglob("index.json"))
    }


def plain(path: str) -> str:
    return path.partition("#")[0].partition("?")[0].rstrip("/")


@dataclass(kw_only=True)
class Ill:
    """What is wrong with one path: the first of these that is set."""

    hangs: bool = False
    slow_s: float = 0.0
    status: int | None = None
    body: bytes | None = None  # answered as it is: garbage, half a JSON object, a list
    times: int = 1_000_000  # how often, before it is well again


@dataclass
class RedfishServer:
    """One controller. Change `tree` and `ills` from a test as it goes; look at the counts at the end."""

    tree: Tree
    is_moving: bool = False
    has_sessions: bool = True
    needs_login: bool = True
    can_expand: bool = True
    has_etags: bool = True
    etag_lies: bool = False
    at_once_max: int = 2
    page: int = 0  # members in one answer; 0: all
    ills: dict[str, Ill] = field(default_factory=dict)
    ill: Ill | None = None  # of every path but the login
    port: int = 0
    scheme: str = "http"
    # counted
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    refused_busy: int = 0
    unchanged: int = 0
    sessions: dict[str, str] = field(default_factory=dict)  # token → path
    sessions_made: int = 0
    most_sessions: int = 0
    logins_refused: int = 0
    streams: int = 0
    last_event_ids: list[str] = field(default_factory=list)
    _events: list[str] = field(default_factory=list)
    _cut: int = 0  # raised to end every stream
    _began_s: float = field(default_factory=time.monotonic)

    # ---- what a test does ---------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def put(self, path: str, pointer: str, value: Any) -> None:
        """Set one property, lists included."""
        *steps, last = pointer.lstrip("/").split("/")
        found: Any = self.tree[path]
        for step in steps:
            found = found[int(step)] if isinstance(found, list) else found.setdefault(step, {})
        if isinstance(found, list):
            found[int(last)] = value
        else:
            found[last] = value

    def drop(self, path: str, pointer: str) -> None:
        *steps, last = pointer.lstrip("/").split("/")
        found: Any = self.tree[path]
        for step in steps:
            found = found[int(step)] if isinstance(found, list) else found[step]
        found.pop(last, None)

    def leak(self, path: str) -> None:
        self.put(path, "/DetectorState", "LeakDetected")
        self.put(path, "/Status/Health", "Critical")

    def lose_supply(self, path: str) -> None:
        self.put(path, "/LineInputStatus", "LossOfInput")
        self.put(path, "/Status/Health", "Critical")
        self.put(path, "/Status/State", "UnavailableOffline")

    def expire(self) -> None:
        """All sessions end, as after a controller's restart."""
        self.sessions.clear()

    def tell(self, *events: Mapping[str, Any]) -> None:
        """Send events to whoever listens, now or later behind a Last-Event-ID."""
        number = len(self._events) + 1
        message = {
            "@odata.type": "#Event.v1_7_0.Event",
            "Id": str(number),
            "Name": "Event Log",
            "Events": [{"MemberId": str(place), **event} for place, event in enumerate(events)],
        }
        self._events.append(json.dumps(message))

    def tell_raw(self, data: str) -> None:
        self._events.append(data)

    def cut_streams(self) -> None:
        self._cut += 1

    def reset_counts(self) -> None:
        self.asked.clear()
        self.most_at_once = self.at_once

    # ---- what it answers ----------------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Response:
        path = plain(request.url.path)
        if path == SESSIONS and request.method == "POST":
            return await self._log_in(request)
        ask = path + (f"?{request.url.query}" if request.url.query else "")
        self.asked.append(ask)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.at_once > self.at_once_max:
                self.refused_busy += 1
                return Response(status_code=503, headers={"retry-after": "1"})
            if path != ROOT and not self._may(request):
                return Response(status_code=401)
            if path in self.sessions.values() and request.method == "DELETE":
                self.sessions = {token: where for token, where in self.sessions.items() if where != path}
                return Response(status_code=204)
            ill = self.ills.get(path, self.ill)
            if ill is not None and ill.times > 0:
                ill.times -= 1
                await self._linger(request, 3600.0 if ill.hangs else ill.slow_s)
                if ill.status is not None:
                    return Response(status_code=ill.status)
                if ill.body is not None:
                    return Response(ill.body, media_type="application/json")
            if path == plain(self.tree.get(f"{ROOT}/EventService", {}).get("ServerSentEventUri", "")):
                return self._stream(request)
            return self._resource(path, request)
        finally:
            self.at_once -= 1

    async def _linger(self, request: Request, wait_s: float) -> None:
        """Wait, until the asker has given up or the server ends."""
        until_s, cut = time.monotonic() + wait_s, self._cut
        while (left_s := until_s - time.monotonic()) > 0 and cut == self._cut:
            await asyncio.sleep(min(left_s, 0.02))
            if await request.is_disconnected():
                return

    def _resource(self, path: str, request: Request) -> Response:
        if path not in self.tree:
            return Response(status_code=404)
        expand = request.query_params.get("$expand", "")
        if expand and not self.can_expand:
            return Response(status_code=501)
        found = self.found(path, expand)
        if self.page and isinstance(found.get("Members"), list):
            found = self._paged(path, found, request)
        body = json.dumps(found).encode()
        etag = '"for-ever"' if self.etag_lies else f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"etag": etag} if self.has_etags else {}
        if self.has_etags and request.headers.get("if-none-match") == etag:
            self.unchanged += 1
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    def _paged(self, path: str, found: dict[str, Any], request: Request) -> dict[str, Any]:
        """A collection a page at a time, with the link to the next."""
        first = int(request.query_params.get("$skip", 0))
        found["Members@odata.count"] = len(found["Members"])
        found["Members"] = found["Members"][first : first + self.page]
        if first + self.page < found["Members@odata.count"]:
            expand = request.query_params.get("$expand", "")
            more = f"{path}?$skip={first + self.page}" + (f"&$expand={expand}" if expand else "")
            found["Members@odata.nextLink"] = more
        return found

    def found(self, path: str, expand: str = "") -> dict[str, Any]:
        """A resource at this moment, with what an `$expand` brings into it."""
        wanted = re.fullmatch(r"([*.])\(\$levels=(\d)\)", expand)
        found = self._now(path)
        return self._expanded(found, int(wanted[2]), with_links=wanted[1] == "*") if wanted else found

    def _expanded(self, found: Any, levels: int, *, with_links: bool) -> Any:
        if isinstance(found, dict):
            target = plain(str(found.get("@odata.id", "")))
            if set(found) == {"@odata.id"} and "#" not in found["@odata.id"] and target in self.tree:
                return (
                    self._expanded(self._now(target), levels - 1, with_links=with_links) if levels else found
                )
            return {
                name: each
                if name == "Links" and not with_links
                else self._expanded(each, levels, with_links=with_links)
                for name, each in found.items()
            }
        if isinstance(found, list):
            return [self._expanded(each, levels, with_links=with_links) for each in found]
        return found

    def _now(self, path: str) -> dict[str, Any]:
        """A resource at this moment: readings move, excerpts follow their sensors, reports quote what is."""
        found = copy.deepcopy(self.tree[path])
        if not self.is_moving:
            return found
        self._move(path, found)
        if "MetricValues" in found:
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
            for line in found["MetricValues"]:
                where, _, pointer = line["MetricProperty"].partition("#")
                raw = self._value(plain(where), pointer or "/Reading")
                if raw is not None:
                    line["MetricValue"] = f"{raw:.6f}" if isinstance(raw, float) else str(raw)
                    line["Timestamp"] = stamp
        return found

    def _value(self, path: str, pointer: str) -> Any:
        if path not in self.tree:
            return None
        found: Any = self._now(path)
        for step in pointer.lstrip("/").split("/"):
            found = found.get(step) if isinstance(found, dict) else None
        return found if isinstance(found, (int, float, str)) else None

    def _move(self, path: str, found: Any) -> None:
        if isinstance(found, list):
            for each in found:
                self._move(path, each)
        if not isinstance(found, dict):
            return
        source = plain(str(found.get("DataSourceUri", ""))) or path
        if isinstance(found.get("Reading"), (int, float)) and not isinstance(found["Reading"], bool):
            found["Reading"] = self._moved(source, found["Reading"])
        for each in found.values():
            self._move(path, each)

    def _moved(self, sensor: str, base: float) -> float:
        """Energies rise by half a kilowatt; all else swings by 3 % about where it was saved."""
        past_s = time.monotonic() - self._began_s
        if "nergy" in sensor:
            return round(base + 500.0 * past_s, 3)
        phase = int.from_bytes(hashlib.sha256(sensor.encode()).digest()[:2], "big")
        return round(base * (1 + 0.03 * math.sin(past_s / 5 + phase)), 4)

    # ---- letting in ---------------------------------------------------------------------------------------------

    def _may(self, request: Request) -> bool:
        if not self.needs_login or request.headers.get("x-auth-token") in self.sessions:
            return True
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        if kind != "Basic":
            return False
        return base64.b64decode(pair).decode() == f"{USER}:{PASSWORD}"

    async def _log_in(self, request: Request) -> Response:
        if not self.has_sessions:
            return Response(status_code=404)
        if await request.json() != {"UserName": USER, "Password": PASSWORD}:
            self.logins_refused += 1
            return Response(status_code=401)
        self.sessions_made += 1
        token, path = f"token-{self.sessions_made}", f"{SESSIONS}/{self.sessions_made}"
        self.sessions[token] = path
        self.most_sessions = max(self.most_sessions, len(self.sessions))
        return Response(
            json.dumps({"@odata.id": path}),
            status_code=201,
            media_type="application/json",
            headers={"x-auth-token": token, "location": path},
        )

    # ---- events -------------------------------------------------------------------------------------------------

    def _stream(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        self.last_event_ids.append(last)
        return StreamingResponse(self._sent(int(last or 0), self._cut), media_type="text/event-stream")

    async def _sent(self, after: int, cut: int) -> AsyncIterator[str]:
        self.at_once += 1  # it goes on after `answer` has returned
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.streams += 1
        try:
            yield ": hello\n\n"
            while cut == self._cut:
                for number in range(after, len(self._events)):
                    yield f"id: {number + 1}\ndata: {self._events[number]}\n\n"
                    after = number + 1
                await asyncio.sleep(0.02)
        finally:
            self.at_once -= 1
            self.streams -= 1


@contextmanager
def serving(server: RedfishServer, *, tls: tuple[Path, Path] | None = None) -> Iterator[RedfishServer]:
    """The server on a free port of loopback, until the end of the block."""
    app = Starlette(
        routes=[Route("/{path:path}", server.answer, methods=["GET", "POST", "DELETE"])],
    )
    config = uvicorn.Config(
        app, host="127.0.0.1", port=server.port, log_level="warning", timeout_graceful_shutdown=1
    )
    if tls is not None:
        server.scheme, config.ssl_certfile, config.ssl_keyfile = "https", str(tls[0]), str(tls[1])
    engine = uvicorn.Server(config)
    thread = threading.Thread(target=engine.run, daemon=True)
    thread.start()
    deadline_s = time.monotonic() + 20
    while not engine.started:
        assert time.monotonic() < deadline_s, "the server does not start"
        time.sleep(0.01)
    server.port = engine.servers[0].sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.cut_streams()
        engine.should_exit = True
        thread.join(5)
        if thread.is_alive():
            engine.force_exit = True
            thread.join(5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tree", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--moving", action="store_true")
    parser.add_argument("--open", action="store_true", help="without a login")
    asked = parser.parse_args()
    server = RedfishServer(
        tree=tree_of(asked.tree), is_moving=asked.moving, needs_login=not asked.open, port=asked.port
    )
    with serving(server):
        print(f"{server.url}  user {USER!r}, password {PASSWORD!r}; Ctrl-C ends it", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
