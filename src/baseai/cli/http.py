"""The platform as the terminal sees it: requests that go out, answers that come back, and what can go wrong.

Invariant: every failure of the wire is one of three faults (nobody answers, the key is not accepted, the platform
has a problem with the request), each one sentence. A write that may be repeated carries its key of idempotency.
"""

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from baseai.cli.connection import Connection, is_loopback
from baseai.ground.fault import Fault, Refused

if TYPE_CHECKING:
    import httpx
    from pydantic import BaseModel

    from baseai.api.schemas import Problem

    Shape = TypeVar("Shape", bound=BaseModel)

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
BUSY = frozenset({502, 503, 504})  # somebody answers, but not the platform: it is starting or gone


class NoPlatform(Fault):
    """Nobody answers at the address."""

    retryable = True

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        because = f" ({self.why})" if self.why else ""
        return f"no platform answers at {self.url}{because}; start one with `baseai up`"


class KeyRefused(Fault):
    """The platform does not accept the key; it never says why."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return f"the key is not accepted by {self.url}; give another with --key or BASEAI_KEY"


class Declined(Fault):
    """The platform has a problem with the request, in its own words (RFC 9457)."""

    def __init__(self, status: int, document: str) -> None:
        super().__init__(status, document)
        self.status = status
        self.document = document  # as it came

    @property
    def is_outage(self) -> bool:
        """Whether the platform answers but is not itself: its database is away, or it is just starting."""
        return self.status >= 500

    @property
    def is_bad_input(self) -> bool:
        return self.status in (400, 413, 415, 422)

    def problem(self) -> "Problem":
        from pydantic import ValidationError

        from baseai.api.schemas import Problem

        try:
            return Problem.model_validate_json(self.document)
        except ValidationError:
            return Problem(
                title=f"status {self.status}", status=self.status, detail=self.document[:300].strip()
            )

    def __str__(self) -> str:
        problem = self.problem()
        lines = [f"{e.file}:{e.line}:{e.column} {e.key}: {e.message} — {e.fix}" for e in problem.errors]
        # With a list of errors the detail repeats them; without one the title only names the kind.
        head = problem.title if lines or not problem.detail else problem.detail
        return "\n".join([head, *lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, when it is not a problem."""

    status: int
    body: bytes
    headers: Mapping[str, str]  # names in lower case

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def read(self, shape: "type[Shape]") -> "Shape":
        """The body as one shape. Raises Declined when server and terminal do not speak of the same thing."""
        from pydantic import ValidationError

        try:
            return shape.model_validate_json(self.body)
        except ValidationError as wrong:
            raise Declined(
                self.status, f"the answer is not a {shape.__name__}; is the server of another version?"
            ) from wrong

    def items(self, shape: "type[Shape]") -> "tuple[list[Shape], str | None]":
        """The items of a list and the cursor of its next page."""
        from pydantic import ValidationError

        from baseai.api.schemas import Page

        page = self.read(Page)
        try:
            return [shape.model_validate(item) for item in page.items], page.next
        except ValidationError as wrong:
            raise Declined(
                self.status, f"an item is not a {shape.__name__}; is the server of another version?"
            ) from wrong


class Platform:
    """One platform, spoken to over one kept connection. Close it, or use it in a `with`."""

    def __init__(self, connection: Connection, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.connection = connection
        self.sleep = sleep
        self._client: httpx.Client | None = None

    def __enter__(self) -> "Platform":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def page_url(self, run_id: str) -> str:
        """Where a browser sees the run."""
        return f"{self.connection.url}/runs/{run_id}"

    def get(self, path: str, **query: object) -> Answer:
        return self.send("GET", path, query=query)

    def post(self, path: str, document: object = None, **query: object) -> Answer:
        return self.send("POST", path, query=query, document={} if document is None else document)

    def has(self, path: str) -> bool:
        """Whether a HEAD finds the thing."""
        try:
            self.send("HEAD", path)
        except Declined as wrong:
            if wrong.status == 404:
                return False
            raise
        return True

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        document: object = None,
        content: "bytes | Iterable[bytes] | None" = None,
        content_bytes: int | None = None,
        idempotency_key: str | None = None,
        wait_s: float = 0.0,
        allow: frozenset[int] = frozenset(),
    ) -> Answer:
        """One request under /api/v1. A write with an idempotency key is tried three times, all else once.

        content: raw bytes for the body instead of a JSON document; `content_bytes` their number if they are a stream.
        wait_s: how much longer than usual the platform may think (a long poll).
        allow: statuses that count as answers although they say that something is wrong.
        """
        import httpx

        headers: dict[str, str] = {}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        if content_bytes is not None:
            headers["Content-Length"] = str(content_bytes)
        body: dict[str, Any] = {"json": document} if document is not None else {}
        if content is not None:
            body = {"content": content}
            headers["Content-Type"] = "application/octet-stream"
        asked = {name: _query_text(value) for name, value in (query or {}).items() if value is not None}
        tries = 3 if idempotency_key else 1
        for attempt in range(tries):
            try:
                reply = self._open().request(
                    method,
                    f"/api/v1{path}",
                    params=asked,
                    headers=headers,
                    timeout=httpx.Timeout(ANSWER_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S),
                    **body,
                )
                break
            except httpx.TransportError as wrong:
                if isinstance(wrong, httpx.ConnectError) or attempt == tries - 1:
                    raise NoPlatform(self.connection.url, _why(wrong)) from wrong
                self.sleep(0.5 * (attempt + 1))
        else:
            raise AssertionError("the loop either answers or raises")
        if reply.status_code == 401:
            raise KeyRefused(self.connection.url)
        if reply.status_code >= 300 and reply.status_code not in allow:
            if reply.status_code in BUSY and "problem+json" not in reply.headers.get("content-type", ""):
                raise NoPlatform(self.connection.url, f"status {reply.status_code}")
            raise Declined(reply.status_code, reply.text)
        return Answer(
            status=reply.status_code,
            body=reply.content,
            headers={name.lower(): value for name, value in reply.headers.items()},
        )

    def _open(self) -> "httpx.Client":
        import httpx

        if self._client is None:
            self._client = httpx.Client(
                base_url=self.connection.url,
                headers={"Authorization": f"Bearer {self.connection.key}", "User-Agent": "baseai"},
                verify=self._trust() if self.connection.url.startswith("https:") else False,
                trust_env=not self.connection.loopback,  # a proxy never serves this machine itself
            )
        return self._client

    def client_of(self, url: str) -> "httpx.Client":
        """A client for another address that this platform named, which trusts whom this connection does."""
        import httpx

        return httpx.Client(
            verify=self._trust() if url.startswith("https:") else False,
            trust_env=not is_loopback(url),
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    def _trust(self) -> ssl.SSLContext:
        trust = ssl.create_default_context()
        if self.connection.ca_file is not None:
            try:
                trust.load_verify_locations(cafile=self.connection.ca_file)
            except OSError as wrong:
                raise Refused(f"{self.connection.ca_file} is no readable certificate file") from wrong
        return trust


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _why(wrong: Exception) -> str:
    """The world's own words, short: `Connection refused`, `timed out`."""
    text = str(wrong).strip() or type(wrong).__name__
    return text.removeprefix("[Errno 111] ").removeprefix("[Errno 61] ").split("\n")[0][:160]
