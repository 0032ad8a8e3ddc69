"""The link is the agent's way to the server: it only dials out, and every answer is a value or a fault.

Invariant: the node key travels over TLS, or to this machine alone; repeating any call is harmless.
Outside thing touched: the network.
"""

import contextlib
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from baseai.api.schemas import (
    Desired,
    Join,
    Joined,
    Kept,
    LogOffset,
    Measured,
    NodeFacts,
    Report,
    Reported,
)
from baseai.ground.fault import Fault, Refused

CONNECT_S = 5.0
ANSWER_S = 20.0
GZIP_FROM_BYTES = 1024


class ServerAway(Fault):
    """The server could not be reached, or could not answer."""

    retryable = True

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        return f"no answer from {self.url}: {self.why}"


class KeyRevoked(Fault):
    """The server does not take this node's key."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return f"{self.url} does not take this node's key; it was revoked, or the node was removed"


class TokenUsed(Fault):
    """The join token was used before."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(url, detail)
        self.url = url
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.url} refused to let this node join: {self.detail}; ask an operator for a new token"


class ServerRefused(Fault):
    """The server understood and said no."""

    def __init__(self, url: str, status: int, detail: str) -> None:
        super().__init__(url, status, detail)
        self.url = url
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.url} said {self.status}: {self.detail}"


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_url(url: str) -> str:
    """The server's address without a trailing slash. Raises Refused when a key would travel in the clear."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise Refused(f"{url!r} is not an address of a server; write it like https://baseai.example:8443")
    if parts.scheme == "http" and not is_loopback(host):
        raise Refused(
            f"{url} would send the node's key unprotected; use https:// (http is for this machine only)"
        )
    return url.rstrip("/")


class Link:
    """Calls to one server, over connections that are kept."""

    def __init__(self, url: str, *, ca_file: Path | None = None, node_key: str | None = None) -> None:
        self.url = checked_url(url)
        verify: ssl.SSLContext | bool = True
        if self.url.startswith("https") and ca_file is not None:
            try:
                verify = ssl.create_default_context(cafile=str(ca_file))
            except OSError as error:
                raise Refused(f"the certificate file {ca_file} cannot be used: {error}") from None
        elif self.url.startswith("http:"):
            verify = False  # nothing to verify: no TLS on the way to this machine itself
        self._http = httpx.AsyncClient(
            base_url=self.url,
            verify=verify,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=60.0),
            trust_env=not is_loopback(urlsplit(self.url).hostname or ""),
        )
        self._node_key = node_key
        self._packs = True  # whether the server takes a body packed with gzip, as far as is known

    def use_key(self, node_key: str) -> None:
        self._node_key = node_key

    async def close(self) -> None:
        await self._http.aclose()

    async def join(self, join: Join) -> Joined:
        answer = await self._call("POST", "/api/v1/agent/join", body=join.model_dump_json(), keyed=False)
        return Joined.model_validate_json(answer.content)

    async def tell_facts(self, facts: NodeFacts) -> None:
        await self._call("POST", "/api/v1/agent/facts", body=facts.model_dump_json())

    async def fetch_desired(self, *, version: int, wait_s: float) -> Desired:
        """The desired state, at once when it is not `version`, else when it changes or after `wait_s`."""
        query = {"version": str(version), "wait_s": f"{wait_s:g}"}
        answer = await self._call("GET", "/api/v1/agent/desired", query=query, answer_s=wait_s + ANSWER_S)
        return Desired.model_validate_json(answer.content)

    async def report(self, report: Report) -> Reported:
        answer = await self._call("POST", "/api/v1/agent/report", body=report.model_dump_json())
        return Reported.model_validate_json(answer.content)

    async def send_measured(self, measured: Measured) -> Kept:
        """Send samples and witnesses; the answer says which of them are safe. Packed, where the server takes that."""
        path = "/api/v1/agent/telemetry"
        body = measured.model_dump_json(exclude_defaults=True).encode()
        if self._packs and len(body) >= GZIP_FROM_BYTES:
            packed = gzip.compress(body, compresslevel=1, mtime=0)
            try:
                answer = await self._call("POST", path, body=packed, packed=True)
                return Kept.model_validate_json(answer.content)
            except ServerRefused as refused:
                if refused.status not in (400, 415, 422):
                    raise
        answer = await self._call("POST", path, body=body.decode())
        if len(body) >= GZIP_FROM_BYTES:
            self._packs = False  # it took plainly what it had not taken packed
        return Kept.model_validate_json(answer.content)

    async def send_log(self, lease_id: str, stream: str, *, offset: int, chunk: bytes) -> int:
        """Send a piece of a log; the answer is where the server wants the next one to begin."""
        path = f"/api/v1/agent/logs/{lease_id}/{stream}"
        answer = await self._call(
            "POST", path, query={"offset": str(offset)}, body=chunk, takes=(200, 201, 409)
        )
        return LogOffset.model_validate_json(answer.content).next_offset

    async def fetch_file(self, digest: str) -> AsyncIterator[bytes]:
        path = f"/api/v1/agent/files/{digest}"
        try:
            async with self._http.stream("GET", path, headers=self._headers()) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    self._check(answer, (200,))
                async for chunk in answer.aiter_bytes(1 << 16):
                    yield chunk
        except httpx.HTTPError as error:
            raise ServerAway(self.url, str(error) or type(error).__name__) from None

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._node_key}"} if self._node_key else {}

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: str | bytes | None = None,
        query: dict[str, str] | None = None,
        keyed: bool = True,
        packed: bool = False,
        answer_s: float = ANSWER_S,
        takes: tuple[int, ...] = (200, 201, 202, 204),
    ) -> httpx.Response:
        headers = self._headers() if keyed else {}
        if isinstance(body, str) or packed:
            headers["content-type"] = "application/json"
            if packed:
                headers["content-encoding"] = "gzip"
        elif body is not None:
            headers["content-type"] = "application/octet-stream"
        try:
            answer = await self._http.request(
                method,
                path,
                content=body,
                params=query,
                headers=headers,
                timeout=httpx.Timeout(answer_s, connect=CONNECT_S),
            )
        except httpx.HTTPError as error:
            raise ServerAway(self.url, str(error) or type(error).__name__) from None
        self._check(answer, takes)
        return answer

    def _check(self, answer: httpx.Response, takes: tuple[int, ...]) -> None:
        if answer.status_code in takes:
            return
        detail = _detail(answer)
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise ServerAway(self.url, f"status {answer.status_code}: {detail}")
        if answer.status_code == 401:
            raise KeyRevoked(self.url)
        if answer.status_code == 409:
            raise TokenUsed(self.url, detail)
        raise ServerRefused(self.url, answer.status_code, detail)


def _detail(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        found = answer.json()
        return str(found.get("detail") or found.get("title") or "")[:500]
    return answer.text[:200]
