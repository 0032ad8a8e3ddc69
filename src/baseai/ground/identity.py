"""An identity is a typed, sortable id: a prefix that names the noun, the millisecond, and chance.

Invariant: ids made later sort later (within a millisecond in any order), and an id is never reused.
Clock and chance are arguments, so that a core can be replayed; `mint` is the only place that reads both.
"""

import hashlib
import secrets
import time
from typing import NewType

RunId = NewType("RunId", str)
AttemptId = NewType("AttemptId", str)
NodeId = NewType("NodeId", str)
LeaseId = NewType("LeaseId", str)
AcceleratorId = NewType("AcceleratorId", str)
TenantId = NewType("TenantId", str)
ProjectId = NewType("ProjectId", str)
SiteId = NewType("SiteId", str)
KeyId = NewType("KeyId", str)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def identity(prefix: str, *, millis: int, chance: int) -> str:
    """`prefix_` + 9 characters of time + 11 of chance (55 bits)."""
    if not 0 <= millis < 1 << 45:
        raise ValueError(f"{millis} ms is outside 45 bits")
    return f"{prefix}_{_base32(millis, 9)}{_base32(chance & ((1 << 55) - 1), 11)}"


def mint(prefix: str) -> str:
    """A new id from the machine's clock and chance: for shells only."""
    return identity(prefix, millis=time.time_ns() // 1_000_000, chance=secrets.randbits(55))


def derived(prefix: str, *facts: object) -> str:
    """The same id for the same facts, for ever: what makes a repeated write harmless."""
    digest = hashlib.sha256("\x1f".join(str(fact) for fact in facts).encode()).digest()
    return f"{prefix}_{_base32(int.from_bytes(digest[:13], 'big') >> 4, 20)}"


def _base32(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
