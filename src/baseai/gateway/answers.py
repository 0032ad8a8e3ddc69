"""Answers are what one gateway process keeps of its services, each for its time, the least used forgotten first.

Invariant: what a service's answers take never exceeds its terms, nor what all take `EVERYTHING_MOST`. An answer that
is too old is never given. Changed by `put` and by the passing of time.
"""

from collections import OrderedDict
from dataclasses import dataclass

from baseai.gateway.seams import Answer

ENTRY_BYTES = 600  # what an answer takes beside its body and headers, roughly
EVERYTHING_MOST = 512 << 20


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """One answer, since when it is known and until when it may be given. On the path's steady clock."""

    answer: Answer
    since_s: float
    until_s: float
    size: int


class Answers:
    """The answers of one process."""

    def __init__(self, everything_most: int = EVERYTHING_MOST) -> None:
        self._everything_most = everything_most
        self._of: dict[str, OrderedDict[bytes, KeptAnswer]] = {}
        self._sizes: dict[str, int] = {}
        self.size = 0

    def get(self, service_id: str, key: bytes, *, now_s: float) -> KeptAnswer | None:
        """The answer to that question, as the one used last; None when there is none any more."""
        kept = self._of.get(service_id)
        found = None if kept is None else kept.get(key)
        if kept is None or found is None:
            return None
        if found.until_s <= now_s:
            self._forget(service_id, key)
            return None
        kept.move_to_end(key)
        return found

    def put(
        self, service_id: str, key: bytes, answer: Answer, *, since_s: float, until_s: float, most: int
    ) -> bool:
        """Keep it within `most` bytes of its service; whether there was room at all."""
        size = ENTRY_BYTES + len(answer.body) + sum(len(name) + len(value) for name, value in answer.headers)
        if size > min(most, self._everything_most):
            return False
        self._forget(service_id, key)
        kept = self._of.setdefault(service_id, OrderedDict())
        kept[key] = KeptAnswer(answer, since_s, until_s, size)
        self._sizes[service_id] = self._sizes.get(service_id, 0) + size
        self.size += size
        while self._sizes[service_id] > most:
            self._forget(service_id, next(iter(kept)))
        while self.size > self._everything_most:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            self._forget(largest, next(iter(self._of[largest])))
        return True

    def _forget(self, service_id: str, key: bytes) -> None:
        kept = self._of.get(service_id)
        gone = None if kept is None else kept.pop(key, None)
        if kept is None or gone is None:
            return
        self.size -= gone.size
        self._sizes[service_id] -= gone.size
        if not kept:
            del self._of[service_id], self._sizes[service_id]
