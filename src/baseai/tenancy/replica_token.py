"""A replica token is what a gateway shows a replica, so that a replica answers its gateway and nobody else.

Invariant: it follows from the platform's key and the id of the replica's run alone, so it is nowhere stored; without
the key nobody makes one, and the token of one run says nothing of another's. Whoever orders a replica tells it its
token, whoever routes requests shows it: both ask here.
"""

import hashlib
import hmac
from functools import lru_cache

from baseai.tenancy.key import key_text

ABOUT = b"baseai replica token 1\0"  # what else is ever signed under the same key begins otherwise


@lru_cache(maxsize=8192)  # gateways ask for those of all replicas whenever they read their routes
def replica_token(key: bytes, run_id: str) -> str:
    """The token of that run's replica, in letters that a header takes. `key`: at least 32 secret bytes."""
    if len(key) < 32:
        raise ValueError("the key of replicas needs 32 bytes")
    return key_text("rpl", hmac.new(key, ABOUT + run_id.encode(), hashlib.sha256).digest())
