"""The embeddings route: texts or tokens in, their vectors out, as numbers or as base64 of little-endian float32.

Invariant: a vector comes back in its model's own length; where the client wants another one it is told so, never given
a cut one. The official client asks for base64 unless it is told otherwise.
"""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from baseai.workloads.inference.engine import BadInput, Embeds
from baseai.workloads.inference.server.exchange import JSON, Exchange, kind_of, parsed, usage_header
from baseai.workloads.inference.server.openai import model_of, whole
from baseai.workloads.inference.server.terms import Terms

MOST_TEXTS = 2048  # in one request, as OpenAI has it

Text = str | Sequence[int]


def routes(engine: Embeds, terms: Terms) -> dict[str, Callable[[Exchange, bytes], Awaitable[None]]]:
    """`POST /v1/embeddings`."""

    async def embeddings(exchange: Exchange, body: bytes) -> None:
        asked = parsed(body)
        model = model_of(asked, terms)
        texts = texts_of(asked)
        in_base64 = _is_base64(asked)
        dimensions = whole(asked, "dimensions", 1)
        embedded = await engine.embed(texts, exchange.call)
        length = embedded.vectors.shape[1]
        if dimensions is not None and dimensions != length:
            raise BadInput(
                f"dimensions must be {length} or absent, not {dimensions}: this model gives vectors of one length",
                "dimensions",
            )
        vectors: list[Any]
        if in_base64:
            little = embedded.vectors.astype("<f4", copy=False)
            vectors = [base64.b64encode(vector.tobytes()).decode() for vector in little]
        else:
            vectors = embedded.vectors.tolist()
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "model": model,
            "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        }
        await exchange.answer(200, json.dumps(answer).encode(), (*JSON, usage_header(embedded.tokens)))

    return {"/v1/embeddings": embeddings}


def texts_of(body: Mapping[str, Any]) -> list[Text]:
    """`input`: a string, strings, tokens, or lists of tokens. Raises BadInput that names the place."""
    given = body.get("input")
    if isinstance(given, str) or _are_tokens(given):
        given = [given]
    if not isinstance(given, list):
        wrong = (
            "is missing" if given is None else f"must be a string, strings or tokens, not {kind_of(given)}"
        )
        raise BadInput(f"input {wrong}", "input")
    if not 1 <= len(given) <= MOST_TEXTS:
        raise BadInput(f"input must have 1 to {MOST_TEXTS} texts, not {len(given)}", "input")
    for index, text in enumerate(given):
        if not (isinstance(text, str) or _are_tokens(text)):
            raise BadInput(
                f"input[{index}] must be a string or a list of tokens, not {kind_of(text)}", "input"
            )
        if not text:
            raise BadInput(f"input[{index}] is empty; there is nothing to embed", "input")
    return given


def _are_tokens(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(type(token) is int and token >= 0 for token in value)
    )


def _is_base64(body: Mapping[str, Any]) -> bool:
    wanted = body.get("encoding_format")
    if wanted not in (None, "float", "base64"):
        raise BadInput(f"encoding_format must be float or base64, not {wanted!r}", "encoding_format")
    return wanted == "base64"
