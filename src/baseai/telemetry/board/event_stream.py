"""An event stream is what a server sends line by line over one answer that does not end (server-sent events).

Invariant: an event is told when its blank line came, never in part; what is too long is dropped whole and counted. The
last id survives a lost connection, so that the server can be asked to go on behind it.
"""

from dataclasses import dataclass, field

EVENT_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One event as it came."""

    event_id: str
    data: str


@dataclass(slots=True)
class EventStream:
    """Lines become events. One for each listener, over all its connections."""

    last_id: str = ""
    dropped: int = 0
    _tail: bytes = b""
    _lines: list[str] = field(default_factory=list)
    _size: int = 0
    _is_too_long: bool = False
    _id: str = ""

    def fed(self, chunk: bytes) -> list[Sent]:
        """The events that are complete with these bytes."""
        found = []
        *lines, self._tail = (self._tail + chunk).replace(b"\r\n", b"\n").split(b"\n")
        if len(self._tail) > EVENT_BYTES_MAX:
            self._tail, self._is_too_long = b"", True
        for line in lines:
            if line:
                self._take(line)
            elif (event := self._closed()) is not None:
                found.append(event)
        return found

    def reconnected(self) -> None:
        """What was begun on the old connection will not be completed on the new one."""
        self._tail = b""
        self._clear()

    def _take(self, line: bytes) -> None:
        self._size += len(line)
        if self._size > EVENT_BYTES_MAX:
            self._is_too_long = True
            self._lines.clear()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data" and not self._is_too_long:
            self._lines.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _closed(self) -> Sent | None:
        if self._id:
            self.last_id = self._id
        event = None
        if self._is_too_long:
            self.dropped += 1
        elif self._lines:
            event = Sent(event_id=self._id, data="\n".join(self._lines))
        self._clear()
        return event

    def _clear(self) -> None:
        self._lines, self._size, self._is_too_long, self._id = [], 0, False, ""
