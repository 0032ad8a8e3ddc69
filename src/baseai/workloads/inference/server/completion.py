"""The completion routes of OpenAI: chats and texts that are continued, whole or as a stream of pieces.

Invariant: the first piece goes out as soon as it is made, and no later one waits for another; the usage that is told is
what the engine drew, also of an answer that was cut short. A request has at most `MOST_CHOICES` answers.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from baseai.ground.clock import now_utc
from baseai.ground.identity import mint
from baseai.workloads.inference.engine import BadInput, Call, Described, Generates, Piece, Sampling
from baseai.workloads.inference.server.exchange import JSON, Exchange, kind_of, parsed, usage_header
from baseai.workloads.inference.server.openai import flag, model_of, number, whole
from baseai.workloads.inference.server.terms import Terms

MOST_CHOICES = 16  # answers of one request, over all its prompts
MUCH_BYTES = 65_536  # of a body
MOST_STOPS = 4  # as OpenAI has it
TEXT_TOKENS = 16  # of a text's answer where nothing is asked for, as OpenAI has it

Form = Literal["chat", "text"]

# Fields that would change the answer, with the values that ask for nothing; any other value is refused by name.
NOT_HONOURED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),  # a text's 0 asks for the drawn token's
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),  # without tools it says nothing
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it was read."""

    model: str
    prompts: tuple[Sequence[int], ...]
    n: int  # answers to each prompt
    sampling: Sampling
    stream: bool
    with_usage: bool  # a last chunk of a stream says it

    @property
    def tokens_in(self) -> int:
        return sum(len(prompt) for prompt in self.prompts)


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
    fingerprint = (
        f"fp_{described.digest[:12]}"  # of the weights: under another one a seed says something else
    )

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


def asked_of(
    body: Mapping[str, Any],
    terms: Terms,
    prompts: Callable[[], tuple[Sequence[int], ...]],
    stops: Sequence[str] = (),
    usual_tokens: int | None = None,
) -> Asked:
    """The request of a body. Raises BadInput with the field, UnknownModel."""
    model = model_of(body, terms)
    for name, harmless in NOT_HONOURED.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in harmless):
            raise BadInput(
                f"{name}: this server does not do that; leave the field out", name, "unsupported_parameter"
            )
    most_tokens = whole(body, "max_completion_tokens", 1)
    if most_tokens is None:
        most_tokens = whole(body, "max_tokens", 1) or usual_tokens
    n = whole(body, "n", 1, MOST_CHOICES) or 1
    stream = flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadInput(f"stream_options must be an object, not {kind_of(options)}", "stream_options")
    if options is not None and not stream:
        raise BadInput("stream_options says something only with stream: true", "stream_options")
    sampling = Sampling(
        most_tokens=most_tokens,
        temperature=number(body, "temperature", 1.0, 0.0, 2.0),
        top_p=number(body, "top_p", 1.0, 0.0, 1.0),
        seed=whole(body, "seed", -(1 << 63), (1 << 63) - 1),
        stop=(*stops_of(body), *stops),
    )
    made = prompts()
    if len(made) * n > MOST_CHOICES:
        raise BadInput(
            f"{len(made)} prompts with n {n} are more than {MOST_CHOICES} answers; ask in parts", "n"
        )
    return Asked(
        model=model,
        prompts=made,
        n=n,
        sampling=sampling,
        stream=stream,
        with_usage=flag(options or {}, "include_usage"),
    )


def stops_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """`stop`: a string or up to four. Raises BadInput."""
    given = body.get("stop")
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise BadInput("stop must be a string or a list of strings", "stop")
    if len(stops) > MOST_STOPS:
        raise BadInput(f"stop has at most {MOST_STOPS} strings, not {len(stops)}", "stop")
    return tuple(stop for stop in stops if stop)


def messages_of(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`messages` as (role, text); parts of text are joined. Raises BadInput that names the message."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        wrong = "is missing" if given is None else "must be a list with at least one message"
        raise BadInput(f"messages {wrong}", "messages")
    messages = []
    for index, message in enumerate(given):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise BadInput(f"{where} must be an object, not {kind_of(message)}", where)
        role = message.get("role")
        if role not in ("system", "developer", "user", "assistant"):
            raise BadInput(
                f"{where}.role must be system, developer, user or assistant, not {role!r}", f"{where}.role"
            )
        messages.append((role, _content_of(message.get("content"), f"{where}.content")))
    return messages


def _content_of(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadInput(f"{where} must be a string or a list of parts, not {kind_of(content)}", where)
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise BadInput(
                f"{where}[{index}] must be a part of type text, not {kind!r}; this model reads text",
                where,
            )
        texts.append(part["text"])
    return "\n".join(texts)


def prompts_of(body: Mapping[str, Any], engine: Generates) -> tuple[Sequence[int], ...]:
    """`prompt`: a string, strings, tokens, or lists of tokens. Raises BadInput."""
    given = body.get("prompt")
    if isinstance(given, str) or (isinstance(given, list) and given and type(given[0]) is int):
        given = [given]
    if not isinstance(given, list) or not given:
        wrong = "is missing" if given is None else "must be a string, tokens, or a list of them"
        raise BadInput(f"prompt {wrong}", "prompt")
    prompts: list[Sequence[int]] = []
    for index, prompt in enumerate(given):
        if isinstance(prompt, str):
            prompts.append(engine.text_prompt(prompt))
        elif isinstance(prompt, list) and all(type(token) is int and token >= 0 for token in prompt):
            prompts.append(prompt)
        else:
            raise BadInput(
                f"prompt[{index}] must be a string or a list of tokens, not {kind_of(prompt)}", "prompt"
            )
    return tuple(prompts)


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
            await exchange.begin_events()
        answer = told[index]
        answer.grow(piece)
        deltas: list[tuple[dict[str, str], str | None]] = []
        if form == "chat" and index not in begun:
            begun.add(index)
            deltas.append(({"role": "assistant", "content": ""}, None))
        if form == "text":
            deltas.append(({"text": piece.text}, piece.finish_reason))
        else:
            if piece.text:
                deltas.append(({"content": piece.text}, None))
            if piece.finish_reason is not None:
                deltas.append(({}, piece.finish_reason))
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
        (
            prompt,
            replace(
                asked.sampling, seed=None if asked.sampling.seed is None else asked.sampling.seed + again
            ),
        )
        for prompt in asked.prompts
        for again in range(asked.n)
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
