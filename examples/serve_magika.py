"""The callable of serve-magika.yaml: a file's bytes in, what the file is out.

A body that is no JSON comes as bytes, JSON as what it says: here `{"content": "<base64>"}` or `{"text": "..."}`. A
ValueError is answered as the client's mistake.
"""

import base64
import binascii
from typing import Any

from magika import Magika


class FileType:
    """Made once in each replica, then called for each request, several at a time."""

    def __init__(self) -> None:
        self._magika = Magika()
        self(b"def warm_up() -> None: ...\n")

    def __call__(self, body: Any) -> dict[str, Any]:
        """The label of the likeliest type, how sure the model is (0 to 1), and what people and HTTP call it."""
        found = self._magika.identify_bytes(_content(body))
        kind = found.output
        return {
            "label": str(kind.label),
            "score": round(found.score, 4),
            "mime_type": kind.mime_type,
            "group": kind.group,
            "description": kind.description,
            "is_text": kind.is_text,
        }


def _content(body: Any) -> bytes:
    match body:
        case bytes():
            return body
        case {"text": str(text)}:
            return text.encode()
        case {"content": str(letters)}:
            try:
                return base64.b64decode(letters, validate=True)
            except binascii.Error as wrong:
                raise ValueError(f"content is not base64: {wrong}") from wrong
        case _:
            raise ValueError(
                'send the file as it is, or {"content": "<its bytes in base64>"}, or {"text": "..."}'
            )
