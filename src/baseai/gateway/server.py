"""The server is one gateway process on a socket that it was given: HTTP/1.1, kept alive, bounded, drained when it ends.

Invariant: it opens no port and reads no setting of its own. A head that is too long or too slow ends its connection
before any request exists; at SIGTERM nothing new is accepted and what is under way ends, for a bounded time.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from baseai.gateway.app import GatewayApp

CUT_ON_PURPOSE = "ASGI callable returned without completing response."
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What bounds connections."""

    keep_alive_s: int = 75  # longer than the 60 s of common balancers in front, so that they close first
    drain_s: int = 30  # for what is under way when the process is told to end
    head_s: float = 20.0  # for the first request's head to arrive
    most_head_bytes: int = 64 << 10  # of a request; a longer one is answered 431
    most_connections: int = 10_000  # more are answered 503 at once
    tls_cert: str | None = None  # certificate chain, PEM
    tls_key: str | None = None  # its private key, PEM


def gateway_server(app: GatewayApp, settings: ServerSettings | None = None) -> uvicorn.Server:
    """A server that `serve_gateway` runs; setting its `should_exit` ends it like SIGTERM."""
    bounds = settings or ServerSettings()
    logging.getLogger("uvicorn.error").addFilter(_not_on_purpose)
    return _Drained(
        uvicorn.Config(
            app,
            http=_bounded(bounds),
            loop="uvloop",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=bounds.keep_alive_s,
            timeout_graceful_shutdown=bounds.drain_s,
            limit_concurrency=bounds.most_connections,
            ssl_certfile=bounds.tls_cert,
            ssl_keyfile=bounds.tls_key,
        )
    )


async def serve_gateway(
    listening: socket.socket, app: GatewayApp, settings: ServerSettings | None = None
) -> None:
    """Serve on `listening` until told to end by SIGTERM or SIGINT, then drain.

    From here on these signals are heard here alone: whoever heard them before would cut short what is under way, or
    what the caller still has to do.
    """
    gc.collect()
    gc.freeze()  # what stands at the start stays: looking through it again would make some request wait
    server = gateway_server(app, settings)

    def end() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await server.serve(sockets=[listening])
    app.door.close()


class _Drained(uvicorn.Server):
    """A server that hears no signals itself: it would raise them again once it has drained."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _not_on_purpose(record: logging.LogRecord) -> bool:
    """An answer that was cut short is counted in the journal and is no error of this process."""
    return record.getMessage() != CUT_ON_PURPOSE


def _bounded(bounds: ServerSettings) -> type[asyncio.Protocol]:
    """The server's protocol with a bound on heads, which it has not by itself."""

    class BoundedProtocol(HttpToolsProtocol):
        """One client's connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._head_bytes = 0
            self._head_read = False
            self._head_due = self.loop.call_later(bounds.head_s, self._head_late)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_due.cancel()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._head_bytes = 0
            self._head_read = False
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + 4)
            if not self._head_read:  # what comes behind a body is no part of the head, and says nothing here
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._head_due.cancel()
            self._head_read = True
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            if self._head_bytes > bounds.most_head_bytes:
                self.transport.write(TOO_LONG)
                self.transport.close()
            else:
                super().send_400_response(msg)

        def _count(self, length: int) -> None:
            self._head_bytes += length
            if self._head_bytes > bounds.most_head_bytes:
                raise ValueError("the request's head is too long")

        def _head_late(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return BoundedProtocol
