"""A loaded engine behind a real uvicorn on loopback, in a thread of this process."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import uvicorn

from baseai.workloads.inference.engine import Engine
from baseai.workloads.inference.server.app import App, Terms, asgi_app

WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """One application that answers, and who asks it."""

    app: App
    url: str
    http: httpx.Client
    client: openai.OpenAI  # the official one

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self.http.post(path, **given)


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """Any ASGI application behind uvicorn; where it listens."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, lifespan="off", ws="none", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(WAIT_S)


def client_of(url: str) -> openai.OpenAI:
    """The official client; it repeats nothing by itself."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@contextlib.contextmanager
def serving(engine: Engine, **terms: Any) -> Iterator[Served]:
    """Loads nothing: the engine is given loaded."""
    app = asgi_app(engine, Terms(**terms))
    with (
        listening(app) as url,
        httpx.Client(base_url=url, timeout=WAIT_S) as http,
        client_of(url) as client,
    ):
        yield Served(app, url, http, client)


def until(holds: Any) -> None:
    """Returns once it holds. Raises AssertionError where it does not within the wait."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to hold"
        time.sleep(0.005)
