"""Sameness is when two requests ask the same, so that one answer does for both: same path, same words, no chance in it.

Invariant: requests that may be answered differently are never the same. What only names the asker is left out; order
of keys, spaces and ways to write a letter make no difference. What cannot be read, or asks for chance, is like nothing.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

READ_MOST = 256 << 10  # bytes of a body; reading a larger one would hold up the others
# Of OpenAI's requests: who asks and how he is billed or stored, which no answer depends on.
NAMES_THE_ASKER = frozenset(
    {"user", "metadata", "store", "stream", "stream_options", "safety_identifier", "prompt_cache_key"}
)
BY_CHANCE = ("/v1/chat/completions", "/v1/completions")  # unless temperature 0 or a seed is asked for


class _SaidTwice(ValueError):
    """A key stands twice in an object: which of them counts, every reader decides by himself."""


def same_as(path: str, content_type: bytes, body: bytes) -> bytes | None:
    """16 bytes that are equal for requests that ask the same; None for one that is like no other.

    path: as the replica gets it, with the query. About 10 µs for a body of 200 bytes.
    """
    if not content_type.lower().startswith(b"application/json") or len(body) > READ_MOST:
        return None
    bare = path.partition("?")[0]
    openai = bare.startswith("/v1/")
    if not (openai or _infers(bare) or bare == "/json"):
        return None
    try:
        asked = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    if openai:
        if not isinstance(asked, dict) or not _certain(bare, asked):
            return None
        asked = {name: value for name, value in asked.items() if name not in NAMES_THE_ASKER}
    elif bare.endswith("/generate") and not _seeded(
        asked.get("parameters") if isinstance(asked, dict) else None
    ):
        return None
    words = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return blake2b(path.encode() + b"\0" + words.encode(), digest_size=16).digest()


def _infers(path: str) -> bool:
    return path.startswith("/v2/models/") and path.endswith(("/infer", "/generate"))


def _certain(path: str, asked: Mapping[str, Any]) -> bool:
    if asked.get("stream"):
        return False
    return path == "/v1/embeddings" or (path in BY_CHANCE and _seeded(asked))


def _seeded(asked: Any) -> bool:
    if not isinstance(asked, Mapping):
        return False
    temperature, seed = asked.get("temperature"), asked.get("seed")
    cold = isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and temperature == 0
    return cold or (isinstance(seed, int) and not isinstance(seed, bool))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise _SaidTwice("a key stands twice")
    return read
