"""What is asked of a language model in OpenAI's words: prompts, how many answers, and how they are drawn.

Invariant: what is wrong is refused before any work, by a sentence and the field; a request has at most `MOST_CHOICES`
answers. Read from a body by `asked_of`; nobody changes it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baseai.workloads.inference.engine import BadInput, Generates, Sampling
from baseai.workloads.inference.server.exchange import kind_of
from baseai.workloads.inference.server.openai import flag, model_of, number, whole
from baseai.workloads.inference.server.terms import Terms

MOST_CHOICES = 16  # answers of one request, over all its prompts
MOST_STOPS = 4  # as OpenAI has it

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
