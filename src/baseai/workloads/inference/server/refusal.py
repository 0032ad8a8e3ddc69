"""A refusal is how a replica says no: a status, a sentence, and where in the request the reason lies.

Invariant: one refusal, three spellings, each its protocol's own: OpenAI's error object, the Open Inference Protocol's
`{"error": sentence}`, and a problem of RFC 9457. No traceback leaves; what is no fault by name is a bug and says so.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from baseai.ground.fault import Fault
from baseai.workloads.inference.engine import (
    BadInput,
    Busy,
    CallableFailed,
    DeadlineOver,
    TooLong,
    WrongValue,
)

Headers = tuple[tuple[bytes, bytes], ...]

USELESS: Headers = ((b"x-should-retry", b"false"),)
"""Tells the official client not to repeat what would be answered the same."""

TITLES = {
    400: "Bad request",
    401: "Not the gateway",
    404: "Not found",
    405: "Method not allowed",
    413: "Body too large",
    422: "Wrong value",
    500: "The model failed",
    503: "For a moment not available",
    504: "The deadline is over",
}


class BodyTooLarge(Fault):
    """A body has more bytes than the service takes."""

    def __init__(self, most_bytes: int, size_bytes: int | None) -> None:
        super().__init__(most_bytes, size_bytes)
        self.most_bytes = most_bytes
        self.size_bytes = size_bytes  # None: the body was not read to its end

    def __str__(self) -> str:
        size = "more" if self.size_bytes is None else f"{self.size_bytes:,}"
        return f"this service takes bodies of {self.most_bytes:,} bytes at most, and this one has {size}"


class NotTheGateway(Fault):
    """A request without the token of this replica's run."""

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "this replica answers its gateway alone; call the service at the gateway's address, with a key"


class UnknownModel(Fault):
    """A request names a model, or a version of it, that this replica does not have."""

    def __init__(self, model: str, known: str, version: str | None = None) -> None:
        super().__init__(model, known, version)
        self.model = model
        self.known = known
        self.version = version

    def __str__(self) -> str:
        if self.version is not None:
            return f"model {self.model} has no version {self.version} here; ask for version {self.known}"
        return f"there is no model {self.model} here; this is {self.known}"


class NotOffered(Fault):
    """A route that exists nowhere, or not for this kind of model."""

    def __init__(self, method: str, path: str, offered: tuple[str, ...]) -> None:
        super().__init__(method, path, offered)
        self.method = method
        self.path = path
        self.offered = offered

    def __str__(self) -> str:
        return f"{self.method} {self.path} is not offered for this model; there are {', '.join(self.offered)}"


class WrongMethod(Fault):
    """A route that is offered, asked in the wrong way."""

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(method, path, allowed)
        self.method = method
        self.path = path
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.path} takes {self.allowed}, not {self.method}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the three spellings are made of."""

    status: int
    sentence: str
    code: str  # for programs
    param: str | None = None
    headers: Headers = ()

    @property
    def is_ours(self) -> bool:
        """Whether the replica failed, rather than the request."""
        return self.status == 500


def refusal_of(wrong: Exception) -> Refusal:
    """How an exception is told. What is no fault by name is the model's failure: its class is said, not its text."""
    sentence = str(wrong)
    match wrong:
        case TooLong():
            return Refusal(status=400, sentence=sentence, code="context_length_exceeded", headers=USELESS)
        case WrongValue():
            return Refusal(
                status=422, sentence=sentence, code=wrong.code or "invalid_value", param=wrong.param
            )
        case BadInput():
            return Refusal(
                status=400, sentence=sentence, code=wrong.code or "invalid_value", param=wrong.param
            )
        case NotTheGateway():
            # The body is not read, so the connection cannot be used again.
            headers = ((b"www-authenticate", b"Bearer"), (b"connection", b"close"), *USELESS)
            return Refusal(status=401, sentence=sentence, code="not_the_gateway", headers=headers)
        case UnknownModel():
            return Refusal(status=404, sentence=sentence, code="model_not_found", param="model")
        case NotOffered():
            return Refusal(status=404, sentence=sentence, code="not_offered")
        case WrongMethod():
            allow = ((b"allow", wrong.allowed.encode()),)
            return Refusal(status=405, sentence=sentence, code="method_not_allowed", headers=allow)
        case BodyTooLarge():
            # The rest of the body is not read, so the connection cannot be used again.
            close = ((b"connection", b"close"),)
            return Refusal(status=413, sentence=sentence, code="body_too_large", headers=close)
        case Busy():
            return Refusal(
                status=503, sentence=sentence, code="replica_busy", headers=_after(wrong.retry_after_s)
            )
        case DeadlineOver():
            return Refusal(status=504, sentence=sentence, code="deadline_over", headers=USELESS)
        case CallableFailed():
            return Refusal(status=500, sentence=sentence, code="callable_failed")
        case _:
            sentence = f"the model failed on this request ({type(wrong).__name__}); its log says how"
            return Refusal(status=500, sentence=sentence, code="model_failed")


def _after(wait_s: float) -> Headers:
    return (
        (b"retry-after", b"%d" % max(1, round(wait_s))),
        (b"retry-after-ms", b"%d" % max(1, round(1000 * wait_s))),
    )


Spelling = Callable[[Refusal], bytes]


def openai_error(refusal: Refusal) -> bytes:
    """`{"error": {message, type, param, code}}`."""
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    error = {"message": refusal.sentence, "type": kind, "param": refusal.param, "code": refusal.code}
    return json.dumps({"error": error}).encode()


def oip_error(refusal: Refusal) -> bytes:
    """`{"error": sentence}`."""
    return json.dumps({"error": refusal.sentence}).encode()


def problem(refusal: Refusal) -> bytes:
    """A problem of RFC 9457."""
    told = {"type": "about:blank", "title": TITLES[refusal.status], "status": refusal.status}
    return json.dumps(told | {"detail": refusal.sentence, "code": refusal.code}).encode()
