"""Nearness is when two requests differ in their last text alone, and those texts mean about the same.

Invariant: what stands around the text has to be equal, word for word: system prompt, earlier turns, bounds, seed. Only
services whose terms name a least cosine are asked by it, and what is given for it says so. Vectors are of length 1; of
each frame the last `TEXTS_MOST` are remembered.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.gateway.sameness import same_as

TEXTS_MOST = 512  # of one frame
FRAMES_MOST = 2_000
CHARACTERS_MOST = 8_000  # a longer text is a document: two that are near may still be answered differently

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """A request as the text that was asked, and all that stands around it."""

    frame: bytes
    text: str


def framed(path: str, content_type: bytes, body: bytes) -> Framed | None:
    """The last text of a chat or a completion; None for anything that has none, or that is answered by chance."""
    try:
        asked = json.loads(body)
        if path == "/v1/completions":
            text, asked["prompt"] = asked["prompt"], ""
        elif path == "/v1/chat/completions":
            last = asked["messages"][-1]
            if last["role"] != "user":
                return None
            text, last["content"] = last["content"], ""
        else:
            return None
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    if not isinstance(text, str) or not 0 < len(text) <= CHARACTERS_MOST:
        return None
    frame = same_as(path, content_type, json.dumps(asked).encode())
    return None if frame is None else Framed(frame=frame, text=text)


class Nearest:
    """The texts that were asked within each frame, and under which key the answer is kept."""

    def __init__(self) -> None:
        self._frames: OrderedDict[bytes, OrderedDict[bytes, Vector]] = OrderedDict()

    def near(self, frame: bytes, vector: Vector, *, least: float) -> list[bytes]:
        """Keys of texts whose cosine to it is at least `least`, the nearest first. 0.1 ms for 512 texts."""
        texts = self._frames.get(frame)
        if texts is None:
            return []
        cosines = np.stack(list(texts.values())) @ vector
        keys = list(texts)
        return [keys[each] for each in np.argsort(-cosines) if cosines[each] >= least]

    def add(self, frame: bytes, vector: Vector, key: bytes) -> None:
        texts = self._frames.setdefault(frame, OrderedDict())
        self._frames.move_to_end(frame)
        if texts and next(iter(texts.values())).shape != vector.shape:
            texts.clear()  # another model embeds now: its vectors are of another space
        texts[key] = vector
        texts.move_to_end(key)
        if len(texts) > TEXTS_MOST:
            texts.popitem(last=False)
        if len(self._frames) > FRAMES_MOST:
            self._frames.popitem(last=False)

    def forget(self, frame: bytes, key: bytes) -> None:
        texts = self._frames.get(frame)
        if texts is not None and texts.pop(key, None) is not None and not texts:
            del self._frames[frame]


def unit(numbers: Vector) -> Vector | None:
    """Scaled to length 1; None for what has no direction."""
    length = float(np.linalg.norm(numbers))
    return (numbers / length).astype(np.float32) if 0 < length < np.inf else None
