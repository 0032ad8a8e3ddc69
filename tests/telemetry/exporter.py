"""An exporter on loopback that serves what a test tells it to, whole, cut, slowly, or never."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackExporter:
    """Serves `text` at /metrics."""

    def __init__(self, text: bytes = b"") -> None:
        self.text = text
        self.status = 200
        self.type = "text/plain; version=0.0.4"
        self.cut_at: int | None = None  # promises the whole length, sends so much of it
        self.before: Callable[[], None] = lambda: None
        self.asked = 0
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                exporter.asked += 1
                exporter.before()
                self.send_response(exporter.status)
                self.send_header("content-type", exporter.type)
                self.send_header("content-length", str(len(exporter.text)))
                self.end_headers()
                self.wfile.write(exporter.text[: exporter.cut_at])
                self.close_connection = exporter.cut_at is not None

        class Http(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...

        self._http = Http(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/metrics"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
