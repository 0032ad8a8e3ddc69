"""The completion routes of OpenAI: chats and texts that are continued, whole or as a stream of pieces.

Invariant: the first piece goes out as soon as it is made, and no later one waits for another; the usage that is told is
what the engine drew. What is asked for is read in `asked.py`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from baseai.ground.clock import now_utc
from baseai.ground.identity import mint
from baseai.workloads.inference.engine import Call, Described, Generates, Piece, Sampling
from baseai.workloads.inference.server.asked import Asked, asked_of, messages_of, prompts_of
from baseai.workloads.inference.server.exchange import JSON, Exchange, parsed, usage_header
from baseai.workloads.inference.server.terms import Terms

MUCH_BYTES = 65_536  # of a body: beyond, its texts are tokenized beside the server's loop
TEXT_TOKENS = 16  # of a text's answer where nothing is asked for, as OpenAI has it

Form = Literal["chat", "text"]


@dataclass(slots=True)
class Told:
    """One answer as it grows."""

    text: str = ""
    tokens: int = 0
    finish_reason: str | None = None

    def grow(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish_reason = piece.finish_reason


def routes(
    engine: Generates, described: Described, terms: Terms
) -> dict[str, Callable[[Exchange, bytes], Awaitable[None]]]:
    """`POST /v1/chat/completions` and `POST /v1/completions`."""
    # Of the weights: under another fingerprint the same seed says something else.
    fingerprint = f"fp_{described.digest[:12]}"

    async def chat(exchange: Exchange, body: bytes) -> None:
        def asked() -> Asked:
            given = parsed(body)
            return asked_of(
                given, terms, lambda: (engine.chat_prompt(messages_of(given)),), engine.chat_stops()
            )

        await _answered(engine, exchange, await _read(asked, body), "chat", fingerprint)

    async def text(exchange: Exchange, body: bytes) -> None:
        def asked() -> Asked:
            given = parsed(body)
            return asked_of(given, terms, lambda: prompts_of(given, engine), usual_tokens=TEXT_TOKENS)

        await _answered(engine, exchange, await _read(asked, body), "text", fingerprint)

    return {"/v1/chat/completions": chat, "/v1/completions": text}


async def _read(asked: Callable[[], Asked], body: bytes) -> Asked:
    """What is asked; where there is much to tokenize, the server's loop does not wait for it."""
    return await asyncio.to_thread(asked) if len(body) > MUCH_BYTES else asked()


async def _answered(
    engine: Generates, exchange: Exchange, asked: Asked, form: Form, fingerprint: str
) -> None:
    head = {
        "id": mint("chatcmpl" if form == "chat" else "cmpl"),
        "object": "chat.completion" if form == "chat" else "text_completion",
        "created": int(now_utc().timestamp()),
        "model": asked.model,
        "system_fingerprint": fingerprint,
    }
    told = [Told() for _ in range(len(asked.prompts) * asked.n)]
    async with aclosing(pieces_of(engine, asked, exchange.call)) as pieces:
        if asked.stream:
            await _streamed(exchange, pieces, told, asked, form, head)
            return
        async for index, piece in pieces:
            told[index].grow(piece)
    choices = [_choice(index, answer, form) for index, answer in enumerate(told)]
    tokens_out = sum(answer.tokens for answer in told)
    whole_answer = {**head, "choices": choices, "usage": usage_of(asked.tokens_in, tokens_out)}
    await exchange.answer(
        200, json.dumps(whole_answer).encode(), (*JSON, usage_header(asked.tokens_in, tokens_out))
    )


async def _streamed(
    exchange: Exchange,
    pieces: AsyncGenerator[tuple[int, Piece], None],
    told: list[Told],
    asked: Asked,
    form: Form,
    head: dict[str, Any],
) -> None:
    if form == "chat":
        head["object"] = "chat.completion.chunk"
    tail: dict[str, Any] = {"usage": None} if asked.with_usage else {}
    begun: set[int] = set()
    async for index, piece in pieces:
        if not exchange.began:
            # Only now: what was refused before the first piece still has a status of its own.
            await exchange.begin_events(asked.tokens_in)
        answer = told[index]
        answer.grow(piece)
        deltas = _deltas(piece, form, first=index not in begun)
        begun.add(index)
        if deltas:
            await exchange.events("".join(_event(head, tail, index, form, *delta) for delta in deltas))
    end = "data: [DONE]\n\n"
    if asked.with_usage:
        usage = usage_of(asked.tokens_in, sum(answer.tokens for answer in told))
        end = f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n{end}"
    await exchange.events(end)
    await exchange.end_events()


async def pieces_of(engine: Generates, asked: Asked, call: Call) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all answers as they are made, each with its answer's index; closing it ends all work."""
    wanted = [
        (prompt, _seeded(asked.sampling, again)) for prompt in asked.prompts for again in range(asked.n)
    ]
    if len(wanted) == 1:
        async with aclosing(engine.generate(*wanted[0], call)) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    made: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

    async def one(index: int, prompt: Sequence[int], sampling: Sampling) -> None:
        try:
            async with aclosing(engine.generate(prompt, sampling, call)) as pieces:
                async for piece in pieces:
                    made.put_nowait((index, piece))
            made.put_nowait((index, None))
        except Exception as wrong:  # noqa: BLE001  raised again by who reads the queue
            made.put_nowait((index, wrong))

    tasks = [asyncio.create_task(one(index, *each)) for index, each in enumerate(wanted)]
    try:
        left = len(tasks)
        while left:
            index, came = await made.get()
            if isinstance(came, Exception):
                raise came
            if came is None:
                left -= 1
            else:
                yield index, came
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _seeded(sampling: Sampling, again: int) -> Sampling:
    """Of several answers to one prompt each has a seed of its own, that of the first being the request's."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + again)


def _deltas(piece: Piece, form: Form, *, first: bool) -> list[tuple[dict[str, str], str | None]]:
    """What the piece adds to its answer, each with a finish reason: an event for each."""
    if form == "text":
        return [({"text": piece.text}, piece.finish_reason)]
    deltas: list[tuple[dict[str, str], str | None]] = []
    if first:
        deltas.append(({"role": "assistant", "content": ""}, None))
    if piece.text:
        deltas.append(({"content": piece.text}, None))
    if piece.finish_reason is not None:
        deltas.append(({}, piece.finish_reason))
    return deltas


def usage_of(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    """The usage object; nothing is cached between requests and nothing is thought unseen."""
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _choice(index: int, answer: Told, form: Form) -> dict[str, Any]:
    end = {"logprobs": None, "finish_reason": answer.finish_reason}
    if form == "text":
        return {"index": index, "text": answer.text, **end}
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return {"index": index, "message": message, **end}


def _event(
    head: Mapping[str, Any],
    tail: Mapping[str, Any],
    index: int,
    form: Form,
    delta: Mapping[str, str],
    finish_reason: str | None,
) -> str:
    said = delta if form == "text" else {"delta": delta}
    choice = {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}
    return f"data: {json.dumps({**head, 'choices': [choice], **tail})}\n\n"
