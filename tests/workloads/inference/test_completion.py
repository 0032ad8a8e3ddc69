"""Chats and completions as the official client asks for them, of a tiny GPT in the form that our training exports."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from baseai.workloads.inference.engine import Assignment
from baseai.workloads.inference.engines.chat import ChatEngine
from tests.workloads.inference.served import Served, serving, until
from tests.workloads.inference.tiny_gpt import CONTEXT, write_tiny_gpt

IMAGE = [{"role": "user", "content": [{"type": "image_url"}]}]
USAGE = {"include_usage": True}
TOOL = {"type": "function", "function": {"name": "f"}}
HELLO: Any = [{"role": "user", "content": "line 7"}]


def chat(gpt: Served, **asked: Any) -> Any:
    return gpt.client.chat.completions.create(**{"model": "gpt", "messages": HELLO, "seed": 1} | asked)


def test_a_chat_is_answered_with_its_usage(gpt: Served) -> None:
    answer = chat(gpt, max_completion_tokens=8)
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.system_fingerprint == f"fp_{gpt.app.engine.describe().digest[:12]}"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_seed_gives_the_same_answer_and_another_seed_another(gpt: Served) -> None:
    said = [chat(gpt, max_tokens=20, seed=seed).choices[0].message.content for seed in (5, 5, 6)]
    assert said[0] == said[1] != said[2]


def test_temperature_nought_takes_the_likeliest_whatever_the_seed(gpt: Served) -> None:
    said = {
        chat(gpt, max_tokens=12, temperature=0, seed=seed).choices[0].message.content for seed in range(3)
    }
    narrow = chat(gpt, max_tokens=12, top_p=1e-9).choices[0].message.content
    assert said == {narrow}


def test_a_stream_says_the_same_piece_by_piece(gpt: Served) -> None:
    whole = chat(gpt, max_tokens=12).choices[0]
    chunks = list(chat(gpt, max_tokens=12, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == [
        "length"
    ]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_tells_its_usage_where_it_is_asked_to(gpt: Served) -> None:
    chunks = list(chat(gpt, max_tokens=5, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_lines_of_a_stream_are_events_and_end_with_done(gpt: Served) -> None:
    answer = gpt.post(
        "/v1/chat/completions", json={"model": "gpt", "messages": HELLO, "stream": True, "max_tokens": 3}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    read, _, made = answer.headers["x-baseai-usage"].partition(",")
    assert int(read.removeprefix("tokens_in=")) > 0
    assert (
        made == "tokens_out=0"
    )  # nothing yet: who leaves early has had the model read his prompt all the same
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert {json.loads(event.removeprefix("data: "))["object"] for event in events} == {
        "chat.completion.chunk"
    }


def test_the_first_token_does_not_wait_for_the_last(gpt: Served) -> None:
    gone_on: list[int] = []
    with gpt.http.stream(
        "POST", "/v1/completions", json={"model": "gpt", "prompt": "line", "stream": True, "max_tokens": 50}
    ) as answer:
        for _ in answer.iter_lines():
            gone_on.append(gpt.app.under_way)
    assert gone_on[0] == 1  # the first line was here while the answer was still being made


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(gpt: Served) -> None:
    whole = chat(gpt, max_tokens=30).choices[0].message.content
    stop = whole[10:13]
    answer = chat(gpt, max_tokens=30, stop=[stop]).choices[0]
    assert answer.message.content == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    streamed = chat(gpt, max_tokens=30, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == answer.message.content


def test_several_answers_have_seeds_of_their_own(gpt: Served) -> None:
    answer = chat(gpt, n=3, max_tokens=10)
    said = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(said)) == 3
    alone = [chat(gpt, max_tokens=10, seed=1 + again) for again in range(3)]
    assert said == [each.choices[0].message.content for each in alone]
    assert answer.usage.completion_tokens == sum(each.usage.completion_tokens for each in alone)
    streamed = ["", "", ""]
    for chunk in chat(gpt, n=3, max_tokens=10, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == said


def test_texts_are_continued_each_prompt_by_itself(gpt: Served) -> None:
    complete = gpt.client.completions.create
    answer = complete(model="gpt", prompt=["line 1", "line 2"], max_tokens=6, temperature=0)
    alone = [
        complete(model="gpt", prompt=prompt, max_tokens=6, temperature=0) for prompt in ("line 1", "line 2")
    ]
    assert [choice.text for choice in answer.choices] == [each.choices[0].text for each in alone]
    assert answer.object == "text_completion"
    by_default = complete(model="gpt", prompt="line 1", seed=1)
    assert by_default.usage is not None
    assert by_default.usage.completion_tokens <= 16
    streamed = complete(model="gpt", prompt="line 1", max_tokens=6, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == alone[0].choices[0].text


def test_tokens_are_prompts_as_well(gpt: Served) -> None:
    tokens = list(gpt.app.engine.text_prompt("line 1"))  # type: ignore[attr-defined]
    asked: dict[str, Any] = {"model": "gpt", "max_tokens": 6, "temperature": 0}
    by_tokens = gpt.client.completions.create(prompt=tokens, **asked)
    assert (
        by_tokens.choices[0].text == gpt.client.completions.create(prompt="line 1", **asked).choices[0].text
    )


def test_many_at_once_are_told_what_each_is_told_alone(gpt: Served) -> None:
    alone = [chat(gpt, max_tokens=15, seed=seed).choices[0].message.content for seed in range(8)]
    together: dict[int, str] = {}

    def ask(seed: int) -> None:
        chunks = chat(gpt, max_tokens=15, seed=seed, stream=True)
        together[seed] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == dict(enumerate(alone))


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        pytest.param({"messages": None}, "messages", "messages is missing", id="no messages"),
        pytest.param({"messages": []}, "messages", "at least one message", id="empty messages"),
        pytest.param({"messages": [{"role": "cat", "content": "a"}]}, "messages[0].role", "not 'cat'", id="a role"),
        pytest.param({"messages": [{"role": "user"}]}, "messages[0].content", "not null", id="no content"),
        pytest.param({"messages": IMAGE}, "messages[0].content", "not 'image_url'", id="an image"),
        pytest.param({"max_tokens": 0}, "max_tokens", "at least 1, not 0", id="no tokens"),
        pytest.param({"max_tokens": 1.5}, "max_tokens", "whole number, not 1.5", id="half a token"),
        pytest.param({"temperature": 2.5}, "temperature", "from 0 to 2, not 2.5", id="too hot"),
        pytest.param({"temperature": "warm"}, "temperature", "must be a number, not a string", id="in words"),
        pytest.param({"top_p": -1}, "top_p", "from 0 to 1", id="top_p"),
        pytest.param({"n": 17}, "n", "at most 16", id="too many answers"),
        pytest.param({"stop": ["a"] * 5}, "stop", "at most 4 strings", id="too many stops"),
        pytest.param({"stop": [1]}, "stop", "strings", id="a stop that is no text"),
        pytest.param({"stream": "yes"}, "stream", "true or false", id="stream"),
        pytest.param({"stream_options": USAGE}, "stream_options", "stream: true", id="options of no stream"),
        pytest.param({"tools": [TOOL]}, "tools", "leave the field out", id="tools"),
        pytest.param({"logprobs": True}, "logprobs", "leave the field out", id="logprobs"),
        pytest.param({"response_format": {"type": "json_object"}}, "response_format", "leave the field", id="a form"),
        pytest.param({"frequency_penalty": 0.5}, "frequency_penalty", "leave the field out", id="a penalty"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_field(
    gpt: Served, asked: dict[str, Any], param: str, words: str
) -> None:
    answer = gpt.post("/v1/chat/completions", json={"model": "gpt", "messages": HELLO} | asked)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize(
    "harmless",
    [
        {"tools": [], "tool_choice": "none", "logprobs": False, "frequency_penalty": 0, "logit_bias": {}},
        {
            "response_format": {"type": "text"},
            "user": "u",
            "metadata": {},
            "store": False,
            "parallel_tool_calls": True,
        },
        {"top_k": 4, "repetition_penalty": 1.1},
        {
            "max_tokens": None,
            "stop": None,
            "seed": None,
            "n": None,
            "temperature": None,
            "max_completion_tokens": 2,
        },
    ],
    ids=["nothing asked for", "of no effect", "other servers' own", "null"],
)
def test_what_asks_for_nothing_is_left_aside(gpt: Served, harmless: dict[str, Any]) -> None:
    asked = {"model": "gpt", "messages": HELLO, "max_tokens": 2}
    assert gpt.post("/v1/chat/completions", json=asked | harmless).status_code == 200


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(gpt: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(gpt, messages=[{"role": "user", "content": "line " * 90}])
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    assert f"context is {CONTEXT} tokens, but the input has " in refused.value.message
    with pytest.raises(openai.BadRequestError, match="and 500 are asked for as answer"):
        chat(gpt, max_tokens=500, stream=True)  # before the first token, so it has a status of its own


def test_without_a_limit_an_answer_ends_with_the_context(gpt: Served) -> None:
    usage = chat(gpt, seed=2).usage
    assert usage.total_tokens <= CONTEXT


def test_a_client_that_goes_stops_the_work(gpt: Served) -> None:
    served = gpt.app.served
    asked = {"model": "gpt", "prompt": "line", "stream": True, "max_tokens": 60, "n": 4}
    with gpt.http.stream("POST", "/v1/completions", json=asked) as answer:
        next(answer.iter_lines())
        assert gpt.app.under_way == 1
    until(lambda: gpt.app.under_way == 0)
    assert gpt.app.served == served + 1


@pytest.fixture
def templated(tmp_path: Path) -> Iterator[Served]:
    template = (
        "{% if messages[0].role == 'assistant' %}{{ raise_exception('the assistant cannot begin') }}{% endif %}"
        "{% for each in messages %}<{{ each.role }}>{{ each.content }}{% endfor %}<assistant>"
    )
    folder = write_tiny_gpt(tmp_path, template)
    engine = ChatEngine(Assignment(model=str(folder), model_name="gpt", concurrency=1))
    engine.load()
    with serving(engine, model_name="gpt", concurrency=1) as served:
        yield served


def test_a_models_own_chat_template_decides_its_prompt(templated: Served) -> None:
    engine: Any = templated.app.engine
    prompt = engine.chat_prompt([("developer", "be brief"), ("user", "line 7")])
    assert prompt == engine.text_prompt("<system>be brief<user>line 7<assistant>")
    with pytest.raises(openai.BadRequestError, match="the assistant cannot begin"):
        chat(templated, messages=[{"role": "assistant", "content": "hello"}])


def test_a_model_without_one_is_given_lines_of_text(gpt: Served) -> None:
    engine: Any = gpt.app.engine
    assert engine.describe().facts["chat_template"] == "plain"
    assert engine.chat_prompt([("user", "line 7")]) == engine.text_prompt("user: line 7\nassistant:")


def test_the_official_client_of_asyncio_streams_several_at_once(gpt: Served) -> None:
    async def said(client: openai.AsyncOpenAI, seed: int) -> str:
        asked: Any = {"model": "gpt", "messages": HELLO, "max_tokens": 10, "seed": seed}
        async with await client.chat.completions.create(stream=True, **asked) as stream:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def both() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{gpt.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(said(client, seed) for seed in range(3)))

    alone = [chat(gpt, max_tokens=10, seed=seed).choices[0].message.content for seed in range(3)]
    assert asyncio.run(both()) == alone
