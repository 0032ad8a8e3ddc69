"""Pages over a platform in memory, served by a real server on loopback in a thread of its own."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from baseai.web.pages import router
from baseai.web.visit import SESSION_COOKIE
from tests.web.platform import RUN, Platform


@contextmanager
def served(platform: Platform) -> Iterator[str]:
    """The address of a page that signs in and goes on to the run."""
    app = FastAPI()
    app.include_router(router(platform.doors(demo=True)))

    @app.get("/enter")
    async def enter() -> RedirectResponse:
        answer = RedirectResponse(f"/runs/{RUN}?lang=pt-BR")
        answer.set_cookie(SESSION_COOKIE, "ses_open", httponly=True, samesite="strict")
        return answer

    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [line]}, daemon=True)
        thread.start()
        until = time.monotonic() + 15
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{line.getsockname()[1]}/enter"
        finally:
            server.should_exit = True
            thread.join(15)
