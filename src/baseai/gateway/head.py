"""A head is the first part of a message: what of a client's goes to a replica, and what of a replica's to the client.

Invariant: what is of one connection stays with it (RFC 9110, 7.6.1), a client's key never reaches a replica, and no
side can pretend to be the gateway: every `x-baseai-…` on the other side was written here, and so was the token by
which a replica knows its gateway.
"""

import re
from collections.abc import Iterable

from baseai.gateway.address import Kind

Pairs = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What the gateway writes itself, whichever way the message goes.
OURS = frozenset({b"x-request-id", b"cache-status", b"content-length"})
NOT_TO_REPLICA = HOP_BY_HOP | OURS | {b"host", b"expect", b"authorization", b"api-key", b"x-api-key"}
NOT_TO_CLIENT = HOP_BY_HOP | OURS - {b"content-length"} | {b"date", b"server"}
# Of a known protocol's requests nothing else means anything to a replica.
KNOWN = frozenset(
    {
        b"accept",
        b"accept-language",
        b"baggage",
        b"content-encoding",
        b"content-type",
        b"inference-header-content-length",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-session-id",
    }
)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class Incoming:
    """The headers of one request that the gateway itself looks at."""

    __slots__ = (
        "authorization",
        "cache_control",
        "content_length",
        "content_type",
        "expects",
        "request_id",
        "session",
        "timeout_ms",
    )

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.authorization: bytes | None = None
        self.cache_control = b""
        self.content_length: bytes | None = None
        self.content_type = b""
        self.expects = False  # the client sends the body only when he is told to
        self.request_id: bytes | None = None
        self.session: bytes | None = None
        self.timeout_ms: bytes | None = None
        for name, value in headers:
            if name == b"authorization":
                self.authorization = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.content_length = value
            elif name == b"x-request-id":
                self.request_id = value
            elif name == b"x-session-id":
                self.session = value[:256] or None
            elif name == b"cache-control":
                self.cache_control = self.cache_control + b", " + value if self.cache_control else value
            elif name == b"expect":
                self.expects = True
            elif name == b"x-baseai-timeout-ms":
                self.timeout_ms = value


def request_id_of(offered: bytes | None) -> str | None:
    """The client's own name for its request, where it is one that a log can hold."""
    if offered is None or REQUEST_ID.fullmatch(offered) is None:
        return None
    return offered.decode("ascii")


def head_for_replica(
    *,
    kind: Kind,
    method: str,
    path: bytes,
    query: bytes,
    host: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    own: bytes,
    length: int | None,
    token: bytes,
    keeps_key: bool,
) -> bytes:
    """The head of the request that a replica gets.

    own: lines that the gateway adds, each with its end. length: of the body; None: the request has none.
    token: by which the replica knows its gateway; empty: it asks for none. keeps_key: `authorization` is between the
    client and a program of the tenant's own, which is shown the token beside it.
    """
    lines = [method.encode(), b" ", path]
    if query:
        lines += (b"?", query)
    lines += (b" HTTP/1.1\r\nhost: ", host, b"\r\n")
    if kind == "raw":
        dropped = NOT_TO_REPLICA | _named_by_connection(headers)
        if keeps_key:
            dropped -= {b"authorization", b"api-key", b"x-api-key"}
        for name, value in headers:
            if name not in dropped and not name.startswith(b"x-baseai-"):
                lines += (name, b": ", value, b"\r\n")
    else:
        for name, value in headers:
            if name in KNOWN or (keeps_key and name == b"authorization"):
                lines += (name, b": ", value, b"\r\n")
    lines.append(own)
    if token:
        lines += (b"x-baseai-replica-token: " if keeps_key else b"authorization: Bearer ", token, b"\r\n")
    if length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"\r\n")
    return b"".join(lines)


def head_for_client(headers: Pairs) -> tuple[Pairs, bytes, bytes]:
    """What the client gets of a replica's headers; its content type; and what it told of usage (empty: nothing)."""
    passed: Pairs = []
    content_type = usage = b""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name in NOT_TO_CLIENT:
            if name == b"connection":
                named = _named_by_connection(headers)
        elif name == b"x-baseai-usage":
            usage = value
        elif not name.startswith(b"x-baseai-"):
            if name == b"content-type":
                content_type = value
            passed.append((name, value))
    if named - HOP_BY_HOP - {b"close"}:
        passed = [pair for pair in passed if pair[0] not in named]
    return passed, content_type, usage


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that `connection` says are of this connection only."""
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
        if token.strip().lower() not in (b"content-type", b"content-length")
    )
