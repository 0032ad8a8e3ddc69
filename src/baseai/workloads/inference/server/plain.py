"""A plain call: a body goes to a callable as it is, and what it gives back is the answer.

Invariant: nothing is added to the answer or taken from it, so that a callable's own contract is the route's.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from baseai.workloads.inference.engine import CallableFailed, Calls
from baseai.workloads.inference.server.exchange import JSON, Exchange, json_of

BYTES = ((b"content-type", b"application/octet-stream"),)


def routes(engine: Calls) -> dict[str, Callable[[Exchange, bytes], Awaitable[None]]]:
    """`POST /json`: JSON is parsed first; a body of another content type is given as bytes."""

    async def call(exchange: Exchange, body: bytes) -> None:
        answer = await engine.call(json_of(body) if exchange.is_json else body, exchange.call)
        if isinstance(answer, bytes):
            await exchange.answer(200, answer, BYTES)
        else:
            await exchange.answer(200, _written(answer), JSON)

    return {"/json": call}


def _written(answer: Any) -> bytes:
    """An answer as JSON. Raises CallableFailed where JSON has no form for what is in it."""
    try:
        return json.dumps(answer, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        raise CallableFailed(type(wrong).__name__, f"its answer is no JSON: {wrong}") from wrong


def _plain(value: Any) -> Any:
    """An array or a number of numpy's as JSON has it. Raises TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a callable's answer holds a {type(value).__name__}, which JSON has no form for")
