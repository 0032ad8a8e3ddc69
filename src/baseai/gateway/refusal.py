"""A refusal is the gateway's own no: a status, a code for programs and a sentence for people.

Invariant: a refusal says what is wrong and what to do, and whether repeating can help; it names nothing of others.
Made where the no is known; `body_of` alone knows how each protocol writes it.
"""

import json
import math
from typing import NamedTuple

from baseai.gateway.address import Kind
from baseai.gateway.seams import Headers

GONE = 499  # what is written down for a client who left before he was answered; nobody is ever sent it


class Refusal(NamedTuple):
    """Why there is no answer of a replica."""

    status: int
    code: str
    sentence: str
    retry_after_s: float | None = None  # when repeating can help; None: not said
    hopeless: bool = False  # repeating the same never helps
    param: str | None = None  # which field of the request is meant
    headers: Headers = ()
    closes: bool = False  # the rest of the request is not read, so the connection cannot go on
    lost: bool = False  # a replica should have answered, so it counts against the service


JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")

# OpenAI's clients tell errors by status; `type` is for people who read them.
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

# RFC 9457: without a type of its own a problem's title is the status's phrase; it is shorter to name what we send.
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def body_of(refusal: Refusal, kind: Kind, request_id: str) -> bytes:
    """The refusal as clients of the protocol expect errors."""
    if kind == "openai":
        return json.dumps({"error": error_of(refusal)}).encode()
    if kind == "oip":
        return json.dumps({"error": refusal.sentence}).encode()
    return json.dumps(
        {
            "type": "about:blank",
            "title": TITLES.get(refusal.status, "Error"),
            "status": refusal.status,
            "detail": refusal.sentence,
            "code": refusal.code,
            "request_id": request_id,
        }
    ).encode()


def error_of(refusal: Refusal) -> dict[str, str | None]:
    """The object that OpenAI's clients find under `error`, in an answer as in an event of a stream."""
    fallback = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return {
        "message": refusal.sentence,
        "type": TYPES.get(refusal.status, fallback),
        "param": refusal.param,
        "code": refusal.code,
    }


def headers_of(refusal: Refusal, kind: Kind, length: int) -> list[tuple[bytes, bytes]]:
    """Head of a refusal: its type, when to come back, whether at all."""
    headers = [JSON if kind in ("openai", "oip") else PROBLEM, (b"content-length", b"%d" % length)]
    headers += refusal.headers
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(refusal.retry_after_s))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(refusal.retry_after_s * 1000))))
    if refusal.hopeless:
        headers.append((b"x-should-retry", b"false"))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="baseai"'))
    if refusal.closes:
        headers.append((b"connection", b"close"))
    return headers
