"""The recorded answers of vLLM are what OpenAI's own client understands, with the tokens that the table says."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.workloads.inference.served import client_of, listening

FOLDER = Path(__file__).with_name("vllm")
ANSWERS = list(csv.DictReader((FOLDER / "answers.csv").read_text(encoding="utf-8").splitlines()))
IDS = [row["name"] for row in ANSWERS]


async def recorded(scope: Any, receive: Any, send: Any) -> None:
    """Answers a recorded request as vLLM did; anything else fails."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    [row] = [row for row in ANSWERS if request_of(row) == json.loads(body) and row["route"] == scope["path"]]
    [path] = FOLDER.glob(f"{row['name']}.response.*")
    kind = b"text/event-stream" if path.suffix == ".sse" else b"application/json"
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": int(row["status"]), "headers": headers})
    await send({"type": "http.response.body", "body": path.read_bytes()})


def request_of(row: dict[str, str]) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads((FOLDER / f"{row['name']}.request.json").read_bytes())
    return asked


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with listening(recorded) as url, client_of(url) as client:
        yield client


def read(answer: Any) -> tuple[str, Any]:
    """(text, usage) of an answer or of a stream of chunks, as far as it goes."""
    chunks = answer if isinstance(answer, openai.Stream) else [answer]
    text, usage = "", None
    with contextlib.suppress(openai.APIError):
        for chunk in chunks:
            for choice in getattr(chunk, "choices", ()):
                said = getattr(choice, "delta", None) or getattr(choice, "message", None)
                text += (said.content or "") if said is not None else choice.text
            usage = chunk.usage or usage
    return text, usage


@pytest.mark.parametrize("row", ANSWERS, ids=IDS)
def test_the_official_client_reads_it(client: openai.OpenAI, row: dict[str, str]) -> None:
    asked = request_of(row)
    ask: Any = {
        "/v1/chat/completions": client.chat.completions.create,
        "/v1/completions": client.completions.create,
        "/v1/embeddings": client.embeddings.create,
    }[row["route"]]
    if row["status"] != "200":
        with pytest.raises(openai.APIStatusError) as refused:
            ask(**asked)
        assert refused.value.status_code == int(row["status"])
        return
    text, usage = read(ask(**asked))
    assert text == row["text"]
    if row["prompt_tokens"]:
        assert usage.prompt_tokens == int(row["prompt_tokens"])
        assert usage.total_tokens == int(row["prompt_tokens"]) + int(row["completion_tokens"])
    else:
        assert usage is None


def test_an_error_within_a_stream_is_raised(client: openai.OpenAI) -> None:
    [row] = [row for row in ANSWERS if row["name"] == "chat_stream_error"]
    stream: Any = client.chat.completions.create(**request_of(row))
    with pytest.raises(openai.APIError, match="Internal server error"):
        list(stream)


def test_every_file_is_in_the_table() -> None:
    named = {path.name.partition(".")[0] for path in FOLDER.glob("*.re*.*")}
    assert named - {"models"} == set(IDS)
