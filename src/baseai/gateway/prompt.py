"""A prompt here is the text a model will read, as far as requests with one beginning can be told from it.

Invariant: whatever an engine puts before the rest stands before the rest here: tools, then each message in its turn.
The whole conversation counts, not its first message alone. Read by `prompt_of`; it is never shown or stored.
"""

import json
from collections.abc import Mapping
from typing import Any


def prompt_of(body: Mapping[str, Any]) -> bytes:
    """The rendered prompt of an OpenAI request, as bytes; empty where it has none. Never raises for odd shapes."""
    if "messages" in body:
        pieces = [_compact(body["tools"])] if body.get("tools") else []
        messages = body["messages"]
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict):
                pieces.append(f"{message.get('role')}\n{_content(message)}\n")
        return "".join(pieces).encode("utf-8", "replace")
    prompt = body.get("prompt", "")
    if isinstance(prompt, list):  # several prompts, or one as token numbers
        first = prompt[0] if prompt else ""
        prompt = first if isinstance(first, str) else _compact(prompt)
    return prompt.encode("utf-8", "replace") if isinstance(prompt, str) else b""


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        text = content
    elif isinstance(content, list):  # parts: text by its text, pictures and sound by what names them
        text = "\n".join(
            part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else _compact(part)
            for part in content
        )
    else:
        text = ""
    calls = message.get("tool_calls")
    return text + (_compact(calls) if calls else "")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
