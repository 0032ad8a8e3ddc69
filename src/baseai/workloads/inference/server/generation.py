"""The generate extension of the Open Inference Protocol: one text in, its continuation out, whole or as a stream.

Invariant: the stream's texts joined are the whole answer's text; its last event is `done`. A value that cannot be used
is answered 422, as the extension has it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from baseai.workloads.inference.engine import BadInput, Generates, Sampling, WrongValue
from baseai.workloads.inference.server.asked import stops_of
from baseai.workloads.inference.server.completion import MUCH_BYTES, usage_of
from baseai.workloads.inference.server.exchange import JSON, Exchange, kind_of, parsed, usage_header
from baseai.workloads.inference.server.oip import places
from baseai.workloads.inference.server.openai import number, whole
from baseai.workloads.inference.server.terms import Terms

MOST_TOKENS = 20  # of an answer where nothing is asked for, as the extension has it


def routes(engine: Generates, terms: Terms) -> dict[str, Callable[[Exchange, bytes], Awaitable[None]]]:
    """`POST …/generate` and `POST …/generate_stream`."""

    def of(name: str, *, stream: bool) -> Callable[[Exchange, bytes], Awaitable[None]]:
        head = {"model_name": name, "model_version": terms.version}

        async def generate(exchange: Exchange, body: bytes) -> None:
            text, sampling, echoed = asked_of(parsed(body))
            if len(text) > MUCH_BYTES:
                prompt = await asyncio.to_thread(engine.text_prompt, text)
            else:
                prompt = engine.text_prompt(text)
            made = ""
            tokens_out = 0
            async with aclosing(engine.generate(prompt, sampling, exchange.call)) as pieces:
                async for piece in pieces:
                    tokens_out += piece.tokens
                    if not stream:
                        made += piece.text
                        continue
                    if not exchange.began:
                        await exchange.begin_events(len(prompt))
                    done = piece.finish_reason is not None
                    event = {"text_output": piece.text, **head, **echoed, "done": done}
                    if done:
                        event["usage"] = usage_of(len(prompt), tokens_out)  # a header would be too early
                    await exchange.events(f"data: {json.dumps(event)}\n\n")
            if stream:
                await exchange.end_events()
                return
            answer = json.dumps({"text_output": made, **head, **echoed}).encode()
            await exchange.answer(200, answer, (*JSON, usage_header(len(prompt), tokens_out)))

        return generate

    work = {}
    for name in terms.names:
        for place in places(name, terms):
            work[f"{place}/generate"] = of(name, stream=False)
            work[f"{place}/generate_stream"] = of(name, stream=True)
    return work


def asked_of(body: Mapping[str, Any]) -> tuple[str, Sampling, dict[str, Any]]:
    """The text, how to go on from it, and what is echoed. Raises WrongValue."""
    try:
        text = body.get("text_input")
        if not isinstance(text, str):
            wrong = "is missing" if text is None else f"must be a string, not {kind_of(text)}"
            raise BadInput(f"text_input {wrong}", "text_input")
        parameters = body.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise BadInput(f"parameters must be an object, not {kind_of(parameters)}", "parameters")
        for name, harmless in (("best_of", 1), ("frequency_penalty", 0)):
            if parameters.get(name) not in (None, harmless):
                raise BadInput(f"{name} is not supported by this model; leave it out", name)
        sampling = Sampling(
            most_tokens=whole(parameters, "max_tokens", 1) or MOST_TOKENS,
            temperature=number(parameters, "temperature", 1.0, 0.0, 2.0),
            top_p=number(parameters, "top_p", 1.0, 0.0, 1.0),
            seed=whole(parameters, "seed", 0, (1 << 63) - 1),
            stop=stops_of(parameters),
        )
    except BadInput as wrong:
        raise WrongValue(wrong.sentence, wrong.param) from None
    return text, sampling, {"id": body["id"]} if isinstance(body.get("id"), str) else {}
