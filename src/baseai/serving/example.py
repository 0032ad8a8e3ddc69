"""An example is one request that a service answers: where it goes at the gateway, and what it says.

Invariant: every path that is named here is one the gateway knows for the service's protocol; the text of an example is
said nowhere but here, whoever shows or sends it. Pure.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from baseai.workloads.service import Service

Said = Literal[
    "messages", "prompt", "input", "text_input"
]  # the key of a body that takes what a person wrote

JSON = "application/json"
BYTES = "application/octet-stream"
HELLO = "Say hello in one sentence."
LINE = "Base A.I serves models where the accelerators stand."
MOST_TOKENS = (
    48  # of an answer to try things with: fits, with its question, into the context of a GPT of `make demo`
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One request."""

    name: str  # how doors call it: chat, completion, generate, embeddings, infer, json, models, metadata, any
    method: Literal["GET", "POST"]
    path: str  # below the gateway's address
    body: Mapping[str, Any] | None = None
    said: Said | None = None  # where a person's text goes; None where the body is written out
    text: str = ""  # what is said unless somebody writes another
    streams: bool = False
    takes_bytes: bool = False  # a body that is no JSON is sent as it is

    def body_with(self, text: str | None = None, *, stream: bool = False) -> bytes:
        """The body as it is sent, with another text in it."""
        if self.body is None:
            return b""
        body = dict(self.body)
        if self.said is not None and text is not None:
            body[self.said] = [{"role": "user", "content": text}] if self.said == "messages" else text
        if stream and self.streams:
            body["stream"] = True
        return json.dumps(body, ensure_ascii=False).encode()

    def curl(self, gateway_url: str, *, with_key: bool) -> str:
        """The same as a command; `$BASEAI_KEY` stands for the key."""
        words = ["curl", f"{gateway_url}{self.path}"]
        text = shlex.join(words)
        if with_key:
            text += ' -H "Authorization: Bearer $BASEAI_KEY"'
        if self.body is not None:
            text += f" -H 'Content-Type: application/json' -d {shlex.quote(self.body_with().decode())}"
        return text


def url_of(gateway_url: str, service_id: str) -> str:
    """Where one service is outright, whatever else has its name; the only way without a key."""
    return f"{gateway_url}/s/{service_id}"


def examples_of(service_id: str, terms: Service, *, by_name: bool) -> tuple[Example, ...]:
    """Requests that a service answers, the most wanted first.

    by_name: whether whoever asks has a key of its tenant, and so finds it by the name of its model. A key of the
    platform, and no key, find it at its own address.
    """
    by_name = by_name and terms.auth
    root = "" if by_name else f"/s/{service_id}"
    model = terms.model_name
    if terms.protocol == "openai":
        listed = Example(name="models", method="GET", path=f"{root}/v1/models")
        if terms.engine == "embeddings":
            return (
                Example(
                    name="embeddings", method="POST", path=f"{root}/v1/embeddings",
                    body={"model": model, "input": LINE}, said="input", text=LINE,
                ),
                listed,
            )  # fmt: skip
        chat = Example(
            name="chat", method="POST", path=f"{root}/v1/chat/completions",
            body={"model": model, "messages": [{"role": "user", "content": HELLO}], "max_tokens": MOST_TOKENS},
            said="messages", text=HELLO, streams=True,
        )  # fmt: skip
        completion = Example(
            name="completion", method="POST", path=f"{root}/v1/completions",
            body={"model": model, "prompt": LINE, "max_tokens": MOST_TOKENS},
            said="prompt", text=LINE, streams=True,
        )  # fmt: skip
        return (chat, completion, listed)
    if terms.protocol == "oip":
        place = f"{root}/v2/models/{quote(model, safe='')}"
        metadata = Example(name="metadata", method="GET", path=place)
        if terms.engine == "chat":
            generate = Example(
                name="generate", method="POST", path=f"{place}/generate",
                body={"text_input": HELLO, "parameters": {"max_tokens": MOST_TOKENS}}, said="text_input", text=HELLO,
            )  # fmt: skip
            return (generate, metadata)
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.2, 0.3]}
        return (
            metadata,
            Example(name="infer", method="POST", path=f"{place}/infer", body={"inputs": [tensor]}),
        )
    if terms.engine == "callable":
        path = f"/json/{quote(model, safe='')}" if by_name else f"{root}/json"
        return (Example(name="json", method="POST", path=path, body={"text": LINE}, takes_bytes=True),)
    return (Example(name="any", method="GET", path=f"/s/{service_id}{terms.ready_path}"),)
