"""A protocol is how clients of one kind ask and are answered: where the model's name stands, what may be repeated,
where usage is told.

Invariant: a body is parsed at most once, and only where its protocol needs it; what goes to the replica are the
client's own bytes, save where the gateway has to ask for more than the client did. Read by the path; nobody changes it.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from baseai.gateway.address import Address, Kind
from baseai.gateway.refusal import Refusal

MOST_DIGITS = 12  # of a number of tokens; a longer one is none
TAIL = 16 << 10  # bytes at an answer's end in which usage is looked for
TELLS_USAGE = (b"/v1/chat/completions", b"/v1/completions")  # streams that know `stream_options`
FORMS = (
    b"/v1/audio/",
    b"/v1/images/",
    b"/v1/files",
)  # bodies that are forms, not JSON; only by /s/SERVICE_ID
INFERENCE = ("openai", "oip", "json")  # asking these twice is asking once: nothing is kept of a question


class Asked(NamedTuple):
    """A request as far as the gateway has to understand it."""

    model: str | None = None
    stream: bool = False
    hides_usage: bool = False  # the gateway asks for usage that the client did not want to see
    body: Mapping[str, Any] | None = None  # parsed; None where nothing needed it


class Usage(NamedTuple):
    """Tokens that an answer says it took."""

    tokens_in: int
    tokens_out: int


NOTHING_ASKED = Asked()
_DECODER = json.JSONDecoder()


def asked_of(address: Address, method: str, body: bytes) -> Asked | Refusal:
    """Understand a request; only OpenAI's JSON has to be read for it."""
    if address.kind != "openai" or method != "POST" or address.path.startswith(FORMS):
        return NOTHING_ASKED
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as wrong:
        return Refusal(
            400, "invalid_json", f"the body is not JSON: {_where(wrong)}; send one JSON object", hopeless=True
        )
    if not isinstance(parsed, dict):
        return Refusal(400, "invalid_json", "the body is not a JSON object", hopeless=True)
    model = parsed.get("model")
    if model is not None and not isinstance(model, str):
        return Refusal(400, "invalid_model", "`model` is not a text", hopeless=True, param="model")
    stream = parsed.get("stream") is True
    options = parsed.get("stream_options")
    told = isinstance(options, dict) and options.get("include_usage") is True
    hides = stream and not told and address.path in TELLS_USAGE
    return Asked(model=model, stream=stream, hides_usage=hides, body=parsed)


def body_for_replica(asked: Asked, body: bytes, model: str | None) -> bytes:
    """The bytes that the replica gets. model: what it calls its model; None: as the client wrote it."""
    parsed = asked.body
    if parsed is None:
        return body
    renamed = model is not None and asked.model is not None and asked.model != model
    if not renamed and not asked.hides_usage:
        return body
    if not renamed and "stream_options" not in parsed:
        brace = body.index(b"{") + 1
        return body[:brace] + b'"stream_options":{"include_usage":true},' + body[brace:]
    fuller = dict(parsed)
    if renamed:
        fuller["model"] = model
    if asked.hides_usage:
        options = parsed.get("stream_options")
        fuller["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }
    return json.dumps(fuller, separators=(",", ":")).encode()


def may_repeat(kind: Kind, method: str) -> bool:
    """Whether a replica may be asked again when another one died over the request, before a byte of its answer."""
    return method in ("GET", "HEAD") or kind in INFERENCE


def tokens_guessed(asked: Asked, body: bytes) -> int:
    """About how many tokens a request will take, to count it against a limit before it is answered."""
    if asked.body is None:
        return 0
    most = asked.body.get("max_completion_tokens") or asked.body.get("max_tokens") or 0
    return len(body) // 4 + (most if isinstance(most, int) and most > 0 else 0)


def usage_told(value: bytes) -> Usage:
    """From the header `x-baseai-usage: tokens_in=12,tokens_out=34`; what is missing or odd counts as nothing."""
    amounts = dict.fromkeys(("tokens_in", "tokens_out"), 0)
    for piece in value.decode("latin-1").split(","):
        name, _, amount = piece.strip().partition("=")
        if name in amounts and amount.isascii() and amount.isdigit() and len(amount) <= MOST_DIGITS:
            amounts[name] = int(amount)
    return Usage(amounts["tokens_in"], amounts["tokens_out"])


def usage_in(tail: bytes) -> Usage | None:
    """From the end of a JSON answer; None when it tells none.

    A quotation mark inside a text is escaped, so the last `"usage"` is a key of the answer and not a model's words.
    """
    at = tail.rfind(b'"usage"')
    if at < 0:
        return None
    rest = tail[at + len(b'"usage"') :].lstrip()
    if not rest.startswith(b":"):
        return None
    try:
        found, _ = _DECODER.raw_decode(rest[1:].lstrip().decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return usage_of(found)


def usage_of(found: object) -> Usage | None:
    """From OpenAI's usage object, of chat and completions or of responses."""
    if not isinstance(found, dict):
        return None
    took = found.get("prompt_tokens", found.get("input_tokens"))
    gave = found.get("completion_tokens", found.get("output_tokens", 0))
    return Usage(_count(took), _count(gave))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _where(wrong: Exception) -> str:
    if isinstance(wrong, json.JSONDecodeError):
        return f"{wrong.msg} at line {wrong.lineno}, column {wrong.colno}"
    if isinstance(wrong, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return (
        "it is nested too deeply"
        if isinstance(wrong, RecursionError)
        else "it has a number of too many digits"
    )
