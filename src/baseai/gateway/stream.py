"""A stream is an answer of OpenAI's kind that comes as server-sent events.

Invariant: an event goes on in the moment in which it is whole; only an event that has nothing but the usage which the
client did not ask for is kept back. What was served is known at every moment: usage if it was told, else events.
"""

import json
import re

from baseai.gateway.protocol import Usage, usage_of

NULL = re.compile(rb'"usage"\s*:\s*null')  # in each event but the last, with some servers
EVENT_MOST = 4 << 20  # an event longer than this goes on in pieces, unread


class Stream:
    """Reads events as they pass."""

    __slots__ = ("_hides", "_rest", "ended", "events", "usage")

    def __init__(self, *, hides_usage: bool) -> None:
        self._hides = hides_usage
        self._rest = b""  # the beginning of an event whose end has not come
        self.events = 0  # with something for the client to read
        self.usage: Usage | None = None
        self.ended = False  # the last event, [DONE], has passed

    def passed(self, chunk: bytes) -> bytes:
        """What of these bytes, and of those that were waiting, goes to the client now."""
        seen = self._rest + chunk if self._rest else chunk
        end = _end_of_events(seen)
        if end == 0 and len(seen) > EVENT_MOST:
            self._rest = b""
            return seen
        self._rest = seen[end:]
        whole = seen[:end]
        if b'"usage"' not in whole:
            self.events += whole.count(b"data:")
            if b"data: [DONE]" in whole:
                self.events -= 1
                self.ended = True
            return whole
        return b"".join(event for event in _events(whole) if self._goes_on(event))

    def rest(self) -> bytes:
        """What is left when the answer has ended: an event without its empty line."""
        rest, self._rest = self._rest, b""
        return rest

    @property
    def served(self) -> Usage:
        """What the client was given: as told, or one token for each event."""
        return self.usage or Usage(0, self.events)

    def _goes_on(self, event: bytes) -> bool:
        data = _data_of(event)
        if data is None:
            return True
        if data == b"[DONE]":
            self.ended = True
            return True
        if b'"usage"' not in data or (NULL.search(data) and data.count(b'"usage"') == 1):
            self.events += 1
            return True
        try:
            found = json.loads(data)
        except ValueError:
            return True
        usage = usage_of(found.get("usage")) if isinstance(found, dict) else None
        if usage is None:
            self.events += 1
            return True
        self.usage = usage
        if found.get("choices"):
            self.events += 1
            return True
        return not self._hides


def _end_of_events(seen: bytes) -> int:
    """Where the last whole event ends."""
    if seen.endswith((b"\n\n", b"\r\n\r\n")):
        return len(seen)
    plain = seen.rfind(b"\n\n")
    dos = seen.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, dos + 4 if dos >= 0 else 0)


def _events(whole: bytes) -> list[bytes]:
    """Each event with its empty line."""
    mark = b"\r\n\r\n" if b"\r\n\r\n" in whole else b"\n\n"
    return [event + mark for event in whole.split(mark) if event]


def _data_of(event: bytes) -> bytes | None:
    """The data of one event; None for a comment or a name alone."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
