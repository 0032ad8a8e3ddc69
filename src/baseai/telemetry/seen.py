"""Seen is the set of what batches of one hour were called, small enough that an hour of a large fleet fits in memory.

Invariant: a name is its digest of 16 bytes; two names that share one are taken for the same, which among a billion
batches has a chance of one in 10²⁰. Names are added and never leave.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

DIGEST = 16
LOOSE_MAX = 65_536


def digest_of(batch_id: str) -> bytes:
    return hashlib.blake2b(batch_id.encode(), digest_size=DIGEST).digest()


class Seen:
    """16 bytes a name once they are many, instead of the hundred of a set."""

    def __init__(self) -> None:
        self._loose: set[bytes] = set()
        self._packed: NDArray[np.void] = np.zeros(0, dtype=_DIGESTS)

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._loose:
            return True
        if not len(self._packed):
            return False
        wanted = np.frombuffer(digest, dtype=_DIGESTS)
        place = int(np.searchsorted(self._packed["head"], wanted["head"][0]))
        while place < len(self._packed) and self._packed["head"][place] == wanted["head"][0]:
            if self._packed[place] == wanted[0]:
                return True
            place += 1
        return False

    def add(self, digest: bytes) -> None:
        self._loose.add(digest)
        if len(self._loose) > LOOSE_MAX:
            fresh = np.frombuffer(b"".join(self._loose), dtype=_DIGESTS)
            together = np.concatenate((self._packed, fresh))
            self._packed = together[np.argsort(together["head"], kind="stable")]
            self._loose.clear()


_DIGESTS = np.dtype([("head", "<u8"), ("tail", "<u8")])
